//! The requests to the servers.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The resource that every token is meant for.
pub(crate) const RESOURCE: &str = "https://orders.example";

/// What every token allows.
pub(crate) const SCOPE: &str = "orders:read";

/// The client that gets tokens with `client_credentials`.
pub(crate) const BATCH: Login = Login { id: "batch", secret: "S5WkVqXo0bQyZ1uHc7NnTgE2rJdLmP9a" };

/// The resource server that introspects them.
pub(crate) const API: Login =
    Login { id: "orders-api", secret: "hB3xYtR8eKfC6vUwQ0iZsMqD1nGpL7oA" };

/// The client with the introspected tokens, of many users.
pub(crate) const APP: &str = "web-app";

/// Makes the request that follows an answer; `None` if the answer cannot be used.
pub(crate) type Renew = fn(&[u8]) -> Option<Vec<u8>>;

/// A client's credentials.
pub(crate) struct Login {
    pub(crate) id: &'static str,
    pub(crate) secret: &'static str,
}

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// A resource server introspects opaque tokens of many users.
    Introspect,
    /// The same, with grants in a SQLite file.
    IntrospectSqlite,
    /// The same, with grants in PostgreSQL. Only by its name: it needs a server.
    IntrospectPostgres,
    /// Clients refresh the tokens of many users, each with the refresh token that it got last.
    Refresh,
    /// The same, with grants in a SQLite file.
    RefreshSqlite,
    /// A client fetches opaque tokens.
    IssueOpaque,
    /// A client fetches JWTs.
    IssueEs256,
    /// Clients ask an API, with JWTs of many users.
    Api,
    /// The same through a gateway, with handles.
    Gateway,
}

impl Case {
    /// Those that run if none is named.
    pub(crate) const ALL: [Self; 8] = [
        Self::Introspect,
        Self::IntrospectSqlite,
        Self::Refresh,
        Self::RefreshSqlite,
        Self::IssueOpaque,
        Self::IssueEs256,
        Self::Api,
        Self::Gateway,
    ];

    /// As the command line spells it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Introspect => "introspect",
            Self::IntrospectSqlite => "introspect-sqlite",
            Self::IntrospectPostgres => "introspect-postgres",
            Self::Refresh => "refresh",
            Self::RefreshSqlite => "refresh-sqlite",
            Self::IssueOpaque => "issue-opaque",
            Self::IssueEs256 => "issue-es256",
            Self::Api => "api",
            Self::Gateway => "gateway",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter().chain([Self::IntrospectPostgres]);
        all.find(|case| case.as_str() == text)
    }

    /// A part of every good answer.
    pub(crate) const fn expects(self) -> &'static str {
        match self {
            Self::Introspect | Self::IntrospectSqlite | Self::IntrospectPostgres => {
                "\"active\":true"
            }
            Self::Refresh | Self::RefreshSqlite => REFRESH_TOKEN,
            Self::IssueOpaque | Self::IssueEs256 => "\"access_token\":\"",
            Self::Api | Self::Gateway => ORDERS,
        }
    }

    /// What makes the request that follows an answer in the place of the last one, if it is another
    /// one.
    pub(crate) fn next(self) -> Option<Renew> {
        match self {
            Self::Refresh | Self::RefreshSqlite => Some(next_refresh),
            _ => None,
        }
    }

    /// The requests to send, over and over: one a token, where there are tokens.
    pub(crate) fn requests(self, tokens: &[String]) -> Vec<Vec<u8>> {
        // Not in the order in which they were issued, and so stored.
        let mixed = (0..tokens.len()).map(|index| &tokens[index * STRIDE % tokens.len()]);
        match self {
            Self::Introspect | Self::IntrospectSqlite | Self::IntrospectPostgres => {
                mixed.map(|token| post("/introspect", &API, &format!("token={token}"))).collect()
            }
            Self::Refresh | Self::RefreshSqlite => mixed.map(|token| refresh(token)).collect(),
            Self::Api | Self::Gateway => mixed.map(|token| get_orders(token)).collect(),
            Self::IssueOpaque | Self::IssueEs256 => {
                let scope = SCOPE.replace(':', "%3A");
                let form = format!("grant_type=client_credentials&scope={scope}");
                vec![post("/token", &BATCH, &form)]
            }
        }
    }
}

/// The API's answer.
pub(crate) const ORDERS: &str =
    "{\"orders\":[{\"id\":1,\"item\":\"tea\"},{\"id\":2,\"item\":\"milk\"}]}";

/// A prime number, so that it visits every token.
const STRIDE: usize = 7919;

/// What stands before a refresh token in an answer.
const REFRESH_TOKEN: &str = "\"refresh_token\":\"";

fn next_refresh(answer: &[u8]) -> Option<Vec<u8>> {
    let (_, rest) = std::str::from_utf8(answer).ok()?.split_once(REFRESH_TOKEN)?;
    let (token, _) = rest.split_once('"')?;
    Some(refresh(token))
}

/// A refresh by a public client.
fn refresh(token: &str) -> Vec<u8> {
    let form = format!("grant_type=refresh_token&client_id={APP}&refresh_token={token}");
    post_form("/token", "", &form)
}

fn get_orders(token: &str) -> Vec<u8> {
    format!(
        "GET /orders HTTP/1.1\r\n\
         host: orders.example\r\n\
         accept: application/json\r\n\
         authorization: Bearer {token}\r\n\
         \r\n"
    )
    .into_bytes()
}

/// A request as a client's HTTP library sends it, `client_secret_basic` (RFC 6749 §2.3.1).
fn post(path: &str, login: &Login, form: &str) -> Vec<u8> {
    let credentials = STANDARD.encode(format!("{}:{}", login.id, login.secret));
    post_form(path, &format!("authorization: Basic {credentials}\r\n"), form)
}

fn post_form(path: &str, authorization: &str, form: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\n\
         host: 127.0.0.1:9000\r\n\
         accept: application/json\r\n\
         {authorization}\
         content-type: application/x-www-form-urlencoded\r\n\
         content-length: {}\r\n\
         \r\n\
         {form}",
        form.len()
    )
    .into_bytes()
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Introspect => "introspect over HTTP",
            Self::IntrospectSqlite => "introspect over HTTP, grants in SQLite",
            Self::IntrospectPostgres => "introspect over HTTP, grants in PostgreSQL",
            Self::Refresh => "refresh over HTTP",
            Self::RefreshSqlite => "refresh over HTTP, grants in SQLite",
            Self::IssueOpaque => "issue an opaque token over HTTP",
            Self::IssueEs256 => "issue an ES256 JWT over HTTP",
            Self::Api => "ask an API that checks JWTs, and remembers them",
            Self::Gateway => "ask an API through the gateway that swaps handles",
        })
    }
}
