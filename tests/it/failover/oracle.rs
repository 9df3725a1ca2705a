//! Judges a history: no credential has two winners, no acknowledged revocation is undone, and no session
//! ends without a reason.
//!
//! The oracle does not know the engine, the log or the database. Without a fail-over, and over synchronous
//! replication, it allows nothing. An asynchronous fail-over may lose the last writes before it: then the
//! oracle demands that the servers noticed, and that nothing is wrong once they have settled.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::failover::history::{Answer, Deed, Entry, Facts, FailOver, Of, Report, Time, Token};

/// What the servers promise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promise {
    /// Whether a fail-over loses nothing.
    pub(crate) is_synchronous: bool,
    /// How old the writes may be at most that a fail-over loses.
    pub(crate) lag: Duration,
    /// How long a server may follow a primary that is none any more.
    pub(crate) staleness: Duration,
    /// How long a spent credential brings the same successor.
    pub(crate) retry_window: Duration,
}

/// What was wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Conviction {
    /// A credential had two successors.
    TwoWinners { session: u32, at: Time },
    /// Both successors went on to be used.
    TwoBranches { session: u32, at: Time },
    /// A session lived on after its revocation was acknowledged.
    Undone { session: u32, revoked: Time, at: Time },
    /// A fail-over undid a revocation, and no server reported that.
    Unnoticed { session: u32, revoked: Time, at: Time },
    /// A session was ended that nobody had revoked.
    Lost { session: u32, at: Time, why: String },
}

impl Conviction {
    pub(crate) const fn session(&self) -> u32 {
        match self {
            Self::TwoWinners { session, .. }
            | Self::TwoBranches { session, .. }
            | Self::Undone { session, .. }
            | Self::Unnoticed { session, .. }
            | Self::Lost { session, .. } => *session,
        }
    }
}

/// What a history has shown beside that.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) logins: usize,
    pub(crate) refreshes: usize,
    pub(crate) introspections: usize,
    pub(crate) revocations: usize,
    pub(crate) unknown: usize,
    /// Credentials that several clients won together: all got the same successor.
    pub(crate) shared: usize,
    /// Credentials that a lost write allowed to be redeemed again.
    pub(crate) redeemed_again: usize,
    /// Answers for a session after its revocation was acknowledged, before the servers had settled.
    pub(crate) vouched_for: usize,
    /// Sessions that ended with the writes that a fail-over lost.
    pub(crate) lost_with_writes: usize,
    /// Revocations that servers repeated.
    pub(crate) repeated: usize,
    /// Reports of a store that went back.
    pub(crate) regressions: usize,
}

#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) convictions: Vec<Conviction>,
    pub(crate) seen: Seen,
}

impl Verdict {
    pub(crate) fn acquit(&self) {
        let some: Vec<_> = self.convictions.iter().take(10).collect();
        assert!(some.is_empty(), "{} convictions: {some:#?}", self.convictions.len());
    }
}

/// A try to revoke something.
#[derive(Debug, Clone, Copy)]
struct Revocation {
    begun: Time,
    acknowledged: Option<Time>,
}

struct Session<'a> {
    number: u32,
    user: Option<u32>,
    /// When its login was acknowledged.
    granted: Option<Time>,
    entries: Vec<&'a Entry>,
}

struct Judge<'a> {
    facts: &'a Facts,
    promise: Promise,
    revocations: HashMap<Of, Vec<Revocation>>,
    convictions: Vec<Conviction>,
    seen: Seen,
}

pub(crate) fn judge(facts: &Facts, promise: Promise) -> Verdict {
    let mut revocations = HashMap::<Of, Vec<Revocation>>::new();
    let mut sessions = BTreeMap::<u32, Session<'_>>::new();
    let mut seen = Seen::default();
    for entry in &facts.entries {
        seen.unknown += usize::from(entry.deed.is_unknown());
        let number = match &entry.deed {
            Deed::LogIn { session, .. } => {
                seen.logins += 1;
                *session
            }
            Deed::Refresh { session, .. } => {
                seen.refreshes += 1;
                *session
            }
            Deed::Introspect { session, .. } => {
                seen.introspections += 1;
                *session
            }
            Deed::Revoke { of, answer } => {
                seen.revocations += usize::from(*answer == Answer::Yes(()));
                let acknowledged = (*answer == Answer::Yes(())).then_some(entry.ended);
                let revocation = Revocation { begun: entry.begun, acknowledged };
                revocations.entry(*of).or_default().push(revocation);
                continue;
            }
        };
        let session = sessions.entry(number).or_insert_with(|| Session {
            number,
            user: None,
            granted: None,
            entries: Vec::new(),
        });
        if let Deed::LogIn { user, answer, .. } = &entry.deed {
            session.user = Some(*user);
            session.granted = matches!(answer, Answer::Yes(_)).then_some(entry.ended);
        }
        session.entries.push(entry);
    }
    let mut judge = Judge { facts, promise, revocations, convictions: Vec::new(), seen };
    judge.count_reports();
    for session in sessions.values() {
        judge.winners(session);
        judge.revoked(session);
        judge.ended(session);
    }
    judge.convictions.sort();
    Verdict { convictions: judge.convictions, seen: judge.seen }
}

/// Whether redeeming this credential, then what it brought, and so on, brought the other one.
fn leads_to<'a>(
    winners: &BTreeMap<&'a Token, Vec<(&'a Token, Time)>>,
    from: &'a Token,
    to: &Token,
) -> bool {
    let (mut known, mut next) = (BTreeSet::from([from]), vec![from]);
    while let Some(token) = next.pop() {
        if token == to {
            return true;
        }
        let won = winners.get(token).into_iter().flatten();
        next.extend(won.map(|(token, _)| *token).filter(|token| known.insert(*token)));
    }
    false
}

impl Judge<'_> {
    fn count_reports(&mut self) {
        let mut reported = HashMap::<Of, usize>::new();
        for (_, report) in &self.facts.reports {
            match report {
                Report::Regressed(_) => self.seen.regressions += 1,
                Report::Revoked(of) => *reported.entry(*of).or_default() += 1,
                Report::Reused(_) => {}
            }
        }
        for (of, times) in reported {
            let asked = self.revocations.get(&of).map_or(0, Vec::len);
            self.seen.repeated += times.saturating_sub(asked);
        }
    }

    /// The fail-overs that may have lost what was written at this time.
    fn losing(&self, written: Time) -> impl Iterator<Item = FailOver> + use<'_> {
        let Promise { lag, is_synchronous, .. } = self.promise;
        self.facts
            .fail_overs
            .iter()
            .copied()
            .filter(move |it| !is_synchronous && it.begun <= written + lag && written <= it.settled)
    }

    /// Whether what was written then may be gone by now.
    fn may_be_lost(&self, written: Time, now: Time) -> bool {
        self.losing(written).any(|it| it.begun <= now)
    }

    /// Of one credential, all who redeem it get the same successor, or one that came after it in the same chain: a
    /// client that was slow gets the current one.
    fn winners(&mut self, session: &Session<'_>) {
        let mut winners = BTreeMap::<&Token, Vec<(&Token, Time)>>::new();
        for entry in &session.entries {
            if let Deed::Refresh { presented, answer: Answer::Yes(tokens), .. } = &entry.deed {
                winners.entry(presented).or_default().push((&tokens.refresh, entry.ended));
            }
        }
        winners.values_mut().for_each(|won| won.sort_by_key(|(_, ended)| *ended));
        for won in winners.values() {
            let (first, first_ended) = won[0];
            let is_of_chain =
                |token| leads_to(&winners, first, token) || leads_to(&winners, token, first);
            let mut others = won.iter().filter(|(token, _)| !is_of_chain(*token));
            let Some((other, ended)) = others.next().copied() else {
                self.seen.shared += usize::from(won.len() > 1);
                continue;
            };
            let loss = self.losing(first_ended).find(|it| it.begun <= ended);
            let Some(loss) = loss else {
                let (session, at) = (session.number, ended);
                self.convictions.push(Conviction::TwoWinners { session, at });
                continue;
            };
            self.seen.redeemed_again += 1;
            let lives = |token: &Token| session.presents(token, loss.settled);
            if lives(first) && lives(other) {
                let (session, at) = (session.number, ended);
                self.convictions.push(Conviction::TwoBranches { session, at });
            }
        }
    }

    /// The revocations that end this session: they began when it was there.
    fn ending(&self, session: &Session<'_>) -> Vec<Revocation> {
        let of_user = session.user.and_then(|user| self.revocations.get(&Of::User(user)));
        let began_later =
            |it: &&Revocation| session.granted.is_some_and(|granted| it.begun >= granted);
        let of_user = of_user.into_iter().flatten().filter(began_later);
        let alone = self.revocations.get(&Of::Session(session.number)).into_iter().flatten();
        alone.chain(of_user).copied().collect()
    }

    /// Nothing is vouched for after its revocation was acknowledged.
    fn revoked(&mut self, session: &Session<'_>) {
        let ending = self.ending(session);
        for entry in &session.entries {
            if !entry.is_alive() {
                continue;
            }
            let mut is_vouched_for = false;
            for revoked in ending.iter().filter_map(|it| it.acknowledged) {
                if entry.begun <= revoked {
                    continue;
                }
                let (session, at) = (session.number, entry.begun);
                // Which servers answer from is not settled during a fail-over.
                let during = |it: &&FailOver| it.begun <= entry.ended && entry.begun <= it.settled;
                let is_stale = entry.begun <= revoked + self.promise.staleness
                    && self.facts.fail_overs.iter().any(|it| during(&it));
                if is_stale {
                    is_vouched_for = true;
                    continue;
                }
                let Some(loss) = self.losing(revoked).find(|it| during(&it)) else {
                    self.convictions.push(Conviction::Undone { session, revoked, at });
                    break;
                };
                is_vouched_for = true;
                let is_noticed = self.facts.reports.iter().any(|(time, report)| {
                    matches!(report, Report::Regressed(_))
                        && (loss.begun..=loss.settled).contains(time)
                });
                if !is_noticed {
                    self.convictions.push(Conviction::Unnoticed { session, revoked, at });
                    break;
                }
            }
            self.seen.vouched_for += usize::from(is_vouched_for);
        }
    }

    /// No session ends that nobody has revoked.
    fn ended(&mut self, session: &Session<'_>) {
        for entry in &session.entries {
            let why = match &entry.deed {
                Deed::Refresh { answer: Answer::Refused(why), .. } => why.clone(),
                Deed::Introspect { answer: Answer::Yes(false), .. } => "inactive".to_owned(),
                _ => continue,
            };
            if self.was_revoked(session, entry.ended) || self.was_spent(session, entry) {
                continue;
            }
            let mut written = session.entries.iter().filter(|it| {
                let changes = matches!(it.deed, Deed::LogIn { .. } | Deed::Refresh { .. });
                changes && it.begun <= entry.ended
            });
            if written.any(|it| self.may_be_lost(it.ended, entry.ended)) {
                self.seen.lost_with_writes += 1;
                continue;
            }
            let (session, at) = (session.number, entry.ended);
            self.convictions.push(Conviction::Lost { session, at, why });
        }
    }

    /// Whether somebody may have revoked the session by then.
    fn was_revoked(&self, session: &Session<'_>, by: Time) -> bool {
        let Some(granted) = session.granted else { return true };
        let alone = self.revocations.get(&Of::Session(session.number));
        if alone.into_iter().flatten().any(|it| it.begun <= by) {
            return true;
        }
        let Some(user) = session.user else { return false };
        let asked = session.entries.iter().map(|it| it.begun).min().unwrap_or(granted);
        let Some(of_user) = self.revocations.get(&Of::User(user)) else { return false };
        // One that was acknowledged before the login was sent does not touch it.
        let touches = |it: &Revocation| {
            it.begun <= by && it.acknowledged.is_none_or(|acknowledged| acknowledged >= asked)
        };
        // A repeated one has a new bound, and ends the logins since.
        let is_repeated = || {
            let mut repeated = self.facts.reports.iter();
            repeated.any(|(time, report)| {
                *report == Report::Revoked(Of::User(user))
                    && (asked..=by).contains(time)
                    && of_user.iter().any(|it| self.may_be_lost(it.begun, *time))
            })
        };
        of_user.iter().any(touches) || is_repeated()
    }

    /// Whether a refused credential was spent: somebody has presented its successor, or its window has ended.
    fn was_spent(&self, session: &Session<'_>, refused: &Entry) -> bool {
        let Deed::Refresh { presented, .. } = &refused.deed else { return false };
        let tries = || {
            session.entries.iter().filter_map(|entry| match &entry.deed {
                Deed::Refresh { presented, answer, .. } if entry.begun <= refused.ended => {
                    Some((entry, presented, answer))
                }
                _ => None,
            })
        };
        let mut of_it = tries().filter(|(_, token, _)| *token == presented);
        let successor = tries().find_map(|(_, token, answer)| match answer {
            Answer::Yes(tokens) if token == presented => Some(&tokens.refresh),
            _ => None,
        });
        let is_succeeded = successor.is_some_and(|next| tries().any(|(_, token, _)| token == next));
        is_succeeded
            || of_it.any(|(entry, _, _)| entry.begun + self.promise.retry_window <= refused.ended)
    }
}

impl Session<'_> {
    /// Whether this credential was redeemed by a request that began later.
    fn presents(&self, token: &Token, after: Time) -> bool {
        self.entries.iter().any(|entry| {
            entry.begun > after
                && matches!(&entry.deed, Deed::Refresh { presented, answer: Answer::Yes(_), .. }
                    if presented == token)
        })
    }
}

impl Entry {
    /// Whether the answer says that the session lives.
    const fn is_alive(&self) -> bool {
        matches!(
            &self.deed,
            Deed::Refresh { answer: Answer::Yes(_), .. }
                | Deed::Introspect { answer: Answer::Yes(true), .. }
        )
    }
}

#[cfg(test)]
mod tests;
