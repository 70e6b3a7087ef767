//! Owns [`memory_file`]: bytes in a file that has no name.
//!
//! Invariant: nobody can change the content, and making it raises no signal. Knows nothing of what
//! the bytes are for.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// What is put on the file.
pub(super) const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// A sealed file in memory with this content, at its first byte. `name` is shown in /proc.
pub(crate) fn memory_file(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    // The kernel would end the host by SIGXFSZ.
    if getrlimit(Resource::Fsize).current.is_some_and(|limit| content.len() as u64 > limit) {
        return Err(Errno::FBIG.into());
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // The sysctl vm.memfd_noexec can demand the flag, which Linux has had since 6.3.
    let made = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, flags),
        made => made,
    };
    let file = File::from(made?);
    // The offset, which whoever inherits the file shares, stays at the beginning.
    file.write_all_at(content, 0)?;
    fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_memory_file_is_read_from_its_beginning_and_cannot_be_changed() {
        let mut file = File::from(memory_file(c"test", b"bytes").unwrap());
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"bytes");
        for offset in [0, 5] {
            let error = file.write_all_at(b"x", offset).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::PERM.raw_os_error()));
        }
        assert!(file.set_len(0).is_err());
    }
}
