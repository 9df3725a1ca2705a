//! Checks that the stores belong to the issuer and its secrets, when the issuer is built.
//!
//! The token store holds the issuer's URL (`issuer`), and for each handle secret (`handle-key/1`)
//! either a check value or a note that the secret was retired. The key store holds the issuer's URL
//! and the check values of the key-encryption keys; the key manager checks the latter.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use cloakroom_core::TokenSecret;
use cloakroom_core::handle::HandleKeys;
use cloakroom_core::keys::KeyStore;
use cloakroom_core::store::{CheckValue, CheckValues, StoreError, TokenStore};

use crate::error::{BuildError, TokenError};
use crate::issuer::checks::refused;
use crate::write::Store;

const HANDLE_KEY: &str = "handle-key/";

/// Replaces the check value of a secret that was given up.
const RETIRED: &[u8] = b"retired";

/// How many lost races end the attempt.
const MAX_RACES: usize = 16;

/// The issuer that wants to use the stores.
pub(crate) struct Owner<'a> {
    pub(crate) url: &'a str,
    /// The issuer's URLs before it was renamed.
    pub(crate) former: &'a [String],
    pub(crate) handles: &'a HandleKeys,
}

impl Owner<'_> {
    /// Compares the check values of both stores with the settings, and writes the missing ones. If
    /// a value differs, nothing is written.
    ///
    /// # Errors
    ///
    /// If a setting differs, or if a store fails.
    pub(crate) async fn claim(
        &self,
        tokens: &dyn TokenStore,
        keys: &dyn KeyStore,
    ) -> Result<(), BuildError> {
        // Nodes that start at the same time write the same values. A node that loses a race reads
        // again.
        for _ in 0..MAX_RACES {
            let mut of_tokens = self.issuer("the token store", &load(tokens).await?)?;
            of_tokens.extend(self.handle_keys(&load(tokens).await?)?);
            let of_keys = self.issuer("the key store", &load(keys).await?)?;
            if write(tokens, of_tokens).await? && write(keys, of_keys).await? {
                return Ok(());
            }
        }
        let why = "other nodes keep changing them";
        Err(StoreError::unavailable("writing the check values", why).into())
    }

    /// Compares the check values of both stores with the settings, and writes nothing.
    ///
    /// # Errors
    ///
    /// If a store fails.
    pub(crate) async fn compare(
        &self,
        tokens: &dyn TokenStore,
        keys: Option<&dyn KeyStore>,
    ) -> Result<Compared, StoreError> {
        let of_tokens = load(tokens).await?;
        let mut issuer = self.issuer("the token store", &of_tokens);
        if let (Ok(changes), Some(keys)) = (&mut issuer, keys) {
            match self.issuer("the key store", &load(keys).await?) {
                Ok(more) => changes.extend(more),
                refused => issuer = refused,
            }
        }
        let is_same = |changes: Vec<Change>| changes.is_empty();
        let handle_keys = self.handle_keys(&of_tokens).map(is_same);
        Ok(Compared { issuer: issuer.map(is_same), handle_keys })
    }

    /// The missing value of the issuer.
    fn issuer(&self, store: &str, known: &Values) -> Result<Vec<Change>, BuildError> {
        if let Some(tenant) = known.keys().find_map(|name| name.strip_prefix(CheckValue::TENANTS)) {
            let tenant = tenant.split('/').next().unwrap_or_default();
            let why = format!(
                "{store} holds tenants, such as `{tenant}`: give the issuer one of them with \
                 `TenantStore::new(store, \"{tenant}\")`, or another store"
            );
            return Err(refused("store", why));
        }
        match known.get(CheckValue::ISSUER) {
            Some(found) if found == self.url.as_bytes() => Ok(Vec::new()),
            Some(found) if !self.former.iter().any(|url| url.as_bytes() == found) => {
                let (url, found) = (self.url, String::from_utf8_lossy(found));
                let why = format!(
                    "{store} belongs to the issuer `{found}`, not to `{url}`: correct the URL, or \
                     give this issuer another store or a tenant (`TenantStore`). If you renamed \
                     the issuer, add `former_issuer(\"{found}\")`"
                );
                Err(refused("issuer", why))
            }
            found => Ok(vec![Change {
                name: CheckValue::ISSUER.to_owned(),
                expected: found.cloned(),
                value: self.url.as_bytes().to_vec(),
            }]),
        }
    }

    /// The missing values of the handle secrets.
    fn handle_keys(&self, known: &Values) -> Result<Vec<Change>, BuildError> {
        let refused = |why| Err(refused("handle_keys", why));
        let mut changes = Vec::new();
        for (id, check) in self.handles.checks() {
            let name = format!("{HANDLE_KEY}{id}");
            match known.get(&name) {
                None => changes.push(Change { name, expected: None, value: check.to_vec() }),
                Some(found) if found == RETIRED => {
                    return refused(format!(
                        "the handle secret {id} was retired (`with_retired({id})`), and its id \
                         must not be used again: use the next id for a new secret"
                    ));
                }
                Some(found) if *found != check => {
                    return refused(format!(
                        "the handle secret {id} is not the one that the token store was set up \
                         with, and every session would end. Use the same secret again. To replace \
                         it, give the new secret the next id and keep the old one with \
                         `with_former`"
                    ));
                }
                Some(_) => {}
            }
        }
        for (name, found) in known.iter().filter(|(_, found)| *found != RETIRED) {
            let id = name.strip_prefix(HANDLE_KEY).and_then(|id| id.parse::<u8>().ok());
            let Some(id) = id.filter(|id| self.handles.checks().all(|(own, _)| own != *id)) else {
                continue;
            };
            if !self.handles.retired().contains(&id) {
                return refused(format!(
                    "other nodes have the handle secret {id}, which is missing here, and the \
                     sessions under it would end. Add it with `with_former`. To retire it, call \
                     `with_retired({id})`"
                ));
            }
            let expected = Some(found.clone());
            changes.push(Change { name: name.clone(), expected, value: RETIRED.to_vec() });
        }
        Ok(changes)
    }
}

/// Whether the store has exactly the values of the settings. `false` if values are missing that
/// [`Owner::claim`] would write; an error if it would refuse the settings.
pub(crate) struct Compared {
    pub(crate) issuer: Result<bool, BuildError>,
    pub(crate) handle_keys: Result<bool, BuildError>,
}

type Values = BTreeMap<String, Vec<u8>>;

/// A check value to be written in place of `expected`.
struct Change {
    name: String,
    expected: Option<Vec<u8>>,
    value: Vec<u8>,
}

async fn load<S: CheckValues + ?Sized>(store: &S) -> Result<Values, StoreError> {
    let values = store.check_values().await?;
    Ok(values.into_iter().map(|value| (value.name, value.value)).collect())
}

/// Whether all values were written; `false` if another node was faster.
async fn write<S: CheckValues + ?Sized>(
    store: &S,
    changes: Vec<Change>,
) -> Result<bool, StoreError> {
    for Change { name, expected, value } in changes {
        if !store.set_check_value(&name, expected.as_deref(), Some(&value)).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The handle secrets that the store knows and this node may lack. A handle of an unknown secret
/// makes the node read them again; requests that wait share one read.
#[derive(Debug)]
pub(crate) struct ForeignKeys {
    handles: HandleKeys,
    store: Store,
    /// How many reads were begun.
    begun: AtomicU64,
    last: tokio::sync::Mutex<LastRead>,
}

#[derive(Debug, Default)]
struct LastRead {
    /// Its number.
    read: u64,
    /// The ids that it found in use; `None` if it failed.
    ids: Option<Vec<u8>>,
}

impl ForeignKeys {
    pub(crate) fn new(handles: HandleKeys, store: Store) -> Self {
        Self { handles, store, begun: AtomicU64::new(0), last: tokio::sync::Mutex::default() }
    }

    /// Checks that a token which this node does not recognize was not made under the handle secret
    /// of another node.
    ///
    /// A new handle secret reaches one node after the other. A node that does not have it yet
    /// cannot check what the others make under it, and must not call it forged. A client that
    /// invents the id of a secret makes the node read the check values, one read at a time.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unavailable`] if the token was made under a secret that other nodes have, or
    /// if the store fails.
    pub(crate) async fn check(&self, token: &TokenSecret) -> Result<(), TokenError> {
        let Some(id) = self.handles.unknown_key(token.expose()) else { return Ok(()) };
        let arrived = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        // A read that began before this token arrived may have missed its secret.
        if last.read <= arrived {
            let read = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            *last = LastRead { read, ids: None };
            let values = self.store.check_values().await?;
            let in_use = values.iter().filter(|known| known.value != RETIRED);
            let ids = in_use.filter_map(|known| known.name.strip_prefix(HANDLE_KEY)?.parse().ok());
            last.ids = Some(ids.collect());
        }
        match &last.ids {
            Some(ids) if !ids.contains(&id) => Ok(()),
            Some(_) => {
                tracing::error!(
                    key = id,
                    "a handle was made under a secret that this node does not have: add it to the \
                     handle keys of this node; give a new secret to every node before one of them \
                     makes it current"
                );
                Err(TokenError::Unavailable("this node does not have the handle's secret"))
            }
            None => Err(TokenError::Unavailable("the store's check values cannot be read")),
        }
    }
}
