//! No secret leaves its wrapper: not into a store, not into a trace, not into an event or an error.

use std::io::Write;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloakroom::core::format::*;
use cloakroom::core::handle::*;
use cloakroom::core::record::*;
use cloakroom::core::*;
use cloakroom::http::{Endpoints, Form};
use cloakroom::jwt::danger::Hs256Key;
use cloakroom::jwt::{AesGcmSealer, Algorithm, KeySealer, SealError, SigningKey};
use cloakroom::{
    AdoptRequest, Caller, Client, Grant, Issuer, RefreshRequest, SecretHash, StaticClients,
};
use tracing_subscriber::filter::LevelFilter;
use zeroize::Zeroizing;

use super::support::*;

/// Every spelling under which a secret could be found.
struct Secret {
    name: String,
    spellings: Vec<Vec<u8>>,
}

impl Secret {
    fn bytes(name: &str, bytes: &[u8]) -> Self {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = format!("{bytes:?}");
        let spellings = vec![
            bytes.to_vec(),
            URL_SAFE_NO_PAD.encode(bytes).into_bytes(),
            STANDARD.encode(bytes).trim_end_matches('=').into(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
            // As `{:?}` prints an array, and JSON a list; without the brackets, as a part of it.
            list[1..list.len() - 1].into(),
            list[1..list.len() - 1].replace(' ', "").into_bytes(),
        ];
        Self { name: name.to_owned(), spellings }
    }

    fn text(name: &str, text: &str) -> Self {
        Self::bytes(name, text.as_bytes())
    }

    /// A handle as a whole, what follows its prefix, and the random bytes in it.
    fn handle(name: &str, token: &TokenSecret) -> Vec<Self> {
        let body = &token.expose()[6..];
        let decoded = URL_SAFE_NO_PAD.decode(body).unwrap();
        let random = if token.expose().starts_with("cr_at_") { 18..42 } else { 22..46 };
        vec![
            Self::text(&format!("{name}: its body"), body),
            Self::bytes(&format!("{name}: decoded"), &decoded),
            Self::bytes(&format!("{name}: its random bytes"), &decoded[random]),
        ]
    }

    /// A JWT as a whole, and its signature, without which the rest is no token.
    fn jwt(name: &str, token: &TokenSecret) -> Vec<Self> {
        let (_, signature) = token.expose().rsplit_once('.').unwrap();
        let decoded = URL_SAFE_NO_PAD.decode(signature).unwrap();
        vec![
            Self::text(name, token.expose()),
            Self::bytes(&format!("{name}: its signature"), &decoded),
        ]
    }

    fn is_in(&self, haystack: &[u8]) -> bool {
        self.spellings
            .iter()
            .any(|spelling| haystack.windows(spelling.len()).any(|window| window == spelling))
    }
}

#[track_caller]
fn holds_none(haystack: &[u8], secrets: &[Secret], place: &str) {
    for secret in secrets {
        let shown = String::from_utf8_lossy(haystack);
        assert!(!secret.is_in(haystack), "{} is in {place}: {shown}", secret.name);
    }
}

/// Seals like [`AesGcmSealer`], and remembers which private keys it saw.
#[derive(Debug)]
struct SpyingSealer(AesGcmSealer, Mutex<Vec<Vec<u8>>>);

#[async_trait]
impl KeySealer for SpyingSealer {
    async fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        self.1.lock().unwrap().push(plain.to_vec());
        self.0.seal(context, plain).await
    }
    async fn unseal(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.0.unseal(context, sealed).await
    }
}

/// Everything that is traced, of every level.
#[derive(Clone, Default)]
struct Trace(Arc<Mutex<Vec<u8>>>);

impl Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A format for tokens of a former system.
#[derive(Debug)]
struct Legacy;

#[async_trait]
impl TokenFormat for Legacy {
    async fn mint(&self, _: MintContext<'_>) -> Result<Minted, FormatError> {
        Err(FormatError::Other("none is made any more".into()))
    }
    fn locate(&self, presented: &TokenSecret) -> Result<Option<Located>, FormatError> {
        let token = presented.expose().as_bytes();
        let digest = TokenDigest::compute(TokenKind::Access, token);
        let (kind, grant) = (TokenKind::Access, GrantId::from_digest(&digest));
        Ok(token.starts_with(b"legacy-").then_some(Located::new(kind, grant, digest)))
    }
}

const LEGACY: &str = "legacy-0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// A whole life: everything that can be called, also what is refused. Returns what must not be
/// found, and the errors that were shown.
async fn story(fixture: &Fixture) -> (Vec<Secret>, String) {
    let issuer = &fixture.issuer;
    let mut secrets = vec![
        Secret::text("the client's secret", CLIENT_SECRET),
        Secret::text("the PKCE verifier", VERIFIER),
        Secret::text("the legacy token", LEGACY),
    ];
    let mut errors = String::new();
    let mut refused = |error: cloakroom::TokenError| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        errors += &format!("{error} {error:?} {source:?}\n");
    };
    let client = client_id("web-app");

    let code = fixture.code().await;
    let wrong = redemption(&code).redirect_uri(format!("{CALLBACK}/"));
    refused(issuer.redeem(wrong).await.unwrap_err());
    let session = Session::of(fixture.redeem(&code).await.unwrap());
    let lost = Session::of(fixture.refresh(&session.refresh).await.unwrap());
    let retried = Session::of(fixture.refresh(&session.refresh).await.unwrap());
    let last = Session::of(fixture.refresh(&retried.refresh).await.unwrap());
    let issued = fixture.session().await;
    let Session { access: jwt, refresh: beside_the_jwt } =
        Session::of(fixture.token_for(JOBS).await);
    let legacy = TokenSecret::new(LEGACY);
    let grant = Grant::user("web-app", "alice").unwrap();
    issuer.adopt(AdoptRequest::new(legacy.clone(), grant, START..START + HOUR)).await.unwrap();
    let swapped = issuer.swap(&last.access, Some(ORDERS), Caller::Internal).await.unwrap();
    let gateway = fixture.client("gateway").await;
    for token in [&last.access, &last.refresh, &code, &jwt, &legacy, &tampered(&jwt, 300)] {
        issuer.introspect(token, Caller::Client(&gateway)).await.unwrap();
    }
    let foreign = issuer.revoke(&last.access, &client_id("other-app")).await;
    refused(foreign.unwrap_err());
    for token in [&session.access, &jwt, &legacy] {
        issuer.revoke(token, &client).await.unwrap();
    }
    fixture.clock.advance(HOUR);
    refused(fixture.refresh(&session.refresh).await.unwrap_err());
    refused(fixture.redeem(&code).await.unwrap_err());
    issuer.revoke(&last.refresh, &client).await.unwrap();
    issuer.revoke_subject(&alice()).await.unwrap();
    issuer.sessions(&alice()).await.unwrap();
    fixture.store.tokens_down(true);
    refused(issuer.introspect(&last.access, Caller::Internal).await.unwrap_err());
    refused(fixture.refresh(&last.refresh).await.unwrap_err());
    fixture.store.tokens_down(false);
    issuer.rotate_keys().await.unwrap();
    let kid = issuer.keys().signer().await.unwrap().kid().clone();
    issuer.compromise_key(&kid).await.unwrap();
    fixture.clock.advance(100 * DAY);
    issuer.maintain().await.unwrap();

    for (name, token) in [
        ("the code", &code),
        ("an access token that was issued at once", &issued.access),
        ("its refresh token", &issued.refresh),
        ("the refresh token beside a JWT", &beside_the_jwt),
        ("the first access token", &session.access),
        ("the first refresh token", &session.refresh),
        ("the access token that was lost", &lost.access),
        ("its retry", &retried.access),
        ("the successor", &retried.refresh),
        ("the last access token", &last.access),
        ("the last refresh token", &last.refresh),
    ] {
        secrets.extend(Secret::handle(name, token));
    }
    secrets.extend(Secret::jwt("the JWT", &jwt));
    secrets.extend(Secret::jwt("the phantom JWT", &swapped.unwrap().jwt));
    (secrets, errors)
}

#[tokio::test]
async fn no_secret_reaches_a_store_a_trace_an_event_or_an_error() {
    let trace = Trace::default();
    let writer = trace.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let sealer = Arc::new(SpyingSealer(AesGcmSealer::new(1, [2; 32]), Mutex::default()));
    let fixture =
        Fixture::with(|builder| builder.sealer(sealer.clone()).format("legacy", Arc::new(Legacy)))
            .await;
    let (mut secrets, errors) = story(&fixture).await;
    // The private scalar of each P-256 key: what follows `INTEGER 1, OCTET STRING of 32`.
    let keys = sealer.1.lock().unwrap().clone();
    assert!(keys.len() >= 3);
    for key in keys {
        let head = [2, 1, 1, 4, 32];
        let at = key.windows(5).position(|window| window == head).unwrap() + 5;
        secrets.push(Secret::bytes("a private key", &key[at..at + 32]));
    }
    secrets.push(Secret::bytes("the handle secret", &[1; 32]));
    secrets.push(Secret::bytes("the key-encryption key", &[2; 32]));

    let calls = fixture.store.seen();
    for method in [
        "create",
        "find",
        "advance",
        "revoke",
        "rules",
        "list",
        "maintain",
        "keys.update",
        "keys.insert",
        "keys.delete",
    ] {
        assert!(calls.iter().any(|call| call.method == method), "{method} was not called");
    }
    for call in &calls {
        holds_none(&call.arguments, &secrets, call.method);
    }
    let trace = trace.0.lock().unwrap().clone();
    let text = String::from_utf8_lossy(&trace).into_owned();
    for part in [
        "TRACE",
        "DEBUG",
        "INFO",
        "WARN",
        "a spent refresh token was presented",
        "a presented JWT was refused",
    ] {
        assert!(text.contains(part), "{part} was not traced");
    }
    holds_none(&trace, &secrets, "a trace");
    let events = [fixture.events.take(), fixture.events.refused()].concat();
    let json = serde_json::to_string(&events).unwrap();
    assert!(json.contains(r#""target":{"kind":"token","grant":"#) && !json.contains("digest"));
    holds_none(json.as_bytes(), &secrets, "an event as JSON");
    let events = format!("{events:?}");
    assert!(events.contains("Compromised"));
    holds_none(events.as_bytes(), &secrets, "an event");
    assert!(errors.lines().count() >= 6);
    holds_none(errors.as_bytes(), &secrets, "an error");
    holds_none(format!("{:?}", fixture.issuer).as_bytes(), &secrets, "the issuer");
}

#[test]
fn a_secret_that_is_there_is_found() {
    let secret = Secret::bytes("secret", &[1, 2, 3, 250]);
    for leak in ["[0, 1, 2, 3, 250, 4]", "[1,2,3,250]", "0x010203fa", "AQID-g", "010203FA"] {
        assert!(secret.is_in(leak.as_bytes()), "{leak}");
    }
    assert!(!secret.is_in(b"[1, 2, 3, 25]"));
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let random = Random::system();
    let fixture = Fixture::new().await;
    let tokens = fixture.sign_in("web-app").await;
    let refresh = tokens.refresh_token.clone().unwrap();
    let mut secrets = Secret::handle("the access token", &tokens.access_token);
    secrets.extend(Secret::handle("the refresh token", &refresh));
    secrets.push(Secret::text("the client's secret", CLIENT_SECRET));
    secrets.push(Secret::text("the PKCE verifier", VERIFIER));
    let swapped = fixture.issuer.swap(&tokens.access_token, None, Caller::Internal);
    let swapped = swapped.await.unwrap().unwrap();
    secrets.extend(Secret::jwt("the phantom JWT", &swapped.jwt));

    let raw: [u8; 32] = random.array().unwrap();
    secrets.push(Secret::bytes("raw key bytes", &raw));
    let handle_secret = HandleSecret::new(1, raw);
    let keys = HandleKeys::new(&handle_secret);
    let sealer = AesGcmSealer::new(1, raw).with_former(2, raw);
    let hs256 = Hs256Key::from_secret(Zeroizing::new(raw.to_vec())).unwrap();
    let signing = SigningKey::generate(Algorithm::EdDsa).unwrap();
    // PKCS#8 of Ed25519: the last 32 bytes are the key (RFC 8410 §7).
    let der = signing.to_pkcs8_der().unwrap();
    secrets.push(Secret::bytes("an Ed25519 key", &der[der.len() - 32..]));

    let bytes = random.array().unwrap();
    let chain_key = ChainKey::from_bytes(bytes);
    secrets.push(Secret::bytes("a chain key", &bytes));
    let grant = GrantId::random(&random).unwrap();
    let (code, _) = keys.mint_chain(ChainKind::Code, grant, 0, &chain_key, &random).unwrap();
    secrets.extend(Secret::handle("a code", &code));
    let handle = keys.parse_chain(ChainKind::Code, code.expose()).unwrap();
    let mut record = fixture.store.grant(grant_of(&refresh)).await;
    if let Some(chain) = &mut record.chain {
        chain.key = chain_key.clone();
    }
    let hash = SecretHash::of(CLIENT_SECRET).unwrap();
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(CLIENT_SECRET);
    secrets.push(Secret::bytes("the hash of the client's secret", &digest));

    let client = Client::confidential("web-app", CLIENT_SECRET).build().unwrap();
    let clients = StaticClients::new([client.clone()]).unwrap();
    let body = format!(
        "client_secret={CLIENT_SECRET}&code_verifier={VERIFIER}&token={}",
        refresh.expose()
    );
    let form = Form::parse(body.as_bytes()).unwrap();
    let builder = Issuer::builder(ISSUER)
        .handle_keys(keys.clone())
        .sealer(Arc::new(sealer.clone()))
        .static_clients([client.clone()])
        .unwrap();
    let minted = Minted::new(refresh.clone(), Persisted::Grant);
    let request = RefreshRequest::new(refresh.clone(), client_id("web-app"));
    let endpoints = Endpoints::new(fixture.issuer.clone());
    let user = Grant::user("web-app", "alice").unwrap();
    let shown: [(&str, &dyn std::fmt::Debug); 26] = [
        ("TokenSecret", &refresh),
        ("TokenResponse", &tokens),
        ("Minted", &minted),
        ("SwappedJwt", &swapped),
        ("Redeem", &redemption(&code)),
        ("Refresh", &request),
        ("Grant", &user),
        ("HandleSecret", &handle_secret),
        ("HandleKeys", &keys),
        ("OpaqueFormat", &OpaqueFormat::new(keys.clone())),
        ("ChainHandle", &handle),
        ("ChainKey", &chain_key),
        ("GrantRecord", &record),
        ("SecretHash", &hash),
        ("Client", &client),
        ("StaticClients", &clients),
        ("Form", &form),
        ("AesGcmSealer", &sealer),
        ("SigningKey", &signing),
        ("Hs256Key", &hs256),
        ("KeyManager", &fixture.issuer.keys()),
        ("IssuerBuilder", &builder),
        ("Issuer", &fixture.issuer),
        ("Endpoints", &endpoints),
        ("MemoryStore", &fixture.store.memory()),
        ("Caller", &Caller::Client(&client)),
    ];
    for (name, value) in shown {
        for text in [format!("{value:?}"), format!("{value:#?}")] {
            assert!(!text.is_empty());
            // `{:#?}` prints one element a line.
            let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
            holds_none(text.as_bytes(), &secrets, name);
            holds_none(flat.as_bytes(), &secrets, name);
        }
    }
}
