//! The commands. Each reads its arguments, calls the library, and prints the result.

pub(crate) mod doctor;
pub(crate) mod grants;
pub(crate) mod keys;
pub(crate) mod maintain;
pub(crate) mod migrate;
pub(crate) mod restore;
pub(crate) mod sessions;
pub(crate) mod tokens;

use std::sync::Arc;

use cloakroom::{Client, Issuer, IssuerBuilder};

use crate::args::Global;
use crate::failure::Failure;
use crate::output::Output;
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::store::{Place, Store};

/// The options of every command.
pub(crate) struct Context {
    global: Global,
    pub(crate) output: Output,
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        let output = Output { json: global.json };
        Self { global, output }
    }

    pub(crate) fn place(&self) -> Result<Place, Failure> {
        Place::of(&self.global)
    }

    /// A builder with the settings and secrets that are given, over this store.
    pub(crate) fn builder(&self, store: &Store) -> Result<IssuerBuilder, Failure> {
        let url = self.global.issuer.as_deref().ok_or_else(|| {
            Failure::usage(
                "no issuer is named: give the URL of your authorization server with --issuer or \
                 in CLOAKROOM_ISSUER",
            )
        })?;
        let settings = Settings::load(self.global.settings.as_deref())?;
        let secrets = Secrets::load(self.global.secrets_file.as_deref())?;
        let mut builder = settings.apply(
            Issuer::builder(url)
                .token_store(Arc::clone(&store.tokens))
                .key_store(Arc::clone(&store.keys)),
        )?;
        if let Some(mut handles) = secrets.handle_keys()? {
            for id in &settings.retired_handle_secrets {
                handles = handles.with_retired(*id)?;
            }
            builder = builder.handle_keys(handles);
        }
        if let Some(sealer) = secrets.sealer()? {
            builder = builder.sealer(Arc::new(sealer));
        }
        Ok(builder)
    }

    /// The issuer over the store, which must be one that an issuer has used.
    pub(crate) async fn issuer(&self) -> Result<Issuer, Failure> {
        let store = self.place()?.open().await?;
        store.expect_issuer().await?;
        // Nothing is issued here, so any client will do.
        let builder = self
            .builder(&store)?
            .static_clients([Client::public("operator")])
            .map_err(|error| Failure::of(&error))?;
        builder.build().await.map_err(|error| {
            let failure = Failure::from(error);
            match failure.text.contains("is missing: call") {
                true => Failure::usage(
                    "a secret of the servers is missing: set CLOAKROOM_HANDLE_SECRET and \
                     CLOAKROOM_SEALING_KEY, or give a --secrets-file",
                ),
                false => failure,
            }
        })
    }
}
