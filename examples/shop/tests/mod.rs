//! The shop as its users see it: over HTTP, and in Chromium.

mod http;
mod with_chromium;

use std::net::SocketAddr;

use crate::{Error, Shop};

/// The password of every user here.
const PASSWORD: &str = "twelve good letters";

/// A shop on a port of its own, with `alice` and `admin`. It ends with the test.
async fn open() -> Result<(Shop, String), Error> {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let shop = Shop::open(&url).await?;
    shop.users.add("alice", PASSWORD, false).await?;
    shop.users.add("admin", PASSWORD, true).await?;
    let app = shop.clone().router()?;
    tokio::spawn(async move { cloakroom::http::serve(listener, app).await });
    Ok((shop, url))
}
