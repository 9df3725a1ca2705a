//! The promises of the contract, by name.

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

            /// What the contract asks.
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
    CreateBarredByOverlap "create.barred-by-overlap" "`create` makes its writes visible before it looks for rules: a revocation that overlaps bars it."
    CreateBarredByTombstone "create.barred-by-tombstone" "`create` answers `Barred` if the id bears a tombstone."
    CreateRetry "create.retry" "A retry of `create` carries the same record: revoked is `Barred`; present is checked against the rules again, and `Inserted`."
    CreateLoginAfter "create.login-after" "A grant whose epoch is newer than the bound of a revocation is not covered by it: the login right after lives."
    FindReturnsDead "find.returns-dead-rows" "`find` returns revoked and expired rows, too."
    FindToken "find.token-of-its-grant" "`find` returns the token with the digest if it hangs off this grant; a digest that another grant holds is not found."
    RecordsSurvive "records.survive" "Records come back as they were written, fields unknown to this version included."
    IdentifiersExact "identifiers.byte-exact" "Identifiers are byte-exact: case, trailing blanks, NUL, all of UTF-8, up to 255 bytes."
    AdvanceOneWinner "advance.one-winner" "Of any number of racers to move a chain exactly one gets `AdvanceOutcome`; the others get `Stale` with the grant as it now stands."
    AdvanceCompares "advance.compares-position" "`advance` takes the step only if the chain stands at the expected generation and digest."
    AdvanceRevoked "advance.revoked-is-dead" "`advance` does not move the chain of a revoked grant, nor attach tokens to it."
    AdvanceExpired "advance.expired-is-dead" "`advance` takes no step once the grant or its chain has expired at `step.now`."
    AdvanceWrites "advance.writes-whole-record" "`Move` writes the whole next record and inserts the tokens, in one atomic step."
    AdvanceAttaches "advance.attaches-alone" "`Attach` inserts the tokens alone: the record stays as it is."
    AdvanceRepeat "advance.repeat" "A move that is sent again is `AdvanceOutcome` and writes nothing, if the chain stands exactly where it puts it."
    AdvanceMisuse "advance.misuse" "A step that changes id, client, subject or epoch, has no chain or one that stays where it is, ends later than the grant, or names another grant's token is `Misuse`, and nothing is written."
    AdvanceRevokeWins "advance.revoke-wins" "A `revoke` of the grant that overlaps an `advance` wins."
    AdvanceUnknown "advance.unknown" "`advance` of a grant that is not there is `Unknown`, and creates nothing."
    RevokeVisible "revoke.visible" "When `revoke` returns, every `find` that starts later shows it."
    RevokeLogged "revoke.logged" "When `revoke` returns, the log holds it."
    RevokeIdempotent "revoke.idempotent" "`revoke` is idempotent."
    RevokeCovers "revoke.covers-older-epochs" "The revocation of a subject, a client or a pair revokes every grant of theirs whose epoch ≤ its bound, and no other."
    RevokeTombstone "revoke.tombstone" "The revocation of a grant that is absent leaves a tombstone, so that a `create` that comes late is barred."
    RevokeBounds "revoke.bounds-grow" "Each revocation of a subject, a client or a pair is allotted a bound greater than the newest before it, and no older than its time, in the step that appends its entry. The newest bound may be raised at any time, and is never lowered; no answer tells one that is older than what it returns."
    RevokeRules "revoke.rules" "A revocation leaves its rule until `rule_until`; a second rule on one key keeps the later bound and the later end."
    RevokeSweeps "revoke.sweeps" "With `Sweeping`, the rule is in force and in the log, whose entry names the sweep; `maintain` finishes it, and says with `sweeping` until when it goes on."
    RulesAnswer "rules.answer" "`rules` returns every rule for the keys asked that `maintain` has not removed, and the newest bound; no keys, the newest bound alone."
    ListLive "list.live-only" "`list` returns grants that are live at `now`, and leaves out what a rule denies."
    ListUnreadable "list.unreadable" "A grant whose row cannot be read is named and passed by, whatever is asked of the others; no other is."
    ListSelects "list.selects" "`list` returns the grants of the subject, the client or the pair, and no others."
    ListPages "list.pages" "`list` is paged by grant id: every grant once, in order, at most `limit` a page."
    LogComplete "log.complete" "Every entry is delivered at least once to every reader, in an order that never skips one that commits late."
    LogGap "log.gap" "A cursor whose entry is gone or different, of another incarnation, or none of the store's own is a `Gap`."
    LogSnapshot "log.snapshot" "Reading from the beginning is the snapshot: an entry is trimmed only after its own end, and the newest stays."
    LogWakeups "log.wakeups" "A reader learns that the log grew."
    LogHeartbeat "log.heartbeat" "A heartbeat takes the path of a revocation: a reader that sees it has seen every revocation acknowledged before. It raises the newest bound to its time."
    MaintainDeletes "maintain.deletes-ended" "`maintain` deletes what ended before `before`, in bounded batches, and says whether more is left."
    MaintainSpares "maintain.spares-living" "`maintain` deletes nothing that has not ended before `before`: no living row, no token that hangs off one, no tombstone, no entry."
    MaintainRules "maintain.rules-until-end" "A rule stays until its own end has passed, and no longer, however long its entry does."
    MaintainFair "maintain.fair" "No sweep keeps deletion from going on, nor does deletion keep a sweep that is waited for."
    MaintainRaces "maintain.races" "`maintain` is safe beside everything else, on many nodes at once."
    Cancellation "cancellation" "Dropping any future at any await leaves its operation undone or certain to finish, never half done."
    Model "model" "Any sequence of operations ends as the contract says."
    KeysOrdered "keys.load" "`load` returns every record, ordered by generation, as written."
    KeysNeverReused "keys.never-reused" "`insert` takes only a generation above the highest that was ever inserted, even after a delete."
    KeysCompareAndSet "keys.compare-and-set" "`update` and `delete` do something only if the stored version is the expected one; of racers one wins."
    ValuesExact "values.byte-exact" "Check values come back as they were written, ordered by name; names are compared byte by byte."
    ValuesCompareAndSet "values.compare-and-set" "A check value changes only from what was expected; where the new value stands already, it is done. Of racers one wins."
    ValuesSurvive "values.survive" "Check values survive whatever the records survive: housekeeping, a restart."
    InstancesAgree "instances.agree" "What one instance over the data acknowledged, every other one knows: rows, rules, bounds, cursors, keys, check values."
    RestartKeeps "restart.keeps" "What was acknowledged is there after a crash, and every number goes on from where it was."
    OutageIsError "outage.is-an-error" "A failure is an error: never `Absent`, nothing new, no rule, no keys or a gap."
    OutageLeavesWhole "outage.leaves-whole" "A call that failed has done all or nothing; sent again, it is done."
    SpendFirst "spend.first" "`spend` of an id that is not held is `First`: one that was never spent there, and one whose end has come."
    SpendOnce "spend.once" "Of any number of calls at the same time, on any number of nodes, exactly one gets `First`; the others get `Again`."
    SpendHeld "spend.held-to-its-end" "An item is held until the `now` of a call has reached its end, whatever else is spent or forgotten."
    SpendLater "spend.later-end" "A call that answers `Again` moves the end of a held item to its own `until` if that is later, and never to an earlier time."
    SpendOver "spend.over-is-refused" "An `until` that is not later than `now` is `Again`, and nothing is held."
    SpendForgotten "spend.forgotten-stays-spent" "What a store has forgotten is not `First` again for the same or an earlier `until`, whatever `now` the call brings."
    SpendIds "spend.byte-exact" "Ids are byte-exact: two that differ in any bit are two items."
    SpendCleans "spend.cleans-itself" "Each call that answers `First` forgets at least two items that are over, if there are so many."
    SpendBounded "spend.bounded" "A store that is full fails with `Unavailable`, drops no held item, and takes new ones when others are over."
    SpendDurable "spend.durable" "What was spent, and the latest end that was forgotten, are there when the store is opened again."
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
