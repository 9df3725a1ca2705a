//! Events for an audit trail.

pub(crate) mod damage;
pub(crate) mod refusals;
pub(crate) mod sink;

use cloakroom_core::revocation::Target;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId, Subject, TokenKind};
use cloakroom_jwt::KeyEvent;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::error::{AuthenticationFailure, GrantRefusal};
use crate::flow::hook::Occasion;
use crate::revocation::store_regression::Regression;

/// An event for an audit trail. It contains no token, no digest of a token, and no secret.
///
/// An operation that changes the store is reported exactly once, even if its caller goes away: by
/// the event for its outcome, or by [`Event::Unconfirmed`]. Refusals are counted, so that an
/// attacker cannot fill a disk with them: see [`Event::GrantRefused`].
///
/// # JSON
///
/// `Serialize` writes one flat object. `event` is the [`name`](Event::name); the other members have
/// the names of the fields. Identifiers are strings, a subject is `u:` followed by a user or `c:`
/// followed by a client, and a time is a number of milliseconds since 1970. Later versions may add
/// events and members, and keep the existing names.
///
/// ```
/// use cloakroom::core::{ClientId, GrantId, Subject};
/// use cloakroom::core::revocation::Target;
/// use cloakroom::Event;
/// use serde_json::json;
///
/// let grant: GrantId = "AAAAAAAAAAAAAAAAAAAAAA".parse()?;
/// let client = ClientId::new("app")?;
///
/// let reuse = Event::ReuseDetected {
///     grant,
///     client: client.clone(),
///     credential: cloakroom::core::TokenKind::Refresh,
///     presented: 3,
///     current: 5,
///     revoked: true,
/// };
/// assert!(reuse.is_alarm());
/// assert_eq!(
///     serde_json::to_value(&reuse)?,
///     json!({
///         "event": "reuse_detected",
///         "grant": "AAAAAAAAAAAAAAAAAAAAAA",
///         "client": "app",
///         "credential": "refresh",
///         "presented": 3,
///         "current": 5,
///         "revoked": true,
///     })
/// );
///
/// let target = Target::SubjectAtClient(Subject::user("alice")?, client);
/// assert_eq!(
///     serde_json::to_value(&Event::Revoked { target })?,
///     json!({
///         "event": "revoked",
///         "target": { "kind": "subject_at_client", "subject": "u:alice", "client": "app" },
///     })
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A grant was made, with its first tokens or a code.
    Issued {
        /// The grant.
        grant: GrantId,
        /// Its client.
        client: ClientId,
        /// Its subject.
        subject: Subject,
    },
    /// A code was redeemed.
    Redeemed {
        /// Its grant.
        grant: GrantId,
        /// The client that redeemed it.
        client: ClientId,
    },
    /// A refresh token was redeemed.
    Refreshed {
        /// Its grant.
        grant: GrantId,
        /// The client that redeemed it.
        client: ClientId,
        /// The generation of the chain now. It is unchanged if the token does not rotate.
        generation: u32,
    },
    /// A spent refresh token was presented within its retry window, and the client got the current
    /// one. Investigate a grant with more of these events than the client has tabs or processes.
    Retried {
        /// Its grant.
        grant: GrantId,
        /// The client that presented it.
        client: ClientId,
        /// The generation of the presented token.
        presented: u32,
        /// The generation of the chain.
        generation: u32,
    },
    /// A spent code or refresh token was presented, and the grant is revoked (RFC 9700 §4.14.2).
    ReuseDetected {
        /// Its grant.
        grant: GrantId,
        /// The client that presented it.
        client: ClientId,
        /// Whether it was a code or a refresh token.
        credential: TokenKind,
        /// The generation of the presented credential.
        presented: u32,
        /// The generation of the chain.
        current: u32,
        /// Whether the store has confirmed that the grant is revoked. If not, call
        /// [`Issuer::revoke_grant`](crate::Issuer::revoke_grant).
        revoked: bool,
    },
    /// The store went back in time, and may have lost revocations, grants and keys. The revocations
    /// that this server knows stay in force and are written back to the store (each reported as
    /// [`Event::Revoked`]). See `docs/operations.md` for what you must do.
    StoreRegressed {
        /// How it was noticed.
        #[serde(flatten)]
        noticed: Regression,
    },
    /// A revocation is in force. The store may still be marking individual grants.
    Revoked {
        /// What was revoked. The JSON does not contain the digest of a token.
        #[serde(serialize_with = "write_target")]
        target: Target,
    },
    /// The store holds rows that cannot be read. Grants and sweeps are skipped: a request that
    /// needs one fails, and no other request does. An entry of the revocation log and a signing key
    /// cannot be skipped; each is reported only once while it cannot be read. See
    /// `docs/operations.md`.
    CorruptRow {
        /// The grant of the row; `None` for other rows.
        grant: Option<GrantId>,
        /// The number of rows.
        count: u64,
    },
    /// The state of a signing key changed.
    Key(KeyEvent),
    /// An operation began to write, and its outcome is unknown: the store failed, a part of the
    /// program panicked, or the runtime ended. It may have taken effect.
    Unconfirmed {
        /// The operation.
        operation: Operation,
        /// What it was meant to change, if that is a single thing.
        #[serde(serialize_with = "write_optional_target")]
        target: Option<Target>,
    },
    /// A client failed to authenticate. Counted in the same way as [`Event::GrantRefused`].
    AuthenticationFailed {
        /// The client, if it is known; `None` for all unknown clients together.
        client: Option<ClientId>,
        /// The identifier that the newest of these callers claimed: at most 64 characters, with
        /// everything but printable ASCII escaped. A caller can write anything here, even a secret
        /// by mistake.
        claimed: Option<String>,
        /// The authentication method: `client_secret_basic`, `client_secret_post`, `none`, or
        /// `other`.
        method: &'static str,
        /// What was wrong.
        reason: AuthenticationFailure,
        /// The number of refusals.
        count: u64,
        /// The time of the first one.
        since: UnixTime,
    },
    /// A code or a refresh token was refused.
    ///
    /// The first refusal for a client, a kind of credential and a reason is reported at once. Later
    /// ones are counted, and reported as one event a minute. At most 1,024 counters name a client.
    /// Beyond that, and for unknown clients, refusals are counted together.
    /// [`Issuer::maintain`](crate::Issuer::maintain) reports the counts that are due; the rest is
    /// reported when the issuer is dropped.
    GrantRefused {
        /// The client that presented it; `None` for several clients.
        client: Option<ClientId>,
        /// Whether it was presented as a code or as a refresh token.
        credential: TokenKind,
        /// Why it was refused.
        reason: GrantRefusal,
        /// The number of refusals.
        count: u64,
        /// The time of the first one.
        since: UnixTime,
    },
    /// Your [`TokenHook`](crate::TokenHook) or [`ExtensionGrant`](crate::ExtensionGrant) refused a token for
    /// which neither a code nor a refresh token was presented (for those, see
    /// [`GrantRefusal::Denied`]). Counted in the same way as [`Event::GrantRefused`]: for each client and
    /// occasion. The trace has the reason that the hook gave.
    TokenRefused {
        /// The client that was to get it; `None` for several clients.
        client: Option<ClientId>,
        /// Why it was to be made.
        occasion: Occasion,
        /// The number of refusals.
        count: u64,
        /// The time of the first one.
        since: UnixTime,
    },
}

/// An operation that writes, in [`Event::Unconfirmed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Operation {
    /// [`Issuer::issue`](crate::Issuer::issue) or [`Issuer::authorize`](crate::Issuer::authorize).
    Issue,
    /// [`Issuer::adopt`](crate::Issuer::adopt).
    Adopt,
    /// [`Issuer::redeem`](crate::Issuer::redeem).
    Redeem,
    /// [`Issuer::refresh`](crate::Issuer::refresh).
    Refresh,
    /// [`Issuer::revoke`](crate::Issuer::revoke) and the other methods that revoke.
    Revoke,
    /// [`Issuer::rotate_keys`](crate::Issuer::rotate_keys).
    RotateKeys,
    /// [`Issuer::retire_key`](crate::Issuer::retire_key).
    RetireKey,
    /// [`Issuer::compromise_key`](crate::Issuer::compromise_key).
    CompromiseKey,
    /// [`Issuer::import_key`](crate::Issuer::import_key).
    ImportKey,
    /// [`Issuer::reseal_keys`](crate::Issuer::reseal_keys).
    ResealKeys,
}

impl Event {
    /// The name of the event in the JSON, such as `reuse_detected`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Issued { .. } => "issued",
            Self::Redeemed { .. } => "redeemed",
            Self::Refreshed { .. } => "refreshed",
            Self::Retried { .. } => "retried",
            Self::ReuseDetected { .. } => "reuse_detected",
            Self::StoreRegressed { .. } => "store_regressed",
            Self::Revoked { .. } => "revoked",
            Self::CorruptRow { .. } => "corrupt_row",
            Self::Key(_) => "key",
            Self::Unconfirmed { .. } => "unconfirmed",
            Self::AuthenticationFailed { .. } => "authentication_failed",
            Self::GrantRefused { .. } => "grant_refused",
            Self::TokenRefused { .. } => "token_refused",
        }
    }

    /// Whether somebody should act on it now: [`ReuseDetected`](Event::ReuseDetected),
    /// [`StoreRegressed`](Event::StoreRegressed), [`CorruptRow`](Event::CorruptRow),
    /// [`Unconfirmed`](Event::Unconfirmed), and a compromised key. Alarms are warnings in
    /// `tracing`.
    #[must_use]
    pub const fn is_alarm(&self) -> bool {
        matches!(
            self,
            Self::ReuseDetected { .. }
                | Self::StoreRegressed { .. }
                | Self::CorruptRow { .. }
                | Self::Unconfirmed { .. }
                | Self::Key(KeyEvent::Compromised { .. })
        )
    }

    fn trace(&self) {
        match self {
            Self::Issued { grant, client, subject } => {
                tracing::info!(%grant, %client, ?subject, "a grant was issued");
            }
            Self::Redeemed { grant, client } => {
                tracing::info!(%grant, %client, "a code was redeemed");
            }
            Self::Refreshed { grant, client, generation } => {
                tracing::info!(%grant, %client, generation, "a refresh token was redeemed");
            }
            Self::Retried { grant, client, presented, generation } => {
                tracing::info!(%grant, %client, presented, generation, "a refresh was retried");
            }
            Self::ReuseDetected { grant, client, credential, presented, current, revoked } => {
                let what = match (credential, revoked) {
                    (TokenKind::Code, true) => "a spent code was presented; its grant is revoked",
                    (TokenKind::Code, false) => {
                        "a spent code was presented; revoke its grant, which may be live"
                    }
                    (_, true) => "a spent refresh token was presented; its grant is revoked",
                    (_, false) => {
                        "a spent refresh token was presented; revoke its grant, which may be live"
                    }
                };
                tracing::warn!(%grant, %client, presented, current, "{what}");
            }
            Self::StoreRegressed { noticed } => {
                tracing::warn!(?noticed, "the store has gone back in time");
            }
            Self::CorruptRow { grant, count } => {
                let grant = grant.as_ref().map(tracing::field::display);
                tracing::warn!(grant, count, "the store holds rows that cannot be read");
            }
            Self::Revoked { target } => tracing::info!(?target, "a revocation is in force"),
            // The key manager traces every other key event.
            Self::Key(KeyEvent::Compromised { kid }) => {
                tracing::warn!(%kid, "a signing key was marked as compromised");
            }
            Self::Key(_) => {}
            Self::Unconfirmed { operation, target } => tracing::warn!(
                ?operation,
                ?target,
                "an operation began to write, and its outcome is unknown"
            ),
            Self::AuthenticationFailed { client, claimed, method, reason, count, .. } => {
                let client = client.as_ref().map(ClientId::as_str);
                tracing::info!(
                    client,
                    claimed,
                    method,
                    %reason,
                    count,
                    "client authentication failed"
                );
            }
            Self::GrantRefused { client, credential, reason, count, .. } => {
                let client = client.as_ref().map(ClientId::as_str);
                let what = match credential {
                    TokenKind::Code => "a code was refused",
                    _ => "a refresh token was refused",
                };
                tracing::info!(client, %reason, count, "{what}");
            }
            Self::TokenRefused { client, occasion, count, .. } => {
                let client = client.as_ref().map(ClientId::as_str);
                tracing::info!(client, ?occasion, count, "the app refused a token");
            }
        }
    }
}

fn write_target<S: Serializer>(target: &Target, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    match target {
        Target::Token { grant, .. } => {
            map.serialize_entry("kind", "token")?;
            map.serialize_entry("grant", grant)?;
        }
        Target::Jti(jti) => {
            map.serialize_entry("kind", "jti")?;
            map.serialize_entry("jti", jti)?;
        }
        Target::Grant(grant) => {
            map.serialize_entry("kind", "grant")?;
            map.serialize_entry("grant", grant)?;
        }
        Target::Subject(subject) => {
            map.serialize_entry("kind", "subject")?;
            map.serialize_entry("subject", subject)?;
        }
        Target::Client(client) => {
            map.serialize_entry("kind", "client")?;
            map.serialize_entry("client", client)?;
        }
        Target::SubjectAtClient(subject, client) => {
            map.serialize_entry("kind", "subject_at_client")?;
            map.serialize_entry("subject", subject)?;
            map.serialize_entry("client", client)?;
        }
        Target::Key(kid) => {
            map.serialize_entry("kind", "key")?;
            map.serialize_entry("kid", kid)?;
        }
    }
    map.end()
}

fn write_optional_target<S: Serializer>(
    target: &Option<Target>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match target {
        Some(target) => write_target(target, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_every_day_is_no_alarm() {
        let (grant, client) = (GrantId::from_bytes([1; 16]), ClientId::new("app").unwrap());
        let subject = Subject::user("alice").unwrap();
        for event in [
            Event::Redeemed { grant, client: client.clone() },
            Event::Revoked { target: Target::Subject(subject.clone()) },
            Event::Issued { grant, client, subject },
        ] {
            assert!(!event.is_alarm(), "{event:?}");
        }
    }
}
