//! No secret, token or private key is in anything that the program writes.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloakroom::core::keys::KeyStore as _;
use cloakroom::{RefreshRequest, Subject};

use crate::support::*;

/// Every way in which bytes might be written.
fn spellings(bytes: &[u8]) -> [String; 4] {
    let hex = |upper: bool| {
        bytes.iter().map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }).collect()
    };
    [hex(false), hex(true), STANDARD.encode(bytes), URL_SAFE_NO_PAD.encode(bytes)]
}

#[tokio::test]
async fn nothing_secret_is_written() {
    let file = File::new();
    let store = file.open();
    let issuer = server(&store).await;
    let tokens = login(&issuer, "app", "alice", "laptop").await;
    let signed = jwt(&issuer, "alice").await;
    let refresh = tokens.refresh_token.unwrap();
    let client = "app".parse().unwrap();
    let next = issuer.refresh(RefreshRequest::new(refresh.clone(), client)).await.unwrap();
    let secrets = secrets_file(&file);
    let mut secret: BTreeSet<String> = BTreeSet::new();
    for bytes in [HANDLE_SECRET, SEALING_KEY] {
        secret.extend(spellings(&bytes));
    }
    for record in store.load().await.unwrap() {
        secret.extend(spellings(&record.sealed[..32]));
    }
    let all = [
        &tokens.access_token,
        &refresh,
        &next.access_token,
        next.refresh_token.as_ref().unwrap(),
        &signed.access_token,
    ];
    for token in all {
        // Of a JWT, the signature: its header and claims are what `inspect` shows.
        let text = token.expose();
        secret.insert(text.rsplit_once('.').map_or(text, |(_, signature)| signature).to_owned());
    }

    let grant = issuer.sessions(&Subject::user("alice").unwrap()).await.unwrap()[0].grant;
    let kid = issuer.keys().signer().await.unwrap().kid().clone();
    let list = path_text(&file.write("list", "subject nobody\n"));
    let wrong = file.write("wrong", &format!("CLOAKROOM_SEALING_KEY=x{}", hex(SEALING_KEY)));
    let wrong = path_text(&wrong);
    let mut written = Vec::new();
    for json in ["", " --json"] {
        for words in [
            "doctor".to_owned(),
            "sessions list --user alice".to_owned(),
            "sessions revoke --user alice --dry-run".to_owned(),
            format!("grants show {grant}"),
            "keys list".to_owned(),
            "keys rotate".to_owned(),
            "keys reseal".to_owned(),
            "maintain".to_owned(),
            "migrate --dry-run".to_owned(),
            "migrate".to_owned(),
            format!("restore --list {list}"),
            format!("maintain --secrets-file {secrets}"),
            format!("maintain --secrets-file {wrong}"),
            format!("keys compromise {kid}"),
            "help".to_owned(),
        ] {
            written.push(file.tool().run(&format!("{words}{json}")));
        }
        for token in all {
            written.push(
                file.tool().run_with(
                    &[&["tokens", "inspect"][..], &json.split_whitespace().collect::<Vec<_>>()]
                        .concat(),
                    token.expose(),
                ),
            );
        }
        // With wrong secrets, which the errors are about.
        for name in ["CLOAKROOM_HANDLE_SECRET", "CLOAKROOM_SEALING_KEY"] {
            for value in [hex(HANDLE_SECRET), format!("{}0", hex(SEALING_KEY)), "1:zz".to_owned()] {
                let tool = file.tool().with(name, &value);
                written.extend(["doctor", "maintain"].map(|words| tool.run(words)));
            }
        }
    }
    assert!(written.len() > 50);
    for ran in &written {
        let text = ran.written();
        let leaked = secret.iter().find(|secret| text.contains(secret.as_str()));
        assert_eq!(leaked, None, "{ran:#?}");
        assert!(!text.contains("PRIVATE KEY") && !text.contains("\"d\":"), "{ran:#?}");
    }
}

/// The password of a database stays out of the command line, and out of every message.
#[test]
fn a_password_in_a_url_is_not_repeated() {
    let file = File::new();
    for url in [
        "postgres://as:hushhush@127.0.0.1:1/auth?sslmode=disable",
        "mysql://as:hushhush@127.0.0.1:1/auth",
        "redis://:hushhush@127.0.0.1:1",
    ] {
        let ran = file.tool().run(&format!("doctor --store {url}")).expect(2);
        assert!(ran.stderr.contains("CLOAKROOM_STORE"), "{ran:#?}");
        assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("hushhush"));
        let tool = file.tool().with("CLOAKROOM_STORE", url);
        for words in ["doctor", "doctor --json", "maintain", "migrate", "migrate --dry-run"] {
            let ran = tool.run(words);
            let is_empty = url.starts_with("redis") && words == "migrate --dry-run";
            assert!(ran.status == 3 || is_empty || ran.status == 0, "{ran:#?}");
            assert!(!ran.written().contains("hushhush"), "{ran:#?}");
        }
    }
}
