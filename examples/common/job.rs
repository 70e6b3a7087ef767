//! The flags that say what to run and where, for every example that runs one job with limits.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use jobworker::Command;

use crate::common;
use crate::common::place::PlaceFlags;
use crate::limits::LimitFlags;
use crate::seconds::seconds;

#[derive(Args)]
pub(crate) struct JobFlags {
    #[command(flatten)]
    pub(crate) place: PlaceFlags,
    /// Time between the stop signal and the kill.
    #[arg(
        long, value_name = "SECS", default_value = "10", value_parser = seconds,
        help_heading = "When it ends"
    )]
    grace: Duration,
    /// Stop the job after this time.
    #[arg(long, value_name = "SECS", value_parser = seconds, help_heading = "When it ends")]
    pub(crate) timeout: Option<Duration>,
    /// Leave the log behind, and say where it is.
    #[arg(long, help_heading = "Where")]
    pub(crate) keep_log: bool,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    /// The program, and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl JobFlags {
    pub(crate) fn command(&self) -> anyhow::Result<Command> {
        let mut command = common::command(&self.command)?;
        command.limits(&self.limits.limits).grace(self.grace).keep_log(self.keep_log);
        if let Some(timeout) = self.timeout {
            command.time_limit(timeout);
        }
        Ok(command)
    }
}
