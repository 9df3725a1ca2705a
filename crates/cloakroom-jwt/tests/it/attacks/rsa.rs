//! RSA: one key with two paddings, forged paddings, signatures out of range
//! (RFC 8017 §8.1.2, §8.2.2).

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PSS_SHA256, RsaPssSaltLength,
    RsaPublicKeyComponents, RsaSignatureEncoding,
};
use cloakroom_jwt::{Algorithm, KeySet, Signer as _, SigningKey};
use serde_json::json;

use super::bignum::{add, hex, mul, small, sub};
use crate::support::{
    accepts, b64, claims, header, key_set, published_as, refuses, runtime, signed, token, unb64,
};

/// The claims that the signatures below were made over, by another implementation.
const CLAIMS: &str = r#"{"iss":"https://as.example","aud":"https://orders.example","sub":"alice","client_id":"web-app","jti":"1","iat":1700000000,"exp":1700000600}"#;

/// The private key of RFC 7515 appendix A.2.
fn known(algorithm: Algorithm) -> SigningKey {
    let pem = include_str!("../vectors/rfc7515-a2.pem");
    SigningKey::from_pkcs8_pem(algorithm, pem).unwrap()
}

/// One key in both roles.
fn pair() -> (SigningKey, SigningKey) {
    let (pkcs1, pss) = (known(Algorithm::Rs256), known(Algorithm::Ps256));
    assert_eq!(pkcs1.kid(), pss.kid());
    (pkcs1, pss)
}

#[test]
fn one_key_has_one_padding() {
    let (pkcs1, pss) = pair();
    for (own, other) in [(&pkcs1, &pss), (&pss, &pkcs1)] {
        let keys = key_set(&[own]);
        let body = claims().to_string();
        accepts(&keys, "its own", &signed(own, &header(own).to_string(), &body));
        let honest = signed(other, &header(other).to_string(), &body);
        refuses(&keys, "the other, declared", &honest, "Algorithm");
        let silent = signed(other, &header(own).to_string(), &body);
        refuses(&keys, "the other, under the name of the one", &silent, "Signature");
        let false_name = signed(own, &header(other).to_string(), &body);
        refuses(&keys, "the one, under the name of the other", &false_name, "Algorithm");
    }
}

#[test]
fn numbers_out_of_range_and_of_the_wrong_size() {
    let (pkcs1, pss) = pair();
    for key in [&pkcs1, &pss] {
        let keys = key_set(&[key]);
        let n = unb64(serde_json::to_value(key.public_jwk()).unwrap()["n"].as_str().unwrap());
        // One whose sum with `n` still has as many bytes, and one that starts with a zero.
        let mut larger = None;
        let mut leading_zero = None;
        for jti in 0..5000 {
            let mut claims = claims();
            claims["jti"] = json!(jti.to_string());
            let jwt = token(key, &claims);
            let (input, signature) = jwt.rsplit_once('.').unwrap();
            let signature = unb64(signature);
            if let Some(sum) = add(&signature, &n) {
                larger.get_or_insert_with(|| format!("{input}.{}", b64(sum)));
            }
            if signature[0] == 0 {
                leading_zero.get_or_insert_with(|| format!("{input}.{}", b64(&signature[1..])));
            }
            // The first comes every other time, the second once in 256 times.
            if larger.is_some() && leading_zero.is_some() {
                break;
            }
        }
        refuses(&keys, "s + n", &larger.unwrap(), "Signature");
        refuses(&keys, "without its leading zero", &leading_zero.unwrap(), "Signature");

        let jwt = token(key, &claims());
        let (input, signature) = jwt.rsplit_once('.').unwrap();
        let s = unb64(signature);
        let one = small(1, n.len());
        for (what, bad) in [
            ("0", small(0, n.len())),
            ("1", one.clone()),
            ("n - 1", sub(&n, &one)),
            ("n", n.clone()),
            ("n + 1", add(&n, &one).unwrap()),
            ("n - s", sub(&n, &s)),
            ("ones", vec![0xff; n.len()]),
            ("a zero before it", [&[0], &s[..]].concat()),
            ("a zero after it", [&s[..], &[0]].concat()),
            ("a byte less", s[..s.len() - 1].to_vec()),
            ("a byte less at the start", s[1..].to_vec()),
            ("one byte", vec![1]),
            ("little-endian", s.iter().rev().copied().collect()),
            ("twice", [&s[..], &s].concat()),
        ] {
            refuses(&keys, what, &format!("{input}.{}", b64(bad)), "Signature");
        }
        accepts(&keys, "as it was", &jwt);
    }
}

static USUAL_SALT: RsaSignatureEncoding = RSA_PSS_SHA256;
static NO_SALT: RsaSignatureEncoding =
    RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Custom(0));
static LONG_SALT: RsaSignatureEncoding = RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);

/// A PSS signature by the key of appendix A.2.
fn salted(encoding: &'static RsaSignatureEncoding, input: &str) -> String {
    let der = known(Algorithm::Ps256).to_pkcs8_der().unwrap();
    let pair = aws_lc_rs::rsa::KeyPair::from_pkcs8(&der).unwrap();
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), input.as_bytes(), &mut signature).unwrap();
    b64(signature)
}

#[test]
fn parameters_that_jose_fixes() {
    let input = |alg: &str| {
        let header = format!(r#"{{"alg":"{alg}","kid":"a2","typ":"at+jwt"}}"#);
        format!("{}.{}", b64(header), b64(CLAIMS))
    };
    let keys = published_as(&known(Algorithm::Ps256), "a2");
    let pss = |signature: &str| format!("{}.{signature}", input("PS256"));
    accepts(&keys, "as RFC 7518 §3.5 has it", &pss(PSS));
    accepts(&keys, "by this library", &pss(&salted(&USUAL_SALT, &input("PS256"))));
    refuses(&keys, "no salt", &pss(&salted(&NO_SALT, &input("PS256"))), "Signature");
    refuses(&keys, "the longest salt", &pss(&salted(&LONG_SALT, &input("PS256"))), "Signature");
    refuses(&keys, "a mask by SHA-1", &pss(PSS_MGF1_SHA1), "Signature");

    let pkcs1 = known(Algorithm::Rs256);
    let keys = published_as(&pkcs1, "a2");
    let signature = runtime().block_on(pkcs1.sign(input("RS256").as_bytes())).unwrap();
    let good = format!("{}.{}", input("RS256"), b64(signature));
    accepts(&keys, "SHA-256", &good);
    let public = serde_json::to_value(pkcs1.public_jwk()).unwrap();
    RsaPublicKeyComponents { n: unb64(public["n"].as_str().unwrap()), e: vec![1, 0, 1] }
        .verify(
            &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            input("RS256").as_bytes(),
            &unb64(PKCS1_SHA1),
        )
        .unwrap();
    let weak = format!("{}.{PKCS1_SHA1}", input("RS256"));
    refuses(&keys, "SHA-1", &weak, "Signature");
}

/// With `e` = 3, and a verifier that looks no further than the end of the hash, a cube root is a
/// signature, whatever the key (CVE-2006-4339).
#[test]
fn a_cube_root_is_no_signature() {
    let keys = KeySet::prepare(
        &serde_json::from_value(json!({"keys": [
            {"kty": "RSA", "alg": "RS256", "kid": "three", "e": "Aw", "n": crate::vectors::RFC7638_N},
        ]}))
        .unwrap(),
    );
    assert!(!keys.is_empty(), "`e` = 3 is allowed");
    let header = r#"{"alg":"RS256","kid":"three","typ":"at+jwt"}"#;
    let input = format!("{}.{}", b64(header), b64(CLAIMS));
    let root = hex(CUBE_ROOT);
    // RFC 8017 §9.2: it begins as it should, and would pass if nobody counted the padding.
    let cube = mul(&root, &mul(&root, &root));
    let hash = digest(&SHA256, input.as_bytes());
    let info = hex("00 3031300d060960864801650304020105000420");
    let block = [&[0, 1], &[0xff; 8][..], &info, hash.as_ref()].concat();
    assert!(cube.len() == 255 && cube.starts_with(&block[1..]), "a zero goes without saying");

    let signature = [vec![0; 256 - root.len()], root].concat();
    let jwt = format!("{input}.{}", b64(signature));
    refuses(&keys, "a cube root", &jwt, "Signature");
}

const CUBE_ROOT: &str = "32cbfd4a7adc7905583d767520f51640759176d37826f2ef63ae3dc7a686aa0128e9dcc69bf19487a622461c57256bdfaffae175d2b25aa1a31d8750ebca528da6b482fcc9f84a89b26083c7b0f5617e4ac46ec7ca";
const PSS: &str = "J14_1kPhlD0guCwbvxaCp_xxt5LE06-wfTpGScV6yr9fAc6HlrcCwCy9S-BM9pqnRjmMurfuSl86ByyWV7M775myiqs64KqcEpJWIUinFgDfGwyZvzugz6dYrcLLSrb-doee90zJYan7nrkom5p9ZC7UaGIfAkTxWYMCn5DFaUMapCRokKJKGxUWCFC3xGf14IBpGVmlQdWt5B-r9Ah6CTDVGiJrqRLtWY5_UySBWVChmAJWisHGYRt-tYTYgzI53ibnS0NhmU_RN-6qx09ZIis9gngaKIC1I8fCLgR8NTdZLWcBV-8_bS-vJtr9PR-I_nZNb0zCotQIXsy_jHgZUw";
const PSS_MGF1_SHA1: &str = "YRuPIEq_5_1AdpaevFmnBJa0wNNIhLQOafrlPuLSyW2oIEDmz_17VU0jwvmBqgxWUeudcPjOVChrulE8AjEauTDE6_hQ20L-L6NN8OzlQj_2b3fYLKMfFM1O3AFMgoeGc01xJHaZDadnTa0j0gluT04iKOgFdtgEjfqtez6MUs7x2jU8yLWBFi6KN1lQj-FM3YrRBINwY6VKf7xkm56I18baWFbTZoLyQXMbTE7x52FxISiE78170Vrvp94BdqNtQFVuRFwoV6KHZfbQz4_wofRsme180Yed5Geg7rDwO4aKz6YHlLA5yJLaIsSAbd4FjD0QYGdgKqx-m_OH-Qmseg";
const PKCS1_SHA1: &str = "SDbqIXOHd8S-ITzDAgGxbKaSbEGPDs2P1x64kPBNCl2hMteuX60dYKQDZ1h6FdGvWnWX26P56VEQbW32wvsIDDbnQri2GIAah5tvLZw-7fsjaQ-UlfbaRcnJWv07ylc4B0Jhx64ebD-kiZf1mZ0kUkoMiZV3kY3AGC92tB8A3PNzTXulYCLIEDcReF--mHVJkD5XVaCEc32F2dUjXPnDwaL5JEiObNtgwHVHHuShETdwagNs_Ix6cpeMgHzDlJH4C2NxFSd4CWIODZpzAkSXjG_3Jt6zehNuypObHb8U6yd73ZZEf1W6CslWOsX89W-WJmGITsRg58_9XRsWGMom6Q";
