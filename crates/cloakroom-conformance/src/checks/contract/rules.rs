//! `rules`: the rule of each revocation, and its end.

use std::time::Duration;

use cloakroom_core::revocation::{Epoch, Revocation, Rule, RuleKey, Rules, Target};
use cloakroom_core::store::TokenStore;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Jti, Kid};

use crate::Context;
use crate::ask::{Ask, barred_and_dead, ensure, not_lowered, same};
use crate::fixtures::{DAY, MINUTE, NOW, client, grant, pair, revocation, subject};
use crate::report::Broken;

checks! { "contract::rules":
    a_new_store_has_no_rules => RulesAnswer,
    no_keys_get_the_newest_bound_alone => RulesAnswer,
    only_the_keys_asked_are_answered => RulesAnswer,
    a_key_asked_twice_is_answered_once => RulesAnswer,
    a_rule_past_its_end_is_answered => RulesAnswer,
    every_target_with_a_key_leaves_its_rule => RevokeRules,
    a_revocation_leaves_no_other_rule => RevokeRules,
    the_later_end_stays_in_either_order => RevokeRules,
    the_later_bound_stays_though_a_clock_went_back => RevokeRules,
    rules_stay_until_their_end => MaintainRules,
    a_rule_with_two_ends_stays_until_the_later => MaintainRules,
    a_rule_bars_until_its_end => MaintainRules,
    the_newest_bound_outlives_its_rule => MaintainRules,
}

const MILLISECOND: Duration = Duration::from_millis(1);

/// One target of each kind that leaves a rule.
fn targets() -> Result<[Target; 5], Broken> {
    Ok([
        Target::Subject(subject("alice")?),
        Target::Client(client("app")?),
        pair(&subject("alice")?, &client("app")?),
        Target::Jti(Jti::new("alice")?),
        Target::Key(Kid::new("alice")?),
    ])
}

fn key_of(target: &Target) -> Result<RuleKey, Broken> {
    Ok(target.rule_key().ok_or("the target leaves no rule")?)
}

fn keys() -> Result<Vec<RuleKey>, Broken> {
    targets()?.iter().map(key_of).collect()
}

/// The rule of a target that is revoked already, which must be there.
async fn rule_of(store: &dyn TokenStore, target: &Target) -> Result<Rule, Broken> {
    let rule = store.rule(key_of(target)?).await?;
    Ok(rule.ok_or_else(|| format!("there is no rule of {target:?}"))?)
}

fn sorted(answer: Rules) -> Vec<Rule> {
    let mut rules = answer.rules;
    rules.sort_by(|one, other| one.key.cmp(&other.key));
    rules
}

async fn a_new_store_has_no_rules(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let newest = store.newest_bound().await?;
    let answer = store.rules(keys()?).await?;
    same("the rules of a new store", &answer.rules, &vec![])?;
    not_lowered(newest, answer.newest_bound)
}

async fn no_keys_get_the_newest_bound_alone(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for target in targets()? {
        store.revoked(target).await?;
    }
    let bound = store.bound_of(&targets()?[2]).await?;
    let answer = store.rules(vec![]).await?;
    same("the rules for no keys", &answer.rules, &vec![])?;
    not_lowered(bound, answer.newest_bound)
}

async fn only_the_keys_asked_are_answered(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut all = Vec::new();
    for target in targets()? {
        store.revoked(target.clone()).await?;
        all.push(rule_of(&*store, &target).await?);
    }
    // Every selection of the five, among keys that have no rule.
    for selection in 0_u8..32 {
        let chosen = |place: usize| selection & (1 << place) != 0;
        let mut keys = vec![
            RuleKey::Subject(subject("bob")?),
            RuleKey::SubjectAtClient(subject("bob")?, client("app")?),
            RuleKey::Jti(Jti::new("bob")?),
        ];
        let mut should = Vec::new();
        for (place, rule) in all.iter().enumerate() {
            if chosen(place) {
                keys.insert(0, rule.key.clone());
                should.push(rule.clone());
            }
        }
        let newest = store.newest_bound().await?;
        let answer = store.rules(keys).await?;
        not_lowered(newest, answer.newest_bound)?;
        should.sort_by(|one, other| one.key.cmp(&other.key));
        same("the rules", &sorted(answer), &should)?;
    }
    Ok(())
}

async fn a_key_asked_twice_is_answered_once(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for target in targets()? {
        store.revoked(target.clone()).await?;
        let key = key_of(&target)?;
        let answer = store.rules(vec![key.clone(), key]).await?;
        ensure!(answer.rules.len() == 1, "a key asked twice got {:?}", answer.rules);
    }
    Ok(())
}

async fn a_rule_past_its_end_is_answered(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    // Past by the store's own clock, too: the engine judges the end, `maintain` removes.
    let at = UnixTime::from_secs(1_000_000_000);
    for target in targets()? {
        let revocation = Revocation::new(target.clone(), at, at + MINUTE);
        store.revoked_as(revocation).await?;
        same("its end", &rule_of(&*store, &target).await?.until, &(at + MINUTE))?;
    }
    Ok(())
}

async fn every_target_with_a_key_leaves_its_rule(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for target in targets()? {
        let revocation = revocation(target.clone());
        store.revoked_as(revocation.clone()).await?;
        let bound = match target.has_bound() {
            true => Some(store.bound_of(&target).await?),
            false => None,
        };
        let should = Rule { key: key_of(&target)?, bound, until: revocation.until };
        same("the rule", &rule_of(&*store, &target).await?, &should)?;
    }
    Ok(())
}

async fn a_revocation_leaves_no_other_rule(context: Context) -> Result<(), Broken> {
    for target in targets()? {
        let store = context.tokens().await;
        store.revoked(target.clone()).await?;
        let answer = store.rules(keys()?).await?;
        let rule = rule_of(&*store, &target).await?;
        same("the rules for all keys", &answer.rules, &vec![rule])?;
    }
    Ok(())
}

async fn the_later_end_stays_in_either_order(context: Context) -> Result<(), Broken> {
    for ends in [[NOW + DAY, NOW + 2 * DAY], [NOW + 2 * DAY, NOW + DAY], [NOW + DAY, NOW + DAY]] {
        let store = context.tokens().await;
        for target in targets()? {
            for until in ends {
                let revocation =
                    Revocation { until, rule_until: until, ..revocation(target.clone()) };
                store.revoked_as(revocation).await?;
            }
            let rule = rule_of(&*store, &target).await?;
            same("the rule's end", &rule.until, &ends[0].max(ends[1]))?;
            let newest = match target.has_bound() {
                true => Some(store.bound_of(&target).await?),
                false => None,
            };
            same("the rule's bound", &rule.bound, &newest)?;
        }
    }
    Ok(())
}

async fn the_later_bound_stays_though_a_clock_went_back(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for target in targets()?.into_iter().filter(Target::has_bound) {
        let mut bound = Epoch::default();
        for at in [NOW + DAY, NOW, NOW - DAY, NOW + 2 * DAY] {
            let revocation = Revocation::new(target.clone(), at, at + DAY);
            store.revoked_as(revocation).await?;
            let rule = rule_of(&*store, &target).await?;
            ensure!(
                rule.bound > Some(bound),
                "the rule's bound was {bound:?}, and after another revocation {:?}",
                rule.bound
            );
            bound = rule.bound.unwrap_or_default();
        }
        let rule = rule_of(&*store, &target).await?;
        same("the rule's end", &rule.until, &(NOW + 3 * DAY))?;
    }
    Ok(())
}

async fn rules_stay_until_their_end(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let end = NOW + DAY;
    let mut rules = Vec::new();
    for target in targets()? {
        let revocation = Revocation { until: end, rule_until: end, ..revocation(target.clone()) };
        store.revoked_as(revocation).await?;
        rules.push(rule_of(&*store, &target).await?);
    }
    rules.sort_by(|one, other| one.key.cmp(&other.key));
    let newest = store.newest_bound().await?;
    for before in [NOW, end - MILLISECOND, end] {
        store.housekept(before).await?;
        let answer = store.rules(keys()?).await?;
        same("the rules before their end", &sorted(answer), &rules)?;
    }
    store.housekept(end + MILLISECOND).await?;
    let answer = store.rules(keys()?).await?;
    not_lowered(newest, answer.newest_bound)?;
    same("the rules after their end", &answer.rules, &vec![])
}

async fn a_rule_with_two_ends_stays_until_the_later(context: Context) -> Result<(), Broken> {
    for ends in [[NOW + DAY, NOW + 2 * DAY], [NOW + 2 * DAY, NOW + DAY]] {
        let store = context.tokens().await;
        for target in targets()? {
            for until in ends {
                let revocation =
                    Revocation { until, rule_until: until, ..revocation(target.clone()) };
                store.revoked_as(revocation).await?;
            }
        }
        store.housekept(NOW + DAY + MINUTE).await?;
        let answer = store.rules(keys()?).await?;
        ensure!(
            answer.rules.len() == 5,
            "between their two ends only these rules are left: {:?}",
            answer.rules
        );
    }
    Ok(())
}

async fn a_rule_bars_until_its_end(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let target = Target::Subject(subject("alice")?);
    store.revoked(target.clone()).await?;
    let bound = store.bound_of(&target).await?;
    for before in [NOW, NOW + DAY, revocation(target).until] {
        store.housekept(before).await?;
        let late = grant("alice", "app", bound)?;
        barred_and_dead(&*store, &late, &[]).await?;
    }
    Ok(())
}

async fn the_newest_bound_outlives_its_rule(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let target = Target::Subject(subject("alice")?);
    // Far ahead of every clock, so that nothing but memory can know it.
    let at = NOW + 1_000 * DAY;
    store.revoked_as(Revocation::new(target.clone(), at, NOW + MINUTE)).await?;
    let bound = store.newest_bound().await?;
    store.heartbeat(NOW, NOW + MINUTE).await?;
    store.heartbeat(NOW, NOW + MINUTE).await?;
    store.housekept(NOW + DAY).await?;
    not_lowered(bound, store.newest_bound().await?)?;
    store.revoked(target.clone()).await?;
    let next = store.bound_of(&target).await?;
    ensure!(
        next > bound,
        "after the log was trimmed, the bound {bound:?} was followed by {next:?}"
    );
    Ok(())
}
