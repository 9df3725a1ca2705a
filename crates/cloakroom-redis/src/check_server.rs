//! The checks of a server before the store uses it.

use cloakroom_core::store::StoreError;
use redis::Value;

use crate::connection::Link;
use crate::error::{OpenError, failed};

/// Checks the version, the role and the eviction policy, and traces how the server persists its data.
pub(crate) async fn check(link: &Link, allows_eviction: bool) -> Result<(), OpenError> {
    let command = redis::cmd("INFO");
    let infos = match link.send(&command).await {
        Ok(value) => texts(value),
        // Some users may run scripts and nothing else.
        Err(error) if error.code() == Some("NOPERM") => {
            tracing::warn!(
                "the user may not run INFO, so the eviction policy could not be checked"
            );
            return Ok(());
        }
        Err(error) => {
            return Err(failed("asking the server for its version and role", error).into());
        }
    };
    if infos.is_empty() {
        let error = StoreError::corrupt("the answer to INFO", "it is not text");
        return Err(error.into());
    }
    infos.iter().try_for_each(|info| check_info(info, allows_eviction, link.is_cluster()))
}

/// What a server is, and which of its settings endanger what it holds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) server: Option<String>,
    pub(crate) problems: Vec<String>,
}

/// Looks at the settings of the server again, for an operator.
pub(crate) async fn problems(link: &Link) -> Result<Found, StoreError> {
    let infos = match link.send(&redis::cmd("INFO")).await {
        Ok(value) => texts(value),
        Err(error) if error.code() == Some("NOPERM") => {
            let why =
                "the user may not run INFO, so nobody can check the eviction policy: allow it";
            return Ok(Found { server: None, problems: vec![why.to_owned()] });
        }
        Err(error) => return Err(failed("asking the server what it is", error)),
    };
    let mut found = Found::default();
    for info in &infos {
        let (name, version) = match field(info, "valkey_version") {
            Some(version) => ("Valkey", Some(version)),
            None => ("Redis", field(info, "redis_version")),
        };
        found.server = version.map(|version| format!("{name} {version}")).or(found.server);
        let policy = field(info, "maxmemory_policy").unwrap_or("noeviction");
        if policy != "noeviction" {
            found.problems.push(format!(
                "the server evicts keys when its memory is full (`{policy}`), and would lose \
                 revocations: set maxmemory-policy to noeviction"
            ));
        }
    }
    found.problems.dedup();
    Ok(found)
}

/// A line of INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
}

/// The text of a server; of a cluster that of each node.
fn texts(value: Value) -> Vec<String> {
    match value {
        Value::BulkString(text) => vec![String::from_utf8_lossy(&text).into_owned()],
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => vec![text],
        Value::Map(nodes) => nodes.into_iter().flat_map(|(_, info)| texts(info)).collect(),
        Value::Array(values) => values.into_iter().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

fn check_info(info: &str, allows_eviction: bool, is_cluster: bool) -> Result<(), OpenError> {
    let field = |name: &str| field(info, name);
    // Valkey says that it is compatible with Redis 7.
    let found = field("redis_version").unwrap_or_default();
    let major = found.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < 7) {
        return Err(OpenError::Version { found: found.to_owned() });
    }
    // Nodes of a cluster tell which of them is the master of a slot.
    if field("role") == Some("slave") && !is_cluster {
        return Err(OpenError::Replica);
    }
    let policy = field("maxmemory_policy").unwrap_or("noeviction");
    if policy != "noeviction" {
        // Without a limit, nothing is evicted, until somebody sets one.
        let has_limit = field("maxmemory").is_none_or(|limit| limit != "0");
        if has_limit && !allows_eviction {
            return Err(OpenError::Evicts { policy: policy.to_owned() });
        }
        tracing::warn!(
            policy,
            "this server may delete revocations when its memory is full: set maxmemory-policy to \
             noeviction"
        );
    }
    tracing::info!(
        version = field("valkey_version").unwrap_or(found),
        append_only_file = field("aof_enabled") == Some("1"),
        replicas = field("connected_slaves").unwrap_or("?"),
        "the server's durability depends on its settings for persistence and replication"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, rest: &str) -> String {
        format!("# Server\r\nredis_version:{version}\r\nrole:master\r\n{rest}\r\n")
    }

    #[test]
    fn a_server_that_evicts_is_refused() {
        let limited = "maxmemory:1000\r\nmaxmemory_policy:";
        for policy in ["allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random"] {
            let text = info("7.0.15", &format!("{limited}{policy}"));
            let error = check_info(&text, false, false).unwrap_err();
            assert!(matches!(error, OpenError::Evicts { .. }), "{error}");
            check_info(&text, true, false).unwrap();
            check_info(
                &info("7.0.15", &format!("maxmemory:0\r\nmaxmemory_policy:{policy}")),
                false,
                false,
            )
            .unwrap();
        }
        check_info(&info("7.0.15", &format!("{limited}noeviction")), false, false).unwrap();
    }

    #[test]
    fn an_old_server_and_a_replica_are_refused() {
        for version in ["6.2.14", "", "x"] {
            let error = check_info(&info(version, ""), true, false).unwrap_err();
            assert!(matches!(error, OpenError::Version { .. }), "{error}");
        }
        for version in ["7.0.15", "7.2.4", "8.0.0", "10.1.0"] {
            check_info(&info(version, ""), false, false).unwrap();
        }
        let replica = info("7.0.15", "").replace("master", "slave");
        assert!(matches!(check_info(&replica, false, false), Err(OpenError::Replica)));
    }
}
