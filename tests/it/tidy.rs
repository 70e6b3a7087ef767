//! The project's own rules, as far as a test can check them: the order of the rooms, how files
//! open, and what must not be in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of `src/`, lowest first: a room may use only those above it in this list.
const ROOMS: [&str; 15] = [
    "id", "portable", "sync", "error", "command", "event", "trace", "sys", "cgroup", "log",
    "driver", "keeper", "job", "reactor", "worker",
];

/// Every directory of the project with Rust files.
const EVERYWHERE: [&str; 7] =
    ["src", "launcher", "tests", "examples", "benches", "bench-peers", "fuzz"];

/// Every Rust file below these directories of the project.
fn files(directories: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> =
        directories.iter().map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).collect();
    while let Some(directory) = left.pop() {
        // A directory that is not part of the package may be missing.
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
        // The slashes of a URL do not begin a comment.
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

/// The room of a file, or `None` for `lib.rs`.
fn room(path: &Path) -> Option<String> {
    let path = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
    let room = first.trim_end_matches(".rs").to_owned();
    (room != "lib").then_some(room)
}

/// What follows each occurrence of `before`, up to the end of the word.
fn names_after<'a>(code: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    code.split(before).skip(1).map(|rest| rest.split(|c| !is_word(c)).next().unwrap_or(""))
}

#[test]
fn a_room_uses_only_rooms_above_it_and_those_by_their_doors() {
    let sources = files(&["src"]);
    let there: BTreeSet<String> = sources.iter().filter_map(|(path, _)| room(path)).collect();
    let listed: BTreeSet<String> = ROOMS.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(there, listed, "every room has a place in the order");
    for (path, text) in &sources {
        let Some(own) = room(path) else { continue };
        let place = ROOMS.iter().position(|other| *other == own).unwrap();
        let (name, code) = (path.display(), code(path, text));
        for forbidden in ["crate::{", "super::super", "super::{", "crate::*"] {
            assert!(!code.contains(forbidden), "{name}: {forbidden} hides what the file uses");
        }
        for used in names_after(&code, "crate::") {
            let used_place = ROOMS.iter().position(|other| *other == used);
            // A name from the crate root, as in `crate::Error`, hides which room is used.
            let used_place =
                used_place.unwrap_or_else(|| panic!("{name} uses crate::{used}, which is no room"));
            assert!(used_place <= place, "{name} uses {used}, which is not above {own}");
        }
    }
}

#[test]
fn the_files_of_a_room_are_private_to_it() {
    for room in ROOMS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room).join("mod.rs");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for line in text.lines().filter(|line| line.contains("mod ") && line.ends_with(';')) {
            assert!(line.starts_with("mod "), "{room}: {line}");
        }
    }
}

#[test]
fn an_inherent_impl_is_in_the_room_of_its_type() {
    let sources = files(&["src"]);
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in &sources {
        let Some(room) = room(path) else { continue };
        let code = code(path, text);
        for keyword in ["struct ", "enum ", "trait "] {
            for name in names_after(&code, keyword) {
                rooms.entry(name.to_owned()).or_default().insert(room.clone());
            }
        }
    }
    for (path, text) in &sources {
        let Some(room) = room(path) else { continue };
        for line in code(path, text).lines().filter(|line| line.starts_with("impl")) {
            let header = line.split(" where").next().unwrap_or(line);
            if header.contains(" for ") {
                continue;
            }
            // Skips the generics of the impl itself.
            let rest = header.trim_start_matches("impl");
            let mut depth = 0;
            let end = rest.find(|character| {
                depth += i32::from(character == '<') - i32::from(character == '>');
                depth == 0 && (character == '>' || character == ' ')
            });
            let named = rest[end.unwrap_or(0) + 1..].trim_start();
            let name: String = named.chars().take_while(|character| is_word(*character)).collect();
            if name == "Reactor" && path.ends_with("worker/worker.rs") {
                // The one way up, which a host looks for where it comes from.
                continue;
            }
            let defined = rooms.get(&name).unwrap_or_else(|| panic!("{line}: no such type"));
            assert!(defined.contains(&room), "{}: {line}", path.display());
        }
    }
}

#[test]
fn the_table_in_the_documentation_lists_the_rooms_in_their_order() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let text = fs::read_to_string(path).unwrap();
    let table = text.split_once("//! | room | owns |").expect("a table of the rooms").1;
    let rows = table.lines().skip(2).map_while(|line| line.strip_prefix("//! | `"));
    let listed: Vec<&str> = rows.map(|row| row.split('`').next().unwrap()).collect();
    assert_eq!(listed, ROOMS);
}

#[test]
fn mio_and_inotify_are_named_in_the_driver_alone() {
    for (path, text) in files(&["src"]) {
        let code = code(&path, &text);
        let room = room(&path);
        let in_driver = room.as_deref() == Some("driver");
        assert!(in_driver || !names_after(&code, "use ").any(|name| name == "inotify"));
        // The reactor implements a public trait of mio, and only unsafe code can get the descriptor
        // of its `Poll`.
        let excepted = path.ends_with("reactor/nested.rs") || path.ends_with("sys/calls.rs");
        let allowed = in_driver || excepted;
        let named = words(&code).any(|word| word == "mio");
        assert!(allowed || !named, "{} names mio", path.display());
    }
}

#[test]
fn every_file_opens_with_what_it_owns() {
    let all = files(&EVERYWHERE);
    assert!(all.len() > ROOMS.len());
    for (path, text) in all {
        assert!(text.starts_with("//! "), "{} does not open with `//!`", path.display());
    }
}

#[test]
fn no_line_is_longer_than_100_columns() {
    for (path, text) in files(&EVERYWHERE) {
        for (index, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            assert!(columns <= 100, "{}:{}: {columns} columns", path.display(), index + 1);
        }
    }
}

#[test]
fn nothing_is_left_to_be_done() {
    // Each in two parts, so that this file does not find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!"),
        concat!("unimpl", "emented!"),
    ];
    for (path, text) in files(&EVERYWHERE) {
        for mark in marks {
            assert!(!text.contains(mark), "{} has a {mark}", path.display());
        }
    }
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    for (path, text) in files(&["src"]) {
        let found = words(&code(&path, &text)).any(|word| word == "unsafe");
        assert!(!found || room(&path).as_deref() == Some("sys"), "{}", path.display());
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

/// The anchors of a text: its headings, as GitHub names them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    let named = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        heading.chars().filter(|character| is_word(*character) || *character == '-').collect()
    };
    headings.map(named).collect()
}

/// rustdoc checks those to items, and `.ci/run` those of the pages that it makes.
#[test]
fn every_link_from_one_text_to_another_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directories = [root.to_owned(), root.join("docs")];
    let entries = directories.iter().flat_map(|directory| fs::read_dir(directory).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let texts: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    let mut links = 0;
    for path in &texts {
        let text = fs::read_to_string(path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
            if link.contains("://") || link.contains("::") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let here = path.display();
            assert!(target.exists(), "{here}: no file {file}");
            if !anchor.is_empty() {
                let there = fs::read_to_string(&target).unwrap();
                assert!(anchors(&there).contains(anchor), "{here}: no heading {anchor} in {file}");
            }
            links += 1;
        }
    }
    assert!(links > 20, "{links} links");
}
