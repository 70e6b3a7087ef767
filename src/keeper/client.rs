//! Owns [`Client`]: the host's end of the connection to a keeper.
//!
//! Invariants: nothing here fails, and nothing blocks but the question what is held, for a bounded
//! time. What could not be said for lack of room waits for that; any other failure ends the
//! connection, and the next one hands everything over anew. Knows nothing of jobs but their ids.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, connect};
use rustix::process::geteuid;

use crate::driver::{Driver, Readiness, Registration, Source};
use crate::error::{Error, Result, SystemError};
use crate::id::JobId;
use crate::keeper::message::{Message, socket};
use crate::trace;

/// How long a keeper may take to hand out what it holds.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many messages are read in one turn of the loop.
const MESSAGES_PER_TURN: usize = 256;

const CONNECT: &str = "connect to";
const HAND_OVER: &str = "hand pidfds to";
const ASK: &str = "get pidfds from";
const LISTEN: &str = "listen to";

/// The host's end of the connection to a keeper, whether there is one or not.
#[derive(Debug)]
pub(crate) struct Client {
    path: PathBuf,
    address: SocketAddrUnix,
    connection: Option<Connection>,
    problem: Option<Error>,
    /// Whether all jobs of the host's name are known to the host, so that whatever is held of
    /// others is of no use to anybody.
    knows_all: bool,
}

/// A connection, of which it is not known that it is closed.
#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    registration: Registration,
    /// The keeper has accepted the connection.
    accepted: bool,
    /// What is to be said, in this order.
    waiting: VecDeque<Message>,
    /// The loop is to be told when there is room for it.
    awaits_room: bool,
    /// The jobs for which the keeper has no room.
    refused: BTreeSet<JobId>,
}

/// What has failed, as a verb, and why.
type Failure = (&'static str, Errno);

impl Client {
    /// Connects when there is something to say.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let refused = |operation, cause| {
            let path = path.to_owned();
            Error::from(SystemError::Keeper { operation, path, cause })
        };
        // The host may change its working directory later.
        let absolute = std::path::absolute(path).map_err(|cause| refused(CONNECT, cause))?;
        let address = SocketAddrUnix::new(&absolute);
        let address = address.map_err(|errno| refused(CONNECT, errno.into()))?;
        let (connection, problem, knows_all) = (None, None, false);
        Ok(Self { path: absolute, address, connection, problem, knows_all })
    }

    /// Why there is no keeper, or one that does not take everything.
    pub(crate) fn problem(&self) -> Option<&Error> {
        self.problem.as_ref()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Connects, if somebody listens; returns whether.
    pub(crate) fn connect(&mut self, driver: &mut Driver) -> bool {
        match Connection::new(&self.address, driver) {
            Ok(connection) => self.connection = Some(connection),
            Err(errno) => self.fail((CONNECT, errno), driver),
        }
        self.is_connected()
    }

    /// What the keeper holds of a job is to be replaced by the pidfd of its main process.
    pub(crate) fn keep(&mut self, job: JobId) {
        if let Some(connection) = &mut self.connection {
            connection.waiting.push_back(Message::Keep(job));
        }
    }

    /// What the keeper holds of a job is of no use any more.
    pub(crate) fn let_go(&mut self, job: JobId) {
        if let Some(connection) = &mut self.connection {
            connection.let_go(job);
        }
    }

    /// Every job of the host's name is known to the host from now on.
    pub(crate) fn knows_all(&mut self) {
        self.knows_all = true;
    }

    /// Lets the keeper close what it was not given by this connection, if that is of no use: after
    /// all jobs were handed over.
    pub(crate) fn let_others_go(&mut self) {
        if let (Some(connection), true) = (&mut self.connection, self.knows_all) {
            connection.waiting.push_back(Message::DropOthers);
        }
    }

    /// Says what is to be said, as far as there is room. `pidfd` is that of the main process of a
    /// job that survives its host, unless it has ended.
    pub(crate) fn say<'a>(
        &mut self,
        driver: &mut Driver,
        pidfd: impl Fn(JobId) -> Option<BorrowedFd<'a>>,
    ) {
        let Some(connection) = &mut self.connection else { return };
        let said = connection.say(pidfd).and_then(|()| connection.await_room(driver));
        match said {
            Ok(()) => self.settle(),
            Err(errno) => self.fail((HAND_OVER, errno), driver),
        }
    }

    /// The socket is ready: reads what the keeper says, and goes on.
    pub(crate) fn ready<'a>(
        &mut self,
        driver: &mut Driver,
        pidfd: impl Fn(JobId) -> Option<BorrowedFd<'a>>,
    ) {
        let Some(connection) = &mut self.connection else { return };
        match connection.listen(driver) {
            Ok(()) => {
                // What it was never given, it cannot have refused.
                connection.refused.retain(|job| pidfd(*job).is_some());
                self.say(driver, pidfd);
            }
            Err(errno) => self.fail((LISTEN, errno), driver),
        }
    }

    /// The pidfds that the keeper holds of these jobs. Blocks until it has handed them out, or for
    /// two seconds: then there are those that have come until then.
    pub(crate) fn held<'a>(
        &mut self,
        driver: &mut Driver,
        pidfd: impl Fn(JobId) -> Option<BorrowedFd<'a>>,
        wanted: impl Fn(JobId) -> bool,
    ) -> HashMap<JobId, OwnedFd> {
        // One for each, however often the keeper says that it is one of them.
        let mut held = HashMap::new();
        let Some(connection) = &mut self.connection else { return held };
        connection.waiting.push_back(Message::Give);
        let given = connection.await_done(pidfd, |job, pidfd| {
            if wanted(job) {
                held.insert(job, pidfd);
            }
        });
        match given.and_then(|()| connection.await_room(driver)) {
            Ok(()) => self.settle(),
            Err(errno) => self.fail((ASK, errno), driver),
        }
        held
    }

    /// Ends the connection, which is of no use any more.
    fn fail(&mut self, (operation, errno): Failure, driver: &mut Driver) {
        if let Some(connection) = self.connection.take() {
            driver.deregister(connection.socket.as_fd(), connection.registration);
        }
        self.set_problem(operation, errno);
    }

    /// Finds out whether anything is wrong with a connection that goes on.
    fn settle(&mut self) {
        let Some(connection) = &self.connection else { return };
        if !connection.refused.is_empty() {
            self.set_problem(HAND_OVER, Errno::NOSPC);
        } else if !connection.waiting.is_empty() {
            self.set_problem(HAND_OVER, Errno::AGAIN);
        } else if connection.accepted && self.problem.take().is_some() {
            trace::keeper_found(&self.path);
        }
    }

    fn set_problem(&mut self, operation: &'static str, errno: Errno) {
        let (path, cause) = (self.path.clone(), errno.into());
        let problem = Error::from(SystemError::Keeper { operation, path, cause });
        if self.problem.is_none() {
            trace::keeper_lost(&problem);
        }
        self.problem = Some(problem);
    }
}

impl Connection {
    /// Does not block: if the keeper has no room for another host, that is a failure.
    fn new(address: &SocketAddrUnix, driver: &mut Driver) -> Result<Self, Errno> {
        let errno = |error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let socket = socket(SocketFlags::NONBLOCK).map_err(errno)?;
        connect(&socket, address)?;
        let keeper = socket_peercred(&socket)?.uid;
        if !keeper.is_root() && keeper != geteuid() {
            return Err(Errno::PERM);
        }
        let registered = driver.register(socket.as_fd(), Readiness::Readable, Source::Keeper);
        Ok(Self {
            registration: registered.map_err(errno)?,
            socket,
            accepted: false,
            waiting: VecDeque::new(),
            awaits_room: false,
            refused: BTreeSet::new(),
        })
    }

    fn let_go(&mut self, job: JobId) {
        let place = self.waiting.iter().position(|waiting| *waiting == Message::Keep(job));
        if place.and_then(|place| self.waiting.remove(place)).is_some() || self.refused.remove(&job)
        {
            // It has not got it.
            return;
        }
        self.waiting.push_back(Message::Drop(job));
        // There is room for another one now.
        self.waiting.extend(self.refused.pop_first().map(Message::Keep));
    }

    fn say<'a>(&mut self, pidfd: impl Fn(JobId) -> Option<BorrowedFd<'a>>) -> Result<(), Errno> {
        while let Some(message) = self.waiting.front() {
            let with = match message {
                Message::Keep(job) => pidfd(*job),
                _ => None,
            };
            // Of a job that has ended meanwhile, there is nothing to hold.
            if with.is_some() || !matches!(message, Message::Keep(_)) {
                match message.send(&self.socket, with, SendFlags::DONTWAIT) {
                    Ok(()) => {}
                    // Too many descriptors are on their way (TOOMANYREFS) only as long as the
                    // keeper has not taken them.
                    Err(Errno::AGAIN | Errno::TOOMANYREFS) => return Ok(()),
                    Err(errno) => return Err(errno),
                }
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Watches for room as long as something waits for it.
    fn await_room(&mut self, driver: &mut Driver) -> Result<(), Errno> {
        let awaits_room = !self.waiting.is_empty();
        if awaits_room != self.awaits_room {
            self.awaits_room = awaits_room;
            self.watch(driver)?;
        }
        Ok(())
    }

    /// Watches anew: the loop hears of whatever is ready by then.
    fn watch(&mut self, driver: &mut Driver) -> Result<(), Errno> {
        let readiness = match self.awaits_room {
            true => Readiness::ReadableOrWritable,
            false => Readiness::Readable,
        };
        driver.deregister(self.socket.as_fd(), self.registration);
        let registered = driver.register(self.socket.as_fd(), readiness, Source::Keeper);
        self.registration =
            registered.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(())
    }

    /// Reads what the keeper says unasked.
    fn listen(&mut self, driver: &mut Driver) -> Result<(), Errno> {
        for _ in 0..MESSAGES_PER_TURN {
            match self.receive()? {
                None => return Ok(()),
                Some((message, _)) => self.hear(message)?,
            }
        }
        // The rest is for the next turn.
        self.watch(driver)
    }

    /// The next message; `None` when there is none now.
    fn receive(&self) -> Result<Option<(Message, Option<OwnedFd>)>, Errno> {
        match Message::receive(&self.socket, RecvFlags::DONTWAIT) {
            Ok(None) => Err(Errno::CONNRESET),
            Err(Errno::AGAIN) => Ok(None),
            received => received,
        }
    }

    fn hear(&mut self, message: Message) -> Result<(), Errno> {
        match message {
            Message::Keeper => self.accepted = true,
            Message::Full(job) => drop(self.refused.insert(job)),
            _ => return Err(Errno::PROTO),
        }
        Ok(())
    }

    /// Says what waits, and hears everything up to the end of what is held.
    fn await_done<'a>(
        &mut self,
        pidfd: impl Fn(JobId) -> Option<BorrowedFd<'a>>,
        mut take: impl FnMut(JobId, OwnedFd),
    ) -> Result<(), Errno> {
        let until = Instant::now() + PATIENCE;
        let mut complete = true;
        loop {
            self.say(&pidfd)?;
            while let Some((message, descriptor)) = self.receive()? {
                match (message, descriptor) {
                    (Message::Held(job), Some(pidfd)) => take(job, pidfd),
                    // This process can have no more descriptors.
                    (Message::Held(_), None) => complete = false,
                    (Message::Done, None) if complete => return Ok(()),
                    (Message::Done, None) => return Err(Errno::MFILE),
                    (message, _) => self.hear(message)?,
                }
                if until <= Instant::now() {
                    return Err(Errno::TIMEDOUT);
                }
            }
            let room = if self.waiting.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            let left = until.saturating_duration_since(Instant::now());
            let timeout = left.try_into().map_err(|_| Errno::INVAL)?;
            let ready = &mut [PollFd::new(&self.socket, PollFlags::IN | room)];
            match poll(ready, Some(&timeout)) {
                Ok(0) => return Err(Errno::TIMEDOUT),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}
