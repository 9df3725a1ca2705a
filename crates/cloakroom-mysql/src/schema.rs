//! The tables, and their migrations.

use cloakroom_core::revocation::{EntryId, Epoch};
use cloakroom_core::store::{Migration, StoreError};

use crate::connection::{Connection, Script, with_prefix};
use crate::error::{ConnectError, Failure};
use crate::pool::{Lane, Operation};
use crate::rows::{binary, column, get};

/// The statements of each version. The version of the schema counts the files.
///
/// A statement that changes tables commits by itself, so a migration that is interrupted stays half done.
/// Each of its statements can therefore run again, and the last one writes the version.
const MIGRATIONS: &[&str] = &[include_str!("../migrations/0001_tables.sql")];

/// The newest version that this program knows.
pub(crate) const KNOWN: u32 = 1;

/// The oldest version with which this program works. While nodes are updated one after another, a new program
/// that does not migrate works with the tables of the program before.
pub(crate) const NEEDED: u32 = 1;

const _: () = assert!(MIGRATIONS.len() == KNOWN as usize);

/// How many seconds to wait for another node that migrates.
const PATIENCE: u32 = 60;

/// Runs the migrations that are missing. Any number of nodes may do so at once: one has the lock, and the
/// others find its work done.
#[derive(Debug)]
pub(crate) struct Migrate;

/// The version of the tables; 0 if there are none.
#[derive(Debug)]
pub(crate) struct Version;

impl Operation for Version {
    type Answer = u32;

    const CONTEXT: &'static str = "reading the schema's version";

    async fn run(&self, connection: &mut Connection) -> Result<u32, Failure> {
        version(connection).await
    }
}

impl Operation for Migrate {
    type Answer = ();

    const CONTEXT: &'static str = "migrating the tables";

    async fn run(&self, connection: &mut Connection) -> Result<(), Failure> {
        lock(connection).await?;
        let migrated = migrate(connection).await;
        // If the connection is lost, so is the lock.
        let unlocked = unlock(connection).await;
        migrated.and(unlocked)
    }
}

/// Names of locks count for the whole server, and have at most 64 characters.
macro_rules! lock_name {
    () => {
        "CONCAT('cloakroom ', MD5(CONCAT(DATABASE(), '.', ?)))"
    };
}

async fn lock(connection: &mut Connection) -> Result<(), Failure> {
    // In short turns: a statement must not take longer than its time-out.
    const LOCK: &str = concat!("SELECT GET_LOCK(", lock_name!(), ", 1)");
    for _ in 0..PATIENCE {
        let prefix = binary(connection.prefix().as_bytes());
        if let Some(mut row) = connection.row(LOCK, vec![prefix]).await?
            && get::<Option<i64>>(&mut row, 0)? == Some(1)
        {
            return Ok(());
        }
    }
    Err(Failure::Refused("another node is migrating the tables and does not finish"))
}

async fn unlock(connection: &mut Connection) -> Result<(), Failure> {
    const UNLOCK: &str = concat!("SELECT RELEASE_LOCK(", lock_name!(), ")");
    let prefix = binary(connection.prefix().as_bytes());
    connection.rows(UNLOCK, vec![prefix]).await.map(drop)
}

async fn migrate(connection: &mut Connection) -> Result<(), Failure> {
    let found = version(connection).await?;
    for migration in MIGRATIONS.iter().skip(found as usize) {
        for statement in statements(migration) {
            let statement = with_prefix(&statement, &connection.prefix());
            connection.run(&statement).await?;
        }
    }
    Ok(())
}

/// The statements of a file, without comments.
fn statements(file: &str) -> impl Iterator<Item = String> {
    let is_comment = |line: &&str| line.trim_start().starts_with("--");
    let text: Vec<&str> = file.lines().filter(|line| !is_comment(line)).collect();
    let statements: Vec<String> =
        text.join("\n").split(";\n").map(|part| part.trim().to_owned()).collect();
    statements.into_iter().filter(|statement| !statement.is_empty())
}

async fn version(connection: &mut Connection) -> Result<u32, Failure> {
    const IS_THERE: &str = "SELECT COUNT(*) FROM information_schema.tables \
        WHERE table_schema = DATABASE() AND table_name = ?";
    const VERSION: &str = "SELECT version FROM ~schema_version WHERE id = 0";
    let name = format!("{}schema_version", connection.prefix());
    let row = connection.row(IS_THERE, vec![binary(name.as_bytes())]).await?;
    let is_there = match row {
        Some(mut row) => get::<i64>(&mut row, 0)? > 0,
        None => false,
    };
    if !is_there {
        return Ok(0);
    }
    match connection.row(VERSION, vec![]).await? {
        Some(mut row) => Ok(get(&mut row, 0)?),
        None => Ok(0),
    }
}

/// Gives the log its incarnation, if it has none, and raises the newest bound: it must be newer than every
/// bound that was allotted before, by another database or by this one before it was restored from a copy.
/// Replicas know those bounds, and would refuse new grants otherwise.
///
/// Both statements are atomic by themselves, and any number of nodes may run them.
pub(crate) async fn begin_log(
    connection: &mut Connection,
    incarnation: EntryId,
    now: u64,
) -> Result<(), Failure> {
    const BEGIN: &str = "INSERT IGNORE INTO ~state (id, incarnation, position, newest_bound) \
                         VALUES (0, ?, 0, 0)";
    const RAISE: &str = "UPDATE ~state SET newest_bound = GREATEST(newest_bound, ?) WHERE id = 0";
    let now = Epoch::new(now).get();
    let mut script = Script::new();
    script.then(BEGIN, &[binary(incarnation.as_bytes())]).then(RAISE, &[column(now)]);
    connection.script(&script).await?;
    Ok(())
}

/// Begins the log of tables that are already there.
#[derive(Debug)]
pub(crate) struct BeginLog {
    pub(crate) incarnation: EntryId,
    pub(crate) now: u64,
}

impl Operation for BeginLog {
    type Answer = ();

    const CONTEXT: &'static str = "raising the newest bound";
    const LANE: Lane = Lane::Log;

    async fn run(&self, connection: &mut Connection) -> Result<(), Failure> {
        begin_log(connection, self.incarnation, self.now).await
    }
}

/// The migrations that tables of this version still need.
pub(crate) fn pending(found: u32, prefix: &str) -> Result<Vec<Migration>, ConnectError> {
    if found > KNOWN {
        return Err(ConnectError::Newer { found, known: KNOWN });
    }
    let missing = (1..).zip(MIGRATIONS).skip(found as usize);
    Ok(missing.map(|(version, sql)| Migration::new(version, with_prefix(sql, prefix))).collect())
}

/// The tables without their prefix, each with its indexes besides the primary key.
pub(crate) fn indexes() -> impl Iterator<Item = (&'static str, &'static str)> {
    let tables =
        MIGRATIONS.iter().flat_map(|file| file.split("CREATE TABLE IF NOT EXISTS ~").skip(1));
    tables.flat_map(|table| {
        let name = table.split_whitespace().next().unwrap_or_default();
        let lines = table.lines().map(|line| line.trim().trim_start_matches("UNIQUE "));
        let keys = lines.filter_map(|line| line.strip_prefix("KEY ")?.split_whitespace().next());
        keys.map(move |key| (name, key))
    })
}

/// Whether this program works with tables of this version.
pub(crate) const fn check(found: u32) -> Result<(), ConnectError> {
    if found > KNOWN {
        return Err(ConnectError::Newer { found, known: KNOWN });
    }
    if found < NEEDED {
        return Err(ConnectError::NotMigrated { found, needed: NEEDED });
    }
    Ok(())
}

/// The id of a new log.
pub(crate) fn incarnation(random: &cloakroom_core::Random) -> Result<EntryId, StoreError> {
    EntryId::random(random)
        .map_err(|error| StoreError::unavailable("generating the log's incarnation", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_split_into_statements_that_can_run_again() {
        for file in MIGRATIONS {
            let statements: Vec<_> = statements(file).collect();
            assert!(statements.len() > 10);
            for statement in &statements {
                let is_repeatable = ["CREATE TABLE IF NOT EXISTS ~", "INSERT IGNORE INTO ~"]
                    .iter()
                    .any(|start| statement.starts_with(start));
                assert!(is_repeatable || statement.contains("ON DUPLICATE KEY"), "{statement}");
                assert!(!statement.contains("--"), "{statement}");
            }
            let last = statements.last().expect("a statement");
            assert!(last.starts_with("INSERT INTO ~schema_version"), "{last}");
        }
    }
}
