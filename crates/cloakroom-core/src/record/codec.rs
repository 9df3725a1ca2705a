//! The conversion between records and rows. A row has the few columns that a store indexes or
//! updates, and one versioned body of bytes. A new field changes only the body, so no store has to
//! migrate.
//!
//! A body is one version byte followed by JSON. Members that this version does not know are kept.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{ClientId, GrantId, Jti, Kid, Subject};
use crate::keys::KeyRecord;
use crate::record::claims::{Claims, Device};
use crate::record::{
    Chain, ChainKey, CodeBinding, Confirmation, GrantRecord, SealedSuccessor, TokenRecord,
    UnknownFields,
};
use crate::revocation::LogEntry;
use crate::revocation::{Epoch, RuleKey};
use crate::scope::{Audience, Scope};
use crate::secret::{TokenDigest, TokenKind};
use crate::store::StoreError;
use crate::time::UnixTime;

const VERSION: u8 = 1;

/// The row of a grant. The columns are authoritative: a sweep may set `revoked_at` without reading
/// the body.
///
/// ```
/// use cloakroom_core::record::GrantRecord;
/// use cloakroom_core::store::StoreError;
///
/// # fn demo(grant: GrantRecord) -> Result<(), StoreError> {
/// let row = grant.to_row();
/// assert_eq!(GrantRecord::from_row(&row)?, grant);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a new column is a migration of every store")]
pub struct GrantRow {
    /// Primary key.
    pub id: GrantId,
    /// Indexed, byte-exact.
    pub client: String,
    /// [`Subject::to_key`]; indexed, byte-exact.
    pub subject: String,
    /// Also kept in the index entries of subject and client.
    pub epoch: u64,
    /// The generation and the digest of the chain, which `advance` compares.
    pub chain: Option<(u32, [u8; 32])>,
    /// When the credential of the chain expires, in ms.
    pub chain_expires_at: Option<u64>,
    /// When the grant ends, in ms.
    pub expires_at: u64,
    /// When the row may be deleted, in ms; indexed.
    pub row_expires_at: u64,
    /// When it was revoked, in ms.
    pub revoked_at: Option<u64>,
    /// All other fields.
    pub body: Vec<u8>,
}

/// The row of an access token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a new column is a migration of every store")]
pub struct TokenRow {
    /// Primary key, within its grant.
    pub digest: [u8; 32],
    /// The grant that it belongs to.
    pub grant: GrantId,
    /// When it was issued, in ms.
    pub issued_at: u64,
    /// When it expires, in ms; indexed.
    pub expires_at: u64,
    /// When it was revoked, in ms.
    pub revoked_at: Option<u64>,
    /// All other fields.
    pub body: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct GrantBody {
    scope: Scope,
    audience: Audience,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth_time: Option<UnixTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acr: Option<Box<str>>,
    created_at: UnixTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    username: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    act: Option<Box<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authorization_details: Option<Box<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Claims::is_empty")]
    claims: Claims,
    #[serde(default, skip_serializing_if = "Device::is_empty")]
    device: Device,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chain: Option<ChainBody>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refreshed_at: Option<UnixTime>,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct ChainBody {
    credential: TokenKind,
    key: ChainKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<Box<CodeBinding>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    successor: Option<Box<SealedSuccessor>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bound_from: Option<u32>,
    rotates: bool,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct TokenBody {
    scope: Scope,
    audience: Audience,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claims: Option<Claims>,
    #[serde(flatten)]
    unknown: UnknownFields,
}

impl GrantRecord {
    /// The grant as a row.
    #[must_use]
    pub fn to_row(&self) -> GrantRow {
        let body = GrantBody {
            scope: self.scope.clone(),
            audience: self.audience.clone(),
            cnf: self.confirmation.clone(),
            auth_time: self.auth_time,
            acr: self.acr.clone(),
            created_at: self.created_at,
            username: self.username.clone(),
            act: self.act.clone(),
            authorization_details: self.authorization_details.clone(),
            session: self.session.clone(),
            claims: self.claims.clone(),
            device: self.device.clone(),
            chain: self.chain.as_ref().map(|chain| ChainBody {
                credential: chain.credential,
                key: chain.key.clone(),
                code: chain.code.clone(),
                successor: chain.successor.clone(),
                bound_from: chain.bound_from,
                rotates: chain.rotates,
                unknown: chain.unknown.clone(),
            }),
            refreshed_at: self.refreshed_at,
            unknown: self.unknown.clone(),
        };
        GrantRow {
            id: self.id,
            client: self.client.to_string(),
            subject: self.subject.to_key(),
            epoch: self.epoch.get(),
            chain: self.chain.as_ref().map(|chain| (chain.generation, *chain.digest.as_bytes())),
            chain_expires_at: self.chain.as_ref().map(|chain| chain.expires_at.as_millis()),
            expires_at: self.expires_at.as_millis(),
            row_expires_at: self.row_expires_at.as_millis(),
            revoked_at: self.revoked_at.map(UnixTime::as_millis),
            body: encode(&body),
        }
    }

    /// Reads a grant from its row.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the row is damaged, or if a version wrote it that this version
    /// cannot read.
    pub fn from_row(row: &GrantRow) -> Result<Self, StoreError> {
        let corrupt = |why: &'static str| StoreError::corrupt("a grant's row", why);
        let body: GrantBody = decode("a grant's row", &row.body)?;
        let chain = match (body.chain, row.chain, row.chain_expires_at) {
            (None, None, None) => None,
            (Some(body), Some((generation, digest)), Some(expires_at)) => Some(Chain {
                credential: body.credential,
                generation,
                digest: TokenDigest::from_bytes(digest),
                key: body.key,
                expires_at: UnixTime::from_millis(expires_at),
                code: body.code,
                successor: body.successor,
                bound_from: body.bound_from,
                rotates: body.rotates,
                unknown: body.unknown,
            }),
            _ => return Err(corrupt("its columns and its body disagree about the chain")),
        };
        Ok(Self {
            id: row.id,
            client: ClientId::new(&row.client).map_err(|_| corrupt("its client is invalid"))?,
            subject: Subject::from_key(&row.subject)
                .map_err(|_| corrupt("its subject is invalid"))?,
            scope: body.scope,
            audience: body.audience,
            confirmation: body.cnf,
            auth_time: body.auth_time,
            acr: body.acr,
            created_at: body.created_at,
            epoch: Epoch::new(row.epoch),
            username: body.username,
            act: body.act,
            authorization_details: body.authorization_details,
            session: body.session,
            claims: body.claims,
            device: body.device,
            chain,
            expires_at: UnixTime::from_millis(row.expires_at),
            row_expires_at: UnixTime::from_millis(row.row_expires_at),
            refreshed_at: body.refreshed_at,
            revoked_at: row.revoked_at.map(UnixTime::from_millis),
            unknown: body.unknown,
        })
    }
}

impl TokenRecord {
    /// The token as a row.
    #[must_use]
    pub fn to_row(&self) -> TokenRow {
        TokenRow {
            digest: *self.digest.as_bytes(),
            grant: self.grant,
            issued_at: self.issued_at.as_millis(),
            expires_at: self.expires_at.as_millis(),
            revoked_at: self.revoked_at.map(UnixTime::as_millis),
            body: encode(&TokenBody {
                scope: self.scope.clone(),
                audience: self.audience.clone(),
                cnf: self.confirmation.clone(),
                claims: self.claims.clone(),
                unknown: self.unknown.clone(),
            }),
        }
    }

    /// Reads a token from its row.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the row is damaged, or if a version wrote it that this version
    /// cannot read.
    pub fn from_row(row: &TokenRow) -> Result<Self, StoreError> {
        let body: TokenBody = decode("a token's row", &row.body)?;
        Ok(Self {
            digest: TokenDigest::from_bytes(row.digest),
            grant: row.grant,
            issued_at: UnixTime::from_millis(row.issued_at),
            expires_at: UnixTime::from_millis(row.expires_at),
            revoked_at: row.revoked_at.map(UnixTime::from_millis),
            scope: body.scope,
            audience: body.audience,
            confirmation: body.cnf,
            claims: body.claims,
            unknown: body.unknown,
        })
    }
}

impl GrantRecord {
    /// The whole record as bytes, for a store that has keys and values but no columns.
    ///
    /// ```
    /// use cloakroom_core::record::GrantRecord;
    /// use cloakroom_core::store::StoreError;
    ///
    /// # fn demo(grant: GrantRecord) -> Result<(), StoreError> {
    /// assert_eq!(GrantRecord::from_bytes(grant.id, &grant.to_bytes())?, grant);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let row = self.to_row();
        let columns = GrantColumns {
            client: row.client,
            subject: row.subject,
            epoch: row.epoch,
            chain: row.chain,
            chain_expires_at: row.chain_expires_at,
            expires_at: row.expires_at,
            row_expires_at: row.row_expires_at,
            revoked_at: row.revoked_at,
        };
        join(&columns, &row.body)
    }

    /// Reads the grant with this id from bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the bytes are damaged, or if a version wrote them that this version
    /// cannot read.
    pub fn from_bytes(id: GrantId, bytes: &[u8]) -> Result<Self, StoreError> {
        let (columns, body) = split::<GrantColumns>("a grant", bytes)?;
        Self::from_row(&GrantRow {
            id,
            client: columns.client,
            subject: columns.subject,
            epoch: columns.epoch,
            chain: columns.chain,
            chain_expires_at: columns.chain_expires_at,
            expires_at: columns.expires_at,
            row_expires_at: columns.row_expires_at,
            revoked_at: columns.revoked_at,
            body,
        })
    }
}

impl TokenRecord {
    /// The whole record as bytes, for a store that has keys and values but no columns.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let row = self.to_row();
        let columns = TokenColumns {
            issued_at: row.issued_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        };
        join(&columns, &row.body)
    }

    /// Reads the token with this grant and digest from bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the bytes are damaged, or if a version wrote them that this version
    /// cannot read.
    pub fn from_bytes(
        grant: GrantId,
        digest: &TokenDigest,
        bytes: &[u8],
    ) -> Result<Self, StoreError> {
        let (columns, body) = split::<TokenColumns>("a token", bytes)?;
        Self::from_row(&TokenRow {
            digest: *digest.as_bytes(),
            grant,
            issued_at: columns.issued_at,
            expires_at: columns.expires_at,
            revoked_at: columns.revoked_at,
            body,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct GrantColumns {
    client: String,
    subject: String,
    epoch: u64,
    chain: Option<(u32, [u8; 32])>,
    chain_expires_at: Option<u64>,
    expires_at: u64,
    row_expires_at: u64,
    revoked_at: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct TokenColumns {
    issued_at: u64,
    expires_at: u64,
    revoked_at: Option<u64>,
}

/// The columns, a line feed, and the body. Our JSON contains no line feed.
fn join(columns: &impl Serialize, body: &[u8]) -> Vec<u8> {
    [&encode(columns)[..], b"\n", body].concat()
}

fn split<C: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<(C, Vec<u8>), StoreError> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| StoreError::corrupt(what, "it is cut off"))?;
    Ok((decode(what, &bytes[..end])?, bytes[end + 1..].to_vec()))
}

impl LogEntry {
    /// The entry as the body of a row.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads an entry from the body of its row.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the body is damaged, or if a version wrote it that this version
    /// cannot read.
    pub fn from_body(body: &[u8]) -> Result<Self, StoreError> {
        decode("an entry of the revocation log", body)
    }
}

impl RuleKey {
    /// The key as bytes, for a column that is compared byte by byte.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, first, second) = match self {
            Self::Jti(jti) => (b'j', jti.as_str().to_owned(), ""),
            Self::Subject(subject) => (b's', subject.to_key(), ""),
            Self::Client(client) => (b'c', client.as_str().to_owned(), ""),
            Self::SubjectAtClient(subject, client) => (b'p', subject.to_key(), client.as_str()),
            Self::Key(kid) => (b'k', kid.as_str().to_owned(), ""),
        };
        // Identifiers may contain any byte, so the length of the first tells where the second begins.
        let length = u16::try_from(first.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&[kind], &length[..], first.as_bytes(), second.as_bytes()].concat()
    }

    /// Reads a key from these bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the bytes are not a key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = |why: &'static str| StoreError::corrupt("a rule's key", why);
        let Some((&[kind, high, low], rest)) = bytes.split_first_chunk() else {
            return Err(damaged("it is too short"));
        };
        let Some((first, second)) =
            rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))
        else {
            return Err(damaged("it is cut off"));
        };
        let text = |bytes| {
            std::str::from_utf8(bytes).map_err(|error| StoreError::corrupt("a rule's key", error))
        };
        let (first, second) = (text(first)?, text(second)?);
        let key = match kind {
            b'j' => Jti::new(first).map(Self::Jti),
            b's' => Subject::from_key(first).map(Self::Subject),
            b'c' => ClientId::new(first).map(Self::Client),
            b'p' => Subject::from_key(first).and_then(|subject| {
                ClientId::new(second).map(|client| Self::SubjectAtClient(subject, client))
            }),
            b'k' => Kid::new(first).map(Self::Key),
            _ => return Err(damaged("its kind is unknown")),
        };
        if kind != b'p' && !second.is_empty() {
            return Err(damaged("more bytes follow it"));
        }
        key.map_err(|error| StoreError::corrupt("a rule's key", error))
    }
}

impl KeyRecord {
    /// The record as the body of a row, beside its `generation` and `version` columns.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a record from the body of its row.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the body is damaged, or if a version wrote it that this version
    /// cannot read.
    pub fn from_body(body: &[u8]) -> Result<Self, StoreError> {
        decode("a signing key's row", body)
    }
}

fn encode(body: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    // Writing to a `Vec` cannot fail, and every map in a body has text keys.
    serde_json::to_writer(&mut bytes, body).unwrap_or_default();
    bytes
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&VERSION, json)) => {
            // Checked in one go, and not again for each string.
            let json = str::from_utf8(json).map_err(|error| StoreError::corrupt(what, error))?;
            serde_json::from_str(json).map_err(|error| StoreError::corrupt(what, error))
        }
        Some(_) => Err(StoreError::corrupt(what, "this program does not know its version")),
        None => Err(StoreError::corrupt(what, "its body is empty")),
    }
}

#[cfg(test)]
mod tests;
