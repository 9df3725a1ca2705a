//! `cloakroom maintain`.

use serde_json::json;

use crate::commands::Context;
use crate::failure::Failure;
use crate::output::progress;

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let issuer = context.issuer().await?;
    let bar = progress(None, "deleting what has ended");
    let (mut grants, mut tokens, mut revocations, mut unreadable) = (0, 0, 0, 0);
    loop {
        let done = issuer.maintain().await?;
        grants += done.grants;
        tokens += done.tokens;
        revocations += done.revocations;
        unreadable += done.unreadable;
        bar.set_position(grants + tokens + revocations);
        if !done.more {
            break;
        }
    }
    bar.finish_and_clear();
    let text = format!(
        "deleted {grants} grants, {tokens} tokens of other grants, and {revocations} revocations \
         and heartbeats that have ended; {unreadable} rows cannot be read"
    );
    let json = json!({
        "grants": grants,
        "tokens": tokens,
        "revocations": revocations,
        "unreadable": unreadable,
    });
    context.output.result(&json, &text)
}
