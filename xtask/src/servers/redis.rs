//! Redis, or Valkey.

use std::path::PathBuf;
use std::process::Command;

use super::engine::{Engine, Facts, answer, find, present, unique_name};
use super::private::Private;
use super::url::Url;
use crate::command::Failure;

/// Holds the name of the run that uses the database. Tests must not touch it.
const MARK: &str = "cloakroom_test";

/// Takes a database if it is empty. This is a script because `redis-cli` continues in database 0 if it cannot
/// select another one.
const TAKE: &str = "\
redis.call('SELECT', ARGV[1])
if redis.call('DBSIZE') > 0 then return 'taken' end
redis.call('SET', KEYS[1], ARGV[2])
return 'made'";

/// Empties a database if the run still uses it.
const GIVE_BACK: &str = "\
redis.call('SELECT', ARGV[1])
if not redis.call('GET', KEYS[1]) and redis.call('DBSIZE') > 0 then return 'taken' end
redis.call('FLUSHDB')
return 'emptied'";

#[derive(Debug)]
pub(super) struct Redis;

impl Engine for Redis {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "redis",
            variable: "CLOAKROOM_TEST_REDIS_URL",
            schemes: &["redis", "rediss"],
            packages: ["redis-tools", "redis-server"],
            tests: "with_redis::",
            stop: None,
        }
    }

    fn client(&self) -> Option<PathBuf> {
        find(&["redis-cli", "valkey-cli"])
    }

    fn server(&self) -> Option<PathBuf> {
        find(&["redis-server", "valkey-server"])
    }

    fn prepare(&self, private: &Private) -> Result<(), Failure> {
        let (folder, password) = (private.folder().display(), private.password());
        private.write(
            "redis.conf",
            &format!(
                "bind 127.0.0.1\nrequirepass {password}\ndir \"{folder}\"\n\
                 save \"\"\nappendonly no\n"
            ),
        )?;
        Ok(())
    }

    fn serve(&self, private: &Private, port: u16) -> Result<Command, Failure> {
        let mut command = private.command(&present(self.server(), "redis-server")?);
        command.arg(private.folder().join("redis.conf")).args(["--port", &port.to_string()]);
        Ok(command)
    }

    fn address(&self, private: &Private, port: u16) -> String {
        format!("redis://:{}@127.0.0.1:{port}", private.password())
    }

    fn version(&self, server: &Url) -> Result<String, Failure> {
        let info = ask(server, &["INFO", "server"])?;
        let field = |name| info.lines().find_map(|line: &str| line.trim().strip_prefix(name));
        match (field("valkey_version:"), field("redis_version:")) {
            (Some(version), _) => Ok(format!("Valkey {version}")),
            (None, Some(version)) => Ok(format!("Redis {version}")),
            (None, None) => Err(Failure::new(format!("it does not say its version: {info}"))),
        }
    }

    fn make(&self, server: &Url) -> Result<Url, Failure> {
        // A client that names none uses 0, so that one comes last.
        let numbers: Vec<String> = match server.database() {
            "" => (0..16).rev().map(|number| number.to_string()).collect(),
            number => vec![number.to_owned()],
        };
        let run = unique_name()?;
        let mut last = String::new();
        for number in &numbers {
            last = ask(server, &["EVAL", TAKE, "1", MARK, number, &run])?;
            if last == "made" {
                return Ok(server.with_database(number));
            }
        }
        let numbers = numbers.join(", ");
        Err(Failure::new(format!("none of its databases {numbers} is empty and usable: {last}")))
    }

    fn unmake(&self, server: &Url, own: &Url) -> Result<(), Failure> {
        let number = own.database();
        match ask(server, &["EVAL", GIVE_BACK, "1", MARK, number])?.as_str() {
            "emptied" => Ok(()),
            "taken" => Err(Failure::new(format!(
                "the key `{MARK}` is gone from database {number}, so that what is there now may be \
                 somebody else's; it was not removed"
            ))),
            error => Err(Failure::new(error)),
        }
    }
}

/// The server's answer; an error from the server is an answer, too.
pub(super) fn ask(server: &Url, command: &[&str]) -> Result<String, Failure> {
    let mut client = Command::new(present(Redis.client(), "redis-cli")?);
    client.args(["-h", server.host(), "-p", &server.port().unwrap_or(6379).to_string()]);
    if server.scheme() == "rediss" {
        client.arg("--tls");
    }
    if let Some(user) = server.user() {
        client.args(["--user", &user]);
    }
    if let Some(password) = server.password() {
        client.env("REDISCLI_AUTH", password);
    }
    answer(client.args(command))
}
