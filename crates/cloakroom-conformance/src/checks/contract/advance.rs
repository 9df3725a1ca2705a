//! `advance`: when a step is taken, and when it is not.

use std::time::Duration;

use cloakroom_core::TokenDigest;
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, Lookup, Selector, TokenStore, TokenStoreExt,
};
use cloakroom_core::time::UnixTime;

use crate::Context;
use crate::ask::{Ask, ensure, same, step_from};
use crate::fixtures::{DAY, MINUTE, NOW, grant, moved, pair, stranger, token};
use crate::report::Broken;

checks! { "contract::advance":
    the_generation_is_compared => AdvanceCompares,
    the_digest_is_compared => AdvanceCompares,
    a_step_that_was_taken_is_stale => AdvanceCompares,
    a_step_that_lost_to_a_shorter_grant_is_stale => AdvanceCompares,
    a_grant_without_a_chain_takes_no_step => AdvanceCompares,
    a_revoked_grant_takes_no_step => AdvanceRevoked,
    a_grant_that_a_rule_covers_takes_no_step => AdvanceRevoked,
    a_step_does_not_bring_a_revoked_grant_back => AdvanceRevoked,
    a_tombstone_takes_no_step => AdvanceRevoked,
    an_expired_grant_takes_no_step => AdvanceExpired,
    an_expired_chain_takes_no_step => AdvanceExpired,
    the_step_brings_its_own_time => AdvanceExpired,
    an_absent_grant_is_unknown => AdvanceUnknown,
}

/// Both kinds of step, each with a token of its own.
fn both(from: &GrantRecord) -> Result<[(ChainUpdate, TokenRecord); 2], Broken> {
    let next = ChainUpdate::Move(Box::new(moved(from)?));
    Ok([(next, token(from)?), (ChainUpdate::Attach, token(from)?)])
}

/// That the step was not taken: the record stands as it is, and the token was not inserted.
async fn untouched(
    store: &dyn TokenStore,
    grant: &GrantRecord,
    token: &TokenRecord,
) -> Result<(), Broken> {
    let found = store.found(grant.id, token.digest).await?;
    same("the grant after a refused step", &*found.grant, grant)?;
    ensure!(found.token.is_none(), "the step was refused, but its token was inserted");
    Ok(())
}

/// That a step from this position is `Stale`, with the grant as it stands.
async fn stale(
    store: &dyn TokenStore,
    stands: &GrantRecord,
    generation: u32,
    digest: TokenDigest,
) -> Result<(), Broken> {
    for (change, token) in both(stands)? {
        let mut step = step_from(stands, change, std::slice::from_ref(&token))?;
        step.expected.generation = generation;
        step.expected.digest = digest;
        match store.advance(step).await? {
            AdvanceOutcome::Stale(known) => same("the grant in `Stale`", &*known, stands)?,
            other => return Err(format!("a step from elsewhere was {other:?}").into()),
        }
        untouched(store, stands, &token).await?;
    }
    Ok(())
}

async fn with_generation(store: &dyn TokenStore, generation: u32) -> Result<GrantRecord, Broken> {
    let mut grant = grant("alice", "app", store.epoch().await?)?;
    grant.chain.as_mut().ok_or("no chain")?.generation = generation;
    store.inserted(&grant, &[]).await?;
    Ok(grant)
}

async fn the_generation_is_compared(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = with_generation(&*store, 7).await?;
    let digest = grant.chain.as_ref().ok_or("no chain")?.digest;
    for generation in [0, 6, 8, 263, u32::MAX] {
        stale(&*store, &grant, generation, digest).await?;
    }
    Ok(())
}

async fn the_digest_is_compared(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = with_generation(&*store, 7).await?;
    let digest = grant.chain.as_ref().ok_or("no chain")?.digest;
    stale(&*store, &grant, 7, stranger()?).await?;
    stale(&*store, &grant, 8, stranger()?).await?;
    for place in [0, 15, 16, 31] {
        let mut near = *digest.as_bytes();
        near[place] ^= 1;
        stale(&*store, &grant, 7, TokenDigest::from_bytes(near)).await?;
    }
    Ok(())
}

async fn a_step_that_was_taken_is_stale(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut stands = with_generation(&*store, 0).await?;
    let mut passed = Vec::new();
    for _ in 0..4 {
        passed.push(stands.chain.as_ref().ok_or("no chain")?.position());
        let next = moved(&stands)?;
        store.advanced(&stands, ChainUpdate::Move(Box::new(next.clone())), &[]).await?;
        stands = next;
        // Every place where the chain once stood, and each half of it with the other half of now.
        let now = stands.chain.as_ref().ok_or("no chain")?.position();
        for old in &passed {
            stale(&*store, &stands, old.generation, old.digest).await?;
            stale(&*store, &stands, now.generation, old.digest).await?;
            stale(&*store, &stands, old.generation, now.digest).await?;
        }
    }
    Ok(())
}

/// Two nodes whose clocks differ shorten a grant to different ends.
async fn a_step_that_lost_to_a_shorter_grant_is_stale(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let before = with_generation(&*store, 0).await?;
    let (mut won, mut lost) = (moved(&before)?, moved(&before)?);
    (won.expires_at, lost.expires_at) = (NOW + MINUTE, NOW + MINUTE + Duration::from_millis(1));
    store.advanced(&before, ChainUpdate::Move(Box::new(won.clone())), &[]).await?;
    let own = token(&before)?;
    let step = step_from(&before, ChainUpdate::Move(Box::new(lost)), std::slice::from_ref(&own))?;
    match store.advance(step.clone()).await? {
        AdvanceOutcome::Stale(known) => same("the grant in `Stale`", &*known, &won)?,
        other => return Err(format!("the step that lost was {other:?}").into()),
    }
    untouched(&*store, &won, &own).await?;
    store.revoked(Target::Grant(before.id)).await?;
    let answer = store.advance(step).await?;
    ensure!(
        answer == AdvanceOutcome::Dead,
        "after a revocation, the step that lost was {answer:?}"
    );
    Ok(())
}

async fn a_grant_without_a_chain_takes_no_step(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let with_chain = grant("alice", "app", store.epoch().await?)?;
    let mut without = with_chain.clone();
    without.chain = None;
    store.inserted(&without, &[]).await?;
    for (change, token) in both(&with_chain)? {
        let answer = store.step(&with_chain, change, std::slice::from_ref(&token)).await?;
        ensure!(answer != AdvanceOutcome::Advanced, "a grant without a chain took a step");
        untouched(&*store, &without, &token).await?;
    }
    Ok(())
}

/// That steps are `Dead` at this time, wherever the chain stands.
async fn dead(store: &dyn TokenStore, from: &GrantRecord, now: UnixTime) -> Result<(), Broken> {
    let stands = store.grant(from.id).await?;
    for (change, token) in both(from)? {
        let here = step_from(from, change, std::slice::from_ref(&token))?;
        let here = Advance { now, ..here };
        let mut elsewhere = here.clone();
        elsewhere.expected.generation += 1;
        elsewhere.expected.digest = stranger()?;
        for step in [here, elsewhere] {
            same("the step", &store.advance(step).await?, &AdvanceOutcome::Dead)?;
            untouched(store, &stands, &token).await?;
        }
    }
    Ok(())
}

async fn a_revoked_grant_takes_no_step(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = with_generation(&*store, 0).await?;
    store.revoked(Target::Grant(grant.id)).await?;
    dead(&*store, &grant, NOW).await?;
    dead(&*store, &grant, NOW - MINUTE).await
}

async fn a_grant_that_a_rule_covers_takes_no_step(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let like = grant("alice", "app", store.epoch().await?)?;
    for target in [
        Target::Subject(like.subject.clone()),
        Target::Client(like.client.clone()),
        pair(&like.subject, &like.client),
    ] {
        let grant = with_generation(&*store, 0).await?;
        store.revoked(target).await?;
        dead(&*store, &grant, NOW).await?;
    }
    Ok(())
}

async fn a_step_does_not_bring_a_revoked_grant_back(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = with_generation(&*store, 0).await?;
    store.revoked(Target::Grant(grant.id)).await?;
    // The record that a node read before the revocation, written back as a whole.
    let mut next = moved(&grant)?;
    next.row_expires_at = NOW + 30 * DAY;
    let answer = store.step(&grant, ChainUpdate::Move(Box::new(next.clone())), &[]).await?;
    same("the step", &answer, &AdvanceOutcome::Dead)?;
    ensure!(!store.is_unrevoked(grant.id).await?, "the revoked grant is live again");
    let listed = store.listed_ids(Selector::Subject(grant.subject), NOW).await?;
    ensure!(listed.is_empty(), "the revoked grant is listed again");
    Ok(())
}

async fn a_tombstone_takes_no_step(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    store.revoked(Target::Grant(grant.id)).await?;
    for (change, token) in both(&grant)? {
        let answer = store.step(&grant, change, &[token]).await?;
        same("the step", &answer, &AdvanceOutcome::Dead)?;
    }
    let lookup = store.find(grant.id, None).await?;
    same("the tombstone", &lookup, &Lookup::Tombstone)
}

/// That steps are refused from the end on, and taken a millisecond before it.
async fn ends_at(store: &dyn TokenStore, grant: &GrantRecord, end: UnixTime) -> Result<(), Broken> {
    store.inserted(grant, &[]).await?;
    for late in [end, end + Duration::from_millis(1), end + DAY] {
        dead(store, grant, late).await?;
    }
    // The move comes last: it changes where the chain stands.
    let [(next, _), (attach, attached)] = both(grant)?;
    for (change, tokens) in [(attach, vec![attached]), (next, vec![])] {
        let step =
            Advance { now: end - Duration::from_millis(1), ..step_from(grant, change, &tokens)? };
        let answer = store.advance(step).await?;
        same("the step in the last moment", &answer, &AdvanceOutcome::Advanced)?;
    }
    Ok(())
}

async fn an_expired_grant_takes_no_step(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut grant = grant("alice", "app", store.epoch().await?)?;
    grant.chain.as_mut().ok_or("no chain")?.expires_at = NOW + 30 * DAY;
    grant.row_expires_at = NOW + 30 * DAY;
    ends_at(&*store, &grant, grant.expires_at).await
}

async fn an_expired_chain_takes_no_step(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut grant = grant("alice", "app", store.epoch().await?)?;
    let end = NOW + MINUTE;
    grant.chain.as_mut().ok_or("no chain")?.expires_at = end;
    ends_at(&*store, &grant, end).await
}

async fn the_step_brings_its_own_time(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    // By the store's own clock one of these ended long ago, the other ends in a long time.
    for end in [UnixTime::from_secs(1_000_000_000), UnixTime::from_secs(3_000_000_000)] {
        let mut grant = grant("alice", "app", epoch)?;
        grant.created_at = end - DAY;
        grant.expires_at = end;
        grant.row_expires_at = end;
        grant.chain.as_mut().ok_or("no chain")?.expires_at = end;
        ends_at(&*store, &grant, end).await?;
    }
    Ok(())
}

async fn an_absent_grant_is_unknown(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    for (change, token) in both(&grant)? {
        let answer = store.step(&grant, change, std::slice::from_ref(&token)).await?;
        same("the step", &answer, &AdvanceOutcome::Unknown)?;
        let lookup = store.find(grant.id, Some(token.digest)).await?;
        same("the grant", &lookup, &Lookup::Absent)?;
    }
    let of = Selector::Subject(grant.subject.clone());
    let listed = store.listed_ids(of, NOW).await?;
    ensure!(listed.is_empty(), "`list` knows {listed:?}");
    store.inserted(&grant, &[]).await
}
