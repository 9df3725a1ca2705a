//! Futures that continue only on request: a pause or a crash at each await, and many tasks at once.
//! So a check deterministically reaches every state that depends on where a store awaits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::Duration;

use tokio::sync::{Barrier, Notify};
use tokio::time::{Instant, timeout};

use crate::report::Broken;
use crate::story::Story;

/// The most awaits of one future at which it is paused or dropped.
const MAX_STEPS: usize = 24;

/// How long a future keeps its turn while it waits. It may wait for a lock that the other future holds, and
/// then the other gets the turn. A value that is too short skips an order, and never gives a wrong result.
const PATIENCE: Duration = Duration::from_millis(25);

/// An operation that takes longer hangs.
pub(crate) const HUNG: Duration = Duration::from_secs(20);

/// After this many polls, a future counts as waiting for another.
const MAX_POLLS: usize = 20_000;

/// Runs two operations in every order in which they can interleave at their awaits: the first takes some
/// steps, then the second takes some, and then the first runs to its end.
///
/// ```text
/// let mut orders = Interleavings::new(&context);
/// while orders.again() {
///     // … prepare …
///     let (one, two) = orders.play(store.create(…), store.revoke(…)).await?;
///     // … look …
/// }
/// ```
pub(crate) struct Interleavings {
    story: Story,
    first: usize,
    second: usize,
    round: usize,
    over: bool,
}

impl Interleavings {
    pub(crate) fn new(story: impl Into<Story>) -> Self {
        Self { story: story.into(), first: 0, second: 0, round: 0, over: false }
    }

    /// Whether another order is left to try.
    pub(crate) fn again(&mut self) -> bool {
        self.round += 1;
        !self.over
    }

    /// The number of this order: records of one round may carry it, to be apart from the others.
    pub(crate) const fn round(&self) -> usize {
        self.round
    }

    /// Runs both, in the order whose turn it is.
    pub(crate) async fn play<A: Send, B: Send>(
        &mut self,
        first: impl Future<Output = A> + Send,
        second: impl Future<Output = B> + Send,
    ) -> Result<(A, B), Broken> {
        let (mut first, mut second) = (Paced::new(first), Paced::new(second));
        let after_first = first.go(self.first, PATIENCE).await;
        self.tell("the one operation", self.first, after_first);
        let after_second = second.go(self.second, PATIENCE).await;
        self.tell("the other", self.second, after_second);
        // With no steps of the second in between, its order was the first one tried.
        self.next(after_first, after_second, 1);
        first.end().await;
        second.end().await;
        to_their_end(&mut first, &mut second).await?;
        Ok((first.result()?, second.result()?))
    }

    /// Runs the first some steps, then the second to its end, then the first some steps more: there
    /// it is dropped, as by a crash. `None` if it was, else its answer.
    pub(crate) async fn crash<A: Send, B: Send>(
        &mut self,
        first: impl Future<Output = A> + Send,
        second: impl Future<Output = B> + Send,
    ) -> Result<(Option<A>, B), Broken> {
        let (mut first, mut second) = (Paced::new(first), Paced::new(second));
        let before = first.go(self.first, PATIENCE).await;
        self.tell("the one operation", self.first, before);
        second.end().await;
        let after = first.go(self.second, PATIENCE).await;
        self.tell("and then", self.second, after);
        let crashed = first.result().ok();
        // The second may wait for what the first holds.
        drop(first);
        self.story.tell(if crashed.is_none() { "— and is dropped —" } else { "— done —" });
        self.next(before, after, 0);
        second.finish().await.map(|answer| (crashed, answer))
    }

    fn next(&mut self, after_first: Step, after_second: Step, least: usize) {
        if after_second == Step::Paused && self.second < MAX_STEPS {
            self.second += 1;
        } else if after_first == Step::Paused && self.first < MAX_STEPS {
            (self.first, self.second) = (self.first + 1, least);
        } else {
            self.over = true;
        }
    }

    fn tell(&self, who: &str, steps: usize, state: Step) {
        self.story.tell(format!("— {who}: {steps} steps, {state:?} —"));
    }
}

/// Drops an operation at each of its awaits, one after another.
pub(crate) struct Drops {
    story: Story,
    steps: usize,
    over: bool,
}

impl Drops {
    pub(crate) fn new(story: impl Into<Story>) -> Self {
        Self { story: story.into(), steps: 0, over: false }
    }

    /// Whether another await is left to drop it at.
    pub(crate) const fn again(&self) -> bool {
        !self.over
    }

    /// Runs the operation up to the await whose turn it is, and drops it there: `None`. Its answer
    /// if it was done before.
    pub(crate) async fn play<T: Send>(
        &mut self,
        operation: impl Future<Output = T> + Send,
    ) -> Result<Option<T>, Broken> {
        let mut operation = Paced::new(operation);
        match operation.go(self.steps, HUNG).await {
            Step::Waits => Err("the operation hangs, though nothing else is under way".into()),
            Step::Done => {
                self.over = true;
                operation.result().map(Some)
            }
            Step::Paused => {
                self.story.tell(format!("— an operation is dropped after {} polls —", self.steps));
                self.over = self.steps >= MAX_STEPS;
                self.steps += 1;
                Ok(None)
            }
        }
    }
}

/// A future that is polled one step at a time.
pub(crate) struct Paced<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    woken: Arc<Woken>,
    done: Option<T>,
}

/// Where a future stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It has come to its end.
    Done,
    /// It was polled, and is not done.
    Paused,
    /// It has not been woken: what it waits for has not happened.
    Waits,
}

struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

impl<'a, T: Send> Paced<'a, T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'a) -> Self {
        let woken = Arc::new(Woken(Notify::new()));
        woken.0.notify_one();
        Self { future: Box::pin(future), woken, done: None }
    }

    /// Goes on by this many polls, or to where it is done or waits.
    pub(crate) async fn go(&mut self, steps: usize, patience: Duration) -> Step {
        let mut step = if self.done.is_some() { Step::Done } else { Step::Paused };
        for _ in 0..steps {
            if step != Step::Paused {
                break;
            }
            step = self.step(patience).await;
        }
        step
    }

    /// Goes on to its end, or to where it waits for another.
    pub(crate) async fn end(&mut self) -> Step {
        self.go(MAX_POLLS, PATIENCE).await
    }

    /// Its answer, once it is done.
    pub(crate) async fn finish(mut self) -> Result<T, Broken> {
        let begun = Instant::now();
        while self.end().await != Step::Done {
            hung_since(begun)?;
        }
        self.result()
    }

    async fn step(&mut self, patience: Duration) -> Step {
        if self.done.is_some() {
            return Step::Done;
        }
        if timeout(patience, self.woken.0.notified()).await.is_err() {
            return Step::Waits;
        }
        let waker = Waker::from(Arc::clone(&self.woken));
        match self.future.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            Poll::Ready(answer) => {
                self.done = Some(answer);
                Step::Done
            }
            Poll::Pending => Step::Paused,
        }
    }

    fn result(&mut self) -> Result<T, Broken> {
        self.done.take().ok_or_else(|| "an operation did not come to its end".into())
    }
}

/// Each may wait for the other: they go on by turns.
async fn to_their_end<A: Send, B: Send>(
    first: &mut Paced<'_, A>,
    second: &mut Paced<'_, B>,
) -> Result<(), Broken> {
    let begun = Instant::now();
    loop {
        let steps = (first.step(PATIENCE).await, second.step(PATIENCE).await);
        if steps == (Step::Done, Step::Done) {
            return Ok(());
        }
        hung_since(begun)?;
    }
}

fn hung_since(begun: Instant) -> Result<(), Broken> {
    if begun.elapsed() < HUNG {
        return Ok(());
    }
    Err(format!("an operation did not come to its end within {HUNG:?}").into())
}

/// Starts this many tasks at the same moment, and returns their answers in order.
pub(crate) async fn at_once<T, F>(count: usize, task: impl Fn(usize) -> F) -> Result<Vec<T>, Broken>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Broken>> + Send + 'static,
{
    let gate = Arc::new(Barrier::new(count));
    let tasks = (0..count).map(|number| {
        let (gate, task) = (Arc::clone(&gate), task(number));
        tokio::spawn(async move {
            gate.wait().await;
            timeout(3 * HUNG, task).await.map_err(|_| "a task did not come to its end")?
        })
    });
    // All are started before the first is waited for.
    let tasks: Vec<_> = tasks.collect();
    let mut answers = Vec::with_capacity(count);
    for task in tasks {
        answers.push(task.await?);
    }
    answers.into_iter().collect()
}

#[cfg(test)]
mod tests;
