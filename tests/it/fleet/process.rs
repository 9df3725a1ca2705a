//! A process of the fleet, as the coordinator sees it.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use cloakroom::core::time::UnixTime;
use serde_json::{Value, json};

use crate::fleet::Place;
use crate::fleet::node::{ANSWER, CHILD, TEST};

/// This program again, as a node.
pub(super) struct Process {
    child: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// By how many milliseconds its clock is ahead.
    skew: i64,
    is_paused: bool,
}

impl Process {
    /// Starts a process with these key-encryption keys, the current one first. Its first answer says
    /// that it is ready, or why it is not.
    pub(super) fn start(place: &Place, now: UnixTime, skew: i64, sealer: &[u8]) -> Self {
        let settings =
            json!({"place": place.to_json(), "now": skewed(now, skew), "sealer": sealer});
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([TEST, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, settings.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, orders, lines, skew, is_paused: false }
    }

    /// Tells it the time and what to do.
    pub(super) fn send(&mut self, now: UnixTime, order: &Value) {
        let mut order = order.clone();
        order["now"] = skewed(now, self.skew).into();
        writeln!(self.orders, "{order}").unwrap();
        self.orders.flush().unwrap();
    }

    /// Waits for its answer.
    pub(super) fn answer(&mut self) -> Value {
        loop {
            let line = self.lines.next().expect("the process has ended").unwrap();
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return serde_json::from_str(answer).unwrap();
            }
        }
    }

    pub(super) fn ask(&mut self, now: UnixTime, order: &Value) -> Value {
        self.send(now, order);
        self.answer()
    }

    /// Ends it, and starts it again.
    pub(super) fn restart(&mut self, place: &Place, now: UnixTime, sealer: &[u8]) -> Value {
        *self = Self::start(place, now, self.skew, sealer);
        self.answer()
    }

    /// Stops it where it is.
    pub(super) fn pause(&mut self) {
        self.signal("-STOP");
        self.is_paused = true;
    }

    pub(super) fn wake(&mut self) {
        self.signal("-CONT");
        self.is_paused = false;
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn skewed(now: UnixTime, skew: i64) -> u64 {
    let by = Duration::from_millis(skew.unsigned_abs());
    (if skew < 0 { now - by } else { now + by }).as_millis()
}
