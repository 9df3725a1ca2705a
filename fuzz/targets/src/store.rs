//! Data from a store, or from the revocation log.

use cloakroom::core::format::TokenTerms;
use cloakroom::core::keys::KeyRecord;
use cloakroom::core::record::{
    Chain, ChainKey, Claims, CodeBinding, Confirmation, Device, GrantRecord, GrantRow,
    SealedSuccessor, SpentBefore, TokenRecord, TokenRow,
};
use cloakroom::core::revocation::{
    Cursor, CursorPlace, EntryId, Epoch, LogEntry, LogEvent, Target,
};
use cloakroom::core::time::UnixTime;
use cloakroom::core::{Audience, ClientId, GrantId, Scope, Subject, TokenDigest, TokenKind};
use serde_json::json;

const GRANT: GrantId = GrantId::from_bytes([5; 16]);

/// The first byte selects the kind of row whose body the rest is. A body is read or refused; one that
/// was read survives being written and read again.
pub(crate) fn row(input: &[u8]) {
    let Some((kind, body)) = input.split_first() else { return };
    let body = body.to_vec();
    match kind % 5 {
        with_chain @ (0 | 1) => {
            let chain = (with_chain == 1).then_some((7, [1; 32]));
            let row = GrantRow {
                id: GRANT,
                client: "web-app".into(),
                subject: "u:alice".into(),
                epoch: 1,
                chain,
                chain_expires_at: chain.map(|_| 2),
                expires_at: 3,
                row_expires_at: 4,
                revoked_at: None,
                body,
            };
            if let Ok(record) = GrantRecord::from_row(&row) {
                let again = GrantRecord::from_row(&record.to_row()).expect("what was written");
                assert_eq!(again, record);
            }
        }
        4 => {
            if let Ok(record) = GrantRecord::from_bytes(GRANT, &body) {
                let again = GrantRecord::from_bytes(GRANT, &record.to_bytes());
                assert_eq!(again.expect("what was written"), record);
            }
        }
        2 => {
            let row = TokenRow {
                digest: [2; 32],
                grant: GRANT,
                issued_at: 1,
                expires_at: 2,
                revoked_at: Some(3),
                body,
            };
            if let Ok(record) = TokenRecord::from_row(&row) {
                let again = TokenRecord::from_row(&record.to_row()).expect("what was written");
                assert_eq!(again, record);
            }
        }
        _ => {
            if let Ok(record) = KeyRecord::from_body(&body) {
                let again = KeyRecord::from_body(&record.to_body()).expect("what was written");
                assert_eq!(again, record);
            }
        }
    }
}

/// A grant with a chain and all that a body may hold, and one without.
fn grants() -> [GrantRecord; 2] {
    let one = UnixTime::from_millis(1);
    let small = GrantRecord::new(
        GRANT,
        ClientId::new("web-app").expect("a client"),
        Subject::user("alice").expect("a subject"),
        Audience::one("https://a").expect("an audience"),
        one,
        UnixTime::MAX,
    );
    let mut whole = small.clone();
    whole.scope = Scope::parse("a b").expect("a scope");
    whole.audience = Audience::new(["https://a", "https://b"]).expect("an audience");
    (whole.auth_time, whole.refreshed_at) = (Some(one), Some(one));
    (whole.acr, whole.session) = (Some("mfa".into()), Some("s".into()));
    whole.act = Some(Box::new(json!({"sub": "support"})));
    whole.authorization_details = Some(Box::new(json!([{"type": "payment"}])));
    whole.username = Some("Alice".into());
    whole.confirmation = Some(Confirmation::JwkThumbprint([0; 32]));
    whole.claims = Claims::new([("tenant", json!("acme"))]).expect("claims");
    whole.device = Device::new([("browser", "Firefox")]).expect("a device");
    whole.unknown.insert("new".to_owned(), json!([1]));
    let digest = TokenDigest::compute(TokenKind::Refresh, b"x");
    let mut chain = Chain::new(TokenKind::Refresh, digest, ChainKey::from_bytes([6; 16]), one);
    chain.bound_from = Some(1);
    let mut code = CodeBinding::new("https://a/cb", Some("x".to_owned()));
    code.nonce = Some("n".to_owned());
    code.unknown.insert("new".to_owned(), json!([1]));
    chain.code = Some(Box::new(code));
    let mut successor = SealedSuccessor::new(vec![7; 3], one);
    successor.earlier.push(SpentBefore::new(1, one));
    chain.successor = Some(Box::new(successor));
    whole.chain = Some(chain);
    [small, whole]
}

pub(crate) fn row_seeds() -> Vec<Vec<u8>> {
    let [small, whole] = grants();
    let key = json!({
        "generation": 1, "version": 2, "kid": "k", "algorithm": "ES256", "public_jwk": {},
        "sealed": "AAAA",
        "times": { "published": 1, "signing": { "from": 1, "until": 2, "published_until": 3 } },
    });
    let terms = TokenTerms::new(
        UnixTime::from_millis(1),
        UnixTime::from_millis(2),
        Scope::parse("a b").expect("a scope"),
        Audience::one("https://a").expect("an audience"),
    );
    let mut token = terms.record(GRANT, TokenDigest::compute(TokenKind::Access, b"x"));
    token.unknown.insert("new".to_owned(), json!([1]));
    vec![
        [b"\x01", &*whole.to_row().body].concat(),
        [b"\0", &*small.to_row().body].concat(),
        [b"\x02", &*token.to_row().body].concat(),
        [b"\x04", &*whole.to_bytes()].concat(),
        format!("\x03\x01{key}").into_bytes(),
    ]
}

/// Entries and cursors are read or refused; those that were read survive being written again.
pub(crate) fn revocations(input: &[u8]) {
    if let Ok(entry) = LogEntry::from_body(input) {
        assert_eq!(LogEntry::from_body(&entry.to_body()).expect("what was written"), entry);
    }
    if let Ok(cursor) = String::from_utf8_lossy(input).parse::<Cursor>() {
        assert_eq!(cursor.to_string().as_bytes(), input);
    }
}

pub(crate) fn revocation_seeds() -> Vec<Vec<u8>> {
    let entry = EntryId::from_bytes([3; 16]);
    let client = ClientId::new("web-app").expect("a client");
    let subject = Subject::user("alice").expect("a subject");
    let digest = TokenDigest::compute(TokenKind::Access, b"x");
    let targets = [
        Target::Token { grant: GRANT, digest },
        Target::Grant(GRANT),
        Target::SubjectAtClient(subject, client.clone()),
    ];
    let written = |event| {
        let at = UnixTime::from_millis(1);
        LogEntry { id: entry, event, at, until: UnixTime::MAX }.to_body()
    };
    let place = CursorPlace { incarnation: [1; 16], position: 2, entry, revocation: None };
    let mut seeds = vec![written(LogEvent::Heartbeat {})];
    seeds.push(Cursor::after(&place).to_string().into_bytes());
    seeds.extend(targets.map(|target| {
        let bound = target.has_bound().then_some(Epoch::new(9));
        let grant = (!target.has_bound()).then_some(GRANT);
        written(LogEvent::Revoked { target, bound, client: Some(client.clone()), grant })
    }));
    seeds
}
