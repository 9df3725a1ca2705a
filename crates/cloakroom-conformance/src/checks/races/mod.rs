//! Calls that overlap: two in every order of their awaits, and many tasks at once.

pub(crate) mod advance;
pub(crate) mod create;
pub(crate) mod keys;
pub(crate) mod maintain;
pub(crate) mod revoke;

/// The checks of this folder, in the order in which they run.
pub(crate) const CHECKS: &[&[crate::Check]] =
    &[advance::CHECKS, create::CHECKS, revoke::CHECKS, maintain::CHECKS, keys::CHECKS];
