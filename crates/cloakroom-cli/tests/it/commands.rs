//! Sessions, maintenance, migrations and what follows a restore.

use std::sync::Arc;

use cloakroom::core::keys::KeyStore as _;
use cloakroom::core::store::TenantStore;
use cloakroom::sqlite::SqliteStore;
use cloakroom::{Caller, Issuer, Subject};
use serde_json::Value;

use crate::support::*;

fn sessions(tool: &Tool, of: &str) -> Vec<Value> {
    let listed = tool.run(&format!("sessions list {of} --json")).expect(0).json();
    listed["sessions"].as_array().unwrap().clone()
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_user_client_grant_and_device() {
    let file = File::new();
    let issuer = server(&file.open()).await;
    let tool = file.tool();
    for user in ["alice", "bob"] {
        for (client, device) in [("app", "laptop"), ("app", "phone"), ("tv", "tv")] {
            login(&issuer, client, user, device).await;
        }
    }
    assert_eq!(sessions(&tool, "--user alice").len(), 3);
    assert_eq!(sessions(&tool, "--client app").len(), 4);
    let both = sessions(&tool, "--user bob --client tv");
    assert_eq!(both.len(), 1);
    assert_eq!((&both[0]["subject"], &both[0]["client"]), (&"u:bob".into(), &"tv".into()));
    assert_eq!(both[0]["device"]["name"], "tv");

    // In pages, each session once.
    let first = tool.run("sessions list --client app --limit 3 --json").expect(0).json();
    assert_eq!(first["sessions"].as_array().unwrap().len(), 3);
    let after = first["next"].as_str().unwrap();
    assert_eq!(sessions(&tool, &format!("--client app --after {after}")).len(), 1);

    // A dry run ends nothing.
    let ran = tool.run("sessions revoke --client app --dry-run").expect(0);
    assert!(ran.stdout.contains("4 sessions would end"), "{ran:#?}");
    assert_eq!(sessions(&tool, "--client app").len(), 4);

    tool.run("sessions revoke --user alice --device name=phone").expect(0);
    assert_eq!(sessions(&tool, "--user alice").len(), 2);
    tool.run("sessions revoke --user alice --device name=phone").expect(1);
    tool.run("sessions revoke --user bob --client app").expect(0);
    assert_eq!(sessions(&tool, "--user bob").len(), 1);
    let grant = both[0]["grant"].as_str().unwrap();
    tool.run(&format!("sessions revoke --grant {grant}")).expect(0);
    assert!(sessions(&tool, "--user bob").is_empty());
    assert_eq!(sessions(&tool, "--user alice").len(), 2);
    tool.run("sessions revoke --client tv").expect(0);
    tool.run("sessions revoke --user alice").expect(0);
    let ran = tool.run("sessions list --user alice").expect(0);
    assert_eq!(ran.stdout, "no sessions\n");
}

/// What the tool revokes, a running server refuses at once.
#[tokio::test]
async fn a_running_server_sees_what_the_tool_revokes() {
    let file = File::new();
    let issuer = server(&file.open()).await;
    let tokens = login(&issuer, "app", "alice", "laptop").await;
    let signed = jwt(&issuer, "alice").await;
    file.tool().run("sessions revoke --user alice").expect(0);
    for token in [&tokens.access_token, &signed.access_token] {
        assert!(!issuer.introspect(token, Caller::Internal).await.unwrap().is_active());
    }
}

#[tokio::test]
async fn a_mistake_on_the_command_line_is_told_from_a_refusal() {
    let file = File::new();
    server(&file.open()).await;
    let tool = file.tool();
    for words in ["sessions list", "nonsense", "sessions revoke --device a=b", "--store", "keys"] {
        tool.run(words).expect(2);
    }
    tool.run("sessions revoke --user alice --grant AAAAAAAAAAAAAAAAAAAAAA").expect(2);
    tool.clone().without("CLOAKROOM_STORE").run("doctor").expect(2).says("--store");
    tool.clone().without("CLOAKROOM_ISSUER").run("maintain").expect(2).says("--issuer");
    tool.clone().without("CLOAKROOM_SEALING_KEY").run("maintain").expect(2).says("--secrets-file");
    tool.clone().with("CLOAKROOM_STORE", "memory:").run("maintain").expect(2);
    tool.clone().with("CLOAKROOM_STORE", "ftp://as:hush@x").run("maintain").expect(2);
    let settings = path_text(&file.write("settings.toml", "[keys]\nrotaton = 1\n"));
    tool.run(&format!("maintain --settings {settings}")).expect(2).says("rotaton");
    // Settings that contradict each other are refused, and `doctor` names them.
    let settings = path_text(&file.write("settings.toml", "[keys]\npublish_ahead = 60\n"));
    tool.run(&format!("maintain --settings {settings}")).expect(1).says("publish_ahead");
    let ran = tool.run(&format!("doctor --settings {settings}")).expect(1);
    assert!(ran.stdout.contains("FAILED   settings: publish_ahead"), "{ran:#?}");
    let settings = path_text(&file.write("settings.toml", "[lifetimes]\ngrant = 2592000\n"));
    tool.run(&format!("doctor --settings {settings}")).expect(0);
}

/// A store that nobody has used is not taken over by a typing error.
#[tokio::test]
async fn a_store_without_an_issuer_is_refused() {
    let file = File::new();
    drop(file.open());
    file.tool().run("maintain").expect(1).says("no issuer has used this store yet");
    let store = file.open();
    assert!(store.load().await.unwrap().is_empty());
    server(&store).await;
    file.tool().run("maintain").expect(0);
    let other = file.tool().with("CLOAKROOM_ISSUER", "https://other.example");
    other.run("maintain").expect(1).says("belongs to the issuer `https://as.example`");
}

#[test]
fn tables_are_migrated_and_the_sql_is_shown_before() {
    let file = File::new();
    let tool = file.tool();
    let ran = tool.run("migrate --dry-run").expect(0);
    assert!(ran.stdout.contains("CREATE TABLE grants"), "{ran:#?}");
    assert!(!file.path().exists());
    let pending = tool.run("migrate --dry-run --json").expect(0).json();
    let count = pending["pending"].as_array().unwrap().len();
    let ran = tool.run("migrate --json").expect(0).json();
    assert_eq!((&ran["migrations"], &ran["version"]), (&count.into(), &count.into()));
    let ran = tool.run("migrate --dry-run").expect(0);
    assert_eq!(ran.stdout, "-- The tables are up to date.\n");
    tool.run("migrate").expect(0);
    // What was printed makes the same tables.
    let printed = File::new();
    for migration in pending["pending"].as_array().unwrap() {
        printed.damage(migration["sql"].as_str().unwrap());
    }
    let schema = |file: &File| {
        let connection = rusqlite::Connection::open(file.path()).unwrap();
        let mut statement =
            connection.prepare("SELECT sql FROM sqlite_schema ORDER BY name").unwrap();
        let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>()
    };
    assert_eq!(schema(&printed), schema(&file));
}

/// After a backup is restored, the list of the audit trail ends what the backup has forgotten.
#[tokio::test]
async fn what_a_restored_store_forgot_is_revoked_again() {
    let file = File::new();
    let issuer = server(&file.open()).await;
    let alice = login(&issuer, "app", "alice", "laptop").await;
    let bob = login(&issuer, "app", "bob", "phone").await;
    let carol = login(&issuer, "tv", "carol", "tv").await;
    let carols = issuer.sessions(&Subject::user("carol").unwrap()).await.unwrap()[0].grant;
    let signed = jwt(&issuer, "dave").await;
    let kid = issuer.keys().signer().await.unwrap().kid().clone();
    file.damage(&format!("VACUUM INTO '{}'", file.folder.path().join("copy.db").display()));

    let copy = file.tool().with(
        "CLOAKROOM_STORE",
        &format!("sqlite:{}", file.folder.path().join("copy.db").display()),
    );
    let list = path_text(&file.write(
        "list",
        &format!(
            "# of last night\nsubject alice\n\
             {{\"event\":\"reuse_detected\",\"grant\":\"{carols}\"}}\n\
             {{\"event\":\"issued\",\"grant\":\"x\"}}\nsubject u:alice\n"
        ),
    ));
    let ran = copy.run(&format!("restore --list {list} --compromise {kid} --json")).expect(0);
    let done = ran.json();
    assert_eq!((&done["revoked"], &done["compromised"][0]), (&2.into(), &kid.as_str().into()));

    let store = Arc::new(SqliteStore::open(file.folder.path().join("copy.db")).unwrap());
    let restored = server(&store).await;
    for (tokens, lives) in [(&alice, false), (&bob, true), (&carol, false), (&signed, false)] {
        let answer = restored.introspect(&tokens.access_token, Caller::Internal).await.unwrap();
        assert_eq!(answer.is_active(), lives);
    }
    // A list with a mistake in it revokes nothing, and names the line.
    let list = path_text(&file.write("list", "subject bob\nsubjct bob\n"));
    copy.run(&format!("restore --list {list}")).expect(2).says("line 2");
    assert!(restored.introspect(&bob.access_token, Caller::Internal).await.unwrap().is_active());
}

/// Each tenant has its own sessions and keys.
#[tokio::test]
async fn a_tenant_is_named() {
    let file = File::new();
    let store = file.open();
    let part = |name: &str| Arc::new(TenantStore::new(Arc::clone(&store), name).unwrap());
    let acme: Issuer = server(&part("acme")).await;
    login(&acme, "app", "alice", "laptop").await;
    let other = builder(&part("globex")).url("https://globex.example").build().await.unwrap();
    login(&other, "app", "alice", "laptop").await;
    let tool = file.tool();
    assert_eq!(sessions(&tool, "--tenant acme --user alice").len(), 1);
    tool.run("sessions revoke --tenant acme --user alice").expect(0);
    assert_eq!(other.sessions(&Subject::user("alice").unwrap()).await.unwrap().len(), 1);
    tool.run("doctor --tenant acme").expect(0);
    let ran = tool.run("doctor").expect(1);
    assert!(ran.stdout.contains("holds tenants, such as `acme`"), "{ran:#?}");
    tool.run("maintain --tenant globex").expect(1).says("https://globex.example");
    tool.run("maintain --tenant nobody").expect(1);
}

#[test]
fn completions_and_the_manual_page_are_generated() {
    let tool = Tool::new("sqlite:x");
    for shell in ["bash", "zsh", "fish"] {
        let ran = tool.run(&format!("completions {shell}")).expect(0);
        assert!(ran.stdout.contains("doctor"), "{ran:#?}");
    }
    let ran = tool.run("man").expect(0);
    assert!(ran.stdout.contains(".TH cloakroom") && ran.stdout.contains("CLOAKROOM_SEALING_KEY"));
    tool.run("--help").expect(0);
    tool.run("--version").expect(0);
}
