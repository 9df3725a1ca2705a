//! The two records: the grant, and the access token that hangs off it.

mod claims;
mod codec;

pub use claims::{Claims, Device, RESERVED_CLAIMS, bounded_json};
pub use codec::{GrantRow, TokenRow};

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::ids::{ClientId, GrantId, Subject};
use crate::random::{Random, RandomError};
use crate::revocation::{Epoch, RuleKey};
use crate::scope::{Audience, Scope};
use crate::secret::{TokenDigest, TokenKind, byte_vec, bytes};
use crate::time::UnixTime;

/// Fields that a newer version wrote and this one does not know. They are kept as they are, so
/// that a record survives being rewritten by an older node.
pub type UnknownFields = Map<String, Value>;

/// One authorization: this client, for this subject, with this scope.
///
/// The grant is the only thing that lives. Its [`Chain`] holds the one credential that may be
/// redeemed next; access tokens are [`TokenRecord`]s that hang off it and die with it.
#[derive(Debug, Clone, PartialEq)]
pub struct GrantRecord {
    /// The grant's own identifier.
    pub id: GrantId,
    /// The client it was given to.
    pub client: ClientId,
    /// For whom the client acts.
    pub subject: Subject,
    /// What was granted; a token's own scope is never wider.
    pub scope: Scope,
    /// For which resources; a token's own audience is never wider.
    pub audience: Audience,
    /// The key that the chain's credential is bound to: the code's, if the authorization request
    /// named one (RFC 9449 §10), and later that of a public client's refresh tokens (RFC 9449 §5,
    /// [`Chain::bound_from`]). A confidential client's refresh tokens have none. The key of an access
    /// token is [`TokenRecord::confirmation`].
    pub confirmation: Option<Confirmation>,
    /// When the user signed in (OpenID Connect `auth_time`).
    pub auth_time: Option<UnixTime>,
    /// When the grant was made.
    pub created_at: UnixTime,
    /// Its place among the revocations of its subject and client.
    pub epoch: Epoch,
    /// The user's name, for people (RFC 7662 §2.2 `username`); at most 255 bytes.
    pub username: Option<String>,
    /// Who acts for the subject (RFC 8693 §4.1 `act`).
    pub act: Option<Value>,
    /// What exactly was authorized (RFC 9396).
    pub authorization_details: Option<Value>,
    /// The OpenID Connect session (`sid`).
    pub session: Option<String>,
    /// Claims of the app's own, shown by introspection and in JWTs.
    pub claims: Claims,
    /// What the user sees under "your devices".
    pub device: Device,
    /// The chain of single-use credentials; `None` where there is none to redeem
    /// (`client_credentials`).
    pub chain: Option<Chain>,
    /// When the grant ends, whatever its chain does.
    pub expires_at: UnixTime,
    /// Until when the row is needed: not before the last token that hangs off it has expired.
    pub row_expires_at: UnixTime,
    /// When a refresh token was last redeemed.
    pub refreshed_at: Option<UnixTime>,
    /// When it was revoked.
    pub revoked_at: Option<UnixTime>,
    /// Fields of a newer version.
    pub unknown: UnknownFields,
}

impl GrantRecord {
    /// A grant of one client for one subject that begins at `created_at` and ends at `expires_at`,
    /// its row with it. It has no scope, no chain and epoch 0: fill in what it needs.
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

    /// Whether the grant is neither revoked nor past its end at `now`.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        self.revoked_at.is_none() && now < self.expires_at && now < self.row_expires_at
    }

    /// The keys of the rules that may deny it: of its subject, its client, and the pair.
    #[must_use]
    pub fn rule_keys(&self) -> [RuleKey; 3] {
        [
            RuleKey::Subject(self.subject.clone()),
            RuleKey::Client(self.client.clone()),
            RuleKey::SubjectAtClient(self.subject.clone(), self.client.clone()),
        ]
    }
}

/// The chain of single-use credentials of a grant: its authorization code, then its refresh
/// tokens. Only the credential at `generation` may be redeemed; redeeming it moves the chain on.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// What the current credential is.
    pub credential: TokenKind,
    /// Its number, from 0.
    pub generation: u32,
    /// Its digest.
    pub digest: TokenDigest,
    /// The key of the chain's tags.
    pub key: ChainKey,
    /// When the current credential expires: the code's life, then the refresh token's idle time.
    pub expires_at: UnixTime,
    /// What the code is bound to, while the current credential is one, and after: an old code is
    /// reuse only in the hands of someone who knows its verifier.
    pub code: Option<CodeBinding>,
    /// The refresh token that the last rotation made, sealed for whoever holds the one before.
    pub successor: Option<SealedSuccessor>,
    /// The first generation that is useless without [`GrantRecord::confirmation`], if there is one;
    /// the generations before it were issued without a key. `None` stands for the current one: in a
    /// new chain, and in a row that an older version wrote.
    pub bound_from: Option<u32>,
    /// Whether a refresh token is replaced at each use.
    pub rotates: bool,
    /// Fields of a newer version.
    pub unknown: UnknownFields,
}

impl Chain {
    /// A chain that rotates, at its first credential.
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

    /// Where the chain stands.
    #[must_use]
    pub const fn position(&self) -> ChainPosition {
        ChainPosition { generation: self.generation, digest: self.digest }
    }
}

/// Where a chain stands: the compare half of the compare-and-set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainPosition {
    /// The number of the current credential.
    pub generation: u32,
    /// Its digest.
    pub digest: TokenDigest,
}

/// What an authorization code is bound to (RFC 6749 §4.1.3, RFC 7636 §4.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeBinding {
    /// The redirect URI of the authorization request, byte for byte.
    pub redirect_uri: String,
    /// The PKCE `S256` challenge; `None` only for confidential clients that sent none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<String>,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

impl CodeBinding {
    /// A code for this redirect URI, and this challenge if there is one.
    #[must_use]
    pub fn new(redirect_uri: impl Into<String>, challenge: Option<String>) -> Self {
        let redirect_uri = redirect_uri.into();
        Self { redirect_uri, challenge, unknown: UnknownFields::default() }
    }
}

/// The successor of the last rotated refresh token, sealed under a key that only the rotated token
/// itself yields: the database alone cannot open it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSuccessor {
    /// Nonce and ciphertext.
    #[serde(with = "byte_vec")]
    pub sealed: Vec<u8>,
    /// When the retry window ends.
    pub until: UnixTime,
    /// The credentials spent before that one whose own windows were still open, oldest first: a
    /// slow tab is not a thief. At most [`SealedSuccessor::MAX_EARLIER`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<SpentBefore>,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

impl SealedSuccessor {
    /// How many credentials spent before the last one are remembered. A client that rotates more
    /// often than this within one window is not waiting for answers.
    pub const MAX_EARLIER: usize = 8;

    /// A successor whose retry window ends at `until`; nothing was spent shortly before.
    #[must_use]
    pub fn new(sealed: Vec<u8>, until: UnixTime) -> Self {
        Self { sealed, until, earlier: Vec::new(), unknown: UnknownFields::default() }
    }

    /// Whether a credential of this generation, spent before the last one, was spent so shortly
    /// before `now` that presenting it is no reuse.
    #[must_use]
    pub fn is_recent(&self, generation: u32, now: UnixTime) -> bool {
        self.earlier.iter().any(|spent| spent.generation == generation && now < spent.until)
    }
}

/// A credential that was spent before the last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpentBefore {
    /// Its number in the chain.
    pub generation: u32,
    /// When its own window ends.
    pub until: UnixTime,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

impl SpentBefore {
    /// The credential of this generation, whose window ends at `until`.
    #[must_use]
    pub fn new(generation: u32, until: UnixTime) -> Self {
        Self { generation, until, unknown: UnknownFields::default() }
    }
}

/// The key of one chain's tags: 16 random bytes in the grant's row. Wiped on drop, redacted in
/// `Debug`, compared in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainKey(#[serde(with = "bytes")] [u8; 16]);

impl ChainKey {
    /// A new random key.
    ///
    /// # Errors
    ///
    /// If the source of random bytes fails.
    pub fn random(random: &Random) -> Result<Self, RandomError> {
        random.array().map(Self)
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

/// One access token that a store keeps: its digest, never the token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRecord {
    /// SHA-256 of the token.
    pub digest: TokenDigest,
    /// The grant it hangs off.
    pub grant: GrantId,
    /// When it was issued.
    pub issued_at: UnixTime,
    /// When it expires; not after its grant.
    pub expires_at: UnixTime,
    /// When it was revoked on its own.
    pub revoked_at: Option<UnixTime>,
    /// Its scope: the grant's, or less.
    pub scope: Scope,
    /// Its audience: the grant's, or less.
    pub audience: Audience,
    /// The key it is bound to.
    pub confirmation: Option<Confirmation>,
    /// Fields of a newer version.
    pub unknown: UnknownFields,
}

impl TokenRecord {
    /// A token of this grant, with all of its scope, audience and binding.
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
            unknown: UnknownFields::default(),
        }
    }

    /// Whether the token itself is neither revoked nor expired at `now`. It is active only if its
    /// grant is live, too.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }
}

/// A proof-of-possession binding (RFC 7800 `cnf`): whoever presents the token must prove this key.
///
/// The app verifies the proof (a DPoP header, a client certificate) and says which key was proved;
/// the library compares.
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

/// The `token_type` of a token that is bound like this: `DPoP` (RFC 9449 §5) or `Bearer`.
#[must_use]
pub const fn token_type(confirmation: Option<&Confirmation>) -> &'static str {
    match confirmation {
        Some(Confirmation::JwkThumbprint(_)) => "DPoP",
        _ => "Bearer",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn debug_shows_no_chain_key() {
        let key = ChainKey([0xab; 16]);
        assert_eq!(format!("{key:?}"), "ChainKey(redacted)");
    }

    #[test]
    fn confirmations_are_written_as_the_rfcs_say() {
        let jkt = serde_json::to_value(Confirmation::JwkThumbprint([0; 32])).unwrap();
        assert_eq!(jkt, json!({"jkt": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}));
        let x5t = serde_json::to_value(Confirmation::CertificateThumbprint([0; 32])).unwrap();
        assert!(x5t.get("x5t#S256").is_some());
    }
}
