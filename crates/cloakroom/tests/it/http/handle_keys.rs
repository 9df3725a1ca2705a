//! The keys that tell a forged access handle: who may have them, and what they are.

use cloakroom::core::handle::{
    AccessHandleKeys, HandleCheck, HandleKeys, HandlePrefixes, HandleSecret,
};

use super::request::{With, get};
use super::server::{SECRET, Server, Wire};

const PATH: &str = "/handle-keys";

#[tokio::test]
async fn only_whoever_has_the_role_may_have_them() {
    let wire = Wire::new().await;
    let reply = wire.send(get(PATH).basic("edge", SECRET)).await.ok();
    assert_eq!(reply.header("cache-control"), "no-store");
    assert_eq!(reply.header("content-type"), "application/json");
    wire.send(get(PATH)).await.refused(401, "invalid_client");
    wire.send(get(PATH).basic("edge", &SECRET[1..])).await.refused(401, "invalid_client");
    for client in ["web-app", "orders-api", "gateway", "follower"] {
        wire.send(get(PATH).basic(client, SECRET)).await.refused(403, "unauthorized_client");
    }
    wire.server.store.tokens_down(true);
    wire.send(get(PATH).basic("edge", SECRET)).await.ok();
}

#[tokio::test]
async fn they_know_every_access_handle_and_nothing_else() {
    let prefixes = HandlePrefixes::new("acme_at_", "acme_rt_", "acme_ac_").unwrap();
    let (old, new) = (HandleSecret::new(1, [1; 32]), HandleSecret::new(2, [2; 32]));
    let keys = HandleKeys::new(&new).with_former(&old).unwrap().with_prefixes(prefixes);
    let server = Server::with(|issuer| issuer.handle_keys(keys)).await;
    let reply = server.send(get(PATH).basic("edge", SECRET)).await.ok();
    let json = reply.json();
    assert_eq!(json["prefixes"], serde_json::json!(["acme_at_", "cr_at_"]));
    let ids: Vec<_> = json["keys"].as_array().unwrap().iter().map(|key| &key["id"]).collect();
    assert_eq!(ids, [2, 1]);
    assert_eq!(json.as_object().unwrap().len(), 2);

    let keys = AccessHandleKeys::from_json(&reply.body).unwrap();
    let former = Server::new().await;
    for session in [server.session("web-app").await, former.session("web-app").await] {
        assert!(matches!(keys.check(&session.access), HandleCheck::Genuine(_)));
        assert_eq!(keys.check(&session.refresh), HandleCheck::Foreign);
        let forged = session.access.replace(&session.access[20..24], "----");
        assert_eq!(keys.check(&forged), HandleCheck::Forged);
    }
}
