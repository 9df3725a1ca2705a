//! JWT access tokens (RFC 9068), JWK Sets (RFC 7517) and rotating signing keys for **cloakroom**.
//!
//! | you want to | use |
//! |---|---|
//! | verify access tokens | [`Verifier`] with a [`KeySet`], prepared from a [`JwkSet`] |
//! | sign | [`sign_jwt`] with a [`SigningKey`], or your own [`Signer`] for an HSM or KMS |
//! | keep, publish and rotate signing keys | [`KeyManager`] |
//! | issue JWTs to clients | [`JwtFormat`] |
//! | issue opaque tokens that a gateway swaps for JWTs | [`PhantomFormat`] |
//!
//! The feature `ml-dsa` adds the post-quantum algorithms ML-DSA-44 and ML-DSA-65 (RFC 9964).
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use cloakroom_core::time::{Clock, SystemClock};
//! use cloakroom_jwt::{ACCESS_TOKEN_TYP, Algorithm, JwkSet, KeySet, SigningKey, Verifier, sign_jwt};
//! use serde_json::json;
//!
//! // The authorization server has the private key, and publishes the public one.
//! let key = SigningKey::generate(Algorithm::Es256)?;
//! let published = serde_json::to_vec(&JwkSet::new(vec![key.public_jwk().clone()]))?;
//!
//! let now = SystemClock::new().now().as_secs();
//! let jwt = sign_jwt(&key, ACCESS_TOKEN_TYP, &json!({
//!     "iss": "https://as.example", "aud": "https://orders.example", "sub": "alice",
//!     "client_id": "web-app", "scope": "orders:read", "jti": "1", "iat": now, "exp": now + 600,
//! })).await?;
//!
//! // The API prepares the published keys once, and verifies without any request.
//! let keys = KeySet::prepare(&JwkSet::from_json(&published)?);
//! let verifier = Verifier::new("https://as.example", "https://orders.example");
//! let verified = verifier.verify(&keys, jwt.expose())?;
//! assert!(verified.token.scope.contains("orders:read"));
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # Attacks that this crate prevents
//!
//! - **`alg: none` and algorithm confusion** (RFC 8725 §2.1): a key has one algorithm, which is
//!   fixed when the key is prepared. A header must name the same algorithm. `none` is not
//!   supported, and a public key is never used as an HMAC secret.
//! - **Keys that come with the token** (`jwk`, `jku`, `x5c`, `x5u`): they are refused.
//! - **One kind of JWT used as another** (RFC 8725 §2.8): `typ` must be `at+jwt`.
//! - **Ambiguous tokens**: duplicate members at any depth, padded or non-canonical base64url, times
//!   that are not integers, and `iss` as an array are refused.
//! - **Leaked secrets**: a JWK with a private member is not accepted as a [`Jwk`], and private keys are
//!   redacted in `Debug`.
//!
//! Shared secrets (HS256) and unsealed private keys exist only in [`danger`].

#![warn(clippy::exhaustive_structs, clippy::exhaustive_enums)]

mod format;
mod jws;
mod key;
mod manager;
mod seal;

#[cfg(test)]
mod test_support;

pub use format::access_claims::handle_hash;
pub use format::jwt::JwtFormat;
pub use format::phantom::{PhantomFormat, Swap, SwappedJwt};
pub use jws::profile::IssuerProfile;
pub use jws::verify::{VerifiedJwt, Verifier};
pub use jws::{MAX_JWT_BYTES, VerifyError, sign_jwt};
pub use key::algorithm::{Algorithm, UnknownAlgorithm};
pub use key::danger;
pub use key::encoded_header::ACCESS_TOKEN_TYP;
pub use key::import::ImportRefusal;
pub use key::jwk::{Jwk, JwkError};
pub use key::jwk_set::JwkSet;
pub use key::key_set::KeySet;
pub use key::signing::{KeyError, SignError, Signer, SigningKey};
pub use manager::KeyManager;
pub use manager::builder::KeyManagerBuilder;
pub use manager::check_ring::RingCheck;
pub use manager::error::{Compromised, KeyEvent, KeyManagerError};
pub use manager::reseal::Resealed;
pub use manager::ring::PublishedJwks;
pub use manager::status::KeyStatus;
pub use seal::{AesGcmSealer, KeySealer, SealError};

/// Wraps private keys, and wipes them on drop.
pub use cloakroom_core::Zeroizing;
/// For implementations of [`Signer`] and [`KeySealer`].
pub use cloakroom_core::async_trait;
/// The JSON errors in [`VerifyError`] and [`JwkError`].
pub use cloakroom_core::serde_json;
