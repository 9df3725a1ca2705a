//! Reports of damaged rows that are read repeatedly.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::events::Event;
use crate::events::sink::Events;

/// Reports damage that every read meets, such as an entry of the log, once until it is gone.
#[derive(Debug, Default)]
pub(crate) struct Damage(AtomicBool);

impl Damage {
    pub(crate) fn is_met(&self, events: &Events) {
        if !self.0.swap(true, Ordering::Relaxed) {
            events.record(&Event::CorruptRow { grant: None, count: 1 });
        }
    }

    pub(crate) fn is_gone(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
