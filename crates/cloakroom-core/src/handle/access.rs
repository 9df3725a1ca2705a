//! What tells a genuine access handle from junk: all that a gateway is given.

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
use crate::secret::{TokenDigest, TokenKind, decode_into};

/// version, key, grant id, secret.
pub(crate) const ACCESS_BODY: usize = 1 + 1 + 16 + 24;
pub(crate) const ACCESS: usize = ACCESS_BODY + TAG;

/// The most bytes of JSON that are looked at: 256 keys and a good many prefixes.
const MAX_JSON_BYTES: usize = 64 * 1024;

/// The keys and prefixes of access handles: they tell a genuine handle from a forged one, without
/// asking anyone. They mint nothing, and say nothing of refresh tokens and codes, whose keys are
/// others.
///
/// An authorization server hands them out, as JSON, to gateways that it trusts:
///
/// ```json
/// {"keys":[{"id":1,"key":"…43 characters of base64url…"}],"prefixes":["cr_at_"]}
/// ```
///
/// Whoever has them can make handles that pass this check; no store knows their digest. Wiped on
/// drop, redacted in `Debug`.
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
    /// The first one mints.
    keys: Vec<AccessKey>,
    /// The first one is written.
    prefixes: Vec<String>,
}

/// An access handle, or what else a presented token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandleCheck {
    /// A handle whose tag is genuine. Whether it is known and alive, its issuer knows.
    Genuine(AccessHandle),
    /// Spelled like a handle, and not genuine: its issuer would refuse it unseen.
    Forged,
    /// A handle made under a key that is not among these. The issuer may have a new one; whoever
    /// presents it can also have made that up.
    UnknownKey,
    /// Not spelled like an access handle.
    Foreign,
}

/// An access token whose tag is genuine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessHandle {
    /// The grant it hangs off.
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

    /// The id of the key that a handle says it was made with, if this is spelled like one.
    pub(crate) fn key_of(&self, presented: &str) -> Option<u8> {
        let mut bytes = Zeroizing::new([0; ACCESS]);
        self.decode(presented, &mut bytes).ok().map(|()| bytes[1])
    }

    /// The bytes of an access handle, whoever made it, or what else is presented. They go to where
    /// they stay: what is moved leaves a copy where it was.
    fn decode(&self, presented: &str, bytes: &mut [u8; ACCESS]) -> Result<(), HandleCheck> {
        let mut spelled =
            self.prefixes.iter().filter_map(|prefix| presented.strip_prefix(&**prefix)).peekable();
        if spelled.peek().is_none() {
            return Err(HandleCheck::Foreign);
        }
        // One prefix may begin like another.
        if !spelled.any(|text| decode_into(text, bytes)) || bytes[0] != VERSION {
            return Err(HandleCheck::Forged);
        }
        Ok(())
    }

    /// What a presented token is.
    #[must_use]
    pub fn check(&self, presented: &str) -> HandleCheck {
        let mut bytes = Zeroizing::new([0; ACCESS]);
        if let Err(other) = self.decode(presented, &mut bytes) {
            return other;
        }
        let (body, tag) = bytes.split_at(ACCESS_BODY);
        // An issuer that was renamed has two keys of one id.
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
            digest: TokenDigest::compute(TokenKind::Access, &*bytes),
        })
    }

    /// The keys as JSON, for who may have them.
    #[must_use]
    pub fn to_json(&self) -> Zeroizing<String> {
        let wire = Wire {
            keys: self.keys.iter().map(AccessKey::wire).collect(),
            prefixes: self.prefixes.clone(),
        };
        // Enough for all of it, as in `AccessKey::wire`.
        let prefixes: usize = wire.prefixes.iter().map(|prefix| prefix.len() + 3).sum();
        let mut json = Zeroizing::new(Vec::with_capacity(64 * (wire.keys.len() + 1) + prefixes));
        // Written to memory, numbers and text alone: it cannot fail.
        let written = serde_json::to_writer(&mut *json, &wire);
        debug_assert!(written.is_ok());
        Zeroizing::new(String::from_utf8(std::mem::take(&mut *json)).unwrap_or_default())
    }

    /// The keys that this JSON holds. Members that it does not know are left aside.
    ///
    /// # Errors
    ///
    /// If it is anything else, holds no key or no prefixes, or one key twice.
    pub fn from_json(json: &[u8]) -> Result<Self, InvalidValue> {
        let refused = |why| InvalidValue::new("access handle keys", why);
        if json.len() > MAX_JSON_BYTES {
            return Err(refused("they are longer than 64 KiB"));
        }
        // What is wrong with it is not passed on: it might quote a key.
        let wire: Wire = serde_json::from_slice(json).map_err(|_| refused("they are no JSON"))?;
        let mut keys: Vec<AccessKey> = Vec::new();
        for WireKey { id, key } in &wire.keys {
            let mut raw = Zeroizing::new([0; 32]);
            if !decode_into(key, &mut *raw) {
                return Err(refused("a key is not 32 bytes of base64url"));
            }
            let alike = |known: &AccessKey| known.tag.id == *id && known.is(&raw);
            if keys.iter().any(alike) {
                return Err(refused("a key is there twice"));
            }
            keys.push(AccessKey::new(*id, raw));
        }
        if keys.is_empty() || wire.prefixes.is_empty() {
            return Err(refused("there is no key, or no prefix"));
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

/// A derived key, kept beside its prepared form so that it can be handed out: the secret that it
/// came from can make chain handles, too, and is not kept.
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
        // The capacity is enough: no reallocation leaves a copy behind.
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
