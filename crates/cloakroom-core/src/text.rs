//! The text of identifiers and scopes.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::Deserializer;
use serde::de::{Error, Visitor};

/// The longest text that is kept in place: that of a `jti`, and of most names and scopes.
const IN_PLACE: usize = 22;

/// Text that is not changed. Short text is kept in place: a store of a million grants would otherwise
/// read it from a different part of memory for each field. A copy of long text is a reference to it.
#[derive(Clone)]
pub(crate) enum Text {
    InPlace { length: u8, bytes: [u8; IN_PLACE] },
    Shared(Arc<str>),
}

impl Text {
    pub(crate) const EMPTY: Self = Self::InPlace { length: 0, bytes: [0; IN_PLACE] };

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::InPlace { length, bytes } => &bytes[..usize::from(*length)],
            Self::Shared(text) => text.as_bytes(),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::InPlace { .. } => str::from_utf8(self.as_bytes()).expect("it was made from text"),
            Self::Shared(text) => text,
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        match u8::try_from(text.len()) {
            Ok(length) if text.len() <= IN_PLACE => {
                let mut bytes = [0; IN_PLACE];
                bytes[..text.len()].copy_from_slice(text.as_bytes());
                Self::InPlace { length, bytes }
            }
            _ => Self::Shared(text.into()),
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

// The order of the bytes of UTF-8 is that of `str`.
impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.as_bytes());
        // No text contains this byte, so that no two pairs of texts are hashed alike.
        state.write_u8(0xff);
    }
}

// A grant has several, and a token two.
const _: () = assert!(size_of::<Option<Text>>() == 24);

/// Reads a value from its text, in place. A copy would cost an allocation, and what is secret in it would not be wiped.
pub(crate) fn from_text<'de, D, T, E>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    E: fmt::Display,
{
    deserializer.deserialize_str(Parse(parse))
}

struct Parse<F>(F);

impl<T, E, F> Visitor<'_> for Parse<F>
where
    E: fmt::Display,
    F: FnOnce(&str) -> Result<T, E>,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<Refused: Error>(self, text: &str) -> Result<T, Refused> {
        (self.0)(text).map_err(Refused::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, RandomState};

    use super::*;

    #[test]
    fn short_and_long_text_compare_alike() {
        let state = RandomState::new();
        let texts =
            ["", "a", "a\0", "é", "b", &"a".repeat(22), &"a".repeat(23), &"é".repeat(11), "🔑"];
        for one in texts {
            let text = Text::from(one);
            assert_eq!(text.as_str(), one);
            assert_eq!(matches!(text, Text::InPlace { .. }), one.len() <= 22);
            assert_eq!(state.hash_one(&text), state.hash_one(one));
            for other in texts {
                let (order, other) = (one.cmp(other), Text::from(other));
                assert_eq!((text.cmp(&other), text.partial_cmp(&other)), (order, Some(order)));
                assert_eq!(text == other, order.is_eq());
            }
        }
        assert_eq!(Text::EMPTY.as_str(), "");
    }
}
