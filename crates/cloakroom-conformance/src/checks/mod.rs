//! Every check, by topic.
//!
//! A check is a function from a [`Context`](crate::Context) to a result; its module lists it, with
//! the promise that it tries, in a table that the macro `checks!` makes. The tables come together
//! in [`all`].

use crate::Check;

/// Makes a module's table, `CHECKS`, from the module's name and its functions with their promises.
macro_rules! checks {
    ($module:literal: $($function:ident => $promise:ident),+ $(,)?) => {
        pub(crate) const CHECKS: &[crate::Check] = &[$(crate::Check {
            name: concat!($module, "::", stringify!($function)),
            promise: crate::Promise::$promise,
            run: |context| Box::pin($function(context)),
        }),+];
    };
}

mod cancellation;
mod cancellation_rest;
mod cancellation_revoke;
mod contract_advance;
mod contract_barred;
mod contract_create;
mod contract_ends;
mod contract_find;
mod contract_identifiers;
mod contract_keys;
mod contract_list;
mod contract_maintain;
mod contract_records;
mod contract_repeat;
mod contract_revoke;
mod contract_rules;
mod contract_spares;
mod contract_steps;
mod contract_sweep;
mod contract_sweeping;
mod contract_values;
mod damage;
mod instances;
mod log_cursors;
mod log_readers;
mod log_wakeups;
mod many;
mod model;
mod model_play;
mod model_reference;
mod more_create;
mod outage;
mod outage_whole;
mod pace;
pub mod processes;
mod races_advance;
mod races_create;
mod races_keys;
mod races_maintain;
mod races_revoke;
mod restart;
mod sight;
pub(crate) mod single_use;
pub(crate) mod single_use_processes;
pub(crate) mod single_use_races;
pub(crate) mod single_use_time;

/// Every check, in the order in which they run: the ground first, then what stands on it.
pub(crate) fn all() -> Vec<Check> {
    let tables: &[&[Check]] = &[
        contract_create::CHECKS,
        contract_barred::CHECKS,
        more_create::CHECKS,
        contract_find::CHECKS,
        contract_records::CHECKS,
        contract_identifiers::CHECKS,
        contract_advance::CHECKS,
        contract_steps::CHECKS,
        contract_repeat::CHECKS,
        contract_revoke::CHECKS,
        contract_sweep::CHECKS,
        contract_rules::CHECKS,
        contract_list::CHECKS,
        contract_maintain::CHECKS,
        contract_spares::CHECKS,
        contract_ends::CHECKS,
        contract_sweeping::CHECKS,
        contract_keys::CHECKS,
        contract_values::CHECKS,
        races_advance::CHECKS,
        races_create::CHECKS,
        races_revoke::CHECKS,
        races_maintain::CHECKS,
        races_keys::CHECKS,
        log_cursors::CHECKS,
        log_readers::CHECKS,
        log_wakeups::CHECKS,
        cancellation::CHECKS,
        cancellation_revoke::CHECKS,
        cancellation_rest::CHECKS,
        model::CHECKS,
        many::CHECKS,
        damage::CHECKS,
        instances::CHECKS,
        restart::CHECKS,
        outage::CHECKS,
        outage_whole::CHECKS,
    ];
    tables.concat()
}
