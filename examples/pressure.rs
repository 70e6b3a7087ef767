//! Shows live what a job is stalled for and what it uses, from its cgroup: like `top` for one job.
//!
//! `cargo run --release --example pressure -- sh -c 'stress --cpu 4 --timeout 20'`. The kernel
//! reports stalls as events; only the display needs a timer.

use std::fs;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use jobworker::{
    Event, Events, Exit, JobId, Phase, Position, Reactor, Stall, Stats, TailOptions, Token,
};
use signal_hook::consts::{SIGPIPE, SIGTERM, SIGTSTP, SIGWINCH};

use crate::common::keyboard::Keys;
use crate::common::{Host, Stdout, failed, say, warn, words};
use crate::figures::{Figures, RESOURCES, of_the_system};
use crate::job::JobFlags;
use crate::screen::{Picture, Screen};

mod common;
#[path = "pressure/figures.rs"]
mod figures;
#[path = "common/job.rs"]
mod job;
#[path = "common/limits.rs"]
mod limits;
#[path = "pressure/screen.rs"]
mod screen;
#[path = "common/seconds.rs"]
mod seconds;

/// Runs CMD as a job in its own cgroup, and shows what it is stalled for and what it uses.
///
/// For the CPU, memory and io: the share of the last 10 seconds in which some of the job's
/// processes, or all of them (full), were stalled, and by how much the stalled time has grown since
/// the last time. In a terminal there is a live display, with the past as a graph and the last
/// lines of what CMD prints, and keys freeze, stop and kill the job; elsewhere a line every second.
/// Without a cgroup the stalls are those of the whole system. All that CMD prints goes to its log:
/// see --keep-log. It stops by itself when the job ends; SIGINT (Ctrl-C), SIGTERM or SIGHUP stop
/// every process of the job, and a second SIGINT kills them at once. Ctrl-Z freezes them, and fg
/// thaws them.
///
/// CMD has the environment, the working directory and the standard input of this process, unless
/// that is a terminal: then its standard input is /dev/null.
///
/// The exit status is that of CMD, 128+N when signal N ended it, 125 when the job could not be set
/// up, 126 when CMD cannot be run, 127 when it is not found, and 141 when nobody reads standard
/// output any more.
#[derive(Parser)]
#[command(
    name = "pressure",
    override_usage = "pressure [OPTIONS] CMD [ARGS]...",
    max_term_width = 100
)]
struct Options {
    /// Report when the job was stalled for this long within a window of 500ms to 10s; without
    /// CAP_SYS_RESOURCE the window has to be a multiple of 2s.
    #[arg(long, value_name = "TIME/WINDOW", default_value = "300ms/2s", value_parser = stall)]
    stall: Stall,
    #[command(flatten)]
    job: JobFlags,
}

/// How many of the last lines of the job's output are shown.
const LINES: usize = 3;

/// What the keys do, on a screen of any width.
const KEYS: &str = "f freeze  s stop  k kill  ^Z suspend";

fn stall(text: &str) -> Result<Stall, String> {
    let (stalled, window) =
        text.split_once('/').ok_or("write it as TIME/WINDOW, as in 300ms/2s")?;
    let time = |text| duration(text).map_err(|error| format!("{error:#}"));
    Ok(Stall::some(time(stalled)?, time(window)?))
}

/// A number with its unit: `us`, `ms` or `s`.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let (number, unit) =
        text.split_at(text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len()));
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => bail!("write a time with its unit, us, ms or s, as in 150ms"),
    };
    let number: f64 = number.parse().with_context(|| format!("{number:?} is not a number"))?;
    Ok(Duration::try_from_secs_f64(number * scale)?)
}

fn main() -> ExitCode {
    let options: Options = match common::parse() {
        Ok(options) => options,
        Err(status) => return status,
    };
    run(&options).unwrap_or_else(|error| failed(&error))
}

fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut host = Host::new(&options.job.place)?;
    let mut command = options.job.command()?;
    let job = host.spawn(command.accounting(true))?;
    let first = host.reactor.status(job)?;
    let has_cgroup = first.cgroup.is_some();
    let mut display = Display::new(options, &command.to_string(), has_cgroup);
    drop(command);
    display.has_keys = display.screen.is_some() && host.take_keyboard(Keys::Single)?;
    for resource in RESOURCES {
        let watched = if has_cgroup {
            host.reactor.watch_pressure(job, resource, options.stall)
        } else {
            host.reactor.watch_system_pressure(resource, options.stall, Token(0))
        };
        // The figures are worth showing without the events. If one resource is refused, so are the
        // others.
        if let Err(error) = watched {
            let why = format!("no events of pressure: {}", words::of(&error));
            display.print_line(&why, &mut host.stdout);
            break;
        }
    }

    let mut events = Events::with_capacity(16);
    let (mut report, mut broken_pipe) = (None, false);
    // The first figures need some time to be about.
    let mut due = Instant::now() + display.interval() / 2;
    while report.is_none() || !(host.given_up || host.stdout.is_empty()) {
        host.due = report.is_none().then_some(due);
        for signal in host.turn(&mut events, false)? {
            broken_pipe |= signal == SIGPIPE;
            if signal == SIGTSTP {
                // What the shell prints begins below the picture, and the next one below that.
                display.leave(&mut host.stdout);
                host.flush()?;
            }
            host.obey(signal, job)?;
            if [SIGTSTP, SIGWINCH].contains(&signal) {
                due = Instant::now();
            }
        }
        for key in std::mem::take(&mut host.typed) {
            match key {
                b'f' => {
                    host.frozen = !host.frozen;
                    host.freeze(job, host.frozen)?;
                }
                b's' => host.obey(SIGTERM, job)?,
                b'k' => host.reactor.kill(job)?,
                _ => continue,
            }
            due = Instant::now();
        }
        for event in &events {
            match event {
                Event::Pressure { resource, .. } | Event::SystemPressure { resource, .. } => {
                    let whose = if has_cgroup { "" } else { "the system is " };
                    display.print_line(
                        &format!("{whose}stalled for {resource} as --stall says"),
                        &mut host.stdout,
                    );
                }
                Event::Oom { kills, .. } => {
                    display.print_line(
                        &format!("out of memory, processes killed: {kills}"),
                        &mut host.stdout,
                    );
                }
                Event::Finished { report: last, .. } => report = Some(last.clone()),
                _ => {}
            }
        }
        let last = events.iter().any(|event| matches!(event, Event::Finished { .. }));
        // A reader that is too slow to take the last picture gets no new one.
        let next = Instant::now() >= due && host.stdout.is_empty();
        if last || report.is_none() && next {
            due = Instant::now() + display.interval();
            let output = last_lines(&mut host.reactor, job)?;
            display.has_keys &= !last;
            let stats = if has_cgroup { host.reactor.stats(job)? } else { of_the_system() };
            let state = state(&host, job, display.started)?;
            display.show(stats, state, &output, &mut host.stdout);
            if last {
                display.leave(&mut host.stdout);
            }
        }
    }
    host.give_keyboard_back()?;

    let mut exit = Exit::Unknown;
    if let Some(report) = report {
        exit = report.exit;
        for line in last_lines(&mut host.reactor, job)?.iter().filter(|_| display.screen.is_none())
        {
            warn(format_args!("output: {line}"));
        }
        for problem in &report.problems {
            warn(words::of(problem));
        }
        say(format_args!("Job {job} ended after {:.3} s: {exit}", report.wall.as_secs_f64()));
    }
    if let Some(path) = first.output.filter(|_| options.job.keep_log) {
        say(format_args!("Log {}", path.display()));
    }
    host.reactor.remove(job)?;
    let code = if broken_pipe { 128 + SIGPIPE } else { exit.shell_code() };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(125)))
}

/// The last lines of the job's output, as far as they are within its last 4 KiB, without control
/// characters.
fn last_lines(reactor: &mut Reactor, job: JobId) -> anyhow::Result<Vec<String>> {
    let path = reactor.status(job)?.output.context("the job has no log")?;
    let begin = fs::metadata(path)?.len().saturating_sub(4096);
    let tail = reactor.tail(job, TailOptions::new(Position::Offset(begin)).snapshot(), Token(0))?;
    let mut bytes = Vec::new();
    while let Some(chunk) = reactor.next_chunk(tail)? {
        bytes.extend(chunk.bytes);
    }
    reactor.close(tail)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LINES)..].iter().map(|line| printable(line)).collect())
}

/// A text without control characters.
fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// What the job does, and for how long.
fn state(host: &Host, job: JobId, started: Instant) -> anyhow::Result<String> {
    let status = host.reactor.status(job)?;
    let what = match (status.phase, status.exit) {
        (Phase::Finished, Some(exit)) => exit.to_string(),
        (Phase::Stopping, _) => "stopping".to_owned(),
        (Phase::Exited, _) => "exited".to_owned(),
        _ if host.frozen => "frozen".to_owned(),
        _ => "running".to_owned(),
    };
    Ok(format!("{what} {:.1} s", started.elapsed().as_secs_f64()))
}

/// The figures of a job, on a screen or in lines.
struct Display {
    screen: Option<Screen>,
    command: String,
    /// The limits as they were given, and in words, with the time.
    given: Vec<(String, String)>,
    limits: String,
    has_keys: bool,
    started: Instant,
    /// When the last picture was taken, and what it showed.
    before: (Instant, Stats),
}

impl Display {
    fn new(options: &Options, command: &str, has_cgroup: bool) -> Self {
        let now = Instant::now();
        let given = options.job.limits.given.clone();
        let mut limits: Vec<String> =
            given.iter().map(|(file, value)| format!("{file} {value}")).collect();
        limits.extend(options.job.timeout.map(|time| format!("time {} s", time.as_secs_f64())));
        let limits = if limits.is_empty() { "no limits".to_owned() } else { limits.join(", ") };
        Self {
            screen: io::stdout().is_terminal().then(Screen::new),
            command: printable(command),
            given,
            limits,
            has_keys: false,
            started: now,
            before: (now, if has_cgroup { Stats::default() } else { of_the_system() }),
        }
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(if self.screen.is_some() { 250 } else { 1000 })
    }

    /// Reports an event, above what the screen shows.
    fn print_line(&mut self, what: &str, stdout: &mut Stdout) {
        let line = format!("{:8.1} s  {what}", self.started.elapsed().as_secs_f64());
        match &mut self.screen {
            Some(screen) => screen.print_line(&line, stdout),
            None => stdout.print(format!("{line}\n").as_bytes()),
        }
    }

    /// Leaves the screen as it is.
    fn leave(&mut self, stdout: &mut Stdout) {
        if let Some(screen) = &mut self.screen {
            screen.leave(stdout);
        }
    }

    /// Shows the current figures.
    fn show(&mut self, stats: Stats, state: String, output: &[String], stdout: &mut Stdout) {
        let now = Instant::now();
        let (then, before) = std::mem::replace(&mut self.before, (now, stats));
        let figures = Figures::new(&self.before.1, &before, now - then, &self.given);
        if let Some(screen) = &mut self.screen {
            let picture = Picture {
                command: &self.command,
                state,
                limits: &self.limits,
                figures: &figures,
                output,
                keys: if self.has_keys { KEYS } else { "" },
            };
            screen.show(&picture, stdout);
        } else {
            let time = now.duration_since(self.started).as_secs_f64();
            stdout.print(format!("{time:8.1} s{}\n", in_a_line(&figures)).as_bytes());
        }
    }
}

/// The figures without a screen.
fn in_a_line(figures: &Figures) -> String {
    let mut line = String::new();
    for (resource, row) in RESOURCES.iter().zip(&figures.rows) {
        for (kind, stalls) in [("some", &row.some), ("full", &row.full)] {
            if let Some(stalls) = stalls {
                let growth = stalls.growth.as_secs_f64();
                line += &format!("  {resource} {kind} {:6.2} % +{growth:.3} s", stalls.percent);
            }
        }
    }
    for (resource, row) in RESOURCES.iter().zip(&figures.rows) {
        if let Some(used) = &row.used {
            line += &format!("  {resource} {}{}", used.short, used.more.concat());
        }
    }
    if let Some(processes) = &figures.processes {
        line += &format!("  processes {processes}");
    }
    for remark in &figures.remarks {
        line += &format!("  ({remark})");
    }
    line
}
