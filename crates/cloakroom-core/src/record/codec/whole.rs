//! Whole records as bytes: the columns of the row, and its body.

use std::mem;

use super::fields::{Field, body, decode, encode};
use super::{GrantRow, TokenRow};
use crate::ids::GrantId;
use crate::record::{GrantRecord, TokenRecord};
use crate::secret::TokenDigest;
use crate::store::StoreError;

body!(GrantColumns of GrantRow {
    client: String,
    subject: String,
    epoch: u64,
    chain: Option<(u32, [u8; 32])>,
    chain_expires_at: Option<u64>,
    expires_at: u64,
    row_expires_at: u64,
    revoked_at: Option<u64>,
});

body!(TokenColumns of TokenRow {
    issued_at: u64,
    expires_at: u64,
    revoked_at: Option<u64>,
});

/// All that is left, which is the body.
fn rest(from: &mut &[u8]) -> Vec<u8> {
    mem::take(from).to_vec()
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
        encode(|to| {
            GrantColumns::write(&row, to);
            to.extend(&row.body);
        })
    }

    /// Reads the grant with this id from bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if the bytes are damaged, or if a version wrote them that this version
    /// cannot read.
    pub fn from_bytes(id: GrantId, bytes: &[u8]) -> Result<Self, StoreError> {
        let (columns, body) =
            decode("a grant", bytes, |from| Ok((GrantColumns::read(from)?, rest(from))))?;
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
        encode(|to| {
            TokenColumns::write(&row, to);
            to.extend(&row.body);
        })
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
        let (columns, body) =
            decode("a token", bytes, |from| Ok((TokenColumns::read(from)?, rest(from))))?;
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
