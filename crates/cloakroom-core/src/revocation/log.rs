//! The revocation log, which delivers revocations to every reader.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_core::Stream;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{ClientId, GrantId, InvalidValue};
use crate::random::{Random, RandomError};
use crate::revocation::{Epoch, Target};
use crate::secret::bytes;
use crate::text::from_text;
use crate::time::UnixTime;

/// One entry of the revocation log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::exhaustive_structs,
    reason = "part of the store contract: stores build it, and callers handle all of it"
)]
pub struct LogEntry {
    /// Its random identifier.
    pub id: EntryId,
    /// The event.
    #[serde(flatten)]
    pub event: LogEvent,
    /// When it was written, by the writer's clock.
    pub at: UnixTime,
    /// When it ends. It may be trimmed after that.
    pub until: UnixTime,
}

/// The event that an entry of the log records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogEvent {
    /// Something was revoked.
    Revoked {
        /// What was revoked.
        target: Target,
        /// The bound that the store allotted, if the target has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bound: Option<Epoch>,
        /// The client of the token or grant, if the target does not name it and the writer knew it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<ClientId>,
        /// The grant of the target, if the target does not name it and the writer knew it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grant: Option<GrantId>,
    },
    /// An entry that shows readers that the log is still being written.
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

/// A reader's position in the log. Only the store that made a cursor can interpret it. A reader keeps
/// it and passes it back. Its text is base64url, and the text of [`Cursor::start`] is empty.
///
/// A store that numbers its entries can fill it with a [`CursorPlace`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Cursor(Option<Arc<[u8]>>);

impl Cursor {
    /// The largest size of a cursor, in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// Before the first entry. Reading from here returns the whole log.
    #[must_use]
    pub const fn start() -> Self {
        Self(None)
    }

    /// A cursor with content that the store chooses. No bytes mean the start.
    ///
    /// # Errors
    ///
    /// If there are more than [`Cursor::MAX_BYTES`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidValue> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(InvalidValue::new("cursor", "it is longer than 1,024 bytes"));
        }
        Ok(if bytes.is_empty() { Self::start() } else { Self(Some(bytes.into())) })
    }

    /// After the entry at this place.
    #[must_use]
    pub fn after(place: &CursorPlace) -> Self {
        Self(Some(place.to_bytes().into()))
    }

    /// The content that the store chose; no bytes at the start.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether it is before the first entry.
    #[must_use]
    pub const fn is_start(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.as_bytes()))
    }
}

impl std::str::FromStr for Cursor {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        // Checked before decoding, so that a long text does not make us allocate as much memory.
        if text.len() > Self::MAX_BYTES.div_ceil(3) * 4 {
            return Err(InvalidValue::new("cursor", "it is longer than 1,024 bytes"));
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| InvalidValue::new("cursor", "it is not base64url"))?;
        Self::from_bytes(&bytes)
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, str::parse)
    }
}

/// The content of a cursor for a store that numbers the entries of one log.
///
/// It also names the newest revocation that was read. Heartbeats are trimmed within minutes,
/// revocations only at their end. If the last entry was a heartbeat and is gone, the store
/// continues after that revocation and delivers the later entries again.
///
/// ```
/// use cloakroom_core::revocation::{Cursor, CursorPlace, EntryId};
///
/// let entry = EntryId::from_bytes([2; 16]);
/// let place = CursorPlace { incarnation: [1; 16], position: 7, entry, revocation: None };
/// assert_eq!(CursorPlace::of(&Cursor::after(&place)), Some(place));
/// assert_eq!(CursorPlace::of(&Cursor::start()), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the bytes of a cursor have a fixed layout")]
pub struct CursorPlace {
    /// The random incarnation of the log. A store that was restored or emptied has a different one.
    pub incarnation: [u8; 16],
    /// The number of the last entry read, from 1.
    pub position: u64,
    /// The last entry read.
    pub entry: EntryId,
    /// The number and the identifier of the newest entry read that is not a heartbeat; `None` if
    /// there was none.
    pub revocation: Option<(u64, EntryId)>,
}

impl CursorPlace {
    const SHORT: usize = 16 + 8 + 16;
    const LONG: usize = Self::SHORT + 8 + 16;

    /// The place that a cursor names. `None` at the start, or if the cursor has other content.
    #[must_use]
    pub fn of(cursor: &Cursor) -> Option<Self> {
        let mut rest = cursor.as_bytes();
        if rest.len() != Self::SHORT && rest.len() != Self::LONG {
            return None;
        }
        let incarnation = take(&mut rest)?;
        let (position, entry) = take_entry(&mut rest)?;
        let revocation = if rest.is_empty() { None } else { Some(take_entry(&mut rest)?) };
        Some(Self { incarnation, position, entry, revocation })
    }

    /// The place after `entry`, which is the next entry and has the number `position`.
    #[must_use]
    pub fn advanced(self, position: u64, entry: &LogEntry) -> Self {
        let revocation = match entry.event {
            LogEvent::Heartbeat {} => self.revocation,
            _ => Some((position, entry.id)),
        };
        Self { position, entry: entry.id, revocation, ..self }
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LONG);
        bytes.extend_from_slice(&self.incarnation);
        for (position, entry) in
            [Some((self.position, self.entry)), self.revocation].iter().flatten()
        {
            bytes.extend_from_slice(&position.to_be_bytes());
            bytes.extend_from_slice(entry.as_bytes());
        }
        bytes
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

fn take_entry(rest: &mut &[u8]) -> Option<(u64, EntryId)> {
    Some((u64::from_be_bytes(take(rest)?), EntryId(take(rest)?)))
}

/// The answer to a reader of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "part of the store contract: stores build it, and callers handle all of it"
)]
pub enum RevocationBatch {
    /// The next entries, if any.
    Entries {
        /// The entries, in the log's order.
        entries: Vec<LogEntry>,
        /// Where to read on.
        next: Cursor,
        /// Whether more are waiting.
        more: bool,
        /// The newest bound that the log ever allotted.
        newest_bound: Epoch,
    },
    /// The place of the cursor is gone. The reader may have missed entries, and starts again at
    /// [`Cursor::start`].
    Gap,
}

/// How a reader learns that the log has grown.
#[expect(
    clippy::exhaustive_enums,
    reason = "part of the store contract: stores build it, and callers handle all of it"
)]
pub enum LogNotifications {
    /// An item whenever the log may have grown; some items may be superfluous. A reader may read first
    /// and listen later. The stream does not end before the store is dropped.
    Stream(Pin<Box<dyn Stream<Item = ()> + Send>>),
    /// The store cannot notify readers. Read at this interval.
    Poll(Duration),
}

impl fmt::Debug for LogNotifications {
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

    fn place() -> CursorPlace {
        CursorPlace {
            incarnation: [1; 16],
            position: u64::MAX - 1,
            entry: EntryId([3; 16]),
            revocation: Some((7, EntryId([4; 16]))),
        }
    }

    #[test]
    fn cursors_survive_text() {
        for revocation in [None, place().revocation] {
            let place = CursorPlace { revocation, ..place() };
            let cursor = Cursor::after(&place);
            let text = cursor.to_string();
            assert_eq!(text.parse::<Cursor>().unwrap(), cursor);
            assert_eq!(CursorPlace::of(&cursor), Some(place));
        }
        assert_eq!("".parse::<Cursor>().unwrap(), Cursor::start());
        assert_eq!(Cursor::from_bytes(&[]).unwrap(), Cursor::start());
        for bad in ["?", "AA==", "A"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cursor_is_bounded() {
        let longest = Cursor::from_bytes(&[7; Cursor::MAX_BYTES]).unwrap();
        assert_eq!(longest.to_string().parse::<Cursor>().unwrap(), longest);
        assert!(Cursor::from_bytes(&[7; Cursor::MAX_BYTES + 1]).is_err());
        let text = "A".repeat(longest.to_string().len() + 1);
        assert!(text.parse::<Cursor>().is_err());
        // A long text is refused before it is decoded.
        for (length, why) in [(1368, "not base64url"), (1369, "longer"), (100_000, "longer")] {
            let refused = "?".repeat(length).parse::<Cursor>().unwrap_err();
            assert!(refused.why.contains(why), "{length}: {refused}");
        }
    }

    #[test]
    fn only_a_cursor_without_bytes_is_the_start() {
        assert!(Cursor::start().is_start());
        assert!(!Cursor::after(&place()).is_start());
    }

    #[test]
    fn only_a_place_is_read_as_one() {
        let bytes = Cursor::after(&place()).as_bytes().to_vec();
        for length in (1..bytes.len()).filter(|length| *length != CursorPlace::SHORT) {
            let cursor = Cursor::from_bytes(&bytes[..length]).unwrap();
            assert_eq!(CursorPlace::of(&cursor), None, "{length}");
        }
    }

    #[test]
    fn a_place_remembers_the_newest_revocation() {
        let entry = |id, event| LogEntry {
            id: EntryId([id; 16]),
            event,
            at: UnixTime::from_millis(1),
            until: UnixTime::from_millis(2),
        };
        let revoked = LogEvent::Revoked {
            target: Target::Jti(Jti::new("a").unwrap()),
            bound: None,
            client: None,
            grant: None,
        };
        let place = place().advanced(9, &entry(9, revoked));
        assert_eq!((place.incarnation, place.entry), ([1; 16], EntryId([9; 16])));
        assert_eq!((place.position, place.revocation), (9, Some((9, EntryId([9; 16])))));
        let place = place.advanced(10, &entry(10, LogEvent::Heartbeat {}));
        assert_eq!((place.position, place.revocation), (10, Some((9, EntryId([9; 16])))));
        assert_eq!(place.entry, EntryId([10; 16]));
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
