//! Revocations of every kind, dropped at each await.

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{LogEvent, Rule, Target};
use cloakroom_core::store::{CreateOutcome, Lookup, TokenStore, TokenStoreExt};
use cloakroom_core::{Jti, Kid};

use crate::Context;
use crate::ask::{Ask, same};
use crate::fixtures::{lone, pair, revocation, token};
use crate::pace::Drops;
use crate::report::Broken;
use crate::sight::Patience;

checks! { "cancellation::revoke":
    a_dropped_revocation_of_a_grant_is_whole_or_undone => Cancellation,
    a_dropped_tombstone_is_whole_or_undone => Cancellation,
    a_dropped_revocation_of_a_token_is_whole_or_undone => Cancellation,
    a_dropped_revocation_of_a_subject_is_whole_or_undone => Cancellation,
    a_dropped_revocation_of_a_client_is_whole_or_undone => Cancellation,
    a_dropped_revocation_of_a_pair_is_whole_or_undone => Cancellation,
    a_dropped_revocation_of_a_jwt_is_whole_or_undone => Cancellation,
    a_dropped_revocation_of_a_key_is_whole_or_undone => Cancellation,
}

async fn a_dropped_revocation_of_a_grant_is_whole_or_undone(
    context: Context,
) -> Result<(), Broken> {
    revocation_is_whole_or_undone(context, |grant, _| Ok(Target::Grant(grant.id))).await
}

async fn a_dropped_tombstone_is_whole_or_undone(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut drops = Drops::new(&context);
    while drops.again() {
        let grant = lone(store.epoch().await?)?;
        let target = Target::Grant(grant.id);
        drops.play(store.revoke(revocation(target.clone()))).await?;
        let mut patience = Patience::default();
        let is_revoked = loop {
            let is_tombstone = store.find(grant.id, None).await? == Lookup::Tombstone;
            let is_logged = is_logged(&*store, &target).await?;
            if is_tombstone == is_logged {
                break is_logged;
            }
            patience.wait(&*store, &(("tombstone", is_tombstone), ("logged", is_logged))).await?;
        };
        if is_revoked {
            let answer = store.create(grant, vec![]).await?;
            same("the answer to `create`", &answer, &CreateOutcome::Barred)?;
        }
    }
    Ok(())
}

async fn a_dropped_revocation_of_a_token_is_whole_or_undone(
    context: Context,
) -> Result<(), Broken> {
    let target = |grant: &GrantRecord, token: &TokenRecord| {
        Ok(Target::Token { grant: grant.id, digest: token.digest })
    };
    revocation_is_whole_or_undone(context, target).await
}

async fn a_dropped_revocation_of_a_subject_is_whole_or_undone(
    context: Context,
) -> Result<(), Broken> {
    let target = |grant: &GrantRecord, _: &TokenRecord| Ok(Target::Subject(grant.subject.clone()));
    revocation_is_whole_or_undone(context, target).await
}

async fn a_dropped_revocation_of_a_client_is_whole_or_undone(
    context: Context,
) -> Result<(), Broken> {
    let target = |grant: &GrantRecord, _: &TokenRecord| Ok(Target::Client(grant.client.clone()));
    revocation_is_whole_or_undone(context, target).await
}

async fn a_dropped_revocation_of_a_pair_is_whole_or_undone(context: Context) -> Result<(), Broken> {
    let target = |grant: &GrantRecord, _: &TokenRecord| Ok(pair(&grant.subject, &grant.client));
    revocation_is_whole_or_undone(context, target).await
}

async fn a_dropped_revocation_of_a_jwt_is_whole_or_undone(context: Context) -> Result<(), Broken> {
    let target =
        |grant: &GrantRecord, _: &TokenRecord| Ok(Target::Jti(Jti::new(grant.id.to_string())?));
    revocation_is_whole_or_undone(context, target).await
}

async fn a_dropped_revocation_of_a_key_is_whole_or_undone(context: Context) -> Result<(), Broken> {
    let target =
        |grant: &GrantRecord, _: &TokenRecord| Ok(Target::Key(Kid::new(grant.id.to_string())?));
    revocation_is_whole_or_undone(context, target).await
}

async fn is_logged(store: &dyn TokenStore, target: &Target) -> Result<bool, Broken> {
    Ok(store.log().await?.iter().any(
        |entry| matches!(&entry.event, LogEvent::Revoked { target: own, .. } if own == target),
    ))
}

/// What can be seen of a revocation: in the log, as a rule, and at what it covers.
#[derive(Debug, Clone, PartialEq)]
struct Traces {
    is_logged: bool,
    rule: Option<Rule>,
    is_revoked: Vec<bool>,
}

/// The traces of the revocation of the target, at two grants of one subject at one client, each with a
/// token. The target names the first grant or what belongs to it.
async fn traces(
    store: &dyn TokenStore,
    target: &Target,
    grants: &[(GrantRecord, TokenRecord); 2],
) -> Result<Traces, Broken> {
    let mut is_revoked = Vec::new();
    for (grant, token) in grants {
        let found = store.found(grant.id, token.digest).await?;
        is_revoked.push(found.grant.revoked_at.is_some());
        let token = found.token.ok_or("a token that was there is gone")?;
        is_revoked.push(token.revoked_at.is_some());
    }
    let rule = match target.rule_key() {
        Some(key) => store.rule(key).await?,
        None => None,
    };
    Ok(Traces { is_logged: is_logged(store, target).await?, rule, is_revoked })
}

async fn revocation_is_whole_or_undone(
    context: Context,
    target: impl Fn(&GrantRecord, &TokenRecord) -> Result<Target, Broken>,
) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut drops = Drops::new(&context);
    while drops.again() {
        let epoch = store.epoch().await?;
        let first = lone(epoch)?;
        let mut second = first.clone();
        second.id = lone(epoch)?.id;
        let tokens = [token(&first)?, token(&second)?];
        let [one, two] = tokens;
        let grants = [(first, one), (second, two)];
        for (grant, token) in &grants {
            store.inserted(grant, std::slice::from_ref(token)).await?;
        }
        let target = target(&grants[0].0, &grants[0].1)?;
        let before = traces(&*store, &target, &grants).await?;
        drops.play(store.revoke(revocation(target.clone()))).await?;
        let mut patience = Patience::default();
        loop {
            let traces = traces(&*store, &target, &grants).await?;
            if traces == before || traces == whole(&*store, &target).await? {
                break;
            }
            patience.wait(&*store, &traces).await?;
        }
        // "Repeating the call completes it."
        let revoked = store.revoke(revocation(target.clone())).await?;
        store.swept(revoked).await?;
        let traces = traces(&*store, &target, &grants).await?;
        same("what is seen of the repeated revocation", &traces, &whole(&*store, &target).await?)?;
    }
    Ok(())
}

/// The traces that the target's revocation leaves when it is whole.
async fn whole(store: &dyn TokenStore, target: &Target) -> Result<Traces, Broken> {
    let bound = match target.has_bound() && is_logged(store, target).await? {
        true => Some(store.bound_of(target).await?),
        false => None,
    };
    let until = revocation(target.clone()).until;
    Ok(Traces {
        is_logged: true,
        rule: target.rule_key().map(|key| Rule { key, bound, until }),
        is_revoked: match target {
            Target::Grant(_) => vec![true, false, false, false],
            Target::Token { .. } => vec![false, true, false, false],
            Target::Jti(_) | Target::Key(_) => vec![false; 4],
            _ => vec![true, false, true, false],
        },
    })
}
