//! TLS, before a server that may or may not offer it: what each `sslmode` accepts.
//!
//! The certificates are for `localhost`, and of a private authority. The connections go to `localhost` or to
//! `127.0.0.1`, which the certificate does not name.

use std::path::PathBuf;
use std::sync::Arc;

use cloakroom_core::store::TokenStoreExt as _;
use cloakroom_postgres::rustls::pki_types::pem::PemObject as _;
use cloakroom_postgres::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use cloakroom_postgres::rustls::{RootCertStore, ServerConfig, crypto};
use cloakroom_postgres::tokio_postgres::Config;
use cloakroom_postgres::tokio_postgres::config::Host;
use cloakroom_postgres::{ConnectError, PostgresStore, rustls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::server::{schema, url, without_sslmode};

fn certificates() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/with_postgres/certificates")
}

fn certificate(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(certificates().join(name)).unwrap()
}

fn acceptor() -> TlsAcceptor {
    let key = PrivateKeyDer::from_pem_file(certificates().join("server.key")).unwrap();
    let config =
        ServerConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate("server.pem")], key)
            .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Asks for TLS, and has no type.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// What takes the TLS off, and passes the rest on to the server of the tests.
struct Server {
    port: u16,
    /// The number of connections with TLS, and without.
    seen: watch::Receiver<(u32, u32)>,
}

impl Server {
    async fn start(offers_tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (count, seen) = watch::channel((0, 0));
        let count = Arc::new(count);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                // An end in the middle of a handshake is what some tests want.
                tokio::spawn(async move { serve(client, offers_tls, &count).await.ok() });
            }
        });
        Self { port, seen }
    }

    async fn connect(&self, host: &str, options: &str) -> Result<PostgresStore, ConnectError> {
        let plain = without_sslmode(&url());
        let (scheme, rest) = plain.split_once("://").unwrap();
        let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
        let database = plain.rsplit_once('/').unwrap().1;
        let url = format!("{scheme}://{user}@{host}:{}/{database}?{options}", self.port);
        PostgresStore::builder(&url).schema(schema()).connections(1, 1).connect().await
    }
}

async fn serve(
    mut client: TcpStream,
    offers_tls: bool,
    count: &watch::Sender<(u32, u32)>,
) -> std::io::Result<()> {
    let config: Config = without_sslmode(&url()).parse().unwrap();
    let Host::Tcp(host) = &config.get_hosts()[0] else { panic!("the server has a TCP port") };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let mut server = TcpStream::connect((host.as_str(), port)).await?;
    let mut first = [0; 8];
    client.read_exact(&mut first).await?;
    if first == SSL_REQUEST && offers_tls {
        client.write_all(b"S").await?;
        let mut client = acceptor().accept(client).await?;
        count.send_modify(|(with, _)| *with += 1);
        copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    }
    count.send_modify(|(_, without)| *without += 1);
    if first == SSL_REQUEST {
        client.write_all(b"N").await?;
    } else {
        server.write_all(&first).await?;
    }
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

fn root(name: &str) -> String {
    format!("sslrootcert={}", certificates().join(name).display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mode_checks_what_libpq_checks() {
    let server = Server::start(true).await;
    let (ours, other) = (root("ours-ca.pem"), root("other-ca.pem"));
    for (host, options, is_accepted) in [
        // The authority and the name are right.
        ("localhost", format!("sslmode=verify-full&{ours}"), true),
        ("localhost", format!("sslmode=verify-ca&{ours}"), true),
        ("localhost", format!("sslmode=require&{ours}"), true),
        ("localhost", "sslmode=require".to_owned(), true),
        ("localhost", "sslmode=prefer".to_owned(), true),
        ("localhost", String::new(), true),
        // The name is wrong.
        ("127.0.0.1", format!("sslmode=verify-full&{ours}"), false),
        ("127.0.0.1", format!("sslmode=verify-ca&{ours}"), true),
        ("127.0.0.1", format!("sslmode=require&{ours}"), true),
        // The authority is wrong.
        ("localhost", format!("sslmode=verify-full&{other}"), false),
        ("localhost", format!("sslmode=verify-ca&{other}"), false),
        ("localhost", format!("sslmode=require&{other}"), false),
        // The system does not know the authority.
        ("localhost", "sslmode=verify-full".to_owned(), false),
        ("localhost", "sslmode=verify-full&sslrootcert=system".to_owned(), false),
        ("localhost", "sslmode=verify-full&sslrootcert=%2Fnowhere.pem".to_owned(), false),
    ] {
        match server.connect(host, &options).await {
            Ok(store) => {
                assert!(is_accepted, "{host} {options}");
                store.epoch().await.unwrap();
            }
            Err(error) => {
                assert!(!is_accepted, "{host} {options}: {error:?}");
                assert!(std::error::Error::source(&error).is_some(), "{error:?}");
            }
        }
    }
    let (with, without) = *server.seen.borrow();
    assert!(with > 0 && without == 0, "{with} with TLS, {without} without");
    server.connect("localhost", "sslmode=disable").await.unwrap();
    assert!(server.seen.borrow().1 > 0, "TLS was disabled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_refused_where_tls_is_demanded() {
    let server = Server::start(false).await;
    let ours = root("ours-ca.pem");
    for (options, is_accepted) in [
        ("sslmode=disable".to_owned(), true),
        ("sslmode=allow".to_owned(), true),
        ("sslmode=prefer".to_owned(), true),
        (String::new(), true),
        ("sslmode=require".to_owned(), false),
        (format!("sslmode=verify-ca&{ours}"), false),
        (format!("sslmode=verify-full&{ours}"), false),
    ] {
        let connected = server.connect("localhost", &options).await;
        assert_eq!(connected.is_ok(), is_accepted, "{options}: {connected:?}");
    }
    assert_eq!(server.seen.borrow().0, 0);
}

/// A configuration of the app's own, for example with a client certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_configuration_is_used() {
    let server = Server::start(true).await;
    for (name, is_accepted) in [("ours-ca.pem", true), ("other-ca.pem", false)] {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(name)).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(
            crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
        let plain = without_sslmode(&url());
        let (scheme, rest) = plain.split_once("://").unwrap();
        let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
        let database = plain.rsplit_once('/').unwrap().1;
        let url = format!("{scheme}://{user}@localhost:{}/{database}", server.port);
        let builder = PostgresStore::builder(&url).schema(schema()).tls(config);
        assert_eq!(builder.connect().await.is_ok(), is_accepted, "{name}");
    }
}
