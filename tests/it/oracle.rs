//! Judges a tape: was anything let in that was revoked, or refused that was not?
//!
//! The oracle knows nothing of logs, replicas and caches. It knows who holds which token, what was
//! revoked when, and what each place promises.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::people::Token;
use crate::tape::{Answer, Entry, Instant, Of, Revoked, Tape};

/// What was wrong.
#[derive(Debug)]
#[expect(dead_code, reason = "it is for those who read of a failure")]
pub(crate) enum Conviction {
    /// It was acknowledged to be revoked for longer than the place may take.
    LetIn(Entry, Instant),
    /// It was refused although nobody had tried to revoke it.
    Refused(Answer),
    /// An answer that nobody should give.
    Strange(Answer),
}

/// What a trial has shown beside the convictions: that there was something to judge.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Let in, and not revoked.
    pub(crate) live: usize,
    /// Let in after the acknowledgement, within the bound.
    pub(crate) within: usize,
    /// Refused as revoked, later than the bound after the acknowledgement.
    pub(crate) refused: usize,
    /// Refused as revoked, earlier than that.
    pub(crate) early: usize,
    /// Not judged: nobody could tell.
    pub(crate) outages: usize,
}

#[derive(Debug)]
pub(crate) struct Verdicts {
    pub(crate) convictions: Vec<Conviction>,
    pub(crate) seen: HashMap<&'static str, Seen>,
}

impl Verdicts {
    pub(crate) fn seen(&self, place: &str) -> Seen {
        self.seen.get(place).cloned().unwrap_or_default()
    }

    /// How often a revoked token was let in.
    pub(crate) fn let_in(&self, place: &str) -> usize {
        let is_it = |it: &&Conviction| match it {
            Conviction::LetIn(entry, _) => entry.place.name == place,
            _ => false,
        };
        self.convictions.iter().filter(is_it).count()
    }

    pub(crate) fn acquit(&self) {
        let some: Vec<_> = self.convictions.iter().take(10).collect();
        assert!(some.is_empty(), "{} convictions: {some:#?}", self.convictions.len());
    }
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut places: Vec<_> = self.seen.iter().collect();
        places.sort_by_key(|(name, _)| **name);
        for (name, seen) in places {
            writeln!(f, "{name}: {seen:?}")?;
        }
        Ok(())
    }
}

/// What was revoked, and when.
struct Law(HashMap<Of, Vec<Revoked>>);

impl Law {
    fn of(revocations: Vec<Revoked>) -> Self {
        let mut law: HashMap<Of, Vec<Revoked>> = HashMap::new();
        for revoked in revocations {
            law.entry(revoked.of.clone()).or_default().push(revoked);
        }
        Self(law)
    }

    fn about<'a>(
        &'a self,
        token: &Token,
        kid: Option<&Arc<str>>,
    ) -> impl Iterator<Item = &'a Revoked> + use<'a> {
        let key = kid.or(token.kid.as_ref()).map(|kid| Of::Key(Arc::clone(kid)));
        let named = [
            Of::Token(token.number),
            Of::Grant(token.grant),
            Of::User(token.user),
            Of::Client(token.client),
            Of::UserAtClient(token.user, token.client),
        ];
        named.into_iter().chain(key).filter_map(|of| self.0.get(&of)).flatten()
    }

    /// Since when a token is certainly revoked, and everybody has been told so who asked.
    fn dead_since(&self, token: &Token, kid: Option<&Arc<str>>) -> Option<Instant> {
        let certain = |it: &&Revoked| !it.of.is_bounded() || it.begun >= token.granted;
        self.about(token, kid).filter(certain).filter_map(|it| it.acknowledged).min()
    }

    /// Since when a token may be revoked, for all that anybody knows.
    fn doubtful_since(&self, token: &Token, kid: Option<&Arc<str>>) -> Option<Instant> {
        // Who was granted something after that is not touched.
        let over = |it: &&Revoked| it.acknowledged.is_some_and(|end| end < token.asked_for);
        let possible = self.about(token, kid).filter(|it| !(it.of.is_bounded() && over(it)));
        possible.map(|it| it.begun).min()
    }
}

pub(crate) fn judge(tape: &Tape, tokens: &[Arc<Token>]) -> Verdicts {
    let law = Law::of(tape.revocations());
    let (mut convictions, mut seen) = (Vec::new(), HashMap::<_, Seen>::new());
    for entry in tape.entries() {
        let seen = seen.entry(entry.place.name).or_default();
        match law.dead_since(&tokens[entry.token as usize], entry.kid.as_ref()) {
            Some(dead) if entry.begun > dead + entry.place.bound => {
                convictions.push(Conviction::LetIn(entry, dead));
            }
            Some(dead) if entry.begun > dead => seen.within += 1,
            _ => seen.live += 1,
        }
    }
    for answer in tape.answers() {
        let seen = seen.entry(answer.place.name).or_default();
        let (token, kid) = (&tokens[answer.token as usize], answer.kid.as_ref());
        match answer.status {
            503 => seen.outages += 1,
            401 => match law.dead_since(token, kid) {
                Some(dead) if answer.begun > dead + answer.place.bound => seen.refused += 1,
                _ => match law.doubtful_since(token, kid) {
                    Some(doubt) if doubt <= answer.ended => seen.early += 1,
                    _ => convictions.push(Conviction::Refused(answer)),
                },
            },
            _ => convictions.push(Conviction::Strange(answer)),
        }
    }
    Verdicts { convictions, seen }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cloakroom::core::time::{ManualClock, UnixTime};

    use super::*;
    use crate::tape::Place;

    const PLACE: Place = Place { name: "place", bound: Duration::from_millis(100) };

    const fn ms(millis: u64) -> Instant {
        Duration::from_millis(millis)
    }

    /// A token that was asked for at 10 ms, and granted at 20 ms; its first visit.
    fn trial(revoked: &[(Of, u64, Option<u64>)], visit: impl FnOnce(&Tape)) -> Verdicts {
        let tape = Tape::new(Arc::new(ManualClock::at(UnixTime::default())));
        for (of, begun, acknowledged) in revoked {
            let (of, acknowledged) = (of.clone(), acknowledged.map(ms));
            tape.revoke(Revoked { of, begun: ms(*begun), acknowledged });
        }
        visit(&tape);
        let token = Token {
            number: 0,
            secret: String::new(),
            refresh: None,
            grant_id: None,
            grant: 1,
            user: 2,
            client: 3,
            kid: Some("key".into()),
            asked_for: ms(10),
            granted: ms(20),
        };
        judge(&tape, &[Arc::new(token)])
    }

    fn enter(begun: u64, kid: Option<&str>) -> impl FnOnce(&Tape) {
        let kid = kid.map(Arc::from);
        move |tape| tape.enter(Entry { place: PLACE, token: 0, begun: ms(begun), kid })
    }

    fn answer(status: u16, begun: u64, ended: u64) -> impl FnOnce(&Tape) {
        let (begun, ended) = (ms(begun), ms(ended));
        move |tape| {
            tape.answer(Answer { place: PLACE, token: 0, begun, ended, status, kid: None });
        }
    }

    #[test]
    fn what_is_let_in_later_than_promised_is_convicted() {
        for of in [
            Of::Token(0),
            Of::Grant(1),
            Of::User(2),
            Of::Client(3),
            Of::UserAtClient(2, 3),
            Of::Key("key".into()),
        ] {
            let revoked = [(of.clone(), 30, Some(40))];
            let late = trial(&revoked, enter(141, None));
            assert_eq!((late.let_in("place"), late.let_in("other")), (1, 0), "{of:?}");
            let within = trial(&revoked, enter(140, None));
            within.acquit();
            assert_eq!(within.seen("place"), Seen { within: 1, ..Seen::default() });
            let before = trial(&revoked, enter(40, None));
            before.acquit();
            assert_eq!(before.seen("place"), Seen { live: 1, ..Seen::default() });
        }
        // The earliest acknowledgement counts, and one that nobody heard does not.
        let twice = [(Of::Token(0), 30, Some(300)), (Of::Grant(1), 30, Some(40))];
        assert_eq!(trial(&twice, enter(141, None)).let_in("place"), 1);
        trial(&[(Of::Token(0), 30, None)], enter(10_000, None)).acquit();
        // A handle outlives the key of one of its JWTs.
        let key = [(Of::Key("key".into()), 30, Some(40))];
        trial(&key, enter(10_000, Some("another"))).acquit();
        assert_eq!(trial(&key, enter(10_000, Some("key"))).let_in("place"), 1);
    }

    #[test]
    fn nobody_is_convicted_for_what_does_not_concern_the_token() {
        for of in [
            Of::Token(1),
            Of::Grant(2),
            Of::User(3),
            Of::Client(2),
            Of::UserAtClient(3, 2),
            Of::Key("another".into()),
        ] {
            let revoked = [(of, 30, Some(40))];
            trial(&revoked, enter(10_000, None)).acquit();
            let refused = trial(&revoked, answer(401, 10_000, 10_001));
            assert!(matches!(refused.convictions[..], [Conviction::Refused(_)]));
        }
    }

    #[test]
    fn a_login_after_log_out_everywhere_lives() {
        for of in [Of::User(2), Of::Client(3), Of::UserAtClient(2, 3)] {
            // Acknowledged before the login began: not touched.
            let before = [(of.clone(), 1, Some(9))];
            trial(&before, enter(10_000, None)).acquit();
            assert_eq!(trial(&before, answer(401, 50, 60)).convictions.len(), 1);
            // At the same time, or nobody knows when: both are right.
            for doubtful in [[(of.clone(), 1, Some(15))], [(of.clone(), 1, None)]] {
                trial(&doubtful, enter(10_000, None)).acquit();
                trial(&doubtful, answer(401, 50, 60)).acquit();
            }
        }
    }

    #[test]
    fn what_is_refused_must_have_been_revoked_by_then() {
        let revoked = [(Of::Token(0), 30, Some(40))];
        let seen = |answer| {
            let verdicts = trial(&revoked, answer);
            verdicts.acquit();
            verdicts.seen("place")
        };
        assert_eq!(seen(answer(401, 141, 142)), Seen { refused: 1, ..Seen::default() });
        assert_eq!(seen(answer(401, 25, 30)), Seen { early: 1, ..Seen::default() });
        assert_eq!(seen(answer(503, 1, 2)), Seen { outages: 1, ..Seen::default() });
        let early = trial(&revoked, answer(401, 21, 29));
        assert!(matches!(early.convictions[..], [Conviction::Refused(_)]));
        for status in [200, 400, 403, 500, 502] {
            let strange = trial(&revoked, answer(status, 1, 2));
            assert!(matches!(strange.convictions[..], [Conviction::Strange(_)]));
        }
    }
}
