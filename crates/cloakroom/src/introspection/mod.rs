//! Introspection (RFC 7662), and the swap of a handle for a JWT.

#[cfg(feature = "resource")]
pub(crate) mod local;
pub(crate) mod locate;

use std::sync::Arc;

use cloakroom_core::format::{Located, SelfContained};
use cloakroom_core::handle::{ChainHandle, ChainKind};
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::RuleKey;
use cloakroom_core::store::Lookup;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{
    ActiveToken, Audience, Introspection, Scope, Subject, TokenKind, TokenSecret,
};
use cloakroom_jwt::{Swap, SwappedJwt};

use crate::client::Client;
use crate::client::registration::{Format, Role};
use crate::error::TokenError;
use crate::flow::chain::CredentialState;
use crate::flow::hook::{NewToken, Occasion};
use crate::issuer::{Inner, Issuer};

/// The caller that introspects or swaps a token.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Caller<'a> {
    /// Your own code, in the same process: it may see every access token.
    Internal,
    /// An authenticated client. A resource server sees the access tokens whose audience it serves.
    /// Every client sees its own tokens.
    Client(&'a Client),
}

impl Caller<'_> {
    fn may_see(&self, owner: &GrantRecord, token: &TokenRecord) -> bool {
        match self {
            Self::Internal => true,
            Self::Client(client) => {
                owner.client == *client.id()
                    || client.has_role(Role::Introspect)
                        && token.audience.iter().any(|resource| client.serves(resource))
            }
        }
    }
}

/// An active access token, with the records of the store or of the token itself.
struct Active {
    grant: Arc<GrantRecord>,
    token: Arc<TokenRecord>,
    /// What a JWT carries; `None` for a handle.
    carried: Option<Box<SelfContained>>,
}

impl Issuer {
    /// Whether a token is active, and what it grants.
    ///
    /// A refresh token is active only for its own client, and a code is never active.
    ///
    /// # Errors
    ///
    /// If a store, the directory or the keys fail. An outage never makes a token inactive.
    pub async fn introspect(
        &self,
        token: &TokenSecret,
        caller: Caller<'_>,
    ) -> Result<Introspection, TokenError> {
        let inner = &self.inner;
        inner.check_store_is_current().await?;
        let now = inner.now();
        if let Some(handle) = inner.handles.parse_chain(ChainKind::Refresh, token.expose()) {
            return introspect_refresh(inner, &handle, caller, now).await;
        }
        let Some(active) = active(inner, token, now).await? else {
            return Ok(Introspection::Inactive);
        };
        if !caller.may_see(&active.grant, &active.token) {
            return Ok(inactive(INVISIBLE));
        }
        let mut answer = ActiveToken::from_records(&inner.url, &active.grant, &active.token);
        if let Some(carried) = active.carried {
            answer.jti = Some(carried.jti);
            // Only a JWT names the key that signed it. For another format, a replica could not
            // check whether the key is revoked. Without an epoch, it does not accept the token.
            if token.expose().matches('.').count() != 2 {
                answer.epoch = None;
            }
        }
        Ok(Introspection::Active(Box::new(answer)))
    }

    /// Swaps a handle for a JWT with one resource as its audience, signed with the current key. The
    /// JWT lives at most [`Lifetimes::phantom_jwt`](crate::Lifetimes::phantom_jwt), and never
    /// longer than the handle. `None` if the handle is not active, if the caller may not see it, or
    /// if handles in the client's format for the resource are not swapped.
    ///
    /// `resource` may be `None` if the caller serves only one resource, or the token has only one
    /// audience. The JWT contains the resource as it is written in the token.
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidTarget`] if the resource must be named; another error if a store, the
    /// directory or the keys fail.
    pub async fn swap(
        &self,
        token: &TokenSecret,
        resource: Option<&str>,
        caller: Caller<'_>,
    ) -> Result<Option<SwappedJwt>, TokenError> {
        let inner = &self.inner;
        inner.check_store_is_current().await?;
        let now = inner.now();
        let Some(Active { grant, token, carried }) = active(inner, token, now).await? else {
            return Ok(None);
        };
        if carried.is_some() {
            return Ok(refused("it is a JWT, which is not swapped"));
        }
        // A JWT counts whole seconds: one made in the handle's last second would have expired.
        if token.expires_at.as_secs() <= now.as_secs() {
            return Ok(refused(ENDED));
        }
        if !caller.may_see(&grant, &token) {
            return Ok(refused(INVISIBLE));
        }
        let served = match caller {
            Caller::Internal => None,
            Caller::Client(client) => client.only_served(),
        };
        let resource = resource
            .or(served)
            .or_else(|| token.audience.single())
            .ok_or(TokenError::InvalidTarget("the token has several audiences: name one"))?;
        let allowed = match caller {
            Caller::Internal => true,
            Caller::Client(client) => client.has_role(Role::Introspect) && client.serves(resource),
        };
        if !allowed {
            return Ok(refused("the caller does not serve the resource"));
        }
        let Some(resource) = token.audience.find(resource) else {
            return Ok(refused("its audience does not contain the resource"));
        };
        let owner = inner.clients.client(&grant.client).await?;
        let swappable = owner.filter(|owner| {
            matches!(owner.format_for(resource), Some(Format::Phantom | Format::Custom(_)))
        });
        let Some(owner) = swappable else {
            return Ok(refused("its client has no tokens to swap for the resource"));
        };
        let scope = (inner.scope_mapper)(resource, &token.scope);
        let fresh = ask_hook(inner, &grant, &token, resource, &scope).await;
        inner.refusals.token(&grant.client, Occasion::Swap, &fresh);
        let fresh = match fresh {
            Ok(fresh) => fresh,
            Err(TokenError::Denied { .. }) => return Ok(refused("the token hook refused it")),
            Err(error) => return Err(error),
        };
        let swap = Swap {
            issuer: &inner.url,
            grant: &grant,
            token: fresh.as_ref().unwrap_or(&token),
            audience: resource,
            scope: &scope,
            algorithm: inner.minter.algorithm_of(&owner)?,
            now,
            random: &inner.random,
        };
        Ok(Some(inner.phantom.swap(swap).await?))
    }
}

/// The handle's record with the claims that the hook gives its JWT; `None` if nothing changes.
async fn ask_hook(
    inner: &Inner,
    grant: &GrantRecord,
    token: &TokenRecord,
    resource: &str,
    scope: &Scope,
) -> Result<Option<TokenRecord>, TokenError> {
    let Some(hook) = inner.minter.hook.as_ref().filter(|hook| hook.at_swap) else {
        return Ok(None);
    };
    let mut grant = Box::new(grant.clone());
    if let Some(claims) = &token.claims {
        grant.claims.clone_from(claims);
    }
    let audience = Audience::one(resource).map_err(|why| TokenError::Hook(why.into()))?;
    let occasion = Occasion::Swap;
    let new = NewToken { occasion, grant, scope: scope.clone(), audience, nonce: None };
    let changed = Box::pin(hook.run(new)).await?.claims;
    Ok(changed.map(|claims| {
        let mut token = token.clone();
        token.claims = Some(claims);
        token
    }))
}

const INVISIBLE: &str = "the caller may not see it";
const ENDED: &str = "it has expired or was revoked, or its grant was";

/// Traces why a token is inactive, which the caller is not told.
fn trace_inactive(reason: &'static str) {
    tracing::debug!(reason, "a token is inactive");
}

fn inactive(reason: &'static str) -> Introspection {
    trace_inactive(reason);
    Introspection::Inactive
}

fn refused<T>(reason: &'static str) -> Option<T> {
    trace_inactive(reason);
    None
}

/// The access token, if it is unexpired, not revoked, and its grant is live.
async fn active(
    inner: &Inner,
    token: &TokenSecret,
    now: UnixTime,
) -> Result<Option<Active>, TokenError> {
    match inner.locator.locate(token).await? {
        Some(Located { kind: TokenKind::Access, grant, digest, carried: None, .. }) => {
            let Lookup::Found(found) = inner.store.find(grant, Some(digest)).await? else {
                return Ok(refused("its grant is unknown"));
            };
            let grant = found.grant;
            Ok(found
                .token
                .filter(|token| token.is_live(now) && grant.is_live(now))
                .map(|token| Active { grant, token, carried: None })
                .or_else(|| refused(ENDED)))
        }
        Some(Located { kind: TokenKind::Access, carried: Some(carried), .. }) => {
            active_carried(inner, carried, now).await
        }
        _ => Ok(refused("it is not an access token of this issuer")),
    }
}

/// A JWT with a valid signature, if its grant is live and no rule denies it.
async fn active_carried(
    inner: &Inner,
    carried: Box<SelfContained>,
    now: UnixTime,
) -> Result<Option<Active>, TokenError> {
    if !carried.token.is_live(now) {
        return Ok(refused(ENDED));
    }
    let grant = match inner.store.find(carried.grant.id, None).await? {
        Lookup::Found(found) if found.grant.is_live(now) => found.grant,
        Lookup::Found(_) => return Ok(refused(ENDED)),
        Lookup::Absent if carried.stateless => Arc::new(carried.grant.clone()),
        Lookup::Absent | Lookup::Tombstone => return Ok(refused("its grant is unknown")),
    };
    let mut keys = Vec::from(grant.rule_keys());
    keys.push(RuleKey::Jti(carried.jti.clone()));
    keys.push(RuleKey::Key(carried.kid.clone()));
    let rules = inner.store.rules(keys).await?;
    if rules.rules.iter().any(|rule| rule.denies(grant.epoch)) {
        return Ok(refused("a revocation covers it"));
    }
    let token = Arc::new(carried.token.clone());
    Ok(Some(Active { grant, token, carried: Some(carried) }))
}

async fn introspect_refresh(
    inner: &Inner,
    handle: &ChainHandle,
    caller: Caller<'_>,
    now: UnixTime,
) -> Result<Introspection, TokenError> {
    const OTHERS: &str = "a refresh token is shown only to its own client";
    let Caller::Client(client) = caller else {
        return Ok(inactive(OTHERS));
    };
    let Some(grant) = inner.find(handle.grant).await? else {
        return Ok(inactive("its grant is unknown"));
    };
    if grant.client != *client.id() {
        return Ok(inactive(OTHERS));
    }
    let Some(chain) = grant.chain.as_ref().filter(|chain| {
        grant.is_live(now)
            && handle.is_genuine(&chain.key)
            && CredentialState::of(handle, chain, now) == CredentialState::Current
            && now < chain.expires_at
    }) else {
        return Ok(inactive("it is not the current one, or has expired or been revoked"));
    };
    let mut answer = ActiveToken::default();
    answer.scope = grant.scope.clone();
    answer.client = Some(grant.client.clone());
    answer.username = grant.username.clone().map(String::from);
    answer.token_type = Some("refresh_token".into());
    answer.expires_at = Some(chain.expires_at);
    answer.issued_at = Some(grant.refreshed_at.unwrap_or(grant.created_at));
    answer.subject = Some(Subject::clone(&grant.subject));
    answer.audience = Some(grant.audience.clone());
    answer.issuer = Some(Arc::clone(&inner.url));
    Ok(Introspection::Active(Box::new(answer)))
}
