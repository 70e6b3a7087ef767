//! Runs a program as a job in its own cgroup and passes its output on as it appears: the library's `time` or `nohup`.
//!
//! `cargo run --release --example run -- bash -c 'while true; do echo hello; sleep 2; done'`, then Ctrl-C.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use jobworker::{
    ByteSize, Command, Config, Containment, Event, Events, Fill, Limits, Position, Status, StopCause, Token,
};
use signal_hook::consts::SIGPIPE;

use crate::common::{Host, failed, say};

mod common;

/// Runs CMD as a job in its own cgroup.
///
/// CMD has the environment and the working directory of this process, and /dev/null as standard input. What it prints,
/// on standard output or standard error, appears on standard output, byte for byte; the job's status goes to standard
/// error. SIGINT (Ctrl-C) or SIGTERM stop every process of the job, and a second SIGINT kills them at once.
///
/// The exit status is that of CMD, 128+N when signal N ended it, 125 when the job could not be set up, 126 when CMD
/// cannot be run, 127 when it is not found, and 141 when nobody reads standard output any more.
#[derive(Parser)]
#[command(name = "run", override_usage = "run [OPTIONS] CMD [ARGS]...")]
struct Options {
    /// Share of the CPU against other jobs, 1 to 10000.
    #[arg(long, value_name = "N")]
    cpu_weight: Option<u32>,
    /// Memory above which the job is slowed down, such as 100M.
    #[arg(long, value_name = "SIZE")]
    memory_high: Option<ByteSize>,
    /// Share of disk time against other jobs, 1 to 10000.
    #[arg(long, value_name = "N")]
    io_weight: Option<u32>,
    /// Cgroup in which that of the job is made.
    #[arg(long, value_name = "DIR")]
    cgroup_parent: Option<PathBuf>,
    /// Directory of the job's log; it must be yours, with mode 0700.
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// Time from the job's being told to stop to its being killed.
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = seconds)]
    grace: Duration,
    /// Stop the job after this time.
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Hold the job together by its process group only, which it can leave.
    #[arg(long, conflicts_with = "cgroup_parent")]
    no_cgroup: bool,
    /// Leave the log behind, and say where it is.
    #[arg(long)]
    keep_log: bool,
    /// The program, and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Options {
    fn config(&self) -> Config {
        let mut config = Config::new();
        if self.no_cgroup {
            config.containment(Containment::ProcessGroup);
        }
        if let Some(dir) = &self.cgroup_parent {
            config.cgroup_parent(dir);
        }
        if let Some(dir) = &self.log_dir {
            config.log_dir(dir);
        }
        config
    }

    fn command(&self) -> Command {
        let mut limits = Limits::new();
        if let Some(weight) = self.cpu_weight {
            limits.cpu_weight(weight);
        }
        if let Some(size) = self.memory_high {
            limits.memory_high(size);
        }
        if let Some(weight) = self.io_weight {
            limits.io_weight(weight);
        }
        let mut command = common::command(&self.command);
        command.limits(&limits).grace(self.grace).keep_log(self.keep_log);
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

fn main() -> ExitCode {
    let options: Options = match common::parse() {
        Ok(options) => options,
        Err(status) => return status,
    };
    run(&options).unwrap_or_else(|error| failed(&error))
}

fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut host = Host::new(&options.config())?;
    let job = host.reactor.spawn(&options.command(), Token(0))?;
    let tail = host.reactor.tail(job, Position::Start, Token(0))?;
    let status = host.reactor.status(job)?;
    let cgroup = status.cgroup.clone();
    say(block(&status, cgroup.as_deref(), options.keep_log));

    let mut events = Events::with_capacity(16);
    let (mut readable, mut ended, mut broken_pipe) = (false, false, false);
    let mut exit = None;
    while exit.is_none() || !(host.given_up || ended && host.stdout.is_empty()) {
        for signal in host.turn(&mut events, readable)? {
            broken_pipe |= signal == SIGPIPE;
            host.obey(signal, job)?;
        }
        for event in &events {
            match event {
                Event::Readable { .. } => readable = true,
                // By now every process of the job is gone, and so is its cgroup; its last output may still be unread.
                Event::Finished { report, .. } => {
                    exit = Some(report.exit);
                    say(block(&host.reactor.status(job)?, cgroup.as_deref(), options.keep_log));
                    for problem in &report.problems {
                        say(format_args!("run: {problem}"));
                    }
                    match report.stopped_by {
                        Some(StopCause::TimeLimit) => say(format_args!("Stopped job {job} at its time limit")),
                        Some(_) => say(format_args!("Stopped job {job}")),
                        None => {}
                    }
                }
                _ => {}
            }
        }
        // The log is read no faster than standard output is, and piece by piece, so that a signal is never kept waiting.
        if readable && host.stdout.has_room() {
            match host.reactor.fill_buf(tail)? {
                Fill::Data(bytes) => {
                    let length = bytes.len();
                    host.stdout.print(bytes);
                    host.reactor.consume(tail, length)?;
                }
                Fill::UpToDate => readable = false,
                Fill::Ended => (readable, ended) = (false, true),
                // The job has emptied its log: what it writes now follows.
                _ => {}
            }
        }
    }
    host.reactor.remove(job)?;
    let code = if broken_pipe { 128 + SIGPIPE } else { exit.map_or(125, jobworker::Exit::shell_code) };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(125)))
}

/// The job's status, with the places that are worth knowing.
fn block(status: &Status, cgroup: Option<&Path>, with_log: bool) -> String {
    let mut text = status.to_string();
    let log = status.output.as_deref().filter(|_| with_log);
    for (name, path) in [("Cgroup", cgroup), ("Log", log)] {
        if let Some(path) = path {
            text += &format!("\n\t{name}\t {}", path.display());
        }
    }
    text
}
