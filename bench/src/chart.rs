//! Line charts as SVG, without anything else: logarithmic or linear axes, a grid, a legend.

use std::fmt::Write;

const WIDTH: f64 = 960.0;
const HEAD: f64 = 76.0;
const CHART: f64 = 372.0;
/// Around a chart's lines.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 54.0;
/// Colours that can be told apart by everybody (Okabe and Ito).
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"];

/// How a value becomes a place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    Linear,
    Log,
}

/// An axis from its lowest value to its highest, with its marks.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) title: String,
    low: f64,
    high: f64,
    scale: Scale,
    marks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis for these values, with round marks; a logarithmic one takes those above zero.
    pub(crate) fn of(
        title: &str,
        scale: Scale,
        values: impl IntoIterator<Item = f64>,
        name: fn(f64) -> String,
    ) -> Self {
        let fits = |value: &f64| value.is_finite() && (scale == Scale::Linear || *value > 0.0);
        let range = values.into_iter().filter(fits);
        let none = (f64::INFINITY, f64::NEG_INFINITY);
        let (mut low, mut high) = range.fold(none, |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        let marks: Vec<f64> = match scale {
            Scale::Linear => {
                low = low.min(0.0);
                high = high.max(low + 1.0);
                let step = round_step((high - low) / 6.0);
                high = (high / step).ceil() * step;
                (0..)
                    .map(|number: u32| f64::from(number) * step)
                    .take_while(|mark| *mark <= high * 1.0001)
                    .collect()
            }
            Scale::Log => {
                let steps = log_marks(low, high);
                low = steps.first().copied().unwrap_or(low);
                high = steps.last().copied().unwrap_or(high);
                let many = steps.len() > 9;
                let power = |mark: &f64| (mark.log10() - mark.log10().round()).abs() < 1e-9;
                steps.into_iter().filter(|mark| !many || power(mark)).collect()
            }
        };
        let marks = marks.into_iter().map(|mark| (mark, name(mark))).collect();
        Self { title: title.to_owned(), low, high, scale, marks }
    }

    /// An axis with marks of its own.
    pub(crate) fn with_marks(title: &str, range: (f64, f64), marks: Vec<(f64, String)>) -> Self {
        Self { title: title.to_owned(), low: range.0, high: range.1, scale: Scale::Linear, marks }
    }

    /// Where a value is, 0 to 1; beyond the ends is at them.
    fn place(&self, value: f64) -> f64 {
        let place = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        if place.is_nan() { 0.0 } else { place.clamp(0.0, 1.0) }
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-12).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= least).unwrap_or(power)
}

/// 1, 2 and 5 times powers of ten around a range.
fn log_marks(low: f64, high: f64) -> Vec<f64> {
    let first = low.log10().floor() as i32;
    let all: Vec<f64> =
        (first..=first + 30).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power))).collect();
    let from = all.iter().rposition(|mark| *mark <= low * 1.0001).unwrap_or(0);
    let to = all.iter().position(|mark| *mark >= high * 0.9999).unwrap_or(all.len() - 1);
    all[from..=to.max(from + 1)].to_vec()
}

/// A line of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    /// Whether each point has a dot.
    pub(crate) dots: bool,
}

/// A chart.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
    /// An upright line at this value of x, and what it says.
    pub(crate) mark: Option<(f64, String)>,
}

/// Charts below each other, under a title and one line of text.
pub(crate) fn document(title: &str, text: &str, charts: &[Chart]) -> String {
    let height = HEAD + CHART * charts.len() as f64 + 8.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, \
         sans-serif\" font-size=\"13\" fill=\"#333\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    label(&mut svg, (24.0, 34.0), "font-size=\"20\" font-weight=\"600\" fill=\"#111\"", title);
    label(&mut svg, (24.0, 58.0), "fill=\"#666\"", text);
    for (number, chart) in charts.iter().enumerate() {
        draw(&mut svg, chart, HEAD + CHART * number as f64);
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, chart: &Chart, above: f64) {
    let (left, right) = (LEFT, WIDTH - RIGHT);
    let (top, bottom) = (above + TOP, above + CHART - BOTTOM);
    let x = |value: f64| left + chart.x.place(value) * (right - left);
    let y = |value: f64| bottom - chart.y.place(value) * (bottom - top);
    label(svg, (left, above + 24.0), "font-weight=\"600\"", &chart.title);
    for (value, name) in &chart.y.marks {
        let at = y(*value);
        rule(svg, (left, at), (right, at), "#e6e6e6");
        label(svg, (left - 10.0, at + 4.0), "text-anchor=\"end\" fill=\"#666\"", name);
    }
    for (value, name) in &chart.x.marks {
        let at = x(*value);
        rule(svg, (at, top), (at, bottom), "#f0f0f0");
        label(svg, (at, bottom + 19.0), "text-anchor=\"middle\" fill=\"#666\"", name);
    }
    rule(svg, (left, bottom), (right, bottom), "#999");
    let middle = f64::midpoint(left, right);
    label(svg, (middle, bottom + 41.0), "text-anchor=\"middle\" fill=\"#666\"", &chart.x.title);
    let turned = format!(
        "text-anchor=\"middle\" fill=\"#666\" transform=\"rotate(-90 20 {0})\"",
        f64::midpoint(top, bottom)
    );
    label(svg, (20.0, f64::midpoint(top, bottom)), &turned, &chart.y.title);
    if let Some((value, name)) = &chart.mark {
        let at = x(*value);
        write(
            svg,
            format_args!(
                "<line x1=\"{at:.1}\" y1=\"{top:.1}\" x2=\"{at:.1}\" y2=\"{bottom:.1}\" stroke=\"#009e73\" \
             stroke-width=\"1.5\" stroke-dasharray=\"5 4\"/>\n"
            ),
        );
        let (anchor, shift) = if at > middle { ("end", -7.0) } else { ("start", 7.0) };
        let style = format!("text-anchor=\"{anchor}\" fill=\"#009e73\"");
        label(svg, (at + shift, top + 14.0), &style, name);
    }
    // The legend, from the right, in the order of the series.
    let mut at = right;
    for (series, colour) in chart.series.iter().zip(COLOURS).rev() {
        at -= 8.0 * series.name.chars().count() as f64;
        label(svg, (at, above + 24.0), "", &series.name);
        write(
            svg,
            format_args!(
                "<line x1=\"{:.1}\" y1=\"{1:.1}\" x2=\"{2:.1}\" y2=\"{1:.1}\" stroke=\"{colour}\" \
             stroke-width=\"3\"/>\n",
                at - 26.0,
                above + 20.0,
                at - 6.0
            ),
        );
        at -= 42.0;
    }
    for (series, colour) in chart.series.iter().zip(COLOURS) {
        let places: Vec<String> =
            series.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
        write(
            svg,
            format_args!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-linejoin=\"round\" \
             points=\"{}\"/>\n",
                places.join(" ")
            ),
        );
        let single = series.points.len() == 1;
        for (a, b) in series.points.iter().filter(|_| series.dots || single) {
            write(
                svg,
                format_args!(
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>\n",
                    x(*a),
                    y(*b)
                ),
            );
        }
    }
}

fn label(svg: &mut String, (x, y): (f64, f64), style: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    write(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{text}</text>\n"));
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    write(
        svg,
        format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>\n",
            from.0, from.1, to.0, to.1
        ),
    );
}

fn write(svg: &mut String, text: std::fmt::Arguments<'_>) {
    svg.write_fmt(text).expect("a string takes everything");
}

/// A time in microseconds, for people: 250 us, 1.5 ms, 2 s.
#[must_use]
pub fn time_name(micros: f64) -> String {
    let (value, unit) = match micros {
        micros if micros < 1e3 => (micros, "us"),
        micros if micros < 1e6 => (micros / 1e3, "ms"),
        micros => (micros / 1e6, "s"),
    };
    format!("{} {unit}", trimmed(value))
}

/// A count, for people: 500, 20k, 1.5M.
#[must_use]
pub fn count_name(count: f64) -> String {
    match count {
        count if count < 1e3 => trimmed(count),
        count if count < 1e6 => format!("{}k", trimmed(count / 1e3)),
        count => format!("{}M", trimmed(count / 1e6)),
    }
}

fn trimmed(value: f64) -> String {
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_marks_around_their_values() {
        let axis = Axis::of("", Scale::Log, [130.0, 0.0, 45_000.0], time_name);
        let names: Vec<&str> = axis.marks.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["100 us", "200 us", "500 us", "1 ms", "2 ms", "5 ms", "10 ms", "20 ms", "50 ms"]);
        assert_eq!((axis.place(100.0), axis.place(50_000.0)), (0.0, 1.0));
        assert!((axis.place(5_000_f64.sqrt() * 100_000_f64.sqrt() / 10.0) - 0.5).abs() < 0.01);
        let axis = Axis::of("", Scale::Linear, [3.0, 58.0], count_name);
        let marks: Vec<f64> = axis.marks.iter().map(|(mark, _)| *mark).collect();
        assert_eq!(marks, [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        assert_eq!(Axis::of("", Scale::Log, [], time_name).marks.len(), 4, "1, 2, 5, 10");
    }

    #[test]
    fn numbers_are_short() {
        let times = [250.0, 1_500.0, 20_000.0, 2e6, 1.25].map(time_name);
        assert_eq!(times, ["250 us", "1.5 ms", "20 ms", "2 s", "1.25 us"]);
        assert_eq!([500.0, 20_000.0, 1_500_000.0].map(count_name), ["500", "20k", "1.5M"]);
    }

    #[test]
    fn a_document_is_well_formed_and_says_what_it_was_told() {
        let points = vec![(1.0, 10.0), (2.0, f64::NAN), (3.0, 30.0)];
        let series = vec![Series { name: "a < b".to_owned(), points, dots: true }];
        let x = Axis::of("x", Scale::Linear, [1.0, 3.0], count_name);
        let y = Axis::of("y", Scale::Log, [10.0, 30.0], time_name);
        let mark = Some((2.0, "here & there".to_owned()));
        let chart = Chart { title: "title".to_owned(), x, y, series, mark };
        let svg = document("a run", "of a test", &[chart.clone(), chart]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt; b") && svg.contains("here &amp; there") && !svg.contains("NaN"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert_eq!(svg.matches("<circle").count(), 6);
    }
}
