//! Requests and replies, as short as a table needs them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use serde_json::Value;
use url::form_urlencoded::{Serializer, byte_serialize};

pub(super) type Parameters<'a> = &'a [(&'a str, &'a str)];

/// A form that is posted.
pub(super) fn post(path: &str, form: Parameters<'_>) -> Request<Bytes> {
    let body = Serializer::new(String::new()).extend_pairs(form).finish();
    Request::post(path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(body.into())
        .unwrap()
}

pub(super) fn get(path: &str) -> Request<Bytes> {
    Request::get(path).body(Bytes::new()).unwrap()
}

/// What a test adds to a request.
pub(super) trait With: Sized {
    fn with(self, name: &'static str, value: &str) -> Self;

    /// `Basic` credentials, form-encoded first as RFC 6749 §2.3.1 asks.
    fn basic(self, id: &str, secret: &str) -> Self {
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let credentials = format!("{}:{}", encoded(id), encoded(secret));
        let value = format!("Basic {}", STANDARD.encode(credentials));
        self.with("authorization", &value)
    }
}

impl With for Request<Bytes> {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers_mut().append(name, value.parse().unwrap());
        self
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// A member of the JSON body that is text, or nothing.
    #[track_caller]
    pub(super) fn member(&self, name: &str) -> String {
        let json = self.json();
        json[name].as_str().unwrap_or_default().to_owned()
    }

    /// The only header of this name, or nothing.
    #[track_caller]
    pub(super) fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} twice: {self:?}");
        value.unwrap_or_default()
    }

    #[track_caller]
    pub(super) fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{self:?}");
        self
    }

    /// An error response (RFC 6749 §5.2): its status, its code, and what goes with every one.
    #[track_caller]
    pub(super) fn refused(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, &*self.member("error")), (status, code), "{self:?}");
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(self.header("www-authenticate").is_empty(), status != 401, "{self:?}");
        assert_eq!(self.header("retry-after").is_empty(), status != 503, "{self:?}");
        // RFC 6749 §5.2: %x20-21 / %x23-5B / %x5D-7E
        let plain = |c: char| matches!(c, ' '..='!' | '#'..='[' | ']'..='~');
        assert!(self.member("error_description").chars().all(plain), "{self:?}");
        self
    }
}

impl From<Response<Bytes>> for Reply {
    fn from(response: Response<Bytes>) -> Self {
        let (parts, body) = response.into_parts();
        Self { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}
