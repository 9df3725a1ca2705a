//! Processes that share one refresh token: how far behind one of them may be, for how long, and what a
//! thief gets out of that.

use std::time::Duration;

use cloakroom::core::record::SealedSuccessor;
use cloakroom::core::time::Clock as _;
use cloakroom::core::{Confirmation, TokenSecret};
use cloakroom::{
    Client, ClientBuilder, ClientLifetimes, Event, Format, Grant, GrantRefusal, GrantType,
    Lifetimes, RefreshRequest, TokenError, TokenResponse,
};

use super::support::*;

const AGENT: &str = "agent";
/// The clock skew, which every window is longer by.
const SKEW: Duration = secs(5);
const OWNERS: Option<Confirmation> = Some(Confirmation::JwkThumbprint([1; 32]));
const THIEFS: Option<Confirmation> = Some(Confirmation::JwkThumbprint([2; 32]));

fn agent(client: ClientBuilder, window: Option<Duration>) -> ClientBuilder {
    let lifetimes = ClientLifetimes::default();
    client
        .grant_types([GrantType::RefreshToken])
        .audience(REPORTS, Format::Opaque)
        .lifetimes(window.map_or(lifetimes, |window| lifetimes.retry_window(window)))
}

fn confidential() -> ClientBuilder {
    Client::confidential(AGENT, CLIENT_SECRET)
}

async fn fixture(client: ClientBuilder) -> Fixture {
    Fixture::with(|builder| builder.static_clients([client]).unwrap()).await
}

impl Fixture {
    async fn agent_refreshes(
        &self,
        token: &TokenSecret,
        proved: Option<Confirmation>,
    ) -> Result<TokenResponse, TokenError> {
        let request = RefreshRequest::new(token.clone(), client_id(AGENT)).confirmation(proved);
        self.issuer.refresh(request).await
    }

    /// The token that the chain stands at, as this spent one leads to it.
    async fn current(&self, token: &TokenSecret, proved: Option<Confirmation>) -> TokenSecret {
        self.agent_refreshes(token, proved).await.unwrap().refresh_token.unwrap()
    }

    /// Signs in and rotates so often. All tokens, the oldest first.
    async fn agent_tokens(&self, times: usize, proved: Option<Confirmation>) -> Vec<TokenSecret> {
        let mut grant = Grant::user(AGENT, "alice").unwrap();
        if let Some(key) = proved.clone() {
            grant = grant.confirmation(key);
        }
        let mut tokens = vec![self.issuer.issue(grant).await.unwrap().refresh_token.unwrap()];
        for _ in 0..times {
            let next = self.current(tokens.last().unwrap(), proved.clone()).await;
            tokens.push(next);
        }
        tokens
    }
}

#[tokio::test]
async fn a_laggard_catches_up_from_as_far_back_as_is_remembered() {
    let furthest = SealedSuccessor::MAX_EARLIER + 1;
    let fixture = fixture(agent(confidential(), None)).await;
    let tokens = fixture.agent_tokens(furthest, None).await;
    fixture.events.take();
    for token in &tokens[..furthest] {
        let response = fixture.agent_refreshes(token, None).await.unwrap();
        assert_eq!(response.refresh_token.unwrap().expose(), tokens[furthest].expose());
        assert!(fixture.is_active(&response.access_token).await);
    }
    let events = fixture.events.take();
    for (at, event) in events.iter().enumerate() {
        let Event::Retried { presented, generation, .. } = event else { panic!("{event:?}") };
        assert_eq!((*presented as usize, *generation as usize), (at, furthest));
    }
    assert_eq!(events.len(), furthest);
    // One more step, and the oldest is too old.
    fixture.current(&tokens[furthest], None).await;
    let refused = fixture.agent_refreshes(&tokens[0], None).await;
    assert_eq!(refusal(refused), GrantRefusal::Reused);
}

#[tokio::test]
async fn the_window_is_long_where_a_stolen_token_is_of_no_use() {
    let hour = Some(HOUR);
    let (public, bound) = (|| Client::public(AGENT), OWNERS);
    for (client, proved, window) in [
        (agent(confidential(), hour), None, HOUR),
        (agent(confidential(), Some(secs(90))), None, secs(90)),
        (agent(confidential(), Some(secs(0))), None, secs(0)),
        (agent(confidential(), None), None, secs(30)),
        (agent(Client::authenticated_by_app(AGENT), hour), None, HOUR),
        (agent(public(), hour), bound.clone(), HOUR),
        (agent(public(), None), bound, secs(30)),
        // Whoever holds it can use it.
        (agent(public(), hour), None, secs(30)),
        (agent(public(), Some(secs(10))), None, secs(10)),
    ] {
        let fixture = fixture(client).await;
        let tokens = fixture.agent_tokens(3, proved.clone()).await;
        fixture.clock.advance(window + SKEW - Duration::from_millis(1));
        for token in &tokens[..3] {
            let current = fixture.current(token, proved.clone()).await;
            assert_eq!(current.expose(), tokens[3].expose(), "{window:?}");
        }
        fixture.clock.advance(Duration::from_millis(1));
        let refused = fixture.agent_refreshes(&tokens[1], proved).await;
        assert_eq!(refusal(refused), GrantRefusal::Reused, "{window:?}");
    }
}

#[tokio::test]
async fn the_window_of_everyone_is_the_most_for_a_client_that_proves_nothing() {
    let minute = Lifetimes::default().retry_window(MINUTE);
    let client = agent(Client::public(AGENT), Some(HOUR));
    let fixture =
        Fixture::with(|builder| builder.static_clients([client]).unwrap().lifetimes(minute)).await;
    let tokens = fixture.agent_tokens(1, None).await;
    fixture.clock.advance(MINUTE + SKEW - secs(1));
    fixture.current(&tokens[0], None).await;
    fixture.clock.advance(secs(1));
    let refused = fixture.agent_refreshes(&tokens[0], None).await;
    assert_eq!(refusal(refused), GrantRefusal::Reused);
}

#[tokio::test]
async fn the_window_is_long_from_the_step_on_that_binds_the_chain() {
    let fixture = fixture(agent(Client::public(AGENT), Some(HOUR))).await;
    let first = fixture.agent_tokens(0, None).await.remove(0);
    let second = fixture.current(&first, OWNERS).await;
    fixture.clock.advance(HOUR);
    // A retry needs the key from here on, although the token did not.
    assert_eq!(fixture.current(&first, OWNERS).await.expose(), second.expose());
    let refused = fixture.agent_refreshes(&first, None).await;
    assert_eq!(refusal(refused), GrantRefusal::Reused);
}

#[tokio::test]
async fn a_row_lives_as_long_as_its_window() {
    let client = agent(confidential(), Some(HOUR));
    let brief = Lifetimes::default().refresh_idle(MINUTE);
    let fixture =
        Fixture::with(|builder| builder.static_clients([client]).unwrap().lifetimes(brief)).await;
    let tokens = fixture.agent_tokens(1, None).await;
    let row = fixture.store.grant(grant_of(&tokens[0])).await;
    assert_eq!(row.row_expires_at, START + MINUTE + secs(600) + HOUR + SKEW);
}

#[tokio::test]
async fn a_laggard_that_is_overtaken_catches_up_all_the_same() {
    let fixture = fixture(agent(confidential(), None)).await;
    let tokens = fixture.agent_tokens(2, None).await;
    // While it is being answered, the chain moves on, several times.
    let (issuer, newest) = (fixture.issuer.clone(), tokens[2].clone());
    let overtaking = async move {
        let mut newest = newest;
        for _ in 0..3 {
            let request = RefreshRequest::new(newest, client_id(AGENT));
            newest = issuer.refresh(request).await.unwrap().refresh_token.unwrap();
        }
    };
    fixture.store.before_next("advance", overtaking);
    let caught_up = fixture.current(&tokens[0], None).await;
    let chain = fixture.store.grant(grant_of(&tokens[0])).await.chain.unwrap();
    assert_eq!(chain.generation, 5);
    // It is the current one: it rotates.
    fixture.events.take();
    fixture.current(&caught_up, None).await;
    assert_eq!(fixture.events.names(), ["Refreshed"]);
}

#[tokio::test]
async fn who_lacks_the_key_gets_nothing_and_ends_nothing() {
    let fixture = fixture(agent(Client::public(AGENT), Some(HOUR))).await;
    let tokens = fixture.agent_tokens(3, OWNERS).await;
    fixture.events.take();
    for wait in [secs(0), MINUTE, HOUR, DAY] {
        fixture.clock.advance(wait);
        for token in &tokens {
            for other in [None, THIEFS] {
                let refused = fixture.agent_refreshes(token, other).await;
                assert_eq!(refusal(refused), GrantRefusal::OtherKey);
            }
        }
    }
    assert_eq!(fixture.events.names(), [""; 0]);
    fixture.current(&tokens[3], OWNERS).await;
}

#[tokio::test]
async fn who_is_another_client_gets_nothing_and_ends_nothing() {
    let other = Client::confidential("other", CLIENT_SECRET);
    let other = other.grant_types([GrantType::RefreshToken]).audience(REPORTS, Format::Opaque);
    let clients = [agent(confidential(), Some(HOUR)), other];
    let fixture = Fixture::with(|builder| builder.static_clients(clients).unwrap()).await;
    let tokens = fixture.agent_tokens(3, None).await;
    for wait in [secs(0), DAY] {
        fixture.clock.advance(wait);
        for token in &tokens {
            let request = RefreshRequest::new(token.clone(), client_id("other"));
            let refused = fixture.issuer.refresh(request).await;
            assert_eq!(refusal(refused), GrantRefusal::OtherClient);
        }
    }
    fixture.current(&tokens[3], None).await;
}

/// The rule: a spent token that is presented after its window ends the session, whoever presents it. So a
/// thief goes unnoticed only as long as he and every process keep within a window of each other.
#[tokio::test]
async fn a_thief_with_everything_is_noticed_as_soon_as_somebody_is_late() {
    // He waits, or he goes on alone; and then he or a process of the owner comes with an old token.
    for goes_on in [false, true] {
        let fixture = fixture(agent(confidential(), Some(HOUR))).await;
        let stolen = fixture.agent_tokens(1, None).await.remove(1);
        // The others go on, all within the window of each other.
        let mut newest = stolen.clone();
        while fixture.clock.now() < START + 20 * MINUTE + HOUR + SKEW {
            fixture.clock.advance(20 * MINUTE);
            newest = fixture.current(&newest, None).await;
            if goes_on {
                // Unnoticed: he looks like one process more.
                fixture.current(&newest, None).await;
            }
        }
        fixture.events.take();
        let refused = fixture.agent_refreshes(&stolen, None).await;
        assert_eq!(refusal(refused), GrantRefusal::Reused);
        assert_eq!(fixture.events.names(), ["ReuseDetected"]);
        let refused = fixture.agent_refreshes(&newest, None).await;
        assert_eq!(refusal(refused), GrantRefusal::Dead);
    }
}

#[tokio::test]
async fn a_thief_who_rotates_fast_to_push_the_others_out_ends_the_session() {
    let fixture = fixture(agent(confidential(), Some(HOUR))).await;
    let owners = fixture.agent_tokens(0, None).await.remove(0);
    let mut thiefs = owners.clone();
    for _ in 0..SealedSuccessor::MAX_EARLIER + 2 {
        thiefs = fixture.current(&thiefs, None).await;
    }
    let refused = fixture.agent_refreshes(&owners, None).await;
    assert_eq!(refusal(refused), GrantRefusal::Reused);
    let refused = fixture.agent_refreshes(&thiefs, None).await;
    assert_eq!(refusal(refused), GrantRefusal::Dead);
}

#[tokio::test]
async fn what_leads_nowhere_is_refused_without_harm() {
    let fixture = fixture(agent(confidential(), None)).await;
    let tokens = fixture.agent_tokens(4, None).await;
    let mut row = fixture.store.grant(grant_of(&tokens[0])).await;
    let successor = row.chain.as_mut().unwrap().successor.as_mut().unwrap();
    // Nobody can catch up from here.
    successor.earlier[1].sealed.clear();
    fixture.store.fail_over(row).await;
    for lost in &tokens[..2] {
        let refused = fixture.agent_refreshes(lost, None).await;
        assert_eq!(refusal(refused), GrantRefusal::Spent);
    }
    for good in &tokens[2..4] {
        assert_eq!(fixture.current(good, None).await.expose(), tokens[4].expose());
    }
}

#[tokio::test]
async fn what_was_sealed_for_others_opens_for_nobody() {
    let fixture = fixture(agent(confidential(), None)).await;
    let tokens = fixture.agent_tokens(3, None).await;
    let good = fixture.store.grant(grant_of(&tokens[0])).await;
    // Swapped, cut off, changed: whoever can write to the database gains no token by it.
    for damage in 0..4 {
        let mut row = good.clone();
        let successor = row.chain.as_mut().unwrap().successor.as_mut().unwrap();
        match damage {
            0 => successor.earlier[1].sealed = successor.earlier[0].sealed.clone(),
            1 => successor.earlier[1].sealed = successor.sealed.clone(),
            2 => successor.earlier[1].sealed.truncate(5),
            _ => successor.earlier[1].sealed[20] ^= 1,
        }
        fixture.store.fail_over(row).await;
        for token in &tokens[..2] {
            let refused = fixture.agent_refreshes(token, None).await;
            assert_eq!(refusal(refused), GrantRefusal::Spent, "{damage}");
        }
    }
}

#[tokio::test]
async fn no_row_holds_a_token_in_plain_text() {
    let fixture = fixture(agent(confidential(), None)).await;
    let tokens = fixture.agent_tokens(5, None).await;
    let bytes = fixture.store.grant(grant_of(&tokens[0])).await.to_bytes();
    for token in &tokens {
        // Nor the part of it that is secret.
        let text = token.expose().as_bytes();
        let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(!holds(text) && !holds(&text[text.len() - 20..]));
    }
}
