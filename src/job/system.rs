//! Owns [`System`]: everything that jobs need of the system, the logs and the loop.
//!
//! Invariant: no call waits for a process, and each can fail; [`Job`](crate::job::job::Job) copes
//! with every failure. [`Linux`](crate::job::linux::Linux) is the real one; the fuzzer and the unit
//! tests have one in memory.

use std::fmt::Debug;
use std::io::{self, PipeWriter};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cgroup::Removal;
use crate::command::Signal;
use crate::driver::{Registration, Source};
use crate::error::{Error, Result};
use crate::event::{Event, Exit, Report, Stall, Stallable, Usage};
use crate::id::Key;
use crate::job::delivery::Delivery;
use crate::job::record::Record;
use crate::job::stored::Stored;
use crate::job::terminal::Copied;
use crate::sys::Reap;
use crate::trace::JobSpan;

/// What a launcher has made, once a registry has taken it over.
#[derive(Debug)]
pub(crate) struct Adopted<S: System + ?Sized> {
    pub(crate) record: Record,
    pub(crate) course: Begun<S>,
    /// What the host writes the job's standard input to, if it is a pipe.
    pub(crate) stdin: Option<PipeWriter>,
    /// The host's end of the job's terminal, if it has one.
    pub(crate) terminal: Option<S::Terminal>,
    /// The logs: of both streams or of standard output, and of standard error.
    pub(crate) logs: [Option<Key>; 2],
    pub(crate) span: JobSpan,
}

/// How far a job has come when it is taken over.
#[derive(Debug)]
pub(crate) enum Begun<S: System + ?Sized> {
    /// Its main process runs, or has ended without anybody knowing of it.
    Live { process: S::Process, group: S::Group, problem: Option<Error> },
    /// It was finished by an earlier host.
    Finished { group: S::Group, report: Arc<Report> },
}

/// What jobs need of the system.
pub(crate) trait System {
    /// A process, by a handle that never refers to another one.
    type Process: Debug;
    /// What holds the processes of a job together.
    type Group: Debug;
    /// A pressure trigger that is armed.
    type Trigger: Debug;
    /// The host's end of a job's terminal, whose output goes to the log.
    type Terminal: Debug;
    /// A process that was started with all it needs; dropping it rolls everything back.
    type Launched: Debug;

    /// The time.
    fn now(&self) -> Instant;

    /// The time since the system was booted, which goes on from one host to the next.
    fn boot_time(&self) -> Duration;

    /// Queues an event for the host.
    fn emit(&mut self, event: Event);

    /// The main process of what was launched; `None` of a job that was finished before.
    fn launched_process(launched: &Self::Launched) -> Option<&Self::Process>;

    /// The terminal of what was launched, if it has one.
    fn launched_terminal(launched: &Self::Launched) -> Option<&Self::Terminal>;

    /// Adopts what was launched. From now on the job is responsible for releasing it.
    fn take_over(&mut self, launched: Self::Launched) -> Adopted<Self>;

    /// Watches for the exit of a process.
    fn watch_exit(&mut self, process: &Self::Process, source: Source) -> io::Result<Registration>;

    /// Ends [`watch_exit`](Self::watch_exit).
    fn unwatch_exit(&mut self, process: &Self::Process, registration: Registration);

    /// How a process ended and what it used, or `None` while it runs.
    fn wait(&mut self, process: &Self::Process, reap: Reap) -> io::Result<Option<(Exit, Usage)>>;

    /// How a process ended that somebody else has reaped; `None` while that is being done, after
    /// which its exit is reported once more to whoever watches for it.
    fn exit_after_reap(&mut self, process: &Self::Process) -> Option<Exit>;

    /// Why it is not known how a process has ended, if there is something to say about that.
    fn why_unknown(process: &Self::Process) -> Option<&'static str>;

    /// Sends a signal to a process; one that has exited is fine.
    fn signal(&mut self, process: &Self::Process, signal: Signal) -> io::Result<()>;

    /// Goes on with sending a signal to every process of a group, and to the main process wherever
    /// it is. Unless it has ended then, it is to be called again.
    fn deliver(
        &mut self,
        group: &Self::Group,
        main: &Self::Process,
        delivery: &mut Delivery,
    ) -> Result<()>;

    /// Kills every process of a group, which is that of this main process.
    fn kill(&mut self, group: &Self::Group, main: &Self::Process) -> Result<()>;

    /// Whether any process is in a group, but an exited leader of a process group. A process that
    /// has exited may be in its cgroup still.
    fn populated(&mut self, group: &Self::Group, main: &Self::Process) -> Result<bool>;

    /// At most so many of the processes in a group that have not exited.
    fn members(
        &mut self,
        group: &Self::Group,
        main: &Self::Process,
        most: usize,
    ) -> Result<Vec<Self::Process>>;

    /// Starts to freeze a group, or to thaw it.
    fn freeze(&mut self, group: &Self::Group, freeze: bool) -> Result<()>;

    /// Whether every process of a group is frozen.
    fn frozen(&mut self, group: &Self::Group) -> Result<bool>;

    /// The content of an interface file of a group, or `None` where there is none.
    fn read(&mut self, group: &Self::Group, file: &str) -> Result<Option<String>>;

    /// How often memory limits of the groups above a group were exceeded. With `fresh` it is read
    /// now; otherwise it is the last value that was read, for any group.
    fn limits_met_above(&mut self, group: &Self::Group, fresh: bool) -> u64;

    /// Goes on with removing a group that was found empty, whose main process was reaped; `false`
    /// while it is to be called again.
    fn remove(
        &mut self,
        group: &Self::Group,
        main: &Self::Process,
        removal: &mut Removal,
    ) -> Result<bool>;

    /// Keeps what is stored of a job on its group, with its report once it has one.
    fn store(
        &mut self,
        group: &Self::Group,
        stored: &Stored,
        report: Option<&Report>,
    ) -> Result<()>;

    /// Writes the report of a job to the history, if there is one.
    fn write_history(&mut self, stored: &Stored, report: &Report) -> Result<()>;

    /// Removes the group of a job that has survived until here, or records that it is to be removed
    /// once it is empty.
    fn bury(&mut self, group: &Self::Group, stored: &mut Stored, report: &Report);

    /// Where a group is, if it is a cgroup.
    fn path(group: &Self::Group) -> Option<PathBuf>;

    /// Whether the zombie of the main process has to stay until the group is empty.
    fn needs_leader(group: &Self::Group) -> bool;

    /// Watches an interface file of a group, if it is a cgroup.
    fn watch_file(&mut self, group: &Self::Group, file: &str, source: Source) -> io::Result<()>;

    /// Ends [`watch_file`](Self::watch_file).
    fn unwatch_file(&mut self, source: Source);

    /// Arms a pressure trigger on a group and watches it.
    fn watch_pressure(
        &mut self,
        group: &Self::Group,
        resource: Stallable,
        stall: Stall,
        source: Source,
    ) -> Result<(Registration, Self::Trigger)>;

    /// Ends [`watch_pressure`](Self::watch_pressure).
    fn unwatch_pressure(&mut self, trigger: Self::Trigger, registration: Registration);

    /// Whether a trigger has fired, after a notice with or without priority.
    fn fired(&mut self, trigger: &mut Self::Trigger, priority: bool) -> bool;

    /// Watches a terminal for output: there is a notice whenever some has come that a call of
    /// [`copy_output`](Self::copy_output) has not found.
    fn watch_terminal(
        &mut self,
        terminal: &Self::Terminal,
        source: Source,
    ) -> io::Result<Registration>;

    /// Ends [`watch_terminal`](Self::watch_terminal).
    fn unwatch_terminal(&mut self, terminal: &Self::Terminal, registration: Registration);

    /// Copies the output of a terminal to the log, a bounded number of bytes. After a failure
    /// nothing is lost, and it can be called again.
    fn copy_output(&mut self, terminal: &mut Self::Terminal) -> Result<Copied>;

    /// Copies what is left in the terminal of a job that is over. After a failure, that is lost.
    fn copy_last_output(&mut self, terminal: &mut Self::Terminal) -> Result<()>;

    /// Marks the job of a log as finished, and returns where its log ends.
    fn finish_log(&mut self, log: Key) -> Result<u64>;

    /// Marks the job of a log as finished by an earlier host, which has found its end, at this time
    /// since the system was booted.
    fn finish_log_at(&mut self, log: Key, end: u64, at: Duration);

    /// Says so if a log may lack something, because its file system was full at any time since, or
    /// is known to have been.
    fn log_cut(&mut self, log: Key, since: Instant, is_known: bool) -> Option<Error>;

    /// Whether a log that was just finished is longer than its limit, which was not reported.
    fn log_exceeded(&mut self, log: Key) -> bool;

    /// How many bytes of a log were discarded, because they were beyond its limit.
    fn log_discarded(&self, log: Key) -> u64;

    /// Why a log could not be kept short, if that was not asked before.
    fn log_problem(&mut self, log: Key) -> Option<Error>;

    /// Closes the tails that a job's log has, and removes the file unless it is to be kept.
    fn remove_log(&mut self, log: Key, keep: bool) -> Result<()>;
}
