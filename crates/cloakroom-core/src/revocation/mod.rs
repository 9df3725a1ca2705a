//! Revocations, the rules that they write, and the revocation log.

mod log;
mod log_page;

pub use log::{
    Cursor, CursorPlace, EntryId, LogEntry, LogEvent, LogNotifications, RevocationBatch,
};
pub use log_page::RevocationPage;

use serde::{Deserialize, Serialize};

use crate::ids::{ClientId, GrantId, Jti, Kid, Subject};
use crate::secret::TokenDigest;
use crate::time::UnixTime;

/// A number that orders grants and revocations without comparing clocks.
///
/// The store allots a *bound* to each revocation of a subject or a client. The bound is newer than
/// every bound before it. When the creation of a grant begins, its epoch is the newest bound of the
/// log + 1. The rule of a revocation denies every grant whose epoch ≤ its bound, so it covers every
/// earlier grant, and does not cover the next login.
///
/// ```
/// use cloakroom_core::revocation::Epoch;
/// use cloakroom_core::time::UnixTime;
///
/// let first = Epoch::default().next_bound(UnixTime::from_millis(1_000));
/// let login = first.following();
/// let second = first.next_bound(UnixTime::from_millis(900)); // a clock that went back
/// assert!(login > first && login <= second);
/// ```
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(from = "u64", into = "u64")]
pub struct Epoch(u64);

impl Epoch {
    /// The largest value that fits into a signed 64-bit column.
    const MAX: u64 = i64::MAX.cast_unsigned();

    /// An epoch or bound read back from a store.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        if value > Self::MAX { Self(Self::MAX) } else { Self(value) }
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The epoch of a grant whose creation begins while `self` is the newest bound.
    #[must_use]
    pub const fn following(self) -> Self {
        Self::new(self.0.saturating_add(1))
    }

    /// A bound for a revocation at `now`, while `self` is the newest bound: max(now in ms, newest
    /// bound + 1). A store may allot any other bound that is greater than every bound before it and
    /// ≥ now.
    #[must_use]
    pub fn next_bound(self, now: UnixTime) -> Self {
        Self::new(now.as_millis().max(self.0.saturating_add(1)))
    }
}

impl From<u64> for Epoch {
    fn from(value: u64) -> Self {
        Self::new(value)
    }
}

impl From<Epoch> for u64 {
    fn from(epoch: Epoch) -> Self {
        epoch.0
    }
}

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a store must handle every target")]
pub enum Target {
    /// One stored access token of a grant.
    Token {
        /// The grant that it belongs to.
        grant: GrantId,
        /// Its digest.
        digest: TokenDigest,
    },
    /// One JWT.
    Jti(Jti),
    /// A grant with its chain and its tokens.
    Grant(GrantId),
    /// Every grant of a subject so far ("log out everywhere").
    Subject(Subject),
    /// Every grant of a client so far ("revoke this app").
    Client(ClientId),
    /// Every grant of a subject at one client so far.
    SubjectAtClient(Subject, ClientId),
    /// Everything that a signing key ever signed.
    Key(Kid),
}

impl Target {
    /// Whether the store allots a bound to its revocation.
    #[must_use]
    pub const fn has_bound(&self) -> bool {
        matches!(self, Self::Subject(_) | Self::Client(_) | Self::SubjectAtClient(..))
    }

    /// The key of the rule that its revocation writes, if it writes one.
    #[must_use]
    pub fn rule_key(&self) -> Option<RuleKey> {
        match self {
            Self::Token { .. } | Self::Grant(_) => None,
            Self::Jti(jti) => Some(RuleKey::Jti(jti.clone())),
            Self::Subject(subject) => Some(RuleKey::Subject(subject.clone())),
            Self::Client(client) => Some(RuleKey::Client(client.clone())),
            Self::SubjectAtClient(subject, client) => {
                Some(RuleKey::SubjectAtClient(subject.clone(), client.clone()))
            }
            Self::Key(kid) => Some(RuleKey::Key(kid.clone())),
        }
    }
}

/// A request to a store to revoke something.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "part of the store contract: a new field is a new duty of every store"
)]
pub struct Revocation {
    /// What is revoked.
    pub target: Target,
    /// When it is revoked, by the caller's clock.
    pub at: UnixTime,
    /// The end of its log entry and of its tombstone. Until then, a token that was issued before the
    /// revocation may still be accepted somewhere.
    pub until: UnixTime,
    /// The end of its rule, not before `until`. For a subject, a client or a pair, this is the
    /// longest lifetime of a grant after `at`, since a `create` that began before the revocation
    /// may end after it.
    pub rule_until: UnixTime,
    /// The client of the token or grant, if the caller knows it. It is written to the log, so that
    /// a reader can limit the number of revocations that it remembers for one client.
    pub client: Option<ClientId>,
    /// The grant that the target belongs to, if the caller knows it and the target does not name it.
    /// It has the same purpose.
    pub grant: Option<GrantId>,
}

impl Revocation {
    /// The revocation of a target whose client is unknown or named by the target. Its rule ends with
    /// its log entry.
    #[must_use]
    pub const fn new(target: Target, at: UnixTime, until: UnixTime) -> Self {
        Self { target, at, until, rule_until: until, client: None, grant: None }
    }

    /// The event that a store writes into the log, with the bound that it allotted.
    #[must_use]
    pub fn event(&self, bound: Option<Epoch>) -> LogEvent {
        LogEvent::Revoked {
            target: self.target.clone(),
            bound,
            client: self.client.clone(),
            grant: self.grant,
        }
    }

    /// The rule that it writes, with the bound that the store allotted, if it writes one.
    #[must_use]
    pub fn rule(&self, bound: Option<Epoch>) -> Option<Rule> {
        let key = self.target.rule_key()?;
        Some(Rule { key, bound, until: self.rule_until.max(self.until) })
    }
}

/// What a rule denies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "a store must handle every kind of rule")]
pub enum RuleKey {
    /// One JWT.
    Jti(Jti),
    /// A subject.
    Subject(Subject),
    /// A client.
    Client(ClientId),
    /// A subject at one client.
    SubjectAtClient(Subject, ClientId),
    /// A signing key.
    Key(Kid),
}

/// A revocation that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "part of the store contract: stores build it, and callers handle all of it"
)]
pub struct Rule {
    /// What it denies.
    pub key: RuleKey,
    /// For a subject, a client or a pair: the newest epoch that the rule denies. `None` denies
    /// everything that the key names.
    pub bound: Option<Epoch>,
    /// When it ends.
    pub until: UnixTime,
}

impl Rule {
    /// Whether it denies a grant of this epoch, or a token of such a grant.
    #[must_use]
    pub fn denies(&self, epoch: Epoch) -> bool {
        self.bound.is_none_or(|bound| epoch <= bound)
    }

    /// Merges a second rule under the same key: the later bound and the later end apply.
    pub fn merge(&mut self, other: &Self) {
        self.bound = match (self.bound, other.bound) {
            (Some(own), Some(other)) => Some(own.max(other)),
            _ => None,
        };
        self.until = self.until.max(other.until);
    }
}

/// The rules in force for some keys, and the log's newest bound.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "part of the store contract: stores build it, and callers handle all of it"
)]
pub struct Rules {
    /// The rules, at most one for each key, in any order.
    pub rules: Vec<Rule>,
    /// The newest bound that the log ever allotted.
    pub newest_bound: Epoch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_rule_keeps_the_later_bound_and_end() {
        let rule = |bound, until| Rule {
            key: RuleKey::Client(ClientId::new("app").unwrap()),
            bound: Some(Epoch(bound)),
            until: UnixTime::from_millis(until),
        };
        let mut kept = rule(5, 100);
        kept.merge(&rule(4, 200));
        assert_eq!(kept, rule(5, 200));
        kept.merge(&rule(9, 1));
        assert_eq!(kept, rule(9, 200));
        assert!(kept.denies(Epoch(9)) && !kept.denies(Epoch(10)));
    }

    #[test]
    fn bounds_only_grow_and_a_login_right_after_is_newer() {
        let now = UnixTime::from_millis;
        assert_eq!(Epoch(7).next_bound(now(1_000)), Epoch(1_000), "it is a time where it can be");
        assert_eq!(Epoch(1_000).next_bound(now(1_000)), Epoch(1_001), "and never the same twice");
        assert_eq!(Epoch(2_000).next_bound(now(1_000)), Epoch(2_001), "nor does it go back");
        assert_eq!(Epoch(7).following(), Epoch(8));
        assert_eq!((Epoch::from(7), u64::from(Epoch(7)), Epoch(7).get()), (Epoch(7), 7, 7));
        // What a signed column of 64 bits cannot hold is the newest that it can.
        assert_eq!(Epoch::new(u64::MAX).following(), Epoch::new(u64::MAX));
    }

    #[test]
    fn what_a_target_leaves_behind() {
        let (subject, client) = (Subject::user("alice").unwrap(), ClientId::new("app").unwrap());
        let (grant, digest) = (GrantId::from_bytes([1; 16]), TokenDigest::from_bytes([2; 32]));
        let (jti, kid) = (Jti::new("j").unwrap(), Kid::new("k").unwrap());
        let pair = (subject.clone(), client.clone());
        for (target, has_bound, key) in [
            (Target::Token { grant, digest }, false, None),
            (Target::Grant(grant), false, None),
            (Target::Jti(jti.clone()), false, Some(RuleKey::Jti(jti))),
            (Target::Key(kid.clone()), false, Some(RuleKey::Key(kid))),
            (Target::Subject(subject.clone()), true, Some(RuleKey::Subject(subject))),
            (Target::Client(client.clone()), true, Some(RuleKey::Client(client.clone()))),
            (
                Target::SubjectAtClient(pair.0.clone(), pair.1.clone()),
                true,
                Some(RuleKey::SubjectAtClient(pair.0, pair.1)),
            ),
        ] {
            assert_eq!(target.has_bound(), has_bound, "{target:?}");
            assert_eq!(target.rule_key(), key, "{target:?}");
            for (until, rule_until, end) in [(5, 9, 9), (9, 5, 9)] {
                let [until, rule_until, end] = [until, rule_until, end].map(UnixTime::from_millis);
                let revocation =
                    Revocation { rule_until, ..Revocation::new(target.clone(), until, until) };
                let rule = |key| Rule { key, bound: Some(Epoch(3)), until: end };
                assert_eq!(revocation.rule(Some(Epoch(3))), key.clone().map(rule), "{target:?}");
            }
            let at = UnixTime::from_millis(1);
            let revocation = Revocation {
                client: Some(client.clone()),
                grant: Some(grant),
                ..Revocation::new(target.clone(), at, at)
            };
            let (bound, client, grant) = (Some(Epoch(3)), Some(client.clone()), Some(grant));
            let event = LogEvent::Revoked { target, bound, client, grant };
            assert_eq!(revocation.event(bound), event);
        }
    }

    #[test]
    fn a_rule_without_a_bound_denies_everything_and_keeps_doing_so() {
        let rule = |bound: Option<u64>| Rule {
            key: RuleKey::Client(ClientId::new("app").unwrap()),
            bound: bound.map(Epoch),
            until: UnixTime::from_millis(1),
        };
        assert!(rule(None).denies(Epoch::new(u64::MAX)));
        for (one, other) in [(None, Some(5)), (Some(5), None), (None, None)] {
            let mut kept = rule(one);
            kept.merge(&rule(other));
            assert_eq!(kept, rule(None));
        }
    }
}
