//! Members of a JSON object that a record seldom has.

use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// Fields that a newer version wrote and this version does not know. They are kept unchanged when an
/// older node writes the record. It is used like the map that it holds, and takes eight bytes as long as
/// there are none.
///
/// ```
/// use cloakroom_core::record::UnknownFields;
/// use serde_json::json;
///
/// let mut unknown = UnknownFields::default();
/// assert!(unknown.is_empty());
/// unknown.insert("added_in_2".to_owned(), json!(true));
/// assert_eq!(unknown.get("added_in_2"), Some(&json!(true)));
/// ```
#[derive(Debug, Clone, Default)]
pub struct UnknownFields(Option<Box<Map<String, Value>>>);

static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

impl Deref for UnknownFields {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Self::Target {
        self.0.as_deref().unwrap_or_else(|| &NONE)
    }
}

impl DerefMut for UnknownFields {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.0.get_or_insert_default()
    }
}

impl PartialEq for UnknownFields {
    fn eq(&self, other: &Self) -> bool {
        // Fields that were all removed equal none.
        **self == **other
    }
}

impl Eq for UnknownFields {}

impl From<Map<String, Value>> for UnknownFields {
    fn from(fields: Map<String, Value>) -> Self {
        Self((!fields.is_empty()).then(|| Box::new(fields)))
    }
}

impl FromIterator<(String, Value)> for UnknownFields {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(fields: I) -> Self {
        Map::from_iter(fields).into()
    }
}

impl Serialize for UnknownFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for UnknownFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_fields_equal_none_however_they_came_about() {
        let mut emptied: UnknownFields = [("a".to_owned(), json!(1))].into_iter().collect();
        assert_ne!(emptied, UnknownFields::default());
        assert_eq!(emptied.remove("a"), Some(json!(1)));
        assert_eq!(emptied, UnknownFields::default());
        assert_eq!(UnknownFields::from(Map::new()), emptied);
        assert_eq!(serde_json::to_string(&emptied).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<UnknownFields>("{}").unwrap().0, None);
        let one = r#"{"a":[1]}"#;
        let fields: UnknownFields = serde_json::from_str(one).unwrap();
        assert_eq!(serde_json::to_string(&fields).unwrap(), one);
    }
}
