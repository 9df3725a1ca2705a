//! The rules against a reading of the whole log.

use cloakroom_core::{
    ClientId, Epoch, Jti, Kid, LogEntry, LogEvent, Subject, Target, TokenDigest, TokenKind,
    UnixTime,
};

use super::facts::Facts;
use super::rules::{Limits, Rules, Verdict};
use super::test_kit::{HOUR, client, grant, revoked, secs};

/// A generator of test cases (`SplitMix64`).
struct Cases(u64);

impl Cases {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % bound
    }

    /// A revocation; one of a single token or grant names its client most of the time.
    fn revocation(&mut self) -> LogEvent {
        let (subject, number) = (nth_user(self.below(4)), self.below(12));
        let target = match self.below(7) {
            0 => Target::Grant(grant(number)),
            1 => Target::Jti(nth_jti(number)),
            2 => Target::Token { grant: grant(number), digest: nth_digest(number) },
            3 => Target::Subject(subject),
            4 => Target::Client(nth_client(number)),
            5 => Target::SubjectAtClient(subject, nth_client(number)),
            _ => Target::Key(nth_key(number)),
        };
        let bound = target.has_bound().then(|| Epoch::new(self.below(20)));
        let client = (self.below(4) > 0).then(|| nth_client(number));
        let grant = (self.below(4) > 0).then(|| grant(number));
        LogEvent::Revoked { target, bound, client, grant }
    }

    /// A token; each of its facts may be missing.
    fn token(&mut self) -> Facts {
        let (user, number) = (self.below(4), self.below(12));
        let (epoch, issued) = (self.below(20), self.below(20));
        let mut is_there = || self.below(8) > 0;
        Facts {
            grant: is_there().then(|| grant(number)),
            epoch: is_there().then(|| Epoch::new(epoch)),
            issued_at: is_there().then(|| UnixTime::from_millis(issued)),
            subject: is_there().then(|| nth_user(user)),
            client: is_there().then(|| nth_client(number)),
            jti: is_there().then(|| nth_jti(number)),
            kid: is_there().then(|| nth_key(number)),
            handle_hash: is_there().then(|| cloakroom_jwt::handle_hash(&nth_digest(number))),
            cleared: Default::default(),
        }
    }
}

fn nth_user(number: u64) -> Subject {
    Subject::user(format!("user-{number}")).unwrap()
}

/// A token's number says whose it is.
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
fn denies(entry: &LogEntry, facts: &Facts) -> bool {
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

#[test]
fn the_rules_agree_with_a_reading_of_the_whole_log() {
    let mut counts = [0; 4];
    for seed in 0..60 {
        let mut cases = Cases(seed);
        // Under every other seed clients are crowds before long.
        let has_crowds = seed % 2 == 1;
        let per_client = if has_crowds { 3 } else { 1_000 };
        let per_grant = if seed % 4 == 3 { 2 } else { 1_000 };
        let mut rules = Rules::new(Limits { per_client, per_grant, total: 1_000 });
        let (mut log, mut now) = (Vec::new(), UnixTime::from_secs(1_000));
        for _ in 0..100 {
            let until = now + secs(1 + cases.below(30));
            let entry = LogEntry { event: cases.revocation(), until, ..revoked(0) };
            rules.apply(&entry);
            log.push(entry);
            now = now + secs(cases.below(3));
            rules.sweep(now, usize::try_from(cases.below(10)).unwrap());
            for _ in 0..10 {
                let facts = cases.token();
                let verdict = rules.verdict(&facts);
                counts[verdict as usize] += 1;
                let mut denying = log.iter().filter(|entry| denies(entry, &facts)).peekable();
                assert!(denying.peek().is_some() || verdict != Verdict::Denied, "{facts:?}");
                if denying.any(|entry| entry.until > now) {
                    counts[3] += 1;
                    let missed = if has_crowds {
                        verdict == Verdict::Clear
                    } else {
                        verdict != Verdict::Denied
                    };
                    assert!(!missed, "seed {seed}: {verdict:?} {facts:?}");
                }
            }
        }
        while rules.sweep(now + HOUR, 1) {}
        assert_eq!(rules.len(), 0);
    }
    assert!(counts.iter().all(|count| *count > 1_000), "{counts:?}");
}
