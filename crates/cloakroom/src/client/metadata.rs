//! Client metadata (RFC 7591 §2): what a client says about itself, in a document or when it registers.

use cloakroom_core::strict_json;
use serde_json::{Map, Value};

use crate::client::registration::GrantType;

/// The longest name of a client, in characters.
const MAX_NAME: usize = 100;

/// Reads the members of a JSON object without duplicate members.
pub(crate) fn members(json: &[u8]) -> Result<Map<String, Value>, String> {
    let read: Result<_, serde_json::Error> = strict_json::from_slice(json);
    // The text of the error would quote values.
    read.map_err(|error| {
        format!("it cannot be read at line {} column {}", error.line(), error.column())
    })
}

/// A member that is text.
pub(crate) fn text<'a>(
    members: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a str>, String> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("its {name} is not text")),
    }
}

/// A member that is an array of texts.
pub(crate) fn texts<'a>(
    members: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<Vec<&'a str>>, String> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(all)) => {
            let all = all.iter().map(Value::as_str).collect::<Option<_>>();
            all.map(Some).ok_or_else(|| format!("its {name} are not all text"))
        }
        Some(_) => Err(format!("its {name} are not an array")),
    }
}

/// The grant types that are known, of a client that uses codes.
pub(crate) fn grant_types(members: &Map<String, Value>) -> Result<Vec<GrantType>, String> {
    let responses = texts(members, "response_types")?;
    if responses.is_some_and(|types| !types.contains(&"code")) {
        return Err("its response_types lack code".into());
    }
    // RFC 7591 §2: "If omitted, the default behavior is that the client will use only the
    // "authorization_code" Grant Type."
    let named = texts(members, "grant_types")?.unwrap_or(vec!["authorization_code"]);
    let known: Vec<_> = [GrantType::AuthorizationCode, GrantType::RefreshToken]
        .into_iter()
        .filter(|known| named.contains(&known.as_str()))
        .collect();
    if !known.contains(&GrantType::AuthorizationCode) {
        return Err("its grant_types lack authorization_code".into());
    }
    Ok(known)
}

/// The name of the client as a page may show it: characters that are not visible could make it look like
/// another.
pub(crate) fn name(members: &Map<String, Value>) -> Result<Option<String>, String> {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c,
                '\u{ad}' | '\u{61c}' | '\u{feff}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{e0000}'..='\u{e007f}')
    };
    let name = text(members, "client_name")?.unwrap_or_default();
    let visible: String = name.chars().filter(|c| !is_hidden(*c)).take(MAX_NAME).collect();
    let visible = visible.trim();
    Ok((!visible.is_empty()).then(|| visible.to_owned()))
}
