//! What a check works with.

use std::sync::Arc;

use cloakroom_core::{KeyStore, TokenStore};

use crate::Factory;
use crate::story::{Story, Told};

/// What a check works with: stores of its own, whose operations are told in its failure.
#[derive(Debug, Clone)]
pub struct Context {
    factory: Arc<dyn Factory>,
    story: Story,
}

impl Context {
    pub(crate) fn new(factory: Arc<dyn Factory>) -> Self {
        Self { factory, story: Story::default() }
    }

    /// A fresh, empty token store.
    pub(crate) async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(Told { story: self.story(), inner: self.factory.tokens().await })
    }

    /// A fresh, empty key store.
    pub(crate) async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(Told { story: self.story(), inner: self.factory.keys().await })
    }

    /// The most bytes of an identifier.
    pub(crate) fn longest_id(&self) -> usize {
        self.factory.longest_id()
    }

    pub(crate) fn story(&self) -> Story {
        self.story.clone()
    }
}

impl From<&Context> for Story {
    fn from(context: &Context) -> Self {
        context.story()
    }
}
