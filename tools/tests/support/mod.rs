//! What the tests of whole clusters share.
#![allow(dead_code, reason = "each test program uses its part")]

use evenkeel::local::{Cluster, temporary_folder};
use evenkeel_client::json::{parse_line, to_json};
use evenkeel_client::{Client, Item};
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// How long anything may take before a test gives up on it: a bound for hangs, not a measure of speed.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// A folder on a disk.
pub(crate) fn folder() -> TempDir {
    temporary_folder("evenkeel-test-").unwrap()
}

/// The command, as a user would run it.
pub(crate) fn evenkeel(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(arguments).env_remove("EVENKEEL_ENDPOINT").env_remove("EVENKEEL_PLANTED");
    command
}

/// How a command has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ran {
    /// What it printed, if it ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }
}

/// Looks until `look` finds something.
#[allow(clippy::disallowed_methods, reason = "a test of processes waits for them")]
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// A cluster of processes, which are killed at the end.
pub(crate) struct Processes {
    folder: TempDir,
    pub(crate) endpoint: String,
    /// Set for each process.
    planted: Option<String>,
}

impl Processes {
    /// A new cluster: three storage nodes, two MemDS servers, a router.
    pub(crate) fn up(more: &[&str]) -> Self {
        Self::up_planted(more, None)
    }

    /// The same with a bug in every process.
    pub(crate) fn up_planted(more: &[&str], planted: Option<&str>) -> Self {
        let planted = planted.map(str::to_owned);
        let mut cluster = Self::prepare();
        cluster.planted = planted;
        cluster.begin(more)
    }

    /// A folder for a cluster that is to begin.
    pub(crate) fn prepare() -> Self {
        Self { folder: folder(), endpoint: String::new(), planted: None }
    }

    /// Begins it.
    pub(crate) fn begin(mut self, more: &[&str]) -> Self {
        let mut arguments = vec!["--port", "0", "--segments", "8"];
        if !more.contains(&"--segment-mib") {
            arguments.extend(["--segment-mib", "8"]);
        }
        arguments.extend(more);
        self.endpoint = self.run("up", &arguments).ok().trim().to_owned();
        self
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `evenkeel cluster VERB … --dir DIR`.
    pub(crate) fn run(&self, verb: &str, arguments: &[&str]) -> Ran {
        let dir = self.folder.path().to_str().unwrap();
        let mut command = evenkeel(&["cluster", verb]);
        command.args(arguments).args(["--dir", dir]);
        if let Some(planted) = &self.planted {
            command.env("EVENKEEL_PLANTED", planted);
        }
        finish(&mut command)
    }

    /// Any other verb, at this cluster's router.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = evenkeel(arguments);
        command.env("EVENKEEL_ENDPOINT", &self.endpoint);
        command
    }

    /// Starts one that is not waited for.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// A client of this cluster.
    pub(crate) fn client(&self) -> Client {
        Client::builder().endpoint(&self.endpoint).deadline(PATIENCE).connect().unwrap()
    }

    /// What `cluster status` says, and its exit code.
    pub(crate) fn status(&self) -> (Option<i32>, Value) {
        let ran = self.run("status", &["--json"]);
        (ran.code, serde_json::from_str(&ran.stdout).unwrap_or(Value::Null))
    }

    /// The id of a process.
    pub(crate) fn pid(&self, name: &str) -> u32 {
        let text = std::fs::read_to_string(self.path().join("run").join(format!("{name}.pid")));
        text.unwrap().trim().parse().unwrap()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.run("kill", &["all"]);
    }
}

/// The real input where it is at hand, and as much of our own making where it is not.
pub(crate) fn input(folder: &Path) -> PathBuf {
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/debian-packages.jsonl.gz");
    if real.exists() {
        return real;
    }
    let path = folder.join("made.jsonl");
    std::fs::write(&path, made(30_000)).unwrap();
    path
}

/// Items with all ten types of attributes, one a line.
pub(crate) fn made(count: u64) -> String {
    let mut text = String::new();
    for number in 0..count {
        let section = ["admin", "libs", "net", "sound", "ünïcode"][number as usize % 5];
        let digits = "9".repeat(1 + number as usize % 38);
        let deep = format!(r#"[{{"N":"{number}"}},{{"S":""}},{{"M":{{"deep":{{"L":[]}}}}}}]"#);
        let (exponent, long) = (number % 100, "x".repeat(number as usize % 700));
        let attributes = [
            format!(r#""section":{{"S":"{section}"}},"package":{{"S":"package {number}"}}"#),
            format!(r#""n":{{"N":"-{digits}E-{exponent}"}},"b":{{"B":"AAEC/w=="}},"yes":{{"BOOL":true}}"#),
            format!(r#""nothing":{{"NULL":true}},"strings":{{"SS":["a","{number}"]}}"#),
            format!(r#""numbers":{{"NS":["0","{number}.5"]}},"blobs":{{"BS":["AA==","AQ=="]}}"#),
            format!(r#""list":{{"L":{deep}}},"map":{{"M":{{"{section}":{{"S":"{long}"}}}}}}"#),
        ];
        writeln!(text, "{{{}}}", attributes.join(",")).unwrap();
    }
    text
}

/// The lines of a file, unpacked if need be.
pub(crate) fn lines(path: &Path) -> Vec<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    if path.extension().is_some_and(|extension| extension == "gz") {
        MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    } else {
        std::io::BufReader::new(file).read_to_string(&mut text).unwrap();
    }
    text.lines().map(str::to_owned).collect()
}

/// Items as text of one form for each value, whatever the order of attributes or the way a number is written.
pub(crate) fn canonical<'a>(lines: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    lines.into_iter().map(|line| to_json(&parse_line(line).unwrap())).collect()
}

/// An item of a text.
pub(crate) fn item(text: &str) -> Item {
    parse_line(text).unwrap()
}

/// A cluster in this process, and the command to use it with.
pub(crate) struct Shell {
    cluster: Cluster,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self { cluster: Cluster::temporary().unwrap() }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        finish(evenkeel(arguments).env("EVENKEEL_ENDPOINT", self.cluster.endpoint()))
    }

    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok()
    }

    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str], says: &str) {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains(says), "{ran:?}");
        assert_eq!(ran.stdout, "", "what failed prints no data");
    }
}
