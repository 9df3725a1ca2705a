//! A strict JSON reader: it refuses duplicate members and deep nesting.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// How deep objects and arrays may be nested.
const MAX_DEPTH: usize = 32;

/// Reads a `T` from an object, refusing duplicate members at every depth.
///
/// RFC 7519 §4 and RFC 7515 §4 allow a parser to refuse them or to take the last one. Two parsers that
/// choose differently would see two different tokens.
///
/// # Errors
///
/// If it is no such JSON, or not a `T`.
pub fn from_slice<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, serde_json::Error> {
    // Checked in one go, and not again for each string.
    let json = str::from_utf8(json).map_err(serde_json::Error::custom)?;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    Unambiguous { depth: MAX_DEPTH }.deserialize(&mut deserializer)?;
    serde_json::from_str(json).map(|Object(value)| value)
}

/// A `T` that is written as an object. The code that serde derives for a struct also accepts an array of
/// its values.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "it is nothing but its value")]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

struct Unambiguous {
    depth: usize,
}

impl Unambiguous {
    fn inner<E: serde::de::Error>(&self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1);
        depth.map(|depth| Self { depth }).ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> DeserializeSeed<'de> for Unambiguous {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// The most bytes of a name that an error shows.
const MAX_NAME: usize = 32;

/// The name of a member, borrowed if it has no escapes.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for Unambiguous {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self.inner()?)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // Sorted once at the end: a thousand members must not cost a million comparisons.
        let mut names: Vec<Name<'de>> = Vec::new();
        while let Some(name) = map.next_key()? {
            names.push(name);
            map.next_value_seed(self.inner()?)?;
        }
        names.sort_unstable();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
        twice.map_or(Ok(()), |pair| {
            let name = pair[0].0.as_ref();
            // A stranger chose it, and it ends in a log.
            let is_shown = name.len() <= MAX_NAME && !name.contains(char::is_control);
            let name = if is_shown { name } else { "…" };
            Err(A::Error::custom(format_args!("`{name}` occurs twice")))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn duplicates_are_refused_at_every_depth() {
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"b":2,"\u0061":1}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[0,{"b":[{"c":1,"c":null}]}]}"#,
        ] {
            assert!(from_slice::<Value>(bad.as_bytes()).is_err(), "{bad}");
        }
        let good = r#"{"a":{"a":[{"a":1.5e3},{"a":-1}]},"b":{"a":"\n"},"c":null,"d":true,"A":0}"#;
        assert_eq!(
            from_slice::<Value>(good.as_bytes()).unwrap(),
            serde_json::from_str::<Value>(good).unwrap()
        );
    }

    #[test]
    fn an_error_shows_a_short_plain_name_alone() {
        let shown = |name: &str| {
            let member = serde_json::to_string(name).unwrap();
            let json = format!("{{{member}:1,{member}:2}}");
            from_slice::<Value>(json.as_bytes()).unwrap_err().to_string().contains(name)
        };
        assert!(shown("sub") && shown(&"a".repeat(MAX_NAME)));
        assert!(!shown(&"a".repeat(MAX_NAME + 1)), "it would fill a log");
        assert!(!shown("sub\nroot") && !shown("\u{1b}[2J"), "it would write a log's lines");
    }

    #[test]
    fn an_array_is_no_object() {
        #[derive(Deserialize)]
        struct Pair {
            a: u8,
            b: u8,
        }
        let pair: Pair = from_slice(br#"{"a":1,"b":2}"#).unwrap();
        assert_eq!((pair.a, pair.b), (1, 2));
        assert!(from_slice::<Pair>(b"[1,2]").is_err());
        assert!(serde_json::from_slice::<Pair>(b"[1,2]").is_ok(), "or else none of this is needed");
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
            format!(r#"{{"a":{open}{close}}}"#)
        };
        assert!(from_slice::<Value>(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(from_slice::<Value>(nested(MAX_DEPTH + 2).as_bytes()).is_err());
        assert!(from_slice::<Value>(nested(100_000).as_bytes()).is_err());
    }

    #[test]
    fn junk_after_the_end_is_refused() {
        assert!(from_slice::<Value>(b"{} {}").is_err());
        assert!(from_slice::<Value>(b"{}\0").is_err());
        assert!(from_slice::<Value>(b"").is_err());
    }
}
