//! `cloakroom grants`.

use cloakroom::GrantId;
use cloakroom::core::TokenKind;
use cloakroom::operator::{GrantInspection, InspectedGrant};

use crate::args::Grants;
use crate::commands::Context;
use crate::failure::Failure;
use crate::output::plain;

pub(crate) async fn run(context: &Context, command: Grants) -> Result<(), Failure> {
    let Grants::Show { grant } = command;
    let grant: GrantId = grant.parse()?;
    let found = context.issuer().await?.inspect_grant(grant).await?;
    let text = match &found {
        InspectedGrant::Grant(grant) => described(grant),
        InspectedGrant::RevokedBeforeCreation => {
            "the id was revoked before a grant was created under it".to_owned()
        }
        InspectedGrant::Unknown => {
            "the store holds no such grant, which may have ended and been deleted".to_owned()
        }
    };
    context.output.result(&found, &text)?;
    match found {
        InspectedGrant::Grant(_) => Ok(()),
        _ => Err(Failure::refused("there is no such grant")),
    }
}

fn described(grant: &GrantInspection) -> String {
    let time =
        |time: Option<cloakroom::UnixTime>| time.map_or("never".to_owned(), |at| at.to_string());
    let audience: Vec<&str> = grant.audience.iter().collect();
    let device: Vec<String> =
        grant.device.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut lines = vec![
        ("grant", grant.id.to_string()),
        ("state", format!("{:?}", grant.state).to_lowercase()),
        ("client", plain(grant.client.as_str())),
        ("subject", plain(&grant.subject.to_key())),
        ("username", plain(grant.username.as_deref().unwrap_or("-"))),
        ("scope", grant.scope.to_string()),
        ("audience", plain(&audience.join(" "))),
        ("device", plain(&device.join(", "))),
        ("created", grant.created_at.to_string()),
        ("refreshed", time(grant.refreshed_at)),
        ("ends", grant.expires_at.to_string()),
        ("revoked", time(grant.revoked_at)),
        ("epoch", grant.epoch.get().to_string()),
    ];
    if let Some(chain) = &grant.chain {
        lines.push((
            "next",
            format!(
                "{} of generation {}, until {}",
                // A chain has no other credentials.
                if chain.credential == TokenKind::Code { "code" } else { "refresh token" },
                chain.generation,
                chain.expires_at
            ),
        ));
        lines.push(("rotates", if chain.rotates { "yes" } else { "no" }.to_owned()));
    }
    let lines: Vec<String> =
        lines.into_iter().map(|(name, value)| format!("{name:10}{value}")).collect();
    lines.join("\n")
}
