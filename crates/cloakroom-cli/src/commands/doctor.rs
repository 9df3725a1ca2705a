//! `cloakroom doctor`.

use std::process::ExitCode;

use cloakroom::core::store::TokenStore;
use cloakroom::core::time::{Clock as _, SystemClock};
use cloakroom::operator::{Check, Diagnosis, Finding, Outcome, scan_revoked_grants, scan_rows};
use serde_json::json;

use crate::commands::Context;
use crate::failure::{Failure, Status};
use crate::output::{plain, progress};

/// The checks that look at every grant.
async fn scan(tokens: &dyn TokenStore) -> [Finding; 2] {
    let now = SystemClock::new().now();
    let bar = progress(None, "reading grants");
    let rows = scan_rows(tokens, now, |rows| bar.set_position(rows)).await;
    bar.finish_and_clear();
    let bar = progress(None, "looking up revoked grants");
    let revoked = scan_revoked_grants(tokens, now, |rows| bar.set_position(rows)).await;
    bar.finish_and_clear();
    [
        rows.map_or_else(|error| Finding::failure(Check::Rows, &error), |scan| scan.finding()),
        revoked.map_or_else(
            |error| Finding::failure(Check::Revocations, &error),
            |scan| scan.finding(),
        ),
    ]
}

pub(crate) async fn run(context: &Context, skip_rows: bool) -> Result<ExitCode, Failure> {
    let diagnosis = match context.place()?.open().await {
        Ok(store) => {
            let mut diagnosis = context.builder(&store)?.diagnose().await;
            if skip_rows {
                let text = "left out by --skip-rows";
                let skipped = |check| Finding::new(check, Outcome::Skipped, text);
                diagnosis.findings.extend([Check::Rows, Check::Revocations].map(skipped));
            } else {
                diagnosis.findings.extend(scan(&*store.tokens).await);
            }
            diagnosis
        }
        Err(error) => {
            let mut diagnosis = Diagnosis::default();
            diagnosis.findings.push(error.finding()?);
            diagnosis
        }
    };
    let lines: Vec<String> = diagnosis
        .findings
        .iter()
        .map(|Finding { check, outcome, text, .. }| {
            let outcome = match outcome {
                Outcome::Passed => "ok",
                Outcome::Skipped => "skipped",
                Outcome::Warning => "warning",
                Outcome::Failed => "FAILED",
            };
            format!("{outcome:8} {check}: {}", plain(text))
        })
        .collect();
    let healthy = diagnosis.is_healthy();
    let json = json!({ "healthy": healthy, "findings": diagnosis.findings });
    context.output.result(&json, &lines.join("\n"))?;
    Ok(match (healthy, diagnosis.has_outage()) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::from(Status::Unavailable as u8),
        (false, false) => ExitCode::from(Status::Refused as u8),
    })
}
