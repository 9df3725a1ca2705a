//! The index on expiry of one shard.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use cloakroom_core::time::UnixTime;

/// When to look at which slot, the earliest first.
///
/// A heap, because most entries are added in the order of their time, which then costs one comparison. An
/// entry is never taken out of the middle. The shard knows for each slot at which time it is filed, so that
/// an entry with another time is recognized as outdated.
#[derive(Default)]
pub(crate) struct DueQueue {
    heap: BinaryHeap<Reverse<Due>>,
    /// At least as many entries as this may be outdated.
    outdated: usize,
}

/// An entry, in twelve bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    high: u32,
    low: u32,
    slot: u32,
}

impl Due {
    fn new(at: UnixTime, slot: u32) -> Self {
        let millis = at.as_millis();
        Self { high: (millis >> 32) as u32, low: millis as u32, slot }
    }

    fn at(self) -> UnixTime {
        UnixTime::from_millis(u64::from(self.high) << 32 | u64::from(self.low))
    }
}

impl DueQueue {
    /// Looks at the slot at this time.
    pub(crate) fn file(&mut self, at: UnixTime, slot: u32) {
        self.heap.push(Reverse(Due::new(at, slot)));
    }

    /// Notes that an entry became outdated. When half of all may be, they are thrown out, which `is_filed`
    /// decides: whether a slot is filed at this time.
    pub(crate) fn outdate(&mut self, is_filed: impl Fn(UnixTime, u32) -> bool) {
        self.outdated += 1;
        if self.outdated < 32 || self.outdated < self.heap.len() / 2 {
            return;
        }
        let mut all = std::mem::take(&mut self.heap).into_vec();
        all.retain(|Reverse(due)| is_filed(due.at(), due.slot));
        // A slot that was filed twice at the same time.
        all.sort_unstable();
        all.dedup();
        self.heap = all.into();
        self.outdated = 0;
    }

    /// The earliest time at which a slot is to be looked at, or was to be.
    pub(crate) fn first(&self) -> Option<UnixTime> {
        self.heap.peek().map(|Reverse(due)| due.at())
    }

    /// How many entries there are, outdated ones among them.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Takes the first entry out, if it is before `before`.
    pub(crate) fn pop(&mut self, before: UnixTime) -> Option<(UnixTime, u32)> {
        if self.first()? >= before {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| (due.at(), due.slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> UnixTime {
        UnixTime::from_secs(seconds)
    }

    #[test]
    fn the_earliest_comes_first_to_the_millisecond() {
        let mut queue = DueQueue::default();
        let times = [7, 5_000_000_000, 3, 9, 4_294_967_296, 4_294_967_295, 3];
        for (slot, millis) in (0..).zip(times) {
            queue.file(UnixTime::from_millis(millis), slot);
        }
        let mut out = Vec::new();
        while let Some((at, slot)) = queue.pop(UnixTime::MAX) {
            out.push((at.as_millis(), slot));
        }
        let (low, high) = (4_294_967_295, 4_294_967_296);
        let sorted = [(3, 2), (3, 6), (7, 0), (9, 3), (low, 5), (high, 4), (5_000_000_000, 1)];
        assert_eq!(out, sorted);
        queue.file(UnixTime::MAX, 8);
        assert_eq!(queue.pop(UnixTime::MAX), None, "nothing ends before the end of time");
        assert_eq!(queue.first(), Some(UnixTime::MAX));
    }

    #[test]
    fn they_are_thrown_out_when_half_of_all_may_be_outdated() {
        for (entries, kept_until) in [(100, 50), (40, 32), (10, 32)] {
            let mut queue = DueQueue::default();
            for slot in 0..entries {
                queue.file(at(1), slot);
            }
            for outdated in 1..=kept_until {
                assert_eq!(queue.heap.len(), entries as usize, "{entries}, {outdated}");
                queue.outdate(|_, slot| slot >= 3);
            }
            assert_eq!(queue.heap.len(), entries as usize - 3, "{entries}");
        }
    }

    #[test]
    fn outdated_entries_do_not_pile_up() {
        let mut queue = DueQueue::default();
        queue.file(at(1_000_000), 0);
        // The slot is filed earlier, looked at, and filed again, as with each refresh of a grant.
        for round in 0..100_000 {
            queue.file(at(round), 0);
            queue.outdate(|time, _| time == at(round));
            assert_eq!(queue.pop(at(round + 1)), Some((at(round), 0)));
            queue.file(at(1_000_000 + round), 0);
            assert!(queue.heap.len() <= 66, "{}", queue.heap.len());
        }
    }
}
