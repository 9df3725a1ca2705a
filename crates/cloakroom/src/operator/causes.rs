//! What an error says to an operator.

use std::error::Error;

use cloakroom_core::store::StoreError;

use crate::error::TokenError;

/// An error with its causes, for a person: each cause once, after a colon.
///
/// ```
/// use cloakroom::core::store::StoreError;
/// use cloakroom::operator::with_causes;
///
/// let error = StoreError::unavailable("reading", "the connection was refused");
/// let text = "the store is unavailable: reading: the connection was refused";
/// assert_eq!(with_causes(&error), text);
/// ```
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Whether an error, or one that caused it, says that a store is not available: trying again may help.
#[must_use]
pub fn is_outage(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(store) = error.downcast_ref::<StoreError>() {
            return store.is_retryable();
        }
        // These errors stand for what caused them, so the chain of causes leaves it out.
        match error.downcast_ref() {
            Some(TokenError::Unavailable(_)) => return true,
            Some(TokenError::Store(store)) => return store.is_retryable(),
            _ => {}
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::BuildError;

    #[test]
    fn an_outage_is_told_from_a_refusal_however_deep_it_is() {
        let down = || StoreError::unavailable("reading", "down");
        let keys = cloakroom_jwt::KeyManagerError::Store(down());
        let outages: [&(dyn Error + 'static); 4] = [
            &down(),
            &TokenError::Store(down()),
            &BuildError::Store(down()),
            &BuildError::Keys(keys),
        ];
        assert!(outages.into_iter().all(is_outage), "{outages:?}");
        assert!(!is_outage(&StoreError::corrupt("a row", "junk")));
        assert!(!is_outage(&TokenError::Barred));
    }

    #[test]
    fn a_cause_that_its_error_names_is_told_once() {
        let error = BuildError::Store(StoreError::unavailable("reading", "down"));
        assert_eq!(with_causes(&error).matches("down").count(), 1);
    }
}
