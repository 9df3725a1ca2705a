//! Parameters in a form body or a query (RFC 6749 appendix B).

use std::fmt;
use std::ops::Range;

use zeroize::{Zeroize, Zeroizing};

use crate::client::uris::resource_fault;
use crate::error::TokenError;

/// The most parameters of a request. Each is compared with those before it, so that one large body
/// could keep a core busy.
const MAX_PARAMETERS: usize = 64;

/// As many parameters as most requests have, or fewer.
const TYPICAL_PARAMETERS: usize = 6;

pub(crate) const REPEATED: &str = "a parameter is repeated";

/// The parameters of a request. `Debug` does not show their values, which may be secret.
#[derive(Default)]
pub struct Form {
    /// The decoded names and values, one after another.
    text: Zeroizing<String>,
    parameters: Vec<Parameter>,
}

/// Where the name and the value of a parameter stand.
struct Parameter {
    name: Range<usize>,
    value: Range<usize>,
}

impl Form {
    /// Parses a form.
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidRequest`] if it is not UTF-8, has more than 64 parameters, or repeats a
    /// parameter other than `resource` (RFC 8707 §2).
    pub fn parse(body: &[u8]) -> Result<Self, TokenError> {
        match Self::parse_repeated(body)? {
            (form, repeated) if repeated.is_empty() => Ok(form),
            _ => Err(TokenError::InvalidRequest(REPEATED)),
        }
    }

    /// Parses a form, and names the parameters that are repeated and must not be. Their first value
    /// counts.
    pub(crate) fn parse_repeated(body: &[u8]) -> Result<(Self, Vec<String>), TokenError> {
        let mut repeated = Vec::new();
        // Decoded text is not longer: a buffer that grows would leave parts of a secret behind.
        let text = Zeroizing::new(String::with_capacity(body.len()));
        let mut form = Self { text, parameters: Vec::with_capacity(TYPICAL_PARAMETERS) };
        for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            if form.parameters.len() == MAX_PARAMETERS {
                return Err(TokenError::InvalidRequest("the request has too many parameters"));
            }
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            let mut next = || form.push(parts.next().unwrap_or_default());
            let (Some(name), Some(value)) = (next(), next()) else {
                return Err(TokenError::InvalidRequest("a parameter is not UTF-8"));
            };
            // RFC 6749 §3.2: "Parameters sent without a value MUST be treated as if they were
            // omitted from the request. [...] Request and response parameters MUST NOT be included
            // more than once."
            let text = form.text(&name);
            if text != "resource" && form.fields().any(|(known, _)| known == text) {
                repeated.push(text.to_owned());
            }
            form.parameters.push(Parameter { name, value });
        }
        form.parameters.retain(|parameter| !parameter.value.is_empty());
        Ok((form, repeated))
    }

    /// Decodes a name or a value, and says where it stands; `None` if it is not UTF-8.
    fn push(&mut self, encoded: &[u8]) -> Option<Range<usize>> {
        let start = self.text.len();
        if encoded.iter().any(|byte| matches!(byte, b'+' | b'%')) {
            self.text.push_str(&decoded(encoded)?);
        } else {
            self.text.push_str(str::from_utf8(encoded).ok()?);
        }
        Some(start..self.text.len())
    }

    fn text(&self, range: &Range<usize>) -> &str {
        &self.text[range.clone()]
    }

    /// Names and values.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let texts = |own: &Parameter| (self.text(&own.name), self.text(&own.value));
        self.parameters.iter().map(texts)
    }

    /// The values of the parameters of this name.
    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields().filter(move |(own, _)| *own == name).map(|(_, value)| value)
    }

    /// The value of a parameter, if it is present and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// The value of a required parameter.
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidRequest`] with this text if it is missing.
    pub fn require(&self, name: &str, missing: &'static str) -> Result<&str, TokenError> {
        self.get(name).ok_or(TokenError::InvalidRequest(missing))
    }

    /// The resources that the request names (RFC 8707 §2).
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidTarget`] if a resource is not an absolute URI, or has a fragment.
    pub fn resources(&self) -> Result<Vec<String>, TokenError> {
        self.values("resource")
            .map(|value| match resource_fault(value) {
                None => Ok(value.to_owned()),
                Some(why) => Err(TokenError::InvalidTarget(why)),
            })
            .collect()
    }

    /// The parameter of this name alone.
    #[cfg(feature = "http")]
    pub(crate) fn only(mut self, name: &str) -> Self {
        let text = &self.text;
        self.parameters.retain(|parameter| text[parameter.name.clone()] == *name);
        self
    }
}

/// Decodes a form-encoded name or value; `None` if it is not UTF-8. The buffer is long enough from
/// the start: one that grows would leave parts of a secret behind.
pub(crate) fn decoded(encoded: &[u8]) -> Option<Zeroizing<String>> {
    let mut plain = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'+' | b'%')) {
        let (run, escape) = rest.split_at(at);
        plain.extend_from_slice(run);
        let (byte, length) = match (escape, escaped(escape)) {
            (_, Some(byte)) => (byte, 3),
            ([b'+', ..], None) => (b' ', 1),
            _ => (b'%', 1),
        };
        plain.push(byte);
        rest = &escape[length..];
    }
    plain.extend_from_slice(rest);
    match String::from_utf8(plain) {
        Ok(text) => Some(Zeroizing::new(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            None
        }
    }
}

/// The byte that `%` and two hexadecimal digits at the beginning encode.
fn escaped(text: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match text {
        [b'%', high, low, ..] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.fields().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::form_urlencoded;

    use super::*;

    #[test]
    fn forms_are_read_strictly() {
        let form =
            Form::parse(b"token=a%20b&empty=&resource=https://a&resource=https://b").unwrap();
        assert_eq!(form.get("token"), Some("a b"));
        assert_eq!(form.get("empty"), None);
        assert_eq!(form.resources().unwrap(), ["https://a", "https://b"]);
        assert!(Form::parse(b"token=a&token=b").is_err());
        assert!(Form::parse(b"token=a&token=").is_err());
        assert!(Form::parse(b"token=%ff").is_err());
        let many = |count| (0..count).map(|n| format!("p{n}=x&")).collect::<String>();
        assert!(Form::parse(many(MAX_PARAMETERS).as_bytes()).is_ok());
        assert!(Form::parse(many(MAX_PARAMETERS + 1).as_bytes()).is_err());
        assert!(Form::parse(b"resource=orders").unwrap().resources().is_err());
        assert!(Form::parse(b"resource=https://a%23x").unwrap().resources().is_err());
    }

    proptest! {
        /// As browsers do it, but for what is no UTF-8.
        #[test]
        fn names_and_values_are_decoded_as_everywhere(encoded in "[a-c%+0-9é\u{fffd}]{0,40}") {
            let pair = format!("v={encoded}");
            let (_, expected) = form_urlencoded::parse(pair.as_bytes()).next().unwrap();
            match decoded(encoded.as_bytes()) {
                Some(text) => prop_assert_eq!(text.as_str(), expected),
                None => prop_assert!(expected.contains(char::REPLACEMENT_CHARACTER)),
            }
        }
    }

    #[test]
    fn debug_shows_names_alone() {
        let form = Form::parse(b"client_secret=hush").unwrap();
        assert_eq!(format!("{form:?}"), r#"{"client_secret"}"#);
    }
}
