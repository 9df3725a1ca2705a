//! Reads the answers of the server.

use cloakroom_core::store::StoreError;
use redis::Value;

use crate::error::unexpected;

/// A string, or nothing.
pub(crate) fn string(what: &'static str, value: Value) -> Result<Option<Vec<u8>>, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::Nil => Ok(None),
        other => Err(unexpected(what, &other)),
    }
}

pub(crate) fn list(what: &'static str, value: Value) -> Result<Vec<Value>, StoreError> {
    match value {
        Value::Array(values) => Ok(values),
        // The same in version 3 of the protocol.
        Value::Map(pairs) => {
            Ok(pairs.into_iter().flat_map(|(name, value)| [name, value]).collect())
        }
        other => Err(unexpected(what, &other)),
    }
}

/// A list of strings, each of which may be absent.
pub(crate) fn strings(
    what: &'static str,
    value: Value,
) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
    list(what, value)?.into_iter().map(|value| string(what, value)).collect()
}

pub(crate) fn integer(what: &'static str, value: &Value) -> Result<u64, StoreError> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| unexpected(what, value)),
        other => Err(unexpected(what, other)),
    }
}

/// A string of a fixed length.
pub(crate) fn bytes<const N: usize>(
    what: &'static str,
    value: Value,
) -> Result<[u8; N], StoreError> {
    match value {
        Value::BulkString(bytes) => {
            bytes.try_into().map_err(|bytes: Vec<u8>| unexpected(what, &Value::BulkString(bytes)))
        }
        other => Err(unexpected(what, &other)),
    }
}

/// The answer to `TIME`, in milliseconds since 1970.
pub(crate) fn milliseconds(time: &Value) -> Option<u64> {
    let number = |part: &Value| match part {
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse::<u64>().ok(),
        _ => None,
    };
    let Value::Array(parts) = time else { return None };
    let [seconds, micros] = &parts[..] else { return None };
    number(seconds)?.checked_mul(1_000)?.checked_add(number(micros)? / 1_000)
}
