//! What a gateway does with a handle.

use std::sync::Arc;

use cloakroom_core::Scope;
use cloakroom_core::time::{Clock, ClockReading};
use http::Request;
use http::header::{self, HeaderMap, HeaderValue};

use crate::cache::{CachedAnswer, TokenKey};
use crate::error::{SetupError, TokenError};
use crate::freshness::{self, Freshness, WhenStale};
use crate::introspect::Introspector;
use crate::introspect::handle_keys::GatewayKeys;
use crate::introspect::swap::{Replacement, Swap};
use crate::layer::authorization::{Presented, Token, authorization, cookie_token, remove_cookie};
use crate::layer::challenge::{Challenges, Refusal};
use crate::layer::resource_metadata::ResourceMetadata;
use crate::layer::service::{LookUp, Policy};
use crate::layer::step_up::StepUp;
use crate::layer::token_source::{Settings, Terms, TokenSource};
use crate::revocation_replica::RevocationReplica;
use crate::verify::proof::{Proof, Scheme};

#[derive(Debug, Clone)]
pub(crate) struct PhantomPolicy {
    source: Arc<TokenSource<Swap>>,
    settings: Settings,
    replica: Option<RevocationReplica>,
    pub(crate) handle_keys: Option<GatewayKeys>,
    /// As configured, or the default of the replica.
    freshness: Freshness,
    is_named: bool,
    pub(crate) when_stale: WhenStale,
    pub(crate) cookie: Option<Arc<str>>,
    audience: Arc<str>,
    challenges: Challenges,
}

impl PhantomPolicy {
    pub(crate) fn new(introspector: Arc<dyn Introspector>, audience: &str) -> Self {
        let question = Swap { introspector, audience: audience.into() };
        let settings = Settings::default();
        Self {
            source: TokenSource::new(question, settings.clone()),
            settings,
            replica: None,
            handle_keys: None,
            freshness: Freshness::every_request(),
            is_named: false,
            when_stale: WhenStale::default(),
            cookie: None,
            audience: audience.into(),
            challenges: Challenges::new(audience, &Scope::empty(), None, &StepUp::default()),
        }
    }

    pub(crate) fn follow(&mut self, replica: RevocationReplica) {
        if let (false, Some(freshness)) = (self.is_named, freshness::default_of(Some(&replica))) {
            self.freshness = freshness;
        }
        self.replica = Some(replica);
    }

    pub(crate) fn set_freshness(&mut self, freshness: Freshness) -> Result<(), SetupError> {
        if self.when_stale == WhenStale::Refuse {
            freshness::from_replica_alone(freshness, self.replica.as_ref())?;
        }
        (self.freshness, self.is_named) = (freshness, true);
        Ok(())
    }

    pub(crate) fn announce(&mut self, metadata: &ResourceMetadata) {
        self.challenges = Challenges::new(
            &self.audience,
            &Scope::empty(),
            Some(metadata.url()),
            &StepUp::default(),
        );
    }

    /// Starts with an empty memory: what was remembered belongs to other settings.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        self.source = self.source.with(self.settings.clone());
    }

    /// Takes the handle out of a request, with everything that must not go on.
    fn take_handle(&self, headers: &mut HeaderMap) -> Result<Option<(Scheme, Token)>, Refusal> {
        // RFC 9110 §7.6.1: a proxy behind this layer removes what `Connection` names, and would
        // remove the JWT: an authenticated request would be forwarded without a token.
        if names_authorization(headers) {
            return Err(Refusal::InvalidRequest("its `Connection` names `Authorization`"));
        }
        let header = authorization(headers)?;
        let cookie = match &self.cookie {
            Some(name) => cookie_token(headers, name)?,
            None => None,
        };
        headers.remove(header::AUTHORIZATION);
        if let Some(name) = &self.cookie {
            remove_cookie(headers, name);
        }
        match (header, cookie) {
            // RFC 6750 §2: "Clients MUST NOT use more than one method to transmit the token in
            // each request."
            (Some(_), Some(_)) => {
                Err(Refusal::InvalidRequest("it has a token in `Authorization` and in the cookie"))
            }
            (header, cookie) => Ok(header.or(cookie.map(|handle| (Scheme::Bearer, handle)))),
        }
    }

    fn terms(&self, now: ClockReading) -> Terms<'_> {
        Terms {
            now,
            freshness: self.freshness,
            when_stale: self.when_stale,
            replica: self.replica.as_ref(),
            handle_keys: self.handle_keys.as_ref(),
        }
    }
}

impl Policy for PhantomPolicy {
    type Pass = HeaderValue;
    type Pending = TokenKey;

    fn clock(&self) -> &dyn Clock {
        &*self.settings.clock
    }

    fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    fn take_token<B>(&self, request: &mut Request<B>) -> Result<Presented, Refusal> {
        let (scheme, handle) = self.take_handle(request.headers_mut())?.ok_or(Refusal::NoToken)?;
        Ok(Presented::new(scheme, handle, request.extensions()))
    }

    fn look_up(
        &self,
        handle: &str,
        proof: &Proof,
        now: ClockReading,
    ) -> LookUp<Result<HeaderValue, TokenError>, TokenKey> {
        if let Err(why) = proof.check() {
            return LookUp::Done(Err(why.into()));
        }
        let key = TokenKey::of(handle);
        match self.source.look_up(&key, &self.terms(now)) {
            Some(found) => LookUp::Done(found.and_then(|entry| authorized(&entry, proof))),
            None => LookUp::Continue(key),
        }
    }

    async fn resolve(
        &self,
        handle: &str,
        proof: &Proof,
        now: ClockReading,
        key: TokenKey,
    ) -> Result<HeaderValue, TokenError> {
        let entry = self.source.resolve(key, handle, self.terms(now)).await?;
        authorized(&entry, proof)
    }

    fn forward<B>(&self, request: &mut Request<B>, bearer: HeaderValue) -> Result<(), Refusal> {
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        Ok(())
    }
}

fn authorized(
    entry: &CachedAnswer<Arc<Replacement>>,
    proof: &Proof,
) -> Result<HeaderValue, TokenError> {
    // Services behind the gateway cannot check this: the proof is about the handle.
    proof.covers(entry.answer.confirmation.as_ref())?;
    Ok(entry.answer.value.authorization.clone())
}

fn names_authorization(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        // Compared as bytes: a proxy may accept values that are not text.
        let mut names = value.as_bytes().split(|byte| *byte == b',');
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"authorization"))
    })
}
