use proptest::prelude::*;

use super::*;

fn secret(id: u8) -> HandleSecret {
    HandleSecret::new(id, [id; 32])
}

fn keys() -> HandleKeys {
    HandleKeys::new(&secret(1))
}

fn grant() -> GrantId {
    GrantId::from_bytes([5; 16])
}

#[test]
fn handles_have_the_documented_length() {
    let random = Random::system();
    let (access, _) = keys().mint_access(grant(), &random).unwrap();
    assert_eq!(access.expose().len(), 73);
    let key = ChainKey::random(&random).unwrap();
    let (code, _) = keys().mint_chain(ChainKind::Code, grant(), 0, &key, &random).unwrap();
    assert_eq!(code.expose().len(), 89);
    assert!(code.expose().starts_with("cr_ac_"));
}

#[test]
fn every_changed_character_is_refused() {
    let random = Random::system();
    let key = ChainKey::random(&random).unwrap();
    let (access, _) = keys().mint_access(grant(), &random).unwrap();
    let (refresh, _) = keys().mint_chain(ChainKind::Refresh, grant(), 3, &key, &random).unwrap();
    for token in [access, refresh] {
        let parses = |text: &str| {
            keys().parse_access(text).is_some()
                || keys().parse_chain(ChainKind::Refresh, text).is_some()
                || keys().parse_chain(ChainKind::Code, text).is_some()
        };
        assert!(parses(token.expose()));
        for at in 0..token.expose().len() {
            for replacement in ['A', 'B', '_', '=', '+'] {
                let mut text: Vec<char> = token.expose().chars().collect();
                if std::mem::replace(&mut text[at], replacement) == replacement {
                    continue;
                }
                let text: String = text.into_iter().collect();
                assert!(!parses(&text), "{text} differs at {at}");
            }
        }
        assert!(!parses(&token.expose()[1..]));
        assert!(!parses(&format!("{}A", token.expose())));
        assert!(!parses(&format!("{} ", token.expose())));
    }
}

#[test]
fn a_handle_of_one_kind_is_none_of_another() {
    let random = Random::system();
    let key = ChainKey::random(&random).unwrap();
    let (refresh, _) = keys().mint_chain(ChainKind::Refresh, grant(), 3, &key, &random).unwrap();
    let as_code = refresh.expose().replace("cr_rt_", "cr_ac_");
    assert!(keys().parse_chain(ChainKind::Code, &as_code).is_none());
}

#[test]
fn only_the_chain_key_makes_a_chain_handle_genuine() {
    let random = Random::system();
    let (own, other) = (ChainKey::random(&random).unwrap(), ChainKey::random(&random).unwrap());
    let (token, digest) = keys().mint_chain(ChainKind::Refresh, grant(), 7, &own, &random).unwrap();
    let handle = keys().parse_chain(ChainKind::Refresh, token.expose()).unwrap();
    assert_eq!((handle.generation, handle.digest), (7, digest));
    assert!(handle.is_genuine(&own));
    assert!(!handle.is_genuine(&other));
}

#[test]
fn former_secrets_and_spellings_stay_valid() {
    let random = Random::system();
    let (old, digest) = keys().mint_access(grant(), &random).unwrap();
    let prefixes = HandlePrefixes::new("acme_at_", "acme_rt_", "acme_ac_").unwrap();
    let renewed =
        HandleKeys::new(&secret(2)).with_former(&secret(1)).unwrap().with_prefixes(prefixes);
    assert_eq!(renewed.parse_access(old.expose()).unwrap().digest, digest);
    let respelled = old.expose().replace("cr_at_", "acme_at_");
    assert_eq!(renewed.parse_access(&respelled).unwrap().digest, digest);
    let (new, _) = renewed.mint_access(grant(), &random).unwrap();
    assert!(new.expose().starts_with("acme_at_"));
    assert!(keys().parse_access(new.expose()).is_none());
    let shorter = renewed.clone().with_prefixes(HandlePrefixes::new("cr_", "r_", "c_").unwrap());
    assert_eq!(shorter.parse_access(old.expose()).unwrap().digest, digest);
    assert!(renewed.with_former(&secret(2)).is_err());
}

#[test]
fn prefixes_are_checked() {
    assert!(HandlePrefixes::new("", "r_", "c_").is_err());
    assert!(HandlePrefixes::new("a_", "a_", "c_").is_err());
    assert!(HandlePrefixes::new("a", "a_r", "c_").is_err());
    assert!(HandlePrefixes::new("a b", "r_", "c_").is_err());
    assert!(HandlePrefixes::new("acme.v1.at_", "r_", "c_").is_err(), "it would look like a JWT");
}

#[test]
fn debug_shows_no_secret() {
    let random = Random::system();
    let shown = format!("{:?} {:?}", secret(0x5a), HandleKeys::new(&secret(0x5a)));
    assert!(!shown.contains("90, 90") && !shown.to_lowercase().contains("5a5a"), "{shown}");
    let key = ChainKey::random(&random).unwrap();
    let (token, _) = keys().mint_chain(ChainKind::Refresh, grant(), 7, &key, &random).unwrap();
    let handle = keys().parse_chain(ChainKind::Refresh, token.expose()).unwrap();
    let bytes = format!("{:?}", &handle.expose()[22..46]);
    assert!(!format!("{handle:?}").contains(&bytes[1..bytes.len() - 1]));
}

#[test]
fn a_handle_of_one_issuer_is_junk_to_another() {
    let random = Random::system();
    let of = |issuer| keys().for_issuer(issuer, &[]);
    let key = ChainKey::random(&random).unwrap();
    let (one, other) = (of("https://one.example"), of("https://two.example"));
    for (maker, stranger) in [(&one, &other), (&other, &one), (&one, &keys()), (&keys(), &one)] {
        let (access, _) = maker.mint_access(grant(), &random).unwrap();
        assert!(maker.parse_access(access.expose()).is_some());
        assert!(stranger.parse_access(access.expose()).is_none());
        assert_eq!(stranger.access_keys().check(access.expose()), HandleCheck::Forged);
        let nonce = maker.mint_nonce("form", b"", crate::time::UnixTime::MAX, &random).unwrap();
        assert!(maker.parse_nonce("form", b"", &nonce).is_some());
        assert!(stranger.parse_nonce("form", b"", &nonce).is_none());
        for kind in [ChainKind::Refresh, ChainKind::Code] {
            let (token, _) = maker.mint_chain(kind, grant(), 3, &key, &random).unwrap();
            assert!(maker.parse_chain(kind, token.expose()).is_some());
            assert!(stranger.parse_chain(kind, token.expose()).is_none());
        }
    }
}

#[test]
fn an_issuer_that_was_renamed_accepts_what_it_made_before() {
    let random = Random::system();
    let old = keys().for_issuer("https://old.example", &[]);
    let new = HandleKeys::new(&secret(2))
        .for_issuer("https://new.example", &["https://old.example".to_owned()])
        .with_former(&secret(1))
        .unwrap();
    let (access, digest) = old.mint_access(grant(), &random).unwrap();
    assert_eq!(new.parse_access(access.expose()).unwrap().digest, digest);
    let handed = AccessHandleKeys::from_json(new.access_keys().to_json().as_bytes()).unwrap();
    assert!(matches!(handed.check(access.expose()), HandleCheck::Genuine(_)));
    let key = ChainKey::random(&random).unwrap();
    let (token, _) = old.mint_chain(ChainKind::Refresh, grant(), 3, &key, &random).unwrap();
    assert!(new.parse_chain(ChainKind::Refresh, token.expose()).is_some());
    // What it makes now is its new name's, whoever is asked.
    let (access, _) = new.mint_access(grant(), &random).unwrap();
    assert!(old.parse_access(access.expose()).is_none());
    let only_new = HandleKeys::new(&secret(2)).for_issuer("https://new.example", &[]);
    assert!(only_new.parse_access(access.expose()).is_some());
}

#[test]
fn the_key_of_any_handle_is_named_where_it_is_unknown() {
    let random = Random::system();
    let stranger = HandleKeys::new(&secret(7)).for_issuer("https://one.example", &[]);
    let key = ChainKey::random(&random).unwrap();
    let mut tokens = vec![stranger.mint_access(grant(), &random).unwrap().0];
    for kind in [ChainKind::Refresh, ChainKind::Code] {
        tokens.push(stranger.mint_chain(kind, grant(), 3, &key, &random).unwrap().0);
    }
    for token in &tokens {
        assert_eq!(keys().unknown_key(token.expose()), Some(7));
        assert_eq!(stranger.unknown_key(token.expose()), None);
        assert_eq!(keys().unknown_key(&token.expose()[..40]), None);
    }
    for junk in ["", "cr_at_", "cr_rt_x", "a.b.c"] {
        assert_eq!(keys().unknown_key(junk), None, "{junk}");
    }
}

#[test]
fn a_check_value_tells_secrets_apart_and_shows_none() {
    let checks = |keys: HandleKeys| keys.checks().collect::<Vec<_>>();
    let [(id, check)] = checks(keys())[..] else { panic!("one secret") };
    assert_eq!(id, 1);
    // Whoever's the handles are: an issuer may be renamed.
    assert_eq!(checks(keys().for_issuer("https://one.example", &[])), [(id, check)]);
    assert_ne!(checks(HandleKeys::new(&HandleSecret::new(1, [9; 32])))[0].1, check);
    let derived = [Root::new(&secret(1)).derive("cloakroom access handle", ""), [1; 32].into()];
    assert!(derived.iter().all(|secret| **secret != check));
    assert!(keys().with_retired(1).is_err());
    assert_eq!(keys().with_retired(2).unwrap().retired(), [2]);
}

proptest! {
    #[test]
    fn junk_never_panics(text in ".{0,120}", prefix in "(cr_at_|cr_rt_|cr_ac_)?") {
        let text = format!("{prefix}{text}");
        prop_assert!(keys().parse_access(&text).is_none());
        prop_assert!(keys().parse_chain(ChainKind::Refresh, &text).is_none());
        prop_assert!(keys().parse_chain(ChainKind::Code, &text).is_none());
    }
}

/// What users hold, and what stores know of it, outlives every version: computed once elsewhere,
/// as HMAC-SHA-256 and SHA-256 of these bytes.
#[test]
fn handles_and_digests_are_what_they_always_were() {
    struct Constant;
    impl rand_core::TryRng for Constant {
        type Error = std::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Ok(0xa5a5_a5a5)
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Ok(0xa5a5_a5a5_a5a5_a5a5)
        }
        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
            bytes.fill(0xa5);
            Ok(())
        }
    }
    impl rand_core::TryCryptoRng for Constant {}

    let random = Random::from_rng(Constant);
    let chain_key = ChainKey::from_bytes([9; 16]);
    let chain = |kind| keys().mint_chain(kind, grant(), 7, &chain_key, &random).unwrap();
    for ((token, digest), text, expected) in [
        (
            keys().mint_access(grant(), &random).unwrap(),
            "cr_at_AQEFBQUFBQUFBQUFBQUFBQUFpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWl76JgdVWqx4k",
            "96Eh62aXV74yVNnyri3MrqrOQ8jW2J9e1LbCtIpntw0",
        ),
        (
            chain(ChainKind::Refresh),
            "cr_rt_AQEFBQUFBQUFBQUFBQUFBQUFAAAAB6WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaoqUnnfsLXXb3\
             AhR7W7l58",
            "LiES0pbAMdYN_uERHGFvklN7LPvT5-Epuv7CYBQTcL0",
        ),
        (
            chain(ChainKind::Code),
            "cr_ac_AQEFBQUFBQUFBQUFBQUFBQUFAAAAB6WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaRw8mfzcwakbP\
             MiamvbIlw",
            "_rYvxguTm2UHz9n-vJzZsq8ctLBFgLj0h4DWxHPp-2k",
        ),
    ] {
        assert_eq!(token.expose(), text);
        assert_eq!(serde_json::to_value(digest).unwrap(), expected);
    }
    let hex = HandleSecret::from_hex(1, &"01".repeat(32)).unwrap();
    let (token, _) = HandleKeys::new(&hex).mint_access(grant(), &random).unwrap();
    assert!(keys().parse_access(token.expose()).is_some(), "the same secret, from hex");

    let keys = keys().for_issuer("https://as.example", &[]);
    let (token, _) = keys.mint_access(grant(), &random).unwrap();
    let text = "cr_at_AQEFBQUFBQUFBQUFBQUFBQUFpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlM1pc79BRILw";
    assert_eq!(token.expose(), text, "keys are derived for the issuer");
}

#[test]
fn a_handle_is_read_as_it_was_made() {
    let random = Random::system();
    let key = ChainKey::random(&random).unwrap();
    let (access, digest) = keys().mint_access(grant(), &random).unwrap();
    let parsed = keys().parse_access(access.expose()).unwrap();
    assert_eq!((parsed.grant, parsed.digest), (grant(), digest));
    for kind in [ChainKind::Code, ChainKind::Refresh] {
        let (token, digest) = keys().mint_chain(kind, grant(), 0x0102_0304, &key, &random).unwrap();
        let handle = keys().parse_chain(kind, token.expose()).unwrap();
        assert_eq!((handle.kind, handle.grant), (kind, grant()));
        assert_eq!((handle.generation, handle.digest), (0x0102_0304, digest));
        assert!(handle.is_genuine(&key));
        let text = &token.expose()["cr_rt_".len()..];
        assert_eq!(handle.expose(), URL_SAFE_NO_PAD.decode(text).unwrap());
    }
}

/// Two secrets, each of which names itself 1: the tag alone tells their handles apart.
#[test]
fn a_handle_made_under_another_secret_is_refused() {
    let random = Random::system();
    let key = ChainKey::random(&random).unwrap();
    let others = [HandleSecret::new(1, [2; 32]), HandleSecret::random(1, &random).unwrap()];
    for other in others.map(|secret| HandleKeys::new(&secret)) {
        let (access, _) = other.mint_access(grant(), &random).unwrap();
        assert!(keys().parse_access(access.expose()).is_none());
        let (code, _) = other.mint_chain(ChainKind::Code, grant(), 0, &key, &random).unwrap();
        assert!(keys().parse_chain(ChainKind::Code, code.expose()).is_none());
        assert!(other.parse_chain(ChainKind::Code, code.expose()).is_some());
    }
}

#[test]
fn each_purpose_secret_and_issuer_has_a_key_of_its_own() {
    let former = secret(2);
    let keys = HandleKeys::new(&secret(1)).with_former(&former).unwrap();
    let old = ["https://old.example".to_owned()];
    let keys = keys.for_issuer("https://as.example", &old);
    let named = |purpose| keys.keys_for(purpose).map(|(id, key)| (id, *key)).collect::<Vec<_>>();
    let (one, other) = (named("one"), named("other"));
    assert_eq!(one.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 1, 2, 2]);
    assert_eq!(named("one"), one, "the same each time, so on every node");
    let distinct: std::collections::BTreeSet<_> =
        one.iter().chain(&other).map(|(_, key)| key).collect();
    assert_eq!(distinct.len(), 8);
}
