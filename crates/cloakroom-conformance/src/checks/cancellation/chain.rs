//! `create` and `advance`, dropped at each await.

use cloakroom_core::TokenDigest;
use cloakroom_core::record::TokenRecord;
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{AdvanceOutcome, ChainUpdate, CreateOutcome, Selector, TokenStoreExt};

use crate::Context;
use crate::ask::{Ask, ensure, same, step_from};
use crate::fixtures::{NOW, lone, moved, token};
use crate::pace::Drops;
use crate::report::Broken;
use crate::sight::{Patience, Sight, settled, sight};

checks! { "cancellation::chain":
    a_dropped_create_is_whole_or_undone => Cancellation,
    a_dropped_create_leaves_no_tokens_behind => Cancellation,
    a_dropped_create_that_is_barred_leaves_nothing_alive => Cancellation,
    a_dropped_step_is_whole_or_undone => Cancellation,
    a_dropped_attachment_is_whole_or_undone => Cancellation,
}

fn digests(tokens: &[TokenRecord]) -> Vec<TokenDigest> {
    tokens.iter().map(|token| token.digest).collect()
}

async fn a_dropped_create_is_whole_or_undone(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut drops = Drops::new(&context);
    while drops.again() {
        let grant = lone(store.epoch().await?)?;
        let tokens = vec![token(&grant)?, token(&grant)?, token(&grant)?];
        let digests = digests(&tokens);
        let answer = drops.play(store.create(grant.clone(), tokens.clone())).await?;
        let before = Sight::nothing(tokens.len());
        let after = Sight::living(&grant, tokens.iter().cloned().map(Some).collect());
        let both = [&before, &after];
        let is_there = settled(&*store, grant.id, &grant, &digests, both).await?;
        ensure!(is_there || answer.is_none(), "a `create` that was answered is not there");
        // Whoever was cut off comes again.
        store.inserted(&grant, &tokens).await?;
        same("the grant", &sight(&*store, grant.id, &grant, &digests).await?, &after)?;
    }
    Ok(())
}

async fn a_dropped_create_leaves_no_tokens_behind(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut drops = Drops::new(&context);
    while drops.again() {
        let grant = lone(store.epoch().await?)?;
        let tokens = vec![token(&grant)?, token(&grant)?];
        let dropped = drops.play(store.create(grant.clone(), tokens.clone())).await?.is_none();
        if !dropped {
            break;
        }
        // Another grant comes under the id, if that is free: it has none of the other's tokens.
        let mut other = lone(grant.epoch)?;
        other.id = grant.id;
        match store.create(other.clone(), vec![]).await? {
            CreateOutcome::Inserted => {
                let mut patience = Patience::default();
                let should = Sight::living(&other, vec![None, None]);
                loop {
                    let looks = sight(&*store, grant.id, &other, &digests(&tokens)).await?;
                    if looks == should {
                        break;
                    }
                    patience.wait(&*store, &looks).await?;
                }
                let of = Selector::Subject(grant.subject.clone());
                let listed = store.listed_ids(of, NOW).await?;
                ensure!(listed.is_empty(), "a grant that is not there is listed: {listed:?}");
            }
            CreateOutcome::Exists => store.inserted(&grant, &tokens).await?,
            CreateOutcome::Barred => return Err("a `create` was barred without a reason".into()),
        }
    }
    Ok(())
}

async fn a_dropped_create_that_is_barred_leaves_nothing_alive(
    context: Context,
) -> Result<(), Broken> {
    let store = context.tokens().await;
    for of_subject in [true, false] {
        let mut drops = Drops::new(&context);
        while drops.again() {
            let grant = lone(store.epoch().await?)?;
            store
                .revoked(if of_subject {
                    Target::Subject(grant.subject.clone())
                } else {
                    Target::Grant(grant.id)
                })
                .await?;
            let tokens = vec![token(&grant)?];
            drops.play(store.create(grant.clone(), tokens.clone())).await?;
            // Its row may be there, with a token that nobody holds; it is no session, and whoever
            // comes again is told.
            let looks = sight(&*store, grant.id, &grant, &[]).await?;
            ensure!(looks.listed == [false; 3], "a grant that is barred is listed");
            let answer = store.create(grant.clone(), tokens).await?;
            same("the answer to the retry", &answer, &CreateOutcome::Barred)?;
            ensure!(!store.is_unrevoked(grant.id).await?, "a grant that is barred lives");
        }
    }
    Ok(())
}

async fn a_dropped_step_is_whole_or_undone(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut drops = Drops::new(&context);
    while drops.again() {
        let grant = lone(store.epoch().await?)?;
        store.inserted(&grant, &[]).await?;
        let (next, tokens) = (moved(&grant)?, vec![token(&grant)?, token(&grant)?]);
        let change = ChainUpdate::Move(Box::new(next.clone()));
        drops.play(store.advance(step_from(&grant, change, &tokens)?)).await?;
        let before = Sight::living(&grant, vec![None, None]);
        let after = Sight::living(&next, tokens.iter().cloned().map(Some).collect());
        let digests = digests(&tokens);
        let both = [&before, &after];
        settled(&*store, grant.id, &grant, &digests, both).await?;
        // Another step comes from the same place: it wins only if the dropped one was never taken.
        let other = moved(&grant)?;
        let change = ChainUpdate::Move(Box::new(other.clone()));
        let should = match store.step(&grant, change, &[]).await? {
            AdvanceOutcome::Advanced => Sight::living(&other, vec![None, None]),
            AdvanceOutcome::Stale(stands) => {
                same("the grant as it stands", &*stands, &next)?;
                after
            }
            answer => return Err(format!("the next step answered {answer:?}").into()),
        };
        same("the grant", &sight(&*store, grant.id, &grant, &digests).await?, &should)?;
    }
    Ok(())
}

async fn a_dropped_attachment_is_whole_or_undone(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut drops = Drops::new(&context);
    while drops.again() {
        let grant = lone(store.epoch().await?)?;
        store.inserted(&grant, &[]).await?;
        let tokens = vec![token(&grant)?, token(&grant)?];
        drops.play(store.advance(step_from(&grant, ChainUpdate::Attach, &tokens)?)).await?;
        let before = Sight::living(&grant, vec![None, None]);
        let after = Sight::living(&grant, tokens.iter().cloned().map(Some).collect());
        let digests = digests(&tokens);
        settled(&*store, grant.id, &grant, &digests, [&before, &after]).await?;
        // The chain still moves.
        let change = ChainUpdate::Move(Box::new(moved(&grant)?));
        same("the next step", &store.step(&grant, change, &[]).await?, &AdvanceOutcome::Advanced)?;
    }
    Ok(())
}
