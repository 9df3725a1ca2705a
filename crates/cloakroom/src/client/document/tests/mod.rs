//! Documents over real TLS on this machine.

mod attacks;
mod fetching;
mod keeping;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloakroom_core::time::{ManualClock, UnixTime};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::fetch::LookUp;
use super::known::{MAX_FAILURES, MAX_FLIGHTS, MAX_FLIGHTS_OF_HOST, Missing, PAUSE};
use super::*;
use crate::client::directory::StaticClients;
use crate::client::registration::Format;

const CERTIFICATE: &[u8] = include_bytes!("../../../../tests/loopback/certificate.pem");
const KEY: &[u8] = include_bytes!("../../../../tests/loopback/key.pem");
const RESOURCE: &str = "https://notes.example";

/// What a host does with a request.
#[derive(Clone)]
enum Conduct {
    Answers(String),
    /// Sends these bytes again and again.
    NeverEnds(String),
    /// Sends a part, and then nothing.
    Hangs(String),
}

/// The host of documents: one port of this machine.
struct Host {
    at: SocketAddr,
    conduct: Arc<Mutex<Conduct>>,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    /// How many may be answered.
    gate: Arc<Semaphore>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Host {
    async fn new() -> Self {
        Self::on(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    async fn on(address: SocketAddr) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = CertificateDer::pem_slice_iter(CERTIFICATE).collect::<Result<_, _>>().unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_slice(KEY).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind(address).await.unwrap();
        let at = listener.local_addr().unwrap();
        let conduct = Arc::new(Mutex::new(Conduct::Answers(not_found())));
        let [requests, connections] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new(Semaphore::new(1_000_000));
        let task = {
            let (conduct, gate) = (Arc::clone(&conduct), Arc::clone(&gate));
            let (requests, connections) = (Arc::clone(&requests), Arc::clone(&connections));
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    connections.fetch_add(1, Ordering::SeqCst);
                    let acceptor = acceptor.clone();
                    let (conduct, gate) = (Arc::clone(&conduct), Arc::clone(&gate));
                    let requests = Arc::clone(&requests);
                    tokio::spawn(async move {
                        // A client that does not like the certificate goes away.
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        requests.fetch_add(1, Ordering::SeqCst);
                        gate.acquire().await.unwrap().forget();
                        let conduct = conduct.lock().unwrap().clone();
                        drop(serve(stream, conduct).await);
                    });
                }
            })
        };
        Self { at, conduct, requests, connections, gate, task }
    }

    fn conducts(&self, conduct: Conduct) {
        *self.conduct.lock().unwrap() = conduct;
    }

    fn publishes(&self, document: &Value) {
        self.conducts(Conduct::Answers(ok(&document.to_string(), "")));
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// The URL of a document at this name.
    fn url(&self, name: &str) -> String {
        format!("https://{name}:{}/client.json", self.at.port())
    }
}

async fn serve(mut stream: TlsStream<TcpStream>, conduct: Conduct) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    match conduct {
        Conduct::Answers(text) => {
            stream.write_all(text.as_bytes()).await?;
            stream.shutdown().await
        }
        Conduct::NeverEnds(text) => loop {
            stream.write_all(text.as_bytes()).await?;
            stream.flush().await?;
        },
        Conduct::Hangs(text) => {
            stream.write_all(text.as_bytes()).await?;
            stream.flush().await?;
            // Until the other side has had enough.
            stream.read_u8().await.map(drop)
        }
    }
}

fn ok(body: &str, headers: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn not_found() -> String {
    "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into()
}

fn document(url: &str) -> Value {
    json!({
        "client_id": url,
        "client_name": "App",
        "redirect_uris": ["http://127.0.0.1/cb"],
        "grant_types": ["authorization_code", "refresh_token"],
    })
}

/// Answers look-ups one after the other; the last answer stays.
#[derive(Clone, Default)]
struct Names {
    answers: Arc<Mutex<Vec<Vec<IpAddr>>>>,
    look_ups: Arc<AtomicUsize>,
}

impl Names {
    fn of(answers: &[&[&str]]) -> Self {
        let parse = |all: &&[&str]| all.iter().map(|one| one.parse().unwrap()).collect();
        let answers = answers.iter().map(parse).collect();
        Self { answers: Arc::new(Mutex::new(answers)), ..Self::default() }
    }
}

impl LookUp for Names {
    fn look_up(&self, _: &str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        self.look_ups.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        Box::pin(async move { Ok(answer) })
    }
}

fn admits(client: ClientBuilder, _: &ClientDocument) -> Option<ClientBuilder> {
    Some(client.scope("notes:read").audience(RESOURCE, Format::Opaque))
}

/// A directory that trusts the certificate of these tests.
fn builder() -> (ClientDocumentsBuilder, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(UnixTime::from_secs(1_000_000)));
    let builder = ClientDocuments::builder(StaticClients::default(), admits)
        .root_certificate(CERTIFICATE)
        .clock(clock.clone());
    (builder, clock)
}

/// One that also takes addresses of this machine.
fn local() -> (ClientDocuments, Arc<ManualClock>) {
    let (builder, clock) = builder();
    (builder.danger_allow_loopback().build().unwrap(), clock)
}

/// With these answers to look-ups, and only `127.0.0.1` for the internet.
fn with_names(names: &Names) -> ClientDocuments {
    named(names).0.build().unwrap()
}

fn named(names: &Names) -> (ClientDocumentsBuilder, Arc<ManualClock>) {
    let (mut builder, clock) = builder();
    builder.allows = |address| address == IpAddr::V4(Ipv4Addr::LOCALHOST);
    builder.resolver = Arc::new(names.clone());
    (builder, clock)
}

/// Every name leads to this machine.
fn here() -> Names {
    Names::of(&[&["127.0.0.1"]])
}

async fn find(clients: &ClientDocuments, url: &str) -> Option<Arc<Client>> {
    clients.client(&ClientId::new(url).unwrap()).await.unwrap()
}

async fn is_unavailable(clients: &ClientDocuments, url: &str) -> bool {
    clients.client(&ClientId::new(url).unwrap()).await.is_err()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
