//! Checks that need a [`Database`](crate::Database): a second instance, a restart, a driver that
//! fails, a damaged row.

pub(crate) mod damage;
pub(crate) mod instances;
pub(crate) mod outage;
pub(crate) mod outage_whole;
pub(crate) mod restart;

/// The checks of this folder, in the order in which they run.
pub(crate) const CHECKS: &[&[crate::Check]] =
    &[damage::CHECKS, instances::CHECKS, restart::CHECKS, outage::CHECKS, outage_whole::CHECKS];
