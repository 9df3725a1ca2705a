//! Concurrent revocations of subjects, clients and pairs: their bounds, and which grants stay live.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{
    Cursor, Epoch, LogEntry, LogEvent, Revocation, RevocationBatch, Target,
};
use cloakroom_core::store::{CreateOutcome, TokenStore, TokenStoreExt};

use crate::Context;
use crate::ask::{Ask, ensure, same};
use crate::fixtures::{DAY, NOW, client, grant, lone, pair, revocation, subject, token};
use crate::pace::{Interleavings, at_once};
use crate::reading::{bounded, covers_its_entries, read_on};
use crate::report::Broken;

checks! { "races::revoke":
    bounds_grow_when_two_revocations_cross => RevokeBounds,
    bounds_grow_when_many_revoke => RevokeBounds,
    two_revocations_of_one_subject_leave_the_later_rule => RevokeRules,
    a_revocation_told_twice_at_once_is_one => RevokeIdempotent,
    no_batch_tells_a_bound_older_than_its_entries => RevokeBounds,
    no_answer_tells_a_bound_older_than_its_rules => RulesAnswer,
    nothing_covered_survives_a_storm => CreateBarredByOverlap,
    nothing_newer_falls_in_a_storm => CreateLoginAfter,
    a_login_beside_its_revocation_is_told_the_truth => CreateBarredByOverlap,
}

/// The entries of revocations that have a bound, each once, in the order of the log.
async fn bounds(store: &dyn TokenStore) -> Result<Vec<(LogEntry, Target, Epoch)>, Broken> {
    let mut known = HashSet::new();
    let mut bounds = Vec::new();
    for entry in store.log().await? {
        let LogEvent::Revoked { target, bound, .. } = entry.event.clone() else { continue };
        if !target.has_bound() || !known.insert(entry.id) {
            continue;
        }
        let bound = bound.ok_or_else(|| format!("the entry of {target:?} has no bound"))?;
        bounds.push((entry, target, bound));
    }
    Ok(bounds)
}

/// That each bound is newer than those before it in the log, and than its revocation's own time.
async fn bounds_grow(store: &dyn TokenStore, count: usize) -> Result<(), Broken> {
    let bounds = bounds(store).await?;
    ensure!(
        bounds.len() == count,
        "{count} revocations were acknowledged; the log holds {}",
        bounds.len()
    );
    for pair in bounds.windows(2) {
        ensure!(
            pair[0].2 < pair[1].2,
            "in the log, bound {:?} is followed by {:?}",
            pair[0].2,
            pair[1].2
        );
    }
    for (entry, target, bound) in &bounds {
        ensure!(
            bound.get() >= entry.at.as_millis(),
            "the bound of {target:?}, {bound:?}, is older than its time, {:?}",
            entry.at
        );
    }
    let newest = store.newest_bound().await?;
    let last = bounds.last().map_or(Epoch::default(), |(_, _, bound)| *bound);
    ensure!(newest >= last, "the newest bound is {newest:?}, and an entry has {last:?}");
    Ok(())
}

async fn bounds_grow_when_two_revocations_cross(context: Context) -> Result<(), Broken> {
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let store = context.tokens().await;
        let of_alice = revocation(Target::Subject(subject("alice")?));
        // By another node's clock, a day ahead or behind.
        let at = if orders.round().is_multiple_of(2) { NOW + DAY } else { NOW - DAY };
        let of_app = Revocation { at, ..revocation(Target::Client(client("app")?)) };
        let (one, two) = orders.play(store.revoke(of_alice), store.revoke(of_app)).await?;
        store.swept(one?).await?;
        store.swept(two?).await?;
        bounds_grow(&*store, 2).await?;
    }
    Ok(())
}

async fn bounds_grow_when_many_revoke(context: Context) -> Result<(), Broken> {
    const TASKS: usize = 16;
    const EACH: usize = 10;
    let store = context.tokens().await;
    at_once(TASKS, |task| {
        let store = Arc::clone(&store);
        async move {
            for round in 0..EACH {
                let (someone, app) = (subject(&format!("user-{task}"))?, client("app")?);
                let target = match round % 3 {
                    0 => Target::Subject(someone),
                    1 => Target::Client(app),
                    _ => pair(&someone, &app),
                };
                // No two nodes' clocks agree.
                let at = NOW + Duration::from_millis((task * 7 + round * 3) as u64 % 50);
                store.revoked_as(Revocation { at, ..revocation(target) }).await?;
            }
            Ok(())
        }
    })
    .await?;
    bounds_grow(&*store, TASKS * EACH).await
}

async fn two_revocations_of_one_subject_leave_the_later_rule(
    context: Context,
) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let target = Target::Subject(lone(Epoch::default())?.subject);
        let long = Revocation {
            until: NOW + 9 * DAY,
            rule_until: NOW + 9 * DAY,
            ..revocation(target.clone())
        };
        let short =
            Revocation { until: NOW + DAY, rule_until: NOW + DAY, ..revocation(target.clone()) };
        let (one, two) = orders.play(store.revoke(long), store.revoke(short)).await?;
        store.swept(one?).await?;
        store.swept(two?).await?;
        let newest = store.bound_of(&target).await?;
        let key = target.rule_key().ok_or("a subject without a rule")?;
        let rule = store.rule(key).await?.ok_or("both were acknowledged, and no rule is there")?;
        same("the rule's bound", &rule.bound, &Some(newest))?;
        same("the rule's end", &rule.until, &(NOW + 9 * DAY))?;
    }
    Ok(())
}

async fn a_revocation_told_twice_at_once_is_one(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for of in 0..3 {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let grant = lone(store.epoch().await?)?;
            let token = token(&grant)?;
            store.inserted(&grant, std::slice::from_ref(&token)).await?;
            let target = match of {
                0 => Target::Grant(grant.id),
                1 => Target::Token { grant: grant.id, digest: token.digest },
                _ => Target::Subject(grant.subject.clone()),
            };
            let revocation = revocation(target.clone());
            let tries = (store.revoke(revocation.clone()), store.revoke(revocation));
            let (one, two) = orders.play(tries.0, tries.1).await?;
            store.swept(one?).await?;
            store.swept(two?).await?;
            let found = store.found(grant.id, token.digest).await?;
            let grant_is_revoked = found.grant.revoked_at.is_some();
            let token_is_revoked = found.token.is_some_and(|token| token.revoked_at.is_some());
            ensure!(
                if of == 1 { token_is_revoked && !grant_is_revoked } else { grant_is_revoked },
                "after both, grant revoked: {grant_is_revoked}, token revoked: {token_is_revoked}"
            );
            let is_logged = store.log().await?.iter().any(|entry| {
                matches!(&entry.event, LogEvent::Revoked { target: own, .. } if *own == target)
            });
            ensure!(is_logged, "the log does not hold {target:?}");
        }
    }
    Ok(())
}

async fn no_batch_tells_a_bound_older_than_its_entries(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut orders = Interleavings::new(&context);
    let mut cursor = Cursor::start();
    while orders.again() {
        let revoke = store.revoke(bounded()?);
        let (batch, revoked) = orders.play(store.revocations(cursor.clone(), 100), revoke).await?;
        store.swept(revoked?).await?;
        if let RevocationBatch::Entries { entries, newest_bound, .. } = batch? {
            covers_its_entries(&entries, newest_bound)?;
        }
        cursor = read_on(&*store, cursor, 100).await?.1;
    }
    Ok(())
}

async fn no_answer_tells_a_bound_older_than_its_rules(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut orders = Interleavings::new(&context);
    let target = Target::Subject(subject("alice")?);
    let keys: Vec<_> = target.rule_key().into_iter().collect();
    while orders.again() {
        let revoke = store.revoke(revocation(target.clone()));
        let (answer, revoked) = orders.play(store.rules(keys.clone()), revoke).await?;
        store.swept(revoked?).await?;
        let answer = answer?;
        for rule in &answer.rules {
            ensure!(
                rule.bound <= Some(answer.newest_bound),
                "`rules` returned {rule:?}, and tells {:?} as the newest bound",
                answer.newest_bound
            );
        }
    }
    Ok(())
}

/// What a storm of logins and revocations left: every grant that was answered, with its answer.
struct Storm {
    store: Arc<dyn TokenStore>,
    created: Vec<(GrantRecord, CreateOutcome)>,
}

const USERS: usize = 3;

/// Tasks that log in, each with the epoch that it read first, beside tasks that revoke.
async fn storm(context: &Context) -> Result<Storm, Broken> {
    let store = context.tokens().await;
    let created = at_once(12, |task| {
        let store = Arc::clone(&store);
        async move {
            let mut created = Vec::new();
            for round in 0..20 {
                let user = format!("user-{}", (task + round) % USERS);
                let app = format!("app-{}", round % 2);
                if task % 4 == 0 {
                    let (user, app) = (subject(&user)?, client(&app)?);
                    let target = match round % 5 {
                        0..=2 => Target::Subject(user),
                        3 => pair(&user, &app),
                        _ => Target::Client(app),
                    };
                    store.revoked(target).await?;
                    continue;
                }
                let grant = grant(&user, &app, store.epoch().await?)?;
                if round % 3 == 0 {
                    // A slow login.
                    tokio::task::yield_now().await;
                }
                let tokens = vec![token(&grant)?];
                let mut answer = store.create(grant.clone(), tokens.clone()).await?;
                if round % 4 == 0 {
                    answer = store.create(grant.clone(), tokens).await?;
                }
                created.push((grant, answer));
            }
            Ok(created)
        }
    });
    let created = created.await?.into_iter().flatten().collect();
    Ok(Storm { store, created })
}

impl Storm {
    /// The newest bound of a revocation that covers this grant's subject, client or both.
    fn bound(&self, grant: &GrantRecord, bounds: &[(LogEntry, Target, Epoch)]) -> Option<Epoch> {
        let covers = |target: &Target| match target {
            Target::Subject(subject) => *subject == grant.subject,
            Target::Client(client) => *client == grant.client,
            Target::SubjectAtClient(subject, client) => {
                *subject == grant.subject && *client == grant.client
            }
            _ => false,
        };
        bounds.iter().filter(|(_, target, _)| covers(target)).map(|(_, _, bound)| *bound).max()
    }
}

async fn nothing_covered_survives_a_storm(context: Context) -> Result<(), Broken> {
    let storm = storm(&context).await?;
    let bounds = bounds(&*storm.store).await?;
    for (grant, answer) in &storm.created {
        let bound = storm.bound(grant, &bounds);
        if bound.is_some_and(|bound| grant.epoch <= bound) {
            ensure!(
                !storm.store.is_unrevoked(grant.id).await?,
                "a grant of {:?}, epoch {:?}, was answered {answer:?} and lives under bound {bound:?}",
                grant.subject,
                grant.epoch
            );
        }
    }
    Ok(())
}

async fn nothing_newer_falls_in_a_storm(context: Context) -> Result<(), Broken> {
    let storm = storm(&context).await?;
    let bounds = bounds(&*storm.store).await?;
    for (grant, answer) in &storm.created {
        let bound = storm.bound(grant, &bounds);
        if bound.is_none_or(|bound| grant.epoch > bound) {
            ensure!(
                *answer == CreateOutcome::Inserted && storm.store.is_unrevoked(grant.id).await?,
                "a grant of {:?}, epoch {:?}, was answered {answer:?} and is dead; no revocation \
                 covers it, the newest bound is {bound:?}",
                grant.subject,
                grant.epoch
            );
        }
    }
    Ok(())
}

async fn a_login_beside_its_revocation_is_told_the_truth(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for login_first in [true, false] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let lone = lone(Epoch::default())?;
            let target = Target::Subject(lone.subject.clone());
            // The whole login, from the reading of its epoch on.
            let login = async {
                let mut grant = lone.clone();
                grant.epoch = store.epoch().await?;
                let created = store.create(grant.clone(), vec![token(&grant)?]).await?;
                Ok::<_, Broken>((grant, created))
            };
            let revoke = store.revoke(revocation(target.clone()));
            let (login, revoked) = if login_first {
                orders.play(login, revoke).await?
            } else {
                let (revoked, login) = orders.play(revoke, login).await?;
                (login, revoked)
            };
            store.swept(revoked?).await?;
            let (grant, created) = login?;
            let bound = store.bound_of(&target).await?;
            let lives = store.is_unrevoked(grant.id).await?;
            ensure!(
                lives == (grant.epoch > bound),
                "a grant of epoch {:?} is {} after a revocation of bound {bound:?}",
                grant.epoch,
                if lives { "alive" } else { "dead" }
            );
            ensure!(
                !lives || created == CreateOutcome::Inserted,
                "a grant that lives was answered {created:?}"
            );
        }
    }
    Ok(())
}
