//! `cargo xtask failover`: the primary of a replicated database fails under load, again and again.

use std::fmt::{self, Display};

use crate::command::{Cmd, Failure, cargo};
use crate::servers::{Cluster, install_redis};

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
    /// MariaDB.
    Mysql,
    /// Redis, whose sentinels promote a replica.
    RedisSentinel,
    /// A Redis Cluster, in which a replica takes the place of a dead master.
    RedisCluster,
    /// A Redis Cluster whose slots move.
    RedisSlots,
}

impl Database {
    const ALL: [Self; 5] =
        [Self::Postgres, Self::Mysql, Self::RedisSentinel, Self::RedisCluster, Self::RedisSlots];

    const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::RedisSentinel => "redis-sentinel",
            Self::RedisCluster => "redis-cluster",
            Self::RedisSlots => "redis-slots",
        }
    }

    /// The test, as `tests/it/failover` names it.
    const fn test(self) -> &'static str {
        match self {
            Self::Postgres => "failover::with_patroni::",
            Self::Mysql => "failover::with_mariadb::",
            Self::RedisSentinel => "failover::with_redis::a_promotion_by_sentinels_is_survived",
            Self::RedisCluster => "failover::with_redis::a_dead_master_of_a_cluster_is_survived",
            Self::RedisSlots => "failover::with_redis::moving_slots_are_survived",
        }
    }
}

impl FailOver {
    /// Reads `DATABASE [--rounds N] [--synchronous]`.
    pub(crate) fn parse(args: &[String]) -> Option<Self> {
        let (database, options) = args.split_first()?;
        let database = Database::ALL.into_iter().find(|it| it.name() == database)?;
        let mut task = Self { database, rounds: 20, is_synchronous: false };
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match option.as_str() {
                "--rounds" => {
                    task.rounds = options.next()?.parse().ok().filter(|rounds| *rounds > 0)?;
                }
                "--synchronous" if matches!(database, Database::Postgres | Database::Mysql) => {
                    task.is_synchronous = true;
                }
                _ => return None,
            }
        }
        Some(task)
    }

    pub(crate) fn run(self) -> Result<(), Failure> {
        let test = self.database.test();
        let command = cargo("test --package cloakroom-tests --all-features --test it --");
        let command = command.arg(test).arg("--nocapture");
        let command = command.env("CLOAKROOM_FAILOVER_ROUNDS", self.rounds);
        let command = command.env("CLOAKROOM_FAILOVER_SYNCHRONOUS", self.is_synchronous);
        let cluster = match self.database {
            Database::Postgres => Cluster::patroni()?,
            Database::Mysql => Cluster::mariadb()?,
            _ => {
                install_redis()?;
                return self.watch(&command);
            }
        };
        let result = self.watch(&cluster.tell(command));
        cluster.end()?;
        result
    }

    /// Runs the test. A name that no test has would pass, too.
    fn watch(self, command: &Cmd) -> Result<(), Failure> {
        let mut passed = 0;
        let result = command.stream(|line| {
            passed += usize::from(line.starts_with("test result: ok. 1 passed"));
        });
        match (result, passed) {
            (Ok(()), 1) => Ok(()),
            (Ok(()), _) => {
                Err(Failure::new(format!("no test is named `{}`", self.database.test())))
            }
            // The command that failed would not work again: its servers are gone.
            (Err(_), _) => Err(Failure::new(format!("the test failed: {self}"))),
        }
    }
}

impl Display for FailOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cargo xtask failover {} --rounds {}", self.database.name(), self.rounds)?;
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
        for database in Database::ALL {
            let task = FailOver { database, rounds: 20, is_synchronous: false };
            assert_eq!(parse(database.name()), Some(task));
        }
        let bad = ["", "oracle", "postgres --rounds", "postgres --rounds 0", "postgres twice"];
        for bad in bad.into_iter().chain(["redis", "redis-cluster --synchronous"]) {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
