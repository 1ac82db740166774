//! The files of the checkout, as the checks see them: paths from the root, with `/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bytes above which a file is known by its path only.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Paths and texts. A file that is not text, or too long to be written by hand, has an empty one.
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// What is there, except hidden folders (but `.ci`) and what builds and fuzzing leave behind.
    pub(crate) fn checkout() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tools/ stands in the root");
        let mut files = BTreeMap::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(root.join(&folder)).expect("the checkout can be read");
            for entry in entries {
                let entry = entry.expect("the checkout can be read");
                let name = entry.file_name().into_string().expect("names are UTF-8");
                let path = folder.join(&name);
                if entry.file_type().expect("the checkout can be read").is_dir() {
                    let hidden = name.starts_with('.') && name != ".ci";
                    if !hidden && !["target", "corpus", "artifacts"].contains(&name.as_str()) {
                        folders.push(path);
                    }
                    continue;
                }
                let short = entry.metadata().is_ok_and(|metadata| metadata.len() <= TEXT_BYTES_MAX);
                let text = if short { std::fs::read_to_string(entry.path()).ok() } else { None };
                let path = path.into_os_string().into_string().expect("names are UTF-8");
                files.insert(path, text.unwrap_or_default());
            }
        }
        Self { files }
    }

    /// A made-up checkout, to see that a check can fail.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Self { files: files.collect() }
    }

    /// The text of a file that must be there.
    pub(crate) fn text(&self, path: &str) -> &str {
        self.files.get(path).unwrap_or_else(|| panic!("{path} is missing"))
    }

    /// Every file whose name ends so.
    pub(crate) fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let files = self.files.iter().filter(move |(path, _)| path.ends_with(end));
        files.map(|(path, text)| (path.as_str(), text.as_str()))
    }

    pub(crate) fn has_file(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Whether there is such a file, or such a folder with something in it. The root is "".
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = path.trim_end_matches('/');
        folder.is_empty()
            || self.has_file(folder)
            || self
                .files
                .keys()
                .any(|file| file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
    }

    /// Folders in the root.
    pub(crate) fn top_folders(&self) -> impl Iterator<Item = &str> {
        self.files.keys().filter_map(|path| path.split_once('/').map(|(folder, _)| folder))
    }
}

/// The folder that `path` stands in; "" is the root.
pub(crate) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// `relative`, seen from `folder`; none if it leads out of the checkout.
pub(crate) fn resolve(folder: &str, relative: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
