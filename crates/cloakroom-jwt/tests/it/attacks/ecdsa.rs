//! ECDSA signatures out of range, of the wrong size or form, or of another curve
//! (RFC 7518 §3.4).

use cloakroom_jwt::{Algorithm, KeySet, Signer as _, SigningKey};

use super::bignum::{hex, small, sub};
use crate::bad_input::der;
use crate::support::{accepts, b64, claims, key_set, refuses, runtime, token, unb64, verifier};

/// The orders of the groups, and the primes of the fields (FIPS 186-5, SP 800-186 §3.2.1).
const P256_N: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
const P256_P: &str = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
const P384_N: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973";
const P384_P: &str = "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffff";

/// A token, and what to put in place of its signature.
struct Signed {
    key: SigningKey,
    keys: KeySet,
    input: String,
    r: Vec<u8>,
    s: Vec<u8>,
    n: Vec<u8>,
    p: Vec<u8>,
}

impl Signed {
    fn new(algorithm: Algorithm) -> Self {
        let key = SigningKey::generate(algorithm).unwrap();
        let jwt = token(&key, &claims());
        let (input, signature) = jwt.rsplit_once('.').unwrap();
        let (n, p) = match algorithm {
            Algorithm::Es256 => (hex(P256_N), hex(P256_P)),
            _ => (hex(P384_N), hex(P384_P)),
        };
        let signature = unb64(signature);
        let (r, s) = signature.split_at(n.len());
        Self {
            keys: key_set(&[&key]),
            input: input.to_owned(),
            r: r.to_vec(),
            s: s.to_vec(),
            n,
            p,
            key,
        }
    }

    fn with(&self, signature: &[u8]) -> String {
        format!("{}.{}", self.input, b64(signature))
    }
}

#[test]
fn values_out_of_range() {
    for algorithm in [Algorithm::Es256, Algorithm::Es384] {
        let it = Signed::new(algorithm);
        let size = it.n.len();
        let (zero, one, two) = (small(0, size), small(1, size), small(2, size));
        let (n, p, ones) = (it.n.clone(), it.p.clone(), vec![0xff; size]);
        let n_less_1 = sub(&n, &one);
        let n_plus_1 = super::bignum::add(&n, &one).unwrap();
        let p_less_n = sub(&p, &n);
        let values = [
            ("0", &zero),
            ("1", &one),
            ("2", &two),
            ("n-1", &n_less_1),
            ("n", &n),
            ("n+1", &n_plus_1),
            ("p-n", &p_less_n),
            ("p", &p),
            ("2^k-1", &ones),
            ("its own", &it.r),
            ("its other", &it.s),
        ];
        accepts(&it.keys, "as it was", &it.with(&[&it.r[..], &it.s].concat()));
        for (r_is, r) in values {
            for (s_is, s) in values {
                if (r_is, s_is) == ("its own", "its other") {
                    continue;
                }
                let what = format!("{algorithm}: r = {r_is}, s = {s_is}");
                refuses(&it.keys, &what, &it.with(&[&r[..], s].concat()), "Signature");
            }
        }
    }
}

#[test]
fn forms_and_sizes_that_are_not_of_jose() {
    for algorithm in [Algorithm::Es256, Algorithm::Es384] {
        let it = Signed::new(algorithm);
        let (r, s) = (&it.r[..], &it.s[..]);
        let raw = [r, s].concat();
        let long_der = {
            // The length in two bytes where one would do: BER, not DER.
            let body = &der(r, s)[2..];
            [&[0x30, 0x81, u8::try_from(body.len()).unwrap()], body].concat()
        };
        for (what, signature) in [
            ("DER", der(r, s)),
            ("BER", long_der),
            ("DER and a byte", [&der(r, s)[..], &[0]].concat()),
            ("a byte less at the end", raw[..raw.len() - 1].to_vec()),
            ("a byte less at the start", raw[1..].to_vec()),
            ("a zero more at the end", [&raw[..], &[0]].concat()),
            ("a zero more at the start", [&[0], &raw[..]].concat()),
            ("a zero more before each", [&[0], r, &[0], s].concat()),
            ("r alone", r.to_vec()),
            ("s, then r", [s, r].concat()),
            ("twice", [&raw[..], &raw].concat()),
            ("with a recovery id (Ethereum)", [&raw[..], &[27]].concat()),
            ("little-endian", raw.iter().rev().copied().collect()),
            (
                "as hexadecimal text",
                raw.iter().flat_map(|b| format!("{b:02x}").into_bytes()).collect(),
            ),
            ("as base64url text", b64(&raw).into_bytes()),
            ("64 KiB", vec![0x55; 64 * 1024]),
        ] {
            refuses(&it.keys, &format!("{algorithm}: {what}"), &it.with(&signature), "Signature");
        }
        accepts(&it.keys, "as it was", &it.with(&raw));
    }
}

#[test]
fn signatures_of_other_curves_and_hashes() {
    let (small, large) = (Signed::new(Algorithm::Es256), Signed::new(Algorithm::Es384));
    for (it, other) in [(&small, &large), (&large, &small)] {
        let foreign = runtime().block_on(other.key.sign(it.input.as_bytes())).unwrap();
        let cut = &[&foreign[..], &[0; 96]].concat()[..2 * it.n.len()];
        refuses(&it.keys, "the other curve", &it.with(&foreign), "Signature");
        refuses(&it.keys, "the other curve, cut to size", &it.with(cut), "Signature");
    }
    // The right key on the right curve, and the hash of the other algorithm.
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let pair = EcdsaKeyPair::from_pkcs8(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &small.key.to_pkcs8_der().unwrap(),
    )
    .unwrap();
    let by = |message: &[u8]| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
    accepts(&small.keys, "SHA-256", &small.with(&by(small.input.as_bytes())));
    let hashed = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, small.input.as_bytes());
    refuses(&small.keys, "hashed twice", &small.with(&by(hashed.as_ref())), "Signature");
    refuses(&small.keys, "of nothing", &small.with(&by(b"")), "Signature");
    let payload = small.input.split('.').nth(1).unwrap();
    refuses(&small.keys, "of the claims alone", &small.with(&by(payload.as_bytes())), "Signature");
}

/// Neither RFC 7515 nor RFC 7518 asks for the smaller of `s` and `n - s`: both are signatures of
/// the same words, and an issuer may have written either. Whoever sees a token can therefore make
/// a second one that says the same, to the letter, and gains nothing by it: it has the `jti`, the
/// grant and the times of the first, and dies with it. But the text of a JWT is no name for it.
#[test]
fn a_twin_of_a_signature_says_the_same() {
    for algorithm in [Algorithm::Es256, Algorithm::Es384] {
        let it = Signed::new(algorithm);
        let original = it.with(&[&it.r[..], &it.s].concat());
        let twin = it.with(&[it.r.clone(), sub(&it.n, &it.s)].concat());
        assert_ne!(original, twin);
        assert_eq!(
            verifier().verify(&it.keys, &original).unwrap(),
            verifier().verify(&it.keys, &twin).unwrap(),
        );
        let other = it.with(&[sub(&it.n, &it.r), it.s.clone()].concat());
        refuses(&it.keys, "n - r", &other, "Signature");
    }
}
