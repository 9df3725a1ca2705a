//! Records that checks are made of.

use std::time::Duration;

use cloakroom_core::record::{
    Chain, ChainKey, Claims, CodeBinding, Device, GrantRecord, SealedSuccessor, SpentBefore,
    TokenRecord, UnknownFields,
};
use cloakroom_core::revocation::{Epoch, Revocation, Target};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{
    Audience, ClientId, Confirmation, GrantId, InvalidValue, Random, RandomError, Scope, Subject,
    TokenDigest, TokenKind,
};
use serde_json::json;

use crate::report::Broken;

/// The time at which every check begins.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(2_000_000_000);

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A grant of this subject at this client, with a refresh chain at generation 0; it lives a day.
pub(crate) fn grant(subject: &str, client: &str, epoch: Epoch) -> Result<GrantRecord, Broken> {
    let random = Random::system();
    Ok(GrantRecord {
        id: GrantId::random(&random)?,
        client: ClientId::new(client)?,
        subject: Subject::user(subject)?,
        scope: Scope::parse("read write")?,
        audience: Audience::one("https://api.example")?,
        confirmation: None,
        auth_time: None,
        created_at: NOW,
        epoch,
        username: None,
        act: None,
        authorization_details: None,
        session: None,
        claims: Claims::default(),
        device: Device::default(),
        chain: Some(Chain {
            credential: TokenKind::Refresh,
            generation: 0,
            digest: digest(&random)?,
            key: ChainKey::random(&random)?,
            expires_at: NOW + DAY / 2,
            code: None,
            successor: None,
            bound_from: None,
            rotates: true,
            unknown: UnknownFields::default(),
        }),
        expires_at: NOW + DAY,
        row_expires_at: NOW + DAY,
        refreshed_at: None,
        revoked_at: None,
        unknown: UnknownFields::default(),
    })
}

/// A grant with a subject and a client that no other check uses.
pub(crate) fn lone(epoch: Epoch) -> Result<GrantRecord, Broken> {
    let grant = grant("alice", "app", epoch)?;
    Ok(GrantRecord {
        subject: Subject::user(format!("alice-{}", grant.id))?,
        client: ClientId::new(format!("app-{}", grant.id))?,
        ..grant
    })
}

/// The targets whose revocation has a bound, and covers the grant.
pub(crate) const COVERING: [fn(&GrantRecord) -> Target; 3] = [
    |grant| Target::Subject(grant.subject.clone()),
    |grant| Target::Client(grant.client.clone()),
    |grant| pair(&grant.subject, &grant.client),
];

/// A token of this grant that lives ten minutes.
pub(crate) fn token(grant: &GrantRecord) -> Result<TokenRecord, Broken> {
    Ok(TokenRecord {
        digest: digest(&Random::system())?,
        grant: grant.id,
        issued_at: NOW,
        expires_at: NOW + 10 * MINUTE,
        revoked_at: None,
        scope: grant.scope.clone(),
        audience: grant.audience.clone(),
        confirmation: None,
        unknown: UnknownFields::default(),
    })
}

/// A grant in which every field says something: what `seed` makes of it differs from every other
/// seed in every field but id, client, subject and epoch.
pub(crate) fn full_grant(seed: u8, epoch: Epoch) -> Result<GrantRecord, Broken> {
    let random = Random::system();
    let at = |days: u32| NOW + days * DAY + Duration::from_millis(seed.into());
    // A later seed ends earlier: a move may shorten a grant, and never lengthen it.
    let expires_at = NOW + 3 * DAY - Duration::from_millis(seed.into());
    Ok(GrantRecord {
        scope: Scope::parse(&format!("read write admin:{seed}"))?,
        audience: Audience::new([format!("https://{seed}.example/ä"), "urn:b".to_owned()])?,
        confirmation: Some(Confirmation::JwkThumbprint([seed; 32])),
        auth_time: Some(UnixTime::from_millis(seed.into())),
        created_at: at(0),
        username: Some(format!("Ålice 🔑 {seed}")),
        act: Some(json!({"sub": "support", "act": {"sub": [seed]}})),
        authorization_details: Some(json!([{"type": "payment", "amount": 1.5, "seed": seed}])),
        session: Some(format!("sid \"{seed}\"")),
        claims: Claims::new([
            ("tenant", json!(format!("acme\0{seed}"))),
            ("limits", json!({"": [null, true, -1, i64::MIN, u64::MAX, 0.25], "𝄞": seed})),
        ])?,
        device: Device::new([("browser", format!("Firefox {seed}")), ("city", String::new())])?,
        chain: Some(Chain {
            credential: TokenKind::Code,
            generation: u32::from(seed),
            digest: digest(&random)?,
            key: ChainKey::random(&random)?,
            expires_at: at(1),
            code: Some(CodeBinding {
                redirect_uri: format!("https://app.example/cb?x=%C3%A9&y='{seed}'"),
                challenge: Some(format!("challenge-{seed}")),
                unknown: unknown(seed),
            }),
            successor: Some(SealedSuccessor {
                sealed: vec![0, 0xff, seed, b'\n', b'\'', b'\\'],
                until: at(2),
                earlier: vec![SpentBefore { generation: 0, until: NOW, unknown: unknown(seed) }],
                unknown: unknown(seed),
            }),
            bound_from: Some(u32::from(seed)),
            rotates: seed.is_multiple_of(2),
            unknown: unknown(seed),
        }),
        expires_at,
        row_expires_at: at(4),
        refreshed_at: Some(at(5)),
        unknown: unknown(seed),
        ..grant("alice", "app", epoch)?
    })
}

/// A token in which every field says something.
pub(crate) fn full_token(grant: &GrantRecord, seed: u8) -> Result<TokenRecord, Broken> {
    Ok(TokenRecord {
        issued_at: NOW + Duration::from_millis(seed.into()),
        expires_at: NOW + MINUTE + Duration::from_millis(seed.into()),
        scope: Scope::parse(&format!("admin:{seed}"))?,
        audience: Audience::one(format!("https://{seed}.example/ä"))?,
        confirmation: Some(Confirmation::CertificateThumbprint([seed; 32])),
        unknown: unknown(seed),
        ..token(grant)?
    })
}

/// Fields of a version to come.
pub(crate) fn unknown(seed: u8) -> UnknownFields {
    let fields = [
        ("from_the_future".to_owned(), json!({"a": [seed, null, "é"]})),
        ("Also new".to_owned(), json!(format!("'; -- {seed}"))),
    ];
    fields.into_iter().collect()
}

/// The record after its chain has moved on once.
pub(crate) fn moved(grant: &GrantRecord) -> Result<GrantRecord, Broken> {
    let mut next = grant.clone();
    let chain = next.chain.as_mut().ok_or("a grant without a chain")?;
    chain.generation += 1;
    chain.digest = digest(&Random::system())?;
    next.refreshed_at = Some(NOW);
    Ok(next)
}

/// A revocation at [`NOW`] that matters for two days, entry and rule alike.
pub(crate) fn revocation(target: Target) -> Revocation {
    Revocation::new(target, NOW, NOW + 2 * DAY)
}

pub(crate) fn client(name: &str) -> Result<ClientId, InvalidValue> {
    ClientId::new(name)
}

pub(crate) fn subject(name: &str) -> Result<Subject, InvalidValue> {
    Subject::user(name)
}

/// A pair, as a target of revocation.
pub(crate) fn pair(subject: &Subject, client: &ClientId) -> Target {
    Target::SubjectAtClient(subject.clone(), client.clone())
}

/// A digest that nothing has.
pub(crate) fn stranger() -> Result<TokenDigest, Broken> {
    Ok(digest(&Random::system())?)
}

fn digest(random: &Random) -> Result<TokenDigest, RandomError> {
    random.array().map(TokenDigest::from_bytes)
}
