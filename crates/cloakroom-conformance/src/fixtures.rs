//! Records for the checks.

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
    let mut grant = GrantRecord::new(
        GrantId::random(&random)?,
        ClientId::new(client)?,
        Subject::user(subject)?,
        Audience::one("https://api.example")?,
        NOW,
        NOW + DAY,
    );
    grant.scope = Scope::parse("read write")?;
    grant.epoch = epoch;
    let (digest, key) = (digest(&random)?, ChainKey::random(&random)?);
    grant.chain = Some(Chain::new(TokenKind::Refresh, digest, key, NOW + DAY / 2));
    Ok(grant)
}

/// A grant with a subject and a client that no other check uses.
pub(crate) fn lone(epoch: Epoch) -> Result<GrantRecord, Broken> {
    let mut grant = grant("alice", "app", epoch)?;
    grant.subject = Subject::user(format!("alice-{}", grant.id))?;
    grant.client = ClientId::new(format!("app-{}", grant.id))?;
    Ok(grant)
}

/// The targets whose revocation has a bound, and covers the grant.
pub(crate) const COVERING: [fn(&GrantRecord) -> Target; 3] = [
    |grant| Target::Subject(grant.subject.clone()),
    |grant| Target::Client(grant.client.clone()),
    |grant| pair(&grant.subject, &grant.client),
];

/// A token of this grant that lives ten minutes.
pub(crate) fn token(grant: &GrantRecord) -> Result<TokenRecord, Broken> {
    let mut token = TokenRecord::new(digest(&Random::system())?, grant, NOW, NOW + 10 * MINUTE);
    token.confirmation = None;
    Ok(token)
}

/// A grant in which every field says something: what `seed` makes of it differs from every other
/// seed in every field but id, client, subject and epoch.
pub(crate) fn full_grant(seed: u8, epoch: Epoch) -> Result<GrantRecord, Broken> {
    let at = |days: u32| NOW + days * DAY + Duration::from_millis(seed.into());
    // A later seed ends earlier: a move may shorten a grant, and never lengthen it.
    let expires_at = NOW + 3 * DAY - Duration::from_millis(seed.into());
    let mut grant = grant("alice", "app", epoch)?;
    grant.scope = Scope::parse(&format!("read write admin:{seed}"))?;
    grant.audience = Audience::new([format!("https://{seed}.example/ä"), "urn:b".to_owned()])?;
    grant.confirmation = Some(Confirmation::JwkThumbprint([seed; 32]));
    grant.auth_time = Some(UnixTime::from_millis(seed.into()));
    grant.acr = Some(format!("urn:example:mfa {seed}").into());
    grant.created_at = at(0);
    grant.username = Some(format!("Ålice 🔑 {seed}").into());
    grant.act = Some(Box::new(json!({"sub": "support", "act": {"sub": [seed]}})));
    let details = json!([{"type": "payment", "amount": 1.5, "seed": seed}]);
    grant.authorization_details = Some(Box::new(details));
    grant.session = Some(format!("sid \"{seed}\"").into());
    grant.claims = Claims::new([
        ("tenant", json!(format!("acme\0{seed}"))),
        ("limits", json!({"": [null, true, -1, i64::MIN, u64::MAX, 0.25], "𝄞": seed})),
    ])?;
    grant.device = Device::new([("browser", format!("Firefox {seed}")), ("city", String::new())])?;
    grant.chain = Some(full_chain(seed, at)?);
    grant.expires_at = expires_at;
    grant.row_expires_at = at(4);
    grant.refreshed_at = Some(at(5));
    grant.unknown = unknown(seed);
    Ok(grant)
}

fn full_chain(seed: u8, at: impl Fn(u32) -> UnixTime) -> Result<Chain, Broken> {
    let random = Random::system();
    let mut code = CodeBinding::new(
        format!("https://app.example/cb?x=%C3%A9&y='{seed}'"),
        Some(format!("challenge-{seed}")),
    );
    code.redirect_uri_omitted = seed % 2 == 1;
    code.nonce = Some(format!("nonce {seed}"));
    code.unknown = unknown(seed);
    let mut spent = SpentBefore::new(0, NOW);
    spent.sealed = vec![0xff, seed, 0, b'\n'];
    spent.unknown = unknown(seed);
    let mut successor = SealedSuccessor::new(vec![0, 0xff, seed, b'\n', b'\'', b'\\'], at(2));
    successor.earlier = vec![spent];
    successor.unknown = unknown(seed);
    let (digest, key) = (digest(&random)?, ChainKey::random(&random)?);
    let mut chain = Chain::new(TokenKind::Code, digest, key, at(1));
    chain.generation = u32::from(seed);
    chain.code = Some(Box::new(code));
    chain.successor = Some(Box::new(successor));
    chain.bound_from = Some(u32::from(seed));
    chain.rotates = seed.is_multiple_of(2);
    chain.unknown = unknown(seed);
    Ok(chain)
}

/// A token in which every field says something.
pub(crate) fn full_token(grant: &GrantRecord, seed: u8) -> Result<TokenRecord, Broken> {
    let mut token = token(grant)?;
    token.issued_at = NOW + Duration::from_millis(seed.into());
    token.expires_at = NOW + MINUTE + Duration::from_millis(seed.into());
    token.scope = Scope::parse(&format!("admin:{seed}"))?;
    token.audience = Audience::one(format!("https://{seed}.example/ä"))?;
    token.confirmation = Some(Confirmation::CertificateThumbprint([seed; 32]));
    token.claims = Some(Claims::new([("role", json!(seed))])?);
    token.unknown = unknown(seed);
    Ok(token)
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
