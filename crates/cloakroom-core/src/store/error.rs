//! What can go wrong with a store.

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A store could not do what was asked. Never an answer about a token: an outage is not "inactive".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be reached, or did not answer. The same call may succeed later; whether it
    /// took effect is not known.
    #[error("the store is unavailable: {context}")]
    Unavailable {
        /// What was tried.
        context: &'static str,
        /// The driver's own error.
        #[source]
        source: Source,
    },
    /// The store holds something that no version of this program wrote.
    #[error("the store holds {what} that cannot be read")]
    Corrupt {
        /// What is damaged.
        what: &'static str,
        /// How it shows.
        #[source]
        source: Source,
    },
    /// The caller broke the contract: a mistake in a program, not in its input.
    #[error("misuse of the store: {0}")]
    Misuse(&'static str),
}

impl StoreError {
    /// The store cannot be reached.
    pub fn unavailable(context: &'static str, source: impl Into<Source>) -> Self {
        Self::Unavailable { context, source: source.into() }
    }

    /// The store holds something unreadable.
    pub fn corrupt(what: &'static str, source: impl Into<Source>) -> Self {
        Self::Corrupt { what, source: source.into() }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
