//! What a [`BearerLayer`](crate::BearerLayer) does with a token.

use std::sync::Arc;

use cloakroom_core::time::{Clock, SystemClock};
use cloakroom_core::{InvalidValue, Scope};

use crate::cache::Entry;
use crate::error::{InvalidToken, SetupError, TokenError, UnavailableError};
use crate::freshness::{self, Freshness, RevocationStatus, WhenStale};
use crate::introspect::Introspector;
use crate::introspect::answer::{Introspect, is_in_time};
use crate::introspect::handle_keys::GatewayKeys;
use crate::layer::authorization::Presented;
use crate::layer::challenge::{Challenges, Refusal};
use crate::layer::token_source::{Settings, Source, Terms};
use crate::metrics::{Event, Of, count};
use crate::replica::RevocationReplica;
use crate::verify::proof::Proof;
use crate::verify::token::VerifiedToken;
use crate::verify::{Local, Verifier, is_jwt_shaped};
use cloakroom_core::time::ClockReading;

#[derive(Debug, Clone)]
pub(crate) struct Checks {
    verifier: Option<Verifier>,
    source: Option<Arc<Source<Introspect>>>,
    settings: Settings,
    issuer: Arc<str>,
    audience: Arc<str>,
    replica: Option<RevocationReplica>,
    pub(crate) handle_keys: Option<GatewayKeys>,
    /// What the app named, or what goes with the replica.
    freshness: Option<Freshness>,
    is_named: bool,
    pub(crate) when_stale: WhenStale,
    required: Scope,
    pub(crate) challenges: Challenges,
}

impl Checks {
    pub(crate) fn verifying(verifier: Verifier) -> Self {
        let settings = Settings { clock: Arc::clone(verifier.own_clock()), ..Settings::default() };
        let mut checks = Self::new(verifier.issuer(), verifier.audience(), settings);
        if let Some(replica) = verifier.own_replica() {
            checks.follow(replica.clone());
        }
        checks.verifier = Some(verifier);
        checks
    }

    pub(crate) fn introspecting(
        introspector: Arc<dyn Introspector>,
        issuer: &str,
        audience: &str,
    ) -> Self {
        let settings = Settings { clock: Arc::new(SystemClock::new()), ..Settings::default() };
        let mut checks = Self::new(issuer, audience, settings);
        checks.introspect_by(introspector);
        checks
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
            challenges: Challenges::new(audience, &Scope::empty()),
        }
    }

    pub(crate) fn introspect_by(&mut self, introspector: Arc<dyn Introspector>) {
        let question = Introspect {
            introspector,
            issuer: Arc::clone(&self.issuer),
            audience: Arc::clone(&self.audience),
            verifies_jwts: self.verifier.is_some(),
        };
        self.source = Some(Source::new(question, self.settings.clone()));
    }

    /// Begins with an empty memory: what was remembered, was under other settings.
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

    pub(crate) fn freshen(&mut self, freshness: Freshness) -> Result<(), SetupError> {
        if self.source.is_none() {
            freshness::without_introspection(freshness, self.replica.as_ref())?;
        }
        (self.freshness, self.is_named) = (Some(freshness), true);
        Ok(())
    }

    pub(crate) fn require(&mut self, scope: &str) -> Result<(), InvalidValue> {
        let all = [self.required.as_str(), scope];
        let all: Vec<&str> = all.into_iter().filter(|part| !part.is_empty()).collect();
        self.required = Scope::parse(&all.join(" "))?;
        self.challenges = Challenges::new(&self.audience, &self.required);
        Ok(())
    }

    pub(crate) fn now(&self) -> ClockReading {
        ClockReading::now(&*self.settings.clock)
    }

    /// Judges the request that began at `now`.
    pub(crate) async fn check(
        &self,
        presented: Presented,
        now: ClockReading,
    ) -> Result<VerifiedToken, Refusal> {
        let (token, proof) = (presented.token?, presented.proof);
        self.conclude(self.verify(token.expose(), &proof, now).await)
    }

    /// The same, where it can be told at once: of a token that is remembered.
    pub(crate) fn recall(
        &self,
        presented: &Presented,
        now: ClockReading,
    ) -> Option<Result<VerifiedToken, Refusal>> {
        let (token, proof) = (presented.token.as_ref().ok()?.expose(), &presented.proof);
        proof.check().ok()?;
        let verified = match (&self.verifier, &self.source) {
            (Some(verifier), source) if source.is_none() || is_jwt_shaped(token) => {
                verifier.recall(token, proof, self.freshness, self.replica.as_ref(), now)?
            }
            (_, source) => {
                let entry = source.as_ref()?.remembered(token, &self.terms(now))?;
                entry.and_then(|entry| admit(entry, proof, now))
            }
        };
        Some(self.conclude(verified))
    }

    fn conclude(
        &self,
        verified: Result<VerifiedToken, TokenError>,
    ) -> Result<VerifiedToken, Refusal> {
        let verified = verified.map_err(|error| {
            crate::trace_refusal(&error);
            Refusal::from(&error)
        })?;
        if self.required.is_subset(verified.scope()) {
            Ok(verified)
        } else {
            tracing::debug!(required = %self.required, granted = %verified.scope(),
                "the token lacks a scope");
            Err(Refusal::InsufficientScope)
        }
    }

    pub(crate) async fn verify(
        &self,
        token: &str,
        proof: &Proof,
        now: ClockReading,
    ) -> Result<VerifiedToken, TokenError> {
        proof.check()?;
        match (&self.verifier, &self.source) {
            (Some(verifier), source) if source.is_none() || is_jwt_shaped(token) => {
                self.verify_jwt(verifier, token, proof, now).await
            }
            (_, Some(source)) => {
                // A JWT is no handle, and no handle key says anything of it.
                let handle_keys = self.handle_keys.as_ref().filter(|_| !is_jwt_shaped(token));
                let terms = Terms { handle_keys, ..self.terms(now) };
                admit(source.get(token, terms).await?, proof, now)
            }
            // Unreachable by construction; nobody who could tell is an invalid token.
            (_, None) => Err(InvalidToken::NotJwt.into()),
        }
    }

    async fn verify_jwt(
        &self,
        verifier: &Verifier,
        token: &str,
        proof: &Proof,
        now: ClockReading,
    ) -> Result<VerifiedToken, TokenError> {
        let replica = self.replica.as_ref();
        let judged = verifier.judge(token, proof, self.freshness, replica, now).await?;
        let (verified, standing) = match judged {
            Local::Fresh(verified) => return Ok(verified),
            Local::Unfresh(verified, standing) => (verified, standing),
        };
        let terms = self.terms(now);
        let refuses = self.when_stale == WhenStale::Refuse && terms.freshness.bound().is_some();
        // A phantom JWT is no token that a client may hold, and the authorization server calls none
        // active. That says nothing of the handle.
        let is_phantom = verified.handle_hash().is_some();
        match &self.source {
            Some(source) if !(is_phantom || refuses && standing == RevocationStatus::Stale) => {
                let terms = Terms { when_stale: WhenStale::Introspect, ..terms };
                source.get(token, terms).await?;
                Ok(verified)
            }
            // It will not get any younger, while a replica may catch up, or a gateway bring another.
            None if replica.is_none() && !is_phantom => Err(InvalidToken::TooOld.into()),
            _ => {
                count(Of::Jwt, Event::StaleRefusal);
                Err(UnavailableError::Stale.into())
            }
        }
    }

    /// Who names no freshness and has no replica has every opaque token asked about.
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

/// The token, if its time has come and not passed, and its key is proved.
fn admit(
    entry: Entry<VerifiedToken>,
    proof: &Proof,
    now: ClockReading,
) -> Result<VerifiedToken, TokenError> {
    is_in_time(&entry.answer, now.wall())?;
    proof.covers(entry.answer.confirmation.as_ref())?;
    Ok(entry.answer.value)
}
