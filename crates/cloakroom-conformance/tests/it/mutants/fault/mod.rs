//! What can be wrong with a [`Plain`](crate::mutants::plain::Plain) store: one thing at a time.

mod define;

use cloakroom_conformance::Promise;

use define::faults;

faults! {
    /// `create` replaces whatever is there.
    create_upserts CreateUpserts: CreateNeverOverwrites, CreateRetry;
    /// `create` looks whether the id is free, and writes later.
    create_looks_then_writes CreateLooksThenWrites: CreateNeverOverwrites, CreateAtomic;
    /// `create` looks for rules, and writes later.
    create_checks_rules_first CreateChecksRulesFirst: CreateBarredByOverlap;
    /// `create` never looks for rules.
    create_ignores_rules CreateIgnoresRules: CreateBarredByRule, CreateBarredByOverlap;
    /// `create` looks for rules of the subject alone.
    create_ignores_client_rules CreateIgnoresClientRules: CreateBarredByRule;
    /// `create` does not look for rules of the pair.
    create_ignores_pair_rules CreateIgnoresPairRules: CreateBarredByRule;
    /// `create` answers `Barred`, and leaves the grant as it wrote it.
    barred_stays_live BarredStaysLive: CreateBarredByRule;
    /// `create` overwrites a tombstone.
    create_ignores_tombstones CreateIgnoresTombstones: CreateBarredByTombstone, RevokeTombstone;
    /// A retried `create` that finds its row does not look for rules again.
    retry_skips_check RetrySkipsCheck: CreateRetry;
    /// A retried `create` that finds what a crashed one left does not look for rules.
    crashed_retry_skips_check CrashedRetrySkipsCheck: CreateRetry, Cancellation;
    /// A crashed `create` leaves its grant out of the indexes, and so does its retry.
    retry_misses_index RetryMissesIndex: CreateAtomic, CreateRetry, Cancellation;
    /// A retried `create` brings a revoked token back.
    retry_revives_tokens RetryRevivesTokens: CreateRetry, CreateNeverOverwrites;
    /// A retried `create` does not see that its row was revoked.
    retry_misses_revocation RetryMissesRevocation: CreateRetry;
    /// A retried `create` is told that the id is taken.
    retry_is_refused RetryIsRefused: CreateRetry;
    /// `create` writes the grant, and its tokens in a second step.
    create_writes_tokens_later CreateWritesTokensLater: CreateAtomic, Cancellation, OutageLeavesWhole;
    /// `create` inserts the tokens even where another grant has the id.
    create_leaves_tokens CreateLeavesTokens: CreateAtomic, CreateNeverOverwrites;
    /// `create` takes tokens of other grants.
    create_takes_foreign_tokens CreateTakesForeignTokens: CreateAtomic, FindToken, AdvanceMisuse;
    /// `create` of another record under the id of a revoked grant is barred.
    another_revoked_is_barred AnotherRevokedIsBarred: CreateNeverOverwrites;
    /// `create` writes the first token alone.
    create_writes_one_token CreateWritesOneToken: CreateAtomic, RecordsSurvive;
    /// Rules deny only epochs before their bound.
    rules_spare_their_bound RulesSpareTheirBound: CreateBarredByRule;
    /// Rules deny every epoch.
    rules_deny_every_epoch RulesDenyEveryEpoch: CreateLoginAfter;

    /// `find` looks a token up by its digest alone.
    find_any_token FindAnyToken: FindToken;
    /// `find` hides revoked grants.
    find_hides_revoked FindHidesRevoked: FindReturnsDead, RevokeVisible;
    /// `find` hides revoked tokens.
    find_hides_revoked_tokens FindHidesRevokedTokens: FindReturnsDead, RevokeVisible;
    /// `find` hides expired grants.
    find_hides_expired FindHidesExpired: FindReturnsDead;

    /// `find` shows no token of a revoked grant.
    find_hides_tokens_of_revoked FindHidesTokensOfRevoked: FindReturnsDead, FindToken;

    /// Fields of a newer version are lost when a chain moves on.
    rewrite_drops_unknown RewriteDropsUnknown: RecordsSurvive, AdvanceWrites;
    /// Fields of a newer version are lost when a grant is created.
    create_drops_unknown CreateDropsUnknown: RecordsSurvive;
    /// Fields of a newer version are lost from tokens.
    tokens_drop_unknown TokensDropUnknown: RecordsSurvive;
    /// Times are kept in seconds.
    times_in_seconds TimesInSeconds: RecordsSurvive;
    /// Subjects are filed in lower case.
    subjects_fold_case SubjectsFoldCase: IdentifiersExact;
    /// Clients are filed in lower case.
    clients_fold_case ClientsFoldCase: IdentifiersExact;
    /// Clients are filed without trailing blanks.
    clients_lose_blanks ClientsLoseBlanks: IdentifiersExact;
    /// Subjects are filed up to their first NUL.
    subjects_end_at_nul SubjectsEndAtNul: IdentifiersExact;
    /// Subjects are filed by their first 191 bytes.
    subjects_are_cut SubjectsAreCut: IdentifiersExact;
    /// Characters of four bytes are filed as question marks.
    subjects_lose_astral SubjectsLoseAstral: IdentifiersExact;
    /// A `jti` is filed in lower case.
    jtis_fold_case JtisFoldCase: IdentifiersExact, RulesAnswer;
    /// The rule of a pair is filed under both names, one after the other.
    pair_keys_collide PairKeysCollide: IdentifiersExact, RevokeRules, RulesAnswer;
    /// Rules of JWTs and of keys are filed under their names alone.
    rule_kinds_collide RuleKindsCollide: IdentifiersExact, RevokeRules, RulesAnswer;
    /// Times are kept in 32 bits of seconds.
    times_are_short TimesAreShort: RecordsSurvive;
    /// A user and a client of one spelling are filed as one subject.
    subjects_lose_kind SubjectsLoseKind: IdentifiersExact, ListSelects, RevokeCovers;

    /// `advance` reads, and writes later.
    advance_reads_then_writes AdvanceReadsThenWrites: AdvanceOneWinner, AdvanceRevokeWins;
    /// `advance` looks whether the grant is revoked, then compares and writes.
    advance_misses_late_revocation AdvanceMissesLateRevocation: AdvanceRevokeWins;
    /// `advance` compares generations alone.
    advance_compares_generation AdvanceComparesGeneration: AdvanceCompares;
    /// `advance` compares digests alone.
    advance_compares_digest AdvanceComparesDigest: AdvanceCompares;
    /// `advance` takes a chain that has already moved further.
    advance_takes_older AdvanceTakesOlder: AdvanceCompares, AdvanceOneWinner;
    /// Attaching does not compare at all.
    attach_does_not_compare AttachDoesNotCompare: AdvanceCompares;
    /// `advance` moves the chain of a revoked grant.
    advance_ignores_revocation AdvanceIgnoresRevocation: AdvanceRevoked;
    /// `advance` of a grant that is revoked is stale if its chain stands elsewhere.
    revoked_elsewhere_is_stale RevokedElsewhereIsStale: AdvanceRevoked;
    /// `advance` of a grant or chain that has expired is stale if it stands elsewhere.
    expired_elsewhere_is_stale ExpiredElsewhereIsStale: AdvanceExpired;
    /// `advance` does not know tombstones.
    tombstones_are_unknown TombstonesAreUnknown: AdvanceRevoked, AdvanceUnknown, RevokeTombstone;
    /// Tokens are attached to a revoked grant.
    attach_ignores_revocation AttachIgnoresRevocation: AdvanceRevoked;
    /// `advance` ignores that the chain has expired.
    advance_ignores_chain_end AdvanceIgnoresChainEnd: AdvanceExpired;
    /// `advance` ignores that the grant has expired.
    advance_ignores_grant_end AdvanceIgnoresGrantEnd: AdvanceExpired;
    /// `advance` still takes a step at the very end of the grant.
    advance_at_the_grants_end AdvanceAtTheGrantsEnd: AdvanceExpired;
    /// `advance` still takes a step at the very end of the chain.
    advance_at_the_end AdvanceAtTheEnd: AdvanceExpired;
    /// Tokens are attached to an expired grant.
    attach_ignores_end AttachIgnoresEnd: AdvanceExpired;
    /// `advance` counts the generation, but keeps the digest.
    advance_keeps_digest AdvanceKeepsDigest: AdvanceWrites, AdvanceCompares;
    /// `advance` writes the chain, and keeps the rest of the record.
    advance_writes_chain_alone AdvanceWritesChainAlone: AdvanceWrites;
    /// Moving a chain deletes the tokens that hang off the grant.
    move_deletes_old_tokens MoveDeletesOldTokens: AdvanceWrites, MaintainSpares;
    /// Moving a chain drops the tokens.
    move_drops_tokens MoveDropsTokens: AdvanceWrites;
    /// `advance` moves the chain, and inserts the tokens in a second step.
    advance_writes_tokens_later AdvanceWritesTokensLater: AdvanceWrites, Cancellation;
    /// Attaching inserts nothing.
    attach_drops_tokens AttachDropsTokens: AdvanceAttaches;
    /// Attaching notes in the record when it was.
    attach_writes_record AttachWritesRecord: AdvanceAttaches;
    /// The tokens of a step that is refused are inserted.
    losers_leave_tokens LosersLeaveTokens: AdvanceOneWinner, AdvanceCompares;
    /// `Stale` shows what the loser wanted.
    stale_shows_the_losers_record StaleShowsLosersRecord: AdvanceOneWinner, AdvanceCompares;
    /// `advance` inserts a grant that is not there.
    advance_inserts_unknown AdvanceInsertsUnknown: AdvanceUnknown;
    /// The next record may change the grant's client, subject or epoch.
    advance_changes_owner AdvanceChangesOwner: AdvanceMisuse;
    /// The next record may leave the chain where it stands.
    advance_stays AdvanceStays: AdvanceMisuse;
    /// The next record may be without a chain.
    advance_loses_chain AdvanceLosesChain: AdvanceMisuse;
    /// The next record may end later than the grant.
    advance_lengthens AdvanceLengthens: AdvanceMisuse;
    /// The end of the next record is compared before the position of the chain.
    advance_compares_ends_first AdvanceComparesEndsFirst: AdvanceCompares;
    /// The end of the row stays where it was first.
    move_keeps_the_rows_end MoveKeepsTheRowsEnd: AdvanceWrites, MaintainSpares;
    /// An entry of an index goes when the row ends that it was written with.
    index_ends_with_the_first_row IndexEndsWithTheFirstRow: AdvanceWrites, ListLive, MaintainSpares;
    /// A move that is sent again is stale: it lost the race to itself.
    repeat_is_stale RepeatIsStale: AdvanceRepeat;
    /// A move that is sent again writes its record again.
    repeat_writes_again RepeatWritesAgain: AdvanceRepeat;
    /// A move that is sent again inserts its tokens again.
    repeat_inserts_tokens RepeatInsertsTokens: AdvanceRepeat;
    /// A move that is sent again lifts a revocation.
    repeat_revives RepeatRevives: AdvanceRepeat, AdvanceRevoked;
    /// A move that is sent again after the grant was revoked is taken.
    repeat_ignores_revocation RepeatIgnoresRevocation: AdvanceRepeat;
    /// A move that is sent again after the grant's end is taken.
    repeat_ignores_the_end RepeatIgnoresTheEnd: AdvanceRepeat, AdvanceExpired;
    /// A move that is sent again when the chain has ended is dead.
    repeat_dies_with_the_chain RepeatDiesWithTheChain: AdvanceRepeat;
    /// A move to the same digest in another generation counts as sent again.
    repeat_compares_digest RepeatComparesDigest: AdvanceRepeat;
    /// A move to the same generation with another digest counts as sent again.
    repeat_compares_generation RepeatComparesGeneration: AdvanceRepeat, AdvanceOneWinner, AdvanceCompares;
    /// `advance` takes tokens of other grants.
    advance_takes_foreign_tokens AdvanceTakesForeignTokens: AdvanceMisuse;
    /// `advance` sees tokens of other grants only where its own grant is there.
    advance_looks_at_tokens_last AdvanceLooksAtTokensLast: AdvanceMisuse;
    /// `advance` holds a lock that nobody frees when its future is dropped.
    advance_leaks_its_lock AdvanceLeaksItsLock: Cancellation;

    /// The revocation of a grant is not logged.
    grants_are_not_logged GrantsAreNotLogged: RevokeLogged, LogComplete;
    /// The revocation of a token is not logged.
    tokens_are_not_logged TokensAreNotLogged: RevokeLogged, LogComplete;
    /// The revocation of a grant that is absent is not logged.
    absent_grants_are_not_logged AbsentAreNotLogged: RevokeLogged, RevokeTombstone;
    /// Entries are logged with the end of their rules.
    entries_end_with_rules EntriesEndWithRules: RevokeLogged, LogSnapshot;
    /// Entries are not trimmed before their rules end.
    entries_stay_with_their_rules EntriesStayWithTheirRules: MaintainDeletes;
    /// Tombstones stay as long as a rule would.
    tombstones_end_with_rules TombstonesEndWithRules: MaintainDeletes;
    /// Rules end with their entries.
    rules_end_with_entries RulesEndWithEntries: RevokeRules, MaintainRules;
    /// Entries are logged with an end an hour after they were made.
    entries_lose_their_end EntriesLoseTheirEnd: RevokeLogged, LogComplete, LogSnapshot;
    /// The revocation of a pair is logged as that of its subject.
    pairs_are_logged_as_subjects PairsAreLoggedAsSubjects: RevokeLogged, LogComplete;
    /// A second revocation of a grant is an error.
    revoked_twice_is_an_error RevokedTwiceIsAnError: RevokeIdempotent;
    /// A second revocation of a grant lifts the first.
    revoked_twice_is_live RevokedTwiceIsLive: RevokeIdempotent;
    /// `revoke` logs, and flags the grant in a second step.
    logged_then_flagged LoggedThenFlagged: Cancellation;
    /// `revoke` flags the grant, and logs in a second step.
    flagged_then_logged FlaggedThenLogged: Cancellation;
    /// `revoke` answers before `find` shows it.
    answered_before_visible AnsweredBeforeVisible: RevokeVisible;
    /// The revocation of a token is logged, and the token left as it is.
    token_stays_live TokenStaysLive: RevokeVisible;
    /// A revocation looks which grants it covers before it leaves its rule.
    sweep_misses_late_create SweepMissesLateCreate: CreateBarredByOverlap, RevokeCovers;
    /// A sweep revokes grants of later epochs, too.
    sweep_ignores_epochs SweepIgnoresEpochs: CreateLoginAfter, RevokeCovers;
    /// A sweep spares the epoch that equals its bound.
    sweep_spares_its_bound SweepSparesItsBound: RevokeCovers;
    /// A sweep ends after a hundred grants.
    sweep_ends_early SweepEndsEarly: RevokeCovers;
    /// A sweep that is to be finished by `maintain` is forgotten.
    sweep_is_forgotten SweepIsForgotten: RevokeCovers, RevokeVisible;
    /// A sweep whose future is dropped is forgotten.
    dropped_sweep_is_forgotten DroppedSweepIsForgotten: Cancellation;
    /// `maintain` says that a sweep is done while it goes on.
    sweeping_is_denied SweepingIsDenied: RevokeSweeps, RevokeCovers, RevokeVisible;
    /// `maintain` says that any sweep goes on.
    unknown_sweep_goes_on UnknownSweepGoesOn: RevokeSweeps;
    /// `maintain` refuses to wait for a sweep that it does not know.
    unknown_sweep_is_an_error UnknownSweepIsAnError: RevokeSweeps;
    /// `revoke` names a sweep by something else than its entry.
    sweep_names_nothing SweepNamesNothing: RevokeSweeps;
    /// A sweep that is waited for comes after those before it.
    awaited_sweep_waits_its_turn AwaitedSweepWaitsItsTurn: RevokeSweeps, MaintainFair;
    /// Nothing is deleted while a sweep goes on.
    sweeps_starve_deletion SweepsStarveDeletion: MaintainFair;
    /// No sweep goes on while there is something to delete.
    deletion_starves_sweeps DeletionStarvesSweeps: MaintainFair;
    /// Of many grants, a sweep leaves those after the first thousand.
    sweeps_are_capped SweepsAreCapped: RevokeCovers;
    /// A sweep spares grants that cannot be read.
    sweep_spares_damage SweepSparesDamage: ListUnreadable;
    /// The revocation of a pair covers all grants of the subject.
    pair_covers_subject PairCoversSubject: RevokeCovers;
    /// The revocation of a client covers nothing.
    client_covers_nothing ClientCoversNothing: RevokeCovers, RevokeVisible;
    /// The revocation of an absent grant leaves nothing.
    no_tombstones NoTombstones: RevokeTombstone, CreateBarredByTombstone;
    /// `revoke` looks whether the grant is there, and leaves its tombstone later.
    tombstone_looks_then_writes TombstoneLooksThenWrites: CreateBarredByTombstone, RevokeTombstone;
    /// A second revocation of an absent grant may let the tombstone end earlier.
    tombstones_shorten TombstonesShorten: RevokeTombstone, MaintainSpares, RevokeIdempotent;
    /// A bound is the time alone.
    bounds_go_back BoundsGoBack: RevokeBounds;
    /// A bound may equal the one before.
    bounds_repeat BoundsRepeat: RevokeBounds;
    /// A bound is read, and written later.
    bounds_race BoundsRace: RevokeBounds;
    /// A log begins with the bound 0.
    bounds_begin_at_zero BoundsBeginAtZero: RevokeBounds, RulesAnswer;
    /// The entries of the log do not say what bound they were allotted.
    bounds_are_not_logged BoundsAreNotLogged: RevokeBounds, RevokeLogged, LogComplete;
    /// The entries of the log do not say whose token it was.
    clients_are_not_logged ClientsAreNotLogged: RevokeLogged, LogComplete;
    /// A batch of the log does not say what the newest bound is.
    batch_forgets_the_bound BatchForgetsTheBound: RevokeBounds, LogComplete, LogSnapshot, RulesAnswer;
    /// The newest bound is that of the rules that are still there.
    bounds_end_with_rules BoundsEndWithRules: RevokeBounds, RulesAnswer;
    /// A heartbeat leaves the newest bound as it is.
    heartbeat_keeps_the_bound HeartbeatKeepsTheBound: LogHeartbeat;
    /// A heartbeat sets the newest bound to its time, though it was higher.
    heartbeat_sets_the_bound HeartbeatSetsTheBound: RevokeBounds;
    /// Trimming the log sets the newest bound back.
    trimming_lowers_the_bound TrimmingLowersTheBound: RevokeBounds, MaintainRules;
    /// `rules` reads the newest bound, and the rules later.
    rules_read_the_bound_first RulesReadTheBoundFirst: RevokeBounds, RulesAnswer;
    /// A batch of the log reads the newest bound, and its entries later.
    batch_reads_the_bound_first BatchReadsTheBoundFirst: RevokeBounds;
    /// A second rule replaces the first, its end included.
    second_rule_shortens SecondRuleShortens: RevokeRules;
    /// A second rule keeps the bound of the first.
    second_rule_keeps_bound SecondRuleKeepsBound: RevokeRules;
    /// A second rule on a key is ignored.
    second_rule_is_ignored SecondRuleIsIgnored: RevokeRules;
    /// The revocation of a `jti` leaves no rule.
    jtis_leave_no_rule JtisLeaveNoRule: RevokeRules, RulesAnswer;
    /// The revocation of a pair leaves no rule.
    pairs_leave_no_rule PairsLeaveNoRule: RevokeRules, RulesAnswer, CreateBarredByRule;
    /// The revocation of a key leaves no rule.
    keys_leave_no_rule KeysLeaveNoRule: RevokeRules, RulesAnswer;
    /// `rules` answers only the first key.
    rules_answer_one_key RulesAnswerOneKey: RulesAnswer;
    /// `rules` answers the first thousand.
    rules_are_capped RulesAreCapped: RulesAnswer;
    /// `rules` leaves out rules that have ended.
    rules_hide_ended RulesHideEnded: RulesAnswer;
    /// `rules` answers a key twice that is asked twice.
    rules_repeat RulesRepeat: RulesAnswer;
    /// `rules` without keys answers no bound.
    rules_forget_the_bound RulesForgetTheBound: RulesAnswer;

    /// `list` shows no more than the first thousand.
    lists_are_capped ListsAreCapped: ListPages;
    /// A page holds no more than a thousand grants, and says that it is the last.
    pages_are_capped PagesAreCapped: ListPages;
    /// `maintain` deletes no more than a thousand rows, and says that nothing is left.
    maintain_is_capped MaintainIsCapped: MaintainDeletes;
    /// `list` calls a grant unreadable that it reads.
    list_calls_the_living_unreadable ListCallsTheLivingUnreadable: ListUnreadable, ListPages, ListLive;
    /// `list` passes a grant that cannot be read by, and does not say so.
    list_hides_damage ListHidesDamage: ListUnreadable;
    /// `list` fails where it meets a grant that cannot be read.
    list_fails_on_damage ListFailsOnDamage: ListUnreadable;
    /// `find` says that a grant is absent that it cannot read.
    damaged_is_absent DamagedIsAbsent: ListUnreadable, OutageIsError;
    /// Nothing is deleted while there is a row that cannot be read.
    damage_stops_deletion DamageStopsDeletion: ListUnreadable;
    /// Of many tokens, a grant takes the first thousand.
    tokens_are_capped TokensAreCapped: CreateAtomic;
    /// `list` returns everything at once.
    list_is_unpaged ListIsUnpaged: ListPages;
    /// `list` skips a grant between two pages.
    list_skips_at_borders ListSkipsAtBorders: ListPages;
    /// `list` says that a short page is the last.
    list_ends_at_short_pages ListEndsAtShortPages: ListPages, ListLive;
    /// `list` goes from the highest id to the lowest.
    list_is_backwards ListIsBackwards: ListPages;
    /// `list` shows grants that a rule denies.
    list_shows_denied ListShowsDenied: ListLive;
    /// `list` shows revoked grants.
    list_shows_revoked ListShowsRevoked: ListLive;
    /// `list` shows expired grants.
    list_shows_expired ListShowsExpired: ListLive;
    /// `list` still shows a grant at its very end.
    list_at_the_end ListAtTheEnd: ListLive;
    /// `list` of a pair shows all grants of the subject.
    list_ignores_client ListIgnoresClient: ListSelects;

    /// An entry takes its position, and is written later.
    positions_before_commit PositionsBeforeCommit: LogComplete;
    /// Two entries that are written at once take one position.
    positions_collide PositionsCollide: LogComplete, RevokeLogged;
    /// A batch holds at most a thousand entries, and says that nothing is left.
    batches_are_capped BatchesAreCapped: LogComplete;
    /// A cursor that it cannot read is the start.
    foreign_cursor_is_the_start ForeignCursorIsTheStart: LogGap;
    /// A full batch points to the end of the log.
    batch_points_to_the_end BatchPointsToTheEnd: LogComplete;
    /// A batch never says that more is waiting.
    batch_hides_more BatchHidesMore: LogComplete;
    /// There is never a gap.
    no_gaps NoGaps: LogGap;
    /// An entry that was trimmed is no gap.
    trimmed_is_no_gap TrimmedIsNoGap: LogGap;
    /// Another entry at the place is no gap.
    other_entry_is_no_gap OtherEntryIsNoGap: LogGap;
    /// Another incarnation is no gap.
    other_incarnation_is_no_gap OtherIncarnationIsNoGap: LogGap;
    /// Every log has the same incarnation, and numbers its entries.
    incarnation_is_fixed IncarnationIsFixed: LogGap;
    /// The newest entry is trimmed, too.
    trim_takes_the_newest TrimTakesTheNewest: LogSnapshot, MaintainSpares, LogGap;
    /// An entry is trimmed by when it was written.
    trim_by_age TrimByAge: LogSnapshot, MaintainSpares;
    /// An entry is trimmed with any later one that has ended.
    trim_by_prefix TrimByPrefix: LogSnapshot, MaintainSpares;
    /// A reader who reads first and listens after is not woken by what came between.
    wakeups_begin_with_the_stream WakeupsBeginWithTheStream: LogWakeups;
    /// Wake-ups begin when the stream is first asked.
    wakeups_begin_late WakeupsBeginLate: LogWakeups;
    /// Whoever is not waiting misses the wake-up; but for the first.
    wakeups_are_missed WakeupsAreMissed: LogWakeups;
    /// Revocations of subjects wake nobody.
    subjects_do_not_wake SubjectsDoNotWake: LogWakeups;
    /// Heartbeats wake nobody.
    heartbeats_do_not_wake HeartbeatsDoNotWake: LogWakeups, LogHeartbeat;
    /// The stream of wake-ups ends after the first.
    wakeups_end WakeupsEnd: LogWakeups;
    /// A heartbeat gets in before the newest entry.
    heartbeat_overtakes HeartbeatOvertakes: LogHeartbeat;
    /// A heartbeat is not written.
    heartbeat_is_lost HeartbeatIsLost: LogHeartbeat;

    /// `maintain` deletes a grant at its end, though its row is needed longer.
    purge_at_the_grants_end PurgeAtTheGrantsEnd: MaintainSpares;
    /// `maintain` deletes a grant whose chain has ended, though tokens still hang off it.
    purge_at_the_chains_end PurgeAtTheChainsEnd: MaintainSpares;
    /// `maintain` deletes what has ended now.
    purge_without_margin PurgeWithoutMargin: MaintainSpares;
    /// `maintain` trims entries that have ended now.
    trim_without_margin TrimWithoutMargin: MaintainSpares, LogSnapshot;
    /// `maintain` removes rules that have ended now.
    purge_rules_without_margin PurgeRulesWithoutMargin: MaintainRules;
    /// `maintain` deletes what ends just at `before`.
    purge_at_the_border PurgeAtTheBorder: MaintainSpares;
    /// `maintain` deletes all tokens of a grant with the first that ends.
    purge_all_tokens PurgeAllTokens: MaintainSpares;
    /// `maintain` deletes revoked grants.
    purge_revoked PurgeRevoked: MaintainSpares;
    /// `maintain` deletes tombstones at once.
    purge_tombstones PurgeTombstones: MaintainSpares;
    /// `maintain` removes a rule a day before its end.
    purge_rules_early PurgeRulesEarly: MaintainRules;
    /// `maintain` removes the rules of sweeps that are done.
    purge_swept_rules PurgeSweptRules: MaintainRules;
    /// `maintain` deletes nothing.
    purge_nothing PurgeNothing: MaintainDeletes;
    /// `maintain` leaves tokens to the end of their grant.
    purge_no_tokens PurgeNoTokens: MaintainDeletes;
    /// `maintain` does everything at once.
    maintain_is_unbounded MaintainIsUnbounded: MaintainDeletes;
    /// `maintain` never says that more is left.
    maintain_hides_more MaintainHidesMore: MaintainDeletes;
    /// `maintain` always says that more is left.
    maintain_never_ends MaintainNeverEnds: MaintainDeletes;
    /// `maintain` looks for ended rows, and deletes them later.
    maintain_looks_then_deletes MaintainLooksThenDeletes: MaintainRaces;

    /// `status` counts all rows, ended or not.
    status_counts_the_living StatusCountsTheLiving: StatusCounts;
    /// `status` counts what ends just at `before`.
    status_counts_at_the_border StatusCountsAtTheBorder: StatusCounts;
    /// `status` counts grants by their own end, though their rows are needed longer.
    status_counts_by_the_grants_end StatusCountsByTheGrantsEnd: StatusCounts;
    /// `status` tells the end of the row that ended last.
    status_tells_the_newest_end StatusTellsTheNewestEnd: StatusCounts;
    /// `status` counts the newest entry of the log, which stays.
    status_counts_the_newest_entry StatusCountsTheNewestEntry: StatusCounts;
    /// `status` does not see sweeps that are not done.
    status_hides_sweeps StatusHidesSweeps: StatusCounts;
    /// `status` counts sweeps that are done.
    status_keeps_sweeps StatusKeepsSweeps: StatusCounts;
    /// `status` counts ten ended rows at most.
    status_is_capped StatusIsCapped: StatusCounts;
    /// `status` deletes what it counts.
    status_deletes StatusDeletes: StatusCounts;
    /// `scan` passes revoked grants by.
    scan_hides_revoked ScanHidesRevoked: ScanPages;
    /// `scan` passes expired grants by.
    scan_hides_expired ScanHidesExpired: ScanPages;
    /// `scan` shows every grant at once.
    scan_is_unpaged ScanIsUnpaged: ScanPages;
    /// `scan` skips a grant between two pages.
    scan_skips_at_borders ScanSkipsAtBorders: ScanPages;
    /// `scan` shows the last grant of a page again on the next one.
    scan_repeats_at_borders ScanRepeatsAtBorders: ScanPages;
    /// `scan` begins anew if the id after which a page begins is gone.
    scan_begins_anew ScanBeginsAnew: ScanPages;
    /// `scan` says that a page whose grants cannot be read is the last.
    scan_ends_at_damage ScanEndsAtDamage: ScanUnreadable;
    /// `scan` passes a grant that cannot be read by, and does not say so.
    scan_hides_damage ScanHidesDamage: ScanUnreadable;
    /// `scan` fails where it meets a grant that cannot be read.
    scan_fails_on_damage ScanFailsOnDamage: ScanUnreadable;

    /// Check values are written whatever stands there.
    values_are_not_compared ValuesAreNotCompared: ValuesCompareAndSet;
    /// Of check values, only whether there is one is compared.
    values_compare_presence ValuesComparePresence: ValuesCompareAndSet;
    /// A check value that is refused is written all the same.
    values_write_on_refusal ValuesWriteOnRefusal: ValuesCompareAndSet;
    /// A check value that stands there already is refused.
    value_repeat_is_refused ValueRepeatIsRefused: ValuesCompareAndSet;
    /// A check value is read, and written later.
    values_race ValuesRace: ValuesCompareAndSet;
    /// A check value is never removed.
    values_stay ValuesStay: ValuesCompareAndSet;
    /// An empty check value is none.
    empty_values_are_none EmptyValuesAreNone: ValuesExact, ValuesCompareAndSet;
    /// Names of check values are filed in lower case.
    value_names_are_folded ValueNamesAreFolded: ValuesExact;
    /// Names of check values are filed without trailing blanks.
    value_names_lose_blanks ValueNamesLoseBlanks: ValuesExact;
    /// Names of check values are filed by their first 64 bytes.
    value_names_are_cut ValueNamesAreCut: ValuesExact;
    /// Check values are kept up to 255 bytes.
    values_are_cut ValuesAreCut: ValuesExact;
    /// Check values come in the opposite order.
    values_are_unordered ValuesAreUnordered: ValuesExact;
    /// Of check values, the first 256 are answered.
    values_are_capped ValuesAreCapped: ValuesExact;
    /// Housekeeping removes check values.
    values_go_with_housekeeping ValuesGoWithHousekeeping: ValuesSurvive;

    /// An instance remembers rules.
    rules_are_cached RulesAreCached: InstancesAgree;
    /// An instance remembers the newest bound.
    bound_is_cached BoundIsCached: InstancesAgree, CreateLoginAfter, RevokeBounds;
    /// An instance remembers what it found.
    find_is_cached FindIsCached: InstancesAgree;
    /// An instance remembers what it listed.
    list_is_cached ListIsCached: InstancesAgree;
    /// An instance remembers the ring.
    ring_is_cached RingIsCached: InstancesAgree;
    /// `create` asks the rules that its instance knows.
    create_asks_its_own_rules CreateAsksItsOwnRules: InstancesAgree, CreateBarredByRule;
    /// An instance wakes readers for its own writes alone.
    wakeups_are_the_instances WakeupsAreTheInstances: InstancesAgree;
    /// A `create` that is sent again through another instance is refused.
    retry_is_known_to_the_instance RetryIsKnownToTheInstance: InstancesAgree;
    /// A move that is sent again through another instance is stale.
    repeat_is_known_to_the_instance RepeatIsKnownToTheInstance: InstancesAgree;
    /// A sweep is known to the instance that began it.
    sweeps_are_the_instances SweepsAreTheInstances: InstancesAgree, RevokeSweeps;
    /// Keys: an instance compares versions with the ring that it loaded.
    key_versions_are_cached KeyVersionsAreCached: InstancesAgree;
    /// Keys: each instance counts generations by itself.
    generation_is_counted_by_the_instance GenerationIsCountedByTheInstance: InstancesAgree;
    /// A cursor is valid in the instance that made it.
    cursors_are_the_instances CursorsAreTheInstances: InstancesAgree, RestartKeeps;
    /// Each instance counts bounds by itself.
    bound_is_counted_by_the_instance BoundIsCountedByTheInstance: InstancesAgree;
    /// A restart forgets the newest bound.
    bound_is_forgotten BoundIsForgotten: RestartKeeps;
    /// After a restart, the newest bound is that of the rules.
    bound_is_that_of_the_rules BoundIsThatOfTheRules: RestartKeeps;
    /// A restart forgets how far heartbeats raised the newest bound.
    heartbeat_bound_is_forgotten HeartbeatBoundIsForgotten: RestartKeeps;
    /// A restart forgets the last entry of the log.
    last_entry_is_forgotten LastEntryIsForgotten: RestartKeeps;
    /// A restart forgets the last step of a chain.
    last_step_is_forgotten LastStepIsForgotten: RestartKeeps;
    /// A restart forgets what a second rule on a key said.
    second_rule_is_forgotten SecondRuleIsForgotten: RestartKeeps;
    /// A restart draws another incarnation of the same log.
    incarnation_is_redrawn IncarnationIsRedrawn: RestartKeeps;
    /// A restart forgets the log.
    log_is_forgotten LogIsForgotten: RestartKeeps;
    /// A restart gives positions of the log again.
    positions_begin_anew PositionsBeginAnew: RestartKeeps;
    /// A restart forgets the rules.
    rules_are_forgotten RulesAreForgotten: RestartKeeps;
    /// A restart forgets tombstones.
    tombstones_are_forgotten TombstonesAreForgotten: RestartKeeps;
    /// A restart forgets sweeps that are not done.
    sweeps_are_forgotten SweepsAreForgotten: RestartKeeps;
    /// A restart forgets what was flagged.
    flags_are_forgotten FlagsAreForgotten: RestartKeeps;
    /// A restart forgets the last token.
    attached_tokens_are_forgotten AttachedTokensAreForgotten: RestartKeeps;
    /// A restart forgets the indexes.
    index_is_forgotten IndexIsForgotten: RestartKeeps;
    /// A restart forgets check values.
    values_are_forgotten ValuesAreForgotten: RestartKeeps;
    /// A restart forgets the highest generation of keys.
    generation_is_forgotten GenerationIsForgotten: RestartKeeps;
    /// A restart forgets the newest key.
    keys_are_forgotten KeysAreForgotten: RestartKeeps;

    /// `find` that fails says that nothing is there.
    find_fails_as_absent FindFailsAsAbsent: OutageIsError;
    /// `find` that fails after the grant says that there is no token.
    find_loses_the_token FindLosesTheToken: OutageIsError;
    /// `list` that fails half-way ends with what it has.
    list_ends_short ListEndsShort: OutageIsError;
    /// `rules` that fail half-way end with what they have.
    rules_end_short RulesEndShort: OutageIsError;
    /// A step that fails holds a lock that nobody frees.
    lock_leaks_on_error LockLeaksOnError: OutageLeavesWhole;
    /// The stream of wake-ups ends when the driver fails.
    wakeups_end_with_the_outage WakeupsEndWithTheOutage: OutageLeavesWhole, LogWakeups;
    /// `create` that fails says that the id is taken.
    create_fails_as_exists CreateFailsAsExists: OutageIsError;
    /// `advance` that fails says that there is no such grant.
    advance_fails_as_unknown AdvanceFailsAsUnknown: OutageIsError;
    /// `advance` that fails says that the grant is dead.
    advance_fails_as_dead AdvanceFailsAsDead: OutageIsError;
    /// `revoke` that fails says that it is done.
    revoke_fails_as_done RevokeFailsAsDone: OutageIsError;
    /// `rules` that fails says that there are none.
    rules_fail_as_none RulesFailAsNone: OutageIsError;
    /// `list` that fails says that there is nobody.
    list_fails_as_empty ListFailsAsEmpty: OutageIsError;
    /// The log that cannot be read is empty.
    log_fails_as_empty LogFailsAsEmpty: OutageIsError;
    /// The log that cannot be read is a gap.
    log_fails_as_gap LogFailsAsGap: OutageIsError;
    /// A heartbeat that fails says nothing.
    heartbeat_fails_in_silence HeartbeatFailsInSilence: OutageIsError;
    /// `maintain` that fails says that nothing is left.
    maintain_fails_as_done MaintainFailsAsDone: OutageIsError;
    /// `status` that fails says that nothing has ended.
    status_fails_as_empty StatusFailsAsEmpty: OutageIsError;
    /// `scan` that fails says that there is nobody.
    scan_fails_as_empty ScanFailsAsEmpty: OutageIsError;
    /// Check values that cannot be read are none.
    values_fail_as_none ValuesFailAsNone: OutageIsError;
    /// A check value that cannot be written is refused.
    set_value_fails_as_refused SetValueFailsAsRefused: OutageIsError;
    /// Keys: a ring that cannot be read is empty.
    ring_fails_as_empty RingFailsAsEmpty: OutageIsError;
    /// Keys: `insert` that fails says that the generation is taken.
    insert_fails_as_taken InsertFailsAsTaken: OutageIsError;
    /// Keys: `update` that fails says that the version is another.
    update_fails_as_stale UpdateFailsAsStale: OutageIsError;
    /// Keys: `delete` that fails says that the version is another.
    delete_fails_as_stale DeleteFailsAsStale: OutageIsError;

    /// Keys: the generation of a deleted record is free again.
    keys_reuse_generations KeysReuseGenerations: KeysNeverReused;
    /// Keys: any free generation is taken.
    keys_fill_holes KeysFillHoles: KeysNeverReused;
    /// Keys: `insert` writes the record, and counts its generation in a second step.
    keys_count_later KeysCountLater: Cancellation, KeysNeverReused, KeysCompareAndSet;
    /// Keys: `insert` replaces a record.
    keys_upsert KeysUpsert: KeysNeverReused;
    /// Keys: `insert` looks, and writes later.
    keys_insert_races KeysInsertRaces: KeysNeverReused, KeysCompareAndSet;
    /// Keys: `update` compares no version.
    keys_update_unchecked KeysUpdateUnchecked: KeysCompareAndSet;
    /// Keys: `update` looks, and writes later.
    keys_update_races KeysUpdateRaces: KeysCompareAndSet;
    /// Keys: `update` inserts a record that is not there.
    keys_update_inserts KeysUpdateInserts: KeysCompareAndSet, KeysNeverReused;
    /// Keys: `delete` compares no version.
    keys_delete_unchecked KeysDeleteUnchecked: KeysCompareAndSet;
    /// Keys: `delete` looks, and deletes later.
    keys_delete_races KeysDeleteRaces: KeysCompareAndSet;
    /// Keys: `load` returns the newest first.
    keys_load_backwards KeysLoadBackwards: KeysOrdered;
    /// Keys: fields of a newer version are lost.
    keys_drop_unknown KeysDropUnknown: KeysOrdered;
}
