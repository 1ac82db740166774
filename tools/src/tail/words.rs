//! A report for people, as lines of text, and for programs.

use super::cause::{Cause, Origin, part_name};
use super::report::{Band, MET, Report, stage_of};
use super::sample::{PARTS, Weighted};
use evenkeel_wire::frame::Kind;
use evenkeel_wire::ids::NodeId;
use serde_json::{Value, json};

/// Parts below this share of a band's time are not listed.
const SHARE_MIN: f64 = 0.005;
/// A node is named when it had this part of the time that dominates.
const NODE_SHARE_MIN: f64 = 0.6;
/// Width of a waterfall in characters.
const WATERFALL: usize = 40;
/// How parts are drawn in a waterfall, by their places.
const LETTERS: &[u8; PARTS] = b"qhpelwnfrQLAR.?";

/// A duration in the unit that suits it.
#[must_use]
pub fn duration(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.0} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

/// A percentile's name: p99.9.
#[must_use]
pub fn percentile(percentile: f64) -> String {
    format!("p{percentile}")
}

/// What dominates a band, as a sentence.
#[must_use]
pub fn sentence(band: &Band) -> String {
    let dominant = &band.dominant;
    let share = 100.0 * dominant.ns / band.mean_ns.max(1.0);
    let at = format!("{} is {}", percentile(band.percentile), duration(band.at_ns as f64));
    let whose = match dominant.node {
        node if node != NodeId(0) && dominant.node_share >= NODE_SHARE_MIN => format!(" on {node}"),
        _ => String::new(),
    };
    let part = part_name(dominant.part);
    let spent = format!("{} of {}", duration(dominant.ns), duration(band.mean_ns));
    let usual = match band.percentile {
        p if p > 50.0 => format!(", {} around p50", duration(dominant.usual_ns)),
        _ => String::new(),
    };
    let within = match dominant.run_queue_in {
        Some(stage) => format!("; it fell into the {}", part_name(Some(stage))),
        None => String::new(),
    };
    let cause = dominant.cause;
    let (what, origin) = (cause.words(), cause.origin().name());
    let beyond = match &band.beyond {
        Some(beyond) if beyond.cause != cause => {
            let more = duration(beyond.ns - beyond.usual_ns);
            let what = beyond.cause.words();
            format!("; beyond p50 it is mostly {what} ({}, {more} more)", part_name(beyond.part))
        }
        _ => String::new(),
    };
    format!("{at}: {share:.0}% is {what}{whose} ({spent}{usual}, most in {part}{within}){beyond} [{origin}]")
}

/// The report as lines.
#[must_use]
pub fn lines(report: &Report) -> Vec<String> {
    let mut lines: Vec<String> = report.bands.iter().map(sentence).collect();
    lines.push(String::new());
    lines.extend(table(report));
    lines.push(String::new());
    lines.extend(origins(report));
    lines.push(format!("{:.1}% of the time of the slowest 1% is explained", 100.0 * report.explained));
    lines.push(String::new());
    lines.push("the slowest requests:".to_owned());
    lines.extend(report.slowest.iter().map(waterfall));
    let letters = (0..PARTS).map(|part| format!("{} {}", char::from(LETTERS[part]), name(part)));
    lines.push(format!("  ({})", letters.collect::<Vec<_>>().join(", ")));
    lines
}

fn name(part: usize) -> &'static str {
    part_name(stage_of(part))
}

/// A row for each part that matters to any band.
fn table(report: &Report) -> Vec<String> {
    let head = report.bands.iter().map(|band| {
        let around = if band.percentile < 90.0 { "around" } else { "above" };
        format!("{:>20}", format!("{around} {}", percentile(band.percentile)))
    });
    let mut lines = vec![format!("{:<22}{}", "mean time in", head.collect::<String>())];
    let matters = |part: &usize| {
        report.bands.iter().any(|band| band.parts[*part] >= SHARE_MIN * band.mean_ns) || *part == PARTS - 1
    };
    for part in (0..PARTS).filter(matters) {
        let cells = report.bands.iter().map(|band| {
            let (ns, share) = (band.parts[part], 100.0 * band.parts[part] / band.mean_ns.max(1.0));
            format!("{:>20}", format!("{} {share:>3.0}%", duration(ns)))
        });
        lines.push(format!("{:<22}{}", name(part), cells.collect::<String>()));
    }
    let total = report.bands.iter().map(|band| format!("{:>20}", duration(band.mean_ns) + "     "));
    lines.push(format!("{:<22}{}", "together", total.collect::<String>()));
    for (place, (_, name)) in MET.iter().enumerate() {
        if report.bands.iter().any(|band| band.met[place] >= SHARE_MIN) {
            let cells =
                report.bands.iter().map(|band| format!("{:>20}", format!("{:.0}%", 100.0 * band.met[place])));
            lines.push(format!("{:<22}{}", format!("met: {name}"), cells.collect::<String>()));
        }
    }
    lines
}

/// What each origin answers for.
fn origins(report: &Report) -> Vec<String> {
    let of = |band: &Band| {
        let all = [Origin::Ours, Origin::Host, Origin::Network, Origin::Unknown];
        let shares = all.map(|origin| format!("{} {:.0}%", origin.name(), 100.0 * share_of(band, origin)));
        format!("{}: {}", percentile(band.percentile), shares.join(", "))
    };
    report.bands.iter().map(of).collect()
}

/// What part of a band's time an origin answers for. What a cause behind a part explains counts as its.
#[must_use]
pub fn share_of(band: &Band, origin: Origin) -> f64 {
    let spoken = Cause::of(band.dominant.part);
    let behind = |cause: Cause| if cause == spoken { band.dominant.cause } else { cause };
    let parts = band.parts.iter().enumerate();
    let of_it = parts.filter(|(part, _)| behind(Cause::of(stage_of(*part))).origin() == origin);
    of_it.map(|(_, ns)| ns).sum::<f64>() / band.mean_ns.max(1.0)
}

/// The order in which a request goes through the parts.
pub(super) const ORDER: [usize; PARTS] = [10, 11, 9, 12, 13, 0, 1, 2, 8, 3, 4, 5, 7, 6, 14];

fn waterfall(request: &Weighted) -> String {
    let trace = &request.trace;
    let mut bar = String::new();
    for part in ORDER {
        let width = (request.parts[part] as f64 / trace.total_ns.max(1) as f64 * WATERFALL as f64).round();
        bar.extend(std::iter::repeat_n(char::from(LETTERS[part]), width as usize));
    }
    format!("  {:>10} |{bar:<WATERFALL$}| {}", duration(trace.total_ns as f64), about(request))
}

/// What a request was, in few words.
#[must_use]
pub fn about(request: &Weighted) -> String {
    let trace = &request.trace;
    let mut words = vec![kind(trace.kind), trace.partition.to_string()];
    words.push(format!("on {}.{}", trace.node, trace.core));
    if trace.awaited != NodeId(0) && trace.awaited != trace.node {
        words.push(format!(", awaited {}", trace.awaited));
    }
    words.extend(met(request).map(|met| format!(", met {met}")));
    words.join(" ").replace(" ,", ",")
}

fn met(request: &Weighted) -> impl Iterator<Item = &'static str> {
    let trace = request.trace;
    MET.iter().filter(move |(cause, _)| trace.has(*cause)).map(|(_, name)| *name)
}

fn kind(number: u16) -> String {
    Kind::from_u16(number).map_or_else(|| number.to_string(), |kind| format!("{kind:?}").to_lowercase())
}

/// The report for programs. Times are in nanoseconds.
#[must_use]
pub fn to_json(report: &Report) -> Value {
    let parts = |ns: &dyn Fn(usize) -> Value| -> Value {
        Value::Object((0..PARTS).map(|part| (name(part).to_owned(), ns(part))).collect())
    };
    let bands = report.bands.iter().map(|band| {
        let dominant = &band.dominant;
        let met = MET.iter().zip(band.met).map(|((_, name), met)| ((*name).to_owned(), json!(met)));
        json!({
            "percentile": band.percentile,
            "at_ns": band.at_ns,
            "requests": band.requests,
            "mean_ns": band.mean_ns,
            "stages_ns": parts(&|part| json!(band.parts[part])),
            "met": Value::Object(met.collect()),
            "dominant": {
                "cause": dominant.cause.name(),
                "origin": dominant.cause.origin().name(),
                "stage": part_name(dominant.part),
                "ns": dominant.ns,
                "around_p50_ns": dominant.usual_ns,
                "node": (dominant.node != NodeId(0)).then(|| dominant.node.to_string()),
                "node_share": dominant.node_share,
            },
            "beyond_p50": band.beyond.map(|beyond| json!({
                "cause": beyond.cause.name(),
                "stage": part_name(beyond.part),
                "more_ns": beyond.ns - beyond.usual_ns,
            })),
            "says": sentence(band),
        })
    });
    let slowest = report.slowest.iter().map(|request| {
        let trace = &request.trace;
        json!({
            "wall_ms": trace.wall_ms,
            "kind": kind(trace.kind),
            "table": trace.table.0,
            "partition": trace.partition.0,
            "core": format!("{}.{}", trace.node, trace.core),
            "awaited": (trace.awaited != NodeId(0)).then(|| trace.awaited.to_string()),
            "attempts": trace.attempts,
            "met": met(request).collect::<Vec<_>>(),
            "total_ns": trace.total_ns,
            "stages_ns": parts(&|part| json!(request.parts[part])),
        })
    });
    json!({
        "requests": report.requests,
        "explained": report.explained,
        "percentiles": bands.collect::<Vec<_>>(),
        "slowest": slowest.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::tail::sample::Sample;
    use crate::tail::sample::tests::{interval, trace};
    use evenkeel_wire::timeline::{Causes, Stage};

    /// Usual requests, and a few that waited for a thread that did not run.
    pub(crate) fn report() -> Report {
        let usual = trace(&[(Stage::LogWrite, 300), (Stage::Hop, 100)], Causes::NONE);
        let slow = [(Stage::LogWrite, 300), (Stage::RunQueue, 16_000), (Stage::CoreQueue, 2_000)];
        let slow = trace(&slow, Causes::CHECKPOINT);
        let traces = (0..990).map(|_| usual).chain((0..10).map(|_| slow)).collect();
        let sample = Sample::of(&[interval(traces, Vec::new(), 1000)], |_| true);
        Report::of(&sample, &[50.0, 99.0], 2).expect("there are requests")
    }

    #[test]
    fn the_sentence_names_the_cause_its_share_and_where_it_fell() {
        assert_eq!(
            sentence(&report().bands[1]),
            "p99 is 18.30 ms: 87% is the storage core's thread being runnable and not running on n1 (16.00 \
             ms of 18.30 ms, 0 ns around p50, most in run queue of core; it fell into the core queue) [host]"
        );
        assert_eq!(
            sentence(&report().bands[0]),
            "p50 is 400 us: 75% is log writes and their flushes on n1 (300 us of 400 us, most in log write \
             and flush) [host]"
        );
    }

    #[test]
    fn the_lines_have_every_part_that_matters_and_the_slowest_as_waterfalls() {
        let text = lines(&report()).join("\n");
        for expected in [
            "run queue of core                0 ns   0%       16.00 ms  87%",
            "unexplained ",
            "p99: ours 11%, host 89%, network 0%, unknown 0%",
            "100.0% of the time of the slowest 1% is explained",
            "    18.30 ms |qqqqrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrw| put p3 on n1.c0, awaited n2, met \
             checkpoint",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        assert!(!text.contains("look-up  "), "nobody waited for that:\n{text}");
    }

    #[test]
    fn programs_get_the_same_figures() {
        let value = to_json(&report());
        let band = &value["percentiles"][1];
        assert_eq!(band["dominant"]["cause"], "run-queue");
        assert_eq!(band["stages_ns"]["run queue of core"], 16e6);
        assert_eq!(value["slowest"][0]["awaited"], "n2");
        assert_eq!(value["slowest"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn every_part_is_in_the_order_once() {
        let mut order = ORDER.to_vec();
        order.sort_unstable();
        assert!(order.into_iter().eq(0..PARTS));
    }

    #[test]
    fn durations_have_the_unit_that_suits_them() {
        let all = [640.0, 15_300.0, 1_234_000.0, 2.5e9].map(duration);
        assert_eq!(all, ["640 ns", "15 us", "1.23 ms", "2.50 s"]);
    }
}
