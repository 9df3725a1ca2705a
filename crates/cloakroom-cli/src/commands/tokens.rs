//! `cloakroom tokens`.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use cloakroom::TokenSecret;
use cloakroom::operator::{PresentedToken, TokenInspection};
use zeroize::Zeroizing;

use crate::args::Tokens;
use crate::commands::Context;
use crate::failure::Failure;
use crate::output::plain;

/// Longer than any token.
const MAX_BYTES: u64 = 64 * 1024;

pub(crate) async fn run(context: &Context, command: Tokens) -> Result<(), Failure> {
    let Tokens::Inspect { file, token } = command;
    if !token.is_empty() {
        return Err(Failure::usage(
            "a token is not read from the command line, which other users can see: pipe it in, or \
             name a --file. Revoke the token that you have just passed",
        ));
    }
    let token = read(file.as_deref())?;
    let found = context.issuer().await?.inspect_token(&token).await?;
    context.output.result(&found, &described(&found))
}

/// The token, without the white space around it.
fn read(file: Option<&Path>) -> Result<TokenSecret, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES as usize));
    let result = match file {
        Some(path) => std::fs::File::open(path)
            .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text)),
        None => {
            if std::io::stdin().is_terminal() {
                eprintln!("Paste the token, and end the input with Ctrl-D:");
            }
            std::io::stdin().take(MAX_BYTES).read_to_string(&mut text)
        }
    };
    result.map_err(|error| Failure::usage(format!("the token cannot be read: {error}")))?;
    match text.trim() {
        "" => Err(Failure::usage("the input is empty")),
        token => Ok(TokenSecret::new(token)),
    }
}

fn described(found: &TokenInspection) -> String {
    let mut lines = vec![match &found.token {
        PresentedToken::AccessHandle => "an opaque access token".to_owned(),
        PresentedToken::RefreshToken { generation } => {
            format!("a refresh token of generation {generation}")
        }
        PresentedToken::AuthorizationCode => "an authorization code".to_owned(),
        PresentedToken::Jwt { header, claims } => {
            format!(
                "a JWT\nheader    {}\nclaims    {}",
                plain(&header.to_string()),
                plain(&claims.to_string())
            )
        }
        PresentedToken::Custom => "a token of a format that the server added".to_owned(),
        _ => "something that is not a token of this issuer".to_owned(),
    }];
    if let Some(grant) = found.grant {
        lines.push(format!("grant     {grant}"));
    }
    lines.push(match &found.reason {
        None => "active    yes".to_owned(),
        Some(reason) => format!("active    no: {}", plain(&reason.to_string())),
    });
    if let Some(answer) = found.introspection.as_ref().filter(|answer| answer.is_active())
        && let Ok(json) = serde_json::to_string(answer)
    {
        lines.push(format!("answer    {}", plain(&json)));
    }
    lines.join("\n")
}
