//! An authorization server to ask.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom::core::handle::{HandleKeys, HandleSecret};
use cloakroom::core::time::{ManualClock, UnixTime};
use cloakroom::core::{Audience, ClientId, TokenSecret};
use cloakroom::http::Endpoints;
use cloakroom::jwt::{AesGcmSealer, JwkSet, KeySet, Verifier};
use cloakroom::{
    ApprovedRequest, Client, ClientBuilder, Format, Grant, GrantType, Issuer, IssuerBuilder, Pkce,
    Role, Serves,
};
use http::{Request, Uri};
use tokio::net::TcpListener;

use super::faulty_store::FaultyStore;
use super::request::{Reply, With, get, post};

pub(super) const ISSUER: &str = "https://as.example";
/// The default resource: phantom tokens for the apps, JWTs for the batch job.
pub(super) const ORDERS: &str = "https://orders.example";
/// Opaque tokens.
pub(super) const BILLING: &str = "https://billing.example";
pub(super) const SECRET: &str = "a-secret-of-the-http-tests-0123456789";
pub(super) const REDIRECT: &str = "https://app.example/callback";
/// The pair of RFC 7636 appendix B.
pub(super) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub(super) const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
/// Half a second past a whole one, so that rounding shows.
pub(super) const START: UnixTime = UnixTime::from_millis(1_760_000_000_500);

/// The clients: `web-app`, `other-app` and `odd: 100%+` are confidential and `spa-app` is public;
/// `oidc-app` may do without PKCE; `batch-job` gets JWTs; `orders-api`, `billing-api` and `gateway` are resource servers; `follower`
/// may follow the revocation log, and `edge` may have the handle keys.
fn clients() -> Vec<Client> {
    let app = |client: ClientBuilder| {
        client
            .grant_types([GrantType::AuthorizationCode, GrantType::RefreshToken])
            .redirect_uri(REDIRECT)
            .scope("orders:read orders:write")
            .audience(ORDERS, Format::Phantom)
            .audience(BILLING, Format::Opaque)
    };
    let confidential = |id: &str, secret| {
        app(Client::confidential(id, secret)).grant_types([GrantType::ClientCredentials])
    };
    let serves = |id: &str, serves| Client::resource_server(id, SECRET, serves);
    let only = |resource| Serves::Only(Audience::one(resource).unwrap());
    let clients = [
        confidential("web-app", SECRET),
        confidential("other-app", SECRET),
        confidential("oidc-app", SECRET).without_pkce(),
        confidential("odd: 100%+", ODD_SECRET),
        app(Client::public("spa-app")),
        Client::confidential("batch-job", SECRET)
            .grant_types([GrantType::ClientCredentials])
            .scope("orders:read")
            .audience(ORDERS, Format::Jwt),
        serves("orders-api", only(ORDERS)),
        serves("billing-api", only(BILLING)),
        serves("gateway", Serves::Everything),
        Client::confidential("follower", SECRET).role(Role::RevocationLog),
        Client::confidential("edge", SECRET).role(Role::HandleKeys),
    ];
    clients.map(|client| client.build().unwrap()).into()
}

/// The secret of `odd: 100%+`: whoever forgets to form-encode it sends another one.
pub(super) const ODD_SECRET: &str = "p%41ss+word:&=0123456789";

pub(super) struct Server {
    pub(super) endpoints: Endpoints,
    pub(super) clock: Arc<ManualClock>,
    pub(super) store: Arc<FaultyStore>,
}

impl Server {
    pub(super) async fn new() -> Self {
        Self::with(|issuer| issuer).await
    }

    /// With some settings of the test's own.
    pub(super) async fn with(settings: impl FnOnce(IssuerBuilder) -> IssuerBuilder) -> Self {
        let clock = Arc::new(ManualClock::at(START));
        let store = FaultyStore::new(clock.clone());
        let builder = Issuer::builder(ISSUER)
            .store(store.clone())
            .handle_keys(HandleKeys::new(&HandleSecret::new(1, [1; 32])))
            .sealer(Arc::new(AesGcmSealer::new(1, [2; 32])))
            .clock(clock.clone())
            .static_clients(clients())
            .unwrap();
        Self { endpoints: Endpoints::new(settings(builder).build().await.unwrap()), clock, store }
    }

    /// With other endpoints over the same issuer.
    pub(super) fn mounted(mut self, mount: impl FnOnce(Endpoints) -> Endpoints) -> Self {
        self.endpoints = mount(self.endpoints);
        self
    }

    pub(super) fn issuer(&self) -> &Issuer {
        self.endpoints.issuer()
    }

    /// Asks the handlers, without a socket.
    pub(super) async fn send(&self, request: Request<Bytes>) -> Reply {
        self.endpoints.handle(request).await.into()
    }

    /// Asks as an authenticated client.
    pub(super) async fn ask(&self, client: &str, path: &str, form: &[(&str, &str)]) -> Reply {
        self.send(post(path, form).basic(client, SECRET)).await
    }

    pub(super) async fn introspect(&self, caller: &str, token: &str) -> Reply {
        self.ask(caller, "/introspect", &[("token", token)]).await
    }

    /// Alice signs in at a client, with all that it may have by default.
    pub(super) async fn session(&self, client: &str) -> Session {
        self.session_of(Grant::user(client, "alice").unwrap()).await
    }

    pub(super) async fn session_of(&self, grant: Grant) -> Session {
        let response = self.issuer().issue(grant).await.unwrap();
        Session {
            access: response.access_token.expose().to_owned(),
            refresh: response.refresh_token.unwrap().expose().to_owned(),
        }
    }

    /// A code for a client, as the app's authorization endpoint makes it.
    pub(super) async fn code(&self, client: &str) -> String {
        let grant = Grant::user(client, "alice").unwrap();
        let pkce = Some(Pkce::s256(CHALLENGE).unwrap());
        let code: TokenSecret = self
            .issuer()
            .authorize(ApprovedRequest::new(grant, REDIRECT).pkce(pkce))
            .await
            .unwrap();
        code.expose().to_owned()
    }

    /// A code for `oidc-app`, without PKCE.
    pub(super) async fn code_without_pkce(&self) -> String {
        let grant = Grant::user("oidc-app", "alice").unwrap();
        let code = self.issuer().authorize(ApprovedRequest::new(grant, REDIRECT)).await;
        code.unwrap().expose().to_owned()
    }

    /// The client credentials of a client, as a token.
    pub(super) async fn client_token(&self, client: &str, more: &[(&str, &str)]) -> String {
        let form = [&[("grant_type", "client_credentials")], more].concat();
        self.ask(client, "/token", &form).await.ok().member("access_token")
    }

    /// The keys that it publishes, prepared.
    pub(super) async fn keys(&self) -> KeySet {
        let document = self.send(get("/.well-known/jwks.json")).await.ok();
        KeySet::prepare(&JwkSet::from_json(&document.body).unwrap())
    }

    /// A verifier, as an API has it.
    pub(super) fn verifier(&self, audience: &str) -> Verifier {
        Verifier::new(self.issuer().url(), audience).clock(self.clock.clone())
    }

    pub(super) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// The tokens of one session.
pub(super) struct Session {
    pub(super) access: String,
    pub(super) refresh: String,
}

/// A server on a socket of 127.0.0.1, and a client that talks to it.
pub(super) struct Wire {
    pub(super) server: Server,
    pub(super) address: SocketAddr,
    client: reqwest::Client,
}

impl Wire {
    /// Serves under an issuer of its own address and this path.
    pub(super) async fn at(path: &str, mount: impl FnOnce(Endpoints) -> Endpoints) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://{address}{path}");
        let server = Server::with(|issuer| issuer.url(url)).await.mounted(mount);
        let app = axum::Router::new().merge(server.endpoints.clone().router());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { server, address, client: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    pub(super) async fn new() -> Self {
        Self::at("", |endpoints| endpoints).await
    }

    /// Sends a request; one whose URI is a path alone goes to this server.
    pub(super) async fn send(&self, mut request: Request<Bytes>) -> Reply {
        if request.uri().authority().is_none() {
            let uri = format!("http://{}{}", self.address, request.uri());
            *request.uri_mut() = uri.parse::<Uri>().unwrap();
        }
        let request = request.map(reqwest::Body::from);
        let response = self.client.execute(request.try_into().unwrap()).await.unwrap();
        Reply {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await.unwrap(),
        }
    }
}

pub(super) fn client_id(id: &str) -> ClientId {
    ClientId::new(id).unwrap()
}
