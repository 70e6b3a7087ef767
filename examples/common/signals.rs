//! Which signals a host handles.

use std::ffi::c_int;
use std::fs;

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP};

/// Those that ask it to end: SIGINT, SIGTERM and, unless this process was started by nohup, SIGHUP.
pub(crate) fn to_handle() -> anyhow::Result<Vec<c_int>> {
    let mut signals = vec![SIGINT, SIGTERM];
    // A program that was started by nohup is to go on after a hangup.
    if !is_ignored(SIGHUP)? {
        signals.push(SIGHUP);
    }
    Ok(signals)
}

/// The signal by which a terminal suspends this process (Ctrl-Z), unless a shell without job
/// control, which could not resume it, has started it with that ignored.
#[allow(dead_code, reason = "not every host can be suspended with its job")]
pub(crate) fn to_suspend() -> anyhow::Result<Option<c_int>> {
    Ok(if is_ignored(SIGTSTP)? { None } else { Some(SIGTSTP) })
}

/// Whether this process was started with a signal ignored.
fn is_ignored(signal: c_int) -> anyhow::Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .context("no SigIgn in /proc/self/status")?;
    Ok(u64::from_str_radix(mask.trim(), 16)? >> (signal - 1) & 1 == 1)
}
