//! Large numbers of rows: more than any limit that a store might have by mistake.

use std::sync::Arc;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Cursor, RevocationBatch, RuleKey, Target};
use cloakroom_core::store::{ChainUpdate, Selector, TokenStore, TokenStoreExt};
use cloakroom_core::{GrantId, Jti};

use crate::Context;
use crate::ask::{Ask, ensure, same};
use crate::fixtures::{MINUTE, NOW, client, grant, moved, revocation, subject, token};
use crate::pace::at_once;
use crate::reading::read_on;
use crate::report::Broken;

checks! { "many":
    many_grants_are_listed => ListPages,
    many_grants_are_revoked => RevokeCovers,
    many_tokens_hang_off_a_grant => CreateAtomic,
    many_tokens_come_with_a_step => AdvanceWrites,
    many_rules_are_answered => RulesAnswer,
    many_entries_are_read => LogComplete,
    many_rows_are_deleted => MaintainDeletes,
}

const MANY: usize = 2_500;
const TASKS: usize = 10;

/// As many grants of one subject at one client, in the order of their ids; all have tokens to end.
async fn crowd(store: &Arc<dyn TokenStore>) -> Result<Vec<GrantRecord>, Broken> {
    let epoch = store.epoch().await?;
    let crowd = at_once(TASKS, |task| {
        let store = Arc::clone(store);
        async move {
            let mut grants = Vec::new();
            for number in 0..MANY / TASKS {
                let mut grant = grant("alice", "app", epoch)?;
                if (task + number).is_multiple_of(10) {
                    grant.expires_at = NOW;
                }
                store.inserted(&grant, &[]).await?;
                grants.push(grant);
            }
            Ok(grants)
        }
    });
    let mut crowd: Vec<_> = crowd.await?.into_iter().flatten().collect();
    crowd.sort_unstable_by_key(|grant| grant.id);
    Ok(crowd)
}

async fn many_grants_are_listed(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let crowd = crowd(&store).await?;
    let living = crowd.iter().filter(|grant| grant.is_live(NOW)).map(|grant| grant.id);
    let living: Vec<GrantId> = living.collect();
    let (alice, app) = (subject("alice")?, client("app")?);
    for (of, limit) in [
        (Selector::Subject(alice.clone()), u32::MAX),
        (Selector::Client(app.clone()), 1_000),
        (Selector::SubjectAtClient(alice, app), 7_000),
    ] {
        let listed = store.listed(of.clone(), limit, NOW).await?;
        let listed: Vec<_> = listed.iter().map(|grant| grant.id).collect();
        same(&format!("how many of {of:?} are listed"), &listed.len(), &living.len())?;
        same(&format!("the listing of {of:?}"), &listed, &living)?;
    }
    Ok(())
}

async fn many_grants_are_revoked(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let crowd = crowd(&store).await?;
    let bystander = grant("bob", "app", crowd[0].epoch)?;
    store.inserted(&bystander, &[]).await?;
    for grant in crowd.iter().step_by(100) {
        store.revoked(Target::Grant(grant.id)).await?;
    }
    store.revoked(Target::Subject(subject("alice")?)).await?;
    for grant in &crowd {
        ensure!(
            !store.is_unrevoked(grant.id).await?,
            "of {MANY} grants that were revoked together {:?} lives",
            grant.id
        );
    }
    same("a bystander's grant", &store.grant(bystander.id).await?, &bystander)
}

/// That the grant holds all of these.
async fn holds(
    store: &dyn TokenStore,
    grant: &GrantRecord,
    tokens: &[TokenRecord],
) -> Result<(), Broken> {
    for (place, token) in tokens.iter().enumerate() {
        let found = store.found(grant.id, token.digest).await?;
        ensure!(
            found.token.is_some(),
            "of {MANY} tokens that were inserted, number {place} is gone"
        );
        same("the token", &found.token.as_deref(), &Some(token))?;
    }
    Ok(())
}

async fn many_tokens_hang_off_a_grant(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    let tokens = (0..MANY).map(|_| token(&grant)).collect::<Result<Vec<_>, _>>()?;
    store.inserted(&grant, &tokens).await?;
    holds(&*store, &grant, &tokens).await?;
    // The retry knows each of them.
    store.inserted(&grant, &tokens).await?;
    let done = store.housekept(tokens[0].expires_at + MINUTE).await?;
    same("the number of tokens deleted", &done.tokens, &(MANY as u64))
}

async fn many_tokens_come_with_a_step(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    store.inserted(&grant, &[]).await?;
    let tokens = (0..MANY).map(|_| token(&grant)).collect::<Result<Vec<_>, _>>()?;
    let next = moved(&grant)?;
    let (with_move, attached) = tokens.split_at(MANY / 2);
    store.advanced(&grant, ChainUpdate::Move(Box::new(next.clone())), with_move).await?;
    store.advanced(&next, ChainUpdate::Attach, attached).await?;
    holds(&*store, &grant, &tokens).await
}

/// As many revoked JWTs, in no order.
async fn revoked_jtis(store: &Arc<dyn TokenStore>) -> Result<Vec<Jti>, Broken> {
    let jtis = at_once(TASKS, |task| {
        let store = Arc::clone(store);
        async move {
            let mut jtis = Vec::new();
            for number in 0..MANY / TASKS {
                let jti = Jti::new(format!("jti-{task}-{number}"))?;
                store.revoke(revocation(Target::Jti(jti.clone()))).await?;
                jtis.push(jti);
            }
            Ok(jtis)
        }
    });
    Ok(jtis.await?.into_iter().flatten().collect())
}

async fn many_rules_are_answered(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let keys: Vec<_> = revoked_jtis(&store).await?.into_iter().map(RuleKey::Jti).collect();
    let mut answered: Vec<_> =
        store.rules(keys.clone()).await?.rules.into_iter().map(|rule| rule.key).collect();
    same("how many of the rules asked for are answered", &answered.len(), &keys.len())?;
    answered.sort_unstable();
    answered.dedup();
    same("how many different ones", &answered.len(), &keys.len())
}

async fn many_entries_are_read(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    revoked_jtis(&store).await?;
    for limit in [u32::MAX, 2_500, 1_100, 999] {
        let (read, _) = read_on(&*store, Cursor::start(), limit).await?;
        same(&format!("how many entries are read by {limit}"), &read.len(), &MANY)?;
    }
    // A batch may be shorter than asked for, if it says that more is waiting.
    let batch = store.revocations(Cursor::start(), u32::MAX).await?;
    let RevocationBatch::Entries { entries, more, .. } = batch else {
        return Err("reading the log from its beginning met a gap".into());
    };
    ensure!(more || entries.len() == MANY, "a batch ends after {} of {MANY}", entries.len());
    Ok(())
}

async fn many_rows_are_deleted(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let crowd = crowd(&store).await?;
    let done = store.housekept(crowd[0].row_expires_at + MINUTE).await?;
    same("the number of grants deleted", &done.grants, &(MANY as u64))?;
    let of = Selector::Client(client("app")?);
    let listed = store.listed_ids(of, NOW).await?;
    ensure!(listed.is_empty(), "{} deleted grants are listed", listed.len());
    Ok(())
}
