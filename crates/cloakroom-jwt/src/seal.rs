//! Sealing of private keys before they are stored.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use cloakroom_core::store::CheckValue;
use cloakroom_core::{InvalidValue, Random, RandomError, decode_hex};
use zeroize::Zeroizing;

/// Seals private keys, so that a leaked database cannot sign. [`AesGcmSealer`] is built in. Implement the
/// trait, with [`#[async_trait]`](crate::async_trait), for a key management service or an HSM.
///
/// `context` names what is sealed. An implementation must authenticate it together with the sealed bytes:
/// unsealing with another context must fail, so that nobody can swap two records in a store.
#[async_trait]
pub trait KeySealer: fmt::Debug + Send + Sync + 'static {
    /// Seals `plain` for `context`.
    ///
    /// # Errors
    ///
    /// If the sealer fails.
    async fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError>;

    /// Unseals bytes that [`seal`](KeySealer::seal) made for the same context.
    ///
    /// # Errors
    ///
    /// If they were sealed under another key or for another context, if they are damaged, or if the sealer fails.
    async fn unseal(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError>;

    /// For each key-encryption key, its name and a check value that identifies the key without
    /// revealing it, if the sealer can compute one. The key store remembers them, so that a
    /// different key with the same name is detected at the start, even if nothing has been sealed.
    /// A name is short printable ASCII.
    fn checks(&self) -> Vec<CheckValue> {
        Vec::new()
    }

    /// The name of the key-encryption key that seals, if the sealer names its keys. A sealer whose keys
    /// change must name them, so that [`KeyManager::reseal`](crate::KeyManager::reseal) can tell what
    /// is sealed under an older key. A name is short printable ASCII, and is never used for another key.
    fn current_key(&self) -> Option<String> {
        None
    }

    /// The name of the key-encryption key under which these bytes were sealed, if they show it. The
    /// sealer may lack that key.
    fn key_of(&self, sealed: &[u8]) -> Option<String> {
        let _ = sealed;
        None
    }

    /// The names of the keys that only open, and are older than the current key.
    fn replaced_keys(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Seals with AES-256-GCM under a key-encryption key that the app keeps.
///
/// The sealed form is `version 1 | key id 1 | nonce 12 | ciphertext and tag`, and the context is
/// associated data.
///
/// To replace the key, give the new one a higher `id`:
///
/// 1. Give the new key to every node with [`with_former`](AesGcmSealer::with_former).
/// 2. Make it the current key everywhere, and keep the old one as a former key.
/// 3. Call [`KeyManager::reseal`](crate::KeyManager::reseal) once. When
///    [`Resealed::removable`](crate::Resealed::removable) names the old key, remove it from the nodes, and keep
///    a copy elsewhere as long as you keep backups from before.
///
/// ```
/// use cloakroom_jwt::{AesGcmSealer, KeySealer};
///
/// # let (key, key_of_last_year) = ([1; 32], [2; 32]);
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let sealer = AesGcmSealer::new(2, key).with_former(1, key_of_last_year);
/// let sealed = sealer.seal(b"what it is", b"secret").await?;
/// assert_eq!(sealer.unseal(b"what it is", &sealed).await?.as_slice(), b"secret");
/// assert!(sealer.unseal(b"something else", &sealed).await.is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct AesGcmSealer {
    current: SealingKey,
    former: Vec<SealingKey>,
    random: Random,
}

#[derive(Clone)]
struct SealingKey {
    id: u8,
    /// On the heap: a vector of keys that grows would leave copies of them behind.
    bytes: Arc<Zeroizing<[u8; 32]>>,
}

const VERSION: u8 = 1;
/// Version and key id.
const HEADER: usize = 2;
const TAG: usize = 16;

impl AesGcmSealer {
    /// Seals under this key: 32 random bytes, which you keep apart from the database. The sealed bytes
    /// name the key by `id`.
    #[must_use]
    pub fn new(id: u8, key: [u8; 32]) -> Self {
        Self { current: SealingKey::new(id, key), former: Vec::new(), random: Random::system() }
    }

    /// Seals under the key with these 64 hexadecimal digits, for example from an environment variable.
    /// `openssl rand -hex 32` makes one.
    ///
    /// # Errors
    ///
    /// If the text is anything else.
    pub fn from_hex(id: u8, hex: &str) -> Result<Self, InvalidValue> {
        Ok(Self::new(id, decode_hex(hex)?))
    }

    /// Also opens under a key that was or will be the current one. A key that was the current one has a
    /// lower `id` than the current key, and one that will be has a higher `id`. A key with the `id` of
    /// the current key is never used.
    #[must_use]
    pub fn with_former(mut self, id: u8, key: [u8; 32]) -> Self {
        self.former.push(SealingKey::new(id, key));
        self
    }

    /// Takes nonces from `random` instead of the operating system.
    #[must_use]
    pub fn with_random(mut self, random: Random) -> Self {
        self.random = random;
        self
    }

    /// Seals under a random key that is not kept. This is for development and tests, in which the
    /// signing keys are lost when the process ends.
    ///
    /// # Errors
    ///
    /// If the source of random bytes fails.
    pub fn random() -> Result<Self, RandomError> {
        Ok(Self::new(0, Random::system().array()?))
    }
}

impl SealingKey {
    fn new(id: u8, bytes: [u8; 32]) -> Self {
        Self { id, bytes: Arc::new(Zeroizing::new(bytes)) }
    }

    /// An HMAC of a fixed text under the key.
    fn check(&self) -> CheckValue {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.bytes.as_slice());
        let value = hmac::sign(&key, b"cloakroom check value").as_ref().to_vec();
        CheckValue { name: self.id.to_string(), value }
    }

    fn prepare(&self) -> Result<LessSafeKey, SealError> {
        let key = UnboundKey::new(&AES_256_GCM, self.bytes.as_slice());
        Ok(LessSafeKey::new(key.map_err(|_| SealError::Refused)?))
    }
}

#[async_trait]
impl KeySealer for AesGcmSealer {
    async fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let key = self.current.prepare()?;
        let nonce: [u8; NONCE_LEN] = self.random.array()?;
        // It seals in place in a buffer that never grows, so that no plaintext is left behind.
        let mut sealed = Vec::with_capacity(HEADER + NONCE_LEN + plain.len() + TAG);
        sealed.extend_from_slice(&[VERSION, self.current.id]);
        sealed.extend_from_slice(&nonce);
        let body = sealed.len();
        sealed.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(context), &mut sealed[body..])
            .map_err(|_| SealError::Refused)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    async fn unseal(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (&[version, id], rest) = sealed.split_first_chunk().ok_or(SealError::Damaged)?;
        let (&nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Damaged)?;
        if version != VERSION || body.len() < TAG {
            return Err(SealError::Damaged);
        }
        let key = std::iter::once(&self.current)
            .chain(&self.former)
            .find(|key| key.id == id)
            .ok_or(SealError::UnknownKey(id))?
            .prepare()?;
        let mut plain = Zeroizing::new(body.to_vec());
        let length = key
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut plain)
            .map_err(|_| SealError::Refused)?
            .len();
        plain.truncate(length);
        Ok(plain)
    }

    fn checks(&self) -> Vec<CheckValue> {
        let mut checks: Vec<CheckValue> = Vec::new();
        // Of several keys of one id the first is used.
        for check in std::iter::once(&self.current).chain(&self.former).map(SealingKey::check) {
            if checks.iter().all(|other| other.name != check.name) {
                checks.push(check);
            }
        }
        checks
    }

    fn current_key(&self) -> Option<String> {
        Some(self.current.id.to_string())
    }

    fn key_of(&self, sealed: &[u8]) -> Option<String> {
        match sealed {
            [VERSION, id, ..] => Some(id.to_string()),
            _ => None,
        }
    }

    fn replaced_keys(&self) -> Vec<String> {
        let older = self.former.iter().map(|key| key.id).filter(|id| *id < self.current.id);
        older.collect::<BTreeSet<u8>>().into_iter().map(|id| id.to_string()).collect()
    }
}

impl fmt::Debug for AesGcmSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let former: Vec<u8> = self.former.iter().map(|key| key.id).collect();
        write!(f, "AesGcmSealer(current {}, former {former:?}, redacted)", self.current.id)
    }
}

/// A private key could not be sealed or unsealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The bytes were not made by this kind of sealer.
    #[error("the sealed bytes are truncated, or have an unknown version")]
    Damaged,
    /// They were sealed under a key that this sealer does not have.
    #[error(
        "it was sealed under the key-encryption key {0}, which this sealer does not have: add it as a former key"
    )]
    UnknownKey(u8),
    /// The key with this id did not seal the bytes, or they are damaged, or they belong to another
    /// record.
    #[error(
        "the bytes cannot be unsealed: another key-encryption key sealed them, they are damaged, or they belong to another record"
    )]
    Refused,
    /// The source of random bytes failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Another sealer failed, for example because a key management service is not available.
    #[error("the key sealer failed")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_sealed_opens_under_the_same_context_alone() {
        let sealer = AesGcmSealer::new(7, [3; 32]);
        let sealed = sealer.seal(b"context", b"private").await.unwrap();
        assert_eq!(&sealed[..2], [1, 7]);
        assert_eq!(sealed.len(), 2 + 12 + 7 + 16);
        assert_eq!(sealer.unseal(b"context", &sealed).await.unwrap().as_slice(), b"private");
        assert!(matches!(sealer.unseal(b"other", &sealed).await, Err(SealError::Refused)));
    }

    #[tokio::test]
    async fn no_two_seals_are_alike() {
        let sealer = AesGcmSealer::random().unwrap();
        let (a, b) = (sealer.seal(b"c", b"p").await, sealer.seal(b"c", b"p").await);
        assert_ne!(a.unwrap(), b.unwrap());
    }

    #[tokio::test]
    async fn damage_anywhere_is_noticed() {
        let sealer = AesGcmSealer::new(7, [3; 32]);
        let sealed = sealer.seal(b"context", b"private").await.unwrap();
        for index in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[index] ^= 1;
            assert!(sealer.unseal(b"context", &damaged).await.is_err(), "{index}");
            assert!(sealer.unseal(b"context", &sealed[..index]).await.is_err(), "{index}");
        }
    }

    #[tokio::test]
    async fn what_is_shorter_than_a_tag_is_damaged() {
        let sealer = AesGcmSealer::new(7, [3; 32]);
        let empty = sealer.seal(b"context", b"").await.unwrap();
        assert_eq!(empty.len(), 2 + 12 + 16, "a tag alone");
        assert!(sealer.unseal(b"context", &empty).await.unwrap().is_empty());
        let short = sealer.unseal(b"context", &empty[..empty.len() - 1]).await;
        assert!(matches!(short, Err(SealError::Damaged)));
    }

    #[tokio::test]
    async fn former_keys_open_and_unknown_or_wrong_ones_do_not() {
        let old = AesGcmSealer::new(1, [1; 32]);
        let sealed = old.seal(b"context", b"private").await.unwrap();
        let new = AesGcmSealer::new(2, [2; 32]);
        assert!(matches!(new.unseal(b"context", &sealed).await, Err(SealError::UnknownKey(1))));
        let both = new.clone().with_former(1, [1; 32]);
        assert!(both.unseal(b"context", &sealed).await.is_ok());
        assert_eq!(both.seal(b"context", b"private").await.unwrap()[1], 2);
        let wrong = new.with_former(1, [9; 32]);
        assert!(matches!(wrong.unseal(b"context", &sealed).await, Err(SealError::Refused)));
    }

    #[tokio::test]
    async fn sealed_bytes_name_their_key_and_lower_ids_are_older() {
        let sealer = AesGcmSealer::new(7, [7; 32])
            .with_former(9, [9; 32])
            .with_former(2, [2; 32])
            .with_former(2, [3; 32])
            .with_former(1, [1; 32]);
        assert_eq!(sealer.current_key().as_deref(), Some("7"));
        assert_eq!(sealer.replaced_keys(), ["1", "2"], "the key 9 is yet to come");
        let sealed = sealer.seal(b"context", b"private").await.unwrap();
        assert_eq!(sealer.key_of(&sealed).as_deref(), Some("7"));
        let others = AesGcmSealer::new(200, [1; 32]).seal(b"context", b"private").await.unwrap();
        assert_eq!(sealer.key_of(&others).as_deref(), Some("200"), "a key that it lacks");
        for unnamed in [&[] as &[u8], &[VERSION], &[VERSION + 1, 7, 0]] {
            assert_eq!(sealer.key_of(unnamed), None);
        }
    }

    #[tokio::test]
    async fn a_failing_source_of_nonces_seals_nothing() {
        let sealer = AesGcmSealer::new(1, [1; 32]).with_random(crate::test_support::no_random());
        assert!(matches!(sealer.seal(b"context", b"private").await, Err(SealError::Random(_))));
    }

    #[test]
    fn debug_shows_no_key() {
        let sealer = AesGcmSealer::new(1, [0xab; 32]).with_former(2, [0xcd; 32]);
        let text = format!("{sealer:?}").to_lowercase();
        for leak in ["ab", "cd", "171", "205"] {
            assert!(!text.contains(&format!("{leak}, {leak}")), "{text}");
            assert!(!text.contains(&leak.repeat(2)), "{text}");
        }
        assert_eq!(text, "aesgcmsealer(current 1, former [2], redacted)");
    }
}
