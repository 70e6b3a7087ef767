//! Owns [`Walk`]: a place among the groups that a job has made below its own.
//!
//! Invariant: one descriptor is held, that of the current group, however deep or wide the groups
//! are nested; nothing recurses. Groups may come and go meanwhile: those that are gone are passed
//! over. Knows nothing of what is done at each group.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, RawDir, openat};
use rustix::io::Errno;
use rustix::path::Arg;

/// A depth-first walk through a group and everything below it.
///
/// The way up is `..`: cgroup2 has no links and cannot rename a directory, so it leads back to
/// where the walk came from. An absolute path would not do: the kernel limits it to 4096 bytes,
/// but a job can nest its groups deeper than that.
#[derive(Debug)]
pub(crate) struct Walk {
    /// The directory of the current group.
    dir: OwnedFd,
    /// From the top down to the current group.
    levels: Vec<Level>,
}

/// Where a walk was left, without a descriptor.
#[derive(Debug)]
pub(crate) struct Position(Vec<Level>);

#[derive(Debug)]
struct Level {
    /// The name of the group in the one above it.
    name: CString,
    /// The groups below it that are still to be visited.
    children: Vec<CString>,
}

impl Walk {
    /// Begins at the group `name` in `parent`, or nowhere when it is gone.
    pub(crate) fn begin(parent: impl AsFd, name: &str) -> io::Result<Option<Self>> {
        let Some((dir, children)) = enter(parent, name)? else { return Ok(None) };
        let name = CString::new(name)?;
        Ok(Some(Self { dir, levels: vec![Level { name, children }] }))
    }

    /// Leaves the walk, to resume it later.
    pub(crate) fn leave(self) -> Position {
        Position(self.levels)
    }

    /// Goes back to where a walk through a group in `parent` was left; `None` when that group is
    /// gone. If only the current one is gone, the walk goes on in the lowest group above it that is
    /// left.
    pub(crate) fn resume(parent: impl AsFd, position: &mut Position) -> io::Result<Option<Self>> {
        let levels = &mut position.0;
        let mut dir: Option<OwnedFd> = None;
        let mut depth = 0;
        for level in levels.iter() {
            let above = dir.as_ref().map_or(parent.as_fd(), AsFd::as_fd);
            match openat(above, level.name.as_c_str(), DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT | Errno::NODEV) => break,
                opened => dir = Some(opened?),
            }
            depth += 1;
        }
        levels.truncate(depth);
        Ok(dir.map(|dir| Self { dir, levels: std::mem::take(levels) }))
    }

    /// The directory of the current group, open for reading.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Goes to the next group directly below the current one; `false` when all were visited.
    /// After a failure, the same one is tried again by the next call.
    pub(crate) fn down(&mut self) -> io::Result<bool> {
        while let Some(level) = self.levels.last_mut()
            && let Some(name) = level.children.last()
        {
            let entered = enter(&self.dir, name.as_c_str())?;
            let Some(name) = level.children.pop() else { break };
            if let Some((dir, children)) = entered {
                self.dir = dir;
                self.levels.push(Level { name, children });
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes back up and gives the name of the group that was left; `None` at the top.
    pub(crate) fn up(&mut self) -> io::Result<Option<CString>> {
        if self.levels.len() < 2 {
            return Ok(None);
        }
        self.dir = openat(&self.dir, c"..", DIRECTORY, Mode::empty())?;
        Ok(self.levels.pop().map(|level| level.name))
    }

    /// Goes to the next group in pre-order; `false` when all were visited.
    pub(crate) fn forward(&mut self) -> io::Result<bool> {
        while !self.down()? {
            if self.up()?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory and lists the directories in it, or `None` when it is gone.
fn enter(parent: impl AsFd, name: impl Arg) -> io::Result<Option<(OwnedFd, Vec<CString>)>> {
    let dir = match openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT | Errno::NODEV) => return Ok(None),
        opened => opened?,
    };
    let children = entries(&dir, FileType::Directory)?;
    Ok(Some((dir, children)))
}

/// The names of the entries of one kind in `dir`.
pub(crate) fn entries(dir: impl AsFd, kind: FileType) -> io::Result<Vec<CString>> {
    let mut buffer = Vec::with_capacity(8192);
    let mut listed = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = listed.next() {
        let entry = match entry {
            // The group was removed.
            Err(Errno::NOENT | Errno::NODEV) => break,
            entry => entry?,
        };
        let name: &CStr = entry.file_name();
        if entry.file_type() == kind && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{AtFlags, CWD, mkdirat, unlinkat};
    use std::path::Path;
    use tempfile::TempDir;

    /// A directory of the test's own.
    struct Directory(OwnedFd, #[expect(dead_code, reason = "removes it on drop")] TempDir);

    impl Directory {
        fn new() -> Self {
            // In memory where possible: a disk takes seconds for thousands of directories.
            let memory = Path::new("/dev/shm");
            let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
            let made = made.unwrap();
            Self(openat(CWD, made.path(), DIRECTORY, Mode::empty()).unwrap(), made)
        }

        fn make(&self, path: &str) {
            mkdirat(&self.0, path, Mode::RWXU).unwrap();
        }

        /// Removes a directory and everything below it, as a group is removed.
        fn remove(&self, name: &str) {
            let mut walk = Walk::begin(&self.0, name).unwrap().unwrap();
            loop {
                if walk.down().unwrap() {
                    continue;
                }
                let Some(left) = walk.up().unwrap() else { break };
                unlinkat(walk.dir(), left, AtFlags::REMOVEDIR).unwrap();
            }
            unlinkat(&self.0, name, AtFlags::REMOVEDIR).unwrap();
        }
    }

    #[test]
    fn every_directory_is_visited_once_and_the_way_up_names_it() {
        let directory = Directory::new();
        for path in ["top", "top/a", "top/a/b", "top/a/c", "top/d"] {
            directory.make(path);
        }
        let mut walk = Walk::begin(&directory.0, "top").unwrap().unwrap();
        let mut visited = vec!["top".to_owned()];
        while walk.forward().unwrap() {
            visited.push(walk.levels.last().unwrap().name.to_str().unwrap().to_owned());
        }
        visited.sort_unstable();
        assert_eq!(visited, ["a", "b", "c", "d", "top"]);
        assert!(walk.up().unwrap().is_none() && !walk.down().unwrap());
        directory.remove("top");
        assert!(Walk::begin(&directory.0, "top").unwrap().is_none(), "it is gone");
    }

    #[test]
    fn what_is_removed_during_the_walk_is_passed_over() {
        let directory = Directory::new();
        for path in ["top", "top/a", "top/b", "top/b/c"] {
            directory.make(path);
        }
        let mut walk = Walk::begin(&directory.0, "top").unwrap().unwrap();
        for path in ["top/a", "top/b/c", "top/b", "top"] {
            unlinkat(&directory.0, path, AtFlags::REMOVEDIR).unwrap();
        }
        assert!(!walk.forward().unwrap());

        directory.make("top");
        directory.make("top/a");
        let mut walk = Walk::begin(&directory.0, "top").unwrap().unwrap();
        assert!(walk.down().unwrap());
        for path in ["top/a", "top"] {
            unlinkat(&directory.0, path, AtFlags::REMOVEDIR).unwrap();
        }
        assert!(!walk.down().unwrap(), "the current one is gone, and has nothing below it");
        assert!(entries(walk.dir(), FileType::Directory).unwrap().is_empty());
    }

    #[test]
    fn a_walk_is_resumed_where_it_was_left_or_above_what_is_gone() {
        let directory = Directory::new();
        for path in ["top", "top/a", "top/a/b", "top/a/c", "top/d"] {
            directory.make(path);
        }
        let mut walk = Walk::begin(&directory.0, "top").unwrap().unwrap();
        let mut visited = vec!["top".to_owned()];
        while walk.forward().unwrap() {
            visited.push(walk.levels.last().unwrap().name.to_str().unwrap().to_owned());
            let mut position = walk.leave();
            walk = Walk::resume(&directory.0, &mut position).unwrap().unwrap();
        }
        visited.sort_unstable();
        assert_eq!(visited, ["a", "b", "c", "d", "top"]);

        let mut walk = Walk::begin(&directory.0, "top").unwrap().unwrap();
        while walk.levels.len() < 3 {
            assert!(walk.forward().unwrap());
        }
        let mut position = walk.leave();
        directory.remove("top/a");
        let mut walk = Walk::resume(&directory.0, &mut position).unwrap().unwrap();
        assert_eq!(walk.levels.len(), 1, "it is in the group above those that are gone");
        let left = usize::from(walk.forward().unwrap());
        assert_eq!(left, walk.levels.len() - 1, "only what was not visited follows");
        let mut position = walk.leave();
        directory.remove("top");
        assert!(Walk::resume(&directory.0, &mut position).unwrap().is_none());
    }

    #[test]
    fn five_thousand_levels_cost_neither_stack_nor_descriptors() {
        const LEVELS: usize = 5_000;
        let directory = Directory::new();
        directory.make("top");
        let mut dir = openat(&directory.0, "top", DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..LEVELS {
            mkdirat(&dir, "a-name-of-its-own", Mode::RWXU).unwrap();
            dir = openat(&dir, "a-name-of-its-own", DIRECTORY, Mode::empty()).unwrap();
        }
        drop(dir);
        let mut walk = Walk::begin(&directory.0, "top").unwrap().unwrap();
        let mut levels = 0;
        while walk.forward().unwrap() {
            levels += 1;
        }
        assert_eq!(levels, LEVELS);
        directory.remove("top");
    }
}
