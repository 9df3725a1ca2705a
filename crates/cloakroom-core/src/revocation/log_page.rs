//! The revocation log on the wire: the response to `GET /revocations`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::InvalidValue;
use crate::revocation::Epoch;
use crate::revocation::log::{Cursor, LogEntry, RevocationBatch};

/// One response of the endpoint for the revocation log. Its JSON is either a batch of entries,
///
/// ```json
/// {"entries":[…],"next":"…","more":false,"newest_bound":1732096800000,"heartbeat":1000,"clock_skew":5000}
/// ```
///
/// or, if the place of the cursor is gone, `{"gap":true,"heartbeat":1000,"clock_skew":5000}`. Times are in
/// milliseconds.
///
/// ```
/// use std::time::Duration;
/// use cloakroom_core::revocation::{RevocationBatch, RevocationPage};
///
/// let page = RevocationPage {
///     batch: RevocationBatch::Gap,
///     heartbeat: Duration::from_secs(1),
///     clock_skew: Duration::from_secs(5),
/// };
/// assert_eq!(page.to_json(), br#"{"gap":true,"heartbeat":1000,"clock_skew":5000}"#);
/// assert_eq!(RevocationPage::from_json(&page.to_json())?, page);
/// # Ok::<(), cloakroom_core::InvalidValue>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "its JSON is a wire format with exactly these members"
)]
pub struct RevocationPage {
    /// The answer of the store.
    pub batch: RevocationBatch,
    /// How often the authorization server writes a heartbeat.
    pub heartbeat: Duration,
    /// The largest difference between two clocks.
    pub clock_skew: Duration,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(default, skip_serializing_if = "is_false")]
    gap: bool,
    #[serde(flatten)]
    batch: Option<WireBatch>,
    heartbeat: u64,
    clock_skew: u64,
}

#[derive(Serialize, Deserialize)]
struct WireBatch {
    entries: Vec<LogEntry>,
    next: Cursor,
    more: bool,
    newest_bound: Epoch,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl RevocationPage {
    /// The page as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let (gap, batch) = match self.batch.clone() {
            RevocationBatch::Gap => (true, None),
            RevocationBatch::Entries { entries, next, more, newest_bound } => {
                (false, Some(WireBatch { entries, next, more, newest_bound }))
            }
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (heartbeat, clock_skew) = (millis(self.heartbeat), millis(self.clock_skew));
        // Every map in a page has text keys, so writing it to memory cannot fail.
        serde_json::to_vec(&Wire { gap, batch, heartbeat, clock_skew }).unwrap_or_default()
    }

    /// Reads a page from JSON.
    ///
    /// # Errors
    ///
    /// If the JSON is not a page, or if it contains an event that this version does not know: a reader
    /// must not count a revocation as seen if it cannot read it.
    pub fn from_json(json: &[u8]) -> Result<Self, InvalidValue> {
        let refused = |why| InvalidValue { what: "page of the revocation log", why };
        let wire: Wire =
            serde_json::from_slice(json).map_err(|_| refused("it cannot be parsed"))?;
        let batch = match (wire.gap, wire.batch) {
            (true, None) => RevocationBatch::Gap,
            (false, Some(WireBatch { entries, next, more, newest_bound })) => {
                RevocationBatch::Entries { entries, next, more, newest_bound }
            }
            _ => return Err(refused("it is neither a batch nor a gap")),
        };
        Ok(Self {
            batch,
            heartbeat: Duration::from_millis(wire.heartbeat),
            clock_skew: Duration::from_millis(wire.clock_skew),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClientId, GrantId};
    use crate::revocation::Target;
    use crate::revocation::log::{CursorPlace, EntryId, LogEvent};
    use crate::time::UnixTime;

    fn page() -> RevocationPage {
        let entry = |id, event| LogEntry {
            id: EntryId::from_bytes([id; 16]),
            event,
            at: UnixTime::from_millis(1),
            until: UnixTime::from_millis(2),
        };
        let revoked = LogEvent::Revoked {
            target: Target::Grant(GrantId::from_bytes([7; 16])),
            bound: None,
            client: Some(ClientId::new("app").unwrap()),
            grant: None,
        };
        RevocationPage {
            batch: RevocationBatch::Entries {
                entries: vec![entry(1, revoked), entry(2, LogEvent::Heartbeat {})],
                next: Cursor::after(&CursorPlace {
                    incarnation: [9; 16],
                    position: 2,
                    entry: EntryId::from_bytes([2; 16]),
                    revocation: None,
                }),
                more: true,
                newest_bound: Epoch::new(4),
            },
            heartbeat: Duration::from_secs(1),
            clock_skew: Duration::ZERO,
        }
    }

    #[test]
    fn pages_survive_json() {
        let page = page();
        let json = page.to_json();
        assert_eq!(RevocationPage::from_json(&json).unwrap(), page);
        let text = String::from_utf8(json).unwrap();
        assert!(text.contains(r#""heartbeat":{},"at":1,"until":2"#), "{text}");
        assert!(!text.contains("gap") && !text.contains("null"), "{text}");
    }

    #[test]
    fn what_is_not_understood_is_no_page() {
        let text = String::from_utf8(page().to_json()).unwrap();
        for bad in [
            String::new(),
            "{}".to_owned(),
            "null".to_owned(),
            r#"{"heartbeat":1,"clock_skew":1}"#.to_owned(),
            text.replacen('{', r#"{"gap":true,"#, 1),
            text.replacen("revoked", "resurrected", 1),
            text.replacen(r#""grant":"#, r#""planet":"#, 1),
            text.replacen(r#""next":""#, r#""next":"?"#, 1),
            text.replacen(r#""newest_bound":4,"#, "", 1),
        ] {
            assert_ne!(bad, text);
            assert!(RevocationPage::from_json(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_gap_says_so_and_nothing_else() {
        let page = RevocationPage { batch: RevocationBatch::Gap, ..page() };
        let json = page.to_json();
        assert_eq!(json, br#"{"gap":true,"heartbeat":1000,"clock_skew":0}"#);
        assert_eq!(RevocationPage::from_json(&json).unwrap(), page);
    }
}
