//! How recently, and how, the user must have signed in (RFC 9470).

use std::time::Duration;

use cloakroom_core::time::UnixTime;
use cloakroom_core::{ActiveToken, InvalidValue};

/// What a route demands of the sign-in behind a token.
#[derive(Debug, Clone, Default)]
pub(crate) struct StepUp {
    max_age: Option<Duration>,
    /// The best first; empty for any.
    acr_values: Vec<String>,
}

impl StepUp {
    pub(crate) fn new(max_age: Option<Duration>, acr_values: &str) -> Result<Self, InvalidValue> {
        let invalid = |why| InvalidValue { what: "sign-in requirement", why };
        // They stand in a quoted-string, in which these need no escapes.
        let plain = |c: char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
        if !acr_values.chars().all(plain) {
            return Err(invalid("an acr has characters other than printable ASCII, or a quote"));
        }
        let acr_values: Vec<String> =
            acr_values.split(' ').filter(|acr| !acr.is_empty()).map(str::to_owned).collect();
        if max_age.is_none() && acr_values.is_empty() {
            return Err(invalid("it demands nothing"));
        }
        Ok(Self { max_age, acr_values })
    }

    /// Whether the sign-in behind this token is good enough.
    pub(crate) fn is_met(&self, token: &ActiveToken, now: UnixTime) -> bool {
        let is_recent = self.max_age.is_none_or(|max_age| {
            token.auth_time.is_some_and(|auth_time| now.since(auth_time) <= max_age)
        });
        let is_strong = self.acr_values.is_empty()
            || token.acr.as_ref().is_some_and(|acr| self.acr_values.contains(acr));
        is_recent && is_strong
    }

    /// The rest of the challenge (RFC 9470 §3).
    pub(crate) fn challenge(&self) -> String {
        let mut text = ", error=\"insufficient_user_authentication\"".to_owned();
        text.push_str(", error_description=\"the user has to sign in again\"");
        if !self.acr_values.is_empty() {
            text.push_str(&format!(", acr_values=\"{}\"", self.acr_values.join(" ")));
        }
        if let Some(max_age) = self.max_age {
            text.push_str(&format!(", max_age=\"{}\"", max_age.as_secs()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_000);

    fn token(auth_time: Option<u64>, acr: Option<&str>) -> ActiveToken {
        let mut token = ActiveToken::default();
        token.auth_time = auth_time.map(UnixTime::from_secs);
        token.acr = acr.map(str::to_owned);
        token
    }

    #[test]
    fn a_sign_in_is_recent_enough_to_the_second() {
        let rule = StepUp::new(Some(Duration::from_secs(60)), "").unwrap();
        for (auth_time, met) in
            [(Some(940), true), (Some(939), false), (Some(1_001), true), (None, false)]
        {
            assert_eq!(rule.is_met(&token(auth_time, None), NOW), met, "{auth_time:?}");
        }
    }

    #[test]
    fn one_of_the_classes_is_needed_if_any_is_named() {
        let rule = StepUp::new(None, "phr  mfa").unwrap();
        for (acr, met) in [(Some("mfa"), true), (Some("phr"), true), (Some("MFA"), false)] {
            assert_eq!(rule.is_met(&token(None, acr), NOW), met, "{acr:?}");
        }
        assert!(!rule.is_met(&token(None, None), NOW));
        let both = StepUp::new(Some(Duration::from_secs(60)), "mfa").unwrap();
        assert!(!both.is_met(&token(Some(1), Some("mfa")), NOW));
        assert!(!both.is_met(&token(Some(1_000), Some("pwd")), NOW));
        assert!(both.is_met(&token(Some(1_000), Some("mfa")), NOW));
    }

    #[test]
    fn a_rule_that_breaks_the_challenge_or_demands_nothing_is_refused() {
        for bad in ["", " ", "a\"", "a\\", "a\r\nb", "\u{e9}"] {
            assert!(StepUp::new(None, bad).is_err(), "{bad:?}");
        }
    }
}
