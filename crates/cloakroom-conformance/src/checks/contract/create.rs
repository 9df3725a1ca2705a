//! `create`: all or nothing, and it never overwrites.

use cloakroom_core::Subject;
use cloakroom_core::record::{Claims, GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Epoch, Target};
use cloakroom_core::store::{
    ChainUpdate, CreateOutcome, Lookup, Selector, TokenStore, TokenStoreExt,
};
use cloakroom_core::time::UnixTime;
use serde_json::json;

use crate::Context;
use crate::ask::{Ask, barred_and_dead, ensure, misused, same};
use crate::fixtures::{DAY, MINUTE, NOW, client, grant, moved, stranger, token};
use crate::report::Broken;

checks! { "contract::create":
    a_grant_comes_with_all_its_tokens => CreateAtomic,
    a_grant_without_a_chain_or_tokens_is_a_grant => CreateAtomic,
    a_foreign_token_is_misuse_and_nothing_is_written => CreateAtomic,
    a_second_grant_under_the_id_is_refused => CreateNeverOverwrites,
    a_record_that_differs_in_one_field_is_another_grant => CreateNeverOverwrites,
    more_tokens_come_with_their_answer_or_not_at_all => CreateNeverOverwrites,
    a_grant_that_has_moved_on_is_not_put_back => CreateNeverOverwrites,
    a_revoked_grant_is_not_brought_back => CreateNeverOverwrites,
    an_expired_grant_is_not_overwritten => CreateNeverOverwrites,
    a_revoked_token_stays_revoked_when_create_is_repeated => CreateNeverOverwrites,
    a_retry_is_inserted_again => CreateRetry,
    a_retry_of_a_grant_that_was_revoked_is_barred => CreateRetry,
    a_retry_of_a_grant_that_a_rule_covers_is_barred => CreateRetry,
    a_retry_of_what_was_barred_is_barred_again => CreateRetry,
}

async fn a_grant_comes_with_all_its_tokens(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    for count in [1, 2, 50] {
        let grant = grant("alice", "app", epoch)?;
        let tokens = (0..count).map(|_| token(&grant)).collect::<Result<Vec<_>, _>>()?;
        store.inserted(&grant, &tokens).await?;
        for token in &tokens {
            let found = store.found(grant.id, token.digest).await?;
            same("the grant", &*found.grant, &grant)?;
            same("the token", &found.token.as_deref(), &Some(token))?;
        }
    }
    Ok(())
}

async fn a_grant_without_a_chain_or_tokens_is_a_grant(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut grant = grant("batch", "batch", store.epoch().await?)?;
    grant.subject = Subject::client("batch")?;
    grant.chain = None;
    store.inserted(&grant, &[]).await?;
    same("the grant", &store.grant(grant.id).await?, &grant)
}

async fn a_foreign_token_is_misuse_and_nothing_is_written(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let present = grant("bob", "app", epoch)?;
    store.inserted(&present, &[]).await?;
    let absent = grant("bob", "app", epoch)?;
    for other in [&present, &absent] {
        let grant = grant("alice", "app", epoch)?;
        let (own, foreign) = (token(&grant)?, token(other)?);
        for tokens in [[own.clone(), foreign.clone()], [foreign.clone(), own]] {
            let answer = store.create(grant.clone(), tokens.to_vec()).await;
            misused("a token of another grant", answer)?;
            let lookup = store.find(grant.id, Some(tokens[0].digest)).await?;
            same("the grant", &lookup, &Lookup::Absent)?;
        }
        let of = Selector::Subject(grant.subject);
        let listed = store.listed_ids(of, NOW).await?;
        ensure!(listed.is_empty(), "`list` knows {listed:?}");
        if let Lookup::Found(found) = store.find(other.id, Some(foreign.digest)).await? {
            ensure!(found.token.is_none(), "the other grant has the token");
        }
    }
    let lookup = store.find(absent.id, None).await?;
    same("the grant that was only named", &lookup, &Lookup::Absent)
}

/// Another grant under the same id, with a token of its own.
fn rival(first: &GrantRecord) -> Result<(GrantRecord, TokenRecord), Broken> {
    let mut rival = grant("mallory", "evil", first.epoch.following())?;
    rival.id = first.id;
    let token = token(&rival)?;
    Ok((rival, token))
}

async fn stands_as(
    store: &dyn TokenStore,
    grant: &GrantRecord,
    unwanted: &TokenRecord,
) -> Result<(), Broken> {
    let found = store.found(grant.id, unwanted.digest).await?;
    same("the first grant", &*found.grant, grant)?;
    ensure!(found.token.is_none(), "a token was written though its grant was refused");
    Ok(())
}

async fn a_second_grant_under_the_id_is_refused(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let first = grant("alice", "app", store.epoch().await?)?;
    let first_token = token(&first)?;
    store.inserted(&first, std::slice::from_ref(&first_token)).await?;

    let (rival, rival_token) = rival(&first)?;
    let answer = store.create(rival.clone(), vec![rival_token.clone()]).await?;
    same("the second answer", &answer, &CreateOutcome::Exists)?;
    stands_as(&*store, &first, &rival_token).await?;
    let found = store.found(first.id, first_token.digest).await?;
    same("its token", &found.token.as_deref(), &Some(&first_token))?;
    for of in [Selector::Subject(rival.subject), Selector::Client(rival.client)] {
        let listed = store.listed_ids(of.clone(), NOW).await?;
        ensure!(listed.is_empty(), "{of:?} selects {listed:?}");
    }
    Ok(())
}

async fn a_record_that_differs_in_one_field_is_another_grant(
    context: Context,
) -> Result<(), Broken> {
    let store = context.tokens().await;
    let first = grant("alice", "app", store.epoch().await?)?;
    store.inserted(&first, &[]).await?;
    let mut with_other_digest = first.clone();
    with_other_digest.chain.as_mut().ok_or("no chain")?.digest = stranger()?;
    let (other_subject, other_client) = (Subject::client("alice")?, client("App")?);
    let claims = Claims::new([("admin", json!(true))])?;
    let changed = |change: &dyn Fn(&mut GrantRecord)| {
        let mut other = first.clone();
        change(&mut other);
        other
    };
    let others = [
        with_other_digest,
        changed(&|grant| grant.subject = other_subject.clone()),
        changed(&|grant| grant.client = other_client.clone()),
        changed(&|grant| grant.epoch = grant.epoch.following()),
        changed(&|grant| grant.claims = claims.clone()),
        changed(&|grant| grant.expires_at = grant.expires_at + DAY),
        changed(&|grant| grant.chain = None),
    ];
    for other in others {
        let token = token(&other)?;
        for tokens in [vec![], vec![token.clone()]] {
            let answer = store.create(other.clone(), tokens).await?;
            same("the second answer", &answer, &CreateOutcome::Exists)?;
            stands_as(&*store, &first, &token).await?;
        }
    }
    Ok(())
}

async fn more_tokens_come_with_their_answer_or_not_at_all(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    let (first, second) = (token(&grant)?, token(&grant)?);
    store.inserted(&grant, &[first]).await?;
    // Whether this is a retry or another grant is the store's to say; its answer has to be true.
    let answer = store.create(grant.clone(), vec![second.clone()]).await?;
    let there = store.found(grant.id, second.digest).await?.token.is_some();
    match answer {
        CreateOutcome::Inserted => ensure!(there, "`Inserted`, but the token is not there"),
        CreateOutcome::Exists => ensure!(!there, "`Exists`, but the token was written"),
        CreateOutcome::Barred => return Err("`Barred`, but no revocation covers the grant".into()),
    }
    Ok(())
}

async fn a_grant_that_has_moved_on_is_not_put_back(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    store.inserted(&grant, &[]).await?;
    let next = moved(&grant)?;
    let step = ChainUpdate::Move(Box::new(next.clone()));
    store.advanced(&grant, step, &[]).await?;
    let answer = store.create(grant.clone(), vec![]).await?;
    same("the answer about a record that was", &answer, &CreateOutcome::Exists)?;
    same("the grant", &store.grant(grant.id).await?, &next)
}

async fn a_revoked_grant_is_not_brought_back(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let first = grant("alice", "app", store.epoch().await?)?;
    store.inserted(&first, &[]).await?;
    store.revoked(Target::Grant(first.id)).await?;
    let revoked = store.grant(first.id).await?;
    let (rival, token) = rival(&first)?;
    let answer = store.create(rival, vec![token.clone()]).await?;
    same("the second answer", &answer, &CreateOutcome::Exists)?;
    stands_as(&*store, &revoked, &token).await
}

async fn an_expired_grant_is_not_overwritten(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let past = UnixTime::from_secs(1_000_000_000);
    let mut first = grant("alice", "app", store.epoch().await?)?;
    first.created_at = past;
    first.expires_at = past + MINUTE;
    first.row_expires_at = past + MINUTE;
    if let Some(chain) = &mut first.chain {
        chain.expires_at = past + MINUTE;
    }
    store.inserted(&first, &[]).await?;
    let (rival, token) = rival(&first)?;
    let answer = store.create(rival, vec![token.clone()]).await?;
    same("the second answer", &answer, &CreateOutcome::Exists)?;
    stands_as(&*store, &first, &token).await
}

async fn a_revoked_token_stays_revoked_when_create_is_repeated(
    context: Context,
) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    let token = token(&grant)?;
    store.inserted(&grant, std::slice::from_ref(&token)).await?;
    let target = Target::Token { grant: grant.id, digest: token.digest };
    store.revoked(target).await?;
    // What the answer is here is the store's to say.
    let _ = store.create(grant.clone(), vec![token.clone()]).await?;
    let found = store.found(grant.id, token.digest).await?;
    let is_revoked = found.token.is_some_and(|token| token.revoked_at.is_some());
    ensure!(is_revoked, "the revoked token is live again");
    Ok(())
}

async fn a_retry_is_inserted_again(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    let tokens = vec![token(&grant)?, token(&grant)?];
    for _ in 0..3 {
        let answer = store.create(grant.clone(), tokens.clone()).await?;
        same("the answer", &answer, &CreateOutcome::Inserted)?;
    }
    for token in &tokens {
        let found = store.found(grant.id, token.digest).await?;
        same("the grant", &*found.grant, &grant)?;
        same("the token", &found.token.as_deref(), &Some(token))?;
    }
    let of = Selector::Subject(grant.subject.clone());
    let listed = store.listed_ids(of, NOW).await?;
    same("what is listed", &listed, &vec![grant.id])
}

async fn a_retry_of_a_grant_that_was_revoked_is_barred(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    let tokens = vec![token(&grant)?];
    store.inserted(&grant, &tokens).await?;
    store.revoked(Target::Grant(grant.id)).await?;
    barred_and_dead(&*store, &grant, &tokens).await
}

async fn a_retry_of_a_grant_that_a_rule_covers_is_barred(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    let tokens = vec![token(&grant)?];
    store.inserted(&grant, &tokens).await?;
    store.revoked(Target::Subject(grant.subject.clone())).await?;
    barred_and_dead(&*store, &grant, &tokens).await
}

async fn a_retry_of_what_was_barred_is_barred_again(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", Epoch::new(1))?;
    let tokens = vec![token(&grant)?];
    store.revoked(Target::Client(grant.client.clone())).await?;
    for _ in 0..3 {
        barred_and_dead(&*store, &grant, &tokens).await?;
    }
    Ok(())
}
