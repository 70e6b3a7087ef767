//! Owns [`Terminal`]: the host's end of a job's terminal, and the log that its output is copied to.
//!
//! Invariants: a byte that was read from the terminal is in the log, or is kept until it is. No
//! call waits for the job, and each copies a bounded number of bytes with a bounded number of
//! system calls, for which it needs no descriptor. Knows nothing of who calls it, and when.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, fcntl_setfl, fstat};
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::process::{Resource, getrlimit};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use crate::command;
use crate::error::{Error, JobError, Result};
use crate::job::terminal_input::TerminalInput;

/// How many bytes are copied in one call at most.
pub(crate) const SLICE: usize = 16 * 1024;

/// How many times the terminal is read in one call at most: a job that prints single bytes gets on
/// with few of them in each.
const READS: usize = 32;

/// How much is read at the end of a job at most: twice what a terminal holds, which is 4 KiB in its
/// line discipline and less than 12 KiB before that. Only processes that are not the job's, or that
/// it leaves running, can have written what comes behind.
const LAST: usize = 32 * 1024;

/// The host's end of a terminal, with the log of its output.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: OwnedFd,
    /// Open for appending.
    log: OwnedFd,
    path: PathBuf,
    /// What was read and could not be written. Usually empty.
    unwritten: Vec<u8>,
    /// Tells those who type whether the job is over.
    alive: Arc<()>,
}

/// How much of the output was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// All that there was. The loop hears of what comes later.
    All,
    /// As much as one call copies: there may be more.
    Some,
}

/// A terminal that was just made: the host's end, and the job's.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

impl Pair {
    /// Makes a terminal with these properties. It belongs to `owner`, if that is another user, and
    /// nobody else may open it.
    pub(crate) fn new(terminal: command::Terminal, owner: Option<u32>) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).map_err(|errno| match errno {
            // What POSIX says instead.
            Errno::AGAIN => Errno::NOSPC,
            errno => errno,
        })?;
        unlockpt(&master)?;
        // By the descriptor: in another mount namespace, its name may be that of another terminal.
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        // By default, the members of a group may write to the terminals of all users, and so into
        // the log.
        fchmod(&slave, Mode::RUSR | Mode::WUSR)?;
        if let Some(uid) = owner {
            // A host that may not give files away may not change the job's user either: that step
            // then reports it.
            let _ = fchown(&slave, Some(Uid::from_raw(uid)), None::<Gid>);
        }
        if terminal.raw_output {
            let mut settings = tcgetattr(&slave)?;
            settings.output_modes.remove(OutputModes::OPOST);
            tcsetattr(&slave, OptionalActions::Now, &settings)?;
        }
        resize(&master, terminal.rows, terminal.columns)?;
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        Ok(Self { master, slave })
    }
}

fn resize(master: &OwnedFd, rows: u16, columns: u16) -> rustix::io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size)
}

impl Terminal {
    /// The host's end of a terminal, whose output goes to a log that is open for appending.
    pub(crate) fn new(master: OwnedFd, log: OwnedFd, path: PathBuf) -> Self {
        Self { master, log, path, unwritten: Vec::new(), alive: Arc::new(()) }
    }

    /// Changes the size. The kernel sends SIGWINCH to the foreground process group.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        resize(&self.master, rows, columns).map_err(Error::event_loop("resize a terminal"))
    }

    /// Another descriptor, to type by.
    pub(crate) fn input(&self) -> Result<TerminalInput> {
        let master = self.master.try_clone();
        let master = master.map_err(Error::event_loop("open a terminal for its input"))?;
        Ok(TerminalInput::new(master, Arc::downgrade(&self.alive)))
    }

    /// Copies what there is to the log, by way of `buffer`. After a failure, nothing is lost: the
    /// next call goes on there.
    pub(crate) fn copy(&mut self, buffer: &mut [u8]) -> Result<Copied> {
        self.copy_by(READS, buffer)
    }

    /// As [`copy`](Self::copy), with so many reads at most.
    fn copy_by(&mut self, reads: usize, buffer: &mut [u8]) -> Result<Copied> {
        // An error allocates, and there is usually none.
        self.write_kept().map_err(|errno| Error::path("write log", &self.path)(errno))?;
        let (length, copied) = self.fill(reads, buffer);
        let read = buffer.get(..length).unwrap_or_default();
        if let Err((count, errno)) = write_all(&self.log, read) {
            self.unwritten.extend_from_slice(read.get(count..).unwrap_or_default());
            return Err(Error::path("write log", &self.path)(errno));
        }
        copied.map_err(|errno| Error::path("read the terminal of log", &self.path)(errno))
    }

    /// Copies what is left when the job is over, or reports how much of it is lost.
    pub(crate) fn copy_last(&mut self, buffer: &mut [u8]) -> Result<()> {
        for _ in 0..LAST.div_ceil(buffer.len()) {
            // However little each read gives: bytes are counted here, not reads.
            match self.copy_by(usize::MAX, buffer) {
                Ok(Copied::Some) => {}
                Ok(Copied::All) => break,
                Err(problem) if self.unwritten.is_empty() => return Err(problem),
                Err(problem) => return Err(self.lose(buffer, &problem)),
            }
        }
        Ok(())
    }

    /// Discards what is left.
    #[cold]
    fn lose(&mut self, buffer: &mut [u8], problem: &Error) -> Error {
        let mut bytes = std::mem::take(&mut self.unwritten).len();
        for _ in 0..LAST.div_ceil(buffer.len()) {
            let (length, copied) = self.fill(usize::MAX, buffer);
            bytes += length;
            if copied != Ok(Copied::Some) {
                break;
            }
        }
        let cause = io::Error::from_raw_os_error(problem.raw_os_error().unwrap_or(0));
        JobError::OutputLost { path: self.path.clone(), bytes: bytes as u64, cause }.into()
    }

    /// Reads until there is nothing left for now, or it is enough.
    fn fill(&self, reads: usize, buffer: &mut [u8]) -> (usize, Result<Copied, Errno>) {
        let mut length = 0;
        for _ in 0..reads {
            let Some(free) = buffer.get_mut(length..).filter(|free| !free.is_empty()) else {
                break;
            };
            match retry_on_intr(|| read(&self.master, &mut *free)) {
                // EIO: no process has the other end open now, which may change. Before the kernel
                // says either, it has handed over everything that was printed before the call; a
                // read that gives less than was asked for does not say that there is no more, and
                // no event follows.
                Ok(0) | Err(Errno::AGAIN | Errno::IO) => return (length, Ok(Copied::All)),
                Ok(count) => length += count,
                Err(errno) => return (length, Err(errno)),
            }
        }
        (length, Ok(Copied::Some))
    }

    /// Writes what an earlier call could not.
    fn write_kept(&mut self) -> rustix::io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let written = write_all(&self.log, &self.unwritten);
        match written {
            Ok(()) => self.unwritten = Vec::new(),
            Err((count, _)) => _ = self.unwritten.drain(..count),
        }
        written.map_err(|(_, errno)| errno)
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}

/// Appends to a log; on failure, says how many bytes were written before.
fn write_all(log: &OwnedFd, bytes: &[u8]) -> Result<(), (usize, Errno)> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        let allowed = match getrlimit(Resource::Fsize).current {
            None => rest.len(),
            // The kernel would end the host by SIGXFSZ.
            Some(limit) => {
                let size = fstat(log).map_err(|errno| (done, errno))?.st_size;
                let room = limit.saturating_sub(u64::try_from(size).unwrap_or(0));
                usize::try_from(room).unwrap_or(usize::MAX).min(rest.len())
            }
        };
        let rest = rest.get(..allowed).unwrap_or(rest);
        if rest.is_empty() {
            return Err((done, Errno::FBIG));
        }
        match retry_on_intr(|| write(log, rest)) {
            Ok(0) => return Err((done, Errno::IO)),
            Ok(count) => done += count,
            Err(errno) => return Err((done, errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    fn terminal(raw: bool) -> (Terminal, File, PathBuf) {
        let mut settings = command::Terminal::new(24, 80);
        settings.raw_output = raw;
        let Pair { master, slave } = Pair::new(settings, None).unwrap();
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("jobworker-test-terminal-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let log = File::options().append(true).create_new(true).open(&path).unwrap();
        (Terminal::new(master, log.into(), path.clone()), slave.into(), path)
    }

    #[test]
    fn what_is_printed_is_copied_and_what_comes_after_the_last_close_too() {
        let mut buffer = [0; 64];
        for raw in [true, false] {
            let (mut terminal, mut slave, path) = terminal(raw);
            assert_eq!(terminal.copy(&mut buffer).unwrap(), Copied::All);
            slave.write_all(&[b'x'; 100]).unwrap();
            assert_eq!(terminal.copy(&mut buffer).unwrap(), Copied::Some);
            assert_eq!(terminal.copy(&mut buffer).unwrap(), Copied::All);
            slave.write_all(b"\n").unwrap();
            drop(slave);
            terminal.copy_last(&mut buffer).unwrap();
            let mut expected = vec![b'x'; 100];
            expected.extend_from_slice(if raw { b"\n" } else { b"\r\n" });
            assert_eq!(std::fs::read(&path).unwrap(), expected);
            // Somebody opens it again.
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let mut again = File::from(ioctl_tiocgptpeer(&terminal.master, flags).unwrap());
            again.write_all(b"again").unwrap();
            assert_eq!(terminal.copy(&mut buffer).unwrap(), Copied::All);
            assert!(std::fs::read(&path).unwrap().ends_with(b"again"));
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_written_is_kept_or_counted() {
        let mut buffer = [0; SLICE];
        let (mut terminal, mut slave, path) = terminal(true);
        // A log that always fails.
        let full = File::options().write(true).open("/dev/full").unwrap();
        let log = std::mem::replace(&mut terminal.log, full.into());
        slave.write_all(b"one").unwrap();
        let error = terminal.copy(&mut buffer).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
        slave.write_all(b"two").unwrap();
        terminal.copy(&mut buffer).unwrap_err();
        let full = std::mem::replace(&mut terminal.log, log);
        assert_eq!(terminal.copy(&mut buffer).unwrap(), Copied::All);
        assert_eq!(std::fs::read(&path).unwrap(), b"onetwo");
        terminal.log = full;
        slave.write_all(b"three").unwrap();
        terminal.copy(&mut buffer).unwrap_err();
        slave.write_all(b"four").unwrap();
        let error = terminal.copy_last(&mut buffer).unwrap_err();
        assert!(matches!(error, Error::Job(JobError::OutputLost { bytes: 9, .. })), "{error:?}");
        std::fs::remove_file(&path).unwrap();
    }
}
