//! What the clients did, and what they were answered, by one clock.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The time since the history began.
pub(crate) type Time = Duration;

/// A token. Equal tokens have equal text.
pub(crate) type Token = Arc<str>;

/// What a login or a refresh brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) refresh: Token,
    pub(crate) access: Token,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer<T> {
    Yes(T),
    /// The server could not say. It may have taken effect.
    Unknown,
    /// `invalid_grant`, and why.
    Refused(String),
}

/// What is revoked: a session or a user, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Of {
    Session(u32),
    User(u32),
}

/// What a client did.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "a conviction shows all of it")]
pub(crate) enum Deed {
    LogIn {
        session: u32,
        user: u32,
        answer: Answer<Tokens>,
    },
    Refresh {
        session: u32,
        presented: Token,
        answer: Answer<Tokens>,
    },
    Revoke {
        of: Of,
        answer: Answer<()>,
    },
    /// The answer says whether the access token is active.
    Introspect {
        session: u32,
        access: Token,
        answer: Answer<bool>,
    },
}

impl Deed {
    pub(crate) const fn is_unknown(&self) -> bool {
        match self {
            Self::LogIn { answer, .. } | Self::Refresh { answer, .. } => {
                matches!(answer, Answer::Unknown)
            }
            Self::Revoke { answer, .. } => matches!(answer, Answer::Unknown),
            Self::Introspect { answer, .. } => matches!(answer, Answer::Unknown),
        }
    }

    /// Whether it was acknowledged and changed the store.
    pub(crate) const fn is_written(&self) -> bool {
        match self {
            Self::LogIn { answer, .. } | Self::Refresh { answer, .. } => {
                matches!(answer, Answer::Yes(_))
            }
            Self::Revoke { answer, .. } => matches!(answer, Answer::Yes(())),
            Self::Introspect { .. } => false,
        }
    }
}

/// A deed, with the time just before it was sent and just after its answer came.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "a conviction shows all of it")]
pub(crate) struct Entry {
    pub(crate) server: usize,
    pub(crate) begun: Time,
    pub(crate) ended: Time,
    pub(crate) deed: Deed,
}

/// What a server reported as an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// `store_regressed`, and how it was noticed.
    Regressed(String),
    /// `revoked`.
    Revoked(Of),
    /// `reuse_detected`, for a session.
    Reused(u32),
}

/// A fail-over: from before the fault until all servers of the database were whole, and every
/// authorization server had read the log of the new primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FailOver {
    pub(crate) begun: Time,
    pub(crate) settled: Time,
}

/// All that happened.
#[derive(Debug, Default, Clone)]
pub(crate) struct Facts {
    pub(crate) entries: Vec<Entry>,
    pub(crate) reports: Vec<(Time, Report)>,
    pub(crate) fail_overs: Vec<FailOver>,
}

impl Facts {
    /// Whose session this is.
    pub(crate) fn user(&self, number: u32) -> Option<u32> {
        self.entries.iter().find_map(|entry| match entry.deed {
            Deed::LogIn { session, user, .. } if session == number => Some(user),
            _ => None,
        })
    }
}

/// Gathers facts.
#[derive(Debug)]
pub(crate) struct History {
    start: Instant,
    facts: Mutex<Facts>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), facts: Mutex::default() }
    }

    pub(crate) fn now(&self) -> Time {
        self.start.elapsed()
    }

    pub(crate) fn note(&self, server: usize, begun: Time, deed: Deed) {
        let entry = Entry { server, begun, ended: self.now(), deed };
        self.facts.lock().unwrap().entries.push(entry);
    }

    pub(crate) fn report(&self, report: Report) {
        self.facts.lock().unwrap().reports.push((self.now(), report));
    }

    pub(crate) fn failed_over(&self, fail_over: FailOver) {
        self.facts.lock().unwrap().fail_overs.push(fail_over);
    }

    /// How many writes were acknowledged that began after this.
    pub(crate) fn written_since(&self, time: Time) -> usize {
        let facts = self.facts.lock().unwrap();
        let lately = facts.entries.iter().rev().take_while(|entry| entry.ended >= time);
        lately.filter(|entry| entry.begun >= time && entry.deed.is_written()).count()
    }

    pub(crate) fn facts(&self) -> Facts {
        self.facts.lock().unwrap().clone()
    }
}
