//! The project's own rules, as far as a test can see them: the order of the layers, the openings of
//! the files, and what does not belong in them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The files of `src/`, lowest layer first: a file may use only those above it in this list.
const LAYERS: [&str; 42] = [
    "units",
    "setting",
    "signal",
    "limits",
    "command",
    "id",
    "pressure",
    "error",
    "exit",
    "stats",
    "report",
    "event",
    "sys",
    "nursery",
    "hierarchy",
    "cgroup",
    "owner",
    "process",
    "containment",
    "logdir",
    "pool",
    "launch",
    "job",
    "tail",
    "lines",
    "window",
    "log",
    "tails",
    "reading",
    "watch",
    "seam",
    "timer",
    "jobs",
    "ending",
    "control",
    "config",
    "capabilities",
    "waker",
    "reactor",
    "resources",
    "nested",
    "lib",
];

/// Every Rust file of the project below these directories, the ones of its fuzz targets included.
fn files(directories: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> =
        directories.iter().map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).collect();
    while let Some(directory) = left.pop() {
        // Some are not there, or not part of the package.
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !["target", "corpus", "artifacts"].contains(&name) {
                left.push(path);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

/// The code of a file: without comments, and without the unit tests at its foot.
fn code(path: &Path, text: &str) -> String {
    let (code, tests) = text.split_once("#[cfg(test)]\n").unwrap_or((text, "mod tests"));
    assert!(
        tests.starts_with("mod tests"),
        "{}: unit tests belong at the foot of the file",
        path.display()
    );
    let without_comment = |line: &str| match line.split_once("//") {
        // Not the slashes of an address.
        Some((before, _)) if !before.ends_with(':') => before.to_owned(),
        _ => line.to_owned(),
    };
    code.lines().map(without_comment).collect::<Vec<_>>().join("\n")
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|character| !is_word(character))
}

#[test]
fn a_file_uses_only_files_above_it() {
    let sources = files(&["src"]);
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let there: BTreeSet<String> = sources.iter().map(|(path, _)| name(path)).collect();
    let listed: BTreeSet<String> = LAYERS.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(there, listed, "every file has a place in the order of the layers");
    for (path, text) in &sources {
        let name = name(path);
        let layer = LAYERS.iter().position(|other| *other == name).unwrap();
        let code = code(path, text);
        for forbidden in ["crate::{", "super::", "crate::*"] {
            assert!(!code.contains(forbidden), "{name}: {forbidden} hides what the file uses");
        }
        for mention in code.split("crate::").skip(1) {
            let used: String =
                mention.chars().take_while(|character| is_word(*character)).collect();
            let used_layer = LAYERS.iter().position(|other| *other == used);
            // A name of the root, as in `crate::Error`, hides what is used.
            let used_layer =
                used_layer.unwrap_or_else(|| panic!("{name} uses crate::{used}, which is no file"));
            assert!(used_layer < layer, "{name} uses {used}, which is not above it");
        }
    }
}

#[test]
fn every_file_opens_with_what_it_owns() {
    let all = files(&["src", "tests", "examples", "benches", "fuzz"]);
    assert!(all.len() > LAYERS.len());
    for (path, text) in all {
        assert!(text.starts_with("//! "), "{} does not open with `//!`", path.display());
    }
}

#[test]
fn nothing_is_left_to_be_done() {
    // In two parts, so that this file does not find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!"),
        concat!("unimpl", "emented!"),
    ];
    for (path, text) in files(&["src", "tests", "examples", "benches", "fuzz"]) {
        for mark in marks {
            assert!(!text.contains(mark), "{} has a {mark}", path.display());
        }
    }
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    for (path, text) in files(&["src"]) {
        let found = words(&code(&path, &text)).any(|word| word == "unsafe");
        let in_sys = path.ends_with("src/sys.rs") || path.ends_with("src/sys/nursery.rs");
        assert_eq!(found, in_sys, "{}", path.display());
    }
}

#[test]
fn nothing_in_the_library_sleeps() {
    for (path, text) in files(&["src"]) {
        for sleep in ["thread::sleep", "nanosleep", "sleep_until"] {
            assert!(!code(&path, &text).contains(sleep), "{} has a {sleep}", path.display());
        }
    }
}
