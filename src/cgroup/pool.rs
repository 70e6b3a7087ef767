//! Owns [`Pool`]: cgroups that were made, with their limits, before they are needed.
//!
//! Invariant: no process was ever in a group of the pool, and each is given out once. Dropping the
//! pool removes what was not given out.

use uuid::Uuid;

use crate::cgroup::group::Group;
use crate::cgroup::owner::Owner;
use crate::command::Limits;
use crate::error::Result;
use crate::sys::random_uuid;

/// Ready-made groups, all with the same limits.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    limits: Limits,
    ready: Vec<(Uuid, Group)>,
    /// The process that made the groups; one that it has forked must not remove them.
    maker: Option<u32>,
}

impl Pool {
    /// Creates groups until there are `count` with these limits, and removes those with others.
    pub(crate) fn fill(&mut self, owner: &Owner, limits: &Limits, count: usize) -> Result<()> {
        let settings = owner.tree().require_for_new(limits)?;
        if self.limits != *limits {
            self.clear();
            self.limits = limits.clone();
        }
        while self.ready.len() < count {
            let uuid = random_uuid()?;
            let group = owner.create(uuid, false)?;
            if let Err(error) = group.apply(&settings) {
                let _ = group.remove();
                return Err(error);
            }
            self.ready.push((uuid, group));
            self.maker = Some(std::process::id());
        }
        Ok(())
    }

    /// A group with exactly these limits, if there is one.
    pub(crate) fn take(&mut self, limits: &Limits) -> Option<(Uuid, Group)> {
        if self.limits == *limits { self.ready.pop() } else { None }
    }

    fn clear(&mut self) {
        for (_, group) in self.ready.drain(..) {
            // A group that was never used is empty. It may have been removed already.
            let _ = group.remove();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.maker == Some(std::process::id()) {
            self.clear();
        }
    }
}
