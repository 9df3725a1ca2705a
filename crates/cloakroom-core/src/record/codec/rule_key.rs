//! The key of a rule as bytes.

use crate::ids::{ClientId, Jti, Kid, Subject};
use crate::revocation::RuleKey;
use crate::store::StoreError;

impl RuleKey {
    /// The key as bytes, for a column that is compared byte by byte.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, first, second) = match self {
            Self::Jti(jti) => (b'j', jti.as_str().to_owned(), ""),
            Self::Subject(subject) => (b's', subject.to_key(), ""),
            Self::Client(client) => (b'c', client.as_str().to_owned(), ""),
            Self::SubjectAtClient(subject, client) => (b'p', subject.to_key(), client.as_str()),
            Self::Key(kid) => (b'k', kid.as_str().to_owned(), ""),
        };
        // Identifiers may contain any byte, so the length of the first tells where the second begins.
        let length = u16::try_from(first.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&[kind], &length[..], first.as_bytes(), second.as_bytes()].concat()
    }

    /// Reads a key from these bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the bytes are not a key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = |why: &'static str| StoreError::corrupt("a rule's key", why);
        let Some((&[kind, high, low], rest)) = bytes.split_first_chunk() else {
            return Err(damaged("it is too short"));
        };
        let Some((first, second)) =
            rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))
        else {
            return Err(damaged("it is cut off"));
        };
        let text = |bytes| {
            std::str::from_utf8(bytes).map_err(|error| StoreError::corrupt("a rule's key", error))
        };
        let (first, second) = (text(first)?, text(second)?);
        let key = match kind {
            b'j' => Jti::new(first).map(Self::Jti),
            b's' => Subject::from_key(first).map(Self::Subject),
            b'c' => ClientId::new(first).map(Self::Client),
            b'p' => Subject::from_key(first).and_then(|subject| {
                ClientId::new(second).map(|client| Self::SubjectAtClient(subject, client))
            }),
            b'k' => Kid::new(first).map(Self::Key),
            _ => return Err(damaged("its kind is unknown")),
        };
        if kind != b'p' && !second.is_empty() {
            return Err(damaged("more bytes follow it"));
        }
        key.map_err(|error| StoreError::corrupt("a rule's key", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_keys_survive_their_bytes() {
        let (subject, client) = (Subject::user("a\0é").unwrap(), ClientId::new("u:").unwrap());
        let keys = [
            RuleKey::Jti(Jti::new("j").unwrap()),
            RuleKey::Subject(subject.clone()),
            RuleKey::Subject(Subject::Client(client.clone())),
            RuleKey::Client(client.clone()),
            RuleKey::SubjectAtClient(subject, client),
            RuleKey::Key(Kid::new("k").unwrap()),
        ];
        for key in &keys {
            let bytes = key.to_bytes();
            assert_eq!(RuleKey::from_bytes(&bytes).unwrap(), *key);
            for length in 0..bytes.len() {
                let cut = RuleKey::from_bytes(&bytes[..length]);
                assert!(cut.is_err() || cut.is_ok_and(|cut| cut != *key), "{key:?}");
            }
        }
        let all: std::collections::BTreeSet<_> = keys.iter().map(RuleKey::to_bytes).collect();
        assert_eq!(all.len(), keys.len());
    }
}
