//! What an app adds to a grant: claims, and the description of a device. Both are limited in size.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::ids::InvalidValue;
use crate::record::UnknownFields;

/// Claims that the library writes. An app cannot set them.
#[doc(hidden)]
pub const RESERVED_CLAIMS: [&str; 26] = [
    "acr",
    "act",
    "active",
    "aud",
    "auth_time",
    "authorization_details",
    "client_id",
    "cnf",
    "exp",
    "grant_epoch",
    "grant_id",
    "handle_hash",
    "iat",
    "iss",
    "jti",
    "nbf",
    "scope",
    "sid",
    "stateless",
    "sub",
    "sub_kind",
    "token_introspection",
    "token_type",
    "token_use",
    "typ",
    "username",
];

/// Claims that an app adds: at most 4,096 bytes of JSON, nested at most 16 deep.
///
/// Names that the library writes itself are reserved: `acr`, `act`, `active`, `aud`,
/// `auth_time`, `authorization_details`, `client_id`, `cnf`, `exp`, `grant_epoch`, `grant_id`, `handle_hash`,
/// `iat`, `iss`, `jti`, `nbf`, `scope`, `sid`, `stateless`, `sub`, `sub_kind`,
/// `token_introspection`, `token_type`, `token_use`, `typ` and `username`.
///
/// ```
/// use cloakroom_core::record::Claims;
/// use serde_json::json;
///
/// let claims = Claims::new([("tenant", json!("acme"))])?;
/// assert_eq!(claims.get("tenant"), Some(&json!("acme")));
/// assert!(Claims::new([("sub", json!("mallory"))]).is_err());
/// # Ok::<(), cloakroom_core::InvalidValue>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Claims(
    // For its size: most grants have no claims.
    UnknownFields,
);

impl Claims {
    /// The largest size of claims, in bytes of JSON.
    pub const MAX_BYTES: usize = 4096;

    /// Claims by name.
    ///
    /// # Errors
    ///
    /// If a name is reserved, or if the claims take more than 4,096 bytes of JSON or are nested more
    /// than 16 deep.
    pub fn new<K: Into<String>>(
        claims: impl IntoIterator<Item = (K, Value)>,
    ) -> Result<Self, InvalidValue> {
        let map: Map<String, Value> =
            claims.into_iter().map(|(name, value)| (name.into(), value)).collect();
        if map.keys().any(|name| RESERVED_CLAIMS.contains(&name.as_str())) {
            return Err(InvalidValue::new(
                "claims",
                "a name is reserved for claims of the token itself",
            ));
        }
        let value = Value::Object(map);
        bounded_json("set of claims", &value, Self::MAX_BYTES)?;
        match value {
            Value::Object(map) => Ok(Self(map.into())),
            _ => Err(InvalidValue::new("set of claims", "it is not a JSON object")),
        }
    }

    /// The claim with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All claims, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether there are no claims.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    pub(super) const fn as_fields(&self) -> &UnknownFields {
        &self.0
    }

    /// Claims that were checked before they were stored.
    pub(super) const fn from_fields(fields: UnknownFields) -> Self {
        Self(fields)
    }
}

/// How deep an app's JSON may be nested. Every JSON reader accepts this depth.
const MAX_DEPTH: usize = 16;

/// Refuses JSON that takes more than `most` bytes or is nested more than 16 deep.
///
/// # Errors
///
/// If the value exceeds a limit.
#[doc(hidden)]
pub fn bounded_json(what: &'static str, value: &Value, most: usize) -> Result<(), InvalidValue> {
    fn is_within(value: &Value, depth: usize) -> bool {
        match value {
            Value::Array(items) => depth > 0 && items.iter().all(|v| is_within(v, depth - 1)),
            Value::Object(members) => {
                depth > 0 && members.values().all(|v| is_within(v, depth - 1))
            }
            _ => true,
        }
    }
    if !is_within(value, MAX_DEPTH) {
        return Err(InvalidValue::new(what, "it is nested more than 16 levels deep"));
    }
    if value.to_string().len() > most {
        return Err(InvalidValue::new(what, "it takes too many bytes"));
    }
    Ok(())
}

/// The description of a session for its user, for example "Firefox on Linux, Lisbon": at most 1,024
/// bytes of names and values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(into = "BTreeMap<String, String>")]
#[expect(clippy::box_collection, reason = "a map takes 24 bytes, and many grants have no device")]
pub struct Device(Option<Box<BTreeMap<String, String>>>);

impl From<BTreeMap<String, String>> for Device {
    fn from(fields: BTreeMap<String, String>) -> Self {
        Self((!fields.is_empty()).then(|| Box::new(fields)))
    }
}

impl From<Device> for BTreeMap<String, String> {
    fn from(device: Device) -> Self {
        device.0.map(|fields| *fields).unwrap_or_default()
    }
}

impl Device {
    /// The largest total size of names and values, in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// A description by name.
    ///
    /// # Errors
    ///
    /// If names and values take more than 1,024 bytes together.
    pub fn new<K: Into<String>, V: Into<String>>(
        fields: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, InvalidValue> {
        let fields: BTreeMap<String, String> =
            fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        if fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            > Self::MAX_BYTES
        {
            return Err(InvalidValue::new(
                "description of a device",
                "it takes more than 1,024 bytes",
            ));
        }
        Ok(fields.into())
    }

    /// The description with the values of a newer one, which replace those of the same name. If both
    /// together would take more than 1,024 bytes, it stays as it is.
    #[must_use]
    pub fn updated(&self, newer: &Self) -> Self {
        let all = self.iter().chain(newer.iter());
        Self::new(all.map(|(name, value)| (name.to_owned(), value.to_owned())))
            .unwrap_or_else(|_| self.clone())
    }

    /// The value with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.as_ref()?.get(name).map(String::as_str)
    }

    /// All values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|fields| fields.iter()).map(|(name, value)| (&**name, &**value))
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn app_claims_are_bounded_and_cannot_shadow() {
        for name in RESERVED_CLAIMS {
            assert!(Claims::new([(name, json!(1))]).is_err(), "{name}");
        }
        assert!(Claims::new([("big", json!("x".repeat(4096)))]).is_err());
        let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        assert!(Claims::new([("deep", nested(15))]).is_ok());
        assert!(Claims::new([("deep", nested(16))]).is_err());
        assert!(Device::new([("name", "x".repeat(1024))]).is_err());
    }

    #[test]
    fn what_was_put_in_is_there() {
        let claims = Claims::new([("tenant", json!("acme")), ("plan", json!(7))]).unwrap();
        assert_eq!(claims.get("tenant"), Some(&json!("acme")));
        assert_eq!(claims.get("other"), None);
        let all: Vec<_> = claims.iter().collect();
        assert_eq!(all, [("plan", &json!(7)), ("tenant", &json!("acme"))]);
        assert!(!claims.is_empty() && Claims::default().is_empty());

        let device = Device::new([("name", "Firefox"), ("city", "Lisbon")]).unwrap();
        assert_eq!(device.get("city"), Some("Lisbon"));
        assert_eq!(device.get("other"), None);
        let all: Vec<_> = device.iter().collect();
        assert_eq!(all, [("city", "Lisbon"), ("name", "Firefox")]);
        assert!(!device.is_empty() && Device::default().is_empty());
        assert!(Device::new([("name", "x".repeat(Device::MAX_BYTES - 4))]).is_ok());

        let moved = device.updated(&Device::new([("city", "Porto"), ("os", "Linux")]).unwrap());
        let all: Vec<_> = moved.iter().collect();
        assert_eq!(all, [("city", "Porto"), ("name", "Firefox"), ("os", "Linux")]);
        let large = Device::new([("os", "x".repeat(Device::MAX_BYTES - 2))]).unwrap();
        assert_eq!(moved.updated(&large), moved, "it would be too large");
    }

    #[test]
    fn json_is_bounded_to_the_byte_and_to_the_level() {
        let text = json!("x".repeat(98));
        assert!(bounded_json("it", &text, 100).is_ok());
        assert!(bounded_json("it", &text, 99).is_err());
        let arrays: fn(usize) -> Value =
            |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        let objects: fn(usize) -> Value =
            |depth| (0..depth).fold(json!(1), |inner, _| json!({"a": inner}));
        for nested in [arrays, objects] {
            assert!(bounded_json("it", &nested(MAX_DEPTH), 1_000).is_ok());
            assert!(bounded_json("it", &nested(MAX_DEPTH + 1), 1_000).is_err());
        }
    }
}
