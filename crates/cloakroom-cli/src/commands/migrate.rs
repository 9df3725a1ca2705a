//! `cloakroom migrate`.

use serde_json::json;

use crate::commands::Context;
use crate::failure::Failure;

pub(crate) async fn run(context: &Context, dry_run: bool) -> Result<(), Failure> {
    let place = context.place()?;
    let output = context.output;
    let Some(pending) = place.pending().await? else {
        return output.result(&json!({ "pending": [] }), "this store has no tables to migrate");
    };
    if dry_run {
        let texts: Vec<String> = pending
            .iter()
            .map(|migration| format!("-- To version {}:\n{}", migration.version, migration.sql))
            .collect();
        let text = match texts.is_empty() {
            true => "-- The tables are up to date.".to_owned(),
            false => texts.join("\n"),
        };
        let pending: Vec<_> = pending
            .iter()
            .map(|migration| json!({ "version": migration.version, "sql": migration.sql }))
            .collect();
        return output.result(&json!({ "pending": pending }), &text);
    }
    let version = place.migrate().await?;
    let ran = pending.len();
    let text = match ran {
        0 => format!("the tables are up to date: version {version}"),
        _ => format!("migrated the tables to version {version}"),
    };
    output.result(&json!({ "version": version, "migrations": ran }), &text)
}
