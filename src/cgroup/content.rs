//! Owns how a file of a group is read: as a whole, and what it means that it is gone.
//!
//! Knows nothing of what the files say.

use std::io;
use std::os::fd::AsFd;

use rustix::io::{Errno, read};

/// Whether the error says that the group does not exist any more: ENOENT by path, ENODEV by an open
/// file.
pub(super) fn gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NODEV))
}

/// Reads a file from where it is to its end.
pub(super) fn read_to_string(file: impl AsFd) -> io::Result<String> {
    String::from_utf8(read_to_end(file)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Like [`read_to_string`], for a file with names that others have chosen.
pub(super) fn read_to_end(file: impl AsFd) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        let length = read(&file, &mut chunk)?;
        content.extend_from_slice(&chunk[..length]);
        if length == 0 {
            return Ok(content);
        }
    }
}
