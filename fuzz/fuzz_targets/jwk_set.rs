//! A JWK Set from anywhere is read or refused, and what is read can be prepared.
#![no_main]

use cloakroom::jwt::{JwkSet, KeySet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    if let Ok(set) = JwkSet::from_json(json) {
        KeySet::prepare(&set);
    }
});
