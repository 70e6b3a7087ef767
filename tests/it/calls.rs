//! Owns the system calls that tests need and rustix lacks. Knows nothing of what they show.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long, c_void};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd;

use linux_raw_sys::general::__NR_clone3;

/// Makes this program a launcher as well, for hosts in these tests: `main` belongs to the harness,
/// so this runs before it.
#[used]
// SAFETY: the C library calls what is in this section before `main`, on the main thread. Rust's
// standard library has its arguments by then.
#[unsafe(link_section = ".init_array")]
static RUN_LAUNCHER: extern "C" fn() = {
    extern "C" fn run_launcher() {
        let own = std::env::current_exe().unwrap_or_default();
        if own.ends_with("launcher-of-another-release") {
            // The word that tells the version, on the descriptor for words.
            let word = [0, 4711u32];
            // SAFETY: the kernel reads eight bytes; what follows ends the process.
            unsafe {
                write(3, word.as_ptr().cast(), 8);
                _exit(0)
            }
        }
        jobworker::run_launcher();
    }
    run_launcher
};

/// Prints what the tests have left out, when all are done: `main` belongs to the harness.
#[used]
// SAFETY: the C library calls what is in this section at the end of `exit`, on the thread that
// exits. Nothing there needs more of Rust's standard library than standard error and a lock.
#[unsafe(link_section = ".fini_array")]
static PRINT_SKIPS: extern "C" fn() = {
    extern "C" fn print_skips() {
        // Nobody is left to be told that it cannot be printed.
        let _ = io::stderr().write_all(crate::skips::summary().as_bytes());
    }
    print_skips
};

unsafe extern "C" {
    // std links the C library anyway.
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn close(fd: c_int) -> c_int;
    fn fork() -> c_int;
    fn _exit(code: c_int) -> !;
    fn syscall(number: c_long, ...) -> c_long;
    fn prctl(option: c_int, ...) -> c_int;
    fn write(fd: c_int, bytes: *const c_void, length: usize) -> isize;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
}

/// Takes a write lease: whoever opens the file waits until this process closes it, for up to
/// `/proc/sys/fs/lease-break-time` seconds.
#[track_caller]
pub(crate) fn hold_lease(file: &File) {
    const F_SETLEASE: c_int = 1024;
    const F_WRLCK: c_int = 1;
    // SAFETY: three integers, of a descriptor that is open.
    let result = unsafe { fcntl(file.as_raw_fd(), F_SETLEASE, F_WRLCK) };
    assert_eq!(result, 0, "F_SETLEASE: {}", io::Error::last_os_error());
}

/// The I/O priority of a process, or of the calling thread for 0: class and level as ioprio_get(2)
/// gives them.
#[track_caller]
pub(crate) fn io_priority(pid: u32) -> c_long {
    const IOPRIO_GET: c_long = if cfg!(target_arch = "x86_64") { 252 } else { 31 };
    const WHO_PROCESS: c_long = 1;
    // SAFETY: integers.
    let priority = unsafe { syscall(IOPRIO_GET, WHO_PROCESS, pid) };
    assert!(priority >= 0, "ioprio_get: {}", io::Error::last_os_error());
    priority
}

/// Closes 0, 1 and 2, in a process in which nothing uses them but what prints.
pub(crate) fn close_standard_streams() {
    for fd in 0..=2 {
        // SAFETY: std treats them as absent if they are closed, and nothing else owns them.
        unsafe { close(fd) };
    }
}

/// Reaps any child of this process, of any kind, once one has exited; returns whether there was
/// one.
pub(crate) fn reap_any_child() -> bool {
    const WALL: c_int = 0x4000_0000;
    // SAFETY: no status is asked for.
    unsafe { waitpid(-1, std::ptr::null_mut(), WALL) > 0 }
}

/// Makes this process the parent of all its descendants whose own parent has exited.
#[track_caller]
pub(crate) fn become_subreaper() {
    const PR_SET_CHILD_SUBREAPER: c_int = 36;
    // SAFETY: integers.
    let result = unsafe { prctl(PR_SET_CHILD_SUBREAPER, 1usize, 0usize, 0usize, 0usize) };
    assert_eq!(result, 0, "PR_SET_CHILD_SUBREAPER: {}", io::Error::last_os_error());
}

/// One instruction of a seccomp filter, as in linux/filter.h.
#[repr(C)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

/// Makes clone3 fail with ENOSYS in this thread and its children, for good.
#[track_caller]
pub(crate) fn refuse_clone3() {
    const SECCOMP_RET_ERRNO: u32 = 0x0005_0000;
    const ENOSYS: u32 = 38;
    filter(__NR_clone3, SECCOMP_RET_ERRNO | ENOSYS);
}

/// Makes this process die, as if it were killed, when this thread makes a system call.
#[track_caller]
pub(crate) fn die_at(call: u32) {
    const SECCOMP_RET_KILL_PROCESS: u32 = 0x8000_0000;
    filter(call, SECCOMP_RET_KILL_PROCESS);
}

/// What becomes of a system call of this thread and its children, for good.
#[track_caller]
fn filter(call: u32, action: u32) {
    const PR_SET_SECCOMP: c_int = 22;
    const PR_SET_NO_NEW_PRIVS: c_int = 38;
    const SECCOMP_MODE_FILTER: usize = 2;
    const SECCOMP_RET_ALLOW: u32 = 0x7fff_0000;
    #[repr(C)]
    struct Program {
        length: u16,
        first: *const Instruction,
    }
    let instruction = |code, if_true, operand| Instruction { code, if_true, if_false: 0, operand };
    let filter = [
        // Load the number of the system call; skip one instruction if it is this one.
        instruction(0x20, 0, 0),
        instruction(0x15, 1, call),
        instruction(0x06, 0, SECCOMP_RET_ALLOW),
        instruction(0x06, 0, action),
    ];
    let program = Program { length: 4, first: filter.as_ptr() };
    // SAFETY: integers, then a pointer to a program of which the kernel makes a copy.
    let results = unsafe {
        [
            prctl(PR_SET_NO_NEW_PRIVS, 1usize, 0usize, 0usize, 0usize),
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &raw const program, 0usize, 0usize),
        ]
    };
    assert_eq!(results, [0, 0], "prctl: {}", io::Error::last_os_error());
}

/// Runs `with` in a forked process, and returns whether it has returned there.
pub(crate) fn forked(with: impl FnOnce()) -> bool {
    // SAFETY: the C library makes its allocator usable in the child, and what else runs there is
    // `with`, which touches nothing that another thread may have locked.
    match unsafe { fork() } {
        0 => {
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(with)).is_ok();
            // SAFETY: ends the process without running anything of the harness.
            unsafe { _exit(if ran { 42 } else { 1 }) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: the status is written to where the pointer says.
            let reaped = unsafe { waitpid(pid, &raw mut status, 0) };
            reaped == pid && status == 42 << 8
        }
    }
}
