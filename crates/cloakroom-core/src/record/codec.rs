//! The conversion between records and rows. A row has the few columns that a store indexes or
//! updates, and one versioned body of bytes. A new field changes only the body, so no store has to
//! change its tables.
//!
//! The body of a grant or a token, which every lookup reads, is one version byte, and the fields in a fixed order
//! (`fields.rs`). Each record in it has a JSON object for the fields of newer versions, which this version keeps. A
//! newer version puts a field there only if older nodes may ignore it. What they must not ignore, such as another way
//! to bind a token to a key, needs a new version byte: then they cannot read the row.
//!
//! The body of a log entry or a signing key is one version byte, and JSON.

mod fields;
mod rule_key;
mod whole;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::fields::{Field, body, decode, encode};
use crate::ids::{ClientId, GrantId, Subject};
use crate::keys::KeyRecord;
use crate::record::claims::{Claims, Device};
use crate::record::{
    Chain, ChainKey, CodeBinding, Confirmation, GrantRecord, SealedSuccessor, TokenRecord,
    UnknownFields,
};
use crate::revocation::{Epoch, LogEntry};
use crate::scope::{Audience, Scope};
use crate::secret::{TokenDigest, TokenKind};
use crate::store::StoreError;
use crate::time::UnixTime;

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

body!(GrantBody of GrantRecord {
    scope: Scope,
    audience: Audience,
    confirmation: Option<Confirmation>,
    auth_time: Option<UnixTime>,
    acr: Option<Box<str>>,
    created_at: UnixTime,
    username: Option<Box<str>>,
    act: Option<Box<Value>>,
    authorization_details: Option<Box<Value>>,
    session: Option<Box<str>>,
    claims: Claims,
    device: Device,
    refreshed_at: Option<UnixTime>,
    unknown: UnknownFields,
});

body!(ChainBody of Chain {
    credential: TokenKind,
    key: ChainKey,
    code: Option<Box<CodeBinding>>,
    successor: Option<Box<SealedSuccessor>>,
    bound_from: Option<u32>,
    rotates: bool,
    unknown: UnknownFields,
});

body!(TokenBody of TokenRecord {
    scope: Scope,
    audience: Audience,
    confirmation: Option<Confirmation>,
    claims: Option<Claims>,
    unknown: UnknownFields,
});

impl GrantRecord {
    /// The grant as a row.
    #[must_use]
    pub fn to_row(&self) -> GrantRow {
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
            body: encode(|to| {
                GrantBody::write(self, to);
                self.chain.is_some().write(to);
                if let Some(chain) = &self.chain {
                    ChainBody::write(chain, to);
                }
            }),
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
        let (body, chain) = decode("a grant's row", &row.body, |from| {
            let body = GrantBody::read(from)?;
            let has_chain = bool::read(from)?;
            let chain = has_chain.then(|| ChainBody::read(from)).transpose()?;
            Ok((body, chain))
        })?;
        let chain = match (chain, row.chain, row.chain_expires_at) {
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
            confirmation: body.confirmation,
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
            body: encode(|to| TokenBody::write(self, to)),
        }
    }

    /// Reads a token from its row.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the row is damaged, or if a version wrote it that this version
    /// cannot read.
    pub fn from_row(row: &TokenRow) -> Result<Self, StoreError> {
        let body = decode("a token's row", &row.body, TokenBody::read)?;
        Ok(Self {
            digest: TokenDigest::from_bytes(row.digest),
            grant: row.grant,
            issued_at: UnixTime::from_millis(row.issued_at),
            expires_at: UnixTime::from_millis(row.expires_at),
            revoked_at: row.revoked_at.map(UnixTime::from_millis),
            scope: body.scope,
            audience: body.audience,
            confirmation: body.confirmation,
            claims: body.claims,
            unknown: body.unknown,
        })
    }
}

impl LogEntry {
    /// The entry as the body of a row.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        encode_json(self)
    }

    /// Reads an entry from the body of its row.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the body is damaged, or if a version wrote it that this version
    /// cannot read.
    pub fn from_body(body: &[u8]) -> Result<Self, StoreError> {
        decode_json("an entry of the revocation log", body)
    }
}

impl KeyRecord {
    /// The record as the body of a row, beside its `generation` and `version` columns.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        encode_json(self)
    }

    /// Reads a record from the body of its row.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the body is damaged, or if a version wrote it that this version
    /// cannot read.
    pub fn from_body(body: &[u8]) -> Result<Self, StoreError> {
        decode_json("a signing key's row", body)
    }
}

/// The version of a body in JSON.
const JSON: u8 = 1;

fn encode_json(body: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![JSON];
    // Writing to a `Vec` cannot fail, and every map in a body has text keys.
    serde_json::to_writer(&mut bytes, body).unwrap_or_default();
    bytes
}

fn decode_json<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&JSON, json)) => {
            serde_json::from_slice(json).map_err(|error| StoreError::corrupt(what, error))
        }
        Some(_) => Err(StoreError::corrupt(what, "this program does not know its version")),
        None => Err(StoreError::corrupt(what, "it is empty")),
    }
}

#[cfg(test)]
mod tests;
