//! The fuzz targets, as functions: each takes arbitrary bytes, and panics if a property does not hold
//! that must hold for every input. cargo-fuzz runs them (`fuzz/`), and an ordinary test replays the
//! corpus and generated inputs.

mod http;
mod jwt;
mod store;

use std::sync::LazyLock;

use cloakroom::core::TokenDigest;
use cloakroom::core::handle::{ChainKind, HandleKeys, HandleSecret};
use cloakroom::core::record::ChainKey;
use cloakroom::core::{GrantId, Random, TokenKind};

/// One fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// What it does with an input.
    pub run: fn(&[u8]),
    /// Good inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "handle", run: handle, seeds: handle_seeds },
    Target { name: "jwt", run: jwt::jwt, seeds: jwt::jwt_seeds },
    Target { name: "jwk_set", run: jwt::jwk_set, seeds: jwt::jwk_set_seeds },
    Target { name: "form", run: http::form, seeds: http::form_seeds },
    Target { name: "authorization", run: http::authorization, seeds: http::authorization_seeds },
    Target { name: "row", run: store::row, seeds: store::row_seeds },
    Target { name: "revocations", run: store::revocations, seeds: store::revocation_seeds },
];

/// The target of this name.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn target(name: &str) -> Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    *found.unwrap_or_else(|| panic!("no target is called {name}"))
}

static KEYS: LazyLock<HandleKeys> =
    LazyLock::new(|| HandleKeys::new(&HandleSecret::new(1, [7; 32])));

/// Only a string that was minted under the key is a handle, and no other string stands for the same
/// handle.
fn handle(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let minted = handle_seeds().iter().any(|seed| seed == input);
    let access = KEYS.parse_access(text).is_some();
    let chain = [ChainKind::Code, ChainKind::Refresh]
        .iter()
        .any(|kind| KEYS.parse_chain(*kind, text).is_some());
    assert_eq!(access || chain, minted, "{text:?}");
}

fn handle_seeds() -> Vec<Vec<u8>> {
    static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let random = Random::system();
        let grant = GrantId::from_digest(&TokenDigest::compute(TokenKind::Access, b"seed"));
        let key = ChainKey::random(&random).expect("random bytes");
        let chain = |kind| KEYS.mint_chain(kind, grant, 3, &key, &random).expect("random bytes");
        let access = KEYS.mint_access(grant, &random).expect("random bytes");
        [access, chain(ChainKind::Code), chain(ChainKind::Refresh)]
            .map(|(token, _)| token.expose().as_bytes().to_vec())
            .to_vec()
    });
    SEEDS.clone()
}
