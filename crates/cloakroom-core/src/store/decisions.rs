//! Decisions that are the same in every store: whether a step may be taken, whether a record is a
//! retry, and what a selector selects. A store makes them inside its atomic step.

use std::borrow::Borrow;
use std::sync::Arc;

use crate::ids::GrantId;
use crate::record::{ChainPosition, GrantRecord, TokenRecord};
use crate::revocation::Target;
use crate::store::error::StoreError;
use crate::store::{Advance, AdvanceOutcome, ChainUpdate, Selector};

impl Advance {
    /// Whether the step may be taken on the stored grant: `None` if it may, and the answer to the
    /// step otherwise. [`fresh_tokens`] then returns the tokens to insert.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use cloakroom_core::record::GrantRecord;
    /// use cloakroom_core::store::{Advance, AdvanceOutcome, StoreError};
    ///
    /// /// Call this while nobody else can write the grant.
    /// fn advance(stored: &Arc<GrantRecord>, step: &Advance) -> Result<AdvanceOutcome, StoreError> {
    ///     if let Some(refused) = step.judge(stored)? {
    ///         return Ok(refused);
    ///     }
    ///     // ... writes the next record and the tokens ...
    ///     Ok(AdvanceOutcome::Advanced)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::Misuse`] if the step breaks the contract of
    /// [`TokenStore::advance`](crate::store::TokenStore::advance).
    pub fn judge(&self, stored: &Arc<GrantRecord>) -> Result<Option<AdvanceOutcome>, StoreError> {
        tokens_of(self.grant, &self.tokens)?;
        if let ChainUpdate::Move(next) = &self.change {
            follows(stored, next, &self.expected)?;
        }
        if !stored.is_live(self.now) {
            return Ok(Some(AdvanceOutcome::Dead));
        }
        // Digests are random. If the chain is already at this digest, the same step was taken before and
        // its answer was lost: drivers may send a write again.
        if let (ChainUpdate::Move(next), Some(chain)) = (&self.change, &stored.chain)
            && next.chain.as_ref().is_some_and(|next| next.position() == chain.position())
        {
            return Ok(Some(AdvanceOutcome::Advanced));
        }
        match &stored.chain {
            Some(chain) if self.now >= chain.expires_at => Ok(Some(AdvanceOutcome::Dead)),
            Some(chain) if chain.position() == self.expected => self.ends_in_time(stored),
            _ => Ok(Some(AdvanceOutcome::Stale(Arc::clone(stored)))),
        }
    }

    /// Checks the end of the next record, when the step may be taken otherwise. A step that lost a race
    /// is no misuse: the one that won it may have shortened the grant.
    fn ends_in_time(&self, stored: &GrantRecord) -> Result<Option<AdvanceOutcome>, StoreError> {
        match &self.change {
            ChainUpdate::Move(next) if next.expires_at > stored.expires_at => {
                Err(StoreError::Misuse("the next record ends later than the grant"))
            }
            _ => Ok(None),
        }
    }
}

/// Checks that all of these tokens belong to this grant.
///
/// # Errors
///
/// [`StoreError::Misuse`] if a token names another grant.
pub fn tokens_of(grant: GrantId, tokens: &[TokenRecord]) -> Result<(), StoreError> {
    if tokens.iter().any(|token| token.grant != grant) {
        return Err(StoreError::Misuse("a token names another grant"));
    }
    Ok(())
}

/// The tokens that are not stored yet. `stored` looks a token of the grant up by its digest. A token
/// that is stored with the same content is a retry, and stays as it is, even if it is revoked.
///
/// # Errors
///
/// [`StoreError::Misuse`] if another token of the grant has the digest; otherwise the error of
/// `stored`.
pub fn fresh_tokens<T: Borrow<TokenRecord>>(
    tokens: Vec<TokenRecord>,
    mut stored: impl FnMut(&TokenRecord) -> Result<Option<T>, StoreError>,
) -> Result<Vec<TokenRecord>, StoreError> {
    let mut fresh: Vec<TokenRecord> = Vec::with_capacity(tokens.len());
    for token in tokens {
        let is_retry = match fresh.iter().find(|other| other.digest == token.digest) {
            Some(own) => Some(token.is_stored_as(own)),
            None => stored(&token)?.map(|known| token.is_stored_as(known.borrow())),
        };
        match is_retry {
            None => fresh.push(token),
            Some(true) => {}
            Some(false) => return Err(StoreError::Misuse("the token's digest is taken")),
        }
    }
    Ok(fresh)
}

impl GrantRecord {
    /// Whether creating this record wrote `stored`, apart from revocation. Then a `create` is a retry
    /// of a call whose answer was lost.
    #[must_use]
    pub fn is_stored_as(&self, stored: &Self) -> bool {
        let revoked_at = stored.revoked_at;
        *stored == Self { revoked_at, ..self.clone() }
    }
}

impl TokenRecord {
    /// Whether inserting this record wrote `stored`, apart from revocation.
    #[must_use]
    pub fn is_stored_as(&self, stored: &Self) -> bool {
        let revoked_at = stored.revoked_at;
        *stored == Self { revoked_at, ..self.clone() }
    }
}

impl Target {
    /// The grants that its revocation sweeps, if it sweeps any.
    #[must_use]
    pub fn selector(&self) -> Option<Selector> {
        match self {
            Self::Subject(subject) => Some(Selector::Subject(subject.clone())),
            Self::Client(client) => Some(Selector::Client(client.clone())),
            Self::SubjectAtClient(subject, client) => {
                Some(Selector::SubjectAtClient(subject.clone(), client.clone()))
            }
            Self::Token { .. } | Self::Jti(_) | Self::Grant(_) | Self::Key(_) => None,
        }
    }
}

impl Selector {
    /// Whether it selects the grant.
    #[must_use]
    pub fn selects(&self, grant: &GrantRecord) -> bool {
        match self {
            Self::Subject(subject) => grant.subject == *subject,
            Self::Client(client) => grant.client == *client,
            Self::SubjectAtClient(subject, client) => {
                grant.subject == *subject && grant.client == *client
            }
        }
    }
}

fn follows(
    stored: &GrantRecord,
    next: &GrantRecord,
    expected: &ChainPosition,
) -> Result<(), StoreError> {
    let Some(chain) = &next.chain else {
        return Err(StoreError::Misuse("the next record has no chain"));
    };
    if chain.position() == *expected {
        return Err(StoreError::Misuse("the next record does not advance the chain"));
    }
    if next.id != stored.id
        || next.client != stored.client
        || next.subject != stored.subject
        || next.epoch != stored.epoch
    {
        return Err(StoreError::Misuse(
            "the next record changes the grant's id, client, subject or epoch",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
