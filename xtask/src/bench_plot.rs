//! Pictures of what the benchmarks reported, as SVG for light and dark pages.

use std::fmt::Write as _;

use cloakroom_benches::{Delays, Point};

const STYLE: &str = "\
<style>
  .card { fill: #ffffff; } text { fill: #1f2328; font: 12px system-ui, sans-serif; }
  .name { font-weight: 600; font-size: 13px; } .axis { fill: #59636e; } .grid { stroke: #d1d9e0; }
  .ours { stroke: #0969da; fill: #0969da; } .floor { stroke: #818b98; fill: #818b98; }
  polyline { fill: none !important; stroke-width: 2; } text.ours, text.floor { stroke: none; }
  .most { opacity: 0.75; } .nearly { opacity: 0.45; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; } text { fill: #e6edf3; } .axis { fill: #9198a1; } .grid { stroke: #3d444d; }
    .ours { stroke: #4493f8; fill: #4493f8; } .floor { stroke: #9198a1; fill: #9198a1; }
  }
</style>
";

/// The size of one panel of the picture of growth, and the space around it.
const PANEL: (f64, f64) = (200.0, 150.0);
const LEFT: f64 = 50.0;
const TOP: f64 = 50.0;
const STEP: f64 = PANEL.0 + 130.0;

/// How the time of each call grows with the number of grants: a panel for each, side by side. Empty
/// if there are no points.
pub(crate) fn growth(points: &[Point]) -> String {
    let mut series: Vec<&str> = points.iter().map(|point| &*point.series).collect();
    series.dedup();
    series.sort_unstable();
    series.dedup();
    if series.is_empty() {
        return String::new();
    }
    let width = LEFT + STEP * series.len() as f64;
    let height = TOP + PANEL.1 + 45.0;
    let what = "How the time of a call grows with the number of grants";
    let mut svg = begin(width, height, what);
    for (number, name) in series.into_iter().enumerate() {
        let mut own: Vec<&Point> = points.iter().filter(|point| point.series == name).collect();
        own.sort_by_key(|point| point.grants);
        panel(&mut svg, LEFT + STEP * number as f64, name, &own);
    }
    svg + "</svg>\n"
}

fn panel(svg: &mut String, left: f64, name: &str, points: &[&Point]) {
    let (wide, high) = PANEL;
    let bottom = TOP + high;
    let top = points.iter().map(|point| point.ours.max(point.floor)).fold(1.0, f64::max);
    let step = round_step(top / 4.0);
    let most = (top / step).ceil() * step;
    let logs: Vec<f64> = points.iter().map(|point| (point.grants as f64).log10()).collect();
    let (first, last) = (logs[0], logs[logs.len() - 1].max(logs[0] + 1.0));
    let x = |log: f64| left + (log - first) / (last - first) * wide;
    let y = |took: f64| bottom - took / most * high;

    text(svg, "name", left, TOP - 18.0, "start", name);
    let mut tick = 0.0;
    while tick <= most * 1.001 {
        let at = y(tick);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{left:.0}\" y1=\"{at:.1}\" x2=\"{:.0}\" y2=\"{at:.1}\"/>",
            left + wide
        );
        text(svg, "axis", left - 6.0, at + 4.0, "end", &microseconds(tick));
        tick += step;
    }
    for (point, log) in points.iter().zip(&logs) {
        let grants = thousands(point.grants);
        text(svg, "axis", x(*log), bottom + 18.0, "middle", &grants);
    }
    text(svg, "axis", left + wide / 2.0, bottom + 36.0, "middle", "grants");
    for (class, label, value) in [
        ("floor", "floor", (|point| point.floor) as fn(&Point) -> f64),
        ("ours", "Cloakroom", |point| point.ours),
    ] {
        let line: Vec<String> = points
            .iter()
            .zip(&logs)
            .filter(|(point, _)| value(point).is_finite())
            .map(|(point, log)| format!("{:.1},{:.1}", x(*log), y(value(point))))
            .collect();
        let Some(end) = points.last().map(|point| value(point)).filter(|end| end.is_finite())
        else {
            continue;
        };
        let _ = writeln!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", line.join(" "));
        text(svg, class, left + wide + 5.0, y(end) + 4.0, "start", label);
    }
}

/// A line of the picture of percentiles.
enum Line<'a> {
    /// Above those who are compared.
    Heading(&'a str),
    /// A label, what it is about, and whether it is Cloakroom that was measured.
    Bar(&'a str, &'a Delays, bool),
}

/// How the first of those who are compared ends.
const OURS: &str = ", cloakroom";

/// Those who are compared follow each other, and their names begin with what they do.
fn lines(delays: &[Delays]) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut group = None;
    for delays in delays {
        if let Some(what) = delays.name.strip_suffix(OURS) {
            group = Some(what);
            lines.extend([Line::Heading(what), Line::Bar("Cloakroom", delays, true)]);
            continue;
        }
        let of_group = group.and_then(|what| delays.name.strip_prefix(what)?.strip_prefix(", "));
        match of_group {
            Some(label) => lines.push(Line::Bar(label, delays, false)),
            None => {
                // Some room below those who are compared.
                lines.extend(group.take().map(|_| Line::Heading("")));
                let is_ours = !delays.name.contains("bare");
                lines.push(Line::Bar(&delays.name, delays, is_ours));
            }
        }
    }
    lines
}

/// The percentiles of delays: a bar from nothing to the 99th, shaded at the 50th and the 90th, on a
/// logarithmic scale. Empty if there are none.
pub(crate) fn percentiles(delays: &[Delays]) -> String {
    const LABELS: f64 = 430.0;
    const WIDE: f64 = 380.0;
    const ROW: f64 = 22.0;
    if delays.is_empty() {
        return String::new();
    }
    let all = || delays.iter().flat_map(|delays| delays.quantiles);
    let first = all().fold(f64::INFINITY, f64::min).max(1.0).log10().floor();
    let last = all().fold(1.0, f64::max).log10().ceil().max(first + 1.0);
    let x = |took: f64| LABELS + (took.max(1.0).log10() - first) / (last - first) * WIDE;
    let lines = lines(delays);
    let bottom = TOP + ROW * lines.len() as f64;
    let what = "Percentiles of delays";
    let mut svg = begin(LABELS + WIDE + 60.0, bottom + 40.0, what);
    let legend = "each bar ends at the 99th percentile; darker up to the 90th and the 50th";
    text(&mut svg, "axis", LABELS, TOP - 22.0, "start", legend);
    let mut power = first;
    while power <= last {
        let at = x(10_f64.powf(power));
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{:.0}\" x2=\"{at:.1}\" y2=\"{bottom:.0}\"/>",
            TOP - 8.0
        );
        text(&mut svg, "axis", at, bottom + 18.0, "middle", &microseconds(10_f64.powf(power)));
        power += 1.0;
    }
    for (number, line) in lines.iter().enumerate() {
        let top = TOP + ROW * number as f64;
        let (label, delays, is_ours) = match line {
            Line::Heading(what) => {
                text(&mut svg, "name", LABELS - 10.0, top + 15.0, "end", what);
                continue;
            }
            Line::Bar(label, delays, is_ours) => (label, delays, is_ours),
        };
        text(&mut svg, "label", LABELS - 10.0, top + 14.0, "end", label);
        let [half, most, nearly, _] = delays.quantiles;
        let whose = if *is_ours { "ours" } else { "floor" };
        for (class, until) in [("nearly", nearly), ("most", most), ("half", half)] {
            let _ = writeln!(
                svg,
                "<rect class=\"{whose} {class}\" x=\"{LABELS:.0}\" y=\"{:.0}\" width=\"{:.1}\" \
                 height=\"14\"/>",
                top + 3.0,
                x(until) - LABELS
            );
        }
        text(&mut svg, "axis", x(nearly) + 5.0, top + 14.0, "start", &microseconds(nearly));
    }
    svg + "</svg>\n"
}

fn begin(width: f64, height: f64, what: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" role=\"img\" aria-label=\"{what}\">\n{STYLE}<rect class=\"card\" \
         width=\"{width:.0}\" height=\"{height:.0}\" rx=\"6\"/>\n"
    )
}

fn text(svg: &mut String, class: &str, x: f64, y: f64, anchor: &str, what: &str) {
    let what = what.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{what}</text>"
    );
}

/// 1, 2 or 5 times a power of ten, at least this.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|times| times * power)
        .find(|step| *step >= least)
        .unwrap_or(least)
}

fn microseconds(nanoseconds: f64) -> String {
    match nanoseconds {
        zero if zero < 0.5 => "0".to_owned(),
        short if short < 1e3 => format!("{short:.0} ns"),
        mid if mid < 1e6 => format!("{} µs", brief(mid / 1e3)),
        long => format!("{} ms", brief(long / 1e6)),
    }
}

/// Two digits, without a useless zero.
fn brief(value: f64) -> String {
    if value >= 9.95 { format!("{value:.0}") } else { format!("{value:.1}").replace(".0", "") }
}

fn thousands(count: u64) -> String {
    match count {
        many if many >= 1_000_000 => format!("{}M", many / 1_000_000),
        some if some >= 1_000 => format!("{}k", some / 1_000),
        few => few.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_has_a_panel_for_each_call_and_ends_within_it() {
        let at = |series: &str, grants, ours| Point {
            series: series.into(),
            grants,
            ours,
            floor: 200.0,
        };
        let points =
            [at("issue", 1_000, 700.0), at("issue", 1_000_000, 1_900.0), at("find", 10, 1.0)];
        let svg = growth(&points);
        assert_eq!(svg.matches("class=\"name\"").count(), 2);
        assert!(svg.contains(">1M</text>") && svg.contains(">2 µs</text>"), "{svg}");
        // The end of the line: at 1,900 of 2,000.
        let end = TOP + PANEL.1 * 0.05;
        assert!(svg.contains(&format!("{:.1},{end:.1}\"", LEFT + STEP + PANEL.0)), "{svg}");
        assert!(growth(&[]).is_empty());
    }

    #[test]
    fn percentiles_are_bars_one_upon_the_other() {
        let took: Vec<f64> = (1..=100).map(|micros| f64::from(micros) * 1e3).collect();
        let svg = percentiles(&[Delays::new("a < b", &took)]);
        assert_eq!(svg.matches("<rect class=\"ours").count(), 3);
        assert!(svg.contains(">a &lt; b</text>") && svg.contains(">99 µs</text>"), "{svg}");
        assert!(percentiles(&[]).is_empty());
    }

    #[test]
    fn those_who_are_compared_stand_under_one_heading() {
        let names = ["a, b, cloakroom", "a, b, c, d", "e, cloakroom", "f", "a bare g"];
        let delays = names.map(|name| Delays::new(name, &[1e3]));
        let svg = percentiles(&delays);
        let shown = |class: &str| -> Vec<String> {
            let start = format!("<text class=\"{class}\"");
            let parts = svg.split(&start).skip(1);
            let texts = parts.filter_map(|part| Some(part.split_once('>')?.1.split_once('<')?.0));
            texts.map(str::to_owned).collect()
        };
        assert_eq!(shown("name"), ["a, b", "e", ""]);
        assert_eq!(shown("label"), ["Cloakroom", "c, d", "Cloakroom", "f", "a bare g"]);
        assert_eq!(svg.matches("<rect class=\"ours").count(), 9);
        assert_eq!(svg.matches("<rect class=\"floor").count(), 6);
    }
}
