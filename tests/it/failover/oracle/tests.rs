//! Histories that were made up: the oracle must convict the wrong ones, and only those.

use std::time::Duration;

use super::*;
use crate::failover::history::Tokens;

const fn s(seconds: u64) -> Time {
    Duration::from_secs(seconds)
}

/// A fail-over, from 100 s to 120 s.
const FAIL_OVER: FailOver = FailOver { begun: s(100), settled: s(120) };

#[derive(Debug, Default, Clone)]
struct Story(Facts);

impl Story {
    /// A session of user 7, which began at 10 s.
    fn new() -> Self {
        let answer = Answer::Yes(tokens("r0"));
        Self::default().did(10, Deed::LogIn { session: 1, user: 7, answer })
    }

    /// Something that took a second.
    fn did(mut self, ended: u64, deed: Deed) -> Self {
        let (begun, ended) = (s(ended) - s(1), s(ended));
        self.0.entries.push(Entry { server: 0, begun, ended, deed });
        self
    }

    fn refresh(self, ended: u64, presented: &str, brings: &str) -> Self {
        let answer = Answer::Yes(tokens(brings));
        self.did(ended, Deed::Refresh { session: 1, presented: presented.into(), answer })
    }

    fn refused(self, ended: u64, presented: &str) -> Self {
        let answer = Answer::Refused("dead".to_owned());
        self.did(ended, Deed::Refresh { session: 1, presented: presented.into(), answer })
    }

    fn introspect(self, ended: u64, is_active: bool) -> Self {
        let answer = Answer::Yes(is_active);
        self.did(ended, Deed::Introspect { session: 1, access: "a".into(), answer })
    }

    fn revoke(self, ended: u64, of: Of) -> Self {
        self.did(ended, Deed::Revoke { of, answer: Answer::Yes(()) })
    }

    fn fails_over(mut self) -> Self {
        self.0.fail_overs.push(FAIL_OVER);
        self
    }

    fn report(mut self, at: u64, report: Report) -> Self {
        self.0.reports.push((s(at), report));
        self
    }

    fn noticed(self, at: u64) -> Self {
        self.report(at, Report::Regressed("Log".to_owned()))
    }

    fn judge(&self, is_synchronous: bool) -> Verdict {
        let (lag, staleness, retry_window) = (s(5), s(2), s(60));
        judge(&self.0, Promise { is_synchronous, lag, staleness, retry_window })
    }

    /// Right, whatever the replication.
    fn is_right(&self) {
        self.judge(false).acquit();
        self.judge(true).acquit();
    }

    /// Right only if a fail-over may lose the last writes.
    fn is_right_if_asynchronous(&self, is_it: impl Fn(&Conviction) -> bool) {
        self.judge(false).acquit();
        self.convicts(true, is_it);
    }

    fn is_wrong(&self, is_it: impl Fn(&Conviction) -> bool) {
        self.convicts(false, &is_it);
        self.convicts(true, is_it);
    }

    fn convicts(&self, is_synchronous: bool, is_it: impl Fn(&Conviction) -> bool) {
        let convictions = self.judge(is_synchronous).convictions;
        assert!(convictions.iter().any(is_it), "{is_synchronous}: {convictions:?}\n{self:#?}");
    }
}

fn tokens(refresh: &str) -> Tokens {
    Tokens { refresh: refresh.into(), access: "a".into() }
}

fn two_winners(it: &Conviction) -> bool {
    matches!(it, Conviction::TwoWinners { .. })
}

fn undone(it: &Conviction) -> bool {
    matches!(it, Conviction::Undone { .. })
}

fn lost(it: &Conviction) -> bool {
    matches!(it, Conviction::Lost { .. })
}

#[test]
fn a_credential_has_one_successor() {
    let both = Story::new().refresh(20, "r0", "r1").refresh(21, "r0", "r1");
    both.is_right();
    assert_eq!(both.judge(true).seen.shared, 1);
    // A slow client gets the credential that is current by then, and no other.
    let walk = || Story::new().refresh(20, "r0", "r1").refresh(21, "r1", "r2");
    walk().refresh(22, "r0", "r2").is_right();
    walk().refresh(22, "r2", "r3").refresh(23, "r0", "r3").is_right();
    walk().refresh(22, "r0", "x2").is_wrong(two_winners);
    walk().refresh(22, "r0", "x2").refresh(23, "x2", "r3").is_wrong(two_winners);
    let two = Story::new().refresh(20, "r0", "r1").refresh(21, "r0", "x1");
    two.is_wrong(two_winners);
    // A fail-over between them excuses it, if it may have lost the first one, and if that one is dead.
    let again =
        |first| Story::new().refresh(first, "r0", "r1").fails_over().refresh(110, "r0", "x1");
    again(50).is_wrong(two_winners);
    again(96).is_right_if_asynchronous(two_winners);
    assert_eq!(again(96).judge(false).seen.redeemed_again, 1);
    again(96).refresh(130, "x1", "x2").is_right_if_asynchronous(two_winners);
    let branches = again(96).refresh(130, "x1", "x2").refresh(131, "r1", "r2");
    branches.is_wrong(|it| {
        matches!(it, Conviction::TwoBranches { .. } | Conviction::TwoWinners { .. })
    });
    // Both before it.
    let before = Story::new().refresh(98, "r0", "r1").refresh(99, "r0", "x1").fails_over();
    before.is_wrong(two_winners);
}

#[test]
fn an_acknowledged_revocation_stays() {
    for of in [Of::Session(1), Of::User(7)] {
        let revoked = || Story::new().revoke(20, of);
        revoked().introspect(30, false).refused(31, "r0").is_right();
        revoked().introspect(30, true).is_wrong(undone);
        revoked().refresh(30, "r0", "r1").is_wrong(undone);
        // Sent before the acknowledgement.
        revoked().introspect(21, true).is_right();
        // Long before the fail-over, or when the servers have settled.
        revoked().fails_over().noticed(115).introspect(110, true).is_wrong(undone);
        let late = || Story::new().revoke(98, of).fails_over();
        late().noticed(115).introspect(130, true).is_wrong(undone);
        late().noticed(115).introspect(110, true).is_right_if_asynchronous(undone);
        late()
            .introspect(110, true)
            .is_wrong(|it| matches!(it, Conviction::Unnoticed { .. } | Conviction::Undone { .. }));
        // A server may follow the old primary for a moment.
        Story::new().revoke(108, of).fails_over().introspect(110, true).is_right();
        Story::new().revoke(105, of).fails_over().introspect(110, true).convicts(true, undone);
    }
    // Of another session, another user, or from before the login.
    for of in [Of::Session(2), Of::User(8)] {
        Story::new().revoke(20, of).introspect(30, true).is_right();
    }
    Story::new().revoke(9, Of::User(7)).introspect(30, true).is_right();
    // Nobody knows whether it took effect.
    let unknown = Deed::Revoke { of: Of::Session(1), answer: Answer::Unknown };
    Story::new().did(20, unknown.clone()).introspect(30, true).is_right();
    Story::new().did(20, unknown).introspect(30, false).is_right();
}

#[test]
fn a_session_ends_with_a_reason() {
    Story::new().introspect(30, false).is_wrong(lost);
    Story::new().refused(30, "r0").is_wrong(lost);
    Story::new().refresh(20, "r0", "r1").refused(30, "r1").is_wrong(lost);
    Story::new().revoke(40, Of::Session(1)).refused(30, "r0").is_wrong(lost);
    Story::new().revoke(5, Of::User(7)).refused(30, "r0").is_wrong(lost);
    Story::new().revoke(20, Of::Session(2)).refused(30, "r0").is_wrong(lost);
    // Its successor was in use, or its window had ended.
    let slow = Story::new().refresh(20, "r0", "r1").refresh(21, "r1", "r2");
    slow.clone().refused(30, "r0").is_right();
    slow.refused(30, "r2").is_wrong(lost);
    Story::new().refresh(20, "r0", "r1").refused(30, "r0").is_wrong(lost);
    Story::new().refresh(20, "r0", "r1").refused(90, "r0").is_right();
    // A fail-over lost the login, or the last refresh.
    let lost_login = Story::default();
    let answer = Answer::Yes(tokens("r0"));
    let lost_login = lost_login.did(99, Deed::LogIn { session: 1, user: 7, answer }).fails_over();
    lost_login.refused(130, "r0").is_right_if_asynchronous(lost);
    Story::new()
        .refresh(98, "r0", "r1")
        .fails_over()
        .refused(130, "r1")
        .is_right_if_asynchronous(lost);
    Story::new().refresh(90, "r0", "r1").fails_over().refused(130, "r1").is_wrong(lost);
    Story::new().fails_over().introspect(130, false).is_wrong(lost);
}

#[test]
fn a_repeated_log_out_everywhere_ends_the_logins_since() {
    let answer = Answer::Yes(tokens("r0"));
    let again = || {
        let story = Story::default().revoke(97, Of::User(7)).fails_over();
        story.did(110, Deed::LogIn { session: 1, user: 7, answer: answer.clone() })
    };
    let repeated = || again().report(97, Report::Revoked(Of::User(7))).noticed(111);
    let repeated = || repeated().report(112, Report::Revoked(Of::User(7)));
    repeated().refused(130, "r0").is_right_if_asynchronous(lost);
    assert_eq!(repeated().judge(false).seen.repeated, 1);
    // `lost` with its writes would excuse it, too, so the login is later than the fail-over here.
    let late = Story::default().revoke(50, Of::User(7)).fails_over();
    let late = late.did(125, Deed::LogIn { session: 1, user: 7, answer });
    late.clone().refused(130, "r0").is_wrong(lost);
    late.report(127, Report::Revoked(Of::User(7))).refused(130, "r0").is_wrong(lost);
}

#[test]
fn what_was_done_is_counted() {
    let story =
        Story::new().refresh(20, "r0", "r1").introspect(21, true).revoke(22, Of::Session(1));
    let unknown = Deed::Introspect { session: 1, access: "a".into(), answer: Answer::Unknown };
    let seen = story.did(23, unknown).judge(true).seen;
    let Seen { logins, refreshes, introspections, revocations, unknown, .. } = seen;
    assert_eq!((logins, refreshes, introspections, revocations, unknown), (1, 1, 2, 1, 1));
}
