//! Revoking again what a restored store has forgotten, from an audit trail.

use cloakroom_core::revocation::Target;
use cloakroom_core::{ClientId, GrantId, InvalidValue, Jti, Kid, Subject};
use serde_json::Value;

use crate::error::TokenError;
use crate::issuer::Issuer;
use crate::revocation::retention::TargetDetails;
use crate::revocation::revoke_now;

/// A revocation that an audit trail contains.
///
/// ```
/// use cloakroom::operator::AuditedRevocation;
///
/// // A line that an operator writes, or an event as JSON (see `Event`).
/// let by_hand = AuditedRevocation::parse("subject u:alice")?;
/// let event = AuditedRevocation::parse(
///     r#"{"event":"revoked","target":{"kind":"subject","subject":"u:alice"}}"#,
/// )?;
/// assert_eq!(by_hand, event);
/// assert!(event.is_some());
///
/// // Events that revoke nothing, empty lines and comments are skipped.
/// assert_eq!(AuditedRevocation::parse(r#"{"event":"issued","grant":"x"}"#)?, None);
/// assert_eq!(AuditedRevocation::parse("# of last night")?, None);
/// # Ok::<(), cloakroom::InvalidValue>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuditedRevocation(Target);

impl AuditedRevocation {
    /// Reads a line of an audit trail. `None` if there is nothing to revoke in it.
    ///
    /// A line is an [`Event`](crate::Event) as JSON, in which unknown members are ignored, or one
    /// of
    ///
    /// ```text
    /// subject u:USER              a user; `c:CLIENT` is a client that acts for itself
    /// subject USER                the same user
    /// client CLIENT
    /// subject-at-client USER CLIENT
    /// grant GRANT
    /// jti JTI
    /// key KID
    /// ```
    ///
    /// The event of a single access token names its grant alone, so the grant is revoked.
    ///
    /// # Errors
    ///
    /// If the line is neither, or an identifier in it is not valid.
    pub fn parse(line: &str) -> Result<Option<Self>, InvalidValue> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        if line.starts_with('{') {
            let event: Value = serde_json::from_str(line).map_err(|_| invalid("it is not JSON"))?;
            return of_event(&event).map(|target| target.map(Self));
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let target = match words[..] {
            ["subject", subject] => Target::Subject(self::subject(subject)?),
            ["client", client] => Target::Client(ClientId::new(client)?),
            ["subject-at-client", subject, client] => {
                Target::SubjectAtClient(self::subject(subject)?, ClientId::new(client)?)
            }
            ["grant", grant] => Target::Grant(grant.parse()?),
            ["jti", jti] => Target::Jti(Jti::new(jti)?),
            ["key", kid] => Target::Key(Kid::new(kid)?),
            _ => {
                return Err(invalid(
                    "it is neither an event nor `subject`, `client`, … and a name",
                ));
            }
        };
        Ok(Some(Self(target)))
    }

    /// What it revokes.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.0
    }
}

fn invalid(why: &'static str) -> InvalidValue {
    InvalidValue::new("line of an audit trail", why)
}

/// A subject as events spell it, or the name of a user.
fn subject(text: &str) -> Result<Subject, InvalidValue> {
    match text.starts_with("u:") || text.starts_with("c:") {
        true => Subject::from_key(text),
        false => Subject::user(text),
    }
}

fn of_event(event: &Value) -> Result<Option<Target>, InvalidValue> {
    let text =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let needed = |value: &Value, name: &str| {
        text(value, name).ok_or_else(|| invalid("a member of the event is missing"))
    };
    let grant = |value: &Value| needed(value, "grant")?.parse::<GrantId>().map(Target::Grant);
    let name = needed(event, "event")?;
    Ok(Some(match name.as_str() {
        "reuse_detected" => grant(event)?,
        // A credential from the future ends its grant, and no other event says so.
        "store_regressed" if text(event, "noticed").as_deref() == Some("credential") => {
            grant(event)?
        }
        "key" if text(event, "change").as_deref() == Some("compromised") => {
            Target::Key(Kid::new(needed(event, "kid")?)?)
        }
        "revoked" | "unconfirmed" => {
            let Some(target) = event.get("target").filter(|target| target.is_object()) else {
                return Ok(None);
            };
            match needed(target, "kind")?.as_str() {
                // A grant whose issue or refresh is unconfirmed was not revoked.
                "grant" | "token" if name == "unconfirmed" && !is_revocation(event) => {
                    return Ok(None);
                }
                "grant" | "token" => grant(target)?,
                "jti" => Target::Jti(Jti::new(needed(target, "jti")?)?),
                "subject" => Target::Subject(Subject::from_key(&needed(target, "subject")?)?),
                "client" => Target::Client(ClientId::new(needed(target, "client")?)?),
                "subject_at_client" => Target::SubjectAtClient(
                    Subject::from_key(&needed(target, "subject")?)?,
                    ClientId::new(needed(target, "client")?)?,
                ),
                "key" => Target::Key(Kid::new(needed(target, "kid")?)?),
                _ => return Err(invalid("the kind of its target is unknown")),
            }
        }
        _ => return Ok(None),
    }))
}

fn is_revocation(event: &Value) -> bool {
    event.get("operation").and_then(Value::as_str) == Some("revoke")
}

impl Issuer {
    /// Revokes again what an audit trail says was revoked, after a restore of the store. A key is
    /// marked as compromised ([`Issuer::compromise_key`]).
    ///
    /// Logins since the first revocation end, too, because the store no longer knows which came
    /// before it. Repeating the call does no harm.
    ///
    /// # Errors
    ///
    /// As for the methods that revoke. The revocation may then not be in force.
    pub async fn repeat_revocation(
        &self,
        revocation: &AuditedRevocation,
    ) -> Result<(), TokenError> {
        match &revocation.0 {
            Target::Key(kid) => self.compromise_key(kid).await,
            target => revoke_now(&self.inner, target.clone(), TargetDetails::default()).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Event, Operation};
    use crate::revocation::store_regression::Regression;
    use cloakroom_core::TokenKind;
    use cloakroom_jwt::KeyEvent;

    fn parsed(line: &str) -> Option<Target> {
        AuditedRevocation::parse(line).unwrap().map(|revocation| revocation.0)
    }

    /// What the events of this version contain is read again, whatever they revoke.
    #[test]
    fn an_event_is_read_as_what_it_revoked() {
        let (client, grant) = (ClientId::new("app").unwrap(), GrantId::from_bytes([7; 16]));
        let subject = Subject::user("alice").unwrap();
        let kid = Kid::new("k1").unwrap();
        for target in [
            Target::Grant(grant),
            Target::Jti(Jti::new("j1").unwrap()),
            Target::Subject(subject.clone()),
            Target::Subject(Subject::client("robot").unwrap()),
            Target::Client(client.clone()),
            Target::SubjectAtClient(subject, client.clone()),
            Target::Key(kid.clone()),
        ] {
            let event = Event::Revoked { target: target.clone() };
            assert_eq!(parsed(&serde_json::to_string(&event).unwrap()), Some(target.clone()));
            let operation = Operation::Revoke;
            let event = Event::Unconfirmed { operation, target: Some(target.clone()) };
            assert_eq!(parsed(&serde_json::to_string(&event).unwrap()), Some(target));
        }
        let digest = cloakroom_core::TokenDigest::from_bytes([1; 32]);
        let event = Event::Revoked { target: Target::Token { grant, digest } };
        assert_eq!(parsed(&serde_json::to_string(&event).unwrap()), Some(Target::Grant(grant)));
        let event = Event::ReuseDetected {
            grant,
            client: client.clone(),
            credential: TokenKind::Refresh,
            presented: 1,
            current: 2,
            revoked: false,
        };
        assert_eq!(parsed(&serde_json::to_string(&event).unwrap()), Some(Target::Grant(grant)));
        let (presented, current, revoked) = (2, 1, true);
        let noticed =
            Regression::Credential { grant, client: client.clone(), presented, current, revoked };
        let event = Event::StoreRegressed { noticed };
        assert_eq!(parsed(&serde_json::to_string(&event).unwrap()), Some(Target::Grant(grant)));
        let event = Event::Key(KeyEvent::Compromised { kid: kid.clone() });
        assert_eq!(parsed(&serde_json::to_string(&event).unwrap()), Some(Target::Key(kid.clone())));
        for event in [
            Event::StoreRegressed { noticed: Regression::Key { kid: kid.clone() } },
            Event::Key(KeyEvent::Published { kid }),
            Event::Redeemed { grant, client },
            Event::Unconfirmed {
                operation: Operation::Refresh,
                target: Some(Target::Grant(grant)),
            },
            Event::Unconfirmed { operation: Operation::RotateKeys, target: None },
        ] {
            assert_eq!(parsed(&serde_json::to_string(&event).unwrap()), None, "{event:?}");
        }
    }

    #[test]
    fn a_line_by_hand_is_read_and_anything_else_refused() {
        assert_eq!(parsed("subject alice"), parsed("subject u:alice"));
        assert_ne!(parsed("subject c:alice"), parsed("subject u:alice"));
        assert_eq!(parsed("  "), None);
        for bad in ["alice", "subject", "grant x", "{", r#"{"event":"revoked","target":{}}"#] {
            assert!(AuditedRevocation::parse(bad).is_err(), "{bad}");
        }
    }
}
