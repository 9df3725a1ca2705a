//! The program as an operator runs it, on stores that the library filled.

mod commands;
mod docs;
mod doctor;
mod keys;
mod secrecy;
mod servers;
mod support;
mod tokens;
