//! `examples/nginx`: a real nginx between clients and an API, with our server behind it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloakroom::http::Endpoints;
use cloakroom::{Caller, TokenSecret};
use reqwest::{Client, RequestBuilder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;

use super::request::Reply;
use super::server::{BILLING, ORDERS, SECRET, Server, Session};

const CONF: &str = include_str!("../../../../../examples/nginx/nginx.conf");
const SCRIPT: &str = include_str!("../../../../../examples/nginx/phantom.js");
const CREDENTIALS: &str = include_str!("../../../../../examples/nginx/gateway-credentials.conf");

const SOCKET: &str = "nginx.sock";

/// An nginx of the test's own, in a directory of its own.
struct Nginx {
    process: Child,
    directory: PathBuf,
}

impl Nginx {
    async fn start(authorization_server: SocketAddr, api: SocketAddr) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = format!("cloakroom-nginx-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        // Its workers may run as another user.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.join("phantom.js"), SCRIPT).unwrap();
        let secret = STANDARD.encode(format!("gateway:{SECRET}"));
        let demo = STANDARD.encode("gateway:gateway-demo-secret-0123456789");
        let credentials = replaced(CREDENTIALS, &demo, &secret);
        write_private(&directory.join("gateway-credentials.conf"), &credentials);
        // A port that is free now may be another program's before nginx listens there.
        let socket = directory.join(SOCKET);
        let conf = replaced(CONF, "127.0.0.1:8080", &format!("unix:{}", socket.display()));
        let conf = replaced(&conf, "127.0.0.1:9000", &authorization_server.to_string());
        let conf = replaced(&conf, "127.0.0.1:9100", &api.to_string());
        fs::write(directory.join("nginx.conf"), conf).unwrap();
        let process = Command::new("nginx")
            .args(["-c", "nginx.conf", "-g", "daemon off;", "-p"])
            .arg(&directory)
            .stderr(fs::File::create(directory.join("stderr")).unwrap())
            .stdin(Stdio::null())
            .spawn()
            .expect("this test needs nginx: apt-get install nginx libnginx-mod-http-js");
        let mut nginx = Self { process, directory };
        while UnixStream::connect(nginx.socket()).await.is_err() {
            assert!(nginx.process.try_wait().unwrap().is_none(), "{}", nginx.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        nginx
    }

    fn socket(&self) -> PathBuf {
        self.directory.join(SOCKET)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("stderr")).unwrap()
    }

    /// All that nginx has in its cache.
    fn cached(&self) -> String {
        let mut found = String::new();
        let mut directories = vec![self.directory.join("cache")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    found += &String::from_utf8_lossy(&fs::read(path).unwrap());
                }
            }
        }
        found
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A master that is killed leaves its workers behind.
        let id = self.process.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[track_caller]
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

fn write_private(path: &Path, text: &str) {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// A request that reached the API.
struct Seen {
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
}

/// nginx, the server behind it, and the API behind that.
struct Scene {
    server: Server,
    nginx: Nginx,
    client: Client,
    introspections: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<HeaderMap>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

impl Scene {
    async fn new(mount: impl FnOnce(Endpoints) -> Endpoints) -> Self {
        let (listener, server_address) = listen().await;
        let url = format!("http://{server_address}");
        let server = Server::with(|issuer| issuer.url(url)).await.mounted(mount);
        let introspections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&introspections);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&asked);
        let counted = from_fn(move |request: Request, next: Next| {
            count.fetch_add(1, Ordering::SeqCst);
            keep.lock().unwrap().push(request.headers().clone());
            next.run(request)
        });
        let app = server.endpoints.clone().router().layer(counted);
        tokio::spawn(async move { axum::serve(listener, app).await });

        let (listener, api_address) = listen().await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&seen);
        let api = axum::Router::new().fallback(async move |uri: Uri, headers: HeaderMap, body| {
            let switches = uri.path() == "/switch";
            keep.lock().unwrap().push(Seen { headers, uri, body });
            if switches {
                let fields = [("connection", "upgrade"), ("upgrade", "websocket")];
                return (StatusCode::SWITCHING_PROTOCOLS, fields, "tunnel").into_response();
            }
            "the order".into_response()
        });
        tokio::spawn(async move { axum::serve(listener, api).await });

        let nginx = Nginx::start(server_address, api_address).await;
        let client = Client::builder().no_proxy().unix_socket(nginx.socket()).build().unwrap();
        Self { server, nginx, client, introspections, asked, seen }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(url(path))
    }

    async fn orders(&self, token: &str) -> Reply {
        reply(self.get("/orders").bearer_auth(token)).await
    }

    fn introspections(&self) -> usize {
        self.introspections.load(Ordering::SeqCst)
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    async fn session(&self) -> Session {
        self.server.session("web-app").await
    }
}

/// Where a request goes to is the socket's matter.
fn url(path: &str) -> String {
    format!("http://api.example{path}")
}

async fn reply(request: RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    Reply {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await.unwrap(),
    }
}

#[track_caller]
fn assert_refused(reply: &Reply, challenge: &str) {
    assert_eq!((reply.status, reply.header("www-authenticate")), (401, challenge), "{reply:?}");
}

const MINUTE: Duration = Duration::from_secs(60);
const INVALID: &str = "Bearer error=\"invalid_token\"";

/// What a client wants, which reaches the API.
const PASSED: &[&str] = &[
    "accept-language",
    "content-type",
    "idempotency-key",
    "if-none-match",
    "range",
    "traceparent",
    "x-requested-with",
];

/// What a client says of itself.
const DROPPED: &[&str] = &[
    "role",
    "sub",
    "scope",
    "tenant",
    "client-id",
    "jwt",
    "id-token",
    "x-user",
    "x-forwarded-for",
    "x-real-ip",
    "x-original-url",
    "forwarded",
    "remote-user",
    "proxy",
    "a-word-of-the-apis-own",
];

/// A server that closes a kept connection just as the next request arrives.
#[tokio::test]
async fn a_kept_connection_that_is_closed_costs_no_request() {
    let (server, server_address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = server.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let mut seen = 0;
                // A request ends with the name of the API.
                while !request[..seen].ends_with(b"orders.example") {
                    match stream.read(&mut request[seen..]).await {
                        Ok(read) if read > 0 => seen += read,
                        _ => return,
                    }
                }
                let jwt = "HTTP/1.1 200 OK\r\ncontent-type: application/jwt\r\n\
                           content-length: 12\r\n\r\ne30.e30.c2ln";
                stream.write_all(jwt.as_bytes()).await.unwrap();
                let _ = stream.read(&mut request).await;
            });
        }
    });
    let (api, api_address) = listen().await;
    let router = axum::Router::new().fallback(async || "the order");
    tokio::spawn(async move { axum::serve(api, router).await });
    let nginx = Nginx::start(server_address, api_address).await;
    let client = Client::builder().no_proxy().unix_socket(nginx.socket()).build().unwrap();
    for number in 0..6 {
        let request = client.get(url("/orders")).bearer_auth(format!("cr_at_{number}"));
        assert_eq!(reply(request).await.ok().text(), "the order", "{number}");
    }
}

/// RFC 9110 §7.8: behind a 101 that nobody asked for, a client could send requests that nginx does not
/// see.
#[tokio::test]
async fn a_switch_of_protocols_is_not_relayed() {
    let scene = Scene::new(|endpoints| endpoints).await;
    let session = scene.session().await;
    for fields in ["", "connection: upgrade\r\nupgrade: websocket\r\n", "upgrade: h2c\r\n"] {
        let mut client = UnixStream::connect(scene.nginx.socket()).await.unwrap();
        let request = format!(
            "GET /switch HTTP/1.1\r\nhost: api.example\r\n{fields}authorization: Bearer {}\r\n\r\n",
            session.access
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer).await;
        assert!(!answer.contains("101") && !answer.contains("tunnel"), "{fields:?}: {answer}");
        let Seen { headers, .. } = scene.seen().remove(0);
        assert!(!headers.contains_key("upgrade"), "{headers:?}");
    }
    // And the next request is served as ever.
    scene.orders(&session.access).await.ok();
}

#[tokio::test]
async fn the_api_gets_a_jwt_and_never_the_handle() {
    let scene = Scene::new(|endpoints| endpoints.cache_swapped(MINUTE)).await;
    let session = scene.session().await;
    let large = "x".repeat(300_000);
    let posted = scene.client.post(url("/orders?page=2"));
    let mut posted = posted.bearer_auth(&session.access).body(large.clone());
    for name in PASSED.iter().chain(DROPPED) {
        posted = posted.header(*name, "the client's");
    }
    assert_eq!(reply(posted).await.ok().text(), "the order");
    assert_eq!(scene.orders(&session.access).await.ok().text(), "the order");

    let seen = scene.seen();
    assert_eq!(seen.len(), 2);
    let keys = scene.server.keys().await;
    for Seen { headers, uri, body } in &seen {
        let values: Vec<_> = headers.get_all("authorization").iter().collect();
        let [value] = values[..] else { panic!("{values:?}") };
        let jwt = value.to_str().unwrap().strip_prefix("Bearer ").unwrap();
        let verified = scene.server.verifier(ORDERS).verify(&keys, jwt).unwrap();
        assert_eq!(verified.token.subject.unwrap().id(), "alice");
        let all = format!("{headers:?} {uri} {body:?}");
        assert!(!all.contains(&session.access) && !all.contains("cr_at_"), "{headers:?}");
        assert!(!all.contains("Basic"), "{headers:?}");
    }
    assert_eq!((&*seen[0].uri.to_string(), &*seen[0].body), ("/orders?page=2", large.as_bytes()));
    let headers = &seen[0].headers;
    for name in PASSED {
        assert_eq!(headers.get_all(*name).iter().collect::<Vec<_>>(), ["the client's"], "{name}");
    }
    for name in DROPPED {
        assert!(!headers.contains_key(*name), "{name}: {headers:?}");
    }
    assert_eq!(headers["content-length"], "300000");
    assert!(!headers.contains_key("transfer-encoding"));
    // The server behind learns nothing of the request but its handle.
    let asked = format!("{:?}", scene.asked.lock().unwrap().remove(0));
    assert!(!asked.contains("the client's") && !asked.contains("cr_at_"), "{asked}");
    let cached = scene.nginx.cached();
    assert!(cached.contains("application/jwt"), "it is what was cached");
    assert!(!cached.contains(&session.access));
    let log = scene.nginx.log();
    assert!(!log.contains("cr_at_") && !log.contains("eyJ"), "{log}");
}

#[tokio::test]
async fn what_a_client_makes_up_does_not_get_through() {
    let scene = Scene::new(|endpoints| endpoints.cache_swapped(MINUTE)).await;
    let jwt = scene.server.client_token("batch-job", &[]).await;
    let session = scene.session().await;
    let swapped = scene
        .server
        .issuer()
        .swap(&TokenSecret::new(session.access.as_str()), Some(ORDERS), Caller::Internal)
        .await
        .unwrap()
        .unwrap();
    let other = scene.server.client_token("web-app", &[("resource", BILLING)]).await;
    for (what, token) in [
        ("a JWT of its own", jwt.as_str()),
        ("a JWT from the inside", swapped.jwt.expose()),
        ("junk", "junk"),
        ("a forged handle", "cr_at_forged"),
        ("a refresh token", &session.refresh),
        ("a handle for another API", &other),
    ] {
        let reply = scene.orders(token).await;
        assert_refused(&reply, INVALID);
        assert!(scene.seen().is_empty(), "{what}");
    }
    let before = scene.introspections();
    for header in [
        "",
        "Basic d2ViLWFwcDpzZWNyZXQ=",
        "Bearer",
        "Bearer ",
        &format!("Bearer {} {}", session.access, session.access),
        &format!("Bearer {}&resource=https://billing.example", session.access),
        &format!("Bearer {}%26", session.access),
        &format!("Bearer {}+", session.access),
    ] {
        let reply = reply(scene.get("/orders").header("authorization", header)).await;
        assert_refused(&reply, "Bearer");
    }
    assert_refused(&reply(scene.get("/orders")).await, "Bearer");
    for inside in ["/_phantom", "/_introspect"] {
        assert_eq!(reply(scene.get(inside).bearer_auth(&session.access)).await.status, 404);
    }
    assert_eq!(scene.introspections(), before, "there is nothing to ask about");
    assert!(scene.seen().is_empty());
}

#[tokio::test]
async fn a_cached_swap_asks_nobody() {
    let scene = Arc::new(Scene::new(|endpoints| endpoints.cache_swapped(MINUTE)).await);
    let (one, two) = (scene.session().await, scene.session().await);
    // Many at once, and each handle is asked about once.
    let mut requests = JoinSet::new();
    for number in 0..50 {
        let (scene, token) = (Arc::clone(&scene), [&one, &two][number % 2].access.clone());
        requests.spawn(async move { scene.orders(&token).await.ok() });
    }
    while let Some(reply) = requests.join_next().await {
        reply.unwrap();
    }
    assert_eq!(scene.introspections(), 2);
    let seen = scene.seen();
    assert_eq!(seen.len(), 50);
    let jwts: std::collections::HashSet<_> =
        seen.iter().map(|seen| seen.headers["authorization"].clone()).collect();
    assert_eq!(jwts.len(), 2, "each handle has its own");
    for _ in 0..10 {
        scene.orders(&one.access).await.ok();
    }
    assert_eq!(scene.introspections(), 2);
}

#[tokio::test]
async fn where_nothing_may_be_cached_a_revoked_handle_is_refused_at_once() {
    let scene = Scene::new(|endpoints| endpoints).await;
    let session = scene.session().await;
    for number in 1..4 {
        scene.orders(&session.access).await.ok();
        assert_eq!(scene.introspections(), number);
    }
    scene.server.ask("web-app", "/revoke", &[("token", &session.refresh)]).await.ok();
    scene.seen();
    for _ in 0..3 {
        assert_refused(&scene.orders(&session.access).await, INVALID);
    }
    assert_eq!(scene.introspections(), 6);
    assert!(scene.seen().is_empty());
    assert!(!scene.nginx.cached().contains("application/jwt"));
}

#[tokio::test]
async fn an_outage_is_503_and_no_verdict() {
    let scene = Scene::new(|endpoints| endpoints.cache_swapped(MINUTE)).await;
    let (known, unknown) = (scene.session().await, scene.session().await);
    scene.orders(&known.access).await.ok();
    scene.server.store.tokens_down(true);
    let reply = scene.orders(&unknown.access).await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, "1"), "{reply:?}");
    assert_eq!(reply.header("cache-control"), "no-store");
    assert_eq!(reply.header("www-authenticate"), "");
    // What is cached lives on, as long as it may.
    scene.orders(&known.access).await.ok();
    assert_eq!(scene.seen().len(), 2);
    scene.server.store.tokens_down(false);
    scene.orders(&unknown.access).await.ok();
}
