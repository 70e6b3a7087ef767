//! Owns [`Swept`]: what a sweep has removed, and what it could not.
//!
//! Plain data.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// What [`Reactor::sweep`](crate::Reactor::sweep) has removed, and what it could not.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Swept {
    /// The cgroups of jobs that were removed. The markers of their hosts are removed as well, and
    /// are not among them.
    pub cgroups: Vec<PathBuf>,
    /// The log directories that were removed.
    pub log_dirs: Vec<PathBuf>,
    /// Why others were not, one error for each.
    pub errors: Vec<Error>,
}

impl Swept {
    pub(crate) fn cgroup(&mut self, removed: Result<PathBuf>) {
        match removed {
            Ok(path) => self.cgroups.push(path),
            Err(error) => self.errors.push(error),
        }
    }

    pub(crate) fn log_dir(&mut self, removed: Result<PathBuf>) {
        match removed {
            Ok(path) => self.log_dirs.push(path),
            Err(error) => self.errors.push(error),
        }
    }
}
