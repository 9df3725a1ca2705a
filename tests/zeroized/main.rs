//! Whether secrets are wiped before their memory is given back.
//!
//! Each test runs a part of the library while an allocator keeps a copy of every block that is
//! freed. When all is dropped, no block may hold eight bytes in a row of a secret: a token, a
//! client's secret, a private key. A buffer that grows always moves here, so that it leaves behind
//! what it leaves behind anywhere.
//!
//! What it cannot see: the stack, registers, and the heap of C code (aws-lc wipes its own). What
//! lies on the stack may still be found here: a struct that is moved to the heap brings along, in
//! bytes that it does not use, whatever lay there before. A secret that shows up in the middle of a
//! struct was moved about by value; it should lie in a place of its own. An optimizer moves more
//! than the program says, and so there is nothing here in an optimized build.
//!
//! What is left to others, and what the tests wipe themselves: the request, which belongs to the
//! HTTP server, and the strings that the caller passes in. Known to stay behind:
//!
//! - the bytes of a signature that is being made, in buffers of `aws-lc-rs`; never the JWT itself;
//! - the key of a chain on its way into a row, which holds it as it is.
//!
//! `cargo test -p cloakroom-tests --test zeroized` runs it.
#![cfg(debug_assertions)]

mod allocator;
mod clients;
mod control;
mod endpoints;
mod gateway;
mod handles;
mod issuer;
mod keys;
mod requests;
mod secrets;
