//! What is counted, and how it is told.

use metrics::{counter, gauge, histogram, with_local_recorder};

use crate::prometheus::Prometheus;

#[test]
fn metrics_are_told_as_prometheus_reads_them() {
    let prometheus = Prometheus::default();
    with_local_recorder(&prometheus, || {
        counter!("requests_total", "status" => "200").increment(2);
        counter!("requests_total", "status" => "a\"b\\c\nd").increment(1);
        gauge!("open.now").set(3.0);
        gauge!("open.now").decrement(1.0);
        histogram!("seconds", "of" => "x").record(0.02);
        histogram!("seconds", "of" => "x").record(99.0);
        // The same name as something else: no panic, and nothing is mixed up.
        gauge!("requests_total").set(1.0);
    });
    let text = prometheus.render();
    for line in [
        "# TYPE requests_total counter",
        "requests_total{status=\"200\"} 2",
        r#"requests_total{status="a\"b\\c\nd"} 1"#,
        "# TYPE open_now gauge",
        "open_now 2",
        "# TYPE seconds histogram",
        "seconds_bucket{of=\"x\",le=\"0.01\"} 0",
        "seconds_bucket{of=\"x\",le=\"0.03\"} 1",
        "seconds_bucket{of=\"x\",le=\"10\"} 1",
        "seconds_bucket{of=\"x\",le=\"+Inf\"} 2",
        "seconds_sum{of=\"x\"} 99.02",
        "seconds_count{of=\"x\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "`{line}` is missing in\n{text}");
    }
}
