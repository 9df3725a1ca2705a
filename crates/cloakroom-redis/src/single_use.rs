//! Single-use items: a key each, which the server removes at its end.

use async_trait::async_trait;
use cloakroom_core::store::{SingleUseStore, Spend, Spent, StoreError};

use crate::keys::is_done;
use crate::rows::time;
use crate::scripts::SPEND;
use crate::store::RedisStore;

#[async_trait]
impl SingleUseStore for RedisStore {
    async fn spend(&self, spend: Spend) -> Result<Spent, StoreError> {
        if spend.until <= spend.now {
            return Ok(Spent::Again);
        }
        let keys = [&self.0.layout.item(&spend.id)[..]];
        let args = [&time(spend.until)[..], &time(spend.now)];
        match is_done("spending an item", SPEND.run_once(&self.0.link, &keys, &args).await)? {
            true => Ok(Spent::First),
            false => Ok(Spent::Again),
        }
    }
}
