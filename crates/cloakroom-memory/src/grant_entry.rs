//! What the store keeps under one grant id.

use std::hint::black_box;
use std::sync::Arc;
use std::{mem, slice};

use cloakroom_core::TokenDigest;
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::store::{ChainUpdate, Found, StoreError, fresh_tokens};
use cloakroom_core::time::UnixTime;

/// What the store keeps under one grant id.
pub(crate) enum GrantEntry {
    Grant(Grant),
    /// The grant was revoked before it was created.
    Tombstone {
        until: UnixTime,
    },
}

impl GrantEntry {
    /// When a part of it may be deleted: the first token, or the row itself if there is no token. So a row
    /// outlives its tokens, whatever its `row_expires_at`.
    pub(crate) fn due(&self) -> UnixTime {
        match self {
            Self::Grant(grant) if grant.tokens().is_empty() => grant.record.row_expires_at,
            Self::Grant(grant) => grant.first_end,
            Self::Tombstone { until } => *until,
        }
    }
}

/// A grant with its tokens.
pub(crate) struct Grant {
    pub(crate) record: Arc<GrantRecord>,
    tokens: Tokens,
    /// When the first of the tokens ends.
    first_end: UnixTime,
}

impl Grant {
    pub(crate) fn new(
        record: Arc<GrantRecord>,
        tokens: Vec<TokenRecord>,
    ) -> Result<Self, StoreError> {
        let mut grant = Self { record, tokens: Tokens::Any(Vec::new()), first_end: UnixTime::MAX };
        let tokens = grant.fresh(tokens)?;
        grant.attach(tokens);
        Ok(grant)
    }

    /// The grant, and the token with this digest.
    pub(crate) fn found(&self, digest: Option<TokenDigest>) -> Found {
        let token = digest.and_then(|digest| self.token(&digest));
        fetch(&self.record, token);
        Found { grant: Arc::clone(&self.record), token: token.cloned() }
    }

    fn token(&self, digest: &TokenDigest) -> Option<&Arc<TokenRecord>> {
        self.search(digest).ok().map(|at| &self.tokens()[at])
    }

    /// Whether a `create` of these records would have written what is stored, apart from revocations.
    pub(crate) fn holds(&self, record: &GrantRecord, tokens: Vec<TokenRecord>) -> bool {
        record.is_stored_as(&self.record) && self.fresh(tokens).is_ok_and(|fresh| fresh.is_empty())
    }

    /// The tokens that are not there yet.
    pub(crate) fn fresh(&self, tokens: Vec<TokenRecord>) -> Result<Vec<TokenRecord>, StoreError> {
        fresh_tokens(tokens, |token| Ok(self.token(&token.digest).map(Arc::as_ref)))
    }

    pub(crate) fn apply(&mut self, change: ChainUpdate, tokens: Vec<TokenRecord>) {
        if let ChainUpdate::Move(next) = change {
            self.record = Arc::new(*next);
        }
        self.attach(tokens);
    }

    /// Marks the grant as revoked. The first revocation counts.
    pub(crate) fn revoke(&mut self, at: UnixTime) {
        if self.record.revoked_at.is_none() {
            Arc::make_mut(&mut self.record).revoked_at = Some(at);
        }
    }

    pub(crate) fn revoke_token(&mut self, digest: &TokenDigest, at: UnixTime) {
        let Ok(index) = self.search(digest) else {
            return;
        };
        let token = &mut self.tokens.as_mut_slice()[index];
        if token.revoked_at.is_none() {
            Arc::make_mut(token).revoked_at = Some(at);
        }
    }

    /// Deletes the tokens that ended before `before`, and returns their number.
    pub(crate) fn reap_tokens(&mut self, before: UnixTime) -> u64 {
        let mut tokens = self.tokens.take();
        let count = tokens.len();
        tokens.retain(|token| token.expires_at >= before);
        let reaped = count - tokens.len();
        self.tokens.put(tokens);
        let ends = self.tokens().iter().map(|token| token.expires_at);
        self.first_end = ends.min().unwrap_or(UnixTime::MAX);
        reaped as u64
    }

    /// Whether the row as a whole ended before `before`.
    pub(crate) fn is_over(&self, before: UnixTime) -> bool {
        self.tokens().is_empty() && self.record.row_expires_at < before
    }

    fn attach(&mut self, new: Vec<TokenRecord>) {
        if new.is_empty() {
            return;
        }
        let mut tokens = self.tokens.take();
        for token in new {
            let at = search(&tokens, &token.digest).unwrap_or_else(|at| at);
            self.first_end = self.first_end.min(token.expires_at);
            tokens.insert(at, Arc::new(token));
        }
        self.tokens.put(tokens);
    }

    fn tokens(&self) -> &[Arc<TokenRecord>] {
        match &self.tokens {
            Tokens::One(token) => slice::from_ref(token),
            Tokens::Any(tokens) => tokens,
        }
    }

    fn search(&self, digest: &TokenDigest) -> Result<usize, usize> {
        search(self.tokens(), digest)
    }
}

/// The tokens of a grant, ordered by digest. There are few, so this is a vector: a map would take more
/// memory than the tokens. Most grants have one token, which needs no vector.
enum Tokens {
    One(Arc<TokenRecord>),
    Any(Vec<Arc<TokenRecord>>),
}

impl Tokens {
    fn as_mut_slice(&mut self) -> &mut [Arc<TokenRecord>] {
        match self {
            Self::One(token) => slice::from_mut(token),
            Self::Any(tokens) => tokens,
        }
    }

    fn take(&mut self) -> Vec<Arc<TokenRecord>> {
        match mem::replace(self, Self::Any(Vec::new())) {
            Self::One(token) => vec![token],
            Self::Any(tokens) => tokens,
        }
    }

    fn put(&mut self, mut tokens: Vec<Arc<TokenRecord>>) {
        *self = match tokens.len() {
            1 => Self::One(tokens.remove(0)),
            _ => Self::Any(tokens),
        };
    }
}

// The time that this takes depends on the order of digests. It reveals nothing: choosing a token by its
// digest would mean to break SHA-256, and the search stays inside one grant.
fn search(tokens: &[Arc<TokenRecord>], digest: &TokenDigest) -> Result<usize, usize> {
    tokens.binary_search_by(|token| token.digest.as_bytes().cmp(digest.as_bytes()))
}

/// Reads a little of every part of an answer. The caller is about to count references to each part, one
/// after another. With a million grants, each count would wait for memory by itself, while these reads wait
/// together.
fn fetch(grant: &GrantRecord, token: Option<&Arc<TokenRecord>>) {
    let first = |text: &str| text.as_bytes().first().copied();
    black_box((
        (grant.revoked_at, grant.auth_time, grant.act.is_some(), grant.session.is_some()),
        (first(grant.client.as_str()), first(grant.subject.id()), grant.username.is_some()),
        token.map(|token| (token.expires_at, first(token.scope.as_str()))),
        token.and_then(|token| token.audience.iter().next().map(str::len)),
    ));
}
