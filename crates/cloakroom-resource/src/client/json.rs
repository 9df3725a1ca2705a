//! Parsing of the authorization server's JSON, with errors that say why it cannot be read.

use cloakroom_core::strict_json;
use cloakroom_jwt::JwkError;
use serde::de::DeserializeOwned;

/// The longest name that a reason shows: names of members are shorter, tokens are longer.
const MAX_NAME: usize = 40;

/// A `T` from a JSON object without duplicate members.
///
/// # Errors
///
/// The reason, which quotes no value.
pub(crate) fn read_object<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    strict_json::from_slice(json).map_err(|error| reason(&error))
}

/// Why JSON was refused, without the values that serde quotes: one may be a token.
pub(crate) fn reason(error: &serde_json::Error) -> String {
    without_values(&error.to_string())
}

/// Why a JWK Set was refused.
pub(crate) fn jwk_set_reason(error: &JwkError) -> String {
    match error {
        JwkError::Json(error) => reason(error),
        other => other.to_string(),
    }
}

fn without_values(text: &str) -> String {
    // `invalid type: string "…", expected …`
    let cut = match (text.find('"'), text.rfind('"')) {
        (Some(start), Some(end)) if start < end => {
            format!("{}…{}", &text[..start], &text[end + 1..])
        }
        _ => text.to_owned(),
    };
    // Between backticks are names, numbers and single characters.
    let names = cut
        .split('`')
        .enumerate()
        .map(|(place, part)| if place % 2 == 1 && part.len() > MAX_NAME { "…" } else { part });
    let names: Vec<&str> = names.collect();
    names.join("`").chars().take(300).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only whether it can be read counts")]
    struct Document {
        issuer: String,
        count: Option<u8>,
    }

    #[test]
    fn a_reason_says_what_is_wrong_and_quotes_nothing() {
        let long = "cr_at_0123456789012345678901234567890123456789";
        for (json, expected) in [
            (r#"{"issuer":"a","count":"cr_at_secret"}"#, "invalid type: string …, expected u8"),
            (r#"{"issuer":"a","count":"cr\"at, expected"}"#, "string …, expected u8"),
            (r#"{"issuer":"a","count":1,"count":1}"#, "`count` occurs twice"),
            (r#"{"count":1}"#, "missing field `issuer`"),
            (r#"["a"]"#, "invalid type: sequence, expected an object"),
            (r#""cr_at_secret""#, "invalid type: string …, expected an object"),
            ("<html>", "expected value at line 1 column 1"),
            ("", "EOF while parsing"),
            (&format!(r#"{{"{long}":1,"{long}":1}}"#), "`…` occurs twice"),
            (r#"{"a\nb":1,"a\nb":1}"#, "`…` occurs twice"),
        ] {
            let why = read_object::<Document>(json.as_bytes()).unwrap_err();
            assert!(why.contains(expected), "{json}: {why}");
            assert!(!why.contains("cr_at_") && !why.contains('\n'), "{json}: {why}");
        }
        assert!(read_object::<Document>(br#"{"issuer":"a","x":[1]}"#).is_ok());
    }
}
