//! A result as one self-contained picture: throughput over time, percentile curve, latency heat
//! map. Plain SVG without scripts, fonts or links.

use std::fmt::Write as _;

use crate::quantity::grouped;
use crate::result::RunResult;
use crate::series::Interval;

/// Size of the picture and of its three panels, in pixels.
const WIDTH: f64 = 900.0;
const PANEL_HEIGHT: f64 = 220.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 56.0;
const GAP: f64 = 70.0;

/// Rows of the heat map per factor of ten.
const ROWS_PER_DECADE: f64 = 10.0;

const STYLE: &str = "text{font:12px sans-serif;fill:#333}.title{font-size:14px;font-weight:bold}\
.axis{stroke:#999;fill:none}.grid{stroke:#e4e4e4;fill:none}.line{stroke:#1f5fa8;fill:none;\
stroke-width:1.5}.area{fill:#1f5fa8;fill-opacity:0.12}";

/// The picture of a result.
pub(crate) fn svg(result: &RunResult) -> String {
    let height = TOP + 3.0 * (PANEL_HEIGHT + GAP);
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\">\n<style>{STYLE}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let title = escaped(&result.configuration.shape_line());
    // Two lines: the description is longer than the picture is wide.
    let (first, second) = halves(&title);
    let _ = writeln!(picture, "<text x=\"{LEFT}\" y=\"18\">{first}</text>");
    let _ = writeln!(picture, "<text x=\"{LEFT}\" y=\"34\">{second}</text>");
    let panel = |index: u32| Panel { top: TOP + f64::from(index) * (PANEL_HEIGHT + GAP) };
    throughput(&mut picture, &panel(0), &result.intervals);
    percentiles(&mut picture, &panel(1), result);
    heat_map(&mut picture, &panel(2), &result.intervals);
    picture.push_str("</svg>\n");
    picture
}

/// A place in the picture with axes from 0 to 1.
struct Panel {
    top: f64,
}

impl Panel {
    fn x(&self, part: f64) -> f64 {
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, part: f64) -> f64 {
        self.top + (1.0 - part) * PANEL_HEIGHT
    }

    fn frame(&self, picture: &mut String, title: &str) {
        let (x, y) = (self.x(0.0), self.y(1.0));
        let width = self.x(1.0) - x;
        let _ = writeln!(
            picture,
            "<text class=\"title\" x=\"{x:.1}\" y=\"{:.1}\">{title}</text>\n<rect class=\"axis\" \
             x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{PANEL_HEIGHT}\"/>",
            y - 6.0
        );
    }

    fn x_label(&self, picture: &mut String, part: f64, label: &str) {
        let (x, top, bottom) = (self.x(part), self.y(1.0), self.y(0.0));
        let _ = writeln!(
            picture,
            "<path class=\"grid\" d=\"M{x:.1} {top:.1}V{bottom:.1}\"/>\n<text x=\"{x:.1}\" \
             y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            bottom + 16.0
        );
    }

    fn y_label(&self, picture: &mut String, part: f64, label: &str) {
        let (left, right, y) = (self.x(0.0), self.x(1.0), self.y(part));
        let _ = writeln!(
            picture,
            "<path class=\"grid\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>\n<text x=\"{:.1}\" \
             y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            left - 6.0,
            y + 4.0
        );
    }
}

fn throughput(picture: &mut String, panel: &Panel, intervals: &[Interval]) {
    let end = end_seconds(intervals);
    let top = intervals.iter().map(Interval::rate).fold(1.0, f64::max) * 1.05;
    for step in 0..=4 {
        let part = f64::from(step) / 4.0;
        panel.y_label(picture, part, &grouped((top * part) as u64));
    }
    time_labels(picture, panel, end);
    let mut line = String::new();
    for interval in intervals {
        let y = panel.y(interval.rate() / top);
        let from = panel.x(interval.start_seconds / end);
        let to = panel.x((interval.start_seconds + interval.seconds) / end);
        let command = if line.is_empty() { 'M' } else { 'L' };
        let _ = write!(line, "{command}{from:.1} {y:.1}H{to:.1}");
    }
    if !line.is_empty() {
        let (left, right, bottom) = (panel.x(0.0), panel.x(1.0), panel.y(0.0));
        let _ = writeln!(
            picture,
            "<path class=\"area\" d=\"{line}L{right:.1} {bottom:.1}H{left:.1}Z\"/>\n\
             <path class=\"line\" d=\"{line}\"/>"
        );
    }
    panel.frame(picture, "messages per second over time (s)");
}

fn percentiles(picture: &mut String, panel: &Panel, result: &RunResult) {
    let histogram = &result.latency;
    // Up to five nines, or as far as there are messages.
    let nines = (histogram.len().max(10) as f64).log10().clamp(1.0, 5.0);
    let (low, high) = decades(histogram.min().max(1), histogram.max().max(2));
    micros_labels(picture, panel, low, high);
    for (quantile, label) in [
        (0.0, "0"),
        (0.5, "50"),
        (0.9, "90"),
        (0.99, "99"),
        (0.999, "99.9"),
        (0.9999, "99.99"),
        (0.999_99, "99.999"),
    ] {
        let part = -(1.0_f64 - quantile).log10() / nines;
        if part <= 1.0 {
            panel.x_label(picture, part, label);
        }
    }
    let mut line = String::new();
    for step in 0..=200 {
        let part = f64::from(step) / 200.0;
        let quantile = 1.0 - 10_f64.powf(-part * nines);
        let micros = histogram.value_at_quantile(quantile).max(1) as f64;
        let y = panel.y((micros.log10() - low) / (high - low));
        let command = if step == 0 { 'M' } else { 'L' };
        let _ = write!(line, "{command}{:.1} {y:.1}", panel.x(part));
    }
    let _ = writeln!(picture, "<path class=\"line\" d=\"{line}\"/>");
    let label = result.configuration.latency_label();
    panel.frame(picture, &format!("{label} by percentile"));
}

fn heat_map(picture: &mut String, panel: &Panel, intervals: &[Interval]) {
    let all = || intervals.iter().flat_map(|interval| &interval.latencies);
    let smallest = all().map(|(micros, _)| *micros).min().unwrap_or(1).max(1);
    let largest = all().map(|(micros, _)| *micros).max().unwrap_or(2).max(2);
    let (low, high) = decades(smallest, largest);
    let end = end_seconds(intervals);
    let rows = ((high - low) * ROWS_PER_DECADE).round().max(1.0);
    for interval in intervals {
        let mut cells = vec![0_u64; rows as usize];
        for (micros, count) in &interval.latencies {
            let part = ((*micros).max(1) as f64).log10() - low;
            let row = (part * ROWS_PER_DECADE).clamp(0.0, rows - 1.0);
            cells[row as usize] += count;
        }
        let total: u64 = cells.iter().sum();
        let from = panel.x(interval.start_seconds / end);
        let width = (panel.x((interval.start_seconds + interval.seconds) / end) - from).max(0.5);
        for (row, count) in cells.iter().enumerate().filter(|(_, count)| **count > 0) {
            // Rare latencies must be seen beside frequent ones.
            let share = *count as f64 / total as f64;
            let opacity = (0.12 + 0.88 * share.sqrt()).min(1.0);
            let y = panel.y((row as f64 + 1.0) / rows);
            let height = PANEL_HEIGHT / rows;
            let _ = writeln!(
                picture,
                "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
                 fill=\"#b03a2e\" fill-opacity=\"{opacity:.2}\"/>"
            );
        }
    }
    micros_labels(picture, panel, low, high);
    time_labels(picture, panel, end);
    panel.frame(picture, "latency over time (s)");
}

fn end_seconds(intervals: &[Interval]) -> f64 {
    intervals.last().map_or(1.0, |it| (it.start_seconds + it.seconds).max(0.001))
}

/// Whole powers of ten around a range of microseconds.
fn decades(low: u64, high: u64) -> (f64, f64) {
    let (low, high) = ((low as f64).log10().floor(), (high as f64).log10().ceil());
    (low, if high > low { high } else { low + 1.0 })
}

fn micros_labels(picture: &mut String, panel: &Panel, low: f64, high: f64) {
    let mut exponent = low;
    while exponent <= high {
        let label = match exponent as i32 {
            power @ ..=2 => format!("{} us", 10_i32.pow(power.max(0).unsigned_abs())),
            power @ 3..=5 => format!("{} ms", 10_i32.pow((power - 3).unsigned_abs())),
            power => format!("{} s", 10_i32.pow((power - 6).unsigned_abs())),
        };
        panel.y_label(picture, (exponent - low) / (high - low), &label);
        exponent += 1.0;
    }
}

fn time_labels(picture: &mut String, panel: &Panel, end: f64) {
    for step in 0..=5 {
        let part = f64::from(step) / 5.0;
        panel.x_label(picture, part, &format!("{:.1}", end * part));
    }
}

fn halves(text: &str) -> (&str, &str) {
    let middle = text.len() / 2;
    let cut = text.match_indices(", ").map(|(at, _)| at + 2).find(|at| *at >= middle);
    text.split_at(cut.unwrap_or(text.len()))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::{Configuration, Surroundings};
    use crate::recorder::{Counts, Schedule};
    use crate::series::Series;

    /// Fails unless every element of `text` is closed in order and every attribute quoted.
    pub(crate) fn assert_well_formed(text: &str) {
        let mut open = Vec::new();
        for part in text.split('<').skip(1) {
            let (tag, _) = part.split_once('>').expect("a tag ends");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().expect("a tag has a name"));
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "numbers are numbers");
    }

    fn result(intervals: Vec<Interval>) -> RunResult {
        let plan = crate::plan::tests::plan(&["--topic", "a<b&c"]);
        let configuration = Configuration::of(&plan, &Surroundings::default());
        let schedule = Schedule {
            start: Default::default(),
            measure_from: Default::default(),
            measure_until: Default::default(),
            sample: Default::default(),
            drain: Default::default(),
        };
        let mut result = RunResult::of(configuration, Series::new(schedule));
        for (micros, count) in intervals.iter().flat_map(|it| &it.latencies) {
            result.latency.record_n(*micros, *count).unwrap();
        }
        result.intervals = intervals;
        result
    }

    #[test]
    fn a_picture_is_well_formed_and_needs_nothing_from_outside() {
        let intervals: Vec<_> = (0..20)
            .map(|at| Interval {
                start_seconds: f64::from(at),
                seconds: 1.0,
                counts: Counts { messages: 1_000, ..Counts::default() },
                latencies: vec![(300, 990), (40_000, 9), (2_000_000, 1)],
                ..Interval::default()
            })
            .collect();
        let picture = svg(&result(intervals));
        assert_well_formed(&picture);
        assert!(picture.matches("<rect").count() > 60, "the heat map has cells");
        assert!(!picture.contains("http://www.w3.org/1999/xlink") && !picture.contains("<script"));
        assert!(picture.contains("1 ms") && picture.contains("99.9"), "axes have labels");
    }

    #[test]
    fn a_run_without_messages_still_gives_a_picture() {
        assert_well_formed(&svg(&result(Vec::new())));
        assert_well_formed(&svg(&result(vec![Interval::default()])));
    }
}
