use std::pin::Pin;

use cloakroom_core::Jti;
use cloakroom_core::revocation::{
    Cursor, CursorPlace, EntryId, LogEvent, LogNotifications, Revocation, RevocationBatch, Target,
};
use cloakroom_core::store::{Housekeeping, TokenStore};
use cloakroom_core::time::UnixTime;
use cloakroom_memory::MemoryStore;
use futures_util::{FutureExt, Stream, StreamExt};

use crate::support::*;

fn revoke_jti(store: &MemoryStore, jti: usize, until: UnixTime) {
    let target = Target::Jti(Jti::new(jti.to_string()).unwrap());
    ready(store.revoke(Revocation { until, rule_until: until, ..revocation(target) }));
}

fn trim(store: &MemoryStore, before: UnixTime) -> u64 {
    let done =
        ready(store.maintain(Housekeeping { now: before, before, limit: 1_000, sweep: None }));
    assert!(!done.more);
    done.revocations
}

fn is_gap(store: &MemoryStore, cursor: Cursor) -> bool {
    ready(store.revocations(cursor, 10)) == RevocationBatch::Gap
}

#[test]
fn the_log_is_read_in_order_and_in_pieces() {
    let store = store();
    assert_eq!(read(&store, Cursor::start(), 10), (vec![], Cursor::start(), false));
    for jti in 0..5 {
        revoke_jti(&store, jti, secs(10));
    }
    ready(store.heartbeat(secs(1), secs(2)));
    let (all, end, more) = read(&store, Cursor::start(), 6);
    assert_eq!((all.len(), more), (6, false));
    assert_eq!(all[5].event, LogEvent::Heartbeat {});
    assert_eq!((all[5].at, all[5].until), (secs(1), secs(2)));

    let (mut pieces, mut cursor) = (Vec::new(), Cursor::start());
    loop {
        let (entries, next, more) = read(&store, cursor, 4);
        pieces.extend(entries);
        // A cursor travels as text.
        cursor = next.to_string().parse().unwrap();
        if !more {
            break;
        }
    }
    assert_eq!((pieces, &cursor), (all, &end));
    assert_eq!(read(&store, end.clone(), 4), (vec![], end, false), "nothing new");
}

#[test]
fn a_place_that_is_gone_is_a_gap() {
    let (store, other) = (store(), store());
    revoke_jti(&store, 1, secs(10));
    let (_, ours, _) = read(&store, Cursor::start(), 10);
    assert!(is_gap(&other, ours.clone()), "an emptied store");
    revoke_jti(&other, 1, secs(10));
    assert!(is_gap(&other, ours.clone()), "another incarnation");

    let place = CursorPlace::of(&ours).unwrap();
    assert!(!is_gap(&store, Cursor::after(&place)));
    for wrong in [
        CursorPlace { incarnation: [0; 16], ..place },
        CursorPlace { position: place.position + 1, ..place },
        CursorPlace { entry: EntryId::from_bytes([0; 16]), ..place },
    ] {
        assert!(is_gap(&store, Cursor::after(&wrong)), "{wrong:?}");
    }
}

/// What a reader gets who has read up to a heartbeat that is trimmed.
#[test]
fn trimmed_heartbeats_are_no_gap() {
    let store = store();
    ready(store.heartbeat(NOW, secs(1)));
    let nothing_revoked = read(&store, Cursor::start(), 10).1;
    revoke_jti(&store, 1, secs(100));
    ready(store.heartbeat(NOW, secs(2)));
    let one_revoked = read(&store, Cursor::start(), 10).1;
    revoke_jti(&store, 2, secs(90));
    ready(store.heartbeat(NOW, secs(3)));
    assert_eq!(trim(&store, secs(10)), 2, "two heartbeats; the newest stays");

    let jtis = |cursor: &Cursor| -> Vec<UnixTime> {
        let (entries, ..) = read(&store, cursor.clone(), 10);
        entries.iter().map(|entry| entry.until).collect()
    };
    assert_eq!(jtis(&nothing_revoked), [secs(100), secs(90), secs(3)]);
    assert_eq!(jtis(&one_revoked), [secs(90), secs(3)]);
    // The revocation that it had read has ended as well: who knows what else has.
    trim(&store, secs(101));
    ready(store.heartbeat(NOW, secs(200)));
    assert!(is_gap(&store, one_revoked));
    // A log that is shorter has lost something, whatever it was.
    let newest = CursorPlace::of(&read(&store, Cursor::start(), 10).1).unwrap();
    let ahead = CursorPlace { position: newest.position + 1, ..newest };
    assert!(is_gap(&store, Cursor::after(&ahead)));
}

#[test]
fn entries_go_after_their_own_end_and_the_newest_stays() {
    let store = store();
    let mut cursors = vec![Cursor::start()];
    for (jti, end) in [30, 10, 20, 5].into_iter().enumerate() {
        revoke_jti(&store, jti, secs(end));
        let last = cursors.last().unwrap().clone();
        cursors.push(read(&store, last, 10).1);
    }
    let ends = |after| -> Vec<UnixTime> {
        let (entries, ..) = read(&store, after, 10);
        entries.iter().map(|entry| entry.until).collect()
    };
    assert_eq!(trim(&store, secs(10)), 1, "only the rule of the newest entry ended before");
    assert_eq!(trim(&store, secs(11)), 2, "an entry and its rule");
    assert_eq!(ends(Cursor::start()), [secs(30), secs(20), secs(5)]);
    assert_eq!(ends(cursors[1].clone()), [secs(20), secs(5)]);
    assert!(is_gap(&store, cursors[2].clone()), "its entry was trimmed");

    assert_eq!(trim(&store, UnixTime::MAX), 4);
    assert_eq!(ends(Cursor::start()), [secs(5)], "the newest");
    assert_eq!(ends(cursors[4].clone()), [], "who has seen everything meets no gap");
    ready(store.heartbeat(NOW, secs(7)));
    assert_eq!(ends(cursors[4].clone()), [secs(7)]);
    assert_eq!(trim(&store, secs(6)), 1, "it is the newest no more");
}

#[test]
fn the_newest_bound_survives_trimming() {
    let store = store();
    revoke(&store, Target::Subject(alice()));
    let bound = newest_bound(&store);
    ready(store.heartbeat(NOW, UnixTime::MAX));
    assert_eq!(trim(&store, UnixTime::MAX), 2);
    assert_eq!(newest_bound(&store), bound);
    let RevocationBatch::Entries { newest_bound, .. } =
        ready(store.revocations(Cursor::start(), 10))
    else {
        panic!("a gap");
    };
    assert_eq!(newest_bound, bound);
}

fn stream(store: &MemoryStore) -> Pin<Box<dyn Stream<Item = ()> + Send>> {
    match store.wakeups() {
        LogNotifications::Stream(stream) => stream,
        LogNotifications::Poll(_) => panic!("it can tell"),
    }
}

#[test]
fn wake_ups_come_once_the_log_has_grown() {
    let store = store();
    let mut wakeups = stream(&store);
    assert_eq!(wakeups.next().now_or_never(), None);
    revoke_jti(&store, 1, secs(10));
    revoke_jti(&store, 2, secs(10));
    assert_eq!(wakeups.next().now_or_never(), Some(Some(())));
    assert_eq!(wakeups.next().now_or_never(), None, "one for both");
    ready(store.heartbeat(NOW, secs(10)));
    assert_eq!(wakeups.next().now_or_never(), Some(Some(())));

    let mut late = stream(&store);
    let first = late.next().now_or_never();
    assert_eq!(first, Some(Some(())), "it may have grown before they were asked for");
    assert_eq!(late.next().now_or_never(), None);
}

#[test]
fn wake_ups_end_with_the_store() {
    let store = store();
    let mut wakeups = stream(&store);
    assert_eq!(wakeups.next().now_or_never(), None, "it waits");
    drop(store);
    for _ in 0..2 {
        assert_eq!(wakeups.next().now_or_never(), Some(None), "ended, and stays so");
    }
}

/// Readers that pause at random, while revocations and heartbeats come, end and are trimmed: whoever
/// meets no gap has read every revocation that still matters.
#[test]
fn a_reader_without_a_gap_has_missed_nothing() {
    let (mut gaps, mut resumed) = (0, 0);
    for seed in 0..400_u64 {
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut roll = |sides: u64| {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let store = store();
        // Every revocation with its end; readers: the cursor, and what was read since the start.
        let mut revoked = Vec::new();
        let mut readers = vec![(Cursor::start(), Vec::new()); 3];
        let mut now = 0;
        for step in 0..60 {
            now += roll(4);
            match roll(5) {
                0 => {
                    let until = secs(now + 5 + roll(60));
                    let jti = usize::try_from(step).unwrap();
                    revoke_jti(&store, jti, until);
                    revoked.push((jti.to_string(), until));
                }
                1 | 2 => ready(store.heartbeat(secs(now), secs(now + 2))),
                3 => drop(trim(&store, secs(now))),
                _ => {
                    let at = usize::try_from(roll(3)).unwrap();
                    let (cursor, seen) = &mut readers[at];
                    let limit = 1 + u32::try_from(roll(4)).unwrap();
                    loop {
                        let answer = ready(store.revocations(cursor.clone(), limit));
                        let RevocationBatch::Entries { entries, next, more, .. } = answer else {
                            gaps += 1;
                            (*cursor, *seen) = (Cursor::start(), Vec::new());
                            continue;
                        };
                        for entry in entries {
                            let LogEvent::Revoked { target: Target::Jti(jti), .. } = entry.event
                            else {
                                continue;
                            };
                            resumed += u32::from(seen.contains(&jti.as_str().to_owned()));
                            seen.push(jti.as_str().to_owned());
                        }
                        *cursor = next;
                        if !more {
                            break;
                        }
                    }
                    for (jti, until) in &revoked {
                        let matters = *until >= secs(now);
                        assert!(!matters || seen.contains(jti), "seed {seed}: it missed {jti}");
                    }
                }
            }
        }
    }
    assert!(gaps > 0, "no reader met a gap");
    assert_eq!(resumed, 0, "what was read up to the newest revocation is not delivered again");
}
