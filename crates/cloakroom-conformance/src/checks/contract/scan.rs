//! `scan`: every grant, page by page, for an operator who looks for damaged rows.

use cloakroom_core::GrantId;
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{Listing, PageRequest, TokenStore, TokenStoreExt as _};

use crate::Context;
use crate::ask::{Ask, ensure, same};
use crate::fixtures::{DAY, MINUTE, NOW, full_grant, lone, token};
use crate::report::{Broken, NotOffered};

checks! { "contract::scan":
    an_empty_store_has_no_grants => ScanPages,
    every_grant_comes_once_live_or_not => ScanPages,
    a_page_begins_after_any_id => ScanPages,
    grants_are_scanned_as_they_were_written => ScanPages,
}

/// One page, within its limit and after its place.
pub(crate) async fn page(
    store: &dyn TokenStore,
    after: Option<GrantId>,
    limit: u32,
) -> Result<Listing, Broken> {
    let listing = store.scan(PageRequest { after, limit }).await?.ok_or(NotOffered("a scan"))?;
    let mut ids: Vec<GrantId> = listing.grants.iter().map(|grant| grant.id).collect();
    ensure!(ids.is_sorted(), "the grants of a page are not in order: {ids:?}");
    ids.extend(&listing.unreadable);
    ensure!(ids.len() <= limit as usize, "a page of at most {limit} has {} grants", ids.len());
    let is_after = |id: &GrantId| after.is_none_or(|after| *id > after);
    ensure!(ids.iter().all(is_after), "the page after {after:?} has {ids:?}");
    Ok(listing)
}

/// Every grant, page by page, and the ids of those that cannot be read.
pub(crate) async fn scanned(
    store: &dyn TokenStore,
    limit: u32,
) -> Result<(Vec<GrantRecord>, Vec<GrantId>), Broken> {
    let (mut grants, mut unreadable, mut after) = (Vec::new(), Vec::new(), None);
    for _ in 0..10_000 {
        let listing = page(store, after, limit).await?;
        grants.extend(listing.grants.iter().map(|grant| (**grant).clone()));
        unreadable.extend(listing.unreadable);
        ensure!(
            listing.next.is_none() || listing.next > after,
            "the page after {after:?} goes on at {:?}",
            listing.next
        );
        after = listing.next;
        if after.is_none() {
            return Ok((grants, unreadable));
        }
    }
    Err("the scan went on for 10,000 pages".into())
}

async fn an_empty_store_has_no_grants(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    same("a scan of a new store", &scanned(&*store, 10).await?, &(vec![], vec![]))?;
    // A tombstone is no grant.
    store.revoked(Target::Grant(lone(store.epoch().await?)?.id)).await?;
    same("a scan of tombstones", &scanned(&*store, 10).await?, &(vec![], vec![]))
}

/// Grants of many subjects and clients under ids whose order is easily got wrong: some live, some revoked, some
/// expired. In the order of their ids.
async fn thirty(store: &dyn TokenStore) -> Result<Vec<GrantId>, Broken> {
    let epoch = store.epoch().await?;
    let mut ids = Vec::new();
    for number in 0..30_u8 {
        let mut grant = lone(epoch)?;
        if let Some(byte) =
            [0x00, 0x01, 0x2f, 0x3e, 0x7f, 0x80, 0xf8, 0xfb, 0xff].get(number as usize)
        {
            grant.id = GrantId::from_bytes([*byte; 16]);
        }
        if number % 3 == 1 {
            grant.expires_at = NOW - MINUTE;
            grant.row_expires_at = NOW - MINUTE;
        }
        store.inserted(&grant, &[]).await?;
        if number % 3 == 2 {
            store.revoked(Target::Grant(grant.id)).await?;
        }
        ids.push(grant.id);
    }
    store.revoked(Target::Grant(lone(epoch)?.id)).await?;
    ids.sort_unstable();
    Ok(ids)
}

async fn every_grant_comes_once_live_or_not(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let ids = thirty(&*store).await?;
    for limit in [1, 7, 29, 30, 31, 1_000, u32::MAX] {
        let (grants, unreadable) = scanned(&*store, limit).await?;
        let found: Vec<GrantId> = grants.iter().map(|grant| grant.id).collect();
        same(&format!("the grants, {limit} a page"), &found, &ids)?;
        same("those that cannot be read", &unreadable, &vec![])?;
    }
    Ok(())
}

async fn a_page_begins_after_any_id(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let ids = thirty(&*store).await?;
    let between = [0x20, 0x40, 0x7e, 0x81, 0xa0, 0xfe].map(|byte| GrantId::from_bytes([byte; 16]));
    for after in ids.iter().copied().chain(between) {
        let listing = page(&*store, Some(after), 1_000).await?;
        let found: Vec<GrantId> = listing.grants.iter().map(|grant| grant.id).collect();
        let mut should: Vec<GrantId> = ids.iter().copied().filter(|id| *id > after).collect();
        if listing.next.is_some() {
            // A page may be short; what it holds has to be the beginning.
            should.truncate(found.len());
        }
        same(&format!("the page after {after:?}"), &found, &should)?;
    }
    Ok(())
}

async fn grants_are_scanned_as_they_were_written(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let mut grants = Vec::new();
    for seed in 1..=5 {
        let grant = full_grant(seed, epoch)?;
        store.inserted(&grant, &[token(&grant)?]).await?;
        grants.push(grant);
    }
    grants.sort_unstable_by_key(|grant| grant.id);
    same("the grants", &scanned(&*store, 2).await?.0, &grants)?;
    // Nothing was written: all of it goes at its end.
    store.housekept(NOW + 9 * DAY).await?;
    same("what is left", &scanned(&*store, 2).await?, &(vec![], vec![]))
}
