//! `tokens inspect` and `grants show`.

use cloakroom::core::store::{Housekeeping, TokenStore as _};
use cloakroom::{Caller, RefreshRequest, Subject, TokenSecret};
use serde_json::Value;

use crate::support::*;

fn inspect(tool: &Tool, token: &str) -> Value {
    tool.run_with(&["tokens", "inspect", "--json"], token).expect(0).json()
}

#[tokio::test]
async fn each_kind_of_token_is_recognized() {
    let file = File::new();
    let issuer = server(&file.open()).await;
    let tool = file.tool();
    let opaque = login(&issuer, "app", "alice", "laptop").await;
    let found = inspect(&tool, opaque.access_token.expose());
    assert_eq!(
        (&found["token"]["kind"], &found["active"]),
        (&"access_handle".into(), &true.into())
    );
    assert_eq!(found["introspection"]["sub"], "alice");

    let refresh = opaque.refresh_token.unwrap();
    let found = inspect(&tool, &format!("  {}\n", refresh.expose()));
    assert_eq!(found["token"], serde_json::json!({ "kind": "refresh_token", "generation": 0 }));
    assert_eq!(found["active"], true);

    let jwt = jwt(&issuer, "alice").await;
    let found = inspect(&tool, jwt.access_token.expose());
    assert_eq!(found["token"]["kind"], "jwt");
    assert_eq!(found["token"]["header"]["typ"], "at+jwt");
    assert_eq!(found["token"]["claims"]["sub"], "alice");
    assert_eq!(found["active"], true);

    // A file instead of the input, and text instead of JSON.
    let path = path_text(&file.write("token", jwt.access_token.expose()));
    let ran = tool.run(&format!("tokens inspect --file {path}")).expect(0);
    assert!(ran.stdout.starts_with("a JWT\n") && ran.stdout.contains("active    yes"), "{ran:#?}");
}

/// Why a token is inactive, for every reason that can be brought about here.
#[tokio::test]
async fn the_reason_is_named() {
    let file = File::new();
    let store = file.open();
    let issuer = server(&store).await;
    let tool = file.tool();
    let reason = |token: &TokenSecret| {
        let found = inspect(&tool, token.expose());
        assert_eq!(found["active"], false, "{found}");
        found["reason"]["reason"].as_str().unwrap().to_owned()
    };
    let client = "app".parse().unwrap();
    // One token is revoked, and its grant lives on.
    let one = login(&issuer, "app", "alice", "laptop").await;
    issuer.revoke(&one.access_token, &client).await.unwrap();
    assert_eq!(reason(&one.access_token), "token_revoked");
    let signed = jwt(&issuer, "alice").await;
    issuer.revoke(&signed.access_token, &client).await.unwrap();
    assert_eq!(reason(&signed.access_token), "token_revoked");

    // A refresh token that was spent, within the retry window.
    let refresh = one.refresh_token.unwrap();
    let next = issuer.refresh(RefreshRequest::new(refresh.clone(), client)).await.unwrap();
    assert_eq!(reason(&refresh), "spent_recently");
    let next_refresh = next.refresh_token.unwrap();
    assert_eq!(inspect(&tool, next_refresh.expose())["active"], true);
    // Inspecting a spent token does not end its session.
    assert!(issuer.introspect(&next.access_token, Caller::Internal).await.unwrap().is_active());

    // Log out everywhere.
    let subject = Subject::user("alice").unwrap();
    issuer.revoke_subject(&subject).await.unwrap();
    for token in [&next.access_token, &next_refresh, &refresh] {
        assert_eq!(reason(token), "grant_revoked");
    }
    // Forged, cut off, and of another secret.
    let genuine = login(&issuer, "app", "bob", "phone").await;
    let text = genuine.access_token.expose();
    let forged = format!("{}{}", &text[..text.len() - 2], "AA");
    for bad in [forged.as_str(), &text[..40], "nonsense", "a.b.c"] {
        assert_eq!(reason(&TokenSecret::new(bad)), "not_recognized", "{bad}");
    }
    let other = hex([9; 32]);
    let newer = tool
        .clone()
        .with("CLOAKROOM_HANDLE_SECRET", &format!("2:{other}"))
        .with("CLOAKROOM_FORMER_HANDLE_SECRETS", &format!("1:{}", hex(HANDLE_SECRET)));
    newer.run("maintain").expect(0);
    tool.run_with(&["tokens", "inspect"], text)
        .expect(1)
        .says("other nodes have the handle secret 2");

    // The key of a JWT is compromised.
    let signed = jwt(&issuer, "bob").await;
    let header = inspect(&newer, signed.access_token.expose())["token"]["header"].clone();
    let kid = header["kid"].as_str().unwrap();
    newer.run(&format!("keys compromise {kid}")).expect(0);
    let found = inspect(&newer, signed.access_token.expose());
    assert_eq!(found["reason"]["reason"], "key_revoked", "{found}");

    // The row of the grant is gone.
    let task = Housekeeping {
        now: now() + 10_000 * HOUR,
        before: now() + 9_000 * HOUR,
        limit: 10_000,
        sweep: None,
    };
    let _ = store.maintain(task).await.unwrap();
    let found = inspect(&newer, genuine.access_token.expose());
    assert_eq!(found["reason"]["reason"], "grant_unknown", "{found}");
}

/// Other users of the machine can read it.
#[tokio::test]
async fn a_token_on_the_command_line_is_refused_and_not_repeated() {
    let file = File::new();
    let issuer = server(&file.open()).await;
    let tokens = login(&issuer, "app", "alice", "laptop").await;
    let token = tokens.access_token.expose();
    let ran = file.tool().run_with(&["tokens", "inspect", token], "").expect(2);
    assert!(ran.stderr.contains("not read from the command line"), "{ran:#?}");
    assert!(!ran.stdout.contains(token) && !ran.stderr.contains(token));
    file.tool().run_with(&["tokens", "inspect"], "\n").expect(2).says("empty");
}

#[tokio::test]
async fn a_grant_is_shown() {
    let file = File::new();
    let issuer = server(&file.open()).await;
    login(&issuer, "app", "alice", "Firefox\u{1b}[2J").await;
    let subject = Subject::user("alice").unwrap();
    let grant = issuer.sessions(&subject).await.unwrap()[0].grant;
    let tool = file.tool();
    let show = format!("grants show {grant}");
    let found = tool.run(&format!("{show} --json")).expect(0).json();
    assert_eq!(found["found"], "grant");
    let found = &found["grant"];
    assert_eq!((&found["state"], &found["subject"]), (&"live".into(), &"u:alice".into()));
    assert_eq!(found["chain"]["credential"], "refresh");
    let ran = tool.run(&show).expect(0);
    assert!(ran.stdout.contains("state     live") && !ran.stdout.contains('\u{1b}'), "{ran:#?}");

    issuer.revoke_subject(&subject).await.unwrap();
    let found = tool.run(&format!("{show} --json")).expect(0).json();
    assert_eq!(found["grant"]["state"], "revoked");
    let absent = "AAAAAAAAAAAAAAAAAAAAAA";
    tool.run(&format!("grants show {absent}")).expect(1).says("no such grant");
    tool.run("grants show nonsense").expect(2);
}
