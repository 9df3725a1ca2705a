//! Verifying RFC 9068 access tokens.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::time::{Clock, SystemClock, UnixTime};
use cloakroom_core::{ActiveToken, Kid, TokenDigest, strict_json};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::jws::MAX_JWT_BYTES;
use crate::jws::error::VerifyError;
use crate::jws::header::{self, Selected};
use crate::jws::profile::IssuerProfile;
use crate::key::key_set::KeySet;

/// Verifies JWT access tokens as RFC 9068 §4 and RFC 8725 require, without I/O.
///
/// A token passes if all of the following holds. It is checked in this order, so that only the header
/// is read before the signature is verified:
///
/// 1. it has three segments of canonical, unpadded base64url, and at most
///    [`max_bytes`](Self::max_bytes);
/// 2. its header has no duplicate members, `typ` is `at+jwt` (or `application/at+jwt`), there is no
///    extension (`crit`, `b64`) and no key (`jwk`, `jku`, `x5c`, `x5u`), `kid` names a key of the
///    [`KeySet`], and `alg` is the algorithm of that key;
/// 3. the signature is correct;
/// 4. its claims have no duplicate members at any depth; `iss` is the issuer and `aud` contains the
///    audience; `sub`, `client_id`, `jti`, `iat` and `exp` are present; times are integers, and the
///    current time is between them.
///
/// A valid token may still have been revoked.
///
/// Do not identify a token by its text. An ECDSA signature `(r, s)` has a second form `(r, n - s)`, which
/// JOSE allows, so anyone can write another token with the same content. Use `jti`.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use cloakroom_core::time::{ManualClock, UnixTime};
/// use cloakroom_jwt::*;
/// use serde_json::json;
///
/// let key = SigningKey::generate(Algorithm::Es256)?;
/// let keys = KeySet::prepare(&JwkSet::new(vec![key.public_jwk().clone()]));
/// let verifier = Verifier::new("https://as.example", "https://orders.example")
///     .clock(Arc::new(ManualClock::at(UnixTime::from_secs(1_700_000_000))));
///
/// let mut claims = json!({
///     "iss": "https://as.example", "aud": "https://orders.example", "sub": "alice",
///     "client_id": "web-app", "jti": "1", "iat": 1_700_000_000, "exp": 1_700_000_600,
/// });
/// let jwt = sign_jwt(&key, ACCESS_TOKEN_TYP, &claims).await?;
/// assert!(verifier.verify(&keys, jwt.expose()).is_ok());
///
/// claims["aud"] = json!("https://billing.example");
/// let jwt = sign_jwt(&key, ACCESS_TOKEN_TYP, &claims).await?;
/// assert!(matches!(verifier.verify(&keys, jwt.expose()), Err(VerifyError::Audience)));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Verifier {
    issuer: Arc<str>,
    audience: Option<Arc<str>>,
    profile: IssuerProfile,
    /// Whether the profile is RFC 9068: claims are read as they stand.
    is_plain: bool,
    leeway: Duration,
    max_bytes: usize,
    clock: Arc<dyn Clock>,
}

impl Verifier {
    /// The largest leeway.
    pub const MAX_LEEWAY: Duration = Duration::from_secs(120);

    /// Accepts tokens of this issuer for this audience. It is compared byte for byte, except that
    /// `https://api.example` and `https://api.example/` are one
    /// ([`Audience::is_same`](cloakroom_core::Audience::is_same)).
    #[must_use]
    pub fn new(issuer: &str, audience: &str) -> Self {
        Self { audience: Some(audience.into()), ..Self::any_audience(issuer) }
    }

    /// Accepts tokens of this issuer for any audience. This is for the issuer itself, which must
    /// then report a token only to callers in its audience. A resource server uses
    /// [`new`](Self::new).
    #[must_use]
    pub fn any_audience(issuer: &str) -> Self {
        Self {
            issuer: issuer.into(),
            audience: None,
            profile: IssuerProfile::rfc9068(),
            is_plain: true,
            leeway: Duration::from_secs(30),
            max_bytes: MAX_JWT_BYTES,
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// The form of the issuer's access tokens: RFC 9068 by default.
    #[must_use]
    pub fn profile(mut self, profile: IssuerProfile) -> Self {
        self.is_plain = profile == IssuerProfile::rfc9068();
        self.profile = profile;
        self
    }

    /// The leeway for clock differences: 30 seconds by default, at most
    /// [`MAX_LEEWAY`](Self::MAX_LEEWAY).
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway.min(Self::MAX_LEEWAY);
        self
    }

    /// The clock. The default is the system clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The largest size of a token, in bytes: 8,192 by default.
    #[must_use]
    pub const fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Verifies a presented token.
    ///
    /// # Errors
    ///
    /// If the token is refused. The variants are for traces: a client is told no more than
    /// `invalid_token` (RFC 6750 §3.1).
    pub fn verify(&self, keys: &KeySet, jwt: &str) -> Result<VerifiedJwt, VerifyError> {
        if jwt.len() > self.max_bytes {
            return Err(VerifyError::TooLarge);
        }
        let (input, header, payload, signature) = segments(jwt)?;
        let Selected { key, is_typed, is_named } = header::select(keys, header, &self.profile)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map(Zeroizing::new)
            .map_err(|_| VerifyError::Malformed("the signature is not canonical base64url"))?;
        if !key.verifies(input.as_bytes(), &signature) {
            // Another key may have taken the place of the one that has no name.
            return Err(if is_named { VerifyError::Signature } else { VerifyError::Unnamed });
        }
        let claims = URL_SAFE_NO_PAD
            .decode(payload)
            .map_err(|_| VerifyError::Malformed("the claims are not canonical base64url"))?;
        let token = self.read(&claims, is_typed)?;
        self.check(&token, self.clock.now())?;
        Ok(VerifiedJwt::new(key.kid.clone(), token))
    }

    fn read(&self, claims: &[u8], is_typed: bool) -> Result<ActiveToken, VerifyError> {
        if self.is_plain {
            return strict_json::from_slice(claims).map_err(VerifyError::Json);
        }
        let mut claims = strict_json::from_slice(claims).map_err(VerifyError::Json)?;
        self.profile.apply(&mut claims, is_typed)?;
        ActiveToken::deserialize(Value::Object(claims)).map_err(VerifyError::Json)
    }

    fn check(&self, token: &ActiveToken, now: UnixTime) -> Result<(), VerifyError> {
        // RFC 9068 §4: "iss" MUST exactly match; "aud" MUST hold this resource's identifier.
        if token.issuer.as_deref() != Some(&*self.issuer) {
            return Err(VerifyError::Issuer);
        }
        if let Some(expected) = &self.audience {
            let audience = token.audience.as_ref();
            audience.and_then(|audience| audience.find(expected)).ok_or(VerifyError::Audience)?;
        }
        // RFC 9068 §2.2: REQUIRED claims.
        let required = [
            (token.audience.is_some(), "`aud` is missing"),
            (token.subject.is_some() || !self.profile.needs_subject(), "`sub` is missing"),
            (token.client.is_some(), "`client_id` is missing"),
            (token.jti.is_some() || !self.profile.needs_jti(), "`jti` is missing"),
            (token.is_access_token(), "they name another kind of token"),
        ];
        if let Some((_, why)) = required.iter().find(|(there, _)| !there) {
            return Err(VerifyError::Claims(why));
        }
        let issued = token.issued_at.ok_or(VerifyError::Claims("`iat` is missing"))?;
        let expires = token.expires_at.ok_or(VerifyError::Claims("`exp` is missing"))?;
        // RFC 7519 §4.1.4: the current time MUST be before the expiration time.
        if now >= expires + self.leeway {
            return Err(VerifyError::Expired);
        }
        let starts = token.not_before.unwrap_or(issued).max(issued);
        if now + self.leeway < starts {
            return Err(VerifyError::NotYetValid);
        }
        Ok(())
    }
}

/// Signing input, header, payload, signature.
fn segments(jwt: &str) -> Result<(&str, &str, &str, &str), VerifyError> {
    let parts = jwt.rsplit_once('.').and_then(|(input, signature)| {
        let (header, payload) = input.split_once('.')?;
        Some((input, header, payload, signature))
    });
    match parts {
        Some((_, header, payload, signature))
            if payload.contains('.')
                || [header, payload, signature].iter().any(|part| part.is_empty()) =>
        {
            Err(VerifyError::Malformed("it does not have three segments"))
        }
        Some(parts) => Ok(parts),
        None => Err(VerifyError::Malformed("it does not have three segments")),
    }
}

/// An access token that passed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct VerifiedJwt {
    /// The key that signed it.
    pub kid: Kid,
    /// Its claims.
    pub token: ActiveToken,
    /// `handle_hash`: for a phantom JWT, the digest of its handle's digest.
    pub handle_hash: Option<TokenDigest>,
    /// `stateless`: no store has its grant.
    pub stateless: bool,
}

impl VerifiedJwt {
    fn new(kid: Kid, mut token: ActiveToken) -> Self {
        // A value that this library does not write belongs to a claim of the app.
        let handle_hash =
            token.extra.get("handle_hash").and_then(|value| TokenDigest::deserialize(value).ok());
        if handle_hash.is_some() {
            token.extra.remove("handle_hash");
        }
        let stateless = token.extra.get("stateless").and_then(Value::as_bool);
        if stateless.is_some() {
            token.extra.remove("stateless");
        }
        Self { kid, token, handle_hash, stateless: stateless.unwrap_or(false) }
    }
}

impl VerifyError {
    /// Whether the token may be valid under keys that the issuer has published in the meantime: its
    /// key is not in the set, or it names none. All other checks that precede the signature have
    /// passed.
    #[must_use]
    pub const fn may_be_mended_by_new_keys(&self) -> bool {
        matches!(self, Self::UnknownKey(_) | Self::Unnamed)
    }

    /// The key that is not in the set, for [`VerifyError::UnknownKey`].
    #[must_use]
    pub const fn unknown_key(&self) -> Option<&Kid> {
        match self {
            Self::UnknownKey(kid) => Some(kid),
            _ => None,
        }
    }
}
