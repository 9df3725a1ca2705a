//! `maintain`: what it deletes, and how much at a time.

use std::time::Duration;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{LogEvent, Revocation, Target};
use cloakroom_core::store::{
    ChainUpdate, Housekeeping, Lookup, MaintenanceReport, Selector, TokenStore, TokenStoreExt,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, Random};

use crate::Context;
use crate::ask::{Ask, ensure, same};
use crate::fixtures::{DAY, MINUTE, NOW, grant, moved, revocation, token};
use crate::report::Broken;

checks! { "contract::maintain":
    an_empty_store_has_nothing_to_do => MaintainDeletes,
    ended_grants_are_deleted => MaintainDeletes,
    ended_tokens_of_a_living_grant_are_deleted => MaintainDeletes,
    tokens_that_came_later_are_deleted => MaintainDeletes,
    a_grant_that_moved_to_an_earlier_end_is_deleted => MaintainDeletes,
    ended_tombstones_and_entries_are_deleted => MaintainDeletes,
    the_work_comes_in_bounded_pieces => MaintainDeletes,
    one_row_at_a_time_comes_to_an_end => MaintainDeletes,
}

pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);

/// A grant that ends at this time in every way.
pub(crate) async fn ending(
    store: &dyn TokenStore,
    end: UnixTime,
) -> Result<(GrantRecord, TokenRecord), Broken> {
    let mut grant = grant("alice", "app", store.epoch().await?)?;
    grant.expires_at = end;
    grant.row_expires_at = end;
    grant.chain.as_mut().ok_or("no chain")?.expires_at = end;
    let mut token = token(&grant)?;
    token.expires_at = end;
    store.inserted(&grant, std::slice::from_ref(&token)).await?;
    Ok((grant, token))
}

pub(crate) async fn is_there(
    store: &dyn TokenStore,
    grant: &GrantRecord,
    token: &TokenRecord,
) -> Result<(), Broken> {
    let found = store.found(grant.id, token.digest).await?;
    same("a grant that was to stay", &*found.grant, grant)?;
    same("its token", &found.token.as_deref(), &Some(token))
}

async fn an_empty_store_has_nothing_to_do(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let done = store.housekept(NOW).await?;
    same("what was done", &done, &MaintenanceReport::default())
}

async fn ended_grants_are_deleted(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let end = NOW + DAY;
    let mut ended = Vec::new();
    for number in 0..12 {
        let (grant, token) = ending(&*store, end).await?;
        match number % 3 {
            0 => store.revoked(Target::Grant(grant.id)).await?,
            1 => {
                let token = Target::Token { grant: grant.id, digest: token.digest };
                store.revoked(token).await?;
            }
            _ => {}
        }
        ended.push((grant, token));
    }
    let done = store.housekept(end + MILLISECOND).await?;
    same("the number of grants deleted", &done.grants, &12)?;
    for (grant, token) in &ended {
        let lookup = store.find(grant.id, Some(token.digest)).await?;
        same("a grant that ended", &lookup, &Lookup::Absent)?;
    }
    // Nor does an index still know them, at a time when they would have been live.
    for of in
        [Selector::Subject(ended[0].0.subject.clone()), Selector::Client(ended[0].0.client.clone())]
    {
        let listed = store.listed_ids(of, NOW).await?;
        ensure!(listed.is_empty(), "deleted grants are listed: {listed:?}");
    }
    let done = store.housekept(end + MILLISECOND).await?;
    same("what is done the second time", &done, &MaintenanceReport::default())?;
    // Nothing is left that stands against the same again.
    let (grant, token) = &ended[2];
    store.inserted(grant, std::slice::from_ref(token)).await?;
    is_there(&*store, grant, token).await
}

async fn ended_tokens_of_a_living_grant_are_deleted(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    let mut tokens = Vec::new();
    for minutes in 1..=10 {
        let mut token = token(&grant)?;
        token.expires_at = NOW + minutes * MINUTE;
        tokens.push(token);
    }
    store.inserted(&grant, &tokens).await?;
    let done = store.housekept(NOW + 5 * MINUTE + MILLISECOND).await?;
    same("the number of tokens deleted", &done.tokens, &5)?;
    same("the number of grants deleted", &done.grants, &0)?;
    for (place, token) in tokens.iter().enumerate() {
        let found = store.found(grant.id, token.digest).await?;
        same("their grant", &*found.grant, &grant)?;
        let should = (place >= 5).then_some(token);
        same("the token", &found.token.as_deref(), &should)?;
    }
    Ok(())
}

async fn tokens_that_came_later_are_deleted(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    store.inserted(&grant, &[]).await?;
    let next = moved(&grant)?;
    let ending = |minutes: u32| -> Result<TokenRecord, Broken> {
        let mut token = token(&grant)?;
        token.expires_at = NOW + minutes * MINUTE;
        Ok(token)
    };
    let (attached, with_move, living) = (ending(1)?, ending(2)?, ending(30)?);
    let steps = [
        (ChainUpdate::Attach, vec![attached.clone(), living.clone()]),
        (ChainUpdate::Move(Box::new(next.clone())), vec![with_move.clone()]),
    ];
    for (change, tokens) in steps {
        store.advanced(&grant, change, &tokens).await?;
    }
    for (before, left) in [(2, vec![&with_move, &living]), (3, vec![&living]), (20, vec![&living])]
    {
        store.housekept(NOW + before * MINUTE).await?;
        for token in [&attached, &with_move, &living] {
            let found = store.found(grant.id, token.digest).await?;
            same("their grant", &*found.grant, &next)?;
            let should = left.contains(&token).then_some(token);
            same("the token", &found.token.as_deref(), &should)?;
        }
    }
    Ok(())
}

async fn a_grant_that_moved_to_an_earlier_end_is_deleted(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    store.inserted(&grant, &[]).await?;
    let mut next = moved(&grant)?;
    next.expires_at = NOW + MINUTE;
    next.row_expires_at = NOW + MINUTE;
    store.advanced(&grant, ChainUpdate::Move(Box::new(next)), &[]).await?;
    store.housekept(NOW + 2 * MINUTE).await?;
    let lookup = store.find(grant.id, None).await?;
    same("a grant that ended", &lookup, &Lookup::Absent)
}

async fn ended_tombstones_and_entries_are_deleted(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        let id = GrantId::random(&Random::system())?;
        store.revoked(Target::Grant(id)).await?;
        ids.push(id);
    }
    let end = revocation(Target::Grant(ids[0])).until;
    store.heartbeat(NOW, end + DAY).await?;
    let done = store.housekept(end + MILLISECOND).await?;
    for id in ids {
        let lookup = store.find(id, None).await?;
        same("a tombstone past its end", &lookup, &Lookup::Absent)?;
    }
    let left = store.log().await?;
    ensure!(
        matches!(&left[..], [entry] if entry.event == LogEvent::Heartbeat {}),
        "of ten entries that ended and a heartbeat that did not, the log holds {left:?}"
    );
    ensure!(
        done.revocations >= 10,
        "ten entries and ten tombstones were removed; `maintain` counted {}",
        done.revocations
    );
    Ok(())
}

async fn the_work_comes_in_bounded_pieces(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let end = NOW + MINUTE;
    let mut ended = Vec::new();
    for _ in 0..200 {
        ended.push(ending(&*store, end).await?.0.id);
    }
    let task = Housekeeping { now: end + DAY, before: end + DAY, limit: 10, sweep: None };
    let mut left = ended.len();
    for calls in 1.. {
        let done = store.maintain(task).await?;
        let mut now_left = 0;
        for id in &ended {
            let lookup = store.find(*id, None).await?;
            now_left += usize::from(lookup != Lookup::Absent);
        }
        // "About" ten rows, whatever the store counts as one: not all that there is.
        ensure!(
            left - now_left <= 100,
            "asked to touch about 10 rows, it deleted {} grants",
            left - now_left
        );
        ensure!(
            done.more || now_left == 0,
            "{now_left} grants are left, and it says that nothing is"
        );
        left = now_left;
        if !done.more {
            return Ok(());
        }
        // A row or two for each grant, and a look now and then that finds nothing.
        ensure!(
            calls < 200,
            "after {calls} calls for about 10 rows each, {left} of 200 grants are left"
        );
    }
    Ok(())
}

async fn one_row_at_a_time_comes_to_an_end(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let end = NOW + MINUTE;
    let (living, token) = ending(&*store, end + 2 * DAY).await?;
    let mut ended = Vec::new();
    for _ in 0..10 {
        ended.push(ending(&*store, end).await?.0.id);
        let revocation = Revocation {
            until: end,
            ..revocation(Target::Grant(GrantId::random(&Random::system())?))
        };
        store.revoked_as(revocation).await?;
    }
    let task = Housekeeping { now: end + DAY, before: end + DAY, limit: 1, sweep: None };
    let mut calls = 0;
    while store.maintain(task).await?.more {
        calls += 1;
        ensure!(calls < 500, "some 40 rows are not done after {calls} calls");
    }
    for id in ended {
        let lookup = store.find(id, None).await?;
        same("a grant that ended", &lookup, &Lookup::Absent)?;
    }
    is_there(&*store, &living, &token).await
}
