//! Races on one chain: one step wins, and a revocation wins over every step.

use std::sync::Arc;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, CreateOutcome, RevokeOutcome, StoreError, TokenStore,
    TokenStoreExt,
};

use crate::Context;
use crate::ask::{Ask, ensure, same, step_from};
use crate::fixtures::{lone, moved, pair, revocation, token};
use crate::pace::{Interleavings, at_once};
use crate::report::Broken;

checks! { "races::advance":
    one_of_two_steps_wins => AdvanceOneWinner,
    one_of_many_tasks_moves_a_chain => AdvanceOneWinner,
    a_chain_raced_along_does_not_fork => AdvanceOneWinner,
    attaching_beside_a_step_leaves_the_step_alone => AdvanceAttaches,
    tokens_attached_at_once_all_arrive => AdvanceAttaches,
    a_retry_of_create_does_not_undo_a_step => CreateNeverOverwrites,
    a_revocation_of_the_grant_wins_over_a_step => AdvanceRevokeWins,
    a_revocation_of_its_subject_wins_over_a_step => AdvanceRevokeWins,
    a_revocation_of_its_client_wins_over_a_step => AdvanceRevokeWins,
    a_revocation_wins_over_many_steps => AdvanceRevokeWins,
    a_token_revoked_beside_a_step_stays_revoked => RevokeVisible,
}

const TASKS: usize = 16;
const ROUNDS: usize = 10;

/// A way on from where the record stands, with a token of its own.
struct Way {
    next: GrantRecord,
    token: TokenRecord,
    step: Advance,
}

fn way_from(record: &GrantRecord) -> Result<Way, Broken> {
    let (next, token) = (moved(record)?, token(record)?);
    let change = ChainUpdate::Move(Box::new(next.clone()));
    let step = step_from(record, change, std::slice::from_ref(&token))?;
    Ok(Way { next, token, step })
}

/// A grant with a subject and a client of its own: what others left behind is not in its way.
async fn fresh(store: &dyn TokenStore) -> Result<GrantRecord, Broken> {
    let grant = lone(store.epoch().await?)?;
    store.inserted(&grant, &[]).await?;
    Ok(grant)
}

/// That one of the ways was taken, and the others met it.
async fn one_was_taken(
    store: &dyn TokenStore,
    ways: &[Way],
    answers: &[AdvanceOutcome],
) -> Result<(), Broken> {
    let winners: Vec<_> = ways
        .iter()
        .zip(answers)
        .filter(|(_, answer)| **answer == AdvanceOutcome::Advanced)
        .collect();
    let [(winner, _)] = winners[..] else {
        return Err(format!("{} of {} racers won", winners.len(), ways.len()).into());
    };
    for (way, answer) in ways.iter().zip(answers) {
        let found = store.found(way.step.grant, way.token.digest).await?;
        same("the grant after the race", &*found.grant, &winner.next)?;
        match answer {
            AdvanceOutcome::Advanced => {
                same("the winner's token", &found.token.as_deref(), &Some(&way.token))?;
            }
            AdvanceOutcome::Stale(stands) => {
                same("the grant that a loser is shown", &**stands, &winner.next)?;
                ensure!(found.token.is_none(), "the token of a loser was inserted");
            }
            other => return Err(format!("a loser got {other:?}").into()),
        }
    }
    Ok(())
}

async fn one_of_two_steps_wins(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let grant = fresh(&*store).await?;
        let ways = [way_from(&grant)?, way_from(&grant)?];
        let [one, two] = [&ways[0], &ways[1]].map(|way| store.advance(way.step.clone()));
        let (one, two) = orders.play(one, two).await?;
        one_was_taken(&*store, &ways, &[one?, two?]).await?;
    }
    Ok(())
}

async fn one_of_many_tasks_moves_a_chain(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for _ in 0..ROUNDS {
        let grant = fresh(&*store).await?;
        let ways = (0..TASKS).map(|_| way_from(&grant)).collect::<Result<Vec<_>, _>>()?;
        let answers = at_once(TASKS, |task| {
            let (store, step) = (Arc::clone(&store), ways[task].step.clone());
            async move { Ok(store.advance(step).await?) }
        });
        one_was_taken(&*store, &ways, &answers.await?).await?;
    }
    Ok(())
}

async fn a_chain_raced_along_does_not_fork(context: Context) -> Result<(), Broken> {
    const GENERATIONS: u32 = 40;
    let store = context.tokens().await;
    let grant = fresh(&*store).await?;
    // Each goes on from wherever it finds the chain, and counts the steps that it took itself.
    let counts = at_once(8, |_| {
        let (store, mut stands) = (Arc::clone(&store), grant.clone());
        async move {
            let mut taken = 0;
            while generation(&stands) < GENERATIONS {
                let way = way_from(&stands)?;
                match store.advance(way.step).await? {
                    AdvanceOutcome::Advanced => {
                        taken += 1;
                        stands = way.next;
                    }
                    AdvanceOutcome::Stale(now) => {
                        ensure!(
                            generation(&now) > generation(&stands),
                            "a racer at generation {} is shown generation {}",
                            generation(&stands),
                            generation(&now)
                        );
                        stands = GrantRecord::clone(&now);
                    }
                    other => return Err(format!("a racer got {other:?}").into()),
                }
            }
            Ok(taken)
        }
    });
    let taken: u32 = counts.await?.iter().sum();
    let stands = generation(&store.grant(grant.id).await?);
    ensure!(
        (taken, stands) == (GENERATIONS, GENERATIONS),
        "{taken} steps were taken, and the chain stands at {stands}; both should be {GENERATIONS}"
    );
    Ok(())
}

fn generation(grant: &GrantRecord) -> u32 {
    grant.chain.as_ref().map_or(0, |chain| chain.generation)
}

async fn attaching_beside_a_step_leaves_the_step_alone(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    // Both ways round: each is paused while the other goes on.
    for attach_first in [false, true] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let grant = fresh(&*store).await?;
            let (way, attached) = (way_from(&grant)?, token(&grant)?);
            let attach = step_from(&grant, ChainUpdate::Attach, std::slice::from_ref(&attached))?;
            let (attach, step) = (store.advance(attach), store.advance(way.step));
            let (attach, step) = if attach_first {
                orders.play(attach, step).await?
            } else {
                let (step, attach) = orders.play(step, attach).await?;
                (attach, step)
            };
            same("the answer to the step", &step?, &AdvanceOutcome::Advanced)?;
            let found = store.found(grant.id, attached.digest).await?;
            same("the grant, after both", &*found.grant, &way.next)?;
            match attach? {
                AdvanceOutcome::Advanced => {
                    same("the attached token", &found.token.as_deref(), &Some(&attached))?;
                }
                AdvanceOutcome::Stale(stands) => {
                    same("the grant that the loser is shown", &*stands, &way.next)?;
                    ensure!(found.token.is_none(), "the token was attached although `Stale`");
                }
                other => return Err(format!("attaching answered {other:?}").into()),
            }
            let found = store.found(grant.id, way.token.digest).await?;
            same("the step's token", &found.token.as_deref(), &Some(&way.token))?;
        }
    }
    Ok(())
}

async fn tokens_attached_at_once_all_arrive(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = fresh(&*store).await?;
    let tokens = (0..TASKS).map(|_| token(&grant)).collect::<Result<Vec<_>, _>>()?;
    let answers = at_once(TASKS, |task| {
        let store = Arc::clone(&store);
        let step = step_from(&grant, ChainUpdate::Attach, std::slice::from_ref(&tokens[task]));
        async move { Ok(store.advance(step?).await?) }
    });
    for (token, answer) in tokens.iter().zip(answers.await?) {
        same("the answer to attaching", &answer, &AdvanceOutcome::Advanced)?;
        let found = store.found(grant.id, token.digest).await?;
        same("the attached token", &found.token.as_deref(), &Some(token))?;
        same("the grant", &*found.grant, &grant)?;
    }
    Ok(())
}

async fn a_retry_of_create_does_not_undo_a_step(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for retry_first in [false, true] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let grant = fresh(&*store).await?;
            let way = way_from(&grant)?;
            let (retry, step) = (store.create(grant.clone(), vec![]), store.advance(way.step));
            let (retry, step) = if retry_first {
                orders.play(retry, step).await?
            } else {
                let (step, retry) = orders.play(step, retry).await?;
                (retry, step)
            };
            same("the answer to the step", &step?, &AdvanceOutcome::Advanced)?;
            let retry = retry?;
            ensure!(
                retry != CreateOutcome::Barred,
                "the retry of `create` was barred without a reason"
            );
            let found = store.found(grant.id, way.token.digest).await?;
            same("the grant, after both", &*found.grant, &way.next)?;
            same("the step's token", &found.token.as_deref(), &Some(&way.token))?;
        }
    }
    Ok(())
}

async fn a_revocation_of_the_grant_wins_over_a_step(context: Context) -> Result<(), Broken> {
    revocation_wins(context, |grant| Ok(Target::Grant(grant.id))).await
}

async fn a_revocation_of_its_subject_wins_over_a_step(context: Context) -> Result<(), Broken> {
    revocation_wins(context, |grant| Ok(Target::Subject(grant.subject.clone()))).await
}

async fn a_revocation_of_its_client_wins_over_a_step(context: Context) -> Result<(), Broken> {
    revocation_wins(context, |grant| Ok(Target::Client(grant.client.clone()))).await
}

async fn revocation_wins(
    context: Context,
    target: impl Fn(&GrantRecord) -> Result<Target, Broken>,
) -> Result<(), Broken> {
    let store = context.tokens().await;
    for attach in [false, true] {
        for step_first in [true, false] {
            let mut orders = Interleavings::new(&context);
            while orders.again() {
                let grant = fresh(&*store).await?;
                let mut way = way_from(&grant)?;
                if attach {
                    way.step.change = ChainUpdate::Attach;
                    way.next = grant.clone();
                }
                let step = store.advance(way.step.clone());
                let revoke = store.revoke(revocation(target(&grant)?));
                let (step, revoke) = if step_first {
                    orders.play(step, revoke).await?
                } else {
                    let (revoke, step) = orders.play(revoke, step).await?;
                    (step, revoke)
                };
                revoked_at_last(&*store, &grant, &way, step, revoke).await?;
            }
        }
    }
    Ok(())
}

async fn revoked_at_last(
    store: &dyn TokenStore,
    grant: &GrantRecord,
    way: &Way,
    step: Result<AdvanceOutcome, StoreError>,
    revoke: Result<RevokeOutcome, StoreError>,
) -> Result<(), Broken> {
    store.swept(revoke?).await?;
    let found = store.found(grant.id, way.token.digest).await?;
    ensure!(
        found.grant.revoked_at.is_some(),
        "both have returned, the step with {step:?}, and the grant is not revoked"
    );
    let mut stands = GrantRecord::clone(&found.grant);
    stands.revoked_at = None;
    match step? {
        AdvanceOutcome::Advanced => {
            same("the rest of the grant", &stands, &way.next)?;
            ensure!(found.token.is_some(), "the step was taken without its token");
        }
        AdvanceOutcome::Dead => {
            same("the rest of the grant", &stands, grant)?;
            ensure!(found.token.is_none(), "a dead grant was given a token");
        }
        other => return Err(format!("the step answered {other:?}").into()),
    }
    // Whatever comes later comes too late.
    let late = way_from(&stands)?;
    same("a later step", &store.advance(late.step).await?, &AdvanceOutcome::Dead)
}

async fn a_revocation_wins_over_many_steps(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for round in 0..ROUNDS {
        let grant = fresh(&*store).await?;
        let target = match round % 4 {
            0 | 1 => Target::Grant(grant.id),
            2 => Target::Subject(grant.subject.clone()),
            _ => pair(&grant.subject, &grant.client),
        };
        let answers = at_once(TASKS, |task| {
            let (store, mut stands) = (Arc::clone(&store), grant.clone());
            let target = target.clone();
            async move {
                if task == TASKS / 2 {
                    store.revoked(target).await?;
                    return Ok(());
                }
                for _ in 0..50 {
                    let way = way_from(&stands)?;
                    match store.advance(way.step).await? {
                        AdvanceOutcome::Advanced => stands = way.next,
                        AdvanceOutcome::Stale(now) => stands = GrantRecord::clone(&now),
                        AdvanceOutcome::Dead => return Ok(()),
                        AdvanceOutcome::Unknown => {
                            return Err("a grant that is there is unknown".into());
                        }
                    }
                }
                Ok(())
            }
        });
        answers.await?;
        let mut stands = store.grant(grant.id).await?;
        ensure!(stands.revoked_at.is_some(), "every task is done, and the grant is not revoked");
        stands.revoked_at = None;
        let late = way_from(&stands)?;
        same("a later step", &store.advance(late.step).await?, &AdvanceOutcome::Dead)?;
    }
    Ok(())
}

async fn a_token_revoked_beside_a_step_stays_revoked(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for attach in [false, true] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let grant = lone(store.epoch().await?)?;
            let held = token(&grant)?;
            store.inserted(&grant, std::slice::from_ref(&held)).await?;
            let mut way = way_from(&grant)?;
            if attach {
                way.step.change = ChainUpdate::Attach;
            }
            let target = Target::Token { grant: grant.id, digest: held.digest };
            let (step, revoke) = (store.advance(way.step), store.revoke(revocation(target)));
            let (step, revoke) = orders.play(step, revoke).await?;
            revoke?;
            same("the answer to the step", &step?, &AdvanceOutcome::Advanced)?;
            let found = store.found(grant.id, held.digest).await?;
            ensure!(
                found.token.is_some_and(|token| token.revoked_at.is_some()),
                "both have returned, and the token is not revoked"
            );
            let found = store.found(grant.id, way.token.digest).await?;
            same("the step's token", &found.token.as_deref(), &Some(&way.token))?;
        }
    }
    Ok(())
}
