//! The flags that say what to run and where, for every example that runs one job with limits.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jobworker::{Command, Config};

use crate::common;
use crate::limits::LimitFlags;

#[derive(Args)]
pub(crate) struct JobFlags {
    /// Cgroup in which that of the job is made.
    #[arg(long, value_name = "DIR")]
    cgroup_parent: Option<PathBuf>,
    /// Directory of the job's log; it must be yours, with mode 0700.
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// Time between the stop signal and the kill.
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = seconds)]
    grace: Duration,
    /// Stop the job after this time.
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Leave the log behind, and say where it is.
    #[arg(long)]
    pub(crate) keep_log: bool,
    #[command(flatten)]
    limits: LimitFlags,
    /// The program, and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl JobFlags {
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new();
        if let Some(dir) = &self.cgroup_parent {
            config.cgroup_parent(dir);
        }
        if let Some(dir) = &self.log_dir {
            config.log_dir(dir);
        }
        config
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = common::command(&self.command);
        command.limits(&self.limits.0).grace(self.grace).keep_log(self.keep_log);
        if let Some(timeout) = self.timeout {
            command.time_limit(timeout);
        }
        command
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds, such as 1.5")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
