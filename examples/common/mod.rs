//! What the examples share: an event loop in which the reactor is one source beside signals and
//! standard output.
//!
//! Invariant: the only place where the one thread waits is [`Host::turn`]. Standard output is
//! written only as far as it takes bytes without blocking, so a slow reader of it delays neither a
//! signal nor the job.

use std::collections::VecDeque;
use std::ffi::{OsString, c_int};
use std::fmt::Display;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use jobworker::{Command, Config, Error, Events, JobId, Phase, Reactor, SpawnError, Stage};
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use rustix::event::{PollFd, PollFlags, Timespec};
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM};
use signal_hook_mio::v1_0::Signals;

/// A pipe that is ready for writing takes at least this many bytes without blocking (PIPE_BUF,
/// pipe(7)).
const CHUNK: usize = 4096;

/// How many bytes may wait for standard output before no more are read from the log.
const ROOM: usize = 64 * 1024;

/// An event loop with a reactor in it, as a host may already have for its own sockets.
pub(crate) struct Host {
    pub(crate) reactor: Reactor,
    pub(crate) stdout: Stdout,
    /// How often the loop has waited and was woken.
    pub(crate) wake_ups: u64,
    /// When a turn returns even if nothing has happened, such as for a display that is due.
    pub(crate) due: Option<Instant>,
    /// Whether the rest of the job's output is no longer wanted.
    pub(crate) given_up: bool,
    signals: Signals,
    stopping: bool,
    poll: Poll,
    ready: mio::Events,
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

impl Host {
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        // Handled before anything is created, so that no signal can leave anything behind.
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        // A program that was started by nohup is to go on after a hangup.
        if !is_ignored(SIGHUP)? {
            signals.add_signal(SIGHUP)?;
        }
        let mut reactor = Reactor::with_config(config)?;
        let poll = Poll::new()?;
        poll.registry().register(&mut signals, Token(0), Interest::READABLE)?;
        poll.registry().register(&mut reactor, Token(1), Interest::READABLE)?;
        let ready = mio::Events::with_capacity(8);
        Ok(Self {
            reactor,
            stdout: Stdout::new(),
            wake_ups: 0,
            due: None,
            given_up: false,
            signals,
            stopping: false,
            poll,
            ready,
        })
    }

    /// Runs one turn: writes what standard output takes, waits until something has happened, and
    /// reports what.
    ///
    /// Fills `events` and returns the signals that arrived. A broken pipe as standard output is
    /// reported as the SIGPIPE that any other filter would get. With `busy` it does not wait,
    /// unless it has to wait for standard output.
    pub(crate) fn turn(&mut self, events: &mut Events, busy: bool) -> anyhow::Result<Vec<c_int>> {
        let mut signals = Vec::new();
        let unwritten = !self.stdout.is_empty();
        match self.stdout.flush(self.poll.registry()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.stdout.close();
                signals.push(SIGPIPE);
            }
            other => other.context("cannot write to standard output")?,
        }
        // The caller may be waiting until everything is written.
        let written = unwritten && self.stdout.is_empty();
        let busy = written || busy && self.stdout.has_room();
        let until_due = self.due.map(|due| due.saturating_duration_since(Instant::now()));
        match self.poll.poll(&mut self.ready, if busy { Some(Duration::ZERO) } else { until_due }) {
            // One of the signals has arrived, and is taken below.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => other?,
        }
        self.wake_ups += u64::from(!busy);
        // With three sources, it is not worth checking which of them are ready.
        self.reactor.poll(events, Some(Duration::ZERO))?;
        signals.extend(self.signals.pending());
        Ok(signals)
    }

    /// Does what a signal asks for: the first one stops the job, and a further SIGINT kills it.
    /// When the job is finished, and only the rest of its output takes a while, a second signal
    /// gives that up.
    pub(crate) fn obey(&mut self, signal: c_int, job: JobId) -> jobworker::Result<()> {
        if !std::mem::replace(&mut self.stopping, true) {
            return self.reactor.stop(job);
        }
        match self.reactor.status(job)?.phase {
            Phase::Finished => self.given_up = true,
            _ if signal == SIGINT => self.reactor.kill(job)?,
            _ => {}
        }
        Ok(())
    }
}

/// Standard output behind a buffer, which never blocks.
///
/// Setting O_NONBLOCK would not do: the flag belongs to the open file description, which other
/// programs share.
pub(crate) struct Stdout {
    /// Whether anybody may still read it.
    pub(crate) open: bool,
    buffer: VecDeque<u8>,
    /// Whether the loop waits for it.
    awaited: bool,
}

impl Stdout {
    fn new() -> Self {
        Self { open: true, buffer: VecDeque::new(), awaited: false }
    }

    /// Whether more may be printed before the next turn.
    pub(crate) fn has_room(&self) -> bool {
        self.buffer.len() < ROOM
    }

    /// Whether everything is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub(crate) fn print(&mut self, bytes: &[u8]) {
        if self.open {
            self.buffer.extend(bytes);
        }
    }

    /// Drops what is not written yet, and what is printed from now on.
    fn close(&mut self) {
        self.open = false;
        self.buffer.clear();
    }

    /// Writes what can be written at once, and lets the loop wake when the rest can be.
    fn flush(&mut self, registry: &mio::Registry) -> io::Result<()> {
        let stdout = io::stdout();
        let number = stdout.as_raw_fd();
        if std::mem::take(&mut self.awaited) {
            registry.deregister(&mut SourceFd(&number))?;
        }
        while !self.buffer.is_empty() {
            let mut ready = [PollFd::new(&stdout, PollFlags::OUT)];
            let (bytes, _) = self.buffer.as_slices();
            let written =
                rustix::event::poll(&mut ready, Some(&Timespec::default())).and_then(|ready| {
                    match ready {
                        0 => Err(rustix::io::Errno::AGAIN),
                        _ => rustix::io::write(stdout.as_fd(), &bytes[..bytes.len().min(CHUNK)]),
                    }
                });
            match written.map_err(io::Error::from) {
                Ok(written) => drop(self.buffer.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.awaited = true;
                    return registry.register(&mut SourceFd(&number), Token(2), Interest::WRITABLE);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Parses the command line, or returns the exit status after help or an error was printed.
pub(crate) fn parse<Options: Parser>() -> Result<Options, ExitCode> {
    Options::try_parse().map_err(|error| {
        // If this cannot be printed, there is nobody left to report that to.
        let _ = error.print();
        ExitCode::from(if error.use_stderr() { 125 } else { 0 })
    })
}

/// A command that gets what a shell would give it: the environment and the working directory of
/// this process.
pub(crate) fn command(words: &[OsString]) -> Command {
    let (program, args) = words
        .split_first()
        .map_or((Default::default(), words), |(first, rest)| (first.clone(), rest));
    let mut command = Command::new(program);
    command.args(args).inherit_env();
    command
}

/// Prints a line on standard error. Unlike `eprintln!` it does not panic when nobody reads that any
/// more.
pub(crate) fn say(line: impl Display) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Prints an error and returns the exit status for it, by the convention of env(1), nohup(1) and
/// timeout(1).
pub(crate) fn failed(error: &anyhow::Error) -> ExitCode {
    let name = env!("CARGO_BIN_NAME");
    let known = error.downcast_ref::<Error>();
    match known {
        // It names its causes itself.
        Some(error) => say(format_args!("{name}: {error}")),
        None => say(format_args!("{name}: {error:#}")),
    }
    ExitCode::from(match known {
        Some(Error::Spawn(SpawnError::Failed { stage: Stage::Exec, cause, .. }))
            if cause.kind() == ErrorKind::NotFound =>
        {
            127
        }
        Some(Error::Spawn(
            SpawnError::Failed { stage: Stage::Exec, .. } | SpawnError::InvalidCommand { .. },
        )) => 126,
        _ => 125,
    })
}
