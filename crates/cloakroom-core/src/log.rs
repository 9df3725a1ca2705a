//! The revocation log, which carries revocations to every reader.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_core::Stream;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{ClientId, GrantId, Invalid};
use crate::random::{Random, RandomError};
use crate::revocation::{Epoch, Target};
use crate::secret::{bytes, decode_array};
use crate::time::UnixTime;

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
        /// Whose token or grant it is, where the target does not say and the writer knew.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<ClientId>,
        /// Which grant it hangs off, where the target does not say and the writer knew.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grant: Option<GrantId>,
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
    use crate::ids::{Jti, Subject};

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
    fn entries_survive_their_body() {
        for event in [
            LogEvent::Heartbeat {},
            LogEvent::Revoked {
                target: Target::SubjectAtClient(
                    Subject::user("a").unwrap(),
                    ClientId::new("b").unwrap(),
                ),
                bound: Some(Epoch::new(7)),
                client: None,
                grant: None,
            },
            LogEvent::Revoked {
                target: Target::Jti(Jti::new("c").unwrap()),
                bound: None,
                client: Some(ClientId::new("d").unwrap()),
                grant: Some(GrantId::from_bytes([5; 16])),
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
