//! The revocation log, and the rules of its entries.

use std::collections::HashMap;

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{
    Cursor, CursorPlace, EntryId, Epoch, LogEntry, LogEvent, Revocation, RevocationBatch, Rule,
    RuleKey, Rules,
};
use cloakroom_core::store::StoreError;
use cloakroom_core::time::UnixTime;
use redis::Value;

use crate::error::{failed, unexpected};
use crate::reply::{bytes, list, string, strings};
use crate::rows::{NONE, take, take_number, take_optional, time};
use crate::scripts::{APPEND, OPEN, READ};
use crate::store::RedisStore;
use crate::work::Work;

impl RedisStore {
    /// Begins the log if there is none, and raises the newest bound to now: replicas may know bounds that
    /// a restored or failed-over server does not.
    pub(crate) async fn open_log(&self) -> Result<(), StoreError> {
        let (incarnation, now) = (self.entry_id()?, time(self.0.clock.now()));
        let log = self.0.layout.log();
        let keys = [&log.state[..], &log.log, &log.log_ends];
        OPEN.run(&self.0.link, &keys, &[incarnation.as_bytes(), &now])
            .await
            .map_err(|error| failed("opening the log", error))?;
        Ok(())
    }

    /// Appends the entry of a revocation, with its bound, its rule and the record of the work to do. Returns
    /// the bound.
    pub(crate) async fn append_revocation(
        &self,
        id: EntryId,
        revocation: &Revocation,
        work: Option<&Work>,
    ) -> Result<Option<Epoch>, StoreError> {
        let Revocation { target, at, until, .. } = revocation;
        // The script adds the bound, which nobody knows yet.
        let event = revocation.event(None);
        let entry = LogEntry { id, event, at: *at, until: *until };
        let kind = if target.has_bound() { "b" } else { "" };
        self.append(&entry, kind, revocation.rule(None), work).await
    }

    pub(crate) async fn append_heartbeat(
        &self,
        id: EntryId,
        at: UnixTime,
        until: UnixTime,
    ) -> Result<(), StoreError> {
        let entry = LogEntry { id, event: LogEvent::Heartbeat {}, at, until };
        self.append(&entry, "h", None, None).await?;
        Ok(())
    }

    async fn append(
        &self,
        entry: &LogEntry,
        kind: &str,
        rule: Option<Rule>,
        work: Option<&Work>,
    ) -> Result<Option<Epoch>, StoreError> {
        let during = "writing the log";
        let log = self.0.layout.log();
        let incarnation = self.entry_id()?;
        let rule_key = rule.as_ref().map(|rule| rule.key.to_bytes()).unwrap_or_default();
        let rule_end = rule.as_ref().map(|rule| time(rule.until));
        let rule_place = self.0.layout.rule_of(&rule_key);
        let work = work.map(Work::to_bytes).unwrap_or_default();
        let last = rule.map_or(entry.until, |rule| rule.until.max(entry.until));
        let keys = [
            &log.state[..],
            &log.log,
            &log.log_ends,
            &log.recent,
            &log.work,
            &log.work_order,
            &rule_place,
            &log.rule_ends,
        ];
        let args = [
            &entry.id.as_bytes()[..],
            &entry.to_body(),
            &time(entry.at),
            &time(entry.until),
            kind.as_bytes(),
            incarnation.as_bytes(),
            rule_end.as_ref().map_or(&[][..], |end| &end[..]),
            &rule_key,
            &work,
            &time(last),
        ];
        let link = &self.0.link;
        // A heartbeat may be lost: the next one comes soon.
        let bound = match kind {
            "h" => APPEND.run(link, &keys, &args).await,
            _ => APPEND.run_safely(link, &keys, &args).await,
        };
        let bound = bytes("a bound", bound.map_err(|error| failed(during, error))?)?;
        Ok((bound != NONE).then(|| Epoch::new(u64::from_be_bytes(bound))))
    }

    pub(crate) async fn read_rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        for _ in 0..2 {
            if let Some(rules) = self.try_read_rules(&keys).await? {
                return Ok(rules);
            }
            // The server is empty. Its log begins before anybody takes an epoch from it.
            self.open_log().await?;
        }
        Err(StoreError::unavailable("reading rules", "the server loses what is written to it"))
    }

    /// The rules, and with the same step the newest bound.
    async fn try_read_rules(&self, keys: &[RuleKey]) -> Result<Option<Rules>, StoreError> {
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(self.0.layout.rule(key));
        }
        command.arg(&self.0.layout.log().state[..]);
        let answer = self.0.link.send(&command).await;
        let mut values = strings("rules", answer.map_err(|error| failed("reading rules", error))?)?;
        let Some(Some(state)) = values.pop() else { return Ok(None) };
        let Some(newest_bound) = newest_bound(&state) else { return Ok(None) };
        let mut found = HashMap::new();
        for (key, value) in keys.iter().zip(values) {
            if let Some(value) = value {
                let rule = rule(key, &value)
                    .ok_or_else(|| StoreError::corrupt("a rule", "it has another length"))?;
                found.insert(key, rule);
            }
        }
        Ok(Some(Rules { rules: found.into_values().collect(), newest_bound }))
    }

    /// Whether a rule of its subject, its client or the pair denies the grant.
    pub(crate) async fn denies(&self, grant: &GrantRecord) -> Result<bool, StoreError> {
        let rules = self.read_rules(grant.rule_keys().to_vec()).await?.rules;
        Ok(rules.iter().any(|rule| rule.denies(grant.epoch)))
    }

    pub(crate) async fn read_log(
        &self,
        after: &Cursor,
        limit: u32,
    ) -> Result<RevocationBatch, StoreError> {
        let place = CursorPlace::of(after);
        if place.is_none() && !after.is_start() {
            return Ok(RevocationBatch::Gap);
        }
        let limit = limit.max(1);
        let answer = self.read_script(place.as_ref(), u64::from(limit) + 1).await?;
        if answer == Value::Nil {
            return Ok(RevocationBatch::Gap);
        }
        let mut parts = list("the log", answer)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let incarnation = bytes("the log's incarnation", next())?;
        let newest_bound = Epoch::new(u64::from_be_bytes(bytes("the newest bound", next())?));
        let position = u64::from_be_bytes(bytes("a position of the log", next())?);
        let found = list("entries of the log", next())?;
        let more = found.len() > limit as usize;
        let mut place = CursorPlace {
            incarnation,
            position,
            entry: place.map_or(EntryId::from_bytes([0; 16]), |place| place.entry),
            revocation: place.and_then(|place| place.revocation),
        };
        let mut entries = Vec::with_capacity(found.len());
        for entry in found.into_iter().take(limit as usize) {
            let (position, entry) = log_entry(entry)?;
            place = place.advanced(position, &entry);
            entries.push(entry);
        }
        let next = if entries.is_empty() { after.clone() } else { Cursor::after(&place) };
        Ok(RevocationBatch::Entries { entries, next, more, newest_bound })
    }

    async fn read_script(
        &self,
        place: Option<&CursorPlace>,
        limit: u64,
    ) -> Result<Value, StoreError> {
        let log = self.0.layout.log();
        let (incarnation, now) = (self.entry_id()?, time(self.0.clock.now()));
        let limit = limit.to_string();
        let mut args: Vec<Vec<u8>> =
            vec![incarnation.as_bytes().to_vec(), now.to_vec(), limit.into_bytes()];
        if let Some(place) = place {
            args.push(place.incarnation.to_vec());
            args.push(place.position.to_be_bytes().to_vec());
            args.push(place.entry.as_bytes().to_vec());
            if let Some((position, entry)) = place.revocation {
                args.push(position.to_be_bytes().to_vec());
                args.push(entry.as_bytes().to_vec());
            } else {
                args.push(Vec::new());
            }
        }
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let keys = [&log.state[..], &log.log, &log.log_ends];
        READ.run(&self.0.link, &keys, &args).await.map_err(|error| failed("reading the log", error))
    }
}

/// The newest bound in the log's state.
fn newest_bound(mut state: &[u8]) -> Option<Epoch> {
    let rest = &mut state;
    let (_incarnation, _position) = (take::<16>(rest)?, take_number(rest)?);
    let bound = take_number(rest)?;
    rest.is_empty().then(|| Epoch::new(bound))
}

fn rule(key: &RuleKey, mut value: &[u8]) -> Option<Rule> {
    let rest = &mut value;
    let (bound, until) = (take_optional(rest)?, take_number(rest)?);
    let until = UnixTime::from_millis(until);
    rest.is_empty().then(|| Rule { key: key.clone(), bound: bound.map(Epoch::new), until })
}

/// An entry, with its position.
fn log_entry(value: Value) -> Result<(u64, LogEntry), StoreError> {
    const WHAT: &str = "an entry of the log";
    let mut parts = list(WHAT, value)?.into_iter();
    let place = string(WHAT, parts.next().unwrap_or_default())?.unwrap_or_default();
    // `7-0`
    let position = std::str::from_utf8(&place)
        .ok()
        .and_then(|place| place.strip_suffix("-0")?.parse().ok())
        .ok_or_else(|| unexpected(WHAT, &Value::BulkString(place)))?;
    let fields = strings(WHAT, parts.next().unwrap_or_default())?;
    let [_, _, _, Some(bound), _, Some(body)] = &fields[..] else {
        return Err(StoreError::corrupt(WHAT, "it has other fields"));
    };
    let mut entry = LogEntry::from_body(body)?;
    let allotted = take_optional(&mut &bound[..]).flatten();
    if let (LogEvent::Revoked { bound, .. }, Some(allotted)) = (&mut entry.event, allotted) {
        *bound = Some(Epoch::new(allotted));
    }
    Ok((position, entry))
}
