//! Why a command ends without success, and with which exit status.

use std::error::Error;
use std::fmt;

use cloakroom::core::store::StoreError;
use cloakroom::operator::{is_outage, with_causes};
use cloakroom::{BuildError, TokenError};

/// The exit status. `cloakroom --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// The command was refused, or a check failed.
    Refused = 1,
    /// The command line, a file or a secret is not valid.
    Usage = 2,
    /// The store is not available.
    Unavailable = 3,
}

/// An error for the person at the terminal. Its text holds no secret.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { status: Status::Usage, text: text.into() }
    }

    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self { status: Status::Refused, text: text.into() }
    }

    /// An error of the library: an outage of the store has a status of its own.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        let status = if is_outage(error) { Status::Unavailable } else { Status::Refused };
        Self { status, text: with_causes(error) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        Self::of(&error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::of(&error)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::of(&error)
    }
}

impl From<cloakroom::InvalidValue> for Failure {
    fn from(error: cloakroom::InvalidValue) -> Self {
        Self::usage(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_has_a_status_of_its_own() {
        let down = StoreError::unavailable("reading", "down");
        assert_eq!(Failure::from(TokenError::Store(down)).status, Status::Unavailable);
        let corrupt = StoreError::corrupt("a row", "junk");
        assert_eq!(Failure::from(corrupt).status, Status::Refused);
        assert_eq!(Failure::from(TokenError::Barred).status, Status::Refused);
    }
}
