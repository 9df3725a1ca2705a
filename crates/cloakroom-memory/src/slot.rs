//! What the store keeps under one grant id.

use std::sync::Arc;

use cloakroom_core::{Change, GrantRecord, StoreError, TokenDigest, TokenRecord, UnixTime};

/// What the store keeps under one grant id.
pub(crate) enum Slot {
    Grant(Grant),
    /// The grant was revoked before it was seen.
    Tombstone {
        until: UnixTime,
    },
}

impl Slot {
    /// When some of it may be deleted: the first token, or where none is left the row itself. A row
    /// thus outlives its tokens, whatever its own `row_expires_at` says.
    pub(crate) fn due(&self) -> UnixTime {
        match self {
            Self::Grant(grant) if grant.tokens.is_empty() => grant.record.row_expires_at,
            Self::Grant(grant) => grant.first_end,
            Self::Tombstone { until } => *until,
        }
    }
}

/// A grant with the tokens that hang off it.
pub(crate) struct Grant {
    pub(crate) record: Arc<GrantRecord>,
    // Ordered by digest. Few, so a vector: a map would cost each grant more than its tokens.
    tokens: Vec<Arc<TokenRecord>>,
    /// When the first of the tokens ends.
    first_end: UnixTime,
}

impl Grant {
    pub(crate) fn new(
        record: Arc<GrantRecord>,
        tokens: Vec<TokenRecord>,
    ) -> Result<Self, StoreError> {
        let mut grant = Self { record, tokens: Vec::new(), first_end: UnixTime::MAX };
        let tokens = grant.fresh(tokens)?;
        grant.attach(tokens);
        Ok(grant)
    }

    pub(crate) fn token(&self, digest: &TokenDigest) -> Option<&Arc<TokenRecord>> {
        self.search(digest).ok().map(|at| &self.tokens[at])
    }

    /// Whether the grant holds what a `create` of these records would have written; revocations
    /// aside.
    pub(crate) fn holds(&self, record: &GrantRecord, tokens: Vec<TokenRecord>) -> bool {
        let own = GrantRecord { revoked_at: record.revoked_at, ..GrantRecord::clone(&self.record) };
        own == *record && self.fresh(tokens).is_ok_and(|fresh| fresh.is_empty())
    }

    /// Those of `tokens` that are not there yet. A token that is there with the same content is a
    /// retry, and stays as it is: revoked, if it was.
    pub(crate) fn fresh(
        &self,
        tokens: Vec<TokenRecord>,
    ) -> Result<Vec<Arc<TokenRecord>>, StoreError> {
        let mut fresh: Vec<Arc<TokenRecord>> = Vec::with_capacity(tokens.len());
        for token in tokens {
            let known = self
                .token(&token.digest)
                .or_else(|| fresh.iter().find(|other| other.digest == token.digest));
            match known {
                None => fresh.push(Arc::new(token)),
                Some(known) if is_same(known, &token) => {}
                Some(_) => return Err(StoreError::Misuse("the token's digest is taken")),
            }
        }
        Ok(fresh)
    }

    pub(crate) fn apply(&mut self, change: Change, tokens: Vec<Arc<TokenRecord>>) {
        if let Change::Move(next) = change {
            self.record = Arc::new(*next);
        }
        self.attach(tokens);
    }

    /// Marks the grant revoked; the first revocation counts.
    pub(crate) fn revoke(&mut self, at: UnixTime) {
        if self.record.revoked_at.is_none() {
            Arc::make_mut(&mut self.record).revoked_at = Some(at);
        }
    }

    pub(crate) fn revoke_token(&mut self, digest: &TokenDigest, at: UnixTime) {
        let Ok(index) = self.search(digest) else {
            return;
        };
        if self.tokens[index].revoked_at.is_none() {
            Arc::make_mut(&mut self.tokens[index]).revoked_at = Some(at);
        }
    }

    /// Drops the tokens that ended before `before`, and counts them.
    pub(crate) fn reap_tokens(&mut self, before: UnixTime) -> u64 {
        let count = self.tokens.len();
        self.tokens.retain(|token| token.expires_at >= before);
        self.tokens.shrink_to_fit();
        let ends = self.tokens.iter().map(|token| token.expires_at);
        self.first_end = ends.min().unwrap_or(UnixTime::MAX);
        (count - self.tokens.len()) as u64
    }

    /// Whether the row as a whole ended before `before`.
    pub(crate) fn is_over(&self, before: UnixTime) -> bool {
        self.tokens.is_empty() && self.record.row_expires_at < before
    }

    fn attach(&mut self, tokens: Vec<Arc<TokenRecord>>) {
        if self.tokens.is_empty() {
            // Most grants never have more than their first token.
            self.tokens.reserve_exact(tokens.len());
        }
        for token in tokens {
            let at = self.search(&token.digest).unwrap_or_else(|at| at);
            self.first_end = self.first_end.min(token.expires_at);
            self.tokens.insert(at, token);
        }
    }

    // The order of digests shows in the time this takes. It tells nothing: whoever could choose a
    // token for its digest would have to break SHA-256, and the search stays inside one grant.
    fn search(&self, digest: &TokenDigest) -> Result<usize, usize> {
        self.tokens.binary_search_by(|token| token.digest.as_bytes().cmp(digest.as_bytes()))
    }
}

/// Whether both say the same; revocation aside.
fn is_same(known: &TokenRecord, token: &TokenRecord) -> bool {
    let known = TokenRecord { revoked_at: token.revoked_at, ..known.clone() };
    known == *token
}
