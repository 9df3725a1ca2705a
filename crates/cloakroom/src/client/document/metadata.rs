//! What a client metadata document says (draft-ietf-oauth-client-id-metadata-document, RFC 7591 §2).

use serde_json::{Map, Value};
use url::{Host, Origin, Url};

use crate::client::metadata::{grant_types, members, name, text, texts};
use crate::client::registration::GrantType;
use crate::client::uris::{is_home_page, redirect_fault};

/// The most redirect URIs that are read.
const MAX_REDIRECT_URIS: usize = 32;

/// The URL in a `client_id`, if a document may be there.
///
/// The draft, §3: "Client identifier URLs MUST have an "https" scheme, MUST contain a path component, MUST
/// NOT contain single-dot or double-dot path segments, MUST NOT contain a fragment component and MUST NOT
/// contain a username or password."
pub(super) fn document_url(client_id: &str) -> Option<Url> {
    let url = Url::parse(client_id).ok().filter(|url| url.scheme() == "https")?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    // Spelled as the parser spells it: what it would change, such as dot segments, capitals in the host or
    // an address in another notation, is no identifier.
    let is_spelled_out = url.as_str() == client_id;
    (plain && is_spelled_out && url.has_host() && url.path() != "/").then_some(url)
}

/// Which redirect URIs of a document are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DocumentRedirects {
    /// Those with the origin of the document, and `http` on this machine (`127.0.0.1`, `[::1]`,
    /// `localhost`).
    #[default]
    SameOriginOrLoopback,
    /// Those with the origin of the document.
    SameOrigin,
    /// All that a registered client may have, such as `com.example.app:/callback`. Whoever writes the
    /// document then chooses where codes go.
    Any,
}

impl DocumentRedirects {
    fn allow(self, uri: &Url, origin: &Origin) -> bool {
        let is_own = uri.scheme() == "https" && uri.origin() == *origin;
        let is_loopback = uri.scheme() == "http"
            && match uri.host() {
                Some(Host::Ipv4(address)) => address.is_loopback(),
                Some(Host::Ipv6(address)) => address.is_loopback(),
                Some(Host::Domain(name)) => name == "localhost",
                None => false,
            };
        match self {
            Self::SameOriginOrLoopback => is_own || is_loopback,
            Self::SameOrigin => is_own,
            Self::Any => true,
        }
    }
}

/// A client metadata document: what a client says about itself at the URL that is its `client_id`. Nobody
/// has confirmed it, except that whoever controls the URL published it: a consent page should show
/// [`host`](Self::host) beside the name.
#[derive(Debug, Clone)]
pub struct ClientDocument {
    url: Url,
    name: Option<String>,
    uri: Option<String>,
    redirect_uris: Vec<String>,
    grant_types: Vec<GrantType>,
    authenticates: bool,
    members: Map<String, Value>,
}

impl ClientDocument {
    /// Reads a document that was fetched from this URL.
    ///
    /// # Errors
    ///
    /// Why it cannot be used.
    pub(super) fn read(
        url: &Url,
        json: &[u8],
        redirects: DocumentRedirects,
    ) -> Result<Self, String> {
        let members = members(json)?;
        // The draft, §4.1: "The client metadata document MUST contain a "client_id" property whose value
        // MUST match the URL of the document using simple string comparison".
        if members.get("client_id").and_then(Value::as_str) != Some(url.as_str()) {
            return Err("its client_id is not its URL".into());
        }
        // "The client_secret and client_secret_expires_at properties MUST NOT be used."
        if members.contains_key("client_secret") || members.contains_key("client_secret_expires_at")
        {
            return Err("it contains a client secret".into());
        }
        let authenticates = match text(&members, "token_endpoint_auth_method")? {
            None | Some("none") => false,
            Some("private_key_jwt") => true,
            // "The token_endpoint_auth_method property MUST NOT include client_secret_post,
            // client_secret_basic, client_secret_jwt or any other method based around a shared symmetric
            // secret."
            Some(_) => {
                return Err("its authentication method is neither none nor private_key_jwt".into());
            }
        };
        let grant_types = grant_types(&members)?;
        let all = texts(&members, "redirect_uris")?.unwrap_or_default();
        if all.len() > MAX_REDIRECT_URIS {
            return Err("it has too many redirect_uris".into());
        }
        let origin = url.origin();
        let allowed = |uri: &str| {
            redirect_fault(uri).is_none()
                && Url::parse(uri).is_ok_and(|uri| redirects.allow(&uri, &origin))
        };
        let redirect_uris: Vec<String> =
            all.into_iter().filter(|uri| allowed(uri)).map(str::to_owned).collect();
        if redirect_uris.is_empty() {
            return Err("it has no redirect URI that is allowed".into());
        }
        let name = name(&members)?;
        let uri = members.get("client_uri").and_then(Value::as_str);
        let uri = uri.filter(|uri| is_home_page(uri));
        // As the parser spells it, so that nothing in it looks like another URL.
        let uri = uri.and_then(|uri| Url::parse(uri).ok()).filter(|uri| uri.origin() == origin);
        Ok(Self {
            url: url.clone(),
            name,
            uri: uri.map(String::from),
            redirect_uris,
            grant_types,
            authenticates,
            members,
        })
    }

    /// The URL of the document, which is the `client_id`.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The host of the URL: what is known about the client for certain.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The name that the client gives itself, without control characters and cut to 100 characters.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The redirect URIs that are allowed ([`DocumentRedirects`]). Others in the document are left out.
    pub fn redirect_uris(&self) -> impl Iterator<Item = &str> {
        self.redirect_uris.iter().map(String::as_str)
    }

    /// The home page of the client (`client_uri`), if it has the origin of the document. Nobody has confirmed
    /// that any other is the client's.
    #[must_use]
    pub fn uri(&self) -> Option<&str> {
        self.uri.as_deref()
    }

    /// Whether the client authenticates with `private_key_jwt` (RFC 7523), by the keys in its `jwks` or at
    /// its `jwks_uri`. Otherwise it is public.
    #[must_use]
    pub const fn authenticates(&self) -> bool {
        self.authenticates
    }

    /// A member as it is in the document, such as `logo_uri` or `jwks`. Its form was not checked.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }

    pub(super) fn grant_types(&self) -> &[GrantType] {
        &self.grant_types
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const URL: &str = "https://app.example/client.json";

    /// A document with these members beside the usual ones, under the strictest reading.
    fn read(changes: &Value) -> Result<ClientDocument, String> {
        read_with(changes, DocumentRedirects::default())
    }

    fn read_with(changes: &Value, redirects: DocumentRedirects) -> Result<ClientDocument, String> {
        let mut document = json!({
            "client_id": URL,
            "client_name": "App",
            "redirect_uris": ["https://app.example/cb"],
        });
        for (name, value) in changes.as_object().unwrap() {
            document[name] = value.clone();
        }
        ClientDocument::read(&Url::parse(URL).unwrap(), document.to_string().as_bytes(), redirects)
    }

    #[test]
    fn a_client_id_is_a_url_as_a_parser_spells_it() {
        for good in [
            URL,
            "https://app.example/c",
            "https://app.example:8443/client.json",
            "https://app.example/client.json?v=1",
            "https://xn--bcher-kva.example/c",
        ] {
            assert!(document_url(good).is_some(), "{good}");
        }
        for bad in [
            "app",
            "http://app.example/client.json",
            "https://app.example",
            "https://app.example/",
            "https://app.example/client.json#x",
            "https://app.example/client.json#",
            "https://user@app.example/client.json",
            "https://user:secret@app.example/client.json",
            "https://app.example/a/../client.json",
            "https://app.example/./client.json",
            "https://app.example/a/%2e%2e/client.json",
            "https://APP.example/client.json",
            "HTTPS://app.example/client.json",
            "https:\\\\app.example\\client.json",
            "https:app.example/client.json",
            "https:///app.example/client.json",
            "https://app.example:443/client.json",
            "https://127.1/client.json",
            "https://0x7f000001/client.json",
            "https://2130706433/client.json",
            "https://[0:0:0:0:0:0:0:1]/client.json",
            "https://b\u{fc}cher.example/c",
            " https://app.example/client.json",
            "https://app.example/client json",
            "urn:https://app.example/client.json",
        ] {
            assert!(document_url(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_a_document_says_is_read() {
        let document = read(&json!({
            "client_name": " My\u{202e}\n App ",
            "grant_types": ["refresh_token", "authorization_code", "client_credentials", "x"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            "client_uri": "https://app.example",
            "logo_uri": null,
        }))
        .unwrap();
        assert_eq!((document.url(), document.host()), (URL, "app.example"));
        assert_eq!(document.name(), Some("My App"));
        assert_eq!(document.grant_types(), [GrantType::AuthorizationCode, GrantType::RefreshToken]);
        assert!(!document.authenticates());
        assert_eq!(document.member("client_uri"), Some(&"https://app.example".into()));

        let document = read(&json!({ "client_name": null })).unwrap();
        assert_eq!(document.name(), None);
        assert_eq!(document.grant_types(), [GrantType::AuthorizationCode]);
        let long = read(&json!({ "client_name": "x".repeat(1_000) })).unwrap();
        assert_eq!(long.name().unwrap().len(), 100);
        let method = json!({ "token_endpoint_auth_method": "private_key_jwt" });
        assert!(read(&method).unwrap().authenticates());
    }

    #[test]
    fn a_home_page_has_the_origin_of_the_document() {
        for (uri, expected) in [
            ("https://app.example", Some("https://app.example/")),
            ("https://app.example/about?x=1", Some("https://app.example/about?x=1")),
            ("https://app.example:443/", Some("https://app.example/")),
            ("https://app.example\\@evil.example/", Some("https://app.example/@evil.example/")),
            ("https://app.exam\tple/", Some("https://app.example/")),
            ("https://evil.example/", None),
            ("https://sub.app.example/", None),
            ("https://app.example:8443/", None),
            ("http://app.example/", None),
            ("https://user@app.example/", None),
            ("https://app.example@evil.example/", None),
            ("javascript:alert(1)", None),
            ("/about", None),
            ("", None),
        ] {
            let document = read(&json!({ "client_uri": uri })).unwrap();
            assert_eq!(document.uri(), expected, "{uri}");
        }
        for junk in [json!(null), json!(1), json!(["https://app.example"])] {
            assert!(read(&json!({ "client_uri": junk })).unwrap().uri().is_none());
        }
    }

    #[test]
    fn documents_that_cannot_be_used_are_refused() {
        for (changes, why) in [
            (json!({ "client_id": "https://other.example/client.json" }), "client_id"),
            (json!({ "client_id": "https://app.example/client.json/" }), "client_id"),
            (json!({ "client_id": "https://APP.example/client.json" }), "client_id"),
            (json!({ "client_id": null }), "client_id"),
            (json!({ "client_id": [URL] }), "client_id"),
            (json!({ "client_secret": "s3cret" }), "secret"),
            (json!({ "client_secret": null }), "secret"),
            (json!({ "client_secret_expires_at": 0 }), "secret"),
            (json!({ "token_endpoint_auth_method": "client_secret_basic" }), "method"),
            (json!({ "token_endpoint_auth_method": "client_secret_post" }), "method"),
            (json!({ "token_endpoint_auth_method": "client_secret_jwt" }), "method"),
            (json!({ "token_endpoint_auth_method": "tls_client_auth" }), "method"),
            (json!({ "token_endpoint_auth_method": ["none"] }), "not text"),
            (json!({ "response_types": ["token"] }), "response_types"),
            (json!({ "response_types": "code" }), "not an array"),
            (json!({ "grant_types": ["client_credentials"] }), "grant_types"),
            (json!({ "grant_types": [1] }), "not all text"),
            (json!({ "redirect_uris": null }), "redirect URI"),
            (json!({ "redirect_uris": [] }), "redirect URI"),
            (json!({ "redirect_uris": "https://app.example/cb" }), "not an array"),
            (json!({ "redirect_uris": vec!["https://app.example/cb"; 33] }), "too many"),
        ] {
            let refused = read(&changes).unwrap_err();
            assert!(refused.contains(why), "{changes}: {refused}");
        }
        let url = Url::parse(URL).unwrap();
        let twice = format!(r#"{{"client_id":"{URL}","client_id":"https://other.example/x"}}"#);
        for junk in ["", "<html>", "[]", "null", "{\"client_id\":", &twice] {
            let refused = ClientDocument::read(&url, junk.as_bytes(), DocumentRedirects::Any);
            assert!(refused.unwrap_err().contains("cannot be read"), "{junk}");
        }
    }

    #[test]
    fn codes_go_to_the_client_itself_or_to_this_machine() {
        use DocumentRedirects::{Any, SameOrigin, SameOriginOrLoopback};
        for (uri, allowed_by) in [
            ("https://app.example/cb", &[SameOriginOrLoopback, SameOrigin, Any][..]),
            ("https://app.example:443/cb?x=1", &[SameOriginOrLoopback, SameOrigin, Any]),
            ("http://127.0.0.1/cb", &[SameOriginOrLoopback, Any]),
            ("http://127.0.0.1:9000/cb", &[SameOriginOrLoopback, Any]),
            ("http://[::1]/cb", &[SameOriginOrLoopback, Any]),
            ("http://localhost:3000/cb", &[SameOriginOrLoopback, Any]),
            ("https://evil.example/cb", &[Any]),
            ("https://app.example.evil.example/cb", &[Any]),
            ("https://sub.app.example/cb", &[Any]),
            ("https://app.example:8443/cb", &[Any]),
            ("https://localhost/cb", &[Any]),
            ("com.example.app:/cb", &[Any]),
            ("http://app.example/cb", &[]),
            ("http://127.0.0.1.evil.example/cb", &[]),
            ("http://localhost.evil.example/cb", &[]),
            ("https://app.example@evil.example/cb", &[]),
            ("https://app.example\\@evil.example/cb", &[]),
            ("https://app.example/cb#x", &[]),
            ("javascript:alert(1)", &[]),
            ("data:text/html,x", &[]),
            ("/cb", &[]),
        ] {
            for policy in [SameOriginOrLoopback, SameOrigin, Any] {
                let document = read_with(&json!({ "redirect_uris": [uri] }), policy);
                assert_eq!(document.is_ok(), allowed_by.contains(&policy), "{uri} {policy:?}");
            }
        }
        // The others in the document do not count.
        let uris = ["https://evil.example/cb", "https://app.example/cb", "http://localhost/cb"];
        let document = read(&json!({ "redirect_uris": uris })).unwrap();
        assert_eq!(document.redirect_uris().collect::<Vec<_>>(), &uris[1..]);
    }
}
