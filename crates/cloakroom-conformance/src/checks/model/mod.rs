//! Random sequences of operations on a store and on a model of the contract. A sequence whose
//! results differ is shrunk to a short one.
//!
//! The sequences are the same in every run. `CLOAKROOM_CONFORMANCE_SEED` (a number) selects others,
//! `CLOAKROOM_CONFORMANCE_CASES` sets their number. A failure names the seed that reproduces it.

mod play;
mod reference;

use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::Context;
use crate::report::Broken;

use play::Play;

checks! { "model":
    random_sequences_end_as_the_contract_says => Model,
}

const CASES: u64 = 96;
const MAX_OPERATIONS: usize = 30;

/// The most replays for the sake of a shorter story.
const MAX_REPLAYS: usize = 500;

/// An operation on a few grants, subjects and clients, so that they meet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation {
    /// A login begins: the grant to come takes its epoch now.
    Begin {
        slot: u8,
    },
    /// The first `create` of a grant, or a retry.
    Create {
        slot: u8,
        tokens: u8,
    },
    /// Another grant under the same id.
    CreateOther {
        slot: u8,
    },
    /// Moves the chain on, or attaches tokens.
    Advance {
        slot: u8,
        when: u8,
        moves: bool,
        stand: Stand,
    },
    RevokeGrant {
        slot: u8,
        when: u8,
        lasting: u8,
    },
    RevokeToken {
        slot: u8,
        when: u8,
        token: u8,
    },
    RevokeSubject {
        slot: u8,
        when: u8,
        lasting: u8,
    },
    RevokeClient {
        slot: u8,
        when: u8,
        lasting: u8,
    },
    RevokePair {
        slot: u8,
        when: u8,
        lasting: u8,
    },
    RevokeJwtOrKey {
        slot: u8,
        when: u8,
        lasting: u8,
    },
    List {
        slot: u8,
        when: u8,
        by: u8,
    },
    Heartbeat {
        when: u8,
    },
    Housekeep {
        when: u8,
        limit: u8,
    },
}

/// Where a caller believes that the chain stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stand {
    Right,
    WrongDigest,
    WrongGeneration,
}

impl Operation {
    /// From small numbers: smaller ones are simpler.
    fn new((kind, slot, when, choice): (u8, u8, u8, u8)) -> Self {
        let lasting = choice;
        match kind {
            0..=3 => Self::Create { slot, tokens: choice % 3 },
            4 => Self::Begin { slot },
            5..=7 => {
                let stand = match choice {
                    3 if when % 2 == 0 => Stand::WrongDigest,
                    3 => Stand::WrongGeneration,
                    _ => Stand::Right,
                };
                Self::Advance { slot, when, moves: choice != 1, stand }
            }
            8 => Self::RevokeGrant { slot, when, lasting },
            9 => Self::RevokeToken { slot, when, token: choice },
            10 => Self::RevokeSubject { slot, when, lasting },
            11 => Self::RevokeClient { slot, when, lasting },
            12 => Self::RevokePair { slot, when, lasting },
            13 => Self::RevokeJwtOrKey { slot, when, lasting },
            14 => Self::CreateOther { slot },
            15 => Self::List { slot, when, by: choice },
            16 => Self::Heartbeat { when },
            _ => Self::Housekeep { when, limit: choice },
        }
    }
}

async fn random_sequences_end_as_the_contract_says(context: Context) -> Result<(), Broken> {
    let seed = number("CLOAKROOM_CONFORMANCE_SEED", 0x00c1_0a6b_0011)?;
    let cases = number("CLOAKROOM_CONFORMANCE_CASES", CASES)?;
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let operation = (0..19_u8, 0..5_u8, 0..7_u8, 0..4_u8).prop_map(Operation::new);
    let sequences = vec(operation, 1..=MAX_OPERATIONS);
    for case in 1..=cases {
        let mut tree =
            sequences.new_tree(&mut runner).map_err(|why| format!("no sequence: {why}"))?;
        let Err(error) = play(&context, &tree.current()).await else { continue };
        let mut worst = (tree.current(), error);
        let mut replays = 0;
        let mut simpler = tree.simplify();
        while simpler && replays < MAX_REPLAYS {
            replays += 1;
            match play(&context, &tree.current()).await {
                Err(error) => {
                    worst = (tree.current(), error);
                    simpler = tree.simplify();
                }
                Ok(()) => simpler = tree.complicate(),
            }
        }
        // Told once more, for the story.
        let (operations, error) = worst;
        let error = play(&context, &operations).await.err().unwrap_or(error);
        let mut told = String::new();
        for (number, operation) in operations.iter().enumerate() {
            let _ = write!(told, "\n    {}. {operation:?}", number + 1);
        }
        return Err(format!(
            "{error}\n  the shortest sequence found (case {case}, CLOAKROOM_CONFORMANCE_SEED={seed}):{told}"
        )
        .into());
    }
    Ok(())
}

async fn play(context: &Context, operations: &[Operation]) -> Result<(), Broken> {
    let mut play = Play::new(context.tokens().await).await?;
    for (number, operation) in operations.iter().enumerate() {
        play.play(*operation)
            .await
            .map_err(|error| format!("operation {}, {operation:?}: {error}", number + 1))?;
    }
    play.end().await
}

fn number(variable: &str, default: u64) -> Result<u64, Broken> {
    match std::env::var(variable) {
        Ok(value) => value.parse().map_err(|why| format!("{variable}={value}: {why}").into()),
        Err(_) => Ok(default),
    }
}
