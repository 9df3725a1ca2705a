//! Single-use items: what is spent once, when an item ends, and calls that overlap.

pub(crate) mod items;
pub(crate) mod processes;
pub(crate) mod races;
pub(crate) mod time;

use crate::single_use::Check;

/// Every check of a single-use store, in the order in which they run.
pub(crate) fn all() -> Vec<Check> {
    [items::CHECKS, time::CHECKS, races::CHECKS, processes::CHECKS].concat()
}
