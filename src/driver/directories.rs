//! Owns [`Directories`]: which followed names a change in a watched directory concerns.
//!
//! Invariant: a directory is known, by the number of its watch, as long as a name is looked up in
//! it. An event costs one look-up, and then as much as there are tails that it concerns, however
//! many names there are. Pure: it makes no watches.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};

use crate::id::Key;

/// The directories and the names that are looked up in them, by tail.
#[derive(Debug, Default)]
pub(crate) struct Directories {
    /// For each directory and name, the tails. The hash is keyed by chance: whoever makes names
    /// there cannot choose them to collide.
    watched: HashMap<i32, HashMap<OsString, HashSet<Key>>>,
    ways: HashMap<Key, Way>,
}

/// Where the last look at a name has led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// To a file.
    File,
    /// To nothing: the last step is a name that nothing has.
    Nothing,
    /// To something that cannot be followed.
    Failure,
}

/// How the name of a tail leads to a file.
#[derive(Debug, Default)]
struct Way {
    steps: Vec<Step>,
    /// A file may have come and gone before the last look, or events were lost.
    missed: bool,
}

/// A name in a directory.
#[derive(Debug)]
struct Step {
    directory: i32,
    name: OsString,
    /// How often something has got this name since the last look.
    arrivals: u32,
}

impl Directories {
    /// These are the steps that the name of a tail takes now, and where they lead. Returns whether
    /// a file may have come and gone since the last look that has found one, and the directories in
    /// which nothing is looked up any more.
    pub(crate) fn set_steps(
        &mut self,
        tail: Key,
        steps: Vec<(i32, OsString)>,
        found: Found,
    ) -> (bool, Vec<i32>) {
        let old = self.ways.remove(&tail).unwrap_or_default();
        let last = steps.last();
        let missed = old.steps.iter().any(|step| {
            let is_last =
                last.is_some_and(|(number, name)| (*number, name) == (step.directory, &step.name));
            // What the last step has led to is gone again; or only the last of several was seen.
            step.arrivals > u32::from(!(is_last && found == Found::Nothing))
        });
        let missed = missed || old.missed;
        for (number, name) in &steps {
            let names = self.watched.entry(*number).or_default();
            match names.get_mut(name) {
                Some(tails) => {
                    tails.insert(tail);
                }
                None => {
                    names.insert(name.clone(), HashSet::from([tail]));
                }
            }
        }
        let kept: HashSet<(i32, &OsStr)> =
            steps.iter().map(|(number, name)| (*number, name.as_os_str())).collect();
        let dropped = old.steps.iter().filter(|step| !kept.contains(&(step.directory, &step.name)));
        let unused = self.drop_steps(tail, dropped);
        let steps =
            steps.into_iter().map(|(directory, name)| Step { directory, name, arrivals: 0 });
        // What was missed is reported with the next file.
        let way = Way { steps: steps.collect(), missed: missed && found != Found::File };
        self.ways.insert(tail, way);
        (missed, unused)
    }

    /// Forgets a tail, and returns the directories in which nothing is looked up any more.
    pub(crate) fn remove(&mut self, tail: Key) -> Vec<i32> {
        let Some(way) = self.ways.remove(&tail) else { return Vec::new() };
        self.drop_steps(tail, way.steps.iter())
    }

    fn drop_steps<'a>(&mut self, tail: Key, steps: impl Iterator<Item = &'a Step>) -> Vec<i32> {
        let mut unused = Vec::new();
        for step in steps {
            let Some(names) = self.watched.get_mut(&step.directory) else { continue };
            if let Some(tails) = names.get_mut(&step.name) {
                tails.remove(&tail);
                if tails.is_empty() {
                    names.remove(&step.name);
                }
            }
            if names.is_empty() {
                self.watched.remove(&step.directory);
                unused.push(step.directory);
            }
        }
        unused
    }

    /// Something has happened to a name in a directory; `arrived` when something has got this name
    /// that is not a directory. Returns the tails that it concerns.
    pub(crate) fn changed(
        &mut self,
        directory: i32,
        name: &OsStr,
        arrived: bool,
    ) -> impl Iterator<Item = Key> {
        let tails = self.watched.get(&directory).and_then(|names| names.get(name));
        let tails = tails.into_iter().flatten();
        if arrived {
            for tail in tails.clone() {
                let steps = self.ways.get_mut(tail).into_iter().flat_map(|way| &mut way.steps);
                for step in steps.filter(|step| step.directory == directory && step.name == name) {
                    step.arrivals += 1;
                }
            }
        }
        tails.copied()
    }

    /// The kernel has removed the watch of a directory. Returns the tails that it concerns.
    pub(crate) fn lost(&mut self, directory: i32) -> impl Iterator<Item = Key> {
        let names = self.watched.remove(&directory).unwrap_or_default();
        names.into_values().flatten()
    }

    /// Events were lost: nobody knows what has come and gone.
    pub(crate) fn lost_count(&mut self) {
        for way in self.ways.values_mut() {
            way.missed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Slots;

    fn steps(names: &[(i32, &str)]) -> Vec<(i32, OsString)> {
        names.iter().map(|(number, name)| (*number, OsString::from(name))).collect()
    }

    #[test]
    fn an_event_concerns_the_tails_that_look_the_name_up_there() {
        let (mut keys, mut directories) = (Slots::new(), Directories::default());
        let (one, two) = (keys.insert(()), keys.insert(()));
        directories.set_steps(one, steps(&[(1, "var"), (2, "log")]), Found::File);
        directories.set_steps(two, steps(&[(1, "var"), (2, "other")]), Found::File);
        let mut changed = |directory, name: &str| {
            let mut tails: Vec<Key> =
                directories.changed(directory, OsStr::new(name), false).collect();
            tails.sort();
            tails
        };
        assert_eq!(changed(1, "var"), [one, two]);
        assert_eq!(changed(2, "log"), [one]);
        assert_eq!(changed(1, "log"), []);
        assert_eq!(changed(3, "var"), []);
        // The way of one tail leads elsewhere now.
        let (_, unused) = directories.set_steps(one, steps(&[(1, "var"), (3, "log")]), Found::File);
        assert_eq!(unused, []);
        assert_eq!(directories.remove(two), [2]);
        assert_eq!(directories.lost(3).collect::<Vec<_>>(), [one]);
        assert_eq!(directories.remove(one), [1]);
        assert!(directories.watched.is_empty() && directories.ways.is_empty());
    }

    #[test]
    fn a_file_that_came_and_went_is_missed_and_the_one_that_is_there_is_not() {
        let mut keys = Slots::new();
        let tail: Key = keys.insert(());
        let (way, name) = (|| steps(&[(1, "dir"), (2, "log")]), OsStr::new("log"));
        for (arrivals, found, missed) in [
            (0, Found::File, false),
            (1, Found::File, false),
            (2, Found::File, true),
            (0, Found::Nothing, false),
            (1, Found::Nothing, true),
            (1, Found::Failure, false),
            (2, Found::Failure, true),
        ] {
            let mut directories = Directories::default();
            directories.set_steps(tail, way(), Found::File);
            for _ in 0..arrivals {
                assert_eq!(directories.changed(2, name, true).count(), 1);
            }
            let case = format!("{arrivals} {found:?}");
            assert_eq!(directories.set_steps(tail, way(), found).0, missed, "{case}");
            // It is reported with the next file, and once.
            let next = missed && found != Found::File;
            assert_eq!(directories.set_steps(tail, way(), Found::File).0, next, "{case}");
            assert!(!directories.set_steps(tail, way(), Found::File).0, "{case}");
        }
    }
}
