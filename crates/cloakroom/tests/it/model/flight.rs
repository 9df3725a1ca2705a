//! One request on its way: what it does to the store is told to the oracle when it happens, and its
//! answer must be one that the oracle allows.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use cloakroom::core::GrantId;
use cloakroom::core::revocation::Target;
use cloakroom::core::store::StoreError;
use cloakroom::core::time::UnixTime;
use cloakroom::{Subject, TokenError};

use super::answers::{Reply, situation, situation_of_keys};
use super::oracle::{Answer, Broken, Key, Terms, Verdict, Whose, broken_if};
use super::story::{CLIENTS, Mistake, USERS, Who};
use super::time::{Millis, Sure};
use super::watched::{Effect, Turn};
use super::world::World;
use crate::engine::support::START;

pub(super) struct Flight {
    pub(super) number: usize,
    pub(super) node: usize,
    pub(super) lost: bool,
    pub(super) task: Task,
    pub(super) turn: Turn,
    /// When it got its first turn, and read the clock.
    pub(super) asked: Option<Millis>,
    pub(super) future: Pin<Box<dyn Future<Output = Reply>>>,
}

/// What a request is for.
pub(super) enum Task {
    SignsIn(Arriving),
    Opens(Option<usize>),
    Comes(Presented),
    Revokes(Aim, bool),
    Maintains,
}

/// A sign-in.
pub(super) struct Arriving {
    pub(super) terms: Terms,
    pub(super) code: bool,
    /// The key that it is bound to.
    pub(super) key: Option<Key>,
    /// After how many revocations it began.
    pub(super) since: Option<usize>,
    /// Its session, once there is one.
    pub(super) session: Option<usize>,
}

/// A credential in somebody's hand.
pub(super) struct Presented {
    pub(super) session: usize,
    pub(super) generation: usize,
    pub(super) code: bool,
    pub(super) who: Who,
    /// The key that is proved with it.
    pub(super) shown: Option<Key>,
    pub(super) mistake: Option<Mistake>,
    /// Once the store was looked at.
    pub(super) verdict: Option<Verdict>,
    /// Whether it moved the chain on.
    pub(super) moved: bool,
    /// The generation at which the chain stood when it got its access token without moving it.
    pub(super) attached: Option<usize>,
}

/// What is to be revoked, and how many revocations there were before.
pub(super) enum Aim {
    Session(usize),
    Token(usize, usize),
    All(Whose, usize),
}

impl Presented {
    /// Whether it is refused before anything looks at the generation.
    fn is_hopeless(&self) -> bool {
        self.mistake.is_some_and(|mistake| self.code || mistake == Mistake::OtherClient)
    }
}

impl World {
    /// Gives a request one turn; hands it back if it is not done.
    pub(super) fn turn(&mut self, mut flight: Flight) -> Result<Option<Flight>, String> {
        flight.asked.get_or_insert(self.oracle.now);
        *self.store.turn() = std::mem::take(&mut flight.turn);
        let polled = flight.future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        flight.turn = std::mem::take(&mut *self.store.turn());
        for effect in std::mem::take(&mut flight.turn.effects) {
            self.happened(&mut flight, effect)?;
        }
        match polled {
            Poll::Pending => Ok(Some(flight)),
            Poll::Ready(reply) => self.answered(&flight, reply).map(|()| None),
        }
    }

    fn happened(&mut self, flight: &mut Flight, effect: Effect) -> Broken {
        let asked = flight.asked.unwrap();
        match (effect, &mut flight.task) {
            (Effect::Epoch, Task::SignsIn(Arriving { since, .. }) | Task::Opens(since)) => {
                since.get_or_insert(self.oracle.revocations());
                Ok(())
            }
            (Effect::Inserted(grant), Task::SignsIn(arriving)) => {
                let since = arriving.since.ok_or("a grant was made before its epoch was read")?;
                let covered = self.oracle.is_covered(&arriving.terms, since);
                broken_if(covered == Sure::Yes, "a sign-in slipped through beside a revocation")?;
                broken_if(arriving.session.is_some(), "one sign-in made two grants")?;
                let Arriving { terms, code, key, .. } = *arriving;
                arriving.session = Some(self.oracle.begin(terms, since, asked, code, key));
                self.add_session(grant, key);
                Ok(())
            }
            (Effect::Found(grant), Task::Comes(presented)) => {
                let Presented { session, generation, shown, .. } = *presented;
                if self.held[session].grant == grant && presented.verdict.is_none() {
                    let verdict = self.oracle.presents(session, generation, shown, asked);
                    presented.verdict = Some(verdict);
                }
                Ok(())
            }
            (Effect::Moved(grant, from), Task::Comes(presented)) => {
                let own = self.held[presented.session].grant == grant
                    && usize::try_from(from) == Ok(presented.generation)
                    && presented.mistake.is_none();
                broken_if(!own, "a chain moved that nobody asked to move")?;
                presented.moved = true;
                let Presented { session, generation, shown, .. } = *presented;
                self.oracle.moves(session, generation, shown, asked)
            }
            (Effect::Attached(grant, at), Task::Comes(presented)) => {
                let session = presented.session;
                broken_if(self.held[session].grant != grant, "a token was added elsewhere")?;
                let last = self.oracle.sessions[session].chain.len() - 1;
                broken_if(usize::try_from(at) != Ok(last), "a token was added to the past")?;
                presented.attached = Some(last);
                Ok(())
            }
            (Effect::Asked(target), task) => {
                if self.may_ask(task, &target) {
                    return Ok(());
                }
                Err(match task {
                    Task::Comes(Presented { verdict: Some(verdict), .. }) => {
                        let allowed = &verdict.allowed;
                        format!("a session is ended, and the answer should be one of {allowed:?}")
                    }
                    _ => "something is revoked without reason".into(),
                })
            }
            (Effect::Revoked(target, at), task) => {
                self.revoked(&target, at, task);
                Ok(())
            }
            (Effect::Barred, Task::SignsIn(arriving)) => {
                let since = arriving.since.unwrap_or_default();
                let covered = self.oracle.is_covered(&arriving.terms, since);
                broken_if(covered == Sure::No, "a sign-in was barred that no revocation covers")
            }
            (Effect::Epoch | Effect::Found(_), _) => Ok(()),
            (
                Effect::Inserted(_) | Effect::Moved(..) | Effect::Attached(..) | Effect::Barred,
                _,
            ) => Err("something was written that nobody asked for".into()),
        }
    }

    /// Whether this request may end that.
    fn may_ask(&self, task: &Task, target: &Target) -> bool {
        let is_grant = |session: usize| *target == Target::Grant(self.held[session].grant);
        match task {
            Task::Comes(presented) => {
                let Presented { session, mistake, verdict, .. } = presented;
                let may_end = |verdict| self.oracle.may_end(*session, verdict, mistake.is_none());
                is_grant(*session)
                    && !presented.is_hopeless()
                    && verdict.as_ref().is_some_and(may_end)
            }
            Task::Revokes(Aim::Session(session), true) => is_grant(*session),
            Task::Revokes(Aim::Token(session, _), true) => match target {
                Target::Token { grant, .. } => self.held[*session].grant == *grant,
                Target::Jti(_) => self.oracle.sessions[*session].terms.jwt,
                _ => false,
            },
            Task::Revokes(Aim::All(whose, _), true) => whose_of(target) == Some(*whose),
            _ => false,
        }
    }

    fn revoked(&mut self, target: &Target, at: UnixTime, task: &Task) {
        match (target, task) {
            (Target::Grant(grant), _) => {
                if let Some(session) = self.session_of(*grant) {
                    self.oracle.end(session);
                }
            }
            (_, Task::Revokes(Aim::Token(session, token), _)) => {
                self.oracle.revoke_token(*session, *token);
            }
            (target, _) => {
                if let Some(whose) = whose_of(target) {
                    let asked =
                        Millis::try_from(at.since(START).as_millis()).unwrap_or(Millis::MAX);
                    self.oracle.revoke(whose, asked);
                }
            }
        }
    }

    fn session_of(&self, grant: GrantId) -> Option<usize> {
        self.held.iter().position(|held| held.grant == grant)
    }

    fn answered(&mut self, flight: &Flight, reply: Reply) -> Broken {
        let outage =
            matches!(reply, Reply::Failed(TokenError::Store(StoreError::Unavailable { .. })));
        self.tell(flight, &reply);
        if flight.turn.failed || outage {
            self.met.insert("outage");
            return broken_if(!outage, "an outage was taken for an answer")
                .and(broken_if(!flight.turn.failed, "an outage of a store that is up"));
        }
        match (&flight.task, reply) {
            (Task::SignsIn(arriving), reply) => self.signed_in(flight, arriving, reply),
            (Task::Opens(since), Reply::Epoch(epoch)) => {
                let since = since.ok_or("an epoch that was never read")?;
                self.openings.push((epoch, since));
                Ok(())
            }
            (Task::Comes(presented), reply) => self.served(flight, presented, reply),
            (Task::Revokes(aim, own), reply) => self.acknowledged(aim, *own, flight.lost, &reply),
            (Task::Maintains, Reply::Done(_)) => Ok(()),
            (_, reply) => Err(format!("a strange answer: {}", reply.shown())),
        }
    }

    fn signed_in(&mut self, flight: &Flight, arriving: &Arriving, reply: Reply) -> Broken {
        let asked = flight.asked.unwrap();
        let holds = !flight.lost;
        match (reply, arriving.session) {
            (Reply::Failed(TokenError::Barred), None) => {
                self.met.insert("barred");
                Ok(())
            }
            (Reply::Code(code), Some(session)) => {
                self.oracle.told(session, 0, code.expose())?;
                self.held[session].by[Who::TabA as usize] = holds.then_some(0);
                Ok(())
            }
            (Reply::Tokens(response), Some(session)) => {
                let refreshes = arriving.terms.refreshes;
                broken_if(
                    response.refresh_token.is_some() != refreshes,
                    "a refresh token, or none",
                )?;
                if let Some(token) = &response.refresh_token {
                    self.oracle.told(session, 0, token.expose())?;
                    self.held[session].by = [holds.then_some(0), holds.then_some(0), None];
                }
                self.keep_access(session, response.access_token, arriving.key, asked);
                Ok(())
            }
            (reply, _) => Err(format!("a sign-in ended with {}", reply.shown())),
        }
    }

    fn served(&mut self, flight: &Flight, presented: &Presented, reply: Reply) -> Broken {
        let Presented { session, generation, who, shown, .. } = *presented;
        let answer = reply.answer()?;
        let verdict = presented.verdict.as_ref().ok_or("answered without a look at the store")?;
        let mut allowed = if presented.is_hopeless() {
            vec![Answer::Refused]
        } else if presented.mistake.is_some() {
            // Refused before it can win a race, or lose one.
            let refused = |answer| if answer == Answer::Granted { Answer::Refused } else { answer };
            verdict.allowed.iter().copied().map(refused).collect()
        } else {
            self.oracle.finally(session, verdict, presented.moved)
        };
        if presented.mistake.is_some() && self.oracle.is_listed(session) != Sure::Yes {
            allowed.push(Answer::Dead);
        }
        if !allowed.contains(&answer) {
            return Err(format!("the answer is {answer:?}, and should be one of {allowed:?}"));
        }
        if answer == Answer::Reused {
            self.oracle.end(session);
        }
        let terms = self.oracle.sessions[session].terms;
        self.met.insert(situation(presented, verdict, answer, terms.rotates));
        let own = &self.oracle.sessions[session];
        self.met.extend(situation_of_keys(presented, verdict, answer, own));
        let Reply::Tokens(response) = reply else { return Ok(()) };
        // A token that does not rotate is repeated.
        let repeats = !presented.code && !terms.rotates;
        let expected = !presented.code || terms.refreshes;
        broken_if(response.refresh_token.is_some() != expected, "a successor, or none")?;
        if let (true, Some(token)) = (repeats, &response.refresh_token) {
            self.oracle.told(session, generation, token.expose())?;
        } else if let Some(token) = &response.refresh_token {
            // The next one, or the one that the chain stood at.
            let handed = presented.attached.unwrap_or(generation + 1);
            broken_if(handed <= generation, "an older credential was handed out")?;
            self.oracle.told(session, handed, token.expose())?;
            // A client stores a new refresh token only over the one that it sent.
            let held = &mut self.held[session].by[who as usize];
            if !flight.lost && *held == Some(generation) {
                *held = Some(handed);
            }
        } else if presented.code && !flight.lost {
            self.held[session].by[who as usize] = None;
        }
        self.keep_access(session, response.access_token, shown, flight.asked.unwrap());
        Ok(())
    }

    fn acknowledged(&mut self, aim: &Aim, own: bool, lost: bool, reply: &Reply) -> Broken {
        match (reply, aim) {
            (Reply::Failed(TokenError::UnauthorizedClient(_)), _) if !own => Ok(()),
            (Reply::Done(true), _) if !own => {
                let there = match aim {
                    Aim::Session(session) => self.oracle.is_listed(*session),
                    Aim::Token(session, token) => self.oracle.is_active(*session, *token),
                    Aim::All(..) => Sure::No,
                };
                broken_if(there == Sure::Yes, "a revocation by a stranger was acknowledged")
            }
            (Reply::Done(false), Aim::Session(session)) => {
                let lives = self.oracle.is_listed(*session) == Sure::Yes;
                broken_if(own && lives, "a user's own session was not found")
            }
            (Reply::Done(true), _) if lost => Ok(()),
            (Reply::Done(true), Aim::Session(session)) => {
                self.oracle.end(*session);
                Ok(())
            }
            (Reply::Done(true), Aim::Token(session, token)) => {
                self.oracle.revoke_token(*session, *token);
                Ok(())
            }
            (Reply::Done(true), Aim::All(whose, since)) => {
                self.oracle.acknowledge(*whose, *since);
                Ok(())
            }
            _ => Err(format!("a revocation ended with {}", reply.shown())),
        }
    }
}

fn whose_of(target: &Target) -> Option<Whose> {
    let one_of = |names: &'static [&'static str], name: &str| {
        names.iter().copied().find(|known| *known == name)
    };
    let user = |subject: &Subject| match subject {
        Subject::User(user) => one_of(&USERS, user.as_str()),
        Subject::Client(_) => None,
    };
    match target {
        Target::Subject(subject) => user(subject).map(Whose::User),
        Target::Client(client) => one_of(&CLIENTS, client.as_str()).map(Whose::Client),
        Target::SubjectAtClient(subject, client) => {
            Some(Whose::Pair(user(subject)?, one_of(&CLIENTS, client.as_str())?))
        }
        _ => None,
    }
}
