//! The bytes of a body: its version, and its fields in a fixed order, without their names.
//!
//! A number is in LEB128, seven bits a byte, the lowest first. Text, JSON and bytes of any length come after their
//! length, items after their number, and what may be missing after a byte that says whether it is there.

use std::collections::BTreeMap;
use std::error::Error;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::record::claims::{Claims, Device};
use crate::record::{
    ChainKey, CodeBinding, Confirmation, SealedSuccessor, SpentBefore, UnknownFields,
};
use crate::scope::{Audience, Scope};
use crate::secret::TokenKind;
use crate::store::StoreError;
use crate::time::UnixTime;

/// What is wrong with a body.
pub(super) type Damage = Box<dyn Error + Send + Sync>;

const VERSION: u8 = 2;

pub(super) fn encode(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    // Few bodies are larger.
    let mut bytes = Vec::with_capacity(256);
    bytes.push(VERSION);
    write(&mut bytes);
    bytes
}

pub(super) fn decode<T>(
    what: &'static str,
    bytes: &[u8],
    read: impl FnOnce(&mut &[u8]) -> Result<T, Damage>,
) -> Result<T, StoreError> {
    let corrupt = |damage| StoreError::corrupt(what, damage);
    let mut rest = match bytes.split_first() {
        Some((&VERSION, rest)) => rest,
        Some(_) => return Err(corrupt(Damage::from("this program does not know its version"))),
        None => return Err(corrupt("it is empty".into())),
    };
    let value = read(&mut rest).map_err(corrupt)?;
    if rest.is_empty() { Ok(value) } else { Err(corrupt("more bytes follow it".into())) }
}

/// The fields of a record that are in its body. One list says in which order they are written and read.
macro_rules! body {
    ($body:ident of $record:ident { $($field:ident: $type:ty),* $(,)? }) => {
        struct $body {
            $($field: $type),*
        }

        impl $body {
            fn write(record: &$record, to: &mut Vec<u8>) {
                $(record.$field.write(to);)*
            }

            fn read(from: &mut &[u8]) -> Result<Self, crate::record::codec::fields::Damage> {
                Ok(Self { $($field: Field::read(from)?),* })
            }
        }
    };
}
pub(super) use body;

/// A value in a body.
pub(super) trait Field: Sized {
    fn write(&self, to: &mut Vec<u8>);

    /// Takes the value from the front.
    fn read(from: &mut &[u8]) -> Result<Self, Damage>;
}

#[inline]
fn take<'a>(length: usize, from: &mut &'a [u8]) -> Result<&'a [u8], Damage> {
    let (taken, rest) = from.split_at_checked(length).ok_or("it is cut off")?;
    *from = rest;
    Ok(taken)
}

fn write_bytes(bytes: &[u8], to: &mut Vec<u8>) {
    bytes.len().write(to);
    to.extend(bytes);
}

fn read_bytes<'a>(from: &mut &'a [u8]) -> Result<&'a [u8], Damage> {
    take(usize::read(from)?, from)
}

fn read_text<'a>(from: &mut &'a [u8]) -> Result<&'a str, Damage> {
    Ok(str::from_utf8(read_bytes(from)?)?)
}

/// The error names no content.
fn read_json<T: DeserializeOwned>(from: &mut &[u8]) -> Result<T, Damage> {
    Ok(serde_json::from_slice(read_bytes(from)?).map_err(|_| "its JSON is invalid")?)
}

impl Field for u64 {
    fn write(&self, to: &mut Vec<u8>) {
        let mut left = *self;
        while left > 0x7f {
            to.push(left as u8 | 0x80);
            left >>= 7;
        }
        to.push(left as u8);
    }

    #[inline]
    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        // Most numbers are small.
        if let [byte @ ..=0x7f, rest @ ..] = *from {
            *from = rest;
            return Ok(u64::from(*byte));
        }
        let mut value = 0;
        for (shift, byte) in (0..u64::BITS).step_by(7).zip(from.iter()) {
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                take(shift as usize / 7 + 1, from)?;
                return Ok(value);
            }
        }
        Err("a number is cut off or too large".into())
    }
}

impl Field for u32 {
    fn write(&self, to: &mut Vec<u8>) {
        u64::from(*self).write(to);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        Ok(Self::try_from(u64::read(from)?)?)
    }
}

impl Field for usize {
    fn write(&self, to: &mut Vec<u8>) {
        (*self as u64).write(to);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        Ok(Self::try_from(u64::read(from)?)?)
    }
}

impl Field for bool {
    fn write(&self, to: &mut Vec<u8>) {
        to.push((*self).into());
    }

    #[inline]
    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        match take(1, from)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err("a byte is neither 0 nor 1".into()),
        }
    }
}

impl<const N: usize> Field for [u8; N] {
    fn write(&self, to: &mut Vec<u8>) {
        to.extend(self);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        Ok(take(N, from)?.try_into()?)
    }
}

impl<T: Field> Field for Option<T> {
    fn write(&self, to: &mut Vec<u8>) {
        self.is_some().write(to);
        if let Some(value) = self {
            value.write(to);
        }
    }

    #[inline]
    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        if bool::read(from)? { T::read(from).map(Some) } else { Ok(None) }
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    fn write(&self, to: &mut Vec<u8>) {
        self.0.write(to);
        self.1.write(to);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        Ok((A::read(from)?, B::read(from)?))
    }
}

impl<T: Field> Field for Box<T> {
    fn write(&self, to: &mut Vec<u8>) {
        T::write(self, to);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        T::read(from).map(Self::new)
    }
}

impl Field for Box<str> {
    fn write(&self, to: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), to);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        read_text(from).map(Self::from)
    }
}

impl Field for String {
    fn write(&self, to: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), to);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        read_text(from).map(Self::from)
    }
}

impl Field for Vec<u8> {
    fn write(&self, to: &mut Vec<u8>) {
        write_bytes(self, to);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        read_bytes(from).map(Self::from)
    }
}

impl Field for UnixTime {
    fn write(&self, to: &mut Vec<u8>) {
        self.as_millis().write(to);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        u64::read(from).map(Self::from_millis)
    }
}

impl Field for Value {
    fn write(&self, to: &mut Vec<u8>) {
        write_bytes(self.to_string().as_bytes(), to);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        read_json(from)
    }
}

/// Nothing if there are none, and otherwise a JSON object.
impl Field for UnknownFields {
    fn write(&self, to: &mut Vec<u8>) {
        if self.is_empty() {
            to.push(0);
        } else {
            let object = serde_json::to_vec(self).unwrap_or_default();
            write_bytes(&object, to);
        }
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        if let [0, rest @ ..] = *from {
            *from = rest;
            return Ok(Self::default());
        }
        read_json::<Map<_, _>>(from).map(Self::from)
    }
}

impl Field for Claims {
    fn write(&self, to: &mut Vec<u8>) {
        self.as_fields().write(to);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        UnknownFields::read(from).map(Self::from_fields)
    }
}

impl Field for Device {
    fn write(&self, to: &mut Vec<u8>) {
        self.iter().count().write(to);
        for (name, value) in self.iter() {
            write_bytes(name.as_bytes(), to);
            write_bytes(value.as_bytes(), to);
        }
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        let mut pairs = BTreeMap::new();
        for _ in 0..usize::read(from)? {
            let (name, value) = Field::read(from)?;
            pairs.insert(name, value);
        }
        Ok(pairs.into())
    }
}

impl Field for Scope {
    fn write(&self, to: &mut Vec<u8>) {
        write_bytes(self.as_str().as_bytes(), to);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        Ok(Self::parse(read_text(from)?)?)
    }
}

impl Field for Audience {
    fn write(&self, to: &mut Vec<u8>) {
        self.iter().len().write(to);
        for resource in self.iter() {
            write_bytes(resource.as_bytes(), to);
        }
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        match usize::read(from)? {
            1 => Ok(Self::one(read_text(from)?)?),
            count => {
                let resources: Result<Vec<_>, _> = (0..count).map(|_| read_text(from)).collect();
                Ok(Self::new(resources?)?)
            }
        }
    }
}

impl Field for Confirmation {
    fn write(&self, to: &mut Vec<u8>) {
        let (kind, thumbprint) = match self {
            Self::JwkThumbprint(thumbprint) => (1, thumbprint),
            Self::CertificateThumbprint(thumbprint) => (2, thumbprint),
        };
        to.push(kind);
        thumbprint.write(to);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        match take(1, from)? {
            [1] => Field::read(from).map(Self::JwkThumbprint),
            [2] => Field::read(from).map(Self::CertificateThumbprint),
            _ => Err("it is bound to a key in an unknown way".into()),
        }
    }
}

impl Field for TokenKind {
    fn write(&self, to: &mut Vec<u8>) {
        to.push(self.domain());
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        let [byte] = Field::read(from)?;
        Ok(Self::of_domain(byte).ok_or("its kind of credential is unknown")?)
    }
}

impl Field for ChainKey {
    fn write(&self, to: &mut Vec<u8>) {
        self.expose().write(to);
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        Field::read(from).map(Self::from_bytes)
    }
}

impl Field for Vec<SpentBefore> {
    fn write(&self, to: &mut Vec<u8>) {
        self.len().write(to);
        for spent in self {
            spent.write(to);
        }
    }

    fn read(from: &mut &[u8]) -> Result<Self, Damage> {
        (0..usize::read(from)?).map(|_| SpentBefore::read(from)).collect()
    }
}

/// The fields of a struct, in their order.
macro_rules! fields {
    ($type:ident { $($field:ident),* $(,)? }) => {
        impl Field for $type {
            fn write(&self, to: &mut Vec<u8>) {
                $(self.$field.write(to);)*
            }

            fn read(from: &mut &[u8]) -> Result<Self, Damage> {
                Ok(Self { $($field: Field::read(from)?),* })
            }
        }
    };
}

fields!(CodeBinding { redirect_uri, redirect_uri_omitted, challenge, nonce, unknown });
fields!(SealedSuccessor { sealed, until, earlier, unknown });
fields!(SpentBefore { generation, until, sealed, unknown });

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &impl Field) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        bytes
    }

    fn read<T: Field>(mut bytes: &[u8]) -> Option<T> {
        T::read(&mut bytes).ok().filter(|_| bytes.is_empty())
    }

    #[test]
    fn numbers_of_every_size_survive_and_no_part_of_one_is_read() {
        let mut numbers: Vec<u64> = (0..64).map(|bit| 1 << bit).collect();
        numbers.extend((0..64).map(|bit| u64::MAX >> bit));
        numbers.push(0);
        for number in numbers {
            let bytes = written(&number);
            assert_eq!(bytes.len(), (64 - (number | 1).leading_zeros()).div_ceil(7) as usize);
            assert_eq!(read(&bytes), Some(number));
            assert_eq!(read::<u64>(&bytes[..bytes.len() - 1]), None, "{number}");
            assert_eq!(read::<u32>(&bytes), u32::try_from(number).ok());
        }
    }

    #[test]
    fn numbers_that_are_too_large_are_refused() {
        assert_eq!(
            read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            Some(u64::MAX)
        );
        for bytes in [
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0],
            &[0x80; 20],
            &[],
        ] {
            assert_eq!(read::<u64>(bytes), None, "{bytes:?}");
        }
        // Lengths that no body can have.
        let endless = [&written(&u64::MAX)[..], b"text"].concat();
        assert_eq!(read::<String>(&endless), None);
        assert_eq!(read::<Device>(&endless), None);
        assert_eq!(read::<Audience>(&endless), None);
        assert_eq!(read::<Vec<SpentBefore>>(&endless), None);
    }

    #[test]
    fn what_may_be_missing_is_there_or_not() {
        for value in [None, Some(true), Some(false)] {
            assert_eq!(read(&written(&value)), Some(value));
        }
        assert_eq!(read::<bool>(&[2]), None);
        assert_eq!(read::<Option<bool>>(&[2, 1]), None);
        assert_eq!(read::<Option<bool>>(&[0, 1]), None, "it is followed by more");
    }

    #[test]
    fn kinds_of_credentials_are_told_apart() {
        for kind in [TokenKind::Access, TokenKind::Refresh, TokenKind::Code] {
            assert_eq!(read(&written(&kind)), Some(kind));
        }
        assert_eq!(read::<TokenKind>(&[0]), None);
        assert_eq!(read::<TokenKind>(&[4]), None);
    }

    #[test]
    fn audiences_of_one_and_of_several_survive_and_none_is_refused() {
        for resources in [&["https://a"][..], &["b", "a"], &["c", "b", "a"]] {
            let audience = Audience::new(resources).unwrap();
            assert_eq!(read(&written(&audience)), Some(audience));
        }
        assert_eq!(read::<Audience>(&[0]), None);
    }

    #[test]
    fn text_is_utf_8_and_json_is_json() {
        assert_eq!(read(&written(&"é".to_owned())), Some("é".to_owned()));
        assert_eq!(read::<String>(&[1, 0xff]), None);
        assert_eq!(read::<Value>(&[1, b'1']), Some(1.into()));
        assert_eq!(read::<Value>(&[1, b'{']), None);
        assert_eq!(read::<UnknownFields>(&[2, b'{', b'}']), Some(UnknownFields::default()));
        assert_eq!(read::<UnknownFields>(&[1, b'1']), None);
    }
}
