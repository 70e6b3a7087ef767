//! Owns [`ForkMark`]: whether this is still the process that made it, for the cost of a load.
//!
//! Invariant: the mark is set once, in the process that makes it, and the kernel wipes it in every
//! process that this forks. Knows nothing of what depends on it.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, process, ptr};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// A page that is empty in every process but the one that made it.
#[derive(Debug)]
pub(crate) struct ForkMark {
    page: *mut c_void,
    size: usize,
    /// The process that made it.
    pid: u32,
}

// SAFETY: the page is only read once it was made, and unmapped by the drop alone.
unsafe impl Send for ForkMark {}
// SAFETY: as above.
unsafe impl Sync for ForkMark {}

impl ForkMark {
    pub(crate) fn new() -> io::Result<Self> {
        let size = rustix::param::page_size();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new anonymous mapping touches no memory that is in use.
        let page = unsafe { mmap_anonymous(ptr::null_mut(), size, protection, MapFlags::PRIVATE) }?;
        let mark = Self { page, size, pid: process::id() };
        // SAFETY: the range is our own mapping, which nobody refers to yet.
        unsafe { madvise(page, size, Advice::LinuxWipeOnFork) }?;
        mark.flag().store(true, Ordering::Relaxed);
        Ok(mark)
    }

    fn flag(&self) -> &AtomicBool {
        // SAFETY: the page lives as long as `self`; a zeroed byte is a valid flag.
        unsafe { &*self.page.cast::<AtomicBool>() }
    }

    /// Whether the calling process is the one that made this.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        self.flag().load(Ordering::Relaxed)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for ForkMark {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; no reference into it outlives `self`.
        let _ = unsafe { munmap(self.page, self.size) };
    }
}
