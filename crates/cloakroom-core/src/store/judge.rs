//! What every store judges alike: whether a step may be taken, whether a record is the retry of
//! another, whom a selector selects. A store calls these inside its atomic step.

use std::sync::Arc;

use crate::ids::GrantId;
use crate::record::{ChainPosition, GrantRecord, TokenRecord};
use crate::revocation::Target;
use crate::store::error::StoreError;
use crate::store::{Advance, AdvanceOutcome, ChainUpdate, Selector};

impl Advance {
    /// Whether the step may be taken on the grant as it stands: `None` if it may, else the answer to
    /// it. [`fresh_tokens`] then says which of its tokens to insert.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use cloakroom_core::record::GrantRecord;
    /// use cloakroom_core::store::{Advance, AdvanceOutcome, StoreError};
    ///
    /// /// To be called while nobody else can write the grant.
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
        // A digest is random: where the chain stands just there, this very step was taken before, and
        // its answer was lost. Drivers send a write again by themselves.
        if let (ChainUpdate::Move(next), Some(chain)) = (&self.change, &stored.chain)
            && next.chain.as_ref().is_some_and(|next| next.position() == chain.position())
        {
            return Ok(Some(AdvanceOutcome::Advanced));
        }
        Ok(match &stored.chain {
            Some(chain) if self.now >= chain.expires_at => Some(AdvanceOutcome::Dead),
            Some(chain) if chain.position() == self.expected => None,
            _ => Some(AdvanceOutcome::Stale(Arc::clone(stored))),
        })
    }
}

/// Whether all of these tokens hang off this grant.
///
/// # Errors
///
/// [`StoreError::Misuse`] if one names another.
pub fn tokens_of(grant: GrantId, tokens: &[TokenRecord]) -> Result<(), StoreError> {
    if tokens.iter().any(|token| token.grant != grant) {
        return Err(StoreError::Misuse("a token names another grant"));
    }
    Ok(())
}

/// Those of `tokens` that are not there yet, where `stored` brings the token of a grant by its
/// digest. A token that is there with the same content is a retry, and stays as it is: revoked, if it
/// was.
///
/// # Errors
///
/// [`StoreError::Misuse`] if a digest is taken by another token of the grant; else what `stored`
/// fails with.
pub fn fresh_tokens(
    tokens: Vec<TokenRecord>,
    mut stored: impl FnMut(&TokenRecord) -> Result<Option<TokenRecord>, StoreError>,
) -> Result<Vec<TokenRecord>, StoreError> {
    let mut fresh: Vec<TokenRecord> = Vec::with_capacity(tokens.len());
    for token in tokens {
        let known = match fresh.iter().find(|other| other.digest == token.digest) {
            Some(own) => Some(own.clone()),
            None => stored(&token)?,
        };
        match known {
            None => fresh.push(token),
            Some(known) if token.is_stored_as(&known) => {}
            Some(_) => return Err(StoreError::Misuse("the token's digest is taken")),
        }
    }
    Ok(fresh)
}

impl GrantRecord {
    /// Whether `stored` is what creating this record wrote, revocation aside: then a `create` is the
    /// retry of one whose answer was lost.
    #[must_use]
    pub fn is_stored_as(&self, stored: &Self) -> bool {
        let revoked_at = stored.revoked_at;
        *stored == Self { revoked_at, ..self.clone() }
    }
}

impl TokenRecord {
    /// Whether `stored` is what inserting this record wrote, revocation aside.
    #[must_use]
    pub fn is_stored_as(&self, stored: &Self) -> bool {
        let revoked_at = stored.revoked_at;
        *stored == Self { revoked_at, ..self.clone() }
    }
}

impl Target {
    /// The grants that a revocation of it sweeps, where it sweeps any.
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
    /// Whether the grant is one of those selected.
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
        return Err(StoreError::Misuse("the next record leaves the chain where it stands"));
    }
    if next.expires_at > stored.expires_at {
        return Err(StoreError::Misuse("the next record ends later than the grant"));
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
