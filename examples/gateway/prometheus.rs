//! What the `metrics` crate counts, in the text format that Prometheus reads. The crate
//! `metrics-exporter-prometheus` does this too, and much more.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::atomics::AtomicU64;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// The upper bounds of a histogram, in seconds.
const BOUNDS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// Every metric, by its name and labels. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prometheus(Arc<Mutex<BTreeMap<String, Family>>>);

/// The metrics of one name.
#[derive(Debug)]
struct Family {
    kind: &'static str,
    by_labels: BTreeMap<String, Metric>,
}

#[derive(Debug, Clone)]
enum Metric {
    Counter(Arc<AtomicU64>),
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Prometheus {
    /// The text format, version 0.0.4.
    pub(crate) fn render(&self) -> String {
        let families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (name, family) in &*families {
            let _ = writeln!(text, "# TYPE {name} {}", family.kind);
            for (labels, metric) in &family.by_labels {
                metric.render(name, labels, &mut text);
            }
        }
        text
    }

    fn metric(&self, key: &Key, new: Metric) -> Metric {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families
            .entry(plain(key.name()))
            .or_insert_with(|| Family { kind: new.kind(), by_labels: BTreeMap::new() });
        // One name with two kinds: the second is dropped, without a panic.
        if family.kind != new.kind() {
            return new;
        }
        let labels: Vec<String> = key
            .labels()
            .map(|label| format!("{}=\"{}\"", plain(label.key()), escaped(label.value())))
            .collect();
        family.by_labels.entry(labels.join(",")).or_insert(new).clone()
    }
}

impl Metric {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }

    fn render(&self, name: &str, labels: &str, text: &mut String) {
        let mut line = |suffix: &str, more: &str, value: &dyn std::fmt::Display| {
            let comma = if labels.is_empty() || more.is_empty() { "" } else { "," };
            let _ = match format!("{labels}{comma}{more}").as_str() {
                "" => writeln!(text, "{name}{suffix} {value}"),
                labels => writeln!(text, "{name}{suffix}{{{labels}}} {value}"),
            };
        };
        match self {
            Self::Counter(value) => line("", "", &value.load(Ordering::Relaxed)),
            Self::Gauge(value) => line("", "", &f64::from_bits(value.load(Ordering::Relaxed))),
            Self::Histogram(buckets) => {
                let mut sum = 0;
                for (bound, count) in BOUNDS.iter().zip(&buckets.counts) {
                    sum += count.load(Ordering::Relaxed);
                    line("_bucket", &format!("le=\"{bound}\""), &sum);
                }
                let count = buckets.count.load(Ordering::Relaxed);
                line("_bucket", "le=\"+Inf\"", &count);
                let micros = Duration::from_micros(buckets.micros.load(Ordering::Relaxed));
                line("_sum", "", &micros.as_secs_f64());
                line("_count", "", &count);
            }
        }
    }
}

impl HistogramFn for Buckets {
    fn record(&self, seconds: f64) {
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let taken = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let micros = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Recorder for Prometheus {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.metric(key, Metric::Counter(Arc::default())) {
            Metric::Counter(counter) => Counter::from_arc(counter),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.metric(key, Metric::Gauge(Arc::default())) {
            Metric::Gauge(gauge) => Gauge::from_arc(gauge),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.metric(key, Metric::Histogram(Arc::default())) {
            Metric::Histogram(histogram) => Histogram::from_arc(histogram),
            _ => Histogram::noop(),
        }
    }
}

/// What a name may consist of.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
