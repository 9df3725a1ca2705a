//! The differences between the servers.

use std::fmt::{self, Debug};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use super::mysql::Mysql;
use super::postgres::Postgres;
use super::private::Private;
use super::redis::Redis;
use super::url::Url;
use crate::command::Failure;

/// One kind of server: where its programs are, and how to start and talk to one.
pub(crate) trait Engine: Sync {
    fn facts(&self) -> &'static Facts;

    /// The client program, if it is on this machine.
    fn client(&self) -> Option<PathBuf>;

    /// The server program, if it and the programs that prepare it are on this machine.
    fn server(&self) -> Option<PathBuf>;

    /// Writes what a private server needs to start.
    fn prepare(&self, private: &Private) -> Result<(), Failure>;

    /// The command that is a private server until it is ended.
    fn serve(&self, private: &Private, port: u16) -> Result<Command, Failure>;

    /// The URL of a private server, as a user who may create databases.
    fn address(&self, private: &Private, port: u16) -> String;

    /// The server's name and version, which also shows that it answers.
    fn version(&self, server: &Url) -> Result<String, Failure>;

    /// Creates a database for this run.
    fn make(&self, server: &Url) -> Result<Url, Failure>;

    /// Removes the database that `make` created.
    fn unmake(&self, server: &Url, own: &Url) -> Result<(), Failure>;
}

/// What a private server is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It is quick, and may lose everything in a power cut.
    Tests,
    /// Its commits are durable.
    Benchmarks,
}

/// Facts about a kind of server.
pub(crate) struct Facts {
    pub(crate) name: &'static str,
    /// The variable of the environment that names a server to use, to xtask and to the tests.
    pub(crate) variable: &'static str,
    pub(crate) schemes: &'static [&'static str],
    /// Debian's packages that bring the client, and the server with its client.
    pub(crate) packages: [&'static str; 2],
    /// The part of a test's name that says that it needs this server.
    pub(crate) tests: &'static str,
    /// The signal for an immediate shutdown, if being killed would leave something behind.
    pub(crate) stop: Option<&'static str>,
}

pub(crate) const ENGINES: [&dyn Engine; 3] = [&Postgres, &Mysql, &Redis];

pub(crate) fn named(name: &str) -> Option<&'static dyn Engine> {
    ENGINES.into_iter().find(|engine| engine.facts().name == name)
}

impl Debug for dyn Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.facts().name)
    }
}

/// Looks for a program, under one of its names.
pub(crate) fn find(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Servers are only in the administrator's path.
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let directories: Vec<PathBuf> = env::split_paths(&path).chain(more).collect();
    names.iter().find_map(|name| find_in(&directories, name))
}

pub(super) fn find_in(directories: &[PathBuf], name: &str) -> Option<PathBuf> {
    directories.iter().map(|directory| directory.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    #[cfg(unix)]
    let may_run = |metadata: &fs::Metadata| {
        std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0
    };
    #[cfg(not(unix))]
    let may_run = |_: &fs::Metadata| true;
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && may_run(&metadata))
}

/// What the command prints, without the white space around it; or why it failed, in its own words.
pub(super) fn answer(command: &mut Command) -> Result<String, Failure> {
    let name = command.get_program().display().to_string();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::new(format!("`{name}` could not be run: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Failure::new(format!("`{name}`: {}", String::from_utf8_lossy(&said).trim())))
}

/// The program. It fails only if the program was removed during the run.
pub(super) fn present(program: Option<PathBuf>, name: &str) -> Result<PathBuf, Failure> {
    program.ok_or_else(|| Failure::new(format!("`{name}` is not on this machine")))
}

/// A unique name.
pub(super) fn unique_name() -> Result<String, Failure> {
    Ok(format!("cloakroom_test_{}", random()?))
}

/// 128 random bits, as 32 hexadecimal digits.
pub(super) fn random() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(format!("the system gives no random bytes: {error}")))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
