//! Private keys come and go as PKCS#8, and show themselves to nobody.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_jwt::{Algorithm, KeyError, Signer as _, SigningKey, danger};

use crate::support::{ALGORITHMS, b64, claims, key_set, pem, runtime, token, verifier};

#[test]
fn keys_survive_der_and_pem() {
    for algorithm in ALGORITHMS {
        let key = SigningKey::generate(algorithm).unwrap();
        let der = key.to_pkcs8_der().unwrap();
        for again in [
            SigningKey::from_pkcs8_der(algorithm, &der).unwrap(),
            SigningKey::from_pkcs8_pem(algorithm, &pem("PRIVATE KEY", &der)).unwrap(),
        ] {
            assert_eq!(again.public_jwk(), key.public_jwk());
            let jwt = token(&again, &claims());
            verifier().verify(&key_set(&[&key]), &jwt).unwrap();
        }
    }
}

#[test]
fn rsa_keys_of_pkcs1_pem_are_read() {
    let key = SigningKey::generate(Algorithm::Ps256).unwrap();
    let wrapped = pem("PRIVATE KEY", &key.to_pkcs8_der().unwrap());
    let inner = jsonwebtoken::EncodingKey::from_rsa_pem(wrapped.as_bytes()).unwrap();
    let pkcs1 = pem("RSA PRIVATE KEY", inner.as_bytes());
    let again = SigningKey::from_pkcs8_pem(Algorithm::Ps256, &pkcs1).unwrap();
    assert_eq!(again.kid(), key.kid());
}

#[test]
fn a_pem_block_is_found_among_others() {
    let key = SigningKey::generate(Algorithm::Es256).unwrap();
    let block = pem("PRIVATE KEY", &key.to_pkcs8_der().unwrap());
    let others = pem("EC PARAMETERS", b"parameters");
    for text in [format!("a comment\n{others}{block}{others}"), block.replace('\n', "\r\n")] {
        let again = SigningKey::from_pkcs8_pem(Algorithm::Es256, &text).unwrap();
        assert_eq!(again.kid(), key.kid());
    }
    for bad in [
        block.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
        block.replacen('\n', "\nProc-Type: 4,ENCRYPTED\n\n", 1),
        block.replace("-----END", "=-----END"),
    ] {
        assert!(SigningKey::from_pkcs8_pem(Algorithm::Es256, &bad).is_err(), "{bad}");
    }
}

#[test]
fn ed25519_keys_are_written_as_version_1() {
    // RFC 8037 appendix A.1, in the wrapping of RFC 8410 §7.
    let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let der = [&prefix[..], &seed].concat();
    let key = SigningKey::from_pkcs8_der(Algorithm::EdDsa, &der).unwrap();
    assert_eq!(**key.to_pkcs8_der().unwrap(), *der);
    assert_eq!(key.kid().as_str(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");

    // Appendix A.4
    let input = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = runtime().block_on(key.sign(input.as_bytes())).unwrap();
    assert_eq!(
        b64(signature),
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
}

#[test]
fn keys_of_another_kind_are_refused() {
    let ders = ALGORITHMS.map(|algorithm| {
        let key = SigningKey::generate(algorithm).unwrap();
        (algorithm, key.to_pkcs8_der().unwrap())
    });
    for (of, der) in &ders {
        for wanted in ALGORITHMS {
            let rsa = [Algorithm::Rs256, Algorithm::Ps256];
            let fits = *of == wanted || rsa.contains(of) && rsa.contains(&wanted);
            let by_der = SigningKey::from_pkcs8_der(wanted, der);
            let by_pem = SigningKey::from_pkcs8_pem(wanted, &pem("PRIVATE KEY", der));
            for result in [by_der, by_pem] {
                match result {
                    Ok(_) => assert!(fits, "{of} as {wanted}"),
                    Err(KeyError::Rejected { algorithm, .. }) => {
                        assert!(!fits, "{of} as {wanted}");
                        assert_eq!(algorithm, wanted);
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
        for end in [0, 1, der.len() / 2, der.len() - 1] {
            assert!(SigningKey::from_pkcs8_der(*of, &der[..end]).is_err());
        }
    }
    for junk in [
        "",
        "-----BEGIN PRIVATE KEY-----",
        "junk",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ] {
        for algorithm in ALGORITHMS {
            assert!(SigningKey::from_pkcs8_pem(algorithm, junk).is_err());
        }
    }
}

#[test]
fn weak_rsa_keys_are_refused() {
    for algorithm in [Algorithm::Rs256, Algorithm::Ps256] {
        let error = SigningKey::from_pkcs8_pem(algorithm, include_str!("rsa-1024.pem"));
        assert!(matches!(error, Err(KeyError::Rejected { .. })), "{error:?}");
    }
}

#[test]
fn hs256_has_no_key_pairs() {
    let error = SigningKey::generate(danger::HS256).unwrap_err();
    assert!(matches!(error, KeyError::Unsupported(_)));
    assert!(SigningKey::from_pkcs8_der(danger::HS256, &[0; 64]).is_err());
}

#[test]
fn debug_shows_nothing_of_a_private_key() {
    for algorithm in ALGORITHMS {
        let key = SigningKey::generate(algorithm).unwrap();
        let der = key.to_pkcs8_der().unwrap();
        let shown = format!("{key:?} {key:#?}");
        assert_eq!(
            format!("{key:?}"),
            format!("SigningKey {{ kid: \"{}\", algorithm: {algorithm:?}, .. }}", key.kid())
        );
        // No eight bytes of it, however they might be spelled.
        for part in der.windows(8) {
            let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(!shown.contains(&hex));
            assert!(!shown.contains(&b64(part)[..10]));
        }
        assert!(shown.len() < 400);
    }
}
