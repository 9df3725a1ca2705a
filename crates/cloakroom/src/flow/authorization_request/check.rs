//! The checks of an authorization request, in their order: what decides where the user is sent comes
//! first.

use std::sync::Arc;

use cloakroom_core::{Audience, ClientId, Confirmation, Scope};

use crate::client::Client;
use crate::client::registration::GrantType;
use crate::error::TokenError;
use crate::flow::authorization_request::AuthorizationRequest;
use crate::flow::authorization_request::error::{AuthorizationError, PageError};
use crate::flow::authorization_request::redirect::Responder;
use crate::flow::authorization_request::seal;
use crate::flow::authorization_request::terms::{Prompt, ResponseMode, Terms};
use crate::flow::request::Pkce;
use crate::form::{Form, REPEATED};
use crate::issuer::Inner;

/// The most bytes of a request. It comes back in URLs and in forms.
const MAX_BYTES: usize = 16 * 1024;

/// The most bytes of `nonce`, which is stored.
const MAX_NONCE: usize = 512;

/// The parameters that [`Terms`] has fields for.
const READ: [&str; 16] = [
    "acr_values",
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "dpop_jkt",
    "login_hint",
    "max_age",
    "nonce",
    "prompt",
    "redirect_uri",
    "resource",
    "response_mode",
    "response_type",
    "scope",
    "state",
    // A secret has no place in a request that passes through the browser.
    "client_secret",
];

/// An error code for the client, and what its developers should know.
type Refused = (&'static str, &'static str);

/// Checks a request.
pub(super) async fn check(
    inner: &Arc<Inner>,
    parameters: &[u8],
) -> Result<(Arc<Client>, Box<Terms>), AuthorizationError> {
    let malformed = |why| AuthorizationError::Page(PageError::Malformed(why));
    if parameters.len() > MAX_BYTES {
        return Err(malformed("it is too long"));
    }
    let (form, repeated) = Form::parse_repeated(parameters)?;
    let is_repeated = |name: &str| repeated.iter().any(|own| own == name);
    if is_repeated("client_id") || is_repeated("redirect_uri") {
        return Err(malformed(REPEATED));
    }
    let id = form.get("client_id").ok_or(malformed("client_id is missing"))?;
    let id = ClientId::new(id).map_err(|_| PageError::UnknownClient)?;
    let client = registered(inner, &id).await?;
    // RFC 6749 §3.1.2.3, §4.1.2.1: an error about the redirect URI must not be sent to it.
    let redirect_uri = match form.get("redirect_uri") {
        Some(uri) if client.is_redirect_uri(uri) => uri,
        Some(_) => return Err(PageError::RedirectUri.into()),
        None => client.only_redirect_uri().ok_or(PageError::RedirectUri)?,
    };

    // From here on, the user can be sent back.
    let mode = response_mode(&form, redirect_uri);
    let state = form.get("state").filter(|_| !is_repeated("state"));
    let responder = Responder::to(&inner.url, redirect_uri, state, mode.unwrap_or_default());
    let refused = |(code, why): Refused| {
        tracing::debug!(client = %client.id(), code, why, "an authorization request was refused");
        AuthorizationError::Redirect(responder.error(code, why))
    };
    if !repeated.is_empty() {
        return Err(refused(("invalid_request", REPEATED)));
    }
    let mode = mode.map_err(refused)?;
    let mut terms = terms(inner, &client, &form, redirect_uri).map_err(refused)?;
    terms.mode = mode;
    if !seal::can_be_opened(&terms) {
        return Err(refused(("invalid_request", "the request is too long")));
    }
    Ok((client, terms))
}

/// Checks a request that was sealed against the registration of today.
pub(super) async fn check_again(
    inner: &Arc<Inner>,
    mut terms: Box<Terms>,
) -> Result<(Arc<Client>, Box<Terms>), PageError> {
    let client = registered(inner, &terms.client).await?;
    let is_known = if terms.redirect_uri_omitted {
        client.only_redirect_uri() == Some(&terms.redirect_uri)
    } else {
        client.is_redirect_uri(&terms.redirect_uri)
    };
    if !is_known {
        return Err(PageError::RedirectUri);
    }
    terms.scope = terms.scope.intersection(client.scope());
    Ok((client, terms))
}

async fn registered(inner: &Arc<Inner>, id: &ClientId) -> Result<Arc<Client>, PageError> {
    let found = inner.clients.client(id).await.map_err(TokenError::from)?;
    found.ok_or(PageError::UnknownClient)
}

fn response_mode(form: &Form, redirect_uri: &str) -> Result<ResponseMode, Refused> {
    match form.get("response_mode") {
        None | Some("query") => Ok(ResponseMode::Query),
        // A browser submits no form to an app.
        Some("form_post")
            if redirect_uri.starts_with("https://") || redirect_uri.starts_with("http://") =>
        {
            Ok(ResponseMode::FormPost)
        }
        Some(_) => Err(("invalid_request", "response_mode must be query or form_post")),
    }
}

fn terms(
    inner: &Arc<Inner>,
    client: &Client,
    form: &Form,
    redirect_uri: &str,
) -> Result<Box<Terms>, Refused> {
    // RFC 9101 §5, OpenID Connect Core §3.1.2.6: each has an error code of its own.
    for (parameter, code) in [
        ("request", "request_not_supported"),
        ("request_uri", "request_uri_not_supported"),
        ("registration", "registration_not_supported"),
    ] {
        if form.get(parameter).is_some() {
            return Err((code, "this server does not support it"));
        }
    }
    match form.get("response_type") {
        Some("code") => {}
        Some(_) => return Err(("unsupported_response_type", "response_type must be code")),
        None => return Err(("invalid_request", "response_type is missing")),
    }
    if !client.allows(GrantType::AuthorizationCode) {
        return Err(("unauthorized_client", "the client may not use codes"));
    }
    let now = inner.now();
    let id = inner.random.array().map_err(|error| {
        tracing::error!(%error, "an authorization request cannot be named");
        ("server_error", "")
    })?;
    let owned = |name: &str| form.get(name).map(str::to_owned);
    let nonce = owned("nonce");
    if nonce.as_ref().is_some_and(|nonce| nonce.len() > MAX_NONCE) {
        return Err(("invalid_request", "nonce is too long"));
    }
    let others = form.fields().filter(|(name, _)| !READ.contains(name));
    Ok(Box::new(Terms {
        id,
        requested_at: now,
        expires_at: now + AuthorizationRequest::LIFE,
        client: client.id().clone(),
        redirect_uri: redirect_uri.to_owned(),
        redirect_uri_omitted: form.get("redirect_uri").is_none(),
        mode: ResponseMode::default(),
        state: owned("state"),
        scope: scope(client, form)?,
        audience: audience(client, form)?,
        challenge: challenge(client, form)?,
        dpop_jkt: dpop_jkt(form)?,
        nonce,
        prompt: prompt(form)?,
        max_age: max_age(form)?,
        acr_values: words(form.get("acr_values")).map(str::to_owned).collect(),
        login_hint: owned("login_hint"),
        others: others.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }))
}

/// RFC 6749 §3.3: "The authorization server MAY fully or partially ignore the scope requested by the
/// client, based on the authorization server policy".
fn scope(client: &Client, form: &Form) -> Result<Scope, Refused> {
    let Some(requested) = form.get("scope") else { return Ok(client.scope().clone()) };
    let requested =
        Scope::parse(requested).map_err(|_| ("invalid_scope", "the scope is malformed"))?;
    let allowed = requested.intersection(client.scope());
    if allowed.is_empty() && !requested.is_empty() {
        return Err(("invalid_scope", "the client may have nothing of this scope"));
    }
    Ok(allowed)
}

/// The resources as they are registered (RFC 8707 §2).
fn audience(client: &Client, form: &Form) -> Result<Audience, Refused> {
    const UNKNOWN: Refused = ("invalid_target", "the client may not have tokens for this resource");
    let requested = form
        .resources()
        .map_err(|_| ("invalid_target", "a resource must be an absolute URI without a fragment"))?;
    if requested.is_empty() {
        let default = client.default_audience().cloned();
        return default.ok_or(("invalid_target", "the client has no default audience"));
    }
    let spelled: Option<Vec<&str>> = requested
        .iter()
        .map(|resource| client.registered(resource).map(|(spelled, _)| spelled))
        .collect();
    Audience::new(spelled.ok_or(UNKNOWN)?).map_err(|_| UNKNOWN)
}

fn challenge(client: &Client, form: &Form) -> Result<Option<String>, Refused> {
    match (form.get("code_challenge"), form.get("code_challenge_method")) {
        (Some(challenge), Some("S256")) => match Pkce::s256(challenge) {
            Ok(Pkce(challenge)) => Ok(Some(challenge)),
            Err(_) => Err(("invalid_request", "code_challenge is not 43 characters of base64url")),
        },
        // RFC 7636 §4.3: a missing method means `plain`, which protects nothing.
        (Some(_), _) => Err(("invalid_request", "code_challenge_method must be S256")),
        (None, Some(_)) => Err(("invalid_request", "code_challenge is missing")),
        (None, None) if client.requires_pkce() => {
            Err(("invalid_request", "the client must send a PKCE challenge"))
        }
        (None, None) => Ok(None),
    }
}

/// RFC 9449 §10: the thumbprint of the key that the code is bound to.
fn dpop_jkt(form: &Form) -> Result<Option<Confirmation>, Refused> {
    let Some(jkt) = form.get("dpop_jkt") else { return Ok(None) };
    let confirmation = serde_json::from_value(serde_json::json!({ "jkt": jkt }));
    confirmation.map(Some).map_err(|_| ("invalid_request", "dpop_jkt is not a SHA-256 thumbprint"))
}

fn prompt(form: &Form) -> Result<Vec<Prompt>, Refused> {
    let names: Vec<_> = words(form.get("prompt")).collect();
    // OpenID Connect Core §3.1.2.1: "If this parameter contains none with any other value, an error is
    // returned."
    if names.len() > 1 && names.contains(&"none") {
        return Err(("invalid_request", "prompt=none stands alone"));
    }
    Ok(names.into_iter().filter_map(Prompt::parse).collect())
}

fn max_age(form: &Form) -> Result<Option<u64>, Refused> {
    let Some(seconds) = form.get("max_age") else { return Ok(None) };
    let is_number = seconds.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = seconds.parse().ok().filter(|_| is_number);
    seconds.map(Some).ok_or(("invalid_request", "max_age is not a number of seconds"))
}

fn words(value: Option<&str>) -> impl Iterator<Item = &str> {
    value.unwrap_or_default().split(' ').filter(|word| !word.is_empty())
}
