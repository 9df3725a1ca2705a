//! Where events go.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::events::Event;
use crate::metrics;

/// Receives events, in the request that causes them: forward them, and do not block.
///
/// Every event goes to `tracing` as well, whatever the sink does. A sink may call the issuer. If a
/// sink panics, the panic is logged and the operation continues.
///
/// A sink that writes JSON lines, for a log collector:
///
/// ```
/// use std::io::Write;
/// use std::sync::{Arc, mpsc};
///
/// use cloakroom::{Event, EventSink, Issuer};
///
/// /// A thread writes the events that requests send.
/// #[derive(Debug)]
/// struct JsonLines(mpsc::SyncSender<Event>);
///
/// impl JsonLines {
///     fn to(mut out: impl Write + Send + 'static) -> Arc<Self> {
///         let (sender, events) = mpsc::sync_channel(10_000);
///         std::thread::spawn(move || {
///             for event in events {
///                 let line = serde_json::to_string(&event).unwrap_or_default();
///                 if let Err(error) = writeln!(out, "{line}") {
///                     eprintln!("the audit trail cannot be written: {error}");
///                 }
///             }
///         });
///         Arc::new(Self(sender))
///     }
/// }
///
/// impl EventSink for JsonLines {
///     fn record(&self, event: &Event) {
///         // If the queue is full, the disk is too slow: do not delay requests.
///         if self.0.try_send(event.clone()).is_err() {
///             eprintln!("the audit trail has lost an event: {}", event.name());
///         }
///     }
/// }
///
/// let builder = Issuer::dev().events(JsonLines::to(std::io::stderr()));
/// ```
pub trait EventSink: fmt::Debug + Send + Sync + 'static {
    /// Receives an event. It may be called on several threads at the same time.
    fn record(&self, event: &Event);
}

/// Sends events to `tracing`, and to every sink.
#[derive(Debug, Clone, Default)]
pub(crate) struct Events(Arc<[Arc<dyn EventSink>]>);

impl Events {
    /// Adds a sink.
    pub(crate) fn and(&self, sink: Arc<dyn EventSink>) -> Self {
        Self(self.0.iter().cloned().chain([sink]).collect())
    }

    /// Reports an event. If a sink panics, the other sinks, the operation, later events and maintenance
    /// continue.
    pub(crate) fn record(&self, event: &Event) {
        event.trace();
        metrics::event(event);
        for sink in &*self.0 {
            if catch_unwind(AssertUnwindSafe(|| sink.record(event))).is_err() {
                tracing::error!(event = event.name(), "an event sink panicked");
            }
        }
    }
}
