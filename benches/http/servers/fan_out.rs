//! The least that can notify many waiting clients: a bare long poll.

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::watch;

use super::Prepared;

type Count = watch::Sender<u64>;

/// `POST /change` counts up; `GET /changes?after=N` answers as soon as the count is above N.
pub(super) fn prepare() -> Prepared {
    let router = Router::new()
        .route("/change", post(change))
        .route("/changes", get(changes))
        .with_state(watch::Sender::new(1_u64));
    Prepared { router, tokens: Vec::new() }
}

async fn change(State(count): State<Count>) {
    count.send_modify(|count| *count += 1);
}

async fn changes(State(count): State<Count>, RawQuery(query): RawQuery) -> Response {
    let after = query.as_deref().and_then(|query| query.strip_prefix("after=")?.parse().ok());
    let Some(after) = after else { return StatusCode::BAD_REQUEST.into_response() };
    match count.subscribe().wait_for(|count| *count > after).await {
        Ok(count) => {
            let json = [(header::CONTENT_TYPE, "application/json")];
            (json, format!("{{\"next\":\"{}\"}}", *count)).into_response()
        }
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
