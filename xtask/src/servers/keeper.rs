//! xtask in the role of a keeper: a separate process for each server, which starts one if none is
//! given, creates a database, and undoes both when its standard input ends.
//!
//! Only the xtask that started the keeper holds the other end of that input, so the keeper ends when
//! xtask does, even if xtask is killed.

use std::env;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

use super::engine::{self, Engine, Purpose};
use super::private::Private;
use super::url::Url;
use crate::command::Failure;

const ROLE: &str = "XTASK_KEEPS";

/// Set if the server is for benchmarks.
const DURABLE: &str = "XTASK_KEEPS_DURABLE";

/// What a keeper prints when its database is ready, followed by the server's version and its URL.
const READY: &str = "ready\t";

/// A server that is kept until this is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    engine: &'static dyn Engine,
    process: Child,
    /// Held open for as long as the server is needed.
    stdin: Option<ChildStdin>,
    /// The keeper's messages. In a test binary, the harness uses standard output.
    says: BufReader<ChildStderr>,
}

/// What the tests need to know of a server.
#[derive(Debug)]
pub(super) struct Kept {
    /// Such as `Redis 7.0.15`.
    pub(super) version: String,
    /// The database that was made.
    pub(super) url: Url,
}

impl Keeper {
    /// Starts a keeper, with a server that is given or one of its own.
    pub(super) fn start(
        engine: &'static dyn Engine,
        given: Option<&Url>,
        purpose: Purpose,
    ) -> Result<Self, Failure> {
        Self::spawn(engine, command(engine, given, purpose)?)
    }

    pub(super) fn spawn(
        engine: &'static dyn Engine,
        mut command: Command,
    ) -> Result<Self, Failure> {
        let failure = |error| Failure::new(format!("a keeper could not be started: {error}"));
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failure)?;
        let stdin = process.stdin.take();
        let stderr =
            process.stderr.take().ok_or_else(|| failure(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { engine, process, stdin, says: BufReader::new(stderr) })
    }

    /// Waits until the database is there.
    pub(super) fn ready(&mut self) -> Result<Kept, Failure> {
        let mut said = String::new();
        for line in self.says.by_ref().lines().map_while(Result::ok) {
            if let Some((version, url)) =
                line.strip_prefix(READY).and_then(|it| it.split_once('\t'))
            {
                let url = Url::parse(url, self.engine.facts().schemes);
                let url = url.map_err(|why| self.failure(&why))?;
                return Ok(Kept { version: version.to_owned(), url });
            }
            said += &line;
            said += "\n";
        }
        Err(self.failure(&said))
    }

    /// Waits until everything is removed.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        self.close()
    }

    fn close(&mut self) -> Result<(), Failure> {
        if self.stdin.take().is_none() {
            return Ok(());
        }
        let mut said = String::new();
        let _ = self.says.read_to_string(&mut said);
        match self.process.wait() {
            Ok(status) if status.success() && said.is_empty() => Ok(()),
            _ => Err(self.failure(&said)),
        }
    }

    fn failure(&self, said: &str) -> Failure {
        Failure::new(format!("{:?}: {}", self.engine, said.trim()))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // An earlier failure was already reported.
        let _ = self.close();
    }
}

/// The command that starts a keeper.
pub(super) fn command(
    engine: &'static dyn Engine,
    given: Option<&Url>,
    purpose: Purpose,
) -> Result<Command, Failure> {
    let xtask =
        env::current_exe().map_err(|error| Failure::new(format!("cannot find xtask: {error}")))?;
    let mut command = Command::new(xtask);
    let facts = engine.facts();
    command.env(ROLE, facts.name).env_remove(facts.variable).env_remove(DURABLE);
    if purpose == Purpose::Benchmarks {
        command.env(DURABLE, "1");
    }
    if let Some(url) = given {
        command.env(facts.variable, url.reveal());
    }
    // A test binary takes the role in a test.
    if cfg!(test) {
        command.args(["servers::tests::in_a_role", "--exact", "--nocapture"]);
    }
    // An interrupt from the terminal is meant for xtask; it reaches the keeper as the end of its
    // input, and leaves it the time to clean up.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    Ok(command)
}

/// Keeps a server, if xtask was started for that.
pub(crate) fn run() -> Option<ExitCode> {
    let name = env::var(ROLE).ok()?;
    let kept = engine::named(&name).ok_or_else(|| Failure::new("no such server")).and_then(keep);
    Some(match kept {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.to_string());
            ExitCode::FAILURE
        }
    })
}

fn keep(engine: &'static dyn Engine) -> Result<(), Failure> {
    let end = end_of_input();
    let is_wanted = || end.try_recv() == Err(TryRecvError::Empty);
    let (private, server) = match given(engine)? {
        Some(url) => (None, url),
        None => {
            let is_durable = env::var_os(DURABLE).is_some();
            let purpose = if is_durable { Purpose::Benchmarks } else { Purpose::Tests };
            let (private, url) = Private::start(engine, purpose, is_wanted)?;
            (Some(private), url)
        }
    };
    let version = engine.version(&server)?;
    let own = engine.make(&server)?;
    say(&format!("{READY}{version}\t{}", own.reveal()));
    let _ = end.recv();
    match private {
        // The database goes with the server. To remove its tables one by one can take a minute.
        Some(private) => engine.version(&server).map(drop).map_err(|why| {
            Failure::new(format!("the server did not run to the end: {why}\n{}", private.said()))
        }),
        None => engine.unmake(&server, &own).map_err(|why| {
            Failure::new(format!("database `{}` was not removed: {why}", own.database()))
        }),
    }
}

/// The server that the environment names.
pub(super) fn given(engine: &dyn Engine) -> Result<Option<Url>, Failure> {
    let facts = engine.facts();
    let url = env::var_os(facts.variable).unwrap_or_default();
    if url.is_empty() {
        return Ok(None);
    }
    let url = url.to_str().ok_or_else(|| "is not UTF-8".to_owned());
    url.and_then(|url| Url::parse(url, facts.schemes))
        .map(Some)
        .map_err(|why| Failure::new(format!("{} {why}", facts.variable)))
}

/// Disconnects when standard input has ended.
pub(super) fn end_of_input() -> Receiver<()> {
    let (sender, end) = channel();
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        drop(sender);
    });
    end
}

/// To the xtask that has started the keeper, if it is still there.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
