//! The URLs of servers.

use redis::ProtocolVersion;
use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo};

use crate::error::OpenError;

/// What a URL names.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    Server(ConnectionInfo),
    Sentinel {
        sentinels: Vec<ConnectionAddr>,
        service: String,
        login: RedisConnectionInfo,
        is_tls: bool,
    },
    Cluster(Vec<ConnectionInfo>),
}

impl Address {
    /// Reads a URL. Errors never contain a part of it, since it may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self, OpenError> {
        let (scheme, rest) = url.split_once("://").ok_or(OpenError::Url("it has no scheme"))?;
        let (scheme, kind) = match scheme.split_once('+') {
            Some((scheme, kind @ ("sentinel" | "cluster"))) => (scheme, Some(kind)),
            _ => (scheme, None),
        };
        let Some(kind) = kind else { return Ok(Self::Server(server(url)?)) };
        if !matches!(scheme, "redis" | "rediss" | "valkey" | "valkeys") {
            return Err(OpenError::Url("its scheme is not one of Redis"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let at = if login.is_empty() { "" } else { "@" };
        // The service is not a part of the addresses, and the number of the database is.
        let (service, database) = match kind {
            "sentinel" => path.split_once('/').unwrap_or((path, "")),
            _ => ("", path),
        };
        let each = |host: &str| server(&format!("{scheme}://{login}{at}{host}/{database}"));
        let nodes = hosts.split(',').map(each).collect::<Result<Vec<_>, _>>()?;
        if kind == "cluster" {
            if !database.is_empty() {
                return Err(OpenError::Url("a cluster has no numbered databases"));
            }
            return Ok(Self::Cluster(nodes));
        }
        if service.is_empty() {
            return Err(OpenError::Url("the name of the master is missing: …:26379/mymaster"));
        }
        let first = nodes.first().ok_or(OpenError::Url("it names no sentinel"))?;
        let is_tls = matches!(first.addr(), ConnectionAddr::TcpTls { .. });
        Ok(Self::Sentinel {
            login: first.redis_settings().clone(),
            // Sentinels listen elsewhere than servers.
            sentinels: nodes.iter().map(|node| with_port(node.addr(), 6379, 26379)).collect(),
            service: service.to_owned(),
            is_tls,
        })
    }

    /// Changes the login.
    pub(crate) fn log_in(&mut self, user: Option<&str>, password: Option<&str>) {
        let change = |login: &RedisConnectionInfo| {
            let mut login = login.clone();
            if let Some(user) = user {
                login = login.set_username(user);
            }
            if let Some(password) = password {
                login = login.set_password(password);
            }
            login
        };
        let node =
            |node: &ConnectionInfo| node.clone().set_redis_settings(change(node.redis_settings()));
        match self {
            Self::Server(server) => *server = node(server),
            Self::Sentinel { login, .. } => *login = change(login),
            Self::Cluster(nodes) => nodes.iter_mut().for_each(|one| *one = node(one)),
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        let is_tls = |node: &ConnectionInfo| matches!(node.addr(), ConnectionAddr::TcpTls { .. });
        match self {
            Self::Server(server) => is_tls(server),
            Self::Sentinel { is_tls, .. } => *is_tls,
            Self::Cluster(nodes) => nodes.iter().any(is_tls),
        }
    }
}

/// Small commands must not wait for each other's acknowledgements.
pub(crate) fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn server(url: &str) -> Result<ConnectionInfo, OpenError> {
    let info = url
        .into_connection_info()
        .map_err(|_| OpenError::Url("expected redis://[user][:password@]host[:port][/database]"))?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
        return Err(OpenError::Url(
            "TLS without checking the server's certificate protects nothing",
        ));
    }
    // Answers have one shape.
    let login = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    Ok(info.set_tcp_settings(tcp_settings()).set_redis_settings(login))
}

fn with_port(address: &ConnectionAddr, is: u16, should: u16) -> ConnectionAddr {
    match address.clone() {
        ConnectionAddr::Tcp(host, port) if port == is => ConnectionAddr::Tcp(host, should),
        ConnectionAddr::TcpTls { host, port, insecure, tls_params } if port == is => {
            ConnectionAddr::TcpTls { host, port: should, insecure, tls_params }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_url_is_read() {
        let Address::Server(server) = Address::parse("redis://u:p%40w@h:7000/3").unwrap() else {
            panic!("a server")
        };
        assert_eq!(server.addr().to_string(), "h:7000");
        let login = server.redis_settings();
        assert_eq!((login.username(), login.password(), login.db()), (Some("u"), Some("p@w"), 3));
        assert!(server.tcp_settings().nodelay());

        let address = Address::parse("redis+sentinel://:p@a,b:5/main/2").unwrap();
        let Address::Sentinel { sentinels, service, login, is_tls } = address else {
            panic!("sentinels")
        };
        let sentinels: Vec<_> = sentinels.iter().map(ToString::to_string).collect();
        assert_eq!((sentinels, service.as_str()), (vec!["a:26379".into(), "b:5".into()], "main"));
        assert_eq!((login.password(), login.db(), is_tls), (Some("p"), 2, false));

        let address = Address::parse("rediss+cluster://u:p@a:1,b:2").unwrap();
        assert!(address.is_tls());
        let Address::Cluster(nodes) = address else { panic!("a cluster") };
        let nodes: Vec<_> = nodes.iter().map(|node| node.addr().to_string()).collect();
        assert_eq!(nodes, ["a:1", "b:2"]);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for bad in [
            "hunter2",
            "http://:hunter2@h",
            "redis://:hunter2@h:port",
            "redis://:hunter2@h/x",
            "rediss://:hunter2@h/#insecure",
            "redis+sentinel://:hunter2@h:1",
            "redis+cluster://:hunter2@h:1/1",
            "http+cluster://:hunter2@h:1",
        ] {
            let error = Address::parse(bad).unwrap_err();
            assert!(matches!(error, OpenError::Url(_)), "{bad}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_login_can_be_set_apart() {
        for url in ["redis://h", "redis+sentinel://h/main", "redis+cluster://h"] {
            let mut address = Address::parse(url).unwrap();
            address.log_in(Some("u"), Some("hunter2"));
            let login = match &address {
                Address::Server(server) => server.redis_settings(),
                Address::Sentinel { login, .. } => login,
                Address::Cluster(nodes) => nodes[0].redis_settings(),
            };
            assert_eq!((login.username(), login.password()), (Some("u"), Some("hunter2")));
            assert!(!format!("{address:?}").contains("hunter2"));
        }
    }
}
