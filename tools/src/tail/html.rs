//! A report as one HTML file that needs no other: bars of stages for each percentile, a table, and the
//! slowest requests as waterfalls, drawn as SVG.

use super::cause::{Cause, Origin, part_name};
use super::report::{Band, Report, stage_of};
use super::sample::{PARTS, Weighted};
use super::words::{ORDER, about, duration, percentile, sentence, share_of};
use evenkeel_wire::timeline::Stage;
use std::fmt::Write;

/// Width of a bar, pixels.
const WIDTH: f64 = 860.0;
/// Its height.
const HEIGHT: f64 = 26.0;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2.5em auto;max-width:1000px;\
color:#1c2430}\
h1{font-size:24px;margin-bottom:0}h2{font-size:18px;margin-top:2em}p.sub{color:#5b6676;margin-top:.2em}\
table{margin-top:1.2em;border-collapse:collapse;font-variant-numeric:tabular-nums}\
td,th{padding:.25em .9em;border-bottom:1px solid #e2e6ec;text-align:right;font-weight:400}\
th{color:#5b6676}td:first-child,th:first-child{text-align:left}\
td.dominant{font-weight:600}\
.key{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:7px}\
.tag{font-size:12px;border-radius:9px;padding:1px 9px;margin-left:8px;color:#fff}\
svg{display:block;margin:.25em 0}svg text{font:12px system-ui,sans-serif}.small{color:#5b6676;font-size:13px}\
ul{padding-left:1.1em}li{margin:.45em 0}";

fn color(part: usize) -> &'static str {
    match stage_of(part) {
        Some(Stage::CoreQueue) => "#4c78a8",
        Some(Stage::Held) => "#9d755d",
        Some(Stage::PageWait) => "#b279a2",
        Some(Stage::Execute) => "#9ecae9",
        Some(Stage::LogQueue) => "#f2cf5b",
        Some(Stage::LogWrite) => "#f58518",
        Some(Stage::Quorum) => "#88d27a",
        Some(Stage::FollowerLog) => "#d67195",
        Some(Stage::RunQueue) => "#e45756",
        Some(Stage::RouterQueue) => "#72b7b2",
        Some(Stage::Lookup) => "#439894",
        Some(Stage::Attempts) => "#8c6d31",
        Some(Stage::RouterRunQueue) => "#a8323a",
        Some(Stage::Hop) => "#54a24b",
        None => "#bab0ac",
    }
}

fn tag(origin: Origin) -> String {
    let color = match origin {
        Origin::Ours => "#4c78a8",
        Origin::Host => "#e45756",
        Origin::Network => "#54a24b",
        Origin::Unknown => "#8a8f98",
    };
    format!("<span class=tag style=\"background:{color}\">{}</span>", origin.name())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The file. `about` says of what and when the report is.
#[must_use]
pub fn page(report: &Report, about: &str) -> String {
    let mut out = String::new();
    let title = "Where the time of requests went";
    let _ = write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>\
         <h1>{title}</h1><p class=sub>{}; {:.0} requests; {:.1}% of the time of the slowest 1% is \
         explained</p>",
        escape(about),
        report.requests,
        100.0 * report.explained
    );
    out.push_str("<ul>");
    for band in &report.bands {
        let says = sentence(band);
        let says = says.rsplit_once(" [").map_or(says.as_str(), |(says, _)| says);
        let _ = write!(out, "<li>{}{}</li>", escape(says), tag(band.dominant.cause.origin()));
    }
    out.push_str("</ul><h2>Stages around each percentile</h2>");
    report.bands.iter().for_each(|band| band_bar(&mut out, band));
    table(&mut out, report);
    let slowest = report.slowest.first().map_or(1, |slowest| slowest.trace.total_ns);
    out.push_str(
        "<h2>The slowest requests</h2><p class=small>One scale for all; hold the pointer over a part.</p>",
    );
    report.slowest.iter().for_each(|request| waterfall(&mut out, request, slowest));
    out.push_str("</html>\n");
    out
}

/// Parts of a bar: each with its place, its length in nanoseconds, and where it begins.
fn laid_out(ns: impl Fn(usize) -> f64) -> Vec<(usize, f64, f64)> {
    let mut begins = 0.0;
    let mut parts = Vec::new();
    for part in ORDER {
        let ns = ns(part);
        if ns > 0.0 {
            parts.push((part, ns, begins));
            begins += ns;
        }
    }
    parts
}

fn rectangles(out: &mut String, parts: &[(usize, f64, f64)], scale: f64, height: f64) {
    for (part, ns, begins) in parts {
        let (x, width) = (begins * scale, (ns * scale).max(0.4));
        let name = part_name(stage_of(*part));
        let _ = write!(
            out,
            "<rect x=\"{x:.1}\" y=0 width=\"{width:.1}\" height={height} fill=\"{}\"><title>{name}: {}\
             </title></rect>",
            color(*part),
            duration(*ns)
        );
        let label = duration(*ns);
        if width > 8.0 * label.len() as f64 {
            let (x, y) = (x + 6.0, height / 2.0 + 4.0);
            let _ = write!(out, "<text x=\"{x:.1}\" y=\"{y}\" fill=\"#fff\">{label}</text>");
        }
    }
}

fn band_bar(out: &mut String, band: &Band) {
    let shares = [Origin::Ours, Origin::Host, Origin::Network, Origin::Unknown].map(|origin| {
        let share = 100.0 * share_of(band, origin);
        if share < 0.5 { String::new() } else { format!(" · {} {share:.0}%", origin.name()) }
    });
    let name = percentile(band.percentile);
    let _ = write!(
        out,
        "<div><b>{name}</b> <span class=small>{} · mean {}{}</span></div>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width={WIDTH} height={HEIGHT} role=img aria-label=\"{name}\">",
        duration(band.at_ns as f64),
        duration(band.mean_ns),
        shares.concat()
    );
    rectangles(out, &laid_out(|part| band.parts[part]), WIDTH / band.mean_ns.max(1.0), HEIGHT);
    out.push_str("</svg>");
}

fn table(out: &mut String, report: &Report) {
    out.push_str("<table><tr><th>mean time in</th>");
    for band in &report.bands {
        let around = if band.percentile < 90.0 { "around" } else { "above" };
        let _ = write!(out, "<th colspan=2>{around} {}</th>", percentile(band.percentile));
    }
    out.push_str("</tr>");
    for part in ORDER {
        if part != PARTS - 1 && report.bands.iter().all(|band| band.parts[part] < 1.0) {
            continue;
        }
        let stage = stage_of(part);
        let _ = write!(
            out,
            "<tr><td><span class=key style=\"background:{}\"></span>{}</td>",
            color(part),
            part_name(stage)
        );
        for band in &report.bands {
            let dominates = Cause::of(stage) == Cause::of(band.dominant.part);
            let class = if dominates { " class=dominant" } else { "" };
            let share = 100.0 * band.parts[part] / band.mean_ns.max(1.0);
            let _ = write!(out, "<td{class}>{}</td><td{class}>{share:.1}%</td>", duration(band.parts[part]));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
}

fn waterfall(out: &mut String, request: &Weighted, longest_ns: u64) {
    let (step, all) = (7.0, laid_out(|part| request.parts[part] as f64));
    let height = step * all.len() as f64 + 2.0;
    let scale = WIDTH / longest_ns.max(1) as f64;
    let _ = write!(
        out,
        "<div class=small><b>{}</b> {}</div>\
         <svg viewBox=\"0 0 {WIDTH} {height}\" width={WIDTH} height={height} role=img \
         aria-label=\"waterfall\">\
         <rect width={WIDTH} height={height} fill=\"#f4f6f9\"/>",
        duration(request.trace.total_ns as f64),
        escape(&about(request))
    );
    for (row, (part, ns, begins)) in all.iter().enumerate() {
        let _ = write!(
            out,
            "<rect x=\"{:.1}\" y=\"{}\" width=\"{:.1}\" height={} fill=\"{}\"><title>{}: {}</title></rect>",
            begins * scale,
            row as f64 * step + 1.0,
            (ns * scale).max(1.0),
            step - 1.0,
            color(*part),
            part_name(stage_of(*part)),
            duration(*ns)
        );
    }
    out.push_str("</svg>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::words::tests::report;

    #[test]
    fn the_page_is_one_file_with_a_bar_for_each_percentile_and_a_waterfall_for_each_slow_request() {
        let page = page(&report(), "a cluster <&>");
        assert_eq!(page.matches("<svg").count(), 2 + 2);
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(page.contains("a cluster &lt;&amp;&gt;"));
        for outside in ["http:", "https:", "src=", "<script", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        let bar = format!("width=\"{:.1}\" height=26 fill=\"#e45756\"", WIDTH * 16.0 / 18.3);
        assert!(page.contains(&bar), "the run queue has its share of the bar");
    }

    #[test]
    fn parts_follow_each_other_without_gaps() {
        let parts = laid_out(|part| part as f64);
        let mut end = 0.0;
        for (_, ns, begins) in parts {
            assert!((begins - end).abs() < 1e-9);
            end = begins + ns;
        }
        assert_eq!(end as usize, (0..PARTS).sum::<usize>());
    }
}
