//! Owns [`Hierarchy`]: the cgroup under which jobs are made, found, and checked to be one.
//!
//! Invariant: a `Hierarchy` is a directory of a cgroup2 file system that may hold jobs and that we may write to.
//! Knows nothing of any one job.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, fstatfs, openat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::limits::Setting;

/// What `statfs` says of a cgroup2 file system: `CGROUP2_SUPER_MAGIC` in linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// The parent of the jobs' cgroups.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    path: PathBuf,
    dir: OwnedFd,
}

impl Hierarchy {
    /// The parent that the host names, or the place that fits this system: the root of the tree where that may be
    /// written to, otherwise the cgroup of the host itself.
    pub(crate) fn locate(explicit: Option<&Path>) -> Result<Self> {
        match explicit {
            Some(path) => Self::open(path),
            None => {
                let mount = mount_point()?;
                if writable(&mount) { Self::open(&mount) } else { Self::open(&own_cgroup(&mount)?) }
            }
        }
    }

    fn open(path: &Path) -> Result<Self> {
        // The host may change its working directory later.
        let path = &std::path::absolute(path).map_err(Error::path("find", path))?;
        let refuse = |reason: String| Error::NoCgroup { reason: format!("{} {reason}", path.display()) };
        let dir =
            openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
                match errno {
                    // This says nothing about the tree.
                    Errno::MFILE | Errno::NFILE => Error::path("open cgroup", path)(errno),
                    errno => refuse(format!("cannot be opened: {errno}")),
                }
            })?;
        let file_system = fstatfs(&dir).map_err(|errno| refuse(format!("cannot be examined: {errno}")))?;
        // The field is signed or unsigned, narrow or wide, by architecture.
        #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
        if file_system.f_type as u64 != CGROUP2_MAGIC {
            return Err(refuse("is not in a cgroup2 file system".to_owned()));
        }
        // The root of the whole hierarchy has no cgroup.type.
        let kind = fs::read_to_string(path.join("cgroup.type")).unwrap_or_default();
        if !matches!(kind.trim_end(), "" | "domain") {
            return Err(refuse(format!(
                "cannot hold jobs: its cgroup.type is {:?}, so every child would be threaded or invalid",
                kind.trim_end()
            )));
        }
        if !writable(path) {
            return Err(refuse(
                "is not writable for this user: run as root, or let the service manager delegate a cgroup \
                 (systemd: Delegate=yes)"
                    .to_owned(),
            ));
        }
        Ok(Self { path: path.to_owned(), dir })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Makes sure that the controllers of these limits are enabled for the children of this cgroup.
    ///
    /// Those that are available here but not yet passed on are enabled; nothing above this cgroup is touched.
    pub(crate) fn require(&self, settings: &[Setting]) -> Result<()> {
        if settings.is_empty() {
            return Ok(());
        }
        let available = self.read("cgroup.controllers")?;
        let enabled = self.read("cgroup.subtree_control")?;
        for setting in settings {
            let listed = |list: &str| list.split_whitespace().any(|name| name == setting.controller);
            if !listed(&available) {
                return Err(Error::ControllerUnavailable {
                    file: setting.file,
                    controller: setting.controller,
                    path: self.path.clone(),
                    available: available.split_whitespace().map(str::to_owned).collect(),
                    in_v1: bound_to_v1(setting.controller),
                });
            }
            if !listed(&enabled) {
                let file = self.path.join("cgroup.subtree_control");
                fs::write(&file, format!("+{}", setting.controller))
                    .map_err(Error::path("enable a controller for jobs in", file))?;
            }
        }
        Ok(())
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.path.join(file);
        fs::read_to_string(&path).map_err(Error::path("read", path))
    }
}

/// Where cgroup2 is mounted, from /proc/self/mountinfo.
fn mount_point() -> Result<PathBuf> {
    let path = "/proc/self/mountinfo";
    let table = fs::read(path).map_err(Error::path("read", path))?;
    parse_mount_point(&table).ok_or_else(|| Error::NoCgroup { reason: "no cgroup2 file system is mounted".to_owned() })
}

/// The host's own cgroup, from /proc/self/cgroup; it is told relative to the root of the mount.
fn own_cgroup(mount: &Path) -> Result<PathBuf> {
    let path = "/proc/self/cgroup";
    let table = fs::read(path).map_err(Error::path("read", path))?;
    let own = table
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::/"))
        .ok_or_else(|| Error::NoCgroup { reason: format!("{path} names no cgroup v2") })?;
    Ok(mount.join(OsString::from_vec(own.to_vec())))
}

/// The mount point is the fifth field, the type the first after a lone dash; see proc_pid_mountinfo(5).
fn parse_mount_point(table: &[u8]) -> Option<PathBuf> {
    table.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let mount_point = fields.nth(4)?;
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        (kind == b"cgroup2").then(|| PathBuf::from(OsString::from_vec(unescape(mount_point))))
    })
}

/// Undoes the octal escapes of mountinfo, such as `\040` for a space.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

fn writable(path: &Path) -> bool {
    let access = |path: &Path| accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS);
    // CLONE_INTO_CGROUP checks cgroup.procs of the common ancestor as well; older kernels lack faccessat2.
    let may = |path: &Path| matches!(access(path), Ok(()) | Err(Errno::NOSYS));
    may(path) && may(&path.join("cgroup.procs"))
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
            30 22 0:26 / /sys/fs/cgroup/a\\040b rw,nosuid shared:9 master:1 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(parse_mount_point(table), Some(PathBuf::from("/sys/fs/cgroup/a b")));
        let bare = b"30 22 0:26 / /cg rw - cgroup2 none rw\n";
        assert_eq!(parse_mount_point(bare), Some(PathBuf::from("/cg")));
        assert_eq!(parse_mount_point(b"22 1 0:20 / /cgroup2 rw - sysfs sysfs rw\n\n"), None);
    }

    #[test]
    fn escapes_that_are_none_are_kept() {
        assert_eq!(unescape(b"a\\134b\\x\\04"), b"a\\b\\x\\04");
    }
}
