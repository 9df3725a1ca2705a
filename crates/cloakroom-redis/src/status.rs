//! What the store reports about itself, and a walk over all grants, for operators. Nothing here is on the path of a
//! request.

use std::sync::Arc;

use cloakroom_core::GrantId;
use cloakroom_core::store::{Listing, PageRequest, StoreError, StoreStatus};
use cloakroom_core::time::UnixTime;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use redis::Cmd;

use crate::check_server;
use crate::error::failed;
use crate::layout::{BUCKETS, bucket};
use crate::reply::{integer, milliseconds, strings};
use crate::rows::grant;
use crate::store::RedisStore;

const CONTEXT: &str = "reading the status of the server";

/// How many buckets are asked at a time.
const PARALLEL: usize = 16;

impl RedisStore {
    pub(crate) async fn read_status(&self, before: UnixTime) -> Result<StoreStatus, StoreError> {
        let log = self.0.layout.log();
        let mut status = StoreStatus::default();
        let found = check_server::problems(&self.0.link).await?;
        (status.server, status.problems) = (found.server, found.problems);
        // In a cluster, the time of the node that answers. Nodes should agree.
        if !self.0.link.is_cluster() {
            status.time = self.server_time().await?;
        }
        // Housekeeping keeps the newest entry of the log, however old it is.
        let newest = self.newest_entry().await?;
        let indexes = (0..BUCKETS).map(|bucket| (self.0.layout.ends(bucket), None));
        let indexes =
            indexes.chain([(log.log_ends.clone(), newest), (log.rule_ends.clone(), None)]);
        let ended: Vec<(u64, Option<u64>)> = stream::iter(indexes)
            .map(
                |(index, kept)| async move { self.ended_in(&index, kept.as_deref(), before).await },
            )
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        let rows = ended.iter().map(|(rows, _)| rows).sum::<u64>();
        status.ended_rows = Some(rows.min(StoreStatus::MAX_COUNTED));
        status.oldest_ended =
            ended.iter().filter_map(|(_, oldest)| *oldest).min().map(UnixTime::from_millis);
        Ok(status)
    }

    async fn server_time(&self) -> Result<Option<UnixTime>, StoreError> {
        let time = self.0.link.send(&redis::cmd("TIME")).await;
        let time = time.map_err(|error| failed(CONTEXT, error))?;
        Ok(milliseconds(&time).map(UnixTime::from_millis))
    }

    /// The place of the newest entry of the log.
    async fn newest_entry(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let mut newest = redis::cmd("XREVRANGE");
        newest.arg(&self.0.layout.log().log[..]).arg("+").arg("-").arg("COUNT").arg(1);
        let answer = self.0.link.send(&newest).await.map_err(|error| failed(CONTEXT, error))?;
        Ok(first_text(&answer).map(<[u8]>::to_vec))
    }

    /// How many members of an index but `kept` have ended, and when the first of them did.
    async fn ended_in(
        &self,
        index: &[u8],
        kept: Option<&[u8]>,
        before: UnixTime,
    ) -> Result<(u64, Option<u64>), StoreError> {
        let before = before.as_millis().min((1 << 53) - 1);
        let until = format!("({before}");
        let mut count = redis::cmd("ZCOUNT");
        count.arg(index).arg("-inf").arg(&until);
        let answer = self.0.link.send(&count).await.map_err(|error| failed(CONTEXT, error))?;
        let mut rows = integer("a count", &answer)?;
        if let Some(kept) = kept
            && self.end_in(index, kept).await?.is_some_and(|end| end < before)
        {
            rows = rows.saturating_sub(1);
        }
        if rows == 0 {
            return Ok((0, None));
        }
        let mut first = redis::cmd("ZRANGEBYSCORE");
        first.arg(index).arg("-inf").arg(&until).arg("LIMIT").arg(0).arg(2);
        let members = self.ask(&first).await?.into_iter().flatten();
        let oldest = members.into_iter().find(|member| Some(&member[..]) != kept);
        let end = match oldest {
            Some(oldest) => self.end_in(index, &oldest).await?,
            None => None,
        };
        // It may have been removed meanwhile.
        Ok(end.map_or((0, None), |end| (rows, Some(end))))
    }

    /// When this member of an index ends.
    async fn end_in(&self, index: &[u8], member: &[u8]) -> Result<Option<u64>, StoreError> {
        let mut end = redis::cmd("ZSCORE");
        end.arg(index).arg(member);
        let answer = self.0.link.send(&end).await.map_err(|error| failed(CONTEXT, error))?;
        Ok(score(&answer))
    }

    async fn ask(&self, command: &Cmd) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let answer = self.0.link.send(command).await.map_err(|error| failed(CONTEXT, error))?;
        strings("an answer", answer)
    }

    /// One page of all grants, by id: those of one bucket at most.
    pub(crate) async fn scan_grants(&self, page: PageRequest) -> Result<Listing, StoreError> {
        let limit = usize::try_from(page.limit.max(1)).unwrap_or(usize::MAX);
        let mut at = page.after.map_or(0, bucket);
        let mut ids = Vec::new();
        // Every grant is in the index of ends of its bucket, which is not in the order of ids.
        while ids.is_empty() && at < BUCKETS {
            let mut command = redis::cmd("ZRANGE");
            command.arg(self.0.layout.ends(at)).arg(0).arg(-1);
            let members = self.ask(&command).await?.into_iter().flatten();
            ids = members
                .filter_map(|member| <[u8; 16]>::try_from(member).ok())
                .map(GrantId::from_bytes)
                .filter(|id| page.after.is_none_or(|after| *id > after))
                .collect();
            at += 1;
        }
        ids.sort_unstable();
        let is_full = ids.len() > limit;
        ids.truncate(limit);
        let next = ids.last().copied().filter(|_| is_full || at < BUCKETS);
        let (mut grants, mut unreadable) = (Vec::new(), Vec::new());
        for (id, value) in self.values_of(&ids).await? {
            match value.map(|value| grant(id, value)).transpose() {
                Ok(Some(Some(grant))) => grants.push(Arc::new(grant)),
                Ok(_) => {}
                Err(StoreError::Corrupt { .. }) => unreadable.push(id),
                Err(error) => return Err(error),
            }
        }
        Ok(Listing { grants, unreadable, next })
    }
}

/// The first text in nested arrays.
fn first_text(answer: &redis::Value) -> Option<&[u8]> {
    match answer {
        redis::Value::Array(values) => values.first().and_then(first_text),
        redis::Value::BulkString(text) => Some(text),
        _ => None,
    }
}

/// A score, in either version of the protocol.
fn score(answer: &redis::Value) -> Option<u64> {
    use redis::Value;
    match answer {
        Value::BulkString(text) => number(std::str::from_utf8(text).ok()?.parse().ok()?),
        Value::Double(score) => number(*score),
        Value::Int(score) => u64::try_from(*score).ok(),
        _ => None,
    }
}

/// A score in milliseconds: a whole number below 2⁵³.
fn number(score: f64) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "scores are whole, and saturate"
    )]
    (score >= 0.0).then_some(score as u64)
}
