//! The prefixes of handles.

use crate::ids::InvalidValue;
use crate::secret::TokenKind;

/// The prefixes of the kinds of handles. Secret scanners find leaked tokens by them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlePrefixes {
    pub(crate) access: String,
    refresh: String,
    code: String,
}

impl HandlePrefixes {
    /// The prefixes of access tokens, refresh tokens and codes.
    ///
    /// # Errors
    ///
    /// If one is empty, is longer than 32 bytes, has a character outside `A-Z a-z 0-9 _ -`, or is the
    /// beginning of another.
    pub fn new(access: &str, refresh: &str, code: &str) -> Result<Self, InvalidValue> {
        let all = [access, refresh, code];
        for (index, prefix) in all.iter().enumerate() {
            check_prefix(prefix)?;
            if all.iter().enumerate().any(|(i, other)| i != index && other.starts_with(prefix)) {
                let why = "it is the beginning of another prefix";
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
        return invalid("it must have 1 to 32 bytes");
    }
    // A dot would make a handle look like a JWT.
    if !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
        return invalid("it may contain only A-Z a-z 0-9 _ -");
    }
    Ok(())
}
