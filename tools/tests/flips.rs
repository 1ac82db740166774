//! Bits that flip on the disk of a real process: in pages under its feet, and in its log, its checkpoint and
//! its superblocks while it is down. All are found and repaired from the other nodes, and nobody notices.

mod support;

use evenkeel::check::check_core;
use evenkeel::folder::open_read_only;
use evenkeel::live::{Live, Part, live};
use evenkeel_client::Client;
use evenkeel_client::json::to_json;
use evenkeel_dataplane::wal::block::LogIdentity;
use evenkeel_wire::ids::CoreId;
use evenkeel_wire::prng::Prng;
use evenkeel_wire::turn::File as Of;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use support::{Processes, canonical, evenkeel, finish, item, wait_for};

/// The node whose disk is bad.
const NODE: &str = "n1";
/// Items that stay in leaves; every tenth of them is longer, and stands in an overflow run.
const ITEMS: u64 = 2600;

struct Bad {
    cluster: Processes,
    client: Client,
    prng: Prng,
    /// What was acknowledged, by its key.
    put: BTreeMap<u64, String>,
    version: u64,
    flips: u64,
}

impl Bad {
    /// A cluster whose nodes have written a checkpoint, with a page cache of a fraction of the tree.
    fn up() -> Self {
        let cluster = Processes::up(&["--cache-mib", "4"]);
        let create = ["table", "create", "t", "--key", "id:N", "--rcu", "100", "--wcu", "100"];
        finish(&mut cluster.command(&create)).ok();
        let client = cluster.client();
        let (prng, put) = (Prng::new(1), BTreeMap::new());
        let mut bad = Self { cluster, client, prng, put, version: 0, flips: 0 };
        (0..ITEMS).for_each(|key| bad.write(key));
        // The log is filled until all nodes have written a checkpoint.
        let large = "x".repeat(300_000);
        let checkpoints = |status: &Value| -> Vec<u64> {
            let cores = status["cores"].as_array().unwrap().iter();
            cores.map(|core| core["log"]["checkpoints"].as_u64().unwrap_or(0)).collect()
        };
        for number in 1.. {
            let text = format!(r#"{{"id":{{"N":"{}"}},"text":{{"S":"{large}"}}}}"#, ITEMS + number % 8);
            bad.client.put("t", item(&text)).send().unwrap();
            bad.put.insert(ITEMS + number % 8, to_json(&item(&text)));
            if number.is_multiple_of(25)
                && checkpoints(&bad.cluster.status().1).iter().all(|count| *count > 0)
            {
                return bad;
            }
        }
        unreachable!("it returns")
    }

    fn write(&mut self, key: u64) {
        self.version += 1;
        let bytes =
            if key.is_multiple_of(10) { 3000 + self.prng.below(20_000) } else { 700 + self.prng.below(600) };
        let text: String = (0..bytes).map(|_| char::from(b'a' + self.prng.below(26) as u8)).collect();
        let version = self.version;
        let text = format!(r#"{{"id":{{"N":"{key}"}},"v":{{"N":"{version}"}},"text":{{"S":"{text}"}}}}"#);
        self.client.put("t", item(&text)).send().unwrap();
        self.put.insert(key, to_json(&item(&text)));
    }

    fn data(&self) -> PathBuf {
        self.cluster.path().join("data").join(NODE)
    }

    fn tree(&self, what: &str) -> u64 {
        wait_for(what, || self.cluster.status().1["cores"][0]["tree"][what].as_u64())
    }

    /// What matters in the node's files now, while nothing changes them.
    fn live(&self) -> Vec<Live> {
        let folder = open_read_only(&self.data()).unwrap();
        let identity = LogIdentity { incarnation: folder.incarnation, core: CoreId(0) };
        live(&folder.cores[0], &identity).unwrap()
    }

    fn flip(&mut self, live: &Live) {
        let name = match live.file {
            Of::Superblock => "superblock".to_owned(),
            Of::Segment(segment) => format!("log-{segment:04}"),
            Of::Checkpoint(number) => format!("checkpoint-{number}"),
            Of::Tree => "tree".to_owned(),
        };
        let path = self.data().join("core-0").join(name);
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let at = live.at + self.prng.below(live.bytes);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << self.prng.below(8)], at).unwrap();
        file.sync_all().unwrap();
        self.flips += 1;
    }

    /// Pages of that kind, of which none is repaired with another.
    fn pages(&mut self, part: Part, count: usize) -> Vec<Live> {
        let mut pages: Vec<Live> = self.live().into_iter().filter(|live| live.part == part).collect();
        let (mut chosen, mut units) = (Vec::new(), BTreeSet::new());
        while chosen.len() < count && !pages.is_empty() {
            let page = pages.swap_remove(self.prng.below(pages.len() as u64) as usize);
            if units.insert(page.page.as_ref().unwrap().place.unit) {
                chosen.push(page);
            }
        }
        assert!(!chosen.is_empty(), "no {part:?} is live");
        chosen
    }

    /// Has everything checked. On a host that is busy a command may find nobody in time, and is repeated.
    fn scrub(&self) {
        wait_for("a check of everything", || {
            let ran = self.cluster.run("scrub", &[NODE]);
            (ran.code == Some(0) || ran.code == Some(3)).then_some(())
        });
    }

    /// Waits until what was damaged is repaired, checked again, and in a checkpoint; and the files are whole.
    fn is_whole(&self) {
        self.scrub();
        let mut looks = 0;
        wait_for("files that are whole", || {
            let (_, status) = self.cluster.status();
            let core = &status["cores"].as_array()?[0];
            let busy = ["blocks_loose", "blocks_retired", "damaged_pages"];
            let at_rest =
                core["log"]["checkpointing"] == false && busy.iter().all(|what| core["tree"][what] == 0);
            let folder = open_read_only(&self.data()).unwrap();
            let report = check_core(&folder, 0, &mut |_, _| ()).ok()?;
            let whole = at_rest && report.findings.is_empty() && report.lost == Some(0);
            looks += 1;
            if !whole && looks % 100 == 0 {
                // What it waits for, should it wait in vain.
                println!("{:?}, {:?} lost, {:#}", report.findings, report.lost, core["tree"]);
            }
            whole.then_some(())
        });
    }

    /// Flips a bit in each of these pages while the process runs; a check of everything finds all of them.
    fn under_its_feet(&mut self, part: Part, count: usize) {
        let pages = self.pages(part, count);
        let (found, repaired) = (self.tree("damage_found"), self.tree("damage_repaired"));
        pages.iter().for_each(|page| self.flip(page));
        self.scrub();
        let flipped = pages.len() as u64;
        assert_eq!(self.tree("damage_found") - found, flipped, "{part:?}: {pages:#?}");
        wait_for("repairs", || (self.tree("damage_repaired") - repaired == flipped).then_some(()));
        for page in &pages {
            let page = page.page.as_ref().unwrap();
            self.is_named(&format!(
                "a page of {} at block {} is damaged: ",
                page.partition, page.pointer.block
            ));
        }
        self.is_whole();
    }

    fn is_named(&self, text: &str) {
        let log = self.cluster.path().join("log").join(format!("{NODE}.log"));
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.contains(text), "{text:?} is not in the log:\n{log}");
    }

    fn kill(&self) {
        // What was acknowledged last is named durable by the log itself a moment later.
        wait_for("a log at rest", || {
            let writes = || self.cluster.status().1["cores"][0]["log"]["writes"].as_u64();
            (writes() == writes()).then_some(())
        });
        self.cluster.run("kill", &[NODE]).ok();
    }

    /// Flips a bit while the process is down, in what is read at a start.
    fn while_it_is_down(&mut self, parts: &[Part], says: &str) {
        for _ in 0..5 {
            let key = self.prng.below(ITEMS);
            self.write(key);
        }
        self.kill();
        let all = self.live();
        let part = parts.iter().find(|part| all.iter().any(|live| live.part == **part));
        let part = *part.unwrap_or_else(|| panic!("none of {parts:?} is live"));
        let those: Vec<&Live> = all.iter().filter(|live| live.part == part).collect();
        let struck = (*self.prng.pick(&those)).clone();
        self.flip(&struck);
        // Returns when every replica is refilled.
        self.cluster.run("restart", &[NODE]).ok();
        self.is_named(says);
        self.is_whole();
    }

    /// Flips bits in pages while the process is down; reads of every key find those that matter to them.
    fn pages_while_it_is_down(&mut self) {
        self.kill();
        let pages = self.pages(Part::Leaf, 6);
        pages.iter().for_each(|page| self.flip(page));
        self.cluster.run("restart", &[NODE]).ok();
        self.reads_are_right();
        self.scrub();
        wait_for("repairs", || (self.tree("damage_repaired") == pages.len() as u64).then_some(()));
        assert_eq!(self.tree("damage_found"), pages.len() as u64);
        self.is_whole();
    }

    /// Every item as it was acknowledged, from whichever node leads.
    fn reads_are_right(&self) {
        let exported = finish(&mut self.cluster.command(&["export", "t"])).ok();
        let (got, put) = (canonical(exported.lines()), self.put.values().cloned().collect::<BTreeSet<_>>());
        assert!(
            got == put,
            "{} items were put, {} of them are there",
            put.len(),
            put.intersection(&got).count()
        );
    }
}

#[test]
fn bits_that_flip_on_one_nodes_disk_are_found_and_repaired_from_the_others() {
    let mut bad = Bad::up();
    bad.is_whole();
    for _ in 0..2 {
        bad.under_its_feet(Part::Leaf, 9);
        bad.under_its_feet(Part::Run, 6);
    }
    bad.under_its_feet(Part::Node, 1);
    bad.under_its_feet(Part::Root, 1);
    bad.reads_are_right();
    bad.pages_while_it_is_down();
    bad.while_it_is_down(&[Part::LogEntry], "log segment ");
    bad.while_it_is_down(&[Part::LogHeader], "log segment ");
    bad.while_it_is_down(&[Part::ChunkBitmap], "checkpoint file ");
    bad.while_it_is_down(&[Part::Superblock], "one of the two superblocks is damaged");
    bad.reads_are_right();
    assert!(bad.flips >= 40, "{} flips", bad.flips);
    bad.cluster.run("down", &[]).ok();
    for node in ["n1", "n2", "n3"] {
        let data = bad.cluster.path().join("data").join(node);
        finish(&mut evenkeel(&["check", "--data", data.to_str().unwrap()])).ok();
    }
}
