//! `cloakroom keys`.

use cloakroom::core::Kid;
use serde_json::json;

use crate::args::Keys;
use crate::commands::Context;
use crate::failure::Failure;

pub(crate) async fn run(context: &Context, command: Keys) -> Result<(), Failure> {
    let issuer = context.issuer().await?;
    let output = context.output;
    match command {
        Keys::List => {}
        Keys::Rotate => {
            let event = issuer.rotate_keys().await?;
            output.result(&event, "the signing key was rotated")?;
        }
        Keys::Compromise { kid } => {
            let kid = Kid::new(&kid)?;
            issuer.compromise_key(&kid).await?;
            let text = format!(
                "the key {kid} is marked as compromised, and a revocation denies what it signed"
            );
            output.result(&json!({ "compromised": kid }), &text)?;
        }
    }
    Ok(())
}
