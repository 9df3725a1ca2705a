//! Grants and their tokens.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Rule, RuleKey};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, CreateOutcome, Found, Listing, Lookup, PageRequest,
    Selector, StoreError, fresh_tokens, tokens_of,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest};
use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use redis::Value;

use crate::error::failed;
use crate::layout::{BUCKETS, bucket};
use crate::reply::{list, string, strings};
use crate::rows::{grant, grant_row, grant_value, time, token, token_value};
use crate::scripts::{ADVANCE, CREATE};
use crate::store::RedisStore;

/// The longest time between the first write of a `create` and its look for rules. Rules live for longer.
const MAX_CREATE: Duration = Duration::from_secs(60);

/// How often a step is judged again because somebody else changed the grant meanwhile.
const MAX_RACES: u32 = 16;

/// The most grants in a page of a list.
const MAX_PAGE: usize = 1_000;

/// How many buckets are asked at a time.
const PARALLEL: usize = 32;

/// The field of a grant in its hash. The fields of its tokens are their digests, which are longer.
const GRANT: &str = "g";

/// Some grants of an owner, by id.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) ids: Vec<GrantId>,
    pub(crate) more: bool,
}

/// What a script found in place of doing its work.
struct Refused {
    grant: Option<Vec<u8>>,
    tokens: HashMap<TokenDigest, Vec<u8>>,
}

impl Refused {
    fn read(value: Value, tokens: &[TokenRecord]) -> Result<Option<Self>, StoreError> {
        if let Value::Int(_) = value {
            return Ok(None);
        }
        let mut values = strings("a grant", value)?.into_iter();
        let grant = values.next().flatten();
        let digests = tokens.iter().map(|token| token.digest);
        let tokens = digests.zip(values).filter_map(|(digest, value)| Some((digest, value?)));
        Ok(Some(Self { grant, tokens: tokens.collect() }))
    }

    /// The tokens that are not stored yet.
    fn fresh(&self, tokens: &[TokenRecord]) -> Result<Vec<TokenRecord>, StoreError> {
        fresh_tokens(tokens.to_vec(), |wanted| {
            let value = self.tokens.get(&wanted.digest);
            value.map(|value| token(wanted.grant, wanted.digest, value.clone())).transpose()
        })
    }
}

impl RedisStore {
    pub(crate) async fn find_grant(
        &self,
        id: GrantId,
        digest: Option<TokenDigest>,
    ) -> Result<Lookup, StoreError> {
        let mut command = redis::Cmd::with_capacity(4, 128);
        command.arg("HMGET").arg(self.0.layout.grant(id)).arg(GRANT);
        if let Some(digest) = &digest {
            command.arg(&digest.as_bytes()[..]);
        }
        let answer = self.0.link.send(&command).await;
        let answer = answer.map_err(|error| failed("finding a grant", error))?;
        let values = list("a grant", answer)?.into_iter();
        let mut values = values.map(|value| string("a grant", value));
        let Some(Some(value)) = values.next().transpose()? else { return Ok(Lookup::Absent) };
        let Some(grant) = grant(id, value)? else { return Ok(Lookup::Tombstone) };
        let token = match (digest, values.next().transpose()?.flatten()) {
            (Some(digest), Some(value)) => Some(Arc::new(token(id, digest, value)?)),
            _ => None,
        };
        Ok(Lookup::Found(Found { grant: Arc::new(grant), token }))
    }

    pub(crate) async fn create_grant(
        &self,
        grant: &GrantRecord,
        tokens: &[TokenRecord],
    ) -> Result<CreateOutcome, StoreError> {
        tokens_of(grant.id, tokens)?;
        let start = self.0.clock.monotonic();
        let written = self.insert(grant, tokens).await?;
        if let Some(refused) = written
            && let Some(answer) = created_before(grant, tokens, &refused)?
        {
            return Ok(answer);
        }
        // The grant is visible. A revocation that this does not see will see the grant.
        let is_denied = self.denies(grant).await?;
        let is_late = self.0.clock.monotonic().saturating_sub(start) > MAX_CREATE;
        if !is_denied && !is_late {
            return Ok(CreateOutcome::Inserted);
        }
        let (link, now) = (&self.0.link, self.0.clock.now());
        self.revoke_grant(link, grant.id, now, grant.expires_at).await?;
        if is_denied {
            return Ok(CreateOutcome::Barred);
        }
        Err(StoreError::unavailable("creating a grant", "it took more than a minute"))
    }

    /// Inserts the grant, or returns what is stored under its id.
    async fn insert(
        &self,
        grant: &GrantRecord,
        tokens: &[TokenRecord],
    ) -> Result<Option<Refused>, StoreError> {
        let (layout, bucket) = (&self.0.layout, bucket(grant.id));
        let row = grant.to_row();
        let (value, _) = grant_value(&row);
        let tokens_to_write = fresh_tokens(tokens.to_vec(), |_| Ok(None::<TokenRecord>))?;
        let first = first_look(Some(grant), &tokens_to_write);
        let last = last_end(Some(grant), &tokens_to_write);
        let keys = [
            layout.grant(grant.id),
            layout.ends(bucket),
            layout.subject(bucket, &row.subject),
            layout.client(bucket, &row.client),
        ];
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let values = values(&tokens_to_write);
        let (first, last) = (time(first), time(last));
        let mut args: Vec<&[u8]> = vec![grant.id.as_bytes(), &value, &first, &last];
        push(&mut args, &tokens_to_write, &values);
        let answer = CREATE.run(&self.0.link, &keys, &args).await;
        let answer = answer.map_err(|error| failed("creating a grant", error))?;
        Refused::read(answer, &tokens_to_write)
    }

    pub(crate) async fn advance_grant(&self, step: &Advance) -> Result<AdvanceOutcome, StoreError> {
        tokens_of(step.grant, &step.tokens)?;
        let mut tokens = step.tokens.clone();
        for _ in 0..MAX_RACES {
            let Some(refused) = self.try_advance(step, &tokens).await? else {
                return Ok(AdvanceOutcome::Advanced);
            };
            let Some(value) = &refused.grant else { return Ok(AdvanceOutcome::Unknown) };
            let Some(stored) = grant(step.grant, value.clone())?.map(Arc::new) else {
                return Ok(AdvanceOutcome::Dead);
            };
            if let Some(answer) = step.judge(&stored)? {
                return Ok(answer);
            }
            tokens = refused.fresh(&tokens)?;
            if tokens.is_empty() && matches!(step.change, ChainUpdate::Attach) {
                return Ok(AdvanceOutcome::Advanced);
            }
        }
        Err(StoreError::unavailable("advancing a chain", "it keeps changing"))
    }

    /// Takes the step if no column speaks against it; returns what is stored otherwise.
    async fn try_advance(
        &self,
        step: &Advance,
        tokens: &[TokenRecord],
    ) -> Result<Option<Refused>, StoreError> {
        let layout = &self.0.layout;
        let next = match &step.change {
            ChainUpdate::Move(next) => Some(&**next),
            ChainUpdate::Attach => None,
        };
        let mut expected = step.expected.generation.to_be_bytes().to_vec();
        expected.extend(step.expected.digest.as_bytes());
        // `judge` refuses these.
        let is_misuse = next.is_some_and(|next| {
            next.id != step.grant
                || next.chain.as_ref().is_none_or(|chain| chain.position() == step.expected)
        });
        let has_twins =
            tokens.iter().map(|token| token.digest).collect::<HashSet<_>>().len() < tokens.len();
        if is_misuse || has_twins {
            expected.clear();
        }
        let (value, names) = next.map(|next| grant_value(&next.to_row())).unwrap_or_default();
        let names = names.to_string();
        let (first, last) = (time(first_look(next, tokens)), time(last_end(next, tokens)));
        let now = time(step.now);
        let values = values(tokens);
        let mut args: Vec<&[u8]> =
            vec![step.grant.as_bytes(), &expected, &now, &value, names.as_bytes(), &first, &last];
        push(&mut args, tokens, &values);
        let keys = [layout.grant(step.grant), layout.ends(bucket(step.grant))];
        let answer = ADVANCE.run_safely(&self.0.link, &[&keys[0], &keys[1]], &args).await;
        Refused::read(answer.map_err(|error| failed("advancing a chain", error))?, tokens)
    }

    /// Ids of an owner's grants that are not revoked, in order, after one of them. At most `limit`.
    pub(crate) async fn owned(
        &self,
        of: &Selector,
        after: Option<GrantId>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let limit = limit.max(1);
        // Most owners have few grants, and large ones have some in every bucket.
        let share = limit.div_ceil(usize::from(BUCKETS) / 4).max(8).min(limit + 1);
        let first = after.map_or(0, bucket);
        let pages: Vec<Vec<Vec<u8>>> = stream::iter(first..BUCKETS)
            .map(|bucket| {
                let after = after.filter(|_| bucket == first);
                let after = after.map(|id| id.as_bytes().to_vec());
                self.owned_in(bucket, of, after, share)
            })
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let mut ids: Vec<[u8; 16]> = Vec::new();
        for (bucket, mut page) in (first..BUCKETS).zip(pages) {
            loop {
                let is_full = page.len() >= share;
                let last = page.last().cloned();
                // An id of another length is damage.
                ids.extend(page.into_iter().filter_map(|id| <[u8; 16]>::try_from(id).ok()));
                if ids.len() > limit {
                    ids.truncate(limit);
                    let ids = ids.into_iter().map(GrantId::from_bytes).collect();
                    return Ok(Page { ids, more: true });
                }
                if !is_full {
                    break;
                }
                page = self.owned_in(bucket, of, last, share).await?;
            }
        }
        Ok(Page { ids: ids.into_iter().map(GrantId::from_bytes).collect(), more: false })
    }

    async fn owned_in(
        &self,
        bucket: u8,
        of: &Selector,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut command = redis::cmd("ZRANGEBYLEX");
        command.arg(self.0.layout.owner(bucket, of));
        match after {
            Some(after) => command.arg([b"(", &after[..]].concat()),
            None => command.arg("-"),
        };
        command.arg("+").arg("LIMIT").arg(0).arg(limit);
        let answer = self.0.link.send(&command).await;
        let answer = answer.map_err(|error| failed("reading an index", error))?;
        Ok(strings("an index", answer)?.into_iter().flatten().collect())
    }

    /// The values of some grants.
    pub(crate) async fn values_of(
        &self,
        ids: &[GrantId],
    ) -> Result<Vec<(GrantId, Option<Vec<u8>>)>, StoreError> {
        stream::iter(ids.iter().copied())
            .map(|id| async move {
                let mut command = redis::cmd("HGET");
                command.arg(self.0.layout.grant(id)).arg(GRANT);
                match self.0.link.send(&command).await {
                    Ok(answer) => Ok((id, string("a grant", answer)?)),
                    // It cannot be read, like one of a wrong length.
                    Err(error) if error.code() == Some("WRONGTYPE") => Ok((id, Some(Vec::new()))),
                    Err(error) => Err(failed("reading grants", error)),
                }
            })
            .buffered(PARALLEL)
            .try_collect()
            .await
    }

    pub(crate) async fn list_grants(
        &self,
        of: &Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX).min(MAX_PAGE);
        let page = self.owned(of, page.after, limit).await?;
        let next = page.ids.last().copied().filter(|_| page.more);
        let (mut listed, mut unreadable, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for (id, value) in self.values_of(&page.ids).await? {
            let row = match value.map(|value| grant_row(id, value)) {
                Some(Ok(Some(row))) => Ok(row),
                None | Some(Ok(None)) => {
                    gone.push(id);
                    continue;
                }
                Some(Err(error)) => Err(error),
            };
            // The columns alone tell it, so that a revoked grant is not reported as damaged.
            if row.as_ref().is_ok_and(|row| row.revoked_at.is_some()) {
                gone.push(id);
                continue;
            }
            match row.and_then(|row| GrantRecord::from_row(&row)) {
                Ok(grant) if of.selects(&grant) && grant.is_live(now) => {
                    listed.push(Arc::new(grant));
                }
                Ok(_) => {}
                Err(StoreError::Corrupt { .. }) => unreadable.push(id),
                Err(error) => return Err(error),
            }
        }
        // Read after the grants, so that every rule that was in force then counts.
        if !listed.is_empty() {
            let rules = self.rules_of(&listed).await?;
            let denies = |grant: &GrantRecord| {
                let mut found = grant.rule_keys().into_iter().filter_map(|key| rules.get(&key));
                found.any(|rule| rule.denies(grant.epoch))
            };
            listed.retain(|grant| !denies(grant));
        }
        self.forget_gone(of, &gone).await;
        Ok(Listing { grants: listed, unreadable, next })
    }

    /// The rules that may deny these grants.
    async fn rules_of(
        &self,
        grants: &[Arc<GrantRecord>],
    ) -> Result<HashMap<RuleKey, Rule>, StoreError> {
        let keys: HashSet<_> = grants.iter().flat_map(|grant| grant.rule_keys()).collect();
        let rules = self.read_rules(keys.into_iter().collect()).await?.rules;
        Ok(rules.into_iter().map(|rule| (rule.key.clone(), rule)).collect())
    }

    /// Removes grants that are revoked or gone from an index. It is tried again by the next reader.
    async fn forget_gone(&self, of: &Selector, gone: &[GrantId]) {
        let layout = &self.0.layout;
        let batches = gone.chunk_by(|one, other| bucket(*one) == bucket(*other));
        let unlisted = try_join_all(batches.filter_map(|ids| {
            let owner = layout.owner(bucket(*ids.first()?), of);
            let keys: Vec<_> = ids.iter().map(|id| layout.grant(*id)).collect();
            Some(async move {
                let grants: Vec<(&[u8], GrantId)> =
                    keys.iter().map(Vec::as_slice).zip(ids.iter().copied()).collect();
                self.unlist_from(&owner, &grants).await
            })
        }))
        .await;
        if let Err(error) = unlisted {
            tracing::debug!(%error, "grants could not be removed from an index");
        }
    }
}

/// The answer if the grant could not be inserted; `None` if this is the retry of a call whose answer was
/// lost, and the rules must be looked for again.
fn created_before(
    wanted: &GrantRecord,
    tokens: &[TokenRecord],
    refused: &Refused,
) -> Result<Option<CreateOutcome>, StoreError> {
    let Some(value) = &refused.grant else { return Ok(None) };
    let Some(stored) = grant(wanted.id, value.clone())? else {
        return Ok(Some(CreateOutcome::Barred));
    };
    let is_same = wanted.is_stored_as(&stored)
        && match refused.fresh(tokens) {
            Ok(fresh) => fresh.is_empty(),
            Err(StoreError::Misuse(_)) => false,
            Err(error) => return Err(error),
        };
    Ok(if !is_same {
        Some(CreateOutcome::Exists)
    } else if stored.revoked_at.is_some() {
        Some(CreateOutcome::Barred)
    } else {
        None
    })
}

/// When housekeeping looks at a grant first: when one of its tokens, or the grant, ends.
fn first_look(grant: Option<&GrantRecord>, tokens: &[TokenRecord]) -> UnixTime {
    let tokens = tokens.iter().map(|token| token.expires_at);
    tokens.chain(grant.map(|grant| grant.row_expires_at)).min().unwrap_or(UnixTime::MAX)
}

/// The last end of a grant and its tokens.
fn last_end(grant: Option<&GrantRecord>, tokens: &[TokenRecord]) -> UnixTime {
    let tokens = tokens.iter().map(|token| token.expires_at);
    let ends = grant.map(|grant| grant.row_expires_at.max(grant.expires_at));
    tokens.chain(ends).max().unwrap_or_default()
}

fn values(tokens: &[TokenRecord]) -> Vec<Vec<u8>> {
    tokens.iter().map(|token| token_value(&token.to_row())).collect()
}

fn push<'a>(args: &mut Vec<&'a [u8]>, tokens: &'a [TokenRecord], values: &'a [Vec<u8>]) {
    for (token, value) in tokens.iter().zip(values) {
        args.push(token.digest.as_bytes());
        args.push(value);
    }
}
