//! Tests that need a server, or the program that is one.

mod kit;
mod processes;
mod single_use;
