//! How an access token looks to the client that holds it.

use std::fmt;

use async_trait::async_trait;

use crate::handle::HandleKeys;
use crate::ids::{GrantId, Jti, Kid};
use crate::random::{Random, RandomError};
use crate::record::{Confirmation, GrantRecord, TokenRecord};
use crate::scope::{Audience, Scope};
use crate::secret::{TokenDigest, TokenKind, TokenSecret};
use crate::time::UnixTime;

/// A format of access tokens: how one is made, and how a presented one is recognized.
///
/// Built in are [`OpaqueFormat`] here and, in `cloakroom-jwt`, `JwtFormat` and `PhantomFormat`. An
/// app may add its own, for instance to take over tokens of a system it replaces.
#[async_trait]
pub trait TokenFormat: fmt::Debug + Send + Sync + 'static {
    /// Makes an access token. Asynchronous because a signer may be remote.
    ///
    /// # Errors
    ///
    /// If no token can be made; nothing has been written by then.
    async fn mint(&self, context: MintContext<'_>) -> Result<Minted, FormatError>;

    /// Recognizes a presented token, without I/O. `Ok(None)` is a token that is not of this
    /// format, or forged.
    ///
    /// # Errors
    ///
    /// If it cannot be told just now, for example because the keys are not loaded. An outage must
    /// never look like a forged token.
    fn locate(&self, presented: &TokenSecret) -> Result<Option<Located>, FormatError>;
}

/// What an access token is made from.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct MintContext<'a> {
    /// The issuer's URL.
    pub issuer: &'a str,
    /// The grant it hangs off.
    pub grant: &'a GrantRecord,
    /// Its own terms.
    pub terms: &'a TokenTerms,
    /// Where random bytes come from.
    pub random: &'a Random,
}

impl<'a> MintContext<'a> {
    /// A context of these parts.
    #[must_use]
    pub const fn new(
        issuer: &'a str,
        grant: &'a GrantRecord,
        terms: &'a TokenTerms,
        random: &'a Random,
    ) -> Self {
        Self { issuer, grant, terms, random }
    }
}

/// What one access token grants, and how long.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenTerms {
    /// When it is issued.
    pub issued_at: UnixTime,
    /// When it expires; not after its grant.
    pub expires_at: UnixTime,
    /// Its scope: the grant's, or less.
    pub scope: Scope,
    /// Its audience: the grant's, or less.
    pub audience: Audience,
    /// The key it is bound to.
    pub confirmation: Option<Confirmation>,
}

impl TokenTerms {
    /// The record of a token of these terms.
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
            unknown: crate::record::UnknownFields::default(),
        }
    }
}

/// A new access token.
#[derive(Debug)]
pub struct Minted {
    /// The token.
    pub token: TokenSecret,
    /// What the store keeps of it.
    pub kept: Persisted,
}

/// What the store keeps of a new access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Persisted {
    /// A record under this digest.
    Token(TokenDigest),
    /// Only the grant: the token says the rest itself.
    Grant,
    /// Nothing: it lives until it expires, or until a rule denies it.
    Nothing,
}

/// A presented token that was recognized.
#[derive(Debug, Clone, PartialEq)]
pub struct Located {
    /// What it is.
    pub kind: TokenKind,
    /// The grant it hangs off.
    pub grant: GrantId,
    /// Its digest.
    pub digest: TokenDigest,
    /// What a self-contained token says, once its signature was checked.
    pub carried: Option<Box<SelfContained>>,
}

/// What a self-contained token says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct SelfContained {
    /// The issuer's view of its grant, as far as the token tells. For a token whose grant is
    /// stored, the stored one counts.
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

/// A format could not make, or could not judge, a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The token would be larger than what HTTP headers carry.
    #[error(
        "the token would have {size} bytes, more than the {limit} that HTTP headers carry: put less into its claims"
    )]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The most bytes allowed.
        limit: usize,
    },
    /// No key can sign or verify just now.
    #[error("no signing key is available")]
    KeysUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Anything else, from a format of the app's own.
    #[error("the token format failed")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Opaque handles (reference tokens): all meaning stays with the authorization server.
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
    /// Handles made and recognized with these keys.
    #[must_use]
    pub const fn new(keys: HandleKeys) -> Self {
        Self { keys }
    }
}

#[async_trait]
impl TokenFormat for OpaqueFormat {
    async fn mint(&self, context: MintContext<'_>) -> Result<Minted, FormatError> {
        let (token, digest) = self.keys.mint_access(context.grant.id, context.random)?;
        Ok(Minted { token, kept: Persisted::Token(digest) })
    }

    fn locate(&self, presented: &TokenSecret) -> Result<Option<Located>, FormatError> {
        Ok(self.keys.parse_access(presented.expose()).map(|handle| Located {
            kind: TokenKind::Access,
            grant: handle.grant,
            digest: handle.digest,
            carried: None,
        }))
    }
}
