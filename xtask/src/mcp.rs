//! `cargo xtask mcp`: clients on the official SDKs of the Model Context Protocol, against the example of a
//! server.

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::command::{Failure, program, root, target};
use crate::servers::{find, install_missing};

/// How a client becomes known to the authorization server.
const WAYS: [&str; 3] = ["registered", "dynamic", "document"];

/// What is copied next to the SDKs, where the clients find them.
const FILES: [&str; 4] = ["package.json", "requirements.txt", "client.mjs", "client.py"];

/// Installs the SDKs, starts the example that was just built, and runs each client in each way.
pub(crate) fn run() -> Result<(), Failure> {
    install_missing(missing, |packages| {
        let packages = packages.join(" ");
        Failure::new(format!("the clients need Node.js, npm and Python: install {packages}"))
    })?;
    let target = target()?;
    let clients = target.join("mcp-clients");
    let python = install(&clients)?;

    let fixtures = root().join("crates/cloakroom/tests/loopback");
    let certificate = fixtures.join("certificate.pem");
    let example = target.join("debug/examples").join(format!("mcp_server{EXE_SUFFIX}"));
    let server = Server::start(&example, &certificate)?;
    for how in WAYS {
        for (interpreter, script) in [(Path::new("node"), "client.mjs"), (&*python, "client.py")] {
            program(interpreter)
                .arg(clients.join(script).display())
                .arg(&server.url)
                .arg(how)
                .arg(certificate.display())
                .arg(fixtures.join("key.pem").display())
                .run()?;
        }
    }
    Ok(())
}

/// Debian's packages for the missing programs.
fn missing() -> Vec<&'static str> {
    [("node", "nodejs"), ("npm", "npm"), ("python3", "python3-venv")]
        .into_iter()
        .filter(|(program, _)| find(&[*program]).is_none())
        .map(|(_, package)| package)
        .collect()
}

/// Installs the SDKs into this folder, unless they are there; the Python with its SDK.
fn install(clients: &Path) -> Result<PathBuf, Failure> {
    let failed = |error| Failure::new(format!("cannot prepare `{}`: {error}", clients.display()));
    fs::create_dir_all(clients).map_err(failed)?;
    let python = clients.join("python/bin/python");
    let is_changed = |name: &str| {
        let read = |folder: &Path| fs::read(folder.join(name)).ok();
        read(clients) != read(&root().join("tests/mcp"))
    };
    let has_node = clients.join("node_modules").is_dir() && !is_changed("package.json");
    let has_python = python.is_file() && !is_changed("requirements.txt");
    for name in FILES {
        fs::copy(root().join("tests/mcp").join(name), clients.join(name)).map_err(failed)?;
    }
    if !has_node {
        program("npm")
            .arg("install")
            .arg("--prefix")
            .arg(clients.display())
            .arg("--no-package-lock")
            .arg("--ignore-scripts")
            .arg("--no-audit")
            .arg("--no-fund")
            .run()?;
    }
    if !has_python {
        let environment = clients.join("python");
        program("python3").arg("-m").arg("venv").arg(environment.display()).run()?;
        program(&python)
            .arg("-m")
            .arg("pip")
            .arg("install")
            .arg("--quiet")
            .arg("--requirement")
            .arg(clients.join("requirements.txt").display())
            .run()?;
    }
    Ok(python)
}

/// The example, which ends with this.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(example: &Path, certificate: &Path) -> Result<Self, Failure> {
        let failed =
            |why: String| Failure::new(format!("`{}` does not start: {why}", example.display()));
        let mut child = Command::new(example)
            .args(["--listen", "127.0.0.1:0", "--danger-test-certificate"])
            .arg(certificate)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let mut line = String::new();
        let output = child.stdout.take().map(BufReader::new);
        let read = output.map(|mut output| output.read_line(&mut line));
        let mut server = Self { child, url: String::new() };
        match (read, line.trim().strip_prefix("ready ")) {
            (Some(Ok(_)), Some(url)) => url.clone_into(&mut server.url),
            _ => return Err(failed("it does not say that it is ready".to_owned())),
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
