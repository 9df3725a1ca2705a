//! The token of a request: in `Authorization` (RFC 6750 §2.1, RFC 9449 §7.1) or in a cookie.

use std::fmt;

use cloakroom_core::{Confirmation, TokenSecret};
use http::header::{self, HeaderValue};
use http::{Extensions, HeaderMap};

use crate::MAX_TOKEN_BYTES;
use crate::layer::challenge::Refusal;
use crate::verify::proof::{Proof, Scheme};

/// The token of a request, and what else the request proves.
#[derive(Debug)]
pub(crate) struct Presented {
    pub(crate) token: Token,
    /// What a refusal is written in.
    pub(crate) scheme: Scheme,
    pub(crate) proof: Proof,
}

impl Presented {
    pub(crate) fn new(scheme: Scheme, token: Token, extensions: &Extensions) -> Self {
        let key = extensions.get::<Confirmation>().cloned();
        Self { token, scheme, proof: Proof { scheme: Some(scheme), key } }
    }
}

/// A token as it came.
#[derive(Clone)]
pub(crate) enum Token {
    /// In a field value, from there to its end: a copy would have to be wiped.
    InPlace(HeaderValue, usize),
    Copied(TokenSecret),
}

impl Token {
    pub(crate) fn expose(&self) -> &str {
        match self {
            // Only what is ASCII becomes a token.
            Self::InPlace(value, start) => {
                std::str::from_utf8(&value.as_bytes()[*start..]).unwrap_or_default()
            }
            Self::Copied(token) => token.expose(),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// The token of the `Authorization` header, and the scheme it came in. No other place is looked at:
/// a token in a query ends up in logs and histories (RFC 9700 §4.3.2).
pub(crate) fn authorization(headers: &HeaderMap) -> Result<Option<(Scheme, Token)>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        // Two readers of one request might each believe another of them.
        return Err(Refusal::InvalidRequest("it has several `Authorization` fields"));
    }
    let bytes = value.as_bytes();
    let end = bytes.iter().position(|byte| *byte == b' ');
    let (name, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
    // RFC 9110 §11.1: the scheme is case-insensitive. One that is not ours is no credential here.
    let scheme = if name.eq_ignore_ascii_case(b"Bearer") {
        Scheme::Bearer
    } else if name.eq_ignore_ascii_case(b"DPoP") {
        Scheme::Dpop
    } else {
        return Ok(None);
    };
    let token = rest.trim_ascii_start();
    check_token68(token)?;
    Ok(Some((scheme, Token::InPlace(value.clone(), bytes.len() - token.len()))))
}

/// The token in the cookie of this name.
pub(crate) fn cookie_token(headers: &HeaderMap, name: &str) -> Result<Option<Token>, Refusal> {
    let mut found = None;
    for pair in headers.get_all(header::COOKIE).iter().flat_map(pairs) {
        if let Some(value) = value_of(pair, name) {
            if found.is_some() {
                // One may have been set for a parent domain: nobody can tell which.
                return Err(Refusal::InvalidRequest("it has the token's cookie twice"));
            }
            check_token68(value)?;
            let token = std::str::from_utf8(value).map_err(|_| NOT_A_TOKEN)?;
            found = Some(Token::Copied(TokenSecret::new(token)));
        }
    }
    Ok(found)
}

/// Takes the cookie of this name out; the others stay, byte for byte.
pub(crate) fn remove_cookie(headers: &mut HeaderMap, name: &str) {
    let cookies: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    headers.remove(header::COOKIE);
    for cookie in &cookies {
        let kept: Vec<&[u8]> =
            pairs(cookie).filter(|pair| value_of(pair, name).is_none()).collect();
        if let (false, Ok(value)) =
            (kept.is_empty(), HeaderValue::from_bytes(&kept.join(&b"; "[..])))
        {
            headers.append(header::COOKIE, value);
        }
    }
}

fn pairs(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|byte| *byte == b';')
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty())
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let value = pair.strip_prefix(name.as_bytes())?.trim_ascii_start();
    Some(value.strip_prefix(b"=")?.trim_ascii())
}

const NOT_A_TOKEN: Refusal =
    Refusal::InvalidRequest("its credential does not have the form of a token");

/// RFC 6750 §2.1: `b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`
fn check_token68(bytes: &[u8]) -> Result<(), Refusal> {
    let end = bytes.iter().rposition(|byte| *byte != b'=');
    let body = &bytes[..end.map_or(0, |end| end + 1)];
    // Each byte, whatever the others are: so the compiler looks at many of them at once.
    let all_are_allowed = body.iter().fold(true, |all, byte| {
        let mark =
            (b'-'..=b'/').contains(byte) | (*byte == b'_') | (*byte == b'~') | (*byte == b'+');
        all & (byte.is_ascii_alphanumeric() | mark)
    });
    if body.is_empty() || !all_are_allowed {
        return Err(NOT_A_TOKEN);
    }
    if bytes.len() > MAX_TOKEN_BYTES {
        return Err(Refusal::TooLarge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_consists_of_what_the_rfc_lists() {
        let listed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/";
        for byte in 0..=u8::MAX {
            let expected = listed.as_bytes().contains(&byte);
            // Wherever it stands, among as many as are looked at together.
            for place in [0, 1, 63, 99] {
                let mut token = [b'a'; 100];
                token[place] = byte;
                let is_end = byte == b'=' && place == 99;
                assert_eq!(check_token68(&token).is_ok(), expected || is_end, "{byte} {place}");
            }
        }
        let long = "a".repeat(MAX_TOKEN_BYTES);
        for good in ["a", "a=", "a===", &long] {
            assert!(check_token68(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in ["", "=", "==", "a=b", "a b", &format!("{long}=")] {
            assert!(check_token68(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_found_where_it_stands_and_shows_nothing() {
        let mut headers = HeaderMap::new();
        for (value, token) in
            [("Bearer secret", "secret"), ("bearer   s", "s"), ("DPoP a.b.c==", "a.b.c==")]
        {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            let (_, found) = authorization(&headers).unwrap().unwrap();
            assert_eq!(found.expose(), token);
            assert_eq!(format!("{found:?}"), "Token(redacted)");
        }
    }
}
