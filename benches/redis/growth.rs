//! What calls cost among ten thousand to a million grants.

use crate::Bench;
use crate::server::calls::{Load, creates};
use crate::server::growth;

pub(crate) fn measure(bench: &Bench) {
    growth::measure(bench, 1_000_000, |at| {
        // Few, or the smallest store would be another one afterwards.
        let (place, load) = (&at.place, Load::many(bench.count(30, 1)));
        let ours = creates(place, &place.ours, load);
        vec![at.point("create", ours, creates(place, &place.raw, load))]
    });
}
