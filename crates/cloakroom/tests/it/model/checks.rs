//! What must hold between any two steps, whoever is at work.

use std::collections::BTreeSet;

use cloakroom::core::TokenSecret;
use cloakroom::core::store::{PageRequest, Selector, TokenStore};
use cloakroom::{Caller, Subject, TokenError};

use super::oracle::{Broken, broken_if};
use super::requests::proof;
use super::story::{CLIENTS, USERS};
use super::time::Sure;
use super::watched::Turn;
use super::world::{World, soon};
use crate::engine::support::{ORDERS, client_id};

impl World {
    /// Holds what is active, current and listed against the oracle, at one node or the other.
    pub(super) fn check(&mut self, all: bool) -> Broken {
        *self.store.turn() = Turn::default();
        self.checks += 1;
        for session in 0..self.held.len() {
            // A few a step: the older ones get their turn, too.
            let tokens = self.held[session].access.len();
            for token in 0..tokens {
                if all || token + 3 >= tokens || token == self.checks % tokens {
                    self.check_token(session, token)?;
                }
            }
            self.check_chain(session, all)?;
        }
        self.check_rows()?;
        self.check_sessions()
    }

    fn check_token(&self, session: usize, token: usize) -> Broken {
        let (issuer, expected) = (self.issuer(), self.oracle.is_active(session, token));
        let secret = &self.held[session].access[token];
        if expected == Sure::Maybe {
            return Ok(());
        }
        let active = soon(issuer.introspect(secret, Caller::Internal)).map_err(strange)?;
        let what = || format!("access token {token} of session {session}");
        agree(active.is_active(), expected, what)?;
        let public = self.oracle.sessions[session].terms.public;
        let key = self.oracle.key_of(session, token).map(|key| proof(public, key));
        let bound = active.active().map(|active| &active.confirmation);
        broken_if(bound.is_some_and(|bound| *bound != key), "an access token of another key")?;
        if expected == Sure::No {
            let swapped = soon(issuer.swap(secret, Some(ORDERS), Caller::Internal));
            broken_if(swapped.map_err(strange)?.is_some(), "an inactive handle was swapped")?;
        }
        Ok(())
    }

    fn check_chain(&self, session: usize, all: bool) -> Broken {
        let (issuer, own) = (self.issuer(), &self.oracle.sessions[session]);
        let client = soon(issuer.clients().client(&client_id(own.terms.client))).unwrap().unwrap();
        let first = if all { 0 } else { own.chain.len().saturating_sub(2) };
        for generation in first..own.chain.len() {
            let expected = self.oracle.is_current(session, generation);
            let Some(text) = &own.chain[generation].text else { continue };
            if expected == Sure::Maybe {
                continue;
            }
            let secret = TokenSecret::new(text.clone());
            let active = soon(issuer.introspect(&secret, Caller::Client(&client)));
            let active = active.map_err(strange)?.is_active();
            let what = || format!("credential {generation} of session {session}");
            agree(active, expected, what)?;
        }
        Ok(())
    }

    /// The store has one row a session, and no other.
    fn check_rows(&self) -> Broken {
        let now = self.nodes[self.checks % 2].now();
        let mut listed = BTreeSet::new();
        for client in CLIENTS {
            let page = PageRequest { after: None, limit: 1_000 };
            let of = Selector::Client(client_id(client));
            let listing = soon(self.store.memory.list(of, page, now)).unwrap();
            listed.extend(listing.grants.iter().map(|grant| grant.id));
        }
        for (session, held) in self.held.iter().enumerate() {
            let expected = self.oracle.is_listed(session);
            if expected != Sure::Maybe {
                agree(listed.contains(&held.grant), expected, || {
                    format!("row of session {session}")
                })?;
            }
            listed.remove(&held.grant);
        }
        broken_if(!listed.is_empty(), "there is a row that belongs to no session")
    }

    /// A user sees each session once, and only what is a session.
    fn check_sessions(&self) -> Broken {
        for user in USERS {
            let shown = soon(self.issuer().sessions(&Subject::user(user).unwrap()));
            let shown: Vec<_> = shown.map_err(strange)?.iter().map(|one| one.grant).collect();
            for (session, held) in self.held.iter().enumerate() {
                let count = shown.iter().filter(|grant| **grant == held.grant).count();
                let own = &self.oracle.sessions[session];
                let expected = match &own.chain[..] {
                    _ if own.terms.user != Some(user) => Sure::No,
                    [only] if only.code => Sure::No,
                    _ => self.oracle.is_listed(session),
                };
                if expected != Sure::Maybe {
                    let what = || format!("session {session} among those of {user}");
                    agree(count == 1, expected, what)?;
                }
                broken_if(count > 1, "one session is shown twice")?;
            }
        }
        Ok(())
    }

    fn issuer(&self) -> &cloakroom::Issuer {
        &self.nodes[self.checks % 2].issuer
    }
}

fn agree(is: bool, expected: Sure, what: impl FnOnce() -> String) -> Broken {
    let right = if is { Sure::Yes } else { Sure::No };
    if right == expected {
        return Ok(());
    }
    Err(format!("{}: is it alive? {right:?}, and should be {expected:?}", what()))
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn strange(error: TokenError) -> String {
    format!("an error where nothing failed: {error:?}")
}
