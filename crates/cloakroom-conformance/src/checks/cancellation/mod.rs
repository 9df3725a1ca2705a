//! Every operation, dropped at each await: it is undone, or certain to finish.
//!
//! What is certain to finish may take a moment: the store may have a task of its own, or leave the
//! rest to `maintain`. The checks allow both before they judge.

pub(crate) mod chain;
pub(crate) mod rest;
pub(crate) mod revoke;

/// The checks of this folder, in the order in which they run.
pub(crate) const CHECKS: &[&[crate::Check]] = &[chain::CHECKS, revoke::CHECKS, rest::CHECKS];
