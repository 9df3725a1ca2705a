//! The servers that are measured, each in a process of its own.

mod bare;
mod oauth_as;
mod ours;

use std::fmt;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::net::Ipv4Addr;

use axum::Router;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

use crate::Failure;
use crate::case::Case;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Cloakroom's endpoints.
    Ours,
    /// A handler that parses the same request, and returns the same bytes.
    Bare,
    /// The same, with the signature that a new JWT cannot do without.
    BareSigning,
    /// The crate `oauth-as`.
    OauthAs,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Ours, Self::Bare, Self::BareSigning, Self::OauthAs];

    /// As the command line spells it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Bare => "bare",
            Self::BareSigning => "bare-signing",
            Self::OauthAs => "oauth-as",
        }
    }

    /// What ours is held against.
    pub(crate) const fn others(case: Case) -> &'static [Self] {
        match case {
            Case::Introspect | Case::IssueOpaque => &[Self::Bare, Self::OauthAs],
            Case::IssueEs256 => &[Self::BareSigning, Self::OauthAs],
        }
    }

    /// The least that ours should be, as a multiple of this one.
    pub(crate) const fn aim(self, case: Case) -> Option<f64> {
        match (self, case) {
            (Self::Ours, _) => None,
            (Self::Bare | Self::BareSigning, _) => Some(0.85),
            (Self::OauthAs, Case::Introspect) => Some(1.1),
            (Self::OauthAs, Case::IssueOpaque) => Some(1.0),
            (Self::OauthAs, Case::IssueEs256) => Some(8.0),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "cloakroom",
            Self::Bare => "a bare axum handler",
            Self::BareSigning => "a bare axum handler with one signature",
            Self::OauthAs => "oauth-as 1.0.1",
        })
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
    let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind).ok_or("unknown kind")?;
    let case = Case::parse(case).ok_or("unknown case")?;
    let tokens = tokens.parse()?;
    std::thread::spawn(|| {
        // Whoever started it is gone.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let Prepared { router, tokens } = match kind {
            Kind::Ours => ours::prepare(case, tokens).await?,
            Kind::OauthAs => oauth_as::prepare(case, tokens).await?,
            Kind::Bare => bare::prepare(body, tokens),
            Kind::BareSigning => bare::prepare_signing(body)?,
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let mut output = BufWriter::new(io::stdout().lock());
        writeln!(output, "{}", listener.local_addr()?.port())?;
        tokens.iter().try_for_each(|token| writeln!(output, "{token}"))?;
        output.flush()?;
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, router).await?;
        Ok(())
    })
}
