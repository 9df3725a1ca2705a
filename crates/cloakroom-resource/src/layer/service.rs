//! The tower service under both layers.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use cloakroom_core::time::{Clock, ClockReading};
use http::{Request, Response};
use tower_service::Service;

use crate::error::TokenError;
use crate::layer::authorization::Presented;
use crate::layer::bearer_policy::BearerPolicy;
use crate::layer::challenge::{Challenges, Refusal};
use crate::layer::phantom_policy::PhantomPolicy;
use crate::layer::response_future::ResponseFuture;
use crate::verify::proof::{Proof, Scheme};

/// What memory and the replica say about a token.
#[derive(Debug)]
pub(crate) enum LookUp<D, P> {
    /// The decision.
    Done(D),
    /// What the slow path needs, so that it neither hashes nor looks up a second time.
    Continue(P),
}

/// What differs between the layers.
pub(crate) trait Policy: Send + Sync + 'static {
    /// What a good token puts into the request.
    type Pass: Send;
    /// What is left to do if memory does not decide.
    type Pending: Send;

    fn clock(&self) -> &dyn Clock;

    fn challenges(&self) -> &Challenges;

    /// Takes the token of a request. From here on, traces of the request do not show it.
    fn take_token<B>(&self, request: &mut Request<B>) -> Result<Presented, Refusal>;

    /// Whether a request without a token is passed on, prepared for the service inside.
    fn passes_without_token<B>(&self, _request: &mut Request<B>) -> bool {
        false
    }

    /// Decides about the token of a request that began at `now`, where that needs no waiting.
    fn look_up(
        &self,
        token: &str,
        proof: &Proof,
        now: ClockReading,
    ) -> LookUp<Result<Self::Pass, TokenError>, Self::Pending>;

    /// Does what [`look_up`](Self::look_up) left to do.
    fn resolve(
        &self,
        token: &str,
        proof: &Proof,
        now: ClockReading,
        pending: Self::Pending,
    ) -> impl Future<Output = Result<Self::Pass, TokenError>> + Send;

    /// Prepares a request with a good token for the service inside.
    fn forward<B>(&self, request: &mut Request<B>, pass: Self::Pass) -> Result<(), Refusal>;
}

/// The service that [`BearerLayer`](crate::BearerLayer) and [`PhantomLayer`](crate::PhantomLayer)
/// make.
#[derive(Debug, Clone)]
pub struct TokenService<S> {
    inner: S,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Bearer(Arc<BearerPolicy>),
    Phantom(Arc<PhantomPolicy>),
}

impl<S> TokenService<S> {
    pub(crate) fn bearer(inner: S, policy: &Arc<BearerPolicy>) -> Self {
        Self { inner, kind: Kind::Bearer(Arc::clone(policy)) }
    }

    pub(crate) fn phantom(inner: S, policy: &Arc<PhantomPolicy>) -> Self {
        Self { inner, kind: Kind::Phantom(Arc::clone(policy)) }
    }
}

impl<S, B, R> Service<Request<B>> for TokenService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match &self.kind {
            Kind::Bearer(policy) => serve(policy, &mut self.inner, request),
            Kind::Phantom(policy) => serve(policy, &mut self.inner, request),
        }
    }
}

fn serve<P, S, B, R>(
    policy: &Arc<P>,
    inner: &mut S,
    mut request: Request<B>,
) -> ResponseFuture<S::Future, Result<Response<R>, S::Error>>
where
    P: Policy,
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    let now = ClockReading::now(policy.clock());
    let Presented { token, scheme, proof } = match policy.take_token(&mut request) {
        Ok(presented) => presented,
        Err(Refusal::NoToken) if policy.passes_without_token(&mut request) => {
            return ResponseFuture::inner(inner.call(request));
        }
        Err(refusal) => {
            tracing::debug!(reason = refusal.reason(), "request refused");
            return refuse(policy, inner, refusal, Scheme::Bearer);
        }
    };
    let pending = match policy.look_up(token.expose(), &proof, now) {
        // Nothing is copied for a request that does not have to wait.
        LookUp::Done(decision) => {
            return match admit(&**policy, &mut request, decision) {
                Ok(()) => ResponseFuture::inner(inner.call(request)),
                Err(refusal) => refuse(policy, inner, refusal, scheme),
            };
        }
        LookUp::Continue(pending) => pending,
    };
    let (policy, mut inner) = (Arc::clone(policy), take_ready(inner));
    ResponseFuture::waiting(async move {
        let decision = policy.resolve(token.expose(), &proof, now, pending).await;
        drop(token);
        match admit(&*policy, &mut request, decision) {
            Ok(()) => inner.call(request).await,
            Err(refusal) => Ok(policy.challenges().response(refusal, scheme)),
        }
    })
}

/// Decides about a request, without a service inside.
///
/// # Errors
///
/// The response, if the request is refused.
pub(crate) async fn check<P: Policy, B>(
    policy: &P,
    mut request: Request<B>,
) -> Result<Request<B>, Response<()>> {
    let now = ClockReading::now(policy.clock());
    let Presented { token, scheme, proof } = match policy.take_token(&mut request) {
        Ok(presented) => presented,
        Err(Refusal::NoToken) if policy.passes_without_token(&mut request) => return Ok(request),
        Err(refusal) => {
            tracing::debug!(reason = refusal.reason(), "request refused");
            return Err(policy.challenges().response(refusal, Scheme::Bearer));
        }
    };
    let decision = match policy.look_up(token.expose(), &proof, now) {
        LookUp::Done(decision) => decision,
        LookUp::Continue(pending) => {
            // On the heap: the future of a request that is answered from memory stays small.
            Box::pin(policy.resolve(token.expose(), &proof, now, pending)).await
        }
    };
    match admit(policy, &mut request, decision) {
        Ok(()) => Ok(request),
        Err(refusal) => Err(policy.challenges().response(refusal, scheme)),
    }
}

fn admit<P: Policy, B>(
    policy: &P,
    request: &mut Request<B>,
    decision: Result<P::Pass, TokenError>,
) -> Result<(), Refusal> {
    match decision {
        Ok(pass) => policy.forward(request, pass),
        Err(error) => {
            crate::trace_refusal(&error);
            Err(Refusal::from(&error))
        }
    }
}

fn refuse<P, S, F, R, E>(
    policy: &Arc<P>,
    inner: &mut S,
    refusal: Refusal,
    scheme: Scheme,
) -> ResponseFuture<F, Result<Response<R>, E>>
where
    P: Policy,
    S: Clone,
    R: Default,
{
    drop(take_ready(inner));
    let policy = Arc::clone(policy);
    ResponseFuture::waiting(async move { Ok(policy.challenges().response(refusal, scheme)) })
}

/// The service that was polled ready. It has to be called, or dropped to release what it reserved; its
/// clone may not be ready.
pub(crate) fn take_ready<S: Clone>(inner: &mut S) -> S {
    let clone = inner.clone();
    mem::replace(inner, clone)
}
