//! Formats of access tokens.

use std::fmt;

use async_trait::async_trait;

use crate::handle::HandleKeys;
use crate::ids::{GrantId, Jti, Kid};
use crate::random::{Random, RandomError};
use crate::record::{Claims, Confirmation, GrantRecord, TokenRecord};
use crate::scope::{Audience, Scope};
use crate::secret::{TokenDigest, TokenKind, TokenSecret};
use crate::time::UnixTime;

/// A format of access tokens: it makes tokens, and recognizes tokens that are presented.
///
/// [`OpaqueFormat`] is in this crate; `JwtFormat` and `PhantomFormat` are in `cloakroom-jwt`. An app
/// can add its own, for example to accept the tokens of a system that it replaces. Put
/// [`#[async_trait]`](crate::async_trait) on your `impl`.
#[async_trait]
pub trait TokenFormat: fmt::Debug + Send + Sync + 'static {
    /// Makes an access token. This is asynchronous because a signer may be remote.
    ///
    /// # Errors
    ///
    /// If no token can be made. Nothing has been written by then.
    async fn mint(&self, context: MintContext<'_>) -> Result<Minted, FormatError>;

    /// Recognizes a presented token, without I/O. `Ok(None)` means that the token is forged or has
    /// another format.
    ///
    /// # Errors
    ///
    /// If the format cannot tell, for example because its keys are not loaded. An outage must never
    /// look like a forged token.
    fn locate(&self, presented: &TokenSecret) -> Result<Option<Located>, FormatError>;
}

/// What an access token is made from.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct MintContext<'a> {
    /// The issuer's URL.
    pub issuer: &'a str,
    /// The grant that the token belongs to.
    pub grant: &'a GrantRecord,
    /// The terms of the token.
    pub terms: &'a TokenTerms,
    /// The source of random bytes.
    pub random: &'a Random,
    /// The JWS algorithm (RFC 7518 §3.1), such as `ES256`, that the registration of the client names for
    /// its JWTs. `None` if it names none. A resource that needs another one takes precedence.
    pub algorithm: Option<&'a str>,
}

impl<'a> MintContext<'a> {
    /// A context of these parts, for a client that names no algorithm.
    #[must_use]
    pub const fn new(
        issuer: &'a str,
        grant: &'a GrantRecord,
        terms: &'a TokenTerms,
        random: &'a Random,
    ) -> Self {
        Self { issuer, grant, terms, random, algorithm: None }
    }

    /// This context for a client that names this algorithm for its JWTs.
    #[must_use]
    pub const fn with_algorithm(mut self, algorithm: Option<&'a str>) -> Self {
        self.algorithm = algorithm;
        self
    }
}

/// What an access token allows, and for how long.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TokenTerms {
    /// When it is issued.
    pub issued_at: UnixTime,
    /// When it expires. Not after its grant.
    pub expires_at: UnixTime,
    /// Its scope: the grant's, or less.
    pub scope: Scope,
    /// Its audience: the grant's, or less.
    pub audience: Audience,
    /// The key that it is bound to.
    pub confirmation: Option<Confirmation>,
    /// The app's claims, if they are not those of the grant.
    pub claims: Option<Claims>,
}

impl TokenTerms {
    /// Terms of a token that is bound to no key, with the claims of its grant.
    #[must_use]
    pub const fn new(
        issued_at: UnixTime,
        expires_at: UnixTime,
        scope: Scope,
        audience: Audience,
    ) -> Self {
        Self { issued_at, expires_at, scope, audience, confirmation: None, claims: None }
    }

    /// The record of a token with these terms.
    #[must_use]
    pub fn record(self, grant: GrantId, digest: TokenDigest) -> TokenRecord {
        TokenRecord {
            digest,
            grant,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            revoked_at: None,
            scope: self.scope,
            audience: self.audience,
            confirmation: self.confirmation,
            claims: self.claims,
            unknown: crate::record::UnknownFields::default(),
        }
    }
}

/// A new access token.
#[derive(Debug)]
#[non_exhaustive]
pub struct Minted {
    /// The token.
    pub token: TokenSecret,
    /// What the store keeps of it.
    pub kept: Persisted,
}

impl Minted {
    /// A new token, and what the store keeps of it.
    #[must_use]
    pub const fn new(token: TokenSecret, kept: Persisted) -> Self {
        Self { token, kept }
    }
}

/// What the store keeps of a new access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Persisted {
    /// A record under this digest.
    Token(TokenDigest),
    /// Only the grant: the token carries everything else.
    Grant,
    /// Nothing: the token is valid until it expires or a rule denies it.
    Nothing,
}

/// A presented token that was recognized.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Located {
    /// The kind of token.
    pub kind: TokenKind,
    /// The grant that it belongs to.
    pub grant: GrantId,
    /// Its digest.
    pub digest: TokenDigest,
    /// The content of a self-contained token whose signature was checked.
    pub carried: Option<Box<SelfContained>>,
}

impl Located {
    /// A token that the store keeps under this digest.
    #[must_use]
    pub const fn new(kind: TokenKind, grant: GrantId, digest: TokenDigest) -> Self {
        Self { kind, grant, digest, carried: None }
    }
}

impl From<SelfContained> for Located {
    /// An access token that carries its own records.
    fn from(carried: SelfContained) -> Self {
        Self {
            kind: TokenKind::Access,
            grant: carried.grant.id,
            digest: carried.token.digest,
            carried: Some(Box::new(carried)),
        }
    }
}

/// The content of a self-contained token.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SelfContained {
    /// The grant, as far as the token describes it. If the grant is stored, the stored record takes
    /// precedence.
    pub grant: GrantRecord,
    /// The token's own terms.
    pub token: TokenRecord,
    /// Its identifier.
    pub jti: Jti,
    /// The key that signed it.
    pub kid: Kid,
    /// Whether no store holds its grant.
    pub stateless: bool,
}

impl SelfContained {
    /// A token whose grant is stored.
    #[must_use]
    pub const fn new(grant: GrantRecord, token: TokenRecord, jti: Jti, kid: Kid) -> Self {
        Self { grant, token, jti, kid, stateless: false }
    }
}

/// A format could not make or recognize a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The source of random bytes failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The token would be too large for HTTP headers.
    #[error(
        "the token would have {size} bytes, but HTTP headers carry at most {limit}: shorten its claims"
    )]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The largest size, in bytes.
        limit: usize,
    },
    /// No key can sign or verify at the moment.
    #[error("no signing key is available")]
    KeysUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Any other failure, for formats of your own.
    #[error("the token format failed")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Opaque handles (reference tokens). Only the authorization server knows what a handle means.
///
/// ```
/// use cloakroom_core::{GrantId, Random, TokenSecret};
/// use cloakroom_core::format::{OpaqueFormat, TokenFormat};
/// use cloakroom_core::handle::{HandleKeys, HandleSecret};
///
/// let random = Random::system();
/// let keys = HandleKeys::new(&HandleSecret::random(1, &random)?);
/// let (token, _) = keys.mint_access(GrantId::random(&random)?, &random)?;
///
/// let format = OpaqueFormat::new(keys);
/// assert!(format.locate(&token)?.is_some());
/// assert!(format.locate(&TokenSecret::new("cr_at_forged"))?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct OpaqueFormat {
    keys: HandleKeys,
}

impl OpaqueFormat {
    /// Makes and recognizes handles with these keys.
    #[must_use]
    pub const fn new(keys: HandleKeys) -> Self {
        Self { keys }
    }
}

#[async_trait]
impl TokenFormat for OpaqueFormat {
    async fn mint(&self, context: MintContext<'_>) -> Result<Minted, FormatError> {
        let (token, digest) = self.keys.mint_access(context.grant.id, context.random)?;
        Ok(Minted::new(token, Persisted::Token(digest)))
    }

    fn locate(&self, presented: &TokenSecret) -> Result<Option<Located>, FormatError> {
        let handle = self.keys.parse_access(presented.expose());
        Ok(handle.map(|handle| Located::new(TokenKind::Access, handle.grant, handle.digest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::HandleSecret;

    #[test]
    fn an_opaque_token_is_located_by_its_own_format_alone() {
        let random = Random::system();
        let keys = HandleKeys::new(&HandleSecret::new(1, [1; 32]));
        let grant = GrantId::from_bytes([5; 16]);
        let (token, digest) = keys.mint_access(grant, &random).unwrap();
        let located = OpaqueFormat::new(keys).locate(&token).unwrap().unwrap();
        assert_eq!((located.kind, located.grant), (TokenKind::Access, grant));
        assert_eq!(located.digest, digest);
        assert!(located.carried.is_none());
        let other = OpaqueFormat::new(HandleKeys::new(&HandleSecret::new(1, [2; 32])));
        assert!(other.locate(&token).unwrap().is_none());
    }
}
