//! Private keys and signers.

use std::fmt;

use async_trait::async_trait;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
    RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
};
#[cfg(feature = "ml-dsa")]
use aws_lc_rs::signature::{
    ML_DSA_44_SIGNING, ML_DSA_65_SIGNING, PqdsaKeyPair, PqdsaSigningAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloakroom_core::Kid;
use zeroize::Zeroizing;

use crate::key::algorithm::Algorithm;
use crate::key::encoded_header::{ACCESS_TOKEN_TYP, encoded_header};
use crate::key::import::ImportRefusal;
use crate::key::jwk::Jwk;
use crate::key::material::Material;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A local private key, which is the built-in [`Signer`]. It is redacted in `Debug`.
///
/// ```
/// use cloakroom_jwt::{Algorithm, SigningKey};
///
/// let key = SigningKey::generate(Algorithm::EdDsa)?;
/// let again = SigningKey::from_pkcs8_der(Algorithm::EdDsa, &key.to_pkcs8_der()?)?;
/// assert_eq!(key.kid(), again.kid(), "the kid is the thumbprint of the public key");
/// # Ok::<(), cloakroom_jwt::KeyError>(())
/// ```
pub struct SigningKey {
    private: Private,
    algorithm: Algorithm,
    jwk: Jwk,
    kid: Kid,
    /// The encoded header of access tokens.
    header: String,
}

pub(super) enum Private {
    Ec(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
    Rsa(Box<rsa::KeyPair>, &'static dyn RsaEncoding),
    #[cfg(feature = "ml-dsa")]
    MlDsa(Box<PqdsaKeyPair>),
}

impl SigningKey {
    /// Generates a key. An RSA key has 2048 bits, and generating it takes tens of milliseconds.
    ///
    /// # Errors
    ///
    /// If the cryptographic library fails, or `algorithm` has no key pairs.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let failed = |error: Unspecified| KeyError::Generate(error.into());
        Self::new(
            algorithm,
            match Kind::of(algorithm)? {
                Kind::Ec(curve) => {
                    Private::Ec(Box::new(EcdsaKeyPair::generate(curve).map_err(failed)?))
                }
                Kind::Ed25519 => {
                    Private::Ed25519(Box::new(Ed25519KeyPair::generate().map_err(failed)?))
                }
                Kind::Rsa(encoding) => Private::Rsa(
                    Box::new(rsa::KeyPair::generate(KeySize::Rsa2048).map_err(failed)?),
                    encoding,
                ),
                #[cfg(feature = "ml-dsa")]
                Kind::MlDsa(kind) => {
                    Private::MlDsa(Box::new(PqdsaKeyPair::generate(kind).map_err(failed)?))
                }
            },
        )
    }

    /// Reads a PKCS#8 `PrivateKeyInfo` (RFC 5208), as [`to_pkcs8_der`](Self::to_pkcs8_der) writes
    /// it.
    ///
    /// # Errors
    ///
    /// If it does not contain a key for this algorithm, or if it contains an RSA key of less than 2048
    /// bits.
    pub fn from_pkcs8_der(algorithm: Algorithm, der: &[u8]) -> Result<Self, KeyError> {
        let rejected = |error: aws_lc_rs::error::KeyRejected| KeyError::Rejected {
            algorithm,
            source: error.into(),
        };
        Self::new(
            algorithm,
            match Kind::of(algorithm)? {
                Kind::Ec(curve) => {
                    Private::Ec(Box::new(EcdsaKeyPair::from_pkcs8(curve, der).map_err(rejected)?))
                }
                Kind::Ed25519 => {
                    Private::Ed25519(Box::new(Ed25519KeyPair::from_pkcs8(der).map_err(rejected)?))
                }
                Kind::Rsa(encoding) => Private::Rsa(
                    Box::new(rsa::KeyPair::from_pkcs8(der).map_err(rejected)?),
                    encoding,
                ),
                #[cfg(feature = "ml-dsa")]
                Kind::MlDsa(kind) => {
                    Private::MlDsa(Box::new(PqdsaKeyPair::from_pkcs8(kind, der).map_err(rejected)?))
                }
            },
        )
    }

    /// Reads a PEM block `PRIVATE KEY` (PKCS#8) or, for RSA, `RSA PRIVATE KEY` (PKCS#1).
    ///
    /// # Errors
    ///
    /// If it does not contain a key for this algorithm, or if it contains an RSA key of less than 2048
    /// bits.
    pub fn from_pkcs8_pem(algorithm: Algorithm, pem: &str) -> Result<Self, KeyError> {
        let rejected = |source: Source| KeyError::Rejected { algorithm, source };
        if let Kind::Rsa(encoding) = Kind::of(algorithm)?
            && let Some(der) = pem_block(pem, "RSA PRIVATE KEY")
        {
            let pair = rsa::KeyPair::from_der(&der).map_err(|error| rejected(error.into()))?;
            return Self::new(algorithm, Private::Rsa(Box::new(pair), encoding));
        }
        let der = pem_block(pem, "PRIVATE KEY")
            .ok_or_else(|| rejected("it has no PEM block of a private key".into()))?;
        Self::from_pkcs8_der(algorithm, &der)
    }

    /// The private key as PKCS#8 version 1. It is wiped on drop. Seal it before you store it.
    ///
    /// # Errors
    ///
    /// If the cryptographic library fails.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        match &self.private {
            Private::Ec(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
            Private::Ed25519(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
            Private::Rsa(pair, _) => {
                AsDer::<Pkcs8V1Der<'_>>::as_der(&**pair).map(|der| der.as_ref().to_vec())
            }
            #[cfg(feature = "ml-dsa")]
            Private::MlDsa(pair) => pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()),
        }
        .map(Zeroizing::new)
        .map_err(|error| KeyError::Encode(error.into()))
    }

    /// The public key, with `alg`, `use` and its thumbprint as `kid`.
    #[must_use]
    pub const fn public_jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// The RFC 7638 thumbprint of the public key.
    #[must_use]
    pub const fn kid(&self) -> &Kid {
        &self.kid
    }

    /// The algorithm that it signs with.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn new(algorithm: Algorithm, private: Private) -> Result<Self, KeyError> {
        let material = private.public().ok_or(KeyError::Unsupported(algorithm))?;
        let jwk = Jwk::of_signer(algorithm, material);
        let kid = jwk.thumbprint();
        let header = encoded_header(algorithm, &kid, ACCESS_TOKEN_TYP);
        Ok(Self { private, algorithm, jwk, kid, header })
    }

    fn sign_now(&self, input: &[u8]) -> Result<Vec<u8>, Unspecified> {
        // The library draws its own random bytes and ignores the argument.
        let random = SystemRandom::new();
        match &self.private {
            Private::Ec(pair) => Ok(pair.sign(&random, input)?.as_ref().to_vec()),
            Private::Ed25519(pair) => Ok(pair.try_sign(input)?.as_ref().to_vec()),
            Private::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, input, &mut signature)?;
                Ok(signature)
            }
            #[cfg(feature = "ml-dsa")]
            Private::MlDsa(pair) => {
                let mut signature = vec![0; pair.algorithm().signature_len()];
                pair.sign(input, &mut signature)?;
                Ok(signature)
            }
        }
    }
}

/// The content of the first block with this label (RFC 7468 §2), if it is base64. No copy stays behind:
/// no buffer grows, and each is wiped.
fn pem_block(pem: &str, label: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    decode_block(body)
}

/// The content of a PEM block, if it is base64.
pub(super) fn decode_block(body: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::with_capacity(body.len()));
    text.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let mut der = Zeroizing::new(vec![0; text.len()]);
    let length = STANDARD.decode_slice(&*text, &mut der).ok()?;
    der.truncate(length);
    Some(der)
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Signs tokens: a [`SigningKey`], or your own implementation for an HSM or KMS. Put
/// [`#[async_trait]`](crate::async_trait) on your `impl`.
#[async_trait]
pub trait Signer: fmt::Debug + Send + Sync + 'static {
    /// The `kid` under which its public key is published.
    fn kid(&self) -> &Kid;

    /// The algorithm that it signs with.
    fn algorithm(&self) -> Algorithm;

    /// Signs a message. The signature has the format of JWS: for ECDSA, `r` followed by `s`
    /// (RFC 7518 §3.4), and not DER.
    ///
    /// # Errors
    ///
    /// If the signer fails.
    async fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, SignError>;

    /// The encoded header of an access token, if the signer keeps one. Otherwise
    /// [`sign_jwt`](crate::sign_jwt) encodes it each time.
    #[doc(hidden)]
    fn access_token_header(&self) -> Option<&str> {
        None
    }
}

#[async_trait]
impl Signer for SigningKey {
    fn kid(&self) -> &Kid {
        &self.kid
    }

    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    async fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, SignError> {
        tracing::trace!(target: "cloakroom::signature", kid = %self.kid, "a signature");
        self.sign_now(signing_input).map_err(SignError::new)
    }

    fn access_token_header(&self) -> Option<&str> {
        Some(&self.header)
    }
}

/// A signature could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the signer failed")]
pub struct SignError(#[source] Source);

impl SignError {
    /// An error with this cause.
    pub fn new(source: impl Into<Source>) -> Self {
        Self(source.into())
    }
}

/// A private key could not be made, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The cryptographic library could not generate a key.
    #[error("no key could be generated")]
    Generate(#[source] Source),
    /// The input does not contain a key for this algorithm, or the key is weak.
    #[error("the input does not contain a usable private key for {algorithm}")]
    Rejected {
        /// The algorithm that was asked for.
        algorithm: Algorithm,
        /// The cause.
        #[source]
        source: Source,
    },
    /// The private key could not be written.
    #[error("the private key could not be written")]
    Encode(#[source] Source),
    /// An algorithm without key pairs.
    #[error("{0} has no key pairs")]
    Unsupported(Algorithm),
    /// The key is not imported.
    #[error(transparent)]
    Refused(#[from] ImportRefusal),
    /// The shared secret is too short.
    #[error("the shared secret must have at least 32 random bytes")]
    TooShort,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Ec(&'static EcdsaSigningAlgorithm),
    Ed25519,
    Rsa(&'static dyn RsaEncoding),
    #[cfg(feature = "ml-dsa")]
    MlDsa(&'static PqdsaSigningAlgorithm),
}

impl Kind {
    pub(super) fn of(algorithm: Algorithm) -> Result<Self, KeyError> {
        Ok(match algorithm {
            Algorithm::Es256 => Self::Ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Es384 => Self::Ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::EdDsa => Self::Ed25519,
            Algorithm::Es512 => Self::Ec(&ECDSA_P521_SHA512_FIXED_SIGNING),
            Algorithm::Rs256 => Self::Rsa(&RSA_PKCS1_SHA256),
            Algorithm::Rs384 => Self::Rsa(&RSA_PKCS1_SHA384),
            Algorithm::Rs512 => Self::Rsa(&RSA_PKCS1_SHA512),
            Algorithm::Ps256 => Self::Rsa(&RSA_PSS_SHA256),
            Algorithm::Ps384 => Self::Rsa(&RSA_PSS_SHA384),
            Algorithm::Ps512 => Self::Rsa(&RSA_PSS_SHA512),
            #[cfg(feature = "ml-dsa")]
            Algorithm::MlDsa44 => Self::MlDsa(&ML_DSA_44_SIGNING),
            #[cfg(feature = "ml-dsa")]
            Algorithm::MlDsa65 => Self::MlDsa(&ML_DSA_65_SIGNING),
            Algorithm::Danger(_) => return Err(KeyError::Unsupported(algorithm)),
        })
    }
}

impl Private {
    fn public(&self) -> Option<Material> {
        match self {
            Self::Ec(pair) => Material::from_point(pair.public_key().as_ref()),
            Self::Ed25519(pair) => {
                Some(Material::Ed25519 { x: pair.public_key().as_ref().try_into().ok()? })
            }
            Self::Rsa(pair, _) => {
                let public = pair.public_key();
                Some(Material::Rsa {
                    n: public.modulus().big_endian_without_leading_zero().to_vec(),
                    e: public.exponent().big_endian_without_leading_zero().to_vec(),
                })
            }
            #[cfg(feature = "ml-dsa")]
            Self::MlDsa(pair) => {
                let public = pair.public_key().as_ref().to_vec();
                Some(if pair.algorithm() == &ML_DSA_44_SIGNING {
                    Material::MlDsa44 { public }
                } else {
                    Material::MlDsa65 { public }
                })
            }
        }
    }
}
