//! Fetching a document whose URL a stranger chose.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use ::http::header::{self, HeaderMap, HeaderValue};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::life::life;

/// Why there is no document.
#[derive(Debug)]
pub(super) enum Failure {
    /// What is at the URL is not a document that we take.
    Refused(String),
    /// Nobody knows what is at the URL now.
    Unreachable(Box<dyn Error + Send + Sync>),
}

impl Failure {
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => f.write_str(why),
            Self::Unreachable(_) => f.write_str("it cannot be reached"),
        }
    }
}

/// What is at a URL, and how long it may be kept.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) body: Vec<u8>,
    pub(super) life: Duration,
}

/// Which addresses may be connected to.
pub(super) type Allows = fn(IpAddr) -> bool;

type LookingUp = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Finds the addresses of a name.
pub(super) trait LookUp: Send + Sync + 'static {
    fn look_up(&self, name: &str) -> LookingUp;
}

/// The resolver of the system.
pub(super) struct SystemResolver;

impl LookUp for SystemResolver {
    fn look_up(&self, name: &str) -> LookingUp {
        let name = name.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// None of a host's addresses may be connected to.
#[derive(Debug, thiserror::Error)]
#[error("the host has no public address")]
struct NotPublic;

/// Resolves a name and hands out only addresses that may be connected to. The connection goes to these
/// addresses: nothing looks the name up a second time, so that it cannot change in between.
struct CheckedResolver {
    resolver: Arc<dyn LookUp>,
    allows: Allows,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (looking_up, allows) = (self.resolver.look_up(name.as_str()), self.allows);
        Box::pin(async move {
            let mut found = looking_up.await?;
            found.retain(|address| allows(*address));
            if found.is_empty() {
                return Err(NotPublic.into());
            }
            // The port is that of the URL.
            Ok(Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// The settings of a [`Fetcher`].
pub(super) struct Limits {
    pub(super) timeout: Duration,
    pub(super) bytes: usize,
    pub(super) allows: Allows,
    pub(super) resolver: Arc<dyn LookUp>,
    /// The root certificates to trust instead of those of the system.
    pub(super) roots: Vec<reqwest::Certificate>,
}

/// Fetches documents: over `https`, from public addresses, without redirects, and up to a size and a time.
pub(super) struct Fetcher {
    client: reqwest::Client,
    bytes: usize,
    allows: Allows,
}

impl Fetcher {
    pub(super) fn new(limits: Limits) -> Result<Self, reqwest::Error> {
        let Limits { timeout, bytes, allows, resolver, roots } = limits;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("cloakroom/", env!("CARGO_PKG_VERSION")))
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // A proxy would look the name up by itself.
            .no_proxy()
            .dns_resolver(CheckedResolver { resolver, allows })
            // Each fetch looks up and checks anew.
            .pool_max_idle_per_host(0)
            .timeout(timeout);
        if !roots.is_empty() {
            builder = builder.tls_certs_only(roots);
        }
        Ok(Self { client: builder.build()?, bytes, allows })
    }

    pub(super) async fn fetch(&self, url: &Url) -> Result<Fetched, Failure> {
        // An address in the URL is not resolved, so it is checked here.
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) => None,
            None => return Err(Failure::refused("it has no host")),
        };
        if literal.is_some_and(|address| !(self.allows)(address)) {
            return Err(Failure::refused(NotPublic.to_string()));
        }
        let request = self
            .client
            .get(url.clone())
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "identity");
        let mut response = request.send().await.map_err(failure)?;
        match response.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => return Err(Failure::refused("it is redirected")),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(Failure::Unreachable(format!("its server answers {status}").into()));
            }
            status => return Err(Failure::Refused(format!("its server answers {status}"))),
        }
        if !is_json(response.headers()) {
            return Err(Failure::refused("it is not application/json"));
        }
        let life = life(response.headers());
        let too_large = || Failure::refused("it is too large");
        if response.content_length().is_some_and(|length| length > self.bytes as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failure)? {
            if chunk.len() > self.bytes - body.len() {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Fetched { body, life })
    }
}

fn failure(error: reqwest::Error) -> Failure {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if error.is::<NotPublic>() {
            return Failure::refused(NotPublic.to_string());
        }
        cause = error.source();
    }
    // The URL is a stranger's.
    Failure::Unreachable(error.without_url().into())
}

/// Whether the content is `application/json` or of a `+json` type, and not compressed.
fn is_json(headers: &HeaderMap) -> bool {
    let only = |name| {
        let mut values = headers.get_all(name).iter();
        let first = values.next().map(HeaderValue::as_bytes);
        (first, values.next().is_none())
    };
    let (Some(content_type), true) = only(header::CONTENT_TYPE) else { return false };
    let plain = match only(header::CONTENT_ENCODING) {
        (None, _) => true,
        (Some(coding), single) => single && coding.eq_ignore_ascii_case(b"identity"),
    };
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii().to_ascii_lowercase();
    let is_json = essence == b"application/json"
        || essence.starts_with(b"application/") && essence.ends_with(b"+json");
    plain && is_json
}
