//! Opaque handles for clients, and short-lived JWTs for the services behind a gateway.

use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::format::{
    FormatError, Located, MintContext, Minted, OpaqueFormat, TokenFormat, TokenTerms,
};
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Audience, InvalidValue, Jti, Random, Scope, TokenDigest, TokenSecret};

use crate::format::access_claims::{AccessClaims, handle_hash};
use crate::format::algorithms::{ResourceAlgorithms, of_client};
use crate::format::jwt::sign;
use crate::jws::will_fit;
use crate::key::algorithm::Algorithm;
use crate::manager::KeyManager;

/// The phantom-token pattern: the client holds an opaque handle, and a gateway
/// [swaps](PhantomFormat::swap) it for a JWT that the services behind it verify offline.
///
/// For clients this is the same as [`OpaqueFormat`]. The JWT is made at the swap, for one audience. It
/// never outlives its handle. Do not let it leave your network.
///
/// ```
/// use cloakroom_core::Random;
/// use cloakroom_core::format::OpaqueFormat;
/// use cloakroom_core::handle::{HandleKeys, HandleSecret};
/// use cloakroom_jwt::{AesGcmSealer, KeyManager, PhantomFormat};
/// # use std::{sync::Arc, time::Duration};
/// # use cloakroom_memory::MemoryStore;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// # let sealer = Arc::new(AesGcmSealer::random()?);
/// # let keys = KeyManager::builder(Arc::new(MemoryStore::new()), sealer).build().await?;
/// let handles = HandleKeys::new(&HandleSecret::random(1, &Random::system())?);
/// let format = PhantomFormat::new(OpaqueFormat::new(handles), keys)
///     .max_life(Duration::from_secs(60));
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct PhantomFormat {
    outside: OpaqueFormat,
    keys: KeyManager,
    max_life: Duration,
    algorithms: ResourceAlgorithms,
}

/// A request for a swap. The caller has checked that the token is live and the audience allowed.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a swap is decided by exactly these values; a caller must not overlook a new one"
)]
pub struct Swap<'a> {
    /// The issuer's URL.
    pub issuer: &'a str,
    /// The grant of the handle.
    pub grant: &'a GrantRecord,
    /// The record of the handle.
    pub token: &'a TokenRecord,
    /// The resource that the JWT is for: one in the audience of the token.
    pub audience: &'a str,
    /// The scope of the JWT: narrowed, or mapped to the scopes of that resource.
    pub scope: &'a Scope,
    /// The algorithm that the registration of the handle's client names, if it names one. That of the
    /// resource takes precedence.
    pub algorithm: Option<Algorithm>,
    /// The time of the request.
    pub now: UnixTime,
    /// The source of random bytes.
    pub random: &'a Random,
}

/// The JWT that a handle was swapped for.
#[derive(Debug)]
#[non_exhaustive]
pub struct SwappedJwt {
    /// The JWT.
    pub jwt: TokenSecret,
    /// When it expires: its `exp`.
    pub expires_at: UnixTime,
}

impl PhantomFormat {
    /// The longest lifetime of a phantom JWT, and the default: five minutes.
    pub const MAX_LIFE: Duration = Duration::from_secs(300);

    /// Makes the handles of `outside`, and signs JWTs with `keys`.
    #[must_use]
    pub fn new(outside: OpaqueFormat, keys: KeyManager) -> Self {
        let algorithms = ResourceAlgorithms::default();
        Self { outside, keys, max_life: Self::MAX_LIFE, algorithms }
    }

    /// The longest lifetime of a JWT: at most [`MAX_LIFE`](Self::MAX_LIFE), and at most the
    /// `max_token_life` of the key policy.
    #[must_use]
    pub fn max_life(mut self, max_life: Duration) -> Self {
        self.max_life = max_life.min(Self::MAX_LIFE);
        self
    }

    /// Signs the JWTs for this resource with this algorithm; see [`KeyManager::signer_for`].
    #[must_use]
    pub fn algorithm_for(mut self, resource: &str, algorithm: Algorithm) -> Self {
        self.algorithms.set(resource, algorithm);
        self
    }

    /// Makes the JWT for a handle. This takes one signature, and no access to a store.
    ///
    /// # Errors
    ///
    /// If no key can sign, if the JWT would have more than 8,192 bytes, or if the token does not allow
    /// the swap: it has another audience, or has ended.
    pub async fn swap(&self, swap: Swap<'_>) -> Result<SwappedJwt, FormatError> {
        let refused = |error: SwapRefused| FormatError::Other(error.into());
        // As the token spells it.
        let audience = swap
            .token
            .audience
            .find(swap.audience)
            .ok_or_else(|| refused(SwapRefused::Audience(swap.audience.to_owned())))?;
        if swap.token.grant != swap.grant.id {
            return Err(refused(SwapRefused::Grant));
        }
        if !swap.token.is_live(swap.now) || !swap.grant.is_live(swap.now) {
            return Err(refused(SwapRefused::Dead));
        }
        let algorithm = self.algorithms.of(audience, swap.algorithm);
        let life = self.max_life.min(self.keys.policy().max_token_life);
        let end = swap.token.expires_at.min(swap.grant.expires_at);
        let expires_at = UnixTime::from_secs((swap.now + life).min(end).as_secs());
        let audience = Audience::one(audience).map_err(|error| refused(error.into()))?;
        let mut terms = TokenTerms::new(swap.now, expires_at, swap.scope.clone(), audience);
        terms.confirmation = swap.token.confirmation.clone();
        terms.claims = swap.token.claims.clone();
        let jti = Jti::random(swap.random)?;
        let mut claims = AccessClaims::new(swap.issuer, swap.grant, terms, jti);
        claims.handle_hash = Some(handle_hash(&swap.token.digest));
        Ok(SwappedJwt { jwt: sign(&self.keys, algorithm, &claims).await?, expires_at })
    }
}

#[async_trait]
impl TokenFormat for PhantomFormat {
    /// Makes a handle after checking that its JWT will fit. Otherwise nobody would notice a handle that
    /// cannot be swapped before a gateway tries.
    async fn mint(&self, context: MintContext<'_>) -> Result<Minted, FormatError> {
        // Only the length counts, so a text as long as a random `jti` is used.
        let stand_in =
            Jti::new("0123456789012345678901").map_err(|error| FormatError::Other(error.into()))?;
        let mut claims =
            AccessClaims::new(context.issuer, context.grant, context.terms.clone(), stand_in);
        claims.handle_hash = Some(TokenDigest::from_bytes([0; 32]));
        // The JWT for any of its resources.
        let client = of_client(&context)?;
        for resource in context.terms.audience.iter() {
            let algorithm = self.algorithms.of(resource, client);
            will_fit(algorithm.unwrap_or_else(|| self.keys.main_algorithm()), &claims)?;
        }
        self.outside.mint(context).await
    }

    fn locate(&self, presented: &TokenSecret) -> Result<Option<Located>, FormatError> {
        self.outside.locate(presented)
    }
}

/// The token does not allow the swap. The caller should have checked.
#[derive(Debug, thiserror::Error)]
enum SwapRefused {
    #[error("the token's audience does not contain {0}")]
    Audience(String),
    #[error("the token does not belong to this grant")]
    Grant,
    #[error("the token or its grant is revoked or expired")]
    Dead,
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
}

#[cfg(test)]
mod tests;
