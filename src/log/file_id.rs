//! Owns [`FileId`]: the identity of a file, as a host writes it down to resume a tail.
//!
//! Plain data; knows nothing of tails.

use std::fmt;
use std::str::FromStr;

use crate::log::file::Identity;

/// Which file a tail reads, whatever its name: device, inode and, on file systems that keep it, the
/// time of birth. From [`Reactor::file_id`](crate::Reactor::file_id), for
/// [`TailOptions::resume`](crate::TailOptions::resume).
///
/// It can be written down and parsed again. Device numbers may change when the system is booted
/// again, and where no time of birth is kept, another file can get the inode of one that is gone.
///
/// ```
/// use jobworker::{FileId, Position, Reactor, Token};
///
/// let mut reactor = Reactor::new()?;
/// let tail = reactor.tail_file("/etc/passwd", Position::Start, Token(0))?;
/// let id = reactor.file_id(tail)?.expect("it has been opened");
/// let text = id.to_string(); // such as 8:1:131074:1700000000.250000000
/// assert_eq!(text.parse(), Ok(id));
/// assert!("passwd".parse::<FileId>().is_err());
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(pub(crate) Identity);

/// Writes `major:minor:inode` and, where it is known, `:seconds.nanoseconds` of the birth.
impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { device: (major, minor), inode, birth } = self.0;
        write!(f, "{major}:{minor}:{inode}")?;
        match birth {
            Some((seconds, nanoseconds)) => write!(f, ":{seconds}.{nanoseconds:09}"),
            None => Ok(()),
        }
    }
}

/// Parses what [`Display`](fmt::Display) has written.
impl FromStr for FileId {
    type Err = InvalidFileId;

    fn from_str(text: &str) -> Result<Self, InvalidFileId> {
        parse(text).map(Self).ok_or_else(|| InvalidFileId { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Identity> {
    let mut parts = text.split(':');
    let device = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let inode = parts.next()?.parse().ok()?;
    let birth = match parts.next() {
        Some(time) => {
            let (seconds, nanoseconds) = time.split_once('.')?;
            Some((seconds.parse().ok()?, nanoseconds.parse().ok()?))
        }
        None => None,
    };
    parts.next().is_none().then_some(Identity { device, inode, birth })
}

/// A text that is not the id of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the id of a file: it has to be major:minor:inode[:seconds.nanoseconds]")]
#[non_exhaustive]
pub struct InvalidFileId {
    /// The text.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_same_when_it_is_parsed_again() {
        for birth in [None, Some((0, 0)), Some((-5, 7)), Some((i64::MAX, 999_999_999))] {
            let id = FileId(Identity { device: (8, u32::MAX), inode: u64::MAX, birth });
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", "1:2", "1:2:3:4", "1:2:3:4.5:6", "1:2:-3", "x:2:3", "1:2:3:.5"] {
            assert!(text.parse::<FileId>().is_err(), "{text}");
        }
    }
}
