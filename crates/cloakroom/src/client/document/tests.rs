//! Documents over real TLS on this machine, and the attacks on whoever fetches them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloakroom_core::time::ManualClock;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::fetch::LookUp;
use super::*;
use crate::client::directory::StaticClients;
use crate::client::registration::Format;

const CERTIFICATE: &[u8] = include_bytes!("../../../tests/loopback/certificate.pem");
const KEY: &[u8] = include_bytes!("../../../tests/loopback/key.pem");
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
    let (mut builder, _) = builder();
    builder.allows = |address| address == IpAddr::V4(Ipv4Addr::LOCALHOST);
    builder.resolver = Arc::new(names.clone());
    builder.build().unwrap()
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

#[tokio::test]
async fn a_document_becomes_a_client() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    host.publishes(&document(&url));
    let (clients, _) = local();
    let client = find(&clients, &url).await.unwrap();
    assert_eq!((client.id().as_str(), client.name()), (&*url, Some("App")));
    assert!(client.is_public() && client.requires_pkce());
    assert!(client.is_redirect_uri("http://127.0.0.1:1234/cb"));
    assert_eq!(client.scope().as_str(), "notes:read");
    let read = clients.document(client.id()).unwrap();
    assert_eq!((read.url(), read.host()), (&*url, "127.0.0.1"));
    assert!(clients.takes_documents() && !StaticClients::default().takes_documents());
}

#[tokio::test]
async fn registered_clients_come_first_and_other_names_are_not_looked_up() {
    let registered = StaticClients::new([
        Client::public("app"),
        Client::public("https://app.example/client.json").name("Registered"),
    ]);
    let names = Names::of(&[&["127.0.0.1"]]);
    let mut builder = ClientDocuments::builder(registered.unwrap(), admits);
    builder.resolver = Arc::new(names.clone());
    let clients = builder.build().unwrap();
    assert!(find(&clients, "app").await.is_some());
    let registered = find(&clients, "https://app.example/client.json").await.unwrap();
    assert_eq!(registered.name(), Some("Registered"));
    for other in ["other", "http://app.example/c", "https://app.example/", "https://a@b.example/c"]
    {
        assert!(find(&clients, other).await.is_none());
    }
    assert_eq!(names.look_ups.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn documents_come_from_public_addresses_only() {
    let host = Host::new().await;
    // In the URL itself.
    let (clients, _) = builder();
    let clients = clients.build().unwrap();
    for literal in [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "10.0.0.1",
        "169.254.169.254",
        "192.168.0.1",
        "100.64.0.1",
        "[::1]",
        "[::]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[fe80::1]",
        "[fd00::1]",
    ] {
        assert!(find(&clients, &host.url(literal)).await.is_none(), "{literal}");
    }
    // By the system's own look-up.
    assert!(find(&clients, &host.url("localhost")).await.is_none());
    // By a name that anybody could publish.
    for address in [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
    ] {
        let (mut builder, _) = builder();
        builder.resolver = Arc::new(Names::of(&[&[address]]));
        let clients = builder.build().unwrap();
        assert!(find(&clients, &host.url("app.example")).await.is_none(), "{address}");
    }
    assert_eq!(host.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_connection_goes_to_the_address_that_was_checked() {
    let good = Host::new().await;
    let at = |ip: [u8; 4]| SocketAddr::from((ip, good.at.port()));
    let bad = Host::on(at([127, 0, 0, 2])).await;
    let url = good.url("app.example");
    good.publishes(&document(&url));

    // A name that changes between look-up and connection.
    let names = Names::of(&[&["127.0.0.1"], &["127.0.0.2"]]);
    assert!(find(&with_names(&names), &url).await.is_some());
    assert_eq!(names.look_ups.load(Ordering::SeqCst), 1);

    // One with addresses of both kinds, in either order.
    for mixed in [["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"]] {
        assert!(find(&with_names(&Names::of(&[&mixed])), &url).await.is_some());
    }
    assert_eq!((good.requests(), bad.connections.load(Ordering::SeqCst)), (3, 0));

    // The next fetch checks again.
    let names = Names::of(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let clients = with_names(&names);
    assert!(find(&clients, &url).await.is_some());
    assert!(find(&clients, &good.url("other.example")).await.is_none());
    assert_eq!(bad.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (host, target) = (Host::new().await, Host::new().await);
    let url = host.url("127.0.0.1");
    target.publishes(&document(&url));
    for status in [301, 302, 303, 307, 308] {
        let (clients, _) = local();
        let to = target.url("127.0.0.1");
        host.conducts(Conduct::Answers(format!(
            "HTTP/1.1 {status} Moved\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"
        )));
        assert!(find(&clients, &url).await.is_none(), "{status}");
    }
    assert_eq!((host.requests(), target.connections.load(Ordering::SeqCst)), (5, 0));
}

#[tokio::test]
async fn bodies_without_an_end_are_given_up() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let large = "x".repeat(5 * 1024 + 1);
    for refused in [
        // It goes on and on, in chunks or until the connection ends.
        Conduct::NeverEnds(format!("{head}\r\n{large}")),
        Conduct::NeverEnds(format!("{head}transfer-encoding: chunked\r\n\r\n1401\r\n{large}\r\n")),
        // It says so.
        Conduct::Hangs(format!("{head}content-length: 1000000000\r\n\r\n")),
        Conduct::Answers(ok(&large, "")),
    ] {
        let (clients, _) = local();
        host.conducts(refused);
        assert!(find(&clients, &url).await.is_none());
    }
    for slow in [String::new(), head.into(), format!("{head}content-length: 9\r\n\r\n{{")] {
        let (builder, _) = builder();
        let builder = builder.timeout(Duration::from_millis(200));
        let clients = builder.danger_allow_loopback().build().unwrap();
        host.conducts(Conduct::Hangs(slow));
        assert!(is_unavailable(&clients, &url).await);
    }
    // The largest that is read.
    let mut largest = document(&url);
    let missing = 5 * 1024 - largest.to_string().len() - r#","x":"""#.len();
    largest["x"] = "x".repeat(missing).into();
    assert_eq!(largest.to_string().len(), 5 * 1024);
    host.publishes(&largest);
    assert!(find(&local().0, &url).await.is_some());
}

#[tokio::test]
async fn only_plain_json_is_read() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    let body = document(&url).to_string();
    for (content_type, more, accepted) in [
        ("application/json", "", true),
        ("application/json; charset=utf-8", "", true),
        ("Application/JSON", "content-encoding: identity\r\n", true),
        ("application/oauth-client+json", "", true),
        ("text/html", "", false),
        ("text/plain", "", false),
        ("application/jsonp", "", false),
        ("image/svg+json", "", false),
        ("application/json", "content-encoding: gzip\r\n", false),
        ("application/json", "content-type: text/html\r\n", false),
    ] {
        let (clients, _) = local();
        let length = body.len();
        host.conducts(Conduct::Answers(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{more}content-length: {length}\r\n\r\n{body}"
        )));
        assert_eq!(find(&clients, &url).await.is_some(), accepted, "{content_type} {more}");
    }
    for status in ["201 Created", "204 No Content", "206 Partial Content", "403 Forbidden", "404 x"]
    {
        let (clients, _) = local();
        host.conducts(Conduct::Answers(ok(&body, "").replace("200 OK", status)));
        assert!(find(&clients, &url).await.is_none(), "{status}");
    }
}

#[tokio::test]
async fn a_document_of_another_client_is_refused() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    for other in ["https://app.example/client.json", &host.url("localhost"), &format!("{url}/")] {
        let (clients, _) = local();
        host.publishes(&document(other));
        assert!(find(&clients, &url).await.is_none(), "{other}");
    }
    // The app cannot make it another client by mistake.
    let (mut builder, _) = builder();
    builder.admit = Box::new(|_, _| Some(Client::public("admin")));
    let clients = builder.danger_allow_loopback().build().unwrap();
    host.publishes(&document(&url));
    assert!(find(&clients, &url).await.is_none());
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_proves_nothing() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    host.publishes(&document(&url));
    let clients = ClientDocuments::builder(StaticClients::default(), admits);
    let clients = clients.danger_allow_loopback().build().unwrap();
    assert!(is_unavailable(&clients, &url).await);
    // The name must be in it.
    let names = Names::of(&[&["127.0.0.1"]]);
    assert!(is_unavailable(&with_names(&names), &host.url("evil.example")).await);
    assert_eq!(host.requests(), 0);
}

#[tokio::test]
async fn what_the_app_does_not_allow_is_not_fetched() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    host.publishes(&document(&url));
    let allowing = builder().0.danger_allow_loopback().allow(|url| url.contains("app.example"));
    assert!(find(&allowing.build().unwrap(), &url).await.is_none());
    assert_eq!(host.requests(), 0);
    // It may also decide by what the document says.
    let (mut builder, _) = builder();
    builder.admit = Box::new(|client, document| (document.name() != Some("App")).then_some(client));
    let clients = builder.danger_allow_loopback().build().unwrap();
    assert!(find(&clients, &url).await.is_none());
    assert_eq!(host.requests(), 1);
}

#[tokio::test]
async fn clients_authenticate_by_key_or_not_at_all() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    let mut signing = document(&url);
    signing["token_endpoint_auth_method"] = "private_key_jwt".into();
    signing["jwks"] = json!({ "keys": [] });
    host.publishes(&signing);
    assert!(find(&local().0, &url).await.is_none());
    let (builder, _) = builder();
    let clients = builder.danger_allow_loopback().private_key_jwt().build().unwrap();
    let client = find(&clients, &url).await.unwrap();
    assert!(!client.is_public() && !client.has_secret(""));
    let read = clients.document(client.id()).unwrap();
    assert_eq!(read.member("jwks"), Some(&json!({ "keys": [] })));
}

#[tokio::test]
async fn a_document_is_kept_as_long_as_its_headers_say() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    let (clients, clock) = local();
    let body = document(&url).to_string();
    host.conducts(Conduct::Answers(ok(&body, "cache-control: max-age=600\r\n")));
    for _ in 0..3 {
        assert!(find(&clients, &url).await.is_some());
    }
    clock.advance(seconds(599));
    assert!(find(&clients, &url).await.is_some());
    assert_eq!(host.requests(), 1);
    clock.advance(seconds(1));
    assert!(find(&clients, &url).await.is_some());
    assert_eq!(host.requests(), 2);

    // A client that takes its document away is unknown as soon as that is noticed.
    clock.advance(seconds(600));
    host.conducts(Conduct::Answers(not_found()));
    assert!(find(&clients, &url).await.is_none());
    assert!(clients.document(&ClientId::new(&url).unwrap()).is_none());
}

#[tokio::test]
async fn a_refusal_is_remembered_for_a_moment() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    let (clients, clock) = local();
    for _ in 0..5 {
        assert!(find(&clients, &url).await.is_none());
    }
    clock.advance(seconds(9));
    assert!(find(&clients, &url).await.is_none());
    assert_eq!(host.requests(), 1);
    host.publishes(&document(&url));
    clock.advance(seconds(1));
    assert!(find(&clients, &url).await.is_some());
    assert_eq!(host.requests(), 2);
}

#[tokio::test]
async fn a_client_outlives_an_outage_of_its_host() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    let (clients, clock) = local();
    let failing = "HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n";
    host.conducts(Conduct::Answers(failing.into()));
    assert!(is_unavailable(&clients, &url).await);
    clock.advance(seconds(10));

    host.publishes(&document(&url));
    assert!(find(&clients, &url).await.is_some());
    clock.advance(seconds(3_600));
    host.conducts(Conduct::Answers(failing.into()));
    // Its host is asked again every ten seconds, and no more often.
    for _ in 0..5 {
        assert!(find(&clients, &url).await.is_some());
    }
    assert_eq!(host.requests(), 3);
    clock.advance(seconds(3_599));
    assert!(find(&clients, &url).await.is_some());
    assert_eq!(host.requests(), 4);
    clock.advance(seconds(10));
    assert!(is_unavailable(&clients, &url).await);
    assert!(is_unavailable(&clients, &url).await);
    assert_eq!(host.requests(), 5);
}

#[tokio::test]
async fn everyone_who_waits_for_a_document_shares_one_fetch() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    host.publishes(&document(&url));
    host.gate.forget_permits(1_000_000);
    let (clients, _) = local();
    let asking = |clients: &ClientDocuments| {
        let (clients, url) = (clients.clone(), url.clone());
        tokio::spawn(async move { find(&clients, &url).await.is_some() })
    };
    let first = asking(&clients);
    while host.requests() == 0 {
        tokio::task::yield_now().await;
    }
    // The one who began goes away.
    first.abort();
    let others: Vec<_> = (0..20).map(|_| asking(&clients)).collect();
    host.gate.add_permits(1);
    for other in others {
        assert!(other.await.unwrap());
    }
    assert_eq!(host.requests(), 1);
}

#[tokio::test]
async fn a_flood_of_documents_is_bounded() {
    let host = Host::new().await;
    let (clients, clock) = local();
    let url = |number: usize| format!("https://127.0.0.1:{}/{number}.json", host.at.port());
    let known = url(100);
    host.publishes(&document(&known));
    assert!(find(&clients, &known).await.is_some());
    // It is due to be fetched again.
    clock.advance(seconds(3_700));
    host.gate.forget_permits(1_000_000);
    let waiting: Vec<_> = (0..MAX_FLIGHTS)
        .map(|number| {
            let (clients, url) = (clients.clone(), url(number));
            tokio::spawn(async move { find(&clients, &url).await.is_none() })
        })
        .collect();
    while host.requests() < 1 + MAX_FLIGHTS {
        tokio::task::yield_now().await;
    }
    assert!(is_unavailable(&clients, &url(MAX_FLIGHTS)).await);
    assert!(find(&clients, &known).await.is_some(), "a known client goes on");
    host.gate.add_permits(1_000_000);
    for one in waiting {
        assert!(one.await.unwrap());
    }
    assert_eq!(host.requests(), 1 + MAX_FLIGHTS);
    assert!(clients.0.known().flights.is_empty());

    // What failed takes bounded room, and leaves it.
    let now = clock.now();
    let mut known = clients.0.known();
    for number in 0..2 * MAX_FAILURES {
        known.fail(&ClientId::new(url(number)).unwrap(), Missing::Refused, now);
    }
    assert_eq!(known.failures.len(), MAX_FAILURES);
    known.fail(&ClientId::new(url(9_999)).unwrap(), Missing::Refused, now + PAUSE);
    assert_eq!(known.failures.len(), 1);
}

#[tokio::test]
async fn the_document_that_was_not_used_for_longest_makes_room() {
    let host = Host::new().await;
    let (builder, _) = builder();
    let clients = builder.danger_allow_loopback().max_documents(2).build().unwrap();
    let url = |name: &str| format!("https://127.0.0.1:{}/{name}", host.at.port());
    for (asked, fetches) in [("a", 1), ("b", 2), ("a", 2), ("c", 3), ("a", 3), ("b", 4), ("b", 4)] {
        host.publishes(&document(&url(asked)));
        assert!(find(&clients, &url(asked)).await.is_some());
        assert_eq!(host.requests(), fetches, "{asked}");
        assert!(clients.0.known().documents.len() <= 2);
    }
}

#[tokio::test]
async fn a_hook_that_panics_holds_nobody_up() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    host.publishes(&document(&url));
    let (mut builder, _) = builder();
    builder.admit = Box::new(|_, _| panic!("the app is broken"));
    let clients = builder.danger_allow_loopback().build().unwrap();
    for _ in 0..2 {
        assert!(is_unavailable(&clients, &url).await);
        assert!(clients.0.known().flights.is_empty());
    }
}
