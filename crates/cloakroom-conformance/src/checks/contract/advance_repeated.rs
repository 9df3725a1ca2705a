//! `advance` when it is sent again: drivers repeat a write whose response was lost.

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, Selector, TokenStore, TokenStoreExt,
};
use cloakroom_core::time::UnixTime;

use crate::Context;
use crate::ask::{Ask, ensure, same, step_from};
use crate::fixtures::{DAY, MINUTE, NOW, full_grant, grant, lone, moved, stranger, token};
use crate::pace::Interleavings;
use crate::report::Broken;

checks! { "contract::advance_repeated":
    a_move_sent_again_is_taken_and_writes_nothing => AdvanceRepeat,
    a_move_sent_again_brings_no_token_back => AdvanceRepeat,
    a_move_to_the_chains_end_sent_again_is_taken => AdvanceRepeat,
    a_move_sent_again_keeps_what_came_between => AdvanceRepeat,
    a_move_sent_again_does_not_revive => AdvanceRepeat,
    a_move_sent_again_after_the_next_is_stale => AdvanceRepeat,
    half_of_the_position_is_no_repetition => AdvanceRepeat,
    one_move_sent_twice_at_once_is_taken_once => AdvanceRepeat,
    tokens_attached_again_are_there_once => AdvanceRepeat,
}

fn to(next: &GrantRecord) -> ChainUpdate {
    ChainUpdate::Move(Box::new(next.clone()))
}

/// A grant whose chain has moved once; the step that moved it, and the record since.
async fn stepped(store: &dyn TokenStore) -> Result<(Advance, GrantRecord, TokenRecord), Broken> {
    let epoch = store.epoch().await?;
    let first = full_grant(1, epoch)?;
    store.inserted(&first, &[]).await?;
    let (next, held) = (moved(&first)?, token(&first)?);
    let step = step_from(&first, to(&next), std::slice::from_ref(&held))?;
    same("the step", &store.advance(step.clone()).await?, &AdvanceOutcome::Advanced)?;
    Ok((step, next, held))
}

async fn again(store: &dyn TokenStore, step: &Advance) -> Result<(), Broken> {
    let answer = store.advance(step.clone()).await?;
    same("the answer to a step that is sent again", &answer, &AdvanceOutcome::Advanced)
}

async fn a_move_sent_again_is_taken_and_writes_nothing(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let (step, next, held) = stepped(&*store).await?;
    for later in [NOW, NOW + MINUTE, NOW - MINUTE] {
        again(&*store, &Advance { now: later, ..step.clone() }).await?;
        let found = store.found(next.id, held.digest).await?;
        same("the grant", &*found.grant, &next)?;
        same("its token", &found.token.as_deref(), &Some(&held))?;
        let of = Selector::Subject(next.subject.clone());
        same("the listing", &store.listed_ids(of, NOW).await?, &vec![next.id])?;
    }
    // The chain goes on from there.
    store.advanced(&next, to(&moved(&next)?), &[]).await
}

async fn a_move_sent_again_brings_no_token_back(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let (step, next, held) = stepped(&*store).await?;
    let target = Target::Token { grant: next.id, digest: held.digest };
    store.revoked(target).await?;
    again(&*store, &step).await?;
    let found = store.found(next.id, held.digest).await?;
    ensure!(
        found.token.is_some_and(|token| token.revoked_at.is_some()),
        "the step was sent again, and its token, which was revoked in between, is live or gone"
    );
    // Its token ended, and was deleted.
    store.housekept(held.expires_at + MINUTE).await?;
    again(&*store, &Advance { now: held.expires_at + MINUTE, ..step }).await?;
    let found = store.found(next.id, held.digest).await?;
    ensure!(found.token.is_none(), "a step that was sent again inserted its token again");
    same("the grant", &*found.grant, &next)
}

async fn a_move_to_the_chains_end_sent_again_is_taken(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    for end in [NOW, NOW - MINUTE, UnixTime::from_millis(0)] {
        let first = lone(epoch)?;
        store.inserted(&first, &[]).await?;
        let mut next = moved(&first)?;
        // A code that leaves no refresh token behind: the chain ends with the step.
        next.chain.as_mut().ok_or("no chain")?.expires_at = end;
        let tokens = [token(&first)?];
        let step = step_from(&first, to(&next), &tokens)?;
        for _ in 0..3 {
            again(&*store, &step).await?;
            let found = store.found(first.id, tokens[0].digest).await?;
            same("the grant", &*found.grant, &next)?;
            same("its token", &found.token.as_deref(), &Some(&tokens[0]))?;
        }
        // As long as the grant lives, and no longer.
        let late = Advance { now: next.expires_at, ..step };
        same("the step at the grant's end", &store.advance(late).await?, &AdvanceOutcome::Dead)?;
        // Another step finds the chain at its end.
        let step = store.step(&next, to(&moved(&next)?), &[]).await?;
        same("a next step", &step, &AdvanceOutcome::Dead)?;
    }
    Ok(())
}

async fn a_move_sent_again_keeps_what_came_between(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let (step, next, _) = stepped(&*store).await?;
    let attached = token(&next)?;
    store.advanced(&next, ChainUpdate::Attach, std::slice::from_ref(&attached)).await?;
    // What another node would have made of the same step, one field apart: the first one counts.
    let mut other = next.clone();
    other.refreshed_at = Some(NOW + MINUTE);
    for step in [Advance { change: to(&other), ..step.clone() }, step] {
        again(&*store, &step).await?;
        let found = store.found(next.id, attached.digest).await?;
        same("the grant", &*found.grant, &next)?;
        same("the token that came between", &found.token.as_deref(), &Some(&attached))?;
    }
    Ok(())
}

async fn a_move_sent_again_does_not_revive(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for target in [
        (|grant: &GrantRecord| Target::Grant(grant.id)) as fn(&GrantRecord) -> Target,
        |grant| Target::Subject(grant.subject.clone()),
        |grant| Target::Client(grant.client.clone()),
    ] {
        let (step, next, held) = stepped(&*store).await?;
        store.revoked(target(&next)).await?;
        let answer = store.advance(step).await?;
        same("a step that is sent again after a revocation", &answer, &AdvanceOutcome::Dead)?;
        let found = store.found(next.id, held.digest).await?;
        ensure!(found.grant.revoked_at.is_some(), "a step that was sent again lifts a revocation");
    }
    Ok(())
}

async fn a_move_sent_again_after_the_next_is_stale(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let (step, next, _) = stepped(&*store).await?;
    let last = moved(&next)?;
    store.advanced(&next, to(&last), &[]).await?;
    match store.advance(step).await? {
        AdvanceOutcome::Stale(stands) => same("the grant in `Stale`", &*stands, &last)?,
        other => return Err(format!("a step that was passed by is {other:?}").into()),
    }
    same("the grant", &store.grant(last.id).await?, &last)
}

async fn half_of_the_position_is_no_repetition(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let (step, next, _) = stepped(&*store).await?;
    let (mut near, mut far) = (next.clone(), next.clone());
    near.chain.as_mut().ok_or("no chain")?.digest = stranger()?;
    far.chain.as_mut().ok_or("no chain")?.generation += 1;
    for other in [near, far] {
        let tokens = vec![token(&next)?];
        let digest = tokens[0].digest;
        let step = Advance { change: to(&other), tokens, ..step.clone() };
        match store.advance(step).await? {
            AdvanceOutcome::Stale(stands) => same("the grant in `Stale`", &*stands, &next)?,
            answer => return Err(format!("a racer that lost got {answer:?}").into()),
        }
        let found = store.found(next.id, digest).await?;
        same("the grant", &*found.grant, &next)?;
        ensure!(found.token.is_none(), "the token of a racer that lost is there");
    }
    Ok(())
}

async fn one_move_sent_twice_at_once_is_taken_once(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let first = lone(store.epoch().await?)?;
        store.inserted(&first, &[]).await?;
        let (next, held) = (moved(&first)?, token(&first)?);
        let step = step_from(&first, to(&next), std::slice::from_ref(&held))?;
        let (one, two) =
            orders.play(store.advance(step.clone()), store.advance(step.clone())).await?;
        for answer in [one?, two?] {
            same("the answer to one step, sent twice", &answer, &AdvanceOutcome::Advanced)?;
        }
        let found = store.found(first.id, held.digest).await?;
        same("the grant", &*found.grant, &next)?;
        same("its token", &found.token.as_deref(), &Some(&held))?;
    }
    Ok(())
}

async fn tokens_attached_again_are_there_once(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    store.inserted(&grant, &[]).await?;
    let mut held = token(&grant)?;
    held.expires_at = NOW + DAY / 4;
    let step = step_from(&grant, ChainUpdate::Attach, std::slice::from_ref(&held))?;
    again(&*store, &step).await?;
    let target = Target::Token { grant: grant.id, digest: held.digest };
    store.revoked(target).await?;
    again(&*store, &step).await?;
    let found = store.found(grant.id, held.digest).await?;
    same("the grant", &*found.grant, &grant)?;
    ensure!(
        found.token.is_some_and(|token| token.revoked_at.is_some()),
        "attaching it again brought a revoked token back"
    );
    let done = store.housekept(held.expires_at + MINUTE).await?;
    same("the number of tokens deleted", &done.tokens, &1)
}
