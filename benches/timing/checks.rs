//! The checks, and their controls.

use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::{Client, SecretHash};
use cloakroom_core::handle::{HandleKeys, HandleSecret};
use cloakroom_core::{GrantId, Random, TokenDigest};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::measure::{Effort, Outcome, compare};

/// What must come out.
#[derive(Clone, Copy)]
pub(crate) enum Expected {
    /// A check of the library: the same time for both classes.
    Alike,
    /// The same class twice.
    ControlAlike,
    /// A comparison that stops at the first difference.
    ControlDifferent,
}

/// Where a wrong guess is wrong: in the first byte, or in the last.
const fn wrong_at(last: bool, length: usize) -> usize {
    if last { length - 1 } else { 0 }
}

/// The whole run.
pub(crate) struct Checks {
    effort: Effort,
    random: Random,
}

impl Checks {
    pub(crate) const fn new(quick: bool) -> Self {
        let effort = if quick { Effort::QUICK } else { Effort::FULL };
        Self { effort, random: Random::system() }
    }

    /// Measures everything, and reports it one by one.
    pub(crate) fn run(&self, mut report: impl FnMut(&str, Expected, Outcome)) {
        self.tags(&mut report);
        self.digests(&mut report);
        self.client_secrets(&mut report);
    }

    fn array<const N: usize>(&self) -> [u8; N] {
        self.random.array().expect("random bytes")
    }

    /// The tag of an opaque handle.
    fn tags(&self, report: &mut impl FnMut(&str, Expected, Outcome)) {
        let secret = self.array();
        let keys = HandleKeys::new(&HandleSecret::new(1, secret));
        let forged = |last| {
            let mut bytes = self.handle(&keys);
            bytes[BODY + wrong_at(last, TAG)] ^= 1;
            spelled(&bytes)
        };
        let check = |text: &Spelled| keys.parse_access(as_str(text)).is_some();
        report(
            "tag of a handle: wrong in its first, in its last byte",
            Expected::Alike,
            compare(self.effort, forged, check),
        );
        let fixed: [u8; BODY - 2 + TAG] = self.array();
        let random = |second| {
            let drawn: [u8; BODY - 2 + TAG] = self.array();
            let mut bytes = [1; BODY + TAG];
            bytes[2..].copy_from_slice(if second { &drawn } else { &fixed });
            spelled(&bytes)
        };
        report(
            "tag of a handle: one forged handle, random ones",
            Expected::Alike,
            compare(self.effort, random, check),
        );
        report(
            "control, the same class twice",
            Expected::ControlAlike,
            compare(self.effort, |_| forged(false), check),
        );
        let leaky = LeakyTags::new(&secret);
        report(
            "control, tag compared byte by byte: first, last",
            Expected::ControlDifferent,
            compare(self.effort, forged, |text| leaky.check(as_str(text))),
        );
    }

    /// A genuine access handle, decoded.
    fn handle(&self, keys: &HandleKeys) -> [u8; BODY + TAG] {
        let grant = GrantId::from_bytes(self.array());
        let (token, _) = keys.mint_access(grant, &self.random).expect("random bytes");
        let mut bytes = [0; BODY + TAG];
        let decoded = URL_SAFE_NO_PAD.decode_slice(&token.expose()[PREFIX.len()..], &mut bytes);
        assert_eq!(decoded, Ok(bytes.len()));
        bytes
    }

    /// The digest of a token.
    fn digests(&self, report: &mut impl FnMut(&str, Expected, Outcome)) {
        let pair =
            |of: [u8; 32], other| (TokenDigest::from_bytes(of), TokenDigest::from_bytes(other));
        let wrong = |last| {
            let own = self.array();
            let mut other = own;
            other[wrong_at(last, 32)] ^= 1;
            pair(own, other)
        };
        let check = |(own, other): &(TokenDigest, TokenDigest)| own == other;
        report(
            "digests: different in the first, in the last byte",
            Expected::Alike,
            compare(self.effort, wrong, check),
        );
        let equal = |second| {
            let (own, random) = (self.array(), self.array());
            pair(own, if second { random } else { own })
        };
        report("digests: equal, random", Expected::Alike, compare(self.effort, equal, check));
        report(
            "control, digests compared byte by byte: first, last",
            Expected::ControlDifferent,
            compare(self.effort, wrong, |(own, other)| leaky_eq(own.as_bytes(), other.as_bytes())),
        );
    }

    /// A client's secret, of which a hash is kept.
    fn client_secrets(&self, report: &mut impl FnMut(&str, Expected, Outcome)) {
        let secret = spelled_secret(&self.array());
        let hash: [u8; 32] = Sha256::digest(secret).into();
        // Nobody can choose a secret by its hash, but a test can choose the hash that is kept.
        let kept = |last| {
            let mut kept = hash;
            kept[wrong_at(last, 32)] ^= 1;
            kept
        };
        let client = |hash| {
            Client::hashed("app", [SecretHash::from_bytes(hash)]).build().expect("an identifier")
        };
        report(
            "client secret: its hash wrong in the first, in the last byte",
            Expected::Alike,
            compare(self.effort, |last| client(kept(last)), |own| own.has_secret(as_str(&secret))),
        );
        let known = client(hash);
        let check = |presented: &[u8; SECRET]| known.has_secret(as_str(presented));
        let changed = |at: Option<usize>| {
            let mut presented = secret;
            if let Some(at) = at {
                presented[at] = if presented[at] == b'x' { b'y' } else { b'x' };
            }
            presented
        };
        report(
            "client secret: wrong in its first, in its last character",
            Expected::Alike,
            compare(self.effort, |last| changed(Some(wrong_at(last, SECRET))), check),
        );
        report(
            "client secret: right, wrong",
            Expected::Alike,
            compare(self.effort, |wrong: bool| changed(wrong.then_some(SECRET / 2)), check),
        );
        report(
            "control, hash compared byte by byte: first, last",
            Expected::ControlDifferent,
            compare(self.effort, kept, |kept| leaky_eq(kept, &Sha256::digest(black_box(secret)))),
        );
    }
}

const PREFIX: &str = "cr_at_";
/// The bytes of an access handle that its tag covers.
const BODY: usize = 42;
const TAG: usize = 8;

/// An access handle as text, where it lies: a string would put it somewhere else.
type Spelled = [u8; PREFIX.len() + 67];

fn written(bytes: &[u8; BODY + TAG]) -> Spelled {
    let mut text = [0; PREFIX.len() + 67];
    text[..PREFIX.len()].copy_from_slice(PREFIX.as_bytes());
    let encoded = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text[PREFIX.len()..]);
    assert_eq!(encoded, Ok(67));
    text
}

const SECRET: usize = 43;

fn spelled_secret(bytes: &[u8; 32]) -> [u8; SECRET] {
    let mut text = [0; SECRET];
    assert_eq!(URL_SAFE_NO_PAD.encode_slice(bytes, &mut text), Ok(SECRET));
    text
}

fn as_str(text: &[u8]) -> &str {
    std::str::from_utf8(text).expect("base64url")
}

/// The check of a tag as it must not be.
struct LeakyTags(Hmac<Sha256>);

impl LeakyTags {
    fn new(secret: &[u8; 32]) -> Self {
        let keyed = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
        let key = keyed(secret).chain_update(b"cloakroom access handle").finalize().into_bytes();
        Self(keyed(&key))
    }

    fn check(&self, text: &str) -> bool {
        let Some(text) = text.strip_prefix(PREFIX) else { return false };
        let mut bytes = [0; BODY + TAG];
        if URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).is_err() {
            return false;
        }
        let (body, presented) = bytes.split_at(BODY);
        let tag = self.0.clone().chain_update([1]).chain_update(body).finalize().into_bytes();
        leaky_eq(presented, &tag[..TAG])
    }
}

/// Equality that stops at the first difference, and so tells where it is.
#[inline(never)]
fn leaky_eq(own: &[u8], other: &[u8]) -> bool {
    own.iter().zip(other).all(|(own, other)| own == other)
}
