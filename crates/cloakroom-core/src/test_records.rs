//! Records for unit tests.

use serde_json::json;

use crate::ids::{ClientId, GrantId, Kid, Subject};
use crate::keys::KeyRecord;
use crate::keys::schedule::{KeyTimes, Signing};
use crate::random::Random;
use crate::record::{
    Chain, ChainKey, CodeBinding, Confirmation, GrantRecord, SealedSuccessor, SpentBefore,
    TokenRecord,
};
use crate::record::{Claims, Device};
use crate::revocation::Epoch;
use crate::scope::{Audience, Scope};
use crate::secret::{TokenDigest, TokenKind};
use crate::time::UnixTime;

pub(crate) fn grant(seed: u8) -> GrantRecord {
    let now = UnixTime::from_secs(1_700_000_000);
    GrantRecord {
        id: GrantId::from_bytes([seed; 16]),
        client: ClientId::new("web-app").unwrap(),
        subject: Subject::user("alice").unwrap(),
        scope: Scope::parse("orders:read orders:write").unwrap(),
        audience: Audience::one("https://orders.example").unwrap(),
        confirmation: Some(Confirmation::JwkThumbprint([4; 32])),
        auth_time: Some(now),
        acr: Some("urn:example:mfa".into()),
        created_at: now,
        epoch: Epoch::new(1_700_000_000_000),
        username: Some("Alice".into()),
        act: Some(Box::new(json!({"sub": "support"}))),
        authorization_details: Some(Box::new(json!([{"type": "payment"}]))),
        session: Some("sid-1".into()),
        claims: Claims::new([("tenant", json!("acme"))]).unwrap(),
        device: Device::new([("browser", "Firefox")]).unwrap(),
        chain: Some(Chain {
            credential: TokenKind::Refresh,
            generation: 2,
            digest: TokenDigest::compute(TokenKind::Refresh, &[seed]),
            key: ChainKey::random(&Random::system()).unwrap(),
            expires_at: UnixTime::from_secs(1_700_100_000),
            code: Some(Box::new(CodeBinding {
                redirect_uri: "https://app.example/cb".into(),
                redirect_uri_omitted: true,
                challenge: Some("c".repeat(43)),
                nonce: Some("n-1".into()),
                unknown: Default::default(),
            })),
            successor: Some(Box::new(SealedSuccessor {
                sealed: vec![1, 2, 3],
                until: now,
                earlier: vec![SpentBefore { sealed: vec![4, 5], ..SpentBefore::new(0, now) }],
                unknown: Default::default(),
            })),
            bound_from: Some(1),
            rotates: true,
            unknown: Default::default(),
        }),
        expires_at: UnixTime::from_secs(1_707_000_000),
        row_expires_at: UnixTime::from_secs(1_707_000_000),
        refreshed_at: Some(now),
        revoked_at: None,
        unknown: Default::default(),
    }
}

pub(crate) fn token(grant: GrantId, seed: u8) -> TokenRecord {
    TokenRecord {
        digest: TokenDigest::compute(TokenKind::Access, &[seed]),
        grant,
        issued_at: UnixTime::from_secs(1_700_000_000),
        expires_at: UnixTime::from_secs(1_700_000_600),
        revoked_at: None,
        scope: Scope::parse("orders:read").unwrap(),
        audience: Audience::one("https://orders.example").unwrap(),
        confirmation: None,
        claims: Some(Claims::new([("tenant", json!("acme")), ("role", json!("admin"))]).unwrap()),
        unknown: Default::default(),
    }
}

pub(crate) fn key() -> KeyRecord {
    let at = UnixTime::from_secs;
    KeyRecord {
        generation: 1,
        version: 1,
        kid: Kid::new("k").unwrap(),
        algorithm: "ES256".into(),
        ring: String::new(),
        public_jwk: json!({"kty": "EC"}),
        sealed: vec![1, 2],
        times: KeyTimes {
            signing: Some(Signing::new(at(2), at(3), at(4))),
            ..KeyTimes::published(at(1))
        },
        compromised_at: None,
        last_used: None,
        unknown: Default::default(),
    }
}
