//! The effects of revocations. The log has the entry before the effect, and a record of the work to
//! do until a minute after it: a node that finds the record finishes the work, and does it a second
//! time, in case a shard failed over and lost it.

use cloakroom_core::record::GrantRow;
use cloakroom_core::revocation::{EntryId, Epoch, Revocation, RuleKey, Target};
use cloakroom_core::store::{Selector, StoreError};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest};
use futures_util::future::try_join_all;
use redis::Value;

use crate::connection::Link;
use crate::error::failed;
use crate::layout::bucket;
use crate::reply::{integer, string};
use crate::rows::{grant_row, number, take, take_number, take_optional, time};
use crate::scripts::{CLOSE, REVOKE_GRANT, REVOKE_TOKEN, SWEEP, UNLIST};
use crate::store::RedisStore;

/// How many grants one script looks at.
const BATCH: usize = 100;

/// What a revocation has to do beyond its log entry and its rule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Work {
    what: What,
    at: UnixTime,
    until: UnixTime,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    Grant(GrantId),
    Token(GrantId, TokenDigest),
    Sweep(Selector),
}

/// A record of work, as it is stored.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: EntryId,
    pub(crate) is_open: bool,
    pub(crate) work: Work,
    /// The bound of a sweep.
    pub(crate) bound: Option<Epoch>,
    /// The last grant that the sweep has looked at.
    pub(crate) after: Option<GrantId>,
}

/// How far some work came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// The last grant looked at, if there are more.
    pub(crate) after: Option<GrantId>,
    pub(crate) touched: u32,
    pub(crate) unreadable: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    Closed,
    Removed,
    Progress(GrantId),
}

impl Work {
    /// The work of a revocation; `None` if its log entry and its rule are all of it.
    pub(crate) fn of(revocation: &Revocation) -> Option<Self> {
        let Revocation { target, at, until, .. } = revocation;
        let what = match target {
            Target::Grant(grant) => What::Grant(*grant),
            Target::Token { grant, digest } => What::Token(*grant, *digest),
            Target::Jti(_) | Target::Key(_) => return None,
            Target::Subject(_) | Target::Client(_) | Target::SubjectAtClient(..) => {
                What::Sweep(target.selector()?)
            }
        };
        Some(Self { what, at: *at, until: *until })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = time(self.at).to_vec();
        match &self.what {
            What::Grant(grant) => {
                bytes.push(b'g');
                bytes.extend(grant.as_bytes());
            }
            What::Token(grant, digest) => {
                bytes.push(b't');
                bytes.extend(grant.as_bytes());
                bytes.extend(digest.as_bytes());
            }
            What::Sweep(of) => {
                bytes.push(b's');
                bytes.extend(rule_key(of).to_bytes());
            }
        }
        bytes
    }

    fn from_bytes(mut rest: &[u8], until: UnixTime) -> Option<Self> {
        let at = UnixTime::from_millis(take_number(&mut rest)?);
        let what = match take(&mut rest)? {
            [b'g'] => What::Grant(GrantId::from_bytes(take(&mut rest)?)),
            [b't'] => {
                let grant = GrantId::from_bytes(take(&mut rest)?);
                What::Token(grant, TokenDigest::from_bytes(take(&mut rest)?))
            }
            [b's'] => What::Sweep(selector(RuleKey::from_bytes(std::mem::take(&mut rest)).ok()?)?),
            _ => return None,
        };
        rest.is_empty().then_some(Self { what, at, until })
    }
}

fn rule_key(of: &Selector) -> RuleKey {
    match of.clone() {
        Selector::Subject(subject) => RuleKey::Subject(subject),
        Selector::Client(client) => RuleKey::Client(client),
        Selector::SubjectAtClient(subject, client) => RuleKey::SubjectAtClient(subject, client),
    }
}

fn selector(key: RuleKey) -> Option<Selector> {
    match key {
        RuleKey::Subject(subject) => Some(Selector::Subject(subject)),
        RuleKey::Client(client) => Some(Selector::Client(client)),
        RuleKey::SubjectAtClient(subject, client) => {
            Some(Selector::SubjectAtClient(subject, client))
        }
        RuleKey::Jti(_) | RuleKey::Key(_) => None,
    }
}

impl Record {
    /// Reads a record and its progress.
    pub(crate) fn read(id: EntryId, record: &[u8], after: Option<&[u8]>) -> Option<Self> {
        let mut rest = record;
        let is_open = match take(&mut rest)? {
            [b'o'] => true,
            [b'c'] => false,
            _ => return None,
        };
        let until = UnixTime::from_millis(take_number(&mut rest)?);
        let bound = take_optional(&mut rest)?.map(Epoch::new);
        let work = Work::from_bytes(rest, until)?;
        let after = after.and_then(|id| id.try_into().ok()).map(GrantId::from_bytes);
        Some(Self { id, is_open, work, bound, after })
    }
}

impl RedisStore {
    /// Lets a revocation take effect. Of a sweep, looks at `limit` grants after `after`. The link says whether
    /// it waits for replicas.
    pub(crate) async fn take_effect(
        &self,
        link: &Link,
        work: &Work,
        bound: Option<Epoch>,
        after: Option<GrantId>,
        limit: usize,
    ) -> Result<Progress, StoreError> {
        let one = Progress { touched: 1, ..Progress::default() };
        match &work.what {
            What::Grant(grant) => {
                self.revoke_grant(link, *grant, work.at, work.until).await?;
                Ok(one)
            }
            What::Token(grant, digest) => {
                let key = self.0.layout.grant(*grant);
                REVOKE_TOKEN
                    .run_safely(link, &[&key], &[digest.as_bytes(), &time(work.at)])
                    .await
                    .map_err(|error| failed("revoking a token", error))?;
                Ok(one)
            }
            What::Sweep(of) => {
                // A bound is allotted with the entry.
                let bound = bound.unwrap_or_default();
                self.sweep(link, of, bound, work, after, limit).await
            }
        }
    }

    /// Revokes a grant, or writes a tombstone. Returns the columns of the grant.
    pub(crate) async fn revoke_grant(
        &self,
        link: &Link,
        id: GrantId,
        at: UnixTime,
        until: UnixTime,
    ) -> Result<(), StoreError> {
        let layout = &self.0.layout;
        let keys = [layout.grant(id), layout.ends(bucket(id))];
        let answer = REVOKE_GRANT
            .run_safely(link, &[&keys[0], &keys[1]], &[id.as_bytes(), &time(at), &time(until)])
            .await
            .map_err(|error| failed("revoking a grant", error))?;
        // What is revoked need not be looked at again. If this fails, a list or a sweep does it later.
        if let Some(value) = string("a grant", answer)?
            && let Ok(Some(row)) = grant_row(id, value)
        {
            let _ = self.unlist(&row).await;
        }
        Ok(())
    }

    /// Removes a revoked grant from the indexes of its owners.
    async fn unlist(&self, row: &GrantRow) -> Result<(), StoreError> {
        let (layout, bucket) = (&self.0.layout, bucket(row.id));
        let grant = layout.grant(row.id);
        let owners = [layout.subject(bucket, &row.subject), layout.client(bucket, &row.client)];
        let grants = [(&grant[..], row.id)];
        try_join_all(owners.iter().map(|owner| self.unlist_from(owner, &grants))).await?;
        Ok(())
    }

    /// Removes grants that are revoked or gone from an owner's index of their bucket.
    pub(crate) async fn unlist_from(
        &self,
        owner: &[u8],
        grants: &[(&[u8], GrantId)],
    ) -> Result<(), StoreError> {
        let mut keys = vec![owner];
        keys.extend(grants.iter().map(|(key, _)| *key));
        let ids: Vec<&[u8]> = grants.iter().map(|(_, id)| &id.as_bytes()[..]).collect();
        UNLIST
            .run(&self.0.link, &keys, &ids)
            .await
            .map_err(|error| failed("removing a grant from an index", error))?;
        Ok(())
    }

    async fn sweep(
        &self,
        link: &Link,
        of: &Selector,
        bound: Epoch,
        work: &Work,
        after: Option<GrantId>,
        limit: usize,
    ) -> Result<Progress, StoreError> {
        let page = self.owned(of, after, limit).await?;
        let client = match of {
            Selector::SubjectAtClient(_, client) => client.as_str(),
            _ => "",
        };
        let batches = page.ids.chunk_by(|one, other| bucket(*one) == bucket(*other));
        let batches = batches.flat_map(|ids| ids.chunks(BATCH));
        let columns = [number(bound.get()), time(work.at), time(work.until)];
        let unreadable =
            batches.map(|ids| self.sweep_batch(link, of, &columns, client.as_bytes(), ids));
        let unreadable = try_join_all(unreadable).await?;
        Ok(Progress {
            after: page.ids.last().copied().filter(|_| page.more),
            touched: u32::try_from(page.ids.len()).unwrap_or(u32::MAX),
            unreadable: unreadable.into_iter().sum(),
        })
    }

    /// Sweeps some grants of one bucket.
    async fn sweep_batch(
        &self,
        link: &Link,
        of: &Selector,
        columns: &[[u8; 8]; 3],
        client: &[u8],
        ids: &[GrantId],
    ) -> Result<u64, StoreError> {
        let Some(first) = ids.first() else { return Ok(0) };
        let (layout, bucket) = (&self.0.layout, bucket(*first));
        let mut keys = vec![layout.owner(bucket, of), layout.ends(bucket)];
        keys.extend(ids.iter().map(|id| layout.grant(*id)));
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let mut args: Vec<&[u8]> = columns.iter().map(|column| &column[..]).collect();
        args.push(client);
        args.extend(ids.iter().map(|id| &id.as_bytes()[..]));
        let answer = SWEEP.run_safely(link, &keys, &args).await;
        integer("a sweep", &answer.map_err(|error| failed("sweeping grants", error))?)
    }

    pub(crate) async fn close(&self, id: EntryId, close: Close) -> Result<(), StoreError> {
        let log = self.0.layout.log();
        let (how, after) = match close {
            Close::Closed => ("close", None),
            Close::Removed => ("remove", None),
            Close::Progress(after) => ("progress", Some(after)),
        };
        let after = after.as_ref().map_or(&[][..], |id| &id.as_bytes()[..]);
        let keys = [&log.work[..], &log.work_order];
        let answer = CLOSE.run(&self.0.link, &keys, &[id.as_bytes(), how.as_bytes(), after]).await;
        let _: Value = answer.map_err(|error| failed("closing a revocation", error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloakroom_core::{ClientId, Jti, Kid, Subject};

    #[test]
    fn work_survives_its_record() {
        let (subject, client) = (Subject::user("alice").unwrap(), ClientId::new("app").unwrap());
        let grant = GrantId::from_bytes([7; 16]);
        for target in [
            Target::Grant(grant),
            Target::Token { grant, digest: TokenDigest::from_bytes([8; 32]) },
            Target::Subject(subject.clone()),
            Target::Client(client.clone()),
            Target::SubjectAtClient(subject, client),
        ] {
            let [at, until] = [5, 9].map(UnixTime::from_millis);
            let work = Work::of(&Revocation::new(target, at, until)).unwrap();
            for (state, is_open) in [(b'o', true), (b'c', false)] {
                let record = [&[state][..], &time(until), &number(3), &work.to_bytes()].concat();
                let id = EntryId::from_bytes([1; 16]);
                let read = Record::read(id, &record, Some(&[7; 16])).unwrap();
                assert_eq!((read.is_open, read.bound), (is_open, Some(Epoch::new(3))));
                assert_eq!((&read.work, read.after), (&work, Some(grant)));
                for length in 0..record.len() {
                    // Identifiers have no fixed length.
                    let cut = Record::read(id, &record[..length], None);
                    assert!(cut.is_none_or(|cut| cut.work != work), "{length}");
                }
            }
        }
        for target in [Target::Jti(Jti::new("j").unwrap()), Target::Key(Kid::new("k").unwrap())] {
            let now = UnixTime::from_millis(1);
            assert_eq!(Work::of(&Revocation::new(target, now, now)), None);
        }
    }
}
