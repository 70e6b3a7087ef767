//! Owns the record of a job that is being started: what is kept of it for the next host, or for the
//! history.
//!
//! Invariant: it is on the group of the job before there is a process, and names the process before
//! anybody else knows of that. Knows nothing of how the process is made.

use std::os::fd::OwnedFd;
use std::time::SystemTime;

use crate::cgroup::{Owner, write_record};
use crate::command::{ByteSize, Command, Output};
use crate::error::{Error, Result, SpawnError, WRITE_RECORD};
use crate::job::format::encode;
use crate::job::launched::Made;
use crate::job::record::Policies;
use crate::job::stored::{KnownBy, MOST_LABEL, Main, Stored, shortened};
use crate::log::{LogDirectory, Place};
use crate::sys::{Process, Stat, boot_time, pidfd_inode};

/// Checks that a job can outlive the host.
pub(super) fn check_survival(command: &Command, owner: Option<&Owner>) -> Result<()> {
    let refuse =
        |reason| Err(SpawnError::CannotSurvive { program: command.program.clone(), reason }.into());
    let Some(owner) = owner else {
        return refuse("jobs are contained by process group here, which nothing outlives");
    };
    if owner.host_name().is_none() {
        return refuse("the host has no name to be found by: give it one with Config::name");
    }
    if matches!(command.output, Output::Terminal(_)) {
        return refuse("its terminal would end with the host: choose another Output");
    }
    if command.parent_death_signal.is_some() {
        return refuse("its parent_death_signal would end it with the host");
    }
    if command.label.len() > MOST_LABEL {
        return refuse("its label is longer than 16 KiB");
    }
    Ok(())
}

/// What is kept of a job that has no process yet.
pub(super) fn begin(
    command: &Command,
    started: SystemTime,
    made: &Made,
    directory: &LogDirectory,
) -> Stored {
    let identity = |place: &Option<Place>| place.as_ref().map(Place::identity);
    let (moment, policies) = ((started, boot_time()), Policies::of(command));
    Stored {
        label: command.label.to_vec(),
        command: shortened(command.to_string()),
        logs: made.places.each_ref().map(identity),
        log_keep: command.log_keep.map(ByteSize::as_bytes),
        log_limit: command.log_limit.map(|(limit, _)| limit.as_bytes()),
        ..Stored::new(made.id, moment, policies, directory.path(""))
    }
}

/// Writes down which process is the main one of a job, as soon as there is one. `dir` is the group.
pub(super) fn complete(
    stored: &mut Stored,
    process: &Process,
    made: &Made,
    dir: Option<&OwnedFd>,
) -> Result<()> {
    let pid = process.pid();
    let known_by = match pidfd_inode(process.pidfd()) {
        Some(inode) => KnownBy::Inode(inode),
        None => {
            // A process that has ended meanwhile is a zombie, and has a time as well; unless
            // somebody else in the host has reaped it.
            let stat = Stat::of(pid).map_err(Error::path("read", format!("/proc/{pid}/stat")))?;
            KnownBy::Start(stat.map_or(0, |stat| stat.start))
        }
    };
    stored.main = Some(Main { pid, known_by });
    store(stored, made, dir)
}

/// Writes the record of a job that is being started.
pub(super) fn store(stored: &Stored, made: &Made, dir: Option<&OwnedFd>) -> Result<()> {
    match (dir, &made.group) {
        (Some(dir), Some(group)) if stored.policies.survives => {
            let written = write_record(dir, &encode(stored, None));
            written.map_err(|errno| Error::path(WRITE_RECORD, group.path())(errno))
        }
        _ => Ok(()),
    }
}
