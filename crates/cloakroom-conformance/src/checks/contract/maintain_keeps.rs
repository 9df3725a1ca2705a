//! `maintain`: what it must keep.

use cloakroom_core::revocation::{Cursor, LogEvent, Revocation, RevocationBatch, Target};
use cloakroom_core::store::{
    ChainUpdate, Housekeeping, Lookup, Selector, TokenStore, TokenStoreExt,
};
use cloakroom_core::{GrantId, Random};

use crate::Context;
use crate::ask::{Ask, barred_and_dead, ensure, same};
use crate::checks::contract::maintain::{MILLISECOND, ending, is_there};
use crate::fixtures::{DAY, MINUTE, NOW, grant, moved, pair, revocation, stranger, subject, token};
use crate::report::Broken;

checks! { "contract::maintain_keeps":
    only_what_ended_before_is_deleted_whatever_the_time => MaintainSpares,
    a_row_stays_as_long_as_it_is_needed => MaintainSpares,
    tokens_stay_until_their_end => MaintainSpares,
    a_grant_that_moved_on_stays_until_its_new_end => MaintainSpares,
    revoked_grants_stay_until_their_end => MaintainSpares,
    tombstones_stay_until_their_end => MaintainSpares,
    the_living_between_the_ended_stay => MaintainSpares,
    entries_stay_until_their_own_end => LogSnapshot,
    the_newest_entry_stays => LogSnapshot,
}

async fn only_what_ended_before_is_deleted_whatever_the_time(
    context: Context,
) -> Result<(), Broken> {
    let store = context.tokens().await;
    let before = NOW + DAY;
    let (mut kept, mut tokenless_kept) = (Vec::new(), Vec::new());
    for end in [before, before + MILLISECOND, before + DAY] {
        let (grant, token) = ending(&*store, end).await?;
        // A row that outlives every token it had is nevertheless not over.
        let mut tokenless = grant.clone();
        tokenless.id = GrantId::random(&Random::system())?;
        let mut short = token.clone();
        short.grant = tokenless.id;
        short.digest = stranger()?;
        short.expires_at = NOW + MINUTE;
        store.inserted(&tokenless, &[short]).await?;
        tokenless_kept.push(tokenless);
        kept.push((grant, token));
    }
    let (gone, _) = ending(&*store, before - MILLISECOND).await?;
    let task = Housekeeping { now: NOW + 365 * DAY, before, limit: 1_000, sweep: None };
    let mut calls = 0;
    while store.maintain(task).await?.more {
        calls += 1;
        ensure!(calls < 100, "it never stops saying \"more\"");
    }
    for (grant, token) in &kept {
        is_there(&*store, grant, token).await?;
    }
    for grant in &tokenless_kept {
        same("a grant that was to stay", &store.grant(grant.id).await?, grant)?;
    }
    let lookup = store.find(gone.id, None).await?;
    same("a grant that ended before", &lookup, &Lookup::Absent)
}

async fn a_row_stays_as_long_as_it_is_needed(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    // Its chain ended long ago, the grant and one token as well; the row is needed longer, here for
    // another token, there for something that has no row.
    for has_long_token in [true, false] {
        let mut grant = grant("alice", "app", store.epoch().await?)?;
        grant.chain.as_mut().ok_or("no chain")?.expires_at = NOW - DAY;
        grant.expires_at = NOW - MINUTE;
        grant.row_expires_at = NOW + DAY;
        let mut short = token(&grant)?;
        short.expires_at = NOW - MINUTE;
        let mut long = token(&grant)?;
        long.expires_at = grant.row_expires_at;
        let mut tokens = vec![short, long.clone()];
        tokens.truncate(1 + usize::from(has_long_token));
        store.inserted(&grant, &tokens).await?;
        for before in [NOW, NOW + MINUTE, NOW + DAY] {
            store.housekept(before).await?;
            let found = store.found(grant.id, long.digest).await?;
            same("a grant that was to stay", &*found.grant, &grant)?;
            let should = has_long_token.then_some(&long);
            same("its longer token", &found.token.as_deref(), &should)?;
        }
    }
    Ok(())
}

async fn tokens_stay_until_their_end(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    let mut short = token(&grant)?;
    short.expires_at = NOW + MINUTE;
    // An old one that lives long: what counts is the end, not the age.
    let mut long = token(&grant)?;
    long.issued_at = NOW - 30 * DAY;
    long.expires_at = NOW + DAY;
    store.inserted(&grant, &[short.clone(), long.clone()]).await?;
    let mut revoked = token(&grant)?;
    revoked.expires_at = NOW + DAY;
    let attach = ChainUpdate::Attach;
    store.advanced(&grant, attach, std::slice::from_ref(&revoked)).await?;
    let target = Target::Token { grant: grant.id, digest: revoked.digest };
    store.revoked(target).await?;
    store.housekept(short.expires_at).await?;
    is_there(&*store, &grant, &short).await?;
    store.housekept(long.expires_at).await?;
    is_there(&*store, &grant, &long).await?;
    let found = store.found(grant.id, revoked.digest).await?;
    ensure!(
        found.token.is_some_and(|token| token.revoked_at.is_some()),
        "the revoked token has lost its mark, or its row, before its end"
    );
    Ok(())
}

async fn a_grant_that_moved_on_stays_until_its_new_end(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    // The row ends with its last use, the grant much later.
    let mut first = grant("alice", "app", store.epoch().await?)?;
    (first.expires_at, first.row_expires_at) = (NOW + 2 * DAY, NOW + MINUTE);
    let mut first_token = token(&first)?;
    first_token.expires_at = NOW + MINUTE;
    store.inserted(&first, &[first_token]).await?;
    let mut next = moved(&first)?;
    next.row_expires_at = NOW + 2 * DAY;
    let mut next_token = token(&first)?;
    next_token.expires_at = NOW + 2 * DAY;
    let change = ChainUpdate::Move(Box::new(next.clone()));
    store.advanced(&first, change, std::slice::from_ref(&next_token)).await?;
    store.housekept(NOW + 2 * DAY).await?;
    is_there(&*store, &next, &next_token).await
}

async fn revoked_grants_stay_until_their_end(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let (one, _) = ending(&*store, NOW + DAY).await?;
    let (other, _) = ending(&*store, NOW + DAY).await?;
    // A token of each has ended before.
    for grant in [&one, &other] {
        let mut short = token(grant)?;
        short.expires_at = NOW + MINUTE;
        store.advanced(grant, ChainUpdate::Attach, &[short]).await?;
    }
    for target in [Target::Grant(one.id), pair(&other.subject, &other.client)] {
        // The log forgets it long before the row goes.
        let revocation =
            Revocation { until: NOW + MINUTE, rule_until: NOW + MINUTE, ..revocation(target) };
        store.revoked_as(revocation).await?;
    }
    store.heartbeat(NOW, NOW + DAY).await?;
    store.housekept(NOW + DAY).await?;
    for id in [one.id, other.id] {
        let grant = store.grant(id).await?;
        ensure!(grant.revoked_at.is_some(), "a revoked grant is live again");
    }
    let of = Selector::Subject(subject("alice")?);
    let listed = store.listed_ids(of, NOW).await?;
    ensure!(listed.is_empty(), "revoked grants are listed: {listed:?}");
    Ok(())
}

async fn tombstones_stay_until_their_end(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let absent = grant("alice", "app", store.epoch().await?)?;
    let revocation = revocation(Target::Grant(absent.id));
    store.revoked_as(revocation.clone()).await?;
    for before in [NOW, NOW + DAY, revocation.until] {
        store.housekept(before).await?;
        let lookup = store.find(absent.id, None).await?;
        same("the tombstone", &lookup, &Lookup::Tombstone)?;
    }
    barred_and_dead(&*store, &absent, &[]).await
}

async fn the_living_between_the_ended_stay(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let end = NOW + MINUTE;
    let mut living = Vec::new();
    for _ in 0..40 {
        ending(&*store, end).await?;
        living.push(ending(&*store, end + 2 * MINUTE).await?);
    }
    let task = Housekeeping { now: end + MINUTE, before: end + MINUTE, limit: 7, sweep: None };
    let mut calls = 0;
    while store.maintain(task).await?.more {
        calls += 1;
        ensure!(calls < 500, "some 80 rows are not done after {calls} calls");
    }
    for (grant, token) in &living {
        is_there(&*store, grant, token).await?;
    }
    let mut should: Vec<GrantId> = living.iter().map(|(grant, _)| grant.id).collect();
    should.sort_unstable();
    for of in [
        Selector::Subject(living[0].0.subject.clone()),
        Selector::Client(living[0].0.client.clone()),
    ] {
        same("the listing", &store.listed_ids(of, NOW).await?, &should)?;
    }
    Ok(())
}

async fn entries_stay_until_their_own_end(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    // The longer half comes first: what ends is not what is oldest.
    let mut long = Vec::new();
    for number in 0..20 {
        let target = Target::Token { grant: grant.id, digest: stranger()? };
        let until = if number < 10 {
            long.push(target.clone());
            NOW + DAY
        } else {
            NOW + MINUTE
        };
        let revocation = Revocation { until, rule_until: until, ..revocation(target) };
        store.revoked_as(revocation).await?;
    }
    store.heartbeat(NOW, NOW + 2 * DAY).await?;
    for before in [NOW + MINUTE + MILLISECOND, NOW + DAY] {
        store.housekept(before).await?;
        let log = store.log().await?;
        for target in &long {
            ensure!(
                log.iter().any(|entry| matches!(
                    &entry.event,
                    LogEvent::Revoked { target: own, .. } if own == target
                )),
                "an entry was trimmed before its end"
            );
        }
        ensure!(
            log.len() == 11,
            "ten entries and a heartbeat have not ended; the log holds {}",
            log.len()
        );
    }
    Ok(())
}

async fn the_newest_entry_stays(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for number in 0..5 {
        if number % 2 == 0 {
            store.revoked(Target::Subject(subject("alice")?)).await?;
        } else {
            store.heartbeat(NOW, NOW + MINUTE).await?;
        }
        let (log, end) = (store.log().await?, place_of_the_end(&*store).await?);
        let newest = log.last().ok_or("the log is empty")?;
        store.housekept(NOW + 365 * DAY).await?;
        same("the log", &store.log().await?, &vec![newest.clone()])?;
        let batch = store.revocations(end, 10).await?;
        ensure!(
            matches!(&batch, RevocationBatch::Entries { entries, .. } if entries.is_empty()),
            "a reader who had seen everything got {batch:?}"
        );
    }
    Ok(())
}

/// The cursor of a reader who has seen everything.
async fn place_of_the_end(store: &dyn TokenStore) -> Result<Cursor, Broken> {
    let mut cursor = Cursor::start();
    loop {
        match store.revocations(cursor, 100).await? {
            RevocationBatch::Entries { next, more, .. } => {
                cursor = next;
                if !more {
                    return Ok(cursor);
                }
            }
            RevocationBatch::Gap => return Err("reading the log met a gap".into()),
        }
    }
}
