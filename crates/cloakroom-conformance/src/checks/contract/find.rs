//! `find`: it returns live and dead rows, and only tokens of the grant.

use cloakroom_core::TokenDigest;
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{ChainUpdate, Lookup, Selector, TokenStoreExt};
use cloakroom_core::time::UnixTime;

use crate::Context;
use crate::ask::{Ask, ensure, same};
use crate::fixtures::{DAY, NOW, grant, moved, revocation, stranger, token};
use crate::report::Broken;

checks! { "contract::find":
    what_was_never_there_is_absent => FindReturnsDead,
    a_revoked_grant_is_found => FindReturnsDead,
    a_revoked_token_is_found => FindReturnsDead,
    an_expired_grant_is_found => FindReturnsDead,
    a_tombstone_is_no_grant => FindReturnsDead,
    a_token_comes_only_when_asked_for => FindToken,
    a_token_is_found_in_its_own_grant_alone => FindToken,
    tokens_of_every_step_are_found => FindToken,
}

async fn what_was_never_there_is_absent(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let never = grant("alice", "app", store.epoch().await?)?;
    for token in [None, Some(stranger()?)] {
        let lookup = store.find(never.id, token).await?;
        same("a grant that never was", &lookup, &Lookup::Absent)?;
    }
    // Asking left nothing behind.
    store.inserted(&never, &[]).await
}

async fn a_revoked_grant_is_found(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    let token = token(&grant)?;
    store.inserted(&grant, std::slice::from_ref(&token)).await?;
    store.revoked(Target::Grant(grant.id)).await?;
    let found = store.found(grant.id, token.digest).await?;
    ensure!(found.grant.revoked_at.is_some(), "it is not revoked");
    let mut unrevoked = (*found.grant).clone();
    unrevoked.revoked_at = None;
    same("the rest of the revoked grant", &unrevoked, &grant)?;
    same("its token", &found.token.as_deref(), &Some(&token))
}

async fn a_revoked_token_is_found(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    let (ended, spared) = (token(&grant)?, token(&grant)?);
    store.inserted(&grant, &[ended.clone(), spared.clone()]).await?;
    let target = Target::Token { grant: grant.id, digest: ended.digest };
    store.revoked(target).await?;
    let found = store.found(grant.id, ended.digest).await?;
    same("its grant", &*found.grant, &grant)?;
    let Some(token) = found.token else {
        return Err("the revoked token is not found".into());
    };
    ensure!(token.revoked_at.is_some(), "the token is not revoked");
    let mut unrevoked = (*token).clone();
    unrevoked.revoked_at = None;
    same("the rest of the revoked token", &unrevoked, &ended)?;
    let other = store.found(grant.id, spared.digest).await?.token;
    same("the other token", &other.as_deref(), &Some(&spared))
}

async fn an_expired_grant_is_found(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    // Long ago by the caller's clock, and by the store's as well.
    for end in [NOW, UnixTime::from_secs(1_000_000_000), UnixTime::from_secs(1)] {
        let mut grant = grant("alice", "app", epoch)?;
        grant.created_at = UnixTime::from_millis(0);
        grant.expires_at = end;
        grant.row_expires_at = end;
        if let Some(chain) = &mut grant.chain {
            chain.expires_at = end;
        }
        let mut token = token(&grant)?;
        token.issued_at = UnixTime::from_millis(0);
        token.expires_at = end;
        store.inserted(&grant, std::slice::from_ref(&token)).await?;
        // Other calls, at later times, take nothing away either.
        let of = Selector::Subject(grant.subject.clone());
        let listed = store.listed_ids(of, NOW + DAY).await?;
        ensure!(listed.is_empty(), "an expired grant is listed");
        let found = store.found(grant.id, token.digest).await?;
        same("the expired grant", &*found.grant, &grant)?;
        same("its token", &found.token.as_deref(), &Some(&token))?;
    }
    Ok(())
}

async fn a_tombstone_is_no_grant(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    store.revoked(Target::Grant(grant.id)).await?;
    for token in [None, Some(stranger()?)] {
        let lookup = store.find(grant.id, token).await?;
        same("a grant revoked unseen", &lookup, &Lookup::Tombstone)?;
    }
    Ok(())
}

async fn a_token_comes_only_when_asked_for(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    let token = token(&grant)?;
    store.inserted(&grant, std::slice::from_ref(&token)).await?;
    let Lookup::Found(found) = store.find(grant.id, None).await? else {
        return Err("the grant is not found".into());
    };
    ensure!(found.token.is_none(), "a token came that nobody asked for");
    let chain = grant.chain.as_ref().ok_or("no chain")?;
    // Its neighbours, a digest that is nowhere, and the chain's own are no access tokens of it.
    let mut near = *token.digest.as_bytes();
    near[31] ^= 1;
    let near = TokenDigest::from_bytes(near);
    for digest in [near, stranger()?, chain.digest] {
        let found = store.found(grant.id, digest).await?;
        same("the grant", &*found.grant, &grant)?;
        ensure!(found.token.is_none(), "a token came for another digest");
    }
    Ok(())
}

async fn a_token_is_found_in_its_own_grant_alone(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let (one, other) = (grant("alice", "app", epoch)?, grant("alice", "app", epoch)?);
    let (one_token, other_token) = (token(&one)?, token(&other)?);
    store.inserted(&one, std::slice::from_ref(&one_token)).await?;
    store.inserted(&other, std::slice::from_ref(&other_token)).await?;
    for (grant, own, foreign) in
        [(&one, &one_token, &other_token), (&other, &other_token, &one_token)]
    {
        let found = store.found(grant.id, own.digest).await?;
        same("the grant", &*found.grant, grant)?;
        same("its token", &found.token.as_deref(), &Some(own))?;
        let found = store.found(grant.id, foreign.digest).await?;
        ensure!(found.token.is_none(), "the token of another grant was found");
    }
    let absent = grant("alice", "app", epoch)?.id;
    let lookup = store.find(absent, Some(one_token.digest)).await?;
    same("an absent grant", &lookup, &Lookup::Absent)?;
    store.revoke(revocation(Target::Grant(absent))).await?;
    let lookup = store.find(absent, Some(one_token.digest)).await?;
    same("a tombstone", &lookup, &Lookup::Tombstone)
}

async fn tokens_of_every_step_are_found(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut grant = grant("alice", "app", store.epoch().await?)?;
    let mut tokens = vec![token(&grant)?];
    store.inserted(&grant, &tokens).await?;
    for _ in 0..10 {
        let next = moved(&grant)?;
        for change in [ChainUpdate::Attach, ChainUpdate::Move(Box::new(next.clone()))] {
            let token = token(&grant)?;
            store.advanced(&grant, change, std::slice::from_ref(&token)).await?;
            tokens.push(token);
        }
        grant = next;
    }
    for token in &tokens {
        let found = store.found(grant.id, token.digest).await?;
        same("the grant", &*found.grant, &grant)?;
        same("the token", &found.token.as_deref(), &Some(token))?;
    }
    Ok(())
}
