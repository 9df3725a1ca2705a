//! The contract, method by method: what each call answers, writes, refuses and keeps.
//!
//! One call at a time. What happens when calls overlap is in [`races`](super::races).

pub(crate) mod advance;
pub(crate) mod advance_repeated;
pub(crate) mod advance_writes;
pub(crate) mod check_values;
pub(crate) mod create;
pub(crate) mod create_barred;
pub(crate) mod find;
pub(crate) mod identifiers;
pub(crate) mod keys;
pub(crate) mod list;
pub(crate) mod maintain;
pub(crate) mod maintain_keeps;
pub(crate) mod maintain_sweeps;
pub(crate) mod records;
pub(crate) mod revoke;
pub(crate) mod revoke_covers;
pub(crate) mod rule_ends;
pub(crate) mod rules;
pub(crate) mod scan;
pub(crate) mod status;

/// The checks of this folder, in the order in which they run.
pub(crate) const CHECKS: &[&[crate::Check]] = &[
    create::CHECKS,
    create_barred::CHECKS,
    find::CHECKS,
    records::CHECKS,
    identifiers::CHECKS,
    advance::CHECKS,
    advance_writes::CHECKS,
    advance_repeated::CHECKS,
    revoke::CHECKS,
    revoke_covers::CHECKS,
    rules::CHECKS,
    list::CHECKS,
    maintain::CHECKS,
    maintain_keeps::CHECKS,
    rule_ends::CHECKS,
    maintain_sweeps::CHECKS,
    keys::CHECKS,
    check_values::CHECKS,
    status::CHECKS,
    scan::CHECKS,
];
