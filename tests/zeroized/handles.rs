//! Opaque handles, and the keys of their tags.

use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::format::{OpaqueFormat, TokenFormat};
use cloakroom_core::handle::{
    AccessHandleKeys, ChainKind, HandleCheck, HandleKeys, HandlePrefixes, HandleSecret,
};
use cloakroom_core::record::ChainKey;
use cloakroom_core::{GrantId, Random, TokenSecret};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sha2::block_api::compress256;
use zeroize::Zeroizing;

use crate::secrets::{Secrets, assert_wiped};

fn keys(random: &Random) -> HandleKeys {
    HandleKeys::new(&HandleSecret::random(1, random).expect("random bytes"))
}

#[test]
fn an_access_handle_is_wiped() {
    assert_wiped(|secrets| {
        let random = Random::system();
        let keys = keys(&random);
        let grant = GrantId::random(&random).expect("random bytes");
        let (token, digest) = keys.mint_access(grant, &random).expect("random bytes");
        secrets.add_token("an access handle", token.expose());

        let parsed = Box::new(keys.parse_access(token.expose()).expect("our own"));
        assert_eq!(parsed.digest, digest);
        let copy = TokenSecret::new(token.expose());
        let format = OpaqueFormat::new(keys);
        assert!(format.locate(&copy.clone()).expect("no I/O").is_some());
    });
}

#[test]
fn a_chain_handle_is_wiped() {
    for kind in [ChainKind::Code, ChainKind::Refresh] {
        assert_wiped(|secrets| {
            let random = Random::system();
            let keys = keys(&random);
            let grant = GrantId::random(&random).expect("random bytes");
            let chain = ChainKey::random(&random).expect("random bytes");
            let minted = keys.mint_chain(kind, grant, 3, &chain, &random);
            let (token, _) = minted.expect("random bytes");
            secrets.add_token("a chain handle", token.expose());

            let parsed = keys.parse_chain(kind, token.expose()).expect("our own");
            assert!(parsed.is_genuine(&chain));
            secrets.add("a chain handle, decoded", &parsed.expose()[22..]);
            // A vector that grows moves what it holds.
            let mut moved = vec![parsed.clone()];
            moved.push(parsed);
        });
    }
}

#[test]
fn a_handle_secret_is_wiped() {
    assert_wiped(|secrets| {
        let bytes: [u8; 32] = Random::system().array().expect("random bytes");
        secrets.add("a handle secret", bytes);
        let secret = black_box(Box::new(HandleSecret::new(1, bytes)));
        drop(black_box(secret.clone()));

        let hex = bytes.iter().fold(Zeroizing::new(String::with_capacity(64)), |mut hex, byte| {
            for digit in [byte >> 4, byte & 15] {
                hex.push(char::from_digit(digit.into(), 16).expect("a digit"));
            }
            hex
        });
        secrets.add("a handle secret in hex", hex.as_bytes());
        drop(black_box(Box::new(HandleSecret::from_hex(1, &hex).expect("64 digits"))));
    });
}

#[test]
fn handle_keys_are_wiped() {
    assert_wiped(|secrets| {
        let random = Random::system();
        let former: Vec<[u8; 32]> = (0..6).map(|_| random.array().expect("random bytes")).collect();
        for secret in &former {
            add_derived(secrets, secret);
        }
        let keys = HandleKeys::new(&HandleSecret::new(0, former[0]));
        let keys = (1..).zip(&former[1..]).fold(keys, |keys, (id, secret)| {
            keys.with_former(&HandleSecret::new(id, *secret)).expect("another id")
        });
        let prefixes = HandlePrefixes::new("a_", "b_", "c_").expect("well spelled");
        let keys = keys.clone().with_prefixes(prefixes);
        let moved = Box::new(keys);
        let grant = GrantId::from_bytes([7; 16]);
        let (token, _) = moved.mint_access(grant, &random).expect("random bytes");
        assert!(moved.parse_access(token.expose()).is_some());

        let json = moved.access_keys().to_json();
        let handed = AccessHandleKeys::from_json(json.as_bytes()).expect("its own");
        assert!(matches!(handed.clone().check(token.expose()), HandleCheck::Genuine(_)));
    });
}

#[test]
fn a_chain_key_is_wiped() {
    assert_wiped(|secrets| {
        let bytes = Random::system().array().expect("random bytes");
        let key = Box::new(ChainKey::from_bytes(bytes));
        secrets.add("a chain key", bytes.to_vec());
        drop(black_box(key.clone()));
    });
}

/// What of a prepared HMAC key is in memory: the two states of SHA-256 that start with the key
/// (RFC 2104 §4).
fn add_derived(secrets: &mut Secrets, secret: &[u8; 32]) {
    /// The state that SHA-256 starts with (FIPS 180-4 §5.3.3).
    const START: [u32; 8] = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];
    for purpose in [&b"cloakroom access handle"[..], b"cloakroom chain handle"] {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length is a key");
        mac.update(purpose);
        let key: [u8; 32] = mac.finalize().into_bytes().into();
        secrets.add("a handle key", key);
        secrets.add("a handle key as text", URL_SAFE_NO_PAD.encode(key));
        for pad in [0x36, 0x5c] {
            let mut block = [pad; 64];
            block.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
            let mut state = START;
            compress256(&mut state, &[block]);
            let words: Vec<u8> = state.iter().flat_map(|word| word.to_ne_bytes()).collect();
            secrets.add("the state of a handle key", words);
        }
    }
}
