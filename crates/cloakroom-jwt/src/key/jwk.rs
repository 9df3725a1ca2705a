//! Public keys as JSON (RFC 7517, RFC 7518 §6, RFC 8037 §2).

pub(crate) use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::Kid;
use cloakroom_core::strict_json::Object;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::key::algorithm::Algorithm;
use crate::key::material::Material;

/// A **public** signature key: EC on P-256, P-384 or P-521, Ed25519, RSA of 2048 to 8192 bits, or, with the
/// feature `ml-dsa`, ML-DSA-44 or ML-DSA-65.
///
/// Parsing refuses a key with a private member (`d`, `p`, `q`, `dp`, `dq`, `qi`, `oth`, `k`; for an ML-DSA key,
/// `priv`), an EC point that is not on its curve, an Ed25519 point of small order, base64url that is not canonical, and
/// an `alg` that does not match the key. Unknown members are ignored (RFC 7517 §4).
///
/// ```
/// use cloakroom_jwt::Jwk;
///
/// let jwk: Jwk = serde_json::from_str(
///     r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
/// )?;
/// assert_eq!(jwk.thumbprint().as_str(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
/// assert_eq!(jwk.algorithm(), None, "it declares none");
///
/// // A private key is refused.
/// let private = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
///     "d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}"#;
/// assert!(serde_json::from_str::<Jwk>(private).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwk {
    pub(crate) material: Material,
    kid: Option<Kid>,
    algorithm: Option<Algorithm>,
    usage: Option<String>,
    operations: Option<Vec<String>>,
}

impl Jwk {
    /// `kid`, if it has one.
    #[must_use]
    pub const fn kid(&self) -> Option<&Kid> {
        self.kid.as_ref()
    }

    /// The `alg` that it declares.
    #[must_use]
    pub const fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm
    }

    /// Its SHA-256 thumbprint (RFC 7638 §3), 43 characters of base64url.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "43 characters of base64url are a kid")]
    pub fn thumbprint(&self) -> Kid {
        let digest = Sha256::digest(self.material.canonical());
        Kid::new(URL_SAFE_NO_PAD.encode(digest)).expect("43 characters of base64url are a kid")
    }

    /// The public half of a signing key. Its thumbprint is its `kid`.
    pub(crate) fn of_signer(algorithm: Algorithm, material: Material) -> Self {
        let mut jwk = Self {
            material,
            kid: None,
            algorithm: Some(algorithm),
            usage: Some("sig".to_owned()),
            operations: None,
        };
        jwk.kid = Some(jwk.thumbprint());
        jwk
    }

    /// Whether it may be used to verify signatures (RFC 7517 §4.2, §4.3).
    pub(crate) fn may_verify(&self) -> bool {
        self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.operations.as_ref().is_none_or(|all| all.iter().any(|one| one == "verify"))
    }

    /// The algorithm that it is used with: the declared one, or the default of its kind.
    pub(crate) fn pinned(&self) -> Algorithm {
        self.algorithm.unwrap_or_else(|| self.material.default_algorithm())
    }
}

/// A public key or a JWK Set was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwkError {
    /// The JWK Set is too large.
    #[error("the JWK Set has {size} bytes, but may have at most {limit}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The largest size, in bytes.
        limit: usize,
    },
    /// The JWK Set has too many keys.
    #[error("the JWK Set has {count} keys, but may have at most {limit}")]
    TooManyKeys {
        /// The number of keys.
        count: usize,
        /// The largest number of keys allowed.
        limit: usize,
    },
    /// The JSON is not what RFC 7517 requires.
    #[error("the value is not a JWK Set")]
    Json(#[from] serde_json::Error),
    /// The key cannot be used.
    #[error("the public key cannot be used: {0}")]
    Unusable(&'static str),
}

/// A member of which only the presence matters.
#[derive(Debug, Default)]
pub(crate) struct Present(pub(crate) bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Read<'a> {
    #[serde(borrow)]
    kty: Cow<'a, str>,
    #[serde(borrow)]
    crv: Option<Cow<'a, str>>,
    #[serde(borrow)]
    x: Option<Cow<'a, str>>,
    #[serde(borrow)]
    y: Option<Cow<'a, str>>,
    #[serde(borrow)]
    n: Option<Cow<'a, str>>,
    #[serde(borrow)]
    e: Option<Cow<'a, str>>,
    #[cfg(feature = "ml-dsa")]
    #[serde(borrow, rename = "pub")]
    public: Option<Cow<'a, str>>,
    kid: Option<Kid>,
    #[serde(borrow)]
    alg: Option<Cow<'a, str>>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    d: Present,
    p: Present,
    q: Present,
    dp: Present,
    dq: Present,
    qi: Present,
    oth: Present,
    k: Present,
    #[cfg(feature = "ml-dsa")]
    #[serde(rename = "priv")]
    private: Present,
}

const PRIVATE: &str = "it holds a private or a shared secret";

impl TryFrom<Read<'_>> for Jwk {
    type Error = JwkError;

    fn try_from(read: Read<'_>) -> Result<Self, JwkError> {
        let private = [&read.d, &read.p, &read.q, &read.dp, &read.dq, &read.qi, &read.oth, &read.k];
        if private.iter().any(|member| member.0) {
            return Err(JwkError::Unusable(PRIVATE));
        }
        let material = material(&read).map_err(JwkError::Unusable)?;
        material.check().map_err(JwkError::Unusable)?;
        let algorithm = match read.alg.as_deref().map(str::parse) {
            None => None,
            Some(Ok(algorithm)) if material.fits(algorithm) => Some(algorithm),
            Some(Ok(_)) => return Err(JwkError::Unusable("`alg` does not match the key")),
            Some(Err(_)) => return Err(JwkError::Unusable("its `alg` is not supported")),
        };
        Ok(Self { material, kid: read.kid, algorithm, usage: read.usage, operations: read.key_ops })
    }
}

fn material(read: &Read<'_>) -> Result<Material, &'static str> {
    // The engine refuses padding and trailing bits: one key has one spelling.
    let bytes = |member: &Option<Cow<'_, str>>| {
        let text = member.as_deref().ok_or("a required member is missing")?;
        URL_SAFE_NO_PAD.decode(text).map_err(|_| "a member is not canonical base64url")
    };
    let size = |_| "a coordinate has the wrong size";
    Ok(match (&*read.kty, read.crv.as_deref()) {
        ("EC", Some("P-256")) => Material::P256 {
            x: bytes(&read.x)?.try_into().map_err(size)?,
            y: bytes(&read.y)?.try_into().map_err(size)?,
        },
        ("EC", Some("P-384")) => Material::P384 {
            x: bytes(&read.x)?.try_into().map_err(size)?,
            y: bytes(&read.y)?.try_into().map_err(size)?,
        },
        ("EC", Some("P-521")) => Material::P521 {
            x: bytes(&read.x)?.try_into().map_err(size)?,
            y: bytes(&read.y)?.try_into().map_err(size)?,
        },
        ("OKP", Some("Ed25519")) => {
            Material::Ed25519 { x: bytes(&read.x)?.try_into().map_err(size)? }
        }
        ("RSA", _) => Material::Rsa { n: bytes(&read.n)?, e: bytes(&read.e)? },
        // RFC 9964 §3: `priv` MUST NOT be present in public keys.
        #[cfg(feature = "ml-dsa")]
        ("AKP", _) if read.private.0 => return Err(PRIVATE),
        // The same section: `alg` is REQUIRED.
        #[cfg(feature = "ml-dsa")]
        ("AKP", _) if read.alg.as_deref() == Some("ML-DSA-44") => {
            Material::MlDsa44 { public: bytes(&read.public)? }
        }
        #[cfg(feature = "ml-dsa")]
        ("AKP", _) if read.alg.as_deref() == Some("ML-DSA-65") => {
            Material::MlDsa65 { public: bytes(&read.public)? }
        }
        _ => return Err("its `kty` or `crv` is not supported"),
    })
}

impl<'de> Deserialize<'de> for Jwk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object(read) = Object::<Read<'_>>::deserialize(deserializer)?;
        read.try_into().map_err(serde::de::Error::custom)
    }
}

#[derive(Serialize, Default)]
struct Written<'a> {
    kty: &'static str,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_ops: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a Kid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[cfg(feature = "ml-dsa")]
    #[serde(rename = "pub", skip_serializing_if = "Option::is_none")]
    public: Option<String>,
}

impl Serialize for Jwk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
        let mut written = Written {
            usage: self.usage.as_deref(),
            key_ops: self.operations.as_deref(),
            alg: self.algorithm.map(Algorithm::as_str),
            kid: self.kid.as_ref(),
            ..Written::default()
        };
        match &self.material {
            Material::P256 { x, y } => {
                (written.kty, written.crv) = ("EC", Some("P-256"));
                (written.x, written.y) = (text(x), text(y));
            }
            Material::P384 { x, y } => {
                (written.kty, written.crv) = ("EC", Some("P-384"));
                (written.x, written.y) = (text(x), text(y));
            }
            Material::P521 { x, y } => {
                (written.kty, written.crv) = ("EC", Some("P-521"));
                (written.x, written.y) = (text(x), text(y));
            }
            Material::Ed25519 { x } => {
                (written.kty, written.crv) = ("OKP", Some("Ed25519"));
                written.x = text(x);
            }
            Material::Rsa { n, e } => {
                written.kty = "RSA";
                (written.n, written.e) = (text(n), text(e));
            }
            #[cfg(feature = "ml-dsa")]
            Material::MlDsa44 { public } | Material::MlDsa65 { public } => {
                written.kty = "AKP";
                written.alg = Some(self.material.default_algorithm().as_str());
                written.public = text(public);
            }
        }
        written.serialize(serializer)
    }
}

#[cfg(test)]
mod tests;
