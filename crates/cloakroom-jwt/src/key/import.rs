//! Reading private keys of other programs: PEM (RFC 7468) and private JWKs (RFC 7517, RFC 7518 §6).

mod der;
mod roca;

use aws_lc_rs::error::KeyRejected;
use aws_lc_rs::rsa::{self, KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::strict_json;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::key::algorithm::Algorithm;
use crate::key::import::der::KeyType;
use crate::key::signing::{KeyError, Kind, Private, SigningKey, decode_block};

/// Why a private key is not imported. No text holds a part of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportRefusal {
    /// There is no key in the input.
    #[error("the input contains no private key: it must be PEM (PKCS#8, PKCS#1 or SEC 1) or a JWK")]
    NoKey,
    /// There are several private keys, and it is not clear which one is meant.
    #[error("the input contains {0} private keys: keep one in it")]
    SeveralKeys(usize),
    /// There is only a public key.
    #[error("the input contains a public key only, and signing needs the private one")]
    PublicOnly,
    /// The key is encrypted.
    #[error("the private key is encrypted: decrypt it first, for example with `openssl pkey`")]
    Encrypted,
    /// The key has another type, or is on another curve, than the algorithm needs.
    #[error("{algorithm} needs {needed}, and the key is {found}")]
    WrongType {
        /// The algorithm.
        algorithm: Algorithm,
        /// The key that it needs.
        needed: &'static str,
        /// The key in the input.
        found: &'static str,
    },
    /// A JWK that declares another algorithm.
    #[error("the JWK is for `{found}`, and not for {algorithm}")]
    OtherAlgorithm {
        /// The algorithm that was asked for.
        algorithm: Algorithm,
        /// The `alg` of the JWK.
        found: String,
    },
    /// Keys for this algorithm cannot be imported.
    #[error("keys for {0} cannot be imported: let the issuer make one")]
    NotImported(Algorithm),
    /// An RSA key of less than 2048 bits (RFC 7518 §3.3).
    #[error("the RSA key has {bits} bits, and at least 2048 are needed")]
    TooSmall {
        /// The length of the modulus.
        bits: usize,
    },
    /// The modulus has the fingerprint of the ROCA weakness (CVE-2017-15361).
    #[error(
        "the RSA key has the ROCA weakness (CVE-2017-15361), so that its private half can be \
         computed: make a new key, and do not use this one anywhere"
    )]
    Roca,
    /// The input is not what it claims to be, or its parts do not belong together.
    #[error("the private key cannot be read: {0}")]
    Malformed(&'static str),
}

impl SigningKey {
    /// Imports the private key in a PEM text: PKCS#8 (`PRIVATE KEY`, RFC 5208), PKCS#1
    /// (`RSA PRIVATE KEY`, RFC 8017) or SEC 1 (`EC PRIVATE KEY`, RFC 5915).
    ///
    /// This is stricter than [`from_pkcs8_pem`](Self::from_pkcs8_pem), which reads the first block: the
    /// text must contain exactly one private key, and an RSA modulus is checked for the ROCA weakness.
    ///
    /// # Errors
    ///
    /// [`KeyError::Refused`] with the reason.
    pub fn import_pem(algorithm: Algorithm, pem: &str) -> Result<Self, KeyError> {
        let (label, der) = private_block(pem)?;
        let found = match label {
            "RSA PRIVATE KEY" => KeyType::Rsa,
            "EC PRIVATE KEY" => der::sec1_curve(&der).ok_or(MALFORMED)?,
            _ => der::pkcs8_type(&der).ok_or(MALFORMED)?,
        };
        let kind = Kind::of(algorithm)?;
        expect(algorithm, kind, found)?;
        let private = match kind {
            Kind::Ec(curve) => Private::Ec(Box::new(
                match label {
                    "EC PRIVATE KEY" => EcdsaKeyPair::from_private_key_der(curve, &der),
                    _ => EcdsaKeyPair::from_pkcs8(curve, &der),
                }
                .map_err(inconsistent)?,
            )),
            Kind::Ed25519 => {
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
                Private::Ed25519(Box::new(pair.map_err(inconsistent)?))
            }
            Kind::Rsa(encoding) => {
                let (modulus, pair) = match label {
                    "RSA PRIVATE KEY" => (der::pkcs1_modulus(&der), rsa::KeyPair::from_der(&der)),
                    _ => (der::pkcs8_modulus(&der), rsa::KeyPair::from_pkcs8(&der)),
                };
                check_modulus(modulus.ok_or(MALFORMED)?)?;
                Private::Rsa(Box::new(pair.map_err(inconsistent)?), encoding)
            }
            #[cfg(feature = "ml-dsa")]
            Kind::MlDsa(_) => return Err(ImportRefusal::NotImported(algorithm).into()),
        };
        Self::new(algorithm, private)
    }

    /// Imports a private JWK: RSA with its CRT parameters, EC, or Ed25519. A JWK Set with one key is
    /// accepted, too. Its `kid` is not kept: the key gets its thumbprint, as every key does.
    ///
    /// # Errors
    ///
    /// [`KeyError::Refused`] with the reason.
    pub fn import_jwk(algorithm: Algorithm, json: &str) -> Result<Self, KeyError> {
        let jwk = one_jwk(json)?;
        if let Some(found) = jwk.alg.as_deref()
            && !algorithm.is_named(found)
        {
            return Err(ImportRefusal::OtherAlgorithm { algorithm, found: shortened(found) }.into());
        }
        let kind = Kind::of(algorithm)?;
        expect(algorithm, kind, jwk.key_type()?)?;
        if jwk.d.is_none() {
            return Err(ImportRefusal::PublicOnly.into());
        }
        let private = match kind {
            Kind::Ec(curve) => {
                let point = [&[4][..], &*decoded(&jwk.x)?, &*decoded(&jwk.y)?].concat();
                let pair =
                    EcdsaKeyPair::from_private_key_and_public_key(curve, &decoded(&jwk.d)?, &point);
                Private::Ec(Box::new(pair.map_err(inconsistent)?))
            }
            Kind::Ed25519 => {
                let seed = decoded(&jwk.d)?;
                if seed.len() != 32 {
                    return Err(ImportRefusal::Malformed("`d` must have 32 bytes").into());
                }
                let pair = Ed25519KeyPair::from_seed_and_public_key(&seed, &decoded(&jwk.x)?);
                Private::Ed25519(Box::new(pair.map_err(inconsistent)?))
            }
            Kind::Rsa(encoding) => {
                let modulus = decoded(&jwk.n)?;
                check_modulus(&modulus)?;
                if jwk.oth.is_some() {
                    let why = "an RSA key with more than two primes is not supported";
                    return Err(ImportRefusal::Malformed(why).into());
                }
                let components = KeyPairComponents {
                    public_key: PublicKeyComponents { n: modulus, e: decoded(&jwk.e)? },
                    d: decoded(&jwk.d)?,
                    p: decoded(&jwk.p)?,
                    q: decoded(&jwk.q)?,
                    dP: decoded(&jwk.dp)?,
                    dQ: decoded(&jwk.dq)?,
                    qInv: decoded(&jwk.qi)?,
                };
                let pair = rsa::KeyPair::from_components(&components);
                Private::Rsa(Box::new(pair.map_err(inconsistent)?), encoding)
            }
            #[cfg(feature = "ml-dsa")]
            Kind::MlDsa(_) => return Err(ImportRefusal::NotImported(algorithm).into()),
        };
        Self::new(algorithm, private)
    }
}

const MALFORMED: ImportRefusal = ImportRefusal::Malformed("its encoding is damaged");

fn inconsistent(_: KeyRejected) -> ImportRefusal {
    ImportRefusal::Malformed("it is damaged, or its parts do not belong together")
}

/// What somebody else wrote, for an error.
fn shortened(text: &str) -> String {
    text.chars().take(32).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Refuses a key of another type than the algorithm needs.
fn expect(algorithm: Algorithm, kind: Kind, found: KeyType) -> Result<(), ImportRefusal> {
    let needed = match kind {
        #[cfg(feature = "ml-dsa")]
        Kind::MlDsa(_) => return Err(ImportRefusal::NotImported(algorithm)),
        Kind::Rsa(_) => KeyType::Rsa,
        Kind::Ed25519 => KeyType::Ed25519,
        Kind::Ec(_) => match algorithm {
            Algorithm::Es384 => KeyType::P384,
            Algorithm::Es512 => KeyType::P521,
            _ => KeyType::P256,
        },
    };
    if found == needed {
        return Ok(());
    }
    let (needed, found) = (needed.name(), found.name());
    Err(ImportRefusal::WrongType { algorithm, needed, found })
}

/// Refuses a modulus that is short, or that a weak library made.
fn check_modulus(modulus: &[u8]) -> Result<(), ImportRefusal> {
    let start = modulus.iter().position(|byte| *byte != 0).unwrap_or(modulus.len());
    let modulus = &modulus[start..];
    let bits =
        modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
    if bits < 2048 {
        return Err(ImportRefusal::TooSmall { bits });
    }
    if roca::has_fingerprint(modulus) {
        return Err(ImportRefusal::Roca);
    }
    Ok(())
}

/// The only private key in a PEM text, with its label.
fn private_block(pem: &str) -> Result<(&str, Zeroizing<Vec<u8>>), ImportRefusal> {
    const PRIVATE: [&str; 3] = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
    let mut found = Vec::new();
    let (mut has_public, mut is_encrypted) = (false, false);
    let mut rest = pem;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, after) = after.split_once("-----").ok_or(MALFORMED)?;
        let (body, after) = after.split_once(&format!("-----END {label}-----")).ok_or(MALFORMED)?;
        // RFC 1421 §4.6.1.1: a header of the block names the encryption.
        if label == "ENCRYPTED PRIVATE KEY" || body.contains("ENCRYPTED") {
            is_encrypted = true;
        } else if PRIVATE.contains(&label) {
            found.push((label, body));
        } else if label.ends_with("PRIVATE KEY") {
            let why = "only PKCS#8, PKCS#1 and SEC 1 are supported";
            return Err(ImportRefusal::Malformed(why));
        } else {
            has_public |= label.ends_with("PUBLIC KEY") || label == "CERTIFICATE";
        }
        rest = after;
    }
    match found[..] {
        _ if found.len() + usize::from(is_encrypted) > 1 => {
            Err(ImportRefusal::SeveralKeys(found.len() + usize::from(is_encrypted)))
        }
        _ if is_encrypted => Err(ImportRefusal::Encrypted),
        [(label, body)] => Ok((label, decode_block(body).ok_or(MALFORMED)?)),
        _ if has_public => Err(ImportRefusal::PublicOnly),
        _ => Err(ImportRefusal::NoKey),
    }
}

/// The members of a private JWK. The private ones are wiped on drop.
#[derive(Deserialize, Default)]
#[serde(default)]
struct PrivateJwk {
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    x: Option<Zeroizing<String>>,
    y: Option<Zeroizing<String>>,
    n: Option<Zeroizing<String>>,
    e: Option<Zeroizing<String>>,
    d: Option<Zeroizing<String>>,
    p: Option<Zeroizing<String>>,
    q: Option<Zeroizing<String>>,
    dp: Option<Zeroizing<String>>,
    dq: Option<Zeroizing<String>>,
    qi: Option<Zeroizing<String>>,
    oth: Option<serde::de::IgnoredAny>,
    /// Of a JWK Set.
    keys: Option<Vec<PrivateJwk>>,
}

impl PrivateJwk {
    fn key_type(&self) -> Result<KeyType, ImportRefusal> {
        Ok(match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => KeyType::Rsa,
            ("EC", Some("P-256")) => KeyType::P256,
            ("EC", Some("P-384")) => KeyType::P384,
            ("EC", Some("P-521")) => KeyType::P521,
            ("OKP", Some("Ed25519")) => KeyType::Ed25519,
            ("EC" | "OKP", Some(_)) => KeyType::OtherCurve,
            ("oct", _) => {
                let why = "a shared secret is no signing key";
                return Err(ImportRefusal::Malformed(why));
            }
            _ => return Err(ImportRefusal::Malformed("its `kty` is missing or unknown")),
        })
    }
}

fn one_jwk(json: &str) -> Result<PrivateJwk, ImportRefusal> {
    let jwk: PrivateJwk = strict_json::from_slice(json.as_bytes())
        .map_err(|_| ImportRefusal::Malformed("it is not the JSON of a JWK"))?;
    let Some(mut keys) = jwk.keys else { return Ok(jwk) };
    match keys.len() {
        1 => keys.pop().ok_or(ImportRefusal::NoKey),
        0 => Err(ImportRefusal::NoKey),
        several => Err(ImportRefusal::SeveralKeys(several)),
    }
}

/// A member of a JWK: canonical base64url without padding.
fn decoded(member: &Option<Zeroizing<String>>) -> Result<Zeroizing<Vec<u8>>, ImportRefusal> {
    let text = member.as_ref().ok_or(ImportRefusal::Malformed("a member of the JWK is missing"))?;
    let mut bytes = Zeroizing::new(vec![0; text.len()]);
    let length = URL_SAFE_NO_PAD
        .decode_slice(text.as_bytes(), &mut bytes)
        .map_err(|_| ImportRefusal::Malformed("a member of the JWK is not canonical base64url"))?;
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
