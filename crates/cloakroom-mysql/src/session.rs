//! How a session begins: TLS, session settings, and which servers are refused.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::{Conn, DriverError, Error, Opts, OptsBuilder, SslOpts};

use crate::connection::Connection;
use crate::error::Failure;
use crate::settings::{Settings, Via};
use crate::url::{DatabaseUrl, SslMode};

/// What every session sets.
///
/// - `READ COMMITTED`: each statement sees what was committed before it began, and a statement locks only
///   the rows that it matches, without gaps. The statements of this crate say what they rely on.
/// - A strict mode: a value that does not fit is an error, and is not cut off.
/// - `completion_type`: after `COMMIT` there must not be another transaction.
/// - A wait for a lock ends: other calls wait for the connection.
const SET_UP: &str = "SET NAMES utf8mb4; \
     SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
     SET SESSION TRANSACTION READ WRITE; \
     SET SESSION autocommit = 1, completion_type = 0, sql_safe_updates = 0, \
     sql_select_limit = DEFAULT, unique_checks = 1, \
     sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO'";

/// What a session on a Galera node sets, too.
///
/// - `wsrep_sync_wait`: otherwise a node answers reads before it has applied what another node acknowledged.
/// - `wsrep_retry_autocommit`: otherwise a node that gives up a transaction, because another node was faster, may
///   repeat a statement of it by itself. A packet of several statements then ends without an error, though its
///   `UPDATE` is lost.
const GALERA: &str = "SET SESSION wsrep_sync_wait = 7, wsrep_retry_autocommit = 0";

/// The kind of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    MariaDb,
    MySql,
}

/// What a new session says of its server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) version: (u16, u16, u16),
    pub(crate) text: String,
    pub(crate) is_read_only: bool,
}

impl Server {
    /// Whether the server has `SKIP LOCKED` and runs what this crate sends.
    pub(crate) fn is_new_enough(&self) -> bool {
        match self.kind {
            Kind::MariaDb => self.version >= (10, 11, 0),
            Kind::MySql => self.version >= (8, 0, 1),
        }
    }
}

/// Opens a session and sets it up, within the time-out.
pub(crate) async fn open(
    settings: &Settings,
    prefix: Arc<str>,
) -> Result<(Connection, Server), Failure> {
    let after = settings.connect_timeout;
    let opened = async {
        let conn = connect(settings).await?;
        let mut connection = Connection::new(conn, prefix, settings.patience());
        let server = set_up(&mut connection, settings).await?;
        Ok((connection, server))
    };
    tokio::time::timeout(after, opened).await.unwrap_or(Err(Failure::Timeout(after)))
}

async fn connect(settings: &Settings) -> Result<Conn, Failure> {
    let url = match &settings.via {
        Via::Url(url) => url,
        Via::Pool(pool) => return take(pool).await,
    };
    match Conn::new(options(url, url.ssl.mode != SslMode::Disabled)).await {
        Err(Error::Driver(DriverError::NoClientSslFlagFromServer))
            if url.ssl.mode == SslMode::Preferred =>
        {
            Ok(Conn::new(options(url, false)).await?)
        }
        connected => Ok(connected?),
    }
}

/// Takes a connection of the app's pool, which still counts it as one of its own.
///
/// What the app left there is gone after a reset: an open transaction, and what it set. A connection that was
/// dropped in the middle of a statement never comes from the pool: the driver closes it, or reads the answer to
/// its end first. The reset when it is given back removes what the store has set.
async fn take(pool: &mysql_async::Pool) -> Result<Conn, Failure> {
    let mut conn = pool.get_conn().await?;
    conn.reset_connection(true);
    conn.reset().await?;
    Ok(conn)
}

fn options(url: &DatabaseUrl, with_tls: bool) -> Opts {
    let ssl = with_tls.then(|| {
        let ssl = &url.ssl;
        let is_verified = ssl.mode == SslMode::VerifyIdentity;
        SslOpts::default()
            .with_root_certs(ssl.ca.iter().cloned().map(Into::into).collect())
            .with_disable_built_in_roots(ssl.ca.is_some())
            .with_client_identity(ssl.identity())
            .with_danger_accept_invalid_certs(!is_verified)
            .with_danger_tls_hostname_override(ssl.server_name.clone())
    });
    OptsBuilder::default()
        .ip_or_hostname(url.host.clone())
        .tcp_port(url.port)
        .socket(url.socket.clone())
        .user(url.user.clone())
        .pass(url.password.clone())
        .db_name(Some(url.database.clone()))
        .ssl_opts(ssl)
        // An `UPDATE` that matches a row and changes nothing counts, too: otherwise a revocation that is
        // repeated would look like one of a grant that does not exist.
        .client_found_rows(true)
        // `Connection` keeps the statements, without a bound to close them at.
        .stmt_cache_size(0)
        .prefer_socket(false)
        .tcp_keepalive(Some(Duration::from_secs(30)))
        .tcp_nodelay(true)
        // Saves a question at the start. Nothing depends on it: `Pool` tries again.
        .wait_timeout(Some(28_800))
        .into()
}

async fn set_up(connection: &mut Connection, settings: &Settings) -> Result<Server, Failure> {
    const ABOUT: &str = "SELECT VERSION(), @@global.read_only, @@global.innodb_read_only";
    let wait = settings.lock_seconds();
    connection.run(&format!("{SET_UP}, innodb_lock_wait_timeout = {wait}")).await?;
    let rows = connection.query(ABOUT).await?;
    let (text, read_only, innodb): (String, u64, u64) = rows
        .into_iter()
        .next()
        .and_then(|row| mysql_async::from_row_opt(row).ok())
        .ok_or(Failure::Refused("the server does not report its version"))?;
    let kind =
        if text.to_ascii_lowercase().contains("mariadb") { Kind::MariaDb } else { Kind::MySql };
    let server =
        Server { kind, version: version(&text), text, is_read_only: read_only != 0 || innodb != 0 };
    let limit = settings.statement_timeout;
    match kind {
        // For every statement.
        Kind::MariaDb => {
            let seconds = limit.as_secs_f64();
            connection.run(&format!("SET SESSION max_statement_time = {seconds:.3}")).await?;
        }
        // For SELECT alone. The client's own time-out bounds the others.
        Kind::MySql => {
            let millis = limit.as_millis();
            connection.run(&format!("SET SESSION max_execution_time = {millis}")).await?;
        }
    }
    let galera = connection.query("SHOW VARIABLES LIKE 'wsrep_on'").await?;
    let is_on = galera.into_iter().any(|row| {
        let row: Result<(String, String), _> = mysql_async::from_row_opt(row);
        row.is_ok_and(|(_, value)| value.eq_ignore_ascii_case("ON"))
    });
    if is_on {
        connection.run(GALERA).await?;
    }
    Ok(server)
}

/// The numbers at the beginning: `10.11.6-MariaDB-0+deb12u1`, `8.0.36`, `5.5.5-10.11.6-MariaDB`.
fn version(text: &str) -> (u16, u16, u16) {
    let text = text.strip_prefix("5.5.5-").unwrap_or(text);
    let mut numbers =
        text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        for (text, kind, numbers, is_new_enough) in [
            ("10.11.6-MariaDB-0+deb12u1", Kind::MariaDb, (10, 11, 6), true),
            ("5.5.5-11.4.2-MariaDB", Kind::MariaDb, (11, 4, 2), true),
            ("10.6.1-MariaDB", Kind::MariaDb, (10, 6, 1), false),
            ("8.0.36", Kind::MySql, (8, 0, 36), true),
            ("9.1.0-cloud", Kind::MySql, (9, 1, 0), true),
            ("5.7.44-log", Kind::MySql, (5, 7, 44), false),
            ("", Kind::MySql, (0, 0, 0), false),
        ] {
            assert_eq!(version(text), numbers, "{text}");
            let server = Server { kind, version: numbers, text: text.into(), is_read_only: false };
            assert_eq!(server.is_new_enough(), is_new_enough, "{text}");
        }
    }
}
