//! Sealing a request, so that it can wait in the user's browser.
//!
//! ```text
//! base64url( version 1 | key 1 | salt 16 | nonce 12 | ciphertext and tag )
//! ```
//!
//! Each string has a key of its own, derived from its salt: anyone can have any number of requests
//! sealed, and no number of them exhausts the nonces of AES-GCM.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::format::FormatError;
use cloakroom_core::store::StoreError;

use crate::error::TokenError;
use crate::flow::authorization_request::error::PageError;
use crate::flow::authorization_request::terms::Terms;
use crate::issuer::Inner;

const VERSION: u8 = 1;
const SALT: usize = 16;
/// Version, key, salt and nonce.
const HEADER: usize = 2 + SALT + NONCE_LEN;
const PURPOSE: &str = "authorization requests";

/// The longest string that is opened.
const MAX_BYTES: usize = 64 * 1024;

/// The most bytes of JSON for which [`seal`] makes such a string.
const MAX_PLAIN: usize = MAX_BYTES / 4 * 3 - HEADER - MAX_TAG_LEN;

/// Whether a request can be sealed and opened again. Few bytes of a request can be many of JSON: `\u0001`
/// stands for one.
pub(super) fn can_be_opened(terms: &Terms) -> bool {
    serde_json::to_vec(terms).is_ok_and(|plain| plain.len() <= MAX_PLAIN)
}

pub(super) fn seal(inner: &Inner, terms: &Terms, context: &[u8]) -> Result<String, TokenError> {
    if inner.single_use.is_none() {
        let why = "sealing an authorization request needs a store of single-use items: call \
                   `single_use(…)` on the builder";
        return Err(StoreError::Misuse(why).into());
    }
    let Some((id, key)) = inner.handles.keys_for(PURPOSE).next() else {
        return Err(TokenError::Unavailable("there is no handle secret"));
    };
    let mut bytes = vec![0; HEADER];
    (bytes[0], bytes[1]) = (VERSION, id);
    inner.random.fill(&mut bytes[2..])?;
    let mut sealed = serde_json::to_vec(terms).map_err(other)?;
    let key = message_key(&key, &bytes).map_err(other)?;
    key.seal_in_place_append_tag(nonce(&bytes).map_err(other)?, aad(&bytes, context), &mut sealed)
        .map_err(other)?;
    bytes.append(&mut sealed);
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

pub(super) fn open(inner: &Inner, sealed: &str, context: &[u8]) -> Result<Box<Terms>, PageError> {
    if sealed.len() > MAX_BYTES {
        return Err(PageError::Forged);
    }
    let bytes = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| PageError::Forged)?;
    let Some((header, ciphertext)) = bytes.split_at_checked(HEADER) else {
        return Err(PageError::Forged);
    };
    if header[0] != VERSION {
        return Err(PageError::Forged);
    }
    let keys = inner.handles.keys_for(PURPOSE).filter(|(id, _)| *id == header[1]);
    let plain = keys.filter_map(|(_, key)| {
        let key = message_key(&key, header).ok()?;
        let mut text = ciphertext.to_vec();
        let plain = key.open_in_place(nonce(header).ok()?, aad(header, context), &mut text).ok()?;
        Some(plain.to_vec())
    });
    let plain = plain.into_iter().next().ok_or(PageError::Forged)?;
    let terms: Box<Terms> = serde_json::from_slice(&plain).map_err(|_| PageError::Forged)?;
    if terms.expires_at <= inner.now() {
        return Err(PageError::Expired);
    }
    Ok(terms)
}

fn message_key(
    key: &[u8; 32],
    header: &[u8],
) -> Result<LessSafeKey, aws_lc_rs::error::Unspecified> {
    let okm_of = Salt::new(HKDF_SHA256, &header[2..2 + SALT]).extract(key);
    let okm = okm_of.expand(&[b"authorization request"], &AES_256_GCM)?;
    Ok(LessSafeKey::new(UnboundKey::from(okm)))
}

fn nonce(header: &[u8]) -> Result<Nonce, aws_lc_rs::error::Unspecified> {
    Nonce::try_assume_unique_for_key(&header[2 + SALT..HEADER])
}

/// The header has a fixed length, so that no two pairs give the same bytes.
fn aad(header: &[u8], context: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([&header[..HEADER], context].concat())
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TokenError {
    TokenError::Format(FormatError::Other(error.into()))
}
