//! Shows live what a job is stalled for and what it uses, from its cgroup: like `top` for one job.
//!
//! `cargo run --release --example pressure -- sh -c 'stress --cpu 4 --timeout 20'`. The kernel
//! reports stalls as events; only the display needs a timer.

use std::fs;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use indicatif::{
    HumanBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike,
};
use jobworker::{
    Event, Events, Exit, JobId, Position, Pressure, Reactor, Stall, Stallable, Stalled, Stats,
    TailOptions, Token,
};
use signal_hook::consts::SIGPIPE;

use crate::common::{Host, Stdout, failed, say};
use crate::job::JobFlags;

mod common;
#[path = "common/job.rs"]
mod job;
#[path = "common/limits.rs"]
mod limits;

/// Runs CMD as a job in its own cgroup, and shows what it is stalled for and what it uses.
///
/// For the CPU, memory and io: the share of the last 10 seconds in which some of the job's
/// processes, or all of them (full), were stalled, and by how much the stalled time has grown since
/// the last time. In a terminal there is a live display, with the last lines of what CMD prints;
/// elsewhere a line every second. All that CMD prints goes to its log: see --keep-log. It stops by
/// itself when the job ends; SIGINT (Ctrl-C), SIGTERM or SIGHUP stop every process of the job, and
/// a second SIGINT kills them at once.
///
/// The exit status is that of CMD, 128+N when signal N ended it, 125 when the job could not be set
/// up, 126 when CMD cannot be run, 127 when it is not found, and 141 when nobody reads standard
/// output any more.
#[derive(Parser)]
#[command(name = "pressure", override_usage = "pressure [OPTIONS] CMD [ARGS]...")]
struct Options {
    /// Report when the job was stalled for this long within a window of 500ms to 10s; without
    /// CAP_SYS_RESOURCE the window has to be a multiple of 2s.
    #[arg(long, value_name = "TIME/WINDOW", default_value = "300ms/2s", value_parser = stall)]
    stall: Stall,
    #[command(flatten)]
    job: JobFlags,
}

const RESOURCES: [Stallable; 3] = [Stallable::Cpu, Stallable::Memory, Stallable::Io];

/// How many of the last lines of the job's output are shown.
const LINES: usize = 3;

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
    let mut host = Host::new(&options.job.config())?;
    let job = host.reactor.spawn(options.job.command().accounting(true), Token(0))?;
    let log = host.reactor.status(job)?.output;
    let mut display = Display::new()?;
    for resource in RESOURCES {
        // The figures are worth showing without the events. If one resource is refused, so are the
        // others.
        if let Err(error) = host.reactor.watch_pressure(job, resource, options.stall) {
            display.print_line(&format!("no events of pressure: {error}"), &mut host.stdout);
            break;
        }
    }

    let mut events = Events::with_capacity(16);
    let (mut report, mut broken_pipe) = (None, false);
    let mut due = Instant::now() + display.interval();
    while report.is_none() || !(host.given_up || host.stdout.is_empty()) {
        host.due = report.is_none().then_some(due);
        for signal in host.turn(&mut events, false)? {
            broken_pipe |= signal == SIGPIPE;
            host.obey(signal, job)?;
        }
        for event in &events {
            match event {
                Event::Pressure { resource, .. } => {
                    display.print_line(
                        &format!("stalled for {resource} as --stall says"),
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
            display.show(host.reactor.stats(job)?, &output, &mut host.stdout);
            if last && display.screen.is_some() {
                // What the shell, or this program, prints next begins below the picture.
                host.stdout.print(b"\n");
            }
        }
    }

    let mut exit = Exit::Unknown;
    if let Some(report) = report {
        exit = report.exit;
        for line in last_lines(&mut host.reactor, job)?.iter().filter(|_| display.screen.is_none())
        {
            say(format_args!("pressure: output: {line}"));
        }
        for problem in &report.problems {
            say(format_args!("pressure: {problem}"));
        }
        say(format_args!("Job {job} ended after {:.3} s: {exit}", report.wall.as_secs_f64()));
    }
    if let Some(path) = log.filter(|_| options.job.keep_log) {
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
    let clean =
        |line: &str| line.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LINES)..].iter().map(|line| clean(line)).collect())
}

/// The figures of a job, on a screen or in lines.
struct Display {
    screen: Option<Screen>,
    started: Instant,
    /// When the last picture was taken, and what it showed.
    before: (Instant, Stats),
}

impl Display {
    fn new() -> anyhow::Result<Self> {
        let now = Instant::now();
        let screen = if io::stdout().is_terminal() { Some(Screen::new()?) } else { None };
        Ok(Self { screen, started: now, before: (now, Stats::default()) })
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(if self.screen.is_some() { 250 } else { 1000 })
    }

    /// Reports an event, above what the screen shows.
    fn print_line(&self, what: &str, stdout: &mut Stdout) {
        let line = format!("{:8.1} s  {what}", self.started.elapsed().as_secs_f64());
        match &self.screen {
            Some(screen) => screen.print_line(&line, stdout),
            None => stdout.print(format!("{line}\n").as_bytes()),
        }
    }

    /// Shows the current figures.
    fn show(&mut self, stats: Stats, output: &[String], stdout: &mut Stdout) {
        let now = Instant::now();
        let (then, before) = std::mem::replace(&mut self.before, (now, stats));
        let stats = &self.before.1;
        let usage = usage(stats, &before, now - then);
        let stalls = RESOURCES
            .map(|resource| stalls(pressure(stats, resource), pressure(&before, resource)));
        if let Some(screen) = &self.screen {
            screen.show(&stalls, &usage, output, stdout);
            return;
        }
        let mut line = format!("{:8.1} s", now.duration_since(self.started).as_secs_f64());
        for (resource, stalls) in RESOURCES.iter().zip(&stalls) {
            for (kind, (_, figures)) in
                KINDS.iter().zip(stalls).filter_map(|(kind, stall)| Some((kind, stall.as_ref()?)))
            {
                line += &format!("  {resource} {kind} {figures}");
            }
        }
        stdout.print(format!("{line}  {usage}\n").as_bytes());
    }
}

const KINDS: [&str; 2] = ["some", "full"];

fn pressure(stats: &Stats, resource: Stallable) -> Option<Pressure> {
    match resource {
        Stallable::Cpu => stats.cpu_pressure,
        Stallable::Memory => stats.memory_pressure,
        _ => stats.io_pressure,
    }
}

/// For `some` and `full`: the percentage of the last ten seconds, and a text with that and the
/// growth since `before`.
fn stalls(now: Option<Pressure>, before: Option<Pressure>) -> [Option<(f32, String)>; 2] {
    let before = before.unwrap_or_default();
    let figures = |now: Stalled, before: Stalled| {
        let growth = now.total.saturating_sub(before.total).as_secs_f64();
        (now.avg10, format!("{:6.2} % +{growth:.3} s", now.avg10))
    };
    let some = now.map(|now| figures(now.some, before.some));
    let full = now.and_then(|now| Some(figures(now.full?, before.full.unwrap_or_default())));
    [some, full]
}

/// What the job uses, and which parts of that are unavailable.
fn usage(stats: &Stats, before: &Stats, time: Duration) -> String {
    let seconds = time.as_secs_f64().max(0.001);
    let mut missing = Vec::new();
    let mut text = String::new();
    match (&stats.cpu, before.cpu.unwrap_or_default()) {
        (Some(now), before) => {
            let used = (now.user + now.system).saturating_sub(before.user + before.system);
            text += &format!("cpu {:.0} %", used.as_secs_f64() / seconds * 100.0);
        }
        (None, _) => missing.push("cpu"),
    }
    match &stats.memory {
        Some(memory) => {
            text += &format!("  memory {}", HumanBytes(memory.current));
            if let Some(peak) = memory.peak {
                text += &format!(" (peak {})", HumanBytes(peak));
            }
        }
        None => missing.push("memory"),
    }
    match &stats.io {
        Some(_) => {
            let bytes = |stats: &Stats| -> u64 {
                stats
                    .io
                    .iter()
                    .flatten()
                    .map(|device| device.read_bytes + device.written_bytes)
                    .sum()
            };
            let rate = bytes(stats).saturating_sub(bytes(before)) as f64 / seconds;
            text += &format!("  io {}/s", HumanBytes(rate as u64));
        }
        None => missing.push("io"),
    }
    match &stats.pids {
        Some(pids) => text += &format!("  processes {}", pids.current),
        None => missing.push("pids"),
    }
    let stalled =
        RESOURCES.into_iter().filter(|resource| pressure(stats, *resource).is_some()).count();
    if stalled < RESOURCES.len() {
        text += "  (no pressure: boot with psi=1)";
    }
    if !missing.is_empty() {
        text += &format!("  (without controller: {})", missing.join(", "));
    }
    text
}

/// A live display. The library draws it into a buffer, and the loop writes that as the terminal
/// takes it.
struct Screen {
    lines: MultiProgress,
    drawn: Terminal,
    stalls: [[ProgressBar; 2]; 3],
    usage: ProgressBar,
    output: [ProgressBar; LINES],
}

impl Screen {
    fn new() -> anyhow::Result<Self> {
        let drawn = Terminal::default();
        let lines =
            MultiProgress::with_draw_target(ProgressDrawTarget::term_like(Box::new(drawn.clone())));
        let bar = ProgressStyle::with_template("{prefix:<11} [{bar:30}] {wide_msg}")?
            .progress_chars("##-");
        let text = ProgressStyle::with_template("{prefix:<11} {wide_msg}")?;
        let line = |style: &ProgressStyle, prefix: String| {
            lines.add(ProgressBar::new(10_000).with_style(style.clone()).with_prefix(prefix))
        };
        let stalls =
            RESOURCES.map(|resource| KINDS.map(|kind| line(&bar, format!("{resource} {kind}"))));
        let usage = line(&text, "use".to_owned());
        let output = std::array::from_fn(|index| {
            line(&text, if index == 0 { "output" } else { "" }.to_owned())
        });
        Ok(Self { lines, drawn, stalls, usage, output })
    }

    fn print_line(&self, line: &str, stdout: &mut Stdout) {
        // It fails only if the buffer does.
        let _ = self.lines.println(line);
        stdout.print(&self.drawn.take());
    }

    fn show(
        &self,
        stalls: &[[Option<(f32, String)>; 2]; 3],
        usage: &str,
        output: &[String],
        stdout: &mut Stdout,
    ) {
        for (bar, stall) in self.stalls.iter().flatten().zip(stalls.iter().flatten()) {
            match stall {
                Some((percent, figures)) => {
                    bar.set_position((percent * 100.0) as u64);
                    change(bar, figures);
                }
                None => change(bar, "not known"),
            }
        }
        change(&self.usage, usage);
        for (index, bar) in self.output.iter().enumerate() {
            change(bar, output.get(index).map_or("", String::as_str));
        }
        stdout.print(&self.drawn.take());
    }
}

/// Setting a message draws everything again, so only a new one is set.
fn change(bar: &ProgressBar, message: &str) {
    if bar.message() != message {
        bar.set_message(message.to_owned());
    }
}

/// What is drawn but not printed yet, with the escape sequences of ECMA-48.
#[derive(Clone, Debug, Default)]
struct Terminal(Arc<Mutex<Vec<u8>>>);

impl Terminal {
    fn put(&self, text: &str) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(text.as_bytes());
        Ok(())
    }

    fn move_cursor(&self, count: usize, direction: char) -> io::Result<()> {
        // A count of zero would mean one.
        if count == 0 { Ok(()) } else { self.put(&format!("\x1b[{count}{direction}")) }
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        let size = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_col);
        // A serial line does not know the size of the terminal at its other end.
        if size == 0 { 80 } else { size }
    }

    fn height(&self) -> u16 {
        let size = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| size.ws_row);
        if size == 0 { 24 } else { size }
    }

    fn move_cursor_up(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'A')
    }

    fn move_cursor_down(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'B')
    }

    fn move_cursor_right(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'C')
    }

    fn move_cursor_left(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.put(text)?;
        self.put("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.put(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.put("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
