//! Reads the introspection responses of Cloakroom and of other servers.
//!
//! If a member that decides whether a token may be used cannot be read, the whole response is an
//! error: a `cnf` of an unknown kind must not turn a bound token into a bearer token. `null` means
//! absent. A private member that has one of Cloakroom's names but another form belongs to the app.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::ids::{ClientId, Jti, Subject};
use crate::introspection::{ActiveToken, Introspection};
use crate::record::Confirmation;
use crate::scope::{Audience, Scope};
use crate::time::UnixTime;

/// Every integer up to here has a floating point number of its own (RFC 8259 §6).
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// A `NumericDate`: a JSON number of seconds, with or without a fraction (RFC 7519 §2).
#[derive(Clone, Copy)]
enum Seconds {
    Whole(u64),
    Broken(f64),
}

impl Seconds {
    fn round(self, round: fn(f64) -> f64) -> UnixTime {
        match self {
            Self::Whole(seconds) => UnixTime::from_secs(seconds),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it was in range when it was read"
            )]
            Self::Broken(seconds) => UnixTime::from_secs(round(seconds) as u64),
        }
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Seconds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time in seconds")
            }

            fn visit_u64<E>(self, seconds: u64) -> Result<Seconds, E> {
                Ok(Seconds::Whole(seconds))
            }

            fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<Seconds, E> {
                if (0.0..MAX_EXACT).contains(&seconds) {
                    Ok(Seconds::Broken(seconds))
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Float(seconds), &self))
                }
            }
        }

        deserializer.deserialize_any(Number)
    }
}

/// One string or several.
enum Strings<'a> {
    One(Cow<'a, str>),
    Several(Vec<String>),
}

impl<'de> Deserialize<'de> for Strings<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;

        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Strings<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E>(self, text: &str) -> Result<Strings<'de>, E> {
                Ok(Strings::One(Cow::Owned(text.to_owned())))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Strings<'de>, E> {
                Ok(Strings::One(Cow::Borrowed(text)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Strings<'de>, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Strings::Several)
            }
        }

        deserializer.deserialize_any(OneOrSeveral)
    }
}

impl Strings<'_> {
    /// Scopes: separated by blanks (RFC 6749 §3.3) or, at some servers, in an array. Extra blanks
    /// change nothing.
    fn scope(&self) -> Result<Scope, String> {
        let wrong = |error| format!("`scope`: {error}");
        if let Self::One(text) = self
            && let Ok(scope) = Scope::parse(text)
        {
            return Ok(scope);
        }
        let parts: Vec<&str> = match self {
            Self::One(text) => vec![text],
            Self::Several(parts) => parts.iter().map(String::as_str).collect(),
        };
        let names = parts.iter().flat_map(|part| part.split(' ')).filter(|name| !name.is_empty());
        Scope::parse(&names.collect::<Vec<_>>().join(" ")).map_err(|error| wrong(error.to_string()))
    }

    /// An audience; an empty array names none.
    fn audience(self) -> Result<Option<Audience>, String> {
        let audience = match self {
            Self::One(resource) => Audience::one(&*resource),
            Self::Several(resources) if resources.is_empty() => return Ok(None),
            Self::Several(resources) => Audience::new(resources),
        };
        audience.map(Some).map_err(|error| format!("`aud`: {error}"))
    }
}

/// The members that are read, and all others.
#[derive(Default)]
struct Members<'a> {
    scope: Option<Strings<'a>>,
    client_id: Option<ClientId>,
    username: Option<String>,
    token_type: Option<Cow<'static, str>>,
    exp: Option<Seconds>,
    iat: Option<Seconds>,
    nbf: Option<Seconds>,
    sub: Option<String>,
    aud: Option<Strings<'a>>,
    iss: Option<Arc<str>>,
    jti: Option<Jti>,
    cnf: Option<Confirmation>,
    auth_time: Option<Seconds>,
    act: Option<Value>,
    authorization_details: Option<Value>,
    sid: Option<String>,
    extra: Map<String, Value>,
}

/// The names of the members that are read.
const NAMES: [&str; 17] = [
    "active",
    "scope",
    "client_id",
    "username",
    "token_type",
    "exp",
    "iat",
    "nbf",
    "sub",
    "aud",
    "iss",
    "jti",
    "cnf",
    "auth_time",
    "act",
    "authorization_details",
    "sid",
];

impl<'a> Members<'a> {
    /// Reads the value of the member of this name.
    fn read<'de: 'a, A: MapAccess<'de>>(
        &mut self,
        name: usize,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match NAMES[name] {
            // It is not a claim: an answer about the token would hold it twice.
            "active" => {
                map.next_value::<IgnoredAny>()?;
            }
            "scope" => self.scope = map.next_value()?,
            "client_id" => self.client_id = map.next_value()?,
            "username" => self.username = map.next_value()?,
            "token_type" => self.token_type = map.next_value()?,
            "exp" => self.exp = map.next_value()?,
            "iat" => self.iat = map.next_value()?,
            "nbf" => self.nbf = map.next_value()?,
            "sub" => self.sub = map.next_value()?,
            "aud" => self.aud = map.next_value()?,
            "iss" => self.iss = map.next_value()?,
            "jti" => self.jti = map.next_value()?,
            "cnf" => self.cnf = map.next_value()?,
            "auth_time" => self.auth_time = map.next_value()?,
            "act" => self.act = map.next_value()?,
            "authorization_details" => self.authorization_details = map.next_value()?,
            _ => self.sid = map.next_value()?,
        }
        Ok(())
    }

    /// A member of ours, if it is what we write. If not, it is somebody else's, and stays.
    fn own<T: for<'de> Deserialize<'de>>(&mut self, name: &str) -> Option<T> {
        let read = T::deserialize(self.extra.get(name)?).ok()?;
        self.extra.remove(name);
        Some(read)
    }

    fn subject(&mut self) -> Result<Option<Subject>, String> {
        let kind = match self.extra.get("sub_kind").and_then(Value::as_str) {
            Some("client") => Some(true),
            Some("user") => Some(false),
            _ => None,
        };
        if kind.is_some() {
            self.extra.remove("sub_kind");
        }
        let Some(id) = self.sub.take() else { return Ok(None) };
        // RFC 9068 §2.2: where no resource owner is involved, `sub` names the client. A foreign
        // server sends no `sub_kind`, so there is no other sign of it.
        let is_client = kind
            .unwrap_or_else(|| self.client_id.as_ref().is_some_and(|client| client.as_str() == id));
        let subject = if is_client { Subject::client(id) } else { Subject::user(id) };
        subject.map(Some).map_err(|error| format!("`sub`: {error}"))
    }

    fn token(mut self) -> Result<ActiveToken, String> {
        let subject = self.subject()?;
        let (grant, epoch) = (self.own("grant_id"), self.own("grant_epoch"));
        let acr = self.own::<Option<String>>("acr").flatten();
        let scope = self.scope.as_ref().map_or_else(|| Ok(Scope::empty()), Strings::scope)?;
        Ok(ActiveToken {
            scope,
            client: self.client_id,
            username: self.username,
            token_type: self.token_type,
            // Rounded so that no token lives longer.
            expires_at: self.exp.map(|time| time.round(f64::floor)),
            issued_at: self.iat.map(|time| time.round(f64::ceil)),
            not_before: self.nbf.map(|time| time.round(f64::ceil)),
            subject,
            audience: self.aud.map_or(Ok(None), Strings::audience)?,
            issuer: self.iss,
            jti: self.jti,
            confirmation: self.cnf,
            auth_time: self.auth_time.map(|time| time.round(f64::floor)),
            acr,
            act: self.act,
            authorization_details: self.authorization_details,
            session: self.sid,
            grant,
            epoch,
            extra: self.extra,
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    /// A member that occurs twice is an error: two readers could see two tokens.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let twice = |name: &str| A::Error::custom(format_args!("`{name}` occurs twice"));
                let mut members = Members::default();
                let mut met = 0_u32;
                while let Some(Name(name)) = map.next_key()? {
                    let Some(place) = NAMES.iter().position(|known| *known == name) else {
                        if members.extra.contains_key(&*name) {
                            return Err(twice(&name));
                        }
                        members.extra.insert(name.into_owned(), map.next_value()?);
                        continue;
                    };
                    if met & (1 << place) != 0 {
                        return Err(twice(&name));
                    }
                    met |= 1 << place;
                    members
                        .read(place, &mut map)
                        .map_err(|error| A::Error::custom(format_args!("`{name}`: {error}")))?;
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// A member's name, borrowed if it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// An object whose members have one value each.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Distinct;

        impl<'de> Visitor<'de> for Distinct {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("`{name}` occurs twice")));
                    }
                    members.insert(name, value);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Distinct)
    }
}

impl<'de> Deserialize<'de> for Introspection {
    /// Reads the answer of any RFC 7662 server. `active` comes first: if it is false, no other member
    /// is looked at.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object(mut members) = Object::deserialize(deserializer)?;
        match members.remove("active") {
            None | Some(Value::Null) => Err(D::Error::missing_field("active")),
            Some(Value::Bool(false)) => Ok(Self::Inactive),
            Some(Value::Bool(true)) => ActiveToken::deserialize(Value::Object(members))
                .map(|token| Self::Active(Box::new(token)))
                .map_err(D::Error::custom),
            Some(_) => Err(D::Error::custom("`active` is not a boolean")),
        }
    }
}

impl<'de> Deserialize<'de> for ActiveToken {
    /// Reads the claims of a JWT as it reads an introspection answer.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Members::deserialize(deserializer)?.token().map_err(D::Error::custom)
    }
}
