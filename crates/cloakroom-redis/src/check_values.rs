//! The check values: one hash.

use async_trait::async_trait;
use cloakroom_core::store::{CheckValue, CheckValues, StoreError};

use crate::error::failed;
use crate::keys::is_done;
use crate::reply::strings;
use crate::scripts::SET_CHECK_VALUE;
use crate::store::RedisStore;

#[async_trait]
impl CheckValues for RedisStore {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(&self.0.layout.log().check_values[..]);
        let answer = self.0.link.send(&command).await;
        let answer = answer.map_err(|error| failed("loading check values", error))?;
        let fields = strings("the check values", answer)?;
        let mut values = Vec::new();
        for pair in fields.chunks_exact(2) {
            let [Some(name), Some(value)] = pair else { continue };
            let name = String::from_utf8(name.clone())
                .map_err(|error| StoreError::corrupt("the name of a check value", error))?;
            values.push(CheckValue { name, value: value.clone() });
        }
        values.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(values)
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        let argument = |value: Option<&[u8]>| match value {
            Some(value) => [b"1", value].concat(),
            None => b"0".to_vec(),
        };
        let keys = [&self.0.layout.log().check_values[..]];
        let args = [name.as_bytes(), &argument(expected), &argument(value)];
        let answer = SET_CHECK_VALUE.run_safely(&self.0.link, &keys, &args).await;
        is_done("writing a check value", answer)
    }
}
