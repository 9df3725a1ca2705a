//! What the engine answers, in the words of the oracle.

use cloakroom::core::TokenSecret;
use cloakroom::core::revocation::Epoch;
use cloakroom::{GrantRefusal, TokenError, TokenResponse};

use super::flight::Presented;
use super::oracle::{Answer, Session, Verdict};

/// What the engine answered.
pub(super) enum Reply {
    Tokens(TokenResponse),
    Code(TokenSecret),
    Epoch(Epoch),
    Done(bool),
    Failed(TokenError),
}

/// What every run must have met, or its stories are dull.
pub(super) const SITUATIONS: [&str; 20] = [
    "access",
    "ancient reused",
    "barred",
    "bound by a refresh",
    "bound, and another key",
    "caught up",
    "code reused",
    "code spent at once",
    "dead",
    "lost race",
    "lost to another key",
    "old reused",
    "outage",
    "previous reused",
    "refused",
    "retried",
    "retried with another key",
    "renewed certificate",
    "spent before it was bound",
    "stolen code replayed",
];

pub(super) fn situation(
    presented: &Presented,
    verdict: &Verdict,
    answer: Answer,
    rotates: bool,
) -> &'static str {
    let age = verdict.length - 1 - verdict.generation;
    match (answer, presented.code, age) {
        (Answer::Dead, ..) => "dead",
        (Answer::OtherKey, ..) => "bound, and another key",
        (Answer::Refused, ..) => "refused",
        (Answer::Granted, _, 0) if presented.moved || !rotates => "access",
        (Answer::Granted, false, 0) => "lost race",
        (Answer::Granted, _, 0 | 1) => "retried",
        (Answer::Granted, ..) => "caught up",
        (Answer::Spent, true, _) => "code spent at once",
        (Answer::Spent, false, _) => "leads nowhere",
        (Answer::Reused, true, _) => "code reused",
        (Answer::Reused, false, 0 | 1) => "previous reused",
        (Answer::Reused, false, 2..=9) => "old reused",
        (Answer::Reused, false, _) => "ancient reused",
    }
}

/// The same, as far as keys go.
pub(super) fn situation_of_keys(
    presented: &Presented,
    verdict: &Verdict,
    answer: Answer,
    session: &Session,
) -> Option<&'static str> {
    let Presented { generation, shown, code, moved, .. } = *presented;
    let public = session.terms.public;
    let own = &session.chain[generation];
    let bound = session.chain.last()?.needs;
    let age = verdict.length - 1 - generation;
    let before = generation.checked_sub(1).and_then(|before| session.chain[before].shown);
    match answer {
        Answer::Granted if !public => {
            (before.is_some() && before != shown).then_some("renewed certificate")
        }
        Answer::Granted => (moved && !code && own.needs.is_none() && shown.is_some())
            .then_some("bound by a refresh"),
        Answer::Reused if !public => None,
        Answer::Reused if age == 0 => Some("lost to another key"),
        Answer::Reused if code => {
            (bound.is_some() && bound != shown).then_some("stolen code replayed")
        }
        Answer::Reused if age == 1 && own.shown != shown => Some("retried with another key"),
        Answer::Reused => {
            (bound.is_some() && bound != shown).then_some("spent before it was bound")
        }
        _ => None,
    }
}

impl Reply {
    pub(super) fn answer(&self) -> Result<Answer, String> {
        let Self::Failed(error) = self else {
            return Ok(Answer::Granted);
        };
        Ok(match error {
            TokenError::InvalidGrant(GrantRefusal::Spent) => Answer::Spent,
            TokenError::InvalidGrant(GrantRefusal::Reused) => Answer::Reused,
            TokenError::InvalidGrant(GrantRefusal::Dead | GrantRefusal::Unknown) => Answer::Dead,
            TokenError::InvalidGrant(GrantRefusal::OtherKey) => Answer::OtherKey,
            TokenError::InvalidGrant(GrantRefusal::OtherClient | GrantRefusal::Verifier)
            | TokenError::InvalidScope(_) => Answer::Refused,
            _ => return Err(format!("a strange answer: {}", self.shown())),
        })
    }

    pub(super) fn shown(&self) -> String {
        match self {
            Self::Tokens(TokenResponse { refresh_token: Some(_), .. }) => "both tokens".into(),
            Self::Tokens(_) => "an access token".into(),
            Self::Code(_) => "a code".into(),
            Self::Epoch(_) => "an epoch".into(),
            Self::Done(true) => "done".into(),
            Self::Done(false) => "nothing to do".into(),
            Self::Failed(error) => format!("refused: {error}"),
        }
    }
}
