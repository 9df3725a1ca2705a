//! Cursors into the log: where reading continues, and when it must not.

use std::collections::HashSet;
use std::time::Duration;

use cloakroom_core::revocation::{
    Cursor, CursorPlace, EntryId, Epoch, LogEntry, LogEvent, Revocation, RevocationBatch, Target,
};
use cloakroom_core::store::TokenStore;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Jti, Kid, Random};

use crate::Context;
use crate::ask::{Ask, ensure, grown, not_lowered, same};
use crate::fixtures::{DAY, MINUTE, NOW, client, lone, pair, revocation, stranger, subject};
use crate::reading::read_on;
use crate::report::Broken;

checks! { "log::cursors":
    a_new_log_is_empty => LogComplete,
    a_reader_goes_on_where_it_was => LogComplete,
    every_pace_reads_the_same => LogComplete,
    a_cursor_survives_text_and_time => LogComplete,
    nothing_new_is_no_entry => LogComplete,
    entries_say_what_was_asked => RevokeLogged,
    a_heartbeat_says_when_it_was_written => LogHeartbeat,
    every_batch_tells_the_newest_bound => RevokeBounds,
    a_cursor_of_another_store_is_a_gap => LogGap,
    a_cursor_into_an_emptied_store_is_a_gap => LogGap,
    a_cursor_of_foreign_content_is_a_gap => LogGap,
    a_cursor_of_another_incarnation_is_a_gap => LogGap,
    a_cursor_to_another_entry_is_a_gap => LogGap,
    a_cursor_ahead_of_the_log_is_a_gap => LogGap,
    a_cursor_to_a_trimmed_entry_is_a_gap => LogGap,
    a_reader_at_the_newest_entry_survives_trimming => LogSnapshot,
    the_beginning_is_the_snapshot => LogSnapshot,
    the_newest_bound_survives_trimming => RevokeBounds,
}

/// Revocations of everything that can be revoked, with times of their own.
fn revocations() -> Result<Vec<Revocation>, Broken> {
    let (alice, app) = (subject("alice")?, client("app")?);
    let grant = lone(Epoch::default())?.id;
    let targets = [
        Target::Grant(grant),
        Target::Token { grant, digest: stranger()? },
        Target::Jti(Jti::new("a jti, \0 and é")?),
        Target::Subject(alice.clone()),
        Target::Client(app.clone()),
        pair(&alice, &app),
        Target::Key(Kid::new("a key")?),
        // A second time, and by a clock that went back.
        Target::Subject(alice),
    ];
    let revocation = |(number, target)| {
        // Every second time the caller knows whose it is.
        let client = (number % 2 == 1).then(|| app.clone());
        let grant = (number % 2 == 0).then_some(grant);
        let number = Duration::from_millis(number as u64);
        Revocation { client, grant, ..Revocation::new(target, NOW - number, NOW + DAY + number) }
    };
    Ok(targets.into_iter().enumerate().map(revocation).collect())
}

/// A store with these revocations in its log, and the log.
async fn filled(store: &dyn TokenStore) -> Result<Vec<LogEntry>, Broken> {
    for revocation in revocations()? {
        store.revoked_as(revocation).await?;
    }
    store.heartbeat(NOW, NOW + DAY).await?;
    Ok(read_on(store, Cursor::start(), 1_000).await?.0)
}

/// Where a reader who has read this many entries stands.
async fn cursor_after(store: &dyn TokenStore, count: u32) -> Result<Cursor, Broken> {
    let (mut cursor, mut missing) = (Cursor::start(), count);
    while missing > 0 {
        // A batch may bring fewer than it may.
        match store.revocations(cursor, missing).await? {
            RevocationBatch::Entries { entries, next, more, .. } => {
                ensure!(!next.is_start(), "after reading entries, the cursor is at the start");
                missing = missing.saturating_sub(u32::try_from(entries.len())?);
                ensure!(missing == 0 || more, "{missing} of the log's entries are missing");
                cursor = next;
            }
            RevocationBatch::Gap => return Err("reading from the start met a gap".into()),
        }
    }
    Ok(cursor)
}

/// The place that the cursor names, where the store fills its cursors with places. Only it can read
/// others.
async fn place_after(store: &dyn TokenStore, count: u32) -> Result<Option<CursorPlace>, Broken> {
    Ok(CursorPlace::of(&cursor_after(store, count).await?))
}

async fn is_a_gap(store: &dyn TokenStore, cursor: &Cursor, what: &str) -> Result<(), Broken> {
    for limit in [1, 1_000] {
        let batch = store.revocations(cursor.clone(), limit).await?;
        same(&format!("the answer to {what}"), &batch, &RevocationBatch::Gap)?;
    }
    Ok(())
}

async fn a_new_log_is_empty(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let (read, cursor) = read_on(&*store, Cursor::start(), 10).await?;
    let revoked = read.iter().find(|entry| matches!(entry.event, LogEvent::Revoked { .. }));
    ensure!(revoked.is_none(), "the log of a new store holds {revoked:?}");
    // From there the reader goes on.
    let first = revocations()?.swap_remove(0);
    store.revoked_as(first.clone()).await?;
    let (read, _) = read_on(&*store, cursor, 10).await?;
    let targets: Vec<_> = read.iter().map(|entry| entry.event.clone()).collect();
    let should = first.event(None);
    same("what a reader of the empty log reads next", &targets, &vec![should])
}

async fn a_reader_goes_on_where_it_was(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let (mut cursor, mut seen) = (Cursor::start(), Vec::new());
    for revocation in revocations()? {
        store.revoked_as(revocation.clone()).await?;
        let (read, next) = read_on(&*store, cursor, 10).await?;
        let is_new = |entry: &LogEntry| !seen.contains(&entry.id);
        let targets: Vec<_> =
            read.iter().filter(|entry| is_new(entry)).map(|entry| entry.event.clone()).collect();
        ensure!(
            matches!(&targets[..], [LogEvent::Revoked { target, .. }] if *target == revocation.target),
            "after {revocation:?}, a reader that goes on reads {targets:?}"
        );
        seen.extend(read.iter().map(|entry| entry.id));
        cursor = next;
    }
    Ok(())
}

async fn every_pace_reads_the_same(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let log = filled(&*store).await?;
    let ids: HashSet<_> = log.iter().map(|entry| entry.id).collect();
    same("how many ids the entries have", &ids.len(), &9)?;
    for limit in [1, 2, 7, 8, 9, 10, u32::MAX] {
        let (read, _) = read_on(&*store, Cursor::start(), limit).await?;
        same(&format!("the log, read by {limit}"), &read, &log)?;
    }
    Ok(())
}

async fn a_cursor_survives_text_and_time(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let log = filled(&*store).await?;
    for count in 1..log.len() {
        let text = cursor_after(&*store, u32::try_from(count)?).await?.to_string();
        // Any number of times: a reader may crash before it has noted where it is.
        for _ in 0..2 {
            let (read, _) = read_on(&*store, text.parse()?, 3).await?;
            same("the rest of the log", &read, &log[count..].to_vec())?;
        }
    }
    Ok(())
}

async fn nothing_new_is_no_entry(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    filled(&*store).await?;
    let (_, mut cursor) = read_on(&*store, Cursor::start(), 4).await?;
    for _ in 0..3 {
        let (read, next) = read_on(&*store, cursor, 4).await?;
        ensure!(read.is_empty(), "nothing was written, and the reader got {read:?}");
        cursor = next;
    }
    let last = revocations()?.swap_remove(0);
    store.revoked_as(last).await?;
    same("how much is new", &read_on(&*store, cursor, 4).await?.0.len(), &1)
}

async fn entries_say_what_was_asked(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut newest = store.newest_bound().await?;
    let mut cursor = read_on(&*store, Cursor::start(), 10).await?.1;
    for asked in revocations()? {
        store.revoked_as(asked.clone()).await?;
        let (read, next) = read_on(&*store, cursor, 10).await?;
        cursor = next;
        let entry = read.last().ok_or("the log holds nothing of an acknowledged revocation")?;
        let LogEvent::Revoked { bound, .. } = entry.event else {
            return Err(format!("the newest entry is {:?}", entry.event).into());
        };
        if asked.target.has_bound() {
            newest = grown(newest, asked.at, bound)?;
        } else {
            ensure!(bound.is_none(), "{:?} was allotted {bound:?}", asked.target);
        }
        same("the entry's event", &entry.event, &asked.event(bound))?;
        same("its times", &(entry.at, entry.until), &(asked.at, asked.until))?;
    }
    Ok(())
}

async fn a_heartbeat_says_when_it_was_written(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let bound = store.newest_bound().await?;
    for beat in 0..3 {
        let at = NOW + beat * MINUTE;
        store.heartbeat(at, at + DAY).await?;
    }
    let log = store.log().await?;
    let beats: Vec<_> =
        log.iter().map(|entry| (entry.event.clone(), entry.at, entry.until)).collect();
    let beat = |beat| (LogEvent::Heartbeat {}, NOW + beat * MINUTE, NOW + beat * MINUTE + DAY);
    same("the log after three heartbeats", &beats, &(0..3).map(beat).collect::<Vec<_>>())?;
    // After a failover, the database may have forgotten bounds that readers know.
    let raised = bound.max(Epoch::new((NOW + 2 * MINUTE).as_millis()));
    let newest = store.newest_bound().await?;
    ensure!(newest >= raised, "heartbeats left the newest bound at {newest:?}, below {raised:?}");
    Ok(())
}

async fn every_batch_tells_the_newest_bound(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for revocation in revocations()? {
        store.revoked_as(revocation).await?;
        let newest = store.newest_bound().await?;
        let mut cursor = Cursor::start();
        loop {
            let batch = store.revocations(cursor.clone(), 3).await?;
            let RevocationBatch::Entries { next, more, newest_bound, .. } = batch else {
                return Err("reading on met a gap".into());
            };
            not_lowered(newest, newest_bound)?;
            if !more {
                break;
            }
            cursor = next;
        }
    }
    Ok(())
}

async fn a_cursor_of_another_store_is_a_gap(context: Context) -> Result<(), Broken> {
    let (one, two) = (context.tokens().await, context.tokens().await);
    filled(&*one).await?;
    filled(&*two).await?;
    for count in [1, 5, 9] {
        let cursor = cursor_after(&*one, count).await?;
        is_a_gap(&*two, &cursor, "a cursor of another store").await?;
    }
    Ok(())
}

async fn a_cursor_into_an_emptied_store_is_a_gap(context: Context) -> Result<(), Broken> {
    let (before, after) = (context.tokens().await, context.tokens().await);
    filled(&*before).await?;
    let cursor = cursor_after(&*before, 9).await?;
    is_a_gap(&*after, &cursor, "a cursor of a store that has been emptied since").await?;
    // Nor when as much has been written again.
    filled(&*after).await?;
    is_a_gap(&*after, &cursor, "a cursor of a store that has been filled anew").await
}

async fn a_cursor_of_another_incarnation_is_a_gap(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    filled(&*store).await?;
    for byte in [0, 15] {
        let Some(mut place) = place_after(&*store, 5).await? else { return Ok(()) };
        place.incarnation[byte] ^= 1;
        is_a_gap(&*store, &Cursor::after(&place), "a cursor of another incarnation").await?;
    }
    Ok(())
}

async fn a_cursor_of_foreign_content_is_a_gap(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    filled(&*store).await?;
    for bytes in [&[0][..], &[7; 40], &[0; 40], &[0; 64], &[0xff; 64], &[b'/'; Cursor::MAX_BYTES]] {
        let cursor = Cursor::from_bytes(bytes)?;
        is_a_gap(&*store, &cursor, "a cursor that is none of the store's").await?;
    }
    Ok(())
}

async fn a_cursor_to_another_entry_is_a_gap(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    filled(&*store).await?;
    for count in [1, 5, 9] {
        let Some(mut place) = place_after(&*store, count).await? else { return Ok(()) };
        // As after a failover that lost this entry and wrote another in its place.
        place.entry = EntryId::random(&Random::system())?;
        let cursor = Cursor::after(&place);
        is_a_gap(&*store, &cursor, "a cursor whose entry is a different one").await?;
    }
    Ok(())
}

async fn a_cursor_ahead_of_the_log_is_a_gap(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    filled(&*store).await?;
    for ahead in [1, 1_000, u64::MAX] {
        let Some(mut place) = place_after(&*store, 9).await? else { return Ok(()) };
        place.position = place.position.saturating_add(ahead);
        place.entry = EntryId::random(&Random::system())?;
        is_a_gap(&*store, &Cursor::after(&place), "a cursor ahead of the log").await?;
    }
    Ok(())
}

async fn a_cursor_to_a_trimmed_entry_is_a_gap(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let log = filled(&*store).await?;
    let cursor = cursor_after(&*store, 2).await?;
    store.housekept(UnixTime::from_millis(u64::MAX / 4)).await?;
    let left = store.log().await?;
    if left.iter().any(|entry| entry.id == log[1].id) {
        // It may keep more than it must; then the cursor still stands.
        let (read, _) = read_on(&*store, cursor, 10).await?;
        let after = left.iter().position(|entry| entry.id == log[1].id).unwrap_or(0) + 1;
        return same("the rest of the log", &read, &left[after..].to_vec());
    }
    is_a_gap(&*store, &cursor, "a cursor to an entry that was trimmed").await
}

async fn a_reader_at_the_newest_entry_survives_trimming(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    filled(&*store).await?;
    let (_, cursor) = read_on(&*store, Cursor::start(), 10).await?;
    for _ in 0..2 {
        store.housekept(UnixTime::from_millis(u64::MAX / 4)).await?;
        let (read, _) = read_on(&*store, cursor.clone(), 10).await?;
        ensure!(read.is_empty(), "trimming gave a reader {read:?}");
    }
    store.revoked(Target::Grant(lone(Epoch::default())?.id)).await?;
    same("how much is new", &read_on(&*store, cursor, 10).await?.0.len(), &1)
}

async fn the_beginning_is_the_snapshot(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    // Ends in no order: what has ended stands between what has not.
    let mut should = Vec::new();
    for (number, days) in [5, 1, 9, 2, 7, 1, 8, 3].into_iter().enumerate() {
        let target = Target::Client(client(&format!("app-{number}"))?);
        let until = NOW + days * DAY;
        store.revoked_as(Revocation { until, rule_until: until, ..revocation(target) }).await?;
        should.push(until);
    }
    for day in 0..10 {
        let now = NOW + day * DAY;
        store.housekept(now).await?;
        let left: Vec<_> = store.log().await?.iter().map(|entry| entry.until).collect();
        let due: Vec<_> = should.iter().copied().filter(|until| *until >= now).collect();
        let kept: Vec<_> = left.iter().copied().filter(|until| *until >= now).collect();
        same("the ends of the entries that still matter", &kept, &due)?;
        same("the end of the newest entry", &left.last(), &should.last())?;
    }
    Ok(())
}

async fn the_newest_bound_survives_trimming(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    filled(&*store).await?;
    let before = store.newest_bound().await?;
    // The newest entry is a heartbeat: no entry that is left has a bound.
    store.housekept(UnixTime::from_millis(u64::MAX / 4)).await?;
    not_lowered(before, store.newest_bound().await?)?;
    let target = Target::Subject(subject("alice")?);
    store.revoked(target.clone()).await?;
    let bound = store.bound_of(&target).await?;
    grown(before, NOW, Some(bound)).map(|_| ())
}
