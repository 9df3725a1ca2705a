//! `create` while the sweep of a revocation may still be open.

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{CreateOutcome, TokenStoreExt};

use crate::Context;
use crate::ask::{Ask, ensure, same};
use crate::fixtures::{grant, pair, revocation, token};
use crate::report::Broken;

checks! { "more_create":
    a_retry_before_the_sweep_comes_by_is_barred => CreateRetry,
}

const COVERING: [fn(&GrantRecord) -> Target; 3] = [
    |grant| Target::Subject(grant.subject.clone()),
    |grant| Target::Client(grant.client.clone()),
    |grant| pair(&grant.subject, &grant.client),
];

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
