//! How SQLite plans the queries that must read an index, for operators.

use cloakroom_core::store::{QueryPlan, StoreError};
use rusqlite::Connection;

use crate::error::failed;
use crate::{grants, housekeeping, revocation_log, single_use};

/// What each query is for, its statement, and its index: a name, or `PRIMARY KEY` of a table without row ids.
const QUERIES: &[(&str, &str, &str)] = &[
    ("find a grant", grants::FIND, "sqlite_autoindex_grants_1"),
    ("find a token", grants::FIND, "PRIMARY KEY"),
    ("list the grants of a subject", grants::LIST_SUBJECT, "grants_of_subject"),
    ("list the grants of a client", grants::LIST_CLIENT, "grants_of_client"),
    ("look for rules", revocation_log::RULE, "PRIMARY KEY"),
    ("read the revocation log", revocation_log::ENTRIES, "INTEGER PRIMARY KEY"),
    ("spend a single-use item", single_use::STORED, "PRIMARY KEY"),
    ("delete grants that have ended", housekeeping::GRANTS, "grants_by_end"),
    ("delete tokens that have ended", housekeeping::TOKENS, "tokens_by_end"),
    ("delete tombstones that have ended", housekeeping::TOMBSTONES, "tombstones_by_end"),
    ("delete rules that have ended", housekeeping::RULES, "rules_by_end"),
    ("trim the revocation log", housekeeping::LOG, "log_by_end"),
    ("forget single-use items", single_use::OVER, "single_use_by_end"),
];

/// The plan of each query.
pub(crate) fn look(connection: &Connection) -> Result<Vec<QueryPlan>, StoreError> {
    let look = |(query, sql, index): &(&str, &str, &str)| {
        let steps = steps(connection, sql)?;
        let plan = QueryPlan::new(*query, *index);
        Ok(if reads(&steps, index) { plan } else { plan.instead(steps.join(", ")) })
    };
    QUERIES.iter().map(look).collect()
}

/// Whether a plan looks into this index, and reads no more than it needs.
fn reads(steps: &[String], index: &str) -> bool {
    let named = format!("{index} (");
    steps.iter().any(|step| step.starts_with("SEARCH") && step.contains(&named))
        && !steps.iter().any(|step| is_scan(step))
}

/// The steps of a plan, in SQLite's words.
pub(crate) fn steps(connection: &Connection, sql: &str) -> Result<Vec<String>, StoreError> {
    let during = |error| failed("looking at a plan", error);
    let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).map_err(during)?;
    let mut rows = plan.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next().map_err(during)? {
        steps.push(row.get("detail").map_err(during)?);
    }
    Ok(steps)
}

/// Whether a step reads more rows than it needs, or sorts them.
pub(crate) fn is_scan(step: &str) -> bool {
    // No row; the one row of `state`; the first of the sweeps that go on, in key order.
    let is_small = ["SCAN CONSTANT ROW", "SCAN state", "SCAN sweeps"].contains(&step);
    !is_small && step.starts_with("SCAN") || step.starts_with("USE TEMP B-TREE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_its_index_and_nothing_else() {
        const RIGHT: &str = "SEARCH grants USING INDEX grants_by_end (row_expires_at<?)";
        for (steps, expected) in [
            (&[RIGHT][..], true),
            (&["SCAN CONSTANT ROW", RIGHT], true),
            (&["SCAN state", RIGHT], true),
            (&["SCAN sweeps", RIGHT], true),
            (&[], false),
            (&["SEARCH grants USING INDEX grants_of_client (client=?)"], false),
            (&["SCAN grants USING INDEX grants_by_end (row_expires_at<?)"], false),
            (&[RIGHT, "SCAN tokens"], false),
            (&[RIGHT, "USE TEMP B-TREE FOR ORDER BY"], false),
        ] {
            let owned: Vec<String> = steps.iter().map(|step| (*step).to_owned()).collect();
            assert_eq!(reads(&owned, "grants_by_end"), expected, "{steps:?}");
        }
    }
}
