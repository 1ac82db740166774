//! The `evenkeel` command.
use evenkeel::sim::{Options, run};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (from, to, seconds): (u64, u64, u64) =
        (args[1].parse().unwrap(), args[2].parse().unwrap(), args[3].parse().unwrap());
    if let Ok(name) = std::env::var("PLANT") {
        evenkeel_dataplane::planted::choose(evenkeel_dataplane::planted::Planted::named(&name));
    }
    for seed in from..to {
        match run(&Options { seed, seconds, faults: None, verbose: args.len() > 4 }) {
            Ok(report) => println!("{report:?}"),
            Err(failure) => {
                println!("{failure}");
                if args.len() > 4 {
                    println!("{}", failure.story);
                }
            }
        }
    }
}
