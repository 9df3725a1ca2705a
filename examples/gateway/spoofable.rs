//! Header fields that a client must not be able to send to a service.

use axum::http::header::HeaderMap;

/// Fields by which a proxy or a gateway tells services who is calling, from where, or what was
/// requested. From a client they are forged. A name that ends with `*` stands for a prefix.
///
/// A service should trust the JWT only; this list protects services that trust more. **If yours trusts
/// a field that is missing here, add it.** If a field is here by mistake, you notice at once; if one is
/// missing, you notice when an attacker uses it.
#[rustfmt::skip]
const SPOOFABLE: &[&str] = &[
    // Who is calling, and what they may do.
    "auth-*", "authenticated-*", "email", "eppn", "groups", "identity", "identity-*",
    "impersonate-*", "login", "remote-*", "roles", "sudo", "user", "user-email", "user-id",
    "user-name", "userid", "username", "x-access-*", "x-account*", "x-acting-*", "x-actor*",
    "x-admin*", "x-anonymous*", "x-auth*", "x-caller*", "x-claim*", "x-client-id", "x-consumer*",
    "x-credential*", "x-customer*", "x-email*", "x-entitlement*", "x-group*", "x-id-token",
    "x-identity*", "x-impersonat*", "x-internal*", "x-is-*", "x-jwt*", "x-login*", "x-mail*",
    "x-member*", "x-oauth*", "x-oidc*", "x-on-behalf-of*", "x-org*", "x-permission*",
    "x-preferred-*", "x-principal*", "x-privilege*", "x-remote*", "x-role*", "x-scope*",
    "x-serverless-*", "x-sso*", "x-sub", "x-subject*", "x-sudo*", "x-tenant*", "x-token*",
    "x-trusted*", "x-uid", "x-upn", "x-user*", "x-verified*", "x-webauth*",
    // The same, in the fields of single products.
    "cf-*", "iv-*", "mellon-*", "oam-*", "oidc-*", "ory-*", "pomerium-*", "saml-*", "shib-*",
    "sm-*", "tailscale-*", "teleport-*", "x-amzn-lambda-*", "x-amzn-mtls-*", "x-amzn-oidc*",
    "x-amzn-request-context", "x-apigateway-*", "x-apigee-*", "x-appengine-*", "x-endpoint-*",
    "x-goog-*", "x-google-*", "x-ldap*", "x-ms-client-principal*", "x-ms-token-*", "x-pomerium-*",
    "x-saml*", "x-shib*", "x-tailscale-*", "x-vouch-*", "x-webobjects-*",
    // With which certificate.
    "client-cert*", "client-dn", "client-verify", "ssl-*", "tls-*", "x-arr-*", "x-cert*",
    "x-client-cert*", "x-client-dn*", "x-client-s-dn*", "x-client-verif*", "x-mtls*", "x-spiffe*",
    "x-ssl*", "x-tls*",
    // From where, and on which path.
    "akamai-*", "client-ip", "do-connecting-ip", "fastly-*", "fly-*", "forwarded*", "front-end-*",
    "incap-*", "proxy*", "true-client-*", "wl-proxy-*", "x-akamai-*", "x-azure-*", "x-client-ip",
    "x-clientip", "x-cluster*", "x-envoy-*", "x-forward*", "x-gateway*", "x-https*", "x-ip",
    "x-ip-*", "x-istio-*", "x-kong-*", "x-nf-*", "x-originating-*", "x-peer*", "x-proto*",
    "x-proxy*", "x-real-*", "x-scheme", "x-source-*", "x-sucuri-*", "x-true-client-*",
    "x-url-scheme", "x-vercel-*",
    // What was requested, and how a server must treat it.
    "disguised-host", "was-default-hostname", "x-accel-*", "x-backend*", "x-base-*", "x-host*",
    "x-http-*", "x-method*", "x-middleware-*", "x-original*", "x-override-*", "x-path*", "x-port",
    "x-prefix", "x-rewrite*", "x-script-name", "x-sendfile*", "x-server*", "x-uri", "x-url",
    "x-waws-*",
    // Request ids: the gateway gives each request a new one.
    "x-correlation-id", "x-request-id",
];

/// Removes the fields that a service might trust.
pub(crate) fn remove_spoofable(headers: &mut HeaderMap) {
    let spoofable: Vec<_> =
        headers.keys().filter(|name| is_spoofable(name.as_str())).cloned().collect();
    for name in spoofable {
        headers.remove(name);
    }
}

fn is_spoofable(name: &str) -> bool {
    // For CGI and similar interfaces, `X_User` and `X-User` are the same variable; for some, so is
    // `X.User`.
    !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        || SPOOFABLE
            .iter()
            // Most names already differ in the first byte.
            .filter(|spoofable| spoofable.as_bytes().first() == name.as_bytes().first())
            .any(|spoofable| match spoofable.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == *spoofable,
            })
}
