//! Owns [`Bounds`]: which spawns are bounded, by what time and by which launcher.
//!
//! Invariant: a launcher was found to speak the protocol of this host before it starts a job. Knows
//! nothing of the jobs.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use crate::command::Command;
use crate::error::{Error, Result, Stage, SystemError};
use crate::job::bounded_spawns::BoundedSpawns;
use crate::sys::{Failure, LAUNCHER_VERSION, LauncherProgram, Nurseries, Plan, Process, Unstarted};

/// How long a launcher may take to tell its version.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Which spawns take a bounded time, and how they are made to.
#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) which: BoundedSpawns,
    pub(crate) timeout: Duration,
    /// What bounded spawns go through; without it, they run on a copy of the host.
    pub(crate) launcher: Option<LauncherProgram>,
}

impl Bounds {
    /// Starts the program of a command as its bounds are.
    pub(crate) fn spawn(
        &self,
        nurseries: &Nurseries,
        command: &Command,
        plan: &Plan<'_>,
    ) -> Result<Process, Unstarted> {
        if !self.which.includes(command) {
            return nurseries.spawn(plan).map_err(Unstarted::Failed);
        }
        match &self.launcher {
            Some(launcher) => nurseries.spawn_through(launcher, self.timeout, plan),
            None => nurseries.spawn_within(self.timeout, plan),
        }
    }
}

/// Opens a launcher, and starts it to ask for its version. `null` is `/dev/null`.
pub(crate) fn open_launcher(
    path: &Path,
    nurseries: &Nurseries,
    null: impl AsFd,
) -> Result<LauncherProgram> {
    let launcher = LauncherProgram::open(path).map_err(Error::path("open the launcher", path))?;
    let refuse = |reason| Error::from(SystemError::Launcher { path: path.to_owned(), reason });
    let version = nurseries.launcher_version(&launcher, ANSWER_TIMEOUT, null.as_fd());
    match version {
        Ok(Some(LAUNCHER_VERSION)) => Ok(launcher),
        Ok(Some(version)) => Err(refuse(format!(
            "it speaks version {version} of the protocol, and this host speaks version \
             {LAUNCHER_VERSION}: install the jobworker-launcher of the host's release"
        ))),
        Ok(None) => Err(refuse(
            "it has not answered in time as a launcher does: it must be jobworker-launcher, or a \
             program that calls jobworker::run_launcher first, without a set-user-ID bit and file \
             capabilities"
                .to_owned(),
        )),
        Err(Failure { stage, errno }) => {
            let cause = io::Error::from_raw_os_error(errno);
            Err(match stage {
                Stage::Launcher if errno == Errno::NOENT.raw_os_error() => refuse(
                    "it is a script, or its interpreter is missing: a launcher is a program file"
                        .to_owned(),
                ),
                Stage::Launcher => SystemError::Path {
                    operation: "execute the launcher",
                    path: path.to_owned(),
                    cause,
                }
                .into(),
                stage => refuse(format!("{stage} failed: {cause}")),
            })
        }
    }
}
