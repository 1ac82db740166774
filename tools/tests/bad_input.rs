//! Bad input: each gets a clear, typed error; the server lives; a client beside it does not notice.

mod support;

use evenkeel::local::Cluster;
use evenkeel_client::protocol::connection::Connection;
use evenkeel_client::{Client, Error, ErrorCode, Invalid, Item, KeyType, Problem};
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::frame::{BodyLimit, HEADER_BYTES, Header, Kind, first_frame};
use evenkeel_wire::item::{self, ItemError, Value};
use evenkeel_wire::limits::{FRAME_BODY_BYTES_MAX, ITEM_ARCHIVE_BYTES_MAX};
use evenkeel_wire::message::request::{Put, ReturnItem, Token};
use evenkeel_wire::message::{access, encode};
use evenkeel_wire::prng::Prng;
use std::borrow::Cow;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{PATIENCE, Processes, evenkeel, finish, folder, wait_for};

/// How often a client beside an attack is measured.
const ROUNDS: u64 = 40;
/// How much slower its median may be: far less than any stall, far more than noise between two series that
/// were measured in turn.
const SLOWER_MAX: f64 = 5.0;

fn user(id: impl Into<Value>) -> Item {
    Item::new().with("id", id)
}

/// What a test attacks: a cluster with a table, and a client beside the attacker.
struct Target {
    cluster: Cluster,
    beside: Client,
}

impl Target {
    fn new() -> Self {
        let cluster = Cluster::temporary().unwrap();
        let beside = Client::builder().endpoint(cluster.endpoint()).connect().unwrap();
        beside.create_table("users").partition_key("id", KeyType::S).wait_until_active().send().unwrap();
        Self { cluster, beside }
    }

    #[allow(clippy::disallowed_methods, reason = "a ratio of times from one run")]
    fn request(&self, number: u64) -> Duration {
        let since = std::time::Instant::now();
        self.beside.put("users", user(format!("beside {number}"))).send().unwrap();
        since.elapsed()
    }

    /// Attacks again and again; between the attacks a client works on, and does not notice.
    fn attacked(mut attack: impl FnMut(&Self, u64)) {
        let target = Self::new();
        let (mut calm, mut beside) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            calm.push(target.request(2 * round));
            attack(&target, round);
            beside.push(target.request(2 * round + 1));
        }
        [&mut calm, &mut beside].into_iter().for_each(|times| times.sort_unstable());
        let middle = ROUNDS as usize / 2;
        let ratio = beside[middle].as_secs_f64() / calm[middle].as_secs_f64();
        println!("a client's median beside the attack: {ratio:.2} of what it is without");
        assert!(ratio < SLOWER_MAX, "{ratio:.2}");
        assert!(target.cluster.ended().is_empty(), "{:?}", target.cluster.ended());
    }

    fn socket(&self) -> TcpStream {
        let socket = TcpStream::connect(self.cluster.endpoint()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Sends bytes, and returns the refusal that comes back.
    fn refusal_of(&self, bytes: &[u8]) -> Problem {
        let mut socket = self.socket();
        // The other side may have closed before all of it is written.
        let _closed_early = socket.write_all(bytes);
        refusal(&mut socket)
    }
}

/// Reads one frame, which must be an error.
fn refusal(socket: &mut TcpStream) -> Problem {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        if let Some((header, body)) = first_frame(&bytes, BodyLimit::AFTER_HELLO).unwrap() {
            assert_eq!(header.kind, Kind::Error, "{header:?}");
            return Problem::from(access::<evenkeel_wire::error::ErrorAnswer>(body).unwrap());
        }
        let count = socket.read(&mut part).unwrap();
        assert_ne!(count, 0, "closed without a word, after {bytes:?}");
        bytes.extend_from_slice(&part[..count]);
    }
}

/// A connection with its handshake done, and one request on it with any body.
fn ask(target: &Target, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) -> Problem {
    let (mut socket, mut connection) = (target.socket(), Connection::new());
    connection.greet();
    let mut write = Some(write);
    loop {
        if connection.established().is_some()
            && let Some(write) = write.take()
        {
            connection.request(kind, PATIENCE, write);
        }
        let out = connection.transmit().to_vec();
        socket.write_all(&out).unwrap();
        connection.transmitted(out.len());
        let mut part = [0; 4096];
        let count = socket.read(&mut part).unwrap();
        connection.handle_input(&part[..count]);
        if let Some(answer) = connection.poll_answer().unwrap() {
            assert_eq!(answer.header.kind, Kind::Error);
            return Problem::from(access::<evenkeel_wire::error::ErrorAnswer>(answer.body).unwrap());
        }
        assert_ne!(count, 0, "closed without a word");
    }
}

/// The refusal that a request ends with. On a busy host nobody may lead for a moment, which says nothing of
/// the request: like every client, this one tries again.
fn final_refusal(target: &Target, kind: Kind, write: impl Fn(&mut Vec<u8>)) -> Problem {
    wait_for("a final answer", || {
        Some(ask(target, kind, &write)).filter(|problem| !problem.code.is_retryable())
    })
}

#[test]
fn random_bytes() {
    let mut prng = Prng::new(7);
    Target::attacked(|target, _| {
        let garbage: Vec<u8> = (0..4096).map(|_| prng.below(256) as u8).collect();
        let problem = target.refusal_of(&garbage);
        assert_eq!(problem.code, ErrorCode::Malformed, "{problem}");
    });
}

fn hello() -> Vec<u8> {
    let mut connection = Connection::new();
    connection.greet();
    connection.transmit().to_vec()
}

#[test]
fn truncated_frames() {
    Target::attacked(|target, round| {
        let hello = hello();
        let mut socket = target.socket();
        socket.write_all(&hello[..(round as usize * 7 + 1) % hello.len()]).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // Half a frame is no question: there is nothing to answer.
        assert_eq!(socket.read_to_end(&mut answer).unwrap(), 0, "{answer:?}");
    });
}

#[test]
fn oversized_frames() {
    Target::attacked(|target, _| {
        let mut header = Header::new(Kind::Hello, evenkeel_wire::ids::RequestId(1));
        header.body_bytes = FRAME_BODY_BYTES_MAX as u32 + 1;
        let problem = target.refusal_of(&header.encode());
        assert_eq!(problem.code, ErrorCode::FrameTooLarge, "{problem}");
    });
}

#[test]
fn another_version() {
    Target::attacked(|target, _| {
        let mut frame = hello();
        // The version stands behind the magic number.
        frame[4] = frame[4].wrapping_add(41);
        let checksum = crc32c(&frame[..HEADER_BYTES - 4]).to_le_bytes();
        frame[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&checksum);
        let problem = target.refusal_of(&frame);
        assert_eq!(problem.code, ErrorCode::UnsupportedVersion, "{problem}");
        assert!(problem.message.contains("version"), "{problem}");
    });
}

#[test]
fn nesting_100_000_deep() {
    let deep =
        format!("{{\"id\":{{\"S\":\"a\"}},\"l\":{}{}}}", "{\"L\":[".repeat(100_000), "]}".repeat(100_000));
    let error = evenkeel_client::json::parse_line(&deep).unwrap_err();
    assert!(error.to_string().contains("nested more than"), "{error}");
    let parentheses = format!("{}id = :a{}", "(".repeat(100_000), ")".repeat(100_000));
    Target::attacked(|target, _| {
        let put =
            target.beside.put("users", user("a")).condition(parentheses.clone()).value(":a", "a").send();
        let error = put.unwrap_err();
        assert!(matches!(error, Error::Invalid(Invalid::Text { .. })), "{error}");
        assert!(error.to_string().len() < 1000, "an error is for reading: {} bytes", error.to_string().len());
        // Archives are made here by the server's own type; no client makes these.
        for (levels, code) in [(33, ErrorCode::NestingTooDeep), (2000, ErrorCode::Validation)] {
            let mut nested = Value::L(Vec::new());
            (1..levels).for_each(|_| nested = Value::L(vec![std::mem::replace(&mut nested, Value::Null)]));
            let problem = put_archive(target, &unchecked(&user("a").with("deep", nested)));
            assert_eq!(problem.code, code, "{levels} levels: {problem}");
        }
    });
}

/// An item's archive, past the checks of the encoder.
fn unchecked(item: &Item) -> Vec<u8> {
    rkyv::to_bytes::<rkyv::rancor::Error>(item).unwrap().into_vec()
}

/// Puts an archive as it is, past the checks of the client.
fn put_archive(target: &Target, archive: &[u8]) -> Problem {
    let table = target.beside.describe_table("users").send().unwrap();
    let key = table.schema.storage_key(&table.hash_key, &user("a")).unwrap();
    let token = Token { client: [9; 16], sequence: 1, issued_ms: 1, acknowledged_below: 0 };
    final_refusal(target, Kind::Put, |body| {
        let put = Put {
            table: table.id,
            token,
            key: Cow::Borrowed(key.as_bytes()),
            item: Cow::Borrowed(archive),
            item_checksum: crc32c(archive),
            condition: Cow::Borrowed(&[]),
            return_item: ReturnItem::None,
        };
        encode(&put, body);
    })
}

#[test]
fn an_item_of_401_kb() {
    let large = user("a").with("text", "x".repeat(401 * 1024));
    Target::attacked(|target, _| {
        let error = target.beside.put("users", large.clone()).send().unwrap_err();
        assert!(matches!(error, Error::Invalid(Invalid::Item(ItemError::TooLarge { .. }))), "{error}");
        let problem = put_archive(target, &unchecked(&large));
        assert_eq!(problem.code, ErrorCode::ItemTooLarge, "{problem}");
    });
}

// It is refused for its size by DynamoDB's rule, not for the length of its archive.
const _: () = assert!(ITEM_ARCHIVE_BYTES_MAX > 401 * 1024);

#[test]
fn an_unknown_table() {
    Target::attacked(|target, round| {
        let error = target.beside.put(format!("nobody {round}"), user("a")).send().unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::TableNotFound), "{error}");
        assert!(error.to_string().contains(&format!("nobody {round}")), "{error}");
    });
}

#[test]
fn a_malformed_expression() {
    Target::attacked(|target, _| {
        let put = target.beside.put("users", user("a")).condition("id = = :a").value(":a", "a");
        let error = put.send().unwrap_err();
        assert!(matches!(error, Error::Invalid(Invalid::Text { .. })), "{error}");
        assert!(error.to_string().contains('^'), "it shows the place: {error}");
        // Bytes that no parser has made.
        let table = target.beside.describe_table("users").send().unwrap();
        let key = table.schema.storage_key(&table.hash_key, &user("a")).unwrap();
        let (archive, condition) = (item::encode(&user("a")).unwrap(), [0xff; 100]);
        let token = Token { client: [9; 16], sequence: 1, issued_ms: 1, acknowledged_below: 0 };
        let put = |body: &mut Vec<u8>| {
            let put = Put {
                table: table.id,
                token,
                key: Cow::Borrowed(key.as_bytes()),
                item: Cow::Borrowed(&archive),
                item_checksum: crc32c(&archive),
                condition: Cow::Borrowed(&condition),
                return_item: ReturnItem::None,
            };
            encode(&put, body);
        };
        let problem = final_refusal(target, Kind::Put, put);
        assert_eq!(problem.code, ErrorCode::Expression, "{problem}");
    });
}

#[test]
fn requests_whose_bodies_are_garbage() {
    let kinds =
        [Kind::Put, Kind::Get, Kind::Delete, Kind::Update, Kind::Query, Kind::Scan, Kind::CreateTable];
    let mut prng = Prng::new(11);
    Target::attacked(|target, round| {
        let garbage: Vec<u8> = (0..64 + round).map(|_| prng.below(256) as u8).collect();
        let kind = kinds[round as usize % kinds.len()];
        let problem = ask(target, kind, |body| body.extend_from_slice(&garbage));
        assert!(!problem.code.is_retryable() && problem.code != ErrorCode::Internal, "{problem}");
        // What only other processes of the cluster may ask is refused to a client.
        let problem = ask(target, Kind::Accept, |body| body.extend_from_slice(&garbage));
        assert_eq!(problem.code, ErrorCode::UnknownKind, "{problem}");
    });
}

#[test]
fn an_unknown_key_in_a_configuration() {
    let folder = folder();
    let path = folder.path().join("node.toml");
    let text = "[cluster]\nid = \"0d1a\"\nmemds = [\"127.0.0.1:1\"]\nrouters = [\"127.0.0.1:2\"]\nnode = []\n\
                [router]\nlisten = \"127.0.0.1:2\"\ncahce = \"off\"\n";
    std::fs::write(&path, text).unwrap();
    let ran = finish(&mut evenkeel(&["start", "--config", path.to_str().unwrap()]));
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("node.toml:8:"), "{}", ran.stderr);
    assert!(ran.stderr.contains("did you mean `cache`?"), "{}", ran.stderr);
}

#[test]
fn arguments_that_make_no_sense() {
    let cases: [(&[&str], i32, &str); 6] = [
        (&["demo", "--for", "soon"], 2, "write 100us, 500ms, 30s, 5m or 2h"),
        (&["bench", "--closed", "1", "--tick", "100us"], 2, "cannot be used with"),
        (&["delet", "users"], 2, "'delete'"),
        (&["get", "users", "{\"id\":{\"S\":\"a\"}", "--endpoint", "127.0.0.1:1"], 1, "line 1"),
        (&["get", "users", "{\"id\":{\"S\":\"a\"}}", "--endpoint", "127.0.0.1:1"], 1, "127.0.0.1:1"),
        (&["cluster", "status", "--dir", "/nowhere"], 1, "holds no cluster"),
    ];
    for (arguments, code, says) in cases {
        let ran = finish(&mut evenkeel(arguments));
        assert_eq!(ran.code, Some(code), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(says), "{arguments:?}: {ran:?}");
    }
}

/// Flips one bit in the middle of what a stopped node's log holds.
fn flip_bit(core: &Path) {
    let segment = core.join("log-0000");
    let mut file = std::fs::File::options().read(true).write(true).open(segment).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let middle = bytes[..end / 2].iter().rposition(|byte| *byte != 0).unwrap();
    file.seek(SeekFrom::Start(middle as u64)).unwrap();
    file.write_all(&[bytes[middle] ^ 0x10]).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_flipped_bit_in_a_log_is_told_from_a_torn_tail_and_refilled() {
    let cluster = Processes::up(&[]);
    finish(&mut cluster.command(&["table", "create", "users", "--key", "id:S"])).ok();
    let client = cluster.client();
    let put = |number: u64| client.put("users", user(format!("{number}")).with("n", number)).send().unwrap();
    (0..500).for_each(|number| drop(put(number)));
    cluster.run("kill", &["n1"]).ok();
    flip_bit(&cluster.path().join("data/n1/core-0"));
    // The others serve on, whoever led.
    drop(put(500));
    cluster.run("restart", &["n1", "--no-wait"]).ok();
    let log = || std::fs::read_to_string(cluster.path().join("log/n1.log")).unwrap();
    wait_for("the damage to be named", || log().contains("damage").then_some(()));
    wait_for("a healthy cluster", || (cluster.status().0 == Some(0)).then_some(()));
    // The refilled node holds everything: it and one other are enough.
    cluster.run("kill", &["n2"]).ok();
    for number in 0..=500 {
        let got = client.get("users", user(format!("{number}"))).send().unwrap();
        assert!(got.item.is_some(), "{number}");
    }
}

/// A small file system in a file, for as long as this lives.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Needs the right to mount; without it there is none.
    fn mount(mib: u64) -> Option<Self> {
        let disk = Self { folder: folder() };
        let (image, mountpoint) = (disk.folder.path().join("image"), disk.mountpoint());
        std::fs::create_dir(&mountpoint).unwrap();
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let quiet = |program: &str, arguments: &[&str]| {
            let ran = Command::new(program).args(arguments).output();
            ran.is_ok_and(|output| output.status.success())
        };
        let (image, mountpoint) = (image.to_str().unwrap(), mountpoint.to_str().unwrap());
        (quiet("mkfs.ext4", &["-q", "-m", "0", image]) && quiet("mount", &["-o", "loop", image, mountpoint]))
            .then_some(disk)
    }

    fn mountpoint(&self) -> std::path::PathBuf {
        self.folder.path().join("mounted")
    }

    fn free_bytes(&self) -> u64 {
        let facts = rustix::fs::statvfs(self.mountpoint()).unwrap();
        facts.f_bavail * facts.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg(self.mountpoint()).output();
    }
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers_when_there_is_room() {
    // Three logs of six segments of 8 MiB, and room to fill.
    let Some(disk) = SmallDisk::mount(256) else {
        println!("no right to mount a small disk: the simulator's full disks stand in");
        return;
    };
    let cluster = Cluster::builder(disk.mountpoint()).log(6, 8).start().unwrap();
    let client = Client::builder().endpoint(cluster.endpoint()).deadline(PATIENCE).connect().unwrap();
    client.create_table("users").partition_key("id", KeyType::S).wait_until_active().send().unwrap();
    let ballast = disk.mountpoint().join("ballast");
    let fill = disk.free_bytes().saturating_sub(4 << 20);
    let file = std::fs::File::create(&ballast).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, fill).unwrap();
    let text = "x".repeat(300 * 1024);
    let put = |number: u64, deadline: Duration| {
        let item = user(format!("{}", number % 40)).with("text", text.as_str()).with("n", number);
        client.put("users", item).deadline(deadline).send()
    };
    let mut acknowledged = 0;
    let refused = loop {
        match put(acknowledged, Duration::from_secs(5)) {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 2000, "the log is bounded, and there is no room for checkpoints");
    };
    println!("refused after {acknowledged} writes: {refused}");
    assert!(refused.to_string().contains("disk is full"), "{refused}");
    // Reads go on.
    for number in 0..40 {
        assert!(client.get("users", user(format!("{number}"))).send().unwrap().item.is_some());
    }
    assert!(cluster.ended().is_empty(), "{:?}", cluster.ended());
    // Room again: writes go on without anybody's help.
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    put(acknowledged, PATIENCE).unwrap();
    let newest = user(format!("{}", acknowledged % 40));
    let got = client.get("users", newest).send().unwrap().item.unwrap();
    assert_eq!(got.get("n"), Some(&Value::from(acknowledged)));
}

#[test]
fn unused_placeholders_are_named() {
    let target = Target::new();
    let put =
        target.beside.put("users", user("a")).condition("attribute_not_exists(id)").value(":unused", "a");
    let error = put.send().unwrap_err();
    assert!(error.to_string().contains("unused"), "{error}");
}
