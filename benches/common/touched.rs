//! Owns [`Touched`], which makes a host as large as a benchmark wants it.
//!
//! Apart from the rest of what benchmarks share, because it takes unsafe code.
#![allow(unsafe_code)]

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Memory of the host in pages of the smallest size, each touched.
#[derive(Debug)]
pub(crate) struct Touched {
    base: *mut u8,
    length: usize,
}

impl Touched {
    pub(crate) fn new(length: usize) -> Self {
        if length == 0 {
            return Self { base: std::ptr::null_mut(), length };
        }
        // SAFETY: a new anonymous mapping touches no memory in use; it is only written to within
        // its length.
        unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            let base = mmap_anonymous(std::ptr::null_mut(), length, protection, MapFlags::PRIVATE)
                .unwrap();
            // With large pages, there would be few page tables for a fork to copy.
            let _ = madvise(base, length, Advice::LinuxNoHugepage);
            let base = base.cast::<u8>();
            for offset in (0..length).step_by(4096) {
                base.add(offset).write_volatile(1);
            }
            Self { base, length }
        }
    }
}

impl Drop for Touched {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: mapped in `new` with this length, and nobody else knows of it.
            unsafe { munmap(self.base.cast(), self.length) }.unwrap();
        }
    }
}
