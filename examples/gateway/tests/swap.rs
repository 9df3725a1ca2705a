//! Without a valid handle, nothing is forwarded.

use super::*;

#[tokio::test(start_paused = true)]
async fn only_a_good_handle_gets_through() {
    let good = request("GET /", &[]);
    for (bearer, expected, challenge) in [
        ("", 401, "Bearer realm=\"https://orders.example\""),
        ("authorization: Bearer cr_at_bad\r\n", 401, "error=\"invalid_token\""),
        // A JWT of the client's own: a handle like any other, and unknown.
        ("authorization: Bearer e30.e30.c2ln\r\n", 401, "error=\"invalid_token\""),
        ("authorization: Basic eDp5\r\n", 401, "Bearer realm"),
        (
            "authorization: Bearer a\r\nauthorization: Bearer b\r\n",
            400,
            "error=\"invalid_request\"",
        ),
        // It would have the JWT removed on the way.
        (
            "authorization: Bearer cr_at_good\r\nconnection: authorization\r\n",
            400,
            "error=\"invalid_request\"",
        ),
    ] {
        let mut world = World::new();
        let mut client = world.client();
        client.send(&good.replace(&format!("authorization: Bearer {HANDLE}\r\n"), bearer)).await;
        let head = client.head().await;
        assert_eq!(head.status(), expected, "{bearer}");
        assert!(head.all("www-authenticate")[0].contains(challenge), "{head:?}");
        assert!(head.has("x-request-id"));
        assert_eq!(world.more_connections(), 0, "{bearer}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_request_of_a_connection_has_its_own_token() {
    let mut world = World::new();
    let mut client = world.client();
    client.send(&request("GET /", &[])).await;
    let mut service = world.service().await;
    service.head().await;
    service.answer("").await;
    assert_eq!(client.head().await.status(), 200);
    client.send(&request("GET /", &[]).replace(HANDLE, "cr_at_revoked")).await;
    assert_eq!(client.head().await.status(), 401);
    assert_eq!(world.swaps(), 2);
}
