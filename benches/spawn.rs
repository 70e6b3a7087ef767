//! How long a job takes from spawn to `Finished`, and whether that depends on the size of the host.
//!
//! Runs /bin/true as a job, and compares that with the fewest system calls that can do the same
//! (mkdir of the group, the log file, a vfork-like clone3 into the group, exec, one event on the
//! pidfd, reap, rmdir), and with `std::process::Command`, which does less: no group and no log.
//! They run alternately, one by one, with more and more memory of the host touched.
//!
//! Invariant: nothing is left of any of them.
#![allow(unsafe_code)]

mod common;
#[path = "common/touched.rs"]
mod touched;

use std::ffi::{CStr, c_char, c_int};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use common::{Table, cgroup_mount, median, median_ratio, quantile, quick, verdict};
use jobworker::{ByteSize, Command, Config, Event, Events, Exit, Limits, Reactor, Token};
use linux_raw_sys::general as raw;
use rustix::event::epoll;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use touched::Touched;

const PROGRAM: &CStr = c"/bin/true";

/// How many times as long as the floor a job may take from spawn to `Finished`.
const FLOOR_TARGET: f64 = 1.15;

/// How many times as long a job may take in a large host as in an empty one.
const FLAT_TARGET: f64 = 1.3;

const GIB: usize = 1 << 30;

/// What was measured at one size of the host, in microseconds, one entry for each turn.
#[derive(Debug, Default)]
struct Times {
    ours: Vec<f64>,
    floor: Vec<f64>,
    std: Vec<f64>,
    /// As another user, on a copy of the host's memory.
    user: Vec<f64>,
    /// As another user, through a launcher.
    launched: Vec<f64>,
}

fn main() -> ExitCode {
    jobworker::run_launcher();
    let (sizes, rounds, turns): (&[usize], _, _) =
        if quick() { (&[0, GIB / 4], 1, 60) } else { (&[0, GIB, 2 * GIB, 4 * GIB], 5, 120) };
    let mut reactor = Reactor::new().unwrap();
    let launcher = launcher();
    let mut with_launcher = Reactor::with_config(Config::new().launcher(&launcher)).unwrap();
    let mut events = Events::with_capacity(64);
    let command = Command::new("/bin/true");
    let mut as_user = command.clone();
    as_user.uid(65534).gid(65534);
    let mut floor = Floor::new();
    let mut results: Vec<Times> = sizes.iter().map(|_| Times::default()).collect();
    for _ in common::turns(rounds) {
        for (size, times) in sizes.iter().zip(&mut results) {
            let _touched = Touched::new(*size);
            for turn in 0..turns {
                // Which one goes first changes with each turn.
                if turn % 2 == 0 {
                    times.floor.push(floor.run());
                    times.ours.push(ours(&mut reactor, &mut events, &command));
                } else {
                    times.ours.push(ours(&mut reactor, &mut events, &command));
                    times.floor.push(floor.run());
                }
                times.launched.push(ours(&mut with_launcher, &mut events, &as_user));
                times.std.push(with_std());
                // Last: the copy leaves page faults to the host.
                times.user.push(ours(&mut reactor, &mut events, &as_user));
            }
        }
    }

    let mut table = Table::new(&[
        "host",
        "p50 us",
        "p99 us",
        "floor p50",
        "floor p99",
        "ratio",
        "",
        "of empty host",
        "",
        "std p50",
        "uid p50",
        "launched p50",
        "p99",
        "of no uid",
        "of empty host",
        "",
    ]);
    let (empty, launched) = (median(&results[0].ours), median(&results[0].launched));
    for (size, times) in sizes.iter().zip(&results) {
        let (ratio, grown) = (median_ratio(&times.ours, &times.floor), median(&times.ours) / empty);
        table.row(vec![
            format!("{:.2} GiB", *size as f64 / GIB as f64),
            format!("{:.0}", median(&times.ours)),
            format!("{:.0}", quantile(&times.ours, 0.99)),
            format!("{:.0}", median(&times.floor)),
            format!("{:.0}", quantile(&times.floor, 0.99)),
            format!("{ratio:.3}"),
            verdict(ratio, FLOOR_TARGET),
            format!("{grown:.2}"),
            if *size == 0 { String::new() } else { verdict(grown, FLAT_TARGET) },
            format!("{:.0}", median(&times.std)),
            format!("{:.0}", median(&times.user)),
            format!("{:.0}", median(&times.launched)),
            format!("{:.0}", quantile(&times.launched, 0.99)),
            format!("{:.2}", median_ratio(&times.launched, &times.ours)),
            format!("{:.2}", median(&times.launched) / launched),
            if *size == 0 {
                String::new()
            } else {
                verdict(median(&times.launched) / launched, FLAT_TARGET)
            },
        ]);
    }
    table.print(&format!(
        "/bin/true from spawn to Finished; {} turns for each size of the host",
        results[0].ours.len()
    ));
    println!(
        "floor: mkdir, log, clone3(VM|VFORK|PIDFD|INTO_CGROUP), exec, epoll, waitid, rmdir; std: \
         spawn and wait, no group, no log; uid: as another user, bounded, on a copy of the memory; \
         launched: the same through {}",
        launcher.display()
    );
    compare_with_pool(&mut reactor, &mut events, rounds * turns);
    ExitCode::SUCCESS
}

/// The launcher that `JOBWORKER_LAUNCHER` names, or the one that was built with the same profile;
/// this program if there is none.
fn launcher() -> PathBuf {
    if let Some(path) = std::env::var_os("JOBWORKER_LAUNCHER") {
        return path.into();
    }
    let own = std::env::current_exe().unwrap();
    let beside = own.parent().and_then(Path::parent).map(|dir| dir.join("jobworker-launcher"));
    beside.filter(|path| path.exists()).unwrap_or(own)
}

/// The same with limits, in groups that are made at the spawn and in groups that were prepared.
fn compare_with_pool(reactor: &mut Reactor, events: &mut Events, turns: usize) {
    let mut limits = Limits::new();
    limits.cpu_weight(200).memory_high(ByteSize::from_bytes(1 << 30)).pids_max(1000);
    if reactor.prepare(&limits, 0).is_err() {
        println!("no controllers here: groups without limits");
        limits = Limits::new();
    }
    let mut command = Command::new("/bin/true");
    command.limits(&limits).accounting(false);
    let (mut made, mut prepared) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        made.push(ours(reactor, events, &command));
        reactor.prepare(&limits, 1).unwrap();
        prepared.push(ours(reactor, events, &command));
    }
    println!(
        "with limits, p50 us: {:.0} in a group made at the spawn, {:.0} in a prepared one ({:.3})",
        median(&made),
        median(&prepared),
        median_ratio(&prepared, &made)
    );
}

fn microseconds(since: Instant) -> f64 {
    since.elapsed().as_nanos() as f64 / 1e3
}

fn ours(reactor: &mut Reactor, events: &mut Events, command: &Command) -> f64 {
    let start = Instant::now();
    let job = reactor.spawn(command, Token(0)).unwrap();
    loop {
        reactor.poll(events, None).unwrap();
        let finished = events.iter().find_map(|event| match event {
            Event::Finished { report, .. } => Some(report),
            _ => None,
        });
        if let Some(report) = finished {
            let time = microseconds(start);
            assert_eq!(report.exit, Exit::Code(0));
            reactor.remove(job).unwrap();
            return time;
        }
    }
}

fn with_std() -> f64 {
    let start = Instant::now();
    let mut command = std::process::Command::new("/bin/true");
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.spawn().unwrap().wait().unwrap();
    let time = microseconds(start);
    assert!(status.success());
    time
}

unsafe extern "C" {
    // std links libc anyway.
    fn execve(
        program: *const c_char,
        argv: *const *const c_char,
        envp: *const *const c_char,
    ) -> c_int;
    fn dup2(old: c_int, new: c_int) -> c_int;
    fn _exit(code: c_int) -> !;
}

/// The same work by hand.
struct Floor {
    parent: OwnedFd,
    _logs: tempfile::TempDir,
    log_dir: OwnedFd,
    epoll: OwnedFd,
    null: OwnedFd,
    stack: Box<[u128]>,
    number: u32,
}

/// The descriptors that the child is given.
struct Streams {
    null: c_int,
    log: c_int,
}

fn open_dir(path: &Path) -> OwnedFd {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

impl Floor {
    fn new() -> Self {
        let logs = tempfile::Builder::new().prefix("jobworker-bench-").tempdir().unwrap();
        Self {
            parent: open_dir(&cgroup_mount()),
            log_dir: open_dir(logs.path()),
            _logs: logs,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
            null: openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap(),
            stack: vec![0; 4096].into_boxed_slice(),
            number: 0,
        }
    }

    fn run(&mut self) -> f64 {
        self.number += 1;
        // Names as long as those of a reactor.
        let name = format!("jobworker-bench-{:08}-{:011}", std::process::id(), self.number);
        let log_name = format!("{name}.log");
        let start = Instant::now();
        mkdirat(&self.parent, &name, Mode::from_raw_mode(0o755)).unwrap();
        let group = openat(
            &self.parent,
            &name,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .unwrap();
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let log = openat(&self.log_dir, &log_name, flags, Mode::RUSR | Mode::WUSR).unwrap();
        let pidfd = self.clone(&group, &log);
        drop(log);
        epoll::add(&self.epoll, &pidfd, epoll::EventData::new_u64(1), epoll::EventFlags::IN)
            .unwrap();
        let mut ready = Vec::with_capacity(8);
        common::wait(&self.epoll, &mut ready);
        let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        drop(pidfd);
        unlinkat(&self.parent, &name, AtFlags::REMOVEDIR).unwrap();
        let time = microseconds(start);
        assert_eq!(status.exit_status(), Some(0));
        unlinkat(&self.log_dir, &log_name, AtFlags::empty()).unwrap();
        time
    }

    fn clone(&mut self, group: &OwnedFd, log: &OwnedFd) -> OwnedFd {
        let mut pidfd: c_int = -1;
        let arguments = raw::clone_args {
            flags: u64::from(raw::CLONE_VM | raw::CLONE_VFORK | raw::CLONE_PIDFD)
                | raw::CLONE_INTO_CGROUP,
            pidfd: (&raw mut pidfd).addr() as u64,
            child_tid: 0,
            parent_tid: 0,
            exit_signal: u64::from(raw::SIGCHLD),
            stack: self.stack.as_mut_ptr().addr() as u64,
            stack_size: size_of_val(&*self.stack) as u64,
            tls: 0,
            set_tid: 0,
            set_tid_size: 0,
            cgroup: u64::from(group.as_raw_fd().unsigned_abs()),
        };
        let streams = Streams { null: self.null.as_raw_fd(), log: log.as_raw_fd() };
        // SAFETY: the child runs `child` on a stack of its own and leaves by exec or exit; what it
        // reads stays valid, because this thread waits meanwhile (CLONE_VFORK).
        let pid = unsafe { clone3(&arguments, &streams) };
        assert!(
            pid > 0,
            "clone3: {}",
            std::io::Error::from_raw_os_error(i32::try_from(-pid).unwrap())
        );
        // SAFETY: the kernel has just opened it for us.
        unsafe { OwnedFd::from_raw_fd(pidfd) }
    }
}

/// The child, on the floor's stack.
extern "C" fn child(streams: &Streams) -> ! {
    let (argv, envp) = ([PROGRAM.as_ptr(), std::ptr::null()], [std::ptr::null()]);
    // SAFETY: plain system calls, on descriptors that are open and strings that stay valid.
    unsafe {
        dup2(streams.null, 0);
        dup2(streams.log, 1);
        dup2(streams.log, 2);
        execve(PROGRAM.as_ptr(), argv.as_ptr(), envp.as_ptr());
        _exit(127)
    }
}

/// clone3 whose child goes on in [`child`], on the stack that `arguments` name.
///
/// # Safety
/// The stack must be unused, and all that the child reads must stay valid until it has left.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(arguments: &raw::clone_args, streams: &Streams) -> isize {
    let result;
    // SAFETY: the parent returns with the result in rax and everything else unchanged; the child
    // never leaves the block.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "2:",
            inlateout("rax") raw::__NR_clone3 as isize => result,
            in("rdi") arguments,
            in("rsi") size_of_val(arguments),
            in("r12") streams,
            in("r13") child as extern "C" fn(&Streams) -> !,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// As on x86-64.
///
/// # Safety
/// As there.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(arguments: &raw::clone_args, streams: &Streams) -> isize {
    let result;
    // SAFETY: as on x86-64.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x9",
            "blr x10",
            "2:",
            inlateout("x0") arguments => result,
            in("x1") size_of_val(arguments),
            in("x8") raw::__NR_clone3,
            in("x9") streams,
            in("x10") child as extern "C" fn(&Streams) -> !,
        );
    }
    result
}

/// Elsewhere the child is a copy of the host, so this floor is higher than it could be.
///
/// # Safety
/// As on x86-64.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone3(arguments: &raw::clone_args, streams: &Streams) -> isize {
    unsafe extern "C" {
        fn syscall(number: std::ffi::c_long, ...) -> std::ffi::c_long;
    }
    let flags = arguments.flags & !u64::from(raw::CLONE_VM);
    let arguments = raw::clone_args { flags, stack: 0, stack_size: 0, ..*arguments };
    // SAFETY: the child has its own copy of the memory.
    match unsafe {
        syscall(raw::__NR_clone3 as std::ffi::c_long, &raw const arguments, size_of_val(&arguments))
    } {
        0 => child(streams),
        result => result as isize,
    }
}
