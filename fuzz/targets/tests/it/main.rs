//! Replays the corpus of each target, and then generated inputs: on every machine, without
//! cargo-fuzz.

use std::path::Path;

use cloakroom_fuzz_targets::TARGETS;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

const GENERATED: usize = 100_000;

/// Pieces that parsers care about.
const PIECES: &[&[u8]] = &[
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b".",
    b"=",
    b"==",
    b"%00",
    b"%",
    b"&",
    b"+",
    b" ",
    b"\0",
    b"\xff",
    b"null",
    b"true",
    b"-1",
    b"1e400",
    b"1.0",
    b"18446744073709551616",
    b"cr_at_",
    b"none",
    b"HS256",
    b"Basic ",
    b"Bearer ",
];

#[test]
fn the_corpus_and_generated_inputs_hold() {
    for target in TARGETS {
        let mut inputs = (target.seeds)();
        inputs.extend(corpus(target.name));
        for input in &inputs {
            (target.run)(input);
        }
        let mut random = ChaCha8Rng::from_seed([9; 32]);
        for _ in 0..GENERATED {
            (target.run)(&generate(&inputs, &mut random));
        }
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    let read = |file: std::fs::DirEntry| std::fs::read(file.path()).expect("a readable input");
    files.map(|file| read(file.expect("a readable corpus"))).collect()
}

/// One of the inputs, cut, joined with another, and damaged in a few places.
fn generate(inputs: &[Vec<u8>], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut pick = |most: usize| random.next_u64() as usize % most.max(1);
    let mut input = inputs[pick(inputs.len())].clone();
    if pick(4) == 0 {
        let other = &inputs[pick(inputs.len())];
        input.truncate(pick(input.len() + 1));
        input.extend_from_slice(&other[pick(other.len())..]);
    }
    for _ in 0..=pick(4) {
        let at = pick(input.len());
        match pick(5) {
            0 if !input.is_empty() => input[at] ^= 1 << pick(8),
            1 if !input.is_empty() => drop(input.remove(at)),
            2 => input.insert(at.min(input.len()), pick(256) as u8),
            3 => input.truncate(at),
            _ => {
                let piece = PIECES[pick(PIECES.len())];
                input.splice(at..at, piece.iter().copied());
            }
        }
    }
    input
}
