//! Recognizing an access token: which format it has, and which grant it belongs to.

use std::sync::Arc;

use cloakroom_core::TokenSecret;
use cloakroom_core::format::{FormatError, Located, TokenFormat};

use crate::error::TokenError;
use crate::issuer::ownership::ForeignKeys;
use crate::write::Keys;

/// Asks each token format in turn.
pub(crate) struct TokenLocator {
    /// In the order in which they are tried.
    pub(crate) formats: Vec<Arc<dyn TokenFormat>>,
    pub(crate) keys: Keys,
    pub(crate) foreign_keys: Arc<ForeignKeys>,
}

impl TokenLocator {
    /// Recognizes a presented access token; `None` if it is not one of ours.
    ///
    /// # Errors
    ///
    /// If that cannot be decided: no signing keys can be loaded, or another node has the handle
    /// secret.
    pub(crate) async fn locate(
        &self,
        presented: &TokenSecret,
    ) -> Result<Option<Located>, TokenError> {
        match self.try_locate(presented) {
            // The keys in memory are too old to decide: load them and try again.
            Err(FormatError::KeysUnavailable(_)) => {
                Box::pin(self.keys.refresh()).await?;
                Ok(self.try_locate(presented)?)
            }
            Ok(None) => {
                self.foreign_keys.check(presented).await?;
                Ok(None)
            }
            other => Ok(other?),
        }
    }

    fn try_locate(&self, presented: &TokenSecret) -> Result<Option<Located>, FormatError> {
        for format in &self.formats {
            if let Some(located) = format.locate(presented)? {
                return Ok(Some(located));
            }
        }
        Ok(None)
    }
}
