//! The promises of the store contracts.

use std::fmt;

macro_rules! promises {
    ($($name:ident $slug:literal $contract:literal)*) => {
        /// One promise of the contract of [`TokenStore`](cloakroom_core::store::TokenStore),
        /// [`KeyStore`](cloakroom_core::keys::KeyStore) or
        /// [`SingleUseStore`](cloakroom_core::store::SingleUseStore).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Promise {
            $(#[doc = $contract] $name,)*
        }

        impl Promise {
            /// Every promise.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its short name, such as `create.never-overwrites`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $slug,)* }
            }

            /// What the contract requires.
            #[must_use]
            pub const fn contract(self) -> &'static str {
                match self { $(Self::$name => $contract,)* }
            }
        }
    };
}

promises! {
    CreateAtomic "create.all-or-nothing" "`create` inserts a grant with its first tokens, all or nothing."
    CreateNeverOverwrites "create.never-overwrites" "`create` never overwrites: another grant under the id is `Exists`."
    CreateBarredByRule "create.barred-by-rule" "`create` answers `Barred`, and leaves nothing live behind, if a rule of the grant's subject, its client or the pair has a bound ≥ its epoch."
    CreateBarredByOverlap "create.barred-by-overlap" "`create` makes its writes visible before it looks for rules: a revocation that overlaps bars the grant."
    CreateBarredByTombstone "create.barred-by-tombstone" "`create` answers `Barred` if the id has a tombstone."
    CreateRetry "create.retry" "A retry of `create` has the same record. If that record was revoked, the answer is `Barred`. If it is present, `create` looks for rules again, and the answer is `Inserted`."
    CreateLoginAfter "create.login-after" "A revocation does not cover a grant whose epoch is newer than its bound: the next login is live."
    FindReturnsDead "find.returns-dead-rows" "`find` also returns revoked and expired rows."
    FindToken "find.token-of-its-grant" "`find` returns the token with the digest if it belongs to this grant. A digest that another grant holds is not found."
    RecordsSurvive "records.survive" "Records are read as they were written, including fields that this version does not know."
    IdentifiersExact "identifiers.byte-exact" "Identifiers are byte-exact, up to 255 bytes: case, trailing spaces, NUL and all of UTF-8."
    AdvanceOneWinner "advance.one-winner" "Of any number of concurrent moves of a chain, exactly one gets `Advanced`. The others get `Stale` with the current grant."
    AdvanceCompares "advance.compares-position" "`advance` takes the step only if the chain is at the expected generation and digest."
    AdvanceRevoked "advance.revoked-is-dead" "`advance` neither moves the chain of a revoked grant nor attaches tokens to it."
    AdvanceExpired "advance.expired-is-dead" "`advance` takes no step if the grant or its chain has expired at `step.now`."
    AdvanceWrites "advance.writes-whole-record" "`Move` writes the whole next record and inserts the tokens, in one atomic step."
    AdvanceAttaches "advance.attaches-alone" "`Attach` only inserts the tokens: the record stays as it is."
    AdvanceRepeat "advance.repeat" "A move that is sent again is `Advanced` and writes nothing, if the chain is exactly where the move leads."
    AdvanceMisuse "advance.misuse" "A step is `Misuse`, and nothing is written, if it changes the id, client, subject or epoch, has no chain or one that does not advance, or has a token of another grant, or, if it would otherwise be taken, ends later than the grant."
    AdvanceRevokeWins "advance.revoke-wins" "A `revoke` of the grant that overlaps an `advance` wins."
    AdvanceUnknown "advance.unknown" "`advance` of a grant that does not exist is `Unknown`, and creates nothing."
    RevokeVisible "revoke.visible" "When `revoke` returns, every `find` that starts later shows the revocation."
    RevokeLogged "revoke.logged" "When `revoke` returns, the log contains the revocation."
    RevokeIdempotent "revoke.idempotent" "`revoke` is idempotent."
    RevokeCovers "revoke.covers-older-epochs" "The revocation of a subject, a client or a pair revokes every grant of it whose epoch ≤ its bound, and no other."
    RevokeTombstone "revoke.tombstone" "The revocation of an absent grant leaves a tombstone, so that a late `create` is barred."
    RevokeBounds "revoke.bounds-grow" "Each revocation of a subject, a client or a pair gets a bound in the step that appends its entry. The bound is greater than the newest bound before it, and no older than the time of the revocation. The newest bound may be raised at any time, and is never lowered. The newest bound in an answer is no older than any bound in that answer."
    RevokeRules "revoke.rules" "The rule of a revocation stays until `rule_until`. A second rule under one key keeps the later bound and the later end."
    RevokeSweeps "revoke.sweeps" "With `Sweeping`, the rule is in force and in the log, and its entry names the sweep. `maintain` finishes the sweep, and reports with `sweeping` whether it is still not done."
    RulesAnswer "rules.answer" "`rules` returns every rule for the given keys that `maintain` has not removed, and the newest bound. Without keys, it returns only the newest bound."
    ListLive "list.live-only" "`list` returns grants that are live at `now`, and omits grants that a rule denies."
    ListUnreadable "list.unreadable" "`list` names and skips a grant whose row cannot be read, and no other. It does not affect other grants."
    ListSelects "list.selects" "`list` returns the grants of the subject, the client or the pair, and no others."
    ListPages "list.pages" "`list` returns pages by grant id: every grant once, in order, at most `limit` in a page."
    LogComplete "log.complete" "Every entry is delivered at least once to every reader, in an order that never skips an entry that commits late."
    LogGap "log.gap" "A cursor is a `Gap` if its entry is gone or different, if it belongs to another incarnation, or if the store did not make it."
    LogSnapshot "log.snapshot" "Reading from the start returns the whole log: an entry is trimmed only after its end, and the newest entry stays."
    LogWakeups "log.wakeups" "A reader learns that the log has grown."
    LogHeartbeat "log.heartbeat" "A heartbeat is written in the same way as a revocation: a reader that sees it has seen every revocation that was acknowledged before it. It raises the newest bound to its time."
    MaintainDeletes "maintain.deletes-ended" "`maintain` deletes rows that ended before `before`, in bounded batches, and reports whether more are left."
    MaintainSpares "maintain.spares-living" "`maintain` deletes nothing that has not ended before `before`: no live grant, no token of one, no tombstone and no entry."
    MaintainRules "maintain.rules-until-end" "A rule stays until its own end has passed, and no longer, whenever its entry ends."
    MaintainFair "maintain.fair" "A sweep does not stop deletion, and deletion does not stop a sweep that a caller waits for."
    MaintainRaces "maintain.races" "`maintain` is safe while other calls run, on many nodes at once."
    StatusCounts "status.counts" "`status` counts rows that ended before `before`, and no others, with the end of the first of them, and revocations whose grants are not all marked. It leaves out what it does not know, and writes nothing."
    ScanPages "scan.pages" "`scan` returns every grant once, live or not, in pages by grant id: at most `limit` in a page."
    ScanUnreadable "scan.unreadable" "`scan` names a grant whose row cannot be read, and goes on."
    Cancellation "cancellation" "If a future is dropped, at any await, its operation is undone or certain to finish, and never half done."
    Model "model" "Any sequence of operations has the result that the contract requires."
    KeysOrdered "keys.load" "`load` returns every record, ordered by generation, as written."
    KeysNeverReused "keys.never-reused" "`insert` accepts only a generation above the highest that was ever inserted, even after a delete."
    KeysCompareAndSet "keys.compare-and-set" "`update` and `delete` take effect only if the stored version is the expected one. Of concurrent calls, one wins."
    ValuesExact "values.byte-exact" "Check values are read as they were written, ordered by name. Names are compared byte by byte."
    ValuesCompareAndSet "values.compare-and-set" "A check value changes only from the expected value. A call succeeds if the new value is already there. Of concurrent calls, one wins."
    ValuesSurvive "values.survive" "Check values survive everything that the records survive, such as housekeeping and a restart."
    InstancesAgree "instances.agree" "Every instance over the data sees what another instance has acknowledged: rows, rules, bounds, cursors, keys and check values."
    RestartKeeps "restart.keeps" "Every acknowledged write survives a crash, and every counter continues from its last value."
    OutageIsError "outage.is-an-error" "A failure is an error, and never looks like `Absent`, an empty page, no rule, no keys or a gap."
    OutageLeavesWhole "outage.leaves-whole" "A call that failed has done all of its work or none. When it is sent again, it completes."
    SpendFirst "spend.first" "`spend` of an id that is not held is `First`, whether it was never spent or its end has come."
    SpendOnce "spend.once" "Of any number of calls at the same time, on any number of nodes, exactly one gets `First`. The others get `Again`."
    SpendHeld "spend.held-to-its-end" "An item is held until the `now` of a call has reached its end, whatever else is spent or forgotten."
    SpendLater "spend.later-end" "A call that answers `Again` moves the end of a held item to the call's `until` if that is later, and never to an earlier time."
    SpendOver "spend.over-is-refused" "If `until` is not later than `now`, the answer is `Again`, and nothing is held."
    SpendForgotten "spend.forgotten-stays-spent" "An item that a store has forgotten is not `First` again for the same or an earlier `until`, whatever the `now` of the call."
    SpendIds "spend.byte-exact" "Ids are byte-exact: two that differ in any bit are two items."
    SpendCleans "spend.cleans-itself" "Each call that answers `First` forgets at least two items that are over, if there are that many."
    SpendBounded "spend.bounded" "A store that is full fails with `Unavailable`, drops no held item, and takes new ones when others are over."
    SpendDurable "spend.durable" "Spent items and the latest forgotten end are still there when the store is opened again."
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
