//! The effects of calls that failed: all or nothing, and all after the call is sent again.

use cloakroom_core::keys::{KeyInserted, KeyUpdated};
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Epoch, LogEvent, Revocation, Target};
use cloakroom_core::store::{
    AdvanceOutcome, ChainUpdate, CreateOutcome, Housekeeping, Lookup, TokenStore, TokenStoreExt,
};

use crate::ask::{Ask, ensure, same, step_from};
use crate::checks::contract::check_values::{set, stand};
use crate::checks::contract::keys::{holds, key, rewritten};
use crate::checks::database::outage::{Filled, MAX_OPERATIONS, filled, is_outage};
use crate::checks::log::wakeups::read_when_woken;
use crate::fixtures::{DAY, MINUTE, NOW, lone, moved, pair, revocation, token};
use crate::reading::{Reader, read_on, single};
use crate::report::Broken;
use crate::sight::{Sight, sight};
use crate::{Context, Failing};

checks! { "database::outage_whole":
    a_write_that_failed_did_nothing => OutageLeavesWhole,
    a_reader_goes_on_after_an_outage => OutageLeavesWhole,
    what_is_waited_for_wakes_after_an_outage => OutageLeavesWhole,
    a_write_whose_answer_was_lost_is_done_when_sent_again => OutageLeavesWhole,
    a_key_whose_answer_was_lost_is_there => OutageLeavesWhole,
    a_create_that_stopped_half_way_is_whole => OutageLeavesWhole,
    a_step_that_stopped_half_way_is_whole => OutageLeavesWhole,
    a_revocation_that_stopped_half_way_is_done_when_repeated => OutageLeavesWhole,
    housekeeping_that_stopped_half_way_goes_on => OutageLeavesWhole,
    an_insert_of_a_key_that_stopped_half_way_is_whole => OutageLeavesWhole,
    a_check_value_that_stopped_half_way_is_whole => OutageLeavesWhole,
}

async fn a_write_that_failed_did_nothing(context: Context) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let store = &*filled.instance.tokens;
    let (step, _) = filled.moving()?;
    let digests: Vec<_> =
        step.tokens.iter().chain([&filled.token]).map(|token| token.digest).collect();
    let before = sight(store, filled.grant.id, &filled.grant, &digests).await?;
    let log = store.log().await?;
    let new = lone(store.epoch().await?)?;
    filled.breaks().await?;
    let _ = store.create(new.clone(), vec![]).await;
    let _ = store.advance(step.clone()).await;
    for target in filled.targets() {
        let _ = store.revoke(revocation(target)).await;
    }
    let _ = store.heartbeat(NOW, NOW + DAY).await;
    filled.bench.heal().await;
    let after = sight(store, filled.grant.id, &filled.grant, &digests).await?;
    same("what is there after calls that failed", &after, &before)?;
    same("the log", &store.log().await?, &log)?;
    // And all of it can be done now.
    store.inserted(&new, &[]).await?;
    same("the step", &store.advance(step).await?, &AdvanceOutcome::Advanced)?;
    for target in filled.targets() {
        store.revoked(target).await?;
    }
    ensure!(!store.is_unrevoked(filled.grant.id).await?, "a revoked grant lives");
    Ok(())
}

async fn a_reader_goes_on_after_an_outage(context: Context) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let store = &*filled.instance.tokens;
    let (_, cursor) = read_on(store, filled.cursor.clone(), 10).await?;
    for _ in 0..2 {
        filled.breaks().await?;
        is_outage("revocations", store.revocations(cursor.clone(), 10).await)?;
        filled.bench.heal().await;
    }
    store.revoked_as(single()?).await?;
    same("how much is new", &read_on(store, cursor, 10).await?.0.len(), &1)
}

async fn what_is_waited_for_wakes_after_an_outage(context: Context) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let store = &*filled.instance.tokens;
    let mut wakeups = store.wakeups();
    let mut reader = Reader::default();
    reader.read(store, 100).await?;
    filled.breaks().await?;
    is_outage("revoke", store.revoke(single()?).await)?;
    filled.bench.heal().await;
    let revocation = single()?;
    store.revoked_as(revocation.clone()).await?;
    read_when_woken(store, &mut wakeups, &mut reader, &revocation.target).await
}

async fn a_write_whose_answer_was_lost_is_done_when_sent_again(
    context: Context,
) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let store = &*filled.instance.tokens;
    let loses = async || filled.bench.fail(Failing::AnswersLost).await;
    let new = lone(store.epoch().await?)?;
    let held = token(&new)?;
    loses().await?;
    is_outage("create", store.create(new.clone(), vec![held.clone()]).await)?;
    filled.bench.heal().await;
    store.inserted(&new, std::slice::from_ref(&held)).await?;
    let found = store.found(new.id, held.digest).await?;
    same("the grant", &*found.grant, &new)?;
    same("its token", &found.token.as_deref(), &Some(&held))?;

    let (step, next) = filled.moving()?;
    loses().await?;
    is_outage("advance", store.advance(step.clone()).await)?;
    filled.bench.heal().await;
    same(
        "a step that is sent again",
        &store.advance(step.clone()).await?,
        &AdvanceOutcome::Advanced,
    )?;
    for token in &step.tokens {
        let found = store.found(next.id, token.digest).await?;
        same("the grant", &*found.grant, &next)?;
        same("its token", &found.token.as_deref(), &Some(token))?;
    }

    for target in filled.targets() {
        loses().await?;
        is_outage("revoke", store.revoke(revocation(target.clone())).await)?;
        filled.bench.heal().await;
        is_revoked_at_last(store, &filled.grant, target).await?;
    }
    set_again(&filled, Failing::AnswersLost).await.map(drop)
}

/// Sends a revocation again; then it is done, whatever of it was done before.
async fn is_revoked_at_last(
    store: &dyn TokenStore,
    grant: &GrantRecord,
    target: Target,
) -> Result<(), Broken> {
    store.revoked(target.clone()).await?;
    let is_there =
        store.log().await?.into_iter().any(
            |entry| matches!(entry.event, LogEvent::Revoked { target: own, .. } if own == target),
        );
    ensure!(is_there, "{target:?} was acknowledged when it was repeated, and is not in the log");
    if let Some(key) = target.rule_key() {
        ensure!(store.rule(key).await?.is_some(), "{target:?} left no rule");
    }
    match target {
        Target::Token { grant, digest } => {
            let found = store.found(grant, digest).await?;
            let is_revoked = found.token.is_some_and(|token| token.revoked_at.is_some());
            ensure!(is_revoked, "the token lives");
        }
        target => {
            ensure!(
                !store.is_unrevoked(grant.id).await?,
                "the grant lives, and {target:?} covers it"
            );
        }
    }
    Ok(())
}

async fn a_key_whose_answer_was_lost_is_there(context: Context) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let keys = &*filled.instance.keys;
    let loses = async || filled.bench.fail(Failing::AnswersLost).await;
    let second = key(2, "two")?;
    loses().await?;
    is_outage("insert", keys.insert(second.clone()).await)?;
    filled.bench.heal().await;
    same("an insert that is sent again", &keys.insert(second.clone()).await?, &KeyInserted::Taken)?;
    holds(keys, &[&filled.key, &second]).await?;
    let next = rewritten(&second, 1)?;
    loses().await?;
    is_outage("update", keys.update(next.clone(), 1).await)?;
    filled.bench.heal().await;
    let again = keys.update(next.clone(), 1).await?;
    same("an update that is sent again", &again, &KeyUpdated::Stale)?;
    holds(keys, &[&filled.key, &next]).await?;
    loses().await?;
    is_outage("delete", keys.delete(2, 2).await)?;
    filled.bench.heal().await;
    same("a delete that is sent again", &keys.delete(2, 2).await?, &KeyUpdated::Stale)?;
    holds(keys, &[&filled.key]).await
}

async fn a_create_that_stopped_half_way_is_whole(context: Context) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let store = &*filled.instance.tokens;
    for after in 1..MAX_OPERATIONS {
        let new = lone(store.epoch().await?)?;
        let tokens = vec![token(&new)?, token(&new)?];
        let digests: Vec<_> = tokens.iter().map(|token| token.digest).collect();
        filled.bench.fail(Failing::After(after)).await?;
        let answer = store.create(new.clone(), tokens.clone()).await;
        filled.bench.heal().await;
        let is_done = answer.is_ok();
        if !is_done {
            is_outage("create", answer)?;
        }
        let is = sight(store, new.id, &new, &digests).await?;
        let whole = Sight::living(&new, tokens.iter().cloned().map(Some).collect());
        ensure!(
            is == whole || !is_done && is == Sight::nothing(2),
            "a `create` that failed half-way left {is:?}"
        );
        same(
            "its repetition",
            &store.create(new.clone(), tokens).await?,
            &CreateOutcome::Inserted,
        )?;
        same("what is there then", &sight(store, new.id, &new, &digests).await?, &whole)?;
        if is_done {
            break;
        }
    }
    Ok(())
}

async fn a_step_that_stopped_half_way_is_whole(context: Context) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let store = &*filled.instance.tokens;
    for moves in [true, false] {
        for after in 1..MAX_OPERATIONS {
            let old = lone(store.epoch().await?)?;
            store.inserted(&old, &[]).await?;
            let mut next = moved(&old)?;
            let tokens = [token(&old)?, token(&old)?];
            let digests: Vec<_> = tokens.iter().map(|token| token.digest).collect();
            let change =
                if moves { ChainUpdate::Move(Box::new(next.clone())) } else { ChainUpdate::Attach };
            if !moves {
                next = old.clone();
            }
            let step = step_from(&old, change, &tokens)?;
            filled.bench.fail(Failing::After(after)).await?;
            let answer = store.advance(step.clone()).await;
            filled.bench.heal().await;
            let is_done = answer.is_ok();
            if !is_done {
                is_outage("advance", answer)?;
            }
            let before = Sight::living(&old, vec![None; 2]);
            let whole = Sight::living(&next, tokens.iter().cloned().map(Some).collect());
            let is = sight(store, old.id, &old, &digests).await?;
            ensure!(
                is == whole || !is_done && is == before,
                "a step that failed half-way left {is:?}"
            );
            same("the step, sent again", &store.advance(step).await?, &AdvanceOutcome::Advanced)?;
            same("what is there then", &sight(store, old.id, &old, &digests).await?, &whole)?;
            if is_done {
                break;
            }
        }
    }
    Ok(())
}

async fn a_revocation_that_stopped_half_way_is_done_when_repeated(
    context: Context,
) -> Result<(), Broken> {
    let (bench, instance) = context.database().await?;
    let store = &*instance.tokens;
    for kind in 0..5 {
        for after in 1..MAX_OPERATIONS {
            let grant = lone(store.epoch().await?)?;
            let held = token(&grant)?;
            store.inserted(&grant, std::slice::from_ref(&held)).await?;
            let target = match kind {
                0 => Target::Token { grant: grant.id, digest: held.digest },
                1 => Target::Grant(grant.id),
                2 => Target::Subject(grant.subject.clone()),
                3 => Target::Client(grant.client.clone()),
                _ => pair(&grant.subject, &grant.client),
            };
            bench.fail(Failing::After(after)).await?;
            let answer = store.revoke(revocation(target.clone())).await;
            bench.heal().await;
            let is_done = answer.is_ok();
            if !is_done {
                is_outage("revoke", answer)?;
            }
            is_revoked_at_last(store, &grant, target).await?;
            if is_done {
                break;
            }
        }
    }
    Ok(())
}

async fn housekeeping_that_stopped_half_way_goes_on(context: Context) -> Result<(), Broken> {
    let (bench, instance) = context.database().await?;
    let store = &*instance.tokens;
    let living = lone(store.epoch().await?)?;
    let held = token(&living)?;
    store.inserted(&living, std::slice::from_ref(&held)).await?;
    for after in 1..MAX_OPERATIONS {
        let mut ended = Vec::new();
        for _ in 0..3 {
            let mut grant = lone(store.epoch().await?)?;
            (grant.expires_at, grant.row_expires_at) = (NOW - MINUTE, NOW - MINUTE);
            let mut token = token(&grant)?;
            token.expires_at = NOW - MINUTE;
            store.inserted(&grant, &[token]).await?;
            let target = Target::Subject(lone(Epoch::default())?.subject);
            let (until, rule_until) = (NOW - MINUTE, NOW - MINUTE);
            store.revoked_as(Revocation { until, rule_until, ..revocation(target) }).await?;
            ended.push(grant.id);
        }
        bench.fail(Failing::After(after)).await?;
        let task = Housekeeping { now: NOW, before: NOW, limit: 100, sweep: None };
        let answer = store.maintain(task).await;
        bench.heal().await;
        let is_done = answer.is_ok();
        if !is_done {
            is_outage("maintain", answer)?;
        }
        store.housekept(NOW).await?;
        for id in ended {
            let lookup = store.find(id, None).await?;
            same("a grant that ended", &lookup, &Lookup::Absent)?;
        }
        let is = sight(store, living.id, &living, &[held.digest]).await?;
        same("the living", &is, &Sight::living(&living, vec![Some(held.clone())]))?;
        if is_done {
            return Ok(());
        }
    }
    Ok(())
}

async fn an_insert_of_a_key_that_stopped_half_way_is_whole(context: Context) -> Result<(), Broken> {
    for repeats in [true, false] {
        for after in 1..MAX_OPERATIONS {
            let (bench, instance) = context.database().await?;
            let keys = &*instance.keys;
            let first = key(7, "one")?;
            bench.fail(Failing::After(after)).await?;
            let answer = keys.insert(first.clone()).await;
            bench.heal().await;
            let is_done = answer.is_ok();
            if !is_done {
                is_outage("insert", answer)?;
            }
            if repeats {
                // `Inserted` or, if it was done before, `Taken`.
                let _ = keys.insert(first.clone()).await?;
                holds(keys, &[&first]).await?;
            }
            if !keys.load().await?.is_empty() {
                holds(keys, &[&first]).await?;
                same("its delete", &keys.delete(7, 1).await?, &KeyUpdated::Updated)?;
                let again = keys.insert(key(7, "again")?).await?;
                same("an insert of a generation that was used", &again, &KeyInserted::Taken)?;
            }
            if is_done {
                break;
            }
        }
    }
    Ok(())
}

async fn a_check_value_that_stopped_half_way_is_whole(context: Context) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    for after in 1..MAX_OPERATIONS {
        if set_again(&filled, Failing::After(after)).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Changes a check value while the driver fails, and again when it works; whether it was done at once.
async fn set_again(filled: &Filled, failing: Failing) -> Result<bool, Broken> {
    let store = &*filled.instance.tokens;
    filled.bench.fail(failing).await?;
    let answer = store.set_check_value("issuer", Some(b"one"), Some(b"two")).await;
    filled.bench.heal().await;
    let is_done = answer.is_ok();
    if !is_done {
        is_outage("set_check_value", answer)?;
    }
    set(store, "issuer", Some(b"one"), Some(b"two")).await?;
    stand(store, &[("issuer", b"two")]).await?;
    set(store, "issuer", Some(b"two"), Some(b"one")).await?;
    Ok(is_done)
}
