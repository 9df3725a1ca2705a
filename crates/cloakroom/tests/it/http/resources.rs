//! What a token is meant for: how a resource may be spelled, and which can be named at all.

use cloakroom::core::Audience;
use cloakroom::http::Form;
use cloakroom::{ApprovedRequest, Client, ClientBuilder, Format, Grant, GrantType, Pkce, Serves};
use proptest::prelude::*;
use url::form_urlencoded::byte_serialize;

use super::request::{With as _, post};
use super::server::{CHALLENGE, REDIRECT, SECRET, Server, VERIFIER};

/// An app for each format, and a resource server for each way to spell the resource.
async fn server(registered: &str) -> Server {
    let app = |id: &str, format| {
        Client::confidential(id, SECRET)
            .grant_types(GrantType::ALL)
            .redirect_uri(REDIRECT)
            .audience(registered, format)
            .audience("https://other.example", Format::Opaque)
    };
    let api = |id: &str, resource: &str| {
        Client::resource_server(id, SECRET, Serves::Only(Audience::one(resource).unwrap()))
    };
    let bare = registered.trim_end_matches('/');
    let clients: Vec<ClientBuilder> = vec![
        app("phantoms", Format::Phantom),
        app("jwts", Format::Jwt),
        api("bare", bare),
        api("slashed", &format!("{bare}/")),
    ];
    Server::with(|issuer| issuer.static_clients(clients).unwrap()).await
}

const BOTH: [&str; 2] = ["https://api.example", "https://api.example/"];

impl Server {
    /// Checks that a token names the resource as it is registered, whoever asks for it and however.
    async fn assert_meant_for(&self, token: &str, registered: &str) {
        for api in ["bare", "slashed"] {
            for named in BOTH {
                let form = [("token", token), ("resource", named)];
                let answer = self.ask(api, "/introspect", &form).await.ok().json();
                assert_eq!(answer["active"], true, "{api} {named}");
                assert_eq!(answer["aud"], registered, "{api} {named}");
            }
            let answer = self.introspect(api, token).await.json();
            assert_eq!(answer["aud"], registered, "{api}");
        }
    }

    /// Checks the audience of a JWT as an API does, whichever way it spells its own resource.
    async fn assert_verified(&self, jwt: &str, registered: &str) {
        for audience in BOTH {
            let verified = self.verifier(audience).verify(&self.keys().await, jwt).unwrap();
            assert_eq!(verified.token.audience.unwrap().single(), Some(registered), "{audience}");
        }
    }
}

#[tokio::test]
async fn a_slash_at_an_empty_path_makes_no_difference_anywhere() {
    for registered in BOTH {
        let server = server(registered).await;
        for asked in BOTH {
            let credentials = [("resource", asked)];
            let handle = server.client_token("phantoms", &credentials).await;
            server.assert_meant_for(&handle, registered).await;
            let jwt = server.client_token("jwts", &credentials).await;
            server.assert_meant_for(&jwt, registered).await;
            server.assert_verified(&jwt, registered).await;

            for api in ["bare", "slashed"] {
                let form = [("token", &*handle), ("resource", asked)];
                let swap = post("/introspect", &form).with("accept", "application/jwt");
                let reply = server.send(swap.basic(api, SECRET)).await.ok();
                server.assert_verified(reply.text(), registered).await;
            }

            // What the authorization request named, what the code is redeemed for, and the refresh.
            let grant = Grant::user("phantoms", "alice").unwrap();
            let grant = grant.audience(Audience::one(asked).unwrap());
            let request = ApprovedRequest::new(grant, REDIRECT);
            let request = request.pkce(Pkce::s256(CHALLENGE).unwrap());
            let code = server.issuer().authorize(request).await.unwrap();
            let (mut name, mut value) = ("code", code.expose().to_owned());
            for grant_type in ["authorization_code", "refresh_token"] {
                let form = [
                    ("grant_type", grant_type),
                    (name, &value),
                    ("code_verifier", VERIFIER),
                    ("resource", asked),
                ];
                let reply = server.ask("phantoms", "/token", &form).await.ok();
                server.assert_meant_for(&reply.member("access_token"), registered).await;
                (name, value) = ("refresh_token", reply.member("refresh_token"));
            }
        }
        // Both at once are one resource.
        let twice = BOTH.map(|resource| ("resource", resource));
        let handle = server.client_token("phantoms", &twice).await;
        server.assert_meant_for(&handle, registered).await;

        for other in [
            "https://api.example//",
            "https://api.example/v1",
            "https://api.example.",
            "http://api.example/",
        ] {
            let form = [("grant_type", "client_credentials"), ("resource", other)];
            server.ask("phantoms", "/token", &form).await.refused(400, "invalid_target");
            let form = [("token", &*handle), ("resource", other)];
            let answer = server.ask("bare", "/introspect", &form).await.ok();
            assert_eq!(answer.json()["active"], false, "{other}");
        }
    }
}

/// The resource can be registered, or why not.
fn registration(resource: &str) -> Result<Client, cloakroom::ClientConfigError> {
    Client::confidential("app", SECRET)
        .grant_types([GrantType::ClientCredentials])
        .audience(resource, Format::Phantom)
        .build()
}

#[tokio::test]
async fn what_is_registered_can_be_named_and_nothing_else_can() {
    let fallback = registration("https://api.example").unwrap();
    for resource in [
        "https://api.example",
        "https://api.example:8443/v1/orders?tenant=a&b=c+d",
        "HTTPS://API.example/%2F",
        "http://[::1]:9000",
        "urn:example:orders",
        "api://orders",
        "orders",
        "/orders",
        "//api.example",
        "https://",
        "https://api.example#orders",
        "https://api.example#",
        "https://api.example/a b",
        " https://api.example",
        "https://api.example\n",
        "https://b\u{fc}cher.example",
    ] {
        let client = registration(resource);
        let served = Audience::one(resource).unwrap();
        let api = Client::resource_server("api", SECRET, Serves::Only(served)).build();
        let is_registered = client.is_ok();
        assert_eq!(api.is_ok(), is_registered, "{resource:?}");
        let gateway = Client::resource_server("gateway", SECRET, Serves::Everything);
        let clients = [client.unwrap_or(fallback.clone()), api.unwrap_or(gateway.build().unwrap())];
        let caller = if is_registered { "api" } else { "gateway" };
        let server = Server::with(|issuer| issuer.static_clients(clients).unwrap()).await;

        let form = [("grant_type", "client_credentials"), ("resource", resource)];
        let reply = server.ask("app", "/token", &form).await;
        if !is_registered {
            reply.refused(400, "invalid_target");
            let token = server.client_token("app", &[]).await;
            let form = [("token", &*token), ("resource", resource)];
            let reply = server.ask(caller, "/introspect", &form).await;
            reply.refused(400, "invalid_target");
            continue;
        }
        let token = reply.ok().member("access_token");
        let form = [("token", &*token), ("resource", resource)];
        let answer = server.ask(caller, "/introspect", &form).await.ok().json();
        assert_eq!((&answer["active"], &answer["aud"]), (&true.into(), &resource.into()));
        let swap = post("/introspect", &form).with("accept", "application/jwt");
        let jwt = server.send(swap.basic(caller, SECRET)).await.ok();
        server.verifier(resource).verify(&server.keys().await, jwt.text()).unwrap();
    }
}

proptest! {
    #[test]
    fn registrations_and_requests_judge_resources_alike(
        resource in "(https|HTTP|urn|api|file)?:?/{0,3}[a-zA-Z.@é\\[\\]]{0,8}(:[0-9]{0,6})?[/?#%\\\\ \u{7}<a-c]{0,5}"
    ) {
        prop_assume!(!resource.is_empty());
        let encoded: String = byte_serialize(resource.as_bytes()).collect();
        let named = Form::parse(format!("resource={encoded}").as_bytes()).unwrap().resources();
        prop_assert_eq!(registration(&resource).is_ok(), named.is_ok(), "{}", resource);
    }
}
