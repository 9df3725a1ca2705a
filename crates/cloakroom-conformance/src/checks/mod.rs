//! Every check, by topic.
//!
//! A check is a function from a [`Context`](crate::Context) to a result. Its module lists it, with
//! the promise that it tests, in a table that the macro `checks!` makes. [`all`] combines the
//! tables.

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
mod contract;
mod database;
mod log;
mod many;
mod model;
pub mod processes;
mod races;
pub(crate) mod single_use;

/// Every check of a token store and a key store, in the order in which they run: what others rely
/// on comes first.
pub(crate) fn all() -> Vec<Check> {
    let topics: &[&[&[Check]]] = &[
        contract::CHECKS,
        races::CHECKS,
        log::CHECKS,
        cancellation::CHECKS,
        &[model::CHECKS, many::CHECKS],
        database::CHECKS,
    ];
    topics.concat().concat()
}
