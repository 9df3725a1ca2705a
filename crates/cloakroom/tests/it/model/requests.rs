//! Requests, from a story's words to the engine's futures.

use std::pin::Pin;

use cloakroom::core::{Audience, Confirmation, Scope, TokenSecret};
use cloakroom::{ApprovedRequest, CodeRequest, Grant, Issuer, RefreshRequest, Subject, TokenError};

use super::answers::Reply;
use super::flight::{Aim, Arriving, Flight, Presented, Task};
use super::oracle::{Key, Terms, Whose};
use super::story::{Mistake, Nth, Request, SignIn, What, Who, shown};
use super::watched::Turn;
use super::world::World;
use crate::engine::support::{CALLBACK, JOBS, ORDERS, VERIFIER, challenge, client_id};

/// An engine at work.
pub(super) type Working = Pin<Box<dyn Future<Output = Reply>>>;

impl World {
    /// A request comes; none if nobody could make it.
    pub(super) fn depart(&mut self, request: &Request) -> Option<Flight> {
        let issuer = self.nodes[request.node].issuer.clone();
        let (task, future) = match request.what {
            What::SignIn(sign_in) => self.sign_in(issuer, sign_in),
            What::Opens => (
                Task::Opens(None),
                later(async move { reply(issuer.epoch().await.map(Reply::Epoch)) }),
            ),
            What::Comes(Nth(0), who, _) if !self.anyone_lives() => {
                self.sign_in(issuer, again(who, request.node == 1))
            }
            What::Comes(nth, who, mistake) => self.come(issuer, nth, who, mistake)?,
            _ => self.revoke(issuer, request.what)?,
        };
        let number = self.begun;
        self.begun += 1;
        self.say(&format!("#{number}: {}", self.shown(&task, request)));
        let turn = Turn { fault: request.fault, ..Turn::default() };
        let (node, lost) = (request.node, request.lost);
        Some(Flight { number, node, lost, task, turn, asked: None, future })
    }

    fn sign_in(&mut self, issuer: Issuer, sign_in: SignIn) -> (Task, Working) {
        let SignIn { client, user, code, jwt, opened, key } = sign_in;
        let public = matches!(client, "spa" | "kiosk");
        let subject = user.map_or_else(
            || Subject::Client(client_id(client)),
            |user| Subject::user(user).unwrap(),
        );
        let mut grant = Grant::new(client_id(client), subject)
            .audience(Audience::one(if jwt { JOBS } else { ORDERS }).unwrap());
        let opening = if opened { self.openings.pop() } else { None };
        if let Some((epoch, _)) = opening {
            grant = grant.epoch(epoch);
        }
        if let Some(key) = key {
            grant = grant.confirmation(proof(public, key));
        }
        let refreshes = user.is_some() && client != "kiosk";
        let terms = Terms { client, public, user, rotates: client != "workers", refreshes, jwt };
        let since = opening.map(|(_, since)| since);
        let future = later(async move {
            if code {
                reply(
                    issuer
                        .authorize(ApprovedRequest::new(grant, CALLBACK).pkce(challenge()))
                        .await
                        .map(Reply::Code),
                )
            } else {
                reply(issuer.issue(grant).await.map(Reply::Tokens))
            }
        });
        (Task::SignsIn(Arriving { terms, code, key, since, session: None }), future)
    }

    fn come(
        &mut self,
        issuer: Issuer,
        nth: Nth,
        who: Who,
        mistake: Option<Mistake>,
    ) -> Option<(Task, Working)> {
        let (session, generation, token) = self.credential(nth, who)?;
        let Terms { client: own, public, .. } = self.oracle.sessions[session].terms;
        let shown = self.held[session].shows[who as usize];
        let confirmation = shown.map(|key| proof(public, key));
        let client = client_id(if mistake == Some(Mistake::OtherClient) { "other" } else { own });
        let wrong = mistake == Some(Mistake::Wrong);
        let code = token.expose().starts_with("cr_ac_");
        let future = if code {
            let verifier = if wrong { VERIFIER.to_uppercase() } else { VERIFIER.into() };
            let request = CodeRequest::new(token, client)
                .redirect_uri(CALLBACK.to_owned())
                .verifier(TokenSecret::new(verifier))
                .confirmation(confirmation);
            later(async move { reply(issuer.redeem(request).await.map(Reply::Tokens)) })
        } else {
            let scope = wrong.then(|| Scope::parse("orders:read orders:delete").unwrap());
            let request =
                RefreshRequest::new(token, client).scope(scope).confirmation(confirmation);
            later(async move { reply(issuer.refresh(request).await.map(Reply::Tokens)) })
        };
        let presented = Presented {
            session,
            generation,
            code,
            who,
            shown,
            mistake,
            verdict: None,
            moved: false,
            attached: None,
        };
        Some((Task::Comes(presented), future))
    }

    fn revoke(&mut self, issuer: Issuer, what: What) -> Option<(Task, Working)> {
        let done = |result: Result<(), _>| reply(result.map(|()| Reply::Done(true)));
        let by = |world: &Self, session: usize, own: bool| {
            let terms = world.oracle.sessions[session].terms;
            client_id(if own { terms.client } else { "other" })
        };
        Some(match what {
            What::Discards(nth, who, own) => {
                let (session, _, token) = self.credential(nth, who)?;
                let client = by(self, session, own);
                let future = later(async move { done(issuer.revoke(&token, &client).await) });
                (Task::Revokes(Aim::Session(session), own), future)
            }
            What::Drops(nth, at, own) => {
                let session = self.find(nth)?;
                let access = &self.held[session].access;
                let token = usize::from(at).checked_rem(access.len())?;
                let (secret, client) = (access[token].clone(), by(self, session, own));
                let future = later(async move { done(issuer.revoke(&secret, &client).await) });
                (Task::Revokes(Aim::Token(session, token), own), future)
            }
            What::EndsGrant(nth) => {
                let session = self.find(nth)?;
                let grant = self.held[session].grant;
                let future = later(async move { done(issuer.revoke_grant(grant).await) });
                (Task::Revokes(Aim::Session(session), true), future)
            }
            What::EndsSession(nth, own) => {
                let session = self.find(nth)?;
                let (grant, terms) =
                    (self.held[session].grant, self.oracle.sessions[session].terms);
                let subject = match terms.user {
                    _ if !own => Subject::user("mallory").unwrap(),
                    Some(user) => Subject::user(user).unwrap(),
                    None => Subject::Client(client_id(terms.client)),
                };
                let future = later(async move {
                    reply(issuer.revoke_session(&subject, grant).await.map(Reply::Done))
                });
                (Task::Revokes(Aim::Session(session), own), future)
            }
            What::EndsAll(whose) => {
                let future = later(async move {
                    let user = |user| Subject::user(user).unwrap();
                    done(match whose {
                        Whose::User(name) => issuer.revoke_subject(&user(name)).await,
                        Whose::Client(client) => issuer.revoke_client(&client_id(client)).await,
                        Whose::Pair(name, client) => {
                            issuer.revoke_subject_at_client(&user(name), &client_id(client)).await
                        }
                    })
                });
                (Task::Revokes(Aim::All(whose, self.oracle.revocations()), true), future)
            }
            _ => {
                let future =
                    later(async move { reply(issuer.maintain().await.map(|_| Reply::Done(true))) });
                (Task::Maintains, future)
            }
        })
    }

    fn shown(&self, task: &Task, request: &Request) -> String {
        let whom = match task {
            Task::SignsIn(Arriving { terms, .. }) if matches!(request.what, What::Comes(..)) => {
                format!(", but is out, and signs in at {}", terms.client)
            }
            Task::Comes(Presented { session, generation, shown: key, .. }) => {
                format!(" (credential {generation} of session {session}, proving {})", shown(*key))
            }
            Task::Revokes(Aim::Session(session), _) => format!(" (session {session})"),
            Task::Revokes(Aim::Token(session, token), _) => {
                format!(" (access token {token} of session {session})")
            }
            Task::SignsIn(_) => format!(" (session {}, if nobody is faster)", self.held.len()),
            _ => String::new(),
        };
        format!("{request:?}{whom}")
    }
}

/// Whoever has no session left signs in again, each where they like.
const fn again(who: Who, code: bool) -> SignIn {
    let client = match who {
        Who::TabA => "web",
        Who::TabB => "spa",
        Who::Thief => "workers",
    };
    SignIn { client, user: Some("alice"), code, jwt: false, opened: false, key: None }
}

/// What a client proves: a confidential one by its certificate.
pub(super) const fn proof(public: bool, key: Key) -> Confirmation {
    let thumbprint = [key as u8; 32];
    if public {
        Confirmation::JwkThumbprint(thumbprint)
    } else {
        Confirmation::CertificateThumbprint(thumbprint)
    }
}

fn later(future: impl Future<Output = Reply> + 'static) -> Working {
    Box::pin(future)
}

fn reply(result: Result<Reply, TokenError>) -> Reply {
    result.unwrap_or_else(Reply::Failed)
}
