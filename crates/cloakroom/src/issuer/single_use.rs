//! Single-use items: nonces of your own pages, and other items that expire.

use std::time::Duration;

use cloakroom_core::RandomError;
use cloakroom_core::store::{SingleUse, SingleUseId, Spend, Spent, StoreError};
use cloakroom_core::time::UnixTime;

use crate::issuer::{Inner, Issuer};

/// A nonce was refused, or could not be checked. In both cases, refuse the request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NonceError {
    /// This issuer did not make the nonce, or made it for another purpose or context.
    #[error("the nonce is forged, or was made for another purpose or context")]
    Forged,
    /// The nonce has expired.
    #[error("the nonce has expired")]
    Expired,
    /// The nonce was used before.
    #[error("the nonce was used before")]
    Used,
    /// The store of single-use items failed. The nonce may have been spent.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Issuer {
    /// Makes a nonce, such as for a form of your own. It can be used once, for this purpose and
    /// within this time. Nothing is stored before it is used.
    ///
    /// The nonce is bound to `context`, which must be the same when it is used. Put into it what
    /// identifies the form, and the session or cookie of the browser.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use cloakroom::{Client, Issuer, NonceError};
    ///
    /// # let issuer = Issuer::dev().static_clients([Client::public("app")])?.build().await?;
    /// let nonce = issuer.nonce("consent", b"session 7", Duration::from_secs(600))?;
    ///
    /// // The form is submitted, and submitted again.
    /// issuer.use_nonce("consent", b"session 7", &nonce).await?;
    /// let again = issuer.use_nonce("consent", b"session 7", &nonce).await;
    /// assert!(matches!(again, Err(NonceError::Used)));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// If the source of random bytes fails.
    pub fn nonce(
        &self,
        purpose: &str,
        context: &[u8],
        life: Duration,
    ) -> Result<String, RandomError> {
        let Inner { handles, random, .. } = &*self.inner;
        handles.mint_nonce(purpose, context, self.inner.now() + life, random)
    }

    /// Uses a nonce. Check everything else first, because a nonce cannot be used again.
    ///
    /// # Errors
    ///
    /// [`NonceError`] if it was not made by [`Issuer::nonce`] with this purpose and context, has
    /// expired or was used before, or if the store fails.
    pub async fn use_nonce(
        &self,
        purpose: &str,
        context: &[u8],
        nonce: &str,
    ) -> Result<(), NonceError> {
        let nonce =
            self.inner.handles.parse_nonce(purpose, context, nonce).ok_or(NonceError::Forged)?;
        let now = self.inner.now();
        if nonce.expires_at <= now {
            return Err(NonceError::Expired);
        }
        match spend(&self.inner, nonce.id, nonce.expires_at, now).await? {
            Spent::First => Ok(()),
            Spent::Again => Err(NonceError::Used),
        }
    }

    /// Spends a single-use item that another party made, such as the `jti` of a proof. `expires_at`
    /// is the time from which the item is no longer accepted. It must be a property of the item,
    /// such as its `exp`, and must not be computed from the current time. For an expired item the
    /// answer is [`Spent::Again`].
    ///
    /// Check everything else first. Treat an error as a refusal, because the item may have been
    /// spent.
    ///
    /// # Errors
    ///
    /// If the store of single-use items fails, is full, or is missing.
    pub async fn spend_once(
        &self,
        item: SingleUse<'_>,
        expires_at: UnixTime,
    ) -> Result<Spent, StoreError> {
        let now = self.inner.now();
        if expires_at <= now {
            return Ok(Spent::Again);
        }
        spend(&self.inner, item.id(), expires_at, now).await
    }
}

pub(crate) async fn spend(
    inner: &Inner,
    id: SingleUseId,
    expires_at: UnixTime,
    now: UnixTime,
) -> Result<Spent, StoreError> {
    let missing = "there is no store of single-use items: call `single_use(…)` on the builder";
    let store = inner.single_use.as_ref().ok_or(StoreError::Misuse(missing))?;
    // A node whose clock lags accepts the item for that much longer.
    let until = expires_at + inner.clock_skew();
    store.spend(Spend { id, until, now }).await
}
