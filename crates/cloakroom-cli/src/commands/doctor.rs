//! `cloakroom doctor`.

use std::process::ExitCode;

use cloakroom::operator::{Check, Diagnosis, Finding, Outcome, scan_rows};
use serde_json::json;

use crate::commands::Context;
use crate::failure::{Failure, Status};
use crate::output::{plain, progress};

pub(crate) async fn run(context: &Context, skip_rows: bool) -> Result<ExitCode, Failure> {
    let diagnosis = match context.place()?.open().await {
        Ok(store) => {
            let mut diagnosis = context.builder(&store)?.diagnose().await;
            if skip_rows {
                let text = "left out by --skip-rows";
                diagnosis.findings.push(Finding::new(Check::Rows, Outcome::Skipped, text));
            } else {
                let bar = progress(None, "reading grants");
                let scan = scan_rows(&*store.tokens, |rows| bar.set_position(rows)).await;
                bar.finish_and_clear();
                diagnosis.findings.push(match scan {
                    Ok(scan) => scan.finding(),
                    Err(error) => {
                        Finding::new(Check::Rows, Outcome::Failed, Failure::from(error).text)
                    }
                });
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
