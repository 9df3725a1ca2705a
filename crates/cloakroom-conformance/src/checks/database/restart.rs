//! The data after a crash: everything that was acknowledged is there, and numbers such as bounds and generations
//! continue.

use cloakroom_core::keys::{KeyInserted, KeyUpdated};
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Cursor, Epoch, LogEvent, Revocation, Target};
use cloakroom_core::store::{
    ChainUpdate, CreateOutcome, Lookup, RevokeOutcome, Selector, TokenStoreExt,
};
use cloakroom_core::{Jti, Kid};

use crate::Context;
use crate::ask::{Ask, ensure, grown, not_lowered, same};
use crate::checks::contract::check_values::{set, stand};
use crate::checks::contract::keys::{holds, inserted, key, rewritten};
use crate::fixtures::{
    DAY, MINUTE, NOW, full_grant, full_token, grant, lone, moved, revocation, token,
};
use crate::reading::{bounded, read_on, single};
use crate::report::Broken;

checks! { "database::restart":
    grants_and_tokens_survive => RestartKeeps,
    revocations_survive => RestartKeeps,
    tombstones_survive => RestartKeeps,
    rules_survive => RestartKeeps,
    a_sweep_that_went_on_is_finished => RestartKeeps,
    a_reader_goes_on_after_a_restart => RestartKeeps,
    a_reader_of_a_trimmed_log_goes_on => RestartKeeps,
    the_newest_bound_survives => RestartKeeps,
    check_values_survive => RestartKeeps,
    keys_survive => RestartKeeps,
    a_generation_is_never_given_again => RestartKeeps,
}

async fn grants_and_tokens_survive(context: Context) -> Result<(), Broken> {
    let (bench, first) = context.database().await?;
    let store = first.tokens;
    let grant = full_grant(1, store.epoch().await?)?;
    let mut tokens = vec![full_token(&grant, 1)?, full_token(&grant, 2)?];
    store.inserted(&grant, &tokens).await?;
    let next = moved(&grant)?;
    let (with_move, attached) = (full_token(&grant, 3)?, full_token(&grant, 4)?);
    let change = ChainUpdate::Move(Box::new(next.clone()));
    store.advanced(&grant, change, std::slice::from_ref(&with_move)).await?;
    store.advanced(&next, ChainUpdate::Attach, std::slice::from_ref(&attached)).await?;
    tokens.extend([with_move, attached]);
    drop(store);
    for _ in 0..2 {
        let store = bench.restart().await?.tokens;
        for token in &tokens {
            let found = store.found(next.id, token.digest).await?;
            same("the grant after a restart", &*found.grant, &next)?;
            same("its token", &found.token.as_deref(), &Some(token))?;
        }
        for of in [Selector::Subject(next.subject.clone()), Selector::Client(next.client.clone())] {
            same("the listing", &store.listed_ids(of, NOW).await?, &vec![next.id])?;
        }
    }
    let store = bench.restart().await?.tokens;
    store.advanced(&next, ChainUpdate::Move(Box::new(moved(&next)?)), &[]).await
}

async fn revocations_survive(context: Context) -> Result<(), Broken> {
    let (bench, first) = context.database().await?;
    let store = first.tokens;
    let mut revoked = Vec::new();
    for target in [
        (|grant| Target::Grant(grant.id)) as fn(&GrantRecord) -> Target,
        |grant| Target::Subject(grant.subject.clone()),
        |grant| Target::Client(grant.client.clone()),
    ] {
        let grant = lone(store.epoch().await?)?;
        store.inserted(&grant, &[]).await?;
        store.revoked(target(&grant)).await?;
        revoked.push(grant);
    }
    let spared = lone(store.epoch().await?)?;
    let (held, gone) = (token(&spared)?, token(&spared)?);
    store.inserted(&spared, &[held.clone(), gone.clone()]).await?;
    store.revoked(Target::Token { grant: spared.id, digest: gone.digest }).await?;
    drop(store);
    let store = bench.restart().await?.tokens;
    for grant in &revoked {
        ensure!(!store.is_unrevoked(grant.id).await?, "a revoked grant lives after a restart");
        let late = store.create(grant.clone(), vec![]).await?;
        same("its `create`, sent again", &late, &CreateOutcome::Barred)?;
    }
    let found = store.found(spared.id, gone.digest).await?;
    same("a grant that was not revoked", &*found.grant, &spared)?;
    let is_revoked = found.token.is_some_and(|token| token.revoked_at.is_some());
    ensure!(is_revoked, "a revoked token lives after a restart, or is gone");
    let found = store.found(spared.id, held.digest).await?;
    same("a token that was not revoked", &found.token.as_deref(), &Some(&held))
}

async fn tombstones_survive(context: Context) -> Result<(), Broken> {
    let (bench, first) = context.database().await?;
    let absent = lone(first.tokens.epoch().await?)?;
    first.tokens.revoked(Target::Grant(absent.id)).await?;
    drop(first);
    let store = bench.restart().await?.tokens;
    same("the tombstone", &store.find(absent.id, None).await?, &Lookup::Tombstone)?;
    same("a late `create`", &store.create(absent, vec![]).await?, &CreateOutcome::Barred)
}

async fn rules_survive(context: Context) -> Result<(), Broken> {
    let (bench, first) = context.database().await?;
    let store = first.tokens;
    let old = grant("alice", "app", store.epoch().await?)?;
    let mut should = Vec::new();
    for target in [
        Target::Subject(old.subject.clone()),
        Target::Client(old.client.clone()),
        Target::SubjectAtClient(old.subject.clone(), old.client.clone()),
        Target::Jti(Jti::new("a jti")?),
        Target::Key(Kid::new("a key")?),
    ] {
        // The second moves the bound, the first the end.
        for days in [5, 1] {
            let until = NOW + days * DAY;
            let revocation = Revocation { until, rule_until: until, ..revocation(target.clone()) };
            store.revoked_as(revocation).await?;
        }
        let until = NOW + 9 * DAY;
        let revocation = Revocation { until, rule_until: until, ..revocation(target.clone()) };
        store.revoked_as(revocation).await?;
        let key = target.rule_key().ok_or("the target leaves no rule")?;
        should.push(store.rule(key).await?.ok_or("there is no rule")?);
    }
    drop(store);
    let store = bench.restart().await?.tokens;
    for rule in should {
        let known = store.rule(rule.key.clone()).await?;
        same("the rule after a restart", &known, &Some(rule))?;
    }
    let late = store.create(old, vec![]).await?;
    same("a `create` that comes late", &late, &CreateOutcome::Barred)?;
    store.inserted(&grant("alice", "app", store.epoch().await?)?, &[]).await
}

async fn a_sweep_that_went_on_is_finished(context: Context) -> Result<(), Broken> {
    let (bench, first) = context.database().await?;
    let store = first.tokens;
    let epoch = store.epoch().await?;
    let mut covered = Vec::new();
    for _ in 0..30 {
        let grant = grant("alice", "app", epoch)?;
        store.inserted(&grant, &[]).await?;
        covered.push(grant.id);
    }
    let target = Target::Client(grant("alice", "app", epoch)?.client);
    let revoked = store.revoke(revocation(target)).await?;
    drop(store);
    let store = bench.restart().await?.tokens;
    if let RevokeOutcome::Sweeping(_) = revoked {
        store.swept(revoked).await?;
    }
    for id in covered {
        ensure!(!store.is_unrevoked(id).await?, "the sweep left a grant alive, after a restart");
    }
    Ok(())
}

async fn a_reader_goes_on_after_a_restart(context: Context) -> Result<(), Broken> {
    let (bench, mut instance) = context.database().await?;
    let (mut cursor, mut known) = (Cursor::start(), Vec::new());
    for _ in 0..3 {
        let store = &*instance.tokens;
        for revocation in [single()?, bounded()?] {
            store.revoked_as(revocation.clone()).await?;
            let (read, next) = read_on(store, cursor, 1).await?;
            let target = read.last().map(|entry| entry.event.clone());
            ensure!(
                matches!(&target, Some(LogEvent::Revoked { target, .. })
                    if *target == revocation.target),
                "after {:?}, a reader that goes on reads {target:?}",
                revocation.target
            );
            same("how much is new", &read.len(), &1)?;
            known.extend(read);
            cursor = next;
        }
        instance = bench.restart().await?;
        let (read, next) = read_on(&*instance.tokens, cursor, 10).await?;
        ensure!(read.is_empty(), "a restart gave a reader {read:?}");
        cursor = next;
        same("the log after a restart", &instance.tokens.log().await?, &known)?;
    }
    Ok(())
}

async fn a_reader_of_a_trimmed_log_goes_on(context: Context) -> Result<(), Broken> {
    let (bench, first) = context.database().await?;
    let store = first.tokens;
    for _ in 0..4 {
        store.revoked_as(single()?).await?;
    }
    store.heartbeat(NOW, NOW + MINUTE).await?;
    let (_, cursor) = read_on(&*store, Cursor::start(), 10).await?;
    // The newest entry alone is left, and its place is not given again.
    store.housekept(NOW + 365 * DAY).await?;
    drop(store);
    let store = bench.restart().await?.tokens;
    let (read, cursor) = read_on(&*store, cursor, 10).await?;
    ensure!(read.is_empty(), "a restart gave a reader {read:?}");
    store.revoked_as(single()?).await?;
    same("how much is new", &read_on(&*store, cursor, 10).await?.0.len(), &1)
}

async fn the_newest_bound_survives(context: Context) -> Result<(), Broken> {
    for trims in [false, true] {
        for beats in [false, true] {
            let (bench, first) = context.database().await?;
            let store = first.tokens;
            // Far ahead of every clock, so that nothing but memory can know it.
            let at = NOW + 1_000 * DAY;
            if beats {
                store.heartbeat(at, at + MINUTE).await?;
            } else {
                let target = Target::Subject(lone(Epoch::default())?.subject);
                store.revoked_as(Revocation::new(target, at, at + MINUTE)).await?;
            }
            store.heartbeat(NOW, NOW + MINUTE).await?;
            if trims {
                store.housekept(at + DAY).await?;
            }
            let newest = store.newest_bound().await?;
            not_lowered(Epoch::new(at.as_millis()), newest)?;
            drop(store);
            let store = bench.restart().await?.tokens;
            not_lowered(newest, store.newest_bound().await?)?;
            let target = Target::Subject(lone(Epoch::default())?.subject);
            store.revoked(target.clone()).await?;
            grown(newest, NOW, Some(store.bound_of(&target).await?))?;
        }
    }
    Ok(())
}

async fn check_values_survive(context: Context) -> Result<(), Broken> {
    let (bench, first) = context.database().await?;
    set(&*first.tokens, "issuer", None, Some(b"one")).await?;
    set(&*first.tokens, "secret", None, Some(b"")).await?;
    drop(first);
    let store = bench.restart().await?.tokens;
    stand(&*store, &[("issuer", b"one"), ("secret", b"")]).await?;
    let is_done = store.set_check_value("issuer", None, Some(b"two")).await?;
    ensure!(!is_done, "a restart let a check value be set for none");
    Ok(())
}

async fn keys_survive(context: Context) -> Result<(), Broken> {
    let (bench, first) = context.database().await?;
    let (one, two) = (key(1, "one")?, key(2, "two")?);
    inserted(&*first.keys, &one).await?;
    inserted(&*first.keys, &two).await?;
    let two = rewritten(&two, 3)?;
    same("the update", &first.keys.update(two.clone(), 1).await?, &KeyUpdated::Updated)?;
    set(&*first.keys, "ring", None, Some(b"one")).await?;
    drop(first);
    let keys = bench.restart().await?.keys;
    holds(&*keys, &[&one, &two]).await?;
    let stale = keys.update(rewritten(&two, 1)?, 1).await?;
    same("an update from an older version", &stale, &KeyUpdated::Stale)?;
    let values = keys.check_values().await?;
    ensure!(values.iter().any(|value| value.name == "ring"), "the check values are {values:?}");
    Ok(())
}

async fn a_generation_is_never_given_again(context: Context) -> Result<(), Broken> {
    let (bench, first) = context.database().await?;
    for generation in [1, 2, 7] {
        inserted(&*first.keys, &key(generation, "one")?).await?;
    }
    for generation in [7, 2] {
        let deleted = first.keys.delete(generation, 1).await?;
        same("the delete", &deleted, &KeyUpdated::Updated)?;
    }
    drop(first);
    for _ in 0..2 {
        let keys = bench.restart().await?.keys;
        for generation in [2, 3, 7] {
            let again = keys.insert(key(generation, "again")?).await?;
            same("an insert of a generation from before", &again, &KeyInserted::Taken)?;
        }
        holds(&*keys, &[&key(1, "one")?]).await?;
    }
    let keys = bench.restart().await?.keys;
    let only = keys.delete(1, 1).await?;
    same("the delete of the last one", &only, &KeyUpdated::Updated)?;
    let keys = bench.restart().await?.keys;
    same("an insert", &keys.insert(key(7, "again")?).await?, &KeyInserted::Taken)?;
    inserted(&*keys, &key(8, "next")?).await
}
