//! Self-contained access tokens (RFC 9068).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::format::{FormatError, Located, MintContext, Minted, Persisted, TokenFormat};
use cloakroom_core::time::Clock;
use cloakroom_core::{Jti, TokenSecret};

use crate::format::access_claims::{AccessClaims, carried};
use crate::format::algorithms::{ResourceAlgorithms, of_client};
use crate::jws::verify::Verifier;
use crate::jws::{VerifyError, sign_jwt};
use crate::key::algorithm::Algorithm;
use crate::key::encoded_header::ACCESS_TOKEN_TYP;
use crate::manager::KeyManager;

/// JWT access tokens. Services verify them and read their claims offline.
///
/// The store keeps the grant of such a token, but not the token itself. With
/// [`stateless`](JwtFormat::stateless) it keeps neither. Introspection shows a revocation at once.
/// Services that verify offline learn of it through the revocation log.
///
/// Anyone who holds the token can read it. If clients must not read your tokens, use opaque handles with
/// [`PhantomFormat`](crate::PhantomFormat).
///
/// [`locate`](TokenFormat::locate) does not recognize a phantom JWT, since only its handle shows
/// whether it is still active.
///
/// ```
/// use std::sync::Arc;
/// use cloakroom_core::TokenSecret;
/// use cloakroom_core::format::TokenFormat;
/// use cloakroom_core::time::SystemClock;
/// use cloakroom_jwt::{AesGcmSealer, JwtFormat, KeyManager};
/// use cloakroom_memory::MemoryStore;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let sealer = Arc::new(AesGcmSealer::random()?);
/// let keys = KeyManager::builder(Arc::new(MemoryStore::new()), sealer).build().await?;
/// let format = JwtFormat::new(keys, "https://as.example", Arc::new(SystemClock::new()));
///
/// assert!(format.locate(&TokenSecret::new("cr_at_no-jwt"))?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct JwtFormat {
    keys: KeyManager,
    issuer: Arc<str>,
    verifier: Verifier,
    stateless: bool,
    algorithms: ResourceAlgorithms,
}

impl JwtFormat {
    /// Makes and checks tokens of `issuer` with these keys.
    #[must_use]
    pub fn new(keys: KeyManager, issuer: &str, clock: Arc<dyn Clock>) -> Self {
        // The largest leeway of any of our verifiers, so that every token that one of them accepts can be
        // revoked. The engine decides without leeway whether a token is active.
        let verifier = Verifier::any_audience(issuer).clock(clock).leeway(Verifier::MAX_LEEWAY);
        Self {
            keys,
            issuer: issuer.into(),
            verifier,
            stateless: false,
            algorithms: Default::default(),
        }
    }

    /// Makes tokens whose grants are not stored. The private claim `stateless` marks them. Only a rule of
    /// the revocation log ends such a token early.
    #[must_use]
    pub const fn stateless(mut self) -> Self {
        self.stateless = true;
        self
    }

    /// Signs the tokens for this resource with this algorithm; see [`KeyManager::signer_for`]. A token for
    /// several resources is refused if they need different algorithms.
    #[must_use]
    pub fn algorithm_for(mut self, resource: &str, algorithm: Algorithm) -> Self {
        self.algorithms.set(resource, algorithm);
        self
    }
}

#[async_trait]
impl TokenFormat for JwtFormat {
    async fn mint(&self, context: MintContext<'_>) -> Result<Minted, FormatError> {
        let misuse = |error: JwtMisuse| FormatError::Other(error.into());
        if context.issuer != &*self.issuer {
            return Err(misuse(JwtMisuse::Issuer {
                expected: self.issuer.to_string(),
                found: context.issuer.to_owned(),
            }));
        }
        // A key is removed from the JWK Set when the longest token that it may have signed has expired.
        let limit = self.keys.policy().max_token_life;
        let life = context.terms.expires_at.since(context.terms.issued_at);
        if life > limit {
            return Err(misuse(JwtMisuse::TooLong { life, limit }));
        }
        let (client, main) = (of_client(&context)?, self.keys.main_algorithm());
        let algorithm = self.algorithms.of_all(&context.terms.audience, client, main);
        let algorithm = algorithm.map_err(|error| FormatError::Other(error.into()))?;
        let jti = Jti::random(context.random)?;
        let terms = context.terms.clone();
        let mut claims = AccessClaims::new(&self.issuer, context.grant, terms, jti);
        claims.stateless = self.stateless;
        let kept = if self.stateless { Persisted::Nothing } else { Persisted::Grant };
        Ok(Minted::new(sign(&self.keys, algorithm, &claims).await?, kept))
    }

    /// Recognizes a token by its signature, `typ`, `iss` and time, up to 2 minutes after its end. The
    /// caller decides whether its audience is right and whether it is active. The keys must have been
    /// loaded at most `max_blind` ago ([`KeyManager::refresh`]).
    fn locate(&self, presented: &TokenSecret) -> Result<Option<Located>, FormatError> {
        let jwt = presented.expose();
        if jwt.bytes().filter(|byte| *byte == b'.').count() != 2 {
            return Ok(None);
        }
        let keys = self.keys.keys().map_err(unavailable)?;
        let verified = match self.verifier.verify(&keys, jwt) {
            Ok(verified) => verified,
            // Another node may have published the key since the ring was last loaded.
            Err(error @ VerifyError::UnknownKey(_)) if !self.keys.is_fresh() => {
                return Err(unavailable(error));
            }
            Err(error) => {
                tracing::debug!(%error, "a presented JWT was refused");
                return Ok(None);
            }
        };
        if verified.handle_hash.is_some() {
            tracing::debug!("a phantom JWT was presented as an access token");
            return Ok(None);
        }
        let carried = carried(jwt, verified).map_err(|error| FormatError::Other(error.into()))?;
        Ok(carried.map(Located::from))
    }
}

/// Signs a JWT with the current key of this algorithm, or of the main ring.
pub(crate) async fn sign(
    keys: &KeyManager,
    algorithm: Option<Algorithm>,
    claims: &AccessClaims,
) -> Result<TokenSecret, FormatError> {
    let signer = match algorithm {
        Some(algorithm) => keys.signer_for(algorithm).await,
        None => keys.signer().await,
    };
    let signer = signer.map_err(unavailable)?;
    sign_jwt(&*signer, ACCESS_TOKEN_TYP, claims).await
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> FormatError {
    FormatError::KeysUnavailable(Box::new(error))
}

/// A request that does not match the settings of the format.
#[derive(Debug, thiserror::Error)]
enum JwtMisuse {
    #[error(
        "the format makes tokens of the issuer {expected}, not of {found}: configure the same issuer for both"
    )]
    Issuer { expected: String, found: String },
    #[error(
        "a JWT would live for {life:?}, but its key is published for tokens of at most {limit:?}: \
         shorten the token's lifetime, or raise `max_token_life` of the key policy"
    )]
    TooLong { life: Duration, limit: Duration },
}

#[cfg(test)]
mod tests;
