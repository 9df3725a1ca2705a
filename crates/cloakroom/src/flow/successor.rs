//! Encrypts the successor of a spent refresh token for the holder of that token.
//!
//! The key is derived from the spent token, which no store has, so a leaked database reveals no
//! successor.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use cloakroom_core::format::FormatError;
use cloakroom_core::handle::ChainHandle;
use cloakroom_core::record::GrantRecord;
use cloakroom_core::{Random, TokenSecret};
use zeroize::Zeroizing;

/// Seals `successor`, the credential of `generation`, for the holder of `spent`.
pub(crate) fn seal(
    issuer: &str,
    spent: &ChainHandle,
    grant: &GrantRecord,
    generation: u32,
    successor: &TokenSecret,
    random: &Random,
) -> Result<Vec<u8>, FormatError> {
    let nonce: [u8; NONCE_LEN] = random.array()?;
    let failed = |error: aws_lc_rs::error::Unspecified| FormatError::Other(Box::new(error));
    // Encrypt in place, with a separate tag: a buffer that grows would leave plaintext behind.
    let mut sealed = Zeroizing::new(successor.expose().as_bytes().to_vec());
    let tag = key(spent)?
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context(issuer, grant, generation)),
            &mut sealed,
        )
        .map_err(failed)?;
    Ok([&nonce[..], &sealed, tag.as_ref()].concat())
}

/// Opens what [`seal`] sealed; `None` if it was sealed for another token, or is damaged.
pub(crate) fn open(
    issuer: &str,
    spent: &ChainHandle,
    grant: &GrantRecord,
    generation: u32,
    sealed: &[u8],
) -> Option<TokenSecret> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
    let mut sealed = Zeroizing::new(sealed.to_vec());
    let plain = key(spent)
        .ok()?
        .open_in_place(
            Nonce::try_assume_unique_for_key(nonce).ok()?,
            Aad::from(context(issuer, grant, generation)),
            &mut sealed,
        )
        .ok()?;
    Some(TokenSecret::new(std::str::from_utf8(plain).ok()?))
}

fn key(spent: &ChainHandle) -> Result<LessSafeKey, FormatError> {
    Salt::new(HKDF_SHA256, b"cloakroom")
        .extract(spent.expose())
        .expand(&[b"refresh successor"], &AES_256_GCM)
        .map(|okm| LessSafeKey::new(UnboundKey::from(okm)))
        .map_err(|error| FormatError::Other(Box::new(error)))
}

/// The additional data: the ciphertext opens for no other grant, generation, client or issuer.
fn context(issuer: &str, grant: &GrantRecord, generation: u32) -> Vec<u8> {
    [
        &grant.id.as_bytes()[..],
        &generation.to_be_bytes(),
        grant.client.as_str().as_bytes(),
        // A client identifier and a URL do not contain this byte.
        &[0],
        issuer.as_bytes(),
    ]
    .concat()
}
