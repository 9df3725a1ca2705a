//! The ring of signing keys: one hash, by generation, and the highest generation that was ever inserted.

use std::error::Error as _;

use async_trait::async_trait;
use cloakroom_core::keys::{KeyInserted, KeyRecord, KeyStore, KeyUpdated};
use cloakroom_core::store::StoreError;
use redis::{RedisResult, Value};

use crate::error::failed;
use crate::reply::{integer, strings};
use crate::rows::number;
use crate::scripts::{INSERT_KEY, REPLACE_KEY};
use crate::store::RedisStore;

#[async_trait]
impl KeyStore for RedisStore {
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(&self.0.layout.log().signing_keys[..]);
        let answer = self.0.link.send(&command).await;
        let answer = answer.map_err(|error| failed("loading the signing keys", error))?;
        let fields = strings("the signing keys", answer)?;
        let mut records = Vec::new();
        for pair in fields.chunks_exact(2) {
            let [Some(field), Some(value)] = pair else { continue };
            // The other field is the highest generation.
            let Ok(generation) = <[u8; 8]>::try_from(&field[..]) else { continue };
            let generation = u64::from_be_bytes(generation);
            // Without this key, all that it signed would look forged. So the ring is complete, or an error.
            let record = KeyRecord::from_body(value.get(8..).unwrap_or_default());
            records.push(record.map_err(|error| {
                let how = error.source().map(ToString::to_string).unwrap_or_default();
                let how = format!("generation {generation}: {how}");
                StoreError::corrupt("a signing key", how)
            })?);
        }
        records.sort_unstable_by_key(|record| record.generation);
        Ok(records)
    }

    async fn insert(&self, record: KeyRecord) -> Result<KeyInserted, StoreError> {
        let keys = [&self.0.layout.log().signing_keys[..]];
        let args = [&number(record.generation)[..], &number(record.version), &record.to_body()];
        let answer = INSERT_KEY.run_once_safely(&self.0.link, &keys, &args).await;
        match is_done("inserting a signing key", answer)? {
            true => Ok(KeyInserted::Inserted),
            false => Ok(KeyInserted::Taken),
        }
    }

    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError> {
        if record.version == expected {
            return Err(StoreError::Misuse("the new record keeps its version"));
        }
        let body = record.to_body();
        self.replace(record.generation, expected, &[&number(record.version), &body]).await
    }

    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError> {
        self.replace(generation, expected, &[]).await
    }
}

impl RedisStore {
    async fn replace(
        &self,
        generation: u64,
        expected: u64,
        new: &[&[u8]],
    ) -> Result<KeyUpdated, StoreError> {
        let keys = [&self.0.layout.log().signing_keys[..]];
        let (generation, expected) = (number(generation), number(expected));
        let mut args = vec![&generation[..], &expected];
        args.extend(new);
        let answer = REPLACE_KEY.run_once_safely(&self.0.link, &keys, &args).await;
        match is_done("changing a signing key", answer)? {
            true => Ok(KeyUpdated::Updated),
            false => Ok(KeyUpdated::Stale),
        }
    }
}

pub(crate) fn is_done(
    during: &'static str,
    answer: RedisResult<Value>,
) -> Result<bool, StoreError> {
    let answer = answer.map_err(|error| failed(during, error))?;
    Ok(integer("an answer", &answer)? > 0)
}
