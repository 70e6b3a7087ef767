//! Owns [`Keeper`]: the process that holds the pidfds of surviving jobs while there is no host.
//!
//! Invariants: whatever a host says or does ends its connection at most. What is held is closed
//! only when a host says so. Knows nothing of jobs but their ids.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::event::{Timespec, poll};
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, accept_with, bind, connect, listen,
};
use rustix::process::geteuid;

use crate::error::{Error, Result, SystemError};
use crate::id::JobId;
use crate::keeper::message::{Message, socket};
use crate::sys::is_pidfd;

/// How many hosts may wait.
const BACKLOG: i32 = 16;

/// How many descriptors are held unless it was said otherwise.
const MOST: usize = 10_000;

/// When a host is accepted again, after that has failed for lack of descriptors or memory.
const TRY_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// Holds the pidfds of jobs that [survive](crate::Command::survives) their host, so that the next
/// host knows how a job has ended while there was none (Linux 6.15). Hosts name its socket with
/// [`Config::keeper`](crate::Config::keeper).
///
/// It is a process of its own, which does nothing else, so that it has no reason to die. It needs
/// no program of its own either: the binary of the host can be one, as below. It has to outlive the
/// host, as a service of its own does, or a job that survives. Below, the host makes the socket and
/// passes it on as the standard input, so that what it spawns next is handed over before the keeper
/// runs. The keeper alone must have it then, or hosts would find one that is not there.
///
/// ```no_run
/// use jobworker::{Command, Config, Error, Keeper, Reactor, Resource, SystemError, Token};
/// use std::os::fd::{AsFd, OwnedFd};
///
/// const SOCKET: &str = "/run/agent/keeper";
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     if std::env::args().nth(1).is_some_and(|word| word == "keeper") {
///         Keeper::from(std::io::stdin().as_fd().try_clone_to_owned()?).run()?;
///     }
///     let mut config = Config::new();
///     let mut reactor = Reactor::with_config(config.name("agent").keeper(SOCKET))?;
///     let mut recovery = reactor.recovery()?;
///     while let Some(found) = reactor.recover(&mut recovery, Token(0))? {
///         // The keeper is one of them.
///     }
///     match Keeper::bind(SOCKET) {
///         Ok(keeper) => {
///             let mut command = Command::new("/proc/self/exe");
///             command.arg("keeper").survives(true).label("keeper");
///             command.rlimit(Resource::OpenFiles, Some(11_000), Some(11_000));
///             reactor.spawn(command.stdin_fd(OwnedFd::from(keeper)), Token(0))?;
///         }
///         Err(Error::System(SystemError::KeeperTaken { .. })) => {} // it lives
///         Err(error) => return Err(error.into()),
///     }
///     // The loop of the host, which does the last step again should that job finish.
///     Ok(())
/// }
/// ```
///
/// # What is not guaranteed
/// What a keeper holds is gone when it dies. The host hands everything to the next one as soon as
/// it notices, which is at the next spawn or removal of a job.
#[derive(Debug)]
#[must_use = "a keeper does nothing until it runs"]
pub struct Keeper {
    listener: OwnedFd,
    most: usize,
    held: BTreeMap<JobId, Held>,
    /// The number of the connection that is served.
    connection: u64,
}

/// What is held of a job.
#[derive(Debug)]
struct Held {
    descriptor: OwnedFd,
    /// Which connection has brought it.
    from: u64,
}

impl From<OwnedFd> for Keeper {
    /// A keeper on a listening socket that somebody else has made: with
    /// [`bind`](Keeper::bind), or systemd (`ListenSequentialPacket=`).
    fn from(listener: OwnedFd) -> Self {
        Self { listener, most: MOST, held: BTreeMap::new(), connection: 0 }
    }
}

impl From<Keeper> for OwnedFd {
    /// The listening socket, for the process that is to be the keeper.
    fn from(keeper: Keeper) -> Self {
        keeper.listener
    }
}

impl Keeper {
    /// Makes the socket, to which only this user and root can connect, and listens on it. A socket
    /// that a dead keeper has left is replaced. From now on hosts can connect; they are served by
    /// [`run`](Self::run).
    ///
    /// Of two that are started at the same moment, where a dead one has left its socket, both may
    /// come into being: hosts find the later one, and the other serves nobody.
    ///
    /// # Errors
    /// [`Error::System`]: `KeeperTaken` when somebody listens there; `Path` when the socket cannot
    /// be made: its path has at most 107 bytes, and what is there and is no socket stays.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |cause: io::Error| Error::path("make the socket of a keeper at", path)(cause);
        let address = SocketAddrUnix::new(path).map_err(|errno| failed(errno.into()))?;
        remove_stale(path, &address)?;
        let bound = || -> io::Result<OwnedFd> {
            let listener = socket(SocketFlags::empty())?;
            // The file is made with the mode of the descriptor: there is no moment at which anybody
            // else could connect, whatever the umask.
            fchmod(&listener, Mode::RUSR | Mode::WUSR)?;
            bind(&listener, &address)?;
            listen(&listener, BACKLOG)?;
            Ok(listener)
        };
        bound().map(Self::from).map_err(failed)
    }

    /// Sets how many descriptors are held at most, so that a host that never lets go of any does
    /// not take all there are; the default is 10,000. A job that finds no room has none held, which
    /// its host is told ([`Reactor::keeper_problem`](crate::Reactor::keeper_problem)).
    ///
    /// `RLIMIT_NOFILE` is a limit as well, usually of 1,024: raise it before.
    pub fn most(&mut self, descriptors: usize) -> &mut Self {
        self.most = descriptors;
        self
    }

    /// Serves hosts, one at a time: the next one waits until the connection of the one before is
    /// closed, as it is when that dies. So each host of a machine has a keeper of its own.
    ///
    /// Blocks for good. What a host sends that makes no sense ends its connection, and a lack of
    /// descriptors or memory only delays the next one.
    ///
    /// # Errors
    /// [`Error::System`] (`Loop`) when no host can be accepted, as on a descriptor that does not
    /// listen.
    pub fn run(mut self) -> Result<Infallible> {
        loop {
            let host = self.accept()?;
            self.connection += 1;
            // It has closed its end, died in the middle of something or sent what makes no sense:
            // whichever it was, the next one is served.
            let _ = self.serve(&host);
        }
    }

    /// The next host.
    fn accept(&self) -> Result<OwnedFd> {
        loop {
            match accept_with(&self.listener, SocketFlags::CLOEXEC) {
                Ok(host) if is_permitted(&host) => return Ok(host),
                Ok(_) | Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    // The connection of the last host was a descriptor of this process, so another
                    // thread has it, or the whole system has none: nobody tells when that is over.
                    let _ = poll(&mut [], Some(&TRY_AGAIN));
                }
                Err(errno) => return Err(Error::event_loop("accept a host of a keeper")(errno)),
            }
        }
    }

    /// Serves a host until it closes its end.
    fn serve(&mut self, host: &OwnedFd) -> Result<(), Errno> {
        tell(host, Message::Keeper)?;
        self.obey(host)
    }

    fn obey(&mut self, host: &OwnedFd) -> Result<(), Errno> {
        loop {
            let (message, descriptor) = match Message::receive(host, RecvFlags::empty()) {
                // It has died before it has read everything. What it has said before that counts,
                // and comes by the next calls: the kernel reports this first, and once.
                Err(Errno::CONNRESET) => continue,
                received => match received? {
                    Some(received) => received,
                    None => return Ok(()),
                },
            };
            match (message, descriptor) {
                // Whatever else might keep the connection open, or take its time to be closed.
                (Message::Keep(_), Some(descriptor)) if !is_pidfd(&descriptor) => {
                    return Err(Errno::PROTO);
                }
                (Message::Keep(job), Some(descriptor)) if self.has_room_for(job) => {
                    self.held.insert(job, Held { descriptor, from: self.connection });
                }
                // Without a descriptor, if this process can have no more of them.
                (Message::Keep(job), _) => tell(host, Message::Full(job))?,
                (Message::Drop(job), None) => drop(self.held.remove(&job)),
                (Message::DropOthers, None) => {
                    self.held.retain(|_, held| held.from == self.connection);
                }
                (Message::Give, None) => {
                    for (job, held) in &self.held {
                        let descriptor = Some(held.descriptor.as_fd());
                        Message::Held(*job).send(host, descriptor, SendFlags::empty())?;
                    }
                    Message::Done.send(host, None, SendFlags::empty())?;
                }
                _ => return Err(Errno::PROTO),
            }
        }
    }

    fn has_room_for(&self, job: JobId) -> bool {
        self.held.len() < self.most || self.held.contains_key(&job)
    }
}

/// Says what a host has not asked for, which must not make the keeper wait. Of one that has died,
/// what it has said is still to be read.
fn tell(host: &OwnedFd, message: Message) -> Result<(), Errno> {
    match message.send(host, None, SendFlags::DONTWAIT) {
        Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        sent => sent,
    }
}

/// Whether the other end is a process of this user or of root. The mode of the socket says the
/// same, but can be changed.
fn is_permitted(host: &OwnedFd) -> bool {
    socket_peercred(host).is_ok_and(|peer| peer.uid.is_root() || peer.uid == geteuid())
}

/// Removes the socket of a keeper that is dead.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(Error::path("make the socket of a keeper at", path)(Errno::EXIST)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::path("look at", path)(error)),
    }
    let probe = socket(SocketFlags::NONBLOCK).map_err(Error::path("connect to", path))?;
    match connect(&probe, address) {
        // Somebody listens: to messages, with no room for another host, or to something else.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => {
            Err(SystemError::KeeperTaken { path: path.to_owned() }.into())
        }
        Err(Errno::CONNREFUSED) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::path("remove", path)(error))
            }
            _ => Ok(()),
        },
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::path("connect to", path)(errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::net::{AddressFamily, SocketType, socketpair};
    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::*;

    /// A keeper of so many descriptors that listens nowhere.
    fn keeper(most: usize) -> Keeper {
        let mut keeper = Keeper::from(socket(SocketFlags::empty()).unwrap());
        keeper.most(most);
        keeper
    }

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    fn job(number: u128) -> JobId {
        JobId::new(uuid::Uuid::from_u128(number))
    }

    /// A host that says this, and what it hears: of what is handed out, all but the descriptors.
    fn heard(keeper: &mut Keeper, said: &[Message]) -> (Result<(), Errno>, Vec<Message>) {
        let (host, end) = pair();
        keeper.connection += 1;
        thread::scope(|scope| {
            let served = scope.spawn(move || {
                let served = keeper.serve(&end);
                drop(end);
                served
            });
            let descriptor = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
            for message in said {
                let with = matches!(message, Message::Keep(_)).then(|| descriptor.as_fd());
                message.send(&host, with, SendFlags::empty()).unwrap();
            }
            rustix::net::shutdown(&host, rustix::net::Shutdown::Write).unwrap();
            let mut heard = Vec::new();
            while let Some((message, with)) = Message::receive(&host, RecvFlags::empty()).unwrap() {
                assert_eq!(with.is_some(), matches!(message, Message::Held(_)));
                heard.push(message);
            }
            (served.join().unwrap(), heard)
        })
    }

    #[test]
    fn what_one_host_hands_over_the_next_one_gets() {
        use Message::{Done, Drop, DropOthers, Give, Held, Keep, Keeper};
        let mut keeper = keeper(10);
        let said = [Keep(job(1)), Keep(job(2)), Keep(job(3)), Drop(job(2)), Drop(job(9))];
        assert_eq!(heard(&mut keeper, &said), (Ok(()), vec![Keeper]));
        let all = vec![Keeper, Held(job(1)), Held(job(3)), Done];
        // As often as it asks.
        for _ in 0..2 {
            assert_eq!(heard(&mut keeper, &[Give]), (Ok(()), all.clone()));
        }
        // What the new one does not know is closed.
        let said = [Keep(job(3)), Keep(job(4)), DropOthers, Give];
        let left = vec![Keeper, Held(job(3)), Held(job(4)), Done];
        assert_eq!(heard(&mut keeper, &said), (Ok(()), left));
    }

    #[test]
    fn a_keeper_that_is_full_says_so_and_goes_on() {
        use Message::{Done, Drop, Full, Give, Held, Keep, Keeper};
        let mut keeper = keeper(2);
        let said =
            [Keep(job(1)), Keep(job(2)), Keep(job(3)), Keep(job(1)), Drop(job(1)), Keep(job(4))];
        assert_eq!(heard(&mut keeper, &said), (Ok(()), vec![Keeper, Full(job(3))]));
        let left = vec![Keeper, Held(job(2)), Held(job(4)), Done];
        assert_eq!(heard(&mut keeper, &[Give]), (Ok(()), left));
    }

    #[test]
    fn what_only_a_keeper_says_ends_the_connection_and_nothing_else() {
        use Message::{Done, Full, Give, Held, Keep, Keeper};
        let mut keeper = keeper(2);
        assert_eq!(heard(&mut keeper, &[Keep(job(1))]).0, Ok(()));
        for wrong in [Keeper, Held(job(1)), Full(job(1)), Done] {
            assert_eq!(heard(&mut keeper, &[wrong]), (Err(Errno::PROTO), vec![Keeper]));
        }
        assert_eq!(heard(&mut keeper, &[Give]).1, [Keeper, Held(job(1)), Done]);
    }

    #[test]
    fn only_pidfds_are_held_and_not_the_hosts_own_end_of_the_connection() {
        let mut keeper = keeper(2);
        let (host, end) = pair();
        Message::Keep(job(1)).send(&host, Some(host.as_fd()), SendFlags::empty()).unwrap();
        drop(host);
        assert_eq!(keeper.serve(&end), Err(Errno::PROTO));
        assert!(keeper.held.is_empty());
    }

    #[test]
    fn what_a_host_has_said_before_it_died_counts_though_it_has_read_nothing() {
        let mut keeper = keeper(2);
        let (host, end) = pair();
        // Not read, so that the kernel reports a reset.
        tell(&end, Message::Keeper).unwrap();
        let descriptor = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        for number in 1..=3 {
            let with = Some(descriptor.as_fd());
            Message::Keep(job(number)).send(&host, with, SendFlags::empty()).unwrap();
        }
        Message::Drop(job(1)).send(&host, None, SendFlags::empty()).unwrap();
        drop(host);
        assert_eq!(keeper.obey(&end), Ok(()));
        assert_eq!(keeper.held.keys().copied().collect::<Vec<_>>(), [job(2)]);
    }
}
