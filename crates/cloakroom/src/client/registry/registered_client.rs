//! A client that registered itself (RFC 7591).

use cloakroom_core::ClientId;
use cloakroom_core::time::UnixTime;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::client::Client;
use crate::client::builder::ClientBuilder;
use crate::client::metadata::{grant_types, name, text, texts};
use crate::client::registration::GrantType;
use crate::client::secret_hash::SecretHash;
use crate::client::uris::redirect_fault;

/// The most redirect URIs of a client.
const MAX_REDIRECT_URIS: usize = 16;
/// The members that are kept, beside those that the server decides about.
const KEPT: [&str; 8] = [
    "client_name",
    "client_uri",
    "logo_uri",
    "tos_uri",
    "policy_uri",
    "contacts",
    "software_id",
    "software_version",
];

/// A client as it registered itself (RFC 7591): what your database keeps. Secrets are in it as hashes only.
/// It serializes with serde, for a column of text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisteredClient {
    id: ClientId,
    created_at: UnixTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<SecretHash>,
    /// The hash of the registration access token (RFC 7592 §3).
    access: SecretHash,
    metadata: Map<String, Value>,
}

/// Why metadata cannot be registered, with the code of RFC 7591 §3.2.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetadataFault {
    pub(crate) code: &'static str,
    pub(crate) why: String,
}

impl From<String> for MetadataFault {
    fn from(why: String) -> Self {
        Self { code: "invalid_client_metadata", why }
    }
}

impl RegisteredClient {
    /// Reads metadata. The secret is set afterwards, if [`authenticates`](Self::authenticates).
    pub(crate) fn read(
        id: ClientId,
        created_at: UnixTime,
        access: SecretHash,
        members: &Map<String, Value>,
    ) -> Result<Self, MetadataFault> {
        let grants: Vec<&str> = grant_types(members)?.into_iter().map(GrantType::as_str).collect();
        let name = name(members)?;
        // RFC 7591 §2: "If unspecified or omitted, the default is "client_secret_basic"".
        let method = text(members, "token_endpoint_auth_method")?.unwrap_or("client_secret_basic");
        if !["none", "client_secret_basic", "client_secret_post"].contains(&method) {
            return Err("its token_endpoint_auth_method is not supported".to_owned().into());
        }
        let redirect_uris = texts(members, "redirect_uris")?.unwrap_or_default();
        let fault = match redirect_uris.len() {
            0 => Some("it has no redirect_uris"),
            1..=MAX_REDIRECT_URIS => redirect_uris.iter().find_map(|uri| redirect_fault(uri)),
            _ => Some("it has too many redirect_uris"),
        };
        if let Some(why) = fault {
            return Err(MetadataFault { code: "invalid_redirect_uri", why: why.into() });
        }
        let mut metadata: Map<String, Value> = members
            .iter()
            .filter(|(name, value)| KEPT.contains(&name.as_str()) && !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        for (member, value) in [
            ("redirect_uris", Value::from(redirect_uris)),
            ("grant_types", grants.into()),
            ("response_types", vec!["code"].into()),
            ("token_endpoint_auth_method", method.into()),
        ] {
            metadata.insert(member.into(), value);
        }
        if let Some(name) = name {
            metadata.insert("client_name".into(), name.into());
        }
        Ok(Self { id, created_at, secret: None, access, metadata })
    }

    /// The identifier, which the server chose.
    #[must_use]
    pub const fn id(&self) -> &ClientId {
        &self.id
    }

    /// When it registered.
    #[must_use]
    pub const fn created_at(&self) -> UnixTime {
        self.created_at
    }

    /// A member of the metadata, such as `client_name` or `redirect_uris`. Nobody has confirmed what it
    /// says.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.metadata.get(name)
    }

    /// A builder with what the client said about itself: its identifier, name, redirect URIs, grant types and secret.
    /// Add a scope and an audience.
    pub fn builder(&self) -> ClientBuilder {
        let client = match &self.secret {
            Some(secret) => Client::hashed(&self.id, [*secret]),
            None => Client::public(&self.id),
        };
        let name = self.metadata.get("client_name").and_then(Value::as_str);
        let client = name.into_iter().fold(client, ClientBuilder::name);
        let client = self.each("redirect_uris").fold(client, ClientBuilder::redirect_uri);
        client.grant_types(self.each("grant_types").filter_map(|name| name.parse().ok()))
    }

    fn each(&self, member: &str) -> impl Iterator<Item = &str> {
        let all = self.metadata.get(member).and_then(Value::as_array);
        all.into_iter().flatten().filter_map(Value::as_str)
    }

    /// Whether it is a confidential client, which has a secret.
    pub(crate) fn authenticates(&self) -> bool {
        self.member("token_endpoint_auth_method").is_some_and(|method| method != "none")
    }

    pub(crate) const fn set_secret(&mut self, secret: Option<SecretHash>) {
        self.secret = secret;
    }

    pub(crate) const fn secret(&self) -> Option<SecretHash> {
        self.secret
    }

    pub(crate) const fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// Whether this is the token that may change the registration (RFC 7592).
    pub(crate) fn is_managed_by(&self, token: &str) -> bool {
        self.access.matches(&SecretHash::presented(token)).into()
    }

    pub(crate) const fn access(&self) -> SecretHash {
        self.access
    }
}
