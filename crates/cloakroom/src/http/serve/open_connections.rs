//! The connections that are open, and who has to go if there are too many.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// As many as a default installation carries without being told.
const MAX_DEFAULT: usize = 10_000;

/// File descriptors for everything else: the store, files, the listener.
const RESERVED: usize = 64;

/// As many connections as there are file descriptors for.
pub(super) fn default_limit() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    // Where nothing is known: what the systems with the lowest default have.
    let soft = soft.unwrap_or(if limits.is_empty() { 256 } else { usize::MAX });
    soft.saturating_sub(RESERVED).clamp(16, MAX_DEFAULT)
}

/// How long a connection must have been idle, or sending an incomplete request, before it may be closed to make
/// room. A new connection needs this time to send its request.
const MIN_WAIT: Duration = Duration::from_secs(1);

/// How many connections beyond the limit may be on their way out.
const MAX_LEAVING: usize = 16;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first byte of a request.
    Idle { since: Instant },
    /// The rest of a request's head.
    Head { since: Instant },
    /// The rest of a body, of a request that began then.
    Body { since: Instant },
    /// The server: a request is under way.
    Busy,
}

/// What a connection does.
#[derive(Debug, Clone, Copy)]
struct Activity {
    phase: Phase,
    /// Since when the peer has had an answer to take, whatever the phase: the next request may follow
    /// before it has taken it.
    sending: Option<Instant>,
}

/// For what the peer is waited for. The first of these makes room first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum WaitsFor {
    ARequest,
    TheRestOfARequest,
    /// Last, since an honest peer may take its time for a long answer, but an honest peer sends a request
    /// in one go.
    TakingAnAnswer,
}

impl Activity {
    /// Whether a request is under way, as far as the reader of the stream is concerned.
    const fn is_under_way(self) -> bool {
        self.sending.is_some() || matches!(self.phase, Phase::Body { .. } | Phase::Busy)
    }

    /// For what the peer is waited for, and since when.
    fn waits(self) -> Option<(WaitsFor, Instant)> {
        match (self.sending, self.phase) {
            (Some(since), _) => Some((WaitsFor::TakingAnAnswer, since)),
            (None, Phase::Idle { since }) => Some((WaitsFor::ARequest, since)),
            (None, Phase::Head { since } | Phase::Body { since }) => {
                Some((WaitsFor::TheRestOfARequest, since))
            }
            (None, Phase::Busy) => None,
        }
    }
}

/// The connections that are open.
#[derive(Debug)]
pub(super) struct OpenConnections {
    limit: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    by_number: HashMap<u64, Arc<State>>,
    /// How many of these were told to go.
    leaving: usize,
}

#[derive(Debug)]
struct State {
    activity: Mutex<Activity>,
    /// The reader, which must look at the phase again when a request has ended.
    reader: Mutex<Option<Waker>>,
    is_leaving: AtomicBool,
    leave: Notify,
}

/// The place of a connection among the open ones; left when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    all: Arc<OpenConnections>,
    number: u64,
    state: Arc<State>,
}

impl OpenConnections {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, table: Mutex::default() }
    }

    /// A place for a new connection, if need be that of one whose peer is waited for.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Place> {
        let mut table = self.table();
        let staying = table.by_number.len() - table.leaving;
        let has_room = staying < self.limit || table.make_room();
        if !has_room || table.by_number.len() >= self.limit + MAX_LEAVING {
            return None;
        }
        let number = table.next;
        table.next += 1;
        let state = Arc::new(State {
            activity: Mutex::new(Activity {
                phase: Phase::Idle { since: Instant::now() },
                sending: None,
            }),
            reader: Mutex::default(),
            is_leaving: false.into(),
            leave: Notify::new(),
        });
        table.by_number.insert(number, Arc::clone(&state));
        Some(Place { all: Arc::clone(self), number, state })
    }

    /// Makes room, if a connection can go.
    pub(super) fn make_room(&self) {
        self.table().make_room();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Closes the connection whose peer has been waited for the longest, of those that wait for the same:
    /// see [`WaitsFor`].
    fn make_room(&mut self) -> bool {
        let staying = self.by_number.iter().filter(|(_, state)| !state.is_leaving());
        let waiting = staying.filter_map(|(number, state)| {
            let (waits_for, since) = state.activity().waits()?;
            (since.elapsed() >= MIN_WAIT).then_some(((waits_for, since, *number), state))
        });
        let Some((_, state)) = waiting.min_by_key(|(rank, _)| *rank) else { return false };
        state.is_leaving.store(true, Ordering::Release);
        state.leave.notify_one();
        self.leaving += 1;
        true
    }
}

impl State {
    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }
}

impl Place {
    pub(super) fn phase(&self) -> Phase {
        self.state.activity().phase
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.state.activity().phase = phase;
    }

    /// The peer makes no room for an answer.
    pub(super) fn has_to_send(&self) {
        self.state.activity().sending.get_or_insert_with(Instant::now);
    }

    /// The peer has taken all that there was to send. Its time for the next request begins now.
    pub(super) fn has_sent(&self) {
        let mut activity = self.state.activity();
        if activity.sending.take().is_none() {
            return;
        }
        let now = Instant::now();
        if let Phase::Idle { since } | Phase::Head { since } = &mut activity.phase {
            *since = now;
        }
        drop(activity);
        self.wake_reader();
    }

    /// Whether the peer is in the middle of a request, or of an answer.
    pub(super) fn is_slow(&self) -> bool {
        let waits = self.state.activity().waits();
        waits.is_some_and(|(waits_for, _)| waits_for != WaitsFor::ARequest)
    }

    /// Wakes this reader once the connection is idle again. `false` if it is by now.
    pub(super) fn wake_when_idle(&self, reader: &Waker) -> bool {
        *self.reader() = Some(reader.clone());
        // A request that ends from here on finds the reader.
        self.state.activity().is_under_way()
    }

    /// A request has ended.
    pub(super) fn set_idle(&self) {
        self.set_phase(Phase::Idle { since: Instant::now() });
        self.wake_reader();
    }

    fn wake_reader(&self) {
        let reader = self.reader().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn reader(&self) -> MutexGuard<'_, Option<Waker>> {
        self.state.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request under way waits for its body, which is to come since `since`. A task that reads it
    /// after the response does not make the connection busy again.
    pub(super) fn body_is_to_come(&self, since: Instant) {
        let phase = &mut self.state.activity().phase;
        if *phase == Phase::Busy {
            *phase = Phase::Body { since };
        }
    }

    /// The request under way no longer waits for its body.
    pub(super) fn body_has_come(&self) {
        let phase = &mut self.state.activity().phase;
        if matches!(*phase, Phase::Body { .. }) {
            *phase = Phase::Busy;
        }
    }

    /// Waits until the connection has to make room.
    pub(super) async fn told_to_leave(&self) {
        self.state.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.all.table();
        table.by_number.remove(&self.number);
        table.leaving -= usize::from(self.state.is_leaving());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_that_are_waited_for_make_room_and_a_busy_one_never() {
        let open = Arc::new(OpenConnections::new(3));
        let places: Vec<_> = (0..3).map(|_| open.admit().unwrap()).collect();
        places[0].set_phase(Phase::Busy);
        places[1].set_phase(Phase::Head { since: Instant::now() });
        assert_eq!(places[2].phase(), Phase::Idle { since: Instant::now() });
        assert!(open.admit().is_none(), "what has just come is about to send");
        tokio::time::advance(Duration::from_secs(1)).await;
        places[0].set_phase(Phase::Idle { since: Instant::now() });

        let fourth = open.admit().unwrap();
        places[2].told_to_leave().await;
        fourth.set_phase(Phase::Busy);
        tokio::time::advance(Duration::from_secs(1)).await;
        let fifth = open.admit().unwrap();
        places[0].told_to_leave().await;
        fifth.set_phase(Phase::Busy);
        // One sends a head, two are busy.
        let sixth = open.admit().unwrap();
        places[1].told_to_leave().await;
        let since = Instant::now();
        sixth.set_phase(Phase::Body { since });
        assert!(open.admit().is_none(), "it has just begun");
        tokio::time::advance(Duration::from_secs(1)).await;
        let seventh = open.admit().unwrap();
        sixth.told_to_leave().await;
        seventh.set_phase(Phase::Busy);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(open.admit().is_none(), "three are busy");
        drop(seventh);
        // A place is free only when its connection has gone, and then once.
        drop(places);
        drop(sixth);
        let eighth = open.admit();
        assert!(eighth.is_some());
        assert_eq!(open.table().leaving, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_peer_does_not_take_an_answer_makes_room_after_all_others() {
        let open = Arc::new(OpenConnections::new(4));
        let places: Vec<_> = (0..4).map(|_| open.admit().unwrap()).collect();
        let [full, slow, head, idle] = &places[..] else { unreachable!() };
        let since = Instant::now();
        full.set_phase(Phase::Busy);
        full.has_to_send();
        head.set_phase(Phase::Head { since });
        tokio::time::advance(MIN_WAIT / 2).await;
        slow.has_to_send();
        assert!(open.admit().is_none());
        tokio::time::advance(MIN_WAIT / 2).await;
        // What it takes meanwhile changes nothing, as long as there is more.
        full.has_to_send();
        let mut new = Vec::new();
        for next in [idle, head, full] {
            new.extend(open.admit());
            next.told_to_leave().await;
        }
        assert_eq!(new.len(), 3);
        assert!(open.admit().is_none(), "the last one has had half a second");
        slow.has_sent();
        assert_eq!(slow.phase(), Phase::Idle { since: Instant::now() });
        tokio::time::advance(MIN_WAIT).await;
        assert!(open.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_are_on_their_way_out_are_bounded() {
        let open = Arc::new(OpenConnections::new(3));
        let mut places = Vec::new();
        while let Some(place) = open.admit() {
            places.push(place);
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        assert_eq!(places.len(), 3 + MAX_LEAVING);
        // One that has left makes room, and takes nobody along.
        drop(places.remove(0));
        assert!(open.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_new_connection_too_an_idle_one_is_told_to_leave() {
        let open = Arc::new(OpenConnections::new(3));
        let [idle, busy] = [(); 2].map(|()| open.admit().unwrap());
        busy.set_phase(Phase::Busy);
        open.make_room();
        assert_eq!(open.table().leaving, 0, "it has just come");
        tokio::time::advance(MIN_WAIT).await;
        open.make_room();
        assert_eq!((idle.state.is_leaving(), busy.state.is_leaving()), (true, false));
        idle.told_to_leave().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_slow_in_the_middle_of_a_request_or_of_an_answer() {
        let place = Arc::new(OpenConnections::new(1)).admit().unwrap();
        let since = Instant::now();
        for (phase, is_slow) in [
            (Phase::Idle { since }, false),
            (Phase::Head { since }, true),
            (Phase::Body { since }, true),
            (Phase::Busy, false),
        ] {
            place.set_phase(phase);
            assert_eq!(place.is_slow(), is_slow, "{phase:?}");
            place.has_to_send();
            assert!(place.is_slow(), "{phase:?}, and it does not take an answer");
            place.has_sent();
        }
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Reader(AtomicUsize);

    impl Wake for Reader {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_is_woken_once_the_request_has_ended_and_its_answer_was_taken() {
        let place = Arc::new(OpenConnections::new(1)).admit().unwrap();
        let reader = Arc::new(Reader::default());
        let waits = || place.wake_when_idle(&Arc::clone(&reader).into());
        let woken = || reader.0.swap(0, Ordering::Relaxed);
        let since = Instant::now();
        for phase in [Phase::Idle { since }, Phase::Head { since }] {
            place.set_phase(phase);
            assert!(!waits(), "{phase:?}: there is nothing to wait for");
        }
        for phase in [Phase::Body { since }, Phase::Busy] {
            place.set_phase(phase);
            assert!(waits(), "{phase:?}");
            assert_eq!(woken(), 0, "{phase:?}: it is not over");
            place.set_idle();
            assert_eq!(woken(), 1, "{phase:?}");
            place.set_idle();
            assert_eq!(woken(), 0, "who does not wait is not woken");
        }
        place.has_to_send();
        assert!(waits());
        place.has_sent();
        assert_eq!(woken(), 1);
        assert!(!waits());
    }

    #[test]
    fn the_default_fits_the_process() {
        assert!((16..=MAX_DEFAULT).contains(&default_limit()));
    }
}
