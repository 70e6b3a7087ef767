//! Owns the raw system calls that rustix lacks: waitid with resource usage, signals by number,
//! information on a pidfd, and those that a child makes before exec.
//!
//! Invariant: an errno is returned, never lost; a function is safe only if no argument can make it
//! touch memory or descriptors that are not its own. Knows nothing of jobs, logs or the loop.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_long, c_ulong};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;
use std::{fs, io, mem, ptr};

use linux_raw_sys::general as raw;
use linux_raw_sys::ioctl::TIOCSCTTY;
use linux_raw_sys::prctl::{
    PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, PR_CAP_AMBIENT_IS_SET, PR_CAP_AMBIENT_LOWER,
    PR_CAP_AMBIENT_RAISE, PR_CAPBSET_DROP, PR_CAPBSET_READ, PR_GET_DUMPABLE, PR_GET_SECUREBITS,
    PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, PR_SET_SECUREBITS,
};
use rustix::fs::{fstat, fstatfs};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, opcode};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::command::Signal;
use crate::event::{Exit, Usage};
use crate::sys::capabilities::Capabilities;
use crate::sys::plan::CStringArray;

unsafe extern "C" {
    /// The C library's function for any system call; std links it anyway. It touches nothing but
    /// `errno`.
    fn syscall(number: c_long, ...) -> c_long;

    /// A value that the kernel has handed to this program. Touches nothing but `errno`.
    fn getauxval(kind: c_ulong) -> c_ulong;
}

/// Makes a system call; fails with the errno.
///
/// # Safety
/// The arguments must be what the kernel expects of this call: pointers valid for as long as it
/// uses them.
pub(super) unsafe fn call(number: u32, arguments: [usize; 6]) -> Result<usize, i32> {
    let [a, b, c, d, e, f] = arguments;
    // A `long` has 32 or 64 bits, by architecture; no number is so large.
    #[allow(clippy::cast_lossless, clippy::cast_possible_wrap)]
    let number = number as c_long;
    // SAFETY: the caller vouches for the arguments; calls that take fewer than six ignore the rest.
    let result = unsafe { syscall(number, a, b, c, d, e, f) };
    // -1 is the C library's only sign of failure.
    usize::try_from(result).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// How to wait for a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reap {
    /// Reap it if it has exited.
    Now,
    /// Check whether it has exited, and leave the zombie, so that its number stays taken.
    Peek,
    /// Wait until it has exited, and reap it. Only for a child that is known to be on its way out.
    Block,
}

/// waitid on a pidfd: `None` when the child has not exited.
pub(crate) fn wait(pidfd: &OwnedFd, reap: Reap) -> io::Result<Option<(Exit, Usage)>> {
    let options = match reap {
        Reap::Now => raw::WEXITED | raw::WNOHANG,
        Reap::Peek => raw::WEXITED | raw::WNOHANG | raw::WNOWAIT,
        Reap::Block => raw::WEXITED,
    };
    // A child that never came to exec sends no SIGCHLD, and is waited for only if all kinds are
    // asked for.
    let options = options | raw::__WALL;
    let fd = pidfd.as_raw_fd().unsigned_abs() as usize;
    // SAFETY: zero is a valid value of both plain structures.
    let (mut info, mut usage): (raw::siginfo, raw::rusage) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    loop {
        let (info, usage) =
            ((&raw mut info).expose_provenance(), (&raw mut usage).expose_provenance());
        let arguments = [raw::P_PIDFD as usize, fd, info, options as usize, usage, 0];
        // SAFETY: the kernel writes one siginfo and one rusage to where the pointers say.
        match unsafe { call(raw::__NR_waitid, arguments) } {
            Ok(_) => break,
            Err(errno) if errno == Errno::INTR.raw_os_error() => {}
            Err(errno) => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
    // SAFETY: waitid fills in the fields of SIGCHLD, or leaves all zero.
    let (signo, code, status) = unsafe {
        let info = &info.__bindgen_anon_1.__bindgen_anon_1;
        (info.si_signo, info.si_code, info._sifields._sigchld._status)
    };
    if signo == 0 {
        return Ok(None);
    }
    let exit = match Signal::from_raw(status) {
        Some(signal) if code != raw::CLD_EXITED as c_int => {
            Exit::Signal { signal, core_dumped: code == raw::CLD_DUMPED as c_int }
        }
        _ => Exit::Code(status),
    };
    Ok(Some((exit, usage_of(&usage))))
}

/// `struct pidfd_info` in linux/pidfd.h, in its first version.
#[repr(C)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// The exit status in a [`PidfdInfo`]; since Linux 6.15.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// The id of the cgroup in a [`PidfdInfo`].
const PIDFD_INFO_CGROUPID: u64 = 1 << 2;

fn pidfd_info(pidfd: &OwnedFd, mask: u64) -> Result<PidfdInfo, i32> {
    const PIDFD_GET_INFO: Opcode = opcode::read_write::<PidfdInfo>(0xff, 11);
    let mut info = PidfdInfo { mask, cgroup: 0, ids: [0; 11], exit_code: 0 };
    let fd = pidfd.as_raw_fd().unsigned_abs() as usize;
    let arguments = [fd, PIDFD_GET_INFO as usize, (&raw mut info).expose_provenance(), 0, 0, 0];
    // SAFETY: the size of the structure is part of the request; the kernel writes no more than
    // that.
    unsafe { call(raw::__NR_ioctl, arguments) }.map(|_| info)
}

/// Whether the kernel gives information on a pidfd (`PIDFD_GET_INFO`, Linux 6.13).
pub(crate) fn tells_pidfd_info() -> bool {
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    own.is_ok_and(|own| pidfd_info(&own, 0).is_ok())
}

/// The id of the cgroup that a process is in, which is the inode number of the group's directory
/// on machines with 64 bits; since Linux 6.13. `None` as well for a process that was reaped.
pub(crate) fn cgroup_id(pidfd: &OwnedFd) -> Option<u64> {
    let info = pidfd_info(pidfd, PIDFD_INFO_CGROUPID).ok()?;
    (info.mask & PIDFD_INFO_CGROUPID != 0).then_some(info.cgroup)
}

/// How a process ended that somebody else has reaped; from Linux 6.15 on, the kernel keeps it for
/// the pidfd. `None` when it is still being reaped, so that the kernel does not tell yet; once that
/// is done, the pidfd is reported as ready again.
pub(crate) fn exit_after_reap(pidfd: &OwnedFd) -> Option<Exit> {
    let Ok(info) = pidfd_info(pidfd, PIDFD_INFO_EXIT) else { return Some(Exit::Unknown) };
    if info.mask & PIDFD_INFO_EXIT == 0 {
        return None;
    }
    Some(decode_exit(info.exit_code))
}

/// As wait(2) encodes it: the signal in the low seven bits, then the core dump flag, then the code.
pub(crate) fn decode_exit(status: i32) -> Exit {
    match Signal::from_raw(status & 0x7f) {
        Some(signal) => Exit::Signal { signal, core_dumped: status & 0x80 != 0 },
        None => Exit::Code((status >> 8) & 0xff),
    }
}

/// The inode of a pidfd, which no other process has until the system is booted again; `None` before
/// Linux 6.9, where all pidfds have the same, and where an inode has 32 bits.
pub(crate) fn pidfd_inode(pidfd: &OwnedFd) -> Option<u64> {
    /// `PID_FS_MAGIC` in linux/magic.h.
    const PID_FS: u64 = 0x5049_4446;
    let file_system = fstatfs(pidfd).ok()?;
    // The field is signed or unsigned, narrow or wide, by architecture.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let magic = file_system.f_type as u64;
    if magic != PID_FS || usize::BITS < u64::BITS {
        return None;
    }
    fstat(pidfd).ok().map(|stat| stat.st_ino)
}

/// Whether a descriptor that somebody else has given stands for a process: it is a pidfd, not only
/// the place of one (`O_PATH`), nor that of a single thread (`PIDFD_THREAD`, which is `O_EXCL`).
/// Takes no descriptor.
pub(crate) fn is_pidfd(descriptor: &OwnedFd) -> bool {
    let fd = descriptor.as_raw_fd().unsigned_abs() as usize;
    // SAFETY: neither call takes a pointer, and signal 0 is none.
    let (flags, sent) = unsafe {
        (
            call(raw::__NR_fcntl, [fd, raw::F_GETFL as usize, 0, 0, 0, 0]),
            call(raw::__NR_pidfd_send_signal, [fd, 0, 0, 0, 0, 0]),
        )
    };
    let refused = (raw::O_PATH | raw::O_EXCL) as usize;
    flags.is_ok_and(|flags| flags & refused == 0) && sent != Err(Errno::BADF.raw_os_error())
}

/// The number of the process behind a pidfd, as this process sees it; `None` once it is reaped.
pub(crate) fn pid_of(pidfd: &OwnedFd) -> Option<u32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let number = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    // -1 once it is reaped, 0 when it is in another PID namespace.
    number.trim().parse().ok().filter(|pid| *pid > 0)
}

/// Sends a signal to the process behind a pidfd. rustix can send only signals that have a name.
pub(crate) fn pidfd_send_signal(pidfd: &OwnedFd, signal: Signal) -> io::Result<()> {
    let fd = pidfd.as_raw_fd().unsigned_abs() as usize;
    let arguments = [fd, signal.as_raw().unsigned_abs() as usize, 0, 0, 0, 0];
    // SAFETY: no siginfo is passed; the rest are integers.
    unsafe { call(raw::__NR_pidfd_send_signal, arguments) }
        .map(drop)
        .map_err(io::Error::from_raw_os_error)
}

/// Sends a signal to the process group that was, or is, led by the process behind a pidfd, even if
/// that is gone; without a signal, checks only whether the group has any process. Since Linux 6.9;
/// before that, the kernel refuses the flag (EINVAL).
pub(crate) fn pidfd_signal_group(pidfd: &OwnedFd, signal: Option<Signal>) -> io::Result<()> {
    /// `PIDFD_SIGNAL_PROCESS_GROUP` in linux/pidfd.h.
    const PROCESS_GROUP: usize = 1 << 2;
    let fd = pidfd.as_raw_fd().unsigned_abs() as usize;
    let signal = signal.map_or(0, |signal| signal.as_raw().unsigned_abs() as usize);
    // SAFETY: no siginfo is passed; the rest are integers.
    unsafe { call(raw::__NR_pidfd_send_signal, [fd, signal, 0, PROCESS_GROUP, 0, 0]) }
        .map(drop)
        .map_err(io::Error::from_raw_os_error)
}

/// Sends a signal to a process group. The caller holds the number, by a process of the group that
/// is not reaped.
pub(crate) fn kill_process_group(group: u32, signal: Signal) -> io::Result<()> {
    let arguments =
        [(group as usize).wrapping_neg(), signal.as_raw().unsigned_abs() as usize, 0, 0, 0, 0];
    // SAFETY: two integers.
    unsafe { call(raw::__NR_kill, arguments) }.map(drop).map_err(io::Error::from_raw_os_error)
}

/// The descriptor of an epoll, which mio gives only as a number.
pub(crate) fn epoll_fd(poll: &mio::Poll) -> BorrowedFd<'_> {
    // SAFETY: the poll keeps its descriptor open for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(poll.as_raw_fd()) }
}

fn usage_of(usage: &raw::rusage) -> Usage {
    let count = |value: c_long| u64::try_from(value).unwrap_or(0);
    let time = |time: &raw::__kernel_old_timeval| {
        Duration::from_secs(count(time.tv_sec)) + Duration::from_micros(count(time.tv_usec))
    };
    Usage {
        user: time(&usage.ru_utime),
        system: time(&usage.ru_stime),
        max_rss: count(usage.ru_maxrss) * 1024,
        minor_faults: count(usage.ru_minflt),
        major_faults: count(usage.ru_majflt),
        blocks_in: count(usage.ru_inblock),
        blocks_out: count(usage.ru_oublock),
        voluntary_switches: count(usage.ru_nvcsw),
        involuntary_switches: count(usage.ru_nivcsw),
    }
}

// What a child does to itself before exec, and its parent around clone3. These functions allocate
// nothing, take no lock and cannot panic. They act on the calling thread alone where the kernel
// does, unlike those of the C library, which change the ids of every thread.

/// Changes the calling thread's signal mask as `how` says, and stores the old one in `before`. The
/// sets are at least as large as the kernel's on every architecture.
pub(super) fn change_signal_mask(
    how: u32,
    mask: &[u64; 2],
    before: Option<&mut [u64; 2]>,
) -> Result<(), i32> {
    let before = before.map_or(0, |set| set.as_mut_ptr().expose_provenance());
    let size = mem::size_of::<raw::kernel_sigset_t>();
    const { assert!(mem::size_of::<raw::kernel_sigset_t>() <= mem::size_of::<[u64; 2]>()) };
    let arguments = [how as usize, mask.as_ptr().expose_provenance(), before, size, 0, 0];
    // SAFETY: the kernel reads and writes `size` bytes, no more than either set has; the pointer to
    // the old one may be null.
    unsafe { call(raw::__NR_rt_sigprocmask, arguments) }.map(drop)
}

/// Sets the action of a signal in the calling process to `SIG_DFL` or, with `ignore`, to `SIG_IGN`,
/// which discards the signal if it is pending.
pub(super) fn set_signal_action(signal: u32, ignore: bool) -> Result<(), i32> {
    // The kernel's structure begins with the handler, except on MIPS, where the flags come first;
    // `SIG_DFL` and no flags are all zero.
    const SIG_IGN: usize = 1;
    let mut action = [0usize; 8];
    action[usize::from(cfg!(any(target_arch = "mips", target_arch = "mips64")))] =
        usize::from(ignore) * SIG_IGN;
    let size = mem::size_of::<raw::kernel_sigset_t>();
    let arguments = [signal as usize, action.as_ptr().expose_provenance(), 0, size, 0, 0];
    // SAFETY: the kernel reads one structure, which is smaller than the array; neither action has a
    // handler that could be called.
    unsafe { call(raw::__NR_rt_sigaction, arguments) }.map(drop)
}

/// setsid(2).
pub(super) fn set_session() -> Result<(), i32> {
    // SAFETY: the call takes no argument.
    unsafe { call(raw::__NR_setsid, [0; 6]) }.map(drop)
}

/// setpgid(2): the calling process becomes the leader of a new process group.
pub(super) fn set_process_group() -> Result<(), i32> {
    // SAFETY: two integers.
    unsafe { call(raw::__NR_setpgid, [0; 6]) }.map(drop)
}

/// ioctl(2) with `TIOCSCTTY`: a terminal that no session has becomes the controlling one of the
/// session that the calling process leads.
pub(super) fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> Result<(), i32> {
    let fd = terminal.as_raw_fd().unsigned_abs() as usize;
    // SAFETY: three integers; zero asks that it be taken from no other session.
    unsafe { call(raw::__NR_ioctl, [fd, TIOCSCTTY as usize, 0, 0, 0, 0]) }.map(drop)
}

/// fcntl(2) with `F_DUPFD`: a duplicate of a descriptor that is not below `least` and stays open at
/// exec. It is owned by nobody.
pub(super) fn duplicate_above(fd: BorrowedFd<'_>, least: RawFd) -> Result<RawFd, i32> {
    let (fd, least) = (fd.as_raw_fd().unsigned_abs(), least.unsigned_abs());
    let arguments = [fd as usize, raw::F_DUPFD as usize, least as usize, 0, 0, 0];
    // SAFETY: three integers; the call closes nothing.
    let fd = unsafe { call(raw::__NR_fcntl, arguments) }?;
    RawFd::try_from(fd).map_err(|_| Errno::BADF.raw_os_error())
}

/// dup3(2) without flags: `target` becomes a duplicate of `source` that stays open at exec.
///
/// # Safety
/// `source` must be open, and nobody may rely on what `target` has been until now: it is closed.
pub(super) unsafe fn duplicate_onto(source: RawFd, target: RawFd) -> Result<(), i32> {
    let (source, target) = (source.unsigned_abs() as usize, target.unsigned_abs() as usize);
    // SAFETY: three integers; the caller vouches for what is closed.
    unsafe { call(raw::__NR_dup3, [source, target, 0, 0, 0, 0]) }.map(drop)
}

/// dup3(2) with `O_CLOEXEC`: `target`, which is another, becomes a duplicate of `source` that is
/// closed by exec.
///
/// # Safety
/// As for [`duplicate_onto`].
pub(super) unsafe fn duplicate_until_exec(source: RawFd, target: RawFd) -> Result<(), i32> {
    let (source, target) = (source.unsigned_abs() as usize, target.unsigned_abs() as usize);
    let arguments = [source, target, raw::O_CLOEXEC as usize, 0, 0, 0];
    // SAFETY: three integers; the caller vouches for what is closed.
    unsafe { call(raw::__NR_dup3, arguments) }.map(drop)
}

/// close_range(2): closes every descriptor from `first` to `last`.
///
/// # Safety
/// Nobody may rely on any of them.
pub(super) unsafe fn close_range(first: u32, last: u32) -> Result<(), i32> {
    let arguments = [first as usize, last as usize, 0, 0, 0, 0];
    // SAFETY: three integers; the caller vouches for what is closed.
    unsafe { call(raw::__NR_close_range, arguments) }.map(drop)
}

/// umask(2).
pub(super) fn set_umask(mask: u32) -> Result<(), i32> {
    // SAFETY: one integer.
    unsafe { call(raw::__NR_umask, [mask as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

/// prlimit(2) on the calling process.
pub(super) fn set_resource_limit(resource: u32, limit: &raw::rlimit64) -> Result<(), i32> {
    let limit = ptr::from_ref(limit).expose_provenance();
    // SAFETY: the kernel reads one structure; there is no pointer to store the old limit at.
    unsafe { call(raw::__NR_prlimit64, [0, resource as usize, limit, 0, 0, 0]) }.map(drop)
}

/// setgroups(2).
pub(super) fn set_groups(groups: &[u32]) -> Result<(), i32> {
    let arguments = [groups.len(), groups.as_ptr().expose_provenance(), 0, 0, 0, 0];
    // SAFETY: the kernel reads as many ids as the slice has.
    unsafe { call(raw::__NR_setgroups, arguments) }.map(drop)
}

/// setresgid(2) with the same id three times.
pub(super) fn set_group_id(id: u32) -> Result<(), i32> {
    let id = id as usize;
    // SAFETY: three integers.
    unsafe { call(raw::__NR_setresgid, [id, id, id, 0, 0, 0]) }.map(drop)
}

/// setresuid(2) with the same id three times.
pub(super) fn set_user_id(id: u32) -> Result<(), i32> {
    let id = id as usize;
    // SAFETY: three integers.
    unsafe { call(raw::__NR_setresuid, [id, id, id, 0, 0, 0]) }.map(drop)
}

/// Empties the ambient and inheritable capabilities of the calling thread, from which a program
/// without file capabilities would get its own at exec; with `all`, the permitted and effective
/// ones as well.
pub(super) fn clear_capabilities(all: bool) -> Result<(), i32> {
    let clear = [PR_CAP_AMBIENT as usize, PR_CAP_AMBIENT_CLEAR_ALL as usize, 0, 0, 0, 0];
    // SAFETY: integers, and zeros as the kernel wants them.
    unsafe { call(raw::__NR_prctl, clear) }?;
    let kept = if all { Capabilities::default() } else { capabilities()? };
    set_capabilities(&Capabilities { inheritable: 0, ..kept })
}

/// The header of capget(2) and capset(2) for the calling thread. Its version has two structures
/// with 32 capabilities each.
const CAPABILITIES: raw::__user_cap_header_struct =
    raw::__user_cap_header_struct { version: raw::_LINUX_CAPABILITY_VERSION_3, pid: 0 };

/// capget(2) on the calling thread; it does not tell the ambient ones.
pub(super) fn capabilities() -> Result<Capabilities, i32> {
    let mut header = CAPABILITIES;
    let none = || raw::__user_cap_data_struct { effective: 0, permitted: 0, inheritable: 0 };
    let mut sets = [none(), none()];
    let header = (&raw mut header).expose_provenance();
    let data = sets.as_mut_ptr().expose_provenance();
    // SAFETY: the kernel writes two structures to where `data` points.
    unsafe { call(raw::__NR_capget, [header, data, 0, 0, 0, 0]) }?;
    let [low, high] = sets;
    let whole = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Capabilities {
        effective: whole(low.effective, high.effective),
        permitted: whole(low.permitted, high.permitted),
        inheritable: whole(low.inheritable, high.inheritable),
        ambient: 0,
    })
}

/// capset(2) on the calling thread. The kernel takes out of the ambient ones what they do not allow
/// any more.
pub(super) fn set_capabilities(sets: &Capabilities) -> Result<(), i32> {
    // The half of a set that the shift has moved into the low bits.
    #[allow(clippy::cast_possible_truncation)]
    let half = |shift: u32| raw::__user_cap_data_struct {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let mut header = CAPABILITIES;
    let halves = [half(0), half(32)];
    let header = (&raw mut header).expose_provenance();
    let data = halves.as_ptr().expose_provenance();
    // SAFETY: the kernel reads two structures.
    unsafe { call(raw::__NR_capset, [header, data, 0, 0, 0, 0]) }.map(drop)
}

/// Whether a capability of the calling thread is ambient.
pub(super) fn is_ambient_capability(number: u32) -> bool {
    let arguments =
        [PR_CAP_AMBIENT as usize, PR_CAP_AMBIENT_IS_SET as usize, number as usize, 0, 0, 0];
    // SAFETY: integers.
    let is_set = unsafe { call(raw::__NR_prctl, arguments) };
    is_set == Ok(1)
}

/// Makes a capability of the calling thread ambient, or no longer so.
pub(super) fn change_ambient_capability(number: u32, raise: bool) -> Result<(), i32> {
    let change = if raise { PR_CAP_AMBIENT_RAISE } else { PR_CAP_AMBIENT_LOWER };
    let arguments = [PR_CAP_AMBIENT as usize, change as usize, number as usize, 0, 0, 0];
    // SAFETY: integers.
    unsafe { call(raw::__NR_prctl, arguments) }.map(drop)
}

/// Whether the calling thread has a capability in its bounding set.
pub(super) fn is_in_bounding_set(number: u32) -> bool {
    let arguments = [PR_CAPBSET_READ as usize, number as usize, 0, 0, 0, 0];
    // SAFETY: integers.
    let is_in = unsafe { call(raw::__NR_prctl, arguments) };
    is_in == Ok(1)
}

/// Whether exec gives to root no more than to any other user (`SECBIT_NOROOT`).
pub(super) fn root_is_a_user() -> bool {
    const SECBIT_NOROOT: usize = 1;
    // SAFETY: one integer.
    let bits = unsafe { call(raw::__NR_prctl, [PR_GET_SECUREBITS as usize, 0, 0, 0, 0, 0]) };
    bits.is_ok_and(|bits| bits & SECBIT_NOROOT != 0)
}

/// Whether this program was given privileges by its file that the process that executed it had not.
pub(super) fn is_privileged_by_file() -> bool {
    const AT_SECURE: c_ulong = 23;
    // SAFETY: an integer.
    unsafe { getauxval(AT_SECURE) != 0 }
}

/// fcntl(2) with `F_SETFD` and `FD_CLOEXEC`: exec closes the descriptor. Fails if it is not open.
pub(super) fn close_at_exec(fd: RawFd) -> Result<(), i32> {
    let arguments =
        [fd.unsigned_abs() as usize, raw::F_SETFD as usize, raw::FD_CLOEXEC as usize, 0, 0, 0];
    // SAFETY: three integers; the call closes nothing.
    unsafe { call(raw::__NR_fcntl, arguments) }.map(drop)
}

/// write(2).
pub(super) fn write(fd: RawFd, bytes: &[u8]) -> Result<usize, i32> {
    let fd = fd.unsigned_abs() as usize;
    let arguments = [fd, bytes.as_ptr().expose_provenance(), bytes.len(), 0, 0, 0];
    // SAFETY: the kernel reads as many bytes as the slice has.
    unsafe { call(raw::__NR_write, arguments) }
}

/// Writes a file in one piece, as the files of the kernel want it.
pub(super) fn write_file(path: &CStr, content: &[u8]) -> Result<(), i32> {
    let path = path.as_ptr().expose_provenance();
    let flags = (raw::O_WRONLY | raw::O_CLOEXEC) as usize;
    let cwd = raw::AT_FDCWD.cast_unsigned() as usize;
    // SAFETY: the path ends with a NUL.
    let fd = unsafe { call(raw::__NR_openat, [cwd, path, flags, 0, 0, 0]) }?;
    let written = RawFd::try_from(fd).map_err(|_| Errno::BADF.raw_os_error());
    let written = written.and_then(|fd| write(fd, content));
    // SAFETY: the descriptor was opened above, and nothing else uses it.
    let _ = unsafe { call(raw::__NR_close, [fd, 0, 0, 0, 0, 0]) };
    written.map(drop)
}

/// setpriority(2) on the calling thread.
pub(super) fn set_nice(nice: i32) -> Result<(), i32> {
    // Negative numbers are passed in the low half, as the C library does.
    let nice = nice.cast_unsigned() as usize;
    // SAFETY: three integers.
    unsafe { call(raw::__NR_setpriority, [raw::PRIO_PROCESS as usize, 0, nice, 0, 0, 0]) }.map(drop)
}

/// sched_setscheduler(2) on the calling thread.
pub(super) fn set_scheduler(policy: u32, priority: u8) -> Result<(), i32> {
    // `struct sched_param` is one int.
    let parameter = c_int::from(priority);
    let arguments = [0, policy as usize, (&raw const parameter).expose_provenance(), 0, 0, 0];
    // SAFETY: the kernel reads one int.
    unsafe { call(raw::__NR_sched_setscheduler, arguments) }.map(drop)
}

/// sched_setaffinity(2) on the calling thread.
pub(super) fn set_affinity(processors: &[usize]) -> Result<(), i32> {
    let arguments =
        [0, mem::size_of_val(processors), processors.as_ptr().expose_provenance(), 0, 0, 0];
    // SAFETY: the kernel reads no more bytes than the slice has.
    unsafe { call(raw::__NR_sched_setaffinity, arguments) }.map(drop)
}

/// ioprio_set(2) on the calling thread.
pub(super) fn set_io_priority(priority: u16) -> Result<(), i32> {
    const IOPRIO_WHO_PROCESS: usize = 1;
    // SAFETY: three integers.
    unsafe { call(raw::__NR_ioprio_set, [IOPRIO_WHO_PROCESS, 0, priority.into(), 0, 0, 0]) }
        .map(drop)
}

/// keyctl(2) with `KEYCTL_JOIN_SESSION_KEYRING` and no name: a keyring of its own.
pub(super) fn join_new_session_keyring() -> Result<(), i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;
    // SAFETY: an integer, and a null pointer that stands for no name.
    unsafe { call(raw::__NR_keyctl, [KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0, 0]) }.map(drop)
}

/// Drops all capabilities from the bounding set but those with a bit in `kept`.
pub(super) fn limit_capabilities(kept: u64) -> Result<(), i32> {
    for capability in (0..64).filter(|bit| kept & 1 << bit == 0) {
        let arguments = |operation| [operation as usize, capability, 0, 0, 0, 0];
        // One that it has not needs no privilege to be dropped.
        // SAFETY: integers.
        match unsafe { call(raw::__NR_prctl, arguments(PR_CAPBSET_READ)) } {
            Ok(0) => {}
            // SAFETY: integers.
            Ok(_) => _ = unsafe { call(raw::__NR_prctl, arguments(PR_CAPBSET_DROP)) }?,
            // The kernel has no capability of this number, nor a higher one.
            Err(errno) if errno == Errno::INVAL.raw_os_error() => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// prctl(2) with `PR_SET_SECUREBITS`.
pub(super) fn set_securebits(bits: u32) -> Result<(), i32> {
    let arguments = [PR_SET_SECUREBITS as usize, bits as usize, 0, 0, 0, 0];
    // SAFETY: two integers.
    unsafe { call(raw::__NR_prctl, arguments) }.map(drop)
}

/// prctl(2) with `PR_SET_NO_NEW_PRIVS`.
pub(super) fn set_no_new_privs() -> Result<(), i32> {
    // SAFETY: two integers, and zeros as the kernel wants them.
    unsafe { call(raw::__NR_prctl, [PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0]) }.map(drop)
}

/// prctl(2) with `PR_SET_PDEATHSIG`.
pub(super) fn set_parent_death_signal(signal: Signal) -> Result<(), i32> {
    let signal = signal.as_raw().unsigned_abs() as usize;
    // SAFETY: two integers.
    unsafe { call(raw::__NR_prctl, [PR_SET_PDEATHSIG as usize, signal, 0, 0, 0, 0]) }.map(drop)
}

/// prctl(2) with `PR_GET_DUMPABLE`.
pub(super) fn is_dumpable() -> bool {
    // SAFETY: one integer.
    let flag = unsafe { call(raw::__NR_prctl, [PR_GET_DUMPABLE as usize, 0, 0, 0, 0, 0]) };
    flag == Ok(1)
}

/// prctl(2) with `PR_SET_DUMPABLE` and 1, with which it cannot fail.
pub(super) fn set_dumpable() {
    // SAFETY: two integers.
    let _ = unsafe { call(raw::__NR_prctl, [PR_SET_DUMPABLE as usize, 1, 0, 0, 0, 0]) };
}

/// getpid(2).
pub(super) fn own_pid() -> Result<u32, i32> {
    // SAFETY: the call takes no argument.
    let pid = unsafe { call(raw::__NR_getpid, [0; 6]) }?;
    u32::try_from(pid).map_err(|_| Errno::OVERFLOW.raw_os_error())
}

/// The time of CLOCK_BOOTTIME: clock_gettime(2).
pub(super) fn time_since_boot() -> Result<Duration, i32> {
    #[cfg(target_pointer_width = "32")]
    const CLOCK_GETTIME: u32 = raw::__NR_clock_gettime64;
    #[cfg(target_pointer_width = "64")]
    const CLOCK_GETTIME: u32 = raw::__NR_clock_gettime;
    let mut time = raw::__kernel_timespec { tv_sec: 0, tv_nsec: 0 };
    let to = (&raw mut time).expose_provenance();
    // SAFETY: `time` is of the type that the call writes.
    unsafe { call(CLOCK_GETTIME, [raw::CLOCK_BOOTTIME as usize, to, 0, 0, 0, 0]) }?;
    let (seconds, nanoseconds) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    Ok(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanoseconds)))
}

/// fsetxattr(2).
pub(super) fn set_attribute(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<(), i32> {
    let fd = fd.as_raw_fd().unsigned_abs() as usize;
    let (name, from) = (name.as_ptr().expose_provenance(), value.as_ptr().expose_provenance());
    // SAFETY: the name ends with a NUL, and `value` has as many bytes as are said.
    unsafe { call(raw::__NR_fsetxattr, [fd, name, from, value.len(), 0, 0]) }.map(drop)
}

/// getppid(2).
pub(super) fn parent() -> Result<usize, i32> {
    // SAFETY: the call takes no argument.
    unsafe { call(raw::__NR_getppid, [0; 6]) }
}

/// chdir(2).
pub(super) fn change_directory(path: &CStr) -> Result<(), i32> {
    // SAFETY: the path ends with a NUL.
    unsafe { call(raw::__NR_chdir, [path.as_ptr().expose_provenance(), 0, 0, 0, 0, 0]) }.map(drop)
}

/// chroot(2), with the new root as working directory too: the old one may be outside of it.
pub(super) fn change_root(path: &CStr) -> Result<(), i32> {
    // SAFETY: the path ends with a NUL.
    unsafe { call(raw::__NR_chroot, [path.as_ptr().expose_provenance(), 0, 0, 0, 0, 0]) }?;
    change_directory(c"/")
}

/// execve(2); gives the errno of its failure, for otherwise it does not return.
pub(super) fn execute(program: &CStr, argv: &CStringArray, envp: &CStringArray) -> i32 {
    let arguments = [
        program.as_ptr().expose_provenance(),
        argv.as_ptr().expose_provenance(),
        envp.as_ptr().expose_provenance(),
        0,
        0,
        0,
    ];
    // SAFETY: the path ends with a NUL, and a `CStringArray` is a null-terminated array of pointers
    // to strings that do as well.
    unsafe { call(raw::__NR_execve, arguments) }.err().unwrap_or(0)
}

/// execveat(2) of the file behind a descriptor, with these arguments and an empty environment;
/// gives the errno of its failure, for otherwise it does not return.
pub(super) fn execute_descriptor(fd: RawFd, arguments: [&CStr; 3]) -> i32 {
    let [first, second, third] = arguments.map(CStr::as_ptr);
    let (argv, envp) = ([first, second, third, ptr::null()], [ptr::null::<c_char>()]);
    let arguments = [
        fd.unsigned_abs() as usize,
        c"".as_ptr().expose_provenance(),
        argv.as_ptr().expose_provenance(),
        envp.as_ptr().expose_provenance(),
        raw::AT_EMPTY_PATH as usize,
        0,
    ];
    // SAFETY: the path ends with a NUL, and both arrays with a null pointer.
    unsafe { call(raw::__NR_execveat, arguments) }.err().unwrap_or(0)
}

/// sched_yield(2), which cannot fail.
pub(super) fn yield_processor() {
    // SAFETY: the call takes no argument.
    let _ = unsafe { call(raw::__NR_sched_yield, [0; 6]) };
}

/// exit_group(2): ends the process without running anything of the host's.
pub(super) fn exit(code: u32) -> ! {
    loop {
        // SAFETY: one integer.
        let _ = unsafe { call(raw::__NR_exit_group, [code as usize, 0, 0, 0, 0, 0]) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{CWD, Mode, OFlags, openat};
    use rustix::process::getpid;

    use super::*;

    #[test]
    fn only_what_stands_for_a_process_is_a_pidfd() {
        let open = |flags| pidfd_open(getpid(), PidfdFlags::from_bits_retain(flags));
        let pidfd = open(0).unwrap();
        assert!(is_pidfd(&pidfd));
        // Since Linux 6.9.
        if let Ok(thread) = open(raw::O_EXCL) {
            assert!(!is_pidfd(&thread));
        }
        let link = format!("/proc/self/fd/{}", pidfd.as_raw_fd());
        // Before Linux 6.9, such a link cannot be opened.
        if let Ok(place) = openat(CWD, link, OFlags::PATH, Mode::empty()) {
            assert!(!is_pidfd(&place));
        }
        assert!(!is_pidfd(&eventfd(0, EventfdFlags::CLOEXEC).unwrap()));
        assert!(!is_pidfd(&File::open("/dev/null").unwrap().into()));
    }
}
