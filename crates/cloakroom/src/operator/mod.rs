//! What an operator asks, beside the requests of clients: why a token is inactive, what is known of a
//! grant, what is wrong with a store, and what to revoke again after a restore.
//!
//! The program `cloakroom` (package `cloakroom-cli`) is a thin layer over these calls, so your own
//! admin pages can do the same. Nothing here may be shown to a client: an answer says why a token is
//! refused, which an attacker must not learn.
//!
//! | question | call |
//! |---|---|
//! | What is this token, and why is it inactive? | [`Issuer::inspect_token`](crate::Issuer::inspect_token) |
//! | What is known of this grant? | [`Issuer::inspect_grant`](crate::Issuer::inspect_grant) |
//! | Which sessions does a user or a client have? | [`Issuer::list_sessions`](crate::Issuer::list_sessions) |
//! | What is wrong with this store? | [`IssuerBuilder::diagnose`](crate::IssuerBuilder::diagnose), [`scan_rows`], [`scan_revoked_grants`] |
//! | Is this error an outage, and what caused it? | [`is_outage`], [`with_causes`] |
//! | What must be revoked again after a restore? | [`AuditedRevocation`], [`Issuer::repeat_revocation`](crate::Issuer::repeat_revocation) |

mod audited;
mod causes;
mod diagnosis;
mod grants;
mod revoked;
mod rows;
mod tokens;

pub use audited::AuditedRevocation;
pub use causes::{is_outage, with_causes};
pub use diagnosis::{Check, Diagnosis, Finding, Outcome};
pub use grants::{ChainInspection, GrantInspection, GrantState, InspectedGrant, SessionPage};
pub use revoked::{RevokedScan, scan_revoked_grants};
pub use rows::{RowScan, scan_rows};
pub use tokens::{InactiveReason, PresentedToken, TokenInspection};

pub(crate) use diagnosis::Examined;
