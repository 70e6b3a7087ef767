//! Runs a program as a job in its own cgroup and passes its output on as it appears, like `time` or
//! `nohup`.
//!
//! `cargo run --release --example run -- bash -c 'while true; do echo hello; sleep 2; done'`, then
//! Ctrl-C.

use std::process::ExitCode;

use clap::Parser;
use jobworker::{Containment, Event, Events, Fill, Position, StopCause, Token};
use signal_hook::consts::SIGPIPE;

use crate::common::{Host, failed, say};
use crate::job::JobFlags;
use crate::report::Form;
use crate::status::block;

mod common;
#[path = "common/job.rs"]
mod job;
#[path = "common/limits.rs"]
mod limits;
#[path = "common/report.rs"]
mod report;
#[path = "common/status.rs"]
mod status;

/// Runs CMD as a job in its own cgroup.
///
/// CMD has the environment and the working directory of this process, and /dev/null as standard
/// input. What it prints, on standard output or standard error, appears on standard output, byte
/// for byte; the job's status goes to standard error. SIGINT (Ctrl-C), SIGTERM or SIGHUP stop every
/// process of the job, and a second SIGINT kills them at once.
///
/// The exit status is that of CMD, 128+N when signal N ended it, 125 when the job could not be set
/// up, 126 when CMD cannot be run, 127 when it is not found, and 141 when nobody reads standard
/// output any more.
#[derive(Parser)]
#[command(name = "run", override_usage = "run [OPTIONS] CMD [ARGS]...")]
struct Options {
    #[command(flatten)]
    job: JobFlags,
    /// Hold the job together by its process group only, which it can leave.
    #[arg(long, conflicts_with = "cgroup_parent")]
    no_cgroup: bool,
    /// Print, at the end, what the job has used and what became of it, on standard error.
    #[arg(
        long, value_enum, value_name = "FORM", num_args = 0..=1, require_equals = true,
        default_missing_value = "human"
    )]
    report: Option<Form>,
}

fn main() -> ExitCode {
    let options: Options = match common::parse() {
        Ok(options) => options,
        Err(status) => return status,
    };
    run(&options).unwrap_or_else(|error| failed(&error))
}

fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut config = options.job.config();
    if options.no_cgroup {
        config.containment(Containment::ProcessGroup);
    }
    let mut command = options.job.command();
    if options.report.is_some() {
        command.accounting(true);
    }
    let mut host = Host::new(&config)?;
    let job = host.reactor.spawn(&command, Token(0))?;
    let tail = host.reactor.tail(job, Position::Start, Token(0))?;
    let status = host.reactor.status(job)?;
    let cgroup = status.cgroup.clone();
    let log = status.output.clone().filter(|_| options.job.keep_log);
    say(block(&status, cgroup.as_deref(), log.as_deref()));

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
                // By now every process of the job is gone, and so is its cgroup; its last output
                // may still be unread.
                Event::Finished { report, .. } => {
                    exit = Some(report.exit);
                    say(block(&host.reactor.status(job)?, cgroup.as_deref(), log.as_deref()));
                    if options.report.is_none() {
                        for problem in &report.problems {
                            say(format_args!("run: {problem}"));
                        }
                    }
                    match report.stopped_by {
                        Some(StopCause::TimeLimit) => {
                            say(format_args!("Stopped job {job} at its time limit"));
                        }
                        Some(_) => say(format_args!("Stopped job {job}")),
                        None => {}
                    }
                    if let Some(form) = options.report {
                        say(form.render(job, report));
                    }
                }
                _ => {}
            }
        }
        // The log is read no faster than standard output is, and piece by piece, so that a signal
        // never has to wait.
        if readable && host.stdout.has_room() {
            match host.reactor.fill_buf(tail)? {
                Fill::Data(bytes) => {
                    let length = bytes.len();
                    host.stdout.print(bytes);
                    host.reactor.consume(tail, length)?;
                }
                Fill::UpToDate => readable = false,
                Fill::Ended => (readable, ended) = (false, true),
                // The job has truncated its log. What it writes from now on follows.
                Fill::Truncated | Fill::Replaced { .. } => {}
            }
        }
    }
    host.reactor.remove(job)?;
    let code =
        if broken_pipe { 128 + SIGPIPE } else { exit.map_or(125, jobworker::Exit::shell_code) };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(125)))
}
