//! What is known about documents, and who waits for one.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::ClientId;
use cloakroom_core::time::UnixTime;
use tokio::sync::watch;

use super::fetch::Failure;
use super::{ClientDocument, Read, Shared};
use crate::client::Client;

/// How long a failure is remembered.
pub(super) const PAUSE: Duration = Duration::from_secs(10);
/// How long a document still counts after its end, while its server cannot be reached.
const STALE: Duration = Duration::from_secs(60 * 60);
/// The most fetches at the same time.
pub(super) const MAX_FLIGHTS: usize = 32;
/// The most of them from one host.
pub(super) const MAX_FLIGHTS_OF_HOST: usize = 4;
/// The most failures that are remembered.
pub(super) const MAX_FAILURES: usize = 1_000;

/// What is known about documents. Strangers choose their URLs, so all of it is bounded, and what one host takes
/// is taken from that host first.
#[derive(Default)]
pub(super) struct Known {
    pub(super) documents: HashMap<ClientId, Kept>,
    pub(super) failures: HashMap<ClientId, Failed>,
    pub(super) flights: HashMap<ClientId, Flight>,
    /// Counts the uses.
    uses: u64,
}

/// A document, and the client that it describes.
pub(super) struct Kept {
    client: Arc<Client>,
    pub(super) document: Arc<ClientDocument>,
    /// When it is fetched again.
    fresh_until: UnixTime,
    /// When it counts no more.
    ends: UnixTime,
    last_use: u64,
}

/// A document that could not be had.
pub(super) struct Failed {
    host: Box<str>,
    until: UnixTime,
    missing: Missing,
}

/// A fetch that is under way.
pub(super) struct Flight {
    host: Box<str>,
    answer: watch::Receiver<Option<Answer>>,
}

/// Why there is no client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Refused,
    Unreachable,
}

pub(super) type Answer = Result<Arc<Client>, Missing>;

pub(super) enum LookUp {
    Known(Answer),
    Joined(watch::Receiver<Option<Answer>>),
    Started(watch::Sender<Option<Answer>>, watch::Receiver<Option<Answer>>),
}

impl Known {
    /// Looks a document up, which is at this host.
    pub(super) fn look_up(&mut self, id: &ClientId, host: &str, now: UnixTime) -> LookUp {
        self.uses += 1;
        if let Some(kept) = self.documents.get_mut(id).filter(|kept| now < kept.fresh_until) {
            kept.last_use = self.uses;
            return LookUp::Known(Ok(Arc::clone(&kept.client)));
        }
        if let Some(failed) = self.failures.get(id).filter(|failed| now < failed.until) {
            return LookUp::Known(Err(failed.missing));
        }
        if let Some(flight) = self.flights.get(id) {
            return LookUp::Joined(flight.answer.clone());
        }
        let of_host = self.flights.values().filter(|flight| *flight.host == *host).count();
        if self.flights.len() >= MAX_FLIGHTS || of_host >= MAX_FLIGHTS_OF_HOST {
            // Strangers can cause as many fetches as there may be. Known clients go on meanwhile.
            let kept = self.documents.get(id).filter(|kept| now < kept.ends);
            return LookUp::Known(match kept {
                Some(kept) => Ok(Arc::clone(&kept.client)),
                None => Err(Missing::Unreachable),
            });
        }
        let (landing, answer) = watch::channel(None);
        let flight = Flight { host: host.into(), answer: answer.clone() };
        self.flights.insert(id.clone(), flight);
        LookUp::Started(landing, answer)
    }

    fn keep(&mut self, id: &ClientId, kept: Kept, at_most: usize) {
        if self.documents.len() >= at_most && !self.documents.contains_key(id) {
            let all = self.documents.iter();
            let all = all.map(|(id, kept)| (id, kept.document.host(), kept.last_use));
            let first = makes_room(all, kept.document.host());
            first.and_then(|first| self.documents.remove(&first));
        }
        if at_most > 0 {
            self.documents.insert(id.clone(), kept);
        }
    }

    pub(super) fn fail(&mut self, id: &ClientId, host: &str, missing: Missing, now: UnixTime) {
        if self.failures.len() >= MAX_FAILURES {
            self.failures.retain(|_, failed| now < failed.until);
        }
        if self.failures.len() >= MAX_FAILURES && !self.failures.contains_key(id) {
            let all = self.failures.iter();
            let all = all.map(|(id, failed)| (id, &*failed.host, failed.until.as_millis()));
            let first = makes_room(all, host);
            first.and_then(|first| self.failures.remove(&first));
        }
        let failed = Failed { host: host.into(), until: now + PAUSE, missing };
        self.failures.insert(id.clone(), failed);
    }
}

/// Which of these makes room for one more of this host: the one with the lowest number, of the host that has the
/// most.
fn makes_room<'a>(
    all: impl Iterator<Item = (&'a ClientId, &'a str, u64)> + Clone,
    host: &'a str,
) -> Option<ClientId> {
    let mut number_of = HashMap::from([(host, 1_usize)]);
    for (_, host, _) in all.clone() {
        *number_of.entry(host).or_default() += 1;
    }
    let first = all.min_by_key(|(_, host, number)| (Reverse(number_of.get(host)), *number));
    first.map(|(id, ..)| id.clone())
}

/// Ends a flight, even if its task panics.
pub(super) struct Landing<'a> {
    pub(super) shared: &'a Shared,
    pub(super) id: &'a ClientId,
    pub(super) host: &'a str,
    pub(super) landing: watch::Sender<Option<Answer>>,
    /// When the fetch began.
    pub(super) asked: UnixTime,
}

impl Landing<'_> {
    pub(super) fn land(self, read: Result<Read, Failure>) {
        let Self { shared, id, host, .. } = self;
        let now = shared.clock.now();
        let mut known = shared.known();
        known.failures.remove(id);
        let answer = match read {
            Ok(Read { client, document, life }) => {
                let answer = Arc::clone(&client);
                let fresh_until = self.asked + life;
                let last_use = known.uses;
                let ends = fresh_until + STALE;
                let kept = Kept { client, document, fresh_until, ends, last_use };
                known.keep(id, kept, shared.max_documents);
                Ok(answer)
            }
            Err(Failure::Refused(why)) => {
                tracing::debug!(client = %id, why, "a client metadata document is refused");
                known.documents.remove(id);
                known.fail(id, host, Missing::Refused, now);
                Err(Missing::Refused)
            }
            Err(Failure::Unreachable(error)) => {
                let error: &dyn std::error::Error = &*error;
                tracing::debug!(client = %id, error, "a client metadata document cannot be fetched");
                match known.documents.get_mut(id).filter(|kept| now < kept.ends) {
                    Some(kept) => {
                        kept.fresh_until = now + PAUSE;
                        Ok(Arc::clone(&kept.client))
                    }
                    None => {
                        known.documents.remove(id);
                        known.fail(id, host, Missing::Unreachable, now);
                        Err(Missing::Unreachable)
                    }
                }
            }
        };
        // Together with the answer: nobody starts another flight in between.
        known.flights.remove(id);
        drop(known);
        self.landing.send_replace(Some(answer));
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        // After a panic. Otherwise the next flight may be there already.
        let (mut known, own) = (self.shared.known(), self.landing.subscribe());
        if known.flights.get(self.id).is_some_and(|flight| flight.answer.same_channel(&own)) {
            known.flights.remove(self.id);
        }
    }
}
