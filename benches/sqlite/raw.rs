//! The driver itself, on the store's tables: what you would write by hand, and no more.

use std::hint::black_box;
use std::path::Path;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::store::{Advance, ChainUpdate};
use cloakroom_sqlite::SqliteStore;
use cloakroom_sqlite::rusqlite::config::DbConfig;
use cloakroom_sqlite::rusqlite::{Connection, Statement, params};

use crate::records::Key;

const FIND: &str = "\
    SELECT g.client, g.subject, g.epoch, g.generation, g.digest, g.chain_expires_at, \
           g.expires_at, g.row_expires_at, g.revoked_at, g.body, \
           t.issued_at, t.expires_at, t.revoked_at, t.body \
    FROM grants g LEFT JOIN tokens t ON t.grant_id = g.id AND t.digest = ?2 WHERE g.id = ?1";
const GRANT: &str = "\
    INSERT INTO grants (id, client, subject, epoch, generation, digest, chain_expires_at, \
                        expires_at, row_expires_at, revoked_at, body) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
const TOKEN: &str = "\
    INSERT INTO tokens (grant_id, digest, issued_at, expires_at, revoked_at, body) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const ADVANCE: &str = "\
    UPDATE grants SET generation = ?4, digest = ?5, chain_expires_at = ?6, body = ?7, \
                      row_expires_at = ?8 \
    WHERE id = ?1 AND generation = ?2 AND digest = ?3 AND revoked_at IS NULL";

/// A connection to the file of a store.
pub(crate) struct Raw(Connection);

impl Raw {
    /// Makes the store's tables if there are none. Commits are durable, as the store's are.
    pub(crate) fn open(path: &Path) -> Self {
        drop(SqliteStore::open(path).expect("the tables are made"));
        let connection = Connection::open(path).expect("it opens");
        connection.pragma_update(None, "synchronous", "FULL").expect("it is set");
        connection.set_prepared_statement_cache_capacity(64);
        // As in the store: otherwise each call would plan its statement again.
        let qpsg = DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG;
        connection.set_db_config(qpsg, true).expect("it is set");
        Self(connection)
    }

    /// Writes all of it in one transaction. The power may go off meanwhile, and the file with it.
    pub(crate) fn fill(&self, rows: impl IntoIterator<Item = (GrantRecord, Vec<TokenRecord>)>) {
        self.0
            .execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000; BEGIN")
            .expect("it begins");
        for (grant, tokens) in rows {
            self.insert(&grant, &tokens);
        }
        self.0
            .execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA synchronous = FULL")
            .expect("it ends");
        self.execute("PRAGMA cache_size = -2000");
    }

    /// A statement that is held, for [`find`].
    pub(crate) fn finding(&self) -> Statement<'_> {
        self.0.prepare(FIND).expect("it is well-formed")
    }

    pub(crate) fn create(&self, grant: &GrantRecord, tokens: &[TokenRecord]) {
        self.execute("BEGIN IMMEDIATE");
        self.insert(grant, tokens);
        self.execute("COMMIT");
    }

    pub(crate) fn advance(&self, step: &Advance) {
        let ChainUpdate::Move(next) = &step.change else { panic!("a refresh moves the chain") };
        let (expected, row) = (step.expected, next.to_row());
        let (generation, digest) = row.chain.expect("it has one");
        self.execute("BEGIN IMMEDIATE");
        let moved = self.0.prepare_cached(ADVANCE).and_then(|mut sql| {
            sql.execute(params![
                row.id.as_bytes(),
                expected.generation,
                expected.digest.as_bytes(),
                generation,
                digest,
                row.chain_expires_at.map(u64::cast_signed),
                row.body,
                row.row_expires_at.cast_signed(),
            ])
        });
        assert_eq!(moved.expect("it is written"), 1);
        step.tokens.iter().for_each(|token| self.insert_token(token));
        self.execute("COMMIT");
    }

    pub(crate) fn execute(&self, sql: &str) {
        let done = self.0.prepare_cached(sql).and_then(|mut sql| sql.execute([]));
        done.expect("it is executed");
    }

    pub(crate) fn count(&self, sql: &str) -> i64 {
        self.0.query_row(sql, [], |row| row.get(0)).expect("it is counted")
    }

    fn insert(&self, grant: &GrantRecord, tokens: &[TokenRecord]) {
        let row = grant.to_row();
        let inserted = self.0.prepare_cached(GRANT).and_then(|mut sql| {
            sql.execute(params![
                row.id.as_bytes(),
                row.client.as_bytes(),
                row.subject.as_bytes(),
                row.epoch.cast_signed(),
                row.chain.map(|(generation, _)| generation),
                row.chain.map(|(_, digest)| digest),
                row.chain_expires_at.map(u64::cast_signed),
                row.expires_at.cast_signed(),
                row.row_expires_at.cast_signed(),
                row.revoked_at.map(u64::cast_signed),
                row.body,
            ])
        });
        inserted.expect("it is written");
        tokens.iter().for_each(|token| self.insert_token(token));
    }

    fn insert_token(&self, token: &TokenRecord) {
        let row = token.to_row();
        let inserted = self.0.prepare_cached(TOKEN).and_then(|mut sql| {
            sql.execute(params![
                row.grant.as_bytes(),
                row.digest,
                row.issued_at.cast_signed(),
                row.expires_at.cast_signed(),
                row.revoked_at.map(u64::cast_signed),
                row.body,
            ])
        });
        inserted.expect("it is written");
    }
}

/// Reads all columns of a grant and its token, and makes no record of them.
pub(crate) fn find(statement: &mut Statement<'_>, key: &Key) {
    let found = statement.query_row((key.grant.as_bytes(), key.digest.as_bytes()), |row| {
        for text in [0, 1, 4, 9, 13] {
            black_box(row.get::<_, Vec<u8>>(text)?);
        }
        for number in [2, 3, 5, 6, 7, 8, 10, 11, 12] {
            black_box(row.get::<_, Option<i64>>(number)?);
        }
        Ok(())
    });
    found.expect("it is there");
}
