//! RFC 7515 appendix A, and with it RFC 7519 §3.1, §6.1 and appendix A. None of these is an access
//! token, and none passes for one; what they prove of signatures is proved below that.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use cloakroom_jwt::danger::{Hs256Key, hs256_key_set};
use cloakroom_jwt::{Algorithm, KeySet, Signer as _, SigningKey};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::support::{
    accepts, b64, claims, header, key_set, published_as, refuses, runtime, signed, token, unb64,
};

/// `{"iss":"joe",` CRLF ` "exp":1300819380,` CRLF ` "http://example.com/is_root":true}`
const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

const A1_HEADER: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9";
const A1_K: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
const A1_TAG: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

const A2_HEADER: &str = "eyJhbGciOiJSUzI1NiJ9";
const A2_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const A2_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

const A3_HEADER: &str = "eyJhbGciOiJFUzI1NiJ9";
const A3_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const A3_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const A3_SIGNATURE: &str =
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

const A5_HEADER: &str = "eyJhbGciOiJub25lIn0";

const TYP: &str = "Header(`typ` is not `at+jwt`)";
const SEGMENTS: &str = "Malformed(it does not have three segments)";

/// The private key of appendix A.2 or A.3, read by this crate.
fn known(algorithm: Algorithm) -> SigningKey {
    let pem = match algorithm {
        Algorithm::Es256 => include_str!("rfc7515-a3.pem"),
        _ => include_str!("rfc7515-a2.pem"),
    };
    SigningKey::from_pkcs8_pem(algorithm, pem).unwrap()
}

fn public(key: &SigningKey) -> Value {
    serde_json::to_value(key.public_jwk()).unwrap()
}

fn sign(key: &dyn cloakroom_jwt::Signer, input: &str) -> String {
    b64(runtime().block_on(key.sign(input.as_bytes())).unwrap())
}

/// As the issuer's usual tokens, with this key under the `kid` that it has here.
fn its_access_tokens_pass(key: &dyn cloakroom_jwt::Signer, keys: &KeySet) {
    accepts(keys, "an access token", &token(key, &claims()));
}

#[test]
fn a1_hs256() {
    // RFC 7519 §3.1 is the same token.
    let input = format!("{A1_HEADER}.{PAYLOAD}");
    let key = Hs256Key::from_secret(Zeroizing::new(unb64(A1_K))).unwrap();
    assert_eq!(sign(&key, &input), A1_TAG);
    let jwt = format!("{input}.{A1_TAG}");
    refuses(&KeySet::default(), "by default", &jwt, TYP);
    refuses(&hs256_key_set(&[&key]), "with its secret", &jwt, TYP);
    let head = format!(r#"{{"typ":"at+jwt","alg":"HS256","kid":"{}"}}"#, key.kid());
    let renamed = format!("{}.{PAYLOAD}", b64(head));
    let renamed = format!("{renamed}.{}", sign(&key, &renamed));
    refuses(&hs256_key_set(&[&key]), "as an access token", &renamed, "Issuer");
    its_access_tokens_pass(&key, &hs256_key_set(&[&key]));
}

#[test]
fn a2_rs256() {
    let input = format!("{A2_HEADER}.{PAYLOAD}");
    let public_key = RsaPublicKeyComponents { n: unb64(A2_N), e: unb64("AQAB") };
    public_key.verify(&RSA_PKCS1_2048_8192_SHA256, input.as_bytes(), &unb64(A2_SIGNATURE)).unwrap();
    // PKCS #1 v1.5 signs the same words the same way, always.
    let key = known(Algorithm::Rs256);
    assert_eq!((&public(&key)["n"], &public(&key)["e"]), (&json!(A2_N), &json!("AQAB")));
    assert_eq!(sign(&key, &input), A2_SIGNATURE);
    let jwt = format!("{input}.{A2_SIGNATURE}");
    refuses(&key_set(&[&key]), "A.2", &jwt, TYP);
    its_access_tokens_pass(&key, &key_set(&[&key]));
}

#[test]
fn a3_es256() {
    let input = format!("{A3_HEADER}.{PAYLOAD}");
    let verifies = |signature: &str, input: &str| {
        let point = [vec![4], unb64(A3_X), unb64(A3_Y)].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(input.as_bytes(), &unb64(signature))
    };
    verifies(A3_SIGNATURE, &input).unwrap();
    let key = known(Algorithm::Es256);
    assert_eq!((&public(&key)["x"], &public(&key)["y"]), (&json!(A3_X), &json!(A3_Y)));
    verifies(&sign(&key, &input), &input).unwrap();
    let jwt = format!("{input}.{A3_SIGNATURE}");
    refuses(&key_set(&[&key]), "A.3", &jwt, TYP);
    let head = header(&key);
    let moved = format!("{}.{PAYLOAD}.{A3_SIGNATURE}", b64(head.to_string()));
    refuses(&key_set(&[&key]), "its signature under another header", &moved, "Signature");
    its_access_tokens_pass(&key, &key_set(&[&key]));
}

#[test]
fn a4_es512() {
    // `Payload`, with the signature of nobody's key.
    let jwt = format!("{}.UGF5bG9hZA.{}", b64(r#"{"alg":"ES512"}"#), b64([0x55; 132]));
    let key = known(Algorithm::Es256);
    refuses(&key_set(&[&key]), "A.4", &jwt, TYP);
    let head = r#"{"alg":"ES512","kid":"a3","typ":"at+jwt"}"#;
    let jwt = signed(&key, head, &claims().to_string());
    refuses(&published_as(&key, "a3"), "ES512", &jwt, "Algorithm");
    refuses(&KeySet::default(), "it may be a key that is new", &jwt, "UnknownKey(");
}

#[test]
fn a5_unsecured() {
    // RFC 7519 §6.1 is the same token: it ends with a dot.
    assert_eq!(unb64(A5_HEADER), br#"{"alg":"none"}"#);
    let key = known(Algorithm::Rs256);
    for (what, jwt, expected) in [
        ("A.5", format!("{A5_HEADER}.{PAYLOAD}."), SEGMENTS),
        ("without its dot", format!("{A5_HEADER}.{PAYLOAD}"), SEGMENTS),
        ("with a signature", format!("{A5_HEADER}.{PAYLOAD}.{A2_SIGNATURE}"), TYP),
    ] {
        refuses(&key_set(&[&key]), what, &jwt, expected);
        refuses(&KeySet::default(), what, &jwt, expected);
    }
}

#[test]
fn a6_json_serialization() {
    let general = json!({"payload": PAYLOAD, "signatures": [
        {"protected": A2_HEADER, "header": {"kid": "2010-12-29"}, "signature": A2_SIGNATURE},
        {"protected": A3_HEADER, "header": {"kid": "e9bc097a-ce51-4036-9562-d2ade882db0d"},
            "signature": A3_SIGNATURE},
    ]});
    let flattened = json!({"payload": PAYLOAD, "protected": A3_HEADER, "signature": A3_SIGNATURE});
    let keys = published_as(&known(Algorithm::Rs256), "2010-12-29");
    refuses(&keys, "A.6", &general.to_string(), SEGMENTS);
    refuses(&keys, "A.7", &flattened.to_string(), SEGMENTS);
}

/// RFC 7519 appendix A.1: encrypted, five segments.
#[test]
fn an_encrypted_jwt() {
    let jwe = "eyJhbGciOiJSU0ExXzUiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0.QR1Owv2ug2WyPBnbQrRARTeEk9kDO2w8qDcjiHnSJflSdv1iNqhWXaKH4MqAkQtMoNfABIPJaZm0HaA415sv3aeuBWnD8J-Ui7Ah6cWafs3ZwwFKDFUUsWHSK-IPKxLGTkND09XyjORj_CHAgOPJ-Sd8ONQRnJvWn_hXV1BNMHzUjPyYwEsRhDhzjAD26imasOTsgruobpYGoQcXUwFDn7moXPRfDE8-NoQX7N7ZYMmpUDkR-Cx9obNGwJQ3nM52YCitxoQVPzjbl7WBuB7AohdBoZOdZ24WlN1lVIeh8v1K4krB8xgKvRU8kgFrEn_a1rZgN5TiysnmzTROF869lQ.AxY8DCtDaGlsbGljb3RoZQ.MKOle7UQrG6nSxTLX6Mqwt0orbHvAKeWnDYvpIAeZ72deHxz3roJDXQyhxx0wKaMHDjUEOKIwrtkHthpqEanSBNYHZgmNOV7sln1Eu9g3J8.fiK51VwhsxJ-siBMR-YFiA";
    let sizes: Vec<usize> = jwe.split('.').map(|part| unb64(part).len()).collect();
    assert_eq!(sizes[1..], [256, 16, 80, 16], "key, vector, blocks, tag");
    refuses(&key_set(&[&known(Algorithm::Rs256)]), "A.1", jwe, SEGMENTS);
}
