//! Parts of the turns of a benchmark.

use std::hint::spin_loop;
use std::iter;
use std::pin::pin;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Waker};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use crate::Timed;

/// The output of a future that never waits, as nothing in memory does. It is polled in place, as in a
/// server: moving it would cost as much as the rest of a call.
///
/// # Panics
///
/// If it waits.
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

/// Threads that wait for work, as those of a server do. A new thread would first have to allocate its
/// memory.
#[derive(Debug)]
pub struct Team<T> {
    members: Vec<Sender<Part<T>>>,
    times: Receiver<(Instant, Instant)>,
}

struct Part<T> {
    work: Vec<T>,
    /// How many are ready, and how many there are.
    ready: Arc<AtomicUsize>,
    all: usize,
}

impl<T: Clone + Send> Team<T> {
    /// Two threads that do such work. They end with the team.
    pub fn of_two<'scope>(
        scope: &'scope Scope<'scope, '_>,
        work: impl Fn(&[T]) + Clone + Send + 'scope,
    ) -> Self
    where
        T: 'scope,
    {
        let (done, times) = channel();
        let members = (0..2).map(|_| {
            let (sender, parts) = channel::<Part<T>>();
            let (work, done) = (work.clone(), done.clone());
            scope.spawn(move || {
                for part in parts {
                    let _guard = EndIfPanicking;
                    // What was just received is in the caches of the receiving core.
                    let own = part.work.clone();
                    // A thread that is woken starts late; one that spins does not.
                    part.ready.fetch_add(1, Ordering::SeqCst);
                    while part.ready.load(Ordering::SeqCst) < part.all {
                        spin_loop();
                    }
                    let start = Instant::now();
                    work(&own);
                    let _ = done.send((start, Instant::now()));
                }
            });
            sender
        });
        Self { members: members.collect(), times }
    }

    /// Their turns: those of both threads, and those of one alone. They work on what is drawn with the
    /// dice.
    pub fn turns<'a>(
        &'a self,
        seed: u64,
        draw: impl Fn(&mut Dice, u64) -> Vec<T> + Copy + 'a,
    ) -> [Timed<'a>; 2] {
        let mut both = [Dice::new(seed), Dice::new(seed + 1)];
        let mut alone = Dice::new(seed + 2);
        let halves =
            move |calls: u64| self.work(both.each_mut().map(|dice| draw(dice, calls.div_ceil(2))));
        [Box::new(halves), Box::new(move |calls| self.work([draw(&mut alone, calls)]))]
    }

    /// The time to do all the work, each part on a separate thread: from the first start to the last
    /// end.
    ///
    /// # Panics
    ///
    /// If there are more parts than threads. If a thread panics, the process ends.
    fn work<const N: usize>(&self, parts: [Vec<T>; N]) -> Duration {
        assert!(N <= self.members.len(), "a part has no thread");
        let ready = Arc::new(AtomicUsize::new(0));
        for (member, work) in iter::zip(&self.members, parts) {
            let part = Part { work, ready: Arc::clone(&ready), all: N };
            assert!(member.send(part).is_ok(), "a thread has ended");
        }
        let times = [(); N].map(|()| self.times.recv().expect("no thread has ended"));
        let start = times.iter().map(|(start, _)| *start).min();
        let end = times.iter().map(|(_, end)| *end).max();
        end.zip(start).map_or(Duration::ZERO, |(end, start)| end - start)
    }
}

/// Otherwise the others would wait for a panicked thread for ever.
struct EndIfPanicking;

impl Drop for EndIfPanicking {
    fn drop(&mut self) {
        if thread::panicking() {
            process::exit(1);
        }
    }
}

/// Numbers that no cache can predict (`SplitMix64`).
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
