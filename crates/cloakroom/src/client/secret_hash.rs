//! The hash of a client's secret.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::InvalidValue;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// The version of the text form: SHA-256 in base64url.
const PREFIX: &str = "v1:";

/// SHA-256 of a client secret, the only form in which a secret is kept. Secrets are random, so a
/// password hash would add no security; computing one for each introspection would overload a
/// server.
///
/// `Display` and `FromStr` convert the hash to and from text, for your database. The text starts
/// with the version of its format.
///
/// ```
/// use cloakroom::{Client, SecretHash};
///
/// let hash = SecretHash::of("web-app-demo-secret-0123456789")?;
/// let stored = hash.to_string();
/// assert!(stored.starts_with("v1:"));
///
/// let client = Client::hashed("web-app", [stored.parse()?]).build()?;
/// assert!(client.has_secret("web-app-demo-secret-0123456789"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of a secret of at least 22 bytes (128 random bits in base64url).
    ///
    /// # Errors
    ///
    /// If the secret is shorter.
    pub fn of(secret: &str) -> Result<Self, InvalidValue> {
        if secret.len() < 22 {
            return Err(InvalidValue {
                what: "client secret",
                why: "it is shorter than 22 bytes; use 128 random bits or more",
            });
        }
        Ok(Self::presented(secret))
    }

    /// A hash that was computed elsewhere: SHA-256 of the secret.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Whether both are hashes of the same secret, in constant time.
    pub(crate) fn matches(&self, presented: &Self) -> Choice {
        self.0.ct_eq(&presented.0)
    }

    pub(crate) fn presented(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

impl fmt::Display for SecretHash {
    /// Writes `v1:` and the hash in base64url, which is text to be stored, not to be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl FromStr for SecretHash {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        text.strip_prefix(PREFIX)
            .and_then(|hash| URL_SAFE_NO_PAD.decode(hash).ok()?.try_into().ok())
            .map(Self)
            .ok_or(InvalidValue {
                what: "secret hash",
                why: "it must be `v1:` and 32 bytes in base64url",
            })
    }
}

impl Serialize for SecretHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other).into()
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_stored_and_read_back_as_text() {
        let secret = "0123456789012345678901";
        let hash = SecretHash::of(secret).unwrap();
        let text = hash.to_string();
        assert_eq!(text.parse::<SecretHash>().unwrap(), hash);
        assert!(text.starts_with("v1:") && text.len() == 3 + 43 && !text.contains(secret));
        assert_eq!(format!("{hash:?}"), "SecretHash(redacted)");
    }

    #[test]
    fn other_texts_are_refused() {
        let good = SecretHash::of("0123456789012345678901").unwrap().to_string();
        for bad in ["", "v1:", &good[3..], &good.replace("v1", "v2"), &format!("{good}A"), "v1:!"] {
            assert!(bad.parse::<SecretHash>().is_err(), "{bad}");
        }
    }
}
