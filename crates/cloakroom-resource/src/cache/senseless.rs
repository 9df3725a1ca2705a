//! Responses that cannot be parsed.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloakroom_core::time::ClockReading;

use super::TokenKey;
use crate::error::UnavailableError;

/// How long it is remembered.
const LIFE: Duration = Duration::from_secs(1);
/// How many are remembered.
const MAX_ANSWERS: usize = 1_000;

/// The tokens about which the authorization server has just given an answer that cannot be understood. For
/// one second, requests with such a token get the same outage, so that one token does not cause an
/// introspection for every request. The token counts neither as active nor as inactive.
#[derive(Default)]
pub(crate) struct SenselessAnswers(Mutex<HashMap<TokenKey, (ClockReading, UnavailableError)>>);

impl SenselessAnswers {
    pub(crate) fn get(&self, key: &TokenKey, now: ClockReading) -> Option<UnavailableError> {
        let answers = self.lock();
        let (at, error) = answers.get(key)?;
        (now.since(*at) < LIFE).then(|| error.clone())
    }

    /// Remembers an error, if it is an answer that cannot be understood and there is room.
    pub(crate) fn note(&self, key: TokenKey, now: ClockReading, error: &UnavailableError) {
        if !error.is_senseless_answer() {
            return;
        }
        let mut answers = self.lock();
        if answers.len() >= MAX_ANSWERS {
            answers.retain(|_, (at, _)| now.since(*at) < LIFE);
        }
        if answers.len() < MAX_ANSWERS {
            answers.insert(key, (now, error.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenKey, (ClockReading, UnavailableError)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SenselessAnswers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SenselessAnswers({})", self.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use cloakroom_core::time::UnixTime;
    use http::StatusCode;

    use super::*;
    use crate::HttpError;

    fn at(millis: u64) -> ClockReading {
        ClockReading::at(UnixTime::from_millis(millis), Duration::from_millis(millis))
    }

    #[test]
    fn only_answers_without_sense_are_remembered() {
        let status = |status| UnavailableError::Status(StatusCode::from_u16(status).unwrap());
        for (error, is_remembered) in [
            (UnavailableError::Malformed("x"), true),
            (UnavailableError::unreadable("x", "y"), true),
            (HttpError::TooLarge.into(), true),
            (status(201), true),
            (status(302), true),
            (status(400), true),
            (status(408), false),
            (status(429), false),
            (status(500), false),
            (status(503), false),
            (HttpError::failed("gone").into(), false),
            (UnavailableError::Credentials(StatusCode::UNAUTHORIZED), false),
            (UnavailableError::other("x"), false),
            (UnavailableError::Stale, false),
            (UnavailableError::Overloaded, false),
        ] {
            let (answers, key) = (SenselessAnswers::default(), TokenKey::of("a"));
            answers.note(key, at(5_000), &error);
            assert_eq!(answers.get(&key, at(5_999)).is_some(), is_remembered, "{error:?}");
            assert!(answers.get(&key, at(6_000)).is_none(), "{error:?}");
            assert!(answers.get(&TokenKey::of("b"), at(5_000)).is_none());
        }
    }

    #[test]
    fn they_are_few() {
        let answers = SenselessAnswers::default();
        let note = |number: usize, now| {
            let key = TokenKey::of(&number.to_string());
            answers.note(key, now, &UnavailableError::Malformed("x"));
            answers.get(&key, now).is_some()
        };
        assert!((0..MAX_ANSWERS).all(|number| note(number, at(5_000))));
        assert!(!note(MAX_ANSWERS, at(5_999)));
        assert!(note(MAX_ANSWERS, at(6_000)));
        assert_eq!(answers.lock().len(), 1);
    }
}
