//! Runs a program as a job in its own cgroup and passes its output on as it appears, like `time` or
//! `nohup`.
//!
//! `cargo run --release --example run -- bash -c 'while true; do echo hello; sleep 2; done'`, then
//! Ctrl-C, or Ctrl-Z and `fg`. With `--tty`, for programs that want a terminal:
//! `cargo run --release --example run -- --tty top`.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use jobworker::{
    ErrorKind, Event, Events, Fill, JobId, Output, Position, Reactor, Report, Signal, Status,
    Stdin, StopCause, Terminal, Token,
};
use signal_hook::consts::{SIGPIPE, SIGTERM, SIGTSTP, SIGWINCH};

use crate::common::keyboard::{self, Keys};
use crate::common::{Host, failed, say, warn, words};
use crate::job::JobFlags;
use crate::report::Form;
use crate::status::block;
use crate::terminal::{Asked, HINT, Session};

mod common;
#[path = "common/job.rs"]
mod job;
#[path = "common/limits.rs"]
mod limits;
#[path = "common/report.rs"]
mod report;
#[path = "common/seconds.rs"]
mod seconds;
#[path = "common/status.rs"]
mod status;
#[path = "common/terminal.rs"]
mod terminal;

/// Runs CMD as a job in its own cgroup.
///
/// CMD has the environment, the working directory and the standard input of this process, unless
/// that is a terminal: then its standard input is /dev/null, or with --tty a terminal of its own.
/// What it prints, on standard output or standard error, appears on standard output, byte for byte;
/// the job's status goes to standard error. SIGINT (Ctrl-C), SIGTERM or SIGHUP stop every process
/// of the job, and a second SIGINT kills them at once. Ctrl-Z freezes them, and fg thaws them.
///
/// The exit status is that of CMD, 128+N when signal N ended it, 125 when the job could not be set
/// up, 126 when CMD cannot be run, 127 when it is not found, and 141 when nobody reads standard
/// output any more.
#[derive(Parser)]
#[command(name = "run", override_usage = "run [OPTIONS] CMD [ARGS]...", max_term_width = 100)]
struct Options {
    /// Print no status, only errors and what --report asks for.
    #[arg(long, short, help_heading = "What is shown")]
    quiet: bool,
    /// Name the job in its status.
    #[arg(long, value_name = "TEXT", help_heading = "What is shown")]
    label: Option<String>,
    /// Print, at the end, what the job has used and what became of it, on standard error.
    #[arg(
        long, value_enum, value_name = "FORM", num_args = 0..=1, require_equals = true,
        default_missing_value = "human", help_heading = "What is shown"
    )]
    report: Option<Form>,
    /// Write that report to this file instead, as JSON unless --report says otherwise.
    #[arg(long, value_name = "FILE", help_heading = "What is shown")]
    report_file: Option<PathBuf>,
    /// Give CMD a terminal of its own; what is typed into this one goes to it, Ctrl-C and Ctrl-Z
    /// too. For this program are the keys after Ctrl-]: z suspends, s stops, k kills.
    #[arg(long, short)]
    tty: bool,
    #[command(flatten)]
    job: JobFlags,
}

fn main() -> ExitCode {
    let options: Options = match common::parse() {
        Ok(options) => options,
        Err(status) => return status,
    };
    run(&options).unwrap_or_else(|error| failed(&error))
}

fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut command = options.job.command()?;
    if options.report.is_some() || options.report_file.is_some() {
        command.accounting(true);
    }
    let typing = options.tty && io::stdin().is_terminal();
    if options.tty {
        let (rows, columns) = window();
        command.output(Output::Terminal(Terminal::new(rows, columns)));
        if typing {
            command.stdin(Stdin::Terminal);
        }
    }
    // Before anything is started, so that nothing is done in vain.
    let report_file = options.report_file.as_deref().map(|path| {
        File::create(path).with_context(|| format!("cannot write the report to {}", path.display()))
    });
    let mut shown = Shown { options, report_file: report_file.transpose()? };
    let mut host = Host::new(&options.job.place)?;
    let job = host.spawn(&command)?;
    // This process has no use for the standard input that it has passed on.
    drop(command);
    let tail = host.reactor.tail(job, Position::Start, Token(0))?;
    let first = host.reactor.status(job)?;
    shown.status(&first, &first);
    let mut session = None;
    if typing {
        if !options.quiet {
            warn(HINT);
        }
        let input = host.reactor.terminal_input(job)?;
        host.wait_for_room(&input)?;
        host.take_keyboard(Keys::Raw)?;
        session = Some(Session::new(input));
    }

    let mut events = Events::with_capacity(16);
    let (mut readable, mut ended, mut broken_pipe) = (false, false, false);
    let mut last = None;
    while last.is_none() || !(host.given_up || ended && host.stdout.is_empty()) {
        let mut resized = false;
        for signal in host.turn(&mut events, readable)? {
            broken_pipe |= signal == SIGPIPE;
            // The window may have changed while this process was suspended.
            resized |= [SIGWINCH, SIGTSTP].contains(&signal);
            host.obey(signal, job)?;
        }
        if let Some(session) = &mut session {
            for asked in session.pass_on(&mut host.typed)? {
                match asked {
                    Asked::Suspend => host.suspend(job)?,
                    Asked::Stop => host.obey(SIGTERM, job)?,
                    Asked::Kill => host.reactor.kill(job)?,
                }
                resized |= asked == Asked::Suspend;
            }
        }
        if options.tty && resized && last.is_none() {
            resize(&mut host.reactor, job)?;
        }
        for event in &events {
            match event {
                Event::Readable { .. } => readable = true,
                // By now every process of the job is gone, and so is its cgroup; its last output
                // may still be unread.
                Event::Finished { report, .. } => {
                    last = Some((host.reactor.status(job)?, report.clone()));
                    if let Some(session) = session.take() {
                        host.forget_room(&session.input)?;
                        host.give_keyboard_back()?;
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
                Fill::Truncated | Fill::Skipped { .. } | Fill::Replaced { .. } => {}
            }
        }
    }
    host.reactor.remove(job)?;
    let mut code = 125;
    if let Some((status, report)) = last {
        // Below the last output.
        shown.end(&first, &status, &report);
        code = if broken_pipe { 128 + SIGPIPE } else { report.exit.shell_code() };
    }
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(125)))
}

/// The size of the user's terminal, whichever stream that is.
fn window() -> (u16, u16) {
    if io::stdout().is_terminal() {
        keyboard::size(io::stdout())
    } else {
        keyboard::size(io::stdin())
    }
}

/// Gives the job's terminal the size of the user's, and has the job draw again what the shell may
/// have printed over.
fn resize(reactor: &mut Reactor, job: JobId) -> jobworker::Result<()> {
    let (rows, columns) = window();
    // A number that no kernel refuses.
    let winch = Signal::from_raw(SIGWINCH).unwrap_or(Signal::CONT);
    let resized = reactor.resize(job, rows, columns).and_then(|()| reactor.signal_main(job, winch));
    match resized {
        // It may be over, which is the next event.
        Err(error) if error.kind() == ErrorKind::State => Ok(()),
        other => other,
    }
}

/// What is told of the job on standard error.
struct Shown<'a> {
    options: &'a Options,
    report_file: Option<File>,
}

impl Shown<'_> {
    /// Prints a status; the places are those of the first one.
    fn status(&self, first: &Status, now: &Status) {
        if !self.options.quiet {
            let log = first.output.as_deref().filter(|_| self.options.job.keep_log);
            say(block(now, self.options.label.as_deref(), first.cgroup.as_deref(), log));
        }
    }

    fn end(&mut self, first: &Status, now: &Status, report: &Report) {
        self.status(first, now);
        let job = now.id;
        if self.options.report.is_none() {
            for problem in &report.problems {
                warn(words::of(problem));
            }
        }
        match report.stopped_by.filter(|_| !self.options.quiet) {
            Some(StopCause::TimeLimit) => {
                say(format_args!("Stopped job {job} at its time limit"));
            }
            Some(_) => say(format_args!("Stopped job {job}")),
            None => {}
        }
        match (&mut self.report_file, self.options.report) {
            (Some(file), form) => {
                let text = form.unwrap_or(Form::Json).render(job, report);
                // The exit status is that of the job all the same.
                if let Err(error) = writeln!(file, "{text}") {
                    warn(format_args!("cannot write the report: {error}"));
                }
            }
            (None, Some(form)) => say(form.render(job, report)),
            (None, None) => {}
        }
    }
}
