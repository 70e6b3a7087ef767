//! Owns [`into_error`]: what a failure of the system means for a log.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::error::{Error, TailError};
use crate::log::place::NotOurLog;

/// The error of an operation on the log at `path`.
pub(crate) fn into_error(operation: &'static str, path: PathBuf, cause: io::Error) -> Error {
    let not_ours = matches!(cause.get_ref(), Some(inner) if inner.is::<NotOurLog>());
    if not_ours {
        TailError::Replaced { path }.into()
    } else if Errno::from_io_error(&cause) == Some(Errno::NOSPC) {
        // From inotify it means the limit on watches, and reading gives no such error.
        TailError::WatchLimit { path }.into()
    } else {
        Error::log(operation, path)(cause)
    }
}
