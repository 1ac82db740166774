//! A disk that is really full: a node's data folder on a file system of its own, which is filled to its last
//! block. Writes are refused and say why, reads go on, nothing that was acknowledged is lost; and when there
//! is room, writes go on in the same process.
//!
//! The file system is ext4 on a loop device, because one in memory is no place for a data folder. To mount it
//! takes root: without, the test says so and shows nothing.

mod support;

use evenkeel_client::json::to_json;
use evenkeel_client::{Client, ErrorCode};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::{Processes, canonical, evenkeel, finish, folder, item, wait_for};

/// Its log takes 64 MiB, its trees and checkpoints some of the rest.
const DISK_BYTES: u64 = 400 << 20;

/// A file system on a loop device, which is given up at the end.
struct Disk {
    place: PathBuf,
}

impl Disk {
    /// None, and why, where it cannot be had.
    fn mount(image: &Path, place: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&place).unwrap();
        fs::File::create(image).unwrap().set_len(DISK_BYTES).unwrap();
        let run = |command: &mut Command| {
            let ran = finish(command);
            if ran.code == Some(0) { Ok(()) } else { Err(format!("{command:?}: {}", ran.stderr)) }
        };
        run(Command::new("mkfs.ext4").args(["-qF", "-m", "0"]).arg(image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(&place))?;
        Ok(Self { place })
    }

    /// Fills it, and gives back so many bytes.
    fn fill(&self, but: usize) {
        let path = self.place.join("filler");
        let mut filler = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        for bytes in [1 << 20, 4096, 512] {
            loop {
                match filler.write_all(&vec![7; bytes]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let length = filler.metadata().unwrap().len();
        filler.set_len(length.saturating_sub(but as u64)).unwrap();
        filler.sync_all().unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.place.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        finish(Command::new("umount").arg("-l").arg(&self.place));
    }
}

struct Store {
    cluster: Processes,
    client: Client,
    /// What was acknowledged, and what was not.
    put: BTreeSet<String>,
    tried: BTreeSet<String>,
    writes: u64,
}

impl Store {
    /// Puts an item under a new key.
    fn put(&mut self, patience: Duration) -> Result<(), evenkeel_client::Error> {
        self.writes += 1;
        let (key, text) = (self.writes, "x".repeat(100_000));
        let item = item(&format!(r#"{{"id":{{"N":"{key}"}},"text":{{"S":"{text}"}}}}"#));
        let line = to_json(&item);
        let outcome = self.client.put("t", item).deadline(patience).send();
        let lines = if outcome.is_ok() { &mut self.put } else { &mut self.tried };
        lines.insert(line);
        outcome.map(|_| ())
    }

    /// Puts until the disk says no.
    fn put_until_full(&mut self) {
        for _ in 0..2000 {
            if let Err(error) = self.put(Duration::from_secs(3)) {
                assert_eq!(error.code(), Some(ErrorCode::StorageFull), "{error}");
                assert!(error.to_string().contains("the disk is full"), "{error}");
                return;
            }
        }
        panic!("{} items were put on a disk that is full", self.writes);
    }

    /// Everything that was acknowledged is there, and nothing that nobody wrote.
    fn reads_are_right(&self) {
        let exported = finish(&mut self.cluster.command(&["export", "t"])).ok();
        let got = canonical(exported.lines());
        let lost = self.put.difference(&got).count();
        assert_eq!(lost, 0, "{lost} of {} items were acknowledged and are not there", self.put.len());
        let known = |line: &String| self.put.contains(line) || self.tried.contains(line);
        assert!(got.iter().all(known), "an item is there that nobody wrote");
    }

    fn core(&self) -> Value {
        self.cluster.status().1["cores"][0].clone()
    }

    fn checkpoints(&self) -> u64 {
        self.core()["log"]["checkpoints"].as_u64().unwrap()
    }
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing_and_goes_on_when_there_is_room() {
    let place = folder();
    let cluster = Processes::prepare();
    // The cluster's folder goes before the file system that a part of it stands on.
    fs::create_dir_all(cluster.path().join("data")).unwrap();
    std::os::unix::fs::symlink(place.path().join("disk"), cluster.path().join("data/n1")).unwrap();
    let disk = match Disk::mount(&place.path().join("image"), place.path().join("disk")) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("not shown here, without a file system to fill: {why}"),
    };
    let cluster = cluster.begin(&["--nodes", "1"]);
    finish(&mut cluster.command(&["table", "create", "t", "--key", "id:N", "--rcu", "9", "--wcu", "9"])).ok();
    let client = cluster.client();
    let pid = cluster.pid("n1");
    let mut store = Store { cluster, client, put: BTreeSet::new(), tried: BTreeSet::new(), writes: 0 };
    // Once with nothing left, so that the first page of a checkpoint finds no room; and once with a little,
    // so that it goes on for a while. The log has its place already, and takes what it can.
    for but in [0, 3 << 20] {
        for _ in 0..40 {
            store.put(support::PATIENCE).unwrap();
        }
        wait_for("a log at rest", || (store.core()["log"]["checkpointing"] == false).then_some(()));
        disk.fill(but);
        store.put_until_full();
        assert_eq!(store.core()["log"]["checkpointing"], true, "the checkpoint waits for room");
        store.reads_are_right();
        store.put_until_full();
        let checkpoints = store.checkpoints();
        disk.make_room();
        for _ in 0..40 {
            store.put(support::PATIENCE).unwrap();
        }
        wait_for("the checkpoint", || (store.checkpoints() > checkpoints).then_some(()));
        store.reads_are_right();
        assert_eq!(store.cluster.pid("n1"), pid, "in the same process");
    }
    // A process that dies while the disk is full comes back with everything.
    wait_for("a log at rest", || (store.core()["log"]["checkpointing"] == false).then_some(()));
    disk.fill(0);
    store.put_until_full();
    store.cluster.run("kill", &["n1"]).ok();
    store.cluster.run("restart", &["n1"]).ok();
    store.reads_are_right();
    disk.make_room();
    store.put(support::PATIENCE).unwrap();
    store.reads_are_right();
    store.cluster.run("down", &[]).ok();
    let data = store.cluster.path().join("data/n1");
    finish(&mut evenkeel(&["check", "--data", data.to_str().unwrap()])).ok();
}
