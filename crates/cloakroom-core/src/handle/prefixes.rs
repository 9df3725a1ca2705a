//! How handles begin.

use crate::ids::InvalidValue;
use crate::secret::TokenKind;

/// How the kinds of handles are spelled: their prefixes. Secret scanners find leaks by them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlePrefixes {
    pub(crate) access: String,
    refresh: String,
    code: String,
}

impl HandlePrefixes {
    /// Prefixes of access token, refresh token and code.
    ///
    /// # Errors
    ///
    /// If one is empty, longer than 32 bytes, not of `A-Z a-z 0-9 _ -`, or the beginning of
    /// another.
    pub fn new(access: &str, refresh: &str, code: &str) -> Result<Self, InvalidValue> {
        let all = [access, refresh, code];
        for (index, prefix) in all.iter().enumerate() {
            check_prefix(prefix)?;
            if all.iter().enumerate().any(|(i, other)| i != index && other.starts_with(prefix)) {
                let why = "it begins like the prefix of another kind";
                return Err(InvalidValue::new("handle prefix", why));
            }
        }
        Ok(Self { access: access.into(), refresh: refresh.into(), code: code.into() })
    }

    pub(crate) fn prefix(&self, kind: TokenKind) -> &str {
        match kind {
            TokenKind::Access => &self.access,
            TokenKind::Refresh => &self.refresh,
            TokenKind::Code => &self.code,
        }
    }
}

impl Default for HandlePrefixes {
    /// `cr_at_`, `cr_rt_`, `cr_ac_`.
    fn default() -> Self {
        Self { access: "cr_at_".into(), refresh: "cr_rt_".into(), code: "cr_ac_".into() }
    }
}

pub(crate) fn check_prefix(prefix: &str) -> Result<(), InvalidValue> {
    let invalid = |why| Err(InvalidValue::new("handle prefix", why));
    if prefix.is_empty() || prefix.len() > 32 {
        return invalid("it has fewer than 1 or more than 32 bytes");
    }
    // No dots: they would make a handle look like a JWT.
    if !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
        return invalid("it holds a character other than A-Z a-z 0-9 _ -");
    }
    Ok(())
}
