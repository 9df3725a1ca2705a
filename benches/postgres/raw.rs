//! The driver by itself: the statements of the store, each prepared once on one connection.

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::RuleKey;
use cloakroom_core::store::{Advance, ChainUpdate};
use cloakroom_postgres::tokio_postgres::types::ToSql;
use cloakroom_postgres::tokio_postgres::{Client, NoTls, Statement};

use crate::SCHEMA;
use crate::records::Key;

pub(crate) struct Raw {
    client: Client,
}

impl Raw {
    pub(crate) async fn connect(url: &str) -> Self {
        let url = url.split_once('?').map_or(url, |(base, _)| base);
        let config: cloakroom_postgres::tokio_postgres::Config = url.parse().expect("a URL");
        let (client, connection) = config.connect(NoTls).await.expect("a server");
        tokio::spawn(connection);
        client.batch_execute("SET plan_cache_mode = force_generic_plan").await.expect("a setting");
        Self { client }
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.expect("a statement");
    }

    pub(crate) async fn number(&self, sql: &str) -> f64 {
        self.client.query_one(sql, &[]).await.expect("a row").get(0)
    }

    async fn prepare(&self, sql: &str) -> Statement {
        self.client.prepare(&sql.replace("x.", &format!("{SCHEMA}."))).await.expect("a statement")
    }

    pub(crate) async fn finding(&self) -> Statement {
        self.prepare(
            "SELECT g.body, g.client, g.subject, g.epoch, g.generation, g.digest, \
             g.chain_expires_at, g.expires_at, g.row_expires_at, g.revoked_at, \
             t.issued_at, t.expires_at, t.revoked_at, t.body FROM x.grants g \
             LEFT JOIN x.tokens t ON t.grant_id = g.id AND t.digest = $2 WHERE g.id = $1",
        )
        .await
    }

    /// Reads one column of each row, as little as a program can.
    pub(crate) async fn find(&self, statement: &Statement, key: &Key) {
        let (grant, digest) = (key.grant.as_bytes().as_slice(), key.digest.as_bytes().as_slice());
        let rows = self.client.query(statement, &[&grant, &digest]).await.expect("an answer");
        let (body, issued): (&[u8], Option<i64>) = (rows[0].get(0), rows[0].get(10));
        assert!(!body.is_empty() && issued.is_some());
    }

    pub(crate) async fn advancing(&self) -> Statement {
        self.prepare(
            "WITH moved AS (UPDATE x.grants SET generation = $4, digest = $5, \
                 chain_expires_at = $6, row_expires_at = $7, body = $8 \
                 WHERE id = $1 AND generation = $2 AND digest = $3 RETURNING id) \
             INSERT INTO x.tokens (grant_id, digest, issued_at, expires_at, body) \
             SELECT id, $9, $10, $11, $12 FROM moved",
        )
        .await
    }

    pub(crate) async fn advance(&self, statement: &Statement, step: &Advance) {
        let ChainUpdate::Move(next) = &step.change else { panic!("a move") };
        let (row, token) = (next.to_row(), step.tokens[0].to_row());
        let (generation, digest) = row.chain.expect("a chain");
        let done = self
            .client
            .execute(
                statement,
                &[
                    &step.grant.as_bytes().as_slice(),
                    &i64::from(step.expected.generation),
                    &step.expected.digest.as_bytes().as_slice(),
                    &i64::from(generation),
                    &digest.as_slice(),
                    &row.chain_expires_at.map(u64::cast_signed),
                    &row.row_expires_at.cast_signed(),
                    &row.body,
                    &token.digest.as_slice(),
                    &token.issued_at.cast_signed(),
                    &token.expires_at.cast_signed(),
                    &token.body,
                ],
            )
            .await;
        assert_eq!(done.expect("an answer"), 1);
    }

    pub(crate) async fn creating(&self) -> [Statement; 2] {
        [
            self.prepare(
                "WITH made AS (INSERT INTO x.grants (id, client, subject, epoch, generation, digest, \
                     chain_expires_at, expires_at, row_expires_at, due, body) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10)) \
                 INSERT INTO x.tokens (grant_id, digest, issued_at, expires_at, body) \
                 VALUES ($1, $11, $12, $13, $14)",
            )
            .await,
            self.prepare("SELECT key FROM x.rules WHERE key = ANY ($1)").await,
        ]
    }

    /// Inserts a grant, and looks for rules in the same flight.
    pub(crate) async fn create(
        &self,
        [insert, look]: &[Statement; 2],
        grant: &GrantRecord,
        token: &TokenRecord,
    ) {
        let (row, token) = (grant.to_row(), token.to_row());
        let (generation, digest) = row.chain.expect("a chain");
        let keys: Vec<Vec<u8>> = grant.rule_keys().iter().map(RuleKey::to_bytes).collect();
        let (id, epoch) = (row.id.as_bytes().as_slice(), row.epoch.cast_signed());
        let (client, subject) = (row.client.as_bytes(), row.subject.as_bytes());
        let (generation, digest) = (i64::from(generation), digest.as_slice());
        let chain_ends = row.chain_expires_at.map(u64::cast_signed);
        let (ends, row_ends) = (row.expires_at.cast_signed(), row.row_expires_at.cast_signed());
        let (issued, token_ends) = (token.issued_at.cast_signed(), token.expires_at.cast_signed());
        let token_digest = token.digest.as_slice();
        let params: [&(dyn ToSql + Sync); 14] = [
            &id,
            &client,
            &subject,
            &epoch,
            &generation,
            &digest,
            &chain_ends,
            &ends,
            &row_ends,
            &row.body,
            &token_digest,
            &issued,
            &token_ends,
            &token.body,
        ];
        let inserting = self.client.execute(insert, &params);
        let (inserted, found) =
            futures_util::future::join(inserting, self.client.query(look, &[&keys])).await;
        assert!(inserted.expect("an answer") == 1 && found.expect("an answer").is_empty());
    }
}
