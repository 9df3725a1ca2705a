//! A private server: in a temporary folder, on a free port of the loopback address, with a random
//! password. It ends with the process that started it.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::engine::{Engine, Purpose, answer, random};
use super::url::Url;
use crate::command::Failure;

/// The name of the administrator.
pub(super) const PRIVATE_USER: &str = "cloakroom";

/// A user as whom every server agrees to run, and who owns nothing.
const UNPRIVILEGED: &str = "nobody";

/// Far longer than a start takes, even where everything is slow.
const PATIENCE: Duration = Duration::from_secs(120);
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// How long a server has to end before it is told again.
const AGAIN: Duration = Duration::from_secs(1);

/// Dropping it removes everything.
pub(super) struct Private {
    engine: &'static dyn Engine,
    purpose: Purpose,
    folder: PathBuf,
    password: String,
    /// Root runs the server as another user.
    user: Option<User>,
    process: Option<Child>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Private {
    /// Starts a server and waits until it answers; gives up when it is no longer wanted.
    pub(super) fn start(
        engine: &'static dyn Engine,
        purpose: Purpose,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(Self, Url), Failure> {
        let mut private = Self::new(engine, purpose)?;
        engine.prepare(&private)?;
        let mut result = Err(Failure::new("was not started"));
        // Another program may take the free port first.
        for _ in 0..3 {
            result = private.try_start(&is_wanted);
            if result.is_ok() || !is_wanted() {
                break;
            }
        }
        result.map(|url| (private, url))
    }

    fn new(engine: &'static dyn Engine, purpose: Purpose) -> Result<Self, Failure> {
        let (name, password) = (engine.facts().name, random()?);
        let folder = env::temp_dir().join(format!("cloakroom-{name}-{}", random()?));
        let user = unprivileged()?;
        make_folder(&folder, user)
            .map_err(|error| Failure::new(format!("cannot make {}: {error}", folder.display())))?;
        Ok(Self { engine, purpose, folder, password, user, process: None })
    }

    fn try_start(&mut self, is_wanted: impl Fn() -> bool) -> Result<Url, Failure> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = port.map_err(|error| Failure::new(format!("no port is free: {error}")))?.port();
        let address = self.engine.address(self, port);
        let url = Url::parse(&address, self.engine.facts().schemes).map_err(Failure::new)?;

        let (log, errors) =
            self.log().map_err(|error| Failure::new(format!("cannot write its log: {error}")))?;
        let mut command = self.engine.serve(self, port)?;
        let process = command.stdout(log).stderr(errors).spawn();
        let mut process =
            process.map_err(|error| Failure::new(format!("could not be started: {error}")))?;
        let start = Instant::now();
        let answer = loop {
            let answer = self.engine.version(&url);
            // Checked last: another program on that port may have answered in its place.
            let runs = matches!(process.try_wait(), Ok(None));
            if !runs || answer.is_ok() || start.elapsed() > PATIENCE || !is_wanted() {
                break answer
                    .and_then(|_| if runs { Ok(()) } else { Err(Failure::new("it ended")) });
            }
            sleep(PAUSE);
        };
        self.process = Some(process);
        answer.map(|()| url).map_err(|why| {
            self.stop();
            Failure::new(format!("does not answer: {why}\n{}", self.said()))
        })
    }

    pub(super) fn purpose(&self) -> Purpose {
        self.purpose
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// A command to be run in the folder, by whoever owns it; what it writes for a while, too, is
    /// there.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).env("TMPDIR", &self.folder).stdin(Stdio::null());
        #[cfg(unix)]
        if let Some(user) = self.user {
            use std::os::unix::process::CommandExt as _;
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// Writes a file that nobody else can read, as nobody else can enter the folder.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.join(name);
        fs::write(&path, text)
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        Ok(path)
    }

    /// The end of the server's output.
    pub(super) fn said(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.trim().lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn log(&self) -> io::Result<(File, File)> {
        let log = File::create(self.folder.join("log"))?;
        Ok((log.try_clone()?, log))
    }

    fn stop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        if let Some(signal) = self.engine.facts().stop {
            let start = Instant::now();
            let mut sent = None::<Instant>;
            while matches!(process.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
                // One that has only just been started may not listen yet, and miss it.
                if sent.is_none_or(|sent| sent.elapsed() > AGAIN) {
                    send(signal, &process);
                    sent = Some(Instant::now());
                }
                sleep(PAUSE);
            }
        }
        let _ = process.kill();
        let _ = process.wait();
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.stop();
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

fn send(signal: &str, process: &Child) {
    // Part of every shell, but a program only on some machines. A process keeps its number until
    // it has been waited for.
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s \"$0\" \"$1\"", signal, &process.id().to_string()]);
    let _ = kill.status();
}

#[cfg(unix)]
pub(super) fn make_folder(folder: &Path, user: Option<User>) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, chown};
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    user.map_or(Ok(()), |user| chown(folder, Some(user.uid), Some(user.gid)))
}

#[cfg(not(unix))]
pub(super) fn make_folder(folder: &Path, _: Option<User>) -> io::Result<()> {
    fs::create_dir(folder)
}

pub(super) fn unprivileged() -> Result<Option<User>, Failure> {
    if !is_root() {
        return Ok(None);
    }
    let uid = id(&["-u", UNPRIVILEGED])?;
    Ok(Some(User { uid, gid: id(&["-g", UNPRIVILEGED])? }))
}

pub(super) fn is_root() -> bool {
    id(&["-u"]).is_ok_and(|uid| uid == 0)
}

fn id(args: &[&str]) -> Result<u32, Failure> {
    let id = answer(Command::new("id").args(args))?;
    id.parse().map_err(|_| Failure::new(format!("`id` answered `{id}`")))
}
