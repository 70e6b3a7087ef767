//! Owns [`BoundedSpawns`]: which spawns return within the host's time.
//!
//! Plain data; knows nothing of how a spawn is bounded.

use crate::command::Command;

/// Which spawns take no longer than
/// [`Config::spawn_timeout`](crate::Config::spawn_timeout), whatever somebody does to the child.
///
/// A spawn blocks until the child has executed its program. Until then the child may be held up
/// without limit, and an unbounded spawn with it: by a process of the job's user that stops it once
/// it runs under that user's id, by a working directory or a program on a network file system that
/// does not answer, or by somebody who freezes the cgroup.
///
/// # What it costs
/// The child of an unbounded spawn borrows the host's memory, and the cost does not depend on the
/// size of the host. That of a bounded one must not, and is made in one of two ways; the `spawn`
/// benchmark measures both.
///
/// **Through a launcher**, if the host has set [one](crate::Config::launcher). The child executes
/// this small program at once, which then becomes the job's program. That takes 0.2 to 0.4 ms more
/// than an unbounded spawn, and does not depend on the size of the host either. The time bounds the
/// wait for the launcher once that is executed. Until then the child has the host's ids and memory,
/// so the launcher has to be on a file system that answers, and somebody who freezes the cgroup
/// above the job's in the fraction of a millisecond before makes the host wait until it is thawed.
///
/// **On a copy** of the host otherwise, for which the kernel copies the host's page tables, as
/// fork(2) does: the larger the host's memory, the longer it takes, 0.3 ms more in a small host,
/// about 50 ms with 1 GiB and 140 ms with 4 GiB in pages of 4 KiB, where an unbounded one takes
/// less than 1 ms. Each page that the host writes to before the program is executed is copied as
/// well. With the sysctl `vm.overcommit_memory` set to 2, a large host may be refused the copy with
/// `ENOMEM`. The time for the copy itself is not bounded by the timeout.
///
/// ```
/// use jobworker::{BoundedSpawns, Config};
/// use std::time::Duration;
///
/// let mut config = Config::new();
/// config.bounded_spawns(BoundedSpawns::All).spawn_timeout(Duration::from_secs(2));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BoundedSpawns {
    /// Those of a command with a [`uid`](crate::Command::uid) or [`gid`](crate::Command::gid),
    /// which another user can hold up.
    #[default]
    ChangingIds,
    /// All, for a host whose programs or working directories may be on a file system that does not
    /// answer.
    All,
    /// None. A process with the id of a job's user can make the host wait for ever: only for
    /// commands that change no ids, or where those users are trusted.
    None,
}

impl BoundedSpawns {
    /// Whether the spawn of this command is bounded.
    pub(crate) fn includes(self, command: &Command) -> bool {
        match self {
            Self::ChangingIds => command.uid.is_some() || command.gid.is_some(),
            Self::All => true,
            Self::None => false,
        }
    }
}
