//! Explores every order of events within a bound, and says whether the replication protocol holds.
//!
//! ```sh
//! cargo run --release -p evenkeel --example model -- drift            # everything within this bound
//! cargo run --release -p evenkeel --example model -- drift serve-without-waiting   # with a planted bug
//! ```

#[path = "../tests/model/mod.rs"]
mod model;

use evenkeel_dataplane::planted::Planted;
use model::{Exploration, Search, bounds};
use std::process::ExitCode;
use std::time::Instant;

#[allow(clippy::disallowed_methods, reason = "a command tells how long it took")]
fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let bound = arguments.next().and_then(|name| bounds::named(&name));
    let planted = arguments.next().as_deref().map(Planted::named);
    let (Some(bound), None | Some(Some(_))) = (bound, planted) else {
        let bounds: Vec<&str> = bounds::BOUNDS.iter().map(|bound| bound.name).collect();
        let plants: Vec<&str> = Planted::ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("usage: model BOUND [BUG]\nbounds: {}\nbugs: {}", bounds.join(", "), plants.join(", "));
        return ExitCode::from(2);
    };
    // With a bug, the nearest way to it is looked for, which only one thread finds.
    let (search, threads) = match planted {
        None => (Search::Everything, std::thread::available_parallelism().map_or(1, usize::from)),
        Some(_) => (Search::Nearest, 1),
    };
    let began = Instant::now();
    let report = Exploration::new(bound, planted.flatten()).run(search, threads, |states, transitions| {
        eprintln!("{states} states, {transitions} transitions so far");
    });
    print!("{report}");
    println!("  {:.1} s, {threads} threads", began.elapsed().as_secs_f64());
    if report.violated.is_empty() && report.missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
