//! `cloakroom sessions`.

use cloakroom::core::store::{PageRequest, Selector};
use cloakroom::{ClientId, GrantId, Issuer, Session, Subject};
use serde_json::json;

use crate::args::Sessions;
use crate::commands::Context;
use crate::failure::Failure;
use crate::output::{plain, progress, table};

/// The sessions of one request to the store.
const PAGE: u32 = 500;

pub(crate) async fn run(context: &Context, command: Sessions) -> Result<(), Failure> {
    match command {
        Sessions::List { of, limit, after } => {
            let of = selector(of.user.as_deref(), of.client.as_deref())?;
            let after = after.map(|after| after.parse::<GrantId>()).transpose()?;
            let issuer = context.issuer().await?;
            list(context, &issuer, of, limit, after).await
        }
        Sessions::Revoke { of, device, dry_run } => {
            let issuer = context.issuer().await?;
            if let Some(grant) = of.grant {
                return revoke_grant(context, &issuer, grant.parse()?, dry_run).await;
            }
            let selected = selector(of.user.as_deref(), of.client.as_deref())?;
            match device {
                Some(device) => revoke_device(context, &issuer, selected, &device, dry_run).await,
                None => revoke_all(context, &issuer, selected, dry_run).await,
            }
        }
    }
}

fn selector(user: Option<&str>, client: Option<&str>) -> Result<Selector, Failure> {
    Ok(match (user, client) {
        (Some(user), None) => Selector::Subject(Subject::user(user)?),
        (None, Some(client)) => Selector::Client(ClientId::new(client)?),
        (Some(user), Some(client)) => {
            Selector::SubjectAtClient(Subject::user(user)?, ClientId::new(client)?)
        }
        (None, None) => return Err(Failure::usage("name a --user, a --client or a --grant")),
    })
}

/// Live sessions, up to a limit, with what the list leaves out.
struct Listed {
    sessions: Vec<Session>,
    unreadable: Vec<GrantId>,
    next: Option<GrantId>,
}

async fn listed(
    issuer: &Issuer,
    of: &Selector,
    limit: usize,
    after: Option<GrantId>,
) -> Result<Listed, Failure> {
    let bar = progress(None, "reading sessions");
    let mut found = Listed { sessions: Vec::new(), unreadable: Vec::new(), next: after };
    loop {
        let left = limit.saturating_sub(found.sessions.len());
        let page = PageRequest {
            after: found.next,
            limit: u32::try_from(left).unwrap_or(PAGE).clamp(1, PAGE),
        };
        let listed = issuer.list_sessions(of.clone(), page).await?;
        found.sessions.extend(listed.sessions);
        found.unreadable.extend(listed.unreadable);
        found.next = listed.next;
        bar.set_position(found.sessions.len() as u64);
        if found.next.is_none() || found.sessions.len() >= limit {
            bar.finish_and_clear();
            return Ok(found);
        }
    }
}

async fn list(
    context: &Context,
    issuer: &Issuer,
    of: Selector,
    limit: usize,
    after: Option<GrantId>,
) -> Result<(), Failure> {
    let Listed { sessions, unreadable, next } = listed(issuer, &of, limit.max(1), after).await?;
    let rows: Vec<[String; 6]> = sessions
        .iter()
        .map(|session| {
            let device: Vec<String> =
                session.device.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let used = session.refreshed_at.unwrap_or(session.created_at);
            [
                session.grant.to_string(),
                plain(session.subject.id()),
                plain(session.client.as_str()),
                used.to_string(),
                session.expires_at.to_string(),
                plain(&device.join(", ")),
            ]
        })
        .collect();
    let mut text = table(["GRANT", "SUBJECT", "CLIENT", "LAST USED", "ENDS", "DEVICE"], &rows);
    for grant in &unreadable {
        text.push_str(&format!("\n{grant}  (its row cannot be read: revoke it by this id)"));
    }
    if let Some(next) = next {
        text.push_str(&format!("\nThere may be more: --after {next}"));
    }
    if rows.is_empty() && unreadable.is_empty() {
        "no sessions".clone_into(&mut text);
    }
    let json = json!({ "sessions": sessions, "unreadable": unreadable, "next": next });
    context.output.result(&json, &text)
}

async fn revoke_grant(
    context: &Context,
    issuer: &Issuer,
    grant: GrantId,
    dry_run: bool,
) -> Result<(), Failure> {
    if !dry_run {
        issuer.revoke_grant(grant).await?;
    }
    let done = if dry_run { "would be revoked" } else { "is revoked" };
    let json = json!({ "revoked": [grant], "dry_run": dry_run });
    context.output.result(&json, &format!("the grant {grant} {done}"))
}

async fn revoke_all(
    context: &Context,
    issuer: &Issuer,
    of: Selector,
    dry_run: bool,
) -> Result<(), Failure> {
    let live = listed(issuer, &of, usize::MAX, None).await?;
    let count = live.sessions.len() + live.unreadable.len();
    if !dry_run {
        match &of {
            Selector::Subject(subject) => issuer.revoke_subject(subject).await?,
            Selector::Client(client) => issuer.revoke_client(client).await?,
            Selector::SubjectAtClient(subject, client) => {
                issuer.revoke_subject_at_client(subject, client).await?;
            }
        }
    }
    let done = if dry_run { "would end" } else { "have ended" };
    let json = json!({ "sessions": count, "dry_run": dry_run });
    context.output.result(&json, &format!("{count} sessions {done}"))
}

async fn revoke_device(
    context: &Context,
    issuer: &Issuer,
    of: Selector,
    device: &str,
    dry_run: bool,
) -> Result<(), Failure> {
    let (name, value) = device
        .split_once('=')
        .ok_or_else(|| Failure::usage("a --device is NAME=VALUE, such as name=Firefox"))?;
    let live = listed(issuer, &of, usize::MAX, None).await?;
    let on_it = live.sessions.iter().filter(|session| session.device.get(name) == Some(value));
    let grants: Vec<GrantId> = on_it.map(|session| session.grant).collect();
    if grants.is_empty() {
        return Err(Failure::refused("no session of the user has such a device"));
    }
    let bar = progress(Some(grants.len() as u64), "ending sessions");
    for grant in grants.iter().filter(|_| !dry_run) {
        issuer.revoke_grant(*grant).await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let done = if dry_run { "would end" } else { "have ended" };
    let json = json!({ "revoked": grants, "dry_run": dry_run });
    context.output.result(&json, &format!("{} sessions {done}", grants.len()))
}
