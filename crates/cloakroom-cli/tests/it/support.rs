//! A store that a server has filled, and the program beside it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cloakroom::core::keys::KeyStore;
use cloakroom::core::record::Device;
use cloakroom::core::store::TokenStore;
use cloakroom::core::time::{Clock, SystemClock};
use cloakroom::jwt::AesGcmSealer;
use cloakroom::sqlite::SqliteStore;
use cloakroom::{
    Client, Format, Grant, GrantType, HandleKeys, HandleSecret, Issuer, IssuerBuilder,
    TokenResponse, UnixTime,
};
use serde_json::Value;

pub(crate) const ISSUER: &str = "https://as.example";
pub(crate) const ORDERS: &str = "https://orders.example";
pub(crate) const STOCK: &str = "https://stock.example";
pub(crate) const HANDLE_SECRET: [u8; 32] = [0x5a; 32];
pub(crate) const SEALING_KEY: [u8; 32] = [0xc3; 32];

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) fn hex(bytes: [u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn now() -> UnixTime {
    SystemClock::new().now()
}

/// The server's settings, over this store.
pub(crate) fn builder<S: TokenStore + KeyStore>(store: &Arc<S>) -> IssuerBuilder {
    let app = |id: &str| {
        Client::public(id)
            .grant_types([GrantType::RefreshToken])
            .scope("orders:read")
            .audience(ORDERS, Format::Opaque)
            .audience(STOCK, Format::Jwt)
    };
    Issuer::builder(ISSUER)
        .store(Arc::clone(store))
        .handle_keys(HandleKeys::new(&HandleSecret::new(1, HANDLE_SECRET)))
        .sealer(Arc::new(AesGcmSealer::new(1, SEALING_KEY)))
        .static_clients([app("app"), app("tv")])
        .unwrap()
}

/// A server of this store that has just written a heartbeat.
pub(crate) async fn server<S: TokenStore + KeyStore>(store: &Arc<S>) -> Issuer {
    let issuer = builder(store).build().await.unwrap();
    store.heartbeat(now(), now() + HOUR).await.unwrap();
    issuer
}

/// A login of a user at a client, for an opaque token.
pub(crate) async fn login(
    issuer: &Issuer,
    client: &str,
    user: &str,
    device: &str,
) -> TokenResponse {
    let device = Device::new([("name", device)]).unwrap();
    let grant = Grant::user(client, user).unwrap().device(device);
    let grant = grant.audience(cloakroom::Audience::one(ORDERS).unwrap());
    issuer.issue(grant).await.unwrap()
}

/// A JWT of a user.
pub(crate) async fn jwt(issuer: &Issuer, user: &str) -> TokenResponse {
    let grant = Grant::user("app", user).unwrap();
    let grant = grant.audience(cloakroom::Audience::one(STOCK).unwrap());
    issuer.issue(grant).await.unwrap()
}

/// A SQLite file in a folder that is removed afterwards.
pub(crate) struct File {
    pub(crate) folder: tempfile::TempDir,
}

impl File {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("tokens.db")
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite:{}", self.path().display())
    }

    pub(crate) fn open(&self) -> Arc<SqliteStore> {
        Arc::new(SqliteStore::open(self.path()).unwrap())
    }

    /// A statement that no program of ours would run.
    pub(crate) fn damage(&self, sql: &str) {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.execute_batch(sql).unwrap();
    }

    pub(crate) fn tool(&self) -> Tool {
        Tool::new(&self.url())
    }

    /// Another file in the folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// The program, with the environment of an operator.
#[derive(Clone)]
pub(crate) struct Tool {
    environment: Vec<(String, String)>,
}

impl Tool {
    pub(crate) fn new(store: &str) -> Self {
        let environment = [
            ("CLOAKROOM_STORE", store.to_owned()),
            ("CLOAKROOM_ISSUER", ISSUER.to_owned()),
            ("CLOAKROOM_HANDLE_SECRET", hex(HANDLE_SECRET)),
            ("CLOAKROOM_SEALING_KEY", format!("1:{}", hex(SEALING_KEY))),
        ];
        Self { environment: environment.map(|(name, value)| (name.to_owned(), value)).into() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// Runs the program with these words.
    pub(crate) fn run(&self, words: &str) -> Ran {
        self.run_with(&words.split_whitespace().collect::<Vec<_>>(), "")
    }

    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cloakroom"))
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            // Where an instrumented program writes what it reached; by default, into the package.
            .envs(std::env::var_os("LLVM_PROFILE_FILE").map(|file| ("LLVM_PROFILE_FILE", file)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that refuses its arguments does not read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Ran {
            arguments: arguments.join(" "),
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// What the program did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) arguments: String,
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// It ended with this status. A status of success comes without a message.
    #[track_caller]
    pub(crate) fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        assert_eq!(status == 0, self.stderr.is_empty() && status == 0, "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// The message on standard error contains this.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{self:#?}");
        self
    }

    /// All that it wrote.
    pub(crate) fn written(&self) -> String {
        format!("{}\n{}\n{}", self.arguments, self.stdout, self.stderr)
    }
}

/// A secrets file with the lines of the environment.
pub(crate) fn secrets_file(file: &File) -> String {
    let text = format!(
        "# of the servers\nCLOAKROOM_HANDLE_SECRET=1:{}\nCLOAKROOM_SEALING_KEY={}\n",
        hex(HANDLE_SECRET),
        hex(SEALING_KEY)
    );
    path_text(&file.write("secrets", &text))
}

pub(crate) fn path_text(path: &Path) -> String {
    path.display().to_string()
}
