//! JWT access tokens, signed and verified without a store.

use std::hint::black_box;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloakroom_benches::{Pair, Suite, Timed, per_call};
use cloakroom_core::format::{MintContext, TokenFormat, TokenTerms};
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::Epoch;
use cloakroom_core::time::{Clock, SystemClock, UnixTime};
use cloakroom_core::{Audience, ClientId, GrantId, Random, Scope, Subject};
use cloakroom_jwt::{
    ACCESS_TOKEN_TYP, AesGcmSealer, Algorithm, JwkSet, JwtFormat, KeyManager, KeySet, SigningKey,
    Verifier, sign_jwt,
};
use cloakroom_memory::MemoryStore;
use futures_util::FutureExt;
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

const ISSUER: &str = "https://as.example";
const AUDIENCE: &str = "https://orders.example";

fn main() {
    let suite = Suite::from_args();
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Rs256] {
        let subject = Keys::new(algorithm);
        sign(&suite, &subject);
        mint(&suite, &subject);
        verify(&suite, &subject);
    }
}

/// The claims of an access token as this bench writes them, and as a user of jsonwebtoken would
/// read them.
#[derive(Clone, Serialize, Deserialize)]
struct AccessToken {
    scope: String,
    client_id: String,
    exp: u64,
    iat: u64,
    sub: String,
    aud: String,
    iss: String,
    jti: String,
    grant_id: String,
    grant_epoch: u64,
}

impl AccessToken {
    fn new(now: UnixTime) -> Self {
        let now = now.as_secs();
        Self {
            scope: "orders:read orders:write".into(),
            client_id: "web-app".into(),
            exp: now + 600,
            iat: now,
            sub: "alice".into(),
            aud: AUDIENCE.into(),
            iss: ISSUER.into(),
            jti: URL_SAFE_NO_PAD.encode([3; 16]),
            grant_id: URL_SAFE_NO_PAD.encode([9; 16]),
            grant_epoch: 1_700_000_000_000,
        }
    }
}

/// One private key, in the form of each library.
struct Keys {
    algorithm: Algorithm,
    ours: SigningKey,
    raw: Raw,
    theirs: EncodingKey,
    now: UnixTime,
}

enum Raw {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(rsa::KeyPair),
}

impl Keys {
    fn new(algorithm: Algorithm) -> Self {
        let ours = SigningKey::generate(algorithm).expect("a key");
        let der = ours.to_pkcs8_der().expect("DER");
        let pem = STANDARD.encode(&*der);
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n");
        let (raw, theirs) = match algorithm {
            Algorithm::Es256 => (
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).map(Raw::Es256),
                EncodingKey::from_ec_pem(pem.as_bytes()),
            ),
            Algorithm::EdDsa => (
                Ed25519KeyPair::from_pkcs8(&der).map(Raw::EdDsa),
                EncodingKey::from_ed_pem(pem.as_bytes()),
            ),
            _ => (
                rsa::KeyPair::from_pkcs8(&der).map(Raw::Rs256),
                EncodingKey::from_rsa_pem(pem.as_bytes()),
            ),
        };
        let raw = raw.expect("our own key");
        let theirs = theirs.expect("our own key");
        Self { algorithm, ours, raw, theirs, now: SystemClock::new().now() }
    }

    /// Header and claims of an access token, encoded: what is signed.
    fn input(&self) -> Vec<u8> {
        let jwt = self.jwt();
        let (input, _) = jwt.rsplit_once('.').expect("three segments");
        input.as_bytes().to_vec()
    }

    fn jwt(&self) -> String {
        let claims = AccessToken::new(self.now);
        let jwt = sign_jwt(&self.ours, ACCESS_TOKEN_TYP, &claims);
        jwt.now_or_never().expect("nothing waits").expect("a signature").expose().to_owned()
    }

    /// The signature alone, the floor of signing.
    fn sign_raw(&self) -> Timed<'_> {
        let input = self.input();
        let random = SystemRandom::new();
        match &self.raw {
            // A signature is a buffer of some kilobytes; returning it would move it again.
            Raw::Es256(key) => per_call(move || {
                let signature = key.sign(&random, black_box(&input)).expect("a signature");
                black_box(signature.as_ref());
            }),
            Raw::EdDsa(key) => per_call(move || {
                black_box(key.sign(black_box(&input)).as_ref());
            }),
            Raw::Rs256(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                per_call(move || {
                    key.sign(&RSA_PKCS1_SHA256, &random, black_box(&input), &mut signature)
                        .expect("a signature");
                })
            }
        }
    }

    fn verify_raw(&self) -> Timed<'_> {
        let jwt = self.jwt();
        let (input, signature) = jwt.rsplit_once('.').expect("three segments");
        let input = input.as_bytes().to_vec();
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let key = match &self.raw {
            Raw::Es256(key) => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key()),
            Raw::EdDsa(key) => ParsedPublicKey::new(&ED25519, key.public_key()),
            Raw::Rs256(key) => ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key()),
        };
        let key = key.expect("our own key");
        per_call(move || {
            key.verify_sig(black_box(&input), black_box(&signature)).expect("a good signature");
        })
    }

    fn their_algorithm(&self) -> jsonwebtoken::Algorithm {
        match self.algorithm {
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            _ => jsonwebtoken::Algorithm::RS256,
        }
    }

    fn encode(&self) -> Timed<'_> {
        let mut header = Header::new(self.their_algorithm());
        header.typ = Some(ACCESS_TOKEN_TYP.into());
        header.kid = Some(self.ours.kid().to_string());
        let claims = AccessToken::new(self.now);
        per_call(move || jsonwebtoken::encode(&header, &claims, &self.theirs).expect("a token"))
    }

    fn decode(&self) -> Timed<'_> {
        let jwk = serde_json::to_value(self.ours.public_jwk()).expect("a JWK");
        let member = |name: &str| jwk[name].as_str().expect("a member").to_owned();
        let key = match self.algorithm {
            Algorithm::Es256 => DecodingKey::from_ec_components(&member("x"), &member("y")),
            Algorithm::EdDsa => DecodingKey::from_ed_components(&member("x")),
            _ => DecodingKey::from_rsa_components(&member("n"), &member("e")),
        };
        let key = key.expect("our own key");
        let mut validation = Validation::new(self.their_algorithm());
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        let jwt = self.jwt();
        per_call(move || {
            jsonwebtoken::decode::<AccessToken>(black_box(&jwt), &key, &validation)
                .expect("a good token")
        })
    }
}

fn sign(suite: &Suite, keys: &Keys) {
    let claims = AccessToken::new(keys.now);
    let ours = per_call(|| {
        sign_jwt(&keys.ours, ACCESS_TOKEN_TYP, black_box(&claims))
            .now_or_never()
            .expect("nothing waits")
            .expect("a signature")
    });
    let pair = Pair::new(format!("sign {}", keys.algorithm), ours)
        .floor("aws-lc-rs, prepared key, the same bytes", keys.sign_raw())
        .beside("`jsonwebtoken::encode`", keys.encode())
        .at_most(1.08);
    suite.report(pair.measure(suite));
}

/// Everything that issuing a JWT does, except storing its grant.
fn mint(suite: &Suite, keys: &Keys) {
    let random = Random::system();
    let ring = KeyManager::builder(
        Arc::new(MemoryStore::new()),
        Arc::new(AesGcmSealer::random().expect("random bytes")),
    )
    .algorithm(keys.algorithm)
    .build()
    .now_or_never()
    .expect("nothing waits")
    .expect("a ring of keys");
    let format = JwtFormat::new(ring, ISSUER, Arc::new(SystemClock::new()));
    let grant = grant(keys.now);
    let end = UnixTime::from_secs(keys.now.as_secs() + 600);
    let terms = TokenTerms::new(keys.now, end, grant.scope.clone(), grant.audience.clone());
    let ours = per_call(|| {
        format
            .mint(MintContext::new(ISSUER, &grant, &terms, &random))
            .now_or_never()
            .expect("nothing waits")
            .expect("a token")
    });
    let pair = Pair::new(format!("mint a JWT, {}", keys.algorithm), ours)
        .floor("aws-lc-rs, prepared key, the same bytes", keys.sign_raw());
    suite.report(pair.measure(suite));
}

fn verify(suite: &Suite, keys: &Keys) {
    let jwt = keys.jwt();
    let set = KeySet::prepare(&JwkSet::new(vec![keys.ours.public_jwk().clone()]));
    let verifier = Verifier::new(ISSUER, AUDIENCE);
    let ours = per_call(|| verifier.verify(&set, black_box(&jwt)).expect("a good token"));
    let pair = Pair::new(format!("verify {}", keys.algorithm), ours)
        .floor("aws-lc-rs, prepared key", keys.verify_raw())
        .beside("`jsonwebtoken::decode`", keys.decode());
    let pair = match keys.algorithm {
        Algorithm::Es256 => pair.at_most(1.06),
        _ => pair,
    };
    suite.report(pair.measure(suite));
}

fn grant(now: UnixTime) -> GrantRecord {
    let end = UnixTime::from_secs(now.as_secs() + 86_400);
    let mut grant = GrantRecord::new(
        GrantId::from_bytes([9; 16]),
        ClientId::new("web-app").expect("valid"),
        Subject::user("alice").expect("valid"),
        Audience::one(AUDIENCE).expect("valid"),
        now,
        end,
    );
    grant.scope = Scope::parse("orders:read orders:write").expect("valid");
    grant.epoch = Epoch::new(now.as_millis());
    grant
}
