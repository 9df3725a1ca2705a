//! The driver by itself: the statements of the store, each prepared once on one connection.

use cloakroom_core::Subject;
use cloakroom_core::record::{GrantRow, TokenRow};
use cloakroom_core::revocation::RuleKey;
use cloakroom_core::store::{Advance, ChainUpdate};
use cloakroom_core::time::{Clock as _, SystemClock};
use cloakroom_postgres::tokio_postgres::types::ToSql;
use cloakroom_postgres::tokio_postgres::{Client, Config, NoTls, Row, Statement};

use crate::server::calls::Calls;
use crate::server::records::Key;
use crate::server::{self, Login};
use crate::sql::{RawSql, Table};

const FIND: &str = "SELECT g.body, g.client, g.subject, g.epoch, g.generation, g.digest, \
    g.chain_expires_at, g.expires_at, g.row_expires_at, g.revoked_at, \
    t.issued_at, t.expires_at, t.revoked_at, t.body FROM x.grants g \
    LEFT JOIN x.tokens t ON t.grant_id = g.id AND t.digest = $2 WHERE g.id = $1";

// The day of `due` stays the same.
const ADVANCE: &str = "WITH moved AS (UPDATE x.grants SET generation = $7, digest = $8, \
        chain_expires_at = $9, expires_at = $10, row_expires_at = $11, due = due, \
        revoked_at = $12, body = $13 \
        WHERE id = $1 AND generation = $2 AND digest = $3 AND revoked_at IS NULL \
        AND expires_at > $4 AND chain_expires_at > $4 AND body IS NOT NULL \
        AND client = $5 AND subject = $6 AND epoch = $14 AND expires_at >= $10 RETURNING id), \
    attached AS (INSERT INTO x.tokens (grant_id, digest, issued_at, expires_at, revoked_at, body) \
        SELECT moved.id, t.* FROM moved, unnest($15::bytea[], $16::bigint[], $17::bigint[], \
        $18::bigint[], $19::bytea[]) t) \
    SELECT count(*) FROM moved";

const CREATE: &str = "WITH inserted AS (INSERT INTO x.grants (id, client, subject, epoch, generation, \
        digest, chain_expires_at, expires_at, row_expires_at, due, body) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10) ON CONFLICT (id) DO NOTHING RETURNING id), \
    attached AS (INSERT INTO x.tokens (grant_id, digest, issued_at, expires_at, body) \
        SELECT inserted.id, t.* FROM inserted, \
        unnest($11::bytea[], $12::bigint[], $13::bigint[], $14::bytea[]) t) \
    SELECT count(*) FROM inserted";

const BAR: &str = "WITH rule AS (SELECT 1 FROM x.rules \
        WHERE key = ANY ($5) AND coalesce(bound, $4) >= $4 LIMIT 1), \
    barred AS (UPDATE x.grants SET revoked_at = $6 \
        WHERE id = $1 AND client = $2 AND subject = $3 AND epoch = $4 AND revoked_at IS NULL \
        AND EXISTS (SELECT FROM rule)) \
    SELECT count(*) FROM rule";

const LIST: &str = "SELECT body, client, subject, epoch, generation, digest, chain_expires_at, \
    expires_at, row_expires_at, revoked_at, id FROM x.grants \
    WHERE subject = $1 AND revoked_at IS NULL ORDER BY id LIMIT 100";

const MARK: &str = "UPDATE x.grants SET revoked_at = $2 WHERE id = $1";

const INSERT_GRANTS: &str = "INSERT INTO x.grants (id, client, subject, digest, body, generation, \
        epoch, chain_expires_at, expires_at, row_expires_at, due) \
    SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[], \
        $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])";

const INSERT_TOKENS: &str = "INSERT INTO x.tokens (grant_id, digest, body, issued_at, expires_at) \
    SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[])";

const DAY: u64 = 86_400_000;

pub(crate) struct Raw {
    client: Client,
    schema: String,
    find: Statement,
    advance: Statement,
    create: Statement,
    bar: Statement,
    list: Statement,
    mark: Statement,
    insert_grants: Statement,
    insert_tokens: Statement,
}

impl server::Raw for Raw {
    async fn connect(url: &str, space: &str) -> Self {
        let url = url.split_once('?').map_or(url, |(base, _)| base);
        let config: Config = url.parse().expect("a URL");
        let (client, connection) = config.connect(NoTls).await.expect("a server");
        tokio::spawn(connection);
        client.batch_execute("SET plan_cache_mode = force_generic_plan").await.expect("a setting");
        let prepare = async |sql: &str| {
            client.prepare(&sql.replace("x.", &format!("{space}."))).await.expect("a statement")
        };
        Self {
            schema: space.to_owned(),
            find: prepare(FIND).await,
            advance: prepare(ADVANCE).await,
            create: prepare(CREATE).await,
            bar: prepare(BAR).await,
            list: prepare(LIST).await,
            mark: prepare(MARK).await,
            insert_grants: prepare(INSERT_GRANTS).await,
            insert_tokens: prepare(INSERT_TOKENS).await,
            client,
        }
    }

    async fn settle(&self) {
        for table in ["grants", "tokens"] {
            self.run(&format!("VACUUM ANALYZE {}.{table}", self.schema)).await;
        }
    }

    async fn remove_all(&self) {
        self.run(&format!("DROP SCHEMA {} CASCADE", self.schema)).await;
    }
}

impl Calls for Raw {
    /// Reads one column of each row, as little as a program can.
    async fn find(&self, key: &Key) {
        let (grant, digest) = (key.grant.as_bytes().as_slice(), key.digest.as_bytes().as_slice());
        let rows = self.client.query(&self.find, &[&grant, &digest]).await.expect("an answer");
        let (body, issued): (&[u8], Option<i64>) = (rows[0].get(0), rows[0].get(10));
        assert!(!body.is_empty() && issued.is_some());
    }

    async fn advance(&self, step: Advance) {
        let ChainUpdate::Move(next) = &step.change else { panic!("a move") };
        let (row, token) = (next.to_row(), step.tokens[0].to_row());
        let (generation, digest) = row.chain.expect("a chain");
        let at = |time: u64| time.cast_signed();
        let no_time = None::<i64>;
        let (digests, bodies) = ([token.digest.as_slice()], [&token.body]);
        let (issued, ends, revoked) = ([at(token.issued_at)], [at(token.expires_at)], [no_time]);
        let params: [&(dyn ToSql + Sync); 19] = [
            &step.grant.as_bytes().as_slice(),
            &i64::from(step.expected.generation),
            &step.expected.digest.as_bytes().as_slice(),
            &at(step.now.as_millis()),
            &row.client.as_bytes(),
            &row.subject.as_bytes(),
            &i64::from(generation),
            &digest.as_slice(),
            &row.chain_expires_at.map(at),
            &at(row.expires_at),
            &at(row.row_expires_at),
            &no_time,
            &row.body,
            &at(row.epoch),
            &digests.as_slice(),
            &issued.as_slice(),
            &ends.as_slice(),
            &revoked.as_slice(),
            &bodies.as_slice(),
        ];
        let moved = self.client.query(&self.advance, &params).await.expect("an answer");
        assert_eq!(moved[0].get::<_, i64>(0), 1);
    }

    /// Inserts a grant, and bars it if there is a rule, in the same flight.
    async fn create(&self, (grant, token): Login) {
        let (row, token) = (grant.to_row(), token.to_row());
        let (generation, digest) = row.chain.expect("a chain");
        let keys: Vec<Vec<u8>> = grant.rule_keys().iter().map(RuleKey::to_bytes).collect();
        let (id, epoch) = (row.id.as_bytes().as_slice(), row.epoch.cast_signed());
        let (client, subject) = (row.client.as_bytes(), row.subject.as_bytes());
        let (generation, digest) = (i64::from(generation), digest.as_slice());
        let chain_ends = row.chain_expires_at.map(u64::cast_signed);
        let (ends, row_ends) = (row.expires_at.cast_signed(), row.row_expires_at.cast_signed());
        let (issued, token_ends) =
            ([token.issued_at.cast_signed()], [token.expires_at.cast_signed()]);
        let (token_digests, token_bodies) = ([token.digest.as_slice()], [&token.body]);
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
            &token_digests.as_slice(),
            &issued.as_slice(),
            &token_ends.as_slice(),
            &token_bodies.as_slice(),
        ];
        let look: [&(dyn ToSql + Sync); 6] = [&id, &client, &subject, &epoch, &keys, &1_i64];
        let (inserting, looking) =
            (self.client.query(&self.create, &params), self.client.query(&self.bar, &look));
        let (inserted, found) = futures_util::future::join(inserting, looking).await;
        let count = |rows: Vec<Row>| rows[0].get::<_, i64>(0);
        assert!(count(inserted.expect("an answer")) == 1 && count(found.expect("an answer")) == 0);
    }
}

impl RawSql for Raw {
    async fn list(&self, subject: &Subject) {
        let rows = self.client.query(&self.list, &[&subject.to_key().as_bytes()]).await;
        assert!(!rows.expect("an answer").is_empty());
    }

    async fn mark(&self, key: &Key) {
        let (id, at) = (key.grant.as_bytes().as_slice(), 1_i64);
        let marked = self.client.execute(&self.mark, &[&id, &at]).await;
        assert_eq!(marked.expect("an answer"), 1);
    }

    async fn tables(&self) -> Vec<Table> {
        let mut tables = Vec::new();
        for name in ["grants", "tokens", "log"] {
            let table = format!("{}.{name}", self.schema);
            let bytes = self.ask(&format!("pg_total_relation_size('{table}')")).await;
            let rows = self.ask(&format!("(SELECT count(*) FROM {table})")).await;
            tables.push(Table { name, bytes: bytes as f64, rows: rows as f64 });
        }
        tables
    }

    async fn connections(&self) -> usize {
        let connections = "(SELECT count(*) FROM pg_stat_activity \
            WHERE datname = current_database() AND backend_type = 'client backend')";
        usize::try_from(self.ask(connections).await).expect("a count")
    }

    async fn durability(&self) -> String {
        let settings = ["fsync", "synchronous_commit", "full_page_writes"];
        let mut said = Vec::new();
        for setting in settings {
            let row = self.client.query_one(format!("SHOW {setting}").as_str(), &[]).await;
            said.push(format!("{setting} {}", row.expect("a row").get::<_, &str>(0)));
        }
        said.join(", ")
    }
}

impl Raw {
    pub(crate) async fn insert(&self, rows: &[Login]) {
        let grants: Vec<GrantRow> = rows.iter().map(|(grant, _)| grant.to_row()).collect();
        let tokens: Vec<TokenRow> = rows.iter().map(|(_, token)| token.to_row()).collect();
        let texts = |column: fn(&GrantRow) -> &[u8]| grants.iter().map(column).collect::<Vec<_>>();
        let numbers = |column: fn(&GrantRow) -> u64| -> Vec<i64> {
            grants.iter().map(|row| column(row).cast_signed()).collect()
        };
        let now = SystemClock::new().now().as_millis();
        // As the store rounds it.
        let due = |end: u64| if end > now + DAY { end - end % DAY } else { end };
        let due: Vec<i64> =
            grants.iter().map(|row| due(row.row_expires_at).cast_signed()).collect();
        let done = self
            .client
            .execute(
                &self.insert_grants,
                &[
                    &texts(|row| row.id.as_bytes()),
                    &texts(|row| row.client.as_bytes()),
                    &texts(|row| row.subject.as_bytes()),
                    &texts(|row| &row.chain.as_ref().expect("a chain").1),
                    &texts(|row| &row.body),
                    &numbers(|row| row.chain.expect("a chain").0.into()),
                    &numbers(|row| row.epoch),
                    &numbers(|row| row.chain_expires_at.expect("an end")),
                    &numbers(|row| row.expires_at),
                    &numbers(|row| row.row_expires_at),
                    &due,
                ],
            )
            .await;
        assert_eq!(done.expect("an answer"), rows.len() as u64);
        let texts = |column: fn(&TokenRow) -> &[u8]| tokens.iter().map(column).collect::<Vec<_>>();
        let numbers = |column: fn(&TokenRow) -> u64| -> Vec<i64> {
            tokens.iter().map(|row| column(row).cast_signed()).collect()
        };
        let done = self
            .client
            .execute(
                &self.insert_tokens,
                &[
                    &texts(|row| row.grant.as_bytes()),
                    &texts(|row| &row.digest),
                    &texts(|row| &row.body),
                    &numbers(|row| row.issued_at),
                    &numbers(|row| row.expires_at),
                ],
            )
            .await;
        assert_eq!(done.expect("an answer"), rows.len() as u64);
    }

    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.expect("a statement");
    }

    /// A whole number.
    async fn ask(&self, what: &str) -> i64 {
        let sql = format!("SELECT {what}");
        self.client.query_one(sql.as_str(), &[]).await.expect("a row").get(0)
    }
}
