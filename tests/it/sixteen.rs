//! Sixteen processes of one client share one refresh token, as clients do that run on many machines: each
//! has a copy, refreshes when its access token ends, and asks nobody. Some sleep while the others go on.
//! None of them is ever sent to log in; and a thief in their midst is noticed by the rule of
//! `docs/threat-model.md`.
//!
//! They are real processes, each with an authorization server of its own over the same store. Over a store
//! in memory they are tasks.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cloakroom::core::TokenSecret;
use cloakroom::core::handle::{HandleKeys, HandleSecret};
use cloakroom::core::time::{Clock, ManualClock, UnixTime};
use cloakroom::jwt::AesGcmSealer;
use cloakroom::{
    Client, ClientId, ClientLifetimes, Format, Grant, GrantRefusal, GrantType, Issuer,
    RefreshRequest, TokenError,
};
use tokio::task::JoinSet;

use crate::TURN;
use crate::dice::Dice;
use crate::fixture::{Fixture, Opened, each_store, open_place};

const PROCESSES: usize = 16;
const ROTATIONS: usize = 1_000;
/// The life of an access token: all refresh when it is over.
const ROUND: Duration = Duration::from_secs(600);
/// How many rounds a process may sleep.
const NAP: usize = 3;
const WINDOW: Duration = Duration::from_secs(3_600);
const START: UnixTime = UnixTime::from_secs(1_800_000_000);
/// Tells a process of this test what to open.
const PLACE: &str = "CLOAKROOM_SIXTEEN";

each_store!(share_one_refresh_token);

async fn issuer(store: Opened, clock: Arc<dyn Clock>) -> Issuer {
    let client = Client::confidential("agent", "a-secret-of-the-sixteen-0123456789")
        .grant_types([GrantType::RefreshToken])
        .audience("https://notes.example/mcp", Format::Opaque)
        .lifetimes(ClientLifetimes::default().retry_window(WINDOW));
    Issuer::builder("https://as.example")
        .token_store(store.tokens)
        .key_store(store.keys)
        .handle_keys(HandleKeys::new(&HandleSecret::new(1, [1; 32])))
        .sealer(Arc::new(AesGcmSealer::new(1, [2; 32])))
        .static_clients([client])
        .unwrap()
        .clock(clock)
        .build()
        .await
        .unwrap()
}

async fn refresh(issuer: &Issuer, token: &str) -> Result<String, TokenError> {
    let request = RefreshRequest::new(TokenSecret::new(token), ClientId::new("agent").unwrap());
    let response = issuer.refresh(request).await?;
    Ok(response.refresh_token.unwrap().expose().to_owned())
}

/// One of the sixteen, and the token that it has.
struct Agent {
    runs: Runs,
    token: String,
    naps: usize,
}

enum Runs {
    Here(Issuer),
    Elsewhere(Process),
}

/// A process that refreshes when it is told to, and says what it got.
struct Process {
    child: Child,
    orders: ChildStdin,
    says: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(place: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["sixteen::one_of_sixteen", "--exact", "--nocapture", "--test-threads=1"])
            .env(PLACE, place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let says = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, orders, says }
    }

    fn order(&mut self, now: UnixTime, token: &str) {
        writeln!(self.orders, "{} {token}", now.as_millis()).unwrap();
        self.orders.flush().unwrap();
    }

    fn answer(&mut self) -> Result<String, String> {
        let line = self.says.by_ref().map(Result::unwrap).find_map(|line| {
            // What the harness prints may stand before it.
            line.split_once("SAYS ").map(|(_, answer)| answer.to_owned())
        });
        let line = line.expect("the process has ended");
        match line.split_once(' ') {
            Some(("token", token)) => Ok(token.to_owned()),
            _ => Err(line),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended by the end of its orders otherwise, which waits for the turn of this field.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Not a test, but one of the processes that the test starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_sixteen() {
    let Ok(place) = std::env::var(PLACE) else { return };
    let clock = Arc::new(ManualClock::at(START));
    let issuer = issuer(open_place(&place, clock.clone()).await, clock.clone()).await;
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        let (now, token) = order.split_once(' ').unwrap();
        clock.set(UnixTime::from_millis(now.parse().unwrap()));
        match refresh(&issuer, token).await {
            Ok(token) => println!("SAYS token {token}"),
            Err(error) => println!("SAYS {error:?}"),
        }
    }
}

/// All who are awake refresh at once. Those who could not, and why.
async fn refresh_at_once(agents: &mut [Agent], clock: &ManualClock) -> Vec<String> {
    let mut failures = Vec::new();
    let mut tasks = JoinSet::new();
    for (at, agent) in agents.iter_mut().enumerate().filter(|(_, agent)| agent.naps == 0) {
        let Agent { runs, token, .. } = agent;
        match runs {
            Runs::Here(issuer) => {
                let (issuer, token) = (issuer.clone(), token.clone());
                tasks.spawn(async move { (at, refresh(&issuer, &token).await) });
            }
            Runs::Elsewhere(process) => process.order(clock.now(), token),
        }
    }
    let mut answers: Vec<_> = tasks
        .join_all()
        .await
        .into_iter()
        .map(|(at, answer)| (at, answer.map_err(|error| format!("{error:?}"))))
        .collect();
    for (at, agent) in agents.iter_mut().enumerate().filter(|(_, agent)| agent.naps == 0) {
        if let Runs::Elsewhere(process) = &mut agent.runs {
            answers.push((at, process.answer()));
        }
    }
    for (at, answer) in answers {
        match answer {
            Ok(token) => agents[at].token = token,
            Err(why) => failures.push(format!("process {at}: {why}")),
        }
    }
    failures
}

async fn share_one_refresh_token<F: Fixture>(fixture: impl FnOnce(Arc<dyn Clock>) -> Arc<F>) {
    let _turn = TURN.lock().await;
    let clock = Arc::new(ManualClock::at(START));
    let fixture = fixture(clock.clone());
    let own = issuer(fixture.open().await, clock.clone()).await;
    let grant = Grant::user("agent", "alice").unwrap();
    let first = own.issue(grant).await.unwrap().refresh_token.unwrap();
    let mut agents = Vec::new();
    for _ in 0..PROCESSES {
        let runs = match fixture.place() {
            Some(place) => Runs::Elsewhere(Process::start(&place)),
            None => Runs::Here(issuer(fixture.open().await, clock.clone()).await),
        };
        agents.push(Agent { runs, token: first.expose().to_owned(), naps: 0 });
    }

    let dice = Dice::new(16);
    let mut seen = HashSet::from([first.expose().to_owned()]);
    let (mut naps, mut caught_up) = (0, 0);
    for round in 0.. {
        assert!(round < 3 * ROTATIONS, "the chain hardly moves: {} tokens", seen.len());
        if seen.len() > ROTATIONS {
            break;
        }
        clock.advance(ROUND);
        let failures = refresh_at_once(&mut agents, &clock).await;
        assert!(failures.is_empty(), "round {round}: sent to log in: {failures:?}");
        // One successor a generation: in a round there is one new token at most.
        let before = seen.len();
        seen.extend(agents.iter().map(|agent| agent.token.clone()));
        assert!(seen.len() <= before + 1, "round {round}: the chain forked");
        for agent in &mut agents {
            if agent.naps > 0 {
                agent.naps -= 1;
                caught_up += usize::from(agent.naps == 0);
            } else if dice.percent(12) {
                agent.naps = 1 + dice.below(NAP);
                naps += 1;
            }
        }
    }
    assert!(naps > 500 && caught_up > 500, "{naps} naps, {caught_up} woke up");

    // A thief copies what one of them has, with its credentials. While he keeps up, he is one more
    // process; he waits, and the others go on.
    agents.iter_mut().for_each(|agent| agent.naps = 0);
    let stolen = agents[3].token.clone();
    assert!(refresh(&own, &stolen).await.is_ok(), "within the window nobody can tell");
    for _ in 0..=WINDOW.as_secs() / ROUND.as_secs() + 1 {
        clock.advance(ROUND);
        let failures = refresh_at_once(&mut agents, &clock).await;
        assert!(failures.is_empty(), "{failures:?}");
    }
    match refresh(&own, &stolen).await {
        Err(TokenError::InvalidGrant(GrantRefusal::Reused)) => {}
        other => panic!("the thief got {other:?}"),
    }
    let failures = refresh_at_once(&mut agents, &clock).await;
    assert_eq!(failures.len(), PROCESSES, "the session is over: {failures:?}");
}
