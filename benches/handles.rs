//! Opaque handles, each operation beside its floor: the primitives that it cannot do without.

use std::hint::black_box;

use cloakroom_core::{GrantId, HandleKeys, HandleSecret, Random};
use criterion::{Criterion, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The bytes that an access handle's tag covers, and those that its digest covers.
const BODY: usize = 42;
const WHOLE: usize = 50;

fn handles(c: &mut Criterion) {
    let random = Random::system();
    let keys = HandleKeys::new(&HandleSecret::new(1, [7; 32]));
    let grant = GrantId::from_bytes([9; 16]);
    let mac = Hmac::<Sha256>::new_from_slice(&[7; 32]).expect("any length is a key");
    let tag = |bytes: &[u8]| {
        let mut mac = mac.clone();
        mac.update(bytes);
        mac.finalize().into_bytes()
    };

    let mut group = c.benchmark_group("mint");
    group.bench_function("access handle", |b| b.iter(|| keys.mint_access(grant, &random)));
    group.bench_function("floor: getrandom + HMAC + SHA-256", |b| {
        b.iter(|| {
            let mut bytes = [0; WHOLE];
            getrandom::fill(&mut bytes[18..BODY]).expect("random bytes");
            (tag(black_box(&bytes[..BODY])), Sha256::digest(black_box(bytes)))
        });
    });
    group.finish();

    let (token, _) = keys.mint_access(grant, &random).expect("random bytes");
    let mut forged = token.expose().to_owned();
    forged.replace_range(40..41, if &forged[40..41] == "A" { "B" } else { "A" });
    let mut group = c.benchmark_group("parse");
    group.bench_function("access handle", |b| {
        b.iter(|| keys.parse_access(black_box(token.expose())));
    });
    group.bench_function("forged access handle", |b| {
        b.iter(|| keys.parse_access(black_box(&forged)));
    });
    group.bench_function("floor: HMAC + SHA-256", |b| {
        let bytes = [7; WHOLE];
        b.iter(|| (tag(black_box(&bytes[..BODY])), Sha256::digest(black_box(bytes))));
    });
    group.finish();
}

criterion_group!(benches, handles);
criterion_main!(benches);
