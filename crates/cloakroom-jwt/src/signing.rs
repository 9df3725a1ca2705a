//! Private keys, and what signs with them.

use std::fmt;

use async_trait::async_trait;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding,
};
use cloakroom_core::Kid;
use jsonwebtoken::EncodingKey;
use zeroize::Zeroizing;

use crate::algorithm::Algorithm;
use crate::jwk::Jwk;
use crate::material::Material;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A local private key, prepared once; the built-in [`Signer`]. Redacted in `Debug`.
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
}

enum Private {
    Ec(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
    Rsa(Box<rsa::KeyPair>, &'static dyn RsaEncoding),
}

impl SigningKey {
    /// A new key. RSA keys have 2048 bits, and take tens of milliseconds.
    ///
    /// # Errors
    ///
    /// If the cryptographic library fails, or `algorithm` has no key pairs.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let failed = |error: aws_lc_rs::error::Unspecified| KeyError::Generate(error.into());
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
            },
        )
    }

    /// Reads a PKCS#8 `PrivateKeyInfo` (RFC 5208), as [`to_pkcs8_der`](Self::to_pkcs8_der) writes
    /// it.
    ///
    /// # Errors
    ///
    /// If it holds no key of this algorithm, or an RSA key of less than 2048 bits.
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
            },
        )
    }

    /// Reads a PEM block `PRIVATE KEY` (PKCS#8) or, for RSA, `RSA PRIVATE KEY` (PKCS#1).
    ///
    /// # Errors
    ///
    /// If it holds no key of this algorithm, or an RSA key of less than 2048 bits.
    pub fn from_pkcs8_pem(algorithm: Algorithm, pem: &str) -> Result<Self, KeyError> {
        let rejected = |source: Source| KeyError::Rejected { algorithm, source };
        let kind = Kind::of(algorithm)?;
        let der = match kind {
            Kind::Ec(_) => EncodingKey::from_ec_pem(pem.as_bytes()),
            Kind::Ed25519 => EncodingKey::from_ed_pem(pem.as_bytes()),
            Kind::Rsa(_) => EncodingKey::from_rsa_pem(pem.as_bytes()),
        }
        .map_err(|error| rejected(error.into()))?;
        match kind {
            // The reader takes the PKCS#1 key out of its PKCS#8 wrapping.
            Kind::Rsa(encoding) => {
                let pair = rsa::KeyPair::from_der(der.as_bytes())
                    .map_err(|error| rejected(error.into()))?;
                Self::new(algorithm, Private::Rsa(Box::new(pair), encoding))
            }
            _ => Self::from_pkcs8_der(algorithm, der.as_bytes()),
        }
    }

    /// The private key as PKCS#8 version 1, wiped on drop. Seal it before it goes anywhere.
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

    /// The one algorithm it signs with.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn new(algorithm: Algorithm, private: Private) -> Result<Self, KeyError> {
        let material = private.public().ok_or(KeyError::Unsupported(algorithm))?;
        let jwk = Jwk::of_signer(algorithm, material);
        Ok(Self { kid: jwk.thumbprint(), private, algorithm, jwk })
    }

    fn sign_now(&self, input: &[u8]) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
        // The library draws its own random bytes and ignores the argument.
        let random = SystemRandom::new();
        match &self.private {
            Private::Ec(pair) => pair.sign(&random, input).map(|sig| sig.as_ref().to_vec()),
            Private::Ed25519(pair) => pair.try_sign(input).map(|sig| sig.as_ref().to_vec()),
            Private::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, input, &mut signature)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// What signs tokens: a [`SigningKey`], or a remote key (HSM, KMS) of the app's own.
#[async_trait]
pub trait Signer: fmt::Debug + Send + Sync + 'static {
    /// The `kid` under which its public key is published.
    fn kid(&self) -> &Kid;

    /// The one algorithm it signs with.
    fn algorithm(&self) -> Algorithm;

    /// Signs. The signature is as JWS has it: for ECDSA `r` and `s` one after the other
    /// (RFC 7518 §3.4), never DER.
    ///
    /// # Errors
    ///
    /// If no signature can be made just now.
    async fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, SignError>;
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
}

/// A signature could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the signer failed")]
pub struct SignError(#[source] Source);

impl SignError {
    /// A failure with this cause.
    pub fn new(source: impl Into<Source>) -> Self {
        Self(source.into())
    }
}

/// A private key cannot be made, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The cryptographic library made no key.
    #[error("no key could be generated")]
    Generate(#[source] Source),
    /// The input holds no key for this algorithm, or a weak one.
    #[error("no usable {algorithm} private key")]
    Rejected {
        /// What it should have been for.
        algorithm: Algorithm,
        /// What was wrong.
        #[source]
        source: Source,
    },
    /// The private key cannot be written.
    #[error("the private key could not be written")]
    Encode(#[source] Source),
    /// An algorithm without key pairs.
    #[error("{0} has no key pairs")]
    Unsupported(Algorithm),
    /// A shared secret that can be guessed.
    #[error("a shared secret has at least 32 random bytes")]
    TooShort,
}

#[derive(Clone, Copy)]
enum Kind {
    Ec(&'static EcdsaSigningAlgorithm),
    Ed25519,
    Rsa(&'static dyn RsaEncoding),
}

impl Kind {
    fn of(algorithm: Algorithm) -> Result<Self, KeyError> {
        Ok(match algorithm {
            Algorithm::Es256 => Self::Ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Es384 => Self::Ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::EdDsa => Self::Ed25519,
            Algorithm::Rs256 => Self::Rsa(&RSA_PKCS1_SHA256),
            Algorithm::Ps256 => Self::Rsa(&RSA_PSS_SHA256),
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
        }
    }
}
