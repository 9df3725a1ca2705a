//! No statement scans, or is planned twice: what SQLite plans for each of them, over tables that are
//! filled and analysed.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::record::{Chain, ChainKey, GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Cursor, EntryId, Revocation, RuleKey, Target};
use cloakroom_core::store::{
    Advance, ChainUpdate, Housekeeping, MaintenanceReport, PageRequest, Selector, SingleUseId,
    Spend,
};
use cloakroom_core::time::{SystemClock, UnixTime};
use cloakroom_core::{Audience, ClientId, GrantId, Jti, Random, Subject, TokenDigest, TokenKind};
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, StatementStatus};

use crate::grants;
use crate::housekeeping;
use crate::plans;
use crate::revocation_log;
use crate::schema::{self, Synchronous};
use crate::single_use;

const NOW: UnixTime = UnixTime::from_secs(2_000_000_000);
const HOUR: Duration = Duration::from_secs(3_600);

static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn note(event: TraceEvent<'_>) {
    if let TraceEvent::Stmt(statement, _) = event {
        SEEN.lock().unwrap_or_else(PoisonError::into_inner).insert(statement.sql().into_owned());
    }
}

fn grant(number: u32, ends: UnixTime) -> GrantRecord {
    let random = Random::system();
    let mut grant = GrantRecord::new(
        GrantId::random(&random).unwrap(),
        ClientId::new(format!("client {}", number % 20)).unwrap(),
        Subject::user(format!("user {}", number % 300)).unwrap(),
        Audience::one("https://orders.example").unwrap(),
        NOW,
        ends,
    );
    let key = ChainKey::random(&random).unwrap();
    grant.epoch = cloakroom_core::revocation::Epoch::new(u64::MAX);
    grant.chain = Some(Chain::new(TokenKind::Refresh, digest(), key, ends));
    grant
}

fn digest() -> TokenDigest {
    TokenDigest::from_bytes(Random::system().array().unwrap())
}

fn revocation(target: Target) -> Revocation {
    Revocation::new(target, NOW, NOW + HOUR)
}

fn entry() -> EntryId {
    EntryId::random(&Random::system()).unwrap()
}

fn spend_twice(connection: &Connection, until: UnixTime, now: UnixTime) {
    let id = SingleUseId::from_bytes(Random::system().array().unwrap());
    for until in [until, until + HOUR] {
        let _ = single_use::spend(connection, &Spend { id, until, now }).unwrap();
    }
}

fn work(connection: &Connection, numbers: std::ops::Range<u32>, ends: UnixTime) {
    for number in numbers {
        spend_twice(connection, ends, NOW - HOUR);
        let grant = grant(number, ends);
        let id = grant.id;
        let token = TokenRecord::new(digest(), &grant, NOW, ends);
        for _ in 0..2 {
            let _ = grants::create(connection, &grant, std::slice::from_ref(&token), NOW).unwrap();
        }
        let mut next = grant.clone();
        next.chain.as_mut().unwrap().digest = digest();
        // Which columns are set depends on what changes.
        if number % 3 > 0 {
            next.row_expires_at = next.row_expires_at + HOUR;
        }
        if number % 30 == 2 {
            next.revoked_at = Some(NOW);
        }
        let step = Advance {
            grant: id,
            expected: grant.chain.as_ref().unwrap().position(),
            now: NOW,
            change: ChainUpdate::Move(Box::new(next)),
            tokens: vec![TokenRecord::new(digest(), &grant, NOW, ends)],
        };
        let _ = grants::advance(connection, &step).unwrap();
        let _ = grants::find(connection, id, None).unwrap();
        let _ = grants::find(connection, id, Some(&token.digest)).unwrap();
        if number % 5 == 0 {
            let absent = GrantId::random(&Random::system()).unwrap();
            for target in [
                Target::Token { grant: id, digest: token.digest },
                Target::Grant(absent),
                Target::Grant(id),
                Target::Jti(Jti::new(format!("jti {number}")).unwrap()),
            ] {
                revocation_log::record(connection, entry(), &revocation(target)).unwrap();
            }
        }
    }
}

#[test]
fn no_statement_scans_or_is_planned_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let mut connection = Connection::open(path).unwrap();
    schema::configure(&connection, Synchronous::Normal, Duration::ZERO).unwrap();
    schema::migrate(&mut connection, &SystemClock::new(), &Random::system()).unwrap();
    connection.execute_batch("BEGIN").unwrap();
    work(&connection, 0..3_000, NOW + HOUR);
    connection.execute_batch("COMMIT; ANALYZE").unwrap();
    connection.flush_prepared_statement_cache();

    connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(note)).unwrap();
    work(&connection, 0..10, NOW);
    // Later than the end of those before: some of them are forgotten.
    spend_twice(&connection, NOW + 9 * HOUR, NOW + 2 * HOUR);
    let subject = Subject::user("user 1").unwrap();
    let client = ClientId::new("client 1").unwrap();
    for of in [
        Selector::Subject(subject.clone()),
        Selector::Client(client.clone()),
        Selector::SubjectAtClient(subject.clone(), client.clone()),
    ] {
        let page = PageRequest { after: None, limit: 10 };
        let _ = grants::list(&connection, &of, page, NOW).unwrap();
    }
    for target in [Target::Subject(subject), Target::Client(client.clone())] {
        let swept = revocation_log::record(&connection, entry(), &revocation(target)).unwrap();
        let revocation_log::Swept::More(position) = swept else { panic!("a sweep begins") };
        while revocation_log::sweep(&connection, position).unwrap() != revocation_log::Swept::All {}
    }
    revocation_log::heartbeat(&connection, entry(), NOW, NOW + HOUR).unwrap();
    revocation_log::rules(&connection, vec![RuleKey::Client(client)]).unwrap();
    let mut cursor = Cursor::start();
    for _ in 0..2 {
        let batch = revocation_log::read(&connection, &cursor, 10).unwrap();
        let cloakroom_core::revocation::RevocationBatch::Entries { next, .. } = batch else {
            panic!("a gap")
        };
        cursor = next;
    }
    revocation_log::newest(&connection).unwrap();
    let task =
        Housekeeping { now: NOW + 9 * HOUR, before: NOW + HOUR / 2, limit: 100, sweep: None };
    housekeeping::step(&connection, &task, 100, &mut MaintenanceReport::default()).unwrap();
    housekeeping::is_due(&connection, &task).unwrap();
    let nobody: Option<fn(TraceEvent<'_>)> = None;
    connection.trace_v2(TraceEventCodes::empty(), nobody).unwrap();

    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(seen.len() > 25, "{seen:#?}");
    for sql in &seen {
        let statement = connection.prepare_cached(sql).unwrap();
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "{sql}");
    }
    for sql in seen.iter().filter(|sql| !sql.starts_with("--")) {
        for step in plans::steps(&connection, sql).unwrap() {
            assert!(!plans::is_scan(&step), "{sql}\nis planned as: {step}");
        }
    }
    let plans = plans::look(&connection).unwrap();
    assert_eq!(plans.len(), 13);
    for plan in plans {
        assert_eq!(plan.instead, None, "{plan:?}");
    }
}
