//! `revoke`: it is visible at once, logged and idempotent, and works before its grant exists.

use std::time::Duration;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{LogEvent, Revocation, RuleKey, Target};
use cloakroom_core::store::{ChainUpdate, Lookup, Selector, TokenStore, TokenStoreExt};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Jti, Kid, Random};

use crate::Context;
use crate::ask::{Ask, ensure, same};
use crate::fixtures::{
    DAY, MINUTE, NOW, client, grant, moved, pair, revocation, stranger, subject, token,
};
use crate::report::Broken;

checks! { "contract::revoke":
    a_revoked_grant_is_seen_at_once => RevokeVisible,
    a_revoked_token_is_seen_at_once => RevokeVisible,
    only_the_token_named_is_revoked => RevokeVisible,
    a_revoked_token_stays_revoked_when_the_chain_moves => RevokeVisible,
    an_expired_grant_can_be_revoked => RevokeVisible,
    what_is_absent_can_be_revoked => RevokeIdempotent,
    every_target_is_logged => RevokeLogged,
    entries_differ_even_where_targets_do_not => RevokeLogged,
    every_target_can_be_revoked_twice => RevokeIdempotent,
    an_absent_grant_gets_a_tombstone => RevokeTombstone,
    an_absent_grant_can_be_revoked_twice => RevokeTombstone,
}

async fn with_token(store: &dyn TokenStore) -> Result<(GrantRecord, TokenRecord), Broken> {
    let grant = grant("alice", "app", store.epoch().await?)?;
    let token = token(&grant)?;
    store.inserted(&grant, std::slice::from_ref(&token)).await?;
    Ok((grant, token))
}

/// One of each kind, about a grant that is there.
fn every_target(grant: &GrantRecord, token: &TokenRecord) -> Result<[Target; 7], Broken> {
    Ok([
        Target::Token { grant: grant.id, digest: token.digest },
        Target::Jti(Jti::random(&Random::system())?),
        Target::Key(Kid::new("a key")?),
        Target::Grant(grant.id),
        pair(&grant.subject, &grant.client),
        Target::Client(grant.client.clone()),
        Target::Subject(grant.subject.clone()),
    ])
}

async fn a_revoked_grant_is_seen_at_once(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let (one, _) = with_token(&*store).await?;
    let (other, _) = with_token(&*store).await?;
    store.revoked(Target::Grant(one.id)).await?;
    ensure!(!store.is_unrevoked(one.id).await?, "the revoked grant is live");
    same("the other grant", &store.grant(other.id).await?, &other)?;
    let of = Selector::Subject(one.subject);
    let listed = store.listed_ids(of, NOW).await?;
    same("the listing", &listed, &vec![other.id])
}

async fn a_revoked_token_is_seen_at_once(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let (grant, revoked) = with_token(&*store).await?;
    let sibling = token(&grant)?;
    store.advanced(&grant, ChainUpdate::Attach, std::slice::from_ref(&sibling)).await?;
    let target = Target::Token { grant: grant.id, digest: revoked.digest };
    store.revoked(target).await?;
    let found = store.found(grant.id, revoked.digest).await?;
    same("its grant", &*found.grant, &grant)?;
    ensure!(
        found.token.is_some_and(|token| token.revoked_at.is_some()),
        "the revoked token is live"
    );
    let found = store.found(grant.id, sibling.digest).await?.token;
    same("its sibling", &found.as_deref(), &Some(&sibling))
}

async fn only_the_token_named_is_revoked(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let (one, one_token) = with_token(&*store).await?;
    let (other, other_token) = with_token(&*store).await?;
    // The other's token under this grant's name: there is no such token.
    for digest in [other_token.digest, stranger()?] {
        let target = Target::Token { grant: one.id, digest };
        store.revoked(target).await?;
    }
    for (grant, token) in [(&one, &one_token), (&other, &other_token)] {
        let found = store.found(grant.id, token.digest).await?;
        same("a grant nobody revoked", &*found.grant, grant)?;
        let found = found.token;
        same("a token nobody revoked", &found.as_deref(), &Some(token))?;
    }
    Ok(())
}

async fn a_revoked_token_stays_revoked_when_the_chain_moves(
    context: Context,
) -> Result<(), Broken> {
    let store = context.tokens().await;
    let (grant, token) = with_token(&*store).await?;
    let target = Target::Token { grant: grant.id, digest: token.digest };
    store.revoked(target).await?;
    let next = ChainUpdate::Move(Box::new(moved(&grant)?));
    store.advanced(&grant, next, &[]).await?;
    let found = store.found(grant.id, token.digest).await?;
    ensure!(
        found.token.is_some_and(|token| token.revoked_at.is_some()),
        "the revoked token is live again"
    );
    Ok(())
}

async fn an_expired_grant_can_be_revoked(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let (grant, _) = with_token(&*store).await?;
    let (at, until) = (grant.row_expires_at + DAY, grant.row_expires_at + 2 * DAY);
    let late = Revocation::new(Target::Grant(grant.id), at, until);
    store.revoked_as(late).await?;
    ensure!(!store.is_unrevoked(grant.id).await?, "the expired grant was revoked, and is not");
    Ok(())
}

async fn what_is_absent_can_be_revoked(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let absent = grant("nobody", "nothing", store.epoch().await?)?;
    let absent_token = token(&absent)?;
    let (present, present_token) = with_token(&*store).await?;
    for target in every_target(&absent, &absent_token)? {
        store.revoked(target).await?;
    }
    let found = store.found(present.id, present_token.digest).await?;
    same("a grant nobody revoked", &*found.grant, &present)?;
    let token = found.token;
    same("a token nobody revoked", &token.as_deref(), &Some(&present_token))
}

async fn every_target_is_logged(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let (grant, token) = with_token(&*store).await?;
    let targets = every_target(&grant, &token)?;
    for (place, target) in targets.iter().enumerate() {
        let tick = Duration::from_millis(place as u64);
        let revocation = Revocation::new(target.clone(), NOW + tick, NOW + DAY + 2 * tick);
        store.revoked_as(revocation.clone()).await?;
        let log = store.log().await?;
        let of_target: Vec<_> = log
            .iter()
            .filter(|entry| {
                matches!(&entry.event, LogEvent::Revoked { target: own, .. } if own == target)
            })
            .collect();
        let [entry] = of_target[..] else {
            return Err(format!("the log holds {target:?} {} times", of_target.len()).into());
        };
        same("the entry's time", &entry.at, &revocation.at)?;
        same("the entry's end", &entry.until, &revocation.until)?;
        let has_bound = matches!(entry.event, LogEvent::Revoked { bound: Some(_), .. });
        ensure!(
            has_bound == target.has_bound(),
            "the entry of {target:?} {} a bound",
            if has_bound { "has" } else { "lacks" }
        );
    }
    Ok(())
}

async fn entries_differ_even_where_targets_do_not(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for _ in 0..20 {
        store.revoked(Target::Subject(subject("alice")?)).await?;
        store.heartbeat(NOW, NOW + DAY).await?;
    }
    let log = store.log().await?;
    for (place, entry) in log.iter().enumerate() {
        let is_new = log[..place].iter().all(|earlier| earlier.id != entry.id);
        ensure!(is_new, "two entries have the id {:?}", entry.id);
    }
    ensure!(log.len() == 40, "of 20 revocations and 20 heartbeats the log holds {}", log.len());
    Ok(())
}

async fn every_target_can_be_revoked_twice(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let (grant, token) = with_token(&*store).await?;
    for target in every_target(&grant, &token)? {
        store.revoked(target.clone()).await?;
        let once = store.found(grant.id, token.digest).await?;
        let rule_once = match target.rule_key() {
            Some(key) => store.rule(key).await?,
            None => None,
        };
        store.revoked(target.clone()).await?;
        let twice = store.found(grant.id, token.digest).await?;
        same("the grant, revoked again", &twice.grant, &once.grant)?;
        same("the token, revoked again", &twice.token, &once.token)?;
        if let (Some(key), Some(once)) = (target.rule_key(), rule_once) {
            let twice = store.rule(key).await?.ok_or("the rule is gone")?;
            same("the rule's end", &twice.until, &once.until)?;
            ensure!(
                twice.bound.is_some() == once.bound.is_some() && twice.bound >= once.bound,
                "the rule's bound went from {:?} to {:?}",
                once.bound,
                twice.bound
            );
        }
    }
    Ok(())
}

async fn an_absent_grant_gets_a_tombstone(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let absent = grant("alice", "app", store.epoch().await?)?;
    // In the past by the store's own clock, in the present, in the future.
    for at in [UnixTime::from_secs(1_000_000_000), NOW, NOW + 9 * DAY] {
        let id = grant("alice", "app", absent.epoch)?.id;
        store.revoked_as(Revocation::new(Target::Grant(id), at, at + DAY)).await?;
        let lookup = store.find(id, None).await?;
        same("the absent grant", &lookup, &Lookup::Tombstone)?;
    }
    for of in [Selector::Subject(absent.subject), Selector::Client(absent.client)] {
        let listed = store.listed_ids(of, NOW).await?;
        ensure!(listed.is_empty(), "a tombstone is listed");
    }
    Ok(())
}

async fn an_absent_grant_can_be_revoked_twice(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let absent = grant("alice", "app", store.epoch().await?)?;
    // The one with the later end comes first: the tombstone has to stay for both.
    for until in [NOW + 2 * DAY, NOW + DAY, NOW + MINUTE] {
        let revocation =
            Revocation { until, rule_until: until, ..revocation(Target::Grant(absent.id)) };
        store.revoked_as(revocation).await?;
    }
    store.housekept(NOW + DAY + MINUTE).await?;
    let lookup = store.find(absent.id, None).await?;
    same("the absent grant", &lookup, &Lookup::Tombstone)?;
    let rule = store.rule(RuleKey::Client(client("app")?)).await?;
    ensure!(rule.is_none(), "the revocation of a grant left {rule:?}");
    Ok(())
}
