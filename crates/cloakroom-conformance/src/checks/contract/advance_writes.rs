//! `advance`: what a step writes, and which steps are misuse.

use std::time::Duration;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, Selector, TokenStore, TokenStoreExt,
};
use cloakroom_core::{GrantId, Random, Subject};

use crate::Context;
use crate::ask::{Ask, ensure, misused, same, step_from};
use crate::fixtures::{DAY, NOW, client, full_grant, full_token, grant, moved, subject, token};
use crate::report::Broken;

checks! { "contract::advance_writes":
    a_move_writes_every_field => AdvanceWrites,
    a_move_clears_what_the_next_record_lacks => AdvanceWrites,
    a_move_writes_an_end_that_comes_with_it => AdvanceWrites,
    a_move_inserts_all_its_tokens => AdvanceWrites,
    a_move_keeps_the_tokens_that_are_there => AdvanceWrites,
    a_move_moves_the_ends_of_the_grant => AdvanceWrites,
    a_move_may_keep_the_generation_or_skip_some => AdvanceWrites,
    attached_tokens_leave_the_record_alone => AdvanceAttaches,
    attached_tokens_need_no_rotation => AdvanceAttaches,
    a_next_record_of_another_identity_is_misuse => AdvanceMisuse,
    a_next_record_without_a_chain_is_misuse => AdvanceMisuse,
    a_move_that_stays_where_it_is_is_misuse => AdvanceMisuse,
    a_move_to_a_later_end_is_misuse => AdvanceMisuse,
    a_step_with_a_foreign_token_is_misuse => AdvanceMisuse,
    a_foreign_token_is_misuse_where_no_grant_is => AdvanceMisuse,
}

/// A next record for the grant `from`: its identity is kept, it ends no later, and every other field
/// is that of `like`.
fn next_like(from: &GrantRecord, like: GrantRecord) -> GrantRecord {
    let mut next = like;
    next.id = from.id;
    next.client = from.client.clone();
    next.subject = from.subject.clone();
    next.epoch = from.epoch;
    next.expires_at = next.expires_at.min(from.expires_at);
    next
}

async fn takes(
    store: &dyn TokenStore,
    from: &GrantRecord,
    change: ChainUpdate,
    tokens: &[TokenRecord],
) -> Result<(), Broken> {
    store.advanced(from, change, tokens).await
}

fn to(next: &GrantRecord) -> ChainUpdate {
    ChainUpdate::Move(Box::new(next.clone()))
}

/// That the grant is this, by `find` and by `list`.
async fn stands_as(store: &dyn TokenStore, grant: &GrantRecord) -> Result<(), Broken> {
    same("the grant as found", &store.grant(grant.id).await?, grant)?;
    for of in [Selector::Subject(grant.subject.clone()), Selector::Client(grant.client.clone())] {
        let listed = store.listed(of, 100, NOW).await?;
        let listed: Vec<_> = listed.iter().map(|listed| &**listed).collect();
        same("the listing", &listed, &vec![grant])?;
    }
    Ok(())
}

async fn a_move_writes_every_field(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let mut stands = full_grant(1, epoch)?;
    store.inserted(&stands, &[]).await?;
    for seed in [2, 3, 4] {
        let next = next_like(&stands, full_grant(seed, epoch)?);
        let token = full_token(&next, seed)?;
        takes(&*store, &stands, to(&next), std::slice::from_ref(&token)).await?;
        stands_as(&*store, &next).await?;
        let found = store.found(next.id, token.digest).await?;
        same("its token", &found.token.as_deref(), &Some(&token))?;
        stands = next;
    }
    Ok(())
}

async fn a_move_clears_what_the_next_record_lacks(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let full = full_grant(1, epoch)?;
    let bare = next_like(&full, grant("alice", "app", epoch)?);
    store.inserted(&full, &[]).await?;
    takes(&*store, &full, to(&bare), &[]).await?;
    stands_as(&*store, &bare).await?;
    let full = next_like(&bare, full_grant(2, epoch)?);
    takes(&*store, &bare, to(&full), &[]).await?;
    stands_as(&*store, &full).await
}

async fn a_move_writes_an_end_that_comes_with_it(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let first = grant("alice", "app", store.epoch().await?)?;
    store.inserted(&first, &[]).await?;
    let mut next = moved(&first)?;
    next.revoked_at = Some(NOW);
    let token = token(&next)?;
    takes(&*store, &first, to(&next), std::slice::from_ref(&token)).await?;
    same("the grant", &*store.found(next.id, token.digest).await?.grant, &next)?;
    let listed = store.listed_ids(Selector::Subject(next.subject), NOW).await?;
    ensure!(listed.is_empty(), "it is listed, although it was revoked");
    Ok(())
}

async fn a_move_inserts_all_its_tokens(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let first = grant("alice", "app", store.epoch().await?)?;
    store.inserted(&first, &[]).await?;
    let next = moved(&first)?;
    let tokens = (0..20).map(|seed| full_token(&first, seed)).collect::<Result<Vec<_>, _>>()?;
    takes(&*store, &first, to(&next), &tokens).await?;
    for token in &tokens {
        let found = store.found(first.id, token.digest).await?;
        same("the grant", &*found.grant, &next)?;
        same("the token", &found.token.as_deref(), &Some(token))?;
    }
    Ok(())
}

async fn a_move_keeps_the_tokens_that_are_there(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let first = grant("alice", "app", store.epoch().await?)?;
    let tokens = [token(&first)?, token(&first)?];
    store.inserted(&first, &tokens).await?;
    takes(&*store, &first, to(&moved(&first)?), &[]).await?;
    for token in &tokens {
        let found = store.found(first.id, token.digest).await?;
        same("the older token", &found.token.as_deref(), &Some(token))?;
    }
    Ok(())
}

async fn a_move_moves_the_ends_of_the_grant(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    // A grant that may live long, in a row that is kept for a day after each use.
    let mut first = grant("alice", "app", store.epoch().await?)?;
    first.expires_at = NOW + 40 * DAY;
    store.inserted(&first, &[]).await?;
    let mut next = moved(&first)?;
    next.row_expires_at = first.row_expires_at + 30 * DAY;
    next.chain.as_mut().ok_or("no chain")?.expires_at = next.expires_at;
    takes(&*store, &first, to(&next), &[]).await?;
    // Past the end that it had first, it lives on in every index, and takes the next step.
    let later = first.row_expires_at + DAY;
    store.housekept(later).await?;
    let of = Selector::Subject(next.subject.clone());
    let (client, pair) = (next.client.clone(), (next.subject.clone(), next.client.clone()));
    for of in [of.clone(), Selector::Client(client), Selector::SubjectAtClient(pair.0, pair.1)] {
        let listed = store.listed_ids(of, later).await?;
        same("the listing", &listed, &vec![next.id])?;
    }
    let mut last = moved(&next)?;
    last.expires_at = later;
    last.row_expires_at = later;
    let step = Advance { now: later, ..step_from(&next, to(&last), &[])? };
    same("the step", &store.advance(step).await?, &AdvanceOutcome::Advanced)?;
    // That one gave it an end that is near.
    let listed = store.listed_ids(of, later).await?;
    ensure!(listed.is_empty(), "it ended, and is listed");
    same("the last record", &store.grant(last.id).await?, &last)
}

async fn a_move_may_keep_the_generation_or_skip_some(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut stands = grant("alice", "app", store.epoch().await?)?;
    store.inserted(&stands, &[]).await?;
    // Where the chain goes is the caller's to say; the store compares where it stands.
    for generation in [0, 5, 1_000_000, u32::MAX] {
        let mut next = moved(&stands)?;
        next.chain.as_mut().ok_or("no chain")?.generation = generation;
        takes(&*store, &stands, to(&next), &[]).await?;
        stands_as(&*store, &next).await?;
        stands = next;
    }
    Ok(())
}

async fn attached_tokens_leave_the_record_alone(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = full_grant(9, store.epoch().await?)?;
    let first = full_token(&grant, 1)?;
    store.inserted(&grant, std::slice::from_ref(&first)).await?;
    let mut tokens = vec![first];
    // The chain stands where it stood: the same step can be taken again.
    for seed in 2..6 {
        let two = [full_token(&grant, seed)?, full_token(&grant, seed)?];
        takes(&*store, &grant, ChainUpdate::Attach, &two).await?;
        stands_as(&*store, &grant).await?;
        tokens.extend(two);
    }
    for token in &tokens {
        let found = store.found(grant.id, token.digest).await?;
        same("the token", &found.token.as_deref(), &Some(token))?;
    }
    takes(&*store, &grant, ChainUpdate::Attach, &[]).await?;
    stands_as(&*store, &grant).await
}

async fn attached_tokens_need_no_rotation(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut grant = grant("alice", "app", store.epoch().await?)?;
    grant.chain.as_mut().ok_or("no chain")?.rotates = false;
    store.inserted(&grant, &[]).await?;
    for _ in 0..3 {
        let token = token(&grant)?;
        takes(&*store, &grant, ChainUpdate::Attach, std::slice::from_ref(&token)).await?;
        let found = store.found(grant.id, token.digest).await?;
        same("the grant", &*found.grant, &grant)?;
        same("the token", &found.token.as_deref(), &Some(&token))?;
    }
    Ok(())
}

/// That the step is misuse, and left nothing behind.
async fn is_misuse(
    store: &dyn TokenStore,
    grant: &GrantRecord,
    what: &str,
    change: ChainUpdate,
    tokens: &[TokenRecord],
) -> Result<(), Broken> {
    let step = step_from(grant, change, tokens)?;
    misused(what, store.advance(step).await)?;
    for token in tokens {
        let found = store.found(grant.id, token.digest).await?;
        same("the grant after a misuse", &*found.grant, grant)?;
        ensure!(found.token.is_none(), "{what} was `Misuse`, but left a token");
    }
    stands_as(store, grant).await
}

async fn a_next_record_of_another_identity_is_misuse(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    store.inserted(&grant, &[]).await?;
    let next = moved(&grant)?;
    let id = GrantId::random(&Random::system())?;
    let other_client = client("App")?;
    let [other_subject, other_kind] = [subject("alice ")?, Subject::client("alice")?];
    let changed = |change: &dyn Fn(&mut GrantRecord)| {
        let mut other = next.clone();
        change(&mut other);
        other
    };
    let others = [
        ("another id", changed(&|next| next.id = id)),
        ("another client", changed(&|next| next.client = other_client.clone())),
        ("another subject", changed(&|next| next.subject = other_subject.clone())),
        ("a subject of another kind", changed(&|next| next.subject = other_kind.clone())),
        ("another epoch", changed(&|next| next.epoch = next.epoch.following())),
    ];
    for (what, other) in others {
        let tokens = [token(&grant)?];
        is_misuse(&*store, &grant, what, to(&other), &tokens).await?;
        let (subject, client) = (Selector::Subject(other.subject), other.client);
        for of in [subject, Selector::Client(client)] {
            let listed = store.listed_ids(of.clone(), NOW).await?;
            ensure!(
                listed.iter().all(|id| *id == grant.id),
                "{what} was `Misuse`, but {of:?} selects {listed:?}"
            );
        }
    }
    takes(&*store, &grant, to(&next), &[]).await
}

async fn a_next_record_without_a_chain_is_misuse(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    store.inserted(&grant, &[]).await?;
    let mut without = moved(&grant)?;
    without.chain = None;
    let tokens = [token(&grant)?];
    is_misuse(&*store, &grant, "no chain", to(&without), &tokens).await
}

async fn a_move_that_stays_where_it_is_is_misuse(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let grant = grant("alice", "app", epoch)?;
    store.inserted(&grant, &[]).await?;
    let mut next = next_like(&grant, full_grant(1, epoch)?);
    let (chain, stands) = (next.chain.as_mut(), grant.chain.as_ref());
    if let (Some(chain), Some(stands)) = (chain, stands) {
        (chain.generation, chain.digest) = (stands.generation, stands.digest);
    }
    let tokens = [token(&grant)?];
    is_misuse(&*store, &grant, "a move to where the chain stands", to(&next), &tokens).await
}

async fn a_move_to_a_later_end_is_misuse(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    store.inserted(&grant, &[]).await?;
    for later in [Duration::from_millis(1), DAY, 365 * DAY] {
        let mut next = moved(&grant)?;
        next.expires_at = grant.expires_at + later;
        for row_expires_at in [grant.row_expires_at, next.expires_at] {
            next.row_expires_at = row_expires_at;
            let tokens = [token(&grant)?];
            is_misuse(&*store, &grant, "a later end", to(&next), &tokens).await?;
        }
    }
    // To keep the end, or to come to an earlier one, is none.
    let mut next = moved(&grant)?;
    takes(&*store, &grant, to(&next), &[]).await?;
    let stands = next.clone();
    next = moved(&next)?;
    next.expires_at = stands.expires_at - Duration::from_millis(1);
    takes(&*store, &stands, to(&next), &[]).await?;
    stands_as(&*store, &next).await
}

async fn a_step_with_a_foreign_token_is_misuse(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let other = grant("bob", "other", epoch)?;
    store.inserted(&other, &[]).await?;
    let grant = grant("alice", "app", epoch)?;
    store.inserted(&grant, &[]).await?;
    let next = moved(&grant)?;
    for change in [to(&next), ChainUpdate::Attach] {
        let (own, foreign) = (token(&grant)?, token(&other)?);
        for tokens in [[own.clone(), foreign.clone()], [foreign.clone(), own]] {
            is_misuse(&*store, &grant, "a foreign token", change.clone(), &tokens).await?;
        }
        let found = store.found(other.id, foreign.digest).await?;
        same("the other grant", &*found.grant, &other)?;
        ensure!(found.token.is_none(), "the other grant has the token");
    }
    Ok(())
}

async fn a_foreign_token_is_misuse_where_no_grant_is(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let other = grant("bob", "other", epoch)?;
    store.inserted(&other, &[]).await?;
    let (absent, buried) = (grant("alice", "app", epoch)?, grant("carol", "app", epoch)?);
    store.revoked(Target::Grant(buried.id)).await?;
    for (what, grant) in [("an absent grant", absent), ("a tombstone", buried)] {
        for change in [to(&moved(&grant)?), ChainUpdate::Attach] {
            let foreign = token(&other)?;
            let step = step_from(&grant, change, std::slice::from_ref(&foreign))?;
            misused(&format!("a foreign token for {what}"), store.advance(step).await)?;
            let found = store.found(other.id, foreign.digest).await?;
            ensure!(found.token.is_none(), "the other grant has the token");
        }
    }
    Ok(())
}
