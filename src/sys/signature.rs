//! Owns [`Signature`]: what the main process of a job says of itself on its cgroup before it
//! becomes its program, for a host that comes after one that died in the middle of a spawn.
//!
//! Invariant: written by the process itself, so that it is there however the host ends. Knows
//! nothing of who reads it.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::sys::calls;

/// Which process it is, and a time at which it was there: one that has its number later was cloned
/// later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) pid: u32,
    /// Since the system was booted.
    pub(crate) at: Duration,
}

impl Signature {
    /// The extended attribute that holds it.
    pub(crate) const NAME: &CStr = c"user.jobworker.main";
    /// How many bytes it has.
    pub(crate) const SIZE: usize = size_of::<u128>();

    /// The bytes of the attribute.
    pub(crate) fn encode(pid: u32, at: Duration) -> [u8; Self::SIZE] {
        let time = u128::from(at.as_secs()) << 64 | u128::from(at.subsec_nanos()) << 32;
        (time | u128::from(pid)).to_le_bytes()
    }

    /// What the bytes say.
    pub(crate) fn decode(bytes: [u8; Self::SIZE]) -> Self {
        let word = u128::from_le_bytes(bytes);
        let [pid, nanoseconds] = [word, word >> 32].map(|part| (part & 0xffff_ffff) as u32);
        let at = Duration::from_secs((word >> 64) as u64)
            .saturating_add(Duration::from_nanos(nanoseconds.into()));
        Self { pid, at }
    }
}

/// Signs a cgroup, by its directory, as the process that this is. Made for a child that runs on the
/// memory of its host: it allocates nothing and cannot panic.
pub(super) fn sign(group: BorrowedFd<'_>) -> Result<(), i32> {
    let signature = Signature::encode(calls::own_pid()?, calls::time_since_boot()?);
    calls::set_attribute(group, Signature::NAME, &signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_read_back_and_any_other_bytes_are_one() {
        for (pid, at) in [(1, Duration::ZERO), (4_194_303, Duration::new(86_400, 999_999_999))] {
            let bytes = Signature::encode(pid, at);
            assert_eq!(Signature::decode(bytes), Signature { pid, at });
        }
        assert_eq!(Signature::decode([0xff; 16]).pid, u32::MAX);
    }
}
