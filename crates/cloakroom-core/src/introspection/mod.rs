//! The answer to an introspection request (RFC 7662): whether a token is active, and what it allows.

mod kind;
mod wire;

use std::borrow::Cow;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::ids::{ClientId, GrantId, Jti, Subject, UserId};
use crate::record::{Confirmation, GrantRecord, TokenRecord, token_type};
use crate::revocation::Epoch;
use crate::scope::{Audience, Scope};
use crate::time::UnixTime;

/// The answer to an introspection request. [`Introspection::Inactive`] carries no data, so that it
/// cannot reveal a reason. On the wire it is exactly `{"active":false}` (RFC 7662 §2.2).
///
/// ```
/// use cloakroom_core::Introspection;
///
/// assert_eq!(serde_json::to_string(&Introspection::Inactive).unwrap(), r#"{"active":false}"#);
///
/// let answer: Introspection =
///     serde_json::from_str(r#"{"active":true,"sub":"alice","scope":"orders:read"}"#).unwrap();
/// let token = answer.active().expect("active");
/// assert!(token.scope.contains("orders:read"));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "RFC 7662 has exactly two answers")]
pub enum Introspection {
    /// The token is active.
    Active(Box<ActiveToken>),
    /// The token is unknown, expired, revoked, malformed or not meant for the caller. The answer does
    /// not say which.
    Inactive,
}

impl Introspection {
    /// The token, if it is active.
    #[must_use]
    pub fn active(&self) -> Option<&ActiveToken> {
        match self {
            Self::Active(token) => Some(token),
            Self::Inactive => None,
        }
    }

    /// Whether the token is active.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        matches!(self, Self::Active(_))
    }
}

/// An active token (RFC 7662 §2.2). Times are whole seconds on the wire.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct ActiveToken {
    /// `scope`.
    pub scope: Scope,
    /// `client_id`.
    pub client: Option<ClientId>,
    /// `username`.
    pub username: Option<String>,
    /// `token_type`, such as `Bearer` or `DPoP`.
    pub token_type: Option<Cow<'static, str>>,
    /// `exp`.
    pub expires_at: Option<UnixTime>,
    /// `iat`.
    pub issued_at: Option<UnixTime>,
    /// `nbf`.
    pub not_before: Option<UnixTime>,
    /// `sub`. The member `sub_kind` says `client` where a client acts for itself. Without
    /// `sub_kind`, a `sub` that equals `client_id` is the client.
    pub subject: Option<Subject>,
    /// `aud`.
    pub audience: Option<Audience>,
    /// `iss`.
    pub issuer: Option<Arc<str>>,
    /// `jti`.
    pub jti: Option<Jti>,
    /// `cnf` (RFC 7800).
    pub confirmation: Option<Confirmation>,
    /// `auth_time`.
    pub auth_time: Option<UnixTime>,
    /// `acr`: how the user signed in (RFC 9470 §6).
    pub acr: Option<String>,
    /// `act` (RFC 8693 §4.1).
    pub act: Option<Value>,
    /// `authorization_details` (RFC 9396 §9.2).
    pub authorization_details: Option<Value>,
    /// `sid`.
    pub session: Option<String>,
    /// `grant_id`: the grant that the token belongs to.
    pub grant: Option<GrantId>,
    /// `grant_epoch`: which revocations of its subject and client cover the grant.
    pub epoch: Option<Epoch>,
    /// Claims that the app added, and members that this version does not know.
    pub extra: Map<String, Value>,
}

impl ActiveToken {
    /// The answer for a stored token.
    #[must_use]
    pub fn from_records(issuer: &Arc<str>, grant: &GrantRecord, token: &TokenRecord) -> Self {
        Self {
            scope: token.scope.clone(),
            client: Some(grant.client.clone()),
            username: grant.username.clone().map(String::from),
            token_type: Some(Cow::Borrowed(token_type(token.confirmation.as_ref()))),
            expires_at: Some(token.expires_at),
            issued_at: Some(token.issued_at),
            not_before: None,
            subject: Some(grant.subject.clone()),
            audience: Some(token.audience.clone()),
            issuer: Some(Arc::clone(issuer)),
            jti: Some(Jti::of_handle(&token.digest)),
            confirmation: token.confirmation.clone(),
            auth_time: grant.auth_time,
            acr: grant.acr.clone().map(String::from),
            act: grant.act.as_deref().cloned(),
            authorization_details: grant.authorization_details.as_deref().cloned(),
            session: grant.session.clone().map(String::from),
            grant: Some(grant.id),
            epoch: Some(grant.epoch),
            extra: token.claims.as_ref().unwrap_or(&grant.claims).as_map().clone(),
        }
    }

    fn is_named_like_its_client(&self, user: &UserId) -> bool {
        self.client.as_ref().is_some_and(|client| user.is_named_like(client))
    }

    /// The members of the answer but `active`, in the order of RFC 7662.
    fn members<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        fn put<M: SerializeMap, T: Serialize>(
            map: &mut M,
            name: &'static str,
            value: Option<&T>,
        ) -> Result<(), M::Error> {
            value.map_or(Ok(()), |value| map.serialize_entry(name, value))
        }
        let seconds = |time: Option<UnixTime>| time.map(UnixTime::as_secs);
        put(map, "scope", Some(&self.scope).filter(|scope| !scope.is_empty()))?;
        put(map, "client_id", self.client.as_ref())?;
        put(map, "username", self.username.as_ref())?;
        put(map, "token_type", self.token_type.as_ref())?;
        put(map, "exp", seconds(self.expires_at).as_ref())?;
        put(map, "iat", seconds(self.issued_at).as_ref())?;
        put(map, "nbf", seconds(self.not_before).as_ref())?;
        put(map, "sub", self.subject.as_ref().map(Subject::id).as_ref())?;
        let kind = match &self.subject {
            Some(Subject::Client(_)) => Some("client"),
            // Without the mark, a reader would take the user for the client.
            Some(Subject::User(user)) if self.is_named_like_its_client(user) => Some("user"),
            _ => None,
        };
        put(map, "sub_kind", kind.as_ref())?;
        put(map, "aud", self.audience.as_ref())?;
        put(map, "iss", self.issuer.as_ref())?;
        put(map, "jti", self.jti.as_ref())?;
        put(map, "cnf", self.confirmation.as_ref())?;
        put(map, "auth_time", seconds(self.auth_time).as_ref())?;
        put(map, "acr", self.acr.as_ref())?;
        put(map, "act", self.act.as_ref())?;
        put(map, "authorization_details", self.authorization_details.as_ref())?;
        put(map, "sid", self.session.as_ref())?;
        put(map, "grant_id", self.grant.as_ref())?;
        put(map, "grant_epoch", self.epoch.as_ref())?;
        let is_written = |name: &str| {
            name == "sub_kind" && kind.is_some() || name == "acr" && self.acr.is_some()
        };
        self.extra
            .iter()
            .filter(|(name, _)| !is_written(name))
            .try_for_each(|(name, value)| map.serialize_entry(name, value))
    }
}

impl Serialize for ActiveToken {
    /// Writes the members without `active`, as the claims of a JWT.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.members(&mut map)?;
        map.end()
    }
}

impl Serialize for Introspection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("active", &self.is_active())?;
        if let Self::Active(token) = self {
            token.members(&mut map)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests;
