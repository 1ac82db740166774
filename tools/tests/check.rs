//! `evenkeel check`: a folder is whole, beside a node that runs and without one, until a bit flips.

mod support;

use evenkeel_dataplane::checkpoint::chunk::{ChunkPlace, lay_out};
use evenkeel_dataplane::checkpoint::image::space_records;
use evenkeel_dataplane::checkpoint::superblock::{CheckpointName, Superblock};
use evenkeel_dataplane::limits::{SEGMENT_BYTES_MIN, SEGMENTS_MIN};
use evenkeel_dataplane::wal::block::LogIdentity;
use evenkeel_link::create_core;
use evenkeel_wire::checksum::Hash128;
use evenkeel_wire::ids::{CoreId, Incarnation};
use evenkeel_wire::limits::BLOCK_BYTES;
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use support::{Processes, Ran, evenkeel, finish, folder, item, wait_for};

fn check(data: &Path) -> (Option<i32>, Value, Ran) {
    let ran = finish(&mut evenkeel(&["check", "--json", "--data", data.to_str().unwrap()]));
    (ran.code, serde_json::from_str(&ran.stdout).unwrap_or(Value::Null), ran)
}

#[track_caller]
fn is_clean(data: &Path) -> Value {
    let (code, said, ran) = check(data);
    assert_eq!((code, &said["clean"]), (Some(0), &Value::Bool(true)), "{ran:?}");
    said
}

/// Puts small and large items until every node has written a checkpoint with trees in it.
fn fill(cluster: &Processes) {
    finish(&mut cluster.command(&["table", "create", "t", "--key", "id:S"])).ok();
    let client = cluster.client();
    let large = "x".repeat(300_000);
    let checkpoints = |status: &Value| -> Vec<u64> {
        let cores = status["cores"].as_array().unwrap().iter();
        cores.map(|core| core["log"]["checkpoints"].as_u64().unwrap_or(0)).collect()
    };
    for number in 0.. {
        let text = if number % 2 == 0 { "small" } else { large.as_str() };
        let item = item(&format!(r#"{{"id":{{"S":"{number}"}},"text":{{"S":"{text}"}}}}"#));
        client.put("t", item).send().unwrap();
        if number % 50 == 49 && checkpoints(&cluster.status().1).iter().all(|count| *count > 0) {
            return;
        }
    }
}

#[test]
fn deleting_a_table_gives_its_space_back() {
    let cluster = Processes::up(&[]);
    fill(&cluster);
    let live = || -> Vec<u64> {
        let (_, status) = cluster.status();
        let cores = status["cores"].as_array().unwrap().iter();
        cores.map(|core| core["tree"]["blocks_live"].as_u64().unwrap_or(u64::MAX)).collect()
    };
    assert!(live().iter().all(|blocks| *blocks > 1000), "{:?}", live());
    finish(&mut cluster.command(&["table", "delete", "t"])).ok();
    wait_for("empty trees", || live().iter().all(|blocks| *blocks == 0).then_some(()));
    let (_, status) = cluster.status();
    assert!(status["cores"][0]["tree"]["blocks_swept"].as_u64() > Some(1000), "{status:#}");
    cluster.run("down", &[]).ok();
    for node in ["n1", "n2", "n3"] {
        let said = is_clean(&cluster.path().join("data").join(node));
        assert_eq!(
            (&said["cores"][0]["blocks_live"], &said["cores"][0]["blocks_lost"]),
            (&0.into(), &0.into())
        );
    }
}

#[test]
fn a_node_finds_by_itself_that_a_bit_has_flipped() {
    let cluster = Processes::up(&[]);
    fill(&cluster);
    let tree = cluster.path().join("data/n1/core-0/tree");
    let tree = OpenOptions::new().read(true).write(true).open(tree).unwrap();
    let blocks = tree.metadata().unwrap().len() / BLOCK_BYTES as u64;
    for offset in (0..blocks).map(|block| block * BLOCK_BYTES as u64) {
        let mut head = [0; 35];
        tree.read_exact_at(&mut head, offset).unwrap();
        // A leaf.
        if &head[..8] == b"EKPAGE01" && head[34] == 1 {
            flip(&tree, offset + 200);
        }
    }
    let core = |node: usize| cluster.status().1["cores"][node]["tree"].clone();
    wait_for("a check of everything", || (core(0)["checks"].as_u64() > Some(0)).then_some(()));
    assert!(core(0)["damage_found"].as_u64() > Some(0), "{:#}", core(0));
    wait_for("the others' checks", || (core(1)["checks"].as_u64() > Some(0)).then_some(()));
    assert_eq!((&core(1)["damage_found"], &core(0)["checks"]), (&0.into(), &1.into()));
}

fn flip(tree: &File, offset: u64) {
    let mut byte = [0];
    tree.read_exact_at(&mut byte, offset).unwrap();
    tree.write_all_at(&[byte[0] ^ 8], offset).unwrap();
    tree.sync_all().unwrap();
}

#[test]
fn a_cluster_is_clean_running_and_stopped_until_a_bit_flips() {
    let cluster = Processes::up(&[]);
    fill(&cluster);
    let data = cluster.path().join("data/n1");
    is_clean(&data);
    cluster.run("down", &[]).ok();
    for node in ["n1", "n2", "n3"] {
        let said = is_clean(&cluster.path().join("data").join(node));
        let core = &said["cores"][0];
        assert!(core["pages"].as_u64() > Some(20) && core["items"].as_u64() > Some(100), "{said:#}");
    }
    let tree = data.join("core-0/tree");
    let tree = OpenOptions::new().read(true).write(true).open(tree).unwrap();
    let blocks = tree.metadata().unwrap().len() / BLOCK_BYTES as u64;
    let is_page = |block: &u64| {
        let mut magic = [0; 8];
        tree.read_exact_at(&mut magic, block * BLOCK_BYTES as u64).unwrap();
        &magic == b"EKPAGE01"
    };
    // A page that is still written there may be free by now: then nothing is damaged.
    let found = (0..blocks).filter(is_page).find_map(|block| {
        let offset = block * BLOCK_BYTES as u64 + 200;
        flip(&tree, offset);
        let (code, said, ran) = check(&data);
        if code == Some(0) {
            flip(&tree, offset);
            return None;
        }
        assert_eq!((code, &said["clean"]), (Some(3), &Value::Bool(false)), "{ran:?}");
        Some((block, said["cores"][0]["findings"][0].clone()))
    });
    let (block, finding) = found.expect("a page that is in use");
    let partition = finding["partition"].as_u64().unwrap();
    let text = finding["text"].as_str().unwrap();
    assert_eq!(finding["block"], block);
    assert!(text.starts_with(&format!("p{partition}, ")) && text.contains("checksum"), "{text}");
    let told = finish(&mut evenkeel(&["check", "--core", "0", "--data", data.to_str().unwrap()]));
    assert_eq!(told.code, Some(3));
    assert!(told.stdout.contains(&format!("  n1.c0: p{partition}, ")), "{}", told.stdout);
    is_clean(&cluster.path().join("data/n2"));
}

/// A folder with one core, whose only checkpoint has no partitions and a bitmap of these words.
fn plant(data: &Path, words: &[u64]) {
    let identity = LogIdentity { incarnation: Incarnation([7; 16]), core: CoreId(0) };
    let mut records = Vec::new();
    space_records(words).for_each(|record| record.encode(&mut records));
    let formatted = Superblock::format(SEGMENTS_MIN, SEGMENT_BYTES_MIN);
    let sequence = formatted.sequence + 1;
    let place = ChunkPlace { file: 0, checkpoint: sequence, index: 0, offset: 0 };
    let (chunk, last_hash) = lay_out(&identity, &place, Hash128::ZERO, &records, true);
    let name = CheckpointName { file: 0, chunks: 1, last_hash };
    let superblock = Superblock { sequence, checkpoint: Some(name), ..formatted };
    let core = data.join("core-0");
    let block = superblock.encode(&identity);
    create_core(&core, SEGMENTS_MIN, SEGMENT_BYTES_MIN, &block, superblock.offset(), &mut |_| {}).unwrap();
    fs::write(core.join("checkpoint-0"), &chunk[..]).unwrap();
    File::open(core.join("checkpoint-0")).unwrap().sync_all().unwrap();
    let incarnation = "07070707-0707-0707-0707-070707070707";
    let identity = format!(
        "cluster = \"c\"\nnode = 1\nincarnation = \"{incarnation}\"\ncores = 1\nsegments = {SEGMENTS_MIN}\n"
    );
    fs::write(data.join("node.toml"), identity).unwrap();
}

#[test]
fn lost_blocks_are_told_and_are_no_damage_while_a_damaged_superblock_is() {
    let data = folder();
    plant(data.path(), &[0b11_0111]);
    let said = is_clean(data.path());
    assert_eq!(said["cores"][0]["blocks_lost"], 5);
    let path = data.path().to_str().unwrap();
    let told = finish(&mut evenkeel(&["check", "--data", path])).ok();
    assert!(told.contains("no damage") && told.contains("clean"), "{told}");
    let superblock = data.path().join("core-0/superblock");
    let superblock = OpenOptions::new().read(true).write(true).open(superblock).unwrap();
    flip(&superblock, 20);
    let (code, said, ran) = check(data.path());
    assert_eq!(code, Some(3), "{ran:?}");
    assert!(said["cores"][0]["findings"][0]["text"].as_str().unwrap().contains("superblock"), "{said}");
}

#[test]
fn what_is_no_folder_of_a_node_is_refused() {
    let empty = folder();
    let refuse = |data: &str, more: &[&str], says: &str| {
        let ran = finish(evenkeel(&["check", "--data", data]).args(more));
        assert_eq!((ran.code, &ran.stdout[..]), (Some(1), ""), "{ran:?}");
        assert!(ran.stderr.contains(says), "{ran:?}");
    };
    refuse(empty.path().to_str().unwrap(), &[], "holds no node.toml");
    refuse("/nowhere/at/all", &[], "holds no node.toml");
    let data = folder();
    plant(data.path(), &[]);
    let path = data.path().to_str().unwrap();
    refuse(path, &["--core", "1"], "there is no core 1");
    fs::remove_file(data.path().join("core-0/tree")).unwrap();
    refuse(path, &[], "tree is missing");
    fs::write(data.path().join("node.toml"), "cores = 1").unwrap();
    refuse(path, &[], "node.toml");
}
