//! A revocation has two ends: of its log entry, and of its rule.

use cloakroom_core::revocation::{Epoch, LogEvent, Revocation, Rule, RuleKey, Target};
use cloakroom_core::store::{Lookup, TokenStore};
use cloakroom_core::{GrantId, Jti, Kid, Random};

use crate::Context;
use crate::ask::{Ask, barred_and_dead, ensure, same};
use crate::checks::contract::maintain::MILLISECOND;
use crate::fixtures::{DAY, NOW, client, grant, pair, revocation, subject};
use crate::report::Broken;

checks! { "contract::rule_ends":
    an_entry_and_its_rule_say_their_own_ends => RevokeRules,
    the_later_end_of_two_rules_stays => RevokeRules,
    an_entry_says_its_own_end => RevokeLogged,
    a_rule_outlives_its_entry => MaintainRules,
    a_rule_bars_when_its_entry_is_gone => MaintainRules,
    a_rule_goes_at_its_end => MaintainRules,
    an_entry_goes_before_its_rule => MaintainDeletes,
    a_tombstone_goes_with_its_entry => MaintainDeletes,
}

/// One target of each kind that leaves a rule.
fn targets() -> Result<[Target; 5], Broken> {
    let (alice, app) = (subject("alice")?, client("app")?);
    Ok([
        Target::Subject(alice.clone()),
        Target::Client(app.clone()),
        pair(&alice, &app),
        Target::Jti(Jti::new("alice")?),
        Target::Key(Kid::new("alice")?),
    ])
}

/// Its entry matters for a day, its rule for three.
fn two_ends(target: Target) -> Revocation {
    Revocation { until: NOW + DAY, rule_until: NOW + 3 * DAY, ..revocation(target) }
}

/// All of them revoked, and a newer entry that stays.
async fn revoked(store: &dyn TokenStore) -> Result<Vec<RuleKey>, Broken> {
    let mut keys = Vec::new();
    for target in targets()? {
        store.revoked_as(two_ends(target.clone())).await?;
        keys.extend(target.rule_key());
    }
    store.heartbeat(NOW, NOW + 9 * DAY).await?;
    Ok(keys)
}

async fn rules(store: &dyn TokenStore, keys: &[RuleKey]) -> Result<Vec<Rule>, Broken> {
    Ok(store.rules(keys.to_vec()).await?.rules)
}

async fn an_entry_and_its_rule_say_their_own_ends(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let keys = revoked(&*store).await?;
    for rule in rules(&*store, &keys).await? {
        same("the rule's end", &rule.until, &(NOW + 3 * DAY))?;
    }
    Ok(())
}

async fn the_later_end_of_two_rules_stays(context: Context) -> Result<(), Broken> {
    for days in [[2, 5], [5, 2]] {
        let store = context.tokens().await;
        for target in targets()? {
            for days in days {
                let rule_until = NOW + days * DAY;
                let revocation = Revocation { rule_until, ..two_ends(target.clone()) };
                store.revoked_as(revocation).await?;
            }
            let key = target.rule_key().ok_or("the target leaves no rule")?;
            let rule = store.rule(key).await?.ok_or("there is no rule")?;
            same("the rule's end", &rule.until, &(NOW + 5 * DAY))?;
        }
    }
    Ok(())
}

async fn an_entry_says_its_own_end(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    revoked(&*store).await?;
    let mut ends = Vec::new();
    for entry in store.log().await? {
        if matches!(entry.event, LogEvent::Revoked { .. }) {
            ends.push(entry.until);
        }
    }
    same("the ends of the entries", &ends, &vec![NOW + DAY; 5])
}

async fn a_rule_outlives_its_entry(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let keys = revoked(&*store).await?;
    for before in [NOW + DAY + MILLISECOND, NOW + 2 * DAY, NOW + 3 * DAY] {
        store.housekept(before).await?;
        let left = rules(&*store, &keys).await?;
        same("how many rules are left", &left.len(), &keys.len())?;
    }
    Ok(())
}

async fn a_rule_bars_when_its_entry_is_gone(context: Context) -> Result<(), Broken> {
    for target in &targets()?[..3] {
        let store = context.tokens().await;
        store.revoked_as(two_ends(target.clone())).await?;
        let bound = store.bound_of(target).await?;
        store.heartbeat(NOW, NOW + 9 * DAY).await?;
        store.housekept(NOW + 2 * DAY).await?;
        // A `create` that began before the revocation, and took long.
        for epoch in [Epoch::new(bound.get() / 2), bound] {
            barred_and_dead(&*store, &grant("alice", "app", epoch)?, &[]).await?;
        }
        store.inserted(&grant("alice", "app", bound.following())?, &[]).await?;
    }
    Ok(())
}

async fn a_rule_goes_at_its_end(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let keys = revoked(&*store).await?;
    store.housekept(NOW + 3 * DAY + MILLISECOND).await?;
    same("the rules that are left", &rules(&*store, &keys).await?, &vec![])
}

async fn an_entry_goes_before_its_rule(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    revoked(&*store).await?;
    store.housekept(NOW + DAY).await?;
    same("how many entries there are", &store.log().await?.len(), &6)?;
    store.housekept(NOW + DAY + MILLISECOND).await?;
    let left = store.log().await?;
    ensure!(
        matches!(&left[..], [entry] if entry.event == LogEvent::Heartbeat {}),
        "of entries that ended before their rules, and a heartbeat, the log holds {left:?}"
    );
    Ok(())
}

async fn a_tombstone_goes_with_its_entry(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let id = GrantId::random(&Random::system())?;
    store.revoked_as(two_ends(Target::Grant(id))).await?;
    store.housekept(NOW + DAY).await?;
    same("the tombstone", &store.find(id, None).await?, &Lookup::Tombstone)?;
    store.housekept(NOW + DAY + MILLISECOND).await?;
    same("a tombstone past its end", &store.find(id, None).await?, &Lookup::Absent)
}
