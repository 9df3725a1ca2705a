//! The signature algorithms.

use std::fmt;
use std::str::FromStr;

/// A JWS signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1 and, with the feature `ml-dsa`, RFC 9964). A key has exactly
/// one.
///
/// `none` is not supported. HS256 exists only as [`danger::HS256`](crate::danger::HS256).
///
/// ```
/// use cloakroom_jwt::Algorithm;
///
/// assert_eq!(Algorithm::default(), Algorithm::Es256);
/// assert_eq!("EdDSA".parse(), Ok(Algorithm::EdDsa));
/// assert!("none".parse::<Algorithm>().is_err());
/// assert!("HS256".parse::<Algorithm>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    #[default]
    Es256,
    /// EdDSA with Ed25519.
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ML-DSA-44 (RFC 9964), which no known quantum computer would break. Its signatures have 2,420 bytes.
    #[cfg(feature = "ml-dsa")]
    MlDsa44,
    /// ML-DSA-65 (RFC 9964), which no known quantum computer would break. Its signatures have 3,309 bytes.
    #[cfg(feature = "ml-dsa")]
    MlDsa65,
    /// An algorithm of [`danger`](crate::danger). No name is parsed as such an algorithm.
    #[doc(hidden)]
    Danger(Hs256),
}

impl Algorithm {
    /// Its name in a JWS header and a JWK.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            #[cfg(feature = "ml-dsa")]
            Self::MlDsa44 => "ML-DSA-44",
            #[cfg(feature = "ml-dsa")]
            Self::MlDsa65 => "ML-DSA-65",
            Self::Danger(_) => "HS256",
        }
    }
}

impl Algorithm {
    /// Whether generating a key takes so long that other work should go on in the meantime.
    pub(crate) const fn is_slow_to_generate(self) -> bool {
        matches!(
            self,
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512
        )
    }

    /// Whether its signatures are long, as those of post-quantum algorithms are.
    pub(crate) const fn is_post_quantum(self) -> bool {
        match self {
            #[cfg(feature = "ml-dsa")]
            Self::MlDsa44 | Self::MlDsa65 => true,
            _ => false,
        }
    }

    /// Whether a JWS header names it so.
    pub(crate) fn is_named(self, alg: &str) -> bool {
        // RFC 9864 §2.2: "Ed25519" is "EdDSA" with its curve named.
        self.as_str() == alg || (self == Self::EdDsa && alg == "Ed25519")
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Marks an [`Algorithm`] as HS256. Only [`danger::HS256`](crate::danger::HS256) makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hs256(());

impl Hs256 {
    /// For [`danger`](crate::danger) alone.
    pub(super) const fn new() -> Self {
        Self(())
    }
}

/// The name is not that of an algorithm that this crate supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the algorithm is not one of ES256, ES384, ES512, EdDSA, RS256, RS384, RS512, PS256, PS384 and \
     PS512"
)]
#[non_exhaustive]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    /// Reads a name as RFC 7518 spells it; "alg" is case-sensitive (RFC 7515 §4.1.1). `Ed25519`
    /// (RFC 9864 §2.2) is EdDSA with the only curve that this crate uses for it.
    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        use jsonwebtoken::Algorithm as Named;
        // jsonwebtoken knows the names, and this crate decides which algorithms it allows.
        match name.parse() {
            Ok(Named::ES256) => Ok(Self::Es256),
            Ok(Named::EdDSA) => Ok(Self::EdDsa),
            Ok(Named::RS256) => Ok(Self::Rs256),
            Ok(Named::PS256) => Ok(Self::Ps256),
            Ok(Named::ES384) => Ok(Self::Es384),
            Ok(Named::RS384) => Ok(Self::Rs384),
            Ok(Named::RS512) => Ok(Self::Rs512),
            Ok(Named::PS384) => Ok(Self::Ps384),
            Ok(Named::PS512) => Ok(Self::Ps512),
            // Those that it does not know.
            Err(_) if name == "ES512" => Ok(Self::Es512),
            Err(_) if name == "Ed25519" => Ok(Self::EdDsa),
            #[cfg(feature = "ml-dsa")]
            Err(_) if name == "ML-DSA-44" => Ok(Self::MlDsa44),
            #[cfg(feature = "ml-dsa")]
            Err(_) if name == "ML-DSA-65" => Ok(Self::MlDsa65),
            _ => Err(UnknownAlgorithm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        for name in [
            "ES256", "ES384", "ES512", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384",
            "PS512",
        ] {
            assert_eq!(name.parse::<Algorithm>().unwrap().to_string(), name);
        }
        assert_eq!("Ed25519".parse(), Ok(Algorithm::EdDsa));
        for bad in [
            "", "none", "None", "NONE", "HS256", "HS512", "es256", "EDDSA", "ed25519", "Ed448",
            "ES256 ", "ES256K", "RS1",
        ] {
            assert_eq!(bad.parse::<Algorithm>(), Err(UnknownAlgorithm), "{bad:?}");
        }
    }
}
