//! Compares what all processes saw with the final content of the store.

use cloakroom_core::GrantId;
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Cursor, LogEvent, Target};
use cloakroom_core::store::{Lookup, TokenStore};

use super::{GENERATIONS, Outcome, Plan};
use crate::promises::Promise;
use crate::reading::read_on;
use crate::report::{Broken, Failure, with_sources};

/// Checks whether the outcomes of all processes are consistent with the final content of the store.
///
/// # Errors
///
/// The promise that was broken, and the evidence.
pub async fn judge(
    store: &dyn TokenStore,
    plan: &Plan,
    outcomes: &[Outcome],
) -> Result<(), Failure> {
    let mut promise = Promise::Model;
    judged(store, plan, outcomes, &mut promise).await.map_err(|what| Failure {
        check: "processes::judge",
        promise,
        happened: with_sources(&*what),
        story: outcomes.iter().map(ToString::to_string).collect(),
    })
}

async fn judged(
    store: &dyn TokenStore,
    plan: &Plan,
    outcomes: &[Outcome],
    promise: &mut Promise,
) -> Result<(), Broken> {
    for outcome in outcomes {
        if let Some((name, what)) = &outcome.broken {
            let known = Promise::ALL.iter().find(|promise| promise.name() == name);
            *promise = known.copied().unwrap_or(*promise);
            return Err(format!("in process {}: {what}", outcome.process).into());
        }
    }
    if outcomes.len() != plan.processes as usize {
        return Err(format!("{} of {} processes ended", outcomes.len(), plan.processes).into());
    }
    for round in 0..plan.rounds {
        *promise = Promise::AdvanceOneWinner;
        let shared = plan.shared(round)?.id;
        let stands = found(store, shared).await?.chain.ok_or("a grant without a chain")?;
        for generation in 1..=GENERATIONS {
            let steps = outcomes.iter().flat_map(|outcome| &outcome.steps);
            let winners: Vec<_> =
                steps.filter(|step| (step.0, step.1) == (round, generation)).collect();
            let [(.., digest)] = winners[..] else {
                let count = winners.len();
                return Err(format!("{count} racers moved {shared:?} to {generation}").into());
            };
            if generation == GENERATIONS && stands.digest != *digest {
                return Err(format!("the last step of {shared:?} was overwritten").into());
            }
        }
        *promise = Promise::CreateNeverOverwrites;
        let winners: Vec<_> =
            outcomes.iter().filter(|outcome| outcome.inserted.contains(&round)).collect();
        let contested = plan.contested(round)?.id;
        let [winner] = winners[..] else {
            return Err(format!("{} grants were inserted as {contested:?}", winners.len()).into());
        };
        let name = winner.process.to_string();
        if found(store, contested).await?.username.as_deref() != Some(&*name) {
            return Err(format!("the grant that won {contested:?} is not the one there").into());
        }
    }
    judge_revocations(store, plan, outcomes, promise).await
}

async fn judge_revocations(
    store: &dyn TokenStore,
    plan: &Plan,
    outcomes: &[Outcome],
    promise: &mut Promise,
) -> Result<(), Broken> {
    *promise = Promise::RevokeBounds;
    let (log, _) = read_on(store, Cursor::start(), 100).await?;
    let mut newest = None;
    let mut bounds = [(); 3].map(|()| Vec::new());
    for entry in log {
        let LogEvent::Revoked { target: Target::Subject(subject), bound, .. } = entry.event else {
            continue;
        };
        if bound.is_none() || bound < newest {
            return Err(format!("in the log, bound {newest:?} is followed by {bound:?}").into());
        }
        newest = bound;
        for (user, bounds) in (0_u32..).zip(&mut bounds) {
            if plan.user(user)? == subject && !bounds.contains(&bound) {
                bounds.push(bound);
            }
        }
    }
    *promise = Promise::LogComplete;
    for (user, bounds) in (0_u32..).zip(&bounds) {
        let revoked = outcomes.iter().flat_map(|outcome| &outcome.revoked);
        let acknowledged = revoked.filter(|own| **own == user).count();
        if bounds.len() != acknowledged {
            return Err(format!(
                "{acknowledged} revocations of user {user} were acknowledged; the log holds {}",
                bounds.len()
            )
            .into());
        }
    }
    for login in outcomes.iter().flat_map(|outcome| &outcome.logins) {
        let bound = bounds[login.user as usize].last().copied().flatten();
        let lives = match store.find(login.grant, None).await? {
            Lookup::Found(found) => found.grant.revoked_at.is_none(),
            Lookup::Tombstone | Lookup::Absent => false,
        };
        let is_covered = bound.is_some_and(|bound| login.epoch <= bound);
        *promise = Promise::CreateBarredByOverlap;
        if lives && is_covered {
            return Err(format!("{login:?} lives under bound {bound:?}").into());
        }
        *promise = Promise::CreateLoginAfter;
        if !is_covered && (!lives || !login.is_inserted) {
            return Err(format!("{login:?} is dead; the newest bound is {bound:?}").into());
        }
    }
    Ok(())
}

async fn found(store: &dyn TokenStore, id: GrantId) -> Result<GrantRecord, Broken> {
    match store.find(id, None).await? {
        Lookup::Found(found) => Ok(GrantRecord::clone(&found.grant)),
        other => Err(format!("{id:?} should be there; `find` answered {other:?}").into()),
    }
}
