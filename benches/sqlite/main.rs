//! The SQLite store beside the raw driver on the same tables. `finds`, `writes`, `rows`,
//! `cleaning` or `start` runs that part alone.

mod cleaning;
mod finds;
mod raw;
mod records;
mod rounds;
mod rows;
mod start;
mod writes;

use std::env;

use cloakroom_benches::Suite;

/// The number of concurrent tasks, where it is not one.
const TASKS: usize = 64;

fn main() {
    let suite = Suite::from_args();
    let grants = if suite.is_quick() { 1_000 } else { 100_000 };
    let named: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let parts: [(&str, &dyn Fn()); 5] = [
        ("finds", &|| finds::measure(&suite, grants)),
        ("writes", &|| writes::measure(&suite)),
        ("rows", &|| rows::measure(&suite)),
        ("cleaning", &|| cleaning::measure(&suite)),
        ("start", &|| start::measure(&suite)),
    ];
    for (name, measure) in parts {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            measure();
        }
    }
}

/// A runtime with a thread for each core.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads")
}
