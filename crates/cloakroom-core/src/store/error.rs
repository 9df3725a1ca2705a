//! Errors of stores.

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A store could not complete a call. This never says anything about a token: an outage does not
/// make a token inactive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be reached, or did not answer. The call may or may not have taken effect. The
    /// same call may succeed later.
    #[error("the store is unavailable: {context}")]
    Unavailable {
        /// What the store was doing.
        context: &'static str,
        /// The error of the driver.
        #[source]
        source: Source,
    },
    /// The store contains data that cannot be read.
    #[error("the store contains {what} that cannot be read")]
    Corrupt {
        /// What is damaged.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: Source,
    },
    /// The caller broke the contract. This is a bug in the program, not an error in its input.
    #[error("misuse of the store: {0}")]
    Misuse(&'static str),
}

impl StoreError {
    /// An error of a store that cannot be reached.
    pub fn unavailable(context: &'static str, source: impl Into<Source>) -> Self {
        Self::Unavailable { context, source: source.into() }
    }

    /// An error about data that cannot be read.
    pub fn corrupt(what: &'static str, source: impl Into<Source>) -> Self {
        Self::Corrupt { what, source: source.into() }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_alone_may_be_tried_again() {
        assert!(StoreError::unavailable("reading", "down").is_retryable());
        assert!(!StoreError::corrupt("a row", "junk").is_retryable());
        assert!(!StoreError::Misuse("twice").is_retryable());
    }
}
