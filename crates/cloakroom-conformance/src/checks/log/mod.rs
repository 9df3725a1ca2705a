//! The revocation log: cursors, gaps, order under concurrent writers, and wake-ups.

pub(crate) mod cursors;
pub(crate) mod readers;
pub(crate) mod wakeups;

/// The checks of this folder, in the order in which they run.
pub(crate) const CHECKS: &[&[crate::Check]] = &[cursors::CHECKS, readers::CHECKS, wakeups::CHECKS];
