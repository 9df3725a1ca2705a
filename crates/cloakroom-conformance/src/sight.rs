//! Observing a grant, and waiting until its state is complete.

use std::time::Duration;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::store::{Lookup, Selector, TokenStore};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest};

use crate::ask::{Ask, ensure};
use crate::fixtures::NOW;
use crate::report::Broken;

/// What can be seen of one grant and one target.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sight {
    /// The grant, without the time at which it was revoked.
    pub(crate) grant: Option<GrantRecord>,
    pub(crate) is_tombstone: bool,
    pub(crate) grant_is_revoked: bool,
    pub(crate) tokens: Vec<Option<TokenRecord>>,
    pub(crate) listed: [bool; 3],
}

pub(crate) async fn sight(
    store: &dyn TokenStore,
    id: GrantId,
    of: &GrantRecord,
    tokens: &[TokenDigest],
) -> Result<Sight, Broken> {
    let mut seen = Vec::new();
    for digest in tokens {
        seen.push(match store.find(id, Some(*digest)).await? {
            Lookup::Found(found) => found.token.map(|token| TokenRecord::clone(&token)),
            Lookup::Tombstone | Lookup::Absent => None,
        });
    }
    let (subject, client) = (of.subject.clone(), of.client.clone());
    let mut listed = [false; 3];
    for (place, of) in [
        Selector::Subject(subject.clone()),
        Selector::Client(client.clone()),
        Selector::SubjectAtClient(subject, client),
    ]
    .into_iter()
    .enumerate()
    {
        listed[place] = store.listed_ids(of, NOW).await?.contains(&id);
    }
    let lookup = store.find(id, None).await?;
    let is_tombstone = lookup == Lookup::Tombstone;
    let mut grant = match lookup {
        Lookup::Found(found) => Some(GrantRecord::clone(&found.grant)),
        Lookup::Tombstone | Lookup::Absent => None,
    };
    let revoked_at = grant.as_mut().and_then(|grant| grant.revoked_at.take());
    Ok(Sight { grant, is_tombstone, grant_is_revoked: revoked_at.is_some(), tokens: seen, listed })
}

impl Sight {
    /// Nothing at all.
    pub(crate) fn nothing(tokens: usize) -> Self {
        Self {
            grant: None,
            is_tombstone: false,
            grant_is_revoked: false,
            tokens: vec![None; tokens],
            listed: [false; 3],
        }
    }

    /// A grant that lives, with these tokens.
    pub(crate) fn living(grant: &GrantRecord, tokens: Vec<Option<TokenRecord>>) -> Self {
        Self { grant: Some(grant.clone()), listed: [true; 3], tokens, ..Self::nothing(0) }
    }
}

/// How long a check waits for what is certain to finish.
#[derive(Default)]
pub(crate) struct Patience(u32);

impl Patience {
    /// Lets the store go on; fails when it has had its time, with what it looks like.
    pub(crate) async fn wait<T: std::fmt::Debug>(
        &mut self,
        store: &dyn TokenStore,
        looks: &T,
    ) -> Result<(), Broken> {
        self.0 += 1;
        ensure!(
            self.0 < 60,
            "a dropped operation is half done, and stays so: neither what was nor what should be, \
             but {looks:?}"
        );
        store.housekept(UnixTime::from_millis(0)).await?;
        if self.0 < 20 {
            tokio::task::yield_now().await;
        } else {
            // Long past what a task of the store's own needs.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Waits until what can be seen is the one or the other; whether it is the other.
pub(crate) async fn settled(
    store: &dyn TokenStore,
    id: GrantId,
    of: &GrantRecord,
    digests: &[TokenDigest],
    [before, after]: [&Sight; 2],
) -> Result<bool, Broken> {
    let mut patience = Patience::default();
    loop {
        let looks = sight(store, id, of, digests).await?;
        if looks == *after {
            return Ok(true);
        }
        if looks == *before {
            return Ok(false);
        }
        patience.wait(store, &looks).await?;
    }
}
