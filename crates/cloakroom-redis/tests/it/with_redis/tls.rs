//! TLS, with the certificates of both sides checked.

use std::path::Path;

use cloakroom_core::revocation::LogNotifications;
use cloakroom_core::store::{CreateOutcome, StoreError, TokenStore as _};
use cloakroom_redis::{OpenError, RedisStore};
use futures_util::StreamExt as _;

use crate::free_port::free_port;
use crate::server::Server;
use crate::support::{DAY, NOW, grant, token};

const CA: &[u8] = include_bytes!("../certificates/ca.pem");
const CLIENT: [&[u8]; 2] =
    [include_bytes!("../certificates/client.pem"), include_bytes!("../certificates/client.key")];

#[tokio::test]
async fn both_sides_show_certificates() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/certificates");
    let file = |name: &str| folder.join(name).display().to_string();
    let port = free_port().to_string();
    let [ca, certificate, key] = ["ca.pem", "server.pem", "server.key"].map(file);
    let _server = Server::start(&[
        "--tls-port",
        &port,
        "--tls-ca-cert-file",
        &ca,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "yes",
    ]);
    let url = format!("rediss://127.0.0.1:{port}");
    let [chain, key] = CLIENT;
    let store = RedisStore::builder(&url)
        .root_certificates(CA)
        .client_certificate(chain, key)
        .connect()
        .await
        .unwrap();
    let record = grant(&store, "alice", "app").await;
    let held = token(&record);
    assert_eq!(store.create(record, vec![held]).await.unwrap(), CreateOutcome::Inserted);
    let LogNotifications::Stream(mut woken) = store.wakeups() else { panic!("there is a stream") };
    woken.next().await.unwrap();
    store.heartbeat(NOW, NOW + DAY).await.unwrap();
    woken.next().await.unwrap();

    // A client without a certificate, and one that does not know the server's.
    for builder in [
        RedisStore::builder(&url).root_certificates(CA),
        RedisStore::builder(&url).client_certificate(chain, key),
        RedisStore::builder(&url),
    ] {
        let error = builder.connect().await.unwrap_err();
        assert!(matches!(error, OpenError::Store(StoreError::Unavailable { .. })), "{error}");
    }
}
