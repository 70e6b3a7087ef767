//! Owns [`CommandView`]: what a [`Command`] was set to, for reading.
//!
//! Invariant: a method for each thing that can be set, which returns it as it was given. Knows
//! nothing of what it means.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use crate::command::capability::Capability;
use crate::command::command::{Command, EndPolicy, OverLimit, ProcessGroup, Resource, Scheduler};
use crate::command::io_priority::IoPriority;
use crate::command::limits::Limits;
use crate::command::signal::Signal;
use crate::command::stdio::{Output, Stdin};
use crate::command::units::ByteSize;

/// What a [`Command`] was set to, as [`Command::view`] gives it: for a host that shows, checks or
/// records what it runs.
///
/// Each method has the name of the one that sets its value, and `None` means that it was not set,
/// so that the default of [`Command`] applies. Nothing is allocated, and nothing is looked up: an
/// environment that is inherited and a program that is searched for are found at the spawn.
///
/// ```
/// use jobworker::Command;
///
/// let mut command = Command::new("cc");
/// command.arg("main.c").env("LANG", "C").env_remove("CFLAGS").inherit_env();
/// let view = command.view();
/// assert!(view.inherit_env() && view.current_dir().is_none());
/// let removed: Vec<_> = view.envs().filter(|(_, value)| value.is_none()).collect();
/// assert_eq!(removed, [("CFLAGS".as_ref(), None)]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CommandView<'a> {
    command: &'a Command,
}

impl<'a> CommandView<'a> {
    pub(super) fn new(command: &'a Command) -> Self {
        Self { command }
    }

    /// The program, as it was given to [`Command::new`].
    #[must_use]
    pub fn program(self) -> &'a OsStr {
        &self.command.program
    }

    /// What the program sees as its own name.
    #[must_use]
    pub fn arg0(self) -> Option<&'a OsStr> {
        self.command.arg0.as_deref()
    }

    /// The arguments, without the program.
    pub fn args(self) -> impl ExactSizeIterator<Item = &'a OsStr> {
        self.command.args.iter().map(AsRef::as_ref)
    }

    /// Whether the environment is the host's, with the changes of [`envs`](Self::envs), instead of
    /// an empty one with them.
    #[must_use]
    pub fn inherit_env(self) -> bool {
        self.command.inherit_env
    }

    /// The variables that were set, and with `None` those that were removed, in order of their
    /// names. What is inherited is not among them.
    pub fn envs(self) -> impl ExactSizeIterator<Item = (&'a OsStr, Option<&'a OsStr>)> {
        self.command.env.iter().map(|(key, value)| (key.as_ref(), value.as_deref()))
    }

    /// The root directory.
    #[must_use]
    pub fn chroot(self) -> Option<&'a Path> {
        self.command.chroot.as_deref()
    }

    /// The working directory.
    #[must_use]
    pub fn current_dir(self) -> Option<&'a Path> {
        self.command.current_dir.as_deref()
    }

    /// Where standard input comes from.
    #[must_use]
    pub fn stdin(self) -> &'a Stdin {
        &self.command.stdin
    }

    /// Where standard output and standard error go.
    #[must_use]
    pub fn output(self) -> &'a Output {
        &self.command.output
    }

    /// The descriptors besides the standard streams, by the number that they have in the job.
    pub fn descriptors(self) -> impl ExactSizeIterator<Item = (RawFd, BorrowedFd<'a>)> {
        self.command.descriptors.iter().map(|(number, fd)| (*number, fd.as_fd()))
    }

    /// Whether the log is left on disk.
    #[must_use]
    pub fn keep_log(self) -> bool {
        self.command.keep_log
    }

    /// How many of the newest bytes of each log are kept.
    #[must_use]
    pub fn log_keep(self) -> Option<ByteSize> {
        self.command.log_keep
    }

    /// How long each log may become, and what happens if it becomes longer.
    #[must_use]
    pub fn log_limit(self) -> Option<(ByteSize, OverLimit)> {
        self.command.log_limit
    }

    /// The user id.
    #[must_use]
    pub fn uid(self) -> Option<u32> {
        self.command.uid
    }

    /// The group id.
    #[must_use]
    pub fn gid(self) -> Option<u32> {
        self.command.gid
    }

    /// The supplementary groups.
    #[must_use]
    pub fn groups(self) -> Option<&'a [u32]> {
        self.command.groups.as_deref()
    }

    /// The file mode creation mask.
    #[must_use]
    pub fn umask(self) -> Option<u32> {
        self.command.umask
    }

    /// The resource limits of each process, soft and hard, in the order in which they were given.
    pub fn rlimits(
        self,
    ) -> impl ExactSizeIterator<Item = (Resource, Option<u64>, Option<u64>)> + use<'a> {
        self.command.rlimits.iter().copied()
    }

    /// The adjustment of the OOM killer's score.
    #[must_use]
    pub fn oom_score_adj(self) -> Option<i32> {
        self.command.oom_score_adj
    }

    /// The nice value.
    #[must_use]
    pub fn nice(self) -> Option<i32> {
        self.command.nice
    }

    /// The scheduling policy.
    #[must_use]
    pub fn scheduler(self) -> Option<Scheduler> {
        self.command.scheduler
    }

    /// The processors that the job may run on, by number.
    #[must_use]
    pub fn cpu_affinity(self) -> Option<impl ExactSizeIterator<Item = u32> + use<'a>> {
        self.command.cpu_affinity.as_ref().map(|processors| processors.iter().copied())
    }

    /// How requests to disks are served.
    #[must_use]
    pub fn io_priority(self) -> Option<IoPriority> {
        self.command.io_priority
    }

    /// Whether the job has a session keyring of its own.
    #[must_use]
    pub fn new_session_keyring(self) -> bool {
        self.command.new_session_keyring
    }

    /// The capabilities that the job can have at most, by number.
    #[must_use]
    pub fn capability_bounding_set(self) -> Option<impl Iterator<Item = Capability> + use<>> {
        let bits = self.command.capability_bounding_set?;
        let has = move |capability: &Capability| bits & 1 << capability.as_raw() != 0;
        Some((0..64).filter_map(Capability::from_raw).filter(has))
    }

    /// The secure bits.
    #[must_use]
    pub fn securebits(self) -> Option<u32> {
        self.command.securebits
    }

    /// Whether exec cannot give the job privileges.
    #[must_use]
    pub fn no_new_privs(self) -> bool {
        self.command.no_new_privs
    }

    /// The process group and session.
    #[must_use]
    pub fn process_group(self) -> ProcessGroup {
        self.command.process_group
    }

    /// The signal that is sent when the host dies.
    #[must_use]
    pub fn parent_death_signal(self) -> Option<Signal> {
        self.command.parent_death_signal
    }

    /// Whether the job is kept when the reactor is dropped.
    #[must_use]
    pub fn detached(self) -> bool {
        self.command.detached
    }

    /// Whether the job survives its host.
    #[must_use]
    pub fn survives(self) -> bool {
        self.command.survives
    }

    /// The bytes of the host's own.
    #[must_use]
    pub fn label(self) -> &'a [u8] {
        &self.command.label
    }

    /// When the job ends.
    #[must_use]
    pub fn end_policy(self) -> EndPolicy {
        self.command.end_policy
    }

    /// The signal of a [`stop`](crate::Reactor::stop).
    #[must_use]
    pub fn stop_signal(self) -> Signal {
        self.command.stop_signal
    }

    /// The time between a [`stop`](crate::Reactor::stop) and the kill of what is left.
    #[must_use]
    pub fn grace(self) -> Duration {
        self.command.grace
    }

    /// The time after which the job is stopped.
    #[must_use]
    pub fn time_limit(self) -> Option<Duration> {
        self.command.time_limit
    }

    /// Whether the final report says what the cgroup has used.
    #[must_use]
    pub fn accounting(self) -> Option<bool> {
        self.command.accounting
    }

    /// The limits of the cgroup.
    #[must_use]
    pub fn limits(self) -> &'a Limits {
        &self.command.limits
    }
}
