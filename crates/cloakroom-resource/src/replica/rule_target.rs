//! What a rule is about.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::revocation::Target;
use cloakroom_core::{ClientId, GrantId, Jti, Kid, Subject, TokenDigest};

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
                return (Self::Handle(*hash.as_bytes()), handle_jti(digest).map(Self::Jti));
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

/// The `jti` under which introspection shows the handle with this digest: the first half of it.
fn handle_jti(digest: &TokenDigest) -> Option<Jti> {
    Jti::new(URL_SAFE_NO_PAD.encode(&digest.as_bytes()[..16])).ok()
}

#[cfg(test)]
mod tests {
    use cloakroom_core::record::{GrantRecord, TokenRecord};
    use cloakroom_core::revocation::Epoch;
    use cloakroom_core::time::UnixTime;
    use cloakroom_core::{ActiveToken, Audience, Scope, TokenKind};

    use super::*;

    /// What introspection shows is made in another crate: the two must not drift apart.
    #[test]
    fn a_handle_is_met_by_the_jti_that_introspection_shows() {
        let (digest, end) = (TokenDigest::compute(TokenKind::Access, b"handle"), UnixTime::MAX);
        let grant = GrantRecord {
            id: GrantId::from_bytes([1; 16]),
            client: ClientId::new("app").unwrap(),
            subject: Subject::user("alice").unwrap(),
            scope: Scope::default(),
            audience: Audience::one("https://orders.example").unwrap(),
            confirmation: None,
            auth_time: None,
            created_at: end,
            epoch: Epoch::default(),
            username: None,
            act: None,
            authorization_details: None,
            session: None,
            claims: Default::default(),
            device: Default::default(),
            chain: None,
            expires_at: end,
            row_expires_at: end,
            refreshed_at: None,
            revoked_at: None,
            unknown: Default::default(),
        };
        let token = TokenRecord {
            digest,
            grant: grant.id,
            issued_at: end,
            expires_at: end,
            revoked_at: None,
            scope: grant.scope.clone(),
            audience: grant.audience.clone(),
            confirmation: None,
            unknown: Default::default(),
        };
        let shown = ActiveToken::from_records(&"https://as.example".into(), &grant, &token);
        let (_, second) = RuleTarget::of(&Target::Token { grant: grant.id, digest });
        assert_eq!(second, shown.jti.map(RuleTarget::Jti));
        assert!(second.is_some());
    }
}
