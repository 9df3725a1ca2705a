//! What can happen, as sentences, and how stories are made up.

use std::fmt;

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use super::oracle::{Key, Whose};
use super::time::{ACCESS, CODE, GRANT, IDLE, LONG_WINDOW, Millis, SKEW, WINDOW};
use super::watched::Fault;
use crate::engine::store::When;

/// A story: what happens, in order.
#[derive(Clone)]
pub(super) struct Story {
    /// Whether the store leaves sweeps for later.
    pub(super) late_sweeps: bool,
    /// Whether maintenance runs by itself when much time passes.
    pub(super) tended: bool,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone)]
pub(super) enum Step {
    /// A request comes and is served.
    Whole(Request),
    /// One comes, and is held up after so many pauses.
    Begun(Request, u8),
    /// Two come at once, and get their turns in this order (a bit each).
    Race(Request, Request, u16),
    /// One that was held up goes on for so many pauses.
    Resumed(u8, u8),
    /// One that was held up is dropped.
    Dropped(u8),
    /// Tab A refreshes so many times in a row, after such a pause each.
    Spin(Nth, u8, Millis),
    /// One gets a copy of what the other holds.
    Copied(Nth, Who, Who),
    /// From now on, one proves this key with each request, or none.
    Shows(Nth, Who, Option<Key>),
    /// Time passes.
    Passes(Millis),
    /// A node's clock is set so much ahead of true time.
    Drifts(usize, Millis),
    /// A node restarts: what it was doing is dropped.
    Restarts(usize),
}

/// A session: the living ones come first, the newer before the older; modulo how many there are.
#[derive(Clone, Copy)]
pub(super) struct Nth(pub(super) u8);

/// Who holds copies of a session's credentials.
#[derive(Clone, Copy)]
pub(super) enum Who {
    TabA,
    TabB,
    Thief,
}

#[derive(Clone, Copy)]
pub(super) struct Request {
    pub(super) what: What,
    pub(super) node: usize,
    pub(super) fault: Option<Fault>,
    /// Whether the answer gets lost on its way.
    pub(super) lost: bool,
}

#[derive(Clone, Copy)]
pub(super) enum What {
    SignIn(SignIn),
    /// A sign-in begins: its epoch is read, and kept for a later one.
    Opens,
    /// Someone presents the code or refresh token that they hold.
    Comes(Nth, Who, Option<Mistake>),
    /// Someone revokes the code or refresh token that they hold, as its own client or as another.
    Discards(Nth, Who, bool),
    /// An access token, of those that there are, is revoked by its own client or by another.
    Drops(Nth, u8, bool),
    EndsGrant(Nth),
    /// A user ends one of their sessions, or what they take for theirs.
    EndsSession(Nth, bool),
    EndsAll(Whose),
    Maintains,
}

#[derive(Clone, Copy)]
pub(super) struct SignIn {
    pub(super) client: &'static str,
    /// `None`: the client, on its own behalf.
    pub(super) user: Option<&'static str>,
    pub(super) code: bool,
    pub(super) jwt: bool,
    /// With the epoch that was read when it began, if one was.
    pub(super) opened: bool,
    /// The key that it is bound to, if it is to one.
    pub(super) key: Option<Key>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mistake {
    OtherClient,
    /// A wrong verifier, or more scope than there is.
    Wrong,
}

pub(super) const CLIENTS: [&str; 4] = ["web", "spa", "workers", "kiosk"];
pub(super) const USERS: [&str; 2] = ["alice", "bob"];

/// Stories of up to so many steps.
pub(super) fn stories(steps: usize) -> impl Strategy<Value = Story> {
    let first = sign_in().prop_map(|what| Step::Whole(Request::of(What::SignIn(what))));
    (prop::bool::weighted(0.2), any::<bool>(), first, vec(step(), 1..steps)).prop_map(
        |(late_sweeps, tended, first, mut steps)| {
            steps.insert(0, first);
            Story { late_sweeps, tended, steps }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0..4_u8;
    prop_oneof![
        30 => request(what()).prop_map(Step::Whole),
        14 => passing().prop_map(Step::Passes),
        8 => (nth(), who(), who()).prop_map(|(nth, from, to)| Step::Copied(nth, from, to)),
        8 => shows(),
        3 => (nth(), 1..13_u8).prop_map(|(nth, times)| Step::Spin(nth, times, 0)),
        1 => (nth(), 1..7_u8, select(vec![2_500, IDLE / 4 * 3]))
            .prop_map(|(nth, times, pause)| Step::Spin(nth, times, pause)),
        8 => race(),
        8 => (request(what()), 0..7_u8).prop_map(|(request, turns)| Step::Begun(request, turns)),
        8 => (slot.clone(), 1..9_u8).prop_map(|(slot, turns)| Step::Resumed(slot, turns)),
        2 => slot.prop_map(Step::Dropped),
        4 => (0..2_usize, select(vec![0, 1, 2_500, SKEW]))
            .prop_map(|(node, ahead)| Step::Drifts(node, ahead)),
        1 => (0..2_usize).prop_map(Step::Restarts),
    ]
}

fn request(what: impl Strategy<Value = What>) -> impl Strategy<Value = Request> {
    let when = select(vec![When::Before, When::After]);
    let fault = (0..3_u8, when).prop_map(|(call, when)| Fault { call, when });
    (what, 0..2_usize, weighted(0.1, fault), prop::bool::weighted(0.15))
        .prop_map(|(what, node, fault, lost)| Request { what, node, fault, lost })
}

/// Two requests about one session.
fn race() -> impl Strategy<Value = Step> {
    let one = || request(what_of(Just(Nth(0)).boxed(), 8));
    (one(), one(), any::<u16>()).prop_map(|(one, two, order)| Step::Race(one, two, order))
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        11 => what_of(nth().boxed(), 2),
        1 => Just(What::Maintains),
    ]
}

/// Everything about one session; and sign-ins and revocations of many, more or less often.
fn what_of(nth: BoxedStrategy<Nth>, often: u32) -> impl Strategy<Value = What> {
    let mistake = weighted(0.1, select(vec![Mistake::Wrong, Mistake::OtherClient]));
    let mine = || prop::bool::weighted(0.7);
    prop_oneof![
        30 => (nth.clone(), who(), mistake)
            .prop_map(|(nth, who, mistake)| What::Comes(nth, who, mistake)),
        1 => (nth.clone(), who(), mine()).prop_map(|(nth, who, own)| What::Discards(nth, who, own)),
        2 => (nth.clone(), 0..4_u8, mine()).prop_map(|(nth, at, own)| What::Drops(nth, at, own)),
        1 => nth.clone().prop_map(What::EndsGrant),
        1 => (nth, mine()).prop_map(|(nth, own)| What::EndsSession(nth, own)),
        often => whose().prop_map(What::EndsAll),
        often => sign_in().prop_map(What::SignIn),
        2 => Just(What::Opens),
    ]
}

fn sign_in() -> impl Strategy<Value = SignIn> {
    let client = select(vec!["web", "web", "spa", "spa", "workers", "kiosk"]);
    let user = prop_oneof![4 => Just(Some("alice")), 2 => Just(Some("bob")), 1 => Just(None)];
    let [code, opened] = [0.4, 0.5].map(prop::bool::weighted);
    let key = weighted(0.2, Just(Key::Owners));
    (client, user, code, prop::bool::weighted(0.15), opened, key).prop_map(
        |(client, user, code, jwt, opened, key)| {
            let code = code && user.is_some();
            SignIn { client, user, code, jwt, opened: opened && user.is_some(), key }
        },
    )
}

/// An owner begins to prove a key, renews it, or stops; a thief has one of his own.
fn shows() -> impl Strategy<Value = Step> {
    let owners = select(vec![None, Some(Key::Owners), Some(Key::Owners), Some(Key::Renewed)]);
    let thiefs = select(vec![None, Some(Key::Thiefs), Some(Key::Thiefs)]);
    (nth(), who(), owners, thiefs).prop_map(|(nth, who, owners, thiefs)| {
        Step::Shows(nth, who, if matches!(who, Who::Thief) { thiefs } else { owners })
    })
}

fn whose() -> impl Strategy<Value = Whose> {
    let user = || select(vec!["alice", "alice", "bob"]);
    let client = || select(vec!["web", "spa", "workers", "kiosk"]);
    prop_oneof![
        user().prop_map(Whose::User),
        client().prop_map(Whose::Client),
        (user(), client()).prop_map(|(user, client)| Whose::Pair(user, client)),
    ]
}

fn nth() -> impl Strategy<Value = Nth> {
    prop_oneof![6 => Just(0), 2 => Just(1), 1 => 2..5_u8].prop_map(Nth)
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![4 => Just(Who::TabA), 2 => Just(Who::TabB), 2 => Just(Who::Thief)]
}

/// A moment, or just about as long as something lives.
fn passing() -> impl Strategy<Value = Millis> {
    let about = |life: Millis| {
        select(vec![life - SKEW, life - 1, life, life + SKEW, life + SKEW + 1, life + 2 * SKEW])
    };
    prop_oneof![
        8 => select(vec![1, 999, 5_000, 12_000]),
        8 => about(WINDOW),
        4 => about(LONG_WINDOW),
        2 => about(CODE),
        1 => about(ACCESS),
        1 => about(IDLE),
        1 => about(IDLE / 2),
        1 => select(vec![3_600_000, GRANT / 2, GRANT, 21 * IDLE]),
    ]
}

impl Request {
    pub(super) const fn of(what: What) -> Self {
        Self { what, node: 0, fault: None, lost: false }
    }
}

impl fmt::Debug for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.late_sweeps {
            writeln!(f, "  The store leaves sweeps for later.")?;
        }
        if self.tended {
            writeln!(f, "  Maintenance runs by itself when much time passes.")?;
        }
        self.steps.iter().try_for_each(|step| writeln!(f, "  {step:?}"))
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(request) => write!(f, "{request:?}."),
            Self::Begun(request, turns) => {
                write!(f, "{request:?}, and is held up after turn {turns}.")
            }
            Self::Race(one, two, order) => {
                let turns =
                    (0..u16::BITS).map(|turn| if order >> turn & 1 == 0 { '1' } else { '2' });
                let turns: String = turns.collect();
                write!(f, "at once, (1) {one:?}; and (2) {two:?}. Turns: {turns}.")
            }
            Self::Resumed(slot, turns) => {
                write!(f, "held-up request {slot} gets {turns} more turns.")
            }
            Self::Dropped(slot) => write!(f, "held-up request {slot} is dropped."),
            Self::Spin(nth, times, pause) => {
                write!(f, "tab A refreshes {nth:?} {times} times, {} apart.", Shown(*pause))
            }
            Self::Copied(nth, from, to) => write!(f, "{to:?} copies what {from:?} has of {nth:?}."),
            Self::Shows(nth, who, key) => {
                write!(f, "{who:?} of {nth:?} proves {} from now on.", shown(*key))
            }
            Self::Passes(time) => write!(f, "{} pass.", Shown(*time)),
            Self::Drifts(node, ahead) => {
                write!(f, "the clock of node {node} is set {} ahead.", Shown(*ahead))
            }
            Self::Restarts(node) => write!(f, "node {node} restarts."),
        }
    }
}

impl fmt::Debug for Nth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("the session"),
            other => write!(f, "other session {other}"),
        }
    }
}

impl fmt::Debug for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TabA => "tab A",
            Self::TabB => "tab B",
            Self::Thief => "a thief",
        })
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at node {}", self.what, self.node)?;
        if let Some(Fault { call, when }) = self.fault {
            let when = if when == When::Before { "before" } else { "after" };
            write!(f, " (its store call {call} fails {when} it took effect)")?;
        }
        f.write_str(if self.lost { " (the answer is lost)" } else { "" })
    }
}

impl fmt::Debug for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |own: &bool| if *own { "its own client" } else { "another client" };
        match self {
            Self::SignIn(sign_in) => write!(f, "{sign_in:?}"),
            Self::Opens => f.write_str("a sign-in begins"),
            Self::Comes(nth, who, mistake) => {
                write!(f, "{who:?} of {nth:?} presents what it holds")?;
                f.write_str(match mistake {
                    None => "",
                    Some(Mistake::OtherClient) => ", as another client",
                    Some(Mistake::Wrong) => ", with a wrong verifier or too much scope",
                })
            }
            Self::Discards(nth, who, own) => {
                write!(f, "what {who:?} of {nth:?} holds is revoked by {}", by(own))
            }
            Self::Drops(nth, at, own) => {
                write!(f, "access token {at} of {nth:?} is revoked by {}", by(own))
            }
            Self::EndsGrant(nth) => write!(f, "the grant of {nth:?} is revoked"),
            Self::EndsSession(nth, true) => write!(f, "its user ends {nth:?}"),
            Self::EndsSession(nth, false) => write!(f, "another user tries to end {nth:?}"),
            Self::EndsAll(whose) => write!(f, "all of {whose:?} is revoked"),
            Self::Maintains => f.write_str("maintenance"),
        }
    }
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user {
            Some(user) => write!(f, "{user} signs in at {}", self.client)?,
            None => write!(f, "{} signs in for itself", self.client)?,
        }
        f.write_str(if self.code { ", by code" } else { "" })?;
        f.write_str(if self.jwt { ", for JWTs" } else { "" })?;
        if self.key.is_some() {
            write!(f, ", bound to {}", shown(self.key))?;
        }
        f.write_str(if self.opened { ", as begun before" } else { "" })
    }
}

/// A key in words.
pub(super) const fn shown(key: Option<Key>) -> &'static str {
    match key {
        None => "no key",
        Some(Key::Owners) => "the owner's key",
        Some(Key::Renewed) => "the owner's new key",
        Some(Key::Thiefs) => "the thief's key",
    }
}

/// A time in the unit that suits it.
pub(super) struct Shown(pub(super) Millis);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, rest) = (self.0 / IDLE, self.0 % IDLE);
        if days > 0 {
            write!(f, "{days} d ")?;
        }
        match (rest / 1_000, rest % 1_000) {
            (seconds, 0) => write!(f, "{seconds} s"),
            (seconds, millis) => write!(f, "{seconds}.{millis:03} s"),
        }
    }
}
