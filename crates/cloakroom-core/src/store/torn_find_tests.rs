//! `find` need not read grant and token at one moment. A model of every order of events: an answer
//! says of a token what was true at some moment while `find` ran.

/// What changes grant and token. Nothing brings either back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// `advance` inserts the token, if the grant lives: one atomic step.
    Insert,
    RevokeToken,
    RevokeGrant,
    ReadGrant,
    ReadToken,
}

#[derive(Debug, Clone, Copy, Default)]
struct Rows {
    grant_revoked: bool,
    token: bool,
    token_revoked: bool,
}

impl Rows {
    const fn is_active(self) -> bool {
        !self.grant_revoked && self.token && !self.token_revoked
    }
}

/// Every order of these events.
fn orders(events: &[Event]) -> Vec<Vec<Event>> {
    if events.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (at, first) in events.iter().enumerate() {
        let rest = [&events[..at], &events[at + 1..]].concat();
        all.extend(orders(&rest).into_iter().map(|rest| [&[*first][..], &rest].concat()));
    }
    all
}

#[test]
fn a_torn_answer_was_true_while_find_ran() {
    use Event::{Insert, ReadGrant, ReadToken, RevokeGrant, RevokeToken};
    let mut active = 0;
    for order in orders(&[Insert, RevokeToken, RevokeGrant, ReadGrant, ReadToken]) {
        let (mut rows, mut answer, mut was) = (Rows::default(), Rows::default(), Vec::new());
        for event in &order {
            match event {
                Insert => rows.token |= !rows.grant_revoked,
                RevokeToken => rows.token_revoked |= rows.token,
                RevokeGrant => rows.grant_revoked = true,
                ReadGrant => answer.grant_revoked = rows.grant_revoked,
                ReadToken => {
                    (answer.token, answer.token_revoked) = (rows.token, rows.token_revoked);
                }
            }
            was.push(rows.is_active());
        }
        let is_read = |event: &Event| matches!(event, ReadGrant | ReadToken);
        let first = order.iter().position(is_read).unwrap();
        let last = order.iter().rposition(is_read).unwrap();
        let during = &was[first..=last];
        assert!(
            during.contains(&answer.is_active()),
            "{order:?}: {answer:?}, and it was {during:?}"
        );
        active += u32::from(answer.is_active());
    }
    assert!(active > 0, "no order brings an active token");
}
