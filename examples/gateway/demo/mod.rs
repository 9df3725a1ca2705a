//! The gateway at work, on sockets of this machine: what a client sees, and what the API gets.

mod services;

use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::StatusCode;
use clap::Parser as _;
use cloakroom::{Grant, Issuer, Subject};
use futures_util::{SinkExt, StreamExt};
use http_body_util::channel::{Channel, Sender};
use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::{Gateway, Outcome, Settings};
use services::{Api, authorization_server};

/// The name of the API in the tokens' `aud`, not its address.
const ORDERS: &str = "https://orders.example";
const SECRET: &str = "gateway-demo-secret-0123456789";
const MIB: usize = 1024 * 1024;
/// The size of the upload and of the download, in MiB.
const MUCH: usize = 32;

/// Prints what happens.
macro_rules! note {
    ($($text:tt)*) => { println!("   {}", format_args!($($text)*)) };
}

pub(crate) async fn play() -> Outcome<()> {
    let issuer = authorization_server().await?;
    let api = Api::start(&issuer).await?;
    // As from a command line, so that what is shown is what is configured.
    let flags = ["gateway", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let more = ["--issuer", issuer.url(), "--audience", ORDERS, "--service", &api.url];
    let settings = Settings::try_parse_from(flags.into_iter().chain(more))?;
    let gateway = Gateway::start(&settings, SECRET.to_owned()).await?;
    note!("authorization server  {}", issuer.url());
    note!("API                   {}", api.url);
    note!("gateway               http://{}", gateway.address);
    note!("its admin port        http://{}", gateway.admin);

    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
    let demo = Demo { issuer, api, gateway, http };
    demo.session().await?;
    println!("\ngateway: ok");
    Ok(())
}

struct Demo {
    issuer: Issuer,
    api: Api,
    gateway: Gateway,
    http: reqwest::Client,
}

impl Demo {
    async fn session(mut self) -> Outcome<()> {
        let alice = self.sign_in("alice").await?;
        self.plain(&alice).await?;
        self.forged(&alice).await?;
        self.unknown().await?;
        self.websocket(&alice).await?;
        self.upload(&alice).await?;
        self.download(&alice).await?;
        self.many(&alice).await?;
        self.revoked(&alice).await?;
        self.metrics().await?;
        self.end().await
    }

    async fn sign_in(&self, user: &str) -> Outcome<String> {
        let grant = Grant::user("web-app", user)?.scope("orders:read")?;
        Ok(self.issuer.issue(grant).await?.access_token.expose().to_owned())
    }

    async fn plain(&self, handle: &str) -> Outcome<()> {
        println!("\n1. A request with a handle");
        note!("The client sends  Bearer {}", short(handle));
        let seen = self.seen(self.get("/orders", handle)).await?;
        note!("The API gets      {}", seen["bearer"]);
        note!("and verifies it:  sub is {}", seen["verified"]["sub"]);
        ensure(seen["bearer"].as_str().is_some_and(|it| it.starts_with("Bearer eyJ")), "a JWT")?;
        ensure(seen["verified"]["sub"] == "alice", "it is Alice's")
    }

    async fn forged(&self, handle: &str) -> Outcome<()> {
        println!("\n2. A client that forges header fields");
        let request = self.get("/orders", handle);
        let request = request.header("x-user", "root").header("x-forwarded-for", "10.0.0.1");
        let seen = self.seen(request).await?;
        note!("The client sends  x-user: root, x-forwarded-for: 10.0.0.1");
        note!("The API gets      x-user: {}", seen["x-user"]);
        note!("                  x-forwarded-for: {}", seen["x-forwarded-for"]);
        note!("                  forwarded: {}", seen["forwarded"]);
        ensure(seen["x-user"].is_null(), "the lie is gone")?;
        ensure(seen["x-forwarded-for"] == "127.0.0.1", "the gateway says who is calling")
    }

    async fn unknown(&self) -> Outcome<()> {
        println!("\n3. No handle, and a forged one");
        let none = self.http.get(self.url("/orders"));
        expect(&none.send().await?, StatusCode::UNAUTHORIZED)?;
        let made_up = self.get("/orders", "cr_at_made-up");
        expect(&made_up.send().await?, StatusCode::UNAUTHORIZED)
    }

    async fn websocket(&self, handle: &str) -> Outcome<()> {
        println!("\n4. A WebSocket");
        let address = self.gateway.address;
        let mut request = format!("ws://{address}/live").into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {handle}").parse()?);
        let (mut socket, answer) =
            client_async(request, TcpStream::connect(address).await?).await?;
        note!("GET /live          {}", answer.status());
        for text in ["Is anybody there?", "Good night."] {
            socket.send(Message::text(text)).await?;
            let echo = socket.next().await.ok_or("it says nothing")??.into_text()?;
            note!("{text:<18} {echo}");
            ensure(echo == text, "it is said back")?;
        }
        Ok(socket.close(None).await?)
    }

    async fn upload(&mut self, handle: &str) -> Outcome<()> {
        println!("\n5. {MUCH} MiB up: the first arrives before the last is sent");
        let (mut sender, body) = Channel::<Bytes>::new(1);
        let request = self.http.put(self.url("/photos")).bearer_auth(handle);
        let answer = tokio::spawn(request.body(reqwest::Body::wrap(body)).send());
        sender.send_data(piece()).await?;
        let arrived = *self.api.arrived.wait_for(|arrived| *arrived >= MIB).await?;
        note!("At the API so far: {arrived} bytes. Now the client continues.");
        let sent = pour(sender, MUCH - 1);
        let (answer, ()) = tokio::join!(answer, sent);
        let text = answer??.error_for_status()?.text().await?;
        note!("The API got:       {text}");
        let mut whole = Sha256::new();
        (0..MUCH).for_each(|_| whole.update(piece()));
        ensure(text == format!("{} {}", MUCH * MIB, hex(whole)), "all of it, as it was sent")
    }

    async fn download(&self, handle: &str) -> Outcome<()> {
        println!("\n6. {MUCH} MiB down");
        let mut answer = self.get(&format!("/photos/{MUCH}"), handle).send().await?;
        let (mut digest, mut whole, mut length) = (Sha256::new(), Sha256::new(), 0);
        while let Some(data) = answer.chunk().await? {
            length += data.len();
            digest.update(data);
        }
        (0..MUCH).for_each(|_| whole.update(piece()));
        note!("The client got:    {length} bytes");
        ensure(hex(digest) == hex(whole), "all of it, as it was sent")
    }

    async fn many(&self, handle: &str) -> Outcome<()> {
        println!("\n7. 500 more requests, one after the other");
        let (before, began) = (self.api.connections(), Instant::now());
        for _ in 0..500 {
            self.get("/orders", handle).send().await?.error_for_status()?;
        }
        let opened = self.api.connections() - before;
        note!("They took {:?} and {opened} new connections to the API.", began.elapsed());
        ensure(opened <= 1, "connections are used again")
    }

    async fn revoked(&self, handle: &str) -> Outcome<()> {
        println!("\n8. Alice logs out everywhere");
        let bob = self.sign_in("bob").await?;
        self.issuer.revoke_subject(&Subject::user("alice")?).await?;
        let (began, mut let_in) = (Instant::now(), 0);
        // The gateway remembers her JWT, and learns of the revocation through the log.
        while self.get("/orders", handle).send().await?.status() != StatusCode::UNAUTHORIZED {
            let_in += 1;
            ensure(began.elapsed() < Duration::from_secs(30), "the gateway hears of it")?;
        }
        note!("The gateway refuses her {:?} later, after {let_in} requests.", began.elapsed());
        expect(&self.get("/orders", &bob).send().await?, StatusCode::OK)
    }

    async fn metrics(&self) -> Outcome<()> {
        println!("\n9. What the operator sees");
        let admin = format!("http://{}", self.gateway.admin);
        let ready = self.http.get(format!("{admin}/ready")).send().await?;
        note!("/ready             {}", ready.status());
        let text = self.http.get(format!("{admin}/metrics")).send().await?.text().await?;
        let wanted = ["gateway_requests", "gateway_connections", "cloakroom_"];
        let told = |line: &&str| wanted.iter().any(|name| line.starts_with(name));
        for line in text.lines().filter(told) {
            note!("{line}");
        }
        ensure(text.contains("gateway_requests_total{method=\"GET\",status=\"401\"} "), "a count")
    }

    async fn end(self) -> Outcome<()> {
        println!("\n10. The gateway shuts down while an answer is in progress");
        let carol = self.sign_in("carol").await?;
        let mut answer = self.get(&format!("/photos/{MUCH}"), &carol).send().await?;
        let mut length = answer.chunk().await?.map_or(0, |data| data.len());
        let (address, url) = (self.gateway.address, self.url("/orders"));
        let ended = tokio::spawn(self.gateway.stop(Duration::ZERO));
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        note!("It accepts no new connections.");
        while let Some(data) = answer.chunk().await? {
            length += data.len();
        }
        note!("The answer was completed: {length} bytes.");
        ensure(length == MUCH * MIB, "nothing is cut off")?;
        ended.await??;
        ensure(self.http.get(url).send().await.is_err(), "it has ended")
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address)
    }

    fn get(&self, path: &str, handle: &str) -> RequestBuilder {
        self.http.get(self.url(path)).bearer_auth(handle)
    }

    /// What the API reports about a request.
    async fn seen(&self, request: RequestBuilder) -> Outcome<Value> {
        let answer = request.send().await?.error_for_status()?;
        Ok(serde_json::from_str(&answer.text().await?)?)
    }
}

/// Prints the status and the challenge of an answer.
fn expect(answer: &Response, expected: StatusCode) -> Outcome<()> {
    let challenge = answer.headers().get("www-authenticate").map(|value| value.to_str());
    note!("{}  {}", answer.status(), challenge.transpose()?.unwrap_or_default());
    ensure(answer.status() == expected, &format!("the answer is {expected}"))
}

fn ensure(holds: bool, what: &str) -> Outcome<()> {
    holds.then_some(()).ok_or_else(|| format!("it does not hold: {what}").into())
}

/// One MiB of data.
fn piece() -> Bytes {
    (0..=u8::MAX).collect::<Vec<_>>().repeat(MIB / 256).into()
}

/// Sends this many of them, as fast as the receiver reads.
async fn pour(mut sender: Sender<Bytes>, pieces: usize) {
    for _ in 0..pieces {
        if sender.send_data(piece()).await.is_err() {
            return;
        }
    }
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Enough of a token to recognize it, and too little to use it.
fn short(token: &str) -> String {
    match (token.get(..14), token.get(token.len().saturating_sub(4)..)) {
        (Some(start), Some(end)) if token.len() > 40 => format!("{start}…{end}"),
        _ => token.to_owned(),
    }
}
