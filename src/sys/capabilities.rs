//! Owns [`Capabilities`]: the capability sets of a thread, and how they pass through the exec of a
//! program that is none of the host's.
//!
//! Invariant: after the exec and [`restore`](Capabilities::restore) a process has no capability
//! that it had not before. Knows nothing of what they are needed for.

use crate::sys::calls;

/// The capability sets of a thread, with a bit for each capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) effective: u64,
    pub(super) permitted: u64,
    pub(super) inheritable: u64,
    pub(super) ambient: u64,
}

impl Capabilities {
    /// Those of the calling thread.
    pub(super) fn own() -> Result<Self, i32> {
        let mut sets = calls::capabilities()?;
        // Only what is in both can be ambient.
        sets.ambient = bits(sets.permitted & sets.inheritable)
            .filter(|bit| calls::is_ambient_capability(*bit))
            .fold(0, |set, bit| set | 1 << bit);
        Ok(sets)
    }

    /// Those that have to be ambient for a program to have what is effective now.
    pub(super) fn to_raise(self) -> u64 {
        let wanted = self.effective | self.ambient;
        // To root, exec gives everything.
        if wanted == 0 || (rustix::process::geteuid().is_root() && !calls::root_is_a_user()) {
            return 0;
        }
        // One that is bounded away cannot be made inheritable.
        bits(wanted)
            .filter(|bit| self.inheritable & 1 << bit != 0 || calls::is_in_bounding_set(*bit))
            .fold(0, |set, bit| set | 1 << bit)
    }

    /// Makes some of the calling thread's permitted capabilities ambient.
    pub(super) fn raise(raised: u64) -> Result<(), i32> {
        if raised == 0 {
            return Ok(());
        }
        let mut sets = calls::capabilities()?;
        sets.inheritable |= raised;
        calls::set_capabilities(&sets)?;
        bits(raised).try_for_each(|bit| calls::change_ambient_capability(bit, true))
    }

    /// Takes from the calling thread what an exec has given to it beyond these.
    pub(super) fn restore(self) -> Result<(), i32> {
        let now = Self::own()?;
        let permitted = self.permitted & now.permitted;
        let effective = self.effective & permitted;
        let sets = Self { effective, permitted, inheritable: self.inheritable, ..now };
        if sets != now {
            calls::set_capabilities(&sets)?;
        }
        bits(now.ambient & !self.ambient)
            .try_for_each(|bit| calls::change_ambient_capability(bit, false))
    }
}

/// The numbers of the bits that are set.
fn bits(set: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |bit| set & 1 << bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_restore_what_a_thread_has_changes_nothing() {
        let own = Capabilities::own().unwrap();
        own.restore().unwrap();
        assert_eq!(Capabilities::own().unwrap(), own);
        assert_eq!(own.ambient & !own.permitted, 0);
        Capabilities::raise(0).unwrap();
        assert_eq!(Capabilities::own().unwrap(), own);
    }

    #[test]
    fn bits_are_numbered_from_the_lowest() {
        assert!(bits(0b1_0110).eq([1, 2, 4]));
        assert!(bits(1 << 63).eq([63]));
    }
}
