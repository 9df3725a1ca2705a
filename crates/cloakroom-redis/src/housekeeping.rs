//! Finishes revocations, and deletes rows that have ended, by the indexes on their ends. Any number
//! of nodes may do so at once: each script checks again what it changes.

use std::sync::atomic::{AtomicU8, Ordering};

use cloakroom_core::GrantId;
use cloakroom_core::revocation::EntryId;
use cloakroom_core::store::{Housekeeping, MaintenanceReport, StoreError};
use cloakroom_core::time::UnixTime;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use redis::Value;

use crate::error::failed;
use crate::layout::{BUCKETS, bucket};
use crate::reply::{integer, list, strings};
use crate::rows::{grant_row, time};
use crate::scripts::{REAP, TRIM_LOG, TRIM_RULES, WORK};
use crate::store::RedisStore;
use crate::work::{Close, Record};

/// How long a closed record waits until the work is done a second time, in ms.
const SECOND_TIME: u64 = 60_000;

/// How many keys are touched at a time.
const PARALLEL: usize = 32;

/// The largest number of rows that one script removes.
const BATCH: u32 = 500;

/// The bucket to begin with: a flood of ended grants in one must not keep the others waiting.
static FIRST_BUCKET: AtomicU8 = AtomicU8::new(0);

impl RedisStore {
    pub(crate) async fn keep_house(
        &self,
        task: &Housekeeping,
    ) -> Result<MaintenanceReport, StoreError> {
        let mut done = MaintenanceReport::default();
        let limit = task.limit.max(1);
        self.finish_work(task, limit, &mut done).await?;
        // At most half for each: a flood of revocations must not stop the deletion of grants.
        let half = limit.div_ceil(2);
        let trimmed = self.trim(task.before, half, &mut done).await?;
        self.delete_grants(task.before, (limit - trimmed.min(limit)).max(1), &mut done).await?;
        Ok(done)
    }

    /// Finishes the work of revocations, and does that of finished ones a second time.
    async fn finish_work(
        &self,
        task: &Housekeeping,
        limit: u32,
        done: &mut MaintenanceReport,
    ) -> Result<(), StoreError> {
        let records = self.work(task, limit, done).await?;
        // While replicas are missing, housekeeping goes on.
        let link = self.0.link.without_waiting();
        let mut left = limit;
        for (id, record) in records {
            let is_awaited = task.sweep == Some(id);
            if left == 0 {
                done.more = true;
                done.sweeping |= is_awaited && record.as_ref().is_some_and(|record| record.is_open);
                continue;
            }
            let Some(record) = record else {
                // It would be found again and again.
                done.unreadable += 1;
                self.close(id, Close::Removed).await?;
                left -= 1;
                continue;
            };
            let limit = usize::try_from(left).unwrap_or(usize::MAX);
            let Record { work, bound, after, .. } = &record;
            let progress = self.take_effect(&link, work, *bound, *after, limit).await?;
            done.unreadable += progress.unreadable;
            left = left.saturating_sub(progress.touched.max(1));
            let close = match progress.after {
                Some(last) => Close::Progress(last),
                None if record.is_open => Close::Closed,
                None => Close::Removed,
            };
            if let Close::Progress(_) = close {
                done.more = true;
                done.sweeping |= is_awaited && record.is_open;
            }
            self.close(record.id, close).await?;
        }
        Ok(())
    }

    /// The records of work. One that is awaited comes first. `None` stands for one that cannot be read.
    async fn work(
        &self,
        task: &Housekeeping,
        limit: u32,
        done: &mut MaintenanceReport,
    ) -> Result<Vec<(EntryId, Option<Record>)>, StoreError> {
        const WHAT: &str = "a record of work";
        let log = self.0.layout.log();
        let (limit, delay) = (limit.min(BATCH).to_string(), SECOND_TIME.to_string());
        let awaited = task.sweep.as_ref().map_or(&[][..], |id| &id.as_bytes()[..]);
        let args = [&time(task.before)[..], limit.as_bytes(), delay.as_bytes(), awaited];
        let answer = WORK.run(&self.0.link, &[&log.work, &log.work_order], &args).await;
        let answer = answer.map_err(|error| failed("looking for work", error))?;
        let mut values = list(WHAT, answer)?.into_iter();
        done.more |= integer(WHAT, &values.next().unwrap_or_default())? > 0;
        let mut records = Vec::new();
        for value in values {
            let parts = strings(WHAT, value)?;
            let [Some(id), record, after] = &parts[..] else {
                return Err(StoreError::corrupt(WHAT, "it has another shape"));
            };
            let Ok(id) = <[u8; 16]>::try_from(&id[..]) else {
                self.remove_work(id).await?;
                done.unreadable += 1;
                continue;
            };
            let id = EntryId::from_bytes(id);
            let record =
                record.as_ref().and_then(|record| Record::read(id, record, after.as_deref()));
            records.push((id, record));
        }
        Ok(records)
    }

    /// Removes a record whose id is not one of ours.
    async fn remove_work(&self, id: &[u8]) -> Result<(), StoreError> {
        let mut command = redis::cmd("ZREM");
        command.arg(&self.0.layout.log().work_order[..]).arg(id);
        let answer = self.0.link.send(&command).await;
        answer.map(drop).map_err(|error| failed("removing a record of work", error))
    }

    /// Removes entries of the log and rules that have ended; returns how many.
    async fn trim(
        &self,
        before: UnixTime,
        limit: u32,
        done: &mut MaintenanceReport,
    ) -> Result<u32, StoreError> {
        let log = self.0.layout.log();
        let most = limit.min(BATCH);
        let answer = TRIM_LOG
            .run(
                &self.0.link,
                &[&log.log, &log.log_ends],
                &[&time(before), most.to_string().as_bytes()],
            )
            .await
            .map_err(|error| failed("trimming the log", error))?;
        let parts = list("a count", answer)?;
        let [entries, more] = &parts[..] else {
            return Err(StoreError::corrupt("a count", "it has another shape"));
        };
        done.more |= integer("a count", more)? > 0;
        let entries = u32::try_from(integer("a count", entries)?).unwrap_or(u32::MAX);
        let rules = self.trim_rules(before, (limit - entries.min(limit)).clamp(1, BATCH), done);
        let trimmed = entries.saturating_add(rules.await?);
        done.revocations += u64::from(trimmed);
        Ok(trimmed)
    }

    async fn trim_rules(
        &self,
        before: UnixTime,
        limit: u32,
        done: &mut MaintenanceReport,
    ) -> Result<u32, StoreError> {
        let ends = &self.0.layout.log().rule_ends;
        let mut due = self.due(ends, before, limit + 1).await?;
        if due.len() > limit as usize {
            due.truncate(limit as usize);
            done.more = true;
        }
        if due.is_empty() {
            return Ok(0);
        }
        let rules: Vec<_> = due.iter().map(|key| self.0.layout.rule_of(key)).collect();
        let mut keys = vec![&ends[..]];
        keys.extend(rules.iter().map(Vec::as_slice));
        let before = time(before);
        let mut args = vec![&before[..]];
        args.extend(due.iter().map(Vec::as_slice));
        let answer = TRIM_RULES.run(&self.0.link, &keys, &args).await;
        let removed =
            integer("a count", &answer.map_err(|error| failed("removing rules", error))?)?;
        Ok(u32::try_from(removed).unwrap_or(u32::MAX))
    }

    /// The members of an index whose end has passed.
    async fn due(
        &self,
        index: &[u8],
        before: UnixTime,
        limit: u32,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut command = redis::cmd("ZRANGEBYSCORE");
        // The scripts compare exactly; ends that a score does not hold never come.
        let before = before.as_millis().min((1 << 53) - 1);
        command.arg(index).arg("-inf").arg(format!("({before}"));
        command.arg("LIMIT").arg(0).arg(limit);
        let answer = self.0.link.send(&command).await;
        let answer = answer.map_err(|error| failed("looking for expired rows", error))?;
        Ok(strings("an index", answer)?.into_iter().flatten().collect())
    }

    async fn delete_grants(
        &self,
        before: UnixTime,
        limit: u32,
        done: &mut MaintenanceReport,
    ) -> Result<(), StoreError> {
        let first = FIRST_BUCKET.fetch_add(1, Ordering::Relaxed) % BUCKETS;
        let buckets = (first..BUCKETS).chain(0..first);
        let due: Vec<(u8, Vec<Vec<u8>>)> = stream::iter(buckets)
            .map(|bucket| async move {
                let ends = self.0.layout.ends(bucket);
                Ok::<_, StoreError>((bucket, self.due(&ends, before, limit.min(BATCH) + 1).await?))
            })
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let mut ids: Vec<GrantId> = Vec::new();
        for (bucket, members) in due {
            for member in members {
                match member.try_into() {
                    Ok(id) => ids.push(GrantId::from_bytes(id)),
                    // It is not an id, and would be found again and again.
                    Err(member) => {
                        self.remove_end(bucket, &member).await?;
                        done.unreadable += 1;
                    }
                }
            }
        }
        let mut left = limit;
        let mut ids = ids.into_iter().peekable();
        while left > 0 && ids.peek().is_some() {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(PARALLEL * 4);
            let batch: Vec<_> = ids.by_ref().take(most).collect();
            left = left.saturating_sub(self.reap(&batch, before, done).await?);
        }
        done.more |= ids.peek().is_some();
        Ok(())
    }

    /// Deletes what has ended of these grants; returns how many rows that were.
    async fn reap(
        &self,
        ids: &[GrantId],
        before: UnixTime,
        done: &mut MaintenanceReport,
    ) -> Result<u32, StoreError> {
        let values = self.values_of(ids).await?;
        let counts: Vec<Vec<Value>> = stream::iter(values)
            .map(|(id, value)| self.reap_one(id, value, before))
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        let mut rows = 0_u64;
        for counts in counts {
            let counts: Vec<u64> =
                counts.iter().map(|count| integer("a count", count)).collect::<Result<_, _>>()?;
            let [grants, tokens, tombstones, unreadable] = counts[..] else {
                return Err(StoreError::corrupt("a count", "it has another shape"));
            };
            done.grants += grants;
            done.revocations += tombstones;
            done.unreadable += unreadable;
            if grants == 0 {
                done.tokens += tokens;
            }
            rows += (grants + tokens + tombstones + unreadable).max(1);
        }
        Ok(u32::try_from(rows).unwrap_or(u32::MAX))
    }

    async fn reap_one(
        &self,
        id: GrantId,
        value: Option<Vec<u8>>,
        before: UnixTime,
    ) -> Result<Vec<Value>, StoreError> {
        let (layout, bucket) = (&self.0.layout, bucket(id));
        let mut keys = vec![layout.grant(id), layout.ends(bucket)];
        if let Some(Ok(Some(row))) = value.map(|value| grant_row(id, value)) {
            keys.push(layout.subject(bucket, &row.subject));
            keys.push(layout.client(bucket, &row.client));
        }
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let answer = REAP.run(&self.0.link, &keys, &[id.as_bytes(), &time(before)]).await;
        list("a count", answer.map_err(|error| failed("deleting what has ended", error))?)
    }

    async fn remove_end(&self, bucket: u8, member: &[u8]) -> Result<(), StoreError> {
        let mut command = redis::cmd("ZREM");
        command.arg(self.0.layout.ends(bucket)).arg(member);
        let answer = self.0.link.send(&command).await;
        answer.map(drop).map_err(|error| failed("removing an entry of an index", error))
    }
}
