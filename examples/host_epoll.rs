//! A host with an event loop of its own, on a raw epoll: a server on a Unix socket that runs a job
//! for each client, and passes its output on without a buffer.
//!
//! Start it, then talk to it from another shell:
//!
//! ```sh
//! cargo run --release --example host_epoll -- /tmp/jobs.sock
//!
//! echo 'for i in 1 2 3; do echo hello $i; sleep 1; done' | nc -U /tmp/jobs.sock
//! ```
//!
//! (`nc` is that of OpenBSD, which keeps its end open after the line.)
//!
//! # The protocol
//! A client sends one line, which is run by `sh -c` as a job. It is sent the output as it is and,
//! at the end, a newline and a line that says how the job has ended, such as `exit code 3` or
//! `SIGKILL`. A job can print such a line as well: what counts is the last one. Where a reply that
//! is cut off must not be taken for a whole one, the output needs frames, as in `host_mio`.
//!
//! A job lives as long as its client: when that closes its end of the connection, or dies, the job
//! is stopped.
//!
//! # What to look at
//! * **One descriptor.** The reactor is one more source of the loop, next to the sockets and the
//!   signals, and is polled with a timeout of zero when it is readable.
//! * **No buffer.** A piece of a log is written to the socket from where the reactor has it, and
//!   only what the socket has taken is consumed. A client that does not read costs nothing.
//! * **Level-triggered.** The loop asks for `EPOLLOUT` exactly as long as there is something to
//!   write, so it is woken for each client that can go on, and each gets one piece per turn.
//! * **Deadlines.** The loop waits until the next one at most. That of a silent job runs only while
//!   everything that it has printed was read: otherwise the client is slow, not the job.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, ensure};
use clap::Parser;
use jobworker::{Command, Event, Events, Exit, Fill, JobId, Position, Reactor, TailId, Token};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::Mode;
use rustix::process::umask;
use signal_hook::low_level::pipe;

use crate::place::PlaceFlags;
use crate::seconds::seconds;

#[path = "common/place.rs"]
mod place;
#[path = "common/seconds.rs"]
mod seconds;
#[path = "common/signals.rs"]
mod signals;
#[path = "common/words.rs"]
mod words;

/// Runs a job for each client that connects to a Unix socket, and passes its output on.
///
/// SIGINT (Ctrl-C), SIGTERM or SIGHUP stop every job, and then the server; a second signal kills
/// the jobs.
#[derive(Parser)]
#[command(name = "host_epoll")]
struct Options {
    /// Where to make the socket. Only you can connect to it.
    socket: PathBuf,
    /// Stop a job that prints nothing for this long.
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    silence: Option<Duration>,
    /// How long a client may take to send its line.
    #[arg(long, value_name = "SECS", value_parser = seconds, default_value = "10")]
    patience: Duration,
    /// How many clients are served at once; others wait.
    #[arg(long, value_name = "N", default_value = "1000")]
    clients: usize,
    /// Time between the stop signal and the kill of a job.
    #[arg(long, value_name = "SECS", value_parser = seconds, default_value = "10")]
    grace: Duration,
    #[command(flatten)]
    place: PlaceFlags,
}

// What the loop knows its sources by. Clients count on from there, and no number is used again: an
// event for a client that has left finds nobody.
const LISTENER: usize = 0;
const SIGNALS: usize = 1;
const REACTOR: usize = 2;
const FIRST_CLIENT: usize = 3;

/// The longest line that a client may send.
const LINE: usize = 4096;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    // Handled before anything is created, so that no signal can leave anything behind: each writes
    // a byte, which the loop reads.
    let (mut signals, write_end) = UnixStream::pair()?;
    for signal in signals::to_handle()? {
        pipe::register(signal, write_end.try_clone()?)?;
    }
    signals.set_nonblocking(true)?;
    let mut server = Server::new(&options)?;
    add(&server.epoll, &signals, SIGNALS, EventFlags::IN)?;
    let mut ready = Vec::with_capacity(256);
    let mut events = Events::with_capacity(256);
    loop {
        ready.clear();
        let timeout = server.timeout().and_then(|timeout| Timespec::try_from(timeout).ok());
        match epoll::wait(&server.epoll, spare_capacity(&mut ready), timeout.as_ref()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => drop(other?),
        }
        for event in &ready {
            let (flags, source) = (event.flags, event.data.u64() as usize);
            match source {
                LISTENER => server.accept()?,
                SIGNALS => {
                    let count = signals.read(&mut [0; 16])?;
                    (0..count).try_for_each(|_| server.stop())?;
                }
                REACTOR => {
                    server.reactor.poll(&mut events, Some(Duration::ZERO))?;
                    events.iter().try_for_each(|event| server.handle(event))?;
                }
                client => server.client_is_ready(client, flags)?,
            }
        }
        server.expire()?;
        if server.has_ended() && ready.is_empty() {
            // What a client has not taken by now is lost. Dropping the reactor removes the rest.
            return Ok(());
        }
    }
}

/// The socket in the file system, for as long as the server runs.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            eprintln!("host_epoll: cannot remove {}: {error}", self.0.display());
        }
    }
}

struct Server {
    epoll: OwnedFd,
    /// Gone once the server is to end.
    listener: Option<(UnixListener, SocketFile)>,
    reactor: Reactor,
    clients: HashMap<usize, Client>,
    next_client: usize,
    /// How many jobs are not finished.
    running: usize,
    /// The jobs that are finished, and still read by their clients.
    finished: HashSet<JobId>,
    max_clients: usize,
    grace: Duration,
    patience: Duration,
    silence: Option<Duration>,
}

struct Client {
    stream: UnixStream,
    stage: Stage,
    /// What the loop waits for on the stream.
    interest: EventFlags,
    /// When the client, or its job, is given up.
    deadline: Option<Instant>,
}

enum Stage {
    /// The line is arriving.
    Line(Vec<u8>),
    /// The job runs, or its output is still being read.
    Job { job: JobId, tail: TailId, silent: bool },
    /// The rest of the last line.
    Last(Vec<u8>),
}

impl Server {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let reactor = Reactor::with_config(&options.place.config()).map_err(words::spoken)?;
        let before = umask(Mode::RWXG | Mode::RWXO);
        let listener = UnixListener::bind(&options.socket);
        umask(before);
        let listener = listener
            .with_context(|| format!("cannot make the socket {}", options.socket.display()))?;
        let file = SocketFile(options.socket.clone());
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        add(&epoll, &listener, LISTENER, EventFlags::IN)?;
        add(&epoll, &reactor, REACTOR, EventFlags::IN)?;
        println!("listening on {}", options.socket.display());
        Ok(Self {
            epoll,
            listener: Some((listener, file)),
            reactor,
            clients: HashMap::new(),
            next_client: FIRST_CLIENT,
            running: 0,
            finished: HashSet::new(),
            max_clients: options.clients,
            grace: options.grace,
            patience: options.patience,
            silence: options.silence,
        })
    }

    /// How long the loop may wait.
    fn timeout(&self) -> Option<Duration> {
        if self.has_ended() {
            // Only as long as sockets take more at once.
            return Some(Duration::ZERO);
        }
        // With very many clients, a heap would find it faster.
        let next = self.clients.values().filter_map(|client| client.deadline).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Accepts one client. If there are more, the listener is still readable.
    fn accept(&mut self) -> anyhow::Result<()> {
        let Some((listener, _)) = &self.listener else { return Ok(()) };
        let (token, interest) = (self.next_client, EventFlags::IN | EventFlags::RDHUP);
        let accepted = listener.accept().and_then(|(stream, _)| {
            stream.set_nonblocking(true)?;
            add(&self.epoll, &stream, token, interest)?;
            Ok(stream)
        });
        match accepted {
            Ok(stream) => {
                self.next_client += 1;
                let deadline = Instant::now().checked_add(self.patience);
                let stage = Stage::Line(Vec::new());
                self.clients.insert(token, Client { stream, stage, interest, deadline });
                if self.clients.len() >= self.max_clients {
                    self.listen(false)?;
                }
            }
            Err(error) if is_temporary(&error) => {}
            Err(error) => {
                // Such as no free descriptor: the listener would be readable again and again until
                // a client leaves.
                eprintln!("host_epoll: cannot accept a client: {error}");
                self.listen(false)?;
            }
        }
        Ok(())
    }

    /// Sets whether the loop waits for new clients.
    fn listen(&self, wanted: bool) -> rustix::io::Result<()> {
        let Some((listener, _)) = &self.listener else { return Ok(()) };
        let interest = if wanted { EventFlags::IN } else { EventFlags::empty() };
        epoll::modify(&self.epoll, listener, EventData::new_u64(LISTENER as u64), interest)
    }

    /// Sets what the loop waits for on the stream of a client, besides its end.
    fn wait_for(&mut self, token: usize, interest: EventFlags) -> rustix::io::Result<()> {
        let Some(client) = self.clients.get_mut(&token) else { return Ok(()) };
        let interest = interest | EventFlags::RDHUP;
        if std::mem::replace(&mut client.interest, interest) == interest {
            return Ok(());
        }
        epoll::modify(&self.epoll, &client.stream, EventData::new_u64(token as u64), interest)
    }

    fn client_is_ready(&mut self, token: usize, flags: EventFlags) -> anyhow::Result<()> {
        if flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            self.leave(token)
        } else if flags.contains(EventFlags::IN) {
            self.receive(token)
        } else {
            self.send(token)
        }
    }

    /// Reads what a client has sent, and starts its job when the line is complete.
    fn receive(&mut self, token: usize) -> anyhow::Result<()> {
        let Some(Client { stream, stage: Stage::Line(line), .. }) = self.clients.get_mut(&token)
        else {
            return Ok(());
        };
        let mut bytes = [0; 1024];
        match stream.read(&mut bytes) {
            Ok(length) if line.len() + length <= LINE => line.extend(&bytes[..length]),
            Err(error) if is_temporary(&error) => {}
            // The line is too long, or there is nobody who waits for a reply.
            Ok(_) | Err(_) => return self.leave(token),
        }
        let Some(end) = line.iter().position(|byte| *byte == b'\n') else { return Ok(()) };
        line.truncate(end);
        let line = OsString::from_vec(std::mem::take(line));
        let stage = self.start(token, &line).unwrap_or_else(|error| last_line(&error));
        self.clients.entry(token).and_modify(|client| {
            client.stage = stage;
            client.deadline = None;
        });
        self.send(token)
    }

    fn start(&mut self, token: usize, line: &OsStr) -> anyhow::Result<Stage> {
        ensure!(self.listener.is_some(), "the server is about to end");
        let mut command = Command::new("sh");
        command.arg("-c").arg(line).inherit_env().grace(self.grace);
        // The token leads from an event to the client.
        let job = self.reactor.spawn(&command, Token(token))?;
        self.running += 1;
        let tail = self.reactor.tail(job, Position::Start, Token(token));
        if tail.is_err() {
            self.reactor.kill(job)?;
        }
        Ok(Stage::Job { job, tail: tail?, silent: false })
    }

    /// Handles what has happened to a job.
    fn handle(&mut self, event: &Event) -> anyhow::Result<()> {
        match event {
            Event::Readable { token, .. } => self.send(token.0)?,
            Event::Finished { job, token, report, .. } => {
                self.running -= 1;
                for problem in &report.problems {
                    eprintln!("host_epoll: job {job}: {problem}");
                }
                self.finished.insert(*job);
                let client = self.clients.get(&token.0);
                if !client.is_some_and(|client| matches!(client.stage, Stage::Job { .. })) {
                    self.release(*job)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes one piece to a client, as far as its socket takes it, and says what to wait for next.
    fn send(&mut self, token: usize) -> anyhow::Result<()> {
        let Some(client) = self.clients.get_mut(&token) else { return Ok(()) };
        match &mut client.stage {
            Stage::Line(_) => return Ok(()),
            Stage::Job { job, tail, silent } => {
                let (job, tail, silent) = (*job, *tail, *silent);
                match self.reactor.fill_buf(tail) {
                    Ok(Fill::Data(bytes)) => {
                        client.deadline = None;
                        // What the socket does not take stays in the log.
                        match write(&client.stream, bytes) {
                            Ok(length) => self.reactor.consume(tail, length)?,
                            Err(_) => return self.leave(token),
                        }
                    }
                    Ok(Fill::UpToDate) => {
                        // From now on the job is silent. An event comes when it is not any more.
                        let silence = self.silence.filter(|_| !silent);
                        client.deadline =
                            silence.and_then(|silence| Instant::now().checked_add(silence));
                        return Ok(self.wait_for(token, EventFlags::empty())?);
                    }
                    // The job has truncated its log. What it writes from now on follows.
                    Ok(Fill::Truncated | Fill::Skipped { .. } | Fill::Replaced { .. }) => {}
                    // No process of the job is left that could print more, so its exit is known.
                    Ok(Fill::Ended) => {
                        let exit = self.reactor.status(job)?.exit.unwrap_or(Exit::Unknown);
                        let why = if silent { ", stopped because it was silent" } else { "" };
                        client.stage = last_line(format_args!("{exit}{why}"));
                        self.release(job)?;
                    }
                    Err(error) => {
                        client.stage = last_line(error);
                        self.release(job)?;
                    }
                }
            }
            Stage::Last(rest) => match write(&client.stream, rest) {
                Ok(length) if length < rest.len() => drop(rest.drain(..length)),
                _ => return self.leave(token),
            },
        }
        Ok(self.wait_for(token, EventFlags::OUT)?)
    }

    /// Stops jobs that were silent for too long, and drops clients that have sent no line.
    fn expire(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        let is_due = |client: &Client| client.deadline.is_some_and(|deadline| deadline <= now);
        let due = self.clients.iter().filter(|(_, client)| is_due(client));
        for token in due.map(|(token, _)| *token).collect::<Vec<_>>() {
            match self.clients.get_mut(&token) {
                Some(Client { stage: Stage::Job { job, silent, .. }, deadline, .. }) => {
                    *deadline = None;
                    *silent = true;
                    self.reactor.stop(*job)?;
                }
                _ => self.leave(token)?,
            }
        }
        Ok(())
    }

    /// Closes the connection of a client, whose job is stopped.
    fn leave(&mut self, token: usize) -> anyhow::Result<()> {
        if let Some(client) = self.clients.remove(&token)
            && let Stage::Job { job, .. } = client.stage
        {
            self.release(job)?;
        }
        // There is room for another one.
        Ok(self.listen(true)?)
    }

    /// Removes a job that no client needs any more. One that is not finished is stopped, and
    /// removed when it is: only once its last event was handled, for a job that was removed has
    /// none.
    fn release(&mut self, job: JobId) -> jobworker::Result<()> {
        if !self.finished.remove(&job) {
            return self.reactor.stop(job);
        }
        if let Err(error) = self.reactor.remove(job) {
            eprintln!("host_epoll: job {job}: {error}");
        }
        Ok(())
    }

    /// Begins to end: accepts no client any more, and stops all jobs. The second time it kills.
    fn stop(&mut self) -> jobworker::Result<()> {
        let first = self.listener.take().is_some();
        let jobs: Vec<JobId> = self.reactor.jobs().collect();
        for job in jobs {
            if first { self.reactor.stop(job)? } else { self.reactor.kill(job)? }
        }
        Ok(())
    }

    /// Whether the server is to end, and all jobs have.
    fn has_ended(&self) -> bool {
        self.listener.is_none() && self.running == 0
    }
}

fn add(
    epoll: &OwnedFd,
    source: impl AsFd,
    token: usize,
    interest: EventFlags,
) -> rustix::io::Result<()> {
    epoll::add(epoll, source, EventData::new_u64(token as u64), interest)
}

/// The last line of a reply.
fn last_line(text: impl Display) -> Stage {
    Stage::Last(format!("\n{text}\n").into_bytes())
}

/// Writes what a socket takes, which may be nothing.
fn write(mut stream: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if is_temporary(&error) => Ok(0),
        other => other,
    }
}

/// Whether it is enough to go on when the loop says so.
fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted
    )
}
