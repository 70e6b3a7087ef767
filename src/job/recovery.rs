//! Owns [`Recovery`]: the jobs that earlier hosts of this name have left, found one by one.
//!
//! Invariants: what is found is left as it is until it is adopted, so a recovery that is given up
//! can be begun again; only what an earlier host was about to do is done: the history gets the
//! report of a finished job that it lacks, the record the main process, and what is left of a job
//! that was removed, or that never had a process, is removed. What the history has of a job is
//! worth as much as its record. Knows nothing of the registry.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use uuid::Uuid;

use crate::cgroup::{Group, Owner};
use crate::command::{EndPolicy, Signal};
use crate::error::{Error, Result, SystemError};
use crate::event::{Exit, Found, Recovered, Report, StopCause, Usage, keyed};
use crate::id::JobId;
use crate::job::fields::Refused;
use crate::job::format::{decode, encode};
use crate::job::found_logs::FoundLogs;
use crate::job::found_process::{DAMAGED, KNOWN, Pidfds, past, signed};
use crate::job::history::History;
use crate::job::launched::Launched;
use crate::job::record::Policies;
use crate::job::stored::{KnownExit, Stop, Stored, Until};
use crate::log::{LogDirectory, NewLog};
use crate::sys::{Process, boot_time};

/// The jobs that are still to be found.
#[derive(Debug)]
pub(crate) struct Recovery {
    groups: Vec<(Uuid, Group)>,
    pidfds: Pidfds,
    logs: FoundLogs,
    /// Where it has its reports, and whether that is synced.
    history: Option<(History, bool)>,
}

/// The main process of a job, or the report of one that is finished.
type Course = Result<Process, Arc<Report>>;

/// What is to be adopted.
#[derive(Debug)]
pub(crate) struct Find {
    pub(crate) launched: Launched,
    pub(crate) recovered: Recovered,
}

impl Recovery {
    /// Begins to look for the jobs of the owner's name.
    pub(crate) fn begin(
        owner: Option<&Owner>,
        (own, counts_logs): (&Arc<LogDirectory>, bool),
        history: Option<&(History, bool)>,
        pidfds: Vec<OwnedFd>,
    ) -> Result<Self> {
        let refuse = |reason| Err(SystemError::NoName { reason }.into());
        let Some(owner) = owner else {
            return refuse("jobs are contained by process group here");
        };
        if owner.host_name().is_none() {
            return refuse("this host has no name");
        }
        let logs = FoundLogs::new(Arc::clone(own), counts_logs);
        let (groups, history) = (owner.lasting()?, history.cloned());
        Ok(Self { groups, pidfds: Pidfds::new(pidfds), logs, history })
    }

    /// The jobs that are still to be looked for.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.groups.iter().map(|(job, _)| JobId::new(*job))
    }

    /// Adds the pidfds of these jobs, as a keeper has held them.
    pub(crate) fn add_pidfds(&mut self, held: impl IntoIterator<Item = (JobId, OwnedFd)>) {
        self.pidfds.held.extend(held);
    }

    /// How many jobs are still to be looked for, at most.
    pub(crate) fn left(&self) -> usize {
        self.groups.len()
    }

    /// The next job that is not `known` already; `None` when there is none. After a failure, that
    /// job is not looked for again by this recovery, but by the next.
    pub(crate) fn next(&mut self, known: impl Fn(JobId) -> bool) -> Result<Option<Find>> {
        while let Some((job, group)) = self.groups.pop() {
            let id = JobId::new(job);
            if !known(id)
                && let Some(find) = self.look(id, group)?
            {
                return Ok(Some(find));
            }
        }
        Ok(None)
    }

    /// What has become of a job; `None` when nothing is left of it.
    fn look(&mut self, id: JobId, group: Group) -> Result<Option<Find>> {
        let record = match group.read_record() {
            Ok(record) => record.unwrap_or_default(),
            Err(_) if !group.exists() => return Ok(None),
            Err(error) => return Err(error),
        };
        let (mut stored, report, is_damaged) = match decode(&record) {
            Ok((stored, report)) if stored.id == id => (stored, report, false),
            // What a later version has made is not to be ended by this one.
            Err(refused @ Refused::Version(_)) => {
                let (path, reason) = (group.path(), refused.to_string());
                return Err(SystemError::Record { path, reason }.into());
            }
            refused => match self.kept(id)? {
                Some((stored, _)) => (stored, None, true),
                // The host died between the two, and there never was a process.
                None if matches!(refused, Err(Refused::Empty)) && !was_used(&group)? => {
                    return self.clear(id, &group).map(|()| None);
                }
                None => return self.find_unknown(id, group).map(Some),
            },
        };
        if stored.removed {
            return self.remove(&stored, &group).map(|()| None);
        }
        if stored.main.is_none()
            && report.is_none()
            && let Some(main) = signed(&group)?
        {
            // What the earlier host was about to write. Until it is there, the next one finds it
            // in the same way, as long as the process is there.
            stored.main = Some(main);
            let _ = group.write_record(&encode(&stored, None));
        }
        let (course, found) = match report {
            Some(report) => (Err(Arc::new(self.keep(&stored, report))), Found::Finished),
            None => self.find_course(&mut stored, &group, is_damaged)?,
        };
        if matches!(found, Found::Interrupted | Found::Damaged) {
            end_rest(&mut stored, &group)?;
        }
        let (directory, logs, problem) = self.logs.find(&stored)?;
        let recovered = Recovered {
            job: id,
            label: stored.label.clone(),
            command: stored.command.clone(),
            found,
        };
        let spawned = moment(stored.booted);
        let launched = Launched::found(stored, spawned, (group, logs), course, directory, problem);
        Ok(Some(Find { launched, recovered }))
    }

    /// What the history has of a job. A file that is no report counts as none, and is replaced.
    fn kept(&self, id: JobId) -> Result<Option<(Stored, Report)>> {
        let Some((history, _)) = &self.history else { return Ok(None) };
        match history.kept(id) {
            Err(Error::System(SystemError::Record { .. })) => Ok(None),
            kept => Ok(kept?.filter(|(stored, _)| stored.policies.survives)),
        }
    }

    /// Gives the report of a finished job to the history, if that lacks it or has another label.
    fn keep(&self, stored: &Stored, mut report: Report) -> Report {
        let Some((history, sync)) = &self.history else { return report };
        let kept = history.kept(stored.id);
        if !kept.is_ok_and(|kept| kept.is_some_and(|(kept, _)| kept.label == stored.label))
            && let Err(problem) = history.write(stored, &report, *sync)
        {
            // The earlier host may have had the same.
            let text = problem.to_string();
            if !report.problems.iter().any(|other| other.to_string() == text) {
                report.problems.push(problem);
            }
        }
        report
    }

    /// What has become of a job whose record has no report. That, and the exit, may be in the
    /// history: the host has died just before the record had it, or the record could not be
    /// changed.
    fn find_course(
        &mut self,
        stored: &mut Stored,
        group: &Group,
        is_damaged: bool,
    ) -> Result<(Course, Found)> {
        let (process, found) = self.pidfds.find_main(stored, group)?;
        if found == Found::Running && !is_damaged {
            return Ok((Ok(process), found));
        }
        let found = if is_damaged { Found::Damaged } else { found };
        let Some((_, report)) = self.kept(stored.id)? else { return Ok((Ok(process), found)) };
        if !group.populated()? {
            return Ok((Err(Arc::new(report)), Found::Finished));
        }
        // A process has come into the group since. It is to be ended, and there is another report.
        let recorded = stored.exited.filter(|known| known.exit != Exit::Unknown);
        let known = *stored.exited.insert(recorded.unwrap_or_else(|| KnownExit::of(&report)));
        let pid = stored.main.map_or(0, |main| main.pid);
        let why = known.why_unknown.unwrap_or(KNOWN);
        Ok((Ok(past(pid, known.exit, known.usage, why)?), found))
    }

    /// Removes what was made for a job that never had a process.
    fn clear(&mut self, id: JobId, group: &Group) -> Result<()> {
        let (_, logs, _) = self.logs.by_name(id)?;
        remove_logs(logs)?;
        group.remove()
    }

    /// Removes what is left of a job that an earlier host was removing, unless a process is left in
    /// its group.
    fn remove(&mut self, stored: &Stored, group: &Group) -> Result<()> {
        if !stored.policies.keep_log {
            let (_, logs, _) = self.logs.find(stored)?;
            remove_logs(logs)?;
        }
        if group.populated()? { Ok(()) } else { group.remove() }
    }

    /// A job of which nothing is known but its group: what is left in that is ended. Its logs are
    /// known by their names.
    fn find_unknown(&mut self, id: JobId, group: Group) -> Result<Find> {
        let (directory, logs, problem) = self.logs.by_name(id)?;
        let policies = Policies {
            end: EndPolicy::KillRest,
            stop_signal: Signal::KILL,
            grace: Duration::ZERO,
            time_limit: None,
            detached: false,
            survives: true,
            // Whether it is to be kept is not known: what was deleted cannot be had again.
            keep_log: true,
            over_limit: None,
            has_terminal: false,
            accounting: false,
        };
        let moment = (SystemTime::now(), boot_time());
        let mut stored = Stored {
            logs: logs.each_ref().map(|log| Some(log.as_ref()?.place.identity())),
            ..Stored::new(id, moment, policies, directory.path(""))
        };
        end_rest(&mut stored, &group)?;
        let process = past(0, Exit::Unknown, Usage::default(), DAMAGED)?;
        let (label, command) = (Vec::new(), String::new());
        let recovered = Recovered { job: id, label, command, found: Found::Damaged };
        let (now, parts) = (Instant::now(), (group, logs));
        let launched = Launched::found(stored, now, parts, Ok(process), directory, problem);
        Ok(Find { launched, recovered })
    }
}

fn remove_logs(logs: [Option<NewLog>; 2]) -> Result<()> {
    for NewLog { place, .. } in logs.into_iter().flatten() {
        place.unlink().map_err(Error::path("remove log", place.path()))?;
    }
    Ok(())
}

/// Makes a job end with all that is left in its group. It counts as stopped only if anything is.
fn end_rest(stored: &mut Stored, group: &Group) -> Result<()> {
    stored.policies.end = EndPolicy::KillRest;
    if group.populated()? {
        let cause = stored.stop.map_or(StopCause::Drop, |stop| stop.cause);
        stored.stop = Some(Stop { cause, until: Until::Now });
    }
    Ok(())
}

/// Whether a process is or was in a group, or has made one below it.
fn was_used(group: &Group) -> Result<bool> {
    let above_zero = |file, key| -> Result<bool> {
        Ok(group.read(file)?.is_some_and(|content| keyed(&content, key) > 0))
    };
    Ok(group.populated()?
        || above_zero("cpu.stat", "usage_usec")?
        || above_zero("cgroup.stat", "nr_descendants")?)
}

/// A moment since the system was booted, on the clock of this process.
fn moment(booted: Duration) -> Instant {
    let now = Instant::now();
    // The two clocks differ if the system was suspended: then as early as this one can tell.
    now.checked_sub(boot_time().saturating_sub(booted)).unwrap_or(now)
}
