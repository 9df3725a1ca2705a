//! The contract between the engine and whatever keeps the tokens.

mod check_values;
mod error;
mod judge;
mod single_use;
mod tenant;

pub use check_values::{CheckValue, CheckValues, CheckValuesExt};
pub use error::StoreError;
pub use judge::{fresh_tokens, tokens_of};
pub use single_use::{SingleUse, SingleUseId, SingleUseStore, Spend, Spent};
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
    /// - It must never overwrite: another grant under this id is [`CreateOutcome::Exists`].
    /// - It must answer [`CreateOutcome::Barred`], and leave nothing live behind, if a rule of the
    ///   grant's subject, its client or the pair has a bound ≥ its epoch — also a rule that is
    ///   written while `create` runs —, or if its id bears a tombstone.
    /// - The writes must be visible, that is committed, *before* the rules are looked for, unless
    ///   no revocation can come between the two.
    /// - Another record under an id that is there is `Exists`, revoked or not.
    /// - A retry carries the same record: if that was revoked meanwhile it must be `Barred`; if it
    ///   is present as it was written, the rules must be looked for again, and the answer is
    ///   [`CreateOutcome::Inserted`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Misuse`] if a token names another grant; else if the store fails.
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError>;

    /// The grant, and its access token with this digest if one is asked for.
    ///
    /// - It must return revoked and expired rows, too: the engine alone decides what is live, with
    ///   its own clock.
    /// - It must take one round trip to one partition, and read from the primary. Grant and token
    ///   need not be of one moment: each must be as it was at some time after `find` began.
    /// - A digest that another grant holds must not be found.
    ///
    /// # Errors
    ///
    /// If the store fails. That must never look like [`Lookup::Absent`].
    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError>;

    /// Moves the chain of a grant on, or attaches tokens where it stands, in one atomic step.
    ///
    /// - The step must be taken only if the grant is not revoked, neither the grant nor its chain
    ///   has expired at `step.now`, and the chain stands at `step.expected`, generation *and*
    ///   digest.
    /// - What is revoked or expired, and a tombstone, must be [`AdvanceOutcome::Dead`], wherever the chain
    ///   stands.
    /// - [`ChainUpdate::Move`] must write the whole next record and insert the tokens; [`ChainUpdate::Attach`]
    ///   must insert the tokens alone.
    /// - Of any number of racers to move a chain exactly one must get [`AdvanceOutcome::Advanced`]; the
    ///   others get [`AdvanceOutcome::Stale`] with the grant as it now stands.
    /// - A move sent again must be [`AdvanceOutcome::Advanced`] and write nothing, if the chain stands
    ///   exactly where it puts it, generation and digest: drivers send a write again by themselves.
    /// - A `revoke` of the grant that overlaps must win: whatever `advance` answers, the grant is
    ///   revoked once both have returned.
    ///
    /// # Errors
    ///
    /// [`StoreError::Misuse`] if the next record changes the id, client, subject or epoch, has no
    /// chain or one that stands at `step.expected`, ends later than the grant
    /// ([`GrantRecord::expires_at`]), or if a token names another grant; else if the store fails.
    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError>;

    /// Revokes what [`Revocation::target`] names. Idempotent.
    ///
    /// - When it returns, every `find` that starts later must show the revocation (with
    ///   [`RevokeOutcome::Sweeping`]: the rules show it), and the log must hold its
    ///   [`Revocation::event`].
    /// - A grant must cost one write, whatever hangs off it.
    /// - The entry of a subject, a client or a pair must be allotted its bound in the atomic step that
    ///   appends it: greater than the newest bound before it and ≥ `at` in milliseconds, such as
    ///   [`Epoch::next_bound`]. Only grants whose epoch ≤ that bound may be revoked by it.
    /// - The entry must end at [`Revocation::until`], the rule at [`Revocation::rule_until`].
    /// - An append that the store's driver sends twice must leave one entry.
    /// - A second rule on one key must keep the later bound and the later end.
    /// - A grant that is absent must get a tombstone, so that a `create` that comes late is barred;
    ///   should a row appear under it all the same, no `find` may show it alive.
    ///
    /// # Errors
    ///
    /// If the store fails. The revocation may then be partly visible; repeating the call completes
    /// it.
    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError>;

    /// The rules for these keys, and the log's newest bound.
    ///
    /// - Every rule that [`TokenStore::maintain`] has not yet removed must be returned; the engine
    ///   judges its end.
    /// - The newest bound must not be older than that of any rule returned. It may be raised at any
    ///   time; it must never be lowered.
    /// - An empty list of keys must return the newest bound alone.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError>;

    /// Grants of a subject or a client that are live at `now` ([`GrantRecord::is_live`]), paged by
    /// grant id.
    ///
    /// - It must read an index, never scan, and return at most `page.limit` grants.
    /// - It must leave out what a rule denies, even where no sweep has come by.
    /// - A page may hold fewer grants than its limit and still not be the last:
    ///   [`Listing::next`] says.
    /// - A grant whose row cannot be read must be named in [`Listing::unreadable`] and passed by.
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

    /// The entries of the revocation log after `after`, at most `limit`. Never waits.
    ///
    /// - Every entry must be delivered at least once to every reader, in an order that never skips
    ///   one that commits late.
    /// - If an entry that was delivered up to this cursor may be gone before its end, or if the cursor
    ///   belongs to another incarnation or is none of the store's own, the answer must be
    ///   [`RevocationBatch::Gap`].
    /// - Where nothing but heartbeats was trimmed since, it should not be: the store reads on after
    ///   the newest revocation that was delivered, as [`CursorPlace`](crate::revocation::CursorPlace) allows.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError>;

    /// How a reader learns that the log grew. Timers belong to the engine.
    ///
    /// What came between reading and listening, or while the store was out of touch with its
    /// database, must wake a reader, too: a stream yields once at its start and once after each
    /// reconnect, unless it knows that nothing came.
    fn wakeups(&self) -> LogNotifications;

    /// Writes a heartbeat into the log, by the same path as a revocation: a reader that sees it
    /// has seen every revocation that was acknowledged before.
    ///
    /// It must raise the newest bound to `now` in milliseconds, if that is higher: after a failover
    /// the database may have forgotten bounds that readers know.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError>;

    /// Bounded housekeeping: finishes sweeps, deletes expired rows, trims the log and the rules.
    ///
    /// - It must find expired rows over an index on expiry, delete only what ended before
    ///   [`Housekeeping::before`], and check that again in the deleting step. Where the database
    ///   removes rows by itself, it must do so no earlier than the later of their end and its own
    ///   time, plus a margin that the store's docs state.
    /// - A grant ends at [`GrantRecord::row_expires_at`], a token at [`TokenRecord::expires_at`],
    ///   an entry, a rule and a tombstone at its `until`; revoked or not. A grant must stay while
    ///   one of its tokens is left.
    /// - Sweeps and deletion must work on columns, and never read a body. A row that cannot be read
    ///   must be revoked, counted in [`MaintenanceReport::unreadable`] and passed by. No sweep may keep
    ///   deletion from going on.
    /// - It must not block readers, and be safe on many nodes at once.
    /// - It must touch at most about `limit` rows, and say whether it is to be called again; a store
    ///   with shards goes round them.
    /// - The log's newest entry must stay.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError>;
}

/// What [`TokenStore::create`] did.
#[must_use = "a grant may be barred"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateOutcome {
    /// The grant and its tokens are there.
    Inserted,
    /// Another grant has this id; nothing was written.
    Exists,
    /// A revocation covers the grant; nothing of it is live.
    Barred,
}

/// What [`TokenStore::find`] found.
#[must_use]
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// The grant, live or not.
    Found(Found),
    /// A grant of this id was revoked before it was seen: there never was, nor will be, a live one.
    Tombstone,
    /// Nothing.
    Absent,
}

/// A grant, and the token asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The grant.
    pub grant: Arc<GrantRecord>,
    /// The token, if one was asked for and hangs off this grant.
    pub token: Option<Arc<TokenRecord>>,
}

/// One step of a chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Advance {
    /// Whose chain.
    pub grant: GrantId,
    /// Where the chain must stand.
    pub expected: ChainPosition,
    /// The caller's time, against which expiry is judged.
    pub now: UnixTime,
    /// What to do.
    pub change: ChainUpdate,
    /// Access tokens to insert with it.
    pub tokens: Vec<TokenRecord>,
}

/// What a step does to the grant.
#[derive(Debug, Clone, PartialEq)]
pub enum ChainUpdate {
    /// Replaces the record: the chain moves on.
    Move(Box<GrantRecord>),
    /// Leaves the record: only the tokens are inserted.
    Attach,
}

/// What [`TokenStore::advance`] did.
#[must_use = "the step may not have been taken"]
#[derive(Debug, Clone, PartialEq)]
pub enum AdvanceOutcome {
    /// The step was taken.
    Advanced,
    /// The chain stands elsewhere; here is the grant as it stands.
    Stale(Arc<GrantRecord>),
    /// The grant is revoked, or it or its chain has expired.
    Dead,
    /// There is no such grant.
    Unknown,
}

/// How far [`TokenStore::revoke`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokeOutcome {
    /// All of it.
    Done,
    /// The rule is in force and in the log; flagging the single grants goes on in
    /// [`TokenStore::maintain`]. The engine applies the rule until then.
    ///
    /// It names the sweep, for [`Housekeeping::sweep`]: the log entry of the revocation.
    Sweeping(EntryId),
}

/// Whose grants to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// All of a subject.
    Subject(Subject),
    /// All of a client.
    Client(ClientId),
    /// Those of a subject at one client.
    SubjectAtClient(Subject, ClientId),
}

/// One page of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// The last grant id of the page before; `None` for the first.
    pub after: Option<GrantId>,
    /// The most grants to return, from 1.
    pub limit: u32,
}

/// A page of grants.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The grants, ordered by id.
    pub grants: Vec<Arc<GrantRecord>>,
    /// Grants of this page whose rows cannot be read. The engine reports them.
    pub unreadable: Vec<GrantId>,
    /// The [`PageRequest::after`] of the next page; `None` if this was the last.
    pub next: Option<GrantId>,
}

/// What [`TokenStore::maintain`] may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Housekeeping {
    /// The caller's time.
    pub now: UnixTime,
    /// Only what ended before this may be deleted: `now` less clock skew and a margin.
    pub before: UnixTime,
    /// About how many rows to touch, from 1.
    pub limit: u32,
    /// A sweep to go on with before all else ([`RevokeOutcome::Sweeping`]), if one is waited for.
    pub sweep: Option<EntryId>,
}

/// What [`TokenStore::maintain`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaintenanceReport {
    /// Grants deleted.
    pub grants: u64,
    /// Tokens deleted on their own, from grants that live on.
    pub tokens: u64,
    /// Entries trimmed from the log, rules and tombstones removed.
    pub revocations: u64,
    /// Rows that could not be read: revoked where they may be live, and passed by.
    pub unreadable: u64,
    /// Whether the sweep that was asked for ([`Housekeeping::sweep`]) still goes on.
    pub sweeping: bool,
    /// Whether to call again now: more is left.
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
