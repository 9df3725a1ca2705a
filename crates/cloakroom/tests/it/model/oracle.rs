//! Who may hold what: the rules of the game, in true time and without a line of the engine's.

use super::time::{ACCESS, CODE, GRANT, IDLE, LONG_WINDOW, Millis, Moment, SKEW, Sure, WINDOW};

/// How many credentials spent before the last one are told apart from stolen ones.
const REMEMBERED: usize = 8;

/// What somebody who presents a credential is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Granted,
    /// Refused, and nothing else happens.
    Spent,
    /// Refused, and the session ends.
    Reused,
    /// The session has ended.
    Dead,
    /// Refused for want of the right key, and nothing else happens.
    OtherKey,
    /// The request itself is wrong.
    Refused,
}

/// What may be answered to a credential, as its chain stood when it was looked at.
pub(super) struct Verdict {
    pub(super) allowed: Vec<Answer>,
    /// What the request proves.
    pub(super) shown: Option<Key>,
    pub(super) generation: usize,
    pub(super) length: usize,
}

/// A key that somebody can prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Owners,
    Renewed,
    Thiefs,
}

/// Whose sessions a revocation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    User(&'static str),
    Client(&'static str),
    Pair(&'static str, &'static str),
}

/// What a session is, for all its life.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) client: &'static str,
    /// Whether the client cannot authenticate: then a key may bind its chain.
    pub(super) public: bool,
    /// `None` if the client acts for itself.
    pub(super) user: Option<&'static str>,
    pub(super) rotates: bool,
    pub(super) refreshes: bool,
    pub(super) jwt: bool,
}

pub(super) struct Session {
    pub(super) terms: Terms,
    /// How many revocations there had been when it began.
    since: usize,
    ended: bool,
    /// From when it lives for how long, whatever happens.
    life: (Millis, Millis),
    /// Its single-use credentials; the last one is the current one.
    pub(super) chain: Vec<Credential>,
    tokens: Vec<Token>,
}

/// An access token.
struct Token {
    made: Millis,
    revoked: bool,
    /// What the request proved that brought it.
    key: Option<Key>,
}

pub(super) struct Credential {
    pub(super) code: bool,
    made: Millis,
    spent: Millis,
    /// The key without which it is useless.
    pub(super) needs: Option<Key>,
    /// What the request proved that spent it.
    pub(super) shown: Option<Key>,
    /// As far as anybody was told.
    pub(super) text: Option<String>,
}

#[derive(Default)]
pub(super) struct Oracle {
    pub(super) now: Millis,
    pub(super) sessions: Vec<Session>,
    /// Of users and clients, in order, with the time each was asked for.
    revocations: Vec<(Whose, Millis)>,
}

/// What is wrong with the engine, if anything is.
pub(super) type Broken = Result<(), String>;

pub(super) fn broken_if(broken: bool, why: &str) -> Broken {
    if broken { Err(why.to_owned()) } else { Ok(()) }
}

impl Oracle {
    /// What may be answered to whoever presents this credential, the right way.
    pub(super) fn presents(
        &self,
        session: usize,
        generation: usize,
        shown: Option<Key>,
        asked: Millis,
    ) -> Verdict {
        let (session, moment) = (&self.sessions[session], Moment { asked, now: self.now });
        let (chain, length) = (&session.chain, session.chain.len());
        let (lives, fresh) = (session.lives(moment), session.fresh(moment));
        let Credential { code, needs, .. } = chain[generation];
        let current = generation + 1 == length;
        let (sure, yes, no) = if needs.is_some() && needs != shown && (current || !code) {
            (Sure::Yes, Answer::OtherKey, Answer::OtherKey)
        } else if current {
            (fresh, Answer::Granted, Answer::Dead)
        } else if code || session.is_second_holder(generation, shown) {
            (Sure::No, Answer::Spent, Answer::Reused)
        } else if generation + 2 == length {
            // By the clock as its request read it, even if that was held up since.
            (session.window(generation, Moment::at(asked)), Answer::Granted, Answer::Reused)
        } else {
            // It leads to the current one, unless that needs a key that is not shown.
            let leads = !session.is_second_holder(length - 2, shown);
            let yes = if leads { Answer::Granted } else { Answer::Spent };
            (session.remembered(generation, moment), yes, Answer::Reused)
        };
        let mut allowed = Vec::new();
        allowed.extend((lives != Sure::No && sure != Sure::No).then_some(yes));
        allowed.extend((lives != Sure::No && sure != Sure::Yes).then_some(no));
        allowed.extend((lives.min(fresh) != Sure::Yes).then_some(Answer::Dead));
        Verdict { allowed, shown, generation, length }
    }

    /// The same, when the answer comes: others were at work meanwhile.
    pub(super) fn finally(&self, session: usize, verdict: &Verdict, moved: bool) -> Vec<Answer> {
        let listed = self.is_listed(session);
        let session = &self.sessions[session];
        if moved {
            return vec![Answer::Granted];
        }
        let steps = session.chain.len() - verdict.length;
        let mut allowed = verdict.allowed.clone();
        if steps > 0 && allowed.contains(&Answer::Granted) {
            // It saw the chain where it should be, and lost the race: never reuse, unless the winner
            // proved another key. It catches up, as long as that is remembered and not bound since.
            let last = session.chain.len() - 2;
            let lost_by_one = verdict.generation == last;
            let leads = !session.is_second_holder(last, verdict.shown)
                && (lost_by_one || session.is_remembered(verdict.generation, self.now));
            if session.is_lost_to_another(verdict) {
                allowed.retain(|answer| *answer != Answer::Granted);
                allowed.push(Answer::Reused);
                // Unless the chain was bound to its own key since.
                let own = !session.is_second_holder(verdict.generation, verdict.shown);
                allowed.extend(own.then_some(Answer::Spent));
                // Where there is nothing to refresh, the chain itself is over.
                allowed.extend((!session.terms.refreshes).then_some(Answer::Dead));
            } else if session.chain[verdict.generation].code {
                allowed.retain(|answer| *answer != Answer::Granted);
                allowed.push(Answer::Spent);
                // Where there is nothing to refresh, the chain itself is over.
                allowed.extend((!session.terms.refreshes).then_some(Answer::Dead));
            } else if !leads {
                allowed.push(Answer::Spent);
            }
        }
        if listed != Sure::Yes {
            allowed.push(Answer::Dead);
        }
        allowed
    }

    /// Whether a request that presents a credential may end its session; `races` if it may come as
    /// far as a race.
    pub(super) fn may_end(&self, session: usize, verdict: &Verdict, races: bool) -> bool {
        verdict.allowed.contains(&Answer::Reused)
            || races && self.sessions[session].is_lost_to_another(verdict)
    }

    /// The chain moves on, because somebody presented this credential.
    pub(super) fn moves(
        &mut self,
        session: usize,
        generation: usize,
        shown: Option<Key>,
        asked: Millis,
    ) -> Broken {
        let session = &mut self.sessions[session];
        broken_if(session.ended, "a session that has ended was refreshed")?;
        broken_if(generation + 1 != session.chain.len(), "the chain forked")?;
        let spent = &mut session.chain[generation];
        let stolen = spent.needs.is_some() && spent.needs != shown;
        broken_if(stolen, "a credential was spent without its key")?;
        (spent.spent, spent.shown) = (asked, shown);
        if !session.terms.refreshes {
            session.life = (asked, ACCESS);
        }
        let needs = shown.filter(|_| session.terms.public);
        session.chain.push(Credential::new(asked, needs));
        Ok(())
    }

    /// Somebody is handed this credential.
    pub(super) fn told(&mut self, session: usize, generation: usize, text: &str) -> Broken {
        let Some(credential) = self.sessions[session].chain.get_mut(generation) else {
            return Err("a successor was handed out that nobody wrote down".into());
        };
        let known = credential.text.get_or_insert_with(|| text.to_owned());
        broken_if(known != text, "two different successors of one generation")
    }

    /// A session begins, with a code or with a refresh token.
    pub(super) fn begin(
        &mut self,
        terms: Terms,
        since: usize,
        asked: Millis,
        code: bool,
        key: Option<Key>,
    ) -> usize {
        let needs = key.filter(|_| code || terms.public);
        let first = Credential { code, ..Credential::new(asked, needs) };
        let lasting = code || terms.refreshes;
        let life = (asked, if lasting { GRANT } else { ACCESS });
        let chain = lasting.then_some(first).into_iter().collect();
        let session = Session { terms, since, ended: false, life, chain, tokens: Vec::new() };
        self.sessions.push(session);
        self.sessions.len() - 1
    }

    /// An access token is handed out.
    pub(super) fn token(&mut self, session: usize, made: Millis, key: Option<Key>) {
        self.sessions[session].tokens.push(Token { made, revoked: false, key });
    }

    /// The key that an access token is bound to.
    pub(super) fn key_of(&self, session: usize, token: usize) -> Option<Key> {
        self.sessions[session].tokens[token].key
    }

    pub(super) fn revoke_token(&mut self, session: usize, token: usize) {
        self.sessions[session].tokens[token].revoked = true;
    }

    pub(super) fn end(&mut self, session: usize) {
        self.sessions[session].ended = true;
    }

    /// How many revocations of users and clients there have been.
    pub(super) fn revocations(&self) -> usize {
        self.revocations.len()
    }

    /// Ends what there is of theirs, and what is about to be.
    pub(super) fn revoke(&mut self, whose: Whose, asked: Millis) {
        self.acknowledge(whose, self.revocations.len());
        self.revocations.push((whose, asked));
    }

    /// A revocation is acknowledged that was asked for after so many others.
    pub(super) fn acknowledge(&mut self, whose: Whose, since: usize) {
        for session in &mut self.sessions {
            session.ended |= session.since <= since && session.terms.is_of(whose);
        }
    }

    /// Whether a sign-in that began after so many revocations is covered by one since. They are
    /// remembered for as long as a session may live.
    pub(super) fn is_covered(&self, terms: &Terms, since: usize) -> Sure {
        let own = self.revocations[since..].iter().filter(|(whose, _)| terms.is_of(*whose));
        let in_force = |asked| Moment::at(self.now).within(asked, GRANT).max(Sure::Maybe);
        own.map(|(_, asked)| in_force(*asked)).max().unwrap_or(Sure::No)
    }

    pub(super) fn lives(&self, session: usize) -> Sure {
        self.sessions[session].lives(Moment::at(self.now))
    }

    /// Whether an access token is active.
    pub(super) fn is_active(&self, session: usize, token: usize) -> Sure {
        let own = &self.sessions[session];
        let Token { made, revoked, .. } = own.tokens[token];
        // A JWT counts in whole seconds.
        let grain = if own.terms.jwt { 1_000 } else { 0 };
        let life = Moment { asked: self.now + grain, now: self.now }.within(made, ACCESS);
        if revoked { Sure::No } else { life.min(self.lives(session)) }
    }

    /// Whether a refresh token is the one that may be used.
    pub(super) fn is_current(&self, session: usize, generation: usize) -> Sure {
        let own = &self.sessions[session];
        let last = generation + 1 == own.chain.len() && !own.chain[generation].code;
        let sure = own.fresh(Moment::at(self.now)).min(self.lives(session));
        if last { sure } else { Sure::No }
    }

    /// Whether the store lists the session's one row as living: it outlives the last refresh token
    /// by what may still hang off it.
    pub(super) fn is_listed(&self, session: usize) -> Sure {
        let (own, now) = (&self.sessions[session], Moment::at(self.now));
        let row = match own.chain.last() {
            Some(last) if !last.code && own.terms.rotates && own.terms.refreshes => {
                let window = match own.chain.len().checked_sub(2) {
                    Some(spent) if !own.chain[spent].code => own.window_of(spent),
                    _ => WINDOW,
                };
                let over = now.within(last.made, IDLE + ACCESS + window + SKEW) == Sure::No;
                if over { Sure::No } else { own.fresh(now).max(Sure::Maybe) }
            }
            _ => Sure::Yes,
        };
        row.min(self.lives(session))
    }
}

impl Session {
    fn lives(&self, moment: Moment) -> Sure {
        let code = match &self.chain[..] {
            [only] if only.code => moment.within(only.made, CODE),
            _ => Sure::Yes,
        };
        if self.ended { Sure::No } else { moment.within(self.life.0, self.life.1).min(code) }
    }

    /// Whether its current credential has not yet expired of itself.
    fn fresh(&self, moment: Moment) -> Sure {
        match self.chain.last() {
            Some(last) if !last.code && self.terms.rotates => moment.within(last.made, IDLE),
            _ => Sure::Yes,
        }
    }

    /// Whether a spent credential is in the hands of a second holder: another key is proved than when
    /// it was spent, and it is not the chain's own.
    pub(super) fn is_second_holder(&self, generation: usize, shown: Option<Key>) -> bool {
        let own = self.chain.last().and_then(|current| current.needs);
        let other = shown != self.chain[generation].shown;
        self.terms.public && other && (shown.is_none() || shown != own)
    }

    /// Whether a request saw its credential current, and then somebody else spent it.
    fn is_lost_to_another(&self, verdict: &Verdict) -> bool {
        self.terms.public
            && verdict.allowed.contains(&Answer::Granted)
            && verdict.generation + 1 == verdict.length
            && verdict.length < self.chain.len()
            && self.chain[verdict.generation].shown != verdict.shown
    }

    /// Whether a spent credential may still be a lost response's.
    fn window(&self, generation: usize, moment: Moment) -> Sure {
        moment.within(self.chain[generation].spent, self.window_of(generation) + SKEW)
    }

    /// How long a thief may go unnoticed: longer only where a stolen credential is not enough.
    fn window_of(&self, generation: usize) -> Millis {
        let is_enough = self.terms.public && self.chain[generation + 1].needs.is_none();
        if is_enough { WINDOW } else { LONG_WINDOW }
    }

    /// Whether a spent credential is certainly remembered.
    fn is_remembered(&self, generation: usize, now: Millis) -> bool {
        self.remembered(generation, Moment::at(now)) == Sure::Yes
    }

    /// Whether one that was spent before the last one still counts as a slow tab's.
    fn remembered(&self, generation: usize, moment: Moment) -> Sure {
        let newer = generation + 1..self.chain.len() - 2;
        let count = |sure| newer.clone().filter(|at| self.window(*at, moment) >= sure).count();
        match self.window(generation, moment) {
            _ if count(Sure::Yes) >= REMEMBERED => Sure::No,
            own if count(Sure::Maybe) >= REMEMBERED => own.min(Sure::Maybe),
            own => own,
        }
    }
}

impl Credential {
    const fn new(made: Millis, needs: Option<Key>) -> Self {
        Self { code: false, made, spent: 0, needs, shown: None, text: None }
    }
}

impl Terms {
    pub(super) fn is_of(&self, whose: Whose) -> bool {
        match whose {
            Whose::User(user) => self.user == Some(user),
            Whose::Client(client) => self.client == client,
            Whose::Pair(user, client) => self.user == Some(user) && self.client == client,
        }
    }
}
