//! What a [`BearerLayer`](crate::BearerLayer) does with a token.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::time::{Clock, ClockReading};
use cloakroom_core::{Confirmation, InvalidValue, Scope};
use http::header;
use http::{Request, Response};

use crate::cache::revocation_check::RevocationCheck;
use crate::cache::{CachedAnswer, TokenKey};
use crate::error::{InvalidToken, SetupError, TokenError, UnavailableError};
use crate::freshness::{self, Freshness, WhenStale};
use crate::introspect::Introspector;
use crate::introspect::answer::{Introspect, is_in_time};
use crate::introspect::handle_keys::GatewayKeys;
use crate::layer::authorization::{Presented, authorization};
use crate::layer::challenge::{Challenges, Refusal};
use crate::layer::resource_metadata::ResourceMetadata;
use crate::layer::service::{LookUp, Policy};
use crate::layer::step_up::StepUp;
use crate::layer::token_source::{Settings, Terms, TokenSource};
use crate::metrics::{Event, Of, count};
use crate::revocation_replica::RevocationReplica;
use crate::verify::cached::{GoodJwt, JwtTerms};
use crate::verify::proof::{Proof, Scheme};
use crate::verify::token::VerifiedToken;
use crate::verify::{Verifier, is_jwt_shaped};

/// What is left to do for a token that memory does not decide about.
#[derive(Debug)]
pub(crate) enum Pending {
    /// The JWT has to be verified, and is to be remembered under this key.
    Verify(Option<TokenKey>),
    /// The token has to be introspected.
    Introspect(TokenKey),
    /// The JWT is good, but has to be introspected to learn whether it is revoked.
    Vouch(TokenKey, VerifiedToken),
}

#[derive(Debug, Clone)]
pub(crate) struct BearerPolicy {
    verifier: Option<Verifier>,
    source: Option<Arc<TokenSource<Introspect>>>,
    settings: Settings,
    issuer: Arc<str>,
    audience: Arc<str>,
    replica: Option<RevocationReplica>,
    pub(crate) handle_keys: Option<GatewayKeys>,
    /// As configured, or the default of the replica.
    freshness: Option<Freshness>,
    is_named: bool,
    pub(crate) when_stale: WhenStale,
    required: Scope,
    /// The URL of the announced metadata.
    metadata: Option<Arc<str>>,
    step_up: Option<StepUp>,
    /// Whether requests without a token pass.
    pub(crate) is_optional: bool,
    pub(crate) challenges: Challenges,
}

impl BearerPolicy {
    pub(crate) fn verifying(verifier: Verifier) -> Self {
        let settings = Settings { clock: Arc::clone(verifier.own_clock()), ..Settings::default() };
        let mut policy = Self::new(verifier.issuer(), verifier.audience(), settings);
        if let Some(replica) = verifier.own_replica() {
            policy.follow(replica.clone());
        }
        policy.verifier = Some(verifier);
        policy
    }

    pub(crate) fn introspecting(
        introspector: Arc<dyn Introspector>,
        issuer: &str,
        audience: &str,
    ) -> Self {
        let mut policy = Self::new(issuer, audience, Settings::default());
        policy.introspect_by(introspector);
        policy
    }

    fn new(issuer: &str, audience: &str, settings: Settings) -> Self {
        Self {
            verifier: None,
            source: None,
            settings,
            issuer: issuer.into(),
            audience: audience.into(),
            replica: None,
            handle_keys: None,
            freshness: None,
            is_named: false,
            when_stale: WhenStale::default(),
            required: Scope::empty(),
            metadata: None,
            step_up: None,
            is_optional: false,
            challenges: Challenges::new(audience, &Scope::empty(), None, &StepUp::default()),
        }
    }

    pub(crate) fn introspect_by(&mut self, introspector: Arc<dyn Introspector>) {
        let question = Introspect {
            introspector,
            issuer: Arc::clone(&self.issuer),
            audience: Arc::clone(&self.audience),
            verifies_jwts: self.verifier.is_some(),
        };
        self.source = Some(TokenSource::new(question, self.settings.clone()));
    }

    /// Starts with an empty memory: what was remembered belongs to other settings.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        if let Some(source) = &self.source {
            self.source = Some(source.with(self.settings.clone()));
        }
    }

    pub(crate) fn keep_time(&mut self, clock: Arc<dyn Clock>) {
        self.verifier = self.verifier.take().map(|verifier| verifier.clock(Arc::clone(&clock)));
        self.change(|settings| settings.clock = clock);
    }

    pub(crate) fn follow(&mut self, replica: RevocationReplica) {
        if !self.is_named {
            self.freshness = freshness::default_of(Some(&replica));
        }
        self.replica = Some(replica);
    }

    pub(crate) fn set_freshness(&mut self, freshness: Freshness) -> Result<(), SetupError> {
        if self.source.is_none() {
            freshness::without_introspection(freshness, self.replica.as_ref())?;
        }
        (self.freshness, self.is_named) = (Some(freshness), true);
        Ok(())
    }

    pub(crate) fn require(&mut self, scope: &str) -> Result<(), InvalidValue> {
        self.required = self.required_and(scope)?;
        self.challenges = self.challenges_for(&self.required);
        Ok(())
    }

    pub(crate) fn announce(&mut self, metadata: &ResourceMetadata) {
        self.metadata = Some(metadata.url().into());
        self.challenges = self.challenges_for(&self.required);
    }

    fn required_and(&self, scope: &str) -> Result<Scope, InvalidValue> {
        let all = [self.required.as_str(), scope];
        let all: Vec<&str> = all.into_iter().filter(|part| !part.is_empty()).collect();
        Scope::parse(&all.join(" "))
    }

    fn challenges_for(&self, required: &Scope) -> Challenges {
        let none = StepUp::default();
        let step_up = self.step_up.as_ref().unwrap_or(&none);
        let metadata = self.metadata.as_deref();
        let mut challenges = Challenges::new(&self.audience, required, metadata, step_up);
        challenges.is_grpc = self.challenges.is_grpc;
        challenges
    }

    /// The refusal of a token that lacks some of this scope, beside what the layer requires.
    pub(crate) fn insufficient_scope<B: Default>(
        &self,
        token: &VerifiedToken,
        scope: &Scope,
    ) -> Response<B> {
        // Too many values for one scope: those of the handler are what the token lacks.
        let all = self.required_and(scope.as_str()).unwrap_or_else(|_| scope.clone());
        let is_dpop = matches!(token.token().confirmation, Some(Confirmation::JwkThumbprint(_)));
        let scheme = if is_dpop { Scheme::Dpop } else { Scheme::Bearer };
        self.challenges_for(&all).response(Refusal::InsufficientScope, scheme)
    }

    pub(crate) fn resource_metadata(&self) -> Result<ResourceMetadata, SetupError> {
        let metadata = ResourceMetadata::new(&self.audience, &self.issuer)?;
        let others = self.verifier.iter().flat_map(Verifier::other_issuers);
        Ok(others.fold(metadata, ResourceMetadata::authorization_server))
    }

    pub(crate) fn require_sign_in(
        &mut self,
        max_age: Option<Duration>,
        acr_values: &str,
    ) -> Result<(), InvalidValue> {
        self.step_up = Some(StepUp::new(max_age, acr_values)?);
        self.challenges = self.challenges_for(&self.required);
        Ok(())
    }

    /// Decides about a JWT in which nothing is wrong: what is known of revocations may be too old.
    fn vouch(
        &self,
        jwt: GoodJwt,
        key: impl FnOnce() -> TokenKey,
        now: ClockReading,
    ) -> LookUp<Result<VerifiedToken, TokenError>, Pending> {
        let (jwt, check) = match jwt {
            GoodJwt::Fresh(jwt) => return LookUp::Done(Ok(jwt)),
            GoodJwt::NotFresh(jwt, check) => (jwt, check),
        };
        let source = match self.introspection_of(&jwt, check) {
            Ok(source) => source,
            Err(error) => return LookUp::Done(Err(error)),
        };
        let key = key();
        match source.look_up(&key, &self.vouching_terms(now)) {
            Some(found) => LookUp::Done(found.map(|_| jwt)),
            None => LookUp::Continue(Pending::Vouch(key, jwt)),
        }
    }

    /// Whether a JWT whose revocation is not known freshly enough may be introspected.
    ///
    /// # Errors
    ///
    /// Why it is refused instead.
    fn introspection_of(
        &self,
        jwt: &VerifiedToken,
        check: RevocationCheck,
    ) -> Result<&Arc<TokenSource<Introspect>>, TokenError> {
        let asks_for_every_request = self.freshness.and_then(Freshness::bound).is_none();
        let refuses = self.when_stale == WhenStale::Refuse && !asks_for_every_request;
        // Clients never hold phantom JWTs, and the authorization server reports them as inactive. That
        // says nothing about the handle.
        let is_phantom = jwt.handle_hash().is_some();
        match &self.source {
            Some(source) if !(is_phantom || refuses && check == RevocationCheck::Stale) => {
                Ok(source)
            }
            // It only gets older, whereas a replica may catch up, or a gateway may bring another JWT.
            None if self.replica.is_none() && !is_phantom => Err(InvalidToken::TooOld.into()),
            _ => {
                count(Of::Jwt, Event::StaleRefusal);
                Err(UnavailableError::Stale.into())
            }
        }
    }

    /// The verifier for this token. With introspection, opaque tokens have none.
    fn verifier_of(&self, token: &str) -> Option<&Verifier> {
        self.verifier.as_ref().filter(|_| self.source.is_none() || is_jwt_shaped(token))
    }

    fn jwt_terms<'a>(&'a self, proof: &'a Proof, now: ClockReading) -> JwtTerms<'a> {
        let (freshness, is_named) = (self.freshness, self.is_named);
        JwtTerms { proof, freshness, is_named, replica: self.replica.as_ref(), now }
    }

    /// The terms on which a JWT is introspected that was verified here.
    fn vouching_terms(&self, now: ClockReading) -> Terms<'_> {
        Terms { when_stale: WhenStale::Introspect, ..self.terms(now) }
    }

    /// Without a freshness and a replica, every opaque token is introspected for every request.
    fn terms(&self, now: ClockReading) -> Terms<'_> {
        Terms {
            now,
            freshness: self.freshness.unwrap_or(Freshness::every_request()),
            when_stale: self.when_stale,
            replica: self.replica.as_ref(),
            handle_keys: None,
        }
    }
}

impl Policy for BearerPolicy {
    type Pass = VerifiedToken;
    type Pending = Pending;

    fn clock(&self) -> &dyn Clock {
        &*self.settings.clock
    }

    fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    fn take_token<B>(&self, request: &mut Request<B>) -> Result<Presented, Refusal> {
        // Traces of the request's headers show no token. Not by `entry`, which may grow the map.
        for (name, value) in request.headers_mut() {
            if *name == header::AUTHORIZATION {
                value.set_sensitive(true);
            }
        }
        let (scheme, token) = authorization(request.headers())?.ok_or(Refusal::NoToken)?;
        Ok(Presented::new(scheme, token, request.extensions()))
    }

    fn passes_without_token<B>(&self, request: &mut Request<B>) -> bool {
        if self.is_optional {
            request.extensions_mut().insert(Anonymous);
        }
        self.is_optional
    }

    fn look_up(
        &self,
        token: &str,
        proof: &Proof,
        now: ClockReading,
    ) -> LookUp<Result<VerifiedToken, TokenError>, Pending> {
        if let Err(why) = proof.check() {
            return LookUp::Done(Err(why.into()));
        }
        if let Some(verifier) = self.verifier_of(token) {
            let (key, terms) = (verifier.cache_key(token), self.jwt_terms(proof, now));
            let found = key.and_then(|key| Some((key, verifier.look_up(&key, terms)?)));
            return match found {
                Some((key, Ok(jwt))) => self.vouch(jwt, || key, now),
                Some((_, Err(error))) => LookUp::Done(Err(error)),
                None => LookUp::Continue(Pending::Verify(key)),
            };
        }
        let Some(source) = &self.source else {
            // Unreachable: there is a verifier or a source.
            return LookUp::Done(Err(InvalidToken::NotJwt.into()));
        };
        let key = TokenKey::of(token);
        match source.look_up(&key, &self.terms(now)) {
            Some(found) => {
                LookUp::Done(found.and_then(|entry| in_time_and_proved(entry, proof, now)))
            }
            None => LookUp::Continue(Pending::Introspect(key)),
        }
    }

    async fn resolve(
        &self,
        token: &str,
        proof: &Proof,
        now: ClockReading,
        pending: Pending,
    ) -> Result<VerifiedToken, TokenError> {
        let pending = match (pending, &self.verifier) {
            (Pending::Verify(key), Some(verifier)) => {
                let terms = self.jwt_terms(proof, now);
                let jwt = verifier.verify_and_decide(token, key.as_ref(), terms).await?;
                match self.vouch(jwt, || key.unwrap_or_else(|| TokenKey::of(token)), now) {
                    LookUp::Done(decision) => return decision,
                    LookUp::Continue(pending) => pending,
                }
            }
            (pending, _) => pending,
        };
        match (pending, &self.source) {
            (Pending::Introspect(key), Some(source)) => {
                // A JWT is not a handle, so the handle keys do not apply.
                let handle_keys = self.handle_keys.as_ref().filter(|_| !is_jwt_shaped(token));
                let terms = Terms { handle_keys, ..self.terms(now) };
                in_time_and_proved(source.resolve(key, token, terms).await?, proof, now)
            }
            (Pending::Vouch(key, jwt), Some(source)) => {
                source.resolve(key, token, self.vouching_terms(now)).await?;
                Ok(jwt)
            }
            // Unreachable: there is a verifier or a source.
            _ => Err(InvalidToken::NotJwt.into()),
        }
    }

    fn forward<B>(&self, request: &mut Request<B>, token: VerifiedToken) -> Result<(), Refusal> {
        if !self.required.is_subset(token.scope()) {
            tracing::debug!(required = %self.required, granted = %token.scope(),
                "the token lacks a scope");
            return Err(Refusal::InsufficientScope);
        }
        if let Some(step_up) = &self.step_up
            && !step_up.is_met(token.token(), self.clock().now())
        {
            tracing::debug!(acr = token.token().acr.as_deref(), "the user has to sign in again");
            return Err(Refusal::InsufficientAuthentication);
        }
        request.extensions_mut().insert(token);
        Ok(())
    }
}

/// Marks a request without a token that passed an optional layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Anonymous;

/// The token, if its time has come and not passed, and its key is proved.
fn in_time_and_proved(
    entry: CachedAnswer<VerifiedToken>,
    proof: &Proof,
    now: ClockReading,
) -> Result<VerifiedToken, TokenError> {
    is_in_time(&entry.answer, now.wall())?;
    proof.covers(entry.answer.confirmation.as_ref())?;
    Ok(entry.answer.value)
}
