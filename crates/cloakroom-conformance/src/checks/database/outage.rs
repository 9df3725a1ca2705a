//! A driver that fails: an error each time.

use std::fmt::Debug;

use cloakroom_core::GrantId;
use cloakroom_core::keys::KeyRecord;
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Cursor, Epoch, RevocationBatch, RuleKey, Rules, Target};
use cloakroom_core::store::{
    Advance, ChainUpdate, Housekeeping, Lookup, PageRequest, Selector, StoreError, StoreStatus,
    TokenStoreExt,
};

use crate::ask::{Ask, ensure, same, step_from};
use crate::checks::contract::check_values::{set, stand};
use crate::checks::contract::keys::{holds, inserted, key, rewritten};
use crate::context::Bench;
use crate::fixtures::{DAY, NOW, client, grant, lone, moved, pair, revocation, token};
use crate::reading::read_on;
use crate::report::Broken;
use crate::{Context, Failing, Instance};

checks! { "database::outage":
    a_lookup_that_fails_is_an_error => OutageIsError,
    a_write_that_fails_is_an_error => OutageIsError,
    reading_the_log_that_fails_is_an_error => OutageIsError,
    housekeeping_that_fails_is_an_error => OutageIsError,
    a_status_that_fails_is_an_error => OutageIsError,
    a_ring_that_fails_is_an_error => OutageIsError,
    check_values_that_fail_are_an_error => OutageIsError,
    a_lookup_that_stopped_half_way_is_whole_or_an_error => OutageIsError,
    a_ring_that_stopped_half_way_is_whole_or_an_error => OutageIsError,
}

/// The most operations of the driver after which a call is stopped.
pub(crate) const MAX_OPERATIONS: u32 = 24;

/// A database with something of everything in it.
pub(crate) struct Filled {
    pub(crate) bench: Bench,
    pub(crate) instance: Instance,
    pub(crate) grant: GrantRecord,
    pub(crate) token: TokenRecord,
    pub(crate) buried: GrantId,
    pub(crate) key: KeyRecord,
    pub(crate) cursor: Cursor,
}

pub(crate) async fn filled(context: &Context) -> Result<Filled, Broken> {
    let (bench, instance) = context.database().await?;
    let store = &*instance.tokens;
    let buried = lone(Epoch::default())?.id;
    store.revoked(Target::Grant(buried)).await?;
    store.revoked(Target::Subject(lone(Epoch::default())?.subject)).await?;
    store.revoked(Target::Client(client("other")?)).await?;
    let cursor = read_on(store, Cursor::start(), 2).await?.1;
    store.heartbeat(NOW, NOW + DAY).await?;
    let grant = grant("alice", "app", store.epoch().await?)?;
    let token = token(&grant)?;
    store.inserted(&grant, std::slice::from_ref(&token)).await?;
    set(store, "issuer", None, Some(b"one")).await?;
    let key = key(1, "one")?;
    inserted(&*instance.keys, &key).await?;
    Ok(Filled { bench, instance, grant, token, buried, key, cursor })
}

/// That the call failed as an outage does, with the driver's own words.
pub(crate) fn is_outage<T: Debug>(what: &str, answer: Result<T, StoreError>) -> Result<(), Broken> {
    match answer {
        Err(error @ (StoreError::Unavailable { .. } | StoreError::Corrupt { .. })) => {
            let source = std::error::Error::source(&error);
            ensure!(source.is_some(), "the error of `{what}` does not say what the driver said");
            Ok(())
        }
        answer => {
            Err(format!("the database is out of reach, and `{what}` answered {answer:?}").into())
        }
    }
}

impl Filled {
    pub(crate) async fn breaks(&self) -> Result<(), Broken> {
        Ok(self.bench.fail(Failing::After(0)).await?)
    }

    fn selectors(&self) -> [Selector; 3] {
        let (subject, client) = (self.grant.subject.clone(), self.grant.client.clone());
        [
            Selector::Subject(subject.clone()),
            Selector::Client(client.clone()),
            Selector::SubjectAtClient(subject, client),
        ]
    }

    pub(crate) fn moving(&self) -> Result<(Advance, GrantRecord), Broken> {
        let next = moved(&self.grant)?;
        let tokens = [token(&self.grant)?, token(&self.grant)?];
        let step = step_from(&self.grant, ChainUpdate::Move(Box::new(next.clone())), &tokens)?;
        Ok((step, next))
    }

    pub(crate) fn targets(&self) -> Vec<Target> {
        let (subject, client) = (self.grant.subject.clone(), self.grant.client.clone());
        vec![
            Target::Token { grant: self.grant.id, digest: self.token.digest },
            Target::Grant(self.grant.id),
            Target::Subject(subject.clone()),
            Target::Client(client.clone()),
            pair(&subject, &client),
        ]
    }
}

async fn a_lookup_that_fails_is_an_error(context: Context) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let store = &*filled.instance.tokens;
    let absent = lone(Epoch::default())?.id;
    filled.breaks().await?;
    for id in [filled.grant.id, filled.buried, absent] {
        is_outage("find", store.find(id, None).await)?;
        is_outage("find", store.find(id, Some(filled.token.digest)).await)?;
    }
    let keys: Vec<RuleKey> = filled.grant.rule_keys().to_vec();
    for keys in [vec![RuleKey::Client(client("other")?)], keys, vec![]] {
        is_outage("rules", store.rules(keys).await)?;
    }
    for of in filled.selectors() {
        let page = PageRequest { after: None, limit: 10 };
        is_outage("list", store.list(of, page, NOW).await)?;
    }
    filled.bench.heal().await;
    let found = store.found(filled.grant.id, filled.token.digest).await?;
    same("the grant after an outage", &*found.grant, &filled.grant)?;
    same("its token", &found.token.as_deref(), &Some(&filled.token))?;
    ensure!(
        store.rule(RuleKey::Client(client("other")?)).await?.is_some(),
        "a rule is gone after an outage"
    );
    Ok(())
}

async fn a_write_that_fails_is_an_error(context: Context) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let store = &*filled.instance.tokens;
    let (step, _) = filled.moving()?;
    let attach = Advance { change: ChainUpdate::Attach, ..step.clone() };
    filled.breaks().await?;
    let new = lone(Epoch::new(u64::MAX / 2))?;
    is_outage("create", store.create(new, vec![]).await)?;
    let again = store.create(filled.grant.clone(), vec![filled.token.clone()]).await;
    is_outage("create", again)?;
    for step in [step, attach] {
        is_outage("advance", store.advance(step).await)?;
    }
    for target in filled.targets() {
        is_outage("revoke", store.revoke(revocation(target)).await)?;
    }
    is_outage("heartbeat", store.heartbeat(NOW, NOW + DAY).await)
}

async fn reading_the_log_that_fails_is_an_error(context: Context) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let store = &*filled.instance.tokens;
    filled.breaks().await?;
    for cursor in [Cursor::start(), filled.cursor.clone()] {
        is_outage("revocations", store.revocations(cursor, 10).await)?;
    }
    Ok(())
}

async fn housekeeping_that_fails_is_an_error(context: Context) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let store = &*filled.instance.tokens;
    let sweep = store.log().await?.first().map(|entry| entry.id);
    filled.breaks().await?;
    for sweep in [None, sweep] {
        let task = Housekeeping { now: NOW + 9 * DAY, before: NOW + 8 * DAY, limit: 10, sweep };
        is_outage("maintain", store.maintain(task).await)?;
    }
    filled.bench.heal().await;
    store.housekept(NOW + 8 * DAY).await?;
    let lookup = store.find(filled.grant.id, None).await?;
    same("a grant that ended", &lookup, &Lookup::Absent)
}

async fn a_status_that_fails_is_an_error(context: Context) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let store = &*filled.instance.tokens;
    let page = PageRequest { after: None, limit: 10 };
    let (status, scan) = (store.status(NOW).await?, store.scan(page).await?);
    filled.breaks().await?;
    // A store that says nothing of itself needs no database for that.
    if status != StoreStatus::default() {
        is_outage("status", store.status(NOW).await)?;
    }
    if scan.is_some() {
        is_outage("scan", store.scan(page).await)?;
    }
    Ok(())
}

async fn a_ring_that_fails_is_an_error(context: Context) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let keys = &*filled.instance.keys;
    filled.breaks().await?;
    is_outage("load", keys.load().await)?;
    is_outage("insert", keys.insert(key(1, "again")?).await)?;
    is_outage("insert", keys.insert(key(2, "two")?).await)?;
    is_outage("update", keys.update(rewritten(&filled.key, 1)?, 1).await)?;
    is_outage("delete", keys.delete(1, 1).await)?;
    filled.bench.heal().await;
    holds(keys, &[&filled.key]).await?;
    inserted(keys, &key(2, "two")?).await
}

async fn check_values_that_fail_are_an_error(context: Context) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let (tokens, keys) = (&*filled.instance.tokens, &*filled.instance.keys);
    filled.breaks().await?;
    is_outage("check_values", tokens.check_values().await)?;
    is_outage("check_values", keys.check_values().await)?;
    let value: Option<&[u8]> = Some(b"two");
    for expected in [None, Some(&b"one"[..])] {
        let answer = tokens.set_check_value("issuer", expected, value).await;
        is_outage("set_check_value", answer)?;
        is_outage("set_check_value", keys.set_check_value("ring", expected, value).await)?;
    }
    filled.bench.heal().await;
    stand(tokens, &[("issuer", b"one")]).await
}

/// That a call which stopped half-way failed, or told everything; whether it did.
fn whole_or_outage<T: Debug + PartialEq>(
    what: &str,
    answer: Result<T, StoreError>,
    whole: &T,
) -> Result<bool, Broken> {
    match answer {
        Ok(answer) => same(&format!("what `{what}` told, half-way"), &answer, whole).map(|()| true),
        answer => is_outage(what, answer).map(|()| false),
    }
}

async fn a_lookup_that_stopped_half_way_is_whole_or_an_error(
    context: Context,
) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let store = &*filled.instance.tokens;
    for _ in 0..4 {
        store.inserted(&grant("alice", "app", store.epoch().await?)?, &[]).await?;
    }
    let mut keys = Vec::new();
    for name in ["other", "third", "fourth"] {
        store.revoked(Target::Client(client(name)?)).await?;
        keys.push(RuleKey::Client(client(name)?));
    }
    let (id, digest) = (filled.grant.id, Some(filled.token.digest));
    let page = PageRequest { after: None, limit: 10 };
    let [of, ..] = filled.selectors();
    let found = store.find(id, digest).await?;
    let sorted = |rules: Rules| {
        let mut rules = rules.rules;
        rules.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        rules
    };
    let rules = sorted(store.rules(keys.clone()).await?);
    let listing = store.list(of.clone(), page, NOW).await?;
    // A batch may be short, if it says that more is waiting.
    let log = store.log().await?;
    let entries = |batch: RevocationBatch| match batch {
        RevocationBatch::Entries { entries, more, .. } => {
            if more && log.starts_with(&entries) {
                log.clone()
            } else {
                entries
            }
        }
        RevocationBatch::Gap => Vec::new(),
    };
    for after in 1..MAX_OPERATIONS {
        let fails = async || filled.bench.fail(Failing::After(after)).await;
        fails().await?;
        let mut all = whole_or_outage("find", store.find(id, digest).await, &found)?;
        fails().await?;
        let answer = store.rules(keys.clone()).await.map(sorted);
        all &= whole_or_outage("rules", answer, &rules)?;
        fails().await?;
        all &= whole_or_outage("list", store.list(of.clone(), page, NOW).await, &listing)?;
        fails().await?;
        let answer = store.revocations(Cursor::start(), 10).await.map(entries);
        all &= whole_or_outage("revocations", answer, &log)?;
        filled.bench.heal().await;
        if all {
            return Ok(());
        }
    }
    Ok(())
}

async fn a_ring_that_stopped_half_way_is_whole_or_an_error(context: Context) -> Result<(), Broken> {
    let filled = filled(&context).await?;
    let (tokens, keys) = (&*filled.instance.tokens, &*filled.instance.keys);
    inserted(keys, &key(2, "two")?).await?;
    set(tokens, "secret", None, Some(b"two")).await?;
    let (ring, values) = (keys.load().await?, tokens.check_values().await?);
    for after in 1..MAX_OPERATIONS {
        let fails = async || filled.bench.fail(Failing::After(after)).await;
        fails().await?;
        let mut all = whole_or_outage("load", keys.load().await, &ring)?;
        fails().await?;
        all &= whole_or_outage("check_values", tokens.check_values().await, &values)?;
        filled.bench.heal().await;
        if all {
            return Ok(());
        }
    }
    Ok(())
}
