//! No statement scans: what PostgreSQL plans for each of them, over tables that are filled and analysed.

mod with_postgres {
    use std::sync::Arc;

    use cloakroom_core::Random;
    use tokio_postgres::NoTls;

    use crate::sql::{Names, Sql};
    use crate::{
        advance, check_values, create, grants, housekeeping, keys, list, log_writer, lookups,
        plans, revocation_log, schema, single_use, status,
    };

    /// How many grants there are.
    const GRANTS: u32 = 200_000;

    /// Every statement, each under the name of its variable.
    fn statements() -> Vec<(&'static str, &'static Sql)> {
        [
            advance::STATEMENTS,
            check_values::STATEMENTS,
            create::STATEMENTS,
            grants::STATEMENTS,
            housekeeping::STATEMENTS,
            keys::STATEMENTS,
            list::STATEMENTS,
            log_writer::STATEMENTS,
            lookups::STATEMENTS,
            revocation_log::STATEMENTS,
            schema::STATEMENTS,
            single_use::STATEMENTS,
            status::STATEMENTS,
        ]
        .concat()
    }

    async fn client(url: &str) -> tokio_postgres::Client {
        let config = crate::address::Address::parse(url).unwrap().config;
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Few large clients, one of them with nearly all of the grants; many subjects.
    fn fill() -> String {
        format!(
            "INSERT INTO cloakroom.grants
             SELECT n, 2e12 + n, 2e12 + n, (2e12 + n)::bigint / 86400000 * 86400000, 1, 2e12, \
                 CASE WHEN n % 10 = 0 THEN 1 END, sha256(int4send(n)), \
                 CASE WHEN n % 1000 = 7 THEN 'small' ELSE 'large' END::bytea, \
                 ('user ' || n / 3)::bytea, sha256(int4send(-n)), \
                 CASE WHEN n % 100 > 0 THEN sha256(int4send(n)) || sha256(int4send(n + 1)) END \
             FROM generate_series(1, {GRANTS}) n;
             INSERT INTO cloakroom.tokens
             SELECT n, 2e12 + n, NULL, id, sha256(id), sha256(id) \
             FROM (SELECT row_number() OVER () AS n, id FROM cloakroom.grants) g;
             INSERT INTO cloakroom.rules
             SELECT n, 2e12 + n, sha256(int4send(n)) FROM generate_series(1, {GRANTS} / 10) n;
             INSERT INTO cloakroom.log
             SELECT n, 2e12 + n, n, sha256(int4send(n)), sha256(int4send(n)) \
             FROM generate_series(1, {GRANTS} / 10) n;
             INSERT INTO cloakroom.single_use
             SELECT 2e12 + n, true, sha256(int4send(n)) FROM generate_series(1, {GRANTS}) n;
             ANALYZE cloakroom.grants; ANALYZE cloakroom.tokens; ANALYZE cloakroom.rules; \
             ANALYZE cloakroom.log; ANALYZE cloakroom.single_use"
        )
    }

    /// The tables of one row or of a handful, and the catalog; the sort of a handful is no scan.
    const SMALL: [&str; 8] = [
        "log_state",
        "signing_keys_state",
        "single_use_forgotten",
        "signing_keys",
        "check_values",
        "sweeps",
        "Seq Scan on version",
        " on pg_",
    ];

    #[tokio::test]
    async fn no_statement_scans() {
        let url = std::env::var("CLOAKROOM_TEST_POSTGRES_URL").unwrap();
        let random: [u8; 8] = Random::system().array().unwrap();
        let schema = random.iter().fold("t_".to_owned(), |name, byte| format!("{name}{byte:02x}"));
        crate::PostgresStore::builder(&url).schema(&schema).migrate().await.unwrap();
        let names = Arc::new(Names::default().with_schema(&schema).unwrap());
        let client = client(&url).await;
        client.batch_execute(&names.render(&fill())).await.unwrap();

        // With the settings of the store, and with those of a server, as behind a pooler.
        for settings in ["SET enable_seqscan = off", "SET enable_seqscan = on"] {
            client.batch_execute(settings).await.unwrap();
            client.batch_execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
            let mut seen = 0;
            for (name, sql) in statements() {
                let limits: &[u32] = if sql.text.contains("$LIMIT") { &[1, 64, 512] } else { &[0] };
                for limit in limits {
                    let text = names.render_limited(sql.text, *limit);
                    let plan = plan(&client, sql, &text).await;
                    let lines: Vec<&str> = plan.lines().collect();
                    for (number, line) in lines.iter().enumerate() {
                        let next = lines.get(number + 1).unwrap_or(&"");
                        let is_small = SMALL.iter().any(|small| line.contains(small));
                        // A walk over all grants may read the table.
                        let is_walk = name == "SCAN";
                        // The first row of an index is found without a condition.
                        let is_first = name == "DUE" && plan.contains("Limit");
                        let is_scan = line.contains("Seq Scan")
                            || line.contains("Index")
                                && line.contains("Scan using")
                                && !next.contains("Index Cond:");
                        assert!(
                            is_small
                                || is_walk
                                || is_first && !line.contains("Seq Scan")
                                || !is_scan,
                            "{name}, {settings}:\n{text}\n{plan}"
                        );
                    }
                    seen += 1;
                }
            }
            assert!(seen > 30, "{seen}");
        }
        client.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await.unwrap();
    }

    /// The plan for any values.
    async fn plan(client: &tokio_postgres::Client, sql: &Sql, text: &str) -> String {
        let explain = plans::explain("looked", sql.types, text);
        plans::steps(&client.simple_query(&explain).await.unwrap()).join("\n")
    }
}
