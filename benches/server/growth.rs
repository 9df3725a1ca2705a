//! What calls cost among ten thousand to a million grants.

use std::iter;
use std::sync::Arc;

use cloakroom_benches::Point;

use super::calls::{Load, Shares, finds, nanoseconds};
use super::records::Key;
use super::rounds::{ROUNDS, median};
use super::{Bench, Place, Server};

/// A store that was filled.
pub(crate) struct At<'a, S: Server> {
    pub(crate) bench: &'a Bench<S>,
    pub(crate) place: Place<S>,
    pub(crate) keys: Arc<[Key]>,
}

/// Lookups and steps among these numbers of grants, and what else `also` measures there.
pub(crate) fn measure<S: Server>(
    bench: &Bench<S>,
    most: usize,
    also: impl Fn(&At<'_, S>) -> Vec<Point>,
) -> Vec<Point> {
    let (first, most) = (bench.count(10_000, 200), bench.count(most, 2_000));
    let mut points = Vec::new();
    for grants in iter::successors(Some(first), |grants| Some(grants * 10)) {
        if grants > most {
            break;
        }
        let place = bench.place();
        let keys = place.fill(grants, 0);
        bench.suite.say(format_args!("{grants} grants"));
        let at = At { bench, place, keys };
        let (place, keys) = (&at.place, &at.keys);
        let load = Load::many(bench.count(1_000, 2));
        points.push(at.point(
            "find",
            finds(place, &place.ours, keys, load),
            finds(place, &place.raw, keys, load),
        ));
        let load = Load::many(bench.count(S::WRITES, 2));
        let (mine, theirs) = (Shares::new(place), Shares::new(place));
        points.push(at.point(
            "advance",
            mine.advances(place, &place.ours, load),
            theirs.advances(place, &place.raw, load),
        ));
        points.extend(also(&at));
    }
    points
}

impl<S: Server> At<'_, S> {
    /// Nanoseconds a call, of 64 tasks together.
    pub(crate) fn point(
        &self,
        call: &str,
        ours: impl FnMut() -> f64,
        floor: impl FnMut() -> f64,
    ) -> Point {
        let (mut ours, mut floor) = (nanoseconds(ours), nanoseconds(floor));
        let rounds = self.bench.count(ROUNDS, 1);
        let (our, its): (Vec<f64>, Vec<f64>) = (0..rounds).map(|_| (ours(), floor())).unzip();
        let point = Point {
            series: format!("{call} in {}", S::NAME),
            grants: self.keys.len() as u64,
            ours: median(our),
            floor: median(its),
        };
        self.bench.suite.report(point.clone());
        point
    }
}
