//! As much DER (X.690 §10) as it takes to say what a private key is. The cryptographic library reads the
//! key itself.

/// What a private key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyType {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
    /// A curve that no algorithm here uses.
    OtherCurve,
    /// A key of another type, such as one for RSA-PSS alone.
    Other,
}

impl KeyType {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rsa => "an RSA key",
            Self::P256 => "an EC key on P-256",
            Self::P384 => "an EC key on P-384",
            Self::P521 => "an EC key on P-521",
            Self::Ed25519 => "an Ed25519 key",
            Self::OtherCurve => "a key on another curve",
            Self::Other => "a key of another type",
        }
    }

    fn of_curve(oid: &[u8]) -> Self {
        match oid {
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07] => Self::P256,
            [0x2b, 0x81, 0x04, 0x00, 0x22] => Self::P384,
            [0x2b, 0x81, 0x04, 0x00, 0x23] => Self::P521,
            _ => Self::OtherCurve,
        }
    }
}

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// `[0]`, constructed.
const PARAMETERS: u8 = 0xa0;

const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const ED448: &[u8] = &[0x2b, 0x65, 0x71];

/// The content of the next element, which must have this tag.
fn take<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (found, after) = rest.split_first()?;
    if *found != tag {
        return None;
    }
    let (first, mut after) = after.split_first()?;
    let length = match *first {
        short @ 0..=0x7f => usize::from(short),
        long @ 0x81..=0x84 => {
            let (bytes, tail) = after.split_at_checked(usize::from(long - 0x80))?;
            after = tail;
            bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
        }
        _ => return None,
    };
    let (content, tail) = after.split_at_checked(length)?;
    *rest = tail;
    Some(content)
}

/// The algorithm and the content of a `PrivateKeyInfo` (RFC 5208 §5).
fn pkcs8(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut info = take(&mut &*der, SEQUENCE)?;
    take(&mut info, INTEGER)?;
    let algorithm = take(&mut info, SEQUENCE)?;
    Some((algorithm, take(&mut info, OCTETS)?))
}

pub(super) fn pkcs8_type(der: &[u8]) -> Option<KeyType> {
    let (mut algorithm, _) = pkcs8(der)?;
    Some(match take(&mut algorithm, OID)? {
        RSA_ENCRYPTION => KeyType::Rsa,
        // RFC 5480 §2.1.1: the parameters name the curve.
        EC_PUBLIC_KEY => take(&mut algorithm, OID).map_or(KeyType::OtherCurve, KeyType::of_curve),
        ED25519 => KeyType::Ed25519,
        ED448 => KeyType::OtherCurve,
        _ => KeyType::Other,
    })
}

/// The modulus in a `PrivateKeyInfo` of RSA.
pub(super) fn pkcs8_modulus(der: &[u8]) -> Option<&[u8]> {
    pkcs1_modulus(pkcs8(der)?.1)
}

/// The modulus in an `RSAPrivateKey` (RFC 8017 §A.1.2).
pub(super) fn pkcs1_modulus(der: &[u8]) -> Option<&[u8]> {
    let mut key = take(&mut &*der, SEQUENCE)?;
    take(&mut key, INTEGER)?;
    take(&mut key, INTEGER)
}

/// The curve of an `ECPrivateKey` (RFC 5915 §3).
pub(super) fn sec1_curve(der: &[u8]) -> Option<KeyType> {
    let mut key = take(&mut &*der, SEQUENCE)?;
    take(&mut key, INTEGER)?;
    take(&mut key, OCTETS)?;
    let Some(mut parameters) = take(&mut key, PARAMETERS) else {
        return Some(KeyType::OtherCurve);
    };
    Some(take(&mut parameters, OID).map_or(KeyType::OtherCurve, KeyType::of_curve))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        for bad in [&[][..], &[0x30], &[0x30, 1], &[0x30, 0x80, 0], &[0x30, 0x85, 0, 0, 0, 0, 0]] {
            assert_eq!(take(&mut &*bad, SEQUENCE), None, "{bad:?}");
        }
        let mut rest: &[u8] = &[0x30, 0x82, 0, 1, 7, 9];
        assert_eq!(take(&mut rest, SEQUENCE), Some(&[7][..]));
        assert_eq!(rest, [9]);
    }
}
