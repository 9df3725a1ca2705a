//! What happened, for the app's audit trail.

use std::fmt;

use cloakroom_core::{ClientId, GrantId, Subject, Target};
use cloakroom_jwt::KeyEvent;

/// Something that an audit trail wants to know. No event holds a token.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A grant was made, with its first tokens or its code.
    Issued {
        /// The grant.
        grant: GrantId,
        /// To whom.
        client: ClientId,
        /// For whom.
        subject: Subject,
    },
    /// A code was redeemed.
    Redeemed {
        /// Its grant.
        grant: GrantId,
        /// By whom.
        client: ClientId,
    },
    /// A refresh token was redeemed.
    Refreshed {
        /// Its grant.
        grant: GrantId,
        /// By whom.
        client: ClientId,
        /// Where the chain stands now.
        generation: u32,
    },
    /// A refresh token was presented again within its retry window, and brought the same
    /// successor. Many of these for one grant are worth a look.
    Retried {
        /// Its grant.
        grant: GrantId,
        /// By whom.
        client: ClientId,
        /// Where the chain stands.
        generation: u32,
    },
    /// A spent code or refresh token was presented: the grant is revoked (RFC 9700 §4.14.2).
    ReuseDetected {
        /// Its grant.
        grant: GrantId,
        /// By whom.
        client: ClientId,
        /// What was presented.
        presented: u32,
        /// Where the chain stood.
        current: u32,
    },
    /// A genuine credential is newer than what the store knows: the store went back in time, and
    /// may have forgotten revocations. The grant is revoked.
    StoreRegressed {
        /// The grant that shows it.
        grant: GrantId,
        /// What was presented.
        presented: u32,
        /// Where the chain stood.
        current: u32,
    },
    /// Something was revoked.
    Revoked {
        /// What.
        target: Target,
    },
    /// The row of a grant cannot be read. Whatever hangs off it is refused; nothing else is.
    CorruptRow {
        /// The grant.
        grant: GrantId,
    },
    /// Housekeeping met rows that cannot be read, and passed them by.
    CorruptRows {
        /// How many.
        rows: u64,
    },
    /// A signing key changed its state.
    Key(KeyEvent),
}

/// Receives events, on the path of the request that causes them: hand them on, do not wait.
///
/// Every event goes to `tracing` as well, whatever the sink does.
pub trait EventSink: fmt::Debug + Send + Sync + 'static {
    /// Takes note.
    fn record(&self, event: &Event);
}

/// Keeps nothing: events only go to `tracing`.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSink;

impl EventSink for NoSink {
    fn record(&self, _: &Event) {}
}
