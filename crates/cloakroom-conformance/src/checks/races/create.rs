//! `create` beside revocations that could miss the grant, and beside other creates.

use std::sync::Arc;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Epoch, Target};
use cloakroom_core::store::{CreateOutcome, Lookup, Selector, TokenStore, TokenStoreExt};

use crate::Context;
use crate::ask::{Ask, ensure, same};
use crate::fixtures::{COVERING, NOW, lone, revocation, token};
use crate::pace::{Interleavings, at_once};
use crate::report::Broken;

checks! { "races::create":
    a_revocation_of_the_subject_beside_create_bars => CreateBarredByOverlap,
    a_revocation_of_the_client_beside_create_bars => CreateBarredByOverlap,
    a_revocation_of_the_pair_beside_create_bars => CreateBarredByOverlap,
    a_retry_beside_a_revocation_bars => CreateBarredByOverlap,
    a_retry_beside_the_first_try_and_a_revocation_bars => CreateBarredByOverlap,
    a_crashed_create_is_barred_at_its_retry => CreateRetry,
    a_crashed_create_that_is_covered_is_not_listed => ListLive,
    a_revocation_of_its_id_beside_create_bars => CreateBarredByTombstone,
    a_crashed_create_does_not_outlive_its_tombstone => CreateBarredByTombstone,
    the_same_record_at_once_is_one_grant => CreateRetry,
    different_records_at_once_have_one_winner => CreateNeverOverwrites,
    many_creates_of_one_record_are_all_inserted => CreateRetry,
    many_records_under_one_id_have_one_winner => CreateNeverOverwrites,
}

const TASKS: usize = 16;
const ROUNDS: usize = 10;

/// That nothing of the grant lives, whatever was answered.
async fn nothing_lives(store: &dyn TokenStore, grant: &GrantRecord) -> Result<(), Broken> {
    ensure!(
        !store.is_unrevoked(grant.id).await?,
        "a grant of epoch {:?} lives, though a revocation that was acknowledged covers it",
        grant.epoch
    );
    not_listed(store, grant).await
}

async fn not_listed(store: &dyn TokenStore, grant: &GrantRecord) -> Result<(), Broken> {
    for of in [
        Selector::Subject(grant.subject.clone()),
        Selector::Client(grant.client.clone()),
        Selector::SubjectAtClient(grant.subject.clone(), grant.client.clone()),
    ] {
        let listed = store.listed_ids(of.clone(), NOW).await?;
        ensure!(!listed.contains(&grant.id), "{of:?} lists a grant that a revocation covers");
    }
    Ok(())
}

/// That a login of the same subject at the same client works now.
async fn the_next_login_lives(store: &dyn TokenStore, before: &GrantRecord) -> Result<(), Broken> {
    let (subject, client) = (before.subject.clone(), before.client.clone());
    let mut next = lone(store.epoch().await?)?;
    next.subject = subject;
    next.client = client;
    store.inserted(&next, &[]).await?;
    ensure!(store.is_unrevoked(next.id).await?, "the login right after the revocation is revoked");
    Ok(())
}

async fn retry_is_barred(
    store: &dyn TokenStore,
    grant: &GrantRecord,
    tokens: &[TokenRecord],
) -> Result<(), Broken> {
    let answer = store.create(grant.clone(), tokens.to_vec()).await?;
    same("the answer to a retry of `create`", &answer, &CreateOutcome::Barred)
}

async fn a_revocation_of_the_subject_beside_create_bars(context: Context) -> Result<(), Broken> {
    a_revocation_beside_create_bars(context, COVERING[0]).await
}

async fn a_revocation_of_the_client_beside_create_bars(context: Context) -> Result<(), Broken> {
    a_revocation_beside_create_bars(context, COVERING[1]).await
}

async fn a_revocation_of_the_pair_beside_create_bars(context: Context) -> Result<(), Broken> {
    a_revocation_beside_create_bars(context, COVERING[2]).await
}

async fn a_revocation_beside_create_bars(
    context: Context,
    target: fn(&GrantRecord) -> Target,
) -> Result<(), Broken> {
    let store = context.tokens().await;
    for create_first in [true, false] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let grant = lone(store.epoch().await?)?;
            let tokens = vec![token(&grant)?];
            let create = store.create(grant.clone(), tokens.clone());
            let revoke = store.revoke(revocation(target(&grant)));
            let (created, revoked) = if create_first {
                orders.play(create, revoke).await?
            } else {
                let (revoked, created) = orders.play(revoke, create).await?;
                (created, revoked)
            };
            store.swept(revoked?).await?;
            let created = created?;
            ensure!(created != CreateOutcome::Exists, "the first grant of its id is said to exist");
            nothing_lives(&*store, &grant).await?;
            the_next_login_lives(&*store, &grant).await?;
            retry_is_barred(&*store, &grant, &tokens).await?;
            nothing_lives(&*store, &grant).await?;
        }
    }
    Ok(())
}

async fn a_retry_beside_a_revocation_bars(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for target in COVERING {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let grant = lone(store.epoch().await?)?;
            let tokens = vec![token(&grant)?];
            // The client has given up on the first try, which is still under way.
            let first = store.create(grant.clone(), tokens.clone());
            let then = async {
                let revoked = store.revoke(revocation(target(&grant))).await?;
                Ok::<_, Broken>((revoked, store.create(grant.clone(), tokens.clone()).await?))
            };
            let (first, then) = orders.play(first, then).await?;
            let (revoked, retry) = then?;
            same("the answer to a retry after the revocation", &retry, &CreateOutcome::Barred)?;
            ensure!(first? != CreateOutcome::Exists, "the first try found another grant");
            store.swept(revoked).await?;
            nothing_lives(&*store, &grant).await?;
            the_next_login_lives(&*store, &grant).await?;
        }
    }
    Ok(())
}

async fn a_retry_beside_the_first_try_and_a_revocation_bars(
    context: Context,
) -> Result<(), Broken> {
    let store = context.tokens().await;
    for target in COVERING {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let grant = lone(store.epoch().await?)?;
            let tokens = vec![token(&grant)?];
            // The revocation is paused while both tries come and go.
            let revoke = store.revoke(revocation(target(&grant)));
            let tries = async {
                let first = store.create(grant.clone(), tokens.clone()).await?;
                Ok::<_, Broken>([first, store.create(grant.clone(), tokens.clone()).await?])
            };
            let (revoked, tries) = orders.play(revoke, tries).await?;
            let tries = tries?;
            ensure!(
                !tries.contains(&CreateOutcome::Exists),
                "two tries of one `create` answered {tries:?}"
            );
            store.swept(revoked?).await?;
            nothing_lives(&*store, &grant).await?;
            the_next_login_lives(&*store, &grant).await?;
            retry_is_barred(&*store, &grant, &tokens).await?;
        }
    }
    Ok(())
}

async fn a_crashed_create_is_barred_at_its_retry(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for target in COVERING {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let grant = lone(store.epoch().await?)?;
            let tokens = vec![token(&grant)?];
            let create = store.create(grant.clone(), tokens.clone());
            let revoke = store.revoke(revocation(target(&grant)));
            let (_, revoked) = orders.crash(create, revoke).await?;
            store.swept(revoked?).await?;
            // What the crashed try left is held by nobody; what the retry answers is.
            for _ in 0..2 {
                retry_is_barred(&*store, &grant, &tokens).await?;
                nothing_lives(&*store, &grant).await?;
            }
            the_next_login_lives(&*store, &grant).await?;
        }
    }
    Ok(())
}

async fn a_crashed_create_that_is_covered_is_not_listed(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for target in COVERING {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let grant = lone(store.epoch().await?)?;
            let create = store.create(grant.clone(), vec![token(&grant)?]);
            let revoke = store.revoke(revocation(target(&grant)));
            let (_, revoked) = orders.crash(create, revoke).await?;
            revoked?;
            not_listed(&*store, &grant).await?;
        }
    }
    Ok(())
}

async fn a_revocation_of_its_id_beside_create_bars(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for create_first in [true, false] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let grant = lone(store.epoch().await?)?;
            let tokens = vec![token(&grant)?];
            let create = store.create(grant.clone(), tokens.clone());
            let revoke = store.revoke(revocation(Target::Grant(grant.id)));
            let (created, revoked) = if create_first {
                orders.play(create, revoke).await?
            } else {
                let (revoked, created) = orders.play(revoke, create).await?;
                (created, revoked)
            };
            let created = created?;
            ensure!(created != CreateOutcome::Exists, "the first grant of its id is said to exist");
            store.swept(revoked?).await?;
            nothing_lives(&*store, &grant).await?;
            let lookup = store.find(grant.id, Some(tokens[0].digest)).await?;
            ensure!(lookup != Lookup::Absent, "the revocation left neither grant nor tombstone");
            retry_is_barred(&*store, &grant, &tokens).await?;
            nothing_lives(&*store, &grant).await?;
        }
    }
    Ok(())
}

async fn a_crashed_create_does_not_outlive_its_tombstone(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let grant = lone(store.epoch().await?)?;
        let tokens = vec![token(&grant)?];
        let create = store.create(grant.clone(), tokens.clone());
        let revoke = async {
            let revoked = store.revoke(revocation(Target::Grant(grant.id))).await?;
            store.swept(revoked).await
        };
        let (_, revoked) = orders.crash(create, revoke).await?;
        revoked?;
        // The tombstone stands where the grant would: no find shows that one alive any more.
        nothing_lives(&*store, &grant).await?;
        retry_is_barred(&*store, &grant, &tokens).await?;
        nothing_lives(&*store, &grant).await?;
    }
    Ok(())
}

async fn the_same_record_at_once_is_one_grant(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let grant = lone(store.epoch().await?)?;
        let tokens = vec![token(&grant)?, token(&grant)?];
        let tries = [(); 2].map(|()| store.create(grant.clone(), tokens.clone()));
        let [one, two] = tries;
        let (one, two) = orders.play(one, two).await?;
        is_one_grant(&*store, &grant, &tokens, &[one?, two?]).await?;
    }
    Ok(())
}

async fn many_creates_of_one_record_are_all_inserted(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for _ in 0..ROUNDS {
        let grant = lone(store.epoch().await?)?;
        let tokens = vec![token(&grant)?, token(&grant)?];
        let answers = at_once(TASKS, |_| {
            let (store, grant, tokens) = (Arc::clone(&store), grant.clone(), tokens.clone());
            async move { Ok(store.create(grant, tokens).await?) }
        });
        is_one_grant(&*store, &grant, &tokens, &answers.await?).await?;
    }
    Ok(())
}

async fn is_one_grant(
    store: &dyn TokenStore,
    grant: &GrantRecord,
    tokens: &[TokenRecord],
    answers: &[CreateOutcome],
) -> Result<(), Broken> {
    ensure!(
        answers.iter().all(|answer| *answer == CreateOutcome::Inserted),
        "the same record, created at once, was answered {answers:?}"
    );
    for token in tokens {
        let found = store.found(grant.id, token.digest).await?;
        same("the grant", &*found.grant, grant)?;
        same("its token", &found.token.as_deref(), &Some(token))?;
    }
    let listed = store.listed_ids(Selector::Subject(grant.subject.clone()), NOW).await?;
    same("what is listed", &listed, &vec![grant.id])
}

async fn different_records_at_once_have_one_winner(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let rivals = rivals(store.epoch().await?, 2)?;
        let tries = [0, 1].map(|rival| {
            let (grant, token): &(GrantRecord, TokenRecord) = &rivals[rival];
            store.create(grant.clone(), vec![token.clone()])
        });
        let [one, two] = tries;
        let (one, two) = orders.play(one, two).await?;
        have_one_winner(&*store, &rivals, &[one?, two?]).await?;
    }
    Ok(())
}

async fn many_records_under_one_id_have_one_winner(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for _ in 0..ROUNDS {
        let rivals = rivals(store.epoch().await?, TASKS)?;
        let answers = at_once(TASKS, |task| {
            let (store, (grant, token)) = (Arc::clone(&store), rivals[task].clone());
            async move { Ok(store.create(grant, vec![token]).await?) }
        });
        have_one_winner(&*store, &rivals, &answers.await?).await?;
    }
    Ok(())
}

/// Different grants with tokens of their own, all under one id.
fn rivals(epoch: Epoch, count: usize) -> Result<Vec<(GrantRecord, TokenRecord)>, Broken> {
    let id = lone(epoch)?.id;
    let rival = |_| {
        let mut grant = lone(epoch)?;
        grant.id = id;
        let token = token(&grant)?;
        Ok((grant, token))
    };
    (0..count).map(rival).collect()
}

async fn have_one_winner(
    store: &dyn TokenStore,
    rivals: &[(GrantRecord, TokenRecord)],
    answers: &[CreateOutcome],
) -> Result<(), Broken> {
    let winners: Vec<_> = rivals
        .iter()
        .zip(answers)
        .filter(|(_, answer)| **answer == CreateOutcome::Inserted)
        .collect();
    let [((winner, _), _)] = winners[..] else {
        return Err(format!("different records under one id were answered {answers:?}").into());
    };
    for ((rival, token), answer) in rivals.iter().zip(answers) {
        let found = store.found(winner.id, token.digest).await?;
        same("the grant", &*found.grant, winner)?;
        let listed = store.listed_ids(Selector::Subject(rival.subject.clone()), NOW).await?;
        if *answer == CreateOutcome::Inserted {
            same("the winner's token", &found.token.as_deref(), &Some(token))?;
            same("what is listed of the winner's subject", &listed, &vec![winner.id])?;
        } else {
            same("the answer to a loser", answer, &CreateOutcome::Exists)?;
            ensure!(found.token.is_none(), "the winner has a token of a loser");
            ensure!(listed.is_empty(), "the subject of a loser has the winner's grant");
        }
    }
    Ok(())
}
