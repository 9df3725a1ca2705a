//! The values of grants and tokens. `scripts/grant.lua` describes them, and the scripts read their columns.

use cloakroom_core::record::{GrantRecord, GrantRow, TokenRecord, TokenRow};
use cloakroom_core::store::StoreError;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest};

/// Stands for no number. No time and no epoch is as large.
pub(crate) const NONE: [u8; 8] = [0xff; 8];

const TOMBSTONE: u8 = 0;
const GRANT: u8 = 1;

/// A number as the scripts compare it.
pub(crate) fn number(value: u64) -> [u8; 8] {
    value.to_be_bytes()
}

pub(crate) fn time(time: UnixTime) -> [u8; 8] {
    number(time.as_millis())
}

/// The value of a grant, and the length of the part with its client and subject.
pub(crate) fn grant_value(row: &GrantRow) -> (Vec<u8>, usize) {
    let (client, subject) = (row.client.as_bytes(), row.subject.as_bytes());
    let (generation, digest) = row.chain.unwrap_or((0, [0; 32]));
    let mut value = Vec::with_capacity(81 + client.len() + subject.len() + row.body.len());
    value.push(GRANT);
    value.extend(optional(row.revoked_at));
    value.extend(number(row.epoch));
    value.extend(number(row.expires_at));
    value.extend(number(row.row_expires_at));
    // A chain has an end. Without one there is no chain.
    value.extend(optional(row.chain.and(row.chain_expires_at)));
    value.extend(generation.to_be_bytes());
    value.extend(digest);
    let columns = value.len();
    for name in [client, subject] {
        // Identifiers have at most 255 bytes.
        value.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
        value.extend(name);
    }
    let names = value.len() - columns;
    value.extend(&row.body);
    (value, names)
}

fn optional(value: Option<u64>) -> [u8; 8] {
    value.map_or(NONE, number)
}

/// The row in the value of a grant's key; `None` if it is a tombstone. It takes the value, to keep the body without a
/// copy.
pub(crate) fn grant_row(id: GrantId, value: Vec<u8>) -> Result<Option<GrantRow>, StoreError> {
    let corrupt = |why: &'static str| StoreError::corrupt("a grant", why);
    match value.first() {
        None => return Err(corrupt("it is empty")),
        Some(&TOMBSTONE) if value.len() == 9 => return Ok(None),
        Some(&GRANT) => {}
        Some(_) => return Err(corrupt("this program does not know its version")),
    }
    let row = columns(id, value).ok_or_else(|| corrupt("it is cut off"))?;
    row.map(Some).map_err(|error| StoreError::corrupt("a grant", error))
}

fn columns(id: GrantId, value: Vec<u8>) -> Option<Result<GrantRow, std::str::Utf8Error>> {
    let mut rest = value.get(1..)?;
    let revoked_at = take_optional(&mut rest)?;
    let epoch = take_number(&mut rest)?;
    let expires_at = take_number(&mut rest)?;
    let row_expires_at = take_number(&mut rest)?;
    let chain_expires_at = take_optional(&mut rest)?;
    let generation = u32::from_be_bytes(take(&mut rest)?);
    let digest = take::<32>(&mut rest)?;
    let client = take_name(&mut rest)?;
    let subject = take_name(&mut rest)?;
    let text = |name| std::str::from_utf8(name).map(ToOwned::to_owned);
    let (client, subject) = match (text(client), text(subject)) {
        (Ok(client), Ok(subject)) => (client, subject),
        (Err(error), _) | (_, Err(error)) => return Some(Err(error)),
    };
    let length = rest.len();
    Some(Ok(GrantRow {
        id,
        client,
        subject,
        epoch,
        chain: chain_expires_at.map(|_| (generation, digest)),
        chain_expires_at,
        expires_at,
        row_expires_at,
        revoked_at,
        body: last(value, length),
    }))
}

/// The last bytes of a value.
fn last(mut value: Vec<u8>, length: usize) -> Vec<u8> {
    value.drain(..value.len() - length);
    value
}

/// The grant behind a value; `None` if it is a tombstone.
pub(crate) fn grant(id: GrantId, value: Vec<u8>) -> Result<Option<GrantRecord>, StoreError> {
    match grant_row(id, value)? {
        Some(row) => GrantRecord::from_row(&row).map(Some),
        None => Ok(None),
    }
}

pub(crate) fn token_value(row: &TokenRow) -> Vec<u8> {
    let mut value = Vec::with_capacity(24 + row.body.len());
    value.extend(number(row.expires_at));
    value.extend(number(row.issued_at));
    value.extend(optional(row.revoked_at));
    value.extend(&row.body);
    value
}

pub(crate) fn token(
    grant: GrantId,
    digest: TokenDigest,
    value: Vec<u8>,
) -> Result<TokenRecord, StoreError> {
    let row = token_row(grant, digest, value);
    TokenRecord::from_row(&row.ok_or_else(|| StoreError::corrupt("a token", "it is cut off"))?)
}

fn token_row(grant: GrantId, digest: TokenDigest, value: Vec<u8>) -> Option<TokenRow> {
    let mut rest = value.as_slice();
    let expires_at = take_number(&mut rest)?;
    let issued_at = take_number(&mut rest)?;
    let revoked_at = take_optional(&mut rest)?;
    let (digest, length) = (*digest.as_bytes(), rest.len());
    let body = last(value, length);
    Some(TokenRow { digest, grant, expires_at, issued_at, revoked_at, body })
}

pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

pub(crate) fn take_number(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_be_bytes)
}

pub(crate) fn take_optional(rest: &mut &[u8]) -> Option<Option<u64>> {
    let bytes = take(rest)?;
    Some((bytes != NONE).then(|| u64::from_be_bytes(bytes)))
}

fn take_name<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u16::from_be_bytes(take(rest)?);
    let (name, tail) = rest.split_at_checked(length.into())?;
    *rest = tail;
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloakroom_core::{Audience, ClientId, Subject};

    #[test]
    fn a_grant_survives_its_value_and_no_part_of_it_is_one() {
        let id = GrantId::from_bytes([7; 16]);
        let mut record = GrantRecord::new(
            id,
            ClientId::new("an app").unwrap(),
            Subject::user("alice").unwrap(),
            Audience::one("https://api.example").unwrap(),
            UnixTime::from_millis(0),
            UnixTime::MAX,
        );
        for revoked_at in [None, Some(UnixTime::from_millis(0)), Some(UnixTime::MAX)] {
            record.revoked_at = revoked_at;
            let (value, names) = grant_value(&record.to_row());
            assert_eq!(grant(id, value.clone()).unwrap().unwrap(), record);
            assert_eq!(
                value[77..77 + names].len(),
                4 + "an app".len() + record.subject.to_key().len()
            );
            for length in 0..value.len() {
                assert!(matches!(
                    grant(id, value[..length].to_vec()),
                    Err(StoreError::Corrupt { .. })
                ));
            }
        }
    }

    #[test]
    fn a_tombstone_is_no_grant() {
        let id = GrantId::from_bytes([7; 16]);
        let value = [&[TOMBSTONE][..], &number(5)].concat();
        assert!(grant(id, value.clone()).unwrap().is_none());
        for bad in [&value[..8], &[2; 9], &[]] {
            assert!(matches!(grant(id, bad.to_vec()), Err(StoreError::Corrupt { .. })));
        }
    }
}
