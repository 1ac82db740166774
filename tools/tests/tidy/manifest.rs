//! What the Cargo.toml files say: who depends on what.

use super::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// A crate of the workspace.
pub(crate) struct Crate {
    /// From the root, as in `wire/link`.
    pub(crate) folder: String,
    /// Keys of `[dependencies]` and `[build-dependencies]`, for any target.
    pub(crate) uses: BTreeSet<String>,
    /// Keys of `[dev-dependencies]`.
    pub(crate) tests_use: BTreeSet<String>,
}

/// The manifests together.
pub(crate) struct Workspace {
    pub(crate) crates: Vec<Crate>,
    /// Package names of crates that are not ours, by the key under which the root manifest has them.
    pub(crate) foreign: BTreeMap<String, String>,
    /// Folders of our crates, by the key.
    pub(crate) own: BTreeMap<String, String>,
}

impl Workspace {
    pub(crate) fn read(tree: &Tree) -> Self {
        let root = parse(tree, "Cargo.toml");
        let mut foreign = BTreeMap::new();
        let mut own = BTreeMap::new();
        for (key, entry) in table(&root, &["workspace", "dependencies"]) {
            let text = |field: &str| entry.get(field).and_then(Value::as_str).map(str::to_owned);
            match text("path") {
                Some(folder) => own.insert(key.clone(), folder),
                None => foreign.insert(key.clone(), text("package").unwrap_or_else(|| key.clone())),
            };
        }
        let members =
            root.get("workspace").and_then(|workspace| workspace.get("members")).and_then(Value::as_array);
        let members = members.into_iter().flatten().filter_map(Value::as_str);
        Self { crates: members.map(|folder| Crate::read(tree, folder)).collect(), foreign, own }
    }
}

impl Crate {
    fn read(tree: &Tree, folder: &str) -> Self {
        let manifest = parse(tree, &format!("{folder}/Cargo.toml"));
        let keys =
            |path: &[&str]| table(&manifest, path).map(|(key, _)| key.clone()).collect::<BTreeSet<_>>();
        let mut uses = keys(&["dependencies"]);
        uses.extend(keys(&["build-dependencies"]));
        for (target, _) in table(&manifest, &["target"]) {
            uses.extend(keys(&["target", target, "dependencies"]));
        }
        Self { folder: folder.to_owned(), uses, tests_use: keys(&["dev-dependencies"]) }
    }

    /// The last part of its folder's name.
    pub(crate) fn short_name(&self) -> &str {
        self.folder.rsplit('/').next().unwrap_or(&self.folder)
    }
}

fn parse(tree: &Tree, path: &str) -> Table {
    tree.text(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn table<'a>(manifest: &'a Table, path: &[&str]) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let mut found = Some(manifest);
    for key in path {
        found = found.and_then(|table| table.get(*key)).and_then(Value::as_table);
    }
    found.into_iter().flatten()
}
