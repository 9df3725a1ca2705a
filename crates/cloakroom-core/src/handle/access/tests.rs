use super::*;
use crate::handle::prefixes::HandlePrefixes;
use crate::handle::{ChainKind, HandleKeys, HandleSecret};
use crate::random::Random;
use crate::record::ChainKey;
use crate::secret::decode_array;

/// Where the key stands in the JSON of one.
const KEY: std::ops::Range<usize> = 24..67;

fn secret(id: u8) -> HandleSecret {
    HandleSecret::new(id, [id; 32])
}

fn handles() -> HandleKeys {
    HandleKeys::new(&secret(1))
}

fn mint(handles: &HandleKeys) -> String {
    let grant = GrantId::from_bytes([5; 16]);
    let (token, _) = handles.mint_access(grant, &Random::system()).unwrap();
    token.expose().to_owned()
}

fn handed_out(handles: &HandleKeys) -> AccessHandleKeys {
    AccessHandleKeys::from_json(handles.access_keys().to_json().as_bytes()).unwrap()
}

#[test]
fn what_is_handed_out_judges_as_the_issuer_does() {
    let (first, keys) = (mint(&handles()), handed_out(&handles()));
    assert_eq!(keys.check(&first), handles().access_keys().check(&first));
    assert!(matches!(keys.check(&first), HandleCheck::Genuine(_)));

    let prefixes = HandlePrefixes::new("acme_at_", "acme_rt_", "acme_ac_").unwrap();
    let renewed =
        HandleKeys::new(&secret(2)).with_former(&secret(1)).unwrap().with_prefixes(prefixes);
    let (second, all) = (mint(&renewed), handed_out(&renewed));
    for token in [&first, &second] {
        assert!(matches!(all.check(token), HandleCheck::Genuine(_)));
    }
    // Whoever has not heard of the new key and its prefixes must ask.
    assert_eq!(keys.check(&second), HandleCheck::Foreign);
    assert_eq!(keys.check(&second.replace("acme", "cr")), HandleCheck::UnknownKey);
}

#[test]
fn a_handle_of_another_version_is_forged_even_if_its_key_is_unknown() {
    let unknown = mint(&HandleKeys::new(&secret(2)));
    let keys = handed_out(&handles());
    assert_eq!(keys.check(&unknown), HandleCheck::UnknownKey);
    let (prefix, text) = unknown.split_at("cr_at_".len());
    let mut bytes: [u8; ACCESS] = decode_array(text).unwrap();
    bytes[0] ^= 0x80;
    let other = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes));
    assert_eq!(keys.check(&other), HandleCheck::Forged);
}

#[test]
fn the_json_has_its_room_from_the_start() {
    // A buffer that grows leaves copies of the keys behind.
    for length in [4, 20, 32] {
        let prefix = |kind: &str| format!("{}{kind}_", "a".repeat(length - 2));
        let prefixes = HandlePrefixes::new(&prefix("x"), &prefix("y"), &prefix("z")).unwrap();
        let json = handles().with_prefixes(prefixes).access_keys().to_json();
        // Two prefixes, each with two quotes and a comma.
        let room = 64 * 2 + (length + 3) + ("cr_at_".len() + 3);
        assert_eq!(json.capacity(), room, "{} bytes", json.len());
    }
}

#[test]
fn every_changed_character_is_forged_or_no_handle() {
    let (token, keys) = (mint(&handles()), handed_out(&handles()));
    for at in 0..token.len() {
        for replacement in ['A', 'B', '_', '=', '+'] {
            let mut text: Vec<char> = token.chars().collect();
            if std::mem::replace(&mut text[at], replacement) == replacement {
                continue;
            }
            let text: String = text.into_iter().collect();
            let expected: &[HandleCheck] = match at {
                0..=5 => &[HandleCheck::Foreign],
                // The id is the second byte.
                7 | 8 => &[HandleCheck::UnknownKey, HandleCheck::Forged],
                _ => &[HandleCheck::Forged],
            };
            assert!(expected.contains(&keys.check(&text)), "{text} differs at {at}");
        }
    }
    for forged in ["cr_at_", &token[..72], &format!("{token}A"), &format!("{token} ")] {
        assert_eq!(keys.check(forged), HandleCheck::Forged, "{forged}");
    }
    for foreign in ["", "cr_at", &token[1..], "eyJhbGciOiJub25lIn0.e30."] {
        assert_eq!(keys.check(foreign), HandleCheck::Foreign, "{foreign}");
    }
}

#[test]
fn nothing_of_the_chain_is_handed_out() {
    let random = Random::system();
    let key = ChainKey::random(&random).unwrap();
    let grant = GrantId::from_bytes([5; 16]);
    let keys = handed_out(&handles());
    for (kind, prefix) in [(ChainKind::Refresh, "cr_rt_"), (ChainKind::Code, "cr_ac_")] {
        let (token, _) = handles().mint_chain(kind, grant, 1, &key, &random).unwrap();
        assert_eq!(keys.check(token.expose()), HandleCheck::Foreign);
        let respelled = token.expose().replace(prefix, "cr_at_");
        assert_eq!(keys.check(&respelled), HandleCheck::Forged);
    }
    // What is handed out is neither the secret nor the key of the chain's tags.
    let json = handles().access_keys().to_json();
    let handed = decode_array::<32>(&json[KEY]).unwrap();
    assert_ne!(handed, [1; 32]);
    let (token, _) = handles().mint_chain(ChainKind::Refresh, grant, 1, &key, &random).unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(&token.expose()["cr_rt_".len()..]).unwrap();
    let (body, tag) = bytes.split_at(bytes.len() - TAG);
    assert!(!TagKey::new(1, &handed).made(TokenKind::Refresh, body, tag));
}

#[test]
fn json_is_read_strictly() {
    let json = handles().access_keys().to_json();
    let key = &json[KEY];
    assert_eq!(*json, format!(r#"{{"keys":[{{"id":1,"key":"{key}"}}],"prefixes":["cr_at_"]}}"#));
    let more = json.replacen('{', r#"{"later":[],"#, 1);
    assert!(AccessHandleKeys::from_json(more.as_bytes()).is_ok());
    for bad in [
        String::new(),
        "{}".to_owned(),
        format!("{}{}", *json, " ".repeat(MAX_JSON_BYTES)),
        json.replace(&format!(r#"{{"id":1,"key":"{key}"}}"#), ""),
        json.replace(r#""cr_at_""#, ""),
        json.replace(r#""cr_at_""#, r#""""#),
        json.replace("cr_at_", "a b"),
        json.replace(key, &key[1..]),
        json.replace(key, &format!("{key}A")),
        json.replace(r#""id":1"#, r#""id":256"#),
        json.replace("[{", &format!(r#"[{{"id":1,"key":"{key}"}},{{"#)),
    ] {
        assert_ne!(bad, *json);
        let error = AccessHandleKeys::from_json(bad.as_bytes()).unwrap_err();
        assert!(!format!("{error:?} {error}").contains(&key[1..]), "{error}");
    }
}

#[test]
fn debug_shows_no_key() {
    let keys = handles().access_keys().clone();
    let json = keys.to_json();
    let raw: [u8; 32] = decode_array(&json[KEY]).unwrap();
    let shown = format!("{keys:?} {keys:#?} {:?}", handles());
    assert!(shown.contains("cr_at_"));
    for secret in [&json[KEY], &format!("{:?}", &raw[..4]).replace(['[', ']'], "")] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn prefixes_and_json_are_bounded() {
    let long = |length| HandlePrefixes::new(&"a".repeat(length), "b", "c");
    assert!(long(32).is_ok() && long(33).is_err() && long(0).is_err());

    let json = HandleKeys::new(&secret(1)).access_keys().to_json();
    let padded = |length: usize| format!("{}{}", *json, " ".repeat(length - json.len()));
    assert!(AccessHandleKeys::from_json(padded(MAX_JSON_BYTES).as_bytes()).is_ok());
    assert!(AccessHandleKeys::from_json(padded(MAX_JSON_BYTES + 1).as_bytes()).is_err());
    assert_eq!(MAX_JSON_BYTES, 65_536);
}

#[test]
fn debug_names_the_keys_and_shows_none() {
    let keys = HandleKeys::new(&secret(7)).with_former(&secret(9)).unwrap();
    let shown = format!("{:?}", keys.access_keys());
    assert!(shown.contains("[7, 9]"), "{shown}");
}
