//! The engine by model: made-up stories of clients, thieves, lost answers, revocations, clocks and
//! outages, each step held against an oracle of who may hold what.
//!
//! `CLOAKROOM_MODEL_CASES` sets how many stories; the same ones every time, and more if it is more.
#![allow(clippy::unwrap_used, reason = "what is shared by tests fails as they do")]

mod answers;
mod checks;
mod flight;
mod oracle;
mod requests;
mod story;
mod time;
mod watched;
mod world;

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use answers::SITUATIONS;
use story::Story;
use world::World;

/// How many stories are told if nobody asks for more.
const CASES: u32 = 500;
/// Steps of the longest story.
const STEPS: usize = 48;

#[test]
fn no_story_makes_the_engine_break_a_promise() {
    let cases = std::env::var("CLOAKROOM_MODEL_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = Config {
        cases: cases.unwrap_or(CASES),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let met = RefCell::new(BTreeSet::new());
    let told = TestRunner::new_with_rng(config, seed).run(&story::stories(STEPS), |story| {
        met.borrow_mut().extend(told(&story).map_err(TestCaseError::fail)?);
        Ok(())
    });
    match told {
        Err(TestError::Fail(_, story)) => {
            let (story, why) = shortest(story);
            panic!("a promise is broken: {why}\n\nThe shortest story found:\n{story:?}");
        }
        other => other.unwrap(),
    }
    let never: Vec<_> =
        SITUATIONS.iter().filter(|situation| !met.borrow().contains(*situation)).collect();
    assert!(cases.is_some() || never.is_empty(), "the stories are dull: nobody met {never:?}");
}

/// The situations that a story came to; or what goes wrong in it, with all that happened until then.
fn told(story: &Story) -> Result<BTreeSet<&'static str>, String> {
    let mut world = World::new(story.late_sweeps, story.tended);
    match world.live_through(story) {
        Ok(()) => Ok(world.met),
        Err(why) => Err(format!("{why}\n\nWhat happened:\n  {}", world.lines.join("\n  "))),
    }
}

/// Leaves out every step without which the story still goes wrong: proptest tries each only once.
fn shortest(mut story: Story) -> (Story, String) {
    let mut why = told(&story).err().unwrap_or_else(|| "but not every time".into());
    loop {
        let shorter = (0..story.steps.len()).find_map(|at| {
            let mut shorter = story.clone();
            shorter.steps.remove(at);
            told(&shorter).err().map(|why| (shorter, why))
        });
        let Some(found) = shorter else { return (story, why) };
        (story, why) = found;
    }
}
