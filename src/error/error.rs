//! Owns [`Error`]: everything that can go wrong, by subject.
//!
//! Invariant: no `From<io::Error>`: an errno never travels upwards without what was tried, and on
//! what. Does no I/O itself.

use std::io;
use std::path::PathBuf;

use crate::error::jobs::JobError;
use crate::error::kind::ErrorKind;
use crate::error::limits::{InvalidLimit, LimitsError};
use crate::error::recorded::RecordedError;
use crate::error::spawn::SpawnError;
use crate::error::system::SystemError;
use crate::error::tails::TailError;
use crate::error::worker::WorkerError;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by subject; each with the operation, the path or program it concerned, the
/// cause and, where known, what to do.
///
/// The message has all of it, the cause included, so
/// [`source`](std::error::Error::source) is always `None`: print the error alone. Match on it for
/// one condition, and on [`kind`](Self::kind) for a class of them.
///
/// ```
/// use jobworker::{Command, Error, ErrorKind, Reactor, SpawnError, Stage, Token};
///
/// let mut reactor = Reactor::new()?;
/// let error = reactor.spawn(&Command::new("/no/such/program"), Token(0)).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// match error {
///     Error::Spawn(SpawnError::Failed { stage: Stage::Exec, cause, .. }) => println!("{cause}"),
///     other => panic!("{other}"),
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Limits cannot be set, or would not be enforced.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// A log cannot be opened, watched or read.
    #[error(transparent)]
    Tail(#[from] TailError),
    /// A job is unknown, in the wrong state, or cannot be observed as asked for.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The system refused something that the reactor needs.
    #[error(transparent)]
    System(#[from] SystemError),
    /// An error that was written down, in a report that outlives its host or, with the feature
    /// `serde`, by the host, and read back.
    #[error(transparent)]
    Recorded(#[from] RecordedError),
    /// The thread of a worker is gone, or cannot be waited for.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

impl Error {
    /// What sort of error it is, for a host that decides what to do next.
    ///
    /// ```
    /// use jobworker::{Error, ErrorKind};
    ///
    /// /// Whether it is worth trying again later.
    /// fn transient(error: &Error) -> bool {
    ///     matches!(error.kind(), ErrorKind::LimitReached | ErrorKind::State)
    /// }
    /// # let _ = transient;
    /// ```
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Spawn(error) => error.kind(),
            Self::Limits(error) => error.kind(),
            Self::Tail(error) => error.kind(),
            Self::Job(error) => error.kind(),
            Self::System(error) => error.kind(),
            Self::Recorded(error) => error.kind,
            Self::Worker(error) => error.kind(),
        }
    }

    /// Whether whoever has made the command can mend it: a program, path, user or limit that is not
    /// there or may not be used, a limit that this host cannot enforce
    /// ([`Unsupported`](ErrorKind::Unsupported)), or a command that can be run nowhere. For a host
    /// that runs what others send it, as the difference between the fault of a client and its own:
    /// with [`kind`](Self::kind) alone, a log directory that was removed is `NotFound` as well.
    ///
    /// ```
    /// use jobworker::{Command, Config, Reactor, Token};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let error = reactor.spawn(&Command::new("/no/such/program"), Token(0)).unwrap_err();
    /// assert!(error.is_about_command());
    /// let error = Reactor::with_config(Config::new().log_dir("/no/such/directory")).unwrap_err();
    /// assert!(!error.is_about_command());
    /// # Ok::<(), jobworker::Error>(())
    /// ```
    #[must_use]
    pub fn is_about_command(&self) -> bool {
        let can_be_mended = matches!(
            self.kind(),
            ErrorKind::InvalidInput
                | ErrorKind::NotFound
                | ErrorKind::PermissionDenied
                | ErrorKind::Unsupported
        );
        let of_command = match self {
            Self::Spawn(error) => error.is_of_command(),
            Self::Limits(error) => !matches!(error, LimitsError::ControllerBlocked { .. }),
            _ => false,
        };
        can_be_mended && of_command
    }

    /// The errno behind the error, if there is one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        let cause = match self {
            Self::Spawn(error) => error.cause(),
            Self::Limits(error) => error.cause(),
            Self::Tail(error) => error.cause(),
            Self::Job(error) => error.cause(),
            Self::System(error) => error.cause(),
            Self::Recorded(error) => return error.raw_os_error,
            Self::Worker(_) => None,
        };
        cause.and_then(io::Error::raw_os_error)
    }

    /// For `map_err`: a failed call on a path.
    pub(crate) fn path<E: Into<io::Error>>(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |cause| SystemError::Path { operation, path, cause: cause.into() }.into()
    }

    /// For `map_err`: a failed call on a log that is to be read.
    pub(crate) fn log<E: Into<io::Error>>(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |cause| TailError::Io { operation, path, cause: cause.into() }.into()
    }

    /// For `map_err`: a failed call of the loop.
    pub(crate) fn event_loop<E: Into<io::Error>>(
        operation: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |cause| SystemError::Loop { operation, cause: cause.into() }.into()
    }
}

impl From<InvalidLimit> for Error {
    fn from(invalid: InvalidLimit) -> Self {
        Self::Limits(LimitsError::Invalid(invalid))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use rustix::io::Errno;

    use super::*;
    use crate::error::spawn::Stage;
    use crate::id::JobId;

    fn cause(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.raw_os_error())
    }

    /// One error of each subject that has a cause, with this cause.
    fn caused(errno: Errno) -> [Error; 7] {
        let (path, operation) = (PathBuf::from("/some/path"), "open");
        [
            SpawnError::Failed {
                program: "true".into(),
                stage: Stage::Exec,
                path: None,
                cause: cause(errno),
            }
            .into(),
            SpawnError::Placement { path: path.clone(), stage: Stage::Clone, cause: cause(errno) }
                .into(),
            LimitsError::ControllerBlocked {
                file: "cpu.weight".to_owned(),
                controller: "cpu".to_owned(),
                path: path.clone(),
                cause: cause(errno),
            }
            .into(),
            Error::log(operation, &path)(cause(errno)),
            JobError::StallRefused { path: path.clone(), reason: "no", cause: Some(cause(errno)) }
                .into(),
            Error::path(operation, path)(cause(errno)),
            Error::event_loop(operation)(cause(errno)),
        ]
    }

    #[test]
    fn each_cause_is_printed_once() {
        for errno in [Errno::MFILE, Errno::ACCESS, Errno::BUSY, Errno::IO] {
            for error in caused(errno) {
                assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{error}");
                // What a host prints when it walks the chain of sources, as anyhow's `{:#}` does.
                let mut text = error.to_string();
                let mut next = error.source();
                while let Some(source) = next {
                    text += &format!(": {source}");
                    next = source.source();
                }
                let cause = cause(errno).to_string();
                assert_eq!(text.matches(&cause).count(), 1, "{text}");
            }
        }
        let invalid = InvalidLimit::Size { text: "12Q".to_owned() };
        let error = Error::from(invalid.clone());
        assert_eq!(error.to_string(), format!("cannot set limits: {invalid}"));
        assert!(error.source().is_none());
    }

    #[test]
    fn an_error_names_operation_path_cause_and_remedy() {
        let error = Error::path("open", "/some/log")(cause(Errno::MFILE));
        let text = error.to_string();
        assert!(text.starts_with("cannot open /some/log: Too many open files"), "{text}");
        assert!(text.ends_with("(raise RLIMIT_NOFILE, or remove finished jobs)"), "{text}");
    }

    #[test]
    fn the_kind_is_what_a_host_would_branch_on() {
        let kinds = |errno| caused(errno).map(|error| error.kind());
        let [missing, ..] = kinds(Errno::NOENT);
        assert_eq!(missing, ErrorKind::NotFound);
        assert_eq!(kinds(Errno::ACCESS), [ErrorKind::PermissionDenied; 7]);
        // E2BIG is about the arguments when exec fails, and about the kernel's version when clone3
        // does.
        let [arguments, clone, ..] = kinds(Errno::TOOBIG);
        assert_eq!((arguments, clone), (ErrorKind::InvalidInput, ErrorKind::Unsupported));
        let [.., path, _] = kinds(Errno::NOSPC);
        assert_eq!(path, ErrorKind::LimitReached);
        let job = JobId::new(uuid::Uuid::nil());
        for (error, kind) in [
            (Error::from(JobError::Unknown(job)), ErrorKind::StaleId),
            (JobError::NotFinished(job).into(), ErrorKind::State),
            (JobError::NotInCgroup(job).into(), ErrorKind::Unsupported),
            (LimitsError::NeedCgroup.into(), ErrorKind::Unsupported),
            (InvalidLimit::Size { text: String::new() }.into(), ErrorKind::InvalidInput),
            (TailError::WatchLimit { path: PathBuf::new() }.into(), ErrorKind::LimitReached),
            (SpawnError::Frozen { path: PathBuf::new() }.into(), ErrorKind::State),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
