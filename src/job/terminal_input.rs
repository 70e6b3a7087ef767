//! Owns [`TerminalInput`]: what a host types into the terminal of a job by.
//!
//! Knows nothing of the job.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Weak;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr, write};

/// Types into the terminal of a job; from [`Reactor::terminal_input`](crate::Reactor) or
/// [`worker::Job::terminal_input`](crate::worker::Job::terminal_input).
///
/// What is written is what a keyboard would send. Until the job changes the settings of its
/// terminal, the kernel hands it over line by line, echoes it, and acts on some characters:
/// `"\x03"`, Ctrl-C, interrupts the foreground process group, and `"\x04"`, Ctrl-D, at the
/// beginning of a line makes one read of the job return the end of its input. Dropping this types
/// nothing.
///
/// # When it blocks
/// A terminal takes some kilobytes that the job has not read. Then [`write`](Write::write) blocks
/// until there is room, which may take until the job is over: not on the thread of a reactor's
/// loop, without which the job cannot print either. There, use [`try_write`](Self::try_write), and
/// register the descriptor for writability.
///
/// # When the job is gone
/// Writes fail with [`BrokenPipe`](io::ErrorKind::BrokenPipe) once the job is finished, and while
/// the terminal is full and no process has it open. The terminal itself is hung up when its job is
/// finished and every `TerminalInput` of it was dropped: a process that was left behind under
/// [`EndPolicy::LeaveRest`](crate::EndPolicy::LeaveRest) waits on its output until then.
///
/// # Kernel trap
/// * A line that is longer than 4,095 bytes is cut to that, unless the job turns lines off.
/// * Whoever reads from the descriptor takes output away that is then missing in the log.
///
/// ```
/// use jobworker::{Command, Output, Position, Stdin, Terminal, Worker};
/// use std::io::{Read, Write};
///
/// let worker = Worker::new()?;
/// let mut command = Command::new("sh");
/// command.args(["-c", "read name; echo hello $name"]).stdin(Stdin::Terminal);
/// let job = worker.spawn(command.output(Output::Terminal(Terminal::new(24, 80))))?;
/// job.terminal_input()?.write_all(b"world\n")?;
/// let mut text = String::new();
/// job.output(Position::Start)?.read_to_string(&mut text)?;
/// assert_eq!(text, "world\r\nhello world\r\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TerminalInput {
    /// The host's end, of which the reactor has another descriptor. It never blocks.
    master: OwnedFd,
    /// Gone when the job is over.
    alive: Weak<()>,
}

impl TerminalInput {
    pub(super) fn new(master: OwnedFd, alive: Weak<()>) -> Self {
        Self { master, alive }
    }

    /// Types as much as there is room for, and returns how many bytes that were. Does not block.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when there is room for nothing, and as in
    /// [When the job is gone](Self#when-the-job-is-gone).
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        // The kernel would keep it for whoever opens the terminal next.
        if self.alive.strong_count() == 0 {
            return Err(Errno::PIPE.into());
        }
        match retry_on_intr(|| write(&self.master, bytes)) {
            Err(Errno::AGAIN)
                if self.ready(Some(&Timespec::default()))?.contains(PollFlags::HUP) =>
            {
                Err(Errno::PIPE.into())
            }
            Err(Errno::IO) => Err(Errno::PIPE.into()),
            written => Ok(written?),
        }
    }

    /// Waits until there is room, or until no process has the terminal open.
    fn ready(&self, timeout: Option<&Timespec>) -> rustix::io::Result<PollFlags> {
        let mut ready = [PollFd::new(&self.master, PollFlags::OUT)];
        retry_on_intr(|| poll(&mut ready, timeout))?;
        Ok(ready[0].revents())
    }
}

/// Blocks; see [When it blocks](TerminalInput#when-it-blocks).
impl Write for &TerminalInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
            self.ready(None)?;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Blocks; see [When it blocks](TerminalInput#when-it-blocks).
impl Write for TerminalInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// To register it for writability.
impl AsFd for TerminalInput {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}
