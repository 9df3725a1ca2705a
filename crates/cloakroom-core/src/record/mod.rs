//! The records of grants and access tokens.

mod claims;
mod codec;
mod members;

pub use claims::{Claims, Device};
#[doc(hidden)]
pub use claims::{RESERVED_CLAIMS, bounded_json};
pub use codec::{GrantRow, TokenRow};
pub use members::UnknownFields;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::ids::{ClientId, GrantId, Subject};
use crate::random::{Random, RandomError};
use crate::revocation::{Epoch, RuleKey};
use crate::scope::{Audience, Scope};
use crate::secret::{TokenDigest, TokenKind, bytes};
use crate::time::UnixTime;

/// One authorization: a client may act for a subject, with a scope.
///
/// The [`Chain`] of a grant holds the credential that can be redeemed next. Access tokens are
/// [`TokenRecord`]s that belong to the grant and end with it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GrantRecord {
    /// The identifier of the grant.
    pub id: GrantId,
    /// The client that may act.
    pub client: ClientId,
    /// The subject that the client acts for.
    pub subject: Subject,
    /// The granted scope. The scope of a token is never wider.
    pub scope: Scope,
    /// The granted resources. The audience of a token is never wider.
    pub audience: Audience,
    /// The key that the credential of the chain is bound to: first the key of the code, if the
    /// authorization request named one (RFC 9449 §10), and later the key of a public client's refresh
    /// tokens (RFC 9449 §5, [`Chain::bound_from`]). Refresh tokens of a confidential client are not
    /// bound. [`TokenRecord::confirmation`] is the key of an access token.
    pub confirmation: Option<Confirmation>,
    /// When the user signed in (OpenID Connect `auth_time`).
    pub auth_time: Option<UnixTime>,
    /// How the user signed in: the authentication context class (OpenID Connect `acr`, RFC 9470), at
    /// most 255 bytes.
    pub acr: Option<Box<str>>,
    /// When the grant was made.
    pub created_at: UnixTime,
    /// Its place in the order of revocations of its subject and client.
    pub epoch: Epoch,
    /// A human-readable name of the user (RFC 7662 §2.2 `username`), at most 255 bytes.
    pub username: Option<Box<str>>,
    /// Who acts for the subject (RFC 8693 §4.1 `act`).
    pub act: Option<Box<Value>>,
    /// The details of the authorization (RFC 9396).
    pub authorization_details: Option<Box<Value>>,
    /// The OpenID Connect session (`sid`).
    pub session: Option<Box<str>>,
    /// Claims that the app adds. Introspection and JWTs show them.
    pub claims: Claims,
    /// The description of the device, for a list of the user's sessions.
    pub device: Device,
    /// The chain of single-use credentials. `None` if the grant has none, as with
    /// `client_credentials`.
    pub chain: Option<Chain>,
    /// When the grant ends, regardless of its chain.
    pub expires_at: UnixTime,
    /// When the row may be deleted: not before the last token of the grant has expired.
    pub row_expires_at: UnixTime,
    /// When a refresh token was last redeemed.
    pub refreshed_at: Option<UnixTime>,
    /// When it was revoked.
    pub revoked_at: Option<UnixTime>,
    /// Fields of a newer version.
    pub unknown: UnknownFields,
}

impl GrantRecord {
    /// A grant that begins at `created_at` and ends at `expires_at`, as does its row. It has an empty
    /// scope, no chain and epoch 0. Set the other fields as you need them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use cloakroom_core::{Audience, ClientId, GrantId, InvalidValue, Random, Subject, TokenDigest, TokenKind};
    /// use cloakroom_core::record::{GrantRecord, TokenRecord};
    /// use cloakroom_core::time::UnixTime;
    ///
    /// fn sample(now: UnixTime) -> Result<(GrantRecord, TokenRecord), Box<dyn std::error::Error>> {
    ///     let grant = GrantRecord::new(
    ///         GrantId::random(&Random::system())?,
    ///         ClientId::new("web-app")?,
    ///         Subject::user("alice")?,
    ///         Audience::one("https://orders.example")?,
    ///         now,
    ///         now + Duration::from_secs(3_600),
    ///     );
    ///     let digest = TokenDigest::compute(TokenKind::Access, b"6d7f2b0c");
    ///     let token = TokenRecord::new(digest, &grant, now, now + Duration::from_secs(600));
    ///     Ok((grant, token))
    /// }
    /// # sample(UnixTime::from_secs(1)).unwrap();
    /// ```
    #[must_use]
    pub fn new(
        id: GrantId,
        client: ClientId,
        subject: Subject,
        audience: Audience,
        created_at: UnixTime,
        expires_at: UnixTime,
    ) -> Self {
        Self {
            id,
            client,
            subject,
            scope: Scope::empty(),
            audience,
            confirmation: None,
            auth_time: None,
            acr: None,
            created_at,
            epoch: Epoch::default(),
            username: None,
            act: None,
            authorization_details: None,
            session: None,
            claims: Claims::default(),
            device: Device::default(),
            chain: None,
            expires_at,
            row_expires_at: expires_at,
            refreshed_at: None,
            revoked_at: None,
            unknown: UnknownFields::default(),
        }
    }

    /// A copy with another chain. The old one is not copied first.
    #[doc(hidden)]
    #[must_use]
    pub fn with_chain(&self, chain: Chain) -> Self {
        Self {
            id: self.id,
            client: self.client.clone(),
            subject: self.subject.clone(),
            scope: self.scope.clone(),
            audience: self.audience.clone(),
            confirmation: self.confirmation.clone(),
            auth_time: self.auth_time,
            acr: self.acr.clone(),
            created_at: self.created_at,
            epoch: self.epoch,
            username: self.username.clone(),
            act: self.act.clone(),
            authorization_details: self.authorization_details.clone(),
            session: self.session.clone(),
            claims: self.claims.clone(),
            device: self.device.clone(),
            chain: Some(chain),
            expires_at: self.expires_at,
            row_expires_at: self.row_expires_at,
            refreshed_at: self.refreshed_at,
            revoked_at: self.revoked_at,
            unknown: self.unknown.clone(),
        }
    }

    /// Whether the grant is neither revoked nor past its end at `now`.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        self.revoked_at.is_none() && now < self.expires_at && now < self.row_expires_at
    }

    /// The keys of the rules that can deny it: the rules of its subject, of its client, and of both.
    #[must_use]
    pub fn rule_keys(&self) -> [RuleKey; 3] {
        [
            RuleKey::Subject(self.subject.clone()),
            RuleKey::Client(self.client.clone()),
            RuleKey::SubjectAtClient(self.subject.clone(), self.client.clone()),
        ]
    }
}

/// The chain of single-use credentials of a grant: its authorization code, then its refresh tokens.
/// Only the credential at `generation` can be redeemed. Redeeming it advances the chain.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Chain {
    /// The kind of the current credential.
    pub credential: TokenKind,
    /// Its number, from 0.
    pub generation: u32,
    /// Its digest.
    pub digest: TokenDigest,
    /// The key of the tags in the chain's handles.
    pub key: ChainKey,
    /// When the current credential expires: at the end of the code's lifetime, or of the refresh
    /// token's idle time.
    pub expires_at: UnixTime,
    /// What the code is bound to. It is kept after the code has been redeemed: presenting an old
    /// code counts as reuse only with the right verifier.
    pub code: Option<Box<CodeBinding>>,
    /// The refresh token that the last rotation made, sealed for the holder of the previous one.
    pub successor: Option<Box<SealedSuccessor>>,
    /// The first generation that needs the key [`GrantRecord::confirmation`], if the grant has one.
    /// Earlier generations were issued without a key. `None` stands for the current generation, as in
    /// new chains.
    pub bound_from: Option<u32>,
    /// Whether a refresh token is replaced at each use.
    pub rotates: bool,
    /// Fields of a newer version.
    pub unknown: UnknownFields,
}

impl Chain {
    /// A chain that rotates and is at its first credential.
    #[must_use]
    pub fn new(
        credential: TokenKind,
        digest: TokenDigest,
        key: ChainKey,
        expires_at: UnixTime,
    ) -> Self {
        Self {
            credential,
            generation: 0,
            digest,
            key,
            expires_at,
            code: None,
            successor: None,
            bound_from: None,
            rotates: true,
            unknown: UnknownFields::default(),
        }
    }

    /// A copy without the sealed successor, for the step that replaces it.
    #[doc(hidden)]
    #[must_use]
    pub fn without_successor(&self) -> Self {
        Self {
            credential: self.credential,
            generation: self.generation,
            digest: self.digest,
            key: self.key.clone(),
            expires_at: self.expires_at,
            code: self.code.clone(),
            successor: None,
            bound_from: self.bound_from,
            rotates: self.rotates,
            unknown: self.unknown.clone(),
        }
    }

    /// The current position of the chain.
    #[must_use]
    pub const fn position(&self) -> ChainPosition {
        ChainPosition { generation: self.generation, digest: self.digest }
    }
}

/// The position of a chain, which the compare-and-set of `advance` compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores compare both fields; a third would be a new contract"
)]
pub struct ChainPosition {
    /// The number of the current credential.
    pub generation: u32,
    /// Its digest.
    pub digest: TokenDigest,
}

/// What an authorization code is bound to (RFC 6749 §4.1.3, RFC 7636 §4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodeBinding {
    /// The redirect URI that the code was sent to, byte for byte.
    pub redirect_uri: String,
    /// Whether the authorization request named no redirect URI, so that the client's only registered
    /// one was used.
    pub redirect_uri_omitted: bool,
    /// The PKCE `S256` challenge. `None` only if a confidential client sent none.
    pub challenge: Option<String>,
    /// The `nonce` of the authorization request (OpenID Connect Core §3.1.2.1).
    pub nonce: Option<String>,
    /// Fields of a newer version.
    pub unknown: UnknownFields,
}

impl CodeBinding {
    /// A code for this redirect URI, which the authorization request named, and this challenge.
    #[must_use]
    pub fn new(redirect_uri: impl Into<String>, challenge: Option<String>) -> Self {
        let redirect_uri = redirect_uri.into();
        let unknown = UnknownFields::default();
        Self { redirect_uri, redirect_uri_omitted: false, challenge, nonce: None, unknown }
    }
}

/// The successor of the last rotated refresh token. It is sealed under a key that is derived from the
/// rotated token, so that the database alone cannot open it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealedSuccessor {
    /// Nonce and ciphertext.
    pub sealed: Vec<u8>,
    /// When the retry window ends.
    pub until: UnixTime,
    /// The credentials that were spent before the last one and whose own windows were still open,
    /// oldest first. Presenting one of them is not reuse: each opens the one after it, and so on to the
    /// current one. At most [`SealedSuccessor::MAX_EARLIER`].
    pub earlier: Vec<SpentBefore>,
    /// Fields of a newer version.
    pub unknown: UnknownFields,
}

impl SealedSuccessor {
    /// How many credentials that were spent before the last one are remembered. Only a client that
    /// does not wait for responses rotates more often within one window.
    pub const MAX_EARLIER: usize = 8;

    /// A successor whose retry window ends at `until`, without earlier credentials.
    #[must_use]
    pub fn new(sealed: Vec<u8>, until: UnixTime) -> Self {
        Self { sealed, until, earlier: Vec::new(), unknown: UnknownFields::default() }
    }

    /// Whether the window of this earlier generation is still open at `now`, so that presenting its
    /// credential is not reuse.
    #[must_use]
    pub fn is_recent(&self, generation: u32, now: UnixTime) -> bool {
        self.earlier.iter().any(|spent| spent.generation == generation && now < spent.until)
    }
}

/// A credential that was spent before the last one was.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpentBefore {
    /// Its number in the chain.
    pub generation: u32,
    /// When its window ends.
    pub until: UnixTime,
    /// The credential after it, sealed for its holder as [`SealedSuccessor::sealed`] is. If it is empty,
    /// nobody can catch up from here.
    pub sealed: Vec<u8>,
    /// Fields of a newer version.
    pub unknown: UnknownFields,
}

impl SpentBefore {
    /// The credential of this generation, whose window ends at `until`, without the one after it.
    #[must_use]
    pub fn new(generation: u32, until: UnixTime) -> Self {
        Self { generation, until, sealed: Vec::new(), unknown: UnknownFields::default() }
    }
}

/// The key of the tags of one chain: 16 random bytes in the row of the grant. It is wiped on drop,
/// redacted in `Debug` and compared in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ChainKey([u8; 16]);

impl ChainKey {
    /// A new random key.
    ///
    /// # Errors
    ///
    /// If the source of random bytes fails.
    pub fn random(random: &Random) -> Result<Self, RandomError> {
        random.array().map(Self)
    }

    /// The key with these bytes.
    #[doc(hidden)]
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes; a secret.
    pub(crate) const fn expose(&self) -> &[u8; 16] {
        &self.0
    }
}

impl PartialEq for ChainKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for ChainKey {}

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainKey(redacted)")
    }
}

/// The record of an access token. It contains the digest of the token, and never the token itself.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TokenRecord {
    /// SHA-256 of the token.
    pub digest: TokenDigest,
    /// The grant that it belongs to.
    pub grant: GrantId,
    /// When it was issued.
    pub issued_at: UnixTime,
    /// When it expires; not after its grant.
    pub expires_at: UnixTime,
    /// When the token itself was revoked.
    pub revoked_at: Option<UnixTime>,
    /// Its scope: the grant's, or less.
    pub scope: Scope,
    /// Its audience: the grant's, or less.
    pub audience: Audience,
    /// The key that it is bound to.
    pub confirmation: Option<Confirmation>,
    /// The app's claims, if they are not those of the grant.
    pub claims: Option<Claims>,
    /// Fields of a newer version.
    pub unknown: UnknownFields,
}

impl TokenRecord {
    /// A token of this grant, with the scope, audience and key of the grant.
    #[must_use]
    pub fn new(
        digest: TokenDigest,
        grant: &GrantRecord,
        issued_at: UnixTime,
        expires_at: UnixTime,
    ) -> Self {
        Self {
            digest,
            grant: grant.id,
            issued_at,
            expires_at,
            revoked_at: None,
            scope: grant.scope.clone(),
            audience: grant.audience.clone(),
            confirmation: grant.confirmation.clone(),
            claims: None,
            unknown: UnknownFields::default(),
        }
    }

    /// Whether the token is neither revoked nor expired at `now`. It is active only if its grant is
    /// also live.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }
}

/// A proof-of-possession binding (RFC 7800 `cnf`): anyone who presents the token must prove
/// possession of this key.
///
/// The app verifies the proof, such as a DPoP header or a client certificate, and passes the key that
/// was proved. The library compares the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Confirmation {
    /// SHA-256 thumbprint of the key of a DPoP proof (RFC 9449 §6.1).
    #[serde(rename = "jkt")]
    JwkThumbprint(#[serde(with = "bytes")] [u8; 32]),
    /// SHA-256 thumbprint of a client certificate (RFC 8705 §3.1).
    #[serde(rename = "x5t#S256")]
    CertificateThumbprint(#[serde(with = "bytes")] [u8; 32]),
}

/// The `token_type` of a token with this binding: `DPoP` (RFC 9449 §5) or `Bearer`.
#[must_use]
pub const fn token_type(confirmation: Option<&Confirmation>) -> &'static str {
    match confirmation {
        Some(Confirmation::JwkThumbprint(_)) => "DPoP",
        _ => "Bearer",
    }
}

#[cfg(test)]
mod tests;
