//! Who holds which tokens, and who takes them away.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::core::{ClientId, GrantId, Kid, Subject, TokenSecret};
use cloakroom::{Grant, RefreshRequest, TokenResponse};

use crate::authority::{Authority, SECRET, app};
use crate::tape::{Instant, Of, Revoked, Tape};
use crate::web::Web;

/// An access token, as its holder knows it.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) number: u32,
    pub(crate) secret: String,
    pub(crate) refresh: Option<String>,
    pub(crate) grant_id: Option<GrantId>,
    /// The number of the first token of its grant.
    pub(crate) grant: u32,
    pub(crate) user: u32,
    pub(crate) client: u32,
    /// The key that signed it, if it is a JWT.
    pub(crate) kid: Option<Arc<str>>,
    /// When its grant was asked for.
    pub(crate) asked_for: Instant,
    /// When its grant was there.
    pub(crate) granted: Instant,
}

impl Token {
    pub(crate) const fn is_jwt(&self) -> bool {
        self.kid.is_some()
    }

    /// Whether it may be about this token.
    pub(crate) fn is_under(&self, of: &Of) -> bool {
        match of {
            Of::Token(number) => self.number == *number,
            Of::Grant(grant) => self.grant == *grant,
            Of::User(user) => self.user == *user,
            Of::Client(client) => self.client == *client,
            Of::UserAtClient(user, client) => self.user == *user && self.client == *client,
            Of::Key(kid) => self.kid.as_ref() == Some(kid),
        }
    }
}

/// The key that a JWT names; `None` if it is none.
pub(crate) fn kid(jwt: &str) -> Option<Arc<str>> {
    let (header, _) = jwt.split_once('.')?;
    let header: serde_json::Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    header["kid"].as_str().map(Arc::from)
}

/// All who hold tokens.
#[derive(Debug)]
pub(crate) struct People {
    pub(crate) authority: Arc<Authority>,
    pub(crate) tape: Arc<Tape>,
    web: Web,
    tokens: Mutex<Vec<Arc<Token>>>,
}

impl People {
    pub(crate) fn new(authority: Arc<Authority>, tape: Arc<Tape>) -> Self {
        Self { authority, tape, web: Web::new(), tokens: Mutex::default() }
    }

    pub(crate) fn tokens(&self) -> Vec<Arc<Token>> {
        self.tokens.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.tokens.lock().unwrap().len()
    }

    pub(crate) fn token(&self, number: usize) -> Arc<Token> {
        Arc::clone(&self.tokens.lock().unwrap()[number])
    }

    /// The tokens that a revocation may end.
    pub(crate) fn under(&self, of: &Of) -> Vec<Arc<Token>> {
        self.tokens.lock().unwrap().iter().filter(|token| token.is_under(of)).cloned().collect()
    }

    /// A user signs in at an app; `None` if the server is not there.
    pub(crate) async fn sign_in(&self, user: u32, client: u32) -> Option<Arc<Token>> {
        let asked_for = self.tape.now();
        let grant = Grant::user(app(client), name(user)).unwrap();
        let response = self.authority.does(|issuer| async move { issuer.issue(grant).await });
        let response = response.await?.ok()?;
        let granted = self.tape.now();
        Some(self.keep(&response, user, client, None, (asked_for, granted)))
    }

    /// A second access token of the same grant.
    pub(crate) async fn refresh(&self, token: &Token) -> Option<Arc<Token>> {
        let refresh = TokenSecret::new(token.refresh.clone()?);
        let request = RefreshRequest::new(refresh, ClientId::new(app(token.client)).unwrap());
        let response = self.authority.does(|issuer| async move { issuer.refresh(request).await });
        let response = response.await?.ok()?;
        let when = (token.asked_for, token.granted);
        Some(self.keep(&response, token.user, token.client, Some(token.grant), when))
    }

    fn keep(
        &self,
        response: &TokenResponse,
        user: u32,
        client: u32,
        grant: Option<u32>,
        (asked_for, granted): (Instant, Instant),
    ) -> Arc<Token> {
        let secret = response.access_token.expose().to_owned();
        let refresh = response.refresh_token.as_ref().map(|it| it.expose().to_owned());
        let (kid, grant_id) = (kid(&secret), Some(response.grant));
        let mut tokens = self.tokens.lock().unwrap();
        let number = u32::try_from(tokens.len()).unwrap();
        let grant = grant.unwrap_or(number);
        let token = Token {
            number,
            secret,
            refresh,
            grant_id,
            grant,
            user,
            client,
            kid,
            asked_for,
            granted,
        };
        tokens.push(Arc::new(token));
        Arc::clone(tokens.last().unwrap())
    }

    /// Revokes something, and writes down when; whether it was acknowledged.
    pub(crate) async fn revoke(&self, how: How, token: &Token) -> bool {
        let begun = self.tape.now();
        let done = match how {
            How::Token => self.post(token.client, &token.secret).await,
            How::Refresh => match &token.refresh {
                Some(refresh) => self.post(token.client, refresh).await,
                None => return false,
            },
            _ => self.order(how, token).await,
        };
        let acknowledged = done.then(|| self.tape.now());
        self.tape.revoke(Revoked { of: how.of(token), begun, acknowledged });
        done
    }

    /// `POST /revoke` (RFC 7009), as the app that holds the token.
    async fn post(&self, client: u32, token: &str) -> bool {
        let Some(url) = self.authority.url("/revoke") else { return false };
        let credentials = (&*app(client), SECRET);
        let answer = self.web.post(&url, credentials, &[("token", token)]).await;
        answer.is_some_and(|(status, _)| status == 200)
    }

    /// An order to the authorization server itself.
    async fn order(&self, how: How, token: &Token) -> bool {
        let (grant, kid) = (token.grant_id.unwrap(), token.kid.clone());
        let (user, client) = (Subject::user(name(token.user)), ClientId::new(app(token.client)));
        let (user, client) = (user.unwrap(), client.unwrap());
        let done = self.authority.does(|issuer| async move {
            match how {
                How::Grant => issuer.revoke_grant(grant).await.is_ok(),
                How::Session => issuer.revoke_session(&user, grant).await.is_ok_and(|there| there),
                How::User => issuer.revoke_subject(&user).await.is_ok(),
                How::Client => issuer.revoke_client(&client).await.is_ok(),
                How::UserAtClient => issuer.revoke_subject_at_client(&user, &client).await.is_ok(),
                How::Key => issuer.compromise_key(&Kid::new(&*kid.unwrap()).unwrap()).await.is_ok(),
                How::Token | How::Refresh => false,
            }
        });
        done.await.unwrap_or(false)
    }
}

fn name(user: u32) -> String {
    format!("user-{user}")
}

/// How something is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum How {
    /// The access token itself, over HTTP: of a handle its digest, of a JWT its `jti`.
    Token,
    /// Its refresh token, over HTTP, and so the grant.
    Refresh,
    Grant,
    Session,
    User,
    Client,
    UserAtClient,
    /// The key that signed it.
    Key,
}

impl How {
    pub(crate) fn of(self, token: &Token) -> Of {
        match self {
            Self::Token => Of::Token(token.number),
            Self::Refresh | Self::Grant | Self::Session => Of::Grant(token.grant),
            Self::User => Of::User(token.user),
            Self::Client => Of::Client(token.client),
            Self::UserAtClient => Of::UserAtClient(token.user, token.client),
            Self::Key => Of::Key(token.kid.clone().unwrap()),
        }
    }
}
