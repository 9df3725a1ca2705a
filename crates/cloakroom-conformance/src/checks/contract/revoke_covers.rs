//! The revocation of a subject, a client or a pair: which grants it covers, and its bounds.

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Cursor, Epoch, Revocation, RevocationBatch, Target};
use cloakroom_core::store::{Selector, TokenStore, TokenStoreExt};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Jti, Kid, Subject};

use crate::Context;
use crate::ask::{Ask, ensure, grown, not_lowered, same};
use crate::fixtures::{DAY, NOW, client, grant, pair, revocation, stranger, subject};
use crate::report::Broken;

checks! { "contract::revoke_covers":
    a_subject_is_revoked_everywhere => RevokeCovers,
    a_client_is_revoked_for_everyone => RevokeCovers,
    a_pair_is_revoked_alone => RevokeCovers,
    grants_up_to_the_bound_are_revoked => RevokeCovers,
    the_second_revocation_covers_what_came_after_the_first => RevokeCovers,
    the_first_bound_is_of_its_time => RevokeBounds,
    bounds_follow_the_clock => RevokeBounds,
    bounds_grow_while_the_clock_stands_or_goes_back => RevokeBounds,
    nothing_lowers_the_newest_bound => RevokeBounds,
}

/// Grants of every subject at every client that one could take for another.
async fn crowd(store: &dyn TokenStore) -> Result<Vec<GrantRecord>, Broken> {
    let epoch = store.epoch().await?;
    let mut crowd = Vec::new();
    for subject in [
        Subject::user("alice")?,
        Subject::user("app")?,
        Subject::client("alice")?,
        Subject::client("app")?,
    ] {
        for client in ["app", "alice", "other"] {
            for _ in 0..2 {
                let mut grant = grant("-", client, epoch)?;
                grant.subject = subject.clone();
                store.inserted(&grant, &[]).await?;
                crowd.push(grant);
            }
        }
    }
    Ok(crowd)
}

/// Revokes the target and looks who is left, in `find` and in `list`.
async fn revokes(
    context: Context,
    target: Target,
    covered: impl Fn(&GrantRecord) -> bool,
) -> Result<(), Broken> {
    let store = context.tokens().await;
    let crowd = crowd(&*store).await?;
    store.revoked(target.clone()).await?;
    for grant in &crowd {
        let (subject, client) = (&grant.subject, &grant.client);
        if covered(grant) {
            ensure!(
                !store.is_unrevoked(grant.id).await?,
                "{target:?} was revoked, and the grant of {subject:?} at {client:?} lives"
            );
        } else {
            same("a grant not covered", &store.grant(grant.id).await?, grant)?;
        }
        for of in [
            Selector::Subject(subject.clone()),
            Selector::Client(client.clone()),
            Selector::SubjectAtClient(subject.clone(), client.clone()),
        ] {
            let is_listed = store.listed_ids(of.clone(), NOW).await?.contains(&grant.id);
            ensure!(
                is_listed != covered(grant),
                "{target:?} was revoked; listing {of:?} went wrong about the grant of \
                 {subject:?} at {client:?}"
            );
        }
    }
    Ok(())
}

async fn a_subject_is_revoked_everywhere(context: Context) -> Result<(), Broken> {
    for subject in [Subject::user("alice")?, Subject::client("app")?] {
        let target = Target::Subject(subject.clone());
        revokes(context.clone(), target, |grant| grant.subject == subject).await?;
    }
    Ok(())
}

async fn a_client_is_revoked_for_everyone(context: Context) -> Result<(), Broken> {
    let app = client("app")?;
    let target = Target::Client(app.clone());
    revokes(context, target, |grant| grant.client == app).await
}

async fn a_pair_is_revoked_alone(context: Context) -> Result<(), Broken> {
    for (subject, client) in
        [(Subject::user("alice")?, client("app")?), (Subject::client("app")?, client("app")?)]
    {
        let target = pair(&subject, &client);
        revokes(context.clone(), target, |grant| {
            grant.subject == subject && grant.client == client
        })
        .await?;
    }
    Ok(())
}

async fn grants_up_to_the_bound_are_revoked(context: Context) -> Result<(), Broken> {
    for target in [
        Target::Subject(subject("alice")?),
        Target::Client(client("app")?),
        pair(&subject("alice")?, &client("app")?),
    ] {
        let store = context.tokens().await;
        // The lowest bound that may be allotted. A store may go beyond it: by how much is its choice.
        let least = store.newest_bound().await?.next_bound(NOW);
        let epochs = [0, least.get() / 2, least.get() - 1, least.get()];
        let beyond = (0..40).map(|power| least.get() + (1 << power));
        let mut grants = Vec::new();
        for epoch in epochs.into_iter().chain(beyond) {
            let grant = grant("alice", "app", Epoch::new(epoch))?;
            store.inserted(&grant, &[]).await?;
            grants.push(grant);
        }
        store.revoked(target.clone()).await?;
        let bound = store.bound_of(&target).await?;
        let (covered, spared): (Vec<_>, Vec<_>) =
            grants.into_iter().partition(|grant| grant.epoch <= bound);
        for grant in &covered {
            ensure!(
                !store.is_unrevoked(grant.id).await?,
                "a grant of {:?} outlived a revocation with {bound:?}",
                grant.epoch
            );
        }
        for grant in &spared {
            same("a newer grant", &store.grant(grant.id).await?, grant)?;
        }
        let of = Selector::Subject(subject("alice")?);
        let mut newer: Vec<_> = spared.iter().map(|grant| grant.id).collect();
        newer.sort_unstable();
        same("the listing", &store.listed_ids(of, NOW).await?, &newer)?;
    }
    Ok(())
}

async fn the_second_revocation_covers_what_came_after_the_first(
    context: Context,
) -> Result<(), Broken> {
    let store = context.tokens().await;
    let target = Target::Client(client("app")?);
    for _ in 0..3 {
        let grant = grant("alice", "app", store.epoch().await?)?;
        store.inserted(&grant, &[]).await?;
        store.revoked(target.clone()).await?;
        ensure!(!store.is_unrevoked(grant.id).await?, "a grant from between two revocations lives");
    }
    Ok(())
}

async fn the_first_bound_is_of_its_time(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let newest = store.newest_bound().await?;
    // No clock that is right shows an earlier time than that of the first release.
    ensure!(
        newest.get() >= 1_600_000_000_000,
        "a new log begins with the bound {newest:?}: older grants could be newer than it"
    );
    Ok(())
}

/// Revokes at this time, and returns the bound, which must be what the contract says.
async fn bound_at(store: &dyn TokenStore, target: &Target, at: UnixTime) -> Result<Epoch, Broken> {
    let before = store.newest_bound().await?;
    let revocation = Revocation { at, ..revocation(target.clone()) };
    store.revoked_as(revocation).await?;
    let bound = store.bound_of(target).await?;
    grown(before, at, Some(bound))?;
    not_lowered(bound, store.newest_bound().await?)?;
    let batch = store.revocations(Cursor::start(), 1_000).await?;
    let RevocationBatch::Entries { newest_bound, .. } = batch else {
        return Err("reading the log from its beginning met a gap".into());
    };
    not_lowered(bound, newest_bound)?;
    Ok(bound)
}

async fn bounds_follow_the_clock(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let target = Target::Subject(subject("alice")?);
    for days in [0, 1, 30] {
        let at = NOW + days * DAY;
        let bound = bound_at(&*store, &target, at).await?;
        ensure!(bound.get() >= at.as_millis(), "the bound {bound:?} is older than its time");
    }
    Ok(())
}

async fn bounds_grow_while_the_clock_stands_or_goes_back(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut newest = store.newest_bound().await?;
    for at in [NOW, NOW, NOW - DAY, UnixTime::from_millis(0), NOW] {
        for target in [
            Target::Subject(subject("alice")?),
            Target::Client(client("app")?),
            pair(&subject("alice")?, &client("app")?),
        ] {
            let bound = bound_at(&*store, &target, at).await?;
            ensure!(bound > newest, "the bound {bound:?} came after {newest:?}, and is no newer");
            newest = bound;
        }
    }
    Ok(())
}

async fn nothing_lowers_the_newest_bound(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    store.inserted(&grant, &[]).await?;
    let mut newest = store.newest_bound().await?;
    for target in [
        Target::Grant(grant.id),
        Target::Jti(Jti::new("a jti")?),
        Target::Key(Kid::new("a key")?),
        Target::Token { grant: grant.id, digest: stranger()? },
    ] {
        // By clocks that agree, and by one that went back.
        for at in [NOW, NOW - 365 * DAY] {
            let revocation = Revocation { at, ..revocation(target.clone()) };
            store.revoked_as(revocation).await?;
            let now = store.newest_bound().await?;
            not_lowered(newest, now)?;
            newest = now;
        }
    }
    for at in [NOW + DAY, NOW, UnixTime::from_millis(0)] {
        store.heartbeat(at, NOW + 2 * DAY).await?;
        let now = store.newest_bound().await?;
        not_lowered(newest, now)?;
        newest = now;
    }
    store.housekept(NOW + DAY).await?;
    not_lowered(newest, store.newest_bound().await?)
}
