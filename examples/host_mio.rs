//! A host with an event loop of its own, on mio: a TCP server that runs jobs and streams their
//! output to any number of clients, however slowly they read.
//!
//! Start it, then talk to it from another shell:
//!
//! ```sh
//! cargo run --release --example host_mio -- --listen 127.0.0.1:7000
//!
//! exec 3<>/dev/tcp/127.0.0.1/7000
//! echo 'run for i in 1 2 3; do echo hello $i; sleep 1; done' >&3
//! cat <&3
//! ```
//!
//! # The protocol
//! A client sends one line:
//!
//! | request | what it does |
//! |---|---|
//! | `run COMMAND` | starts a job, `sh -c COMMAND`, and follows it from the first byte |
//! | `follow ID OFFSET` | follows a job from this byte of its output on |
//! | `stop ID` | stops a job |
//!
//! The server answers in lines, and closes the connection after the last one:
//!
//! | line | what it says |
//! |---|---|
//! | `job ID` | which job this is: always the first line, unless that is an error |
//! | `data OFFSET LENGTH` | `LENGTH` bytes of output follow, which begin at this offset |
//! | `truncated` | the job has truncated its log: what follows begins at offset 0 |
//! | `exit CODE` | that was all, and the job has ended, with this code as a shell reports it |
//! | `stopping` | a job is being stopped |
//! | `error TEXT` | the request failed |
//!
//! A client that closes its end of the connection, or sends a second line, is dropped. Its job goes
//! on: any client can come back with `follow`, for as long as the server keeps the job.
//!
//! # What to look at
//! * **No client costs more than one frame.** A client is given the next piece of a log only when
//!   its socket has taken the one before. What it has not read yet is in the log, which is a file.
//! * **Nobody waits for anybody.** A client gets one piece per turn, then it is everybody else's.
//! * **mio is edge-triggered.** Readiness is reported once, so the server reads until it would
//!   block, and remembers in `Server::queue` which clients it could do more for.
//! * **One descriptor.** The reactor is one more source of the loop, next to the sockets and the
//!   signals, and is polled with a timeout of zero when it is readable.
//!
//! Whoever can connect can run programs as the user of the server.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::io::{self, ErrorKind, Read as _, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use jobworker::{Command, Event, Events, Exit, JobId, Position, Reactor, Read, TailId};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Poll, Token};
use signal_hook_mio::v1_0::Signals;

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

/// Runs jobs for clients that connect by TCP, and streams their output.
///
/// Prints the address that it listens on. SIGINT (Ctrl-C), SIGTERM or SIGHUP stop every job, and
/// then the server; a second signal kills the jobs.
#[derive(Parser)]
#[command(name = "host_mio")]
struct Options {
    /// Address to listen on. Whoever can connect can run programs.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// How many clients are served at once; others wait.
    #[arg(long, value_name = "N", default_value = "1000")]
    clients: usize,
    /// How many finished jobs are kept for clients that come back.
    #[arg(long, value_name = "N", default_value = "100")]
    keep: usize,
    /// Time between the stop signal and the kill of a job.
    #[arg(long, value_name = "SECS", value_parser = seconds, default_value = "10")]
    grace: Duration,
    #[command(flatten)]
    place: PlaceFlags,
}

const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);
const REACTOR: Token = Token(2);
const FIRST_CLIENT: usize = 3;

/// The longest request.
const LINE: usize = 4096;

/// How many bytes of output a client is given at a time.
const PIECE: usize = 16 * 1024;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    // Handled before anything is created, so that no signal can leave anything behind.
    let mut signals = Signals::new(signals::to_handle()?)?;
    let mut server = Server::new(&options)?;
    server.poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
    let mut ready = mio::Events::with_capacity(256);
    let mut events = Events::with_capacity(256);
    loop {
        // Clients in the queue are served without waiting. At the end the loop goes on for as long
        // as sockets take more at once.
        let busy = !server.queue.is_empty() || server.has_ended();
        match server.poll.poll(&mut ready, busy.then_some(Duration::ZERO)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => other?,
        }
        for event in &ready {
            match event.token() {
                LISTENER => server.accept(),
                SIGNALS => signals.pending().try_for_each(|_| server.stop())?,
                REACTOR => {
                    server.reactor.poll(&mut events, Some(Duration::ZERO))?;
                    events.iter().for_each(|event| server.handle(event));
                }
                client => server.receive(client),
            }
        }
        server.serve();
        if server.has_ended() && server.queue.is_empty() && ready.is_empty() {
            // What a client has not taken by now is lost. Dropping the reactor removes the rest.
            return Ok(());
        }
    }
}

struct Server {
    poll: Poll,
    /// Gone once the server is to end.
    listener: Option<TcpListener>,
    reactor: Reactor,
    /// By tokens that are never used again, so an event for a client that has left finds nobody.
    clients: HashMap<Token, Client>,
    next_client: usize,
    /// The clients for which there may be something to do without waiting. Each is in it once.
    queue: VecDeque<Token>,
    /// How many clients follow each job.
    followers: HashMap<JobId, usize>,
    /// The jobs that are finished, oldest first.
    finished: VecDeque<JobId>,
    max_clients: usize,
    grace: Duration,
    keep: usize,
}

impl Server {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut reactor = Reactor::with_config(&options.place.config()).map_err(words::spoken)?;
        poll.registry().register(&mut reactor, REACTOR, Interest::READABLE)?;
        let mut listener = TcpListener::bind(options.listen)
            .with_context(|| format!("cannot listen on {}", options.listen))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        println!("listening on {}", listener.local_addr()?);
        Ok(Self {
            poll,
            listener: Some(listener),
            reactor,
            clients: HashMap::new(),
            next_client: FIRST_CLIENT,
            queue: VecDeque::new(),
            followers: HashMap::new(),
            finished: VecDeque::new(),
            max_clients: options.clients,
            grace: options.grace,
            keep: options.keep,
        })
    }

    /// Accepts all connections that there is room for. The listener reports them once: those that
    /// have to wait are accepted when a client leaves.
    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while self.clients.len() < self.max_clients {
            let accepted = listener.accept().and_then(|(mut stream, _)| {
                // A line is sent when it is there, not when there are more. If the client is gone
                // already, its socket will say so.
                let _ = stream.set_nodelay(true);
                let token = Token(self.next_client);
                let both = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut stream, token, both)?;
                self.next_client += 1;
                self.clients.insert(token, Client::new(stream));
                Ok(())
            });
            match accepted.map_err(|error| (error.kind(), error)) {
                Ok(()) | Err((ErrorKind::Interrupted | ErrorKind::ConnectionAborted, _)) => {}
                Err((ErrorKind::WouldBlock, _)) => return,
                // Such as no free descriptor: the next one to leave frees one.
                Err((_, error)) => return eprintln!("host_mio: cannot accept a client: {error}"),
            }
        }
    }

    /// Reads what a client has sent, and lets it go on.
    fn receive(&mut self, token: Token) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        let Ok(line) = client.receive() else { return self.leave(token) };
        if let Some(line) = line {
            let answer = self.answer(token, line.trim_end());
            let Some(client) = self.clients.get_mut(&token) else { return };
            match answer {
                Ok(Answer::Follow(job, tail)) => {
                    client.say(format_args!("job {job}"));
                    client.follows = Some((job, tail));
                }
                Ok(Answer::Stopping) => client.end(format_args!("stopping")),
                Err(error) => client.end(format_args!("error {error:#}")),
            }
        }
        self.enqueue(token);
    }

    /// Does what a request asks for.
    fn answer(&mut self, token: Token, request: &str) -> anyhow::Result<Answer> {
        let (verb, rest) = request.split_once(' ').unwrap_or((request, ""));
        match verb {
            "run" => {
                ensure!(self.listener.is_some(), "the server is about to end");
                let mut command = Command::new("sh");
                command.args(["-c", rest]).inherit_env().grace(self.grace);
                let job = self.reactor.spawn(&command, jobworker::Token(0))?;
                self.followers.insert(job, 0);
                let followed = self.follow(token, job, Position::Start);
                if followed.is_err() {
                    // Nobody knows of it.
                    self.reactor.kill(job)?;
                }
                followed
            }
            "follow" => {
                let (id, offset) = rest.split_once(' ').context("say follow ID OFFSET")?;
                let offset = offset.parse().context("the offset is not a number")?;
                self.follow(token, id.parse()?, Position::Offset(offset))
            }
            "stop" => {
                self.reactor.stop(rest.parse()?)?;
                Ok(Answer::Stopping)
            }
            _ => bail!("say run COMMAND, follow ID OFFSET or stop ID"),
        }
    }

    fn follow(&mut self, token: Token, job: JobId, from: Position) -> anyhow::Result<Answer> {
        // The token leads from an event of the tail to its client.
        let tail = self.reactor.tail(job, from, jobworker::Token(token.0))?;
        *self.followers.entry(job).or_default() += 1;
        Ok(Answer::Follow(job, tail))
    }

    /// Handles what has happened to a job.
    fn handle(&mut self, event: &Event) {
        match event {
            Event::Readable { token, .. } => self.enqueue(Token(token.0)),
            Event::Finished { job, report, .. } => {
                for problem in &report.problems {
                    eprintln!("host_mio: job {job}: {problem}");
                }
                self.finished.push_back(*job);
                self.forget_jobs();
            }
            _ => {}
        }
    }

    fn enqueue(&mut self, token: Token) {
        if let Some(client) = self.clients.get_mut(&token)
            && !std::mem::replace(&mut client.queued, true)
        {
            self.queue.push_back(token);
        }
    }

    /// Gives each client in the queue one turn. One that could go on queues up again.
    fn serve(&mut self) {
        for _ in 0..self.queue.len() {
            let Some(token) = self.queue.pop_front() else { return };
            let Some(client) = self.clients.get_mut(&token) else { continue };
            client.queued = false;
            match client.advance(&mut self.reactor) {
                Ok(Next::More) => self.enqueue(token),
                Ok(Next::Wait) => {}
                // Everything is written, or there is nobody to write to.
                Ok(Next::Done) | Err(_) => self.leave(token),
            }
        }
    }

    /// Closes the connection of a client. The job that it follows goes on.
    fn leave(&mut self, token: Token) {
        let Some(client) = self.clients.remove(&token) else { return };
        if let Some((job, tail)) = client.follows {
            // It fails only if there is no such tail.
            let _ = self.reactor.close(tail);
            *self.followers.entry(job).or_default() -= 1;
            self.forget_jobs();
        }
        // There is room for another one.
        self.accept();
    }

    /// Removes the oldest finished jobs that nobody follows, as far as there are too many.
    fn forget_jobs(&mut self) {
        while self.finished.len() > self.keep {
            let unfollowed = |job: &JobId| self.followers.get(job) == Some(&0);
            let index = self.finished.iter().position(unfollowed);
            let Some(job) = index.and_then(|index| self.finished.remove(index)) else { return };
            self.followers.remove(&job);
            if let Err(error) = self.reactor.remove(job) {
                eprintln!("host_mio: job {job}: {error}");
            }
        }
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
        self.listener.is_none() && self.finished.len() == self.followers.len()
    }
}

/// What comes of a request that can be fulfilled.
enum Answer {
    Follow(JobId, TailId),
    Stopping,
}

/// What a client needs next.
enum Next {
    /// A turn.
    More,
    /// An event: of its socket or of its tail.
    Wait,
    /// Nothing.
    Done,
}

struct Client {
    stream: TcpStream,
    /// The request as far as it has arrived; `None` once it was complete.
    request: Option<Vec<u8>>,
    follows: Option<(JobId, TailId)>,
    /// What is being written: some lines, and one piece of output at most.
    frame: Vec<u8>,
    /// How much of it is written.
    written: usize,
    /// Whether nothing comes after the frame.
    last: bool,
    queued: bool,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            request: Some(Vec::new()),
            follows: None,
            frame: Vec::new(),
            written: 0,
            last: false,
            queued: false,
        }
    }

    /// Reads what has arrived, and returns the request when it is complete. Fails when the client
    /// has left or sends what it must not.
    fn receive(&mut self) -> io::Result<Option<String>> {
        let mut bytes = [0; 1024];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                // No client can keep this loop going: it ends with an error after one line.
                Ok(length) => match &mut self.request {
                    Some(line) if line.len() + length <= LINE && !line.contains(&b'\n') => {
                        line.extend(&bytes[..length]);
                    }
                    _ => return Err(ErrorKind::InvalidData.into()),
                },
                // Only now is there an event for what comes next.
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let Some(line) = self.request.take_if(|line| line.contains(&b'\n')) else {
            return Ok(None);
        };
        let line = String::from_utf8(line).map_err(io::Error::other)?;
        match line.split_once('\n') {
            Some((line, "")) => Ok(Some(line.to_owned())),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    /// Adds a line to the frame.
    fn say(&mut self, line: impl Display) {
        self.frame.extend(format!("{line}\n").into_bytes());
    }

    /// Adds the last line.
    fn end(&mut self, line: impl Display) {
        self.say(line);
        self.last = true;
    }

    /// Writes as much of the frame as the socket takes; when that was all, fetches the next one.
    fn advance(&mut self, reactor: &mut Reactor) -> io::Result<Next> {
        while self.written < self.frame.len() {
            match self.stream.write(&self.frame[self.written..]) {
                Ok(length) => self.written += length,
                // The socket is full, and there is an event when it is not any more. Until then
                // nothing is read for this client, however much its job prints.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Wait),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.frame.clear();
        self.written = 0;
        match self.follows {
            _ if self.last => Ok(Next::Done),
            None => Ok(Next::Wait),
            Some((job, tail)) => Ok(self.fetch(job, tail, reactor).unwrap_or_else(|error| {
                self.end(format_args!("error {error}"));
                Next::More
            })),
        }
    }

    /// Fetches the next piece of output.
    fn fetch(
        &mut self,
        job: JobId,
        tail: TailId,
        reactor: &mut Reactor,
    ) -> jobworker::Result<Next> {
        let mut piece = [0; PIECE];
        let offset = reactor.position(tail)?;
        match reactor.read(tail, &mut piece)? {
            Read::Data(length) => {
                self.say(format_args!("data {offset} {length}"));
                self.frame.extend(&piece[..length]);
            }
            // Only now is there an event for what the job prints next.
            Read::UpToDate => return Ok(Next::Wait),
            Read::Truncated => self.say("truncated"),
            Read::Skipped { bytes } => self.say(format_args!("skipped {bytes}")),
            // The log of a job is one file.
            Read::Replaced { .. } => {}
            // No process of the job is left that could print more, so its exit is known.
            Read::Ended => {
                let exit = reactor.status(job)?.exit.unwrap_or(Exit::Unknown);
                self.end(format_args!("exit {}", exit.shell_code()));
            }
        }
        Ok(Next::More)
    }
}
