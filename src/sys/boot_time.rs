//! Owns the clock that every process of the system has in common: the time since it was booted.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since the system was booted, suspension included.
pub(crate) fn boot_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds)
        + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}
