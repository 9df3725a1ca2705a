//! Addresses of servers, whose passwords are shown to nobody but the server.

use std::fmt::{self, Debug, Display};

/// `scheme://[user[:password]@]host[:port][/database][?query]`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    scheme: String,
    /// As they were written, percent-encoded.
    user: Option<String>,
    password: Option<String>,
    host: String,
    port: Option<u16>,
    database: String,
    query: Option<String>,
}

impl Url {
    /// Reads a URL of one of these schemes. What is wrong is said without a word of what was read.
    pub(crate) fn parse(text: &str, schemes: &[&str]) -> Result<Self, String> {
        let expected = || format!("is no URL that begins with {}://", schemes.join(":// or "));
        let (scheme, rest) = text.split_once("://").ok_or_else(expected)?;
        if !schemes.contains(&scheme) {
            return Err(expected());
        }
        let (rest, query) = cut(rest, '?');
        let (authority, database) = cut(rest, '/');
        let database = database.unwrap_or_default();
        let (userinfo, address) = match authority.rsplit_once('@') {
            Some((userinfo, address)) => (Some(userinfo), address),
            None => (None, authority),
        };
        // An unencoded password would end early, and the rest of it count as something to show.
        if text.contains('#') || [database, query.unwrap_or_default()].join("").contains('@') {
            return Err("has an `@` or `#` out of place: percent-encode the password".into());
        }
        // The clients that xtask calls would show it.
        if query.is_some_and(|query| query.to_ascii_lowercase().contains("pass")) {
            return Err("has a password after the `?`: it belongs before the host".into());
        }
        let (user, password) = userinfo.map_or((None, None), |userinfo| {
            let (user, password) = cut(userinfo, ':');
            (Some(user), password)
        });
        for encoded in [user, password].into_iter().flatten() {
            decoded(encoded).ok_or("has a user or password that is not percent-encoded UTF-8")?;
        }
        let (host, port) = host_and_port(address).ok_or("has no host, or no number as its port")?;
        Ok(Self {
            scheme: scheme.into(),
            user: user.map(Into::into),
            password: password.map(Into::into),
            host: host.into(),
            port,
            database: database.into(),
            query: query.map(Into::into),
        })
    }

    /// With the password: for the environment of those who connect.
    pub(crate) fn reveal(&self) -> String {
        self.text(self.password.as_deref())
    }

    /// Decoded: for the environment of a client.
    pub(crate) fn password(&self) -> Option<String> {
        self.password.as_deref().and_then(decoded)
    }

    pub(crate) fn without_password(&self) -> String {
        self.text(None)
    }

    pub(crate) fn with_database(&self, name: &str) -> Self {
        Self { database: name.into(), ..self.clone() }
    }

    pub(crate) fn scheme(&self) -> &str {
        &self.scheme
    }

    pub(crate) fn user(&self) -> Option<String> {
        self.user.as_deref().filter(|user| !user.is_empty()).and_then(decoded)
    }

    /// Without the brackets that enclose an IPv6 address.
    pub(crate) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    /// Empty if none is named.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    fn text(&self, password: Option<&str>) -> String {
        let mut text = format!("{}://", self.scheme);
        if let Some(user) = &self.user {
            text += user;
            if let Some(password) = password {
                text += ":";
                text += password;
            }
            text += "@";
        }
        text += &self.host;
        if let Some(port) = self.port {
            text += &format!(":{port}");
        }
        if !self.database.is_empty() {
            text += "/";
            text += &self.database;
        }
        if let Some(query) = &self.query {
            text += "?";
            text += query;
        }
        text
    }
}

impl Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(self.password.as_ref().map(|_| "…")))
    }
}

impl Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

fn host_and_port(address: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
        _ => (address, None),
    };
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    (!host.is_empty() && (is_bracketed || !host.contains(':'))).then_some((host, port))
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut pieces = text.split('%');
    bytes.extend_from_slice(pieces.next()?.as_bytes());
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMES: &[&str] = &["postgres", "postgresql"];

    fn parse(text: &str) -> Result<Url, String> {
        Url::parse(text, SCHEMES)
    }

    #[test]
    fn the_parts_are_read_and_put_together_again() {
        let text = "postgres://al%40ice:p%3Aw%2fd@[::1]:5433/base?sslmode=disable";
        let url = parse(text).expect("a URL");
        assert_eq!(url.reveal(), text);
        assert_eq!(url.user().as_deref(), Some("al@ice"));
        assert_eq!(url.password().as_deref(), Some("p:w/d"));
        assert_eq!((url.host(), url.port(), url.database()), ("::1", Some(5433), "base"));
        let other = url.with_database("other").reveal();
        assert_eq!(other, "postgres://al%40ice:p%3Aw%2fd@[::1]:5433/other?sslmode=disable");

        for text in ["postgresql://h", "postgres://h:1", "postgres://u@h/d", "postgres://[::1]?a=b"]
        {
            let url = parse(text).expect("a URL");
            assert_eq!((url.reveal().as_str(), url.password()), (text, None));
        }
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        let url = parse("postgres://user:hunter2@host:1/base").expect("a URL");
        assert_eq!(url.to_string(), "postgres://user:…@host:1/base");
        assert_eq!(format!("{url:?}"), "postgres://user:…@host:1/base");
        assert_eq!(url.without_password(), "postgres://user@host:1/base");
    }

    #[test]
    fn what_is_wrong_is_said_without_what_was_read() {
        for bad in [
            "hunter2",
            "mysql://hunter2@host",
            "postgres://",
            "postgres://user:hunter2@",
            "postgres://user:hunter2@host:port",
            "postgres://user:hunter2@:1",
            "postgres://user:hunter2@::1",
            "postgres://user:hunter2%@host",
            "postgres://user:hunter2%zz@host",
            "postgres://user:hunter2%ff@host",
            "postgres://user:1/hunter2@host",
            "postgres://user:1?hunter2@host",
            "postgres://user:1#hunter2@host",
            "postgres://host/base?user=user&password=hunter2",
            "postgres://host/base?sslPassword=hunter2",
        ] {
            let error = parse(bad).expect_err(bad);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
