//! `doctor` on a healthy store, and on stores that were damaged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::core::keys::KeyStore as _;
use cloakroom::core::record::GrantRecord;
use cloakroom::core::store::TokenStore as _;
use cloakroom::core::time::{Clock as _, ManualClock};
use cloakroom::core::{Audience, Random};
use cloakroom::sqlite::SqliteStore;
use cloakroom::{ClientId, GrantId, Subject};
use serde_json::Value;

use crate::support::*;

/// The checks that failed, with what they say.
fn failed(ran: &Ran) -> BTreeMap<String, String> {
    all_failed(ran).into_iter().collect()
}

/// All findings that failed, also several of one check.
fn all_failed(ran: &Ran) -> Vec<(String, String)> {
    let report = ran.json();
    let findings = report["findings"].as_array().unwrap();
    let failed = findings.iter().filter(|finding| finding["outcome"] == "failed");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    failed.map(|finding| (text(&finding["check"]), text(&finding["text"]))).collect()
}

/// Exactly this check fails, and names this.
#[track_caller]
fn names(tool: &Tool, check: &str, text: &str) {
    let ran = tool.run("doctor --json").expect(1);
    let failed = failed(&ran);
    let found = failed.get(check).unwrap_or_else(|| panic!("{check} passed: {ran:#?}"));
    assert!(found.contains(text), "{found}");
    assert_eq!(failed.len(), 1, "{ran:#?}");
    // In words for a person, too.
    let ran = tool.run("doctor").expect(1);
    assert!(ran.stdout.contains("FAILED") && ran.stdout.contains(text), "{ran:#?}");
}

async fn filled() -> File {
    let file = File::new();
    let issuer = server(&file.open()).await;
    for user in ["alice", "bob"] {
        login(&issuer, "app", user, "laptop").await;
        jwt(&issuer, user).await;
    }
    file
}

#[tokio::test]
async fn a_healthy_store_passes_every_check() {
    let file = filled().await;
    let ran = file.tool().run("doctor --json").expect(0);
    let report = ran.json();
    assert_eq!(report["healthy"], true);
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["outcome"] == "passed"), "{ran:#?}");
    assert_eq!(findings.len(), 13, "{ran:#?}");
    // Two logins and two JWTs.
    let rows = findings.iter().find(|finding| finding["check"] == "rows").unwrap();
    assert_eq!(rows["text"], "every grant can be read: 4");
    let ran = file.tool().run("doctor --skip-rows").expect(0);
    for check in ["rows", "revocations"] {
        assert!(ran.stdout.contains(&format!("skipped  {check}")), "{ran:#?}");
    }
}

/// Without secrets, it checks what it can.
#[tokio::test]
async fn without_secrets_the_rest_is_checked() {
    let file = filled().await;
    let tool = file.tool().without("CLOAKROOM_HANDLE_SECRET").without("CLOAKROOM_SEALING_KEY");
    let ran = tool.run("doctor").expect(0);
    for check in ["handle secrets", "sealing keys"] {
        assert!(ran.stdout.contains(&format!("skipped  {check}")), "{ran:#?}");
    }
}

#[tokio::test]
async fn a_bad_grant_row_is_named_by_its_id() {
    let file = File::new();
    let issuer = server(&file.open()).await;
    login(&issuer, "app", "alice", "laptop").await;
    let subject = Subject::user("alice").unwrap();
    let grant = issuer.sessions(&subject).await.unwrap()[0].grant;
    file.damage("UPDATE grants SET body = x'00'");
    let text = format!("1 of 1 grants cannot be read: revoke each by its id ({grant})");
    names(&file.tool(), "rows", &text);
    // The remedy that it names works.
    file.tool().run(&format!("sessions revoke --grant {grant}")).expect(0);
}

/// Somebody has restored the row of a grant, and the log still revokes it.
#[tokio::test]
async fn a_revoked_grant_that_is_live_again_is_named_by_its_id() {
    let file = File::new();
    let store = file.open();
    let clock = Arc::new(ManualClock::at(now() - HOUR));
    let issuer = builder(&store).clock(clock.clone()).build().await.unwrap();
    login(&issuer, "app", "alice", "laptop").await;
    login(&issuer, "app", "alice", "phone").await;
    let sessions = issuer.sessions(&Subject::user("alice").unwrap()).await.unwrap();
    file.damage("CREATE TABLE kept AS SELECT * FROM grants");
    for _ in 0..2 {
        issuer.revoke_grant(sessions[0].grant).await.unwrap();
    }
    store.heartbeat(now(), now() + HOUR).await.unwrap();
    let ran = file.tool().run("doctor").expect(0);
    assert!(ran.stdout.contains("no grant is live that the log revokes since"), "{ran:#?}");

    file.damage("REPLACE INTO grants SELECT * FROM kept");
    let text = format!("revoke each by its id ({})", sessions[0].grant);
    names(&file.tool(), "revocations", &text);
    // The remedy that it names works.
    file.tool().run(&format!("sessions revoke --grant {}", sessions[0].grant)).expect(0);
    file.tool().run("doctor").expect(0);

    // One of the last minutes may be under way.
    clock.set(now() - Duration::from_secs(300));
    issuer.revoke_grant(sessions[1].grant).await.unwrap();
    file.damage("REPLACE INTO grants SELECT * FROM kept");
    names(&file.tool(), "revocations", "grants that the log revokes are live: 1.");
}

/// The same with a log-out: the log has no entry of the grant, and the rule of the user outlives the log.
#[tokio::test]
async fn a_grant_that_is_live_again_after_a_log_out_is_named_by_its_id() {
    let file = File::new();
    let clock = Arc::new(ManualClock::at(now() - HOUR));
    let store = SqliteStore::builder(file.path()).clock(clock.clone()).open().unwrap();
    let store = Arc::new(store);
    let issuer = builder(&store).clock(clock.clone()).build().await.unwrap();
    for (client, user) in [("app", "alice"), ("app", "bob"), ("app", "carol")] {
        login(&issuer, client, user, "laptop").await;
    }
    let [alice, carol] = ["alice", "carol"].map(|user| Subject::user(user).unwrap());
    let grant = issuer.sessions(&alice).await.unwrap()[0].grant;
    file.damage("CREATE TABLE kept AS SELECT * FROM grants");
    issuer.revoke_subject(&alice).await.unwrap();
    issuer.maintain().await.unwrap();
    store.heartbeat(now(), now() + HOUR).await.unwrap();
    file.tool().run("doctor").expect(0);

    // One of the last minutes may have a sweep under way.
    clock.set(now() - Duration::from_secs(300));
    issuer.revoke_subject(&carol).await.unwrap();
    file.damage("REPLACE INTO grants SELECT * FROM kept");
    names(&file.tool(), "rows", "1 of 3 grants are live although they were logged out");
    names(&file.tool(), "rows", &format!("revoke each by its id ({grant})"));
    // The remedy that it names works.
    file.tool().run(&format!("sessions revoke --grant {grant}")).expect(0);
    file.tool().run("doctor").expect(0);
}

#[tokio::test]
async fn a_bad_key_record_is_named() {
    let file = filled().await;
    file.damage("UPDATE signing_keys SET body = x'7b7d' WHERE generation = 2");
    names(&file.tool(), "signing_keys", "cannot be read");
    // A record whose sealed half was swapped with another's.
    let file = filled().await;
    let store = file.open();
    let mut records = store.load().await.unwrap();
    records[1].sealed = records[0].sealed.clone();
    let expected = records[1].version;
    records[1].version += 1;
    let _ = store.update(records.swap_remove(1), expected).await.unwrap();
    let ran = file.tool().run("doctor --json").expect(1);
    assert!(failed(&ran).contains_key("sealing_keys"), "{ran:#?}");
}

#[tokio::test]
async fn a_wrong_secret_is_named() {
    let file = filled().await;
    let other = hex([9; 32]);
    let wrong = file.tool().with("CLOAKROOM_HANDLE_SECRET", &other);
    names(&wrong, "handle_secrets", "the handle secret 1 is not the one");
    let missing = file.tool().with("CLOAKROOM_HANDLE_SECRET", &format!("2:{other}"));
    names(&missing, "handle_secrets", "other nodes have the handle secret 1");
    let wrong = file.tool().with("CLOAKROOM_SEALING_KEY", &other);
    let ran = wrong.run("doctor --json").expect(1);
    let found = failed(&ran);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["sealing_keys"], "{ran:#?}");
    let wrong = file.tool().with("CLOAKROOM_ISSUER", "https://other.example");
    let ran = wrong.run("doctor --json").expect(1);
    assert!(failed(&ran)["issuer"].contains("belongs to the issuer `https://as.example`"));
}

#[tokio::test]
async fn a_schema_that_is_too_new_or_too_old_is_named() {
    let file = filled().await;
    file.damage("PRAGMA user_version = 99");
    names(&file.tool(), "schema", "use the newer program");
    file.damage("PRAGMA user_version = 1");
    names(&file.tool(), "schema", "migrate them first");
}

#[tokio::test]
async fn stale_housekeeping_is_named() {
    let file = File::new();
    let store = file.open();
    server(&store).await;
    let ended = now() - 3 * HOUR;
    let grant = GrantRecord::new(
        GrantId::random(&Random::system()).unwrap(),
        ClientId::new("app").unwrap(),
        Subject::user("alice").unwrap(),
        Audience::one(ORDERS).unwrap(),
        ended - HOUR,
        ended,
    );
    let _ = store.create(grant, Vec::new()).await.unwrap();
    names(&file.tool(), "housekeeping", "1 rows have ended");
    file.tool().run("maintain").expect(0);
    file.tool().run("doctor").expect(0);
}

/// Servers that write no heartbeats, and a server whose clock is ahead.
#[tokio::test]
async fn old_heartbeats_and_wrong_clocks_are_named() {
    let file = File::new();
    let store = file.open();
    builder(&store).build().await.unwrap();
    names(&file.tool(), "revocation_log", "the log holds no heartbeat");
    store.heartbeat(now() - HOUR, now() + HOUR).await.unwrap();
    names(&file.tool(), "revocation_log", "run_maintenance");
    store.heartbeat(now() + HOUR, now() + 3 * HOUR).await.unwrap();
    names(&file.tool(), "clock", "ahead of the clock here");
}

/// No server has run for a month: the key that signs has ended, and nobody has made another.
#[tokio::test]
async fn an_overdue_key_is_named() {
    let file = File::new();
    let store = file.open();
    let day = Duration::from_secs(86_400);
    let clock = Arc::new(ManualClock::at(now() - 45 * day));
    let issuer = builder(&store).clock(clock.clone()).build().await.unwrap();
    issuer.maintain().await.unwrap();
    assert!(clock.now() < now());
    store.heartbeat(now(), now() + HOUR).await.unwrap();
    names(&file.tool(), "signing_keys", "a rotation is overdue");
    file.tool().run("maintain").expect(0);
    file.tool().run("doctor").expect(0);
}

/// The queries that an index served are named by what they are for.
#[tokio::test]
async fn a_missing_index_is_named_with_what_it_slows_down() {
    let file = filled().await;
    file.damage("DROP INDEX tokens_by_end; DROP INDEX grants_of_subject");
    let failed = all_failed(&file.tool().run("doctor --json").expect(1));
    let texts = |check: &str| {
        let of_check = failed.iter().filter(|(name, _)| name == check);
        of_check.map(|(_, text)| text.as_str()).collect::<Vec<_>>()
    };
    for (texts, parts) in [
        (texts("schema"), ["`grants_of_subject` is missing", "`tokens_by_end` is missing"]),
        (
            texts("plans"),
            [
                "to list the grants of a subject, the database does not read the index \
                 `grants_of_subject`: ",
                "to delete tokens that have ended, the database does not read the index \
                 `tokens_by_end`: ",
            ],
        ),
    ] {
        assert_eq!(texts.len(), 2, "{texts:?}");
        for part in parts {
            assert!(texts.iter().any(|text| text.contains(part)), "{part}: {texts:?}");
        }
    }
    let ran = file.tool().run("doctor").expect(1);
    assert!(ran.stdout.contains("FAILED   plans: to list"), "{ran:#?}");
    assert!(ran.stdout.contains("SCAN tokens"), "{ran:#?}");
}

/// A store that is damaged in five ways at once: one does not hide another, and each is named with what to do
/// about it.
#[tokio::test]
async fn five_damages_are_named_at_once() {
    let file = filled().await;
    let store = file.open();
    let ended = now() - 3 * HOUR;
    let grant = GrantRecord::new(
        GrantId::random(&Random::system()).unwrap(),
        ClientId::new("app").unwrap(),
        Subject::user("carol").unwrap(),
        Audience::one(ORDERS).unwrap(),
        ended - HOUR,
        ended,
    );
    let _ = store.create(grant, Vec::new()).await.unwrap();
    let issuer = builder(&store).build().await.unwrap();
    let damaged = issuer.sessions(&Subject::user("bob").unwrap()).await.unwrap()[0].grant;
    let kid = issuer.key_states().await.unwrap()[1].kid.clone();
    file.damage(&format!(
        "DROP INDEX rules_by_end;
         UPDATE grants SET body = x'00' WHERE id = x'{id}';
         UPDATE signing_keys SET body = \
             CAST(x'01' || replace(CAST(substr(body, 2) AS TEXT), '\"ES256\"', '\"ES999\"') AS BLOB) \
             WHERE generation = 2;
         DELETE FROM log",
        id = damaged.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
    ));
    let tool = file.tool();
    let ran = tool.run("doctor --json").expect(1);
    let failed = all_failed(&ran);
    for (check, parts) in [
        ("schema", &["`rules_by_end` is missing", "create it"][..]),
        ("rows", &[&*damaged.to_string(), "revoke"]),
        ("signing_keys", &[kid.as_str(), "its algorithm is unknown"]),
        ("housekeeping", &["1 rows have ended", "run_maintenance"]),
        ("revocation_log", &["no heartbeat", "run_maintenance"]),
    ] {
        let is_it = |(name, text): &(String, String)| {
            name == check && parts.iter().all(|part| text.contains(part))
        };
        assert!(failed.iter().any(is_it), "{check}: {failed:#?}");
    }
}

/// An outage has a status of its own, and nothing is created where nothing was.
#[tokio::test]
async fn a_store_that_is_not_there_is_an_outage() {
    let file = File::new();
    let ran = file.tool().run("doctor --json");
    assert_eq!(ran.status, 3, "{ran:#?}");
    assert!(failed(&ran).contains_key("store"));
    assert!(!file.path().exists());
    for command in ["sessions list --user alice", "maintain", "keys list", "restore"] {
        file.tool().run(command).expect(3).says("cannot be used");
        assert!(!file.path().exists());
    }
}
