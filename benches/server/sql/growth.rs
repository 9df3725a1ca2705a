//! What calls cost among ten thousand to a million grants, or ten million.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloakroom_benches::{Aim, Dice, Floor, Point, Row, Unit};
use cloakroom_core::Subject;
use cloakroom_core::store::{Lookup, PageRequest, Selector, TokenStore as _};

use super::{Database, RawSql as _};
use crate::server::calls::{Load, revocation};
use crate::server::growth::At;
use crate::server::records::Records;
use crate::server::{Bench, growth, seeds};

/// The most that a call among the most grants may take, as a multiple of one among the fewest.
const FLAT: Aim = Aim::AtMost(1.5);

pub(super) fn measure<S: Database>(bench: &Bench<S>) {
    up_to(bench, 1_000_000);
}

pub(super) fn ten_million<S: Database>(bench: &Bench<S>) {
    up_to(bench, 10_000_000);
}

fn up_to<S: Database>(bench: &Bench<S>, most: usize) {
    // Revocations last: they change the store.
    let points = growth::measure(bench, most, |at| vec![list(at), revoke(at)]);
    let fewest = points.iter().map(|point| point.grants).min();
    for first in points.iter().filter(|point| Some(point.grants) == fewest) {
        let last = points.iter().rfind(|point| point.series == first.series).unwrap_or(first);
        let floor = format!("the same among {} grants", first.grants);
        bench.suite.report(Row {
            name: format!("{}, among {} grants, 64 tasks", last.series, last.grants),
            unit: Unit::Nanoseconds,
            ours: last.ours,
            floor: Some(Floor::new(floor, first.ours, &[last.ours / first.ours])),
            aim: Some(FLAT),
            beside: Vec::new(),
        });
    }
}

/// A page of the grants of a user, most of whom have one.
fn list<S: Database>(at: &At<'_, S>) -> Point {
    let (place, load) = (&at.place, Load::many(at.bench.count(100, 2)));
    let mut dice = Dice::new(seeds());
    let subjects: Arc<[Subject]> = place.runtime.block_on(async {
        let mut subjects = Vec::new();
        for _ in 0..at.bench.count(2_000, 20) {
            let key = &at.keys[dice.below(at.keys.len())];
            let found = place.store().find(key.grant, None).await.expect("an answer");
            let Lookup::Found(found) = found else { panic!("it is there") };
            subjects.push(found.grant.subject.clone());
        }
        subjects.into()
    });
    let page = PageRequest { after: None, limit: 100 };
    let now = Records::new(1).now;
    at.point(
        "list",
        || {
            let seed = seeds();
            place.tasks(load, |task| {
                let (ours, subjects) = (Arc::clone(&place.ours), Arc::clone(&subjects));
                let mut dice = Dice::new(seed + task as u64);
                async move {
                    for _ in 0..load.each {
                        let subject = subjects[dice.below(subjects.len())].clone();
                        let listed = ours.0.list(Selector::Subject(subject), page, now).await;
                        assert!(!listed.expect("an answer").grants.is_empty());
                    }
                }
            })
        },
        || {
            let seed = seeds();
            place.tasks(load, |task| {
                let (raw, subjects) = (Arc::clone(&place.raw), Arc::clone(&subjects));
                let mut dice = Dice::new(seed + task as u64);
                async move {
                    for _ in 0..load.each {
                        raw.list(&subjects[dice.below(subjects.len())]).await;
                    }
                }
            })
        },
    )
}

/// Few, or the smallest store would be another one afterwards. The store revokes grants from the front, and the raw
/// driver from the back.
fn revoke<S: Database>(at: &At<'_, S>) -> Point {
    let (place, load) = (&at.place, Load::many(at.bench.count(10, 1)));
    let next = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let take = |next: &AtomicUsize, keys: usize| next.fetch_add(1, Ordering::Relaxed) % keys;
    at.point(
        "revoke",
        || {
            place.tasks(load, |_| {
                let (ours, keys) = (Arc::clone(&place.ours), Arc::clone(&at.keys));
                let next = Arc::clone(&next[0]);
                async move {
                    for _ in 0..load.each {
                        let key = &keys[take(&next, keys.len())];
                        ours.0.revoke(revocation(key.grant)).await.expect("an answer");
                    }
                }
            })
        },
        || {
            place.tasks(load, |_| {
                let (raw, keys) = (Arc::clone(&place.raw), Arc::clone(&at.keys));
                let next = Arc::clone(&next[1]);
                async move {
                    for _ in 0..load.each {
                        raw.mark(&keys[keys.len() - 1 - take(&next, keys.len())]).await;
                    }
                }
            })
        },
    )
}
