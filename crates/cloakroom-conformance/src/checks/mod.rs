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

mod contract_barred;
mod contract_create;
mod contract_find;
mod contract_identifiers;
mod contract_records;

/// Every check, in the order in which they run: the ground first, then what stands on it.
pub(crate) fn all() -> Vec<Check> {
    let tables: &[&[Check]] = &[
        contract_create::CHECKS,
        contract_barred::CHECKS,
        contract_find::CHECKS,
        contract_records::CHECKS,
        contract_identifiers::CHECKS,
    ];
    tables.concat()
}
