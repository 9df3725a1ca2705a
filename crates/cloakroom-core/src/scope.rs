//! Scopes and audiences.

use std::sync::Arc;
use std::{fmt, slice};

use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::InvalidValue;
use crate::text::{Text, from_text};

/// The most bytes a scope or an audience may have in all.
const MAX_SET_BYTES: usize = 4096;

/// A set of scope values (RFC 6749 §3.3), in byte order. It may be empty.
///
/// ```
/// use cloakroom_core::Scope;
///
/// let scope = Scope::parse("orders:write orders:read orders:read")?;
/// assert_eq!(scope.as_str(), "orders:read orders:write");
/// assert!(scope.contains("orders:read"));
/// assert!(Scope::parse("orders:read")?.is_subset(&scope));
/// # Ok::<(), cloakroom_core::InvalidValue>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Scope(Text);

impl Scope {
    /// The empty scope.
    #[must_use]
    pub fn empty() -> Self {
        Self(Text::EMPTY)
    }

    /// Parses a space-delimited list. Repeated values count once.
    ///
    /// # Errors
    ///
    /// If a value contains a character outside `%x21 / %x23-5B / %x5D-7E`, if values are separated by
    /// anything but one space, or if the list is longer than 4,096 bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        let invalid = |why| InvalidValue::new("scope", why);
        if text.is_empty() {
            return Ok(Self::empty());
        }
        if text.len() > MAX_SET_BYTES {
            return Err(invalid("it is longer than 4,096 bytes"));
        }
        // Every record that is read from a store has its scope parsed. So all characters are checked in one go, which
        // compilers turn into few instructions, and bytes are split, since text takes longer.
        // RFC 6749 §3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
        let is_allowed =
            |byte: &u8| matches!(byte, b' '..=0x7e) & (*byte != b'"') & (*byte != b'\\');
        if !text.as_bytes().iter().fold(true, |all, byte| all & is_allowed(byte)) {
            return Err(invalid("it contains a character that RFC 6749 §3.3 does not allow"));
        }
        let (mut last, mut is_sorted) = (&[][..], true);
        for value in text.as_bytes().split(|byte| *byte == b' ') {
            if value.is_empty() {
                return Err(invalid("its values must be separated by exactly one space"));
            }
            is_sorted &= last < value;
            last = value;
        }
        if is_sorted {
            return Ok(Self(text.into()));
        }
        let mut values: Vec<&str> = text.split(' ').collect();
        values.sort_unstable();
        values.dedup();
        Ok(Self(values.join(" ").as_str().into()))
    }

    /// The values, space-delimited, in order.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.as_bytes().is_empty()
    }

    /// The values, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.as_str().split(' ').filter(|value| !value.is_empty())
    }

    /// Whether `value` is one of the values.
    #[must_use]
    pub fn contains(&self, value: &str) -> bool {
        self.iter().any(|own| own == value)
    }

    /// Whether `other` contains every value.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        // This runs on every request. Most ask for all that they may have. Both are sorted, so one pass
        // over `other` is enough.
        if self == other {
            return true;
        }
        let mut others = other.0.as_bytes().split(|byte| *byte == b' ');
        self.is_empty()
            || self.0.as_bytes().split(|byte| *byte == b' ').all(|value| others.any(|o| o == value))
    }

    /// The values that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        if self.is_subset(other) {
            return self.clone();
        }
        let common: Vec<&str> = self.iter().filter(|value| other.contains(value)).collect();
        Self(common.join(" ").as_str().into())
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({})", self.as_str())
    }
}

impl std::str::FromStr for Scope {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::parse(text)
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, Self::parse)
    }
}

/// The resources that a token is intended for (RFC 7519 §4.1.3, RFC 8707): one or more resource
/// identifiers, each once, in the order given. On the wire, one value is a string and several are
/// an array.
///
/// Identifiers are compared byte for byte (RFC 7519 §4.1.3), except by [`Audience::find`], because
/// the URL libraries of some clients add a trailing slash.
///
/// ```
/// use cloakroom_core::Audience;
///
/// let audience = Audience::new(["https://orders.example", "https://billing.example"])?;
/// assert!(audience.contains("https://orders.example"));
/// assert_eq!(audience.find("https://billing.example/"), Some("https://billing.example"));
/// assert_eq!(serde_json::to_string(&Audience::one("https://orders.example")?).unwrap(),
///            "\"https://orders.example\"");
/// # Ok::<(), cloakroom_core::InvalidValue>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Audience(Resources);

/// One resource, as most tokens have, or several.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Resources {
    One(Text),
    Several(Arc<[Text]>),
}

impl Audience {
    /// An audience of these resources.
    ///
    /// # Errors
    ///
    /// If there is none, if one is empty, or if they are longer than 4,096 bytes in total.
    pub fn new<I>(resources: I) -> Result<Self, InvalidValue>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let (mut all, mut bytes) = (Vec::<Text>::new(), 0);
        for resource in resources {
            let resource = resource.as_ref();
            Self::check(resource)?;
            if !all.iter().any(|own| own.as_bytes() == resource.as_bytes()) {
                // Before it is compared with many others.
                bytes += resource.len();
                Self::check_length(bytes)?;
                all.push(resource.into());
            }
        }
        match (all.pop(), all.is_empty()) {
            (None, _) => Err(InvalidValue::new("audience", "it names no resource")),
            (Some(one), true) => Ok(Self(Resources::One(one))),
            (Some(last), false) => {
                all.push(last);
                Ok(Self(Resources::Several(all.into())))
            }
        }
    }

    /// An audience of one resource.
    ///
    /// # Errors
    ///
    /// If the identifier is empty or longer than 4,096 bytes.
    pub fn one(resource: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let resource = resource.as_ref();
        Self::check(resource)?;
        Self::check_length(resource.len())?;
        Ok(Self(Resources::One(resource.into())))
    }

    fn check(resource: &str) -> Result<(), InvalidValue> {
        if resource.is_empty() {
            return Err(InvalidValue::new("audience", "a resource identifier is empty"));
        }
        Ok(())
    }

    const fn check_length(bytes: usize) -> Result<(), InvalidValue> {
        if bytes > MAX_SET_BYTES {
            return Err(InvalidValue::new("audience", "it is longer than 4,096 bytes"));
        }
        Ok(())
    }

    /// The resources, in the order given.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.resources().iter().map(Text::as_str)
    }

    /// Whether `resource` is one of them.
    #[must_use]
    pub fn contains(&self, resource: &str) -> bool {
        self.iter().any(|own| own == resource)
    }

    /// The resource in this audience that [is the same](Self::is_same) as `resource`, as it is
    /// written here.
    #[must_use]
    pub fn find(&self, resource: &str) -> Option<&str> {
        self.iter().find(|own| Self::is_same(own, resource))
    }

    /// Whether two identifiers name the same resource: they are equal, or they differ only in the
    /// slash after an authority without a path.
    ///
    /// ```
    /// use cloakroom_core::Audience;
    ///
    /// assert!(Audience::is_same("https://api.example", "https://api.example/"));
    /// assert!(!Audience::is_same("https://api.example/v1", "https://api.example/v1/"));
    /// ```
    #[must_use]
    pub fn is_same(one: &str, other: &str) -> bool {
        one == other
            || one.len().abs_diff(other.len()) == 1
                && at_root(one).is_some_and(|one| at_root(other) == Some(one))
    }

    /// Whether `other` contains every resource.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.iter().all(|resource| other.contains(resource))
    }

    /// The resource, if there is exactly one.
    #[must_use]
    pub fn single(&self) -> Option<&str> {
        match &self.0 {
            Resources::One(one) => Some(one.as_str()),
            Resources::Several(_) => None,
        }
    }

    fn resources(&self) -> &[Text] {
        match &self.0 {
            Resources::One(one) => slice::from_ref(one),
            Resources::Several(all) => all,
        }
    }
}

/// The parts before and after the path of a URI whose path is empty or `/`.
///
/// RFC 3986 §6.2.3: "In general, a URI that uses the generic syntax for authority with an empty path
/// should be normalized to a path of "/"."
fn at_root(uri: &str) -> Option<(&str, &str)> {
    let authority = uri.find(':')? + "://".len();
    let host = uri.get(authority..).filter(|_| uri[..authority].ends_with("://"))?;
    let length = host.find(['/', '?', '#']).unwrap_or(host.len());
    let (before, path) = uri.split_at(authority + length);
    let after = path.strip_prefix('/').unwrap_or(path);
    let is_root = after.is_empty() || after.starts_with('?');
    (length > 0 && is_root).then_some((before, after))
}

impl fmt::Debug for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Audience {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.single() {
            Some(one) => serializer.serialize_str(one),
            None => serializer.collect_seq(self.iter()),
        }
    }
}

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Resource)
    }
}

/// Reads a resource, or a list of them.
struct Resource;

impl<'de> Visitor<'de> for Resource {
    type Value = Audience;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of strings")
    }

    fn visit_str<E: serde::de::Error>(self, one: &str) -> Result<Audience, E> {
        Audience::one(one).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Audience, A::Error> {
        let all = Vec::<String>::deserialize(SeqAccessDeserializer::new(seq))?;
        Audience::new(all).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_follow_the_grammar() {
        assert_eq!(Scope::parse("b a b").unwrap().as_str(), "a b");
        assert!(Scope::parse("").unwrap().is_empty());
        assert_eq!(Scope::parse("").unwrap().iter().count(), 0);
        assert_eq!(Scope::parse("!~#[]").unwrap().as_str(), "!~#[]");
        for bad in [" a", "a ", "a  b", "a\tb", "a\"", "a\\", "é", "\u{1f}", "a\u{7f}"] {
            assert!(Scope::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Scope::parse(&"a".repeat(4097)).is_err());
    }

    #[test]
    fn an_audience_is_read_in_both_forms_and_no_other() {
        let read = |json: &str| serde_json::from_str::<Audience>(json);
        let two = Audience::new(["https://a.example", "b"]).unwrap();
        assert_eq!(read(r#""b""#).unwrap(), Audience::one("b").unwrap());
        assert_eq!(read(r#"["b"]"#).unwrap(), Audience::one("b").unwrap());
        assert_eq!(read(r#"["https:\/\/a.example","\u0062","b"]"#).unwrap(), two);
        assert_eq!(serde_json::from_value::<Audience>(serde_json::json!(two)).unwrap(), two);
        for bad in ["null", "1", "true", r#""""#, "[]", r#"[""]"#, "[1]", r#"[["b"]]"#, "{}"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scope_sets() {
        let (abc, bd) = (Scope::parse("a b c").unwrap(), Scope::parse("b d").unwrap());
        assert_eq!(abc.intersection(&bd).as_str(), "b");
        assert!(!bd.is_subset(&abc));
        assert!(Scope::empty().is_subset(&bd));
        assert!(!bd.is_subset(&Scope::empty()));
        let all: Vec<Scope> = (0..64_u32)
            .map(|set| {
                let values = ["a", "ab", "b", "b:c", "c", "d"].into_iter().enumerate();
                let values = values.filter(|(bit, _)| set & (1 << bit) != 0);
                let values: Vec<&str> = values.map(|(_, value)| value).collect();
                Scope::parse(&values.join(" ")).unwrap()
            })
            .collect();
        for (one, some) in all.iter().zip(0_u32..) {
            for (other, more) in all.iter().zip(0_u32..) {
                assert_eq!(one.is_subset(other), some & !more == 0, "{one:?} of {other:?}");
            }
        }
        assert!(!abc.contains("a b"), "a value never holds a space");
    }

    #[test]
    fn audiences_are_one_or_more() {
        assert!(Audience::new(Vec::<String>::new()).is_err());
        assert!(Audience::one("").is_err());
        let two: Audience = serde_json::from_str(r#"["b","a","b"]"#).unwrap();
        assert_eq!(two.iter().collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(serde_json::to_string(&two).unwrap(), r#"["b","a"]"#);
        assert_eq!(serde_json::from_str::<Audience>("\"a\"").unwrap().single(), Some("a"));
    }

    #[test]
    fn a_scope_is_always_in_order_and_without_repetition() {
        for (text, canonical) in [("b a", "a b"), ("a a", "a"), ("a b", "a b"), ("b b a", "a b")] {
            let scope = Scope::parse(text).unwrap();
            assert_eq!(scope.as_str(), canonical);
            assert_eq!(text.parse::<Scope>().unwrap(), scope);
            let json = serde_json::to_string(&scope).unwrap();
            assert_eq!(json, format!("\"{canonical}\""));
            assert_eq!(serde_json::from_str::<Scope>(&format!("\"{text}\"")).unwrap(), scope);
            assert_eq!(scope.iter().collect::<Vec<_>>().join(" "), canonical);
            assert!(!scope.is_empty() && scope.contains("a") && !scope.contains("c"));
        }
        assert!(serde_json::from_str::<Scope>("\"a  b\"").is_err());
    }

    #[test]
    fn sets_hold_4096_bytes_and_no_more() {
        let (most, more) = ("a".repeat(4096), "a".repeat(4097));
        Scope::parse(&most).unwrap();
        assert!(Scope::parse(&more).is_err());
        Audience::one(&most).unwrap();
        Audience::new([&most[1..], "b"]).unwrap();
        assert!(Audience::one(&more).is_err());
        assert!(Audience::new([&*most, "b"]).is_err());
    }

    #[test]
    fn audience_sets() {
        let audience = |all: &[&str]| Audience::new(all).unwrap();
        let (one, two) = (audience(&["b"]), audience(&["b", "a"]));
        assert!(one.is_subset(&two) && two.is_subset(&two) && !two.is_subset(&one));
        assert!(two.contains("a") && !one.contains("a"));
        assert_eq!((one.single(), two.single()), (Some("b"), None));
    }

    #[test]
    fn a_slash_at_an_empty_path_makes_no_other_resource() {
        for (one, other) in [
            ("https://api.example", "https://api.example/"),
            ("https://api.example:8443", "https://api.example:8443/"),
            ("https://[::1]", "https://[::1]/"),
            ("https://api.example?v=1", "https://api.example/?v=1"),
            ("api://orders", "api://orders/"),
        ] {
            let (bare, slashed) = (Audience::one(one).unwrap(), Audience::one(other).unwrap());
            assert_eq!(bare.find(other), Some(one));
            assert_eq!(slashed.find(one), Some(other));
            // Where nobody asks for more, the spelling counts.
            assert!(!bare.contains(other) && !slashed.is_subset(&bare));
            assert_eq!(Audience::new([one, other]).unwrap().iter().len(), 2);
        }
        for (one, other) in [
            ("https://api.example", "https://api.example//"),
            ("https://api.example/", "https://api.example//"),
            ("https://api.example/v1", "https://api.example/v1/"),
            ("https://api.example", "https://api.example."),
            ("https://api.example", "https://api.exampl/"),
            ("https://api.example?v=1", "https://api.example?v=1/"),
            ("https://api.example/?", "https://api.example/"),
            ("https://API.example", "https://api.example/"),
            ("http://api.example", "https://api.example"),
            ("https://", "https:///"),
            ("urn:orders", "urn:orders/"),
            ("orders", "orders/"),
            ("x\u{e9}:/a", "x\u{e9}:/a/"),
            ("", "/"),
        ] {
            assert!(!Audience::is_same(one, other), "{one} {other}");
            assert!(!Audience::is_same(other, one), "{one} {other}");
            assert!(Audience::is_same(one, one));
        }
    }
}
