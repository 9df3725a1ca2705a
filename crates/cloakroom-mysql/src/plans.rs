//! How the server plans the queries that must read an index, for operators.

use cloakroom_core::store::QueryPlan;
use mysql_async::{Row, Value};

use crate::connection::{Connection, Script};
use crate::error::Failure;
use crate::{grants, housekeeping, revocation_log, rules, single_use};

/// A query that must read an index.
struct Query {
    /// What it is for.
    name: &'static str,
    sql: &'static str,
    values: Vec<Value>,
    /// The table of the index, as a plan names it: by its alias, or with `~` for the prefix.
    table: &'static str,
    index: &'static str,
}

/// A table of fewer rows may be read as a whole, if the index could be read instead.
const FEW: u64 = 1_000;

fn queries() -> Vec<Query> {
    let (id, digest) = (|| Value::Bytes(vec![0; 16]), || Value::Bytes(vec![0; 32]));
    let (name, time, one) = (|| Value::Bytes(b"x".to_vec()), || Value::Int(1), || Value::UInt(1));
    let query = |name, sql, values, (table, index)| Query { name, sql, values, table, index };
    vec![
        query("find a grant", grants::FIND, vec![id()], ("g", "PRIMARY")),
        query("find a token", grants::FIND_TOKEN, vec![digest(), id()], ("t", "PRIMARY")),
        query(
            "list the grants of a subject",
            grants::LIST_SUBJECT,
            vec![name(), id(), one()],
            ("g", "grants_of_subject"),
        ),
        query(
            "list the grants of a client",
            grants::LIST_CLIENT,
            vec![name(), id(), one()],
            ("g", "grants_of_client"),
        ),
        query(
            "look for rules",
            rules::LOOK,
            vec![name(), name(), name(), time()],
            ("~rules", "PRIMARY"),
        ),
        query(
            "read the revocation log",
            revocation_log::ENTRIES,
            vec![time(), one()],
            ("~log", "PRIMARY"),
        ),
        query(
            "spend a single-use item",
            single_use::WRITE,
            vec![time(), digest()],
            ("~single_use", "PRIMARY"),
        ),
        query(
            "delete grants that have ended",
            housekeeping::GRANTS,
            vec![time(), time(), one()],
            ("g", "grants_by_end"),
        ),
        query(
            "delete tokens that have ended",
            housekeeping::TOKENS,
            vec![time(), one()],
            ("~tokens", "tokens_by_end"),
        ),
        query(
            "delete rules that have ended",
            housekeeping::RULES.candidates,
            vec![time(), one()],
            ("~rules", "rules_by_end"),
        ),
        query(
            "trim the revocation log",
            housekeeping::LOG.candidates,
            vec![time(), one()],
            ("~log", "log_by_end"),
        ),
        query(
            "forget single-use items",
            single_use::OVER,
            vec![time(), one()],
            ("~single_use", "single_use_by_end"),
        ),
    ]
}

/// The plan of each query.
pub(crate) async fn look(connection: &mut Connection) -> Result<Vec<QueryPlan>, Failure> {
    let queries = queries();
    let mut script = Script::new();
    for query in &queries {
        script.then(&format!("EXPLAIN {}", query.sql), &query.values);
    }
    let answers = connection.script(&script).await?;
    let prefix = connection.prefix();
    let judged = queries.into_iter().zip(answers).map(|(query, answer)| {
        let table = query.table.replace('~', &prefix);
        let index = match query.index {
            "PRIMARY" => format!("PRIMARY of {table}"),
            index => index.to_owned(),
        };
        let plan = QueryPlan::new(query.name, index);
        let steps: Vec<Step> = answer.rows.iter().map(Step::of).collect();
        let is_read = steps.iter().any(|step| step.reads(&table, query.index));
        let text = || steps.iter().map(Step::to_text).collect::<Vec<_>>().join(", ");
        if is_read { plan } else { plan.instead(text()) }
    });
    Ok(judged.collect())
}

/// A row of `EXPLAIN`.
struct Step {
    table: String,
    kind: String,
    possible: String,
    key: String,
    rows: u64,
    extra: String,
}

impl Step {
    fn of(row: &Row) -> Self {
        let text = |name: &str| -> String {
            let found = row.get_opt::<Option<String>, _>(name);
            found.and_then(Result::ok).flatten().unwrap_or_default()
        };
        Self {
            table: text("table"),
            kind: text("type"),
            possible: text("possible_keys"),
            key: text("key"),
            rows: text("rows").parse().unwrap_or(u64::MAX),
            extra: text("Extra"),
        }
    }

    fn reads(&self, table: &str, index: &str) -> bool {
        // A row that the planner looked for by its whole primary key, and did not find.
        if index == "PRIMARY" && self.table.is_empty() && self.extra.contains("const table") {
            return true;
        }
        let could = self.possible.split(',').any(|key| key.trim() == index);
        self.table == table && (self.key == index || could && self.rows < FEW)
    }

    fn to_text(&self) -> String {
        let Self { table, kind, key, extra, .. } = self;
        let by = if key.is_empty() { String::new() } else { format!(" by {key}") };
        format!("{kind} of {table}{by} ({extra})")
    }
}
