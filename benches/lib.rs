//! Benchmarks of cloakroom. Run them with `cargo bench --package cloakroom-benches`.
