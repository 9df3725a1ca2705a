//! Revocations, the rules they leave behind, and the log that carries them to every reader.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_core::Stream;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{ClientId, GrantId, Invalid, Jti, Kid, Subject};
use crate::random::{Random, RandomError};
use crate::secret::{TokenDigest, bytes, decode_array};
use crate::time::UnixTime;

/// Orders grants and revocations without comparing clocks.
///
/// A revocation of a subject or a client is allotted a *bound*, newer than every bound before it;
/// a grant takes as its epoch the log's newest bound + 1 when its creation begins. The rule denies
/// every grant whose epoch ≤ its bound: none granted before escapes, and the login right after is
/// not refused.
///
/// ```
/// use cloakroom_core::{Epoch, UnixTime};
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
    /// Within what a signed column of 64 bits holds.
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

    /// The bound of a revocation at `now`, while `self` is the newest bound:
    /// max(now in ms, newest bound + 1).
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

/// What is revoked. Exhaustive on purpose: a new target must not compile silently in a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One stored access token of a grant.
    Token {
        /// The grant it hangs off.
        grant: GrantId,
        /// Its digest.
        digest: TokenDigest,
    },
    /// One JWT.
    Jti(Jti),
    /// A grant and all that hangs off it.
    Grant(GrantId),
    /// Every grant of a subject so far ("log out everywhere").
    Subject(Subject),
    /// Every grant of a client so far ("revoke this app").
    Client(ClientId),
    /// Every grant of a subject at one client so far.
    SubjectAtClient(Subject, ClientId),
    /// Everything a signing key signed, ever.
    Key(Kid),
}

impl Target {
    /// Whether a revocation of it is allotted a bound.
    #[must_use]
    pub const fn has_bound(&self) -> bool {
        matches!(self, Self::Subject(_) | Self::Client(_) | Self::SubjectAtClient(..))
    }

    /// The key of the rule that it leaves behind, if it leaves one.
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

/// A revocation, as it is asked of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// What is revoked.
    pub target: Target,
    /// When, by the caller's clock.
    pub at: UnixTime,
    /// Until when its log entry and its rule matter.
    pub until: UnixTime,
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// A revocation that still matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it is about.
    pub key: RuleKey,
    /// For a subject, a client or a pair: the newest epoch that it denies. `None` denies
    /// whatever the key names.
    pub bound: Option<Epoch>,
    /// When it ends.
    pub until: UnixTime,
}

impl Rule {
    /// Whether it denies a grant, or a token of a grant, of this epoch.
    #[must_use]
    pub fn denies(&self, epoch: Epoch) -> bool {
        self.bound.is_none_or(|bound| epoch <= bound)
    }

    /// Takes over what a second rule on the same key says: the later bound, the later end.
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
pub struct Rules {
    /// The rules, in no order; at most one for each key.
    pub rules: Vec<Rule>,
    /// The newest bound that the log ever allotted.
    pub newest_bound: Epoch,
}

/// One entry of the revocation log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its random identifier.
    pub id: EntryId,
    /// What happened.
    #[serde(flatten)]
    pub event: LogEvent,
    /// When, by the writer's clock.
    pub at: UnixTime,
    /// Until when it matters.
    pub until: UnixTime,
}

/// What an entry of the log says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogEvent {
    /// Something was revoked.
    Revoked {
        /// What.
        target: Target,
        /// The bound that it was allotted, where it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bound: Option<Epoch>,
    },
    /// Nothing happened; the log is alive.
    Heartbeat {},
}

/// The random identifier of a log entry: 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryId(#[serde(with = "bytes")] [u8; 16]);

impl EntryId {
    /// A new random identifier.
    ///
    /// # Errors
    ///
    /// If the source of random bytes fails.
    pub fn random(random: &Random) -> Result<Self, RandomError> {
        random.array().map(Self)
    }

    /// An identifier read back from a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, as a store keeps them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryId({})", URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// A reader's place in the log: the log's incarnation, and its last entry read. As text it is
/// 54 characters of base64url; [`Cursor::start`] is the empty string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor(Option<CursorPlace>);

/// The place that a cursor names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CursorPlace {
    /// The log's random incarnation: a restored or emptied store has another.
    pub incarnation: [u8; 16],
    /// The position of the last entry read; the store's own numbering.
    pub position: u64,
    /// The last entry read.
    pub entry: EntryId,
}

impl Cursor {
    /// Before the first entry: reading from here is the snapshot.
    #[must_use]
    pub const fn start() -> Self {
        Self(None)
    }

    /// After the entry at this place.
    #[must_use]
    pub const fn after(place: CursorPlace) -> Self {
        Self(Some(place))
    }

    /// The place it names; `None` at the start.
    #[must_use]
    pub const fn place(&self) -> Option<&CursorPlace> {
        self.0.as_ref()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = &self.0 else { return Ok(()) };
        let mut bytes = [0; 40];
        bytes[..16].copy_from_slice(&place.incarnation);
        bytes[16..24].copy_from_slice(&place.position.to_be_bytes());
        bytes[24..].copy_from_slice(place.entry.as_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl std::str::FromStr for Cursor {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Ok(Self::start());
        }
        let bytes: [u8; 40] =
            decode_array(text).ok_or(Invalid::new("cursor", "it is not 40 bytes of base64url"))?;
        let (mut incarnation, mut position, mut entry) = ([0; 16], [0; 8], [0; 16]);
        incarnation.copy_from_slice(&bytes[..16]);
        position.copy_from_slice(&bytes[16..24]);
        entry.copy_from_slice(&bytes[24..]);
        Ok(Self::after(CursorPlace {
            incarnation,
            position: u64::from_be_bytes(position),
            entry: EntryId(entry),
        }))
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a reader of the log gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationBatch {
    /// The next entries; none if there is nothing new.
    Entries {
        /// The entries, in the log's order.
        entries: Vec<LogEntry>,
        /// Where to go on.
        next: Cursor,
        /// Whether more are waiting.
        more: bool,
        /// The newest bound that the log ever allotted.
        newest_bound: Epoch,
    },
    /// The cursor's place is gone: the reader may have missed entries, and starts again from
    /// [`Cursor::start`].
    Gap,
}

/// How a reader learns that the log grew.
pub enum Wakeups {
    /// An item whenever the log may have grown, and one too many now and then: a reader may read
    /// first and listen after. It does not end while the store lives.
    Stream(Pin<Box<dyn Stream<Item = ()> + Send>>),
    /// The store cannot tell: ask at this interval.
    Poll(Duration),
}

impl fmt::Debug for Wakeups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(_) => f.write_str("Stream"),
            Self::Poll(interval) => f.debug_tuple("Poll").field(interval).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_text() {
        let cursor = Cursor::after(CursorPlace {
            incarnation: [1; 16],
            position: u64::MAX - 1,
            entry: EntryId([3; 16]),
        });
        assert_eq!(cursor.to_string().len(), 54);
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        assert_eq!("".parse::<Cursor>().unwrap(), Cursor::start());
        assert!("junk".parse::<Cursor>().is_err());
    }

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
    fn entries_survive_their_body() {
        for event in [
            LogEvent::Heartbeat {},
            LogEvent::Revoked {
                target: Target::SubjectAtClient(
                    Subject::user("a").unwrap(),
                    ClientId::new("b").unwrap(),
                ),
                bound: Some(Epoch(7)),
            },
        ] {
            let entry = LogEntry {
                id: EntryId([9; 16]),
                event,
                at: UnixTime::from_millis(1),
                until: UnixTime::from_millis(2),
            };
            assert_eq!(LogEntry::from_body(&entry.to_body()).unwrap(), entry);
        }
    }
}
