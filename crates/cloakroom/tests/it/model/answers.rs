//! What the engine answers, in the words of the oracle.

use cloakroom::core::{Epoch, TokenSecret};
use cloakroom::{GrantRefusal, TokenError, TokenResponse};

use super::flight::Presented;
use super::oracle::{Answer, Verdict};

/// What the engine answered.
pub(super) enum Reply {
    Tokens(TokenResponse),
    Code(TokenSecret),
    Epoch(Epoch),
    Done(bool),
    Failed(TokenError),
}

/// What every run must have met, or its stories are dull.
pub(super) const SITUATIONS: [&str; 13] = [
    "access",
    "ancient reused",
    "barred",
    "code reused",
    "code spent at once",
    "dead",
    "lost race",
    "old reused",
    "outage",
    "previous reused",
    "refused",
    "retried",
    "slow tab",
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
        (Answer::Refused, ..) => "refused",
        (Answer::Granted, _, 0) if presented.moved || !rotates => "access",
        (Answer::Granted, false, 0) => "lost race",
        (Answer::Granted, ..) => "retried",
        (Answer::Spent, true, _) => "code spent at once",
        (Answer::Spent, false, _) => "slow tab",
        (Answer::Reused, true, _) => "code reused",
        (Answer::Reused, false, 0 | 1) => "previous reused",
        (Answer::Reused, false, 2..=9) => "old reused",
        (Answer::Reused, false, _) => "ancient reused",
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
