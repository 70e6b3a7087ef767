//! The flags that say where a host makes its jobs.
//!
//! Invariant: without a flag, jobs are in cgroups, or the host cannot be made. One that does with
//! less ([`PlaceFlags::config_or_group`]) has something to say then ([`PlaceFlags::note`]): jobs
//! are never held together by less in silence.

use std::path::PathBuf;

use clap::Args;
use jobworker::{Config, Containment};

#[derive(Args)]
pub(crate) struct PlaceFlags {
    /// Make the cgroup of each job in this one, which you may write to.
    #[arg(long, value_name = "DIR", help_heading = "Where")]
    cgroup_parent: Option<PathBuf>,
    /// Hold a job together by its process group only, which it can leave, and without limits.
    #[arg(long, conflicts_with = "cgroup_parent", help_heading = "Where")]
    no_cgroup: bool,
    /// Directory of the logs, which must be yours, with mode 0700. By default a temporary one.
    #[arg(long, value_name = "DIR", help_heading = "Where")]
    log_dir: Option<PathBuf>,
}

impl PlaceFlags {
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new();
        if self.no_cgroup {
            config.containment(Containment::ProcessGroup);
        }
        if let Some(dir) = &self.cgroup_parent {
            config.cgroup_parent(dir);
        }
        if let Some(dir) = &self.log_dir {
            config.log_dir(dir);
        }
        config
    }

    /// The same, but where there are no cgroups, jobs do without them, unless one was named.
    #[allow(dead_code, reason = "each example is a crate; a service insists on cgroups")]
    pub(crate) fn config_or_group(&self) -> Config {
        let mut config = self.config();
        if !self.no_cgroup && self.cgroup_parent.is_none() {
            config.containment(Containment::BestAvailable);
        }
        config
    }

    /// Whether jobs are to do without cgroups.
    #[allow(dead_code, reason = "each example is a crate, and only one checks the system")]
    pub(crate) fn without_cgroup(&self) -> bool {
        self.no_cgroup
    }

    /// What there is to say about how jobs are held together, if it is less than was asked for.
    #[allow(dead_code, reason = "as above")]
    pub(crate) fn note(&self, containment: Containment) -> Option<&'static str> {
        let less = !self.no_cgroup && containment == Containment::ProcessGroup;
        less.then_some(
            "no cgroup can be made here, so a process group holds the job together, which it can \
             leave. `cargo run --example doctor` says what is missing; pass --no-cgroup if this is \
             intended",
        )
    }
}
