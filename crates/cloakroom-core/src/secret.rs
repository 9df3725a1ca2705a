//! Tokens as clients present them, and the digests that stand for them everywhere else.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

use crate::ids::InvalidValue;

/// A token as its holder presents it: wiped from memory on drop, redacted in `Debug`, without
/// `Display`, and readable only through [`expose`](TokenSecret::expose).
///
/// ```
/// use cloakroom_core::TokenSecret;
///
/// let token = TokenSecret::new("cr_at_secret");
/// assert_eq!(format!("{token:?}"), "TokenSecret(redacted)");
/// assert_eq!(token.expose(), "cr_at_secret");
/// ```
#[derive(Clone)]
pub struct TokenSecret(String);

impl TokenSecret {
    /// Wraps a token that was presented or minted.
    #[must_use]
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// The plaintext token.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for TokenSecret {
    /// Wipes the whole buffer at once. `Zeroizing` writes one byte after another, which takes as long for a
    /// JWT as writing its claims does.
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.clear();
        // As long as the buffer is, so that it is not moved.
        bytes.resize(bytes.capacity(), 0);
        zeroize::optimization_barrier(&*bytes);
    }
}

impl ZeroizeOnDrop for TokenSecret {}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(redacted)")
    }
}

/// The kind of a credential. A digest or a tag of one kind never matches one of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TokenKind {
    /// An access token (RFC 6749 §1.4).
    Access,
    /// A refresh token (RFC 6749 §1.5).
    Refresh,
    /// An authorization code (RFC 6749 §1.3.1).
    Code,
}

impl TokenKind {
    /// The byte that separates the tags and digests of this kind from those of other kinds.
    pub(crate) const fn domain(self) -> u8 {
        match self {
            Self::Access => 1,
            Self::Refresh => 2,
            Self::Code => 3,
        }
    }

    /// The kind with this byte.
    pub(crate) fn of_domain(byte: u8) -> Option<Self> {
        [Self::Access, Self::Refresh, Self::Code].into_iter().find(|kind| kind.domain() == byte)
    }
}

/// Hashes a secret, and then clears the part of the stack that `hash` used.
///
/// A hash function leaves parts of its input on the stack. A later value can be built over them, and
/// its padding and its unused parts, such as the content of a `None`, keep those bytes. Without this
/// function, records and futures would carry parts of tokens to the heap.
#[doc(hidden)]
pub fn scrubbed<T>(hash: impl FnOnce() -> T) -> T {
    /// More stack than `hash` uses: a handle that is made or parsed, its HMAC and the hash below take
    /// some 1,250 bytes. Frames are many times as large without optimization.
    const DEPTH: usize = if cfg!(debug_assertions) { 32_768 } else { 2_048 };

    #[inline(never)]
    fn below<T>(hash: impl FnOnce() -> T) -> T {
        hash()
    }

    #[inline(never)]
    fn clear() {
        std::hint::black_box(&mut [0_u8; DEPTH]);
    }

    let hashed = below(hash);
    clear();
    hashed
}

/// SHA-256 of a token. This is all that a store gets of a token. It is compared in constant time.
///
/// ```
/// use cloakroom_core::{TokenDigest, TokenKind};
///
/// let digest = TokenDigest::compute(TokenKind::Access, b"6d7f2b0c");
/// assert_eq!(digest, TokenDigest::compute(TokenKind::Access, b"6d7f2b0c"));
/// assert_ne!(digest, TokenDigest::compute(TokenKind::Refresh, b"6d7f2b0c"));
/// ```
#[derive(Clone, Copy)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of a token of this kind. `token` must identify it uniquely: the decoded bytes of a
    /// handle, or the whole string in a format of your own.
    #[must_use]
    pub fn compute(kind: TokenKind, token: &[u8]) -> Self {
        scrubbed(|| Self::compute_unscrubbed(kind, token))
    }

    /// [`TokenDigest::compute`] for a caller that clears the stack itself, once for all that it hashes.
    pub(crate) fn compute_unscrubbed(kind: TokenKind, token: &[u8]) -> Self {
        tracing::trace!(target: "cloakroom::digest", ?kind, "digest of a presented token");
        Self(Sha256::new().chain_update([kind.domain()]).chain_update(token).finalize().into())
    }

    /// A digest read back from a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, as a store keeps them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for TokenDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenDigest {}

impl std::hash::Hash for TokenDigest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell two digests apart in a trace, and too little to look one up.
        write!(f, "TokenDigest({:02x}{:02x}{:02x}..)", self.0[0], self.0[1], self.0[2])
    }
}

impl Serialize for TokenDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        bytes::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for TokenDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bytes::deserialize(deserializer).map(Self)
    }
}

/// Fixed-size bytes as base64url text, for `#[serde(with = "bytes")]`.
pub(crate) mod bytes {
    use super::{Deserializer, Serializer, URL_SAFE_NO_PAD};
    use crate::text::from_text;
    use base64::Engine as _;

    pub(crate) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        from_text(deserializer, |text| {
            super::decode_array(text).ok_or_else(|| format!("expected {N} bytes, base64url"))
        })
    }
}

/// Bytes of any length as base64url text, for `#[serde(with = "byte_vec")]`.
pub(crate) mod byte_vec {
    use super::{Deserializer, Serializer, URL_SAFE_NO_PAD};
    use crate::text::from_text;
    use base64::Engine as _;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        from_text(deserializer, |text| URL_SAFE_NO_PAD.decode(text))
    }
}

/// Decodes exactly `N` bytes of canonical, unpadded base64url.
pub(crate) fn decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    decode_into(text, &mut bytes).then_some(bytes)
}

/// Like [`decode_array`], for a secret: it decodes in place, since a move leaves a copy behind.
pub(crate) fn decode_into(text: &str, bytes: &mut [u8]) -> bool {
    let length = bytes.len();
    // Longer input is refused before it is decoded, so that the buffer bounds the work.
    text.len() == (length * 8).div_ceil(6)
        && URL_SAFE_NO_PAD.decode_slice(text, bytes) == Ok(length)
}

/// Decodes the 32 bytes of a secret from 64 hexadecimal digits.
///
/// # Errors
///
/// If the text is anything else.
#[doc(hidden)]
pub fn decode_hex(hex: &str) -> Result<[u8; 32], InvalidValue> {
    let invalid = InvalidValue::new("secret", "it must be 64 hexadecimal digits");
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if hex.len() != 64 {
        return Err(invalid);
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => *byte = high << 4 | low,
            _ => return Err(invalid),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_a_token() {
        let token = TokenSecret::new("cr_at_do-not-print");
        assert!(!format!("{token:?} {:?}", Some(&token)).contains("do-not-print"));
    }

    #[test]
    fn a_digest_survives_serde() {
        let digest = TokenDigest::compute(TokenKind::Code, b"x");
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json.len(), 45);
        assert_eq!(serde_json::from_str::<TokenDigest>(&json).unwrap(), digest);
        assert!(serde_json::from_str::<TokenDigest>("\"AAAA\"").is_err());
    }

    #[test]
    fn secrets_are_read_from_hex() {
        let hex = "00ff".repeat(16);
        assert_eq!(decode_hex(&hex).unwrap()[..3], [0, 0xff, 0]);
        assert_eq!(decode_hex(&hex.to_uppercase()).unwrap(), decode_hex(&hex).unwrap());
        for bad in ["", &hex[2..], &format!("{hex}00"), &hex.replace("ff", "fg"), &"é".repeat(32)]
        {
            assert!(decode_hex(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn base64_is_canonical() {
        assert_eq!(decode_array::<1>("AA"), Some([0]));
        assert_eq!(decode_array::<1>("AB"), None, "trailing bits set");
        assert_eq!(decode_array::<1>("AA=="), None, "padded");
        assert_eq!(decode_array::<1>("A+"), None, "the other alphabet");
    }

    #[test]
    fn digests_tell_kinds_and_tokens_apart() {
        let digests: Vec<TokenDigest> = [TokenKind::Access, TokenKind::Refresh, TokenKind::Code]
            .into_iter()
            .flat_map(|kind| [b"x", b"y"].map(|token| TokenDigest::compute(kind, token)))
            .collect();
        let set: std::collections::HashSet<TokenDigest> = digests.iter().copied().collect();
        assert_eq!(set.len(), 6);
        for (index, digest) in digests.iter().enumerate() {
            assert_eq!(digests.iter().position(|other| other == digest), Some(index));
            assert_eq!(TokenDigest::from_bytes(*digest.as_bytes()), *digest);
        }
    }

    /// Were all hashes alike, every table of digests would be a list.
    #[test]
    fn digests_are_spread_over_a_table() {
        use std::hash::{BuildHasher as _, RandomState};
        let state = RandomState::new();
        let hash = |token| state.hash_one(TokenDigest::compute(TokenKind::Access, token));
        assert_eq!(hash(b"x"), hash(b"x"));
        assert_ne!(hash(b"x"), hash(b"y"));
    }
}
