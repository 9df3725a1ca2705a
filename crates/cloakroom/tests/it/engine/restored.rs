//! Yesterday's copy of a SQLite file is put back under a running server.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::core::time::ManualClock;
use cloakroom::jwt::AesGcmSealer;
use cloakroom::sqlite::SqliteStore;
use cloakroom::{
    Caller, Client, Event, Format, Grant, GrantType, Issuer, RefreshRequest, Regression, Subject,
};
use tempfile::TempDir;

use super::support::*;

fn open(path: &Path, clock: &Arc<ManualClock>) -> Arc<SqliteStore> {
    let builder = SqliteStore::builder(path).poll(Duration::from_millis(1));
    Arc::new(builder.clock(clock.clone()).open().unwrap())
}

async fn issuer(store: &Arc<SqliteStore>, clock: &Arc<ManualClock>) -> (Issuer, Arc<Recorder>) {
    let app = Client::public("app").grant_types([GrantType::RefreshToken]);
    let app = app.audience(REPORTS, Format::Opaque).audience(JOBS, Format::Jwt).build().unwrap();
    let events = Arc::new(Recorder::default());
    let builder = Issuer::builder(ISSUER)
        .store(store.clone())
        .handle_keys(handles())
        .sealer(Arc::new(AesGcmSealer::new(1, [2; 32])))
        .clock(clock.clone())
        .heartbeat_interval(Duration::from_millis(10))
        .housekeeping_interval(Duration::from_millis(10))
        .events(events.clone())
        .static_clients([app])
        .unwrap();
    (builder.build().await.unwrap(), events)
}

async fn is_active(issuer: &Issuer, token: &cloakroom::TokenSecret) -> bool {
    // What cannot be vouched for just now is not active either.
    let answer = issuer.introspect(token, Caller::Internal).await;
    answer.is_ok_and(|answer| answer.is_active())
}

#[tokio::test]
async fn a_copy_that_is_put_back_brings_nothing_back_to_life() {
    let (folder, clock) = (TempDir::new().unwrap(), Arc::new(ManualClock::at(START)));
    let (path, copy) = (folder.path().join("tokens.db"), folder.path().join("copy.db"));
    let store = open(&path, &clock);
    let (issuer, events) = issuer(&store, &clock).await;
    let login = |user| Grant::user("app", user).unwrap();
    let [token, session, everywhere, living] = [
        issuer.issue(login("alice")).await.unwrap(),
        issuer.issue(login("alice")).await.unwrap(),
        issuer.issue(login("bob")).await.unwrap(),
        issuer.issue(login("alice")).await.unwrap(),
    ];
    let key = issuer.keys().signer().await.unwrap().kid().clone();
    let maintenance = {
        let issuer = issuer.clone();
        tokio::spawn(async move { issuer.run_maintenance().await })
    };
    tokio::task::yield_now().await;
    let connection = cloakroom::sqlite::rusqlite::Connection::open(&path).unwrap();
    connection.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    drop(connection);

    clock.advance(secs(1));
    let (app, bob) = (client_id("app"), Subject::user("bob").unwrap());
    issuer.revoke(&token.access_token, &app).await.unwrap();
    issuer.revoke_grant(session.grant).await.unwrap();
    issuer.revoke_subject(&bob).await.unwrap();
    issuer.compromise_key(&key).await.unwrap();
    for file in ["tokens.db", "tokens.db-wal", "tokens.db-shm"] {
        let _ = fs::remove_file(folder.path().join(file));
    }
    fs::rename(&copy, &path).unwrap();

    // From this moment on, through the outage and after it, with or without the log.
    let revoked = [&token.access_token, &session.access_token, &everywhere.access_token];
    let mut noticed = Vec::new();
    while !noticed.iter().any(|why| matches!(why, Regression::Log | Regression::Written)) {
        for token in revoked {
            assert!(!is_active(&issuer, token).await);
        }
        assert_ne!(*issuer.keys().signer().await.unwrap().kid(), key);
        noticed.extend(events.take().into_iter().filter_map(|event| match event {
            Event::StoreRegressed { noticed } => Some(noticed),
            _ => None,
        }));
        // Had it read nothing yet, it would miss what it wrote once a heartbeat is later for sure.
        clock.advance(Duration::from_millis(1));
        tokio::task::yield_now().await;
    }
    while !is_active(&issuer, &living.access_token).await {
        tokio::task::yield_now().await;
    }
    maintenance.abort();
    clock.advance(secs(61));
    assert_eq!(issuer.sessions(&bob).await.unwrap(), []);
    assert_ne!(*issuer.keys().signer().await.unwrap().kid(), key);
    assert!(!issuer.jwks().await.unwrap().json.contains(key.as_str()));

    // Another process, which knows nothing but the file.
    let (fresh, _) = self::issuer(&open(&path, &clock), &clock).await;
    for token in revoked {
        assert!(!is_active(&fresh, token).await);
    }
    for refused in [session.refresh_token, everywhere.refresh_token].into_iter().flatten() {
        fresh.refresh(RefreshRequest::new(refused, app.clone())).await.unwrap_err();
    }
    assert!(is_active(&fresh, &living.access_token).await);
    assert_ne!(*fresh.keys().signer().await.unwrap().kid(), key);
    assert!(!fresh.jwks().await.unwrap().json.contains(key.as_str()));
    // And a login now is as good as any.
    let bob = fresh.issue(login("bob")).await.unwrap();
    assert!(is_active(&issuer, &bob.access_token).await);
}
