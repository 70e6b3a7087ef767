//! Owns [`Stdin`] and [`Output`]: what a job's standard streams are.
//!
//! Invariant: plain data, which opens nothing; a descriptor in it was opened by the host, and is
//! shared by all clones. Knows nothing of how streams are connected.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

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

/// Where a job's standard output and standard error go.
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
            Self::Combined | Self::Split => true,
            Self::Null | Self::Inherit | Self::Fd { .. } => false,
        }
    }
}
