//! A cluster of processes, each in a network namespace of its own, and what can be done to them.

use super::TortureError;
use super::zones::Zones;
use crate::cluster::{Cluster, Shape, signal};
use crate::config::{ClusterConfig, NodeConfig};
use crate::health::{self, Health};
use crate::local::{LocalError, new_uuid};
use evenkeel_client::Client;
use evenkeel_wire::ids::{Ballot, Epoch, PartitionId};
use evenkeel_wire::message::status::{GroupStatus, Role};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

/// How often a state that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a cluster may take to be well after everything was put right.
const HEALTHY_WITHIN: Duration = Duration::from_secs(90);
/// How long a process may take to end when it is asked to.
const END_WITHIN: Duration = Duration::from_secs(20);

/// The cluster, what is done to it at the moment, and its processes.
#[derive(Debug)]
pub struct Stand {
    cluster: Cluster,
    /// The network.
    pub zones: Zones,
    children: BTreeMap<String, Child>,
    paused: BTreeSet<String>,
    /// Processes that were ended, and are to be started again.
    down: BTreeSet<String>,
    slow_disks: BTreeSet<String>,
    /// How long the log of each process was when it was started last.
    logs: BTreeMap<String, usize>,
}

impl Stand {
    /// Makes a cluster in `folder` and starts it: three storage nodes, or with a spare one four, two MemDS
    /// servers and two routers. The spare node is in the zone of the third.
    ///
    /// # Errors
    /// When something cannot be made or started, or the cluster does not become healthy.
    pub fn begin(folder: &Path, spare: bool) -> Result<Self, TortureError> {
        let shape = Shape {
            nodes: if spare { 4 } else { 3 },
            cores: 1,
            memds: 2,
            routers: 2,
            port: 0,
            // With a spare node comes much data.
            log: if spare { (16, 32) } else { (8, 8) },
            cache_mib: if spare { 128 } else { 16 },
            reserve_mib: None,
            cache: "on".to_owned(),
        };
        let names = ["n1", "n2", "n3", "memds-0", "memds-1", "router-0", "router-1", "n4"];
        let names = names.map(str::to_owned);
        let names = &names[..if spare { 8 } else { 7 }];
        let zones = Zones::new(names);
        zones.make()?;
        let uuid = || new_uuid().map_err(LocalError::from);
        let mut nodes = Vec::new();
        for (id, zone) in [(1, "a"), (2, "b"), (3, "c"), (4, "c")].into_iter().take(shape.nodes as usize) {
            let cores = vec![zones.address(&format!("n{id}"))];
            nodes.push(NodeConfig { id, zone: zone.to_owned(), incarnation: uuid()?, cores });
        }
        let both = |role: &str| [0, 1].map(|number| zones.address(&format!("{role}-{number}"))).to_vec();
        let config = ClusterConfig { id: uuid()?, memds: both("memds"), routers: both("router"), nodes };
        let cluster = Cluster::create_as(folder, &shape, config, &mut |_, _| ())?;
        let (children, paused) = (BTreeMap::new(), BTreeSet::new());
        let (down, slow_disks) = (cluster.names().into_iter().collect(), BTreeSet::new());
        let logs = BTreeMap::new();
        let mut stand = Self { cluster, zones, children, paused, down, slow_disks, logs };
        stand.put_right()?;
        stand.wait_until_healthy()?;
        Ok(stand)
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The routers' addresses, each once in front.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.cluster.config().routers.iter().map(ToString::to_string).collect()
    }

    /// The processes of a zone: 0, 1 or 2.
    #[must_use]
    pub fn zone(&self, number: usize) -> Vec<String> {
        let names = [format!("n{}", number + 1), format!("memds-{number}"), format!("router-{number}")];
        let all = self.cluster.names();
        names.into_iter().filter(|name| all.contains(name)).collect()
    }

    /// The processes of the other zones.
    #[must_use]
    pub fn outside(&self, number: usize) -> Vec<String> {
        let inside = self.zone(number);
        self.cluster.names().into_iter().filter(|name| !inside.contains(name)).collect()
    }

    /// The membership epoch of a partition, by the first answer.
    #[must_use]
    pub fn epoch(&self, partition: PartitionId) -> Option<Epoch> {
        let health = self.health()?;
        let groups = health.cores.iter().filter_map(|core| core.said.status.as_ref().ok());
        let mut groups = groups.flat_map(|status| &status.groups);
        groups.find(|group| group.partition == partition).map(|group| group.epoch)
    }

    /// Whether a process was ended or stopped by us.
    #[must_use]
    pub fn is_touched(&self, name: &str) -> bool {
        self.down.contains(name) || self.paused.contains(name)
    }

    /// Starts a process that was ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, name: &str) -> Result<(), TortureError> {
        if self.down.remove(name) {
            self.logs.insert(name.to_owned(), self.log(name).len());
            let child = self.cluster.launch(name, &self.zones.entering(name))?;
            self.children.insert(name.to_owned(), child);
        }
        Ok(())
    }

    /// Kills a process (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self, name: &str) -> Result<(), TortureError> {
        if let Some(mut child) = self.children.remove(name) {
            child.kill().map_err(TortureError::Process)?;
            child.wait().map_err(TortureError::Process)?;
        }
        self.paused.remove(name);
        self.down.insert(name.to_owned());
        Ok(())
    }

    fn signal(&self, name: &str, what: Signal) -> Result<(), TortureError> {
        if let Some(child) = self.children.get(name) {
            signal(child.id(), what)?;
        }
        Ok(())
    }

    /// Asks a process to hand over and end (SIGTERM). It is waited for by [`Stand::wait_until_ended`].
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn drain(&mut self, name: &str) -> Result<(), TortureError> {
        self.resume(name)?;
        self.signal(name, Signal::TERM)?;
        self.down.insert(name.to_owned());
        Ok(())
    }

    /// Waits until a process that was asked to end has done so.
    ///
    /// # Errors
    /// When it does not, or ends with a failure.
    pub fn wait_until_ended(&mut self, name: &str) -> Result<(), TortureError> {
        let Some(mut child) = self.children.remove(name) else {
            return Ok(());
        };
        let mut left = END_WITHIN;
        loop {
            match child.try_wait().map_err(TortureError::Process)? {
                Some(status) if status.success() => return Ok(()),
                // It was asked before it had begun to listen to that.
                Some(status) if status.signal() == Some(Signal::TERM.as_raw()) && !self.serves(name) => {
                    return Ok(());
                }
                Some(status) => return Err(self.wrong(name, &format!("was to end and did so with {status}"))),
                None if left.is_zero() => {
                    child.kill().map_err(TortureError::Process)?;
                    child.wait().map_err(TortureError::Process)?;
                    return Err(self.wrong(name, "was asked to end and did not"));
                }
                None => {}
            }
            pause(LOOK_EVERY);
            left = left.saturating_sub(LOOK_EVERY);
        }
    }

    /// Stops a process (SIGSTOP).
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn pause(&mut self, name: &str) -> Result<(), TortureError> {
        self.signal(name, Signal::STOP)?;
        self.paused.insert(name.to_owned());
        Ok(())
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn resume(&mut self, name: &str) -> Result<(), TortureError> {
        if self.paused.remove(name) {
            self.signal(name, Signal::CONT)?;
        }
        Ok(())
    }

    /// Makes a node's disk slow, or well again. It holds from the node's next start on.
    ///
    /// # Errors
    /// When its configuration cannot be changed.
    pub fn set_write_delay(&mut self, name: &str, millis: u64) -> Result<(), TortureError> {
        self.cluster.configure(name, |config| {
            config.storage.iter_mut().for_each(|storage| storage.write_delay_ms = millis);
        })?;
        if millis > 0 {
            self.slow_disks.insert(name.to_owned())
        } else {
            self.slow_disks.remove(name)
        };
        Ok(())
    }

    /// Ends a process in good order and starts it again.
    ///
    /// # Errors
    /// When it does not end well, or cannot be started.
    pub fn restart(&mut self, name: &str) -> Result<(), TortureError> {
        self.drain(name)?;
        self.wait_until_ended(name)?;
        self.start(name)
    }

    /// Ends all faults: everything runs, is connected, and has a good disk.
    ///
    /// # Errors
    /// When something cannot be put right.
    pub fn put_right(&mut self) -> Result<(), TortureError> {
        self.zones.mend()?;
        for name in self.paused.clone() {
            self.resume(&name)?;
        }
        for name in self.slow_disks.clone() {
            self.set_write_delay(&name, 0)?;
            self.kill(&name)?;
        }
        for name in self.down.clone() {
            self.wait_until_ended(&name)?;
            self.start(&name)?;
        }
        Ok(())
    }

    /// Looks whether every process runs that was not ended by us.
    ///
    /// # Errors
    /// When one has ended by itself.
    pub fn check_processes(&mut self) -> Result<(), TortureError> {
        for (name, child) in &mut self.children {
            let ended = child.try_wait().map_err(TortureError::Process)?;
            if let Some(status) = ended
                && !self.down.contains(name)
            {
                let what = format!("ended by itself, with {status}");
                let name = name.clone();
                return Err(self.wrong(&name, &what));
            }
        }
        Ok(())
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.cluster.log_path(name)).unwrap_or_default()
    }

    /// Whether a process has said since its last start that it serves.
    fn serves(&self, name: &str) -> bool {
        let began = self.logs.get(name).copied().unwrap_or_default();
        self.log(name).get(began..).is_some_and(|said| said.contains("serving"))
    }

    fn wrong(&self, name: &str, what: &str) -> TortureError {
        let log = self.log(name);
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        TortureError::Wrong(format!("{name} {what}; its last words: {}", last.join(" / ")))
    }

    /// Asks every process how it is.
    #[must_use]
    pub fn health(&self) -> Option<Health> {
        // Any process answers for itself: the first that can be reached is the way to all.
        let connect = |address: String| {
            let patience = Duration::from_secs(1);
            Client::builder().endpoint(address).connect_timeout(patience).deadline(patience).connect().ok()
        };
        let routers = ["router-0", "router-1"].into_iter().filter(|name| !self.is_touched(name));
        let client = routers.map(|name| self.zones.address(name).to_string()).find_map(connect)?;
        Some(health::ask(&client, &self.cluster.config().topology()))
    }

    /// Waits until `look` finds something.
    ///
    /// # Errors
    /// When it does not in time, or a process ends meanwhile.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T, TortureError> {
        let mut left = HEALTHY_WITHIN;
        loop {
            self.check_processes()?;
            if super::interrupted() {
                return Err(TortureError::Interrupted);
            }
            if let Some(found) = look(self) {
                return Ok(found);
            }
            if left.is_zero() {
                return Err(TortureError::Wrong(format!("waited in vain for {what}")));
            }
            pause(LOOK_EVERY);
            left = left.saturating_sub(LOOK_EVERY);
        }
    }

    /// Waits until nothing is wrong with the cluster.
    ///
    /// # Errors
    /// When that does not happen.
    pub fn wait_until_healthy(&mut self) -> Result<(), TortureError> {
        let mut last = Vec::new();
        let outcome = self.wait_for("a healthy cluster", |stand| {
            let health = stand.health()?;
            last = health.complaints;
            last.is_empty().then_some(())
        });
        outcome.map_err(|error| match error {
            TortureError::Wrong(what) => TortureError::Wrong(format!("{what}: {}", last.join("; "))),
            other => other,
        })
    }

    /// Waits until every follower has what its leader has committed. Nothing may be written meanwhile.
    ///
    /// # Errors
    /// When that does not happen.
    pub fn wait_until_caught_up(&mut self) -> Result<(), TortureError> {
        self.wait_for("followers that have everything", |stand| {
            let health = stand.health()?;
            let equal = health.partitions.values().all(|partition| {
                partition.followers.len() == 2
                    && partition.followers.iter().all(|follower| follower.matched.0 == partition.commit)
            });
            (health.is_healthy() && equal).then_some(())
        })
    }

    /// Who leads a partition and serves, by the answers of those who answer.
    #[must_use]
    pub fn leaders(&self) -> BTreeMap<u64, String> {
        let Some(health) = self.health() else {
            return BTreeMap::new();
        };
        let of = |(partition, leader): (u64, Option<u32>)| Some((partition, format!("n{}", leader?)));
        let leaders = health.partitions.iter();
        leaders.map(|(id, partition)| (id.0, partition.leader.map(|node| node.0))).filter_map(of).collect()
    }

    /// The groups, as their leaders see them that serve.
    #[must_use]
    pub fn led(&self) -> BTreeMap<PartitionId, GroupStatus> {
        let cores = self.health().map(|health| health.cores).unwrap_or_default();
        let groups =
            cores.into_iter().filter_map(|core| core.said.status.ok()).flat_map(|status| status.groups);
        let led = groups.filter(|group| group.role == Role::Leader && group.ready);
        led.map(|group| (group.partition, group)).collect()
    }

    /// The promised ballots, by partition and node, of every replica that answers.
    #[must_use]
    pub fn ballots(&self) -> BTreeMap<(u64, u32), Ballot> {
        let cores = self.health().map(|health| health.cores).unwrap_or_default();
        let groups = cores.iter().flat_map(|core| {
            let groups = core.said.status.iter().flat_map(|status| &status.groups);
            groups.map(|group| ((group.partition.0, core.node.0), group.ballot))
        });
        groups.collect()
    }
}

/// Lets time pass.
#[allow(clippy::disallowed_methods, reason = "waiting for processes is a door's work")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
