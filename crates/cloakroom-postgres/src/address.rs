//! The URL of a database: parses `sslmode` and `sslrootcert` as libpq does, and passes the rest to
//! the driver.

use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::error::ConnectError;

/// When TLS is used, and what of the server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Never (`disable`).
    Never,
    /// If the server offers it; nothing is checked (`allow`, `prefer`).
    IfOffered,
    /// Always; nothing is checked unless there is a root certificate (`require`).
    Unchecked,
    /// Always; the certificate must be signed by the root certificate (`verify-ca`).
    Chain,
    /// Always; the certificate must also name the host (`verify-full`).
    ChainAndName,
}

/// A parsed URL.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) config: Config,
    pub(crate) tls: Tls,
    pub(crate) root: Option<PathBuf>,
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, ConnectError> {
        let (rest, options) = split(url)?;
        let mut config: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            ConnectError::Url { why: source.unwrap_or_else(|| error.to_string()) }
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(ConnectError::Url { why: "it names no host".to_owned() });
        }
        let (mut tls, mut root, mut is_system) = (None, None, false);
        for (name, value) in options {
            match (name, &*value) {
                ("sslmode", "disable") => tls = Some(Tls::Never),
                ("sslmode", "allow" | "prefer") => tls = Some(Tls::IfOffered),
                ("sslmode", "require") => tls = Some(Tls::Unchecked),
                ("sslmode", "verify-ca") => tls = Some(Tls::Chain),
                ("sslmode", "verify-full") => tls = Some(Tls::ChainAndName),
                ("sslrootcert", "system") => is_system = true,
                ("sslrootcert", path) => root = Some(PathBuf::from(path)),
                (_, mode) => {
                    return Err(ConnectError::Url { why: format!("there is no sslmode `{mode}`") });
                }
            }
        }
        let tls = match tls {
            None if is_local(&config) && root.is_none() && !is_system => Tls::IfOffered,
            None => Tls::ChainAndName,
            // As in libpq: who names a root certificate wants it checked.
            Some(Tls::Unchecked) if root.is_some() => Tls::Chain,
            Some(tls) => tls,
        };
        if is_system && (root.is_some() || tls != Tls::ChainAndName) {
            return Err(ConnectError::Url {
                why: "sslrootcert `system` needs the sslmode `verify-full`".to_owned(),
            });
        }
        if tls == Tls::Chain && root.is_none() {
            return Err(ConnectError::Url {
                why: "sslmode `verify-ca` needs an `sslrootcert`: anybody can get a certificate from \
                      the authorities that the system trusts"
                    .to_owned(),
            });
        }
        config.ssl_mode(match tls {
            Tls::Never => SslMode::Disable,
            Tls::IfOffered => SslMode::Prefer,
            Tls::Unchecked | Tls::Chain | Tls::ChainAndName => SslMode::Require,
        });
        // Of several hosts, only the primary will do.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_application_name().is_none() {
            config.application_name("cloakroom");
        }
        Ok(Self { config, tls, root })
    }
}

/// The same settings for each host alone, in their order. The driver would wait for a host that does not
/// answer, and never come to the next one.
pub(crate) fn each_host(all: &Config) -> Vec<Config> {
    let (hosts, addresses, ports) = (all.get_hosts(), all.get_hostaddrs(), all.get_ports());
    (0..hosts.len().max(addresses.len()))
        .map(|index| {
            let mut one = without_hosts(all);
            match hosts.get(index) {
                Some(Host::Tcp(name)) => drop(one.host(name)),
                #[cfg(unix)]
                Some(Host::Unix(path)) => drop(one.host_path(path)),
                None => {}
            }
            addresses.get(index).map(|address| one.hostaddr(*address));
            ports.get(index).or(ports.first()).map(|port| one.port(*port));
            one
        })
        .collect()
}

fn without_hosts(all: &Config) -> Config {
    let mut one = Config::new();
    all.get_user().map(|user| one.user(user));
    all.get_password().map(|password| one.password(password));
    all.get_dbname().map(|name| one.dbname(name));
    all.get_options().map(|options| one.options(options));
    all.get_application_name().map(|name| one.application_name(name));
    all.get_connect_timeout().map(|timeout| one.connect_timeout(*timeout));
    all.get_tcp_user_timeout().map(|timeout| one.tcp_user_timeout(*timeout));
    all.get_keepalives_interval().map(|interval| one.keepalives_interval(interval));
    all.get_keepalives_retries().map(|retries| one.keepalives_retries(retries));
    one.ssl_mode(all.get_ssl_mode())
        .ssl_negotiation(all.get_ssl_negotiation())
        .keepalives(all.get_keepalives())
        .keepalives_idle(all.get_keepalives_idle())
        .target_session_attrs(all.get_target_session_attrs())
        .channel_binding(all.get_channel_binding());
    one
}

/// Whether all hosts are this machine.
fn is_local(config: &Config) -> bool {
    let is_local = |host: &Host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    };
    config.get_hosts().iter().all(is_local)
        && config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback)
}

type Options = Vec<(&'static str, String)>;

/// The options that the driver does not know.
const OURS: [&str; 2] = ["sslmode", "sslrootcert"];

/// Separates our options from the rest of a URL, or of a list of `key=value`.
fn split(url: &str) -> Result<(String, Options), ConnectError> {
    let own = |key: &str| OURS.into_iter().find(|own| *own == key);
    let mut options = Options::new();
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        let mut rest = Vec::new();
        for pair in url.split_whitespace() {
            match pair.split_once('=').and_then(|(key, value)| Some((own(key)?, value))) {
                Some((key, value)) => options.push((key, value.trim_matches('\'').to_owned())),
                None => rest.push(pair),
            }
        }
        return Ok((rest.join(" "), options));
    }
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), options)) };
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').and_then(|(key, value)| Some((own(key)?, value))) {
            Some((key, value)) => options.push((key, decoded(value)?)),
            None => rest.push(pair),
        }
    }
    let rest = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    Ok((rest, options))
}

fn decoded(text: &str) -> Result<String, ConnectError> {
    let bad = || ConnectError::Url { why: "an option is not percent-encoded text".to_owned() };
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err(bad());
        };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| bad())?);
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(url: &str) -> Tls {
        Address::parse(url).unwrap().tls
    }

    #[test]
    fn every_mode_of_libpq_is_known() {
        for (mode, means, driver) in [
            ("disable", Tls::Never, SslMode::Disable),
            ("allow", Tls::IfOffered, SslMode::Prefer),
            ("prefer", Tls::IfOffered, SslMode::Prefer),
            ("require", Tls::Unchecked, SslMode::Require),
            ("verify-full", Tls::ChainAndName, SslMode::Require),
        ] {
            for url in [
                format!("postgres://u:p@db.example/x?sslmode={mode}"),
                format!("postgresql://u@db.example?connect_timeout=3&sslmode={mode}&user=u"),
                format!("host=db.example user=u sslmode={mode} dbname=x"),
            ] {
                let address = Address::parse(&url).unwrap();
                assert_eq!(address.tls, means, "{url}");
                assert_eq!(address.config.get_ssl_mode(), driver, "{url}");
                assert_eq!(address.config.get_user(), Some("u"));
            }
        }
        let url = "postgres://db.example/x?sslmode=verify-ca&sslrootcert=%2Fetc%2Fca%20one.pem";
        let address = Address::parse(url).unwrap();
        assert_eq!((address.tls, address.root), (Tls::Chain, Some("/etc/ca one.pem".into())));
    }

    #[test]
    fn without_a_mode_only_this_machine_is_trusted_unchecked() {
        for local in [
            "postgres://localhost/x",
            "postgres://127.0.0.1:5433/x",
            "postgres://[::1]/x",
            "postgres://%2Fvar%2Frun%2Fpostgresql/x",
            "postgres://localhost,127.0.0.1/x",
        ] {
            assert_eq!(tls(local), Tls::IfOffered, "{local}");
        }
        for remote in [
            "postgres://db.example/x",
            "postgres://10.0.0.7/x",
            "postgres://localhost,db.example/x",
            "postgres://localhost/x?hostaddr=10.0.0.7",
        ] {
            assert_eq!(tls(remote), Tls::ChainAndName, "{remote}");
        }
    }

    #[test]
    fn a_root_certificate_is_checked() {
        assert_eq!(tls("postgres://localhost?sslmode=require&sslrootcert=a.pem"), Tls::Chain);
        let system = Address::parse("postgres://a.example?sslrootcert=system").unwrap();
        assert_eq!((system.tls, system.root), (Tls::ChainAndName, None));
        assert_eq!(tls("postgres://localhost?sslrootcert=a.pem"), Tls::ChainAndName);
        assert_eq!(tls("postgres://localhost?sslrootcert=system"), Tls::ChainAndName);
        assert!(Address::parse("postgres://localhost?sslmode=verify-ca").is_err());
        for weak in ["allow", "prefer", "require", "verify-ca", "disable"] {
            let url = format!("postgres://a.example?sslmode={weak}&sslrootcert=system");
            assert!(Address::parse(&url).is_err(), "{weak}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for bad in [
            "postgres://u:hunter2@localhost/x?sslmode=maybe",
            "postgres://u:hunter2@localhost:port/x",
            "postgres://u:hunter2@localhost/x?sslrootcert=%zz",
            "postgres://u:hunter2@localhost/x?colour=green",
            "mysql://u:hunter2@localhost/x",
            "user=u password=hunter2",
            "",
        ] {
            let error = Address::parse(bad).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(matches!(error, ConnectError::Url { .. }), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    /// Each host keeps all of its own settings, and gets none of another host.
    #[test]
    fn each_host_has_the_settings_of_all() {
        let parse = |url: &str| Address::parse(url).unwrap().config;
        let options = "connect_timeout=3&keepalives_idle=7&channel_binding=require&options=-cx%3D1\
                       &keepalives_interval=8&keepalives_retries=9&tcp_user_timeout=10&keepalives=0\
                       &application_name=app&sslmode=require&sslnegotiation=direct";
        let all = parse(&format!("postgres://u:p@a.example:1,b.example:2/x?{options}"));
        let each = ["a.example:1", "b.example:2"]
            .map(|host| parse(&format!("postgres://u:p@{host}/x?{options}")));
        assert_eq!(each_host(&all), each);
        let all = parse("user=u host=a.example,/run/pg port=5 hostaddr=10.0.0.1,10.0.0.2");
        let each = ["a.example", "/run/pg"].into_iter().zip(["10.0.0.1", "10.0.0.2"]);
        let each = each
            .map(|(host, address)| parse(&format!("user=u host={host} port=5 hostaddr={address}")));
        assert_eq!(each_host(&all), each.collect::<Vec<_>>());
    }

    #[test]
    fn debug_shows_no_password() {
        let address = Address::parse("postgres://u:hunter2@localhost/x").unwrap();
        assert!(!format!("{address:?}").contains("hunter2"));
    }
}
