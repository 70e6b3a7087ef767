//! Owns [`Tree`]: the cgroup below which the jobs' groups are created, located and checked.
//!
//! Invariant: a `Tree` is a directory of a cgroup2 file system that may hold jobs and that we
//! may write to. Knows nothing of any one job.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, fstatfs, getxattr, openat};
use rustix::io::Errno;

use crate::cgroup::reserve::{Opener, Reserve};
use crate::command::{Limits, Setting};
use crate::error::{Error, LimitsError, Result, SystemError};

/// The type of a cgroup2 file system in `statfs`: `CGROUP2_SUPER_MAGIC` in linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// The file of the table for the weights of io work, and the one that stands in for it where the
/// disks are not weighted by the cost model but by the BFQ scheduler.
pub(crate) const IO_WEIGHT: &str = "io.weight";
pub(crate) const BFQ_WEIGHT: &str = "io.bfq.weight";
const BFQ_NEEDS: &str = "it takes the BFQ scheduler, CONFIG_BFQ_GROUP_IOSCHED";
const NO_IO_WEIGHT: &str = "no disk has the cost model enabled (io.cost.qos of the root cgroup) or \
                            the BFQ scheduler (/sys/block/*/queue/scheduler)";

/// Limits that were checked, whose controllers are enabled, and that will have an effect: what
/// [`Tree::require`] alone gives, and [`Group::apply`](crate::cgroup::Group::apply) takes.
#[derive(Debug)]
pub(crate) struct Settings(Vec<Setting>);

impl Settings {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }
}

/// The parent of the jobs' cgroups.
#[derive(Debug)]
pub(crate) struct Tree {
    path: PathBuf,
    dir: OwnedFd,
    /// What the jobs' groups are opened with when no other descriptor is left.
    reserve: Reserve,
    /// Whether the jobs' groups have the memory controller, as far as we know.
    has_memory: AtomicBool,
    /// Whether the controllers that account for what jobs use were asked for.
    accounts: AtomicBool,
}

impl Tree {
    /// The parent that the host has configured, or the default for this system: the host's own
    /// cgroup if that was delegated, the root of the tree where that may be written to, otherwise
    /// the host's own cgroup.
    ///
    /// A host that is in `leaf` already counts as being in the one above.
    pub(crate) fn locate(explicit: Option<&Path>, leaf: Option<&str>) -> Result<Self> {
        let path = match explicit {
            Some(path) => path.to_owned(),
            None => {
                let mount = mount_point()?;
                let own = own_cgroup(&mount, leaf);
                let to_root = may_write(&mount).is_ok() && !own.as_deref().is_ok_and(delegated);
                if to_root { mount } else { own? }
            }
        };
        Self::open(&path)
    }

    /// Moves this process into the group `leaf` below its own, unless it is there already.
    pub(crate) fn move_host(leaf: &str) -> Result<()> {
        let mount = mount_point()?;
        let above = own_cgroup(&mount, Some(leaf))?;
        if own_cgroup(&mount, None)? == above { move_host(&above, leaf) } else { Ok(()) }
    }

    fn open(path: &Path) -> Result<Self> {
        // The host may change its working directory later.
        let path = &std::path::absolute(path).map_err(Error::path("find", path))?;
        let refuse = |reason: String| -> Error {
            SystemError::NoCgroup { reason: format!("{} {reason}", path.display()) }.into()
        };
        let dir =
            openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| {
                    match errno {
                        // This error is not about the tree.
                        Errno::MFILE | Errno::NFILE => Error::path("open cgroup", path)(errno),
                        errno => refuse(format!("cannot be opened: {errno}")),
                    }
                })?;
        let in_tree =
            is_cgroup2(&dir).map_err(|errno| refuse(format!("cannot be examined: {errno}")))?;
        if !in_tree {
            return Err(refuse("is not in a cgroup2 file system".to_owned()));
        }
        // The root of the whole hierarchy has no cgroup.type.
        let kind = fs::read_to_string(path.join("cgroup.type")).unwrap_or_default();
        if !matches!(kind.trim_end(), "" | "domain") {
            return Err(refuse(format!(
                "cannot hold jobs: its cgroup.type is {:?}, so every child would be threaded or \
                 invalid",
                kind.trim_end()
            )));
        }
        may_write(path).map_err(|errno| refuse(not_writable(errno)))?;
        check_reach(path)?;
        let enabled = fs::read_to_string(path.join("cgroup.subtree_control")).unwrap_or_default();
        let has_memory = AtomicBool::new(lists(&enabled, "memory"));
        let reserve = Reserve::default();
        reserve.fill(dir.as_fd()).map_err(Error::path("take descriptors in reserve for", path))?;
        let accounts = AtomicBool::new(false);
        Ok(Self { path: path.to_owned(), dir, reserve, has_memory, accounts })
    }

    /// Whether an open file is an interface file of any cgroup; not if nobody can tell.
    pub(crate) fn contains(file: impl AsFd) -> bool {
        is_cgroup2(file).unwrap_or(false)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Opens what is closed again before long, out of the reserve if there is no other descriptor.
    pub(crate) fn opener(&self) -> Opener<'_> {
        Opener::with(&self.reserve, self.dir.as_fd())
    }

    /// Takes the descriptors that are missing in the reserve, as far as there are any.
    pub(crate) fn fill_reserve(&self) {
        // A host that is at its limit now has what is in reserve already, or will try again.
        let _ = self.reserve.fill(self.dir.as_fd());
    }

    /// Whether the service manager has handed this cgroup over to us.
    pub(crate) fn is_delegated(&self) -> bool {
        delegated(&self.path)
    }

    /// Whether the jobs' groups have the memory controller, as far as we know.
    pub(crate) fn has_memory(&self) -> bool {
        self.has_memory.load(Ordering::Relaxed)
    }

    /// Makes sure that these limits are valid, can be set for the children of this cgroup, and have
    /// an effect.
    ///
    /// A controller that the children do not have is enabled on the way down from the lowest cgroup
    /// that has it: no further up, and for no other cgroup.
    pub(crate) fn require(&self, limits: &Limits) -> Result<Settings> {
        self.enable_for(limits.check()?)
    }

    /// Like [`require`](Self::require), with the limits that a new group has by default.
    pub(crate) fn require_for_new(&self, limits: &Limits) -> Result<Settings> {
        self.enable_for(limits.check_for_new()?)
    }

    /// Enables the controllers of these limits, and makes sure that they have an effect.
    fn enable_for(&self, mut settings: Vec<Setting>) -> Result<Settings> {
        let mut enabled = None;
        for setting in settings.iter().filter(|setting| setting.controller() != "cgroup") {
            let enabled = match &mut enabled {
                Some(enabled) => enabled,
                none => none.insert(self.read("cgroup.subtree_control")?),
            };
            if !lists(enabled, setting.controller()) {
                self.enable(setting.controller(), setting.file())?;
                *enabled = self.read("cgroup.subtree_control")?;
                self.has_memory.store(lists(enabled, "memory"), Ordering::Relaxed);
            }
        }
        for setting in settings.iter_mut().filter(|setting| setting.file() == IO_WEIGHT) {
            match self.io_weight_file() {
                Some(IO_WEIGHT) => {}
                Some(file) => setting.redirect(file, BFQ_NEEDS),
                None => {
                    return Err(LimitsError::Ineffective {
                        file: setting.file().to_owned(),
                        reason: NO_IO_WEIGHT,
                    }
                    .into());
                }
            }
        }
        Ok(Settings(settings))
    }

    /// Enables the controllers that account for what jobs use, where available. Tried once: what is
    /// refused is likely to be refused again, and the figures are then reported as unknown.
    pub(crate) fn enable_accounting(&self) {
        if self.accounts.swap(true, Ordering::Relaxed) {
            return;
        }
        let enabled = self.read("cgroup.subtree_control").unwrap_or_default();
        for controller in ["memory", "io", "cpu", "pids"] {
            if !lists(&enabled, controller)
                && self.enable(controller, "cgroup.subtree_control").is_ok()
            {
                self.has_memory.fetch_or(controller == "memory", Ordering::Relaxed);
            }
        }
    }

    /// Enables a controller for the children of this cgroup, because of an interface file. All or
    /// nothing: on failure, what was enabled on the way down is disabled again.
    fn enable(&self, controller: &str, file: &str) -> Result<()> {
        let groups =
            || self.path.ancestors().take_while(|path| path.join("cgroup.controllers").exists());
        let has = |path: &Path| {
            fs::read_to_string(path.join("cgroup.controllers"))
                .is_ok_and(|list| lists(&list, controller))
        };
        let Some(levels) = groups().position(has) else {
            return Err(LimitsError::ControllerUnavailable {
                file: file.to_owned(),
                controller: controller.to_owned(),
                path: self.path.clone(),
                available: self
                    .read("cgroup.controllers")?
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect(),
                in_v1: bound_to_v1(controller),
            }
            .into());
        };
        let write = |path: &Path, sign: char| {
            fs::write(path.join("cgroup.subtree_control"), format!("{sign}{controller}"))
        };
        let mut way_down: Vec<&Path> = groups().take(levels + 1).collect();
        way_down.reverse();
        let mut done = Vec::new();
        let mut refused = None;
        for path in way_down {
            match write(path, '+') {
                Ok(()) => done.push(path),
                Err(cause) => {
                    refused = Some((path, cause));
                    break;
                }
            }
        }
        // A controller that works on threads turns a group with processes into a threaded domain,
        // which cannot have jobs below it.
        let kind = fs::read_to_string(self.path.join("cgroup.type")).unwrap_or_default();
        if refused.is_none() && !matches!(kind.trim_end(), "" | "domain") {
            refused = Some((&self.path, Errno::OPNOTSUPP.into()));
        }
        let Some((path, cause)) = refused else { return Ok(()) };
        for path in done.into_iter().rev() {
            let _ = write(path, '-');
        }
        let (file, controller) = (file.to_owned(), controller.to_owned());
        Err(LimitsError::ControllerBlocked { file, controller, path: path.to_owned(), cause }
            .into())
    }

    /// The numbers of the disks that have the cost model enabled.
    pub(crate) fn disks_with_cost_model(&self) -> Vec<String> {
        let root = self
            .path
            .ancestors()
            .take_while(|path| path.join("cgroup.controllers").exists())
            .last();
        let models = root
            .and_then(|root| fs::read_to_string(root.join("io.cost.qos")).ok())
            .unwrap_or_default();
        let enabled = models.lines().filter(|line| lists(line, "enable=1"));
        enabled.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    }

    /// The file that sets io weights on this system, if any disk supports them: the cost model and
    /// the BFQ scheduler have a file each.
    pub(crate) fn io_weight_file(&self) -> Option<&'static str> {
        if !self.disks_with_cost_model().is_empty() {
            Some(IO_WEIGHT)
        } else if !disks_with_bfq().is_empty() {
            Some(BFQ_WEIGHT)
        } else {
            None
        }
    }

    pub(crate) fn read(&self, file: &str) -> Result<String> {
        let path = self.path.join(file);
        fs::read_to_string(&path).map_err(Error::path("read", path))
    }
}

/// Whether an open file or directory is in a cgroup2 file system.
fn is_cgroup2(file: impl AsFd) -> rustix::io::Result<bool> {
    let file_system = fstatfs(file)?;
    // The field is signed or unsigned, narrow or wide, by architecture.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let magic = file_system.f_type as u64;
    Ok(magic == CGROUP2_MAGIC)
}

/// What /proc says of this process.
fn read_proc(path: &'static str) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let reason = format!(
                "there is no {path}, by which to find it: mount the proc file system at /proc"
            );
            SystemError::NoCgroup { reason }.into()
        }
        _ => Error::path("read", path)(error),
    })
}

/// Where cgroup2 is mounted, from /proc/self/mountinfo.
fn mount_point() -> Result<PathBuf> {
    let table = read_proc("/proc/self/mountinfo")?;
    parse_mount_point(&table).ok_or_else(|| {
        SystemError::NoCgroup { reason: "no cgroup2 file system is mounted".to_owned() }.into()
    })
}

/// The host's own cgroup, from /proc/self/cgroup, where it is relative to the root of the mount.
///
/// If that is `leaf`, into which the host was moved by an earlier reactor, the one above it.
fn own_cgroup(mount: &Path, leaf: Option<&str>) -> Result<PathBuf> {
    let path = "/proc/self/cgroup";
    let table = read_proc(path)?;
    let own = table
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::/"))
        .ok_or_else(|| SystemError::NoCgroup { reason: format!("{path} names no cgroup v2") })?;
    // The root itself is an empty path, which would leave a slash behind.
    let own = match own {
        [] => mount.to_owned(),
        own => mount.join(OsString::from_vec(own.to_vec())),
    };
    // A group that was handed over to the host was not made by it, whatever its name.
    let in_leaf = own != mount
        && leaf.is_some_and(|leaf| own.file_name().is_some_and(|name| name == leaf))
        && !delegated(&own);
    Ok(own.parent().filter(|_| in_leaf).map_or_else(|| own.clone(), Path::to_owned))
}

/// Whether the service manager has handed this cgroup over: systemd says so in an extended
/// attribute.
fn delegated(cgroup: &Path) -> bool {
    ["trusted.delegate", "user.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        getxattr(cgroup, *name, &mut value)
            .is_ok_and(|length| value.starts_with(b"1") && length == 1)
    })
}

/// Moves this process into the group `leaf` below `own`.
fn move_host(own: &Path, leaf: &str) -> Result<()> {
    if leaf.is_empty() || leaf.contains('/') || leaf.starts_with('.') {
        return Err(SystemError::NoCgroup {
            reason: format!("{leaf:?} is not a name for the host's cgroup"),
        }
        .into());
    }
    let path = own.join(leaf);
    match fs::create_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::path("create cgroup", path)(error));
        }
        _ => {}
    }
    let procs = path.join("cgroup.procs");
    fs::write(&procs, std::process::id().to_string())
        .map_err(Error::path("move the host into", procs))
}

/// The mount point is the fifth field, the type the first after a lone dash; see
/// proc_pid_mountinfo(5).
pub(crate) fn parse_mount_point(table: &[u8]) -> Option<PathBuf> {
    table.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let mount_point = fields.nth(4)?;
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        (kind == b"cgroup2").then(|| PathBuf::from(OsString::from_vec(unescape(mount_point))))
    })
}

/// Undoes the octal escapes of mountinfo, such as `\040` for a space.
pub(crate) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    loop {
        rest = match rest {
            // A byte is at most `\377`; `from_str_radix` would also accept a sign.
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                bytes.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest
            }
            [first, rest @ ..] => {
                bytes.push(*first);
                rest
            }
            [] => return bytes,
        };
    }
}

/// Whether groups can be made in a cgroup, and processes moved within it.
fn may_write(path: &Path) -> rustix::io::Result<()> {
    may_write_file(path)?;
    may_write_file(&path.join("cgroup.procs"))
}

fn may_write_file(path: &Path) -> rustix::io::Result<()> {
    match accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS) {
        // Kernels before 5.8 lack the call; if it matters, making a group fails.
        Err(Errno::NOSYS) => Ok(()),
        access => access,
    }
}

/// Why a cgroup cannot hold jobs, and what to do about it.
fn not_writable(errno: Errno) -> String {
    match errno {
        Errno::ROFS => {
            "is mounted read-only, as it is in most containers: start the container with a \
             writable one (Docker from 28 on: --security-opt writable-cgroups=true; Podman: \
             --security-opt unmask=/sys/fs/cgroup; Kubernetes and others: privileged)"
        }
        _ if rustix::process::geteuid().is_root() => {
            "is not writable even for root here: it may belong to a user outside of this user \
             namespace, or a security module may forbid it"
        }
        _ => {
            "is not writable for this user: run as root, or let the service manager delegate a \
             cgroup (systemd: Delegate=yes)"
        }
    }
    .to_owned()
}

/// Checks that a process can be cloned from the host's own cgroup into one below `path`.
///
/// To the kernel that is a move, for which it demands write access to cgroup.procs of their common
/// ancestor. It refuses this only when a process is cloned, with EACCES.
fn check_reach(path: &Path) -> Result<()> {
    // Without /proc, or from outside of the namespace, the clone decides.
    let Ok(own) = mount_point().and_then(|mount| own_cgroup(&mount, None)) else { return Ok(()) };
    let Some(common) = own.ancestors().find(|ancestor| path.starts_with(ancestor)) else {
        return Ok(());
    };
    let procs = common.join("cgroup.procs");
    match may_write_file(&procs) {
        Err(errno @ (Errno::ACCESS | Errno::PERM | Errno::ROFS)) => {
            let reason = format!(
                "the host runs in {}, outside of {}, and starting a process there takes write \
                 access to {} ({errno}). Start the host in that cgroup, or in one below it \
                 (systemd: as the service that has Delegate=yes, or by systemd-run --user --scope \
                 -p Delegate=yes)",
                own.display(),
                path.display(),
                procs.display()
            );
            Err(SystemError::NoCgroup { reason }.into())
        }
        _ => Ok(()),
    }
}

/// The version 1 hierarchies that are mounted as well, by their options.
pub(crate) fn v1_mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = table.lines().filter_map(|line| line.split_once(" - cgroup "));
    let options = mounts.filter_map(|(_, rest)| rest.split_whitespace().nth(1));
    options
        .map(|options| options.trim_start_matches("rw,").trim_start_matches("ro,").to_owned())
        .collect()
}

/// Whether a list of names, such as that of the controllers, contains this one.
pub(crate) fn lists(list: &str, name: &str) -> bool {
    list.split_whitespace().any(|other| other == name)
}

/// The disks that use the BFQ scheduler, which is then named in brackets.
pub(crate) fn disks_with_bfq() -> Vec<String> {
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let uses = |disk: &fs::DirEntry| {
        fs::read_to_string(disk.path().join("queue/scheduler"))
            .is_ok_and(|schedulers| lists(&schedulers, "[bfq]"))
    };
    disks.filter(uses).map(|disk| disk.file_name().to_string_lossy().into_owned()).collect()
}

/// Whether a version 1 hierarchy holds the controller, by the hierarchy number in /proc/cgroups.
fn bound_to_v1(controller: &str) -> bool {
    // Version 1 called the io controller blkio.
    let name = if controller == "io" { "blkio" } else { controller };
    fs::read_to_string("/proc/cgroups").is_ok_and(|table| {
        table.lines().any(|line| {
            let mut fields = line.split_whitespace();
            fields.next() == Some(name) && fields.next().is_some_and(|hierarchy| hierarchy != "0")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_point_is_found_with_and_without_optional_fields() {
        let table = b"22 1 0:20 / /sys rw shared:7 - sysfs sysfs rw\n\
            30 22 0:26 / /sys/fs/cgroup/a\\040b rw,nosuid shared:9 master:1 - cgroup2 cgroup2 \
            rw,nsdelegate\n";
        assert_eq!(parse_mount_point(table), Some(PathBuf::from("/sys/fs/cgroup/a b")));
        let bare = b"30 22 0:26 / /cg rw - cgroup2 none rw\n";
        assert_eq!(parse_mount_point(bare), Some(PathBuf::from("/cg")));
        assert_eq!(parse_mount_point(b"22 1 0:20 / /cgroup2 rw - sysfs sysfs rw\n\n"), None);
    }

    #[test]
    fn escapes_that_are_none_are_kept() {
        assert_eq!(unescape(b"a\\134b\\x\\04"), b"a\\b\\x\\04");
        assert_eq!(unescape(b"\\+12\\400\\377"), b"\\+12\\400\xff");
    }
}
