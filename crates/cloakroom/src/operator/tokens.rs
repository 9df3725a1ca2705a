//! What a token is, whether it is active, and why not.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::format::Located;
use cloakroom_core::handle::{ChainHandle, ChainKind};
use cloakroom_core::record::{Chain, GrantRecord};
use cloakroom_core::revocation::{Rule, RuleKey};
use cloakroom_core::store::Lookup;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, Introspection, TokenSecret};
use cloakroom_jwt::Verifier;
use serde::Serialize;
use serde_json::Value;

use crate::error::TokenError;
use crate::flow::chain::CredentialState;
use crate::introspection::Caller;
use crate::issuer::{Inner, Issuer};
use crate::operator::grants::{GrantState, state};

/// What an operator learns of a token. It holds neither the token nor a digest of it. Never show it to
/// a client.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TokenInspection {
    /// What was presented.
    pub token: PresentedToken,
    /// The grant that it belongs to, if it is genuine.
    pub grant: Option<GrantId>,
    /// Whether it can be used: an access token is active, a code or a refresh token can be redeemed.
    pub active: bool,
    /// Why it cannot be used.
    pub reason: Option<InactiveReason>,
    /// What introspection answers to an internal caller. A refresh token or a code has no such
    /// answer.
    pub introspection: Option<Introspection>,
}

/// What was presented, by its form. Whether it is genuine is another question.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PresentedToken {
    /// An opaque access token.
    AccessHandle,
    /// A refresh token.
    RefreshToken {
        /// Its number in the chain.
        generation: u32,
    },
    /// An authorization code.
    AuthorizationCode,
    /// A JWT. Its header and claims are shown as they were presented, before any check.
    Jwt {
        /// The header.
        header: Value,
        /// The claims.
        claims: Value,
    },
    /// A token of a format that the app added.
    Custom,
    /// Something else. It may be a token of this issuer that was cut off.
    Unknown,
}

/// Why a token cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum InactiveReason {
    /// It is malformed or forged, or another issuer made it.
    #[error("it is malformed or forged, or another issuer made it")]
    NotRecognized,
    /// It was made under a handle secret that this process does not have.
    #[error("it was made under the handle secret {id}, which is not configured here")]
    UnknownHandleSecret {
        /// The number of the secret that the token names.
        id: u8,
    },
    /// A JWT whose signature or claims do not pass. `why` is the error of the verifier.
    #[error("the JWT is refused: {why}")]
    JwtRefused {
        /// The error.
        why: String,
    },
    /// It is a phantom JWT, which only its gateway may use.
    #[error("it is a phantom JWT: only the API behind the gateway accepts it")]
    PhantomJwt,
    /// The store holds no such grant. It may have ended and been deleted.
    #[error("the store holds no such grant, which may have ended and been deleted")]
    GrantUnknown,
    /// The grant was revoked before it was created.
    #[error("the grant was revoked before it was created")]
    GrantRevokedBeforeCreation,
    /// The grant was revoked.
    #[error("the grant was revoked at {at}")]
    GrantRevoked {
        /// When.
        at: UnixTime,
    },
    /// A revocation of the subject or the client covers the grant.
    #[error("a revocation of its subject or client covers the grant")]
    GrantDenied,
    /// The grant has ended.
    #[error("the grant ended at {at}")]
    GrantExpired {
        /// When.
        at: UnixTime,
    },
    /// The grant holds no such token. It may have expired and been deleted.
    #[error("the grant holds no such token, which may have expired and been deleted")]
    TokenUnknown,
    /// The token itself was revoked.
    #[error("the token was revoked")]
    TokenRevoked,
    /// The key that signed the JWT is marked as compromised.
    #[error("the key that signed it is marked as compromised")]
    KeyRevoked,
    /// The token has expired.
    #[error("the token expired at {at}")]
    TokenExpired {
        /// When.
        at: UnixTime,
    },
    /// It was spent. Presenting it again revokes the grant.
    #[error(
        "it was spent: the chain stands at generation {current}; presenting it again revokes the grant"
    )]
    Spent {
        /// The generation of the chain.
        current: u32,
    },
    /// It was spent a moment ago. Its client may still retry.
    #[error("it was spent a moment ago, and its retry window is open until {until}")]
    SpentRecently {
        /// When its retry window ends.
        until: UnixTime,
    },
    /// It is newer than the chain: the store has gone back in time.
    #[error(
        "it is newer than the store, which has gone back in time: see \"restore\" in the manual"
    )]
    Newer,
}

impl Issuer {
    /// What a token is, whether it can be used, and if not, why. This changes nothing: a spent refresh
    /// token that is inspected does not end its session.
    ///
    /// For operators only. The answer says what an attacker must not learn, so no endpoint may
    /// contain it.
    ///
    /// # Errors
    ///
    /// If a store or the keys fail. An outage is never a reason.
    pub async fn inspect_token(&self, token: &TokenSecret) -> Result<TokenInspection, TokenError> {
        let inner = &*self.inner;
        let now = inner.now();
        for kind in [ChainKind::Refresh, ChainKind::Code] {
            if let Some(handle) = inner.handles.parse_chain(kind, token.expose()) {
                return inspect_chain(inner, &handle, now).await;
            }
        }
        let form = form(inner, token);
        if let Some(id) = inner.handles.unknown_key(token.expose()) {
            return Ok(inactive(form, None, InactiveReason::UnknownHandleSecret { id }));
        }
        let Some(located) = inner.locator.locate(token).await? else {
            let reason = unrecognized(inner, &form, token).await?;
            return Ok(inactive(form, None, reason));
        };
        let form = match form {
            PresentedToken::Unknown => PresentedToken::Custom,
            form => form,
        };
        let grant = located.carried.as_ref().map_or(located.grant, |carried| carried.grant.id);
        match self.introspect(token, Caller::Internal).await? {
            answer @ Introspection::Active(_) => Ok(TokenInspection {
                token: form,
                grant: Some(grant),
                active: true,
                reason: None,
                introspection: Some(answer),
            }),
            answer @ Introspection::Inactive => {
                let reason = inactive_because(inner, located, now).await?;
                let introspection = Some(answer);
                Ok(TokenInspection { introspection, ..inactive(form, Some(grant), reason) })
            }
        }
    }
}

fn inactive(
    token: PresentedToken,
    grant: Option<GrantId>,
    reason: InactiveReason,
) -> TokenInspection {
    TokenInspection { token, grant, active: false, reason: Some(reason), introspection: None }
}

/// What a token looks like.
fn form(inner: &Inner, token: &TokenSecret) -> PresentedToken {
    let text = token.expose();
    if inner.handles.parse_access(text).is_some() {
        return PresentedToken::AccessHandle;
    }
    let part = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
    let parts: Vec<&str> = text.split('.').collect();
    match parts[..] {
        [header, claims, _] => match (part(header), part(claims)) {
            (Some(header), Some(claims)) => PresentedToken::Jwt { header, claims },
            _ => PresentedToken::Unknown,
        },
        _ => PresentedToken::Unknown,
    }
}

/// Why no format recognizes a token.
async fn unrecognized(
    inner: &Inner,
    form: &PresentedToken,
    token: &TokenSecret,
) -> Result<InactiveReason, TokenError> {
    let PresentedToken::Jwt { claims, header } = form else {
        return Ok(InactiveReason::NotRecognized);
    };
    if let Some(kid) = header.get("kid").and_then(Value::as_str)
        && let Ok(kid) = cloakroom_core::Kid::new(kid)
    {
        let rules = inner.store.rules(vec![RuleKey::Key(kid)]).await?;
        if !rules.rules.is_empty() {
            return Ok(InactiveReason::KeyRevoked);
        }
    }
    let keys = inner.keys.manager().keys()?;
    let verifier = Verifier::any_audience(&inner.url)
        .clock(Arc::clone(&inner.clock))
        .leeway(Verifier::MAX_LEEWAY);
    Ok(match verifier.verify(&keys, token.expose()) {
        Ok(_) if claims.get("handle_hash").is_some() => InactiveReason::PhantomJwt,
        Ok(_) => InactiveReason::NotRecognized,
        Err(error) => InactiveReason::JwtRefused { why: error.to_string() },
    })
}

/// Why introspection does not call this access token active.
async fn inactive_because(
    inner: &Inner,
    located: Located,
    now: UnixTime,
) -> Result<InactiveReason, TokenError> {
    let Located { grant, digest, carried, .. } = located;
    let (id, digest) = match &carried {
        Some(carried) => (carried.grant.id, None),
        None => (grant, Some(digest)),
    };
    let (grant, token) = match (inner.store.find(id, digest).await?, &carried) {
        (Lookup::Found(found), None) => (found.grant, found.token),
        (Lookup::Found(found), Some(carried)) => {
            (found.grant, Some(Arc::new(carried.token.clone())))
        }
        (Lookup::Absent, Some(carried)) if carried.stateless => {
            (Arc::new(carried.grant.clone()), Some(Arc::new(carried.token.clone())))
        }
        (Lookup::Absent, _) => return Ok(InactiveReason::GrantUnknown),
        (Lookup::Tombstone, _) => return Ok(InactiveReason::GrantRevokedBeforeCreation),
    };
    if let Some(reason) = dead_grant(inner, &grant).await? {
        return Ok(reason);
    }
    let Some(token) = token else { return Ok(InactiveReason::TokenUnknown) };
    if token.revoked_at.is_some() {
        return Ok(InactiveReason::TokenRevoked);
    }
    if !token.is_live(now) {
        return Ok(InactiveReason::TokenExpired { at: token.expires_at });
    }
    let Some(carried) = carried else { return Ok(InactiveReason::NotRecognized) };
    let keys = vec![RuleKey::Jti(carried.jti.clone()), RuleKey::Key(carried.kid.clone())];
    let rules = inner.store.rules(keys).await?.rules;
    let is_key = |rule: &Rule| matches!(rule.key, RuleKey::Key(_));
    Ok(if rules.iter().any(is_key) {
        InactiveReason::KeyRevoked
    } else {
        InactiveReason::TokenRevoked
    })
}

/// Why nothing of this grant is active; `None` if it is live.
async fn dead_grant(
    inner: &Inner,
    grant: &GrantRecord,
) -> Result<Option<InactiveReason>, TokenError> {
    Ok(match state(inner, grant).await? {
        GrantState::Live => None,
        GrantState::Revoked => {
            Some(InactiveReason::GrantRevoked { at: grant.revoked_at.unwrap_or_default() })
        }
        GrantState::Denied => Some(InactiveReason::GrantDenied),
        GrantState::Expired => {
            // A grant that is not refreshed ends before its own end.
            let at = grant.expires_at.min(grant.row_expires_at);
            Some(InactiveReason::GrantExpired { at })
        }
    })
}

async fn inspect_chain(
    inner: &Inner,
    handle: &ChainHandle,
    now: UnixTime,
) -> Result<TokenInspection, TokenError> {
    let token = match handle.kind {
        ChainKind::Code => PresentedToken::AuthorizationCode,
        _ => PresentedToken::RefreshToken { generation: handle.generation },
    };
    let found = match inner.store.find(handle.grant, None).await? {
        Lookup::Found(found) => found.grant,
        Lookup::Absent => return Ok(inactive(token, None, InactiveReason::GrantUnknown)),
        Lookup::Tombstone => {
            return Ok(inactive(token, None, InactiveReason::GrantRevokedBeforeCreation));
        }
    };
    let Some(chain) = found.chain.as_ref().filter(|chain| handle.is_genuine(&chain.key)) else {
        return Ok(inactive(token, None, InactiveReason::NotRecognized));
    };
    let grant = Some(found.id);
    if let Some(reason) = dead_grant(inner, &found).await? {
        return Ok(inactive(token, grant, reason));
    }
    let reason = match CredentialState::of(handle, chain, now) {
        CredentialState::Current if now >= chain.expires_at => {
            InactiveReason::TokenExpired { at: chain.expires_at }
        }
        CredentialState::Current => {
            let active =
                TokenInspection { token, grant, active: true, reason: None, introspection: None };
            return Ok(active);
        }
        CredentialState::Retriable => {
            InactiveReason::SpentRecently { until: window(handle, chain) }
        }
        CredentialState::Spent => InactiveReason::Spent { current: chain.generation },
        CredentialState::Newer => InactiveReason::Newer,
    };
    Ok(inactive(token, grant, reason))
}

/// When the retry window of a spent credential ends.
fn window(handle: &ChainHandle, chain: &Chain) -> UnixTime {
    let Some(last) = &chain.successor else { return UnixTime::default() };
    let earlier = last.earlier.iter().find(|spent| spent.generation == handle.generation);
    earlier.map_or(last.until, |spent| spent.until)
}
