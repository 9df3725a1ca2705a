//! `cloakroom restore`.

use std::collections::HashSet;
use std::path::Path;

use cloakroom::core::Kid;
use cloakroom::operator::AuditedRevocation;
use serde_json::json;

use crate::args::Restore;
use crate::commands::Context;
use crate::failure::Failure;
use crate::output::progress;

pub(crate) async fn run(context: &Context, command: Restore) -> Result<(), Failure> {
    let revocations = match &command.list {
        Some(path) => read(path)?,
        None => Vec::new(),
    };
    let kids: Vec<Kid> = command.compromised.iter().map(Kid::new).collect::<Result<_, _>>()?;
    // Opening the store raises its newest bound above every bound that was allotted before the
    // backup was restored.
    let issuer = context.issuer().await?;
    let bar = progress(Some(revocations.len() as u64), "revoking again");
    let (mut revoked, mut failed) = (0_u64, Vec::new());
    for (line, revocation) in &revocations {
        match issuer.repeat_revocation(revocation).await {
            Ok(()) => revoked += 1,
            Err(error) => failed.push((*line, Failure::from(error))),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut compromised = Vec::new();
    for kid in kids {
        match issuer.compromise_key(&kid).await {
            Ok(()) => compromised.push(kid),
            Err(error) => failed.push((0, Failure::from(error))),
        }
    }
    let mut rotated = None;
    if command.rotate {
        match issuer.rotate_keys().await {
            Ok(event) => rotated = Some(event),
            // What was not revoked is reported, too.
            Err(error) => failed.push((0, Failure::from(error))),
        }
    }
    let texts = failed.iter().map(|(line, failure)| match line {
        0 => failure.text.clone(),
        line => format!("line {line}: {failure}"),
    });
    let texts: Vec<String> = texts.collect();
    let text = format!(
        "raised the newest bound; revoked again: {revoked}; keys marked as compromised: {}{}",
        compromised.len(),
        if rotated.is_some() { "; rotated the signing key" } else { "" }
    );
    let json = json!({
        "revoked": revoked,
        "compromised": compromised,
        "rotated": rotated,
        "failed": texts,
    });
    context.output.result(&json, &text)?;
    let Some((_, first)) = failed.into_iter().next() else { return Ok(()) };
    let text = format!("not done: {}\n{}", texts.len(), texts.join("\n"));
    Err(Failure { text, ..first })
}

/// The revocations of a list, each once, with the number of its line. The whole list is read before
/// anything is revoked.
fn read(path: &Path) -> Result<Vec<(usize, AuditedRevocation)>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("the list {} cannot be read: {error}", path.display()))
    })?;
    let (mut known, mut list) = (HashSet::new(), Vec::new());
    for (text, line) in text.lines().zip(1..) {
        let revocation = AuditedRevocation::parse(text).map_err(|error| {
            Failure::usage(format!(
                "the list {} has a line {line} that is no revocation: {error}",
                path.display()
            ))
        })?;
        if let Some(revocation) = revocation
            && known.insert(revocation.clone())
        {
            list.push((line, revocation));
        }
    }
    Ok(list)
}
