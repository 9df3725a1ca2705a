//! The future of the services.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

pin_project! {
    /// The future of [`TokenService`](crate::TokenService) and
    /// [`ResourceMetadataService`](crate::ResourceMetadataService): the inner service's future if the
    /// request goes on at once, or else a future on the heap.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, T> {
        #[pin]
        kind: Kind<F, T>,
    }
}

pin_project! {
    #[project = Projected]
    enum Kind<F, T> {
        Inner {
            #[pin]
            future: F,
        },
        Waiting {
            future: Pin<Box<dyn Future<Output = T> + Send>>,
        },
    }
}

impl<F, T> ResponseFuture<F, T> {
    pub(crate) const fn inner(future: F) -> Self {
        Self { kind: Kind::Inner { future } }
    }

    pub(crate) fn waiting(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self { kind: Kind::Waiting { future: Box::pin(future) } }
    }
}

impl<F: Future<Output = T>, T> Future for ResponseFuture<F, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match self.project().kind.project() {
            Projected::Inner { future } => future.poll(context),
            Projected::Waiting { future } => future.as_mut().poll(context),
        }
    }
}

impl<F, T> fmt::Debug for ResponseFuture<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
