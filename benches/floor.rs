//! The least work that introspecting, issuing and refreshing handles needs: no parsing, no checks of
//! clients or scopes, no answer.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::store::{Lookup, TokenStore};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest, TokenKind, TokenSecret};
use cloakroom_memory::MemoryStore;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};

use crate::now;

/// The length of an access handle, and of the part that its tag covers.
const ACCESS: usize = 50;
const ACCESS_BODY: usize = 42;
/// The length of a refresh token, and of the part that the chain's tag covers.
const CHAIN: usize = 62;
const CHAIN_BODY: usize = 46;
const SHARDS: usize = 256;

/// A decoded access handle.
pub(crate) type AccessBytes = [u8; ACCESS];

type Digest = [u8; 32];
type Records = Arc<(GrantRecord, TokenRecord)>;
type Shard = RwLock<HashMap<Digest, Records, BuildHasherDefault<DigestHasher>>>;

/// The records of the store's grants in a sharded std map, by digest.
pub(crate) struct Floor {
    shards: Vec<Shard>,
    /// The decoded handles, in the order of the tokens.
    handles: Vec<AccessBytes>,
    mac: Hmac<Sha256>,
}

impl Floor {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            handles: Vec::new(),
            mac: keyed(&[7; 32]),
        }
    }

    /// Copies the records of a token.
    pub(crate) fn add(&mut self, store: &MemoryStore, token: &TokenSecret) {
        let (_, text) = token.expose().split_at("cr_at_".len());
        let mut handle = [0; ACCESS];
        let size = URL_SAFE_NO_PAD.decode_slice(text, &mut handle).expect("our own handle");
        assert_eq!(size, ACCESS);
        let mut id = [0; 16];
        id.copy_from_slice(&handle[2..18]);
        let digest = TokenDigest::compute(TokenKind::Access, &handle);
        let found = now(store.find(GrantId::from_bytes(id), Some(digest))).expect("an answer");
        let Lookup::Found(found) = found else { panic!("it is there") };
        let token = found.token.expect("it is there");
        let records = Arc::new((GrantRecord::clone(&found.grant), TokenRecord::clone(&token)));
        self.put(Sha256::digest(handle).into(), records);
        self.handles.push(handle);
    }

    pub(crate) fn handle(&self, number: usize) -> AccessBytes {
        self.handles[number]
    }

    pub(crate) fn introspect_all(&self, handles: &[AccessBytes]) {
        for handle in handles {
            black_box(self.introspect(handle));
        }
    }

    fn introspect(&self, handle: &AccessBytes) -> Records {
        black_box(self.tag(&handle[..ACCESS_BODY]));
        let records = self.get(&Sha256::digest(handle).into());
        let (grant, token) = &*records;
        // Reading the records fetches them into the caches, as a real lookup does.
        let at = UnixTime::from_secs(0);
        assert!(token.is_live(at) && grant.is_live(at));
        records
    }

    /// Issues the grant with this number, which must be new.
    pub(crate) fn issue(&self, number: u64) {
        let mut grant = [0; 16];
        let mut chain_key = [0; 16];
        getrandom::fill(&mut grant).expect("random bytes");
        getrandom::fill(&mut chain_key).expect("random bytes");
        black_box(self.refresh_token(&chain_key));
        black_box(self.access_token());
        // `create` inserts two new records.
        let records = self.get(&Sha256::digest(self.handles[0]).into());
        self.put(named(number), Arc::new((records.0.clone(), records.1.clone())));
    }

    /// Takes an issued grant out again.
    pub(crate) fn forget(&self, number: u64) {
        let digest = named(number);
        self.shard(&digest).write().unwrap_or_else(PoisonError::into_inner).remove(&digest);
    }

    pub(crate) fn refresh(&self, number: usize) {
        let handle = &self.handles[number];
        // The presented token: its two tags and its digest.
        let presented = black_box([9; CHAIN]);
        black_box(self.tag(&presented[..CHAIN_BODY + 8]));
        black_box(Sha256::digest(presented));
        let key: Digest = Sha256::digest(handle).into();
        let records = self.get(&key);
        let chain_key = [5; 16];
        black_box(tag(&keyed(&chain_key), &presented[..CHAIN_BODY]));
        // The successor, sealed for a retry.
        black_box(self.refresh_token(&chain_key));
        black_box(self.access_token());
        black_box(seal(&presented));
        self.put(key, Arc::new((records.0.clone(), records.1.clone())));
    }

    fn refresh_token(&self, chain_key: &[u8]) -> ([u8; 32], Digest) {
        let mut bytes = [0; CHAIN];
        getrandom::fill(&mut bytes[22..CHAIN_BODY]).expect("random bytes");
        black_box(tag(&keyed(chain_key), &bytes[..CHAIN_BODY]));
        (self.tag(&bytes[..CHAIN_BODY + 8]), Sha256::digest(bytes).into())
    }

    fn access_token(&self) -> ([u8; 32], Digest) {
        let mut bytes = [0; ACCESS];
        getrandom::fill(&mut bytes[18..ACCESS_BODY]).expect("random bytes");
        (self.tag(&bytes[..ACCESS_BODY]), Sha256::digest(bytes).into())
    }

    fn tag(&self, bytes: &[u8]) -> [u8; 32] {
        tag(&self.mac, bytes)
    }

    fn get(&self, digest: &Digest) -> Records {
        let shard = self.shard(digest).read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&shard[digest])
    }

    fn put(&self, digest: Digest, records: Records) {
        let mut shard = self.shard(&digest).write().unwrap_or_else(PoisonError::into_inner);
        shard.insert(digest, records);
    }

    fn shard(&self, digest: &Digest) -> &Shard {
        &self.shards[usize::from(digest[31])]
    }
}

/// A digest-like name, without the cost of a digest.
fn named(number: u64) -> Digest {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    digest[31] = number as u8;
    digest
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("any length is a key")
}

fn tag(mac: &Hmac<Sha256>, bytes: &[u8]) -> [u8; 32] {
    let mut mac = mac.clone();
    mac.update(black_box(bytes));
    mac.finalize().into_bytes().into()
}

fn seal(spent: &[u8]) -> Vec<u8> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).expect("random bytes");
    let key = Salt::new(HKDF_SHA256, b"floor")
        .extract(spent)
        .expand(&[b"floor"], &AES_256_GCM)
        .map(|okm| LessSafeKey::new(UnboundKey::from(okm)))
        .expect("a key");
    let mut sealed = vec![7; 89];
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
        .expect("sealed");
    sealed
}

/// Digests are hashes already.
#[derive(Default)]
struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(head) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*head);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
