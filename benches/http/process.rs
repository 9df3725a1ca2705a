//! The servers' processes, and the cores.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{self, Child, Command, Stdio};
use std::time::Duration;

use cloakroom_benches::Suite;

use crate::Failure;
use crate::case::Case;
use crate::servers::Kind;

const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";

/// Keeps this process to its core.
pub(crate) fn pin_client(suite: &Suite) {
    let pid = process::id().to_string();
    let mut pin = Command::new("taskset");
    let pinned =
        pin.args(["--pid", "--cpu-list", CLIENT_CORE, &pid]).stdout(Stdio::null()).status();
    if !pinned.is_ok_and(|status| status.success()) {
        suite.say("`taskset` does not work here: server and client may disturb each other");
    }
}

/// A server, in a process of its own. It ends with this value.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) tokens: Vec<String>,
}

impl Server {
    /// Starts a server, and waits until it is ready. `body` is what a bare one answers with,
    /// where what is around a gateway is, or where a file may be.
    pub(crate) fn start(
        kind: Kind,
        case: Case,
        tokens: usize,
        body: &str,
    ) -> Result<Self, Failure> {
        Self::on(SERVER_CORE, kind, case, tokens, body)
    }

    /// Starts one that is not measured: on the client's core.
    pub(crate) fn start_beside(kind: Kind, case: Case, tokens: usize) -> Result<Self, Failure> {
        Self::on(CLIENT_CORE, kind, case, tokens, "")
    }

    fn on(core: &str, kind: Kind, case: Case, tokens: usize, body: &str) -> Result<Self, Failure> {
        let count = tokens.to_string();
        let mut child = spawn(core, &["serve", kind.as_str(), case.as_str(), &count, body])?;
        let output = child.stdout.take();
        // From here on, dropping it ends the process.
        let mut server =
            Self { child, address: (Ipv4Addr::LOCALHOST, 0).into(), tokens: Vec::new() };
        let mut lines = BufReader::new(output.ok_or("the server has no output")?).lines();
        let mut line =
            || -> Result<String, Failure> { Ok(lines.next().ok_or("the server ended")??) };
        server.address.set_port(line()?.parse()?);
        for _ in 0..tokens {
            server.tokens.push(line()?);
        }
        Ok(server)
    }

    /// Where it is, as a URL.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How long it has been on a core so far, where the kernel says so.
    pub(crate) fn on_core(&self) -> Option<Duration> {
        let path = format!("/proc/{}/schedstat", self.child.id());
        let text = std::fs::read_to_string(path).ok()?;
        text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    }
}

/// Many who follow a log, in a process of their own on the client's core. It ends with this value.
pub(crate) struct Followers(Child);

impl Followers {
    /// Starts them, and waits until all of them wait for something new.
    pub(crate) fn start(kind: Kind, server: SocketAddr, count: usize) -> Result<Self, Failure> {
        let arguments = ["follow", kind.as_str(), &server.to_string(), &count.to_string()];
        let mut child = spawn(CLIENT_CORE, &arguments)?;
        let output = child.stdout.take();
        let followers = Self(child);
        let mut lines = BufReader::new(output.ok_or("the followers have no output")?).lines();
        lines.next().ok_or("the followers ended")??;
        Ok(followers)
    }
}

impl Drop for Followers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts this program once more, on one core where that is possible.
fn spawn(core: &str, arguments: &[&str]) -> Result<Child, Failure> {
    let this = env::current_exe()?;
    let mut pinned = Command::new("taskset");
    pinned.args(["--cpu-list", core]).arg(&this).args(arguments);
    let mut free = Command::new(this);
    free.args(arguments);
    let spawn =
        |command: &mut Command| command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    Ok(spawn(&mut pinned).or_else(|_| spawn(&mut free))?)
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is ours, and holds nothing that is worth an orderly end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
