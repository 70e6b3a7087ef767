//! Owns [`Trigger`]: a PSI trigger, by which the kernel reports stalls.
//!
//! Invariant: a [`Trigger`] owns the one open file that the kernel allows per trigger; closing it
//! removes the trigger. Knows nothing of jobs or the loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, pread, write};

use crate::error::{Error, JobError, Result};
use crate::event::{Pressure, Stall, Stallable};

/// A trigger that is armed in the kernel.
///
/// Must be watched edge-triggered for both readability and priority. A priority event means that it
/// has fired, but when epolls are nested, the outer one consumes it by its readiness check of the
/// inner one. The file is always readable, so the wake-up itself arrives: once when the watch
/// begins, then each time that the trigger fires, and on a cgroup's file also when another trigger
/// on it fires.
#[derive(Debug)]
pub(crate) struct Trigger {
    file: OwnedFd,
    stall: Stall,
    /// The stalled time at the last event.
    reported: Duration,
    /// The wake-up from the start of the watch has not arrived yet.
    fresh: bool,
}

impl Trigger {
    /// Arms a trigger for the whole system.
    pub(crate) fn arm_for_system(resource: Stallable, stall: Stall) -> Result<Self> {
        let path = Path::new("/proc/pressure").join(resource.to_string());
        Self::arm(CWD, &path, path.clone(), stall)
    }

    /// Arms a trigger on the pressure file `name` below `dir`; `path` is for messages.
    pub(super) fn arm(dir: impl AsFd, name: &Path, path: PathBuf, stall: Stall) -> Result<Self> {
        if let Some(reason) = stall.fault() {
            return Err(JobError::StallRefused { path, reason, cause: None }.into());
        }
        Self::try_arm(dir, name, stall).map_err(|error| {
            let reason = match Errno::from_io_error(&error) {
                // No PSI in this kernel, or not switched on.
                Some(Errno::NOENT | Errno::OPNOTSUPP) => {
                    return JobError::NoPressure { path }.into();
                }
                Some(Errno::INVAL) => {
                    "without CAP_SYS_RESOURCE the window has to be a multiple of 2 s, \
                     and before Linux 6.5 it is at least 500 ms for everybody"
                }
                Some(Errno::PERM | Errno::ACCESS) => {
                    "before Linux 6.5 it takes CAP_SYS_RESOURCE, since then write access"
                }
                _ => return Error::path("arm a pressure trigger on", path)(error),
            };
            JobError::StallRefused { path, reason, cause: Some(error) }.into()
        })
    }

    fn try_arm(dir: impl AsFd, name: &Path, stall: Stall) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(dir, name, flags, Mode::empty())?;
        write(&file, stall.request().as_bytes())?;
        let mut trigger = Self { file, stall, reported: Duration::ZERO, fresh: true };
        trigger.reported = trigger.total()?;
        Ok(trigger)
    }

    /// Whether it has fired, after a wake-up with or without a priority event.
    pub(crate) fn fired(&mut self, priority: bool) -> bool {
        let fresh = std::mem::take(&mut self.fresh);
        let Ok(total) = self.total() else { return priority };
        // The kernel keeps separate sums for its triggers, weighs processors over other intervals
        // and gets other results: the file was seen at 147.9 ms at the event for 150. So the file
        // only shows whether anything has happened at all or, for the first wake-up, that the
        // trigger is unlikely to be its cause.
        let least = if fresh { self.stall.stalled() / 2 } else { Duration::from_nanos(1) };
        let fired = priority || total.saturating_sub(self.reported) >= least;
        if fired {
            self.reported = total;
        }
        fired
    }

    fn total(&self) -> io::Result<Duration> {
        let mut buffer = [0; 256];
        let length = pread(&self.file, &mut buffer, 0)?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        let pressure: Pressure = text.parse().map_err(io::Error::other)?;
        Ok(if self.stall.is_full() { pressure.full.unwrap_or_default() } else { pressure.some }
            .total)
    }
}

impl AsFd for Trigger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
