//! A revocation is acknowledged while the answer about its token is on the way.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::core::time::{Clock as _, ManualClock, SystemClock};
use cloakroom::resource::Freshness;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::authority::{EDGES, Hold, LOOKED_AT};
use crate::edge::{Wires, gateway};
use crate::oracle::{Verdicts, judge};
use crate::people::{How, People, Token};
use crate::tape::Place;
use crate::web::{Served, Web, bearer};
use crate::{HANGS, people_at};

const EDGE: &str = EDGES[0];
const BOUND: Duration = Duration::from_secs(2);

struct Crossing {
    people: People,
    clock: Arc<ManualClock>,
    _wires: Wires,
    edge: Served,
    token: Arc<Token>,
    requests: JoinSet<Option<u16>>,
}

impl Crossing {
    /// The answer to a first request holds that the token is alive, and does not arrive. Then the
    /// revocation is acknowledged.
    async fn new(bound: Duration) -> Self {
        let clock = Arc::new(ManualClock::at(SystemClock::new().now()));
        let people = people_at(clock.clone()).await;
        let wires = Wires::new(EDGE, &people.authority).await;
        let layer = wires.gateway().cache(100).freshness(Freshness::within(bound)).unwrap();
        let edge = gateway(Place { name: EDGE, bound }, &people.tape, &layer, None).await;
        let token = people.sign_in(1, 0).await.unwrap();
        people.authority.asked.hold(Hold::Answers);
        let requests = JoinSet::new();
        let mut crossing = Self { people, clock, _wires: wires, edge, token, requests };
        crossing.begin();
        crossing.people.authority.asked.until(LOOKED_AT, EDGE, 1).await;
        assert!(crossing.people.revoke(How::Token, &crossing.token).await);
        crossing
    }

    fn begin(&mut self) {
        let (url, token) = (self.edge.url(), Arc::clone(&self.token));
        let presented = bearer(&token.secret);
        self.requests.spawn(async move { Web::new().get(&url, &presented, token.number).await });
    }

    /// The answers arrive, by order of the requests.
    async fn arrive(&mut self) -> Vec<u16> {
        self.people.authority.asked.hold(Hold::None);
        let mut statuses = Vec::new();
        while let Some(status) = self.requests.join_next().await {
            statuses.push(status.unwrap().unwrap());
        }
        statuses.sort_unstable();
        statuses
    }

    fn judge(&self) -> Verdicts {
        let verdicts = judge(&self.people.tape, &self.people.tokens());
        verdicts.acquit();
        verdicts
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_as_old_as_its_question() {
    let play = async {
        let mut crossing = Crossing::new(BOUND).await;
        crossing.clock.advance(BOUND / 2);
        assert_eq!(crossing.arrive().await, [200], "it began before that");
        // The answer has been here for half of the bound; the question is older than all of it.
        crossing.clock.advance(BOUND / 2 + Duration::from_millis(1));
        crossing.begin();
        assert_eq!(crossing.arrive().await, [401]);
        assert_eq!(crossing.judge().seen(EDGE).refused, 1);
    };
    timeout(HANGS, play).await.expect("it goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_shares_an_answer_that_was_asked_for_too_early() {
    for (bound, later) in [
        (Duration::ZERO, Duration::ZERO),
        (Duration::ZERO, Duration::from_millis(1)),
        (BOUND, BOUND + Duration::from_millis(1)),
    ] {
        let play = async {
            let mut crossing = Crossing::new(bound).await;
            crossing.clock.advance(later);
            crossing.begin();
            crossing.people.authority.asked.until(LOOKED_AT, EDGE, 2).await;
            assert_eq!(crossing.arrive().await, [200, 401]);
            crossing.judge();
        };
        timeout(HANGS, play).await.expect("each has a question of its own");
    }
    // Within the bound they may, and do.
    let play = async {
        let mut crossing = Crossing::new(BOUND).await;
        crossing.clock.advance(BOUND);
        crossing.begin();
        crossing.people.tape.until_begun(2).await;
        assert_eq!(crossing.arrive().await, [200, 200]);
        assert_eq!(crossing.people.authority.asked.count(LOOKED_AT, EDGE), 1);
        assert_eq!(crossing.judge().seen(EDGE).within, 1);
    };
    timeout(HANGS, play).await.expect("it goes on");
}
