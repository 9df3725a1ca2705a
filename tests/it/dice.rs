//! Randomness that a seed repeats.

use std::sync::atomic::{AtomicU64, Ordering};

/// A generator (`SplitMix64`) that tasks share.
#[derive(Debug)]
pub(crate) struct Dice {
    pub(crate) seed: u64,
    state: AtomicU64,
}

impl Dice {
    /// From the seed that the environment names (`CLOAKROOM_SEED`), or else from another one each
    /// time. What tasks do at the same time is for the scheduler to say: a seed repeats what is
    /// drawn, not who draws it.
    pub(crate) fn from_environment() -> Self {
        let seed = std::env::var("CLOAKROOM_SEED").ok().map(|seed| seed.parse().unwrap());
        Self::new(seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.unwrap().as_nanos() as u64
        }))
    }

    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, state: AtomicU64::new(seed) }
    }

    pub(crate) fn draw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&self, bound: usize) -> usize {
        (self.draw() % bound as u64) as usize
    }

    /// Whether something happens that does so in `percent` of all cases.
    pub(crate) fn percent(&self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
