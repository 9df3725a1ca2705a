//! Real servers: started, used, and gone.
//!
//! The tests of each kind of server are in a module `with_…`, by which `--embedded` leaves them out.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, process};

use super::engine::{Engine, Purpose, random};
use super::keeper::{self, Keeper};
use super::{Servers, Url, engine, install, mysql, postgres, redis};
use crate::command::cargo;

/// Names the server that the process holds until it is killed.
const HOLDS: &str = "XTASK_TEST_HOLDS";
const HELD: &str = "held\t";

/// This binary as a keeper, or as an xtask to be killed. Otherwise there is nothing to do.
#[test]
fn in_a_role() {
    // First, as a keeper inherits what its xtask was told.
    if let Some(code) = super::run_keeper() {
        process::exit(i32::from(code != process::ExitCode::SUCCESS));
    }
    if let Ok(name) = env::var(HOLDS) {
        hold(engine::named(&name).unwrap());
    }
}

fn hold(engine: &'static dyn Engine) {
    let given = keeper::given(engine).unwrap();
    let mut keeper = Keeper::start(engine, given.as_ref(), Purpose::Tests).unwrap();
    // Read from a pipe that also has what the harness prints.
    println!("\n{HELD}{}", keeper.ready().unwrap().url.reveal());
    loop {
        std::thread::park();
    }
}

/// A folder for the temporary folders of the servers of one test.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Self {
        let path = env::temp_dir().join(format!("cloakroom-xtask-{}", random().unwrap()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.0).unwrap().next().is_none()
    }

    /// Whether a process works in the folder.
    fn is_used(&self) -> bool {
        let Ok(processes) = fs::read_dir("/proc") else {
            return !self.is_empty();
        };
        let mut places =
            processes.flatten().map(|process| fs::read_link(process.path().join("cwd")));
        places.any(|place| place.is_ok_and(|place| place.starts_with(&self.0)))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A private server, where it can be started.
fn private(engine: &'static dyn Engine, temporary: &Path) -> Keeper {
    private_for(engine, temporary, Purpose::Tests)
}

fn private_for(engine: &'static dyn Engine, temporary: &Path, purpose: Purpose) -> Keeper {
    if engine.client().is_none() || engine.server().is_none() {
        let all = engine::ENGINES.map(|engine| (engine, false));
        panic!("{}", install::advice(&install::missing(&all), &all));
    }
    let mut command = keeper::command(engine, None, purpose).unwrap();
    command.env("TMPDIR", temporary);
    Keeper::spawn(engine, command).unwrap()
}

/// An xtask that can be killed, in a process group of its own, and the database that it holds.
fn holder(engine: &'static dyn Engine, temporary: &Path, given: Option<&Url>) -> (Child, Url) {
    let facts = engine.facts();
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["servers::tests::in_a_role", "--exact", "--nocapture"])
        .env(HOLDS, facts.name)
        .env("TMPDIR", temporary)
        .env_remove(facts.variable)
        .stdout(Stdio::piped());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    if let Some(url) = given {
        command.env(facts.variable, url.reveal());
    }
    let mut process = command.spawn().unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let url = lines.map_while(Result::ok).find_map(|line| {
        line.strip_prefix(HELD).map(|url| Url::parse(url, facts.schemes).unwrap())
    });
    (process, url.expect("the database is there"))
}

/// What a terminal does, and waits for the end of who is meant.
fn interrupt_group(leader: &mut Child) {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s INT -- \"-$0\"", &leader.id().to_string()]);
    assert!(kill.status().unwrap().success());
    let start = Instant::now();
    while leader.try_wait().unwrap().is_none() {
        // Whoever was started in the background of a script ignores interrupts.
        if start.elapsed() > Duration::from_secs(5) {
            leader.kill().unwrap();
        }
        sleep(Duration::from_millis(10));
    }
}

fn answers(url: &Url) -> bool {
    TcpStream::connect((url.host(), url.port().unwrap())).is_ok()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(120), "still not: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// What is in a server, as it shows it, database by database.
fn contents(engine: &dyn Engine, server: &Url) -> String {
    match engine.facts().name {
        "postgres" => postgres::ask(server, "SELECT datname FROM pg_database ORDER BY datname"),
        "mysql" => mysql::ask(server, "SHOW DATABASES"),
        _ => redis::ask(server, &["INFO", "keyspace"]),
    }
    .unwrap()
}

/// Leaves something in a database of the run.
fn fill(engine: &dyn Engine, own: &Url) {
    let database = own.database();
    let result = match engine.facts().name {
        "postgres" => postgres::ask(own, "CREATE TABLE t (id integer)"),
        "mysql" => mysql::ask(own, &format!("CREATE TABLE {database}.t (id integer)")),
        _ => redis::ask(own, &["-n", database, "SET", "t", "1"]),
    };
    result.unwrap();
}

fn is_gone_at_the_end(engine: &'static dyn Engine) {
    let temporary = Temporary::new();
    let mut keeper = private(engine, &temporary.0);
    let kept = keeper.ready().unwrap();
    assert!(answers(&kept.url) && temporary.is_used() && !temporary.is_empty());
    assert!(kept.version.ends_with(|last: char| last.is_ascii_digit()), "{}", kept.version);

    // Only who knows the password is let in.
    let stranger = Url::parse(&kept.url.without_password(), engine.facts().schemes).unwrap();
    engine.version(&stranger).unwrap_err();

    // The same server, now given by a URL, loses nothing of what is in it and gains nothing.
    fill(engine, &kept.url);
    let before = contents(engine, &kept.url);
    let any = kept.url.with_database("");
    let mut guest = Keeper::start(engine, Some(&any), Purpose::Tests).unwrap();
    let own = guest.ready().unwrap().url;
    assert_ne!(own, kept.url);
    fill(engine, &own);
    assert_ne!(contents(engine, &kept.url), before);
    guest.end().unwrap();
    assert_eq!(contents(engine, &kept.url), before);

    // Not even when somebody presses Ctrl-C.
    let (mut interrupted, own) = holder(engine, &temporary.0, Some(&any));
    fill(engine, &own);
    assert_ne!(contents(engine, &kept.url), before);
    interrupt_group(&mut interrupted);
    wait_until("removed", || contents(engine, &kept.url) == before);

    keeper.end().unwrap();
    assert!(!answers(&kept.url) && !temporary.is_used() && temporary.is_empty());
}

fn is_gone_after_a_kill(engine: &'static dyn Engine) {
    let temporary = Temporary::new();
    // Says what is missing, if something is; and is ended before it is ready.
    drop(private(engine, &temporary.0));
    assert!(!temporary.is_used() && temporary.is_empty());

    let (mut killed, own) = holder(engine, &temporary.0, None);
    assert!(answers(&own));
    killed.kill().unwrap();
    killed.wait().unwrap();
    wait_until("gone", || temporary.is_empty() && !answers(&own) && !temporary.is_used());
}

mod with_postgres {
    use super::*;

    #[test]
    fn a_private_server_is_gone_at_the_end() {
        is_gone_at_the_end(&postgres::Postgres);
    }

    #[test]
    fn a_private_server_is_gone_after_xtask_was_killed() {
        is_gone_after_a_kill(&postgres::Postgres);
    }

    #[test]
    fn only_a_server_for_benchmarks_is_durable_and_large() {
        let settings = ["fsync", "full_page_writes", "synchronous_commit", "shared_buffers"];
        for (purpose, values) in [
            (Purpose::Tests, ["off", "off", "on", "128MB"]),
            (Purpose::Benchmarks, ["on", "on", "on", "2GB"]),
        ] {
            let temporary = Temporary::new();
            let mut keeper = private_for(&postgres::Postgres, &temporary.0, purpose);
            let url = keeper.ready().unwrap().url;
            let of = |setting| postgres::ask(&url, &format!("SHOW {setting}")).unwrap();
            assert_eq!(settings.map(of), values);
            keeper.end().unwrap();
        }
    }
}

mod with_mysql {
    use super::*;

    #[test]
    fn a_private_server_is_gone_at_the_end() {
        is_gone_at_the_end(&mysql::Mysql);
    }

    #[test]
    fn a_private_server_is_gone_after_xtask_was_killed() {
        is_gone_after_a_kill(&mysql::Mysql);
    }

    /// The server says nothing of the option by which tests do not wait for the disk; it comes with the other.
    #[test]
    fn a_server_for_benchmarks_is_durable_and_has_a_file_for_each_table() {
        for (purpose, values) in [(Purpose::Tests, "1\t0"), (Purpose::Benchmarks, "1\t1")] {
            let temporary = Temporary::new();
            let mut keeper = private_for(&mysql::Mysql, &temporary.0, purpose);
            let url = keeper.ready().unwrap().url;
            let settings = "SELECT @@innodb_flush_log_at_trx_commit, @@innodb_file_per_table";
            assert_eq!(mysql::ask(&url, settings).unwrap(), values);
            keeper.end().unwrap();
        }
    }
}

mod with_redis {
    use super::*;

    #[test]
    fn a_private_server_is_gone_at_the_end() {
        is_gone_at_the_end(&redis::Redis);
    }

    #[test]
    fn a_private_server_is_gone_after_xtask_was_killed() {
        is_gone_after_a_kill(&redis::Redis);
    }

    #[test]
    fn what_is_no_longer_of_the_run_is_not_removed() {
        let temporary = Temporary::new();
        let mut keeper = private(&redis::Redis, &temporary.0);
        let any = keeper.ready().unwrap().url.with_database("");
        let mut guest = Keeper::start(&redis::Redis, Some(&any), Purpose::Tests).unwrap();
        let url = guest.ready().unwrap().url;
        redis::ask(&url, &["-n", url.database(), "FLUSHDB"]).unwrap();
        fill(&redis::Redis, &url);
        let failure = guest.end().unwrap_err().to_string();
        assert!(failure.contains("it was not removed"), "{failure}");
        keeper.end().unwrap();
        assert!(temporary.is_empty());
    }

    #[test]
    fn a_server_that_ended_by_itself_is_reported() {
        let temporary = Temporary::new();
        let mut keeper = private(&redis::Redis, &temporary.0);
        let url = keeper.ready().unwrap().url;
        let _ = redis::ask(&url, &["SHUTDOWN", "NOSAVE"]);
        let failure = keeper.end().unwrap_err().to_string();
        assert!(failure.contains("did not run to the end"), "{failure}");
        assert!(temporary.is_empty());
    }

    #[test]
    fn a_named_database_is_taken_only_if_it_is_empty() {
        let temporary = Temporary::new();
        let mut keeper = private(&redis::Redis, &temporary.0);
        let url = keeper.ready().unwrap().url;
        for (number, is_usable) in [(url.database(), false), ("3", true), ("99", false)] {
            let named = url.with_database(number);
            let mut guest = Keeper::start(&redis::Redis, Some(&named), Purpose::Tests).unwrap();
            let taken = guest.ready().map(|kept| kept.url);
            assert_eq!(taken.is_ok(), is_usable, "{taken:?}");
            assert!(taken.is_err() || taken.unwrap() == named);
        }
    }
}

#[test]
fn without_servers_the_tests_that_need_one_are_left_out() {
    let command = Servers::none().tell(cargo("test")).to_string();
    assert_eq!(
        command,
        "cargo test -- --skip with_postgres:: --skip with_mysql:: --skip with_redis:: \
         --skip http::nginx:: --skip with_chromium:: --skip with_patroni:: \
         --skip with_mariadb:: --skip failover::with_redis::a_ \
         --skip failover::with_redis::moving_"
    );
    let summary = Servers::none().summary().to_string();
    for name in ["postgres", "mysql", "redis", "(nginx)", "(chromium)"] {
        let line = summary.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains("left out by request"), "{summary}");
    }
}

#[test]
fn what_to_do_is_said_at_once() {
    let needs: [(&dyn Engine, bool); 3] =
        [(&postgres::Postgres, false), (&mysql::Mysql, true), (&redis::Redis, false)];
    let packages = ["postgresql", "mariadb-client", "redis-server", "nginx"];
    let advice = install::advice(&packages, &needs).to_string();
    assert_eq!(
        advice,
        "the tests need servers that are not on this machine\n\
         install them: apt-get install postgresql mariadb-client redis-server nginx\n\
         or name servers to use: CLOAKROOM_TEST_POSTGRES_URL, CLOAKROOM_TEST_REDIS_URL\n\
         or leave out what needs a server: cargo xtask test --embedded"
    );
}
