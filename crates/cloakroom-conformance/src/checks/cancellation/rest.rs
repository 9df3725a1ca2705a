//! Reads, housekeeping, heartbeats and the key store, dropped at each await.

use cloakroom_core::Kid;
use cloakroom_core::keys::schedule::KeyTimes;
use cloakroom_core::keys::{KeyInserted, KeyRecord, KeyStore, KeyUpdated};
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Cursor, Epoch, LogEvent, Revocation, RuleKey, Target};
use cloakroom_core::store::{Housekeeping, Lookup, PageRequest, Selector, TokenStoreExt};
use serde_json::json;

use crate::Context;
use crate::ask::{Ask, ensure, same};
use crate::fixtures::{DAY, MINUTE, NOW, lone, revocation, token};
use crate::pace::Drops;
use crate::report::Broken;
use crate::sight::{Patience, Sight, sight};

checks! { "cancellation::rest":
    dropped_readers_leave_everything_as_it_is => Cancellation,
    a_dropped_heartbeat_is_whole_or_undone => Cancellation,
    dropped_housekeeping_tears_nothing_apart => Cancellation,
    a_dropped_insert_of_a_key_is_whole_or_undone => Cancellation,
    a_dropped_update_of_a_key_is_whole_or_undone => Cancellation,
    a_dropped_delete_of_a_key_is_whole_or_undone => Cancellation,
}

async fn dropped_readers_leave_everything_as_it_is(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = lone(store.epoch().await?)?;
    let token = token(&grant)?;
    store.inserted(&grant, std::slice::from_ref(&token)).await?;
    store.revoked(Target::Grant(lone(Epoch::default())?.id)).await?;
    let is = async || -> Result<(Sight, usize), Broken> {
        let sight = sight(&*store, grant.id, &grant, &[token.digest]).await?;
        Ok((sight, store.log().await?.len()))
    };
    let before = is().await?;
    let mut drops = Drops::new(&context);
    while drops.again() {
        drops.play(store.find(grant.id, Some(token.digest))).await?;
        same("what is there after a dropped `find`", &is().await?, &before)?;
    }
    let mut drops = Drops::new(&context);
    while drops.again() {
        drops.play(store.rules(vec![RuleKey::Subject(grant.subject.clone())])).await?;
        same("what is there after dropped `rules`", &is().await?, &before)?;
    }
    let mut drops = Drops::new(&context);
    while drops.again() {
        let page = PageRequest { after: None, limit: 10 };
        drops.play(store.list(Selector::Subject(grant.subject.clone()), page, NOW)).await?;
        same("what is there after a dropped `list`", &is().await?, &before)?;
    }
    let mut drops = Drops::new(&context);
    while drops.again() {
        drops.play(store.revocations(Cursor::start(), 10)).await?;
        same("what is there after dropped `revocations`", &is().await?, &before)?;
    }
    Ok(())
}

async fn a_dropped_heartbeat_is_whole_or_undone(context: Context) -> Result<(), Broken> {
    let mut drops = Drops::new(&context);
    while drops.again() {
        let store = context.tokens().await;
        drops.play(store.heartbeat(NOW, NOW + DAY)).await?;
        let target = Target::Grant(lone(Epoch::default())?.id);
        store.revoked(target.clone()).await?;
        let log = store.log().await?;
        let strange = log.iter().find(|entry| match &entry.event {
            LogEvent::Revoked { target: own, .. } => *own != target,
            LogEvent::Heartbeat {} => (entry.at, entry.until) != (NOW, NOW + DAY),
            _ => true,
        });
        ensure!(strange.is_none(), "the log holds {strange:?}");
        let is_there = log.iter().any(|entry| matches!(entry.event, LogEvent::Revoked { .. }));
        ensure!(is_there, "after a dropped heartbeat a revocation did not reach the log");
        // The log goes on.
        store.heartbeat(NOW + MINUTE, NOW + DAY).await?;
        let last = store.log().await?.pop();
        same("the newest entry's time", &last.map(|entry| entry.at), &Some(NOW + MINUTE))?;
    }
    Ok(())
}

/// A grant whose row ended a minute ago, with its token.
fn ended(epoch: Epoch) -> Result<(GrantRecord, TokenRecord), Broken> {
    let end = NOW - MINUTE;
    let mut grant = lone(epoch)?;
    grant.created_at = NOW - DAY;
    grant.expires_at = end;
    grant.row_expires_at = end;
    if let Some(chain) = &mut grant.chain {
        chain.expires_at = end;
    }
    let mut token = token(&grant)?;
    token.issued_at = NOW - DAY;
    token.expires_at = end;
    Ok((grant, token))
}

async fn dropped_housekeeping_tears_nothing_apart(context: Context) -> Result<(), Broken> {
    let mut drops = Drops::new(&context);
    while drops.again() {
        let store = context.tokens().await;
        let epoch = store.epoch().await?;
        let living = lone(epoch)?;
        let held = token(&living)?;
        let mut spent = token(&living)?;
        spent.expires_at = NOW - MINUTE;
        store.inserted(&living, &[held.clone(), spent.clone()]).await?;
        let mut old = Vec::new();
        for _ in 0..3 {
            let (mut grant, mut token) = ended(epoch)?;
            (grant.subject, grant.client) = (living.subject.clone(), living.client.clone());
            token.grant = grant.id;
            store.inserted(&grant, std::slice::from_ref(&token)).await?;
            let stale = Target::Subject(lone(Epoch::default())?.subject);
            store
                .revoked_as(Revocation {
                    until: NOW - MINUTE,
                    rule_until: NOW - MINUTE,
                    ..revocation(stale)
                })
                .await?;
            old.push((grant, token));
        }
        let current = Target::Client(lone(Epoch::default())?.client);
        store.revoked(current.clone()).await?;
        let task = Housekeeping { now: NOW, before: NOW, limit: 1_000, sweep: None };
        drops.play(store.maintain(task)).await?;
        for (grant, token) in &old {
            // There or not: a grant without its token is neither; the token ended with it.
            let lookup = store.find(grant.id, Some(token.digest)).await?;
            if let Lookup::Found(found) = lookup {
                same("a row that has ended", &*found.grant, grant)?;
            }
        }
        // The next one does the rest.
        store.housekept(NOW).await?;
        for (grant, token) in &old {
            let lookup = store.find(grant.id, Some(token.digest)).await?;
            same("a row that has ended", &lookup, &Lookup::Absent)?;
        }
        let found = store.found(living.id, held.digest).await?;
        same("the living grant", &*found.grant, &living)?;
        same("its living token", &found.token.as_deref(), &Some(&held))?;
        let listed = store.listed_ids(Selector::Subject(living.subject), NOW).await?;
        same("what is listed", &listed, &vec![living.id])?;
        let key = current.rule_key().ok_or("a client without a rule")?;
        ensure!(store.rule(key).await?.is_some(), "a rule that has not ended is gone");
        store.bound_of(&current).await?;
    }
    Ok(())
}

fn key(version: u64) -> Result<KeyRecord, Broken> {
    let (kid, public) = (Kid::new(format!("key-{version}"))?, json!({"kty": "EC"}));
    let mut key = KeyRecord::new(7, kid, "ES256", public, vec![1, 2, 3], KeyTimes::published(NOW));
    key.version = version;
    Ok(key)
}

async fn inserted(store: &dyn KeyStore) -> Result<(), Broken> {
    same("the first insert", &store.insert(key(1)?).await?, &KeyInserted::Inserted)
}

/// Waits until the ring is the one or the other; whether it is the other.
async fn ring_settled(
    context: &Context,
    store: &dyn KeyStore,
    before: &[KeyRecord],
    after: &[KeyRecord],
) -> Result<bool, Broken> {
    // Keys have no housekeeping of their own; any other store's will do to pass the time.
    let idle = context.tokens().await;
    let mut patience = Patience::default();
    loop {
        let ring = store.load().await?;
        if ring == after {
            return Ok(true);
        }
        if ring == before {
            return Ok(false);
        }
        patience.wait(&*idle, &ring).await?;
    }
}

async fn a_dropped_insert_of_a_key_is_whole_or_undone(context: Context) -> Result<(), Broken> {
    let mut drops = Drops::new(&context);
    while drops.again() {
        let store = context.keys().await;
        drops.play(store.insert(key(1)?)).await?;
        let after = [key(1)?];
        let is_done = ring_settled(&context, &*store, &[], &after).await?;
        let again = store.insert(key(1)?).await?;
        ensure!(
            again == if is_done { KeyInserted::Taken } else { KeyInserted::Inserted }
                || again == KeyInserted::Taken && store.load().await? == after,
            "after a dropped insert, the same one answered {again:?}"
        );
        same("the ring", &store.load().await?, &after.to_vec())?;
    }
    Ok(())
}

async fn a_dropped_update_of_a_key_is_whole_or_undone(context: Context) -> Result<(), Broken> {
    let mut drops = Drops::new(&context);
    while drops.again() {
        let store = context.keys().await;
        inserted(&*store).await?;
        drops.play(store.update(key(2)?, 1)).await?;
        ring_settled(&context, &*store, &[key(1)?], &[key(2)?]).await?;
        // `Updated` or, if it was done before, `Stale`.
        let _ = store.update(key(2)?, 1).await?;
        same("the ring", &store.load().await?, &vec![key(2)?])?;
        same("the next update", &store.update(key(3)?, 2).await?, &KeyUpdated::Updated)?;
    }
    Ok(())
}

async fn a_dropped_delete_of_a_key_is_whole_or_undone(context: Context) -> Result<(), Broken> {
    let mut drops = Drops::new(&context);
    while drops.again() {
        let store = context.keys().await;
        inserted(&*store).await?;
        drops.play(store.delete(7, 1)).await?;
        ring_settled(&context, &*store, &[key(1)?], &[]).await?;
        let _ = store.delete(7, 1).await?;
        ensure!(store.load().await?.is_empty(), "the deleted key is there");
        let again = store.insert(key(1)?).await?;
        same("an insert of a generation that was used", &again, &KeyInserted::Taken)?;
    }
    Ok(())
}
