//! The driver by itself: the statements of the store, each prepared once on one connection, which makes one call at a
//! time.

use cloakroom_core::Subject;
use cloakroom_core::record::{GrantRow, TokenRow};
use cloakroom_core::store::{Advance, ChainUpdate};
use cloakroom_mysql::mysql_async::prelude::{FromValue, Queryable as _};
use cloakroom_mysql::mysql_async::{Conn, Opts, OptsBuilder, Row, Statement, Value};
use tokio::sync::Mutex;

use crate::server::calls::Calls;
use crate::server::records::Key;
use crate::server::{self, Login};
use crate::sql::{RawSql, Table};

const FIND: &str = "SELECT g.id, g.client, g.subject, g.epoch, g.generation, g.digest, \
    g.chain_expires_at, g.expires_at, g.row_expires_at, g.revoked_at, g.body, \
    g.tombstone, t.issued_at, t.expires_at, t.revoked_at, t.body FROM ~grants g \
    LEFT JOIN ~tokens t ON t.grant_id = g.id AND t.digest = ? WHERE g.id = ?";

const UPDATE: &str = "UPDATE ~grants SET generation = ?, digest = ?, chain_expires_at = ?, \
    row_expires_at = ?, body = ? WHERE id = ? AND generation = ? AND digest = ?";

const INSERT_GRANT: &str = "INSERT INTO ~grants (id, client, subject, epoch, generation, digest, \
    chain_expires_at, expires_at, row_expires_at, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

const INSERT_TOKEN: &str = "INSERT INTO ~tokens (grant_id, digest, issued_at, expires_at, body) \
    VALUES (?, ?, ?, ?, ?)";

const LOOK: &str = "SELECT rule_key FROM ~rules WHERE rule_key IN (?, ?, ?)";

const LIST: &str = "SELECT id, client, subject, epoch, generation, digest, chain_expires_at, \
    expires_at, row_expires_at, revoked_at, body, tombstone FROM ~grants \
    WHERE subject = ? AND revoked_at IS NULL ORDER BY id LIMIT 100";

const MARK: &str = "UPDATE ~grants SET revoked_at = 1 WHERE id = ?";

/// How many rows one statement inserts.
const ROWS: usize = 500;

/// The prefix of the tables of this name.
pub(crate) fn prefix(space: &str) -> String {
    format!("{space}_")
}

pub(crate) struct Raw {
    conn: Mutex<Conn>,
    prefix: String,
    find: Statement,
    update: Statement,
    insert_grant: Statement,
    insert_token: Statement,
    look: Statement,
    list: Statement,
    mark: Statement,
}

impl server::Raw for Raw {
    async fn connect(url: &str, space: &str) -> Self {
        let opts = Opts::from_url(url).expect("a URL");
        let opts = OptsBuilder::from_opts(opts).prefer_socket(false).client_found_rows(true);
        let mut conn = Conn::new(opts).await.expect("a connection");
        let level = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
        conn.query_drop(level).await.expect("it is set");
        let prefix = prefix(space);
        let mut prepare =
            async |sql: &str| conn.prep(sql.replace('~', &prefix)).await.expect("it is prepared");
        Self {
            find: prepare(FIND).await,
            update: prepare(UPDATE).await,
            insert_grant: prepare(INSERT_GRANT).await,
            insert_token: prepare(INSERT_TOKEN).await,
            look: prepare(LOOK).await,
            list: prepare(LIST).await,
            mark: prepare(MARK).await,
            conn: Mutex::new(conn),
            prefix,
        }
    }

    async fn settle(&self) {
        self.run("ANALYZE TABLE ~grants, ~tokens").await;
    }

    async fn remove_all(&self) {
        let mut conn = self.conn.lock().await;
        let sql = "SELECT table_name FROM information_schema.tables \
            WHERE table_schema = DATABASE() AND LEFT(table_name, CHAR_LENGTH(?)) = ?";
        let tables: Vec<String> =
            conn.exec(sql, (&self.prefix, &self.prefix)).await.expect("the tables");
        conn.query_drop(format!("DROP TABLE {}", tables.join(", "))).await.expect("they are gone");
    }
}

impl Calls for Raw {
    async fn find(&self, key: &Key) {
        let parameters = (key.digest.as_bytes().as_slice(), key.grant.as_bytes().as_slice());
        let row: Option<Row> =
            self.conn.lock().await.exec_first(&self.find, parameters).await.expect("an answer");
        assert!(row.is_some());
    }

    async fn advance(&self, step: Advance) {
        let ChainUpdate::Move(next) = &step.change else { panic!("a move") };
        let next = next.to_row();
        let (generation, digest) = next.chain.expect("a chain");
        let update = vec![
            number(generation.into()),
            bytes(&digest),
            number(next.chain_expires_at.expect("an end")),
            number(next.row_expires_at),
            bytes(&next.body),
            bytes(step.grant.as_bytes()),
            number(step.expected.generation.into()),
            bytes(step.expected.digest.as_bytes()),
        ];
        let mut conn = self.conn.lock().await;
        conn.query_drop("START TRANSACTION").await.expect("it begins");
        conn.exec_drop(&self.update, update).await.expect("it is written");
        assert_eq!(conn.affected_rows(), 1);
        let token = token_values(&step.tokens[0].to_row());
        conn.exec_drop(&self.insert_token, token).await.expect("it is written");
        conn.query_drop("COMMIT").await.expect("it is committed");
    }

    /// Inserts a grant, and looks for rules.
    async fn create(&self, (grant, token): Login) {
        let keys: Vec<Value> = grant.rule_keys().iter().map(|key| bytes(&key.to_bytes())).collect();
        let mut conn = self.conn.lock().await;
        conn.query_drop("START TRANSACTION").await.expect("it begins");
        let grant = grant_values(&grant.to_row());
        conn.exec_drop(&self.insert_grant, grant).await.expect("it is written");
        let token = token_values(&token.to_row());
        conn.exec_drop(&self.insert_token, token).await.expect("it is written");
        conn.query_drop("COMMIT").await.expect("it is committed");
        let rule: Option<Row> = conn.exec_first(&self.look, keys).await.expect("an answer");
        assert!(rule.is_none());
    }
}

impl RawSql for Raw {
    async fn list(&self, subject: &Subject) {
        let of = (subject.to_key().into_bytes(),);
        let rows: Vec<Row> = self.conn.lock().await.exec(&self.list, of).await.expect("rows");
        assert!(!rows.is_empty());
    }

    async fn mark(&self, key: &Key) {
        let mut conn = self.conn.lock().await;
        let of = (key.grant.as_bytes().as_slice(),);
        conn.exec_drop(&self.mark, of).await.expect("it is written");
        assert_eq!(conn.affected_rows(), 1);
    }

    async fn tables(&self) -> Vec<Table> {
        let version: String = self.ask("VERSION()").await;
        let files = match version.contains("MariaDB") {
            true => "INNODB_SYS_TABLESPACES",
            false => "INNODB_TABLESPACES",
        };
        let mut tables = Vec::new();
        for name in ["grants", "tokens", "log"] {
            // What the server estimates, if the table has no file of its own.
            let bytes = format!(
                "CAST(COALESCE((SELECT file_size FROM information_schema.{files} \
                     WHERE name = CONCAT(DATABASE(), '/~{name}')), \
                     (SELECT data_length + index_length FROM information_schema.tables \
                     WHERE table_schema = DATABASE() AND table_name = '~{name}')) AS DOUBLE)"
            );
            let rows = format!("(SELECT CAST(COUNT(*) AS DOUBLE) FROM ~{name})");
            tables.push(Table { name, bytes: self.ask(&bytes).await, rows: self.ask(&rows).await });
        }
        tables
    }

    async fn connections(&self) -> usize {
        self.ask("(SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE())")
            .await
    }

    async fn durability(&self) -> String {
        self.ask(
            "CONCAT('innodb_flush_log_at_trx_commit ', @@innodb_flush_log_at_trx_commit, \
             ', log_bin ', @@log_bin, ', sync_binlog ', @@sync_binlog)",
        )
        .await
    }
}

impl Raw {
    pub(crate) async fn insert(&self, rows: &[Login]) {
        let mut conn = self.conn.lock().await;
        for rows in rows.chunks(ROWS) {
            let grants = rows.iter().flat_map(|(grant, _)| grant_values(&grant.to_row()));
            let tokens = rows.iter().flat_map(|(_, token)| token_values(&token.to_row()));
            for (sql, values) in [
                (INSERT_GRANT, grants.collect::<Vec<Value>>()),
                (INSERT_TOKEN, tokens.collect::<Vec<Value>>()),
            ] {
                let (begin, row) = sql.split_once(" VALUES ").expect("values");
                let sql = format!("{begin} VALUES {}", vec![row; rows.len()].join(", "));
                let sql = sql.replace('~', &self.prefix);
                conn.exec_drop(sql, values).await.expect("they are written");
            }
        }
    }

    async fn run(&self, sql: &str) {
        let sql = sql.replace('~', &self.prefix);
        self.conn.lock().await.query_drop(sql).await.expect("it runs");
    }

    /// One value.
    async fn ask<T: FromValue + Send + 'static>(&self, what: &str) -> T {
        let sql = format!("SELECT {what}").replace('~', &self.prefix);
        let row: Option<Row> = self.conn.lock().await.query_first(sql).await.expect("an answer");
        row.and_then(|mut row| row.take(0)).expect("a value")
    }
}

fn grant_values(row: &GrantRow) -> Vec<Value> {
    let (generation, digest) = row.chain.expect("a chain");
    vec![
        bytes(row.id.as_bytes()),
        bytes(row.client.as_bytes()),
        bytes(row.subject.as_bytes()),
        number(row.epoch),
        number(generation.into()),
        bytes(&digest),
        number(row.chain_expires_at.expect("an end")),
        number(row.expires_at),
        number(row.row_expires_at),
        bytes(&row.body),
    ]
}

fn token_values(row: &TokenRow) -> Vec<Value> {
    vec![
        bytes(row.grant.as_bytes()),
        bytes(&row.digest),
        number(row.issued_at),
        number(row.expires_at),
        bytes(&row.body),
    ]
}

fn number(value: u64) -> Value {
    Value::UInt(value)
}

fn bytes(value: &[u8]) -> Value {
    Value::Bytes(value.to_vec())
}
