//! `cargo xtask failover`: the primary of a replicated database fails under load, again and again.

use std::fmt::{self, Display};

use crate::command::{Failure, cargo};
use crate::servers::Cluster;

/// The options of the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FailOver {
    database: Database,
    rounds: u32,
    is_synchronous: bool,
}

/// A replicated database. Another one needs a variant, its programs, and a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Database {
    Postgres,
    Mysql,
}

impl FailOver {
    /// Reads `DATABASE [--rounds N] [--synchronous]`.
    pub(crate) fn parse(args: &[String]) -> Option<Self> {
        let (database, options) = args.split_first()?;
        let database = match database.as_str() {
            "postgres" => Database::Postgres,
            "mysql" => Database::Mysql,
            _ => return None,
        };
        let mut task = Self { database, rounds: 20, is_synchronous: false };
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match option.as_str() {
                "--rounds" => {
                    task.rounds = options.next()?.parse().ok().filter(|rounds| *rounds > 0)?;
                }
                "--synchronous" => task.is_synchronous = true,
                _ => return None,
            }
        }
        Some(task)
    }

    pub(crate) fn run(self) -> Result<(), Failure> {
        let (cluster, test) = match self.database {
            Database::Postgres => (Cluster::patroni()?, "failover::with_patroni::"),
            Database::Mysql => (Cluster::mariadb()?, "failover::with_mariadb::"),
        };
        let command = cargo("test --package cloakroom-tests --all-features --test it --");
        let command = command.arg(test).arg("--nocapture");
        let command = command.env("CLOAKROOM_FAILOVER_ROUNDS", self.rounds);
        let command = command.env("CLOAKROOM_FAILOVER_SYNCHRONOUS", self.is_synchronous);
        let mut passed = 0;
        let result = cluster.tell(command).stream(|line| {
            passed += usize::from(line.starts_with("test result: ok. 1 passed"));
        });
        cluster.end()?;
        match (result, passed) {
            // A name that no test has would pass, too.
            (Ok(()), 1) => Ok(()),
            (Ok(()), _) => Err(Failure::new(format!("no test is named `{test}`"))),
            // The command that failed would not work again: its folder is gone.
            (Err(_), _) => Err(Failure::new(format!("the test failed: {self}"))),
        }
    }
}

impl Display for FailOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = match self.database {
            Database::Postgres => "postgres",
            Database::Mysql => "mysql",
        };
        write!(f, "cargo xtask failover {database} --rounds {}", self.rounds)?;
        if self.is_synchronous { f.write_str(" --synchronous") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Option<FailOver> {
        let args: Vec<String> = args.split_whitespace().map(ToOwned::to_owned).collect();
        FailOver::parse(&args)
    }

    #[test]
    fn options_are_read() {
        let task = |rounds, is_synchronous| {
            Some(FailOver { database: Database::Postgres, rounds, is_synchronous })
        };
        assert_eq!(parse("postgres"), task(20, false));
        assert_eq!(parse("postgres --rounds 2"), task(2, false));
        assert_eq!(parse("postgres --synchronous --rounds 3"), task(3, true));
        let shown = "cargo xtask failover postgres --rounds 3 --synchronous";
        assert_eq!(
            parse("postgres --synchronous --rounds 3").map(|it| it.to_string()),
            Some(shown.to_owned())
        );
        let shown = "cargo xtask failover mysql --rounds 2";
        assert_eq!(parse("mysql --rounds 2").map(|task| task.to_string()), Some(shown.to_owned()));
        for bad in ["", "oracle", "postgres --rounds", "postgres --rounds 0", "postgres twice"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
