//! Owns the raw system calls that rustix lacks: waitid with resource usage, signals by number, what
//! a pidfd tells.
//!
//! Invariant: an errno is returned, never lost. Must not know about jobs, logs or the loop.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use std::{io, mem};

use linux_raw_sys::general as raw;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::command::Signal;
use crate::event::{Exit, Usage};

unsafe extern "C" {
    /// The C library's door to any system call; std links it anyway. It touches nothing but
    /// `errno`.
    fn syscall(number: c_long, ...) -> c_long;
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
    /// Look whether it has exited, and leave the zombie, so that its number stays taken.
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
            Err(4) => {} // EINTR
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

fn pidfd_info(pidfd: &OwnedFd, mask: u64) -> Result<PidfdInfo, i32> {
    const PIDFD_GET_INFO: u32 = rustix::ioctl::opcode::read_write::<PidfdInfo>(0xff, 11);
    let mut info = PidfdInfo { mask, cgroup: 0, ids: [0; 11], exit_code: 0 };
    let fd = pidfd.as_raw_fd().unsigned_abs() as usize;
    let arguments = [fd, PIDFD_GET_INFO as usize, (&raw mut info).expose_provenance(), 0, 0, 0];
    // SAFETY: the size of the structure is part of the request; the kernel writes no more than
    // that.
    unsafe { call(raw::__NR_ioctl, arguments) }.map(|_| info)
}

/// Whether the kernel tells anything of a pidfd (`PIDFD_GET_INFO`, Linux 6.13).
pub(crate) fn tells_pidfd_info() -> bool {
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    own.is_ok_and(|own| pidfd_info(&own, 0).is_ok())
}

/// How a process ended that somebody else has reaped; from Linux 6.15 on, the kernel keeps it for
/// the pidfd.
pub(crate) fn exit_after_reap(pidfd: &OwnedFd) -> Exit {
    let Ok(info) = pidfd_info(pidfd, PIDFD_INFO_EXIT) else { return Exit::Unknown };
    if info.mask & PIDFD_INFO_EXIT == 0 {
        return Exit::Unknown;
    }
    // As wait(2) encodes it: the signal in the low seven bits, then the core dump flag, then the
    // code.
    match Signal::from_raw(info.exit_code & 0x7f) {
        Some(signal) => Exit::Signal { signal, core_dumped: info.exit_code & 0x80 != 0 },
        None => Exit::Code((info.exit_code >> 8) & 0xff),
    }
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
