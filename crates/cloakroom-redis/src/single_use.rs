//! Single-use items: a key each, which the server removes at its end.

use async_trait::async_trait;
use cloakroom_core::store::{SingleUseStore, Spend, Spent, StoreError};
use cloakroom_core::time::UnixTime;
use redis::{Cmd, Value};

use crate::batches::Answer;
use crate::error::failed;
use crate::keys::is_done;
use crate::rows::time;
use crate::scripts::SPEND;
use crate::store::RedisStore;

const DURING: &str = "spending an item";

/// The latest time that a script's numbers hold exactly.
const LATEST: u64 = (1 << 53) - 1;

#[async_trait]
impl SingleUseStore for RedisStore {
    async fn spend(&self, spend: Spend) -> Result<Spent, StoreError> {
        if spend.until <= spend.now {
            return Ok(Spent::Again);
        }
        let key = self.0.layout.item(&spend.id);
        let (until, now) = (time(spend.until), time(spend.now));
        if let Some(answer) = self.0.link.send_timed(set_new(&key, &until, spend.until)).await {
            let Answer { value, time } = answer.map_err(|error| failed(DURING, error))?;
            // What ends by the server's clock is not held at all, and may have been spent before.
            if value == Value::Okay {
                let is_held = time < spend.until.as_millis();
                return Ok(if is_held { Spent::First } else { Spent::Again });
            }
        }
        // There is an item, which may be over for this node, or end earlier than this one.
        let answer = SPEND.run_once(&self.0.link, &[&key], &[&until, &now]).await;
        Ok(if is_done(DURING, answer)? { Spent::First } else { Spent::Again })
    }
}

/// Sets an item that is not there. With the server's time after it, that takes the server half as long as the script.
fn set_new(key: &[u8], until: &[u8; 8], end: UnixTime) -> Cmd {
    let mut command = Cmd::with_capacity(6, 128);
    command.arg("SET").arg(key).arg(&until[..]);
    command.arg("NX").arg("PXAT").arg(end.as_millis().min(LATEST));
    command
}
