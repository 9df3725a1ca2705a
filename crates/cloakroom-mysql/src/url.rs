//! The URL of a database.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use mysql_async::ClientIdentity;
use url::{Host, Url};

use crate::error::ConnectError;

/// `mysql://user:password@host:port/database?ssl-mode=…`, read into its parts.
#[derive(Clone)]
pub(crate) struct DatabaseUrl {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) socket: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: String,
    pub(crate) ssl: Ssl,
}

/// TLS, as the URL asks for it.
#[derive(Debug, Clone)]
pub(crate) struct Ssl {
    pub(crate) mode: SslMode,
    pub(crate) ca: Option<PathBuf>,
    /// The name in the server's certificate, if it is not the host.
    pub(crate) server_name: Option<String>,
    certificate: Option<(PathBuf, PathBuf)>,
}

impl Ssl {
    pub(crate) fn identity(&self) -> Option<ClientIdentity> {
        let (certificate, key) = self.certificate.clone()?;
        Some(ClientIdentity::new(certificate.into(), key.into()))
    }
}

/// Whether a connection is encrypted, and what is checked: the values of `ssl-mode`, as MySQL names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SslMode {
    Disabled,
    Preferred,
    Required,
    VerifyIdentity,
}

impl FromStr for SslMode {
    type Err = ConnectError;

    fn from_str(text: &str) -> Result<Self, ConnectError> {
        match text.to_ascii_uppercase().replace('-', "_").as_str() {
            "DISABLED" => Ok(Self::Disabled),
            "PREFERRED" => Ok(Self::Preferred),
            "REQUIRED" => Ok(Self::Required),
            // The driver cannot check the signer alone.
            "VERIFY_CA" | "VERIFY_IDENTITY" => Ok(Self::VerifyIdentity),
            _ => Err(invalid(
                "ssl-mode must be DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY",
            )),
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = ConnectError;

    fn from_str(text: &str) -> Result<Self, ConnectError> {
        let url = Url::parse(text).map_err(|error| invalid(error.to_string()))?;
        if !matches!(url.scheme(), "mysql" | "mariadb") {
            return Err(invalid("it begins with neither mysql:// nor mariadb://"));
        }
        let (host, is_local) = match url.host() {
            // The scheme is not one of the web, so a number is a name to the parser.
            Some(Host::Domain(name)) => {
                let is_local = name.eq_ignore_ascii_case("localhost")
                    || name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
                (name.to_owned(), is_local)
            }
            Some(Host::Ipv4(address)) => (address.to_string(), address.is_loopback()),
            Some(Host::Ipv6(address)) => (address.to_string(), address.is_loopback()),
            None => return Err(invalid("it has no host")),
        };
        let database = decoded(url.path().trim_start_matches('/'))?;
        if database.is_empty() || database.contains('/') {
            return Err(invalid("it names no database: mysql://user@host/database"));
        }
        let user = Some(decoded(url.username())?).filter(|user| !user.is_empty());
        let password = url.password().map(decoded).transpose()?;
        let (mut mode, mut ca, mut server_name) = (None, None, None);
        let (mut certificate, mut key, mut socket) = (None, None, None);
        for (name, value) in url.query_pairs() {
            match name.to_ascii_lowercase().replace('_', "-").as_str() {
                "ssl-mode" => mode = Some(value.parse()?),
                "ssl-ca" => ca = Some(PathBuf::from(&*value)),
                "ssl-cert" => certificate = Some(PathBuf::from(&*value)),
                "ssl-key" => key = Some(PathBuf::from(&*value)),
                "ssl-server-name" => server_name = Some(value.into_owned()),
                "socket" => socket = Some(value.into_owned()),
                name => return Err(invalid(format!("the parameter {name:?} is unknown"))),
            }
        }
        let certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(invalid("ssl-cert and ssl-key must be given together")),
        };
        // What stays on this machine needs no encryption. Everything else is encrypted, and the server has
        // to prove its name, unless the URL says otherwise.
        let is_local = is_local || socket.is_some();
        let usual = if is_local { SslMode::Disabled } else { SslMode::VerifyIdentity };
        let ssl = Ssl { mode: mode.unwrap_or(usual), ca, server_name, certificate };
        let port = url.port().unwrap_or(3306);
        Ok(Self { host, port, socket, user, password, database, ssl })
    }
}

/// Shows no password.
impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseUrl")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("socket", &self.socket)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("ssl", &self.ssl)
            .finish_non_exhaustive()
    }
}

fn invalid(why: impl Into<String>) -> ConnectError {
    ConnectError::Url { why: why.into() }
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Result<String, ConnectError> {
    let refused = || invalid("a part of it is not percent-encoded UTF-8");
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).ok_or_else(refused)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| refused())?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DatabaseUrl, ConnectError> {
        text.parse()
    }

    #[test]
    fn the_parts_are_read() {
        let url = parse("mysql://al%40ice:p%3Aw%2fd@db.example:3307/to%20kens").unwrap();
        assert_eq!((url.host.as_str(), url.port), ("db.example", 3307));
        assert_eq!(url.user.as_deref(), Some("al@ice"));
        assert_eq!(url.password.as_deref(), Some("p:w/d"));
        assert_eq!(url.database, "to kens");
        let url = parse("mariadb://[2001:db8::1]/d").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.user), ("2001:db8::1", 3306, None));
    }

    #[test]
    fn a_server_elsewhere_has_to_prove_its_name() {
        for (text, mode) in [
            ("mysql://db.example/d", SslMode::VerifyIdentity),
            ("mysql://10.0.0.5/d", SslMode::VerifyIdentity),
            ("mysql://[2001:db8::1]/d", SslMode::VerifyIdentity),
            ("mysql://localhost.example/d", SslMode::VerifyIdentity),
            ("mysql://localhost/d", SslMode::Disabled),
            ("mysql://127.0.0.1/d", SslMode::Disabled),
            ("mysql://[::1]/d", SslMode::Disabled),
            ("mysql://localhost/d?socket=/run/mysqld/mysqld.sock", SslMode::Disabled),
            ("mysql://127.0.0.1/d?ssl-mode=REQUIRED", SslMode::Required),
            ("mysql://127.0.0.1/d?ssl_mode=verify_ca", SslMode::VerifyIdentity),
            ("mysql://db.example/d?ssl-mode=preferred", SslMode::Preferred),
            ("mysql://db.example/d?ssl-mode=Disabled", SslMode::Disabled),
            ("mysql://db.example/d?ssl-mode=VERIFY_IDENTITY", SslMode::VerifyIdentity),
        ] {
            assert_eq!(parse(text).unwrap().ssl.mode, mode, "{text}");
        }
    }

    #[test]
    fn a_bad_url_is_refused_and_not_repeated() {
        for bad in [
            "hunter2",
            "postgres://user:hunter2@host/d",
            "mysql://user:hunter2@host",
            "mysql://user:hunter2@host/",
            "mysql://user:hunter2@host/a/b",
            "mysql:///d",
            "mysql://user:hunter2%zz@host/d",
            "mysql://user:hunter2%ff@host/d",
            "mysql://user:hunter2@host/d?ssl-mode=ON",
            "mysql://user:hunter2@host/d?ssl-cert=/a",
            "mysql://user:hunter2@host/d?pool=hunter2",
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let text = format!("{:?}", parse("mysql://user:hunter2@host/d").unwrap());
        assert!(text.contains("user") && !text.contains("hunter2"), "{text}");
    }
}
