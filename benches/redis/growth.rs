//! What calls cost among ten thousand to a million grants.

use cloakroom_benches::Point;

use crate::Setting;
use crate::finds::{finds, raw_finds};
use crate::rounds::median;
use crate::writes::{Shares, creates, raw_creates};

pub(crate) fn measure(setting: &Setting) {
    let sizes =
        if setting.suite.is_quick() { vec![200, 400] } else { vec![10_000, 100_000, 1_000_000] };
    for grants in sizes {
        let place = setting.place();
        let keys = place.fill(grants);
        let each = setting.count(1_000, 2);
        let (mine, theirs) = (Shares::new(&place, 11_000), Shares::new(&place, 12_000));
        point(
            setting,
            "find in Redis",
            grants,
            finds(&place, &keys, each),
            raw_finds(&place, &keys, each),
        );
        let (ours, floor) = (mine.advances(&place, each), theirs.raw_advances(&place, each));
        point(setting, "advance in Redis", grants, ours, floor);
        // Few, or the smallest store would be another one afterwards.
        let each = setting.count(30, 1);
        let (ours, floor) =
            (creates(&place, each, 60_000_000), raw_creates(&place, each, 70_000_000));
        point(setting, "create in Redis", grants, ours, floor);
    }
}

/// Nanoseconds a call, of 64 tasks together.
fn point(
    setting: &Setting,
    series: &str,
    grants: usize,
    mut ours: impl FnMut() -> f64,
    mut floor: impl FnMut() -> f64,
) {
    let (mut our, mut its) = (Vec::new(), Vec::new());
    for _ in 0..setting.count(5, 1) {
        our.push(1e9 / ours());
        its.push(1e9 / floor());
    }
    setting.suite.report(Point {
        series: series.to_owned(),
        grants: grants as u64,
        ours: median(our),
        floor: median(its),
    });
}
