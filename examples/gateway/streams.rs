//! The streams of one HTTP/2 connection: whether any is open, and whether the client reads the
//! answers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use hyper::rt::Executor;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::body::Activity;

tokio::task_local! {
    /// Whether the client reads the answer of this task's stream.
    static TAKING: Activity;
}

/// Runs the streams of one connection, each on a separate task. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    /// How many are open; `None` before the first.
    open: Arc<watch::Sender<Option<usize>>>,
    stuck: Duration,
}

impl Streams {
    /// A stream is reset if its client reads nothing of the answer for `stuck`. The bytes on the wire
    /// do not show that: a client that ignores one stream may be busy on the others.
    pub(crate) fn new(stuck: Duration) -> Self {
        Self { open: Arc::new(watch::Sender::new(None)), stuck }
    }

    /// Returns once none was open for that long; never if there was none, as on HTTP/1.1.
    pub(crate) async fn unused_for(&self, limit: Duration) {
        let mut open = self.open.subscribe();
        loop {
            let _ = open.wait_for(|open| *open == Some(0)).await;
            if timeout(limit, open.changed()).await.is_err() {
                return;
            }
        }
    }

    /// The answer, watched for whether the client reads it if this task has a stream.
    pub(crate) fn watched(answer: Response) -> Response {
        let Ok(taking) = TAKING.try_with(Activity::clone) else { return answer };
        taking.note(false);
        answer.map(|inner| Body::new(Taken { inner, taking }))
    }
}

/// hyper runs a stream here from the request's head to the end of the answer.
impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (open, stuck, taking) = (Open::new(&self.open), self.stuck, Activity::new());
        tokio::spawn(async move {
            let _open = open;
            // Until its head, the proxy's time-outs bound an answer.
            taking.note(true);
            tokio::select! {
                () = TAKING.scope(taking.clone(), stream) => {}
                () = taking.stalled(stuck) => tracing::debug!("nobody takes the answer"),
            }
        });
    }
}

/// An open stream.
struct Open(Arc<watch::Sender<Option<usize>>>);

impl Open {
    fn new(all: &Arc<watch::Sender<Option<usize>>>) -> Self {
        all.send_modify(|open| *open = Some(open.unwrap_or(0) + 1));
        Self(Arc::clone(all))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.map(|open| open - 1));
    }
}

/// The body of an answer. hyper polls it once the client has room for more.
struct Taken {
    inner: Body,
    taking: Activity,
}

impl hyper::body::Body for Taken {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        self.taking.note(frame.is_pending());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
