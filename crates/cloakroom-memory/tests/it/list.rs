use cloakroom_core::revocation::Target;
use cloakroom_core::store::{Listing, PageRequest, Selector, TokenStore};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId, Subject};
use cloakroom_memory::MemoryStore;

use crate::support::*;

fn page(store: &MemoryStore, of: &Selector, after: Option<GrantId>, limit: u32) -> Listing {
    ready(store.list(of.clone(), PageRequest { after, limit }, NOW))
}

fn all(store: &MemoryStore, of: &Selector, limit: u32) -> Vec<GrantId> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let Listing { grants, next, .. } = page(store, of, after, limit);
        assert!(grants.len() <= limit as usize);
        ids.extend(grants.iter().map(|grant| grant.id));
        if next.is_none() {
            return ids;
        }
        after = next;
    }
}

#[test]
fn listings_are_paged_by_id_and_byte_exact() {
    let store = store();
    let tv = ClientId::new("tv").unwrap();
    let mut neighbours = vec![grant(100), grant(101), grant(102), grant(103)];
    neighbours[0].subject = Subject::client("alice").unwrap();
    neighbours[1].subject = Subject::user("Alice").unwrap();
    neighbours[2].subject = Subject::user("alice ").unwrap();
    neighbours[3].subject = Subject::user("alicf").unwrap();
    let mut grants: Vec<_> = (0..7).rev().map(grant).collect();
    grants[2].client = tv.clone();
    for grant in grants.iter().chain(&neighbours) {
        insert(&store, grant, &[]);
    }
    let ids: Vec<GrantId> = (0..7).map(id).collect();
    let without = |gone: u64| -> Vec<GrantId> {
        ids.iter().copied().filter(|own| *own != id(gone)).collect()
    };
    for limit in [1, 3, 7, 100] {
        assert_eq!(all(&store, &Selector::Subject(alice()), limit), ids);
        let at_app = Selector::SubjectAtClient(alice(), app());
        assert_eq!(all(&store, &at_app, limit), without(4));
        assert_eq!(all(&store, &Selector::Client(tv.clone()), limit), [id(4)]);
    }
    assert_eq!(all(&store, &Selector::Client(app()), 3).len(), 10);
    assert!(all(&store, &Selector::Client(ClientId::new("no").unwrap()), 3).is_empty());
    let exact = page(&store, &Selector::Subject(alice()), None, 7);
    assert_eq!(exact.next, None, "the last page knows that it is");
}

#[test]
fn only_live_grants_are_listed() {
    let store = store();
    let mut grants = [grant(1), grant(2), grant(3), grant(4)];
    grants[0].expires_at = NOW;
    grants[1].row_expires_at = NOW;
    for grant in &grants {
        insert(&store, grant, &[]);
    }
    revoke(&store, Target::Grant(id(3)));
    let of = Selector::Subject(alice());
    for limit in [1, 10] {
        assert_eq!(all(&store, &of, limit), [id(4)]);
    }
    let at =
        |now: UnixTime| ready(store.list(of.clone(), PageRequest { after: None, limit: 9 }, now));
    assert_eq!(at(secs(1_000)).grants, []);
}

/// A client's grants stand in several shards, and those in which it acts for itself apart from the others.
#[test]
fn pages_of_a_client_are_whole_and_in_order() {
    let store = store();
    let itself = Subject::Client(app());
    let mut of_app = Vec::new();
    let mut for_app = Vec::new();
    // Not in the order of their ids.
    for seed in (0..1_000).map(|index| index * 617 % 1_000) {
        let mut grant = grant(seed);
        match seed % 4 {
            0 => grant.subject = itself.clone(),
            // Another client that acts for this one.
            1 => {
                grant.client = ClientId::new("broker").unwrap();
                grant.subject = itself.clone();
            }
            _ => {}
        }
        if grant.client == app() {
            of_app.push(grant.id);
        }
        if grant.subject == itself {
            for_app.push(grant.id);
        }
        insert(&store, &grant, &[]);
    }
    of_app.sort();
    for_app.sort();
    let own = |ids: &[GrantId]| -> Vec<GrantId> {
        ids.iter().copied().filter(|id| of_app.contains(id)).collect()
    };
    for limit in [1, 2, 5, 249, 250, 251, 999, 5_000, u32::MAX] {
        assert_eq!(all(&store, &Selector::Client(app()), limit), of_app, "{limit}");
        assert_eq!(all(&store, &Selector::Subject(itself.clone()), limit), for_app, "{limit}");
        let at_app = Selector::SubjectAtClient(itself.clone(), app());
        assert_eq!(all(&store, &at_app, limit), own(&for_app), "{limit}");
    }
    let page = page(&store, &Selector::Client(app()), None, 750);
    assert_eq!((page.grants.len(), page.next), (750, None), "the last page knows that it is");

    revoke(&store, Target::Subject(itself.clone()));
    assert!(for_app.iter().all(|id| is_revoked(&store, *id)));
    assert_eq!(all(&store, &Selector::Client(app()), 100).len(), 500);
    revoke(&store, Target::Client(app()));
    assert!(of_app.iter().all(|id| is_revoked(&store, *id)));
}
