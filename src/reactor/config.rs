//! Owns [`Config`]: how a reactor is set up. Plain data; everything is checked when the reactor is
//! made.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::job::Containment;

/// How a [`Reactor`](crate::Reactor) is set up.
///
/// ```
/// use jobworker::{Config, Reactor};
/// use std::time::Duration;
///
/// let mut config = Config::new();
/// config.pace(Duration::from_micros(500)).window_bytes(256 * 1024);
/// let reactor = Reactor::with_config(&config)?;
/// # drop(reactor);
/// # Ok::<(), jobworker::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a configuration does nothing until a reactor is made with it"]
pub struct Config {
    pub(crate) containment: Containment,
    pub(crate) cgroup_parent: Option<PathBuf>,
    pub(crate) host_leaf: Option<String>,
    pub(crate) log_dir: Option<PathBuf>,
    pub(crate) pace: Duration,
    pub(crate) window_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            containment: Containment::Cgroup,
            cgroup_parent: None,
            host_leaf: None,
            log_dir: None,
            pace: Duration::from_micros(200),
            window_bytes: 64 * 1024,
        }
    }
}

impl Config {
    /// Jobs in cgroups, in the place that fits the system; logs in a directory of the reactor's
    /// own.
    pub fn new() -> Self {
        Self::default()
    }

    /// How the processes of a job are held together.
    pub fn containment(&mut self, containment: Containment) -> &mut Self {
        self.containment = containment;
        self
    }

    /// The cgroup under which a cgroup is made for each job; it must exist.
    ///
    /// By default it is the host's own cgroup where that was delegated (systemd marks it so for
    /// `Delegate=`), otherwise the root of the cgroup2 tree where that is writable, otherwise
    /// the host's own cgroup.
    pub fn cgroup_parent(&mut self, dir: impl AsRef<Path>) -> &mut Self {
        self.cgroup_parent = Some(dir.as_ref().to_owned());
        self
    }

    /// Moves the host itself into a cgroup of this name, below the one it is in, when the reactor
    /// is made.
    ///
    /// A cgroup with processes of its own cannot pass controllers on to groups below it. So where
    /// jobs are made in the host's own cgroup, as in a delegated one, limits need the host out
    /// of the way. The whole process moves; others in the same cgroup are left alone, and are
    /// then in the way. Moving takes the kernel some milliseconds.
    pub fn host_leaf(&mut self, name: &str) -> &mut Self {
        self.host_leaf = Some(name.to_owned());
        self
    }

    /// The directory of the logs; it must exist, belong to the host's user and be closed to all
    /// others (mode 0700).
    ///
    /// By default a directory with a name of its own is made in [`std::env::temp_dir`], and removed
    /// with the reactor when no log was to be kept.
    pub fn log_dir(&mut self, dir: impl AsRef<Path>) -> &mut Self {
        self.log_dir = Some(dir.as_ref().to_owned());
        self
    }

    /// How long a log that grows without a pause is left alone between two looks at it; 200 µs by
    /// default.
    ///
    /// A log counts as hot after four growths, each within one pace of the one before. Growth after
    /// a pause is always noticed at once. Zero never paces: each growth wakes the reactor, and
    /// slows the writer down.
    pub fn pace(&mut self, pace: Duration) -> &mut Self {
        self.pace = pace;
        self
    }

    /// How many of a log's newest bytes are shared by its tails in memory, and how many are read in
    /// one turn; 64 KiB by default, at least 16.
    ///
    /// A log with tails uses up to three times as much memory. A tail that is further behind reads
    /// the file itself.
    pub fn window_bytes(&mut self, bytes: usize) -> &mut Self {
        self.window_bytes = bytes;
        self
    }
}
