//! Sweeps: they mark the grants of a subject or a client as revoked, a page at a time.

use cloakroom_core::revocation::{EntryId, RuleKey};
use mysql_async::{Row, Value};

use crate::connection::{Connection, Script};
use crate::error::Failure;
use crate::pool::{Lane, Operation};
use crate::rows::{binary, get, marks};

/// How many grants one page reads.
const PAGE: u32 = 500;

/// Which sweep to continue.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    /// The one that this entry began.
    Of(EntryId),
    /// The one of this entry, if it is not finished, and otherwise the first.
    Preferably(Option<EntryId>),
}

/// Whether a sweep is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swept {
    /// There is none, or it was finished by this step.
    None,
    Last,
    More,
    /// Its target cannot be read. It was removed, since it would stop all later housekeeping.
    Unreadable,
}

/// Takes the next step of a sweep. It reads only columns, so that it also revokes a grant whose body is
/// damaged.
///
/// # Isolation
///
/// The page is selected without locks, in a statement that begins after the rule was committed (see
/// `Create`). The `UPDATE` locks the rows of its list in the order of the primary key, like every other
/// transaction, and checks each again. The place is written afterwards: if that fails, or if another node
/// sweeps as well, some grants are looked at twice.
pub(crate) struct Sweep(pub(crate) Which);

impl Operation for Sweep {
    type Answer = Swept;

    const CONTEXT: &'static str = "sweeping grants";
    const LANE: Lane = Lane::Requests;

    async fn run(&self, connection: &mut Connection) -> Result<Swept, Failure> {
        let Some(mut sweep) = find(connection, self.0).await? else { return Ok(Swept::None) };
        let position: i64 = get(&mut sweep, 0)?;
        let key: Vec<u8> = get(&mut sweep, 1)?;
        let bound: i64 = get(&mut sweep, 2)?;
        let at: i64 = get(&mut sweep, 3)?;
        let after: Vec<u8> = get(&mut sweep, 4)?;
        let Some(page) = page(connection, &key, after).await? else {
            end(connection, position).await?;
            return Ok(Swept::Unreadable);
        };
        let is_full = page.len() >= PAGE as usize;
        let last = page.last().map(|(id, _)| id.clone());
        let covered: Vec<Value> = page
            .into_iter()
            .filter(|(_, epoch)| *epoch <= bound)
            .map(|(id, _)| Value::Bytes(id))
            .collect();
        if !covered.is_empty() {
            let sql = format!(
                "UPDATE ~grants SET revoked_at = ? \
                 WHERE id IN ({}) AND revoked_at IS NULL AND epoch <= ?",
                marks(covered.len())
            );
            let mut values = vec![Value::Int(at)];
            values.extend(covered);
            values.push(Value::Int(bound));
            let mut script = Script::new();
            script.then(&sql, &values);
            connection.script(&script).await?;
        }
        match last {
            Some(last) if is_full => {
                const SQL: &str = "UPDATE ~sweeps SET last_id = ? WHERE position = ?";
                let parameters = vec![Value::Bytes(last), Value::Int(position)];
                connection.execute(SQL, parameters).await?;
                Ok(Swept::More)
            }
            _ => {
                end(connection, position).await?;
                Ok(Swept::Last)
            }
        }
    }
}

async fn find(connection: &mut Connection, which: Which) -> Result<Option<Row>, Failure> {
    macro_rules! select {
        ($rest:literal) => {
            concat!("SELECT position, rule_key, bound, revoked_at, last_id FROM ~sweeps ", $rest)
        };
    }
    const OF: &str = select!("WHERE entry = ?");
    const FIRST: &str = select!("ORDER BY position LIMIT 1");
    let preferred = match which {
        Which::Of(entry) | Which::Preferably(Some(entry)) => {
            connection.row(OF, vec![binary(entry.as_bytes())]).await?
        }
        Which::Preferably(None) => None,
    };
    match (preferred, which) {
        (None, Which::Preferably(_)) => connection.row(FIRST, vec![]).await,
        (preferred, _) => Ok(preferred),
    }
}

/// The ids and epochs of the next grants that are not revoked; `None` if the key is none of grants.
async fn page(
    connection: &mut Connection,
    key: &[u8],
    after: Vec<u8>,
) -> Result<Option<Vec<(Vec<u8>, i64)>>, Failure> {
    const BY_SUBJECT: &str = "SELECT id, epoch FROM ~grants \
        WHERE subject = ? AND revoked_at IS NULL AND id > ? ORDER BY id LIMIT ?";
    const BY_CLIENT: &str = "SELECT id, epoch FROM ~grants \
        WHERE client = ? AND revoked_at IS NULL AND id > ? ORDER BY id LIMIT ?";
    const BY_BOTH: &str = "SELECT id, epoch FROM ~grants \
        WHERE subject = ? AND revoked_at IS NULL AND id > ? AND client = ? ORDER BY id LIMIT ?";
    let after = Value::Bytes(after);
    let limit = Value::UInt(PAGE.into());
    let (sql, parameters) = match RuleKey::from_bytes(key) {
        Ok(RuleKey::Subject(subject)) => {
            (BY_SUBJECT, vec![binary(subject.to_key().as_bytes()), after, limit])
        }
        Ok(RuleKey::Client(client)) => {
            (BY_CLIENT, vec![binary(client.as_str().as_bytes()), after, limit])
        }
        Ok(RuleKey::SubjectAtClient(subject, client)) => {
            let subject = binary(subject.to_key().as_bytes());
            (BY_BOTH, vec![subject, after, binary(client.as_str().as_bytes()), limit])
        }
        Ok(RuleKey::Jti(_) | RuleKey::Key(_)) | Err(_) => return Ok(None),
    };
    let rows = connection.rows(sql, parameters).await?;
    let pair = |mut row: Row| Ok((get(&mut row, 0)?, get(&mut row, 1)?));
    rows.into_iter().map(pair).collect::<Result<_, Failure>>().map(Some)
}

/// Removes a sweep that is finished or whose target cannot be read.
async fn end(connection: &mut Connection, position: i64) -> Result<(), Failure> {
    const SQL: &str = "DELETE FROM ~sweeps WHERE position = ?";
    connection.execute(SQL, vec![Value::Int(position)]).await.map(drop)
}
