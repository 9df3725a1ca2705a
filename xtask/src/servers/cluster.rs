//! Servers that a test starts and kills by itself: a folder for them, and a keeper, a process that ends
//! all of them and removes the folder, whatever happens to xtask and to the test.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use super::engine::{Engine as _, find, present, random};
use super::install::install_missing;
use super::keeper::{end_of_input, say};
use super::mysql::Mysql;
use super::postgres::Postgres;
use super::private::{PAUSE, User, make_folder, unprivileged};
use crate::command::{Cmd, Failure};

/// Names the folder to the keeper.
const ROLE: &str = "XTASK_KEEPS_FOLDER";
const READY: &str = "ready";

/// How long a server has to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// What a test needs for a cluster of its own. Dropping it ends everything.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: PathBuf,
    user: Option<User>,
    programs: Vec<(&'static str, PathBuf)>,
    keeper: Child,
    /// Held open for as long as the cluster is needed.
    stdin: Option<ChildStdin>,
    says: BufReader<ChildStderr>,
}

impl Cluster {
    /// For PostgreSQL with Patroni and etcd; installs what is missing.
    pub(crate) fn patroni() -> Result<Self, Failure> {
        install_missing(missing, advice)?;
        let postgres = present(Postgres.server(), "postgres")?;
        let programs = vec![
            ("CLOAKROOM_FAILOVER_POSTGRES", postgres.parent().unwrap_or(&postgres).to_owned()),
            ("CLOAKROOM_FAILOVER_PATRONI", present(find(&["patroni"]), "patroni")?),
            ("CLOAKROOM_FAILOVER_ETCD", present(find(&["etcd"]), "etcd")?),
        ];
        Self::keep(programs)
    }

    /// For a MariaDB primary and its replica; installs what is missing.
    pub(crate) fn mariadb() -> Result<Self, Failure> {
        let missing = || match Mysql.server() {
            Some(_) => Vec::new(),
            None => vec![Mysql.facts().packages[1]],
        };
        install_missing(missing, advice)?;
        Self::keep(Vec::new())
    }

    fn keep(programs: Vec<(&'static str, PathBuf)>) -> Result<Self, Failure> {
        let folder = env::temp_dir().join(format!("cloakroom-cluster-{}", random()?));
        let failure = |error| Failure::new(format!("a keeper could not be started: {error}"));
        let mut command = Command::new(env::current_exe().map_err(failure)?);
        command.env(ROLE, &folder);
        // A test binary takes the role in a test.
        if cfg!(test) {
            command.args(["servers::tests::in_a_role", "--exact", "--nocapture"]);
        }
        // An interrupt from the terminal is meant for xtask.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut keeper = command.spawn().map_err(failure)?;
        let stdin = keeper.stdin.take();
        let says = keeper.stderr.take().ok_or_else(|| Failure::new("a keeper has no output"))?;
        let user = unprivileged()?;
        let mut cluster =
            Self { folder, user, programs, keeper, stdin, says: BufReader::new(says) };
        let mut said = String::new();
        let _ = cluster.says.read_line(&mut said);
        if said.trim() == READY { Ok(cluster) } else { Err(Failure::new(said)) }
    }

    /// Tells a test where to start its servers, from which programs, and as whom.
    pub(crate) fn tell(&self, test: Cmd) -> Cmd {
        // Zero is this user.
        let (uid, gid) = self.user.map_or((0, 0), |user| (user.uid, user.gid));
        let test = test.env("CLOAKROOM_FAILOVER_FOLDER", self.folder.display());
        let test = test.env("CLOAKROOM_FAILOVER_UID", uid).env("CLOAKROOM_FAILOVER_GID", gid);
        self.programs.iter().fold(test, |test, (name, path)| test.env(name, path.display()))
    }

    /// Waits until everything has ended and is removed.
    pub(crate) fn end(mut self) -> Result<(), Failure> {
        self.close()
    }

    fn close(&mut self) -> Result<(), Failure> {
        if self.stdin.take().is_none() {
            return Ok(());
        }
        let mut said = String::new();
        let _ = self.says.read_to_string(&mut said);
        match self.keeper.wait() {
            Ok(status) if status.success() && said.is_empty() => Ok(()),
            _ => Err(Failure::new(format!("the servers did not end: {}", said.trim()))),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // An earlier failure was already reported.
        let _ = self.close();
    }
}

fn advice(packages: &[&str]) -> Failure {
    let packages = packages.join(" ");
    Failure::new(format!("install the programs: apt-get install {packages}"))
}

/// Debian's packages for the missing programs.
fn missing() -> Vec<&'static str> {
    let programs = [
        ("patroni", find(&["patroni"])),
        ("etcd-server", find(&["etcd"])),
        ("postgresql", Postgres.server()),
    ];
    programs.into_iter().filter(|(_, found)| found.is_none()).map(|(name, _)| name).collect()
}

/// Keeps a folder, if xtask was started for that.
pub(super) fn run_keeper() -> Option<ExitCode> {
    let folder = PathBuf::from(env::var_os(ROLE)?);
    Some(match keep(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.to_string());
            ExitCode::FAILURE
        }
    })
}

fn keep(folder: &Path) -> Result<(), Failure> {
    let failure = |error| Failure::new(format!("{}: {error}", folder.display()));
    let end = end_of_input();
    make_folder(folder, unprivileged()?).map_err(failure)?;
    say(READY);
    let _ = end.recv();
    end_all(folder);
    fs::remove_dir_all(folder).map_err(failure)
}

/// Ends every process with the folder in its command line or environment: what the test has started, and the
/// test itself, if it is still there. Nothing else knows this name.
fn end_all(folder: &Path) {
    let start = Instant::now();
    loop {
        let processes = named(folder);
        if processes.is_empty() {
            return;
        }
        // PostgreSQL then frees its shared memory. A stopped process must go on first.
        let signals = if start.elapsed() < GRACE { ["CONT", "QUIT"] } else { ["CONT", "KILL"] };
        for signal in signals {
            let mut kill = Command::new("sh");
            kill.args(["-c", "kill -s \"$@\" 2>/dev/null", "sh", signal]).args(&processes);
            let _ = kill.status();
        }
        sleep(PAUSE);
    }
}

fn named(folder: &Path) -> Vec<String> {
    let folder = folder.as_os_str().as_encoded_bytes();
    let names_it = |process: &fs::DirEntry| {
        ["cmdline", "environ"].iter().any(|file| {
            let text = fs::read(process.path().join(file)).unwrap_or_default();
            text.windows(folder.len()).any(|part| part == folder)
        })
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    // The keeper itself knows it, too.
    let is_other = |number: u32| number != std::process::id();
    let numbered =
        processes.filter(|it| it.file_name().to_string_lossy().parse::<u32>().is_ok_and(is_other));
    numbered.filter(names_it).map(|it| it.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_has_started_ends_with_its_cluster() {
        let cluster = Cluster::keep(Vec::new()).unwrap();
        let folder = cluster.folder.clone();
        assert!(folder.exists());
        // One that inherits the environment, one that was stopped, and one with the name of a file.
        let mut inherits = Command::new("sh");
        inherits.args(["-c", "sleep 600; :"]).env("HOME", &folder);
        let mut stopped = Command::new("sh");
        stopped.args(["-c", "kill -s STOP $$; sleep 600"]).env("HOME", &folder);
        let mut named = Command::new("tail");
        named.arg("-f").arg("/dev/null").arg(folder.join("log"));
        let started = [inherits, stopped, named].map(|mut it| {
            let quiet = it.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            quiet.spawn().unwrap()
        });
        cluster.end().unwrap();
        for mut process in started {
            assert!(!process.wait().unwrap().success());
        }
        assert!(!folder.exists());
    }

    #[test]
    fn a_test_is_told_where_its_cluster_is() {
        let program = PathBuf::from("/usr/bin/patroni");
        let cluster = Cluster::keep(vec![("CLOAKROOM_FAILOVER_PATRONI", program)]).unwrap();
        let command = cluster.tell(crate::command::cargo("test")).to_string();
        let folder = cluster.folder.display();
        assert!(command.contains(&format!("CLOAKROOM_FAILOVER_FOLDER='{folder}'")), "{command}");
        assert!(command.contains("CLOAKROOM_FAILOVER_PATRONI='/usr/bin/patroni'"), "{command}");
    }
}
