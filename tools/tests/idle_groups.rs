//! What idle groups cost: 10,000 of them on three storage processes of one core each.
//!
//! Measures, so it is not run by itself; nothing else should use the host's CPUs. Bytes are what `ss` says
//! that a process has sent on its sockets, which is why it must be there.
//!
//! ```sh
//! cargo test --release -p evenkeel --test idle_groups -- --ignored --nocapture
//! ```

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Processes, finish, wait_for};

const TABLES: usize = 40;
const PARTITIONS_EACH: usize = 250;
const MEASURED: Duration = Duration::from_secs(20);

const PROCESSES: [&str; 6] = ["n1", "n2", "n3", "memds-0", "memds-1", "router-0"];

/// Clock ticks of CPU time, and bytes sent.
type Used = BTreeMap<&'static str, (u64, u64)>;

fn used(cluster: &Processes) -> Used {
    let sockets = finish(Command::new("ss").args(["-tinpHO"])).ok();
    let of = |name: &'static str| {
        let pid = cluster.pid(name);
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        let own = sockets.lines().filter(|line| line.contains(&format!("pid={pid},")));
        let sent =
            own.filter_map(|line| line.split("bytes_sent:").nth(1)?.split(' ').next()?.parse::<u64>().ok());
        (name, (ticks, sent.sum()))
    };
    PROCESSES.into_iter().map(of).collect()
}

#[allow(clippy::disallowed_methods, reason = "it measures")]
fn measure(cluster: &Processes, what: &str) {
    let (before, since) = (used(cluster), Instant::now());
    std::thread::sleep(MEASURED);
    let (after, seconds) = (used(cluster), since.elapsed().as_secs_f64());
    println!("{what}:");
    let mut sum = 0.0;
    for (name, (ticks, sent)) in after {
        // The kernel counts CPU time in hundredths of a second.
        let share = (ticks - before[name].0) as f64 / seconds;
        let rate = sent.saturating_sub(before[name].1) as f64 / seconds / 1000.0;
        sum += rate;
        println!("  {name:9} {share:5.2}% of a CPU, {rate:6.1} KB/s sent");
    }
    println!("  all of them send {sum:.1} KB/s");
}

#[test]
#[ignore = "measures, for a minute or two"]
fn ten_thousand_idle_groups_cost_next_to_nothing() {
    let cluster = Processes::up(&[]);
    measure(&cluster, "without tables");
    let partitions = PARTITIONS_EACH.to_string();
    for table in 0..TABLES {
        let name = format!("t{table}");
        finish(&mut cluster.command(&[
            "table",
            "create",
            &name,
            "--key",
            "pk:S",
            "--partitions",
            &partitions,
        ]))
        .ok();
    }
    wait_for("every group to be led", || (cluster.status().0 == Some(0)).then_some(()));
    // Status wakes every group; they rest again within the next heartbeats.
    measure(&cluster, "10,000 groups, just led");
    measure(&cluster, "10,000 groups");
    assert_eq!(cluster.status().0, Some(0), "the cluster is healthy all the time");
}
