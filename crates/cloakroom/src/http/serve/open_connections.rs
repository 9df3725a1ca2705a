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

impl Phase {
    /// Whether a request is under way, as far as the reader of the stream is concerned.
    pub(super) const fn is_under_way(self) -> bool {
        matches!(self, Self::Body { .. } | Self::Busy)
    }

    /// Since when the peer is waited for, and whether it has begun a request.
    const fn waits(self) -> Option<(bool, Instant)> {
        match self {
            Self::Idle { since } => Some((false, since)),
            Self::Head { since } | Self::Body { since } => Some((true, since)),
            Self::Busy => None,
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
    phase: Mutex<Phase>,
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
            phase: Mutex::new(Phase::Idle { since: Instant::now() }),
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
    /// Closes the connection that has been idle for the longest; if there is none, the one whose peer
    /// has been at its request for the longest. An honest peer sends a request in one go.
    fn make_room(&mut self) -> bool {
        let staying = self.by_number.iter().filter(|(_, state)| !state.is_leaving());
        let waiting = staying.filter_map(|(number, state)| {
            let (has_begun, since) = state.phase().waits()?;
            (since.elapsed() >= MIN_WAIT).then_some(((has_begun, since, *number), state))
        });
        let Some((_, state)) = waiting.min_by_key(|(rank, _)| *rank) else { return false };
        state.is_leaving.store(true, Ordering::Release);
        state.leave.notify_one();
        self.leaving += 1;
        true
    }
}

impl State {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }
}

impl Place {
    pub(super) fn phase(&self) -> Phase {
        *self.state.phase()
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        *self.state.phase() = phase;
    }

    /// Wakes this reader once the connection is idle again. `false` if it is by now.
    pub(super) fn wake_when_idle(&self, reader: &Waker) -> bool {
        *self.reader() = Some(reader.clone());
        // A request that ends from here on finds the reader.
        self.phase().is_under_way()
    }

    /// A request has ended.
    pub(super) fn set_idle(&self) {
        self.set_phase(Phase::Idle { since: Instant::now() });
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
        let mut phase = self.state.phase();
        if *phase == Phase::Busy {
            *phase = Phase::Body { since };
        }
    }

    /// The request under way no longer waits for its body.
    pub(super) fn body_has_come(&self) {
        let mut phase = self.state.phase();
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

    #[test]
    fn the_default_fits_the_process() {
        assert!((16..=MAX_DEFAULT).contains(&default_limit()));
    }
}
