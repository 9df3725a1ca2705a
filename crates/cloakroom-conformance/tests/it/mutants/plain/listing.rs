//! How a [`Plain`](super::Plain) store selects and pages grants.

use std::sync::Arc;

use cloakroom_core::record::GrantRecord;
use cloakroom_core::store::{Listing, PageRequest, Selector};
use cloakroom_core::time::UnixTime;

use super::names::{filed_client, filed_subject};
use super::state::State;
use crate::mutants::fault::Fault;

impl State {
    pub(crate) fn list(&self, of: &Selector, page: PageRequest, now: UnixTime) -> Listing {
        let fits = |grant: &GrantRecord| {
            let wide = self.has(Fault::ListIgnoresClient);
            self.selects(of, grant, wide)
        };
        let mut found: Vec<&GrantRecord> = self.grants().filter(|grant| fits(grant)).collect();
        if self.has(Fault::ListIsBackwards) {
            found.reverse();
        }
        if self.has(Fault::ListsAreCapped) {
            found.truncate(1_000);
        }
        if let Some(after) = page.after {
            let seen = found.iter().position(|grant| grant.id == after);
            match seen {
                Some(index) => drop(found.drain(..=index)),
                None => found.retain(|grant| grant.id > after),
            }
        }
        let limit = match page.limit as usize {
            _ if self.has(Fault::ListIsUnpaged) => usize::MAX,
            limit => limit.max(1),
        };
        let mut next = found.get(limit - 1).map(|last| last.id);
        if found.len() <= limit {
            next = None;
        } else if self.has(Fault::ListSkipsAtBorders) {
            next = Some(found[limit].id);
        }
        found.truncate(limit);
        if self.has(Fault::PagesAreCapped) && found.len() > 1_000 {
            found.truncate(1_000);
            next = None;
        }
        found.retain(|grant| self.shows(grant, now));
        if found.len() < limit && self.has(Fault::ListEndsAtShortPages) {
            next = None;
        }
        let hides = self.has(Fault::ListHidesDamage);
        let (damaged, found): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|grant| self.damaged.contains(&grant.id));
        let mut unreadable: Vec<_> = damaged.iter().map(|grant| grant.id).collect();
        if hides {
            unreadable.clear();
        }
        if self.has(Fault::ListCallsTheLivingUnreadable) && found.len() > 2 {
            unreadable.push(found[0].id);
        }
        let grants = found.into_iter().cloned().map(Arc::new).collect();
        Listing { grants, unreadable, next }
    }

    fn shows(&self, grant: &GrantRecord, now: UnixTime) -> bool {
        let live = match self.fault {
            Some(Fault::ListShowsRevoked) => now < grant.expires_at,
            Some(Fault::ListShowsExpired) => grant.revoked_at.is_none(),
            Some(Fault::ListAtTheEnd) if now == grant.expires_at => grant.revoked_at.is_none(),
            _ => grant.is_live(now),
        };
        let denied = self.revocation_log.denies(grant)
            && !self.has(Fault::ListShowsDenied)
            && !self.has(Fault::ListShowsRevoked);
        live && !denied
    }

    pub(crate) fn selects(&self, of: &Selector, grant: &GrantRecord, wide: bool) -> bool {
        let subject_is = |subject| {
            filed_subject(self.fault, subject) == filed_subject(self.fault, &grant.subject)
        };
        let client_is =
            |client| filed_client(self.fault, client) == filed_client(self.fault, &grant.client);
        if self.unindexed.contains(&grant.id) {
            return false;
        }
        match of {
            Selector::Subject(subject) => subject_is(subject),
            Selector::Client(client) => client_is(client),
            Selector::SubjectAtClient(subject, client) => {
                subject_is(subject) && (wide || client_is(client))
            }
        }
    }
}
