//! `create` when a rule or a tombstone is already there.

use cloakroom_core::revocation::{Epoch, Revocation, Target};
use cloakroom_core::store::{ChainUpdate, CreateOutcome, Lookup, TokenStoreExt};
use cloakroom_core::{GrantId, Random, Subject};

use crate::Context;
use crate::ask::{Ask, barred_and_dead, ensure, same};
use crate::fixtures::{
    COVERING, DAY, MINUTE, NOW, client, grant, moved, pair, revocation, subject, token,
};
use crate::report::Broken;

checks! { "contract::create_barred":
    a_rule_of_the_subject_bars => CreateBarredByRule,
    a_rule_of_the_client_bars => CreateBarredByRule,
    a_rule_of_the_pair_bars => CreateBarredByRule,
    a_rule_bars_up_to_its_bound => CreateBarredByRule,
    a_rule_of_others_does_not_bar => CreateLoginAfter,
    the_login_right_after_lives => CreateLoginAfter,
    the_login_after_a_clock_went_back_lives => CreateLoginAfter,
    a_tombstone_bars => CreateBarredByTombstone,
    a_tombstone_bars_whatever_the_epoch => CreateBarredByTombstone,
    a_tombstone_bars_its_own_id_alone => CreateBarredByTombstone,
    a_retry_before_the_sweep_comes_by_is_barred => CreateRetry,
}

/// Revokes, then tries grants of "alice" at "app" at and around the bound.
async fn bars_what_is_covered(context: Context, target: Target) -> Result<(), Broken> {
    let store = context.tokens().await;
    let before = store.epoch().await?;
    store.revoked(target.clone()).await?;
    let bound = store.bound_of(&target).await?;
    for epoch in [Epoch::default(), before, Epoch::new(bound.get() - 1), bound] {
        let grant = grant("alice", "app", epoch)?;
        let tokens = [token(&grant)?, token(&grant)?];
        barred_and_dead(&*store, &grant, &tokens).await?;
    }
    let later = grant("alice", "app", bound.following())?;
    let tokens = [token(&later)?];
    store.inserted(&later, &tokens).await?;
    same("the later grant", &store.grant(later.id).await?, &later)
}

async fn a_rule_of_the_subject_bars(context: Context) -> Result<(), Broken> {
    bars_what_is_covered(context, Target::Subject(subject("alice")?)).await
}

async fn a_rule_of_the_client_bars(context: Context) -> Result<(), Broken> {
    bars_what_is_covered(context, Target::Client(client("app")?)).await
}

async fn a_rule_of_the_pair_bars(context: Context) -> Result<(), Broken> {
    bars_what_is_covered(context, pair(&subject("alice")?, &client("app")?)).await
}

async fn a_rule_bars_up_to_its_bound(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    // Three rules about one grant: the newest bound among them counts.
    let (alice, app) = (subject("alice")?, client("app")?);
    let targets = [Target::Client(app.clone()), pair(&alice, &app), Target::Subject(alice)];
    for target in targets {
        store.revoked(target.clone()).await?;
        let bound = store.bound_of(&target).await?;
        let covered = grant("alice", "app", bound)?;
        barred_and_dead(&*store, &covered, &[]).await?;
        let after = grant("alice", "app", bound.following())?;
        store.inserted(&after, &[]).await?;
    }
    Ok(())
}

async fn a_rule_of_others_does_not_bar(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let (alice, app) = (subject("alice")?, client("app")?);
    for target in [
        Target::Subject(subject("bob")?),
        Target::Subject(Subject::client("alice")?),
        Target::Subject(Subject::client("app")?),
        Target::Subject(subject("app")?),
        Target::Client(client("other")?),
        Target::Client(client("alice")?),
        pair(&alice, &client("other")?),
        pair(&subject("bob")?, &app),
        pair(&subject("app")?, &client("alice")?),
    ] {
        store.revoked(target).await?;
        let grant = grant("alice", "app", epoch)?;
        store.inserted(&grant, &[]).await?;
        ensure!(
            store.is_unrevoked(grant.id).await?,
            "a grant that no revocation covers is revoked"
        );
    }
    Ok(())
}

async fn the_login_right_after_lives(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for target in [
        Target::Subject(subject("alice")?),
        Target::Client(client("app")?),
        pair(&subject("alice")?, &client("app")?),
    ] {
        store.revoked(target).await?;
        let login = grant("alice", "app", store.epoch().await?)?;
        let first = token(&login)?;
        store.inserted(&login, std::slice::from_ref(&first)).await?;
        let found = store.found(login.id, first.digest).await?;
        same("the new grant", &*found.grant, &login)?;
        same("its token", &found.token.as_deref(), &Some(&first))?;
        let next = ChainUpdate::Move(Box::new(moved(&login)?));
        store.advanced(&login, next, &[]).await?;
    }
    Ok(())
}

async fn the_login_after_a_clock_went_back_lives(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let target = Target::Subject(subject("alice")?);
    for at in [NOW, NOW - DAY, NOW - 2 * DAY] {
        let old = grant("alice", "app", store.epoch().await?)?;
        store.inserted(&old, &[]).await?;
        let revocation = Revocation { at, ..revocation(target.clone()) };
        store.revoked_as(revocation).await?;
        ensure!(
            !store.is_unrevoked(old.id).await?,
            "a grant from before the revocation outlived it"
        );
        let login = grant("alice", "app", store.epoch().await?)?;
        store.inserted(&login, &[]).await?;
        ensure!(store.is_unrevoked(login.id).await?, "the login after the revocation is revoked");
    }
    Ok(())
}

async fn a_tombstone_bars(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    store.revoked(Target::Grant(grant.id)).await?;
    let tokens = [token(&grant)?];
    for _ in 0..2 {
        barred_and_dead(&*store, &grant, &tokens).await?;
    }
    Ok(())
}

async fn a_tombstone_bars_whatever_the_epoch(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let late = grant("alice", "app", Epoch::new((NOW + DAY).as_millis()))?;
    let end = Revocation::new(Target::Grant(late.id), NOW, NOW + MINUTE);
    store.revoked_as(end).await?;
    barred_and_dead(&*store, &late, &[]).await
}

async fn a_tombstone_bars_its_own_id_alone(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let id = GrantId::random(&Random::system())?;
    store.revoked(Target::Grant(id)).await?;
    // Neighbours of the id: its first, last and middle byte changed.
    for place in [0, 7, 15] {
        let mut bytes = *id.as_bytes();
        bytes[place] ^= 1;
        let mut near = grant("alice", "app", epoch)?;
        near.id = GrantId::from_bytes(bytes);
        same("a grant that nobody revoked", &store.find(near.id, None).await?, &Lookup::Absent)?;
        store.inserted(&near, &[]).await?;
    }
    same("the tombstone", &store.find(id, None).await?, &Lookup::Tombstone)
}

async fn a_retry_before_the_sweep_comes_by_is_barred(context: Context) -> Result<(), Broken> {
    for target in COVERING {
        let store = context.tokens().await;
        let grant = grant("alice", "app", store.epoch().await?)?;
        let tokens = vec![token(&grant)?];
        store.inserted(&grant, &tokens).await?;
        // A store that leaves its sweep to `maintain` has not flagged the grant yet: the rule alone
        // stands against the retry.
        let _ = store.revoke(revocation(target(&grant))).await?;
        for _ in 0..2 {
            let answer = store.create(grant.clone(), tokens.clone()).await?;
            same("the answer to the retry", &answer, &CreateOutcome::Barred)?;
            ensure!(!store.is_unrevoked(grant.id).await?, "a grant that was barred lives");
        }
    }
    Ok(())
}
