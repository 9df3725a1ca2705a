//! The keys that the log has named as compromised.

use std::collections::VecDeque;

use cloakroom_core::Kid;

/// How many are remembered: the last ones. An issuer has a handful of keys in a year.
const MAX_KEYS: usize = 1_000;

/// A rule about a key ends when no verifier can have the key any more. A verifier whose JWK Set has
/// ended, and cannot be fetched again, has it for longer, so these have no end.
#[derive(Debug, Default)]
pub(super) struct CompromisedKeys(VecDeque<Kid>);

impl CompromisedKeys {
    pub(super) fn note(&mut self, kid: &Kid) {
        if self.named(kid) {
            return;
        }
        if self.0.len() == MAX_KEYS {
            self.0.pop_front();
        }
        self.0.push_back(kid.clone());
    }

    pub(super) fn named(&self, kid: &Kid) -> bool {
        self.0.contains(kid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_keys_are_remembered() {
        let kid = |number: usize| Kid::new(number.to_string()).unwrap();
        let mut keys = CompromisedKeys::default();
        for number in 0..=MAX_KEYS {
            keys.note(&kid(number));
            keys.note(&kid(number));
        }
        assert_eq!(keys.0.len(), MAX_KEYS);
        assert!(!keys.named(&kid(0)) && keys.named(&kid(1)) && keys.named(&kid(MAX_KEYS)));
    }
}
