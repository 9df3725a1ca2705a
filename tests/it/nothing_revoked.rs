//! Nothing that is revoked passes, whatever goes wrong; and nothing that lives is refused.

use std::env;
use std::sync::Arc;

use cloakroom::core::time::Clock;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::authority::{Authority, EDGES};
use crate::clock::OneClock;
use crate::dice::Dice;
use crate::faults::Fault;
use crate::fixture::{Fixture, each_store};
use crate::oracle::{Verdicts, judge};
use crate::people::{How, Token};
use crate::storm::{Edge, Scale, Storm};
use crate::{HANGS, TURN};

const FULL: Scale = Scale { tokens: 20_000, revocations: 3_000, pace: 14 };

/// Where each call goes to a file or a server, the full storm takes minutes: `cargo xtask storm`.
const SMALL: Scale = Scale { tokens: 5_000, revocations: 750, ..FULL };

const USERS_OF_TOKENS: usize = 16;

each_store!(nothing_revoked_passes);

async fn nothing_revoked_passes<F: Fixture>(fixture: impl FnOnce(Arc<dyn Clock>) -> Arc<F>) {
    let _turn = TURN.lock().await;
    let clock: Arc<dyn Clock> = Arc::new(OneClock::new());
    let dice = Dice::from_environment();
    println!("CLOAKROOM_SEED={}", dice.seed);
    let fixture = fixture(Arc::clone(&clock));
    let is_in_memory = fixture.place().is_none();
    let is_small = !is_in_memory && env::var_os("CLOAKROOM_FULL_STORM").is_none();
    let scale = if is_small { SMALL } else { FULL };
    let authority = Authority::start(fixture, clock).await;
    let storm = Storm::new(authority, dice, scale).await;
    timeout(HANGS, blow(&storm)).await.expect("it goes on");
}

async fn blow(storm: &Arc<Storm>) {
    println!("{:?}", storm.scale);
    storm.hand_out(storm.scale.tokens * 9 / 10, false).await;
    println!("{:?}: tokens are handed out", storm.tape.now());
    let mut users = JoinSet::new();
    for _ in 0..USERS_OF_TOKENS {
        let storm = Arc::clone(storm);
        users.spawn(async move { storm.use_tokens().await });
    }
    let mut cutter = JoinSet::new();
    cutter.spawn(Arc::clone(storm).cut_wires());
    let takers = async {
        let mut takers = JoinSet::new();
        for _ in 0..3 {
            let storm = Arc::clone(storm);
            takers.spawn(async move { storm.take_away().await });
        }
        takers.join_all().await;
    };
    let all = async {
        let (happened, (), ()) = tokio::join!(storm.go_wrong(1), takers, lose_a_key(storm));
        println!("{:?}: everything went wrong", storm.tape.now());
        storm.tape.until_true(|| storm.all_used()).await;
        happened
    };
    let happened = tokio::select! {
        happened = all => happened,
        // They go on until they are told to end.
        failed = users.join_next() => panic!("{failed:?}"),
    };
    cutter.shutdown().await;
    storm.end();
    users.join_all().await;
    println!("{:?}: it is calm", storm.tape.now());
    calm(storm).await;

    let verdicts = judge(&storm.tape, &storm.people.tokens());
    println!("{:?}\n{verdicts}{happened:?}", storm.tape.now());
    verdicts.acquit();
    there_was_something_to_judge(storm, &verdicts);
    for fault in [Fault::Restart, Fault::Lie(0), Fault::Pause(1), Fault::Silence(2)] {
        assert!(happened[&fault] > 0, "{fault:?}");
    }
}

/// When half of all is done, a signing key is lost. Those who had JWTs sign in again.
async fn lose_a_key(storm: &Arc<Storm>) {
    storm.tape.until_true(|| storm.tape.acknowledged() >= storm.scale.revocations / 2).await;
    let tokens = storm.people.tokens();
    let jwt = tokens.iter().find(|token| token.is_jwt()).unwrap();
    while !storm.revoke(How::Key, jwt).await {
        storm.tape.until(storm.tape.visits() + 1).await;
    }
    storm.hand_out(storm.scale.tokens, true).await;
}

/// Nothing is wrong any more: what lives passes everywhere, and what is revoked is refused.
async fn calm(storm: &Arc<Storm>) {
    let (tokens, revoked) = (storm.people.tokens(), storm.tape.revocations());
    let (dead, live): (Vec<_>, Vec<_>) =
        tokens.into_iter().partition(|token| revoked.iter().any(|it| token.is_under(&it.of)));
    let (dead, live, mut checks) = (Arc::new(dead), Arc::new(live), JoinSet::new());
    for _ in 0..USERS_OF_TOKENS {
        let (storm, dead, live) = (Arc::clone(storm), Arc::clone(&dead), Arc::clone(&live));
        checks.spawn(async move {
            for _ in 0..25 {
                let token = storm.dice.pick(&live);
                assert_eq!(settle(&storm, token, storm.somewhere(token)).await, 200);
                // Those who signed in again after a revocation are among these, and still live:
                // the oracle knows.
                let token = storm.dice.pick(&dead);
                settle(&storm, token, storm.somewhere(token)).await;
            }
        });
    }
    checks.join_all().await;
}

/// The answer that comes once somebody can tell.
async fn settle(storm: &Storm, token: &Token, edge: &Edge) -> u16 {
    loop {
        match storm.visit(token, edge).await.unwrap() {
            503 => edge.until_read().await,
            status => return status,
        }
    }
}

fn there_was_something_to_judge(storm: &Storm, verdicts: &Verdicts) {
    for edge in &storm.edges {
        let seen = verdicts.seen(edge.place.name);
        assert!(seen.live >= storm.scale.tokens / 10, "{:?}: {seen:?}", edge.place);
        assert!(seen.refused >= storm.scale.revocations / 10, "{:?}: {seen:?}", edge.place);
        let (log, questions) = (&edge.wires.log, &edge.wires.questions);
        assert!(log.was_cut() + questions.was_cut() > 0, "{:?}", edge.place);
        assert!(questions.held() > 0, "{:?}", edge.place);
        assert!(!edge.is_remote() || log.held() > 0 && log.lies() > 0, "{:?}", edge.place);
    }
    for (how, least) in [
        (How::Token, storm.scale.revocations / 4),
        (How::Refresh, storm.scale.revocations / 8),
        (How::Grant, storm.scale.revocations / 12),
        (How::Session, storm.scale.revocations / 40),
        (How::User, storm.scale.revocations / 25),
        (How::UserAtClient, storm.scale.revocations / 40),
        (How::Client, 1),
        (How::Key, 1),
    ] {
        assert!(storm.revoked(how) >= least, "{how:?}: {}", storm.revoked(how));
    }
    for name in [EDGES[1], EDGES[2]] {
        let asked = storm.authority.asked.count("/introspect", name);
        let edge = storm.edges.iter().find(|edge| edge.place.name == name).unwrap();
        let visits = storm.tape.visits_at(edge.place);
        println!("{name}: {asked} questions for {visits} requests");
        assert!(asked < visits, "{name} remembers");
    }
}
