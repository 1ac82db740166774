//! Single faults, each with what it must show.

use super::asker::{Answer, Asker};
use super::figures::{latencies, millis, percentile, windows};
use super::fill::fill;
use super::load::{Done, Load, Outcome, Plan, Question};
use super::stand::{Stand, pause};
use super::{Options, Report, TortureError, interrupted};
use evenkeel_wire::ids::{NodeId, PartitionId};
use evenkeel_wire::message::request::Get;
use evenkeel_wire::message::status::{FollowerStatus, GroupStatus};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
/// How long items may take to be copied.
const COPIED_WITHIN: Duration = Duration::from_secs(900);

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// The leader of a partition is killed, again and again: in the middle, writes go on within two seconds.
    LeaderKill,
    /// A process is asked to end: no request fails, and the tail stays within twice what it was.
    HandOver,
    /// Packets from a leader to one follower vanish for a minute: nobody stands for election.
    OneWay,
    /// A leader is stopped for ten seconds: another one takes over, and the old one serves nothing that is
    /// old when it wakes.
    StoppedLeader,
    /// The disk of one replica takes every write 20 ms late: the tail of writes stays within one and a half.
    SlowDisk,
    /// A node is lost for good, with data on it: every log is on three disks again within five seconds, all
    /// of the data some time later, and clients hardly notice.
    LostNode,
}

/// Clients that put so much load on a cluster that they are always waiting.
const BUSY: Plan = Plan {
    clients: 64,
    partitions: 6,
    registers: 12,
    generations: 1,
    think: Duration::from_millis(20),
    deadline: Duration::from_secs(15),
    seed: 0,
};

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 6] =
        [Self::LeaderKill, Self::HandOver, Self::OneWay, Self::StoppedLeader, Self::SlowDisk, Self::LostNode];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LeaderKill => "leader-kill",
            Self::HandOver => "hand-over",
            Self::OneWay => "one-way",
            Self::StoppedLeader => "stopped-leader",
            Self::SlowDisk => "slow-disk",
            Self::LostNode => "lost-node",
        }
    }

    /// The scenario of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// Whether it needs a node more than there are zones.
    #[must_use]
    pub fn wants_spare_node(self) -> bool {
        self == Self::LostNode
    }

    /// Its clients.
    #[must_use]
    pub fn plan(self) -> Plan {
        match self {
            Self::LeaderKill => BUSY,
            Self::HandOver | Self::SlowDisk | Self::LostNode => {
                Plan { clients: 32, think: Duration::from_millis(40), ..BUSY }
            }
            Self::OneWay | Self::StoppedLeader => {
                Plan { clients: 24, think: Duration::from_millis(20), ..BUSY }
            }
        }
    }
}

/// What a scenario works on.
struct Run<'a> {
    options: &'a Options,
    stand: &'a mut Stand,
    load: &'a mut Load,
    report: &'a mut Report,
    progress: &'a mut dyn FnMut(&str),
}

/// Runs a scenario.
///
/// # Errors
/// When it cannot be run, or the cluster does not recover.
pub fn run(
    scenario: Scenario,
    options: &Options,
    stand: &mut Stand,
    load: &mut Load,
    report: &mut Report,
    progress: &mut dyn FnMut(&str),
) -> Result<(), TortureError> {
    let mut run = Run { options, stand, load, report, progress };
    run.wait(Duration::from_secs(2))?;
    match scenario {
        Scenario::LeaderKill => run.leader_kill(),
        Scenario::HandOver => run.hand_over(),
        Scenario::OneWay => run.one_way(),
        Scenario::StoppedLeader => run.stopped_leader(),
        Scenario::SlowDisk => run.slow_disk(),
        Scenario::LostNode => run.lost_node(),
    }
}

impl Run<'_> {
    fn wait(&mut self, time: Duration) -> Result<(), TortureError> {
        let end = self.load.now() + time.as_nanos() as u64;
        while self.load.now() < end {
            if interrupted() {
                return Err(TortureError::Interrupted);
            }
            self.stand.check_processes()?;
            pause(Duration::from_millis(20));
        }
        Ok(())
    }

    fn figure(&mut self, name: &str, value: Value) {
        self.report.figures.insert(name.to_owned(), value);
    }

    fn bound(&mut self, holds: bool, what: String) {
        if !holds {
            self.report.missed.push(what);
        }
    }

    fn count(&mut self, fault: &str) {
        *self.report.faults.entry(fault.to_owned()).or_default() += 1;
    }

    /// The leader of one partition of the table, and the places of all that it leads.
    fn leader_of(&mut self, place: usize) -> Result<(String, Vec<usize>), TortureError> {
        let partitions = self.load.partitions.clone();
        let leaders = self.stand.wait_for("leaders of all partitions", |stand| {
            let leaders = stand.leaders();
            partitions.iter().all(|partition| leaders.contains_key(partition)).then_some(leaders)
        })?;
        let leader = leaders[&partitions[place % partitions.len()]].clone();
        let led = (0..partitions.len()).filter(|place| leaders[&partitions[*place]] == leader);
        let led = led.collect();
        Ok((leader, led))
    }

    /// Waits until every partition has taken a write a while after `time`.
    fn wait_for_writes(&mut self, time: u64) -> Result<(), TortureError> {
        let load = &*self.load;
        let writes = |_: &mut Stand| load.all_wrote_after(time + SECOND / 10).then_some(());
        self.stand.wait_for("writes in every partition", writes)
    }

    fn leader_kill(&mut self) -> Result<(), TortureError> {
        let (mut worst, mut each) = (Vec::new(), Vec::new());
        let runs = self.options.runs.unwrap_or(20);
        for run in 0..runs {
            let (leader, led) = self.leader_of(run as usize)?;
            (self.progress)(&format!("run {} of {runs}: {leader} is killed", run + 1));
            let killed = self.load.now();
            self.stand.kill(&leader)?;
            self.count("KillNode");
            self.wait_for_writes(killed)?;
            let end = self.load.now();
            let times: Vec<u64> = self.load.look(|done| {
                led.iter().map(|place| windows(done, *place, killed, end)[0].length()).collect()
            });
            worst.extend(times.iter().max());
            each.extend(times);
            self.stand.start(&leader)?;
            self.stand.wait_until_healthy()?;
            self.wait(Duration::from_millis(500))?;
        }
        worst.sort_unstable();
        each.sort_unstable();
        let at = |sorted: &[u64], hundredths| millis(percentile(sorted, hundredths));
        self.figure("runs", json!(worst.len()));
        self.figure("worst_partition_ms", json!({"p50": at(&worst, 50), "max": at(&worst, 100)}));
        self.figure("each_partition_ms", json!({"p50": at(&each, 50), "max": at(&each, 100)}));
        let middle = percentile(&worst, 50);
        let what = format!("unavailable for {} ms in the middle; 2000 ms at most", millis(middle));
        self.bound(middle <= 2 * SECOND, what);
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), TortureError> {
        let (mut ratios, mut rows, mut failed) = (Vec::new(), Vec::new(), 0);
        for run in 0..self.options.runs.unwrap_or(5) {
            let (leader, led) = self.leader_of(run as usize)?;
            self.wait(Duration::from_secs(3))?;
            (self.progress)(&format!("{leader} is asked to end"));
            let asked = self.load.now();
            self.stand.drain(&leader)?;
            self.count("Drain");
            self.wait(Duration::from_secs(2))?;
            self.stand.wait_until_ended(&leader)?;
            self.wait_for_writes(asked)?;
            let end = self.load.now();
            let (before, during, slowest, gap, bad) = self.load.look(|done| {
                let before = latencies(done, false, asked - 3 * SECOND, asked);
                let during = latencies(done, false, asked, asked + SECOND);
                let gaps = led.iter().map(|place| windows(done, *place, asked, end)[0].length());
                let bad = done.iter().filter(|done| done.ended > asked && done.outcome != Outcome::Answered);
                let of_led = done.iter().filter(|done| led.contains(&done.partition));
                let of_led: Vec<Done> = of_led.cloned().collect();
                let slowest = latencies(&of_led, false, asked, asked + SECOND);
                (before, during, slowest, gaps.max().unwrap_or_default(), bad.count())
            });
            failed += bad;
            let slowest = millis(percentile(&slowest, 100));
            let (before, during) = (percentile(&before, 99), percentile(&during, 99));
            ratios.push((during * 100 / before.max(1), before, during));
            rows.push(json!({
                "led": led.len(), "p99_before_ms": millis(before), "p99_during_ms": millis(during),
                "slowest_of_those_led_ms": slowest, "longest_without_write_ms": millis(gap),
                "failed": bad,
            }));
            self.stand.start(&leader)?;
            self.stand.wait_until_healthy()?;
        }
        ratios.sort_unstable();
        self.figure("runs", json!(rows));
        self.figure("failed", json!(failed));
        if failed > 0 {
            self.report.violations.push(format!("{failed} requests failed during a planned hand-over"));
        }
        if let Some((ratio, before, during)) = ratios.get(ratios.len() / 2).copied() {
            let (before, during) = (millis(before), millis(during));
            self.figure("p99_ratio_p50", json!(ratio as f64 / 100.0));
            let what =
                format!("p99 was {during} ms in the second of a hand-over, {before} ms before; 2x at most");
            self.bound(ratio <= 200, what);
        }
        Ok(())
    }

    fn one_way(&mut self) -> Result<(), TortureError> {
        let (leader, _) = self.leader_of(0)?;
        let follower = if leader == "n1" { "n2" } else { "n1" };
        let before = self.stand.ballots();
        let time = self.options.time.unwrap_or(Duration::from_secs(60));
        (self.progress)(&format!("packets from {leader} to {follower} vanish for {} s", time.as_secs()));
        let since = self.load.now();
        self.stand.zones.set_cut(&leader, follower, true)?;
        self.count("OneWay");
        self.wait(time)?;
        let during = self.stand.ballots();
        self.stand.zones.set_cut(&leader, follower, false)?;
        self.wait_for_writes(since)?;
        let end = self.load.now();
        let places = 0..self.load.partitions.len();
        let gap =
            self.load.look(|done| places.map(|place| windows(done, place, since, end)[0].length()).max());
        self.wait(Duration::from_secs(5))?;
        let after = self.stand.ballots();
        self.figure("seconds", json!(time.as_secs()));
        self.figure("replicas", json!(before.len()));
        self.figure("longest_without_write_ms", json!(millis(gap.unwrap_or_default())));
        for (when, ballots) in [("while packets vanished", during), ("after that", after)] {
            let changed = ballots
                .iter()
                .filter(|(replica, ballot)| before.get(replica).is_some_and(|before| before != *ballot));
            let changed: Vec<String> = changed
                .map(|((partition, node), ballot)| {
                    format!("{partition:x} on n{node}: {:?} became {ballot:?}", before[&(*partition, *node)])
                })
                .collect();
            let what = format!("{} ballots changed {when}: {}", changed.len(), changed.join("; "));
            self.figure(&format!("ballots_changed_{}", when.replace(' ', "_")), json!(changed.len()));
            self.bound(changed.is_empty(), what);
        }
        Ok(())
    }

    fn stopped_leader(&mut self) -> Result<(), TortureError> {
        let (leader, led) = self.leader_of(0)?;
        let time = self.options.time.unwrap_or(Duration::from_secs(10));
        let questions = self.load.questions(&self.stand.endpoints(), &led)?;
        let mut epochs = BTreeMap::new();
        for question in &questions {
            let epoch = self.stand.epoch(question.partition).ok_or_else(|| no_epoch(question.partition))?;
            epochs.insert(question.partition, epoch);
        }
        // Somebody asks it directly, too.
        let (address, cluster) =
            (self.stand.zones.address(&leader), self.stand.cluster().config().incarnation());
        let mut asker =
            Asker::connect(address, cluster, Duration::from_secs(5)).map_err(TortureError::Process)?;
        // A router that hears of nobody but the old leader asks it while it is stopped: the questions wait in
        // its socket. They are all that it sees when it wakes, for the other nodes cannot reach it, either.
        let router = "router-1".to_owned();
        let others: Vec<String> = self.stand.cluster().names();
        let others: Vec<String> =
            others.into_iter().filter(|name| *name != leader && *name != router).collect();
        self.stand.zones.set_apart(&[leader.clone(), router.clone()], &others, true)?;
        (self.progress)(&format!("{leader} is stopped for {} s", time.as_secs()));
        let stopped = self.load.now();
        self.stand.pause(&leader)?;
        self.count("Stop");
        self.wait_for_writes(stopped)?;
        let taken_over = self.load.now();
        let times: Vec<u64> = self.load.look(|done| {
            led.iter().map(|place| windows(done, *place, stopped, taken_over)[0].length()).collect()
        });
        // Every register may have been written again before it is asked for.
        self.wait(Duration::from_secs(2))?;
        let endpoint = self.stand.zones.address(&router).to_string();
        self.load.read_patiently(&endpoint, time + Duration::from_secs(10))?;
        let asked_at = self.load.now();
        for Question { partition, table, key, .. } in &questions {
            let get = Get { table: *table, key: Cow::Borrowed(key), strong: true };
            asker.ask(*partition, epochs[partition], &get).map_err(TortureError::Process)?;
        }
        let places: Vec<usize> = questions.iter().map(|question| question.place).collect();
        let overwritten = self.load.overwritten(&places, stopped, asked_at);
        if overwritten == 0 {
            let what = "no register was overwritten while its leader was stopped, so nothing is shown";
            self.report.violations.push(what.to_owned());
        }
        let left = (stopped + time.as_nanos() as u64).saturating_sub(self.load.now());
        self.wait(Duration::from_nanos(left.max(SECOND)))?;
        let leaders = self.stand.leaders();
        let led_on = led.iter().filter(|place| leaders.get(&self.load.partitions[**place]) == Some(&leader));
        let led_on = led_on.count();
        self.stand.resume(&leader)?;
        let mut served = 0;
        for _ in &questions {
            let (number, answer) = asker.answer().map_err(TortureError::Process)?;
            if let Answer::Found(item) = answer {
                // What it says is compared with what everybody else saw.
                self.load.note_read(places[number as usize], asked_at, item.as_ref());
                served += 1;
            }
        }
        self.figure("asked_when_it_woke", json!(questions.len()));
        self.figure("of_overwritten_registers", json!(overwritten));
        self.figure("served_when_it_woke", json!(served));
        self.wait(Duration::from_secs(2))?;
        self.stand.zones.mend()?;
        self.stand.wait_until_healthy()?;
        self.figure("led_before", json!(led.len()));
        self.figure("longest_without_write_ms", json!(millis(times.into_iter().max().unwrap_or_default())));
        if led_on > 0 {
            let what = format!("{led_on} partitions are led by a process that is stopped");
            self.report.violations.push(what);
        }
        Ok(())
    }

    fn slow_disk(&mut self) -> Result<(), TortureError> {
        const DELAY_MS: u64 = 20;
        let phase = self.options.time.unwrap_or(Duration::from_secs(10));
        let (mut healthy, mut slow) = (Vec::new(), Vec::new());
        let (victim, _) = self.leader_of(0)?;
        for run in 0..self.options.runs.unwrap_or(3) {
            for (delay, times) in [(0, &mut healthy), (DELAY_MS, &mut slow)] {
                // The same is done to it in both cases, so that only its disk makes a difference.
                self.stand.set_write_delay(&victim, delay)?;
                self.stand.restart(&victim)?;
                self.stand.wait_until_healthy()?;
                let leaders = self.stand.leaders();
                let led = leaders.values().filter(|leader| **leader == victim).count();
                (self.progress)(&format!("run {}: {victim} writes {delay} ms late, leads {led}", run + 1));
                self.wait(Duration::from_secs(2))?;
                let since = self.load.now();
                self.wait(phase)?;
                let until = self.load.now();
                times.extend(self.load.look(|done| latencies(done, true, since, until)));
            }
            self.count("SlowDisk");
        }
        healthy.sort_unstable();
        slow.sort_unstable();
        for (name, times) in [("healthy", &healthy), ("slow", &slow)] {
            let at = |hundredths| millis(percentile(times, hundredths));
            let figures = json!({"writes": times.len(), "p50_ms": at(50), "p99_ms": at(99)});
            self.figure(name, figures);
        }
        let (before, with) = (percentile(&healthy, 99), percentile(&slow, 99));
        self.figure("p99_ratio", json!((with * 100 / before.max(1)) as f64 / 100.0));
        let what =
            format!("p99 of writes was {} ms beside {} ms; 1.5x at most", millis(with), millis(before));
        self.bound(with * 2 <= before * 3, what);
        Ok(())
    }
}

impl Run<'_> {
    fn lost_node(&mut self) -> Result<(), TortureError> {
        let mib = self.options.data.unwrap_or(256);
        fill(&self.stand.endpoints(), mib, self.progress)?;
        self.stand.wait_until_healthy()?;
        self.wait(Duration::from_secs(5))?;
        // It has the data, and a neighbour in its zone.
        let holds = |group: &GroupStatus, node: NodeId| group.members.contains(&node);
        let filled = self.stand.led().into_values().max_by_key(|group| group.bytes);
        let filled = filled.ok_or_else(|| TortureError::Wrong("nobody leads".to_owned()))?;
        let lost = if holds(&filled, NodeId(3)) { NodeId(3) } else { NodeId(4) };
        let phase = self.options.time.unwrap_or(Duration::from_secs(20));
        let before_from = self.load.now();
        self.wait(phase)?;
        let concerned: Vec<PartitionId> = self
            .stand
            .led()
            .into_values()
            .filter(|group| holds(group, lost))
            .map(|group| group.partition)
            .collect();
        (self.progress)(&format!("{lost} is lost, with replicas of {} partitions", concerned.len()));
        let killed = self.load.now();
        self.stand.kill(&lost.to_string())?;
        self.count("KillNode");
        let concerned = &concerned;
        // Three members that are not the lost one have, durably, what was committed when their leader was
        // asked.
        let on_three = |group: &GroupStatus| {
            let has = |follower: &FollowerStatus| follower.matched >= group.commit;
            let followers = group.followers.iter().filter(|follower| group.members.contains(&follower.node));
            !holds(group, lost)
                && group.members.len() == 3
                && followers.filter(|follower| has(follower)).count() == 2
        };
        self.stand.wait_for("three logs of everything", |stand| {
            let led = stand.led();
            concerned.iter().all(|partition| led.get(partition).is_some_and(on_three)).then_some(())
        })?;
        let on_disks = self.load.now();
        (self.progress)("every log is on three disks; the items are copied");
        let mut looks = Vec::new();
        loop {
            let led = self.stand.led();
            let whole = |group: &GroupStatus| on_three(group) && group.log_replicas.is_empty();
            if concerned.iter().all(|partition| led.get(partition).is_some_and(whole)) {
                break;
            }
            looks.push(led.values().map(|group| group.log_replicas.len()).sum::<usize>());
            self.wait(Duration::from_millis(500))?;
            if self.load.now() > on_disks + COPIED_WITHIN.as_nanos() as u64 {
                return Err(TortureError::Wrong(format!(
                    "items are not copied after {COPIED_WITHIN:?}: {looks:?}"
                )));
            }
        }
        let whole = self.load.now();
        // A host is not the same for minutes: what is held against the copying is what was before and after.
        (self.progress)("everything is copied");
        self.wait(phase)?;
        let end = self.load.now();
        let [before, until_three, during, after, beside] = self.load.look(|done| {
            let times = |from, until| latencies(done, false, from, until);
            let mut beside = [times(before_from, killed), times(whole, end)].concat();
            beside.sort_unstable();
            let spans = [(before_from, killed), (killed, on_disks), (on_disks, whole), (whole, end)];
            let [before, until_three, during, after] = spans.map(|(from, until)| times(from, until));
            [before, until_three, during, after, beside].map(|times| percentile(&times, 99))
        });
        self.figure("data_mib", json!(mib));
        self.figure("partitions", json!(concerned.len()));
        self.figure("three_logs_after_ms", json!(millis(on_disks - killed)));
        self.figure("three_storage_replicas_after_ms", json!(millis(whole - killed)));
        let figures = json!({
            "before_ms": millis(before), "until_three_logs_ms": millis(until_three),
            "while_copied_ms": millis(during), "after_ms": millis(after),
            "ratio": (during * 100 / beside.max(1)) as f64 / 100.0,
        });
        self.figure("p99", figures);
        let took = millis(on_disks - killed);
        self.bound(on_disks - killed <= 5 * SECOND, format!("three logs after {took} ms; 5000 ms at most"));
        let what = format!(
            "p99 was {} ms while items were copied, {} ms before and after; 1.5x at most",
            millis(during),
            millis(beside)
        );
        self.bound(during * 2 <= beside * 3, what);
        Ok(())
    }
}

fn no_epoch(partition: PartitionId) -> TortureError {
    TortureError::Wrong(format!("nobody holds partition {partition}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_have_names() {
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::named(scenario.name()), Some(scenario));
        }
        assert_eq!(Scenario::named("nothing"), None);
    }
}
