//! When refresh tokens and the rows of grants expire.

use std::time::Duration;

use cloakroom_core::record::GrantRecord;
use cloakroom_core::time::UnixTime;

use crate::issuer::lifetimes::Lifetimes;

/// When a new refresh token expires. A token that never rotates has no idle time-out, because using
/// it leaves no trace in the row.
pub(crate) fn refresh_expiry(
    grant: &GrantRecord,
    rotates: bool,
    now: UnixTime,
    idle: Duration,
) -> UnixTime {
    if rotates { (now + idle).min(grant.expires_at) } else { grant.expires_at }
}

/// When the row of a grant is no longer needed. The chain may issue one more access token just
/// before it expires, or within a retry window after that.
pub(crate) fn row_expiry(
    grant: &GrantRecord,
    chain_expires_at: UnixTime,
    lifetimes: &Lifetimes,
    clock_skew: Duration,
) -> UnixTime {
    let tail = lifetimes.access_token + lifetimes.retry_window + clock_skew;
    (chain_expires_at + tail).min(grant.expires_at)
}
