//! Forwarded bodies: streamed, never buffered as a whole, and limited in time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// A body that ends with an error if its sender is silent for too long.
///
/// The time counts only while the receiver waits for the sender: a slow receiver delays the sender,
/// not the other way round.
#[derive(Debug)]
pub(crate) struct Watched {
    inner: Body,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Read by the task that waits for the answer to this request.
    activity: Option<Activity>,
}

/// Why a body ended before its end.
#[derive(Debug, Error)]
pub(crate) enum Interrupted {
    #[error("its sender said nothing for {0:?}")]
    Idle(Duration),
    #[error("its sender broke off")]
    Broken(#[source] axum::Error),
}

impl Watched {
    /// The body of a request.
    pub(crate) fn upload(inner: Body, idle: Duration, activity: Activity) -> Body {
        Body::new(Self { inner, idle, timer: None, activity: Some(activity) })
    }

    /// The body of a response.
    pub(crate) fn download(inner: Body, idle: Duration) -> Body {
        Body::new(Self { inner, idle, timer: None, activity: None })
    }

    fn is_idle_for_long(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = self.idle;
        self.timer.get_or_insert_with(|| Box::pin(sleep(idle))).as_mut().poll(cx).is_ready()
    }
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.inner).poll_frame(cx);
        if let Some(activity) = &this.activity {
            // This waits for a client that uploads.
            activity.note(frame.is_pending());
        }
        match frame {
            Poll::Pending if this.is_idle_for_long(cx) => {
                Poll::Ready(Some(Err(Interrupted::Idle(this.idle))))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(frame) => {
                this.timer = None;
                Poll::Ready(frame.map(|frame| frame.map_err(Interrupted::Broken)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// When data last moved; shared by the task that moves it and the one that waits.
#[derive(Debug, Clone)]
pub(crate) struct Activity(Arc<Moved>);

#[derive(Debug)]
struct Moved {
    begin: Instant,
    /// In milliseconds since the start.
    last: AtomicU64,
    /// Whether the next move is by a side that has another time-out.
    elsewhere: AtomicBool,
}

impl Activity {
    pub(crate) fn new() -> Self {
        let begin = Instant::now();
        let (last, elsewhere) = (AtomicU64::new(0), AtomicBool::new(false));
        Self(Arc::new(Moved { begin, last, elsewhere }))
    }

    /// Data has moved; `elsewhere` says whether a side with another time-out moves next.
    pub(crate) fn note(&self, elsewhere: bool) {
        let since = u64::try_from(self.0.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(since, Ordering::Relaxed);
        self.0.elsewhere.store(elsewhere, Ordering::Relaxed);
    }

    /// Returns once nothing has moved for that long.
    pub(crate) async fn stalled(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.0.last.load(Ordering::Relaxed));
            let (now, deadline) = (Instant::now(), self.0.begin + last + limit);
            if self.0.elsewhere.load(Ordering::Relaxed) {
                sleep_until(now + limit).await;
            } else if deadline > now {
                sleep_until(deadline).await;
            } else {
                return;
            }
        }
    }
}
