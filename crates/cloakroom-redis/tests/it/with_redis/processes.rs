//! Several processes on one server.

use std::fmt::{Debug, Display};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;

use cloakroom_conformance::processes::{Outcome, Plan, contend, judge};
use cloakroom_redis::RedisStore;

use crate::support::{prefix, url};
use crate::with_redis::kit::open;

/// The store and the plan of a race, in a child that [`race`] started.
pub(crate) async fn inherited_race() -> Option<(RedisStore, Plan)> {
    let plan = std::env::var("CLOAKROOM_REDIS_PLAN").ok()?;
    let [url, prefix] =
        ["CLOAKROOM_REDIS_URL", "CLOAKROOM_REDIS_PREFIX"].map(|name| std::env::var(name).unwrap());
    Some((open(&url, &prefix).await, plan.parse().unwrap()))
}

/// Runs `test` in one child for each process of the plan. Each prints its outcome with [`report`].
pub(crate) fn race<O>(test: &str, url: &str, prefix: &str, plan: &Plan) -> Vec<O>
where
    O: FromStr<Err: Debug>,
{
    let start = |plan: Plan| {
        Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env("CLOAKROOM_REDIS_URL", url)
            .env("CLOAKROOM_REDIS_PREFIX", prefix)
            .env("CLOAKROOM_REDIS_PLAN", plan.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    // All of them start before the first is waited for.
    let children: Vec<_> = plan.all().map(start).collect();
    let outcome = |child: Child| {
        let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let line = text.lines().find_map(|line| Some(line.split_once("OUTCOME ")?.1));
        line.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    };
    children.into_iter().map(outcome).collect()
}

/// Tells [`race`] how a child's race ended.
pub(crate) fn report(outcome: impl Display) {
    println!("OUTCOME {outcome}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_race() {
    if let Some((store, plan)) = inherited_race().await {
        return report(contend(&store, &plan).await);
    }
    let (url, prefix) = (url(), prefix());
    let plan = Plan::new(42, 8);
    let outcomes: Vec<Outcome> =
        race("with_redis::processes::processes_race", &url, &prefix, &plan);
    judge(&open(&url, &prefix).await, &plan, &outcomes).await.unwrap();
}
