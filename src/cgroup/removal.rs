//! Owns [`Removal`]: how far a group is removed, with those that its job has made below it.
//!
//! Invariant: no descriptor is held between two calls, and each call removes a bounded number of
//! groups. Knows nothing of the job.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use crate::cgroup::reserve::Opener;
use crate::cgroup::walk::{Position, Walk};

/// How far a group is removed.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    /// Where the walk through the groups below was left, once there were any.
    position: Option<Position>,
    /// Whether the group itself is to stay.
    keeps: bool,
}

impl Removal {
    /// Of what is below a group, but not of the group itself.
    pub(crate) fn of_what_is_below() -> Self {
        Self { position: None, keeps: true }
    }

    /// Removes the group `name` in `parent` and what is below it, at most so many groups in this
    /// call; `false` when there are more. Must be called only when they have no processes.
    pub(super) fn go_on(
        &mut self,
        parent: impl AsFd + Copy,
        name: &str,
        most: usize,
        opener: &mut Opener<'_>,
    ) -> io::Result<bool> {
        let begun = match &mut self.position {
            Some(position) => opener.open(|| Walk::resume(parent, position)),
            None if self.keeps => opener.open(|| Walk::begin(parent, name)),
            None => match remove_dir(parent, name) {
                // Not a loop on EBUSY: with no process left, it means that the job has made groups
                // of its own below.
                Err(Errno::BUSY) => opener.open(|| Walk::begin(parent, name)),
                removed => return Ok(removed.map(|()| true)?),
            },
        };
        self.position = None;
        let Some(mut walk) = begun? else { return Ok(true) };
        let mut removed = 0;
        loop {
            if opener.open(|| walk.down())? {
                continue;
            }
            if removed >= most {
                self.position = Some(walk.leave());
                return Ok(false);
            }
            let Some(left) = opener.open(|| walk.up())? else { break };
            remove_dir(walk.dir(), left)?;
            removed += 1;
        }
        drop(walk);
        if !self.keeps {
            remove_dir(parent, name)?;
        }
        Ok(true)
    }
}

/// Removes a directory, unless it is gone already.
fn remove_dir(parent: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<()> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}
