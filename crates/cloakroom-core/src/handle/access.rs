//! The keys that distinguish genuine access handles from forged ones. Gateways may have them.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::handle::prefixes::check_prefix;
use crate::handle::{TAG, TagKey, VERSION};
use crate::ids::{GrantId, InvalidValue};
use crate::secret::{TokenDigest, TokenKind, decode_into, scrubbed};

/// version, key, grant id, secret.
pub(crate) const ACCESS_BODY: usize = 1 + 1 + 16 + 24;
pub(crate) const ACCESS: usize = ACCESS_BODY + TAG;

/// The most bytes of JSON that are read: enough for 256 keys and many prefixes.
const MAX_JSON_BYTES: usize = 64 * 1024;

/// The keys and prefixes of access handles. With them, a gateway can detect forged handles without
/// a request. Refresh tokens and codes have other keys.
///
/// An authorization server gives them as JSON to gateways that it trusts:
///
/// ```json
/// {"keys":[{"id":1,"key":"…43 characters of base64url…"}],"prefixes":["cr_at_"]}
/// ```
///
/// Anyone who has these keys can make handles that pass the check, but no store knows the digest of
/// such a handle. They are wiped on drop and redacted in `Debug`.
///
/// ```
/// use cloakroom_core::{GrantId, Random};
/// use cloakroom_core::handle::{AccessHandleKeys, HandleCheck, HandleKeys, HandleSecret};
///
/// let random = Random::system();
/// let handles = HandleKeys::new(&HandleSecret::random(1, &random)?);
/// let (token, digest) = handles.mint_access(GrantId::random(&random)?, &random)?;
///
/// let keys = AccessHandleKeys::from_json(handles.access_keys().to_json().as_bytes())?;
/// let HandleCheck::Genuine(handle) = keys.check(token.expose()) else { panic!("it is genuine") };
/// assert_eq!(handle.digest, digest);
/// assert_eq!(keys.check("cr_at_junk"), HandleCheck::Forged);
/// assert_eq!(keys.check("some-other-token"), HandleCheck::Foreign);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct AccessHandleKeys {
    /// The first one makes handles.
    keys: Vec<AccessKey>,
    /// New handles have the first one.
    prefixes: Vec<String>,
}

/// The result of [`AccessHandleKeys::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a gateway must decide on each case")]
pub enum HandleCheck {
    /// A handle whose tag is genuine. Only its issuer knows whether it is active.
    Genuine(AccessHandle),
    /// It has the prefix of a handle, but is not genuine. Its issuer would refuse it without
    /// reading the store.
    Forged,
    /// It names a key that is not among these. The issuer may have a new key, or the handle is forged.
    UnknownKey,
    /// It does not have the prefix of an access handle.
    Foreign,
}

/// An access handle whose tag is genuine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessHandle {
    /// The grant that it belongs to.
    pub grant: GrantId,
    /// Its digest.
    pub digest: TokenDigest,
}

impl AccessHandleKeys {
    pub(crate) fn new(keys: Vec<AccessKey>, prefix: &str) -> Self {
        Self { keys, prefixes: vec![prefix.to_owned()] }
    }

    pub(crate) fn replace(&mut self, keys: Vec<AccessKey>) {
        self.keys = keys;
    }

    pub(crate) fn add_prefix(&mut self, prefix: &str) {
        self.prefixes.insert(0, prefix.to_owned());
    }

    pub(crate) fn minting(&self) -> &TagKey {
        &self.keys[0].tag
    }

    fn ids(&self) -> impl Iterator<Item = u8> {
        self.keys.iter().map(|key| key.tag.id)
    }

    /// The id of the key that a handle names, if the string has the form of one.
    pub(crate) fn key_of(&self, presented: &str) -> Option<u8> {
        let mut bytes = Zeroizing::new([0; ACCESS]);
        self.decode(presented, &mut bytes).ok().map(|()| bytes[1])
    }

    /// Decodes an access handle, genuine or not, in place: a move leaves a copy behind.
    fn decode(&self, presented: &str, bytes: &mut [u8; ACCESS]) -> Result<(), HandleCheck> {
        let mut spelled =
            self.prefixes.iter().filter_map(|prefix| presented.strip_prefix(&**prefix)).peekable();
        if spelled.peek().is_none() {
            return Err(HandleCheck::Foreign);
        }
        // One prefix may be the beginning of another.
        if !spelled.any(|text| decode_into(text, bytes)) || bytes[0] != VERSION {
            return Err(HandleCheck::Forged);
        }
        Ok(())
    }

    /// Tells whether a presented token is a genuine access handle.
    #[must_use]
    pub fn check(&self, presented: &str) -> HandleCheck {
        scrubbed(|| self.check_unscrubbed(presented))
    }

    fn check_unscrubbed(&self, presented: &str) -> HandleCheck {
        let mut bytes = Zeroizing::new([0; ACCESS]);
        if let Err(other) = self.decode(presented, &mut bytes) {
            return other;
        }
        let (body, tag) = bytes.split_at(ACCESS_BODY);
        // An issuer with a former URL has two keys with the same id.
        let mut keys = self.keys.iter().filter(|key| key.tag.id == body[1]).peekable();
        if keys.peek().is_none() {
            return HandleCheck::UnknownKey;
        }
        if !keys.any(|key| key.tag.made(TokenKind::Access, body, tag)) {
            return HandleCheck::Forged;
        }
        let mut grant = [0; 16];
        grant.copy_from_slice(&body[2..18]);
        HandleCheck::Genuine(AccessHandle {
            grant: GrantId::from_bytes(grant),
            digest: TokenDigest::compute_unscrubbed(TokenKind::Access, &*bytes),
        })
    }

    /// The keys as JSON, a secret for trusted gateways.
    #[must_use]
    pub fn to_json(&self) -> Zeroizing<String> {
        let wire = Wire {
            keys: self.keys.iter().map(AccessKey::wire).collect(),
            prefixes: self.prefixes.clone(),
        };
        // The capacity is enough, as in `AccessKey::wire`.
        let prefixes: usize = wire.prefixes.iter().map(|prefix| prefix.len() + 3).sum();
        let mut json = Zeroizing::new(Vec::with_capacity(64 * (wire.keys.len() + 1) + prefixes));
        // Writing numbers and text to memory cannot fail.
        let written = serde_json::to_writer(&mut *json, &wire);
        debug_assert!(written.is_ok());
        Zeroizing::new(String::from_utf8(std::mem::take(&mut *json)).unwrap_or_default())
    }

    /// Reads the keys from JSON. Unknown members are ignored.
    ///
    /// # Errors
    ///
    /// If the JSON is anything else, or has no key, no prefix or a repeated key.
    pub fn from_json(json: &[u8]) -> Result<Self, InvalidValue> {
        let refused = |why| InvalidValue::new("set of access handle keys", why);
        if json.len() > MAX_JSON_BYTES {
            return Err(refused("it is longer than 64 KiB"));
        }
        // The error is not passed on, since it might quote a key.
        let wire: Wire = serde_json::from_slice(json)
            .map_err(|_| refused("it is not the JSON of handle keys"))?;
        let mut keys: Vec<AccessKey> = Vec::new();
        for WireKey { id, key } in &wire.keys {
            let mut raw = Zeroizing::new([0; 32]);
            if !decode_into(key, &mut *raw) {
                return Err(refused("a key must be 32 bytes in base64url"));
            }
            let alike = |known: &AccessKey| known.tag.id == *id && known.is(&raw);
            if keys.iter().any(alike) {
                return Err(refused("a key is repeated"));
            }
            keys.push(AccessKey::new(*id, raw));
        }
        if keys.is_empty() || wire.prefixes.is_empty() {
            return Err(refused("it has no key or no prefix"));
        }
        wire.prefixes.iter().try_for_each(|prefix| check_prefix(prefix))?;
        Ok(Self { keys, prefixes: wire.prefixes })
    }
}

impl fmt::Debug for AccessHandleKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessHandleKeys")
            .field("ids", &self.ids().collect::<Vec<_>>())
            .field("prefixes", &self.prefixes)
            .finish_non_exhaustive()
    }
}

/// A derived key beside its prepared form, for [`AccessHandleKeys::to_json`]. The secret could not be
/// kept instead, since it also makes chain handles.
#[derive(Clone)]
pub(crate) struct AccessKey {
    tag: TagKey,
    /// In a place of its own, as in [`TagKey`].
    raw: Arc<Zeroizing<[u8; 32]>>,
}

impl AccessKey {
    pub(crate) fn new(id: u8, raw: Zeroizing<[u8; 32]>) -> Self {
        Self { tag: TagKey::new(id, &raw), raw: Arc::new(raw) }
    }

    fn is(&self, raw: &[u8; 32]) -> bool {
        self.raw.as_slice().ct_eq(raw).into()
    }

    fn wire(&self) -> WireKey {
        // The capacity is enough, so that no reallocation leaves a copy behind.
        let mut key = String::with_capacity(self.raw.len() * 2);
        URL_SAFE_NO_PAD.encode_string(self.raw.as_slice(), &mut key);
        WireKey { id: self.tag.id, key }
    }
}

#[derive(Serialize, Deserialize)]
struct Wire {
    keys: Vec<WireKey>,
    prefixes: Vec<String>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct WireKey {
    #[zeroize(skip)]
    id: u8,
    key: String,
}

#[cfg(test)]
mod tests;
