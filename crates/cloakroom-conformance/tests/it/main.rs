//! The kit, tried on stores that keep the contract and on many that do not.
//!
//! `CLOAKROOM_MUTANT_ROUNDS=20` has each wrong store convicted twenty times in a row; the default
//! is once.

mod memory;
mod mutants;
mod tenants;
