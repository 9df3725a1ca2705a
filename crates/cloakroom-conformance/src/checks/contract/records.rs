//! Records are read as they were written, by every method that returns them.

use cloakroom_core::record::{
    Claims, CodeBinding, Device, GrantRecord, SealedSuccessor, TokenRecord,
};
use cloakroom_core::revocation::{Epoch, Revocation, RuleKey, Target};
use cloakroom_core::store::{
    AdvanceOutcome, ChainUpdate, Lookup, Selector, TokenStore, TokenStoreExt,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{
    Audience, Confirmation, GrantId, Jti, Random, Scope, Subject, TokenDigest, TokenKind,
};
use serde_json::json;

use crate::Context;
use crate::ask::{Ask, same, step_from};
use crate::fixtures::{NOW, full_grant, full_token, grant, moved, stranger, token, unknown};
use crate::report::Broken;

checks! { "contract::records":
    every_field_survives => RecordsSurvive,
    bare_records_survive => RecordsSurvive,
    fields_of_a_newer_version_survive_every_write => RecordsSurvive,
    every_kind_of_credential_survives => RecordsSurvive,
    the_longest_records_survive => RecordsSurvive,
    every_grant_id_and_digest_survives => RecordsSurvive,
    large_numbers_survive => RecordsSurvive,
    the_largest_numbers_survive => RecordsSurvive,
}

/// That a grant and its token come back as written: found, listed, and in the answer `Stale`.
async fn survive(
    store: &dyn TokenStore,
    grant: &GrantRecord,
    token: &TokenRecord,
) -> Result<(), Broken> {
    store.inserted(grant, std::slice::from_ref(token)).await?;
    come_back(store, grant, token).await
}

async fn come_back(
    store: &dyn TokenStore,
    grant: &GrantRecord,
    token: &TokenRecord,
) -> Result<(), Broken> {
    let found = store.found(grant.id, token.digest).await?;
    same("the grant as found", &*found.grant, grant)?;
    same("the token as found", &found.token.as_deref(), &Some(token))?;
    if grant.is_live(NOW) {
        let of = Selector::Subject(grant.subject.clone());
        let listed = store.listed(of, 100, NOW).await?;
        let listed = listed.iter().find(|listed| listed.id == grant.id);
        same("the grant as listed", &listed.map(|l| &**l), &Some(grant))?;
    }
    if let Some(chain) = &grant.chain
        && NOW < chain.expires_at
        && grant.is_live(NOW)
    {
        let mut step = step_from(grant, ChainUpdate::Attach, &[])?;
        step.expected.digest = stranger()?;
        if let AdvanceOutcome::Stale(stale) = store.advance(step).await? {
            same("the grant in `Stale`", &*stale, grant)?;
        }
    }
    Ok(())
}

async fn every_field_survives(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    for seed in [0, 1, 127, 128, 255] {
        let grant = full_grant(seed, epoch)?;
        let token = full_token(&grant, seed)?;
        survive(&*store, &grant, &token).await?;
    }
    Ok(())
}

async fn bare_records_survive(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let mut bare = grant("app", "app", epoch)?;
    bare.subject = Subject::client("app")?;
    bare.scope = Scope::empty();
    bare.chain = None;
    survive(&*store, &bare, &token(&bare)?).await?;
    // An empty text is not a missing one.
    let mut empty = grant("alice", "app", epoch)?;
    empty.username = Some("".into());
    empty.session = Some("".into());
    empty.act = Some(Box::new(json!({})));
    empty.authorization_details = Some(Box::new(json!([])));
    if let Some(chain) = &mut empty.chain {
        chain.code = Some(Box::new(CodeBinding::new("", None)));
        let never = UnixTime::from_millis(0);
        chain.successor = Some(Box::new(SealedSuccessor::new(Vec::new(), never)));
    }
    survive(&*store, &empty, &token(&empty)?).await
}

async fn fields_of_a_newer_version_survive_every_write(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut record = grant("alice", "app", store.epoch().await?)?;
    record.unknown = unknown(1);
    record.chain.as_mut().ok_or("no chain")?.unknown = unknown(2);
    let mut first = token(&record)?;
    first.unknown = unknown(3);
    survive(&*store, &record, &first).await?;

    let next = moved(&record)?;
    let mut second = token(&record)?;
    second.unknown = unknown(4);
    let change = ChainUpdate::Move(Box::new(next.clone()));
    store.advanced(&record, change, std::slice::from_ref(&second)).await?;
    come_back(&*store, &next, &second).await?;

    let target = Target::Token { grant: next.id, digest: second.digest };
    store.revoked(target).await?;
    store.revoked(Target::Subject(next.subject.clone())).await?;
    let Lookup::Found(found) = store.find(next.id, Some(second.digest)).await? else {
        return Err("the revoked grant is not found".into());
    };
    same("the grant's", &found.grant.unknown, &next.unknown)?;
    let chain = found.grant.chain.as_ref().ok_or("the chain is gone")?;
    same("the chain's", &chain.unknown, &unknown(2))?;
    let token = found.token.ok_or("the token is gone")?;
    same("the token's", &token.unknown, &unknown(4))
}

async fn every_kind_of_credential_survives(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    for credential in [TokenKind::Code, TokenKind::Refresh] {
        for rotates in [true, false] {
            for confirmation in [
                None,
                Some(Confirmation::JwkThumbprint([0; 32])),
                Some(Confirmation::CertificateThumbprint([255; 32])),
            ] {
                let mut grant = grant("alice", "app", epoch)?;
                grant.confirmation = confirmation.clone();
                let chain = grant.chain.as_mut().ok_or("no chain")?;
                chain.credential = credential;
                chain.rotates = rotates;
                let mut token = token(&grant)?;
                token.confirmation = confirmation;
                survive(&*store, &grant, &token).await?;
            }
        }
    }
    Ok(())
}

async fn the_longest_records_survive(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut grant = full_grant(1, store.epoch().await?)?;
    // `{"big":"…"}` around the text, and two bytes of UTF-8 to a letter.
    grant.claims = Claims::new([("big", json!("é".repeat((Claims::MAX_BYTES - 10) / 2)))])?;
    grant.device = Device::new([("d", "y".repeat(Device::MAX_BYTES - 1))])?;
    grant.username = Some("u".repeat(255).into());
    grant.session = Some("s".repeat(255).into());
    grant.scope = Scope::parse(&"s".repeat(4096))?;
    grant.audience = Audience::new((0..64).map(|n| format!("{n:0>64}")))?;
    grant.authorization_details = Some(Box::new(json!(vec![json!({"type": "t".repeat(100)}); 40])));
    if let Some(chain) = &mut grant.chain {
        let redirect_uri = format!("https://app.example/{}", "r".repeat(2_000));
        chain.code = Some(Box::new(CodeBinding::new(redirect_uri, Some("c".repeat(128)))));
        chain.successor = Some(Box::new(SealedSuccessor::new(vec![0xa5; 512], NOW)));
    }
    let mut token = full_token(&grant, 1)?;
    token.scope = grant.scope.clone();
    token.audience = grant.audience.clone();
    survive(&*store, &grant, &token).await
}

async fn every_grant_id_and_digest_survives(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    // Bytes that a text, or a type with a sign, would not keep apart.
    for byte in [0x00, 0x0a, 0x20, 0x27, 0x5c, 0x7f, 0x80, 0xff] {
        let mut grant = grant("alice", "app", epoch)?;
        grant.id = GrantId::from_bytes([byte; 16]);
        let digest = TokenDigest::from_bytes([byte; 32]);
        grant.chain.as_mut().ok_or("no chain")?.digest = digest;
        let mut token = token(&grant)?;
        token.digest = digest;
        survive(&*store, &grant, &token).await?;
    }
    Ok(())
}

/// A grant whose every number is as large as it says.
fn at_the_end_of_time(epoch: u64, millis: u64, generation: u32) -> Result<GrantRecord, Broken> {
    let time = UnixTime::from_millis(millis);
    let mut grant = full_grant(1, Epoch::new(epoch))?;
    grant.auth_time = Some(time);
    grant.created_at = time;
    grant.expires_at = time;
    grant.row_expires_at = time;
    grant.refreshed_at = Some(time);
    let chain = grant.chain.as_mut().ok_or("no chain")?;
    chain.generation = generation;
    chain.expires_at = time;
    chain.successor.as_mut().ok_or("no successor")?.until = time;
    Ok(grant)
}

async fn survive_the_end_of_time(store: &dyn TokenStore, grant: GrantRecord) -> Result<(), Broken> {
    let mut token = full_token(&grant, 1)?;
    token.issued_at = grant.expires_at;
    token.expires_at = grant.expires_at;
    survive(store, &grant, &token).await?;
    // It has not ended, however its end is stored.
    store.housekept(NOW).await?;
    come_back(store, &grant, &token).await?;

    let jti = Jti::random(&Random::system())?;
    let revocation = Revocation::new(Target::Jti(jti.clone()), NOW, grant.expires_at);
    store.revoked_as(revocation).await?;
    store.housekept(NOW).await?;
    let rule = store.rule(RuleKey::Jti(jti)).await?;
    let until = rule.map(|rule| rule.until);
    same("the end of a rule", &until, &Some(grant.expires_at))
}

async fn large_numbers_survive(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    // More than a float holds exactly, and all that 63 bits hold.
    for number in [(1 << 53) + 1, i64::MAX as u64] {
        let grant = at_the_end_of_time(number, number, i32::MAX as u32)?;
        survive_the_end_of_time(&*store, grant).await?;
    }
    Ok(())
}

async fn the_largest_numbers_survive(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = at_the_end_of_time(u64::MAX, UnixTime::MAX.as_millis(), u32::MAX)?;
    survive_the_end_of_time(&*store, grant).await
}
