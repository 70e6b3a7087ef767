//! Owns [`Pool`]: cgroups that were made, with their limits, before they are needed.
//!
//! Invariant: no process was ever in a group of the pool, and each is given out once. Dropping the
//! pool removes what was not given out.

use std::sync::Arc;

use uuid::Uuid;

use crate::cgroup::group::Cgroup;
use crate::cgroup::owner::Owner;
use crate::cgroup::tree::Hierarchy;
use crate::command::{Limits, Setting};
use crate::error::Result;
use crate::sys::random_uuid;

/// Ready-made groups, all with the same limits.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    limits: Limits,
    ready: Vec<(Uuid, Cgroup)>,
}

impl Pool {
    /// Makes groups until there are `count` with these limits; those with others are removed.
    pub(crate) fn fill(
        &mut self,
        hierarchy: &Arc<Hierarchy>,
        owner: &Owner,
        limits: &Limits,
        settings: &[Setting],
        count: usize,
    ) -> Result<()> {
        if self.limits != *limits {
            self.clear();
            self.limits = limits.clone();
        }
        while self.ready.len() < count {
            let uuid = random_uuid()?;
            let cgroup = Cgroup::create(hierarchy, &uuid.to_string())?;
            owner.mark(cgroup.dir(), false);
            if let Err(error) = cgroup.apply(settings) {
                let _ = cgroup.remove();
                return Err(error);
            }
            self.ready.push((uuid, cgroup));
        }
        Ok(())
    }

    /// A group with exactly these limits, if there is one.
    pub(crate) fn take(&mut self, limits: &Limits) -> Option<(Uuid, Cgroup)> {
        if self.limits == *limits { self.ready.pop() } else { None }
    }

    fn clear(&mut self) {
        for (_, cgroup) in self.ready.drain(..) {
            // A group that was never used is empty; one that somebody removed is fine.
            let _ = cgroup.remove();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.clear();
    }
}
