//! `list`: which grants it returns, page by page.

use std::time::Duration;

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{PageRequest, Selector, TokenStore, TokenStoreExt};
use cloakroom_core::{GrantId, Subject};

use crate::Context;
use crate::ask::{Ask, ensure, same};
use crate::fixtures::{DAY, MINUTE, NOW, client, grant, pair, subject};
use crate::report::Broken;

checks! { "contract::list":
    a_grant_is_listed_until_its_end => ListLive,
    a_revoked_grant_is_not_listed => ListLive,
    what_a_rule_denies_is_not_listed => ListLive,
    a_grant_whose_chain_has_ended_is_listed => ListLive,
    each_selector_selects_its_own => ListSelects,
    who_has_no_grants_gets_none => ListSelects,
    every_grant_comes_once_and_in_order => ListPages,
    the_dead_between_the_living_do_not_end_a_listing => ListPages,
    a_page_begins_after_any_id => ListPages,
    a_listing_goes_on_when_its_place_is_gone => ListPages,
    all_pages_of_every_selector => ListPages,
}

const MILLISECOND: Duration = Duration::from_millis(1);

fn all_selectors(grant: &GrantRecord) -> [Selector; 3] {
    let (subject, client) = (grant.subject.clone(), grant.client.clone());
    [
        Selector::Subject(subject.clone()),
        Selector::Client(client.clone()),
        Selector::SubjectAtClient(subject, client),
    ]
}

async fn a_grant_is_listed_until_its_end(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut grant = grant("alice", "app", store.epoch().await?)?;
    grant.expires_at = NOW + MINUTE;
    store.inserted(&grant, &[]).await?;
    let end = grant.expires_at;
    for of in all_selectors(&grant) {
        for (now, is_live) in [
            (NOW, true),
            (end - MILLISECOND, true),
            (end, false),
            (end + MILLISECOND, false),
            (end + 365 * DAY, false),
        ] {
            let listed = store.listed_ids(of.clone(), now).await?;
            ensure!(
                listed.contains(&grant.id) == is_live,
                "a grant that ends at {end:?} is {} at {now:?} by {of:?}",
                if is_live { "not listed" } else { "listed" }
            );
        }
    }
    Ok(())
}

async fn a_revoked_grant_is_not_listed(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let (spared, revoked) = (grant("alice", "app", epoch)?, grant("alice", "app", epoch)?);
    store.inserted(&spared, &[]).await?;
    store.inserted(&revoked, &[]).await?;
    store.revoked(Target::Grant(revoked.id)).await?;
    for of in all_selectors(&spared) {
        // Neither now nor by a clock that is behind the revocation.
        for now in [NOW, NOW - DAY, NOW + MINUTE] {
            let listed = store.listed_ids(of.clone(), now).await?;
            same("the listing", &listed, &vec![spared.id])?;
        }
    }
    Ok(())
}

async fn what_a_rule_denies_is_not_listed(context: Context) -> Result<(), Broken> {
    for target in [
        Target::Subject(subject("alice")?),
        Target::Client(client("app")?),
        pair(&subject("alice")?, &client("app")?),
    ] {
        let store = context.tokens().await;
        let old = grant("alice", "app", store.epoch().await?)?;
        store.inserted(&old, &[]).await?;
        // Without waiting for a sweep that may still be going on.
        let revocation = crate::fixtures::revocation(target);
        store.revoke(revocation).await?;
        let new = grant("alice", "app", store.epoch().await?)?;
        store.inserted(&new, &[]).await?;
        for of in all_selectors(&old) {
            let listed = store.listed_ids(of, NOW).await?;
            same("the listing", &listed, &vec![new.id])?;
        }
    }
    Ok(())
}

async fn a_grant_whose_chain_has_ended_is_listed(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let mut idle = grant("alice", "app", epoch)?;
    idle.chain.as_mut().ok_or("no chain")?.expires_at = NOW - MINUTE;
    let mut without = grant("alice", "app", epoch)?;
    without.chain = None;
    let mut should = vec![idle.id, without.id];
    should.sort_unstable();
    store.inserted(&idle, &[]).await?;
    store.inserted(&without, &[]).await?;
    for of in all_selectors(&idle) {
        same("the listing", &store.listed_ids(of, NOW).await?, &should)?;
    }
    Ok(())
}

async fn each_selector_selects_its_own(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let subjects = [
        Subject::user("alice")?,
        Subject::client("alice")?,
        Subject::user("bob")?,
        Subject::client("app")?,
    ];
    let clients = [client("app")?, client("alice")?, client("third")?];
    let mut all = Vec::new();
    for subject in &subjects {
        for client in &clients {
            for _ in 0..3 {
                let mut grant = grant("-", "-", epoch)?;
                grant.subject = subject.clone();
                grant.client = client.clone();
                store.inserted(&grant, &[]).await?;
                all.push(grant);
            }
        }
    }
    let selected = |by: &dyn Fn(&GrantRecord) -> bool| {
        let mut ids: Vec<GrantId> = all.iter().filter(|g| by(g)).map(|g| g.id).collect();
        ids.sort_unstable();
        ids
    };
    for subject in &subjects {
        let of = Selector::Subject(subject.clone());
        let should = selected(&|grant| grant.subject == *subject);
        same("the subject's", &store.listed_ids(of, NOW).await?, &should)?;
        for client in &clients {
            let of = Selector::SubjectAtClient(subject.clone(), client.clone());
            let should = selected(&|g| g.subject == *subject && g.client == *client);
            same("the pair's", &store.listed_ids(of, NOW).await?, &should)?;
        }
    }
    for client in &clients {
        let of = Selector::Client(client.clone());
        let should = selected(&|grant| grant.client == *client);
        same("the client's", &store.listed_ids(of, NOW).await?, &should)?;
    }
    Ok(())
}

async fn who_has_no_grants_gets_none(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    store.inserted(&grant("alice", "app", epoch)?, &[]).await?;
    store.inserted(&grant("bob", "other", epoch)?, &[]).await?;
    for of in [
        Selector::Subject(subject("carol")?),
        Selector::Client(client("carol")?),
        // Each has grants, but not together.
        Selector::SubjectAtClient(subject("alice")?, client("other")?),
        Selector::SubjectAtClient(subject("bob")?, client("app")?),
    ] {
        let listed = store.listed_ids(of.clone(), NOW).await?;
        ensure!(listed.is_empty(), "{of:?} selects {listed:?}");
    }
    Ok(())
}

/// Grants of "alice" at "app" under ids whose order is easily got wrong; in the order of their ids.
async fn twenty_five(store: &dyn TokenStore) -> Result<Vec<GrantRecord>, Broken> {
    let epoch = store.epoch().await?;
    let mut grants = Vec::new();
    for byte in [0x00, 0x01, 0x2f, 0x3e, 0x7f, 0x80, 0xf8, 0xfb, 0xff] {
        let mut grant = grant("alice", "app", epoch)?;
        grant.id = GrantId::from_bytes([byte; 16]);
        grants.push(grant);
    }
    while grants.len() < 25 {
        grants.push(grant("alice", "app", epoch)?);
    }
    for grant in &grants {
        store.inserted(grant, &[]).await?;
    }
    grants.sort_unstable_by_key(|grant| grant.id);
    Ok(grants)
}

async fn every_grant_comes_once_and_in_order(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grants = twenty_five(&*store).await?;
    for of in all_selectors(&grants[0]) {
        for limit in [1, 7, 24, 25, 26, 100, u32::MAX] {
            let listed = store.listed(of.clone(), limit, NOW).await?;
            let listed: Vec<GrantRecord> = listed.iter().map(|g| (**g).clone()).collect();
            same("the grants, page by page", &listed, &grants)?;
        }
    }
    Ok(())
}

async fn the_dead_between_the_living_do_not_end_a_listing(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let mut living = Vec::new();
    // Five alive, then twenty dead in as many ways, and so on.
    for number in 0_u8..75 {
        let mut id = [0x55; 16];
        id[0] = number;
        let mut grant = grant("alice", "app", epoch)?;
        grant.id = GrantId::from_bytes(id);
        let is_dead = number % 25 >= 5;
        if is_dead && number.is_multiple_of(2) {
            grant.expires_at = NOW;
        }
        store.inserted(&grant, &[]).await?;
        if is_dead && !number.is_multiple_of(2) {
            store.revoked(Target::Grant(grant.id)).await?;
        }
        if !is_dead {
            living.push(grant.id);
        }
    }
    for of in all_selectors(&grant("alice", "app", epoch)?) {
        for limit in [1, 7, 100] {
            let listed = store.listed(of.clone(), limit, NOW).await?;
            let listed: Vec<GrantId> = listed.iter().map(|grant| grant.id).collect();
            same("the living, page by page", &listed, &living)?;
        }
    }
    Ok(())
}

async fn a_page_begins_after_any_id(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grants = twenty_five(&*store).await?;
    let of = Selector::Client(client("app")?);
    // Ids of grants, which are not to come again, and ids between them that nothing has.
    let mut places: Vec<GrantId> = grants.iter().map(|grant| grant.id).collect();
    for byte in [0x20, 0x40, 0x7e, 0x81, 0xa0, 0xfe] {
        places.push(GrantId::from_bytes([byte; 16]));
    }
    for after in places {
        let page = PageRequest { after: Some(after), limit: 100 };
        let listing = store.list(of.clone(), page, NOW).await?;
        let listed: Vec<GrantId> = listing.grants.iter().map(|grant| grant.id).collect();
        let mut should: Vec<GrantId> = grants.iter().map(|grant| grant.id).collect();
        should.retain(|id| *id > after);
        if listing.next.is_some() {
            // A page may be short; what it holds has to be the beginning.
            should.truncate(listed.len());
        }
        same(&format!("the page after {after:?}"), &listed, &should)?;
    }
    Ok(())
}

async fn a_listing_goes_on_when_its_place_is_gone(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grants = twenty_five(&*store).await?;
    let of = Selector::Subject(subject("alice")?);
    let mut listed = Vec::new();
    let mut after = None;
    for _ in 0..1_000 {
        let listing = store.list(of.clone(), PageRequest { after, limit: 3 }, NOW).await?;
        listed.extend(listing.grants.iter().map(|grant| grant.id));
        after = listing.next;
        let Some(place) = after else { break };
        // Who pages through the devices revokes some of them on the way.
        store.revoked(Target::Grant(place)).await?;
    }
    let should: Vec<GrantId> = grants.iter().map(|grant| grant.id).collect();
    same("the grants, page by page", &listed, &should)
}

async fn all_pages_of_every_selector(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grants = twenty_five(&*store).await?;
    let epoch = grants[0].epoch;
    // Grants of others lie between them in every index.
    for (user, app) in [("alice", "other"), ("bob", "app"), ("alic", "ap"), ("alicf", "apq")] {
        for _ in 0..10 {
            store.inserted(&grant(user, app, epoch)?, &[]).await?;
        }
    }
    let of = Selector::SubjectAtClient(subject("alice")?, client("app")?);
    for limit in [1, 7, 100] {
        let listed = store.listed(of.clone(), limit, NOW).await?;
        let listed: Vec<GrantRecord> = listed.iter().map(|g| (**g).clone()).collect();
        same("the pair's, page by page", &listed, &grants)?;
    }
    for of in [Selector::Subject(subject("alice")?), Selector::Client(client("app")?)] {
        for limit in [1, 7, 100] {
            let listed = store.listed(of.clone(), limit, NOW).await?;
            ensure!(
                listed.len() == 35 && listed.is_sorted_by(|one, next| one.id < next.id),
                "{of:?}, {limit} a page, lists {} grants, or not in order; it has 35",
                listed.len()
            );
        }
    }
    Ok(())
}
