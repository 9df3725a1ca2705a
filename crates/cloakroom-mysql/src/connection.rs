//! One session with the server: prepared statements, and scripts of several statements in one packet.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, Params, Row, Statement, Value};

use crate::error::Failure;

/// A session. It is used by one operation at a time.
pub(crate) struct Connection {
    conn: Conn,
    prefix: Arc<str>,
    /// By their templates, unless the driver keeps them: it then closes what it has no room for.
    prepared: HashMap<&'static str, Statement>,
    /// How long the server may take to answer.
    limit: Duration,
}

/// What one statement of a script answered.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) rows: Vec<Row>,
    /// How many rows matched: every session asks for matched rows instead of changed rows.
    pub(crate) matched: u64,
}

/// The SQL of a template: `~` stands for the prefix of the tables. No literal contains it.
pub(crate) fn with_prefix(template: &str, prefix: &str) -> String {
    template.replace('~', prefix)
}

impl Connection {
    pub(crate) fn new(conn: Conn, prefix: Arc<str>, limit: Duration) -> Self {
        Self { conn, prefix, prepared: HashMap::new(), limit }
    }

    pub(crate) fn prefix(&self) -> Arc<str> {
        Arc::clone(&self.prefix)
    }

    /// Runs one prepared statement, and returns its rows.
    pub(crate) async fn rows(
        &mut self,
        sql: &'static str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>, Failure> {
        #[cfg(test)]
        crate::plans_tests::note(&self.prefix, Script::new().then(sql, &parameters));
        let limit = self.limit;
        within(limit, async {
            let statement = self.prepare(sql).await?;
            let mut result = self.conn.exec_iter(statement, Params::Positional(parameters)).await?;
            let mut rows = Vec::new();
            while let Some(row) = result.next().await? {
                rows.push(row);
            }
            result.drop_result().await?;
            Ok(rows)
        })
        .await
    }

    /// Runs one prepared statement, and returns its first row.
    pub(crate) async fn row(
        &mut self,
        sql: &'static str,
        parameters: Vec<Value>,
    ) -> Result<Option<Row>, Failure> {
        Ok(self.rows(sql, parameters).await?.into_iter().next())
    }

    /// Runs one prepared statement, and returns how many rows matched.
    pub(crate) async fn execute(
        &mut self,
        sql: &'static str,
        parameters: Vec<Value>,
    ) -> Result<u64, Failure> {
        #[cfg(test)]
        crate::plans_tests::note(&self.prefix, Script::new().then(sql, &parameters));
        let limit = self.limit;
        within(limit, async {
            let statement = self.prepare(sql).await?;
            let result = self.conn.exec_iter(statement, Params::Positional(parameters)).await?;
            let matched = result.affected_rows();
            result.drop_result().await?;
            Ok(matched)
        })
        .await
    }

    async fn prepare(&mut self, sql: &'static str) -> Result<Statement, Failure> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.conn.prep(with_prefix(sql, &self.prefix)).await?;
        if self.conn.opts().stmt_cache_size() == 0 {
            self.prepared.insert(sql, statement.clone());
        }
        Ok(statement)
    }

    /// Sends all statements in one packet. The server runs them one after another, and stops at the first
    /// that fails. A transaction that the script began is then still open.
    ///
    /// The server has the whole packet or nothing, and needs nothing more of the client: neither a dropped
    /// future nor a lost connection leaves a script half-way with locks held.
    pub(crate) async fn script(&mut self, script: &Script) -> Result<Vec<Answer>, Failure> {
        #[cfg(test)]
        crate::plans_tests::note(&self.prefix, script);
        let text = with_prefix(&script.text, &self.prefix);
        within(self.limit, async {
            let mut answers = Vec::with_capacity(script.statements);
            let mut result = self.conn.query_iter(text).await?;
            for _ in 0..script.statements {
                let matched = result.affected_rows();
                let mut rows = Vec::new();
                while let Some(row) = result.next().await? {
                    rows.push(row);
                }
                answers.push(Answer { rows, matched });
            }
            result.drop_result().await?;
            Ok(answers)
        })
        .await
    }

    /// Ends a transaction that failed.
    pub(crate) async fn roll_back(&mut self) -> Result<(), Failure> {
        self.run("ROLLBACK").await
    }

    pub(crate) async fn ping(&mut self) -> Result<(), Failure> {
        within(self.limit, async { Ok(self.conn.ping().await?) }).await
    }

    /// Runs statements that have no parameters, and passes over their answers.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<(), Failure> {
        within(self.limit, async { Ok(self.conn.query_drop(sql).await?) }).await
    }

    /// Runs a statement that has no parameters.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Vec<Row>, Failure> {
        within(self.limit, async { Ok(self.conn.query(sql).await?) }).await
    }

    /// The options of the driver.
    pub(crate) fn opts(&self) -> &Opts {
        self.conn.opts()
    }

    /// The driver's connection, to end it.
    pub(crate) fn into_inner(self) -> Conn {
        self.conn
    }
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(limit, answer).await.unwrap_or(Err(Failure::Timeout(limit)))
}

/// Several statements for one packet.
///
/// Values become literals: numbers, and binary strings in hexadecimal digits. No text is quoted, so nothing
/// depends on escapes, character sets or the SQL mode.
#[derive(Debug, Default)]
pub(crate) struct Script {
    text: String,
    statements: usize,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Begins a transaction that goes on in another packet.
    ///
    /// A Galera node gives an idle transaction up when another node was faster, and does not always say so: the
    /// statements of the next packet would then run without it, and without its locks. A savepoint is gone with
    /// its transaction. [`Self::resumed`] releases one, which is an error then, and the operation runs again.
    /// [`Self::commit`] releases another one, in case the transaction is lost in the middle of a packet.
    pub(crate) fn transaction() -> Self {
        let mut script = Self::new();
        script.then("START TRANSACTION", &[]);
        script.then("SAVEPOINT whole", &[]).then("SAVEPOINT begun", &[]);
        script
    }

    /// Goes on with such a transaction: begins the packet that writes what was decided under its locks.
    pub(crate) fn resumed() -> Self {
        let mut script = Self::new();
        script.then("RELEASE SAVEPOINT begun", &[]);
        script
    }

    /// Commits such a transaction.
    pub(crate) fn commit(&mut self) -> &mut Self {
        self.then("RELEASE SAVEPOINT whole", &[]).then("COMMIT", &[])
    }

    /// Adds a statement. Each `?` stands for a value.
    pub(crate) fn then(&mut self, template: &str, values: &[Value]) -> &mut Self {
        if self.statements > 0 {
            self.text.push(';');
        }
        self.statements += 1;
        self.more(template, values)
    }

    /// Continues the last statement.
    pub(crate) fn more(&mut self, template: &str, values: &[Value]) -> &mut Self {
        let mut pieces = template.split('?');
        self.text.push_str(pieces.next().unwrap_or_default());
        let mut values = values.iter();
        for piece in pieces {
            match values.next() {
                Some(value) => self.literal(value),
                // The server refuses it.
                None => self.text.push('?'),
            }
            self.text.push_str(piece);
        }
        debug_assert!(values.next().is_none(), "{template}");
        self
    }

    /// Adds the statements of another script.
    pub(crate) fn append(&mut self, other: &Self) -> &mut Self {
        if other.statements > 0 {
            self.then(&other.text, &[]);
            self.statements += other.statements - 1;
        }
        self
    }

    /// The statements, one by one.
    #[cfg(test)]
    pub(crate) fn statements(&self) -> impl Iterator<Item = &str> {
        self.text.split(';')
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.statements == 0
    }

    fn literal(&mut self, value: &Value) {
        match value {
            Value::Bytes(bytes) => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                self.text.reserve(3 + 2 * bytes.len());
                self.text.push_str("X'");
                for byte in bytes {
                    self.text.push(char::from(DIGITS[usize::from(byte >> 4)]));
                    self.text.push(char::from(DIGITS[usize::from(byte & 15)]));
                }
                self.text.push('\'');
            }
            // Writing to a `String` cannot fail.
            Value::Int(number) => drop(write!(self.text, "{number}")),
            Value::UInt(number) => drop(write!(self.text, "{number}")),
            // No other kind is used.
            _ => self.text.push_str("NULL"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_literals_without_quotes() {
        let mut script = Script::new();
        script.then("START TRANSACTION", &[]);
        let values = [Value::Bytes(b"a'~?\xff".to_vec()), Value::Int(-3), Value::NULL];
        script.then("INSERT INTO ~t VALUES (?, ?, ?)", &values);
        script.more(", (?)", &[Value::Bytes(Vec::new())]);
        assert_eq!(script.statements, 2);
        assert_eq!(
            script.text,
            "START TRANSACTION;INSERT INTO ~t VALUES (X'61277e3fff', -3, NULL), (X'')"
        );
    }

    mod with_mysql {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU32, Ordering};

        use cloakroom_core::store::TokenStore as _;

        use super::super::*;
        use crate::pool::Operation;

        /// Its first run loses its transaction between the two packets, as on a Galera node.
        struct Losing(Arc<AtomicU32>);

        impl Operation for Losing {
            type Answer = u64;

            const CONTEXT: &'static str = "losing a transaction";

            async fn run(&self, connection: &mut Connection) -> Result<u64, Failure> {
                connection.script(&Script::transaction()).await?;
                if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
                    connection.roll_back().await?;
                }
                let mut script = Script::resumed();
                script.then("UPDATE ~state SET newest_bound = newest_bound + 1", &[]).commit();
                Ok(connection.script(&script).await?[1].matched)
            }
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn nothing_of_a_lost_transaction_is_done_and_it_runs_again() {
            let store = crate::test_store::open().await;
            let bound = async || store.rules(vec![]).await.unwrap().newest_bound.get();
            let before = bound().await;
            let runs = Arc::new(AtomicU32::new(0));
            assert_eq!(store.pool().steps(Losing(Arc::clone(&runs))).await.unwrap(), 1);
            assert_eq!(runs.load(Ordering::SeqCst), 2);
            assert_eq!(bound().await, before + 1, "once");
        }
    }
}
