//! Single-use items: a key each, which the server removes at its end.

use async_trait::async_trait;
use cloakroom_core::store::{SingleUseStore, Spend, Spent, StoreError};
use cloakroom_core::time::UnixTime;
use redis::{Pipeline, Value};

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
        if let Some(answers) = self.0.link.send_pair(&set_new(&key, &until, spend.until)).await {
            let [set, held] = answers.map_err(|error| failed(DURING, error))?;
            // What the server does not hold is over by its clock, and may have been spent before.
            if set == Value::Okay {
                let is_held = held == Value::BulkString(until.to_vec());
                return Ok(if is_held { Spent::First } else { Spent::Again });
            }
        }
        // There is an item, which may be over for this node, or end earlier than this one.
        let answer = SPEND.run_once(&self.0.link, &[&key], &[&until, &now]).await;
        Ok(if is_done(DURING, answer)? { Spent::First } else { Spent::Again })
    }
}

/// Sets an item that is not there, and reads it: two plain commands take the server half as long as the script. Nothing
/// comes between them that matters. If the item is over at the first, the second reads nothing, or what another call
/// has set meanwhile, with a later end.
fn set_new(key: &[u8], until: &[u8; 8], end: UnixTime) -> Pipeline {
    let mut commands = Pipeline::with_capacity(2);
    let set = commands.cmd("SET").arg(key).arg(&until[..]);
    set.arg("NX").arg("PXAT").arg(end.as_millis().min(LATEST));
    commands.cmd("GET").arg(key);
    commands
}
