//! Owns the system calls that tests need and rustix lacks. Knows nothing of what they show.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

unsafe extern "C" {
    // std links the C library anyway.
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn close(fd: c_int) -> c_int;
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
