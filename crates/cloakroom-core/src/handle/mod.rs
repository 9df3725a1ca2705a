//! The opaque tokens that clients hold, and the keys of their tags.
//!
//! ```text
//! cr_at_          base64url( version 1 | key 1 | grant id 16 | secret 24 | tag 8 )
//! cr_rt_, cr_ac_  base64url( version 1 | key 1 | grant id 16 | generation 4 | secret 24 | chain tag 8 | tag 8 )
//! ```

mod access;
mod nonce;
mod prefixes;

pub use access::{AccessHandle, AccessHandleKeys, HandleCheck};
pub use nonce::Nonce;
pub use prefixes::HandlePrefixes;

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::handle::access::{ACCESS, ACCESS_BODY, AccessKey};
use crate::ids::{GrantId, InvalidValue};
use crate::random::{Random, RandomError};
use crate::record::ChainKey;
use crate::secret::{TokenDigest, TokenKind, TokenSecret, decode_hex, decode_into, scrubbed};

pub(crate) const VERSION: u8 = 1;
pub(crate) const TAG: usize = 8;
/// version, key, grant id, generation, secret.
const CHAIN_BODY: usize = 1 + 1 + 16 + 4 + 24;
const CHAIN: usize = CHAIN_BODY + TAG + TAG;

/// The secret that handle keys are derived from: 32 random bytes that the app keeps, and a number
/// that identifies them. It is wiped on drop and redacted in `Debug`.
///
/// Anyone who knows it can make handles that pass the tag check, but no more: no store knows their
/// digest. You need not replace it on a schedule, only if it may have leaked.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct HandleSecret {
    #[zeroize(skip)]
    id: u8,
    bytes: [u8; 32],
}

impl HandleSecret {
    /// The secret with the number `id` and these random bytes. Start with 1. A secret that replaces
    /// another takes the next number, and [`HandleKeys::with_former`] keeps the old one in use. Sealing
    /// keys have numbers of their own.
    #[must_use]
    pub const fn new(id: u8, bytes: [u8; 32]) -> Self {
        Self { id, bytes }
    }

    /// The secret with the number `id`, from 64 hexadecimal digits, for example in an environment
    /// variable. `openssl rand -hex 32` makes one.
    ///
    /// # Errors
    ///
    /// If the text is anything else.
    pub fn from_hex(id: u8, hex: &str) -> Result<Self, InvalidValue> {
        Ok(Self { id, bytes: decode_hex(hex)? })
    }

    /// A new random secret.
    ///
    /// # Errors
    ///
    /// If the source of random bytes fails.
    pub fn random(id: u8, random: &Random) -> Result<Self, RandomError> {
        Ok(Self { id, bytes: random.array()? })
    }
}

impl fmt::Debug for HandleSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandleSecret({}, redacted)", self.id)
    }
}

/// A secret that is prepared for deriving keys.
#[derive(Clone)]
struct Root {
    id: u8,
    /// On the heap, as in [`TagKey`].
    mac: Arc<Hmac<Sha256>>,
}

impl Root {
    fn new(secret: &HandleSecret) -> Self {
        Self { id: secret.id, mac: Arc::new(keyed(&secret.bytes)) }
    }

    /// The key for one purpose of one issuer: the HMAC of both under the secret. Access handles and
    /// chain handles have separate keys, since gateways may get only the former.
    fn derive(&self, purpose: &str, issuer: &str) -> Zeroizing<[u8; 32]> {
        let mut mac = Hmac::clone(&self.mac);
        mac.update(purpose.as_bytes());
        // No purpose contains this byte, so that no two pairs give the same text.
        mac.update(&[0]);
        mac.update(issuer.as_bytes());
        Zeroizing::new(mac.finalize().into_bytes().into())
    }

    fn access_key(&self, issuer: &str) -> AccessKey {
        AccessKey::new(self.id, self.derive("cloakroom access handle", issuer))
    }

    fn chain_key(&self, issuer: &str) -> TagKey {
        TagKey::new(self.id, &self.derive("cloakroom chain handle", issuer))
    }

    /// A key for a purpose of the engine. The prefix keeps it apart from the keys above.
    fn named_key(&self, purpose: &str, issuer: &str) -> Zeroizing<[u8; 32]> {
        self.derive(&format!("cloakroom for {purpose}"), issuer)
    }

    fn nonce_key(&self, issuer: &str) -> TagKey {
        TagKey::new(self.id, &self.derive("cloakroom nonce", issuer))
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length (RFC 2104 §3); the error cannot occur.
    match Hmac::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    }
}

/// A prepared HMAC key.
#[derive(Clone)]
pub(crate) struct TagKey {
    pub(crate) id: u8,
    /// On the heap: a vector of keys that grows would leave copies of them behind.
    mac: Arc<Hmac<Sha256>>,
}

impl TagKey {
    pub(crate) fn new(id: u8, key: &[u8; 32]) -> Self {
        Self { id, mac: Arc::new(keyed(key)) }
    }

    /// A MAC under this key, before its first byte.
    pub(crate) fn mac(&self) -> Hmac<Sha256> {
        Hmac::clone(&self.mac)
    }

    /// Whether the tag of this body was made with this key, in constant time. Call it in [`scrubbed`].
    pub(crate) fn made(&self, kind: TokenKind, body: &[u8], presented: &[u8]) -> bool {
        tag(&self.mac, kind, body).ct_eq(presented).into()
    }
}

/// Call it in [`scrubbed`], which then covers all that is hashed for one handle.
fn tag(mac: &Hmac<Sha256>, kind: TokenKind, body: &[u8]) -> [u8; TAG] {
    let mut mac = mac.clone();
    mac.update(&[kind.domain()]);
    mac.update(body);
    let full = mac.finalize().into_bytes();
    let mut tag = [0; TAG];
    tag.copy_from_slice(&full[..TAG]);
    tag
}

/// Makes handles and nonces, and detects forged ones before a store is read.
///
/// ```
/// use cloakroom_core::{GrantId, Random};
/// use cloakroom_core::handle::{HandleKeys, HandleSecret};
///
/// let random = Random::system();
/// let keys = HandleKeys::new(&HandleSecret::random(1, &random)?);
/// let grant = GrantId::random(&random)?;
///
/// let (token, digest) = keys.mint_access(grant, &random)?;
/// assert_eq!(token.expose().len(), 73);
/// let handle = keys.parse_access(token.expose()).expect("our own");
/// assert_eq!((handle.grant, handle.digest), (grant, digest));
///
/// let forged = token.expose().replace("cr_at_AQ", "cr_at_Ag");
/// assert!(keys.parse_access(&forged).is_none());
/// # Ok::<(), cloakroom_core::RandomError>(())
/// ```
///
/// Each issuer has its own keys: a handle of one issuer is forged for another, even under the same
/// secret. [`HandleKeys::for_issuer`] derives them. The builder of an issuer calls it.
#[derive(Clone)]
pub struct HandleKeys {
    /// The first one makes handles.
    roots: Vec<Root>,
    /// The first one mints.
    issuers: Vec<String>,
    /// The ids of secrets whose handles are no longer accepted.
    retired: Vec<u8>,
    access: AccessHandleKeys,
    /// The first one mints.
    chain: Vec<TagKey>,
    /// The first one mints.
    pub(crate) nonce: Vec<TagKey>,
    /// The first one is written.
    prefixes: Vec<HandlePrefixes>,
}

impl HandleKeys {
    /// Keys derived from the current secret, with the default prefixes.
    #[must_use]
    pub fn new(current: &HandleSecret) -> Self {
        let (root, prefixes, issuer) =
            (Root::new(current), HandlePrefixes::default(), String::new());
        Self {
            access: AccessHandleKeys::new(vec![root.access_key(&issuer)], &prefixes.access),
            chain: vec![root.chain_key(&issuer)],
            nonce: vec![root.nonce_key(&issuer)],
            roots: vec![root],
            issuers: vec![issuer],
            retired: Vec::new(),
            prefixes: vec![prefixes],
        }
    }

    /// Also accepts handles under another secret: a former one, or one that becomes the current one
    /// when every node knows it. Keep a former secret for the longest lifetime of a grant.
    ///
    /// # Errors
    ///
    /// If there is already a secret with this id.
    pub fn with_former(mut self, former: &HandleSecret) -> Result<Self, InvalidValue> {
        if self.roots.iter().any(|root| root.id == former.id) {
            return Err(InvalidValue::new("handle secret", "another one has the same id"));
        }
        self.roots.push(Root::new(former));
        self.derive();
        Ok(self)
    }

    /// Declares that the secret with this id was retired on purpose. Every node that does not have
    /// it refuses its handles. An issuer is not built if its store knows a secret that the settings
    /// neither contain nor retire.
    ///
    /// The store remembers this once an issuer has been built with it; then you can remove the
    /// setting. Do not use the id again.
    ///
    /// # Errors
    ///
    /// If the secret with this id is in use here.
    pub fn with_retired(mut self, id: u8) -> Result<Self, InvalidValue> {
        if self.roots.iter().any(|root| root.id == id) {
            return Err(InvalidValue::new("retired handle secret", "it is still in use"));
        }
        self.retired.push(id);
        Ok(self)
    }

    /// The keys of this issuer, which make its handles, and the keys of its former URLs, whose handles
    /// it accepts.
    #[must_use]
    pub fn for_issuer(mut self, issuer: &str, former: &[String]) -> Self {
        self.issuers = [&[issuer.to_owned()], former].concat();
        self.derive();
        self
    }

    /// Derives the keys of every secret for every issuer. The current ones come first.
    fn derive(&mut self) {
        let pairs =
            || self.roots.iter().flat_map(|root| self.issuers.iter().map(move |name| (root, name)));
        self.chain = pairs().map(|(root, issuer)| root.chain_key(issuer)).collect();
        self.nonce = pairs().map(|(root, issuer)| root.nonce_key(issuer)).collect();
        let access = pairs().map(|(root, issuer)| root.access_key(issuer)).collect();
        self.access.replace(access);
    }

    /// For each secret, its id and a check value: the HMAC of a fixed text, which reveals nothing
    /// about the secret. A store keeps it, so that a different secret under the same id is
    /// detected.
    pub fn checks(&self) -> impl Iterator<Item = (u8, [u8; 32])> {
        self.roots.iter().map(|root| (root.id, *root.derive("cloakroom check value", "")))
    }

    /// Keys for a purpose of the engine, each with the id of its secret: one for each secret and each URL
    /// of the issuer. The current one comes first. Keys of two purposes or two issuers differ.
    #[doc(hidden)]
    pub fn keys_for(&self, purpose: &str) -> impl Iterator<Item = (u8, Zeroizing<[u8; 32]>)> {
        let pairs =
            self.roots.iter().flat_map(|root| self.issuers.iter().map(move |name| (root, name)));
        pairs.map(move |(root, issuer)| (root.id, root.named_key(purpose, issuer)))
    }

    /// The ids of the secrets that were retired with [`HandleKeys::with_retired`].
    #[must_use]
    pub fn retired(&self) -> &[u8] {
        &self.retired
    }

    /// The id of the secret that a handle of any kind names, if it is not one of these. Another node may
    /// have that secret, or the handle may be forged.
    #[must_use]
    pub fn unknown_key(&self, presented: &str) -> Option<u8> {
        let chain = || {
            [ChainKind::Refresh, ChainKind::Code]
                .into_iter()
                .find_map(|kind| self.decode_chain(kind, presented))
                .map(|bytes| bytes[1])
        };
        let id = self.access.key_of(presented).or_else(chain)?;
        self.roots.iter().all(|root| root.id != id).then_some(id)
    }

    /// Makes new handles with these prefixes. Handles with the former prefixes stay valid, since
    /// neither the tag nor the digest covers the prefix.
    #[must_use]
    pub fn with_prefixes(mut self, prefixes: HandlePrefixes) -> Self {
        self.access.add_prefix(&prefixes.access);
        self.prefixes.insert(0, prefixes);
        self
    }

    /// The keys with which a gateway refuses forged access handles without a request. They neither
    /// make nor check refresh tokens and codes. Call [`HandleKeys::for_issuer`] first: the keys
    /// belong to an issuer.
    #[must_use]
    pub const fn access_keys(&self) -> &AccessHandleKeys {
        &self.access
    }

    /// A new access token for a grant, with its digest.
    ///
    /// # Errors
    ///
    /// If the source of random bytes fails.
    pub fn mint_access(
        &self,
        grant: GrantId,
        random: &Random,
    ) -> Result<(TokenSecret, TokenDigest), RandomError> {
        let key = self.access.minting();
        scrubbed(|| {
            let mut bytes = Zeroizing::new([0; ACCESS]);
            bytes[0] = VERSION;
            bytes[1] = key.id;
            bytes[2..18].copy_from_slice(grant.as_bytes());
            random.fill(&mut bytes[18..ACCESS_BODY])?;
            let tag = tag(&key.mac, TokenKind::Access, &bytes[..ACCESS_BODY]);
            bytes[ACCESS_BODY..].copy_from_slice(&tag);
            Ok(self.spell(TokenKind::Access, &*bytes))
        })
    }

    /// Parses an access handle. `None` if the string is not one, or its tag is forged.
    #[must_use]
    pub fn parse_access(&self, presented: &str) -> Option<AccessHandle> {
        match self.access.check(presented) {
            HandleCheck::Genuine(handle) => Some(handle),
            _ => None,
        }
    }

    /// A new credential of the chain of a grant, with its digest.
    ///
    /// # Errors
    ///
    /// If the source of random bytes fails.
    pub fn mint_chain(
        &self,
        kind: ChainKind,
        grant: GrantId,
        generation: u32,
        chain_key: &ChainKey,
        random: &Random,
    ) -> Result<(TokenSecret, TokenDigest), RandomError> {
        let (kind, key) = (kind.token_kind(), &self.chain[0]);
        scrubbed(|| {
            let mut bytes = Zeroizing::new([0; CHAIN]);
            bytes[0] = VERSION;
            bytes[1] = key.id;
            bytes[2..18].copy_from_slice(grant.as_bytes());
            bytes[18..22].copy_from_slice(&generation.to_be_bytes());
            random.fill(&mut bytes[22..CHAIN_BODY])?;
            let chain_tag = tag(&keyed(chain_key.expose()), kind, &bytes[..CHAIN_BODY]);
            bytes[CHAIN_BODY..CHAIN_BODY + TAG].copy_from_slice(&chain_tag);
            let tag = tag(&key.mac, kind, &bytes[..CHAIN_BODY + TAG]);
            bytes[CHAIN_BODY + TAG..].copy_from_slice(&tag);
            Ok(self.spell(kind, &*bytes))
        })
    }

    /// Parses a chain handle of this kind. `None` if the string is not one, or its outer tag is
    /// forged. Only [`ChainHandle::is_genuine`] shows whether the handle was made for its grant.
    #[must_use]
    pub fn parse_chain(&self, kind: ChainKind, presented: &str) -> Option<ChainHandle> {
        // Most tokens that are asked about are of another kind.
        let mut prefixes = self.prefixes.iter().map(|all| all.prefix(kind.token_kind()));
        if !prefixes.any(|prefix| presented.starts_with(prefix)) {
            return None;
        }
        scrubbed(|| self.parse_chain_unscrubbed(kind, presented))
    }

    fn parse_chain_unscrubbed(&self, kind: ChainKind, presented: &str) -> Option<ChainHandle> {
        let token_kind = kind.token_kind();
        let bytes = self.decode_chain(kind, presented)?;
        let (body, presented_tag) = bytes.split_at(CHAIN_BODY + TAG);
        let mut keys = self.chain.iter().filter(|key| key.id == body[1]);
        if !keys.any(|key| key.made(token_kind, body, presented_tag)) {
            return None;
        }
        let (mut grant, mut generation) = ([0; 16], [0; 4]);
        grant.copy_from_slice(&bytes[2..18]);
        generation.copy_from_slice(&bytes[18..22]);
        Some(ChainHandle {
            kind,
            grant: GrantId::from_bytes(grant),
            generation: u32::from_be_bytes(generation),
            digest: TokenDigest::compute_unscrubbed(token_kind, &bytes),
            bytes,
        })
    }

    /// Decodes a chain handle of this kind, genuine or not.
    fn decode_chain(&self, kind: ChainKind, presented: &str) -> Option<Zeroizing<Vec<u8>>> {
        self.prefixes
            .iter()
            .filter_map(|prefixes| presented.strip_prefix(prefixes.prefix(kind.token_kind())))
            // One prefix may be the beginning of another.
            .find_map(|text| {
                let mut bytes = Zeroizing::new(vec![0; CHAIN]);
                decode_into(text, &mut bytes).then_some(bytes)
            })
            .filter(|bytes| bytes[0] == VERSION)
    }

    /// Call it in [`scrubbed`].
    fn spell(&self, kind: TokenKind, bytes: &[u8]) -> (TokenSecret, TokenDigest) {
        let prefix = self.prefixes[0].prefix(kind);
        // In place: a buffer that grows, or one in between, would leave a copy of the secret behind.
        let mut text = vec![0; prefix.len() + (bytes.len() * 8).div_ceil(6)];
        text[..prefix.len()].copy_from_slice(prefix.as_bytes());
        let encoded = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text[prefix.len()..]);
        debug_assert_eq!(encoded, Ok(text.len() - prefix.len()));
        let text = String::from_utf8(text).expect("base64url is ASCII");
        (TokenSecret::new(text), TokenDigest::compute_unscrubbed(kind, bytes))
    }
}

impl fmt::Debug for HandleKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandleKeys")
            .field("ids", &self.roots.iter().map(|root| root.id).collect::<Vec<_>>())
            .field("issuers", &self.issuers)
            .field("prefixes", &self.prefixes)
            .finish_non_exhaustive()
    }
}

/// The kinds of handles in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a chain holds codes and refresh tokens, and nothing else"
)]
pub enum ChainKind {
    /// An authorization code.
    Code,
    /// A refresh token.
    Refresh,
}

impl ChainKind {
    /// The kind of credential.
    #[must_use]
    pub const fn token_kind(self) -> TokenKind {
        match self {
            Self::Code => TokenKind::Code,
            Self::Refresh => TokenKind::Refresh,
        }
    }
}

/// A refresh token or code whose outer tag is genuine. Redacted in `Debug`.
#[derive(Clone)]
pub struct ChainHandle {
    /// Its kind.
    pub kind: ChainKind,
    /// The grant whose chain it belongs to.
    pub grant: GrantId,
    /// Its number in the chain.
    pub generation: u32,
    /// Its digest.
    pub digest: TokenDigest,
    /// On the heap: moving the handle leaves no copy of them behind.
    bytes: Zeroizing<Vec<u8>>,
}

impl ChainHandle {
    /// Whether the handle was made for the chain with this key. Check this before you act on its
    /// generation: otherwise a leaked handle secret and a grant id from a log would be enough to forge
    /// a handle that counts as reuse, and ends the session.
    #[must_use]
    pub fn is_genuine(&self, key: &ChainKey) -> bool {
        let (body, rest) = self.bytes.split_at(CHAIN_BODY);
        let made = || tag(&keyed(key.expose()), self.kind.token_kind(), body);
        scrubbed(made).ct_eq(&rest[..TAG]).into()
    }

    /// The decoded handle, a secret. The key of a sealed successor is derived from it.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for ChainHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainHandle")
            .field("kind", &self.kind)
            .field("grant", &self.grant)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
