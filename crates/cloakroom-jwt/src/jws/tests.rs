use serde_json::{Value, json};

use super::*;
use crate::SigningKey;

const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa, Algorithm::Rs256, Algorithm::Ps256];

fn claims(bytes: usize) -> Value {
    let empty = json!({"pad": ""}).to_string().len();
    json!({"pad": "x".repeat(bytes - empty)})
}

/// A handle whose claims do not fit would be refused by its API for as long as it lives: that has to
/// show when it is issued.
#[tokio::test]
async fn what_is_said_to_fit_does_under_every_key_that_can_be_generated() {
    let most = (5000..6500)
        .rev()
        .find(|bytes| will_fit(Algorithm::Es256, &claims(*bytes)).is_ok())
        .unwrap();
    for algorithm in ALGORITHMS {
        let key = SigningKey::generate(algorithm).unwrap();
        let sign = |bytes| {
            let claims = claims(bytes);
            let key = &key;
            async move { sign_jwt(key, ACCESS_TOKEN_TYP, &claims).await }
        };
        let token = sign(most).await.unwrap_or_else(|error| panic!("{algorithm}: {error:?}"));
        assert!(token.expose().len() <= MAX_JWT_BYTES);
        let by_rsa = matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256);
        let refused = matches!(sign(most + 1).await, Err(FormatError::TooLarge { .. }));
        assert_eq!(refused, by_rsa, "{algorithm}: no claims are refused without need");
    }
}

#[test]
fn the_length_of_base64_is_known_beforehand() {
    for bytes in 0..20 {
        assert_eq!(encoded_len(bytes), URL_SAFE_NO_PAD.encode(vec![0; bytes]).len(), "{bytes}");
    }
}

#[tokio::test]
async fn no_signature_is_longer_than_the_room_that_is_kept_for_it() {
    for algorithm in ALGORITHMS {
        let key = SigningKey::generate(algorithm).unwrap();
        let signature = key.sign(b"x").await.unwrap();
        let most = most_signature_bytes(algorithm);
        // An RSA key that was brought along may be twice as long as one of ours.
        let own = if most == 512 { 256 } else { most };
        assert_eq!(signature.len(), own, "{algorithm}");
    }
}

#[test]
fn the_limit_bounds_access_tokens_alone() {
    for (typ, size, fits) in [
        (ACCESS_TOKEN_TYP, MAX_JWT_BYTES, true),
        (ACCESS_TOKEN_TYP, MAX_JWT_BYTES + 1, false),
        (ACCESS_TOKEN_TYP, 0, true),
        ("token-introspection+jwt", MAX_JWT_BYTES + 1, true),
    ] {
        assert_eq!(within_limit(typ, size).is_ok(), fits, "{typ} {size}");
    }
}
