//! How PostgreSQL plans the queries that must read an index, for operators.

use cloakroom_core::Random;
use cloakroom_core::store::{QueryPlan, StoreError};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::Type;

use crate::error::failed;
use crate::pool::Pool;
use crate::sql::{Names, Sql};
use crate::{grants, housekeeping, list, lookups, revocation_log, single_use};

/// What each query is for, its statement, and its index without the prefix: those that no other index serves as
/// well in a small table.
const QUERIES: &[(&str, &Sql, &str)] = &[
    ("find a grant", &grants::FIND, "grants_pkey"),
    ("find a token", &grants::FIND_TOKEN, "tokens_pkey"),
    ("find many tokens", &lookups::FIND_MANY, "tokens_pkey"),
    ("list the grants of a subject", &list::LIST_SUBJECT, "grants_of_subject"),
    ("list the grants of a client", &list::LIST_CLIENT, "grants_of_client"),
    ("look for rules", &revocation_log::RULES, "rules_pkey"),
    ("read the revocation log", &revocation_log::ENTRIES, "log_pkey"),
    ("spend a single-use item", &single_use::SPEND, "single_use_pkey"),
    ("delete grants that have ended", &housekeeping::GRANTS, "grants_by_due"),
    ("delete tokens that have ended", &housekeeping::TOKENS, "tokens_by_end"),
    ("delete rules that have ended", &housekeeping::RULES, "rules_by_end"),
    ("trim the revocation log", &housekeeping::LOG, "log_by_end"),
    ("forget single-use items", &single_use::FORGET, "single_use_by_end"),
];

/// What the plans are made with: as on the connections of the store, for a table that has grown. Both end with
/// the transaction, which is that of the message.
const SETTINGS: &str =
    "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off";

const DURING: &str = "looking at a plan";

/// The plan of each query.
pub(crate) async fn look(pool: &Pool, names: &Names) -> Result<Vec<QueryPlan>, StoreError> {
    // What a message that fails has prepared stays on the connection, which may be a pooler's.
    let random: [u8; 8] =
        Random::system().array().map_err(|error| StoreError::unavailable(DURING, error))?;
    let prepared = format!("cloakroom_plan_{:016x}", u64::from_le_bytes(random));
    let mut plans = Vec::with_capacity(QUERIES.len());
    for (query, sql, index) in QUERIES {
        let text = names.render_limited(sql.text, 1);
        let explain = format!("{SETTINGS}; {}", explain(&prepared, sql.types, &text));
        let session = pool.session(DURING).await?;
        let answer = session.simple(&explain).await.map_err(|error| failed(DURING, error))?;
        let steps = steps(&answer);
        let index = format!("{}{index}", names.prefix());
        let plan = QueryPlan::new(*query, &*index);
        let is_read = steps.iter().any(|step| reads(step, &index));
        plans.push(if is_read { plan } else { plan.instead(scans(&steps)) });
    }
    Ok(plans)
}

/// Statements that show the plan of a text for any values.
pub(crate) fn explain(prepared: &str, types: &[Type], text: &str) -> String {
    // `_int8` is the name of the type of arrays of `int8`.
    let readable = |name: &str| match name.strip_prefix('_') {
        Some(element) => format!("{element}[]"),
        None => name.to_owned(),
    };
    let (list, values) = if types.is_empty() {
        (String::new(), String::new())
    } else {
        let names: Vec<String> = types.iter().map(|name| readable(name.name())).collect();
        let nulls = vec!["NULL"; types.len()];
        (format!("({})", names.join(", ")), format!("({})", nulls.join(", ")))
    };
    format!(
        "PREPARE {prepared}{list} AS {text}; EXPLAIN EXECUTE {prepared}{values}; \
         DEALLOCATE {prepared}"
    )
}

/// The lines of the plan in an answer.
pub(crate) fn steps(answer: &[SimpleQueryMessage]) -> Vec<String> {
    let line = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    answer.iter().filter_map(line).collect()
}

/// Whether a line of a plan reads this index: `… Scan using NAME on …`, or `Bitmap Index Scan on NAME …`.
fn reads(step: &str, index: &str) -> bool {
    let name = |before: &str| step.split_once(before)?.1.split_whitespace().next();
    name(" using ") == Some(index) || name("Bitmap Index Scan on ") == Some(index)
}

/// The lines of a plan that read a table.
fn scans(steps: &[String]) -> String {
    let scans = steps.iter().filter(|step| step.contains("Scan")).map(|step| {
        let step = step.split("  (cost=").next().unwrap_or_default();
        step.trim_start_matches([' ', '-', '>'])
    });
    scans.collect::<Vec<_>>().join(", ")
}
