//! In headless Chromium, over its `DevTools` protocol.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::{PASSWORD, open};
use crate::Error;

/// Is set to a folder to write screenshots to, for the documentation.
const SCREENSHOTS: &str = "CLOAKROOM_SHOP_SCREENSHOTS";

/// The end of a wait for something that does not happen.
const HANGS: Duration = Duration::from_secs(120);

/// Chromium, until this is dropped.
struct Chromium {
    process: Child,
    socket: Mutex<(WebSocketStream<TcpStream>, u64)>,
    /// Its profile.
    _folder: tempfile::TempDir,
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Chromium {
    async fn start() -> Result<Self, Error> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("chromium");
        // As root, in a container, it has no sandbox. It visits only the shop.
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        command.args([
            "--no-first-run",
            "--window-size=680,1000",
            "--remote-debugging-port=0",
            "about:blank",
        ]);
        command.arg(format!("--user-data-dir={}", folder.path().display()));
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = quiet.spawn().map_err(|error| {
            format!("chromium: {error}. Install it, or run `cargo xtask test --embedded`")
        })?;
        // It writes its port and the path of the socket there.
        let file = folder.path().join("DevToolsActivePort");
        let text = until(async || {
            Ok(std::fs::read_to_string(&file).ok().filter(|text| text.contains("/devtools/")))
        })
        .await?;
        let (port, path) = text.split_once('\n').ok_or("two lines")?;
        let address = format!("127.0.0.1:{port}");
        let stream = TcpStream::connect(&address).await?;
        let url = format!("ws://{address}{}", path.trim());
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await?;
        Ok(Self { process, socket: Mutex::new((socket, 0)), _folder: folder })
    }

    /// Calls a method, of a tab if a session is given: its result.
    async fn call(&self, session: &str, method: &str, params: Value) -> Result<Value, Error> {
        let mut guard = self.socket.lock().await;
        let (socket, last) = &mut *guard;
        *last += 1;
        let mut call = json!({ "id": *last, "method": method, "params": params });
        if !session.is_empty() {
            call["sessionId"] = session.into();
        }
        socket.send(Message::text(call.to_string())).await?;
        while let Some(message) = socket.next().await {
            let answer: Value = serde_json::from_str(message?.to_text()?)?;
            if answer["id"] == call["id"] {
                let error = &answer["error"];
                return if error.is_null() {
                    Ok(answer["result"].clone())
                } else {
                    Err(format!("{method}: {error}").into())
                };
            }
        }
        Err("Chromium has ended".into())
    }

    /// Another browser, as far as a page can tell: with cookies and storage of its own.
    async fn context(&self) -> Result<String, Error> {
        let made = self.call("", "Target.createBrowserContext", json!({})).await?;
        Ok(text(&made["browserContextId"]))
    }

    async fn tab(&self, context: &str, url: &str) -> Result<Tab<'_>, Error> {
        let made = json!({ "url": url, "browserContextId": context });
        let made = self.call("", "Target.createTarget", made).await?;
        let attached = json!({ "targetId": made["targetId"], "flatten": true });
        let session = self.call("", "Target.attachToTarget", attached).await?;
        Ok(Tab { chromium: self, session: text(&session["sessionId"]) })
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Waits for a value that a browser is about to have.
async fn until<T>(mut look: impl AsyncFnMut() -> Result<Option<T>, Error>) -> Result<T, Error> {
    let looking = async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HANGS, looking).await?
}

struct Tab<'a> {
    chromium: &'a Chromium,
    session: String,
}

impl Tab<'_> {
    /// The value of an expression, or of its promise.
    async fn eval(&self, expression: &str) -> Result<Value, Error> {
        let params = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true,
        });
        let answer = self.chromium.call(&self.session, "Runtime.evaluate", params).await?;
        match &answer["exceptionDetails"] {
            Value::Null => Ok(answer["result"]["value"].clone()),
            thrown => Err(format!("{expression}: {thrown}").into()),
        }
    }

    /// Waits until the expression is true. While a page is replaced, there is nothing to ask.
    async fn wait(&self, expression: &str) -> Result<(), Error> {
        let expression = format!("Boolean({expression})");
        let looking = until(async || {
            let is_true = self.eval(&expression).await.is_ok_and(|value| value == true);
            Ok(is_true.then_some(()))
        });
        if looking.await.is_err() {
            let page = self.eval("document.body.innerText").await?;
            return Err(format!("never: {expression}; the page: {page}").into());
        }
        Ok(())
    }

    /// Waits for this heading.
    async fn heading(&self, heading: &str) -> Result<(), Error> {
        let shown = "[...document.querySelectorAll('h1')].some((it) => it.checkVisibility()";
        self.wait(&format!("{shown} && it.textContent === '{heading}')")).await
    }

    /// Clicks on the first button whose label this is.
    async fn click(&self, label: &str) -> Result<(), Error> {
        let all = "[...document.querySelectorAll('button')]";
        let button =
            format!("{all}.find((it) => it.checkVisibility() && it.textContent === '{label}')");
        self.wait(&button).await?;
        self.eval(&format!("{button}.click()")).await?;
        Ok(())
    }

    async fn fill(&self, field: &str, value: &str) -> Result<(), Error> {
        let input = format!("document.querySelector('input[name={field}]')");
        self.eval(&format!("{input}.value = '{value}'")).await?;
        Ok(())
    }

    /// Signs in through the pages, up to the orders.
    async fn sign_in(&self, name: &str) -> Result<(), Error> {
        self.click("Sign in").await?;
        self.wait("location.pathname === '/authorize'").await?;
        self.heading("Sign in").await?;
        self.shot("sign-in").await?;
        self.fill("name", name).await?;
        self.fill("password", PASSWORD).await?;
        self.click("Sign in").await?;
        self.heading("Allow Corner Shop?").await?;
        self.shot("consent").await?;
        self.click("Allow").await?;
        self.heading("Your orders").await
    }

    /// A screenshot in light and in dark, if the environment asks for it.
    async fn shot(&self, name: &str) -> Result<(), Error> {
        let Some(folder) = std::env::var_os(SCREENSHOTS) else { return Ok(()) };
        for mode in ["light", "dark"] {
            let feature = json!([{ "name": "prefers-color-scheme", "value": mode }]);
            let media = json!({ "features": feature });
            self.chromium.call(&self.session, "Emulation.setEmulatedMedia", media).await?;
            let bottom =
                self.eval("document.querySelector('main').getBoundingClientRect().bottom + 24");
            let clip = json!({ "x": 0, "y": 0, "width": 680, "height": bottom.await?, "scale": 1 });
            let shot = json!({ "format": "png", "clip": clip });
            let shot = self.chromium.call(&self.session, "Page.captureScreenshot", shot).await?;
            let image = base64::engine::general_purpose::STANDARD.decode(text(&shot["data"]))?;
            std::fs::write(Path::new(&folder).join(format!("shop-{name}-{mode}.png")), image)?;
        }
        Ok(())
    }
}

/// Holds the lock of the tokens until `free()`.
const HOLD: &str = "new Promise((held) => navigator.locks.request('tokens', () =>
    new Promise((free) => { window.free = free; held(0); })))";

/// Sends an authorization request as a form.
const POSTED: &str = "(() => {
    const form = document.createElement('form');
    [form.method, form.action] = ['post', 'URL/authorize'];
    for (const [name, value] of Object.entries({
        response_type: 'code', client_id: 'shop', code_challenge_method: 'S256',
        code_challenge: 'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM' })) {
        form.append(Object.assign(document.createElement('input'), { name, value }));
    }
    document.body.append(form);
    form.submit();
})()";

/// What the API answers to the token that the browser app has.
const ANSWER: &str = "fetch('/orders', { headers: {
    Authorization: `Bearer ${saved().access_token}` } }).then((answer) => answer.status)";

#[tokio::test(flavor = "multi_thread")]
async fn alice_uses_the_shop_in_two_browsers_and_two_tabs() -> Result<(), Error> {
    let (_, url) = open().await?;
    let chromium = Chromium::start().await?;
    let (desk, phone) = (chromium.context().await?, chromium.context().await?);

    let tab = chromium.tab(&desk, &url).await?;
    tab.heading("Good things, around the corner").await?;
    tab.sign_in("alice").await?;
    tab.click("Coffee").await?;
    tab.wait("document.querySelector('#orders li')?.textContent === 'Coffee'").await?;
    tab.click("Oranges").await?;
    tab.wait("document.querySelectorAll('#orders li').length === 2").await?;
    tab.shot("orders").await?;

    // Two tabs find at once that their tokens are old, and take turns. Chromium may show the second one the
    // tokens from before; then it renews them again.
    let other = chromium.tab(&desk, &url).await?;
    other.heading("Your orders").await?;
    let old = tab.eval("saved().access_token").await?;
    tab.eval(HOLD).await?;
    for tab in [&tab, &other] {
        tab.eval("window.renewed = renew(saved()).then((it) => it.access_token), 0").await?;
    }
    let waiting = "navigator.locks.query().then((locks) => locks.pending.length)";
    until(async || Ok((tab.eval(waiting).await? == 2).then_some(()))).await?;
    tab.eval("free()").await?;
    for tab in [&tab, &other] {
        let new = tab.eval("renewed").await?;
        assert!(new.is_string() && new != old, "{new}");
        let status = "renewed.then((token) => fetch('/orders', { headers: {
            Authorization: `Bearer ${token}` } })).then((answer) => answer.status)";
        assert_eq!(tab.eval(status).await?, 200);
    }
    // Without that lock, as in two browsers that share a profile: the server takes both.
    let both = "Promise.all([1, 2].map(() => post('/token', { grant_type: 'refresh_token',
        refresh_token: saved().refresh_token, client_id: CLIENT }).then((it) => it.status)))";
    assert_eq!(tab.eval(both).await?, json!([200, 200]));
    assert_eq!(other.eval("call('/orders').then((it) => it.status)").await?, 200);

    // The form of a client's page on another site: `localhost` is not `127.0.0.1`. The browser sends no
    // cookies with it, and the user is signed in all the same.
    let client = chromium.tab(&desk, &url.replace("127.0.0.1", "localhost")).await?;
    client.heading("Good things, around the corner").await?;
    client.eval(&POSTED.replace("URL", &url)).await?;
    client.heading("Allow Corner Shop?").await?;
    client.click("Cancel").await?;
    // Back at the client, where this tab has not asked for anything.
    client.wait("document.body.innerText.includes('belongs to another sign-in')").await?;

    // Another browser.
    let far = chromium.tab(&phone, &url).await?;
    far.sign_in("alice").await?;
    let devices = chromium.tab(&desk, &format!("{url}/devices")).await?;
    devices.heading("Your devices").await?;
    devices.wait("document.body.innerText.includes('this device')").await?;
    devices.wait("document.body.innerText.includes('Chrome on Linux')").await?;
    devices.shot("devices").await?;
    devices.click("Log out everywhere else").await?;
    devices.wait("document.querySelectorAll('input[name=device]').length === 1").await?;
    assert_eq!(far.eval(ANSWER).await?, 401);
    far.click("Bread").await?;
    far.heading("Good things, around the corner").await?;
    assert_eq!(other.eval("call('/orders').then((it) => it.status)").await?, 200);

    // The admin, in the other browser.
    let admin = chromium.tab(&phone, &format!("{url}/devices")).await?;
    admin.heading("Sign in").await?;
    admin.fill("name", "admin").await?;
    admin.fill("password", PASSWORD).await?;
    admin.click("Sign in").await?;
    admin.heading("Your devices").await?;
    admin.eval("document.querySelector('a[href=\"/admin\"]').click()").await?;
    admin.heading("Users").await?;
    let ban = "[...document.querySelectorAll('li')].find((it) => it.innerText.includes('alice'))";
    admin.eval(&format!("{ban}.querySelector('button').click()")).await?;
    admin.wait("document.body.innerText.includes('banned')").await?;
    admin.shot("users").await?;
    assert_eq!(tab.eval(ANSWER).await?, 401);
    tab.click("Bread").await?;
    tab.heading("Good things, around the corner").await?;
    // The other tab is told.
    other.heading("Good things, around the corner").await?;
    Ok(())
}
