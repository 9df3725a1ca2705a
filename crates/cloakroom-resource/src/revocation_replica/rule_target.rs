//! What a rule denies.

use cloakroom_core::revocation::Target;
use cloakroom_core::{ClientId, GrantId, Jti, Kid, Subject};

/// The key of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RuleTarget {
    Grant(GrantId),
    /// The digest of a handle's digest.
    Handle([u8; 32]),
    Jti(Jti),
    Key(Kid),
    Subject(Subject),
    Client(ClientId),
    SubjectAtClient(Subject, ClientId),
    /// No revocation, but the mark that stands for rules of a client that had to make room.
    ClientOverflow(ClientId),
    /// The same, of a grant.
    GrantOverflow(GrantId),
}

/// The same, borrowed: nothing is allocated to look a rule up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RuleTargetRef<'a> {
    Grant(&'a GrantId),
    Handle(&'a [u8; 32]),
    Jti(&'a Jti),
    Key(&'a Kid),
    Subject(&'a Subject),
    Client(&'a ClientId),
    SubjectAtClient(&'a Subject, &'a ClientId),
    ClientOverflow(&'a ClientId),
    GrantOverflow(&'a GrantId),
}

impl RuleTarget {
    /// The names that a token may be met by, if it is the target's, or hangs off it: one, and two
    /// for a handle.
    pub(crate) fn of(target: &Target) -> (Self, Option<Self>) {
        let name = match target {
            Target::Token { digest, .. } => {
                let hash = cloakroom_jwt::handle_hash(digest);
                return (Self::Handle(*hash.as_bytes()), Some(Self::Jti(Jti::of_handle(digest))));
            }
            Target::Jti(jti) => Self::Jti(jti.clone()),
            Target::Grant(grant) => Self::Grant(*grant),
            Target::Subject(subject) => Self::Subject(subject.clone()),
            Target::Client(client) => Self::Client(client.clone()),
            Target::SubjectAtClient(subject, client) => {
                Self::SubjectAtClient(subject.clone(), client.clone())
            }
            Target::Key(kid) => Self::Key(kid.clone()),
        };
        (name, None)
    }

    /// Whether it is no revocation, but a mark.
    pub(super) const fn is_mark(&self) -> bool {
        matches!(self, Self::ClientOverflow(_) | Self::GrantOverflow(_))
    }

    pub(super) fn borrowed(&self) -> RuleTargetRef<'_> {
        match self {
            Self::Grant(grant) => RuleTargetRef::Grant(grant),
            Self::Handle(hash) => RuleTargetRef::Handle(hash),
            Self::Jti(jti) => RuleTargetRef::Jti(jti),
            Self::Key(kid) => RuleTargetRef::Key(kid),
            Self::Subject(subject) => RuleTargetRef::Subject(subject),
            Self::Client(client) => RuleTargetRef::Client(client),
            Self::SubjectAtClient(subject, client) => {
                RuleTargetRef::SubjectAtClient(subject, client)
            }
            Self::ClientOverflow(client) => RuleTargetRef::ClientOverflow(client),
            Self::GrantOverflow(grant) => RuleTargetRef::GrantOverflow(grant),
        }
    }
}

#[cfg(test)]
mod tests {
    use cloakroom_core::record::{GrantRecord, TokenRecord};
    use cloakroom_core::time::UnixTime;
    use cloakroom_core::{ActiveToken, Audience, TokenDigest, TokenKind};

    use super::*;

    #[test]
    fn a_handle_is_met_by_the_jti_that_introspection_shows() {
        let (digest, end) = (TokenDigest::compute(TokenKind::Access, b"handle"), UnixTime::MAX);
        let grant = GrantRecord::new(
            GrantId::from_bytes([1; 16]),
            ClientId::new("app").unwrap(),
            Subject::user("alice").unwrap(),
            Audience::one("https://orders.example").unwrap(),
            UnixTime::from_secs(1),
            end,
        );
        let token = TokenRecord::new(digest, &grant, grant.created_at, end);
        let shown = ActiveToken::from_records(&"https://as.example".into(), &grant, &token);
        let (_, second) = RuleTarget::of(&Target::Token { grant: grant.id, digest });
        assert_eq!(second, shown.jti.map(RuleTarget::Jti));
        assert!(second.is_some());
    }
}
