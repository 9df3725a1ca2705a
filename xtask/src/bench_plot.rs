//! How figures grow with the number of grants, as a picture.

use std::fmt::Write as _;

use cloakroom_benches::Point;

/// Of one panel's axes, in pixels.
const WIDTH: f64 = 200.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 56.0;
/// From one panel's left edge to the next one's.
const STEP: f64 = LEFT + WIDTH + 16.0;

// The picture brings its own background: it cannot know the page's. Its colours follow the reader's.
const STYLE: &str = "\
    .card { fill: #ffffff; } text { fill: #1f2328; font: 12px system-ui, sans-serif; }
    .title { font-weight: 600; } .grid { stroke: #d1d9e0; }
    .ours { stroke: #0969da; fill: #0969da; } .floor { stroke: #bc4c00; fill: #bc4c00; }
    polyline { fill: none !important; stroke-width: 2; } .floor polyline { stroke-dasharray: 5 3; }
    @media (prefers-color-scheme: dark) {
      .card { fill: #0d1117; } text { fill: #e6edf3; } .grid { stroke: #3d444d; }
      .ours { stroke: #4493f8; fill: #4493f8; } .floor { stroke: #db6d28; fill: #db6d28; }
    }
    text { stroke: none; }";

/// One panel for each series, both of its axes logarithmic.
pub(crate) fn growth(points: &[Point]) -> String {
    let mut series: Vec<&str> = points.iter().map(|point| point.series.as_str()).collect();
    series.sort_unstable();
    series.dedup();
    let (width, height) = (STEP * series.len() as f64 + 16.0, TOP + HEIGHT + 48.0);
    let mut panels = String::new();
    for (number, name) in series.iter().enumerate() {
        let points: Vec<&Point> = points.iter().filter(|point| point.series == *name).collect();
        let left = LEFT + STEP * number as f64;
        // Writing into a string cannot fail.
        let _ = write!(panels, "{}", Panel::new(&points).draw(name, left));
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         role=\"img\" aria-label=\"Time a call by the number of grants\">\n<style>\n{STYLE}\n</style>\n\
         <rect class=\"card\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"22\">Time of a call by the number of grants in memory\
         </text>\n{panels}</svg>\n"
    )
}

struct Panel<'a> {
    points: &'a [&'a Point],
    /// Powers of ten.
    grants: (i32, i32),
    time: (i32, i32),
}

impl<'a> Panel<'a> {
    fn new(points: &'a [&'a Point]) -> Self {
        let decades = |values: &mut dyn Iterator<Item = f64>| {
            let (mut low, mut high) = (i32::MAX, i32::MIN);
            for value in values {
                let log = value.log10();
                (low, high) = (low.min(log.floor() as i32), high.max(log.ceil() as i32));
            }
            (low, high.max(low + 1))
        };
        Self {
            points,
            grants: decades(&mut points.iter().map(|point| point.grants as f64)),
            time: decades(&mut points.iter().flat_map(|point| [point.ours, point.floor])),
        }
    }

    fn draw(&self, name: &str, left: f64) -> String {
        let mut svg = format!("<g transform=\"translate({left} {TOP})\">\n");
        let middle = WIDTH / 2.0;
        let _ =
            writeln!(svg, "<text x=\"{middle}\" y=\"-10\" text-anchor=\"middle\">{name}</text>");
        for decade in self.time.0..=self.time.1 {
            let y = self.y(10_f64.powi(decade));
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"-8\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                y + 4.0,
                nanoseconds(decade)
            );
        }
        for decade in self.grants.0..=self.grants.1 {
            let x = self.x(10_f64.powi(decade));
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y2=\"{HEIGHT}\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">10<tspan dy=\"-5\" \
                 font-size=\"9\">{decade}</tspan></text>",
                HEIGHT + 20.0
            );
        }
        self.line(&mut svg, "ours", |point| point.ours, -8.0);
        self.line(&mut svg, "floor", |point| point.floor, 16.0);
        svg.push_str("</g>\n");
        svg
    }

    fn line(&self, svg: &mut String, class: &str, value: impl Fn(&Point) -> f64, label: f64) {
        let places: Vec<(f64, f64)> = self
            .points
            .iter()
            .map(|point| (self.x(point.grants as f64), self.y(value(point))))
            .collect();
        let list: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(svg, "<g class=\"{class}\"><polyline points=\"{}\"/>", list.join(" "));
        for (x, y) in &places {
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
        }
        if let Some((x, y)) = places.last() {
            let y = y + label;
            let _ =
                writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{class}</text>");
        }
        svg.push_str("</g>\n");
    }

    fn x(&self, grants: f64) -> f64 {
        WIDTH * part(grants, self.grants)
    }

    fn y(&self, time: f64) -> f64 {
        HEIGHT * (1.0 - part(time, self.time))
    }
}

/// How far `value` is along an axis, from 0 to 1.
fn part(value: f64, (low, high): (i32, i32)) -> f64 {
    (value.log10() - f64::from(low)) / f64::from(high - low)
}

fn nanoseconds(decade: i32) -> String {
    let (power, unit) = match decade {
        6.. => (decade - 6, "ms"),
        3..=5 => (decade - 3, "µs"),
        _ => (decade, "ns"),
    };
    format!("{} {unit}", 10_f64.powi(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_series_is_a_panel_with_both_of_its_lines() {
        let point = |series: &str, grants, ours| Point {
            series: series.into(),
            grants,
            ours,
            floor: ours / 2.0,
        };
        let points = [
            point("introspect", 1_000, 700.0),
            point("introspect", 1_000_000, 2_000.0),
            point("refresh", 1_000, 9_000.0),
        ];
        let svg = growth(&points);
        assert_eq!(svg.matches("<polyline").count(), 4);
        assert_eq!(svg.matches("<circle").count(), 6);
        assert_eq!(svg.matches(">introspect<").count(), 1);
        // 700 ns among a thousand: left, and 0.85 of a panel that spans two decades.
        let y = HEIGHT * (1.0 - (700_f64.log10() - 2.0) / 2.0);
        assert!(svg.contains(&format!("points=\"0.0,{y:.1} 200.0,")), "{svg}");
        assert!(!svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn decades_are_named_by_a_unit_that_suits_them() {
        let names = [2, 3, 5, 6].map(nanoseconds);
        assert_eq!(names, ["100 ns", "1 µs", "100 µs", "1 ms"]);
    }
}
