//! The contract between the engine and the stores.

mod check_values;
mod decisions;
mod error;
mod single_use;
mod status;
mod tenant;
#[cfg(test)]
mod torn_find_tests;

pub use check_values::{CheckValue, CheckValues, CheckValuesExt};
pub use decisions::{fresh_tokens, tokens_of};
pub use error::StoreError;
pub use single_use::{SingleUse, SingleUseId, SingleUseStore, Spend, Spent};
pub use status::{Migration, QueryPlan, StoreStatus};
pub use tenant::TenantStore;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::ids::{ClientId, GrantId, Subject};
use crate::record::{ChainPosition, GrantRecord, TokenRecord};
use crate::revocation::{Cursor, EntryId, LogNotifications, RevocationBatch};
use crate::revocation::{Epoch, Revocation, RuleKey, Rules};
use crate::secret::TokenDigest;
use crate::time::UnixTime;

#[doc = include_str!("contract.md")]
#[async_trait]
pub trait TokenStore: CheckValues + fmt::Debug + Send + Sync + 'static {
    /// Inserts a grant with its first tokens, all or nothing.
    ///
    /// - It must never overwrite: if another grant has this id, the answer is
    ///   [`CreateOutcome::Exists`], whether that grant is revoked or not.
    /// - It must answer [`CreateOutcome::Barred`], and leave nothing live behind, if a rule of the
    ///   grant's subject, its client or the pair has a bound ≥ its epoch, or if its id has a
    ///   tombstone. This includes a rule that is written while `create` runs.
    /// - The writes must be visible, that is committed, *before* `create` looks for rules, unless
    ///   no revocation can come between the two.
    /// - A retry has the same record. If that record was revoked in the meantime, the answer must
    ///   be `Barred`. If it is present as it was written, `create` must look for rules again, and
    ///   the answer is [`CreateOutcome::Inserted`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Misuse`] if a token names another grant; another error if the store fails.
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError>;

    /// Finds a grant and, if a digest is given, its access token with this digest.
    ///
    /// - It must also return revoked and expired rows. Only the engine decides what is live, by its
    ///   own clock.
    /// - It must take one round trip to one partition, and read from the primary. Grant and token
    ///   need not be read at the same moment. Each must be as it was at some time after `find` began.
    /// - A digest that another grant holds must not be found.
    ///
    /// # Errors
    ///
    /// If the store fails. That must never look like [`Lookup::Absent`].
    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError>;

    /// Advances the chain of a grant, or only attaches tokens to the grant, in one atomic step.
    ///
    /// - The step must be taken only if the grant is not revoked, neither the grant nor its chain
    ///   has expired at `step.now`, and the chain is at `step.expected`: generation *and* digest.
    /// - If the grant is revoked or expired, or is a tombstone, the answer must be
    ///   [`AdvanceOutcome::Dead`], whatever the position of the chain.
    /// - [`ChainUpdate::Move`] must write the whole next record and insert the tokens;
    ///   [`ChainUpdate::Attach`] must insert only the tokens.
    /// - Of any number of concurrent moves of a chain, exactly one must get
    ///   [`AdvanceOutcome::Advanced`]. The others get [`AdvanceOutcome::Stale`] with the current grant.
    /// - If the chain is already exactly where a move puts it, generation and digest, the answer must
    ///   be [`AdvanceOutcome::Advanced`], and nothing is written: drivers may send a write again.
    /// - A `revoke` of the grant that overlaps must win: whatever `advance` answers, the grant is
    ///   revoked when both have returned.
    ///
    /// # Errors
    ///
    /// [`StoreError::Misuse`] if the next record changes the id, client, subject or epoch, or has no chain or one that
    /// is at `step.expected`, or if a token names another grant. The error is the same if the next record ends later
    /// than the grant ([`GrantRecord::expires_at`]), but only if the step would otherwise be taken, since the winner of
    /// a race may have shortened the grant. If the store fails, it is another error.
    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError>;

    /// Revokes what [`Revocation::target`] names. Idempotent.
    ///
    /// - When it returns, every `find` that starts later must show the revocation, and the log must
    ///   contain its [`Revocation::event`]. With [`RevokeOutcome::Sweeping`], the rules must show it.
    /// - Revoking a grant must cost one write, however many tokens it has.
    /// - The entry of a subject, a client or a pair must get its bound in the atomic step that appends
    ///   it. The bound must be greater than the newest bound before it and ≥ `at` in milliseconds,
    ///   such as [`Epoch::next_bound`]. It may revoke only grants whose epoch ≤ that bound.
    /// - The entry must end at [`Revocation::until`], the rule at [`Revocation::rule_until`].
    /// - An append that the driver sends twice must leave one entry.
    /// - A second rule on one key must keep the later bound and the later end.
    /// - A grant that is absent must get a tombstone, so that a late `create` is barred. If a row
    ///   appears under its id anyway, no `find` may show it as live.
    ///
    /// # Errors
    ///
    /// If the store fails. The revocation may then be partly visible. Repeating the call completes
    /// it.
    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError>;

    /// The rules for these keys, and the log's newest bound.
    ///
    /// - Every rule that [`TokenStore::maintain`] has not yet removed must be returned. The engine
    ///   checks its end.
    /// - The newest bound must not be older than the bound of any rule returned. It may be raised at
    ///   any time, and must never be lowered.
    /// - An empty list of keys must return only the newest bound.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError>;

    /// The grants of a subject or a client that are live at `now` ([`GrantRecord::is_live`]), in pages
    /// by grant id.
    ///
    /// - It must read an index, never scan, and return at most `page.limit` grants.
    /// - It must omit grants that a rule denies, even if no sweep has reached them.
    /// - A page that holds fewer grants than its limit need not be the last one: see
    ///   [`Listing::next`].
    /// - A grant whose row cannot be read must be named in [`Listing::unreadable`] and skipped.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError>;

    /// At most `limit` entries of the revocation log after `after`. It never waits for new entries.
    ///
    /// - Every entry must be delivered at least once to every reader, in an order that never skips
    ///   an entry that commits late.
    /// - If an entry that was delivered up to this cursor may be gone before its end, or if the cursor
    ///   belongs to another incarnation or was not made by the store, the answer must be
    ///   [`RevocationBatch::Gap`].
    /// - If only heartbeats were trimmed since the cursor was made, the answer should not be a gap: the store
    ///   continues after the newest revocation that was delivered, as
    ///   [`CursorPlace`](crate::revocation::CursorPlace) allows.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError>;

    /// How a reader learns that the log has grown. The engine has its own timers.
    ///
    /// An entry that was written between reading and listening, or while the store had no connection
    /// to its database, must also wake a reader: a stream yields once at its start and once after each
    /// reconnect, unless it knows that no entry was written.
    fn wakeups(&self) -> LogNotifications;

    /// Writes a heartbeat to the log, in the same way as a revocation: a reader that sees it has
    /// seen every revocation that was acknowledged before it.
    ///
    /// It must raise the newest bound to `now` in milliseconds, if that is higher: after a failover,
    /// the database may lack bounds that readers know.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError>;

    /// Bounded housekeeping: it finishes sweeps, deletes expired rows, and trims the log and the rules.
    ///
    /// - It must find expired rows with an index on expiry, delete only what ended before
    ///   [`Housekeeping::before`], and check that again in the step that deletes. If the database
    ///   removes rows by itself, it must do so only when their end, plus a margin that the store
    ///   documents, has passed by its own clock.
    /// - A grant ends at [`GrantRecord::row_expires_at`], a token at [`TokenRecord::expires_at`], and
    ///   an entry, a rule or a tombstone at its `until`, whether it is revoked or not. A grant must
    ///   stay while it has a token.
    /// - Sweeps and deletion must work on columns, and never read a body. A row that cannot be read
    ///   must be revoked, counted in [`MaintenanceReport::unreadable`] and skipped. A sweep must not
    ///   stop deletion.
    /// - It must not block readers, and must be safe on many nodes at once.
    /// - It must touch at most about `limit` rows, and report whether to call it again. A store
    ///   with shards works on them in turn.
    /// - The newest entry of the log must stay.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError>;

    /// What the store reports about itself, for an operator. `before` is as in [`Housekeeping::before`]. The
    /// default knows nothing.
    ///
    /// - It may take a few dozen reads, and must write nothing.
    /// - It must leave out what it does not know, rather than guess.
    /// - Of [`StoreStatus::ended_rows`], only rows that ended before `before` may count, and
    ///   [`StoreStatus::oldest_ended`] must be the end of the first of them.
    /// - [`StoreStatus::open_sweeps`] must count each revocation whose grants are not all marked.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn status(&self, before: UnixTime) -> Result<StoreStatus, StoreError> {
        let _ = before;
        Ok(StoreStatus::default())
    }

    /// Every grant, whether it is live or not, in pages by grant id, for an operator who looks for
    /// damaged rows. `None` if the store cannot do this, which is the default.
    ///
    /// - Every grant that is there during the whole walk must be in exactly one page, whether it is live,
    ///   revoked or expired. A tombstone is no grant.
    /// - A page must hold at most `page.limit` grants, all of them after `page.after`, and must end with
    ///   [`Listing::next`] if there may be more.
    /// - A grant whose row cannot be read must be named in [`Listing::unreadable`], and must not stop the
    ///   walk.
    /// - It must write nothing.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn scan(&self, page: PageRequest) -> Result<Option<Listing>, StoreError> {
        let _ = page;
        Ok(None)
    }
}

/// What [`TokenStore::create`] did.
#[must_use = "a grant may be barred"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "part of the store contract: stores build it, and callers handle all of it"
)]
pub enum CreateOutcome {
    /// The grant and its tokens are stored.
    Inserted,
    /// Another grant has this id. Nothing was written.
    Exists,
    /// A revocation covers the grant. Neither the grant nor its tokens are live.
    Barred,
}

/// What [`TokenStore::find`] found.
#[must_use]
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "part of the store contract: stores build it, and callers handle all of it"
)]
pub enum Lookup {
    /// The grant, live or not.
    Found(Found),
    /// A grant with this id was revoked before it was created. It has never been live, and never
    /// will be.
    Tombstone,
    /// There is no such grant.
    Absent,
}

/// A grant, and the token that was asked for.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "part of the store contract: stores build it, and callers handle all of it"
)]
pub struct Found {
    /// The grant.
    pub grant: Arc<GrantRecord>,
    /// The token, if one was asked for and belongs to this grant.
    pub token: Option<Arc<TokenRecord>>,
}

/// One step of a chain.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "part of the store contract: a new field is a new duty of every store"
)]
pub struct Advance {
    /// The grant of the chain.
    pub grant: GrantId,
    /// The position that the chain must have.
    pub expected: ChainPosition,
    /// The caller's time, for checking expiry.
    pub now: UnixTime,
    /// The change to the grant.
    pub change: ChainUpdate,
    /// Access tokens to insert with it.
    pub tokens: Vec<TokenRecord>,
}

/// What a step does to the grant.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a store must handle every kind of step")]
pub enum ChainUpdate {
    /// Replaces the record, which advances the chain.
    Move(Box<GrantRecord>),
    /// Keeps the record and only inserts the tokens.
    Attach,
}

/// What [`TokenStore::advance`] did.
#[must_use = "the step may not have been taken"]
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "part of the store contract: stores build it, and callers handle all of it"
)]
pub enum AdvanceOutcome {
    /// The step was taken.
    Advanced,
    /// The chain is at another position. This is the current grant.
    Stale(Arc<GrantRecord>),
    /// The grant is revoked, or it or its chain has expired.
    Dead,
    /// There is no such grant.
    Unknown,
}

/// How far [`TokenStore::revoke`] got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "part of the store contract: stores build it, and callers handle all of it"
)]
pub enum RevokeOutcome {
    /// The revocation is complete.
    Done,
    /// The rule is in force and in the log. [`TokenStore::maintain`] still has to mark the individual grants as
    /// revoked. The engine applies the rule until then.
    ///
    /// The entry of the revocation names the sweep, for [`Housekeeping::sweep`].
    Sweeping(EntryId),
}

/// The grants to list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a store must handle every selector")]
pub enum Selector {
    /// All grants of a subject.
    Subject(Subject),
    /// All grants of a client.
    Client(ClientId),
    /// The grants of a subject at one client.
    SubjectAtClient(Subject, ClientId),
}

/// One page of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "part of the store contract: a new field is a new duty of every store"
)]
pub struct PageRequest {
    /// The last grant id of the previous page; `None` for the first page.
    pub after: Option<GrantId>,
    /// The largest number of grants to return, at least 1.
    pub limit: u32,
}

/// A page of grants.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "part of the store contract: stores build it, and callers handle all of it"
)]
pub struct Listing {
    /// The grants, ordered by id.
    pub grants: Vec<Arc<GrantRecord>>,
    /// Grants of this page whose rows cannot be read. The engine reports them.
    pub unreadable: Vec<GrantId>,
    /// The [`PageRequest::after`] of the next page; `None` if this page is the last.
    pub next: Option<GrantId>,
}

/// A request to [`TokenStore::maintain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "part of the store contract: a new field is a new duty of every store"
)]
pub struct Housekeeping {
    /// The caller's time.
    pub now: UnixTime,
    /// Only rows that ended before this time may be deleted: `now` minus the sum of the clock skew
    /// and a margin.
    pub before: UnixTime,
    /// About how many rows to touch, at least 1.
    pub limit: u32,
    /// The sweep to continue first ([`RevokeOutcome::Sweeping`]), if the caller waits for one.
    pub sweep: Option<EntryId>,
}

/// What [`TokenStore::maintain`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MaintenanceReport {
    /// Grants deleted.
    pub grants: u64,
    /// Tokens deleted from grants that stay.
    pub tokens: u64,
    /// Entries trimmed from the log, rules and tombstones removed.
    pub revocations: u64,
    /// Rows that could not be read. They were revoked if they may be live, and skipped.
    pub unreadable: u64,
    /// Whether the sweep in [`Housekeeping::sweep`] is still not done.
    pub sweeping: bool,
    /// Whether more is left, so that the caller should call again now.
    pub more: bool,
}

/// Conveniences over any [`TokenStore`].
#[async_trait]
pub trait TokenStoreExt: TokenStore {
    /// The epoch of a grant whose creation begins now.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn epoch(&self) -> Result<Epoch, StoreError> {
        Ok(self.rules(Vec::new()).await?.newest_bound.following())
    }
}

impl<S: TokenStore + ?Sized> TokenStoreExt for S {}
