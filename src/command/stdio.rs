//! Owns [`Stdin`] and [`Output`]: what a job's standard streams are.
//!
//! Invariant: plain data, which opens nothing; a descriptor in it was opened by the host, and is
//! shared by all clones. Knows nothing of how streams are connected.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use crate::command::terminal::Terminal;

/// Where a job's standard input comes from.
///
/// ```
/// use jobworker::{Command, Stdin};
///
/// let mut command = Command::new("sort");
/// command.stdin(Stdin::File("/etc/passwd".into()));
/// ```
#[derive(Clone, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Stdin {
    /// It is empty (`/dev/null`).
    #[default]
    Null,
    /// A file, which the host opens at each spawn; see [`Command::stdin_file`].
    ///
    /// [`Command::stdin_file`]: crate::Command::stdin_file
    File(#[cfg_attr(feature = "serde", serde(with = "crate::portable"))] PathBuf),
    /// A descriptor of the host; see [`Command::stdin_fd`].
    ///
    /// [`Command::stdin_fd`]: crate::Command::stdin_fd
    Fd(#[cfg_attr(feature = "serde", serde(with = "crate::portable"))] Arc<OwnedFd>),
    /// These bytes, from the first to the last for each job.
    ///
    /// Each spawn copies them into a file in memory, sealed so that the job cannot change it (see
    /// memfd_create(2)): the job can read at any speed, seek and map it, and the host has nothing
    /// more to do. The memory counts as the host's until the job has closed the file.
    Bytes(#[cfg_attr(feature = "serde", serde(with = "crate::portable"))] Arc<[u8]>),
    /// A pipe for each job, whose other end [`Reactor::take_stdin`] gives to the host.
    ///
    /// [`Reactor::take_stdin`]: crate::Reactor::take_stdin
    Piped,
    /// The terminal that is the job's output, which has to be [`Output::Terminal`].
    ///
    /// The job reads what the host types by [`Reactor::terminal_input`]. Until it changes the
    /// settings of its terminal, it reads whole lines, the terminal echoes them, so that they are
    /// in the log as well, and Ctrl-C interrupts it. Nothing ends such an input but a Ctrl-D that
    /// is typed at the beginning of a line: a job that reads from a terminal nobody types into
    /// waits for ever.
    ///
    /// [`Reactor::terminal_input`]: crate::Reactor::terminal_input
    Terminal,
}

/// Writes the number of bytes instead of [`Bytes`](Self::Bytes) themselves, which may be secret.
impl fmt::Debug for Stdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Fd(fd) => f.debug_tuple("Fd").field(fd).finish(),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Piped => f.write_str("Piped"),
            Self::Terminal => f.write_str("Terminal"),
        }
    }
}

impl Stdin {
    /// The descriptor, such as one end of a pipe.
    #[must_use]
    pub fn fd(fd: impl Into<OwnedFd>) -> Self {
        Self::Fd(Arc::new(fd.into()))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bytes(bytes.into().into())
    }
}

/// Where a job's standard output and standard error go. What reads them in a worker is a
/// [`worker::Output`](crate::worker::Output).
///
/// ```
/// use jobworker::{Command, Output};
///
/// let mut command = Command::new("make");
/// command.output(Output::Split);
/// // Past the log, to where the host's own messages go.
/// command.output(Output::Inherit);
/// ```
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Output {
    /// One log for both, in the order in which the job wrote: one open file description in append
    /// mode.
    #[default]
    Combined,
    /// A log for each. The order of writes to different streams is then not recorded.
    Split,
    /// Both are discarded (`/dev/null`), and the job has no log to tail.
    Null,
    /// The host's own standard output and standard error at the time of the spawn, descriptors 1
    /// and 2. The job has no log to tail.
    Inherit,
    /// Descriptors of the host, such as files, sockets or the end of a pipe. The job has no log to
    /// tail.
    ///
    /// All jobs that are spawned from a command and its clones share them. They are closed when the
    /// last of these commands is dropped: whoever reads the other end of a pipe gets its end only
    /// after that.
    Fd {
        /// Standard output.
        #[cfg_attr(feature = "serde", serde(with = "crate::portable"))]
        output: Arc<OwnedFd>,
        /// Standard error.
        #[cfg_attr(feature = "serde", serde(with = "crate::portable"))]
        error: Arc<OwnedFd>,
    },
    /// A pseudo-terminal of the job's own, for programs that buffer or behave differently without
    /// one. What the job prints on it is copied into one log, which is read, kept and ends as any
    /// other.
    ///
    /// The job leads a session whose controlling terminal this is: a
    /// [`process_group`](crate::Command::process_group) other than the default is refused. Standard
    /// input is what [`Stdin`] says, with [`Stdin::Terminal`] the same terminal. With a
    /// [`uid`](crate::Command::uid) the terminal belongs to that user, and nobody else may open it.
    /// [`Reactor::resize`](crate::Reactor::resize) changes its size. Most programs want to know
    /// what sort of terminal it is: set the variable `TERM`.
    ///
    /// # What is in the log
    /// Every byte that comes out of the terminal, once, in order: what the job prints, what the
    /// terminal echoes, and a carriage return before each line feed, unless the output is
    /// [raw](Terminal::raw_output) or the job changes that setting. What the job itself discards
    /// with tcflush(3) before it was copied is not. The host holds the log open, and the job has no
    /// other way to it: `echo > /dev/stderr` prints, and does not truncate.
    ///
    /// # When it ends
    /// When the main process exits, the kernel sends SIGHUP to the terminal's foreground process
    /// group, to which processes that a shell without job control has started belong as well. Those
    /// that go on under [`EndPolicy::WaitAll`](crate::EndPolicy::WaitAll) can print until the last
    /// of them is gone. Under [`LeaveRest`](crate::EndPolicy::LeaveRest), what is in the terminal
    /// when the main process exits is the end of the output, and the terminal is hung up: what is
    /// left behind cannot print on it any more (`EIO`). A [detached](crate::Command::detached) job,
    /// which would lose its terminal with the host, is refused.
    ///
    /// # What it costs
    /// Output passes through the host, which holds two more descriptors for the job. A turn of the
    /// loop copies at most 128 KiB, 16 KiB of a job at a time, and a job that prints faster waits,
    /// as on a full pipe. So a host that does not poll holds up its jobs, and a slow disk holds up
    /// the host. The `terminal` benchmark, on a busy machine with two processors: 16 KiB take the
    /// loop 0.1 ms; a turn beside 100 jobs that print without pause takes 1 ms, and 2 ms in one of
    /// a hundred; a job prints 26 to 30 MB/s in lines of 100 bytes and 40 to 100 MB/s in pieces of
    /// 64 KiB, where a plain log takes 41 to 71 MB/s and more than 1 GB/s; a line reaches a tail 30
    /// to 50 µs later than in a plain log. The kernel hands output over by a thread of its own,
    /// which has to wait for a processor as any other: where none is free for long, a line can
    /// arrive, and a turn can take, some milliseconds later.
    ///
    /// # When the log cannot be written
    /// While the disk is full, or the log has reached the host's `RLIMIT_FSIZE` (without a SIGXFSZ
    /// for the host), nothing more is copied and the job waits when it prints. The loop tries again
    /// every second, and nothing is lost; the report lists the failure as a problem. Only if it
    /// still fails when the job is over, what is in the terminal then is lost, less than 64 KiB,
    /// and the report says how much that is:
    /// [`JobError::OutputLost`](crate::JobError::OutputLost).
    Terminal(Terminal),
}

impl Output {
    /// One descriptor for both, which the job's streams then share.
    ///
    /// ```
    /// use jobworker::{Command, Output, Reactor, Token};
    /// use std::io::Read;
    ///
    /// let mut reactor = Reactor::new()?;
    /// let (mut reader, writer) = std::io::pipe()?;
    /// let mut command = Command::new("echo");
    /// command.arg("hello").output(Output::fd(writer));
    /// reactor.spawn(&command, Token(1))?;
    /// drop(command);
    /// let mut text = String::new();
    /// reader.read_to_string(&mut text)?;
    /// assert_eq!(text, "hello\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn fd(fd: impl Into<OwnedFd>) -> Self {
        let output = Arc::new(fd.into());
        Self::Fd { error: Arc::clone(&output), output }
    }

    /// A descriptor for each.
    #[must_use]
    pub fn fds(output: impl Into<OwnedFd>, error: impl Into<OwnedFd>) -> Self {
        Self::Fd { output: Arc::new(output.into()), error: Arc::new(error.into()) }
    }

    /// Whether a job has a log.
    pub(crate) fn has_log(&self) -> bool {
        match self {
            Self::Combined | Self::Split | Self::Terminal(_) => true,
            Self::Null | Self::Inherit | Self::Fd { .. } => false,
        }
    }
}
