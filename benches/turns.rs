//! What the turns of a benchmark are made of.

use std::hint::spin_loop;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// The output of a future that never waits: nothing in memory does. It is polled where it is, as a
/// server would; to move it would cost as much as the rest of a call.
///
/// # Panics
///
/// If it waits after all.
#[inline]
pub fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing waits"),
    }
}

/// How long it takes.
pub fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// How long it takes to do all that work, each part on a thread of its own.
///
/// # Panics
///
/// If one of them does.
pub fn together<T: Send, const N: usize>(parts: [T; N], work: impl Fn(&T) + Sync) -> Duration {
    let ready = AtomicUsize::new(0);
    let (ready, work) = (&ready, &work);
    let times: Vec<(Instant, Instant, T)> = thread::scope(|scope| {
        let threads = parts.map(|part| {
            scope.spawn(move || {
                // Whoever is woken starts late; whoever spins does not.
                ready.fetch_add(1, Ordering::SeqCst);
                while ready.load(Ordering::SeqCst) < N {
                    spin_loop();
                }
                let start = Instant::now();
                work(&part);
                // What it worked on is not dropped before the clock is read.
                (start, Instant::now(), part)
            })
        });
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let start = times.iter().map(|(start, ..)| *start).min();
    let end = times.iter().map(|(_, end, _)| *end).max();
    end.zip(start).map_or(Duration::ZERO, |(end, start)| end - start)
}

/// Numbers that no cache can foresee (`SplitMix64`).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Another seed, other numbers.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice that show other numbers.
    #[must_use]
    pub const fn other(&self) -> Self {
        Self(self.0 ^ 0x5555_5555_5555_5555)
    }

    /// The next number, below this one.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}
