//! The answer to an introspection request (RFC 7662): whether a token is active, and what it allows.

use std::borrow::Cow;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
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
            username: grant.username.clone(),
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
            act: grant.act.clone(),
            authorization_details: grant.authorization_details.clone(),
            session: grant.session.clone(),
            grant: Some(grant.id),
            epoch: Some(grant.epoch),
            extra: grant.claims.as_map().clone(),
        }
    }

    fn is_named_like_its_client(&self, user: &UserId) -> bool {
        self.client.as_ref().is_some_and(|client| client.as_str() == user.as_str())
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
        put(map, "act", self.act.as_ref())?;
        put(map, "authorization_details", self.authorization_details.as_ref())?;
        put(map, "sid", self.session.as_ref())?;
        put(map, "grant_id", self.grant.as_ref())?;
        put(map, "grant_epoch", self.epoch.as_ref())?;
        self.extra.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))
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

#[derive(Deserialize)]
struct Wire {
    active: Option<bool>,
    #[serde(default)]
    scope: Scope,
    client_id: Option<ClientId>,
    username: Option<String>,
    token_type: Option<Cow<'static, str>>,
    exp: Option<u64>,
    iat: Option<u64>,
    nbf: Option<u64>,
    sub: Option<String>,
    sub_kind: Option<String>,
    aud: Option<Audience>,
    iss: Option<Arc<str>>,
    jti: Option<Jti>,
    cnf: Option<Confirmation>,
    auth_time: Option<u64>,
    act: Option<Value>,
    authorization_details: Option<Value>,
    sid: Option<String>,
    grant_id: Option<GrantId>,
    grant_epoch: Option<Epoch>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl<'de> Deserialize<'de> for Introspection {
    /// Reads the answer of any RFC 7662 server. A member of the wrong type is an error and is never
    /// ignored: a `cnf` of an unknown kind must not turn a bound token into a bearer token.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        match wire.active {
            None => Err(serde::de::Error::missing_field("active")),
            Some(false) => Ok(Self::Inactive),
            Some(true) => Ok(Self::Active(Box::new(wire.token()?))),
        }
    }
}

impl<'de> Deserialize<'de> for ActiveToken {
    /// Reads the claims of a JWT, as strictly as it reads an introspection answer.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Wire::deserialize(deserializer)?.token()
    }
}

impl Wire {
    fn token<E: serde::de::Error>(self) -> Result<ActiveToken, E> {
        let subject = match (self.sub, self.sub_kind.as_deref()) {
            (None, _) => None,
            (Some(id), Some("client")) => Some(Subject::client(id)),
            // RFC 9068 §2.2: where no resource owner is involved, `sub` names the client. A foreign
            // server sends no `sub_kind`, so there is no other sign of it.
            (Some(id), None) if self.client_id.as_ref().is_some_and(|own| own.as_str() == id) => {
                Some(Subject::client(id))
            }
            (Some(id), _) => Some(Subject::user(id)),
        };
        Ok(ActiveToken {
            scope: self.scope,
            client: self.client_id,
            username: self.username,
            token_type: self.token_type,
            expires_at: self.exp.map(UnixTime::from_secs),
            issued_at: self.iat.map(UnixTime::from_secs),
            not_before: self.nbf.map(UnixTime::from_secs),
            subject: subject.transpose().map_err(E::custom)?,
            audience: self.aud,
            issuer: self.iss,
            jti: self.jti,
            confirmation: self.cnf,
            auth_time: self.auth_time.map(UnixTime::from_secs),
            act: self.act,
            authorization_details: self.authorization_details,
            session: self.sid,
            grant: self.grant_id,
            epoch: self.grant_epoch,
            extra: self.extra,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::test_records::{grant, token};

    #[test]
    fn inactive_is_nothing_but_inactive() {
        assert_eq!(serde_json::to_string(&Introspection::Inactive).unwrap(), r#"{"active":false}"#);
        let chatty = json!({"active": false, "sub": "alice", "exp": "junk-is-not-read"});
        assert!(serde_json::from_value::<Introspection>(chatty).is_err(), "junk is an error");
        let chatty = json!({"active": false, "sub": "alice"});
        assert_eq!(
            serde_json::from_value::<Introspection>(chatty).unwrap(),
            Introspection::Inactive
        );
    }

    #[test]
    fn an_active_answer_survives_the_wire() {
        let grant = grant(1);
        let token = token(grant.id, 1);
        let active = ActiveToken::from_records(&"https://as.example".into(), &grant, &token);
        let answer = Introspection::Active(Box::new(active));
        let json = serde_json::to_value(&answer).unwrap();
        assert_eq!(json["active"], json!(true));
        assert_eq!(json["sub"], json!("alice"));
        assert_eq!(json["exp"], json!(token.expires_at.as_secs()));
        assert_eq!(serde_json::from_value::<Introspection>(json).unwrap(), answer);
    }

    #[test]
    fn a_client_is_not_a_user_of_the_same_name() {
        let grant = GrantRecord { subject: Subject::client("alice").unwrap(), ..grant(1) };
        let token = token(grant.id, 1);
        let active = ActiveToken::from_records(&"https://as.example".into(), &grant, &token);
        let json = serde_json::to_value(Introspection::Active(Box::new(active))).unwrap();
        assert_eq!(json["sub_kind"], json!("client"));
        let read: Introspection = serde_json::from_value(json).unwrap();
        assert_eq!(read.active().unwrap().subject, Some(grant.subject));

        // A user who is called like the client stays a user.
        let grant = GrantRecord {
            subject: Subject::user("web-app").unwrap(),
            ..crate::test_records::grant(1)
        };
        let active = ActiveToken::from_records(&"https://as.example".into(), &grant, &token);
        let json = serde_json::to_value(Introspection::Active(Box::new(active))).unwrap();
        let read: Introspection = serde_json::from_value(json).unwrap();
        assert_eq!(read.active().unwrap().subject, Some(grant.subject));

        // A foreign server has no mark.
        let foreign = json!({"active": true, "sub": "job", "client_id": "job"});
        let read: Introspection = serde_json::from_value(foreign).unwrap();
        assert_eq!(read.active().unwrap().subject, Some(Subject::client("job").unwrap()));
    }

    #[test]
    fn members_of_the_wrong_type_are_errors() {
        for bad in [
            json!({}),
            json!({"active": "true"}),
            json!({"active": true, "exp": "1700000000"}),
            json!({"active": true, "exp": 1.5}),
            json!({"active": true, "exp": -1}),
            json!({"active": true, "cnf": {"kid": "unknown"}}),
            json!({"active": true, "aud": []}),
            json!({"active": true, "sub": ["a"]}),
        ] {
            assert!(serde_json::from_value::<Introspection>(bad.clone()).is_err(), "{bad}");
        }
    }
}
