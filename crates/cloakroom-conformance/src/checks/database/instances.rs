//! Two instances over the same data: each knows what the other acknowledged.

use std::sync::Arc;

use cloakroom_core::Jti;
use cloakroom_core::keys::{KeyInserted, KeyUpdated};
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Cursor, Epoch, LogEvent, Revocation, RevocationBatch, Target};
use cloakroom_core::store::{
    AdvanceOutcome, ChainUpdate, CreateOutcome, Lookup, Selector, TokenStore, TokenStoreExt,
};

use crate::ask::{Ask, ensure, grown, not_lowered, same, step_from};
use crate::checks::contract::check_values::{one_is_there, set, stand};
use crate::checks::contract::keys::{holds, inserted, key, rewritten};
use crate::checks::log::wakeups::read_when_woken;
use crate::context::Bench;
use crate::fixtures::{DAY, MINUTE, NOW, grant, lone, moved, revocation, subject, token};
use crate::pace::{Interleavings, at_once};
use crate::reading::{Reader, bounded, read_on, single};
use crate::report::Broken;
use crate::{Context, Instance};

checks! { "database::instances":
    rows_are_found_by_both => InstancesAgree,
    what_is_sent_again_through_the_other_is_known => InstancesAgree,
    a_sweep_is_finished_by_the_other => InstancesAgree,
    a_revocation_is_seen_by_both => InstancesAgree,
    listings_are_those_of_both => InstancesAgree,
    rules_are_known_to_both => InstancesAgree,
    the_newest_bound_is_that_of_both => InstancesAgree,
    a_login_by_the_other_instance_lives => InstancesAgree,
    a_cursor_is_good_in_both => InstancesAgree,
    what_the_other_wrote_wakes => InstancesAgree,
    keys_are_those_of_both => InstancesAgree,
    check_values_are_those_of_both => InstancesAgree,
    housekeeping_is_for_both => InstancesAgree,
    a_chain_raced_for_by_both_has_one_winner => InstancesAgree,
    a_revocation_by_the_other_bars_a_create => InstancesAgree,
    a_revocation_by_the_other_wins_over_a_step => InstancesAgree,
    bounds_of_both_grow => InstancesAgree,
    a_value_raced_for_by_both_has_one_winner => InstancesAgree,
}

/// Two instances over one database.
async fn two(context: &Context) -> Result<(Bench, Instance, Instance), Broken> {
    let (bench, one) = context.database().await?;
    let other = bench.another().await?;
    Ok((bench, one, other))
}

async fn rows_are_found_by_both(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    for (writer, reader) in [(&one, &other), (&other, &one)] {
        let (writer, reader) = (&*writer.tokens, &*reader.tokens);
        let first = grant("alice", "app", writer.epoch().await?)?;
        let held = token(&first)?;
        // Both have looked before it was there.
        same("what is there", &reader.find(first.id, Some(held.digest)).await?, &Lookup::Absent)?;
        writer.inserted(&first, std::slice::from_ref(&held)).await?;
        let found = reader.found(first.id, held.digest).await?;
        same("the grant", &*found.grant, &first)?;
        same("its token", &found.token.as_deref(), &Some(&held))?;
        let mut stands = first;
        for _ in 0..3 {
            let (next, new) = (moved(&stands)?, token(&stands)?);
            let change = ChainUpdate::Move(Box::new(next.clone()));
            writer.advanced(&stands, change, std::slice::from_ref(&new)).await?;
            let found = reader.found(next.id, new.digest).await?;
            same("the grant that moved on", &*found.grant, &next)?;
            same("its new token", &found.token.as_deref(), &Some(&new))?;
            stands = next;
        }
        // The reader goes on from there.
        reader.advanced(&stands, ChainUpdate::Move(Box::new(moved(&stands)?)), &[]).await?;
        let again = reader.create(stands.clone(), vec![]).await?;
        same("another record under the id", &again, &CreateOutcome::Exists)?;
    }
    Ok(())
}

async fn what_is_sent_again_through_the_other_is_known(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    let first = lone(one.tokens.epoch().await?)?;
    let held = token(&first)?;
    for instance in [&one, &other, &one] {
        instance.tokens.inserted(&first, std::slice::from_ref(&held)).await?;
    }
    let next = moved(&first)?;
    let tokens = [token(&first)?];
    let step = step_from(&first, ChainUpdate::Move(Box::new(next.clone())), &tokens)?;
    for instance in [&one, &other, &one] {
        let answer = instance.tokens.advance(step.clone()).await?;
        same("one step, through either instance", &answer, &AdvanceOutcome::Advanced)?;
        let found = instance.tokens.found(next.id, tokens[0].digest).await?;
        same("the grant", &*found.grant, &next)?;
        same("its token", &found.token.as_deref(), &Some(&tokens[0]))?;
    }
    Ok(())
}

async fn a_sweep_is_finished_by_the_other(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    let epoch = one.tokens.epoch().await?;
    let mut covered = Vec::new();
    for _ in 0..30 {
        let grant = grant("alice", "app", epoch)?;
        one.tokens.inserted(&grant, &[]).await?;
        covered.push(grant.id);
    }
    let revoked = one.tokens.revoke(revocation(Target::Subject(subject("alice")?))).await?;
    other.tokens.swept(revoked).await?;
    for id in covered {
        ensure!(
            !other.tokens.is_unrevoked(id).await?,
            "the other instance says that the sweep is done, and a grant lives"
        );
    }
    Ok(())
}

async fn a_revocation_is_seen_by_both(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    for (writer, reader) in [(&one, &other), (&other, &one)] {
        let (writer, reader) = (&*writer.tokens, &*reader.tokens);
        for kind in 0..5 {
            let grant = lone(writer.epoch().await?)?;
            let held = token(&grant)?;
            writer.inserted(&grant, std::slice::from_ref(&held)).await?;
            reader.found(grant.id, held.digest).await?;
            let target = match kind {
                0 => Target::Grant(grant.id),
                1 => Target::Token { grant: grant.id, digest: held.digest },
                2 => Target::Subject(grant.subject.clone()),
                3 => Target::Client(grant.client.clone()),
                _ => Target::SubjectAtClient(grant.subject.clone(), grant.client.clone()),
            };
            writer.revoked(target.clone()).await?;
            let found = reader.found(grant.id, held.digest).await?;
            let is_revoked = match kind {
                1 => found.token.is_some_and(|token| token.revoked_at.is_some()),
                _ => found.grant.revoked_at.is_some(),
            };
            ensure!(is_revoked, "{target:?} was revoked through the other instance, and lives");
        }
        let absent = lone(Epoch::new(u64::MAX / 2))?;
        same("what is there", &reader.find(absent.id, None).await?, &Lookup::Absent)?;
        writer.revoked(Target::Grant(absent.id)).await?;
        same("the tombstone", &reader.find(absent.id, None).await?, &Lookup::Tombstone)?;
        let late = reader.create(absent, vec![]).await?;
        same("a late `create`", &late, &CreateOutcome::Barred)?;
    }
    Ok(())
}

async fn listings_are_those_of_both(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    let of = Selector::Subject(subject("alice")?);
    let mut should = Vec::new();
    for (writer, reader) in [(&one, &other), (&other, &one), (&one, &other)] {
        let grant = grant("alice", "app", writer.tokens.epoch().await?)?;
        writer.tokens.inserted(&grant, &[]).await?;
        should.push(grant.id);
        should.sort_unstable();
        same("the listing", &reader.tokens.listed_ids(of.clone(), NOW).await?, &should)?;
    }
    let gone = should.remove(1);
    one.tokens.revoked(Target::Grant(gone)).await?;
    same("the listing", &other.tokens.listed_ids(of, NOW).await?, &should)
}

async fn rules_are_known_to_both(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    for (round, (writer, reader)) in
        [(&one, &other), (&other, &one), (&one, &other)].into_iter().enumerate()
    {
        let grant = lone(writer.tokens.epoch().await?)?;
        for target in [
            Target::Subject(grant.subject.clone()),
            Target::Client(grant.client.clone()),
            Target::Jti(Jti::new(format!("jti-{round}"))?),
        ] {
            let key = target.rule_key().ok_or("the target leaves no rule")?;
            same("the rule", &reader.tokens.rule(key.clone()).await?, &None)?;
            for days in [1, 5] {
                let until = NOW + days * DAY;
                let revocation =
                    Revocation { until, rule_until: until, ..revocation(target.clone()) };
                writer.tokens.revoked_as(revocation).await?;
                let own = writer.tokens.rule(key.clone()).await?;
                let read = reader.tokens.rule(key.clone()).await?;
                ensure!(own.is_some(), "{target:?} was revoked, and left no rule");
                same("the rule that the other instance knows", &read, &own)?;
            }
        }
    }
    Ok(())
}

async fn the_newest_bound_is_that_of_both(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    for round in 0..4 {
        let (writer, reader) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let target = Target::Subject(lone(Epoch::default())?.subject);
        writer.tokens.revoked(target.clone()).await?;
        let bound = reader.tokens.bound_of(&target).await?;
        not_lowered(bound, reader.tokens.newest_bound().await?)?;
        not_lowered(bound, writer.tokens.newest_bound().await?)?;
        let at = NOW + (round + 1) * DAY;
        writer.tokens.heartbeat(at, at + DAY).await?;
        not_lowered(Epoch::new(at.as_millis()), reader.tokens.newest_bound().await?)?;
        let batch = reader.tokens.revocations(Cursor::start(), 1_000).await?;
        let RevocationBatch::Entries { newest_bound, .. } = batch else {
            return Err("reading the log from its beginning met a gap".into());
        };
        not_lowered(Epoch::new(at.as_millis()), newest_bound)?;
    }
    Ok(())
}

async fn a_login_by_the_other_instance_lives(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    for round in 0..4 {
        let (writer, reader) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let old = grant("alice", "app", reader.tokens.epoch().await?)?;
        reader.tokens.rules(old.rule_keys().to_vec()).await?;
        writer.tokens.revoked(Target::Subject(old.subject.clone())).await?;
        // One that began before is barred, and the next login is not, wherever they are.
        let late = reader.tokens.create(old, vec![]).await?;
        same("a `create` that comes late", &late, &CreateOutcome::Barred)?;
        let next = grant("alice", "app", reader.tokens.epoch().await?)?;
        reader.tokens.inserted(&next, &[]).await?;
        ensure!(writer.tokens.is_unrevoked(next.id).await?, "the login right after is revoked");
    }
    Ok(())
}

async fn a_cursor_is_good_in_both(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    let mut cursor = Cursor::start();
    for round in 0..6 {
        let (writer, reader) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let revocation = if round % 3 == 0 { bounded()? } else { single()? };
        writer.tokens.revoked_as(revocation.clone()).await?;
        let (read, next) = read_on(&*reader.tokens, cursor.clone(), 100).await?;
        let (own, _) = read_on(&*writer.tokens, cursor, 100).await?;
        same("what the other instance reads", &read, &own)?;
        let event = read.last().map(|entry| entry.event.clone());
        ensure!(
            matches!(&event, Some(LogEvent::Revoked { target, .. })
                if *target == revocation.target),
            "{:?} was acknowledged by one instance, and the other reads {event:?}",
            revocation.target
        );
        cursor = next;
    }
    Ok(())
}

async fn what_the_other_wrote_wakes(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    let mut wakeups = other.tokens.wakeups();
    let mut reader = Reader::default();
    reader.read(&*other.tokens, 100).await?;
    for _ in 0..3 {
        let revocation = single()?;
        one.tokens.revoked_as(revocation.clone()).await?;
        read_when_woken(&*other.tokens, &mut wakeups, &mut reader, &revocation.target).await?;
    }
    Ok(())
}

async fn keys_are_those_of_both(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    holds(&*other.keys, &[]).await?;
    let first = key(1, "one")?;
    inserted(&*one.keys, &first).await?;
    holds(&*other.keys, &[&first]).await?;
    holds(&*one.keys, &[&first]).await?;
    let next = rewritten(&first, 1)?;
    same("the update", &other.keys.update(next.clone(), 1).await?, &KeyUpdated::Updated)?;
    holds(&*one.keys, &[&next]).await?;
    holds(&*other.keys, &[&next]).await?;
    same("an update from before", &one.keys.update(next.clone(), 1).await?, &KeyUpdated::Stale)?;
    // By what it loaded before the other wrote, none of these is decided.
    holds(&*one.keys, &[&next]).await?;
    let last = rewritten(&next, 1)?;
    same("the update", &other.keys.update(last.clone(), 2).await?, &KeyUpdated::Updated)?;
    let late = rewritten(&next, 2)?;
    same("an update from before", &one.keys.update(late, 2).await?, &KeyUpdated::Stale)?;
    same("a delete from before", &one.keys.delete(1, 2).await?, &KeyUpdated::Stale)?;
    holds(&*one.keys, &[&last]).await?;
    same("the delete", &one.keys.delete(1, 3).await?, &KeyUpdated::Updated)?;
    holds(&*other.keys, &[]).await?;
    let again = other.keys.insert(key(1, "again")?).await?;
    same("an insert of what was deleted", &again, &KeyInserted::Taken)
}

async fn check_values_are_those_of_both(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    stand(&*other.tokens, &[]).await?;
    set(&*one.tokens, "issuer", None, Some(b"one")).await?;
    stand(&*other.tokens, &[("issuer", b"one")]).await?;
    let is_done = other.tokens.set_check_value("issuer", None, Some(b"two")).await?;
    ensure!(!is_done, "the other instance took a value that is set for none");
    set(&*other.tokens, "issuer", Some(b"one"), Some(b"two")).await?;
    stand(&*one.tokens, &[("issuer", b"two")]).await?;
    // The key store's, too, whether they are the same or values of its own.
    set(&*one.keys, "ring", None, Some(b"one")).await?;
    let own = one.keys.check_values().await?;
    same("the values of the other's keys", &other.keys.check_values().await?, &own)
}

async fn housekeeping_is_for_both(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    let mut ended = grant("alice", "app", one.tokens.epoch().await?)?;
    (ended.expires_at, ended.row_expires_at) = (NOW + MINUTE, NOW + MINUTE);
    let mut short = token(&ended)?;
    short.expires_at = NOW + MINUTE;
    one.tokens.inserted(&ended, std::slice::from_ref(&short)).await?;
    other.tokens.found(ended.id, short.digest).await?;
    other.tokens.housekept(NOW + DAY).await?;
    let lookup = one.tokens.find(ended.id, Some(short.digest)).await?;
    same("a grant that ended", &lookup, &Lookup::Absent)
}

async fn a_chain_raced_for_by_both_has_one_winner(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let grant = lone(one.tokens.epoch().await?)?;
        one.tokens.inserted(&grant, &[]).await?;
        let (left, right) = (moved(&grant)?, moved(&grant)?);
        let step =
            |to: &GrantRecord| step_from(&grant, ChainUpdate::Move(Box::new(to.clone())), &[]);
        let steps = (one.tokens.advance(step(&left)?), other.tokens.advance(step(&right)?));
        let answers = orders.play(steps.0, steps.1).await?;
        let winner = match (answers.0?, answers.1?) {
            (AdvanceOutcome::Advanced, AdvanceOutcome::Stale(stands)) => (left, stands),
            (AdvanceOutcome::Stale(stands), AdvanceOutcome::Advanced) => (right, stands),
            other => return Err(format!("two racers got {other:?}").into()),
        };
        same("the grant that the loser is shown", &*winner.1, &winner.0)?;
        for instance in [&one, &other] {
            same("the grant", &instance.tokens.grant(grant.id).await?, &winner.0)?;
        }
    }
    Ok(())
}

async fn a_revocation_by_the_other_bars_a_create(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    for create_first in [true, false] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let grant = lone(one.tokens.epoch().await?)?;
            let target = match orders.round() % 3 {
                0 => Target::Subject(grant.subject.clone()),
                1 => Target::Client(grant.client.clone()),
                _ => Target::SubjectAtClient(grant.subject.clone(), grant.client.clone()),
            };
            let create = one.tokens.create(grant.clone(), vec![token(&grant)?]);
            let revoke = other.tokens.revoke(revocation(target));
            let revoked = if create_first {
                orders.play(create, revoke).await?.1
            } else {
                orders.play(revoke, create).await?.0
            };
            other.tokens.swept(revoked?).await?;
            for instance in [&one, &other] {
                ensure!(
                    !instance.tokens.is_unrevoked(grant.id).await?,
                    "both have returned, and a grant that the revocation covers lives"
                );
            }
        }
    }
    Ok(())
}

async fn a_revocation_by_the_other_wins_over_a_step(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    for step_first in [true, false] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let grant = lone(one.tokens.epoch().await?)?;
            one.tokens.inserted(&grant, &[]).await?;
            let step = step_from(&grant, ChainUpdate::Move(Box::new(moved(&grant)?)), &[])?;
            let step = one.tokens.advance(step);
            let revoke = other.tokens.revoke(revocation(Target::Grant(grant.id)));
            if step_first {
                orders.play(step, revoke).await?.1?;
            } else {
                orders.play(revoke, step).await?.0?;
            }
            for instance in [&one, &other] {
                ensure!(
                    !instance.tokens.is_unrevoked(grant.id).await?,
                    "both have returned, and the grant is not revoked"
                );
            }
        }
    }
    Ok(())
}

async fn bounds_of_both_grow(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    let mut newest = one.tokens.newest_bound().await?;
    for round in 0..8 {
        let (writer, reader) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let target = Target::Subject(lone(Epoch::default())?.subject);
        writer.tokens.revoked(target.clone()).await?;
        newest = grown(newest, NOW, Some(reader.tokens.bound_of(&target).await?))?;
    }
    let stores: [Arc<dyn TokenStore>; 2] = [one.tokens, other.tokens];
    at_once(8, |task| {
        let store = Arc::clone(&stores[task % 2]);
        async move {
            for _ in 0..10 {
                store.revoked_as(bounded()?).await?;
            }
            Ok(())
        }
    })
    .await?;
    let mut newest = Epoch::default();
    let log = stores[0].log().await?;
    same("how many entries the log holds", &log.len(), &88)?;
    for entry in log {
        if let LogEvent::Revoked { bound, .. } = entry.event {
            newest = grown(newest, entry.at, bound)?;
        }
    }

    not_lowered(newest, stores[1].newest_bound().await?)
}

async fn a_value_raced_for_by_both_has_one_winner(context: Context) -> Result<(), Broken> {
    let (_bench, one, other) = two(&context).await?;
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let name = format!("issuer-{}", orders.round());
        let (left, right) = (
            one.tokens.set_check_value(&name, None, Some(b"one")),
            other.tokens.set_check_value(&name, None, Some(b"two")),
        );
        let (left, right) = orders.play(left, right).await?;
        let done = [left?, right?];
        for instance in [&one, &other] {
            one_is_there(&*instance.tokens, &name, &done, &[b"one", b"two"]).await?;
        }
    }
    Ok(())
}
