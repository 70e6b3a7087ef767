//! What the examples share: an event loop in which the reactor is one source beside signals,
//! standard output and what the user types.
//!
//! Invariant: the only place where the one thread waits is [`Host::turn`]. Standard output is
//! written only as far as it takes bytes without blocking, so a slow reader of it delays neither a
//! signal nor the job.

use std::collections::VecDeque;
use std::ffi::{OsString, c_int};
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use jobworker::{
    Command, Error, Events, JobError, JobId, Phase, Reactor, Signal, SpawnError, Stage,
    TerminalInput,
};
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use rustix::event::{PollFd, PollFlags, Timespec};
use signal_hook::consts::{SIGINT, SIGPIPE, SIGTSTP, SIGWINCH};
use signal_hook::low_level::emulate_default_handler;
use signal_hook_mio::v1_0::Signals;

use self::keyboard::{Keyboard, Keys};
use self::place::PlaceFlags;

pub(crate) mod keyboard;
pub(crate) mod place;
pub(crate) mod signals;
pub(crate) mod words;

/// A pipe that is ready for writing takes at least this many bytes without blocking (PIPE_BUF,
/// pipe(7)).
pub(crate) const CHUNK: usize = 4096;

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
    /// What the user has typed and nobody has taken yet. No more is read meanwhile.
    pub(crate) typed: Vec<u8>,
    /// What there is to say about the place of the jobs.
    note: Option<&'static str>,
    keyboard: Option<Keyboard>,
    signals: Signals,
    stopping: bool,
    /// Whether the user has frozen the job.
    pub(crate) frozen: bool,
    poll: Poll,
    ready: mio::Events,
}

impl Host {
    /// A host that makes its jobs where the flags say.
    pub(crate) fn new(place: &PlaceFlags) -> anyhow::Result<Self> {
        // Handled before anything is created, so that no signal can leave anything behind.
        let mut handled = signals::to_handle()?;
        handled.extend(signals::to_suspend()?);
        handled.push(SIGWINCH);
        let mut signals = Signals::new(handled)?;
        let mut reactor = Reactor::with_config(&place.config_or_group())?;
        let note = place.note(reactor.containment());
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
            typed: Vec::new(),
            note,
            keyboard: None,
            signals,
            stopping: false,
            frozen: false,
            poll,
            ready,
        })
    }

    /// Starts a job, and says so if it is not in a cgroup though the flags are not against it.
    pub(crate) fn spawn(&mut self, command: &Command) -> jobworker::Result<JobId> {
        let job = self.reactor.spawn(command, jobworker::Token(0))?;
        if let Some(note) = self.note.take() {
            warn(note);
        }
        Ok(job)
    }

    /// Runs one turn: writes what standard output takes, waits until something has happened, and
    /// reports what.
    ///
    /// Fills `events` and returns the signals that arrived: for [`obey`](Self::obey), or SIGWINCH
    /// when the size of the terminal has changed. A broken pipe as standard output is reported as
    /// the SIGPIPE that any other filter would get. With `busy` it does not wait, unless it has to
    /// wait for standard output.
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
        // With a few sources, it is not worth checking which of them are ready.
        self.reactor.poll(events, Some(Duration::ZERO))?;
        if let Some(keyboard) = self.keyboard.as_mut().filter(|_| self.typed.is_empty()) {
            self.typed = keyboard.typed()?;
        }
        signals.extend(self.signals.pending());
        Ok(signals)
    }

    /// Does what a signal asks for: the first one that asks for the end stops the job, and a
    /// further SIGINT kills it. When the job is finished, and only the rest of its output takes a
    /// while, a second signal gives that up. SIGTSTP (Ctrl-Z) suspends this process, with the job.
    pub(crate) fn obey(&mut self, signal: c_int, job: JobId) -> anyhow::Result<()> {
        match signal {
            SIGWINCH => return Ok(()),
            SIGTSTP => return self.suspend(job),
            _ => {}
        }
        if !std::mem::replace(&mut self.stopping, true) {
            // A frozen job is thawed by that.
            self.frozen = false;
            return Ok(self.reactor.stop(job)?);
        }
        match self.reactor.status(job)?.phase {
            Phase::Finished => self.given_up = true,
            _ if signal == SIGINT => self.reactor.kill(job)?,
            _ => {}
        }
        Ok(())
    }

    /// Freezes the job or lets it go on. A job without a cgroup gets the signals for that, as far
    /// as its process group goes. Nothing happens to one that is over.
    pub(crate) fn freeze(&mut self, job: JobId, frozen: bool) -> jobworker::Result<()> {
        let asked = if frozen { self.reactor.freeze(job) } else { self.reactor.thaw(job) };
        let asked = match asked {
            Err(Error::Job(JobError::NotInCgroup(_))) => {
                self.reactor.signal(job, if frozen { Signal::STOP } else { Signal::CONT })
            }
            other => other,
        };
        match asked {
            Err(error) if error.kind() == jobworker::ErrorKind::State => Ok(()),
            other => other,
        }
    }

    /// Freezes the job and stops this process, as any other program in a terminal is stopped, until
    /// the shell lets it go on (`fg`). A job that the user has frozen before stays so.
    pub(crate) fn suspend(&mut self, job: JobId) -> anyhow::Result<()> {
        self.freeze(job, true)?;
        if let Some(keyboard) = &self.keyboard {
            keyboard.give_back()?;
        }
        emulate_default_handler(SIGTSTP)?;
        if let Some(keyboard) = &self.keyboard {
            keyboard.take()?;
        }
        Ok(self.freeze(job, self.frozen)?)
    }
}

/// What only some of the examples need.
#[allow(dead_code, reason = "each example is a crate, and not all of them read keys")]
impl Host {
    /// Takes what the user types from now on, if standard input is a terminal. Returns whether it
    /// is.
    pub(crate) fn take_keyboard(&mut self, keys: Keys) -> anyhow::Result<bool> {
        let Some(keyboard) = Keyboard::open(keys)? else { return Ok(false) };
        let number = keyboard.number();
        self.poll.registry().register(&mut SourceFd(&number), Token(3), Interest::READABLE)?;
        self.keyboard = Some(keyboard);
        Ok(true)
    }

    /// Leaves the terminal as it was found.
    pub(crate) fn give_keyboard_back(&mut self) -> anyhow::Result<()> {
        if let Some(keyboard) = self.keyboard.take() {
            self.poll.registry().deregister(&mut SourceFd(&keyboard.number()))?;
        }
        Ok(())
    }

    /// Writes what standard output takes at once.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        match self.stdout.flush(self.poll.registry()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => other.context("cannot write to standard output"),
        }
    }

    /// Lets the loop wake whenever the job's terminal takes more.
    pub(crate) fn wait_for_room(&self, input: &TerminalInput) -> anyhow::Result<()> {
        let number = input.as_fd().as_raw_fd();
        Ok(self.poll.registry().register(&mut SourceFd(&number), Token(4), Interest::WRITABLE)?)
    }

    /// Ends that, before the descriptor is closed: the reactor has others for the same terminal.
    pub(crate) fn forget_room(&self, input: &TerminalInput) -> anyhow::Result<()> {
        Ok(self.poll.registry().deregister(&mut SourceFd(&input.as_fd().as_raw_fd()))?)
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

/// A command that gets what a shell would give it: the environment, the working directory and the
/// standard input of this process. A terminal as standard input is not passed on, for a job is in
/// a process group of its own, which may not read it.
pub(crate) fn command(words: &[OsString]) -> anyhow::Result<Command> {
    let (program, args) = words
        .split_first()
        .map_or((Default::default(), words), |(first, rest)| (first.clone(), rest));
    let mut command = Command::new(program);
    command.args(args).inherit_env();
    if !io::stdin().is_terminal() {
        command.stdin_fd(io::stdin().as_fd().try_clone_to_owned()?);
    }
    Ok(command)
}

/// Prints a line on standard error. Unlike `eprintln!` it does not panic when nobody reads that any
/// more.
pub(crate) fn say(line: impl Display) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Prints a sentence after the name of this program, in lines as long as the terminal's if standard
/// error is one.
pub(crate) fn warn(text: impl Display) {
    let text = format!("{}: {text}", env!("CARGO_BIN_NAME"));
    if !io::stderr().is_terminal() {
        return say(text);
    }
    let (_, columns) = keyboard::size(io::stderr());
    let options = textwrap::Options::new(usize::from(columns).clamp(20, 100))
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    say(textwrap::fill(&text, options));
}

/// Prints an error and returns the exit status for it, by the convention of env(1), nohup(1) and
/// timeout(1).
pub(crate) fn failed(error: &anyhow::Error) -> ExitCode {
    let known = error.downcast_ref::<Error>();
    match known {
        // It names its causes itself.
        Some(error) => warn(words::of(error)),
        None => warn(format_args!("{error:#}")),
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
