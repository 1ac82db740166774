//! Who may depend on whom, and what may stand where: docs/architecture.md, as tables.

use super::manifest::Workspace;
use super::rust::Source;
use super::tree::Tree;
use std::collections::BTreeSet;

/// A crate's place in the house.
struct Floor {
    folder: &'static str,
    /// Crates of ours that it depends on: exactly these.
    uses: &'static [&'static str],
    /// Crates of ours that only its tests and examples depend on: exactly these.
    tests_use: &'static [&'static str],
    reason: &'static str,
}

const FLOORS: [Floor; 7] = [
    Floor {
        folder: "wire",
        uses: &[],
        tests_use: &[],
        reason: "floor 0: words and bytes, which everybody shares",
    },
    Floor {
        folder: "wire/link",
        uses: &["wire"],
        tests_use: &[],
        reason: "floor 1: a door knows the contract (`turn`) and no logic behind it",
    },
    Floor {
        folder: "wire/client",
        uses: &["wire"],
        tests_use: &["router", "tools"],
        reason: "floor 1: it knows no server; its tests ask a router's edge, its example a cluster",
    },
    Floor {
        folder: "dataplane",
        uses: &["wire"],
        tests_use: &[],
        reason: "floor 2: logic is given its inputs and has no door",
    },
    Floor {
        folder: "router",
        uses: &["wire"],
        tests_use: &[],
        reason: "floor 2: logic is given its inputs and has no door",
    },
    Floor {
        folder: "bench",
        uses: &["wire", "wire/client", "wire/link"],
        tests_use: &["dataplane", "router"],
        reason: "floor 4: load comes from outside, through the client, as everybody's does, over a ring of \
                 its own; its benches look at pieces",
    },
    Floor {
        folder: "tools",
        uses: &["bench", "dataplane", "router", "wire", "wire/client", "wire/link"],
        tests_use: &["dataplane"],
        reason: "floor 4: the one binary puts everything together; its tests turn on planted bugs",
    },
];

/// The dependencies between our crates are those of [`FLOORS`].
pub(crate) fn imports(tree: &Tree) -> Vec<String> {
    let workspace = Workspace::read(tree);
    let mut complaints = Vec::new();
    let folders = |keys: &BTreeSet<String>| -> BTreeSet<String> {
        keys.iter().filter_map(|key| workspace.own.get(key).cloned()).collect()
    };
    for member in &workspace.crates {
        let Some(floor) = FLOORS.iter().find(|floor| floor.folder == member.folder) else {
            complaints.push(format!(
                "{0}/Cargo.toml: this crate has no floor; give it one in docs/architecture.md and in \
                 tools/tests/tidy/floors.rs",
                member.folder
            ));
            continue;
        };
        for (kind, found, allowed) in [
            ("", folders(&member.uses), floor.uses),
            (" in its tests", folders(&member.tests_use), floor.tests_use),
        ] {
            let allowed: BTreeSet<String> = allowed.iter().map(|folder| (*folder).to_owned()).collect();
            complaints.extend(found.difference(&allowed).map(|folder| {
                format!(
                    "{}/Cargo.toml: it may not depend on {folder}{kind} ({}); move what both need to a lower \
                     floor, or change the design: a decision record, docs/architecture.md, and the table in \
                     tools/tests/tidy/floors.rs",
                    member.folder, floor.reason
                )
            }));
            complaints.extend(allowed.difference(&found).map(|folder| {
                format!(
                    "tools/tests/tidy/floors.rs: {} does not depend on {folder}{kind} any more; take it \
                     out of the table",
                    member.folder
                )
            }));
        }
    }
    complaints
}

/// Logic: what is given time, randomness and inputs, and returns effects.
const LOGIC: [(&str, &str); 7] = [
    ("wire/src/", "floor 0 has no I/O, clock or entropy"),
    ("dataplane/src/", "a storage core is a machine: time and inputs are passed in"),
    ("router/src/", "router and MemDS are machines: time and inputs are passed in"),
    ("wire/client/src/protocol.rs", "the client's core is sans-IO: its shells have clock and sockets"),
    ("wire/client/src/protocol/", "the client's core is sans-IO: its shells have clock and sockets"),
    ("tools/src/sim/", "a simulation has its own time, network and disks, or a seed would not repeat it"),
    ("tools/src/linearizability.rs", "a checker judges what it is given"),
];

/// Words that are a way out of logic, wherever they stand.
const OUTSIDE_WORDS: [&str; 9] = [
    "Instant",
    "SystemTime",
    "TcpListener",
    "TcpStream",
    "ToSocketAddrs",
    "UdpSocket",
    "UnixDatagram",
    "UnixListener",
    "UnixStream",
];

/// Modules of `std` that are a way out of logic, as a segment of a path.
const OUTSIDE_MODULES: [&str; 4] = ["env", "fs", "process", "thread"];

/// Where a word is right nevertheless.
const LOGIC_EXCEPTIONS: [(&str, &str, &str); 1] = [(
    "dataplane/src/planted.rs",
    "env",
    "a process under test is told its bug by a variable; in no shipped build",
)];

/// Logic names none of those words.
pub(crate) fn logic(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let Some((_, reason)) = LOGIC.iter().find(|(place, _)| path.starts_with(place)) else {
            continue;
        };
        for word in Source::new(text).words() {
            let outside =
                OUTSIDE_WORDS.contains(&word.text) || word.in_path && OUTSIDE_MODULES.contains(&word.text);
            let excepted =
                LOGIC_EXCEPTIONS.iter().any(|(file, except, _)| *file == path && *except == word.text);
            if outside && !excepted {
                complaints.push(format!(
                    "{path}:{}: `{}` in logic ({reason}); take what it gives as an input or return it as an \
                     effect, and let a door do it",
                    word.line, word.text
                ));
            }
        }
    }
    complaints
}

/// Places with unsafe code, or that allow it in theirs.
const UNSAFE: [(&str, &str); 3] = [
    ("wire/link/", "the door to the machine: rings, descriptors and clocks"),
    ("wire/client/src/nonblocking.rs", "a poller must forget a socket before it is closed"),
    ("wire/src/aligned.rs", "an aligned pool: O_DIRECT asks for addresses that `Vec` cannot promise"),
];

/// Crates of which a door or pool is a part: their roots deny unsafe code, the file allows it; all others
/// forbid it.
const DENY: [&str; 3] = ["wire", "wire/link", "wire/client"];

/// Names that only the door may have in its code.
const DOOR: [&str; 2] = ["glommio", "io_uring"];

/// Unsafe code, and the crates that need it, stand only where they may.
pub(crate) fn unsafe_code(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let source = Source::new(text);
        let allowed = UNSAFE.iter().any(|(place, _)| path.starts_with(place));
        for word in source.words() {
            let what = if !allowed && word.text == "unsafe" {
                "unsafe code"
            } else if !path.starts_with("wire/link/") && word.in_path && DOOR.contains(&word.text) {
                word.text
            } else {
                continue;
            };
            complaints.push(format!(
                "{path}:{}: {what} belongs to wire/link (and unsafe code to what tools/tests/tidy/floors.rs \
                 lists); let the door do this",
                word.line
            ));
        }
        let Some((folder, "lib.rs" | "main.rs")) = path.rsplit_once("/src/") else {
            continue;
        };
        let attribute =
            if DENY.contains(&folder) { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
        if !source.code.contains(attribute) {
            complaints.push(format!("{path}:1: write {attribute} below the crate's `//!`"));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::super::{fails, passes};
    use super::*;

    const ROOT: &str = "[workspace]\nmembers = ['router']\n[workspace.dependencies]\n\
                        wire = { path = 'wire' }\nlink = { path = 'wire/link' }\n\
                        router = { path = 'router' }\n";

    #[test]
    fn an_import_that_points_up_is_seen() {
        let with = |manifest, check: fn(&[(&str, &str)])| {
            check(&[("Cargo.toml", ROOT), ("router/Cargo.toml", manifest)]);
        };
        with("[dependencies]\nwire.workspace = true\nlink.workspace = true", |files| {
            fails(imports, files, "router/Cargo.toml: it may not depend on wire/link (floor 2");
        });
        with("[target.'cfg(unix)'.dependencies]\nlink.workspace = true", |files| {
            fails(imports, files, "router/Cargo.toml: it may not depend on wire/link (floor 2");
        });
        with("[dev-dependencies]\nlink.workspace = true", |files| {
            fails(imports, files, "router/Cargo.toml: it may not depend on wire/link in its tests");
        });
        with("", |files| fails(imports, files, "router does not depend on wire any more"));
        with("[dependencies]\nwire.workspace = true", |files| passes(imports, files));
        let extra = [("Cargo.toml", "[workspace]\nmembers = ['extra']"), ("extra/Cargo.toml", "")];
        fails(imports, &extra, "extra/Cargo.toml: this crate has no floor");
    }

    #[test]
    fn a_clock_in_logic_is_seen() {
        fails(
            logic,
            &[("router/src/a.rs", "\nlet now = Instant::now();")],
            "router/src/a.rs:2: `Instant` in logic",
        );
        fails(
            logic,
            &[("wire/src/a.rs", "use std::{fs, net};\nfs::read(a)")],
            "wire/src/a.rs:2: `fs` in logic",
        );
        fails(logic, &[("dataplane/src/a.rs", "use std::thread;")], "`thread` in logic");
        let right = "// Instant\nuse std::net::SocketAddr; let fs = \"std::fs\"; std::time::Duration::ZERO;";
        passes(logic, &[("router/src/a.rs", right), ("bench/src/a.rs", "std::thread::spawn(a)")]);
    }

    #[test]
    fn unsafe_code_outside_the_door_is_seen() {
        fails(unsafe_code, &[("wire/src/a.rs", "unsafe { }")], "wire/src/a.rs:1: unsafe code belongs");
        fails(unsafe_code, &[("tools/src/a.rs", "use glommio::a;")], "tools/src/a.rs:1: glommio belongs");
        fails(
            unsafe_code,
            &[("tools/src/lib.rs", "// #![forbid(unsafe_code)]")],
            "write #![forbid(unsafe_code)]",
        );
        fails(unsafe_code, &[("wire/src/lib.rs", "")], "write #![deny(unsafe_code)]");
        let right = [
            ("wire/link/src/a.rs", "unsafe { glommio::a }"),
            ("tools/src/main.rs", "#![forbid(unsafe_code)]\nlet io_uring = \"unsafe\";"),
        ];
        passes(unsafe_code, &right);
    }
}
