//! Single-use items, spent from several processes whose clocks differ.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::store::{SingleUseId, SingleUseStore, Spent};
use cloakroom_core::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::checks::processes::{Plan, as_json};
use crate::checks::single_use::items::{id, single_use_checks, spend};
use crate::fixtures::{MINUTE, NOW};
use crate::pace::at_once;
use crate::promises::Promise;
use crate::report::{Broken, Failure, with_sources};
use crate::single_use::Trial;

single_use_checks! { "single_use::processes":
    nodes_contend => SpendOnce,
}

/// How many items each round brings.
const ITEMS: u32 = 8;

/// What one process observed. The text form is one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    process: u32,
    /// The items that it spent first: round, and number in the round.
    first: Vec<(u32, u32)>,
    /// What was wrong at once.
    broken: Option<String>,
}

as_json! { Outcome }

/// The id of one item, the same in every process.
fn item(plan: &Plan, round: u32, number: u32) -> SingleUseId {
    SingleUseId::from_bytes(plan.bytes(round, 0x5e00 + u64::from(number)))
}

/// When a round begins.
fn begin(round: u32) -> UnixTime {
    NOW + Duration::from_secs(10) * round
}

/// Runs the part of one process. Start all processes together. Each spends the same items, by its own
/// clock, and tries the items of all earlier rounds once more.
pub async fn contend(store: &dyn SingleUseStore, plan: &Plan) -> Outcome {
    let mut outcome = Outcome { process: plan.process, first: Vec::new(), broken: None };
    for round in 0..plan.rounds {
        if let Err(what) = outcome.round(store, plan, round).await {
            outcome.broken = Some(with_sources(&*what));
            break;
        }
    }
    outcome
}

impl Outcome {
    async fn round(
        &mut self,
        store: &dyn SingleUseStore,
        plan: &Plan,
        round: u32,
    ) -> Result<(), Broken> {
        // The clocks differ by less than what an item's end allows for.
        let now = begin(round) + Duration::from_secs(5) * (plan.process % 4);
        // In an order of its own.
        for step in 0..ITEMS {
            let number = (step + plan.process) % ITEMS;
            self.present(store, plan, (round, number), now).await?;
            // What ends soon keeps the store forgetting.
            let _ = spend(store, id()?, now + Duration::from_millis(1), now).await?;
        }
        for old in 0..round {
            self.present(store, plan, (old, round % ITEMS), now).await?;
        }
        Ok(())
    }

    async fn present(
        &mut self,
        store: &dyn SingleUseStore,
        plan: &Plan,
        (round, number): (u32, u32),
        now: UnixTime,
    ) -> Result<(), Broken> {
        let until = begin(round) + MINUTE;
        if spend(store, item(plan, round, number), until, now).await? == Spent::First {
            self.first.push((round, number));
        }
        Ok(())
    }
}

/// Checks that exactly one call, in one of the processes, was the first to spend each item.
///
/// # Errors
///
/// If not, with what happened instead.
pub fn judge(plan: &Plan, outcomes: &[Outcome]) -> Result<(), Failure> {
    judged(plan, outcomes).map_err(|what| Failure {
        check: "single_use::processes::judge",
        promise: Promise::SpendOnce,
        happened: with_sources(&*what),
        story: outcomes.iter().map(ToString::to_string).collect(),
    })
}

fn judged(plan: &Plan, outcomes: &[Outcome]) -> Result<(), Broken> {
    for outcome in outcomes {
        if let Some(what) = &outcome.broken {
            return Err(format!("in process {}: {what}", outcome.process).into());
        }
    }
    if outcomes.len() != plan.processes as usize {
        return Err(format!("{} of {} processes ended", outcomes.len(), plan.processes).into());
    }
    for item in (0..plan.rounds).flat_map(|round| (0..ITEMS).map(move |number| (round, number))) {
        let told = outcomes.iter().flat_map(|outcome| &outcome.first);
        let firsts = told.filter(|first| **first == item).count();
        if firsts != 1 {
            let (round, number) = item;
            return Err(format!("item {number} of round {round} was `First` {firsts} times").into());
        }
    }
    Ok(())
}

async fn nodes_contend(trial: Trial) -> Result<(), Broken> {
    let database = Arc::new(trial.database().await);
    let plan = Plan { rounds: 12, ..Plan::new(7, 4) };
    let tasks = at_once(4, |process| {
        let (plan, database) = (plan.of(process as u32), Arc::clone(&database));
        async move { Ok(contend(&*database.open().await, &plan).await) }
    });
    judge(&plan, &tasks.await?).map_err(|failure| failure.happened.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(process: u32, first: Vec<(u32, u32)>) -> Outcome {
        Outcome { process, first, broken: None }
    }

    /// What each process of a plan of one round and two processes was told.
    fn judged_as(first: [Vec<(u32, u32)>; 2]) -> Result<(), Failure> {
        let [one, two] = first;
        let plan = Plan { rounds: 1, ..Plan::new(1, 2) };
        judge(&plan, &[outcome(0, one), outcome(1, two)])
    }

    #[test]
    fn each_item_has_one_winner() {
        let all: Vec<_> = (0..ITEMS).map(|number| (0, number)).collect();
        let (some, rest) = all.split_at(3);
        judged_as([some.to_vec(), rest.to_vec()]).unwrap();
        assert!(judged_as([some.to_vec(), all.clone()]).is_err());
        assert!(judged_as([some.to_vec(), vec![]]).is_err());
        assert!(judged_as([[some, some].concat(), rest.to_vec()]).is_err());
        let broken = Outcome { broken: Some("an outage".into()), ..outcome(0, all) };
        let plan = Plan { rounds: 1, ..Plan::new(1, 1) };
        assert!(judge(&plan, &[broken]).unwrap_err().happened.contains("an outage"));
        assert!(judge(&plan, &[]).is_err());
    }

    #[test]
    fn an_outcome_is_one_line() {
        let told = outcome(3, vec![(1, 2)]);
        let text = told.to_string();
        assert!(!text.contains('\n'));
        assert_eq!(text.parse::<Outcome>().unwrap(), told);
    }
}
