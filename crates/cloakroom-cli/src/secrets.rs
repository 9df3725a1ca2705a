//! Secrets, from the environment or a file.

use std::collections::BTreeMap;
use std::path::Path;

use cloakroom::core::decode_hex;
use cloakroom::jwt::AesGcmSealer;
use cloakroom::{HandleKeys, HandleSecret};
use zeroize::Zeroizing;

use crate::failure::Failure;

const HANDLE: &str = "CLOAKROOM_HANDLE_SECRET";
const FORMER_HANDLES: &str = "CLOAKROOM_FORMER_HANDLE_SECRETS";
const SEALING: &str = "CLOAKROOM_SEALING_KEY";
const FORMER_SEALING: &str = "CLOAKROOM_FORMER_SEALING_KEYS";
const NAMES: [&str; 4] = [HANDLE, FORMER_HANDLES, SEALING, FORMER_SEALING];

/// A secret with its number.
type Numbered = (u8, Zeroizing<[u8; 32]>);

/// The secrets of the servers, as far as they are given.
pub(crate) struct Secrets(BTreeMap<&'static str, Zeroizing<String>>);

impl Secrets {
    /// Those of the file, and for what it does not name, those of the environment.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, Failure> {
        let mut secrets = match file {
            Some(path) => Self::read(path)?,
            None => Self(BTreeMap::new()),
        };
        for name in NAMES {
            if let Ok(value) = std::env::var(name)
                && !value.trim().is_empty()
            {
                secrets.0.entry(name).or_insert_with(|| Zeroizing::new(value));
            }
        }
        Ok(secrets)
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let refused = |why: &dyn std::fmt::Display| {
            Failure::usage(format!("the secrets file {} {why}", path.display()))
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| refused(&format_args!("cannot be read: {error}")))?;
        Self::parse(&Zeroizing::new(text)).map_err(|why| refused(&why))
    }

    /// Lines such as `NAME=VALUE`, or the two lines that the examples write: a handle secret and a
    /// key-encryption key.
    fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let lines: Vec<&str> = lines.filter(|line| !line.starts_with('#')).collect();
        if let [handle, sealing] = lines[..]
            && !handle.contains('=')
            && !sealing.contains('=')
        {
            let pairs = [(HANDLE, handle), (SEALING, sealing)];
            return Ok(Self(
                pairs.map(|(name, value)| (name, Zeroizing::new(value.to_owned()))).into(),
            ));
        }
        let mut secrets = BTreeMap::new();
        for (line, number) in lines.iter().zip(1..) {
            let (name, value) = line
                .split_once('=')
                .ok_or_else(|| format!("has no name and `=` in its entry {number}"))?;
            let known = NAMES.into_iter().find(|known| *known == name.trim());
            let name = known.ok_or_else(|| format!("has an unknown name in its entry {number}"))?;
            secrets.insert(name, Zeroizing::new(value.trim().to_owned()));
        }
        Ok(Self(secrets))
    }

    /// The handle keys, if a handle secret is given.
    pub(crate) fn handle_keys(&self) -> Result<Option<HandleKeys>, Failure> {
        let Some(current) = self.current(HANDLE)? else { return Ok(None) };
        let secret = |(id, bytes): &Numbered| HandleSecret::new(*id, **bytes);
        let mut keys = HandleKeys::new(&secret(&current));
        for former in self.several(FORMER_HANDLES)? {
            keys = keys.with_former(&secret(&former))?;
        }
        Ok(Some(keys))
    }

    /// The sealer, if a key-encryption key is given.
    pub(crate) fn sealer(&self) -> Result<Option<AesGcmSealer>, Failure> {
        let Some((id, key)) = self.current(SEALING)? else { return Ok(None) };
        let mut sealer = AesGcmSealer::new(id, *key);
        for (id, key) in self.several(FORMER_SEALING)? {
            sealer = sealer.with_former(id, *key);
        }
        Ok(Some(sealer))
    }

    fn current(&self, name: &'static str) -> Result<Option<Numbered>, Failure> {
        self.0.get(name).map(|text| numbered(name, text)).transpose()
    }

    fn several(&self, name: &'static str) -> Result<Vec<Numbered>, Failure> {
        let Some(text) = self.0.get(name) else { return Ok(Vec::new()) };
        text.split(',').map(|part| numbered(name, part)).collect()
    }
}

/// `ID:HEX`, or `HEX` with the id 1.
fn numbered(name: &str, text: &str) -> Result<Numbered, Failure> {
    // The text is a secret, and stays out of the error.
    let refused =
        || Failure::usage(format!("{name} is not a number, a colon and 64 hexadecimal digits"));
    let (id, hex) = text.trim().split_once(':').unwrap_or(("1", text.trim()));
    let id = id.trim().parse().map_err(|_| refused())?;
    let bytes = decode_hex(hex.trim()).map_err(|_| refused())?;
    Ok((id, Zeroizing::new(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0101010101010101010101010101010101010101010101010101010101010101";

    #[test]
    fn both_forms_of_a_file_are_read() {
        let named = format!("# of the servers\n{HANDLE}=2:{HEX}\n\n{SEALING} = {HEX}\n");
        for text in [named, format!("{HEX}\n{HEX}\n")] {
            let secrets = Secrets::parse(&text).unwrap();
            assert!(secrets.handle_keys().unwrap().is_some());
            assert!(secrets.sealer().unwrap().is_some());
        }
        let former = format!("{HANDLE}={HEX}\n{FORMER_HANDLES}=2:{HEX},3:{HEX}");
        assert!(Secrets::parse(&former).unwrap().handle_keys().unwrap().is_some());
        assert!(Secrets::parse("").unwrap().handle_keys().unwrap().is_none());
    }

    #[test]
    fn an_error_repeats_no_secret() {
        for text in ["topsecret", "topsecret=1", &format!("{HANDLE}=topsecret")] {
            let error = match Secrets::parse(text) {
                Err(why) => why,
                Ok(secrets) => match secrets.handle_keys() {
                    Err(failure) => failure.text,
                    Ok(_) => panic!("{text}"),
                },
            };
            assert!(!error.contains("topsecret"), "{error}");
        }
    }
}
