//! Statements, and the names of the tables in them.

use std::fmt;

use tokio_postgres::types::Type;

use crate::error::ConnectError;

/// A statement. Its text calls the tables `cloakroom.grants` and so on; [`Names`] puts the real names in.
/// `$LIMIT` stands for a number that the planner must know.
#[derive(Debug)]
pub(crate) struct Sql {
    pub(crate) text: &'static str,
    pub(crate) types: &'static [Type],
}

impl Sql {
    pub(crate) const fn new(text: &'static str, types: &'static [Type]) -> Self {
        Self { text, types }
    }

    /// Identifies it among all statements of the program.
    pub(crate) fn key(&'static self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// Where the tables are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Names {
    schema: String,
    prefix: String,
}

/// A name of PostgreSQL has at most 63 bytes, and ours are built from both.
const MAX_NAME: usize = 24;

impl Default for Names {
    fn default() -> Self {
        Self { schema: "cloakroom".to_owned(), prefix: String::new() }
    }
}

impl Names {
    pub(crate) fn with_schema(mut self, schema: &str) -> Result<Self, ConnectError> {
        schema.clone_into(&mut self.schema);
        if schema.is_empty() || !is_name(schema) {
            return Err(ConnectError::Name { name: schema.to_owned() });
        }
        Ok(self)
    }

    pub(crate) fn with_prefix(mut self, prefix: &str) -> Result<Self, ConnectError> {
        prefix.clone_into(&mut self.prefix);
        if !is_name(prefix) {
            return Err(ConnectError::Name { name: prefix.to_owned() });
        }
        Ok(self)
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The text with the real names.
    pub(crate) fn render(&self, text: &str) -> String {
        let table = format!("\"{}\".{}", self.schema, self.prefix);
        let index = format!("CREATE INDEX {}", self.prefix);
        text.replace("cloakroom.", &table).replace("CREATE INDEX ", &index)
    }

    pub(crate) fn render_limited(&self, text: &str, limit: u32) -> String {
        self.render(text).replace("$LIMIT", &limit.to_string())
    }

    /// The channel on which appends to the log are announced.
    pub(crate) fn channel(&self) -> String {
        format!("{}.{}log", self.schema, self.prefix)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.prefix)
    }
}

/// Only names that need no escaping, so that a name from a configuration file cannot be a statement.
fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    name.len() <= MAX_NAME
        && name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
        && name.bytes().next().is_none_or(is_letter)
        // PostgreSQL reserves these for itself.
        && !name.starts_with("pg_")
}

/// The largest power of two that is at most `limit`, so that few statements are prepared.
pub(crate) fn rounded(limit: u32, most: u32) -> u32 {
    1 << limit.clamp(1, most).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_in() {
        let names = Names::default().with_schema("auth").unwrap().with_prefix("as1_").unwrap();
        assert_eq!(
            names.render("SELECT FROM cloakroom.grants JOIN cloakroom.tokens"),
            "SELECT FROM \"auth\".as1_grants JOIN \"auth\".as1_tokens"
        );
        assert_eq!(
            names.render("CREATE INDEX x ON cloakroom.grants"),
            "CREATE INDEX as1_x ON \"auth\".as1_grants"
        );
        assert_eq!(names.render_limited("LIMIT $LIMIT", 64), "LIMIT 64");
    }

    #[test]
    fn a_name_is_no_statement() {
        for bad in ["a-b", "a\"b", "A", "1a", "a b", "ä", "pg_x", &"a".repeat(MAX_NAME + 1)] {
            assert!(Names::default().with_schema(bad).is_err(), "{bad}");
            assert!(Names::default().with_prefix(bad).is_err(), "{bad}");
        }
        assert!(Names::default().with_schema("").is_err());
        assert!(Names::default().with_prefix("").is_ok());
        // `table` is a word of SQL, and the schema is quoted.
        assert!(Names::default().with_schema("table").is_ok());
    }

    #[test]
    fn limits_are_powers_of_two() {
        for (limit, rounded_to) in [(0, 1), (1, 1), (3, 2), (64, 64), (100, 64), (10_000, 512)] {
            assert_eq!(rounded(limit, 512), rounded_to);
        }
    }
}
