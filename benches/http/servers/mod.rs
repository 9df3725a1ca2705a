//! The measured servers, each in a separate process.

mod api;
mod bare;
mod fan_out;
mod gateway;
mod oauth_as;
mod ours;

use std::io::{self, BufWriter, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::{env, process};

use axum::Router;
use axum::serve::ListenerExt as _;
use cloakroom::Issuer;
use cloakroom_postgres::PostgresStore;
use cloakroom_sqlite::{SqliteStore, Synchronous};
use tokio::net::TcpListener;

use crate::Failure;
use crate::case::Case;

/// The variable that names the PostgreSQL server.
const POSTGRES: &str = "CLOAKROOM_TEST_POSTGRES_URL";

/// The kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Cloakroom's endpoints, a server with a layer of it, or the gateway.
    Ours,
    /// A handler that parses the same request, and returns the same bytes.
    Bare,
    /// The same, with the signature that a new JWT cannot do without.
    BareSigning,
    /// The crate `oauth-as`.
    OauthAs,
    /// The same server or gateway, without what is measured: the swap, the check, the file.
    Without,
    /// The same server, with grants in a file.
    Sqlite,
    /// The same server, with the crate `jsonwebtoken`.
    JsonWebToken,
    /// No contestant: the authorization server and the API around a gateway, and the authorization
    /// server whose log is followed.
    Surroundings,
    /// A bare long poll.
    LongPoll,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Ours,
        Self::Bare,
        Self::BareSigning,
        Self::OauthAs,
        Self::Without,
        Self::Sqlite,
        Self::JsonWebToken,
        Self::Surroundings,
        Self::LongPoll,
    ];

    /// As the command line spells it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Bare => "bare",
            Self::BareSigning => "bare-signing",
            Self::OauthAs => "oauth-as",
            Self::Without => "without",
            Self::Sqlite => "sqlite",
            Self::JsonWebToken => "jsonwebtoken",
            Self::Surroundings => "surroundings",
            Self::LongPoll => "long-poll",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == text)
    }

    /// What ours is held against.
    pub(crate) const fn others(case: Case) -> &'static [Self] {
        match case {
            Case::Introspect | Case::IssueOpaque => &[Self::Bare, Self::OauthAs],
            Case::Refresh => &[Self::OauthAs],
            Case::IssueEs256 => &[Self::BareSigning, Self::OauthAs],
            Case::Api => &[Self::Without, Self::JsonWebToken],
            Case::IntrospectSqlite | Case::RefreshSqlite | Case::Gateway => &[Self::Without],
            Case::IntrospectPostgres => &[Self::Without, Self::Sqlite],
        }
    }

    /// The aim for ours, as a multiple of this one.
    pub(crate) const fn aim(self, case: Case) -> Option<f64> {
        match (self, case) {
            (Self::Bare, Case::IssueOpaque) => Some(0.8),
            (Self::Bare, _) => Some(0.85),
            (Self::BareSigning, _) | (Self::Without, Case::Api) => Some(0.9),
            (Self::Without, Case::IntrospectSqlite) => Some(0.6),
            (Self::Without, Case::Gateway) => Some(0.93),
            (Self::JsonWebToken, _) => Some(3.0),
            (Self::OauthAs, Case::Introspect) => Some(1.15),
            (Self::OauthAs, Case::IssueOpaque) => Some(1.1),
            _ => None,
        }
    }

    /// What it is, in the table.
    pub(crate) const fn describe(self, case: Case) -> &'static str {
        match (self, case) {
            (Self::Bare, _) => "a bare axum handler",
            (Self::BareSigning, _) => "a bare axum handler with one signature",
            (Self::OauthAs, _) => "oauth-as 1.0.1",
            (
                Self::Without,
                Case::IntrospectSqlite | Case::IntrospectPostgres | Case::RefreshSqlite,
            ) => "the same, grants in memory",
            (Self::Sqlite, _) => "the same, grants in SQLite",
            (Self::Without, Case::Gateway) => "the same proxy without the swap",
            (Self::Without, _) => "the same server without any check",
            (Self::JsonWebToken, _) => {
                "the same server, verifying RS256 with `jsonwebtoken` each time"
            }
            (Self::LongPoll, _) => "a bare long poll",
            (Self::Ours | Self::Surroundings, _) => "cloakroom",
        }
    }
}

/// A server that is ready, and the tokens that it knows.
struct Prepared {
    router: Router,
    tokens: Vec<String>,
}

/// `serve KIND CASE TOKENS BODY`: serves until standard input ends. Prints its port and its tokens.
pub(crate) fn serve(arguments: &[String]) -> Result<(), Failure> {
    let [kind, case, tokens, body] = arguments else {
        return Err("serve needs a kind, a case, a number of tokens and a body".into());
    };
    let kind = Kind::parse(kind).ok_or("unknown kind")?;
    let case = Case::parse(case).ok_or("unknown case")?;
    let tokens = tokens.parse()?;
    end_with_input();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let Prepared { router, tokens } = match (kind, case) {
            (Kind::Ours | Kind::Without, Case::Gateway) => {
                announce(address.port(), &[])?;
                return gateway::serve(listener, body, kind == Kind::Ours).await;
            }
            (Kind::Surroundings, _) => gateway::surroundings(address, tokens).await?,
            (Kind::LongPoll, _) => fan_out::prepare(),
            (_, Case::Api) => api::prepare(kind, tokens).await?,
            (Kind::OauthAs, _) => oauth_as::prepare(case, tokens).await?,
            (Kind::Bare, _) => bare::prepare(body, tokens),
            (Kind::BareSigning, _) => bare::prepare_signing(body)?,
            (Kind::Ours, Case::IntrospectPostgres) => {
                let url = env::var(POSTGRES).map_err(|_| format!("{POSTGRES} names no server"))?;
                // Another server may have other keys.
                let schema = format!("bench_http_{}", process::id());
                let store = PostgresStore::builder(&url).schema(schema).connect().await?;
                ours::prepare(Issuer::dev().store(Arc::new(store)), case, tokens).await?
            }
            (Kind::Sqlite, _) | (Kind::Ours, Case::IntrospectSqlite | Case::RefreshSqlite) => {
                let store = SqliteStore::builder(Path::new(body).join("tokens.db"));
                // Nothing is logged during the measurement.
                let store = store.synchronous(Synchronous::Normal).open()?;
                ours::prepare(Issuer::dev().store(Arc::new(store)), case, tokens).await?
            }
            _ => ours::prepare(Issuer::dev(), case, tokens).await?,
        };
        announce(address.port(), &tokens)?;
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, router).await?;
        Ok(())
    })
}

/// Ends this process when its parent is gone.
pub(crate) fn end_with_input() {
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(0);
    });
}

fn announce(port: u16, tokens: &[String]) -> io::Result<()> {
    let mut output = BufWriter::new(io::stdout().lock());
    writeln!(output, "{port}")?;
    tokens.iter().try_for_each(|token| writeln!(output, "{token}"))?;
    output.flush()
}
