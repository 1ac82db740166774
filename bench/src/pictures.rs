//! The charts of a run and of a sweep.

use crate::chart::{Axis, Chart, Scale, Series, count_name, document, time_name};
use crate::interval::INTERVAL;
use crate::interval_log::Second;
use crate::report::{BEYOND_MIN, Latencies, Report};
use crate::sweep::Point;

/// A run: latency by percentile, and over time.
#[must_use]
pub fn run(title: &str, text: &str, report: &Report, open: bool, seconds: &[Second]) -> String {
    // What came after the end filled no second.
    let whole = seconds.iter().take_while(|second| report.measured > INTERVAL * second.index as u32);
    let seconds: Vec<Second> = whole.copied().collect();
    document(title, text, &[by_percentile(report, open), over_time(&seconds), rate_over_time(&seconds)])
}

fn by_percentile(report: &Report, open: bool) -> Chart {
    let line = |name: &str, latencies: &Latencies| Series {
        name: name.to_owned(),
        points: quantiles(latencies),
        dots: false,
    };
    let mut series = vec![line(if open { "from when it was due" } else { "closed loop" }, &report.latencies)];
    if open {
        series.push(line("from when it was sent", &report.service));
    }
    let nines = |x: f64| if x == 0.0 { "0%".to_owned() } else { nines_name(x as usize) };
    let far = series.iter().flat_map(|series| &series.points).map(|(x, _)| *x).fold(1.0, f64::max);
    let marks = (0..=far.floor() as u32).map(|nine| (f64::from(nine), nines(f64::from(nine)))).collect();
    Chart {
        title: "Latency by percentile".to_owned(),
        x: Axis::with_marks("percentile", (0.0, far), marks),
        y: Axis::of("latency", Scale::Log, values(&series), time_name),
        series,
        mark: None,
    }
}

/// 90%, 99%, 99.9%…
fn nines_name(nines: usize) -> String {
    match nines {
        1 => "90%".to_owned(),
        2 => "99%".to_owned(),
        more => format!("99.{}%", "9".repeat(more - 2)),
    }
}

/// Points (nines, microseconds), as far as enough samples lie beyond.
fn quantiles(latencies: &Latencies) -> Vec<(f64, f64)> {
    let count = latencies.count();
    if count == 0 {
        return Vec::new();
    }
    let far = (count as f64 / BEYOND_MIN).log10().max(0.3);
    let steps = 200;
    let point = |step| {
        let nines = far * f64::from(step) / f64::from(steps);
        (nines, latencies.0.value_at_quantile(1.0 - 10f64.powf(-nines)) as f64)
    };
    (0..=steps).map(point).collect()
}

fn over_time(seconds: &[Second]) -> Chart {
    let line = |name: &str, value: &dyn Fn(&Second) -> Option<u64>| Series {
        name: name.to_owned(),
        points: seconds
            .iter()
            .filter_map(|second| Some((second.index as f64, value(second)? as f64)))
            .collect(),
        dots: false,
    };
    let mut series = vec![line("p50", &|second| second.percentiles[0])];
    for (place, name) in [(1, "p99"), (2, "p99.9")] {
        let of = line(name, &move |second| second.percentiles[place]);
        if !of.points.is_empty() {
            series.push(of);
        }
    }
    series.push(line("max", &|second| (second.count > 0).then_some(second.max)));
    Chart {
        title: "Latency by second".to_owned(),
        x: Axis::of("seconds", Scale::Linear, xs(&series), count_name),
        y: Axis::of("latency", Scale::Log, values(&series), time_name),
        series,
        mark: None,
    }
}

fn rate_over_time(seconds: &[Second]) -> Chart {
    let points = |value: &dyn Fn(&Second) -> u64| {
        seconds.iter().map(|second| (second.index as f64, value(second) as f64)).collect()
    };
    let mut series =
        vec![Series { name: "answers".to_owned(), points: points(&|second| second.count), dots: false }];
    if seconds.iter().any(|second| second.errors > 0) {
        let points = points(&|second| second.errors);
        series.push(Series { name: "failures".to_owned(), points, dots: false });
    }
    Chart {
        title: "Answers by second".to_owned(),
        x: Axis::of("seconds", Scale::Linear, xs(&series), count_name),
        y: Axis::of("a second", Scale::Linear, values(&series), count_name),
        series,
        mark: None,
    }
}

/// A sweep: latency against the offered rate.
#[must_use]
pub fn sweep(title: &str, text: &str, points: &[Point], knee: Option<f64>) -> String {
    let mut points: Vec<&Point> = points.iter().collect();
    points.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let line = |name: &str, value: &dyn Fn(&Point) -> Option<f64>| Series {
        name: name.to_owned(),
        points: points.iter().filter_map(|point| Some((point.rate, value(point)?))).collect(),
        dots: true,
    };
    let mut latency = vec![
        line("p50", &|point| point.p50_us.map(|us| us as f64)),
        line("p99", &|point| point.p99_us.map(|us| us as f64)),
        line("p99.9", &|point| point.p999_us.map(|us| us as f64)),
    ];
    latency.retain(|series| !series.points.is_empty());
    let rates =
        vec![line("offered", &|point| Some(point.rate)), line("achieved", &|point| Some(point.achieved))];
    let mark = knee.map(|rate| (rate, format!("knee: {} a second", count_name(rate))));
    let x = || Axis::of("offered, a second", Scale::Linear, points.iter().map(|p| p.rate), count_name);
    let latency = Chart {
        title: "Latency by offered rate".to_owned(),
        x: x(),
        y: Axis::of("latency", Scale::Log, values(&latency), time_name),
        series: latency,
        mark: mark.clone(),
    };
    let rates = Chart {
        title: "Achieved by offered rate".to_owned(),
        x: x(),
        y: Axis::of("a second", Scale::Linear, values(&rates), count_name),
        series: rates,
        mark,
    };
    document(title, text, &[latency, rates])
}

fn values(series: &[Series]) -> Vec<f64> {
    series.iter().flat_map(|series| series.points.iter().map(|(_, y)| *y)).collect()
}

fn xs(series: &[Series]) -> Vec<f64> {
    series.iter().flat_map(|series| series.points.iter().map(|(x, _)| *x)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_run_is_drawn_whatever_it_holds() {
        let empty = run("a", "b", &Report::default(), true, &[]);
        assert!(!empty.contains("NaN") && !empty.contains("inf"), "{empty}");
        let mut report = Report { measured: Duration::from_secs(3), ..Report::default() };
        (1..=20_000).for_each(|us| report.latencies.record(Duration::from_micros(us)));
        let second = |index| Second {
            index,
            count: 100,
            errors: index,
            percentiles: [Some(50), Some(900), None],
            max: 1000,
        };
        let svg = run("a", "b", &report, false, &[0, 1, 2].map(second));
        for words in ["99.9%", "closed loop", ">p99<", "failures", ">max<"] {
            assert!(svg.contains(words), "{words}");
        }
        assert!(!svg.contains(">p99.9<") && !svg.contains("NaN"), "no second has enough samples for it");
    }
    #[test]
    fn a_sweep_shows_its_knee_and_no_percentile_that_nobody_knows() {
        let point = |rate| Point {
            rate,
            achieved: rate,
            shortfall: 0.0,
            short: false,
            requests: 1000,
            p50_us: Some(100),
            p99_us: Some(900),
            p999_us: None,
            max_us: 1000,
        };
        let svg = sweep("a", "b", &[point(2000.0), point(1000.0)], Some(2000.0));
        assert!(
            svg.contains("knee: 2k a second") && svg.contains(">p99<") && !svg.contains("p99.9"),
            "{svg}"
        );
        let empty = sweep("a", "b", &[], None);
        assert!(!empty.contains("NaN") && !empty.contains("knee"), "{empty}");
    }
}
