//! Writes that are acknowledged only when replicas have them.
//!
//! `WAIT` covers what its own connection has written, and blocks that connection. So these writes have a
//! connection beside the one of all other calls, and calls of the same time share one `WAIT`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::cluster_routing::{Route, SingleNodeRoutingInfo, Slot, SlotAddr};
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::{mpsc, oneshot};

use crate::cluster::Cluster;
use crate::connection::{Reconnecting, is_of_replica};

/// How many writes share one `WAIT` at most.
const BATCH: usize = 256;

/// A write for each `WAIT` to cover. Without it, a command that was sent again and changed nothing this time
/// would count as replicated in Valkey, whatever has become of its first time. A full server takes it, too.
const MARK: &str = "#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], '', 'PX', 60000)";

/// Sends writes, and waits for replicas.
pub(crate) struct Replicas {
    way: Way,
    promise: Promise,
    /// A queue for each slot in a cluster; one queue otherwise.
    queues: Mutex<HashMap<Option<Slot>, mpsc::Sender<Waiting>>>,
}

/// The connection for these writes alone.
#[derive(Clone)]
pub(crate) enum Way {
    Own(Arc<Reconnecting>),
    Cluster(Arc<Cluster>),
}

/// How many replicas must have a write, and within which time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promise {
    pub(crate) replicas: u32,
    pub(crate) timeout: Duration,
}

/// A command that somebody waits for; with none, only what was written before.
struct Waiting {
    command: Option<Cmd>,
    /// A key in its slot.
    mark: Vec<u8>,
    answer: oneshot::Sender<RedisResult<Value>>,
}

impl Replicas {
    pub(crate) fn new(way: Way, promise: Promise) -> Self {
        Self { way, promise, queues: Mutex::default() }
    }

    /// Sends a command that has the same effect if it is sent twice.
    pub(crate) async fn send(&self, command: &Cmd, key: &[u8]) -> RedisResult<Value> {
        match self.send_once(command, key).await {
            Err(error) if error.is_connection_dropped() || is_of_replica(&error) => {
                self.send_once(command, key).await
            }
            result => result,
        }
    }

    /// Sends a command to the master of a key. The answer is an error if too few replicas have the write.
    pub(crate) async fn send_once(&self, command: &Cmd, key: &[u8]) -> RedisResult<Value> {
        let answer = self.queue(Some(command.clone()), key).await;
        match (answer, &self.way) {
            // The driver follows these for a command alone.
            (Err(error), Way::Cluster(cluster)) if error.is_cluster_error() => {
                let answer = cluster.send(command).await?.extract_error()?;
                self.queue(None, key).await?;
                Ok(answer)
            }
            (answer, _) => answer,
        }
    }

    async fn queue(&self, command: Option<Cmd>, key: &[u8]) -> RedisResult<Value> {
        let ended =
            || RedisError::from((ErrorKind::Io, "the task that waits for replicas has ended"));
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { command, mark: mark_beside(key), answer };
        let queue = self.queue_of(key);
        queue.send(waiting).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    fn queue_of(&self, key: &[u8]) -> mpsc::Sender<Waiting> {
        let slot = match self.way {
            Way::Own(_) => None,
            Way::Cluster(_) => Some(Slot::for_key(key)),
        };
        let start = || {
            let (queue, waiting) = mpsc::channel(BATCH);
            tokio::spawn(work(self.way.clone(), slot, self.promise, waiting));
            queue
        };
        match self.queues.lock().unwrap_or_else(PoisonError::into_inner).entry(slot) {
            Entry::Occupied(mut queue) => {
                // Its task has ended with the runtime that it was on.
                if queue.get().is_closed() {
                    queue.insert(start());
                }
                queue.get().clone()
            }
            Entry::Vacant(vacant) => vacant.insert(start()).clone(),
        }
    }
}

/// A key in the same slot.
fn mark_beside(key: &[u8]) -> Vec<u8> {
    let tag = key.iter().position(|byte| *byte == b'}').map_or(key, |end| &key[..=end]);
    [tag, b":wait"].concat()
}

/// Sends what has been queued, batch by batch, until nobody is left to queue anything.
async fn work(way: Way, slot: Option<Slot>, promise: Promise, mut queue: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let answers = confirmed(&way, slot, promise, &batch).await;
        for (waiting, answer) in batch.drain(..).zip(answers) {
            // An error means that the caller has gone.
            let _ = waiting.answer.send(answer);
        }
    }
}

/// The answers to these commands; errors unless enough replicas have what they wrote.
async fn confirmed(
    way: &Way,
    slot: Option<Slot>,
    promise: Promise,
    batch: &[Waiting],
) -> Vec<RedisResult<Value>> {
    let mut pipeline = Pipeline::with_capacity(batch.len() + 2);
    for command in batch.iter().filter_map(|waiting| waiting.command.as_ref()) {
        pipeline.add_command(command.clone());
    }
    let mark = batch.first().map(|waiting| &waiting.mark[..]).unwrap_or_default();
    pipeline.cmd("EVAL").arg(MARK).arg(1).arg(mark);
    // No time would mean without end.
    let timeout = promise.timeout.as_millis().max(1).to_string();
    pipeline.cmd("WAIT").arg(promise.replicas).arg(timeout);
    let answers = match way {
        Way::Own(own) => own.send_all(&pipeline).await,
        Way::Cluster(cluster) => {
            let route = slot.map(|slot| Route::with_slot(slot, SlotAddr::Master));
            cluster.send_all(pipeline, SingleNodeRoutingInfo::from(route)).await
        }
    };
    let mut answers = match answers {
        Ok(answers) => answers,
        Err(error) => return batch.iter().map(|_| Err(error.clone())).collect(),
    };
    let have = answers.pop().unwrap_or_default().extract_error();
    let marked = answers.pop().unwrap_or_default().extract_error();
    let outcome = marked.and(have).and_then(|have| promise.is_kept(&have));
    let mut answers = answers.into_iter();
    batch
        .iter()
        .map(|waiting| {
            let answer = match waiting.command {
                Some(_) => answers.next().unwrap_or_default().extract_error()?,
                None => Value::Nil,
            };
            outcome.clone().map(|()| answer)
        })
        .collect()
}

impl Promise {
    fn is_kept(self, have: &Value) -> RedisResult<()> {
        let have = match have {
            Value::Int(have) => *have,
            _ => 0,
        };
        if have >= i64::from(self.replicas) {
            return Ok(());
        }
        let Self { replicas, timeout } = self;
        let detail = format!("{have} of {replicas} within {} ms", timeout.as_millis());
        Err((ErrorKind::Client, "too few replicas have the write", detail).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_in_the_slot_of_its_key() {
        for key in [&b"{shop}:log"[..], b"{shop.3f}:g:0123456789abcdef", b"{shop.uxyz}"] {
            let mark = mark_beside(key);
            assert_eq!(Slot::for_key(&mark), Slot::for_key(key));
            assert!(mark.ends_with(b"}:wait"));
        }
    }
}
