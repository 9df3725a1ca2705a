//! What a client must not be able to tell a service.

use axum::http::header::HeaderMap;

/// Fields by which a proxy or a gateway tells services who is calling, from where, or what was
/// asked for. From outside they are lies. A name that ends with `*` stands for all that start so.
///
/// A service should believe the JWT alone; here is for those that believe more. **If yours trusts a
/// field that is not here, add it.** What is here by mistake is missed at once, and what is not
/// here is missed by nobody until somebody makes use of it.
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
    // The same, in the words of one product.
    "cf-*", "iv-*", "mellon-*", "oam-*", "oidc-*", "ory-*", "pomerium-*", "saml-*", "shib-*",
    "sm-*", "tailscale-*", "teleport-*", "x-amzn-lambda-*", "x-amzn-mtls-*", "x-amzn-oidc*",
    "x-amzn-request-context", "x-apigateway-*", "x-apigee-*", "x-appengine-*", "x-endpoint-*",
    "x-goog-*", "x-google-*", "x-ldap*", "x-ms-client-principal*", "x-ms-token-*", "x-pomerium-*",
    "x-saml*", "x-shib*", "x-tailscale-*", "x-vouch-*", "x-webobjects-*",
    // By which certificate.
    "client-cert*", "client-dn", "client-verify", "ssl-*", "tls-*", "x-arr-*", "x-cert*",
    "x-client-cert*", "x-client-dn*", "x-client-s-dn*", "x-client-verif*", "x-mtls*", "x-spiffe*",
    "x-ssl*", "x-tls*",
    // From where, and by which way.
    "akamai-*", "client-ip", "do-connecting-ip", "fastly-*", "fly-*", "forwarded*", "front-end-*",
    "incap-*", "proxy*", "true-client-*", "wl-proxy-*", "x-akamai-*", "x-azure-*", "x-client-ip",
    "x-clientip", "x-cluster*", "x-envoy-*", "x-forward*", "x-gateway*", "x-https*", "x-ip",
    "x-ip-*", "x-istio-*", "x-kong-*", "x-nf-*", "x-originating-*", "x-peer*", "x-proto*",
    "x-proxy*", "x-real-*", "x-scheme", "x-source-*", "x-sucuri-*", "x-true-client-*",
    "x-url-scheme", "x-vercel-*",
    // What was asked for, and how a server is to treat it.
    "disguised-host", "was-default-hostname", "x-accel-*", "x-backend*", "x-base-*", "x-host*",
    "x-http-*", "x-method*", "x-middleware-*", "x-original*", "x-override-*", "x-path*", "x-port",
    "x-prefix", "x-rewrite*", "x-script-name", "x-sendfile*", "x-server*", "x-uri", "x-url",
    "x-waws-*",
    // Under which number: the gateway gives each request its own.
    "x-correlation-id", "x-request-id",
];

/// Takes out what a service might believe of the client's own words.
pub(crate) fn remove_spoofable(headers: &mut HeaderMap) {
    let spoofable: Vec<_> =
        headers.keys().filter(|name| is_spoofable(name.as_str())).cloned().collect();
    for name in spoofable {
        headers.remove(name);
    }
}

fn is_spoofable(name: &str) -> bool {
    // Behind CGI and its heirs `X_User` and `X-User` are the same variable; behind some, so is
    // `X.User`.
    !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        || SPOOFABLE
            .iter()
            // Most names differ in the first byte from most of these.
            .filter(|spoofable| spoofable.as_bytes().first() == name.as_bytes().first())
            .any(|spoofable| match spoofable.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == *spoofable,
            })
}
