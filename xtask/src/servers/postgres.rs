//! PostgreSQL.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::engine::{Engine, Facts, Purpose, answer, find, find_in, present, unique_name};
use super::private::{PRIVATE_USER, Private};
use super::url::Url;
use crate::command::Failure;

#[derive(Debug)]
pub(super) struct Postgres;

impl Engine for Postgres {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "postgres",
            variable: "CLOAKROOM_TEST_POSTGRES_URL",
            schemes: &["postgres", "postgresql"],
            packages: ["postgresql-client", "postgresql"],
            tests: "with_postgres::",
            // It has child processes and shared memory, which it then cleans up.
            stop: Some("QUIT"),
        }
    }

    fn client(&self) -> Option<PathBuf> {
        // Debian's `psql` on the path is a script that chooses a server by itself.
        let beside_server =
            self.server().and_then(|server| find_in(&[server.parent()?.into()], "psql"));
        beside_server.or_else(|| find(&["psql"]))
    }

    fn server(&self) -> Option<PathBuf> {
        let has_both = |server: &PathBuf| server.with_file_name("initdb").exists();
        newest_of_debian().or_else(|| find(&["postgres"])).filter(has_both)
    }

    fn prepare(&self, private: &Private) -> Result<(), Failure> {
        let initdb = present(self.server(), "postgres")?.with_file_name("initdb");
        let password = private.write("password", private.password())?;
        let mut command = private.command(&initdb);
        command.arg("--pgdata").arg(private.folder().join("data"));
        command.arg("--pwfile").arg(password);
        command.args(["--username", PRIVATE_USER, "--auth", "scram-sha-256"]);
        command.args(["--encoding", "UTF8", "--no-locale", "--no-sync"]);
        answer(&mut command).map(drop)
    }

    fn serve(&self, private: &Private, port: u16) -> Result<Command, Failure> {
        let mut command = private.command(&present(self.server(), "postgres")?);
        command.arg("-D").arg(private.folder().join("data"));
        let port = format!("port={port}");
        let settings = ["listen_addresses=127.0.0.1", &port, "unix_socket_directories="];
        let of_purpose = match private.purpose() {
            Purpose::Tests => &["fsync=off", "full_page_writes=off"][..],
            // Durable, and with room for the tables, as docs/postgresql.md advises.
            Purpose::Benchmarks => {
                &["fsync=on", "full_page_writes=on", "synchronous_commit=on", "shared_buffers=2GB"]
            }
        };
        for setting in settings.iter().chain(of_purpose) {
            command.args(["-c", setting]);
        }
        Ok(command)
    }

    fn address(&self, private: &Private, port: u16) -> String {
        format!("postgres://{PRIVATE_USER}:{}@127.0.0.1:{port}/postgres", private.password())
    }

    fn version(&self, server: &Url) -> Result<String, Failure> {
        let version = ask(server, "SHOW server_version")?;
        Ok(format!("PostgreSQL {}", version.split(' ').next().unwrap_or_default()))
    }

    fn make(&self, server: &Url) -> Result<Url, Failure> {
        let name = unique_name()?;
        ask(server, &format!("CREATE DATABASE {name}"))?;
        Ok(server.with_database(&name))
    }

    fn unmake(&self, server: &Url, own: &Url) -> Result<(), Failure> {
        // Even if a test has left a connection open.
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", own.database());
        ask(server, &statement).map(drop)
    }
}

/// Debian keeps the server out of the path, in a folder for each major version.
fn newest_of_debian() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let number = |name: std::ffi::OsString| name.to_str()?.parse::<u32>().ok();
    let numbers =
        versions.filter_map(|version| Some((number(version.file_name())?, version.path())));
    let bin = numbers.map(|(number, path)| (number, path.join("bin/postgres")));
    bin.filter(|(_, server)| server.exists()).max().map(|(_, server)| server)
}

pub(super) fn ask(server: &Url, statement: &str) -> Result<String, Failure> {
    // Without a name, it would be that of the user.
    let server = match server.database() {
        "" => &server.with_database("postgres"),
        _ => server,
    };
    let mut psql = Command::new(present(Postgres.client(), "psql")?);
    psql.args(["--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align"]);
    psql.args(["--dbname", &server.without_password(), "--command", statement]);
    psql.env("PGCONNECT_TIMEOUT", "10");
    if let Some(password) = server.password() {
        psql.env("PGPASSWORD", password);
    }
    answer(&mut psql)
}
