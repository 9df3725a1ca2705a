//! Where in a shard each grant id is.

/// The places of the entries, by the hashes of their ids.
///
/// A lookup among millions of grants waits for memory more than for anything else, and a general hash table
/// has two arrays to wait for: one with a byte of each hash, and one with the values. Here both stand
/// together, in one array with linear probing.
#[derive(Default)]
pub(crate) struct PlaceTable {
    cells: Vec<Cell>,
    len: usize,
}

#[derive(Clone, Copy)]
struct Cell {
    hash: u32,
    /// [`FREE`] in a free cell.
    place: u32,
}

/// No entry has this place.
const FREE: u32 = u32::MAX;

impl Cell {
    const EMPTY: Self = Self { hash: 0, place: FREE };

    const fn is_free(self) -> bool {
        self.place == FREE
    }
}

impl PlaceTable {
    /// The place with this hash that is the right one.
    pub(crate) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let at = self.cell(hash, |cell| cell.hash == hash && is_it(cell.place))?;
        Some(self.cells[at].place)
    }

    /// Adds a place, which must not be there.
    pub(crate) fn insert(&mut self, hash: u32, place: u32) {
        debug_assert_ne!(place, FREE, "a shard is never so large");
        // At most four fifths are in use. So each search meets a free cell, and soon.
        if (self.len + 1) * 5 > self.cells.len() * 4 {
            self.grow();
        }
        self.put(Cell { hash, place });
        self.len += 1;
    }

    /// Removes a place, if it is there.
    pub(crate) fn remove(&mut self, hash: u32, place: u32) {
        let Some(mut free) = self.cell(hash, |cell| cell.place == place) else {
            return;
        };
        // What follows moves up, so that no search ends at the gap. Nothing moves before its home.
        let mut at = free;
        loop {
            at = self.after(at);
            let cell = self.cells[at];
            if cell.is_free() {
                break;
            }
            if self.distance(self.home(cell.hash), at) >= self.distance(free, at) {
                self.cells[free] = cell;
                free = at;
            }
        }
        self.cells[free] = Cell::EMPTY;
        self.len -= 1;
    }

    /// Where the first cell in use is that matches, from the home of this hash to the next free cell.
    fn cell(&self, hash: u32, matches: impl Fn(Cell) -> bool) -> Option<usize> {
        if self.cells.is_empty() {
            return None;
        }
        let mut at = self.home(hash);
        loop {
            let cell = self.cells[at];
            if cell.is_free() {
                return None;
            }
            if matches(cell) {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    fn put(&mut self, cell: Cell) {
        let mut at = self.home(cell.hash);
        while !self.cells[at].is_free() {
            at = self.after(at);
        }
        self.cells[at] = cell;
    }

    /// Makes room by a quarter. A table that doubles would waste more.
    fn grow(&mut self) {
        let size = (self.cells.len() + self.cells.len() / 4).max(8);
        let cells = std::mem::replace(&mut self.cells, vec![Cell::EMPTY; size]);
        cells.into_iter().filter(|cell| !cell.is_free()).for_each(|cell| self.put(cell));
    }

    /// Where the search for a hash begins: homes are in the order of hashes.
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.cells.len() as u64) >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.cells.len() { 0 } else { at + 1 }
    }

    /// How many steps lead from one cell to the other.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.cells.len() - from }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Few hashes, so that many places share one, at both ends of the table and between.
    fn hash(number: u32) -> u32 {
        [0, 1, u32::MAX / 2, u32::MAX - 1, u32::MAX][number as usize % 5]
    }

    #[test]
    fn it_agrees_with_a_map_after_each_of_many_changes() {
        let (mut table, mut map) = (PlaceTable::default(), HashMap::new());
        let mut random = 1_u32;
        for _ in 0..4_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let place = (random >> 16) % 60;
            // Some hashes are spread evenly.
            let hash = if place.is_multiple_of(2) { hash(place) } else { place * (u32::MAX / 60) };
            if map.remove(&place).is_some() {
                table.remove(hash, place);
            } else {
                map.insert(place, hash);
                table.insert(hash, place);
            }
            assert_eq!(table.len, map.len());
            assert_eq!(table.cells.iter().filter(|cell| !cell.is_free()).count(), map.len());
            for (place, hash) in &map {
                assert_eq!(table.find(*hash, |found| found == *place), Some(*place));
            }
        }
    }

    #[test]
    fn only_the_right_place_is_found() {
        let mut table = PlaceTable::default();
        assert_eq!(table.find(7, |_| true), None);
        table.remove(7, 1);
        for (hash, place) in [(7, 0), (7, 1), (8, 2)] {
            table.insert(hash, place);
        }
        assert_eq!(table.find(7, |place| place == 1), Some(1));
        assert_eq!(table.find(8, |_| true), Some(2));
        assert_eq!(table.find(7, |place| place == 2), None);
        // A place that is not there takes none away.
        table.remove(7, 3);
        assert_eq!(table.len, 3);
    }

    #[test]
    fn at_most_four_fifths_and_seldom_less_than_half_of_the_cells_are_in_use() {
        assert_eq!(size_of::<Cell>(), 8);
        let mut table = PlaceTable::default();
        for place in 0_u32..10_000 {
            table.insert(place.wrapping_mul(0x9e37_79b9), place);
            let (used, all) = (table.len * 5, table.cells.len() * 4);
            assert!(used <= all, "{used} of {all}");
            assert!(table.cells.len() <= table.len * 2 || table.len < 4, "{}", table.len);
            // It grows when it must.
            assert!(table.len != 8 || table.cells.len() == 10, "{}", table.cells.len());
        }
        // Each is near its home, where a search begins.
        let away = |(at, cell): (usize, &Cell)| match cell.is_free() {
            true => 0,
            false => table.distance(table.home(cell.hash), at),
        };
        let away: usize = table.cells.iter().enumerate().map(away).sum();
        assert!(away < 10 * table.len, "{away} steps");
    }
}
