//! How long tokens and grants live.

use std::time::Duration;

use cloakroom_core::keys::KeyPolicy;

use crate::client::Client;
use crate::client::registration::ClientLifetimes;
use crate::error::BuildError;
use crate::issuer::checks::refused;

/// How long tokens and grants live.
///
/// ```
/// use std::time::Duration;
/// use cloakroom::Lifetimes;
///
/// let lifetimes = Lifetimes::default().access_token(Duration::from_secs(300));
/// assert_eq!(lifetimes.code, Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lifetimes {
    /// The lifetime of an access token (10 minutes).
    pub access_token: Duration,
    /// The lifetime of an authorization code (60 seconds; at most 10 minutes, RFC 6749 §4.1.2).
    pub code: Duration,
    /// The lifetime of a refresh token that is not used (14 days).
    pub refresh_idle: Duration,
    /// The lifetime of a grant, however often it is refreshed (90 days).
    pub grant: Duration,
    /// The lifetime of a phantom JWT, which never outlives its handle (5 minutes, which is also the
    /// maximum).
    pub phantom_jwt: Duration,
    /// The longest lifetime of a foreign token that is taken over (1 hour). Revocations are
    /// remembered for at least as long. Do not lower it before the longer-lived tokens have ended.
    pub adopted_token: Duration,
    /// How long a spent refresh token still leads to the current one (30 seconds; at most 5 minutes).
    /// The clock skew is added. A client whose refresh tokens are of no use to a thief may have up to an
    /// hour: see [`ClientLifetimes::retry_window`].
    pub retry_window: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const DAY: u64 = 24 * 60 * MINUTE;
        Self {
            access_token: Duration::from_secs(10 * MINUTE),
            code: Duration::from_secs(MINUTE),
            refresh_idle: Duration::from_secs(14 * DAY),
            grant: Duration::from_secs(90 * DAY),
            phantom_jwt: Duration::from_secs(5 * MINUTE),
            adopted_token: Duration::from_secs(60 * MINUTE),
            retry_window: Duration::from_secs(30),
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
const TEN_YEARS: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

impl Lifetimes {
    /// Sets [`Lifetimes::access_token`](#structfield.access_token).
    #[must_use]
    pub const fn access_token(mut self, duration: Duration) -> Self {
        self.access_token = duration;
        self
    }

    /// Sets [`Lifetimes::code`](#structfield.code).
    #[must_use]
    pub const fn code(mut self, duration: Duration) -> Self {
        self.code = duration;
        self
    }

    /// Sets [`Lifetimes::refresh_idle`](#structfield.refresh_idle).
    #[must_use]
    pub const fn refresh_idle(mut self, duration: Duration) -> Self {
        self.refresh_idle = duration;
        self
    }

    /// Sets [`Lifetimes::grant`](#structfield.grant).
    #[must_use]
    pub const fn grant(mut self, duration: Duration) -> Self {
        self.grant = duration;
        self
    }

    /// Sets [`Lifetimes::phantom_jwt`](#structfield.phantom_jwt).
    #[must_use]
    pub const fn phantom_jwt(mut self, duration: Duration) -> Self {
        self.phantom_jwt = duration;
        self
    }

    /// Sets [`Lifetimes::adopted_token`](#structfield.adopted_token).
    #[must_use]
    pub const fn adopted_token(mut self, duration: Duration) -> Self {
        self.adopted_token = duration;
        self
    }

    /// Sets [`Lifetimes::retry_window`](#structfield.retry_window).
    #[must_use]
    pub const fn retry_window(mut self, duration: Duration) -> Self {
        self.retry_window = duration;
        self
    }

    /// The lifetimes of a client. They never exceed the issuer's, from which the ends of keys and
    /// rules are computed.
    pub(crate) fn of_client(&self, client: &Client) -> Self {
        let ClientLifetimes { access_token, refresh_idle, grant, .. } = client.lifetimes;
        let at_most = |own: Option<Duration>, most: Duration| own.map_or(most, |own| own.min(most));
        Self {
            access_token: at_most(access_token, self.access_token),
            refresh_idle: at_most(refresh_idle, self.refresh_idle),
            grant: at_most(grant, self.grant),
            ..*self
        }
    }

    /// The retry window of a token that this client spends; `bound` if the next token is bound to a key.
    ///
    /// Without authentication and without a key, whoever holds a spent token within its window has the
    /// session, so that such a client cannot have a longer window than the issuer's.
    pub(crate) fn retry_window_of(&self, client: &Client, bound: bool) -> Duration {
        let own = client.lifetimes.retry_window.unwrap_or(self.retry_window);
        if client.is_public() && !bound { own.min(self.retry_window) } else { own }
    }

    pub(crate) fn check(&self, keys: &KeyPolicy) -> Result<(), BuildError> {
        within("lifetimes.access_token", self.access_token, SECOND, keys.max_token_life).map_err(
            |_| {
                refused(
                    "lifetimes.access_token",
                    format!(
                        "{:?} is not between 1 s and key_policy.max_token_life ({:?}), for which \
                         signing keys are kept: shorten the life of tokens, or raise \
                         max_token_life and retention",
                        self.access_token, keys.max_token_life
                    ),
                )
            },
        )?;
        within("lifetimes.code", self.code, SECOND, Duration::from_secs(600))?;
        within("lifetimes.phantom_jwt", self.phantom_jwt, SECOND, Duration::from_secs(300))?;
        within(
            "lifetimes.retry_window",
            self.retry_window,
            Duration::ZERO,
            Duration::from_secs(300),
        )?;
        // A grant without an end, and its revocation, would have to be stored for ever.
        within("lifetimes.grant", self.grant, self.access_token.max(self.code), TEN_YEARS)?;
        within("lifetimes.adopted_token", self.adopted_token, SECOND, self.grant)?;
        within("lifetimes.refresh_idle", self.refresh_idle, SECOND, self.grant)
    }
}

fn within(
    setting: &'static str,
    found: Duration,
    least: Duration,
    most: Duration,
) -> Result<(), BuildError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(refused(setting, format!("{found:?} is not between {least:?} and {most:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_checked_against_each_other() {
        let (good, keys) = (Lifetimes::default(), KeyPolicy::default());
        good.check(&keys).unwrap();
        let day = Duration::from_secs(86_400);
        for (bad, setting) in [
            (Lifetimes { access_token: 2 * day, ..good }, "access_token"),
            (Lifetimes { access_token: Duration::ZERO, ..good }, "access_token"),
            (Lifetimes { code: day, ..good }, "code"),
            (Lifetimes { phantom_jwt: day, ..good }, "phantom_jwt"),
            (Lifetimes { retry_window: day, ..good }, "retry_window"),
            (Lifetimes { grant: Duration::MAX, ..good }, "grant"),
            (Lifetimes { refresh_idle: good.grant + SECOND, ..good }, "refresh_idle"),
        ] {
            assert!(bad.check(&keys).unwrap_err().to_string().contains(setting), "{setting}");
        }
    }

    #[test]
    fn each_bound_of_a_lifetime_is_within_it() {
        let (base, keys) = (Lifetimes::default(), KeyPolicy::default());
        let (minute, day) = (Duration::from_secs(60), Duration::from_secs(86_400));
        // A long grant, so that only the bound that is asked about is met.
        let good = Lifetimes { grant: 10 * 366 * day, ..base };
        type Set = fn(&mut Lifetimes, Duration);
        let bounds: [(&str, Duration, Duration, Set); 7] = [
            ("access_token", SECOND, keys.max_token_life, |of, to| of.access_token = to),
            ("code", SECOND, 10 * minute, |of, to| of.code = to),
            ("phantom_jwt", SECOND, 5 * minute, |of, to| of.phantom_jwt = to),
            ("retry_window", Duration::ZERO, 5 * minute, |of, to| of.retry_window = to),
            ("grant", good.refresh_idle, 10 * 366 * day, |of, to| of.grant = to),
            ("adopted_token", SECOND, good.grant, |of, to| of.adopted_token = to),
            ("refresh_idle", SECOND, good.grant, |of, to| of.refresh_idle = to),
        ];
        for (setting, least, most, set) in bounds {
            let refused = |to| {
                let mut lifetimes = good;
                set(&mut lifetimes, to);
                lifetimes.check(&keys).err().map(|error| error.to_string())
            };
            for bound in [least, most] {
                assert_eq!(refused(bound), None, "{setting}");
            }
            let millisecond = Duration::from_millis(1);
            let too_short = least.checked_sub(millisecond);
            for beyond in too_short.into_iter().chain([most + millisecond]) {
                assert!(refused(beyond).is_some(), "{setting}: {beyond:?}");
            }
        }
    }
}
