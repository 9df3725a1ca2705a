//! An API on actix-web that accepts the tokens of an issuer in the same process, and a client that calls it.
//!
//! actix-web is not based on tower, and has HTTP types of its own. So its middleware calls
//! `BearerLayer::check`, which decides about a request, and copies what goes in and comes out.
//!
//! ```toml
//! [dependencies]
//! actix-web = "4"
//! cloakroom = { path = "../cloakroom/crates/cloakroom", features = ["resource"] }
//! reqwest = { version = "0.13", default-features = false }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```

use std::error::Error;
use std::net::TcpListener;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpMessage as _, HttpResponse, HttpServer, web};
use cloakroom::http::{HeaderValue, Request};
use cloakroom::resource::{BearerLayer, VerifiedToken};
use cloakroom::{Client, Format, Grant, Issuer, TokenSecret};

const ORDERS: &str = "https://orders.example";

// --- To copy ----------------------------------------------------------------------------------

/// Lets a request pass if its token is good. A handler finds it as `web::ReqData<VerifiedToken>`.
async fn protect(
    bearer: web::ThinData<BearerLayer>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let mut checked = Request::new(());
    for value in request.headers().get_all(header::AUTHORIZATION) {
        let value = HeaderValue::from_bytes(value.as_bytes());
        let value = value.map_err(actix_web::error::ErrorBadRequest)?;
        checked.headers_mut().append("authorization", value);
    }
    match bearer.check(checked).await {
        Ok(checked) => {
            if let Some(token) = checked.extensions().get::<VerifiedToken>() {
                request.extensions_mut().insert(token.clone());
            }
            Ok(next.call(request).await?.map_into_left_body())
        }
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.status().as_u16());
            let mut response =
                HttpResponse::build(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
            for (name, value) in refusal.headers() {
                response.append_header((name.as_str(), value.as_bytes()));
            }
            Ok(request.into_response(response.finish()).map_into_right_body())
        }
    }
}

// --- The API ----------------------------------------------------------------------------------

async fn orders(token: web::ReqData<VerifiedToken>) -> String {
    format!("orders of {}", token.user().unwrap_or("nobody"))
}

fn serve(listener: TcpListener, bearer: BearerLayer) -> std::io::Result<actix_web::dev::Server> {
    let app = move || {
        let orders = web::resource("/orders").route(web::get().to(orders));
        App::new().app_data(web::ThinData(bearer.clone())).service(orders.wrap(from_fn(protect)))
    };
    Ok(HttpServer::new(app).workers(1).disable_signals().listen(listener)?.run())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run().await?;
    println!("actix: ok");
    Ok(())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let app = Client::public("app").scope("orders:read profile").audience(ORDERS, Format::Opaque);
    let issuer = Issuer::dev().static_clients([app])?.build().await?;
    let bearer = issuer.protect(ORDERS).require_scope("orders:read")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/orders", listener.local_addr()?);
    let server = serve(listener, bearer)?;
    let handle = server.handle();
    let server = tokio::spawn(server);

    let grant = |scope| Grant::user("app", "alice")?.scope(scope);
    let good = issuer.issue(grant("orders:read")?).await?;
    let weak = issuer.issue(grant("profile")?).await?;
    expect("without a token", &url, None, 401).await?;
    expect("without the scope", &url, Some(&weak.access_token), 403).await?;
    let body = expect("with a token", &url, Some(&good.access_token), 200).await?;
    assert_eq!(body, "orders of alice");
    issuer.revoke_grant(good.grant).await?;
    expect("after the revocation", &url, Some(&good.access_token), 401).await?;
    handle.stop(false).await;
    Ok(server.await??)
}

/// Calls the API with this token: the body of its answer.
async fn expect(
    what: &str,
    url: &str,
    token: Option<&TokenSecret>,
    status: u16,
) -> Result<String, Box<dyn Error>> {
    let request = reqwest::Client::new().get(url);
    let request = match token {
        Some(token) => request.bearer_auth(token.expose()),
        None => request,
    };
    let answer = request.send().await?;
    let (found, challenge) = (answer.status(), answer.headers().contains_key("www-authenticate"));
    println!("{what}: {found}");
    if found != status || challenge != (status >= 400) {
        return Err(format!("{what}: {status} was expected").into());
    }
    Ok(answer.text().await?)
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_example_runs() -> Result<(), Box<dyn std::error::Error>> {
        super::run().await
    }
}
