//! Owns [`Capabilities`]: what this system offers for running jobs, and what to do about what is
//! missing.
//!
//! Invariant: features are tested where possible instead of being derived from version numbers, and
//! nothing is left changed.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::{env, fmt, fs};

use rustix::process::{Resource, getrlimit};

use crate::cgroup::{Owner, Tree, disks_with_bfq, lists, v1_mounts};
use crate::command::Limits;
use crate::error::{Error, SystemError};
use crate::job::{open_launcher, open_null, test_placement};
use crate::reactor::config::Config;
use crate::sys::{Nurseries, random_uuid, tells_pidfd_info};

/// What this system offers for running jobs.
///
/// ```
/// use jobworker::Capabilities;
///
/// let capabilities = Capabilities::probe();
/// println!("{capabilities}");
/// assert!(capabilities.can_run_jobs());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// The checks, in reading order.
    pub checks: Vec<Check>,
}

/// The result of one check.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Check {
    /// What it is.
    pub name: &'static str,
    /// Whether it is there.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What it is needed for.
    pub good_for: Cow<'static, str>,
    /// What to do when it is missing.
    pub remedy: &'static str,
}

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It is.
    Present,
    /// It is not, and jobs run without it.
    Missing,
    /// It is not, and no job can run in a cgroup without it.
    Fatal,
}

impl Verdict {
    fn present_or(present: bool, otherwise: Self) -> Self {
        if present { Self::Present } else { otherwise }
    }
}

impl Capabilities {
    /// Checks this system as a reactor with the default [`Config`] would use it. Blocks for about
    /// as long as a spawn.
    #[must_use]
    pub fn probe() -> Self {
        Self::probe_with(&Config::new())
    }

    /// Checks this system as a reactor with this configuration would use it.
    #[must_use]
    pub fn probe_with(config: &Config) -> Self {
        let mut checks = vec![kernel(), container()];
        let tree = Tree::locate(config.cgroup_parent.as_deref(), config.host_leaf.as_deref());
        let located = tree.and_then(|tree| Owner::new(&Arc::new(tree)));
        checks.push(cgroup_tree(located.as_ref().map(|owner| &**owner.tree())));
        if let Ok(owner) = &located {
            checks.extend(in_tree(owner));
        }
        checks.extend([
            pressure(),
            pidfd_info(),
            launcher(config.launcher.as_deref()),
            watches(),
            descriptors(),
        ]);
        Self { checks }
    }

    /// Whether jobs can be run in cgroups.
    #[must_use]
    pub fn can_run_jobs(&self) -> bool {
        self.checks.iter().all(|check| check.verdict != Verdict::Fatal)
    }
}

/// Writes a paragraph for each check.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            let mark = match check.verdict {
                Verdict::Present => "ok     ",
                Verdict::Missing => "missing",
                Verdict::Fatal => "FATAL  ",
            };
            writeln!(f, "{mark} {}: {}", check.name, check.found)?;
            writeln!(f, "        needed for: {}", check.good_for)?;
            if check.verdict != Verdict::Present {
                writeln!(f, "        remedy: {}", check.remedy)?;
            }
        }
        let sum = if self.can_run_jobs() { "can" } else { "cannot" };
        write!(f, "This system {sum} run jobs in cgroups.")
    }
}

fn kernel() -> Check {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Check {
        name: "kernel",
        verdict: Verdict::present_or(version >= (5, 14), Verdict::Fatal),
        found: format!("Linux {release} on {}", name.machine().to_string_lossy()),
        good_for: "clone3 into a cgroup (5.7), close_range (5.9) and cgroup.kill (5.14)".into(),
        remedy: "update to Linux 5.14 or newer",
    }
}

fn container() -> Check {
    // What the managers leave for those who ask; see systemd's CONTAINER_INTERFACE.
    let exists = |path: &str| Path::new(path).exists();
    let manager = fs::read_to_string("/run/systemd/container").ok();
    let kind = manager.as_deref().map(str::trim).filter(|name| !name.is_empty()).or_else(|| {
        let found = [
            (env::var_os("KUBERNETES_SERVICE_HOST").is_some(), "kubernetes"),
            (exists("/run/.containerenv"), "podman"),
            (exists("/.dockerenv"), "docker"),
        ];
        found.into_iter().find(|(found, _)| *found).map(|(_, kind)| kind)
    });
    let first = std::process::id() == 1;
    // The initial user namespace maps every number to itself.
    let ids = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let maps_ids = !ids.split_whitespace().eq(["0", "0", "4294967295"]);
    let mut found = kind.map_or_else(|| "none was found".to_owned(), str::to_owned);
    if maps_ids {
        found += ", in a user namespace";
    }
    if first {
        found += ", as process 1, which has to reap what jobs leave behind";
    }
    Check {
        name: "container",
        verdict: Verdict::Present,
        found,
        good_for: "knowing who has to hand over a cgroup tree: see the chapter on containers"
            .into(),
        remedy: "",
    }
}

fn cgroup_tree(located: Result<&Tree, &Error>) -> Check {
    let v1 = v1_mounts();
    let kind = if v1.is_empty() {
        "pure".to_owned()
    } else {
        format!("hybrid, alongside version 1: {}", v1.join(" "))
    };
    Check {
        name: "cgroup tree",
        verdict: Verdict::present_or(located.is_ok(), Verdict::Fatal),
        found: match located {
            Ok(tree) => {
                let whose = if tree.is_delegated() {
                    "delegated by the service manager"
                } else {
                    "not delegated"
                };
                format!("jobs are made in {} ({whose}; {kind})", tree.path().display())
            }
            Err(error) => error.to_string(),
        },
        good_for: "holding all processes of a job together, so that none is left behind".into(),
        remedy: "mount cgroup2 and run as root, or have a cgroup delegated to this user (systemd: \
                 Delegate=yes)",
    }
}

/// The checks that need a temporary group.
fn in_tree(owner: &Owner) -> Vec<Check> {
    let mut checks = Vec::new();
    let placement =
        Nurseries::new().map_err(Error::event_loop("map a stack")).and_then(|nurseries| {
            let placement = test_placement(owner, &nurseries)?;
            match placement.misplaced {
                Some(reason) => Err(SystemError::NoCgroup { reason }.into()),
                None => Ok(placement.tells_exit),
            }
        });
    checks.push(Check {
        name: "placement",
        verdict: Verdict::present_or(placement.is_ok(), Verdict::Fatal),
        found: match &placement {
            Ok(_) => "a child that was cloned into a new cgroup was there".to_owned(),
            Err(error) => error.to_string(),
        },
        good_for: "limits and kill that hold from a job's first instruction on".into(),
        remedy: "let clone3 pass the seccomp filter of the container; see the message",
    });
    let files = random_uuid().and_then(|uuid| {
        let cgroup = owner.create(uuid, false)?;
        let has = |file: &str| cgroup.path().join(file).exists();
        let files = (has("cgroup.kill"), has("cgroup.freeze"), has("cpu.pressure"));
        cgroup.remove()?;
        Ok(files)
    });
    let (kill, freeze, pressure) = files.unwrap_or_default();
    let there =
        |there: bool| if there { "supported".to_owned() } else { "not supported".to_owned() };
    checks.push(Check {
        name: "cgroup.kill",
        verdict: Verdict::present_or(kill, Verdict::Fatal),
        found: there(kill),
        good_for: "ending a job that forks faster than it can be signalled".into(),
        remedy: "update to Linux 5.14 or newer",
    });
    checks.push(Check {
        name: "cgroup.freeze",
        verdict: Verdict::present_or(freeze, Verdict::Missing),
        found: there(freeze),
        good_for: "Reactor::freeze and thaw".into(),
        remedy: "update to Linux 5.2 or newer",
    });
    checks.push(Check {
        name: "pressure of a job",
        verdict: Verdict::present_or(pressure, Verdict::Missing),
        found: there(pressure),
        good_for: "Reactor::pressure and watch_pressure".into(),
        remedy: "boot with psi=1, on a kernel with CONFIG_PSI",
    });
    let tree = owner.tree();
    checks.extend(controllers(tree));
    checks.push(io_weights(tree));
    checks.push(Check {
        name: "exit status after reaping",
        verdict: Verdict::present_or(matches!(placement, Ok(true)), Verdict::Missing),
        found: there(matches!(placement, Ok(true))),
        good_for: "the exit status on a host that ignores SIGCHLD or waits for any child".into(),
        remedy: "update to Linux 6.15 or newer, or leave the jobs' exit statuses alone",
    });
    checks
}

fn controllers(tree: &Tree) -> Vec<Check> {
    let available = tree.read("cgroup.controllers").unwrap_or_default();
    let enabled = tree.read("cgroup.subtree_control").unwrap_or_default();
    // Controllers in the order of the table, with the limits that each is for.
    let mut uses: Vec<(&str, String)> = Vec::new();
    for file in Limits::files().iter().filter(|file| file.controller() != "cgroup") {
        match uses.iter_mut().find(|(name, _)| *name == file.controller()) {
            Some((_, files)) => *files += &format!(", {}", file.name()),
            None => uses.push((file.controller(), file.name().to_owned())),
        }
    }
    let check = |(name, files): (&'static str, String)| {
        let good_for = match name {
            "memory" => files + "; memory use, and why a job ran out of memory",
            "io" => files + "; io use",
            _ => files,
        };
        let (available, enabled) = (lists(&available, name), lists(&enabled, name));
        Check {
            name,
            verdict: Verdict::present_or(available, Verdict::Missing),
            found: match (available, enabled) {
                (true, true) => "enabled for jobs".to_owned(),
                (true, false) => "available; enabled for jobs when a limit needs it".to_owned(),
                (false, _) => "not available where jobs are made".to_owned(),
            },
            good_for: good_for.into(),
            remedy: "enable it in cgroup.subtree_control of every cgroup above; if version 1 \
                     holds it, boot with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1=all",
        }
    };
    uses.into_iter().map(check).collect()
}

fn io_weights(tree: &Tree) -> Check {
    let (models, schedulers) = (tree.disks_with_cost_model(), disks_with_bfq());
    let list =
        |disks: &[String]| if disks.is_empty() { "no disk".to_owned() } else { disks.join(" ") };
    Check {
        name: "io weights",
        verdict: Verdict::present_or(
            !models.is_empty() || !schedulers.is_empty(),
            Verdict::Missing,
        ),
        found: format!(
            "cost model (iocost) on {}; BFQ scheduler on {}",
            list(&models),
            list(&schedulers)
        ),
        good_for: "io.weight, which has no effect without one of them".into(),
        remedy: "write the disk's numbers and enable=1 to io.cost.qos of the root cgroup, or bfq \
                 to its queue/scheduler",
    }
}

fn pressure() -> Check {
    let there = fs::read_to_string("/proc/pressure/memory").is_ok();
    Check {
        name: "pressure of the system",
        verdict: Verdict::present_or(there, Verdict::Missing),
        found: if there {
            "supported".to_owned()
        } else {
            "/proc/pressure cannot be read".to_owned()
        },
        good_for: "Reactor::watch_system_pressure".into(),
        remedy: "boot with psi=1, on a kernel with CONFIG_PSI",
    }
}

fn pidfd_info() -> Check {
    let there = tells_pidfd_info();
    Check {
        name: "PIDFD_GET_INFO",
        verdict: Verdict::present_or(there, Verdict::Missing),
        found: if there { "supported".to_owned() } else { "not supported".to_owned() },
        good_for: "the exit status of a job that other code in the host has reaped; not required"
            .into(),
        remedy: "update to Linux 6.13 or newer",
    }
}

fn launcher(path: Option<&Path>) -> Check {
    let found = path.map(|path| {
        let nurseries = Nurseries::new().map_err(Error::event_loop("map a stack"))?;
        open_launcher(path, &nurseries, open_null()?).map(|_| path)
    });
    Check {
        name: "launcher",
        verdict: match found {
            Some(Ok(_)) => Verdict::Present,
            // A reactor with this configuration cannot be made.
            Some(Err(_)) => Verdict::Fatal,
            None => Verdict::Missing,
        },
        found: match found {
            Some(Ok(path)) => format!("{} has answered", path.display()),
            Some(Err(error)) => error.to_string(),
            None => "none is configured".to_owned(),
        },
        good_for: "jobs of other users at a cost that does not depend on the size of the host; \
                   not required"
            .into(),
        remedy: "install jobworker-launcher, and pass its path to Config::launcher",
    }
}

fn watches() -> Check {
    let read = |name: &str| {
        let value = fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).unwrap_or_default();
        value.trim().parse::<u64>().unwrap_or(0)
    };
    let (watches, instances) = (read("max_user_watches"), read("max_user_instances"));
    Check {
        name: "inotify",
        verdict: Verdict::present_or(watches >= 1024 && instances >= 8, Verdict::Missing),
        found: format!(
            "{watches} watches, {instances} instances and {} queued events per user at most",
            read("max_queued_events")
        ),
        good_for:
            "one instance per reactor, one watch per log that is followed and per job with the \
                   memory controller"
                .into(),
        remedy: "raise the sysctls fs.inotify.max_user_watches and fs.inotify.max_user_instances",
    }
}

fn descriptors() -> Check {
    let limit = getrlimit(Resource::Nofile).current;
    Check {
        name: "file descriptors",
        verdict: Verdict::present_or(limit.is_none_or(|limit| limit >= 1024), Verdict::Missing),
        found: limit.map_or_else(|| "no limit".to_owned(), |limit| format!("{limit} at most")),
        good_for: "fifteen for the reactor, one per running job, one per log that is followed"
            .into(),
        remedy: "raise RLIMIT_NOFILE (ulimit -n)",
    }
}
