//! MySQL; the private server is a MariaDB.

use std::path::PathBuf;
use std::process::Command;

use super::engine::{Engine, Facts, Purpose, answer, find, present, unique_name};
use super::private::{PRIVATE_USER, Private};
use super::url::Url;
use crate::command::Failure;

#[derive(Debug)]
pub(super) struct Mysql;

impl Engine for Mysql {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "mysql",
            variable: "CLOAKROOM_TEST_MYSQL_URL",
            schemes: &["mysql", "mariadb"],
            packages: ["mariadb-client", "mariadb-server"],
            tests: "with_mysql::",
            stop: None,
        }
    }

    fn client(&self) -> Option<PathBuf> {
        find(&["mariadb", "mysql"])
    }

    fn server(&self) -> Option<PathBuf> {
        find(&["mariadbd"]).filter(|_| installer().is_some())
    }

    fn prepare(&self, private: &Private) -> Result<(), Failure> {
        let mut command = private.command(&present(installer(), "mariadb-install-db")?);
        command.arg("--no-defaults").arg(data(private));
        // Its administrator can connect only through the socket, which is in the folder.
        command.args(["--auth-root-authentication-method=socket", "--skip-test-db"]);
        command.arg("--skip-name-resolve");
        answer(&mut command)?;
        let password = private.password();
        private.write(
            "init.sql",
            &format!(
                "CREATE USER {PRIVATE_USER}@'127.0.0.1' IDENTIFIED BY '{password}';\n\
                 GRANT ALL PRIVILEGES ON *.* TO {PRIVATE_USER}@'127.0.0.1' WITH GRANT OPTION;\n"
            ),
        )?;
        Ok(())
    }

    fn serve(&self, private: &Private, port: u16) -> Result<Command, Failure> {
        let folder = private.folder().display();
        let mut command = private.command(&present(self.server(), "mariadbd")?);
        command.arg("--no-defaults").arg(data(private));
        // Relative to its data: a full path may be too long for a socket.
        command.args(["--socket=socket", "--pid-file=pid"]);
        command.args(["--bind-address=127.0.0.1", "--skip-name-resolve"]);
        command.arg(format!("--port={port}")).arg(format!("--init-file={folder}/init.sql"));
        command.args(match private.purpose() {
            // Each test has its own tables, and a file for each of them takes longer than the test.
            Purpose::Tests => ["--debug-no-sync", "--skip-innodb-file-per-table"],
            // With room for the tables, as docs/mysql.md advises.
            Purpose::Benchmarks => {
                ["--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=2G"]
            }
        });
        Ok(command)
    }

    fn address(&self, private: &Private, port: u16) -> String {
        format!("mysql://{PRIVATE_USER}:{}@127.0.0.1:{port}", private.password())
    }

    fn version(&self, server: &Url) -> Result<String, Failure> {
        let version = ask(server, "SELECT VERSION()")?;
        let number = version.split('-').next().unwrap_or_default();
        let name = if version.contains("MariaDB") { "MariaDB" } else { "MySQL" };
        Ok(format!("{name} {number}"))
    }

    fn make(&self, server: &Url) -> Result<Url, Failure> {
        let name = unique_name()?;
        ask(server, &format!("CREATE DATABASE {name}"))?;
        Ok(server.with_database(&name))
    }

    fn unmake(&self, server: &Url, own: &Url) -> Result<(), Failure> {
        ask(server, &format!("DROP DATABASE IF EXISTS {}", own.database())).map(drop)
    }
}

fn installer() -> Option<PathBuf> {
    find(&["mariadb-install-db"])
}

fn data(private: &Private) -> String {
    format!("--datadir={}", private.folder().join("data").display())
}

pub(super) fn ask(server: &Url, statement: &str) -> Result<String, Failure> {
    let mut client = Command::new(present(Mysql.client(), "mariadb")?);
    client.args(["--no-defaults", "--protocol=tcp", "--connect-timeout=10"]);
    client.args(["--batch", "--skip-column-names", "--execute", statement]);
    client.args(["--host", server.host()]);
    client.args(["--port", &server.port().unwrap_or(3306).to_string()]);
    if let Some(user) = server.user() {
        client.args(["--user", &user]);
    }
    if let Some(password) = server.password() {
        client.env("MYSQL_PWD", password);
    }
    answer(&mut client)
}
