//! The sessions of a user, as a page that lists the user's devices shows them.

use cloakroom::core::record::Device;
use cloakroom::core::store::{PageRequest, Selector};
use cloakroom::core::{GrantId, TokenSecret};
use cloakroom::{ApprovedRequest, Grant, RefreshRequest, TokenResponse};

use super::support::*;

fn device<const N: usize>(fields: [(&str, &str); N]) -> Device {
    Device::new(fields).unwrap()
}

fn on(client: &str, id: &str) -> Grant {
    let grant = Grant::user(client, "alice").unwrap().device(device([("name", "Firefox")]));
    grant.on_device(id).unwrap()
}

impl Fixture {
    async fn grants(&self) -> Vec<GrantId> {
        let sessions = self.issuer.sessions(&alice()).await.unwrap();
        let mut grants: Vec<_> = sessions.iter().map(|session| session.grant).collect();
        grants.sort_unstable_by_key(|grant| *grant.as_bytes());
        grants
    }

    async fn redeem_at(&self, client: &str, code: &TokenSecret) -> TokenResponse {
        self.issuer.redeem(redemption_by(client, code)).await.unwrap()
    }

    async fn code_on(&self, client: &str, id: &str) -> TokenSecret {
        let request = ApprovedRequest::new(on(client, id), CALLBACK).pkce(challenge());
        self.issuer.authorize(request).await.unwrap()
    }
}

#[tokio::test]
async fn sessions_come_page_by_page() {
    let fixture = Fixture::new().await;
    for _ in 0..5 {
        fixture.sign_in("web-app").await;
    }
    // No session, but a place in a page.
    fixture.code().await;
    for limit in [0, 1, 2, 6, 100, u32::MAX] {
        let (mut all, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let request = PageRequest { after, limit };
            let of = Selector::Subject(alice());
            let page = fixture.issuer.list_sessions(of, request).await.unwrap();
            all.extend(page.sessions.iter().map(|session| session.grant));
            pages += 1;
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(all, fixture.grants().await, "{limit}");
        assert!(pages >= 6 / limit.clamp(1, 6), "{limit}");
    }
}

#[tokio::test]
async fn a_session_is_written_for_a_page() {
    let fixture = Fixture::new().await;
    fixture.issuer.issue(on("web-app", "d-1")).await.unwrap();
    let session = fixture.issuer.sessions(&alice()).await.unwrap().remove(0);
    assert_eq!(session.last_used_at(), START);
    let json = serde_json::to_value(&session).unwrap();
    assert_eq!(json["grant"], session.grant.to_string());
    assert_eq!(json["client"], "web-app");
    assert_eq!(json["device"]["name"], "Firefox");
    assert_eq!(json["created_at"], START.as_millis());
    assert!(json["refreshed_at"].is_null());
}

#[tokio::test]
async fn the_device_is_kept_current_where_tokens_rotate() {
    let fixture = Fixture::new().await;
    let code = fixture.code_on("web-app", "d-1").await;
    let request = redemption(&code).device(device([("city", "Lisbon")]));
    let tokens = fixture.issuer.redeem(request).await.unwrap();
    let seen = async || {
        let session = fixture.issuer.sessions(&alice()).await.unwrap().remove(0);
        let fields: Vec<_> = session.device.iter().map(|(_, value)| value.to_owned()).collect();
        (fields.join(" "), session.last_used_at())
    };
    assert_eq!(seen().await, ("Lisbon d-1 Firefox".into(), START));
    fixture.clock.advance(MINUTE);
    let request = |token| refreshing(token).device(device([("city", "Porto")]));
    let tokens = fixture.issuer.refresh(request(&tokens.refresh_token.unwrap())).await.unwrap();
    assert_eq!(seen().await, ("Porto d-1 Firefox".into(), START + MINUTE));
    let large = "x".repeat(Device::MAX_BYTES - 4);
    let request = refreshing(&tokens.refresh_token.unwrap()).device(device([("city", &*large)]));
    fixture.issuer.refresh(request).await.unwrap();
    assert_eq!(seen().await.0, "Porto d-1 Firefox", "too large to be added");
}

#[tokio::test]
async fn the_device_stays_as_described_where_tokens_do_not_rotate() {
    let fixture = Fixture::new().await;
    let tokens = fixture.issuer.issue(on("workers", "d-1")).await.unwrap();
    let token = tokens.refresh_token.unwrap();
    fixture.clock.advance(MINUTE);
    fixture.store.seen();
    // Two of the processes that share the token.
    for city in ["Porto", "Faro"] {
        let request = RefreshRequest::new(token.clone(), client_id("workers"));
        fixture.issuer.refresh(request.device(device([("city", city)]))).await.unwrap();
    }
    let session = fixture.issuer.sessions(&alice()).await.unwrap().remove(0);
    let fields: Vec<_> = session.device.iter().map(|(_, value)| value.to_owned()).collect();
    assert_eq!((fields.join(" "), session.last_used_at()), ("d-1 Firefox".into(), START));
}

#[tokio::test]
async fn everything_but_this_session_ends() {
    let fixture = Fixture::new().await;
    let kept = fixture.session().await;
    let (other, spa) = (fixture.session().await, fixture.sign_in("spa-app").await);
    let code = fixture.code().await;
    let bob = fixture.issuer.issue(Grant::user("web-app", "bob").unwrap()).await.unwrap();
    let count = fixture.issuer.revoke_other_sessions(&alice(), grant_of(&kept.refresh)).await;
    assert_eq!(count.unwrap(), 3);
    assert!(fixture.is_active(&kept.access).await && fixture.is_active(&bob.access_token).await);
    assert!(!fixture.is_active(&other.access).await && !fixture.is_active(&spa.access_token).await);
    assert!(fixture.redeem(&code).await.is_err(), "nor does a login in progress");
    let again = fixture.issuer.revoke_other_sessions(&alice(), grant_of(&kept.refresh)).await;
    assert_eq!(again.unwrap(), 0);
    // Another's session is not one to keep.
    let count = fixture.issuer.revoke_other_sessions(&alice(), bob.grant).await.unwrap();
    assert_eq!((count, fixture.grants().await.len()), (1, 0));
}

#[tokio::test]
async fn a_sign_in_on_one_device_replaces_its_session() {
    let fixture = Fixture::new().await;
    let elsewhere = [
        fixture.issuer.issue(on("web-app", "d-2")).await.unwrap(),
        fixture.issuer.issue(on("spa-app", "d-1")).await.unwrap(),
        fixture.sign_in("web-app").await,
    ];
    fixture.clock.advance(MINUTE);
    let first = fixture.issuer.issue(on("web-app", "d-1")).await.unwrap();
    fixture.clock.advance(MINUTE);
    let second = fixture.issuer.issue(on("web-app", "d-1")).await.unwrap();
    assert!(!fixture.is_active(&first.access_token).await);
    fixture.clock.advance(MINUTE);
    // A code replaces nothing before it is redeemed.
    let code = fixture.code_on("web-app", "d-1").await;
    assert!(fixture.is_active(&second.access_token).await);
    let third = fixture.redeem_at("web-app", &code).await;
    assert!(!fixture.is_active(&second.access_token).await);
    assert!(fixture.is_active(&third.access_token).await);
    let request = RefreshRequest::new(third.refresh_token.unwrap(), client_id("web-app"));
    fixture.issuer.refresh(request).await.unwrap();
    for other in elsewhere {
        assert!(fixture.is_active(&other.access_token).await);
    }
}

#[tokio::test]
async fn of_two_sign_ins_at_once_one_stays() {
    let fixture = Fixture::new().await;
    let codes = [fixture.code_on("web-app", "d-1").await, fixture.code_on("web-app", "d-1").await];
    let [one, other] = codes.each_ref().map(|code| fixture.redeem_at("web-app", code));
    let (one, other) = tokio::join!(one, other);
    let alive =
        [fixture.is_active(&one.access_token).await, fixture.is_active(&other.access_token).await];
    assert!(alive.contains(&true), "never both");
}

#[tokio::test]
async fn a_session_begins_even_if_the_one_that_it_replaces_cannot_be_ended() {
    let fixture = Fixture::new().await;
    fixture.issuer.issue(on("web-app", "d-1")).await.unwrap();
    fixture.clock.advance(MINUTE);
    fixture.store.fail_all("list", true);
    let second = fixture.issuer.issue(on("web-app", "d-1")).await.unwrap();
    fixture.store.fail_all("list", false);
    assert!(fixture.is_active(&second.access_token).await);
    assert_eq!(fixture.grants().await.len(), 2);
}
