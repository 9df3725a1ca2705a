//! A future that runs to completion once it has been polled.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tracing::{Instrument as _, Span};

/// Polls its future in place, so that no task is spawned while the caller stays. If it is dropped
/// before the future is ready, the future moves to a task of the runtime that polled it.
///
/// If it is dropped before the first poll, the future never runs. A future that panicked is not
/// polled again. Without a Tokio runtime, or when the runtime ends, the future is dropped, and the
/// [`Write`](super::Write) in it reports that the outcome is unknown.
#[must_use = "nothing is written until it is polled"]
pub(crate) struct Finish<T: Send + 'static> {
    /// Boxed, so that it can move after it was polled; `None` while it is polled and when it is
    /// ready.
    rest: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    /// Where the rest runs if this is dropped; set by the first poll that has to wait.
    fallback: Option<(Handle, Span)>,
}

impl<T: Send + 'static> Finish<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self { rest: Some(Box::pin(future)), fallback: None }
    }
}

impl<T: Send + 'static> Future for Finish<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // A future that is ready is not polled again.
        let Some(mut rest) = self.rest.take() else { return Poll::Pending };
        let poll = rest.as_mut().poll(cx);
        if poll.is_pending() {
            self.rest = Some(rest);
            if self.fallback.is_none() {
                self.fallback = Handle::try_current().ok().map(|handle| (handle, Span::current()));
            }
        }
        poll
    }
}

impl<T: Send + 'static> Drop for Finish<T> {
    fn drop(&mut self) {
        if let (Some(rest), Some((runtime, span))) = (self.rest.take(), self.fallback.take()) {
            runtime.spawn(async move { drop(rest.await) }.instrument(span));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    /// Says whether it was dropped or done.
    struct Fate(Option<oneshot::Sender<bool>>);

    impl Drop for Fate {
        fn drop(&mut self) {
            if let Some(told) = self.0.take() {
                told.send(false).unwrap();
            }
        }
    }

    /// Work that waits for a gate, the gate, and what becomes of the work.
    fn gated() -> (Finish<()>, oneshot::Sender<()>, oneshot::Receiver<bool>) {
        let ((open, gate), (told, fate)) = (oneshot::channel(), oneshot::channel());
        let mut told = Fate(Some(told));
        let work = Finish::new(async move {
            gate.await.unwrap();
            told.0.take().unwrap().send(true).unwrap();
        });
        (work, open, fate)
    }

    async fn poll_once(work: &mut Finish<()>) {
        std::future::poll_fn(|cx| {
            assert!(Pin::new(&mut *work).poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_polled_runs_to_its_end_and_what_was_not_never_begins() {
        let (mut work, open, fate) = gated();
        poll_once(&mut work).await;
        drop(work);
        open.send(()).unwrap();
        assert!(fate.await.unwrap());

        let (work, open, fate) = gated();
        drop(work);
        assert!(!fate.await.unwrap());
        assert!(open.is_closed());
    }

    #[test]
    fn it_may_be_dropped_outside_of_the_runtime_that_polled_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut work, open, fate) = gated();
        runtime.block_on(poll_once(&mut work));
        std::thread::spawn(move || drop(work)).join().unwrap();
        open.send(()).unwrap();
        assert!(runtime.block_on(fate).unwrap());
    }

    #[test]
    fn when_the_runtime_ends_the_rest_is_dropped_and_nothing_panics() {
        let (mut work, _open, mut fate) = gated();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            poll_once(&mut work).await;
            tokio::spawn(async move {
                let _held = work;
                std::future::pending::<()>().await;
            });
            tokio::task::yield_now().await;
        });
        assert!(fate.try_recv().is_err(), "it is still held");
        drop(runtime);
        assert!(!fate.try_recv().unwrap());

        // Dropped after the runtime has ended.
        let (mut work, _open, mut fate) = gated();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(poll_once(&mut work));
        drop(runtime);
        drop(work);
        assert!(!fate.try_recv().unwrap());
    }

    #[test]
    fn without_a_runtime_it_works_and_is_dropped_with_its_caller() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let (mut work, open, mut fate) = gated();
        assert!(Pin::new(&mut work).poll(&mut cx).is_pending());
        open.send(()).unwrap();
        assert!(Pin::new(&mut work).poll(&mut cx).is_ready());
        assert!(fate.try_recv().unwrap());

        let (mut work, _open, mut fate) = gated();
        assert!(Pin::new(&mut work).poll(&mut cx).is_pending());
        drop(work);
        assert!(!fate.try_recv().unwrap());
    }

    #[tokio::test]
    async fn what_panicked_is_not_polled_again() {
        let polled = Arc::new(AtomicBool::new(false));
        let again = polled.clone();
        let mut work = Finish::new(async move {
            std::future::poll_fn(move |_| {
                assert!(!again.swap(true, Ordering::SeqCst), "for the test");
                Poll::<()>::Pending
            })
            .await;
        });
        poll_once(&mut work).await;
        let panicked = tokio::spawn(work).await;
        assert!(panicked.unwrap_err().is_panic());
        tokio::task::yield_now().await;
    }

    #[tokio::test]
    async fn the_span_of_the_caller_goes_with_it() {
        let _heard = tracing::subscriber::set_default(
            tracing_subscriber::fmt().with_writer(std::io::sink).finish(),
        );
        let ((open, gate), (told, span)) = (oneshot::channel(), oneshot::channel());
        let work = Finish::new(async move {
            let () = gate.await.unwrap();
            told.send(Span::current().id()).unwrap();
        });
        let (caller, mut work) = (tracing::info_span!("caller"), work);
        poll_once(&mut work).instrument(caller.clone()).await;
        drop(work);
        open.send(()).unwrap();
        let seen = span.await.unwrap();
        assert!(seen.is_some());
        assert_eq!(seen, caller.id());
    }
}
