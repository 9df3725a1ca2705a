//! Rules, which deny grants and JWTs.

use std::collections::HashSet;

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Epoch, Rule, RuleKey, Rules};
use cloakroom_core::store::StoreError;
use cloakroom_core::time::UnixTime;
use mysql_async::{Row, Value};

use crate::connection::{Connection, Script};
use crate::error::Failure;
use crate::pool::Operation;
use crate::rows::{binary, column, get, marks, time};

/// The most keys in one statement.
const CHUNK: usize = 500;

pub(crate) struct ReadRules {
    pub(crate) keys: Vec<RuleKey>,
}

impl Operation for ReadRules {
    type Answer = Rules;

    const CONTEXT: &'static str = "reading rules";

    async fn run(&self, connection: &mut Connection) -> Result<Rules, Failure> {
        read(connection, self.keys.clone()).await
    }
}

/// The rules of these keys, and the newest bound.
///
/// Rules and bound are read by one statement, and so at one moment. A revocation writes both in one
/// transaction. So the bound is no older than the bound of any of the rules. With more keys than one
/// statement takes, the bound is that of the last statement.
pub(crate) async fn read(
    connection: &mut Connection,
    keys: Vec<RuleKey>,
) -> Result<Rules, Failure> {
    const BOUND: &str = "SELECT NULL, newest_bound, 0 FROM ~state WHERE id = 0";
    let keys: Vec<RuleKey> = keys.into_iter().collect::<HashSet<_>>().into_iter().collect();
    let (mut rules, mut newest_bound) = (Vec::new(), None);
    if keys.is_empty() {
        for mut row in connection.rows(BOUND, vec![]).await? {
            newest_bound = Some(get::<i64>(&mut row, 1)?);
        }
    }
    for some in keys.chunks(CHUNK) {
        let sql = format!(
            "SELECT rule_key, bound, ends_at FROM ~rules WHERE rule_key IN ({}) UNION ALL {BOUND}",
            marks(some.len())
        );
        let values: Vec<Value> = some.iter().map(|key| binary(&key.to_bytes())).collect();
        let mut script = Script::new();
        script.then(&sql, &values);
        for mut row in connection.script(&script).await?.into_iter().flat_map(|answer| answer.rows)
        {
            match get::<Option<Vec<u8>>>(&mut row, 0)? {
                Some(key) => rules.push(rule(RuleKey::from_bytes(&key)?, &mut row)?),
                None => newest_bound = Some(get::<i64>(&mut row, 1)?),
            }
        }
    }
    let newest_bound = newest_bound.ok_or_else(not_prepared)?;
    Ok(Rules { rules, newest_bound: Epoch::new(time(newest_bound)) })
}

/// The error of tables that were emptied under the store.
pub(crate) fn not_prepared() -> Failure {
    let why = "its row is gone: open the store again";
    Failure::Store(StoreError::unavailable("reading the state of the log", why))
}

fn rule(key: RuleKey, row: &mut Row) -> Result<Rule, Failure> {
    let bound: Option<i64> = get(row, 1)?;
    let until = UnixTime::from_millis(time(get(row, 2)?));
    Ok(Rule { key, bound: bound.map(|bound| Epoch::new(time(bound))), until })
}

/// Whether a rule covers a grant.
pub(crate) const LOOK: &str = "SELECT 1 FROM ~rules WHERE rule_key IN (?, ?, ?) \
    AND (bound IS NULL OR bound >= ?) LIMIT 1";

/// Adds the look for a rule that denies the grant. A row is a denial.
pub(crate) fn look(script: &mut Script, grant: &GrantRecord) {
    let [subject, client, pair] = grant.rule_keys().map(|key| binary(&key.to_bytes()));
    script.then(LOOK, &[subject, client, pair, column(grant.epoch.get())]);
}
