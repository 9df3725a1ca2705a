//! Opaque handles: minting them, and recognizing forged ones.

use std::hint::black_box;

use cloakroom_benches::{Pair, Suite, per_call};
use cloakroom_core::handle::{HandleKeys, HandleSecret};
use cloakroom_core::{GrantId, Random};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The bytes that an access handle's tag covers, and those that its digest covers.
const BODY: usize = 42;
const WHOLE: usize = 50;

fn main() {
    let suite = Suite::from_args();
    let random = Random::system();
    let keys = HandleKeys::new(&HandleSecret::new(1, [7; 32]));
    let grant = GrantId::from_bytes([9; 16]);
    let mac = Hmac::<Sha256>::new_from_slice(&[7; 32]).expect("any length is a key");
    let tag = |bytes: &[u8]| {
        let mut mac = mac.clone();
        mac.update(bytes);
        mac.finalize().into_bytes()
    };

    let mint = Pair::new("mint an opaque handle", per_call(|| keys.mint_access(grant, &random)))
        .floor(
            "getrandom, HMAC, SHA-256",
            per_call(|| {
                let mut bytes = [0; WHOLE];
                getrandom::fill(&mut bytes[18..BODY]).expect("random bytes");
                (tag(black_box(&bytes[..BODY])), Sha256::digest(black_box(bytes)))
            }),
        );
    suite.report(mint.measure(&suite));

    let (token, _) = keys.mint_access(grant, &random).expect("random bytes");
    let genuine = token.expose();
    let parse =
        Pair::new("recognize an opaque handle", per_call(|| keys.parse_access(black_box(genuine))))
            .floor(
                "HMAC, SHA-256",
                per_call(|| {
                    let bytes = black_box([7; WHOLE]);
                    (tag(&bytes[..BODY]), Sha256::digest(bytes))
                }),
            );
    suite.report(parse.measure(&suite));

    let mut forged = genuine.to_owned();
    forged.replace_range(40..41, if &forged[40..41] == "A" { "B" } else { "A" });
    assert!(keys.parse_access(&forged).is_none(), "or it is not what is refused");
    let refuse =
        Pair::new("refuse a forged handle", per_call(|| keys.parse_access(black_box(&forged))))
            .floor("HMAC", per_call(|| tag(black_box(&[7; BODY]))));
    suite.report(refuse.measure(&suite));
}
