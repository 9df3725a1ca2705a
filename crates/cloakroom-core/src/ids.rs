//! Identifiers. Each is parsed once; an invalid one cannot be built. All compare byte for byte.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::random::{Random, RandomError};
use crate::secret::{TokenDigest, decode_array};
use crate::text::{Text, from_text};

/// A value that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value is not a valid {what}: {why}")]
#[expect(clippy::exhaustive_structs, reason = "it names a value and a reason, and nothing else")]
pub struct InvalidValue {
    /// What the value should have been, such as `client_id`.
    pub what: &'static str,
    /// Why it is refused: a clause such as "it is empty".
    pub why: &'static str,
}

impl InvalidValue {
    /// An error about a value that should have been `what`, such as `client_id`. `why` is a clause
    /// such as "it is empty".
    #[must_use]
    pub const fn new(what: &'static str, why: &'static str) -> Self {
        Self { what, why }
    }
}

/// The longest identifier, in bytes.
pub const MAX_ID_BYTES: usize = 255;

fn bounded(what: &'static str, value: &str) -> Result<(), InvalidValue> {
    if value.is_empty() {
        return Err(InvalidValue::new(what, "it is empty"));
    }
    if value.len() > MAX_ID_BYTES {
        return Err(InvalidValue::new(what, "it is longer than 255 bytes"));
    }
    Ok(())
}

fn visible_ascii(what: &'static str, value: &str) -> Result<(), InvalidValue> {
    bounded(what, value)?;
    if !value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return Err(InvalidValue::new(what, "it contains a character that is not printable ASCII"));
    }
    Ok(())
}

fn printable(what: &'static str, value: &str) -> Result<(), InvalidValue> {
    bounded(what, value)?;
    // It comes from tokens that are not verified yet, and is written to traces.
    if value.chars().any(char::is_control) {
        return Err(InvalidValue::new(what, "it contains a control character"));
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Text);

        impl $name {
            /// Parses the identifier.
            ///
            /// # Errors
            ///
            /// If it is empty, longer than 255 bytes, or holds a character that its kind does not
            /// allow.
            pub fn new(value: impl AsRef<str>) -> Result<Self, InvalidValue> {
                let value = value.as_ref();
                $check($what, value)?;
                Ok(Self(value.into()))
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidValue;

            fn from_str(value: &str) -> Result<Self, InvalidValue> {
                Self::new(value)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidValue;

            fn try_from(value: &str) -> Result<Self, InvalidValue> {
                Self::new(value)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                from_text(deserializer, |text| Self::new(text))
            }
        }
    };
}

text_id! {
    /// A client identifier (RFC 6749 §2.2): 1 to 255 printable ASCII characters (appendix A.1).
    ClientId, "client_id", visible_ascii
}

text_id! {
    /// The app's identifier of a user: 1 to 255 bytes of any UTF-8.
    UserId, "user id", bounded
}

text_id! {
    /// The identifier of one JWT (RFC 7519 §4.1.7): 1 to 255 bytes.
    Jti, "jti", bounded
}

text_id! {
    /// The identifier of a key (RFC 7515 §4.1.4): 1 to 255 bytes without control characters. Those
    /// of Cloakroom's own keys are RFC 7638 thumbprints.
    Kid, "kid", printable
}

impl UserId {
    /// Whether a user is named like this client.
    pub(crate) fn is_named_like(&self, client: &ClientId) -> bool {
        self.0 == client.0
    }
}

impl Jti {
    /// A `jti` of 128 random bits, as base64url.
    ///
    /// # Errors
    ///
    /// If the source of random bytes fails.
    pub fn random(random: &Random) -> Result<Self, RandomError> {
        Ok(Self::of_bytes(&random.array()?))
    }

    /// The `jti` that introspection shows for the handle with this digest: the first half of the
    /// digest, as base64url. Only a holder of the token can tell which token it names.
    #[must_use]
    pub fn of_handle(digest: &TokenDigest) -> Self {
        Self::of_bytes(GrantId::from_digest(digest).as_bytes())
    }

    fn of_bytes(bytes: &[u8; 16]) -> Self {
        Self(Encoded::of(bytes).as_str().into())
    }
}

/// The party that a client acts for: a user, or the client itself.
///
/// A client must not be able to impersonate a user by choosing the user's name (RFC 9700 §4.15). A
/// user and a client of the same name are therefore different subjects, in every index and every
/// rule.
///
/// ```
/// use cloakroom_core::Subject;
///
/// let user = Subject::user("alice")?;
/// let client = Subject::client("alice")?;
/// assert_ne!(user, client);
/// assert_eq!(user.id(), client.id());
/// assert_eq!(user.to_key(), "u:alice");
/// # Ok::<(), cloakroom_core::InvalidValue>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "users and clients must be told apart everywhere (RFC 9700 §4.15)"
)]
pub enum Subject {
    /// A user (resource owner).
    User(UserId),
    /// A client that acts for itself (`client_credentials`).
    Client(ClientId),
}

impl Subject {
    /// A user.
    ///
    /// # Errors
    ///
    /// If the identifier is empty or longer than 255 bytes.
    pub fn user(id: impl AsRef<str>) -> Result<Self, InvalidValue> {
        UserId::new(id).map(Self::User)
    }

    /// A client that acts for itself.
    ///
    /// # Errors
    ///
    /// If the value is not a valid client identifier.
    pub fn client(id: impl AsRef<str>) -> Result<Self, InvalidValue> {
        ClientId::new(id).map(Self::Client)
    }

    /// The identifier without its kind, as in `sub`.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::User(id) => id.as_str(),
            Self::Client(id) => id.as_str(),
        }
    }

    /// The identifier with its kind, `u:…` or `c:…`. Stores index this text.
    #[must_use]
    pub fn to_key(&self) -> String {
        match self {
            Self::User(id) => format!("u:{id}"),
            Self::Client(id) => format!("c:{id}"),
        }
    }

    /// Reads the text that [`to_key`](Subject::to_key) wrote.
    ///
    /// # Errors
    ///
    /// If the text is not such a key.
    pub fn from_key(key: &str) -> Result<Self, InvalidValue> {
        match key.split_at_checked(2) {
            Some(("u:", id)) => Self::user(id),
            Some(("c:", id)) => Self::client(id),
            _ => Err(InvalidValue::new("subject key", "it starts with neither `u:` nor `c:`")),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.to_key())
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, Self::from_key)
    }
}

/// The identifier of a grant: 128 random bits, or 22 characters of base64url. It is not a secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId([u8; 16]);

impl GrantId {
    /// A new random identifier.
    ///
    /// # Errors
    ///
    /// If the source of random bytes fails.
    pub fn random(random: &Random) -> Result<Self, RandomError> {
        random.array().map(Self)
    }

    /// The identifier of the grant behind one foreign token. A token of another system does not name
    /// a grant, so the identifier is taken from the token's digest.
    #[must_use]
    pub fn from_digest(digest: &TokenDigest) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_bytes()[..16]);
        Self(bytes)
    }

    /// An identifier read back from a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, as a store keeps them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Encoded::of(&self.0).as_str())
    }
}

/// 16 bytes in base64url, in place: each introspection writes two such identifiers.
struct Encoded([u8; 22]);

impl Encoded {
    fn of(bytes: &[u8; 16]) -> Self {
        let mut text = [0; 22];
        let written = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text);
        debug_assert_eq!(written, Ok(22));
        Self(text)
    }

    fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("base64url is ASCII")
    }
}

impl fmt::Debug for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantId({self})")
    }
}

impl std::str::FromStr for GrantId {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        decode_array(text)
            .map(Self)
            .ok_or(InvalidValue::new("grant id", "it must be 16 bytes in base64url"))
    }
}

impl Serialize for GrantId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Encoded::of(&self.0).as_str())
    }
}

impl<'de> Deserialize<'de> for GrantId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, str::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_byte_exact_and_bounded() {
        assert_ne!(UserId::new("alice").unwrap(), UserId::new("Alice").unwrap());
        assert_ne!(UserId::new("alice").unwrap(), UserId::new("alice ").unwrap());
        assert!(UserId::new("a\0b").is_ok());
        assert!(UserId::new("🔑".repeat(63)).is_ok());
        assert!(UserId::new("🔑".repeat(64)).is_err(), "256 bytes");
        assert!(UserId::new("").is_err());
        assert!(ClientId::new("https://client.example/ id").is_ok());
        assert!(ClientId::new("naïve").is_err());
        assert!(ClientId::new("tab\t").is_err());
        assert!(Kid::new("clé").is_ok());
        assert!(Kid::new("a\nforged line").is_err());
    }

    #[test]
    fn subjects_round_trip_through_their_key() {
        for subject in [
            Subject::user("c:alice").unwrap(),
            Subject::client("u:alice").unwrap(),
            Subject::user("é\0").unwrap(),
        ] {
            assert_eq!(Subject::from_key(&subject.to_key()).unwrap(), subject);
        }
        for bad in ["", "u", "u:", "x:alice", "é:"] {
            assert!(Subject::from_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn grant_ids_parse_only_from_their_own_text() {
        let id = GrantId::random(&Random::system()).unwrap();
        assert_eq!(id.to_string().parse::<GrantId>().unwrap(), id);
        assert!("short".parse::<GrantId>().is_err());
        assert!(format!("{id}A").parse::<GrantId>().is_err());
    }

    #[test]
    fn identifiers_hold_255_bytes_and_no_more() {
        for (bytes, is_good) in [(1, true), (255, true), (256, false), (1000, false)] {
            let text = "a".repeat(bytes);
            assert_eq!(UserId::new(&text).is_ok(), is_good, "{bytes}");
            assert_eq!(ClientId::new(&text).is_ok(), is_good, "{bytes}");
            assert_eq!(Kid::new(&text).is_ok(), is_good, "{bytes}");
        }
    }

    #[test]
    fn a_subject_is_written_with_its_kind() {
        for (subject, key) in [
            (Subject::user("alice").unwrap(), "u:alice"),
            (Subject::client("alice").unwrap(), "c:alice"),
        ] {
            assert_eq!((subject.id(), &*subject.to_key()), ("alice", key));
            assert_eq!(serde_json::to_value(&subject).unwrap(), key);
            assert_eq!(serde_json::from_value::<Subject>(key.into()).unwrap(), subject);
        }
        assert!(serde_json::from_str::<Subject>("\"alice\"").is_err());
    }

    #[test]
    fn the_grant_of_a_foreign_token_is_named_by_its_digest() {
        let digest = TokenDigest::from_bytes(std::array::from_fn(|at| at.try_into().unwrap()));
        let id = GrantId::from_digest(&digest);
        assert_eq!(id.as_bytes(), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(GrantId::from_bytes(*id.as_bytes()), id);
        assert_eq!(serde_json::to_value(id).unwrap(), "AAECAwQFBgcICQoLDA0ODw");
        assert_eq!(serde_json::from_str::<GrantId>("\"AAECAwQFBgcICQoLDA0ODw\"").unwrap(), id);
    }

    #[test]
    fn random_identifiers_differ() {
        let random = Random::system();
        assert_ne!(GrantId::random(&random).unwrap(), GrantId::random(&random).unwrap());
        assert_ne!(Jti::random(&random).unwrap(), Jti::random(&random).unwrap());
    }
}
