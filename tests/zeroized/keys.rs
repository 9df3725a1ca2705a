//! Private keys, what seals them, and what they sign.

use std::hint::black_box;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloakroom_core::Random;
use cloakroom_jwt::danger::{Hs256Key, hs256_key_set};
use cloakroom_jwt::{
    ACCESS_TOKEN_TYP, AesGcmSealer, Algorithm, JwkSet, KeyManager, KeySealer, KeySet, SealError,
    Signer, SigningKey, Verifier, sign_jwt,
};
use cloakroom_memory::MemoryStore;
use serde_json::json;
use zeroize::Zeroizing;

use crate::secrets::{Secrets, assert_wiped, in_a_task};

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa, Algorithm::Rs256];

#[test]
fn private_keys_are_wiped() {
    for algorithm in ALGORITHMS {
        assert_wiped(|secrets| {
            let key = Box::new(SigningKey::generate(algorithm).expect("a key"));
            let der = key.to_pkcs8_der().expect("it can be written");
            secrets.add("a private key", &der[private_part(&der)]);
            let again = SigningKey::from_pkcs8_der(algorithm, &der).expect("its own");
            assert_eq!(again.kid(), key.kid());
            assert!(SigningKey::from_pkcs8_der(algorithm, &der[..der.len() - 1]).is_err());
        });
    }
}

#[test]
fn private_keys_in_pem_are_wiped() {
    for algorithm in ALGORITHMS {
        assert_wiped(|secrets| {
            let key = SigningKey::generate(algorithm).expect("a key");
            let der = key.to_pkcs8_der().expect("it can be written");
            let private = private_part(&der);
            secrets.add("a private key", &der[private.clone()]);
            let mut pem = Zeroizing::new(String::with_capacity(3000));
            pem.push_str("-----BEGIN PRIVATE KEY-----\n");
            let start = pem.len();
            STANDARD.encode_string(&*der, &mut pem);
            // Whole characters: three bytes are four.
            let text = start + (private.start * 4).div_ceil(3)..start + private.end * 4 / 3;
            secrets.add("a private key in base64", &pem[text]);
            pem.insert(start + 32, '\n');
            pem.push_str("\n-----END PRIVATE KEY-----\n");
            let again = SigningKey::from_pkcs8_pem(algorithm, &pem).expect("its own");
            assert_eq!(again.kid(), key.kid());
            // One that was damaged on the way is refused late.
            let end = pem.len() - 40;
            pem.insert(end, '!');
            assert!(SigningKey::from_pkcs8_pem(algorithm, &pem).is_err());
        });
    }
}

#[test]
fn sealing_keys_and_what_they_seal_are_wiped() {
    assert_wiped(|secrets| {
        let random = Random::system();
        let mut keys = Zeroizing::new([[0; 32]; 8]);
        for key in keys.iter_mut() {
            random.fill(key).expect("random bytes");
            secrets.add("a sealing key", key.as_slice());
        }
        let sealer = AesGcmSealer::new(0, keys[0]);
        let sealer =
            (1..).zip(&keys[1..]).fold(sealer, |sealer, (id, key)| sealer.with_former(id, *key));
        let sealer = Box::new(black_box(sealer.clone()));

        let mut plain = Zeroizing::new(vec![0; 138]);
        random.fill(&mut plain).expect("random bytes");
        secrets.add("what is sealed", plain.as_slice());
        in_a_task(async move {
            let sealed = sealer.seal(b"context", &plain).await.expect("sealed");
            let opened = sealer.unseal(b"context", &sealed).await.expect("its own");
            assert!(*opened == *plain);
            assert!(sealer.unseal(b"another", &sealed).await.is_err());
        });
    });
}

#[test]
fn shared_secrets_are_wiped() {
    assert_wiped(|secrets| {
        let key = Hs256Key::random(&Random::system()).expect("random bytes");
        secrets.add("a shared secret", key.expose());
        let copy = Zeroizing::new(key.expose().to_vec());
        let keys = [key, Hs256Key::from_secret(copy).expect("it is long enough")];
        let set = hs256_key_set(&keys);
        assert!(set.contains(keys[0].kid()));
    });
}

#[test]
fn the_ring_of_keys_leaves_no_private_key_behind() {
    for algorithm in ALGORITHMS {
        assert_wiped(|secrets| {
            let sealer = Arc::new(Spy::new());
            let seen = Arc::clone(&sealer);
            in_a_task(async move {
                let store = Arc::new(MemoryStore::new());
                let open = || KeyManager::builder(store.clone(), sealer.clone()).build();
                let manager = KeyManager::builder(store.clone(), sealer.clone())
                    .algorithm(algorithm)
                    .build()
                    .await
                    .expect("two keys");
                let signer = manager.signer().await.expect("a key");
                let signature = signer.sign(b"input").await.expect("a signature");
                assert!(signature.len() >= 64);
                manager.rotate().await.expect("right after the start it may");
                // Another node reads what this one wrote.
                let other = open().await.expect("the same ring");
                other.maintain().await.expect("nothing is due");
                let kid = manager.signer().await.expect("a key").kid().clone();
                drop(manager.compromise(&kid).await.expect("it is replaced"));
            });
            seen.tell(secrets);
        });
    }
}

#[test]
fn a_signed_token_is_wiped() {
    for algorithm in ALGORITHMS {
        assert_wiped(|secrets| {
            let key = SigningKey::generate(algorithm).expect("a key");
            let token = in_a_task(async move {
                let claims = json!({ "sub": "alice", "filler": "x".repeat(700) });
                sign_jwt(&key, ACCESS_TOKEN_TYP, &claims).await.expect("a signature")
            });
            secrets.add_token("a JWT", token.expose());
        });
    }
}

#[test]
fn a_verified_token_is_wiped() {
    for algorithm in ALGORITHMS {
        let key = SigningKey::generate(algorithm).expect("a key");
        let keys = KeySet::prepare(&JwkSet::new(vec![key.public_jwk().clone()]));
        let claims = json!({
            "iss": "https://as.example", "aud": "https://api.example", "sub": "alice",
            "client_id": "app", "jti": "1", "iat": 1_700_000_000, "exp": 4_000_000_000_u64,
        });
        let token = in_a_task(async move { sign_jwt(&key, ACCESS_TOKEN_TYP, &claims).await });
        let token = token.expect("a signature");
        assert_wiped(|secrets| {
            secrets.add_token("a JWT", token.expose());
            let signature = token.expose().rsplit('.').next().expect("the last segment");
            secrets.add("a signature", URL_SAFE_NO_PAD.decode(signature).expect("base64url"));
            let verifier = Verifier::new("https://as.example", "https://api.example");
            assert!(verifier.verify(&keys, token.expose()).is_ok());
            assert!(verifier.verify(&KeySet::default(), token.expose()).is_err());
        });
    }
}

/// Where in a PKCS#8 key something stands that is not in its public key, too.
fn private_part(der: &[u8]) -> Range<usize> {
    match der.len() {
        // Ed25519 (RFC 8410 §7): the seed is the end.
        48 => 16..48,
        // RFC 5915 §3: version 1, then the key as an octet string.
        ..300 => {
            let mark = [2, 1, 1, 4];
            let at = der.windows(4).position(|part| part == mark).expect("an EC key") + 4;
            at + 1..at + 1 + usize::from(der[at])
        }
        // RFC 8017 §A.1.2: the coefficient is the end.
        length => length - 100..length,
    }
}

/// A sealer that sees the private keys that the ring makes.
#[derive(Debug)]
struct Spy {
    sealer: AesGcmSealer,
    seen: Mutex<Vec<Vec<u8>>>,
}

impl Spy {
    fn new() -> Self {
        let sealer = AesGcmSealer::random().expect("random bytes");
        Self { sealer, seen: Mutex::default() }
    }

    fn tell(&self, secrets: &mut Secrets) {
        let seen = std::mem::take(&mut *self.seen.lock().expect("nobody panicked"));
        assert!(seen.len() >= 3, "two keys, and one more by rotation");
        for key in seen {
            secrets.add("a private key", key);
        }
    }
}

#[async_trait]
impl KeySealer for Spy {
    async fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        self.seen.lock().expect("nobody panicked").push(plain[private_part(plain)].to_vec());
        self.sealer.seal(context, plain).await
    }

    async fn unseal(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.sealer.unseal(context, sealed).await
    }
}
