//! The rules against a reading of the whole log.

use cloakroom_core::revocation::{Epoch, LogEntry, LogEvent, Target};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId, Jti, Kid, Subject, TokenDigest, TokenKind};

use super::rules::{Limits, RevocationStatus, Rules};
use super::test_kit::{HOUR, client, grant, revoked, secs};
use super::token_facts::TokenFacts;

/// How many grants there are, and tokens.
const GRANTS: u64 = 12;
const TOKENS: u64 = 60;

/// The longest that an entry matters, in seconds.
const MAX_LIFE: u64 = 30;

/// A generator of test cases (`SplitMix64`).
struct Cases {
    state: u64,
    /// Whether every entry of a single token or grant names its client.
    names_clients: bool,
}

impl Cases {
    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % bound
    }

    /// A revocation at `now`; one of a single token or grant names its client most of the time. Those
    /// with a bound come in the order of their bounds, and of their ends.
    fn revocation(&mut self, now: UnixTime) -> LogEntry {
        let (subject, number) = (nth_user(self.below(4)), self.below(TOKENS));
        let target = match self.below(7) {
            0 => Target::Grant(nth_grant(number)),
            1 => Target::Jti(nth_jti(number)),
            2 => Target::Token { grant: nth_grant(number), digest: nth_digest(number) },
            3 => Target::Subject(subject),
            4 => Target::Client(nth_client(number)),
            5 => Target::SubjectAtClient(subject, nth_client(number)),
            _ => Target::Key(nth_key(number)),
        };
        let bound = target.has_bound().then(|| Epoch::new(now.as_secs()));
        let is_named = self.below(4) > 0 || self.names_clients;
        let client = is_named.then(|| nth_client(number));
        let grant = (self.below(4) > 0).then(|| nth_grant(number));
        let until = now + secs(if bound.is_some() { MAX_LIFE } else { 1 + self.below(MAX_LIFE) });
        let event = LogEvent::Revoked { target, bound, client, grant };
        LogEntry { event, until, ..revoked(0) }
    }

    /// A token; each of its facts may be missing.
    fn token(&mut self, now: UnixTime) -> TokenFacts {
        let (user, number) = (self.below(4), self.below(TOKENS));
        let mut second = || now.as_secs() + 3 - self.below(10);
        let (epoch, issued) = (second(), second());
        let mut is_there = || self.below(8) > 0;
        TokenFacts {
            grant: is_there().then(|| nth_grant(number)),
            epoch: is_there().then(|| Epoch::new(epoch)),
            issued_at: is_there().then(|| UnixTime::from_millis(issued)),
            subject: is_there().then(|| nth_user(user)),
            client: is_there().then(|| nth_client(number)),
            jti: is_there().then(|| nth_jti(number)),
            // Few: there are only two keys, and both are revoked before long.
            kid: (!is_there()).then(|| nth_key(number)),
            handle_hash: is_there().then(|| cloakroom_jwt::handle_hash(&nth_digest(number))),
            cleared: Default::default(),
        }
    }
}

fn nth_user(number: u64) -> Subject {
    Subject::user(format!("user-{number}")).unwrap()
}

/// A token's number says whose it is.
fn nth_grant(number: u64) -> GrantId {
    grant(number % GRANTS)
}

fn nth_client(number: u64) -> ClientId {
    client(&format!("client-{}", number % 3))
}

fn nth_jti(number: u64) -> Jti {
    Jti::new(format!("jti-{number}")).unwrap()
}

fn nth_key(number: u64) -> Kid {
    Kid::new(format!("key-{}", number % 2)).unwrap()
}

fn nth_digest(number: u64) -> TokenDigest {
    TokenDigest::compute(TokenKind::Access, &number.to_be_bytes())
}

/// Whether an entry denies the token, ended or not.
fn denies(entry: &LogEntry, facts: &TokenFacts) -> bool {
    let LogEvent::Revoked { target, bound, .. } = &entry.event else { return false };
    let covered = match (facts.epoch, facts.issued_at, bound) {
        (Some(epoch), _, Some(bound)) => epoch <= *bound,
        (None, Some(issued), Some(bound)) => issued.as_millis() <= bound.get(),
        _ => true,
    };
    let is_subject = |subject| facts.subject.as_ref() == Some(subject);
    let is_client = |client| facts.client.as_ref() == Some(client);
    match target {
        Target::Grant(grant) => facts.grant == Some(*grant),
        Target::Jti(jti) => facts.jti.as_ref() == Some(jti),
        Target::Token { digest, .. } => {
            facts.handle_hash == Some(cloakroom_jwt::handle_hash(digest))
        }
        Target::Key(kid) => facts.kid.as_ref() == Some(kid),
        Target::Subject(subject) => covered && is_subject(subject),
        Target::Client(client) => covered && is_client(client),
        Target::SubjectAtClient(subject, client) => {
            covered && is_subject(subject) && is_client(client)
        }
    }
}

/// A log, and a replica that has followed it for long, with little room.
struct Story {
    cases: Cases,
    log: Vec<LogEntry>,
    rules: Rules,
    now: UnixTime,
}

impl Story {
    fn new(seed: u64, limits: Limits) -> Self {
        let now = UnixTime::from_secs(1_000);
        let cases = Cases { state: seed, names_clients: false };
        Self { cases, log: Vec::new(), rules: Rules::new(limits), now }
    }

    fn revoke(&mut self) {
        let entry = self.cases.revocation(self.now);
        self.rules.apply(&entry);
        self.log.push(entry);
    }

    /// What the rules say of a token, and what the log says: whether an entry denies it, and whether
    /// one does that has not ended.
    fn ask(&mut self) -> (RevocationStatus, bool, bool) {
        let facts = self.cases.token(self.now);
        let denying = self.log.iter().filter(|entry| denies(entry, &facts));
        let ends: Vec<_> = denying.map(|entry| entry.until).collect();
        let verdict = self.rules.revocation_status(&facts);
        (verdict, !ends.is_empty(), ends.iter().any(|end| *end > self.now))
    }

    fn sweep(&mut self) {
        while self.rules.sweep(self.now, 10) {}
    }

    /// Of how many tokens the rules say something else than those of a replica with room for all,
    /// which reads the log now: what has ended is gone from it.
    fn differences(&mut self) -> usize {
        self.sweep();
        let mut fresh = Rules::new(ROOM);
        for entry in self.log.iter().filter(|entry| entry.until > self.now) {
            fresh.apply(entry);
        }
        let mut differences = 0;
        for _ in 0..50 {
            let facts = self.cases.token(self.now);
            let (long, fresh) =
                (self.rules.revocation_status(&facts), fresh.revocation_status(&facts));
            if long != fresh {
                assert_eq!(long, RevocationStatus::Unknown, "{facts:?}");
                differences += 1;
            }
        }
        differences
    }
}

const ROOM: Limits = Limits { per_grant: 1_000, total: 1_000 };

#[test]
fn the_rules_agree_with_a_reading_of_the_whole_log() {
    let mut counts = [0; 4];
    for seed in 0..60 {
        // Under every other seed rules have to make room: of a grant, of a client, of all.
        let has_room = seed % 2 == 0;
        let limits = match seed % 6 {
            1 => Limits { per_grant: 2, ..ROOM },
            3 => Limits { total: 20, ..ROOM },
            5 => Limits { per_grant: 3, total: 8 },
            _ => ROOM,
        };
        let mut story = Story::new(seed, limits);
        for _ in 0..100 {
            story.revoke();
            assert!(story.rules.len() <= limits.total);
            story.now = story.now + secs(story.cases.below(3));
            let most = usize::try_from(story.cases.below(10)).unwrap();
            story.rules.sweep(story.now, most);
            for _ in 0..10 {
                let (verdict, was_denied, is_denied) = story.ask();
                counts[verdict as usize] += 1;
                counts[3] += usize::from(is_denied);
                assert!(was_denied || verdict != RevocationStatus::Revoked, "seed {seed}");
                let missed = if has_room {
                    verdict != RevocationStatus::Revoked
                } else {
                    verdict == RevocationStatus::NotRevoked
                };
                assert!(!(is_denied && missed), "seed {seed}: {verdict:?}");
            }
        }
        story.now = story.now + HOUR;
        story.sweep();
        assert_eq!(story.rules.len(), 0);
    }
    assert!(counts.iter().all(|count| *count > 1_000), "{counts:?}");
}

/// However much was revoked at once: when that has ended, a replica that was there says what one says
/// that reads the log from its beginning, although revocations go on.
#[test]
fn after_a_rush_nothing_is_left_of_it() {
    let mut marked = [0; 3];
    for seed in 0..60 {
        let limits = [
            Limits { per_grant: 4, ..ROOM },
            Limits { total: 60, ..ROOM },
            Limits { per_grant: 8, total: 40 },
        ][usize::try_from(seed % 3).unwrap()];
        let mut story = Story::new(seed, limits);
        story.cases.names_clients = seed % 3 == 1;
        for _ in 0..400 {
            story.revoke();
            story.now = UnixTime::from_millis(story.now.as_millis() + story.cases.below(50));
        }
        let mut differences = story.differences();
        let mut rush_end = story.now + secs(MAX_LIFE);
        if seed % 3 == 2 {
            // What is nobody's keeps its room, so that what comes after the rush has to make some.
            rush_end = rush_end + secs(MAX_LIFE);
        }
        // One every eight seconds: four at a time.
        for _ in 0..30 {
            story.now = story.now + secs(8);
            story.revoke();
            let different = story.differences();
            if story.now >= rush_end {
                assert_eq!(different, 0, "seed {seed}");
            }
            differences += different;
        }
        marked[usize::try_from(seed % 3).unwrap()] += differences;
    }
    assert!(marked.iter().all(|count| *count > 50), "{marked:?}");
}
