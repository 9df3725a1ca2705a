//! Commands of many callers, each batch of which ends with the question for the server's time. Those that arrive while
//! others are under way are sent together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis::{Cmd, ErrorKind, Pipeline, RedisResult, Value};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use crate::connection::Reconnecting;
use crate::reply::milliseconds;

/// The most commands in a batch.
const BATCH: usize = 128;

/// How many commands go out by themselves at the same time.
const ALONE: usize = 2;

/// How many batches are under way at the same time: while the server answers one, the next is gathered.
const UNDER_WAY: usize = 2;

/// The most commands that may wait. Beyond that, a store whose server does not answer fails instead of using more
/// and more memory.
const QUEUE: usize = 16_384;

/// What the server answered.
pub(crate) struct Answer {
    pub(crate) value: Value,
    /// The server's time after the command, in milliseconds since 1970.
    pub(crate) time: u64,
}

struct Job {
    command: Cmd,
    reply: oneshot::Sender<RedisResult<Answer>>,
}

/// Where commands are gathered. Its tasks end when it is dropped.
pub(crate) struct Batches {
    to: Arc<Reconnecting>,
    alone: AtomicUsize,
    queue: mpsc::Sender<Job>,
}

impl Batches {
    pub(crate) fn start(to: &Arc<Reconnecting>) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..UNDER_WAY {
            tokio::spawn(work(Arc::clone(to), Arc::clone(&jobs)));
        }
        Self { to: Arc::clone(to), alone: AtomicUsize::new(0), queue }
    }

    /// Sends a command, once. An error of the server is an error.
    pub(crate) async fn send(&self, command: Cmd) -> RedisResult<Answer> {
        {
            let _alone = Alone(&self.alone);
            if self.alone.fetch_add(1, Ordering::Relaxed) < ALONE {
                return send_one(&self.to, command).await;
            }
        }
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Job { command, reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err((ErrorKind::Client, "too many commands are waiting").into());
            }
            // The runtime on which the store was opened has ended.
            Err(TrySendError::Closed(job)) => return send_one(&self.to, job.command).await,
        }
        // It may wait for a batch that gets no answer, and then for its own.
        match timeout(self.to.response(), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err((ErrorKind::Client, "the task that sends has ended").into()),
            Err(elapsed) => Err(std::io::Error::from(elapsed).into()),
        }
    }
}

/// Counts a command that goes out by itself, until it ends or is dropped.
struct Alone<'a>(&'a AtomicUsize);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends one batch after the other. What arrives meanwhile is in the next one.
async fn work(to: Arc<Reconnecting>, jobs: Arc<Mutex<mpsc::Receiver<Job>>>) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        if jobs.lock().await.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        // No command is sent for callers that have gone away.
        let waiting = batch.drain(..).filter(|job| !job.reply.is_closed());
        let (commands, replies): (Vec<_>, Vec<_>) =
            waiting.map(|job| (job.command, job.reply)).unzip();
        if commands.is_empty() {
            continue;
        }
        match send_all(&to, commands).await {
            Ok((answers, time)) => {
                for (reply, answer) in replies.into_iter().zip(answers) {
                    let _ = reply.send(answer.extract_error().map(|value| Answer { value, time }));
                }
            }
            Err(error) => {
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }
}

async fn send_one(to: &Reconnecting, command: Cmd) -> RedisResult<Answer> {
    Answer::read(Box::pin(to.send_all(&timed([command]))).await?)
}

async fn send_all(to: &Reconnecting, commands: Vec<Cmd>) -> RedisResult<(Vec<Value>, u64)> {
    read(to.send_all(&timed(commands)).await?)
}

/// The commands, and after them the question for the server's time.
pub(crate) fn timed(commands: impl IntoIterator<Item = Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::new();
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline.cmd("TIME");
    pipeline
}

impl Answer {
    /// Reads the answers to one [`timed`] command.
    pub(crate) fn read(answers: Vec<Value>) -> RedisResult<Self> {
        let (mut answers, time) = read(answers)?;
        match answers.pop() {
            Some(value) => Ok(Self { value: value.extract_error()?, time }),
            None => Err((ErrorKind::UnexpectedReturnType, "no answer").into()),
        }
    }
}

/// The answers to [`timed`] commands, errors of the server among them, and the server's time in milliseconds since 1970.
fn read(mut answers: Vec<Value>) -> RedisResult<(Vec<Value>, u64)> {
    let time = answers.pop().unwrap_or(Value::Nil).extract_error()?;
    let time = milliseconds(&time).ok_or((ErrorKind::UnexpectedReturnType, "not a time"))?;
    Ok((answers, time))
}
