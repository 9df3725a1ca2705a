//! No string that was not minted here is a handle.
#![no_main]

use std::sync::LazyLock;

use cloakroom::core::{ChainKind, HandleKeys, HandleSecret};
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<HandleKeys> =
    LazyLock::new(|| HandleKeys::new(&HandleSecret::new(1, [7; 32])));

fuzz_target!(|text: &str| {
    assert!(KEYS.parse_access(text).is_none());
    for kind in [ChainKind::Code, ChainKind::Refresh] {
        assert!(KEYS.parse_chain(kind, text).is_none());
    }
});
