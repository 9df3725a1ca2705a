//! What the store keeps under one grant id.

use std::hint::black_box;
use std::sync::Arc;
use std::{mem, slice};

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::store::{ChainUpdate, Found, StoreError, fresh_tokens};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Subject, TokenDigest};

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
            Self::Grant(grant) => grant.tokens.first_end().unwrap_or(grant.record.row_expires_at),
            Self::Tombstone { until } => *until,
        }
    }
}

/// A grant with its tokens.
pub(crate) struct Grant {
    pub(crate) record: Arc<GrantRecord>,
    tokens: Tokens,
}

impl Grant {
    pub(crate) fn new(
        record: Arc<GrantRecord>,
        tokens: Vec<TokenRecord>,
    ) -> Result<Self, StoreError> {
        let mut grant = Self { record, tokens: Tokens::None };
        let tokens = grant.fresh(tokens)?;
        grant.attach(tokens);
        Ok(grant)
    }

    /// The grant, and the token with this digest.
    pub(crate) fn found(&self, digest: Option<TokenDigest>) -> Found {
        // Before the token is compared, which waits for memory, too.
        fetch_grant(&self.record);
        let token = digest.and_then(|digest| self.token(&digest));
        if let Some(token) = token {
            fetch_token(token);
        }
        Found { grant: Arc::clone(&self.record), token: token.cloned() }
    }

    fn token(&self, digest: &TokenDigest) -> Option<&Arc<TokenRecord>> {
        let tokens = self.tokens.as_slice();
        search(tokens, digest).ok().map(|at| &tokens[at])
    }

    /// Whether a `create` of these records would have written what is stored, apart from revocations.
    pub(crate) fn holds(&self, record: &GrantRecord, tokens: Vec<TokenRecord>) -> bool {
        record.is_stored_as(&self.record) && self.fresh(tokens).is_ok_and(|fresh| fresh.is_empty())
    }

    /// The tokens that are not there yet.
    pub(crate) fn fresh(&self, tokens: Vec<TokenRecord>) -> Result<Vec<TokenRecord>, StoreError> {
        // Nothing to compare: a new grant with its first token.
        if tokens.len() < 2 && self.tokens.as_slice().is_empty() {
            return Ok(tokens);
        }
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
        let tokens = self.tokens.as_mut_slice();
        let Ok(index) = search(tokens, digest) else {
            return;
        };
        let token = &mut tokens[index];
        if token.revoked_at.is_none() {
            Arc::make_mut(token).revoked_at = Some(at);
        }
    }

    /// Deletes the tokens that ended before `before`, and returns their number.
    pub(crate) fn reap_tokens(&mut self, before: UnixTime) -> u64 {
        if self.tokens.first_end().is_none_or(|end| end >= before) {
            return 0;
        }
        let mut tokens = self.tokens.take();
        let count = tokens.len();
        tokens.retain(|token| token.expires_at >= before);
        let reaped = count - tokens.len();
        self.tokens = Tokens::of(tokens);
        reaped as u64
    }

    /// Whether the row as a whole ended before `before`.
    pub(crate) fn is_over(&self, before: UnixTime) -> bool {
        self.tokens.as_slice().is_empty() && self.record.row_expires_at < before
    }

    fn attach(&mut self, new: Vec<TokenRecord>) {
        if new.is_empty() {
            return;
        }
        let mut tokens = self.tokens.take();
        for token in new {
            let at = search(&tokens, &token.digest).unwrap_or_else(|at| at);
            tokens.insert(at, Arc::new(token));
        }
        self.tokens = Tokens::of(tokens);
    }
}

/// The tokens of a grant, ordered by digest. There are few, so this is a vector: a map would take more
/// memory than the tokens. Most grants have one token or none, which need no vector.
enum Tokens {
    None,
    One(Arc<TokenRecord>),
    /// On the heap, so that a slot of a grant is small.
    Many(Box<Many>),
}

struct Many {
    tokens: Vec<Arc<TokenRecord>>,
    /// When the first of them ends.
    first_end: UnixTime,
}

impl Tokens {
    fn of(mut tokens: Vec<Arc<TokenRecord>>) -> Self {
        match tokens.len() {
            0 => Self::None,
            1 => Self::One(tokens.remove(0)),
            _ => {
                let ends = tokens.iter().map(|token| token.expires_at);
                let first_end = ends.min().unwrap_or(UnixTime::MAX);
                Self::Many(Box::new(Many { tokens, first_end }))
            }
        }
    }

    /// When the first of them ends; `None` if there is none.
    fn first_end(&self) -> Option<UnixTime> {
        match self {
            Self::None => None,
            Self::One(token) => Some(token.expires_at),
            Self::Many(many) => Some(many.first_end),
        }
    }

    fn as_slice(&self) -> &[Arc<TokenRecord>] {
        match self {
            Self::None => &[],
            Self::One(token) => slice::from_ref(token),
            Self::Many(many) => &many.tokens,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Arc<TokenRecord>] {
        match self {
            Self::None => &mut [],
            Self::One(token) => slice::from_mut(token),
            Self::Many(many) => &mut many.tokens,
        }
    }

    fn take(&mut self) -> Vec<Arc<TokenRecord>> {
        match mem::replace(self, Self::None) {
            Self::None => Vec::new(),
            Self::One(token) => vec![token],
            Self::Many(many) => many.tokens,
        }
    }
}

// The time that this takes depends on the order of digests. It reveals nothing: choosing a token by its
// digest would mean to break SHA-256, and the search stays inside one grant.
fn search(tokens: &[Arc<TokenRecord>], digest: &TokenDigest) -> Result<usize, usize> {
    tokens.binary_search_by(|token| token.digest.as_bytes().cmp(digest.as_bytes()))
}

/// Reads a little of every part of a record. The caller is about to read them one after another. With a
/// million grants, each read would wait for memory by itself, while these wait together.
fn fetch_grant(grant: &GrantRecord) {
    let GrantRecord { id, subject, scope, audience, chain, .. } = grant;
    black_box((
        (id.as_bytes()[0], matches!(subject, Subject::User(_)), scope.is_empty()),
        (audience.iter().len(), grant.confirmation.is_some(), grant.auth_time, grant.created_at),
        (grant.epoch, grant.username.is_some(), grant.act.is_some(), grant.session.is_some()),
        (grant.authorization_details.is_some(), grant.device.is_empty(), grant.expires_at),
        (grant.row_expires_at, grant.refreshed_at, grant.revoked_at),
        chain.as_ref().map(|chain| (chain.generation, chain.expires_at, chain.code.is_some())),
    ));
}

/// As [`fetch_grant`].
fn fetch_token(token: &TokenRecord) {
    black_box((
        (token.grant.as_bytes()[0], token.issued_at, token.expires_at, token.revoked_at),
        (token.scope.is_empty(), token.audience.iter().len(), token.confirmation.is_some()),
    ));
}
