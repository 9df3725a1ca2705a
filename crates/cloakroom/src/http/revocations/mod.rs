//! The revocation log, for clients with the role to follow it.

pub(crate) mod page_cache;

use std::time::Duration;

use ::http::{Method, Request, Response};
use bytes::Bytes;
use cloakroom_core::revocation::Cursor;
use tokio::time::{Instant, timeout_at};

use self::page_cache::{Page, Source, Wanted};
use super::form::Form;
use super::{Endpoints, credentials, respond};
use crate::client::registration::Role;
use crate::error::TokenError;

/// The most entries of a page, and the default.
const MAX_ENTRIES: u32 = 1_000;

impl Endpoints {
    /// The entries after a cursor: at once if there are any, else when the log grows, else none
    /// after the time that the caller requested.
    pub(super) async fn revocations(
        &self,
        request: &Request<Bytes>,
    ) -> Result<Response<Bytes>, TokenError> {
        let form = credentials(request)?;
        self.authorized(request, &form, Role::RevocationLog).await?;
        let asked = if request.method() == Method::POST {
            form
        } else {
            Form::parse(request.uri().query().unwrap_or_default().as_bytes())?
        };
        let after: Cursor = asked
            .get("after")
            .unwrap_or_default()
            .parse()
            .map_err(|_| TokenError::InvalidRequest("after is not a cursor"))?;
        let wait = number(&asked, "wait", "wait is not a number of seconds")?.unwrap_or(0);
        let limit = number(&asked, "limit", "limit is not a number")?
            .map_or(MAX_ENTRIES, |limit| u32::try_from(limit).unwrap_or(u32::MAX));
        if limit == 0 {
            return Err(TokenError::InvalidRequest("limit is zero"));
        }
        let wanted = Wanted { after, limit: limit.min(MAX_ENTRIES) };
        let page = self.next_page(wanted, Duration::from_secs(wait).min(self.max_wait)).await?;
        Ok(respond::body("application/json", page))
    }

    async fn next_page(&self, wanted: Wanted, wait: Duration) -> Result<Bytes, TokenError> {
        let inner = &self.issuer.inner;
        let deadline = Instant::now() + wait;
        let mut changes = inner.log_notifier.subscribe();
        let mut place = None;
        let mut is_over = wait.is_zero();
        loop {
            let source = Source {
                store: inner.store.clone(),
                heartbeat: inner.heartbeat,
                clock_skew: inner.clock_skew(),
            };
            let count = *changes.borrow_and_update();
            // An empty page never comes from memory. It is read at the end, so that a lost
            // notification delays an entry and does not hide it.
            let newer = if is_over { self.page_cache.latest().await } else { 0 };
            match self.page_cache.page(source, &wanted, count, newer).await {
                Page::Entries(page) => return Ok(page),
                Page::Empty(page) if is_over => return Ok(page),
                Page::Empty(_) => {}
                Page::Failed => {
                    return Err(TokenError::Unavailable("the revocation log cannot be read"));
                }
            }
            if place.is_none() {
                let free = self.followers.try_acquire();
                let full = |_| TokenError::Unavailable("too many followers of the revocation log");
                place = Some(free.map_err(full)?);
            }
            is_over = !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(())));
        }
    }
}

/// A whole number; too large a number becomes the largest.
fn number(form: &Form, name: &str, why: &'static str) -> Result<Option<u64>, TokenError> {
    let Some(text) = form.get(name) else { return Ok(None) };
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TokenError::InvalidRequest(why));
    }
    Ok(Some(text.parse().unwrap_or(u64::MAX)))
}
