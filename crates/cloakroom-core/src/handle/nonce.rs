//! Nonces that a server can verify without having stored them.
//!
//! ```text
//! base64url( version 1 | key 1 | expiry in ms 8 | random 16 | tag 16 )
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac as _;
use subtle::ConstantTimeEq as _;

use crate::handle::{HandleKeys, TagKey, VERSION};
use crate::random::{Random, RandomError};
use crate::secret::decode_array;
use crate::store::{SingleUse, SingleUseId};
use crate::time::UnixTime;

const BODY: usize = 1 + 1 + 8 + 16;
/// Longer than the tag of a handle, since no store has the digest of a nonce.
const TAG: usize = 16;

/// A nonce whose tag is genuine. A [`SingleUseStore`](crate::store::SingleUseStore) knows whether
/// it has been used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nonce {
    /// The item to spend.
    pub id: SingleUseId,
    /// When it expires.
    pub expires_at: UnixTime,
}

impl HandleKeys {
    /// A new nonce for this purpose. It is bound to a context, which must be the same when the
    /// nonce is used. A nonce contains no secret.
    ///
    /// # Errors
    ///
    /// If the source of random bytes fails.
    pub fn mint_nonce(
        &self,
        purpose: &str,
        context: &[u8],
        expires_at: UnixTime,
        random: &Random,
    ) -> Result<String, RandomError> {
        let key = &self.nonce[0];
        let mut bytes = [0; BODY + TAG];
        (bytes[0], bytes[1]) = (VERSION, key.id);
        bytes[2..10].copy_from_slice(&expires_at.as_millis().to_be_bytes());
        random.fill(&mut bytes[10..BODY])?;
        let tag = tag(key, purpose, context, &bytes[..BODY]);
        bytes[BODY..].copy_from_slice(&tag);
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Parses a nonce. `None` if the string was not made for this purpose and this context.
    #[must_use]
    pub fn parse_nonce(&self, purpose: &str, context: &[u8], presented: &str) -> Option<Nonce> {
        let bytes: [u8; BODY + TAG] = decode_array(presented)?;
        let (body, presented_tag) = bytes.split_at(BODY);
        if body[0] != VERSION {
            return None;
        }
        let mut keys = self.nonce.iter().filter(|key| key.id == body[1]);
        if !keys.any(|key| tag(key, purpose, context, body).ct_eq(presented_tag).into()) {
            return None;
        }
        let mut expires_at = [0; 8];
        expires_at.copy_from_slice(&body[2..10]);
        Some(Nonce {
            id: SingleUse { purpose: "nonce", owner: purpose, value: body }.id(),
            expires_at: UnixTime::from_millis(u64::from_be_bytes(expires_at)),
        })
    }
}

fn tag(key: &TagKey, purpose: &str, context: &[u8], body: &[u8]) -> [u8; TAG] {
    let mut mac = key.mac();
    // The body has a fixed length, so the length of the purpose is enough to separate all three.
    mac.update(&(purpose.len() as u64).to_be_bytes());
    mac.update(purpose.as_bytes());
    mac.update(context);
    mac.update(body);
    let full = mac.finalize().into_bytes();
    let mut tag = [0; TAG];
    tag.copy_from_slice(&full[..TAG]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::HandleSecret;

    const END: UnixTime = UnixTime::from_secs(2_000_000_000);

    fn keys() -> HandleKeys {
        HandleKeys::new(&HandleSecret::new(1, [7; 32]))
    }

    fn mint(keys: &HandleKeys, purpose: &str, context: &[u8]) -> String {
        keys.mint_nonce(purpose, context, END, &Random::system()).unwrap()
    }

    #[test]
    fn a_nonce_is_known_again_for_its_purpose_and_context_alone() {
        let keys = keys();
        let nonce = mint(&keys, "consent", b"client=app");
        assert_eq!(nonce.len(), 56, "version, key, end, 16 random bytes and 16 of the tag");
        let known = keys.parse_nonce("consent", b"client=app", &nonce).unwrap();
        assert_eq!(known.expires_at, END);
        for (purpose, context) in [
            ("sign-in", &b"client=app"[..]),
            ("consent", b"client=ap"),
            ("consent", b""),
            ("consentc", b"lient=app"),
            ("consen", b"tclient=app"),
        ] {
            assert_eq!(keys.parse_nonce(purpose, context, &nonce), None, "{purpose}");
        }
        let other = mint(&keys, "consent", b"client=app");
        assert_ne!(keys.parse_nonce("consent", b"client=app", &other).unwrap().id, known.id);
    }

    #[test]
    fn a_changed_nonce_is_forged() {
        let keys = keys();
        let nonce = mint(&keys, "consent", b"");
        for at in 0..nonce.len() {
            let mut bytes = nonce.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(keys.parse_nonce("consent", b"", &changed), None, "{at}");
        }
        for bad in ["", "AQ", &nonce[1..], &format!("{nonce}A"), &format!("{nonce}=")] {
            assert_eq!(keys.parse_nonce("consent", b"", bad), None, "{bad}");
        }
    }

    #[test]
    fn nonces_of_a_former_secret_stay_good_and_those_of_others_are_forged() {
        let (former, current) = (HandleSecret::new(1, [7; 32]), HandleSecret::new(2, [8; 32]));
        let nonce = mint(&HandleKeys::new(&former), "consent", b"");
        let both = HandleKeys::new(&current).with_former(&former).unwrap();
        assert!(both.parse_nonce("consent", b"", &nonce).is_some());
        assert!(HandleKeys::new(&current).parse_nonce("consent", b"", &nonce).is_none());
        let same_id = HandleKeys::new(&HandleSecret::new(1, [9; 32]));
        assert!(same_id.parse_nonce("consent", b"", &nonce).is_none());
    }
}
