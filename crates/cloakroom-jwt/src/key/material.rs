//! The material of a public key, without its metadata.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
};
#[cfg(feature = "ml-dsa")]
use aws_lc_rs::signature::{ML_DSA_44, ML_DSA_44_SIGNING, ML_DSA_65, ML_DSA_65_SIGNING};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::key::algorithm::Algorithm;

/// A public key. Coordinates have full size, and integers have no leading zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Material {
    P256 {
        x: [u8; 32],
        y: [u8; 32],
    },
    P384 {
        x: [u8; 48],
        y: [u8; 48],
    },
    P521 {
        x: [u8; 66],
        y: [u8; 66],
    },
    Ed25519 {
        x: [u8; 32],
    },
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    #[cfg(feature = "ml-dsa")]
    MlDsa44 {
        public: Vec<u8>,
    },
    #[cfg(feature = "ml-dsa")]
    MlDsa65 {
        public: Vec<u8>,
    },
}

impl Material {
    /// From an uncompressed point (SEC 1 §2.3.3): 4, x, y.
    pub(crate) fn from_point(point: &[u8]) -> Option<Self> {
        let (4, xy) = point.split_first().map(|(form, xy)| (*form, xy))? else {
            return None;
        };
        let (x, y) = xy.split_at(xy.len() / 2);
        Some(match x.len() {
            32 => Self::P256 { x: x.try_into().ok()?, y: y.try_into().ok()? },
            48 => Self::P384 { x: x.try_into().ok()?, y: y.try_into().ok()? },
            _ => Self::P521 { x: x.try_into().ok()?, y: y.try_into().ok()? },
        })
    }

    /// The algorithm of a key that declares none: the only one of its curve, or RS256, which issuers
    /// that leave it out mean (RFC 9068 §2.1).
    pub(crate) const fn default_algorithm(&self) -> Algorithm {
        match self {
            Self::P256 { .. } => Algorithm::Es256,
            Self::P384 { .. } => Algorithm::Es384,
            Self::P521 { .. } => Algorithm::Es512,
            Self::Ed25519 { .. } => Algorithm::EdDsa,
            Self::Rsa { .. } => Algorithm::Rs256,
            #[cfg(feature = "ml-dsa")]
            Self::MlDsa44 { .. } => Algorithm::MlDsa44,
            #[cfg(feature = "ml-dsa")]
            Self::MlDsa65 { .. } => Algorithm::MlDsa65,
        }
    }

    /// Whether it can be used with `algorithm`.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa { .. } => rsa_parameters(algorithm).is_some(),
            _ => self.default_algorithm() == algorithm,
        }
    }

    /// Parses the key for verification with `algorithm`. This checks that the point is on its curve, or
    /// that the integers form an RSA key.
    pub(crate) fn prepare(&self, algorithm: Algorithm) -> Result<ParsedPublicKey, &'static str> {
        let point = |x: &[u8], y: &[u8]| [&[4], x, y].concat();
        match (self, algorithm) {
            (Self::P256 { x, y }, Algorithm::Es256) => {
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point(x, y))
                    .map_err(|_| "the point is not on P-256")
            }
            (Self::P384 { x, y }, Algorithm::Es384) => {
                ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point(x, y))
                    .map_err(|_| "the point is not on P-384")
            }
            (Self::Ed25519 { x }, Algorithm::EdDsa) => {
                ParsedPublicKey::new(&ED25519, x).map_err(|_| "no Ed25519 public key")
            }
            (Self::P521 { x, y }, Algorithm::Es512) => {
                ParsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point(x, y))
                    .map_err(|_| "the point is not on P-521")
            }
            (Self::Rsa { n, e }, algorithm) => RsaPublicKeyComponents { n, e }
                .to_parsed_public_key(
                    rsa_parameters(algorithm).ok_or("`alg` does not match the key")?,
                )
                .map_err(|_| "no RSA public key"),
            // The library also takes another encoding, so the length is checked first.
            #[cfg(feature = "ml-dsa")]
            (Self::MlDsa44 { public }, Algorithm::MlDsa44)
                if public.len() == ML_DSA_44_SIGNING.public_key_len() =>
            {
                ParsedPublicKey::new(&ML_DSA_44, public).map_err(|_| "no ML-DSA-44 public key")
            }
            #[cfg(feature = "ml-dsa")]
            (Self::MlDsa65 { public }, Algorithm::MlDsa65)
                if public.len() == ML_DSA_65_SIGNING.public_key_len() =>
            {
                ParsedPublicKey::new(&ML_DSA_65, public).map_err(|_| "no ML-DSA-65 public key")
            }
            #[cfg(feature = "ml-dsa")]
            (Self::MlDsa44 { .. }, Algorithm::MlDsa44)
            | (Self::MlDsa65 { .. }, Algorithm::MlDsa65) => Err("`pub` has the wrong size"),
            _ => Err("`alg` does not match the key"),
        }
    }

    /// The checks that [`prepare`](Self::prepare) leaves to the first verification.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if let Self::Rsa { n, e } = self {
            // RFC 7518 §6.3.1.1: no extra zero octets. §3.3: 2048 bits or larger MUST be used.
            let leading = |bytes: &[u8]| bytes.first().copied().unwrap_or(0);
            if leading(n) == 0 || leading(e) == 0 {
                return Err("`n` or `e` is empty or has a leading zero");
            }
            let bits = n.len() * 8 - leading(n).leading_zeros() as usize;
            if !(2048..=8192).contains(&bits) {
                return Err("an RSA key must have 2048 to 8192 bits");
            }
            let even = e.last().is_none_or(|byte| byte % 2 == 0);
            if e.len() > 4 || **e == [1] || even {
                return Err("`e` must be odd, at least 3, and at most 4 bytes long");
            }
            if n.last().is_none_or(|byte| byte % 2 == 0) {
                return Err("`n` is even, so it is not the product of two large primes");
            }
        }
        // RFC 8032 §5.1.7 leaves it to the application.
        if matches!(self, Self::Ed25519 { x } if is_weak(x)) {
            return Err("the point is of small order or not canonical");
        }
        self.prepare(self.default_algorithm()).map(|_| ())
    }

    /// RFC 7638 §3.2: only the required members, in lexicographic order, without white space.
    pub(crate) fn canonical(&self) -> String {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::P256 { x, y } => {
                let (x, y) = (b64(x), b64(y));
                format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            Self::P384 { x, y } => {
                let (x, y) = (b64(x), b64(y));
                format!(r#"{{"crv":"P-384","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            Self::P521 { x, y } => {
                let (x, y) = (b64(x), b64(y));
                format!(r#"{{"crv":"P-521","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            Self::Ed25519 { x } => {
                format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, b64(x))
            }
            Self::Rsa { n, e } => {
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, b64(e), b64(n))
            }
            // RFC 9964 §6: the required members are `alg`, `kty` and `pub`.
            #[cfg(feature = "ml-dsa")]
            Self::MlDsa44 { public } | Self::MlDsa65 { public } => {
                let (alg, public) = (self.default_algorithm(), b64(public));
                format!(r#"{{"alg":"{alg}","kty":"AKP","pub":"{public}"}}"#)
            }
        }
    }
}

/// The parameters of an RSA algorithm.
fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// Whether an Ed25519 point has a small order, so that anyone can make signatures for it, or has a `y`
/// with a second form below the prime 2²⁵⁵ - 19.
fn is_weak(point: &[u8; 32]) -> bool {
    /// `y` of the points of order 8, little-endian.
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
            0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
            0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
            0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
            0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let mut y = *point;
    // The highest bit is the sign of `x`.
    y[31] &= 0x7f;
    let tail_is = |byte: u8, last: u8| y[1..31].iter().all(|b| *b == byte) && y[31] == last;
    // 0 and 1 have order 4 and 1, p - 1 has order 2, and p and more are spelled wrong.
    (tail_is(0, 0) && y[0] <= 1) || (tail_is(0xff, 0x7f) && y[0] >= 0xec) || ORDER_8.contains(&y)
}
