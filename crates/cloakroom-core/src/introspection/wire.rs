//! Reading what servers say of a token: ours, and those of others.
//!
//! A member that decides whether a token may be used is read, or the whole is an error: a `cnf` of
//! an unknown kind must not turn a bound token into a bearer token. `null` is what a member that is
//! left out is. A private member that only happens to have one of our names is the app's.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

use crate::ids::{ClientId, GrantId, Subject};
use crate::introspection::{ActiveToken, Introspection};
use crate::record::Confirmation;
use crate::revocation::Epoch;
use crate::scope::{Audience, Scope};
use crate::time::UnixTime;

/// Every integer up to here has a floating point number of its own (RFC 8259 §6).
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// The members of a JSON object, each taken once.
struct Members(Map<String, Value>);

/// What is wrong with a member.
type Wrong = String;

impl<'de> Deserialize<'de> for Members {
    /// A member that occurs twice is an error: two readers would see two tokens.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("`{name}` occurs twice")));
                    }
                    members.insert(name, value);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

impl Members {
    /// RFC 7519 §4 and RFC 7662 §2.2 know no `null`: servers write it where they have nothing.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    fn read<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Wrong> {
        let value = self.take(name).map(T::deserialize).transpose();
        value.map_err(|error| format!("`{name}`: {error}"))
    }

    /// A member of ours, if it is what we write. If not, it is somebody else's, and stays.
    fn read_own<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let read = T::deserialize(self.0.get(name)?).ok()?;
        self.0.remove(name);
        Some(read)
    }

    /// A `NumericDate`: a JSON number of seconds, with or without a fraction (RFC 7519 §2).
    fn time(&mut self, name: &str, round: fn(f64) -> f64) -> Result<Option<UnixTime>, Wrong> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Number(number)) => match seconds(&number, round) {
                Some(seconds) => Ok(Some(UnixTime::from_secs(seconds))),
                None => Err(format!("`{name}` is no time: {number}")),
            },
            Some(_) => Err(format!("`{name}` is no number")),
        }
    }

    /// Scopes: separated by blanks (RFC 6749 §3.3) or, as some servers write them, in an array. A
    /// blank too many changes nothing.
    fn scope(&mut self) -> Result<Scope, Wrong> {
        let wrong = |error| format!("`scope`: {error}");
        let parts = match self.take("scope") {
            None => return Ok(Scope::empty()),
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(parts)) => parts
                .into_iter()
                .map(|part| match part {
                    Value::String(text) => Ok(text),
                    _ => Err("`scope` holds something else than text".to_owned()),
                })
                .collect::<Result<_, _>>()?,
            Some(_) => return Err("`scope` is neither text nor an array".to_owned()),
        };
        let names: Vec<&str> = parts.iter().flat_map(|part| part.split(' ')).collect();
        let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
        Scope::parse(&names.join(" ")).map_err(|error| wrong(error.to_string()))
    }

    /// An audience; an empty array names none.
    fn audience(&mut self) -> Result<Option<Audience>, Wrong> {
        match self.take("aud") {
            None => Ok(None),
            Some(Value::Array(list)) if list.is_empty() => Ok(None),
            Some(value) => {
                Audience::deserialize(value).map(Some).map_err(|error| format!("`aud`: {error}"))
            }
        }
    }

    fn subject(&mut self, client: Option<&ClientId>) -> Result<Option<Subject>, Wrong> {
        let kind = self.0.get("sub_kind").and_then(Value::as_str);
        let kind = kind.and_then(|kind| ["client", "user"].into_iter().find(|own| *own == kind));
        if kind.is_some() {
            self.0.remove("sub_kind");
        }
        let Some(id) = self.read::<String>("sub")? else { return Ok(None) };
        let is_client = match kind {
            Some(kind) => kind == "client",
            // RFC 9068 §2.2: where no resource owner is involved, `sub` names the client. A server
            // that says no more than that leaves nothing else to go by.
            None => client.is_some_and(|client| client.as_str() == id),
        };
        let subject = if is_client { Subject::client(id) } else { Subject::user(id) };
        subject.map(Some).map_err(|error| format!("`sub`: {error}"))
    }

    fn token(mut self) -> Result<ActiveToken, Wrong> {
        let client = self.read("client_id")?;
        let subject = self.subject(client.as_ref())?;
        let expires_at = self.time("exp", f64::floor)?;
        let confirmation: Option<Confirmation> = self.read("cnf")?;
        Ok(ActiveToken {
            scope: self.scope()?,
            client,
            username: self.read("username")?,
            token_type: self.read("token_type")?,
            // Rounded so that nothing lives longer.
            expires_at,
            issued_at: self.time("iat", f64::ceil)?,
            not_before: self.time("nbf", f64::ceil)?,
            subject,
            audience: self.audience()?,
            issuer: self.read::<String>("iss")?.map(Arc::from),
            jti: self.read("jti")?,
            confirmation,
            auth_time: self.time("auth_time", f64::floor)?,
            act: self.take("act"),
            authorization_details: self.take("authorization_details"),
            session: self.read("sid")?,
            grant: self.read_own::<GrantId>("grant_id"),
            epoch: self.read_own::<Epoch>("grant_epoch"),
            extra: self.0,
        })
    }
}

fn seconds(number: &Number, round: fn(f64) -> f64) -> Option<u64> {
    if let Some(seconds) = number.as_u64() {
        return Some(seconds);
    }
    let seconds = number.as_f64().filter(|seconds| *seconds >= 0.0).map(round)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    (0.0..=MAX_EXACT).contains(&seconds).then_some(seconds as u64)
}

impl<'de> Deserialize<'de> for Introspection {
    /// Reads the answer of any RFC 7662 server. `active` comes first: where it is false, nothing
    /// else is looked at.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Members::deserialize(deserializer)?;
        match members.take("active") {
            None => Err(D::Error::missing_field("active")),
            Some(Value::Bool(false)) => Ok(Self::Inactive),
            Some(Value::Bool(true)) => {
                members.token().map(|token| Self::Active(Box::new(token))).map_err(D::Error::custom)
            }
            Some(_) => Err(D::Error::custom("`active` is no boolean")),
        }
    }
}

impl<'de> Deserialize<'de> for ActiveToken {
    /// Reads the claims of a JWT as an introspection answer is read.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Members::deserialize(deserializer)?;
        // It is no claim: an answer about the token would hold it twice.
        members.0.remove("active");
        members.token().map_err(D::Error::custom)
    }
}
