//! Owns [`FoundLogs`]: how the logs of a job of an earlier host are found.
//!
//! Invariant: a log has the name of its job, and lies where its record says. Without a record, it
//! may lie where this host has its own, or in a directory that a host has made for temporary files.
//! Knows nothing of processes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::command::OverLimit;
use crate::error::{Error, ErrorKind, JobError, Result};
use crate::id::JobId;
use crate::job::stored::Stored;
use crate::log::{Kept, LogDirectory, NewLog, Place, Rules};

/// Where the logs of jobs are looked for.
#[derive(Debug)]
pub(super) struct FoundLogs {
    /// Where this host has its own.
    own: Arc<LogDirectory>,
    /// Whether it counts all logs together.
    counts_logs: bool,
    /// The directories of other logs, by their paths.
    directories: HashMap<PathBuf, Arc<LogDirectory>>,
    /// The temporary directories of all hosts, once they were listed.
    temporary: Option<Vec<PathBuf>>,
}

/// The directory of the logs of a job, where they lie, and what has failed about that.
pub(super) type Logs = (Arc<LogDirectory>, [Option<NewLog>; 2], Option<Error>);

impl FoundLogs {
    pub(super) fn new(own: Arc<LogDirectory>, counts_logs: bool) -> Self {
        Self { own, counts_logs, directories: HashMap::new(), temporary: None }
    }

    /// The logs of a job of which nothing is known, by their names, which no other job has.
    pub(super) fn by_name(&mut self, id: JobId) -> Result<Logs> {
        let mut directory = Arc::clone(&self.own);
        let mut problem = None;
        let name = format!("{id}.log");
        if Place::of_name(&directory, name.clone()).is_none()
            && let Some(path) = self.temporary_with(&name)?
        {
            match self.open(&path) {
                Ok(opened) => directory = opened,
                Err(error) if is_shortage(&error) => return Err(error),
                Err(error) => problem = Some(error),
            }
        }
        let places = [name, format!("{id}.err.log")];
        let logs = places.map(|name| {
            let place = Place::of_name(&directory, name)?;
            let kept = up_to_hole(&directory, &place).unwrap_or_else(|error| {
                problem = Some(error);
                None
            });
            if let Some((_, at)) = kept {
                problem.get_or_insert(JobError::LogHole { path: place.path(), at }.into());
            }
            Some(NewLog { place, kept: kept.map(|(kept, _)| kept) })
        });
        Ok((directory, logs, problem))
    }

    /// The temporary directory that has a file of this name.
    fn temporary_with(&mut self, name: &str) -> Result<Option<PathBuf>> {
        let all = match self.temporary.take() {
            Some(all) => all,
            None => match LogDirectory::all_temporary() {
                Err(error) if is_shortage(&error) => return Err(error),
                // Where there are no temporary files, there are none of a host.
                all => all.unwrap_or_default(),
            },
        };
        let found = all.iter().find(|path| path.join(name).symlink_metadata().is_ok()).cloned();
        self.temporary = Some(all);
        Ok(found)
    }

    /// Where the logs of a job lie. They are named after it, whatever its record says.
    pub(super) fn find(&mut self, stored: &Stored) -> Result<Logs> {
        let opened = self.directory(stored);
        let directory = match opened {
            Ok(directory) => directory,
            Err(error) if is_shortage(&error) => return Err(error),
            // The job goes on without, as one whose log was removed.
            Err(error) => return Ok((Arc::clone(&self.own), [None, None], Some(error))),
        };
        let place = |identity: Option<_>, suffix: &str| {
            let name = format!("{}.{suffix}", stored.id);
            Some(Place::new(Arc::clone(&directory), name, identity?))
        };
        let [output, error] = stored.logs;
        let mut problem = None;
        let logs = [place(output, "log"), place(error, "err.log")].map(|place| {
            let place = place?;
            let kept = self.rules(stored).map(|rules| directory.reopen_kept(&place, rules));
            // It goes on without, as after any other failure of that.
            let kept = kept.transpose().unwrap_or_else(|error| {
                problem = Some(error);
                None
            });
            Some(NewLog { place, kept })
        });
        match problem {
            Some(error) if is_shortage(&error) => Err(error),
            problem => Ok((directory, logs, problem)),
        }
    }

    /// How the logs of a job are kept short.
    fn rules(&self, stored: &Stored) -> Option<Rules> {
        let discard = stored.policies.over_limit == Some(OverLimit::Discard);
        Rules::new(stored.log_keep, stored.log_limit, discard, self.counts_logs)
    }

    /// The directory of the logs of a job.
    fn directory(&mut self, stored: &Stored) -> Result<Arc<LogDirectory>> {
        if stored.logs == [None, None] || stored.directory == self.own.path("") {
            return Ok(Arc::clone(&self.own));
        }
        self.open(&stored.directory)
    }

    fn open(&mut self, path: &Path) -> Result<Arc<LogDirectory>> {
        if let Some(directory) = self.directories.get(path) {
            return Ok(Arc::clone(directory));
        }
        let opened = Arc::new(LogDirectory::reopen(path)?);
        self.directories.insert(path.to_owned(), Arc::clone(&opened));
        Ok(opened)
    }
}

/// Lets a log of which nothing is known but its name be read up to the hole in its middle, if it
/// has one: that is where what was discarded begins.
fn up_to_hole(directory: &LogDirectory, place: &Place) -> Result<Option<(Kept, u64)>> {
    let hole = place.inner_hole().map_err(Error::path("examine log", place.path()))?;
    let read_up_to = |at| Ok((directory.reopen_kept(place, Rules::read_up_to(at))?, at));
    hole.map(read_up_to).transpose()
}

/// Whether a call has failed only because the host or the system lacks something now.
fn is_shortage(error: &Error) -> bool {
    error.kind() == ErrorKind::LimitReached
}
