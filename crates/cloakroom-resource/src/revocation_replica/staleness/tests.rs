use std::sync::atomic::{AtomicBool, Ordering};

use cloakroom_core::time::UnixTime;

use super::*;

fn reading(number: u64) -> StalenessReading {
    let time = Duration::from_nanos(number);
    StalenessReading { sent: ClockReading::at(UnixTime::from_millis(number), time), behind: time }
}

fn numbers(reading: StalenessReading) -> [u64; 3] {
    let StalenessReading { sent, behind } = reading;
    [sent.wall().as_millis(), nanos(sent.monotonic()), nanos(behind)]
}

#[test]
fn the_newest_reading_is_read() {
    let published = SharedStaleness::new();
    assert!(published.get().is_none());
    for number in 1..10 {
        published.set(Some(reading(number)));
        assert_eq!(published.get().map(numbers), Some([number; 3]));
    }
    published.set(None);
    assert!(published.get().is_none());
    let endless = StalenessReading { behind: Duration::MAX, ..reading(1) };
    published.set(Some(endless));
    let read = published.get().expect("however far behind");
    assert!(read.behind > Duration::from_secs(500 * 365 * 86_400));
    assert_eq!(endless.staleness(ClockReading::at(UnixTime::MAX, Duration::MAX)), Duration::MAX);
}

#[test]
fn nobody_reads_parts_of_two_readings() {
    let (published, is_over) = (SharedStaleness::new(), AtomicBool::new(false));
    published.set(Some(reading(0)));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..2_000_000 {
                published.set(Some(reading(number)));
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let mut newest = 0;
        while !is_over.load(Ordering::Relaxed) {
            let [wall, monotonic, behind] = numbers(published.get().unwrap());
            assert!(wall == monotonic && wall == behind, "{wall} {monotonic} {behind}");
            assert!(wall >= newest, "back from {newest} to {wall}");
            newest = wall;
        }
    });
}
