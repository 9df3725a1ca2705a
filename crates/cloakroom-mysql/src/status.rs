//! What the store reports about itself, and a walk over all grants, for operators. Nothing here is on the path of a
//! request.

use std::collections::BTreeSet;
use std::sync::Arc;

use cloakroom_core::record::GrantRecord;
use cloakroom_core::store::{Listing, PageRequest, StoreError, StoreStatus};
use cloakroom_core::time::UnixTime;
use mysql_async::Value;

use crate::connection::Connection;
use crate::error::Failure;
use crate::plans;
use crate::pool::Operation;
use crate::rows::{Stored, binary, column, get, grant, grant_columns, grant_id, time};
use crate::schema;

pub(crate) struct Status {
    pub(crate) before: UnixTime,
}

impl Operation for Status {
    type Answer = StoreStatus;

    const CONTEXT: &'static str = "reading the status of the database";

    async fn run(&self, connection: &mut Connection) -> Result<StoreStatus, Failure> {
        const SERVER: &str = "SELECT CAST(VERSION() AS CHAR), \
            CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED), \
            (SELECT CAST(version AS SIGNED) FROM ~schema_version WHERE id = 0), \
            (SELECT COUNT(*) FROM ~sweeps)";
        /// For each table the rows that have ended, up to a limit.
        const ENDED: [&str; 4] = [
            "SELECT COUNT(*), MIN(ends_at) FROM (SELECT ends_at FROM ~log WHERE ends_at < ? \
             AND position < (SELECT position FROM ~state WHERE id = 0) \
             ORDER BY ends_at LIMIT ?) ended",
            "SELECT COUNT(*), MIN(ends_at) FROM (SELECT ends_at FROM ~rules WHERE ends_at < ? \
             ORDER BY ends_at LIMIT ?) ended",
            "SELECT COUNT(*), MIN(expires_at) FROM (SELECT expires_at FROM ~tokens \
             WHERE expires_at < ? ORDER BY expires_at LIMIT ?) ended",
            "SELECT COUNT(*), MIN(row_expires_at) FROM (SELECT row_expires_at FROM ~grants g \
             WHERE row_expires_at < ? ORDER BY row_expires_at LIMIT ?) ended",
        ];
        let mut status = StoreStatus::default();
        let Some(mut row) = connection.row(SERVER, vec![]).await? else {
            return Err(StoreError::corrupt(Self::CONTEXT, "there is no row").into());
        };
        let instant = |millis| UnixTime::from_millis(time(millis));
        let version: String = get(&mut row, 0)?;
        let name = if version.contains("MariaDB") { "MariaDB" } else { "MySQL" };
        status.server = Some(format!("{name} {version}"));
        status.time = Some(instant(get(&mut row, 1)?));
        status.schema = get::<Option<i64>>(&mut row, 2)?.and_then(|found| found.try_into().ok());
        status.open_sweeps = Some(time(get(&mut row, 3)?));
        let (mut ended, mut oldest) = (0, None::<i64>);
        for sql in ENDED {
            let most = Value::UInt(StoreStatus::MAX_COUNTED);
            let parameters = vec![column(self.before.as_millis()), most];
            if let Some(mut row) = connection.row(sql, parameters).await? {
                ended += time(get(&mut row, 0)?);
                let first: Option<i64> = get(&mut row, 1)?;
                oldest = oldest.into_iter().chain(first).min();
            }
        }
        status.ended_rows = Some(ended.min(StoreStatus::MAX_COUNTED));
        status.oldest_ended = oldest.map(instant);
        status.problems = problems(connection).await?;
        status.plans = Some(plans::look(connection).await?);
        Ok(status)
    }
}

/// The indexes that are missing.
async fn problems(connection: &mut Connection) -> Result<Vec<String>, Failure> {
    const INDEXES: &str = "SELECT DISTINCT CONCAT(table_name, '.', index_name) \
        FROM information_schema.statistics WHERE table_schema = DATABASE()";
    let mut found = BTreeSet::new();
    for mut row in connection.rows(INDEXES, vec![]).await? {
        found.insert(get::<String>(&mut row, 0)?);
    }
    let prefix = connection.prefix();
    let known = schema::indexes().map(|(table, index)| format!("{prefix}{table}.{index}"));
    Ok(known
        .filter(|index| !found.contains(index))
        .map(|index| format!("the index `{index}` is missing: create it as the migration does"))
        .collect())
}

/// One page of all grants, by id.
pub(crate) struct Scan {
    pub(crate) page: PageRequest,
}

impl Operation for Scan {
    type Answer = Listing;

    const CONTEXT: &'static str = "reading all grants";

    async fn run(&self, connection: &mut Connection) -> Result<Listing, Failure> {
        const SQL: &str = concat!(
            "SELECT ",
            grant_columns!(),
            " FROM ~grants g WHERE g.id > ? ORDER BY g.id LIMIT ?"
        );
        let limit = self.page.limit.max(1);
        let after = self.page.after.as_ref().map_or(&[][..], |id| id.as_bytes());
        let rows = connection.rows(SQL, vec![binary(after), Value::UInt(limit.into())]).await?;
        let is_full = rows.len() >= limit as usize;
        let (mut grants, mut unreadable, mut last) = (Vec::new(), Vec::new(), None);
        for mut row in rows {
            let id = grant_id(&mut row.clone(), 0)?;
            last = Some(id);
            let read = grant(&mut row).and_then(|stored| match stored {
                Stored::Grant(row) => GrantRecord::from_row(&row).map(Some),
                Stored::Tombstone => Ok(None),
            });
            match read {
                Ok(Some(grant)) => grants.push(Arc::new(grant)),
                Ok(None) => {}
                Err(StoreError::Corrupt { .. }) => unreadable.push(id),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Listing { grants, unreadable, next: last.filter(|_| is_full) })
    }
}
