//! Real threads against one store. What is asserted holds for every interleaving; the rounds are
//! many so that a store that breaks it is caught.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Cursor, Epoch, LogEntry, LogNotifications, Revocation, Target};
use cloakroom_core::store::{
    AdvanceOutcome, ChainUpdate, CreateOutcome, Housekeeping, Lookup, PageRequest, Selector,
    TokenStore, TokenStoreExt,
};
use cloakroom_core::{ClientId, Subject};
use cloakroom_memory::MemoryStore;
use futures_util::StreamExt;

use crate::support::*;

const ROUNDS: u64 = 500;

/// Runs `work` on this many threads at once; what each returned.
fn race<T: Send>(threads: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(threads as usize);
    std::thread::scope(|scope| {
        let racers: Vec<_> = (0..threads)
            .map(|racer| {
                let (work, barrier) = (&work, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    work(racer)
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    })
}

#[test]
fn exactly_one_racer_moves_a_chain() {
    let store = store();
    for round in 0..ROUNDS {
        let grant = grant(round);
        insert(&store, &grant, &[]);
        let outcomes = race(4, |racer| {
            let next = moved(&grant, 100 + racer);
            let change = ChainUpdate::Move(Box::new(next));
            let tokens = vec![token(&grant, 1_000 + racer)];
            ready(store.advance(step(&grant, change, tokens)))
        });
        let stands = found(&store, grant.id, None).grant;
        let mut winners = 0;
        for (racer, outcome) in outcomes.into_iter().enumerate() {
            let won = match outcome {
                AdvanceOutcome::Advanced => true,
                AdvanceOutcome::Stale(seen) => {
                    assert_eq!(seen, stands);
                    false
                }
                other => panic!("{other:?}"),
            };
            winners += u32::from(won);
            let seed = racer as u64;
            assert_eq!(stands.chain.as_ref().unwrap().digest == digest(100 + seed), won);
            let token = found(&store, grant.id, Some(digest(1_000 + seed))).token;
            assert_eq!(token.is_some(), won, "the loser's token was kept");
        }
        assert_eq!(winners, 1);
    }
}

#[test]
fn a_revocation_wins_over_an_advance() {
    for round in 0..ROUNDS {
        let store = store();
        let grant = grant(round);
        insert(&store, &grant, &[]);
        let target = match round % 3 {
            0 => Target::Grant(grant.id),
            1 => Target::Subject(alice()),
            _ => Target::Client(app()),
        };
        race(2, |racer| {
            if racer == 0 {
                revoke(&store, target.clone());
            } else {
                let _ = ready(store.advance(move_to(&grant, &moved(&grant, 2))));
            }
        });
        assert!(is_revoked(&store, grant.id));
    }
}

#[test]
fn of_equal_creates_all_succeed_and_of_others_one() {
    let store = store();
    for round in 0..ROUNDS {
        let (grant, other) = (grant(round), grant(ROUNDS + round));
        let same = race(3, |_| ready(store.create(grant.clone(), vec![token(&grant, 1)])));
        assert_eq!(same, [CreateOutcome::Inserted; 3]);

        let outcomes = race(3, |racer| {
            let mut own = other.clone();
            own.username = Some(racer.to_string().into());
            ready(store.create(own, vec![]))
        });
        let count = |created| outcomes.iter().filter(|one| **one == created).count();
        assert_eq!((count(CreateOutcome::Inserted), count(CreateOutcome::Exists)), (1, 2));
    }
}

#[test]
fn no_grant_slips_past_a_revocation() {
    let pair = Target::SubjectAtClient(alice(), app());
    for target in [Target::Subject(alice()), Target::Client(app()), pair] {
        let store = store();
        let created = race(3, |racer| {
            let mut created: Vec<(GrantRecord, CreateOutcome)> = Vec::new();
            for round in 0..ROUNDS {
                if racer == 0 {
                    revoke(&store, target.clone());
                    continue;
                }
                let mut grant = grant(racer * ROUNDS + round);
                grant.epoch = ready(store.epoch());
                created.push((grant.clone(), ready(store.create(grant, vec![]))));
            }
            created
        });
        let bound = newest_bound(&store);
        for (grant, created) in created.into_iter().flatten() {
            let revoked = is_revoked(&store, grant.id);
            assert_eq!(revoked, grant.epoch <= bound, "{:?} of {bound:?}", grant.epoch);
            assert!(revoked || created == CreateOutcome::Inserted);
        }
        let mut login = grant(0);
        login.epoch = ready(store.epoch());
        insert(&store, &login, &[]);
        assert!(!is_revoked(&store, login.id), "the login right after");
    }
}

#[test]
fn a_revocation_may_come_at_any_point_of_a_create() {
    let store = store();
    for round in 0..4 * ROUNDS {
        let mut grant = grant(round);
        grant.subject = Subject::user(round.to_string()).unwrap();
        grant.epoch = ready(store.epoch());
        // Many tokens: a long insert, for the revocation to fall into.
        let tokens: Vec<_> = (0..64).map(|seed| token(&grant, seed)).collect();
        race(2, |racer| {
            if racer == 1 {
                let _ = ready(store.create(grant.clone(), tokens.clone()));
                return;
            }
            for _ in 0..(round % ROUNDS) * 20 {
                std::hint::spin_loop();
            }
            revoke(&store, Target::Subject(grant.subject.clone()));
        });
        assert!(is_revoked(&store, grant.id), "round {round}");
    }
}

#[test]
fn a_create_beside_the_revocation_of_its_id_leaves_nothing_live() {
    let store = store();
    for round in 0..ROUNDS {
        let grant = grant(round);
        race(2, |racer| {
            if racer == 0 {
                revoke(&store, Target::Grant(grant.id));
            } else {
                let _ = ready(store.create(grant.clone(), vec![]));
            }
        });
        match ready(store.find(grant.id, None)) {
            Lookup::Tombstone => {}
            Lookup::Found(found) => assert!(found.grant.revoked_at.is_some()),
            Lookup::Absent => panic!("a tombstone at least"),
        }
    }
}

#[test]
fn an_acknowledged_revocation_is_seen_and_logged() {
    let store = store();
    for round in 0..ROUNDS {
        let grant = grant(round);
        insert(&store, &grant, &[]);
        let acknowledged = AtomicBool::new(false);
        race(3, |racer| {
            if racer == 0 {
                revoke(&store, Target::Grant(grant.id));
                acknowledged.store(true, Ordering::SeqCst);
                return;
            }
            loop {
                let logged = || read(&store, Cursor::start(), u32::MAX).0.len() as u64 > round;
                let acknowledged = acknowledged.load(Ordering::SeqCst);
                let logged_before = logged();
                let revoked = is_revoked(&store, grant.id);
                // One step: nobody sees the one without the other.
                assert!(revoked || !logged_before, "in the log, and still live");
                assert!(logged() || !revoked, "revoked, and the log says nothing");
                assert!(revoked || !acknowledged, "acknowledged, and not seen");
                if revoked {
                    return;
                }
            }
        });
    }
}

#[test]
fn housekeeping_takes_the_dead_and_never_the_living() {
    let store = store();
    let running = AtomicBool::new(true);
    let deleted = AtomicU64::new(0);
    let carol = Subject::user("carol").unwrap();
    race(4, |racer| {
        // Also when an assertion fails: else the housekeepers would never end.
        let _stop = Stop(&running);
        if racer >= 2 {
            // Two housekeepers at once.
            while running.load(Ordering::SeqCst) {
                let task = Housekeeping { now: secs(10), before: secs(10), limit: 7, sweep: None };
                deleted.fetch_add(ready(store.maintain(task)).grants, Ordering::SeqCst);
            }
            return;
        }
        for round in 0..ROUNDS {
            // A grant that housekeeping may take as soon as it is there.
            let mut dead = grant((2 + racer) * ROUNDS + round);
            (dead.row_expires_at, dead.subject) = (secs(5), carol.clone());
            insert(&store, &dead, &[]);
            revoke_briefly(&store, dead.id);

            let grant = grant(racer * ROUNDS + round);
            let mut brief = token(&grant, 1);
            brief.expires_at = secs(5);
            insert(&store, &grant, &[brief, token(&grant, 2)]);
            let next = moved(&grant, 3);
            assert_eq!(ready(store.advance(move_to(&grant, &next))), AdvanceOutcome::Advanced);
            let attach = step(&next, ChainUpdate::Attach, vec![token(&grant, 4)]);
            assert_eq!(ready(store.advance(attach)), AdvanceOutcome::Advanced);
            for live in [2, 4] {
                assert!(found(&store, grant.id, Some(digest(live))).token.is_some());
            }
        }
    });

    let rest = Housekeeping { now: secs(10), before: secs(10), limit: u32::MAX, sweep: None };
    let last = ready(store.maintain(rest));
    assert!(!last.more);
    assert_eq!(deleted.into_inner() + last.grants, 2 * ROUNDS);
    let page = PageRequest { after: None, limit: u32::MAX };
    let listed = |of| ready(store.list(of, page, NOW)).grants.len() as u64;
    assert_eq!(listed(Selector::Subject(alice())), 2 * ROUNDS);
    assert_eq!(listed(Selector::Client(app())), 2 * ROUNDS);
    assert_eq!(listed(Selector::Subject(carol)), 0);

    let end = Housekeeping { now: secs(9_000), before: secs(9_000), limit: u32::MAX, sweep: None };
    assert_eq!(ready(store.maintain(end)).grants, 2 * ROUNDS);
    assert_eq!(listed(Selector::Client(app())), 0);

    struct Stop<'a>(&'a AtomicBool);

    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(false, Ordering::SeqCst);
        }
    }

    fn revoke_briefly(store: &MemoryStore, grant: cloakroom_core::GrantId) {
        ready(store.revoke(Revocation {
            until: secs(5),
            rule_until: secs(5),
            ..revocation(Target::Grant(grant))
        }));
    }
}

#[test]
fn no_wake_up_is_lost() {
    let store = store();
    let LogNotifications::Stream(mut wakeups) = store.wakeups() else {
        panic!("it can tell");
    };
    let woken = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            while runtime.block_on(wakeups.next()).is_some() {
                woken.fetch_add(1, Ordering::SeqCst);
            }
        });
        // Each entry comes soon after the wake-up for the one before: just when the waiter is about
        // to wait again. Moved in, so that the waiter is released whatever happens.
        let store = store;
        for entry in 1..=10 * ROUNDS {
            for _ in 0..entry % ROUNDS {
                std::hint::spin_loop();
            }
            ready(store.heartbeat(NOW, secs(1)));
            let mut patience = 5_000_000;
            while woken.load(Ordering::SeqCst) < entry {
                assert!(patience > 0, "entry {entry} woke nobody");
                patience -= 1;
                std::thread::yield_now();
            }
        }
        drop(store);
        waiter.join().unwrap();
    });
    assert_eq!(woken.into_inner(), 10 * ROUNDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_reader_sees_every_entry_in_order() {
    const WRITERS: u64 = 3;
    const EACH: u64 = 300;
    let store = store();
    let readers: Vec<_> =
        (0..3).map(|_| tokio::spawn(follow(store.clone(), (WRITERS * EACH) as usize))).collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let client = ClientId::new(format!("client-{writer}")).unwrap();
                for _ in 0..EACH {
                    revoke(&store, Target::Client(client.clone()));
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let (log, _, more) = read(&store, Cursor::start(), u32::MAX);
    assert!(!more);
    assert!(log.is_sorted_by(|a, b| bound(a) < bound(b)), "in the order of bounds");
    for reader in readers {
        assert_eq!(reader.await.unwrap(), log);
    }
}

/// Tails the log, woken by the store alone: a lost wake-up makes it wait for ever.
async fn follow(store: MemoryStore, count: usize) -> Vec<LogEntry> {
    let LogNotifications::Stream(mut wakeups) = store.wakeups() else {
        panic!("it can tell");
    };
    let (mut seen, mut cursor) = (Vec::new(), Cursor::start());
    while seen.len() < count {
        wakeups.next().await.unwrap();
        loop {
            let (entries, next, more) = read(&store, cursor, 7);
            seen.extend(entries);
            cursor = next;
            if !more {
                break;
            }
        }
    }
    seen
}

fn bound(entry: &LogEntry) -> Option<Epoch> {
    match &entry.event {
        cloakroom_core::revocation::LogEvent::Revoked { bound, .. } => *bound,
        _ => None,
    }
}
