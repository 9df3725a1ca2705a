//! Installs missing programs, or names all of them where it cannot install.

use std::path::Path;
use std::process::{Command, Stdio};

use super::engine::{Engine, find};
use super::private::is_root;
use super::redis::Redis;
use crate::command::Failure;

/// nginx is started by its own tests; this shows that it is there, with the module they need.
const NGINX: &str = "/usr/lib/nginx/modules/ngx_http_js_module.so";
const NGINX_PACKAGES: [&str; 2] = ["nginx", "libnginx-mod-http-js"];

/// `PgBouncer` is started by the tests of the PostgreSQL store.
const POOLER: &str = "pgbouncer";

/// The example of a signer in a hardware security module runs against it.
const SOFTHSM: (&str, &str) = ("softhsm2-util", "softhsm2");

/// Chromium is started by the test of the example `shop`.
const BROWSER: &str = "chromium";

/// A server that only tests need should not run as a service. Debian's tools read this file to decide
/// whether a newly installed server may start. An existing policy is kept. The shell removes ours, so
/// that happens even if xtask is killed.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
if ! [ -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '%s\n' '#!/bin/sh' '# Of cargo xtask test, while it installs servers.' 'exit 101' \
        >"$policy" && chmod 755 "$policy" || exit 1
fi
apt-get update --quiet -o DPkg::Lock::Timeout=300
DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends \
    -o DPkg::Lock::Timeout=300 "$@"
"#;

/// Installs the programs that are missing for these servers, each of which is given or to be
/// started.
pub(super) fn install(servers: &[(&dyn Engine, bool)]) -> Result<(), Failure> {
    install_missing(|| missing(servers), |packages| advice(packages, servers))
}

/// Installs Redis, for tests that start its servers by themselves.
pub(crate) fn install_redis() -> Result<(), Failure> {
    install_server(&Redis)
}

/// Installs one server.
pub(super) fn install_server(engine: &dyn Engine) -> Result<(), Failure> {
    let facts = engine.facts();
    let is_missing = || engine.client().is_none() || engine.server().is_none();
    install_missing(
        || is_missing().then_some(facts.packages[1]).into_iter().collect(),
        |packages| Failure::new(format!("install it: apt-get install {}", packages.join(" "))),
    )
}

/// Installs the packages that are missing.
pub(crate) fn install_missing(
    missing: impl Fn() -> Vec<&'static str>,
    advice: impl Fn(&[&str]) -> Failure,
) -> Result<(), Failure> {
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    if !is_root() || find(&["apt-get"]).is_none() {
        return Err(advice(&packages));
    }
    println!("$ apt-get install {}", packages.join(" "));
    let mut install = Command::new("sh");
    install.args(["-c", INSTALL, "sh"]).args(&packages).stdin(Stdio::null());
    // It printed what went wrong; the check below counts.
    let _ = install.status();
    let missing = missing();
    if missing.is_empty() { Ok(()) } else { Err(advice(&missing)) }
}

/// Debian's packages for the missing programs.
pub(super) fn missing(servers: &[(&dyn Engine, bool)]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for (engine, is_given) in servers {
        let [client, server] = engine.facts().packages;
        // The tests of the Redis store also start servers of their own: clusters, and servers to kill.
        if *is_given && engine.facts().name != "redis" {
            packages.extend(engine.client().is_none().then_some(client));
        } else {
            packages
                .extend((engine.client().is_none() || engine.server().is_none()).then_some(server));
        }
    }
    if !Path::new(NGINX).exists() {
        packages.extend(NGINX_PACKAGES);
    }
    for program in [POOLER, BROWSER] {
        packages.extend(find(&[program]).is_none().then_some(program));
    }
    packages.extend(find(&[SOFTHSM.0]).is_none().then_some(SOFTHSM.1));
    packages
}

/// What to do about packages that are missing.
pub(super) fn advice(packages: &[&str], servers: &[(&dyn Engine, bool)]) -> Failure {
    let variables: Vec<&str> = servers
        .iter()
        .filter(|(engine, is_given)| !is_given && packages.contains(&engine.facts().packages[1]))
        .map(|(engine, _)| engine.facts().variable)
        .collect();
    let named = match variables.join(", ") {
        none if none.is_empty() => String::new(),
        variables => format!("or name servers to use: {variables}\n"),
    };
    Failure::new(format!(
        "the tests need servers that are not on this machine\n\
         install them: apt-get install {}\n\
         {named}\
         or leave out what needs a server: cargo xtask test --embedded",
        packages.join(" ")
    ))
}
