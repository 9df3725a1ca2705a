//! The kit, tried on a store that keeps the contract and on many that do not.

mod memory;
mod mutants;
