//! Owns [`Log`]: one log file as its tails share it, its window, its pace and who waits for it; and
//! [`Kernel`], what it needs of the system.
//!
//! Invariants: bytes before `window.end()` are known to be in the file. A watch is armed only while
//! a tail waits, or until the next event shows that none does. A tail waits only if a visit, a
//! watch or the pace timer will serve it. Must not know about jobs or the event loop.

use std::io;
use std::time::{Duration, Instant};

use crate::id::Key;
use crate::log::window::{Refill, Window};

/// What the logs need of the system; the fuzzer has one of its own.
pub(crate) trait Kernel {
    /// An open log file.
    type File;
    /// Device and inode number of the file: the same for the same file only.
    fn identity(&self, file: &Self::File) -> (u64, u64);
    /// `pread`: gives less than it is asked for only at the end of the file.
    fn read_at(&mut self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The size of the file now.
    fn size(&mut self, file: &Self::File) -> io::Result<u64>;
    /// Lets the growth of the file be told as a change of `log`, or keeps it quiet; either way the
    /// watch exists from then on, so that later calls cannot fail for want of one.
    fn set_armed(&mut self, file: &mut Self::File, log: Key, armed: bool) -> io::Result<()>;
    /// The watch was removed by the kernel; the next `set_armed` has to make a new one.
    fn watch_lost(&mut self, file: &mut Self::File);
    /// Closes the file and removes its watch.
    fn close(&mut self, file: Self::File);
}

/// How the growth of a log is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    /// Not at all: nobody waits, or a visit is due.
    None,
    /// By the armed watch.
    Watch,
    /// By the pace timer, while the log is hot.
    Timer,
}

/// What a waiting tail relies on to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing more: the watch is armed.
    Nothing,
    /// A visit as soon as possible.
    Visit,
    /// A visit at the end of the pace.
    Pace,
}

/// So many growths in a row, each within one pace of the one before, make a log hot.
///
/// A few lines in quick succession are thus delivered one by one, at once; a stream of them is
/// paced.
const HOT_AFTER: u8 = 3;

/// One log file that has tails.
#[derive(Debug)]
pub(crate) struct Log<F> {
    pub(crate) file: F,
    pub(crate) window: Window,
    /// How often the file was found truncated or written anew.
    pub(crate) truncations: u32,
    /// Where the job's output ends, once it is finished.
    pub(crate) job_end: Option<u64>,
    /// The job is finished, but its end could not be found yet.
    pub(crate) end_due: bool,
    /// The tails that have read everything known and want to hear of more.
    pub(crate) waiting: Vec<Key>,
    /// How many tails the log has.
    pub(crate) tails: usize,
    /// Why growth cannot be noticed any more; told to every tail that asks for more.
    pub(crate) fault: Option<i32>,
    /// Whether the log is in the list of those to be visited.
    pub(crate) visit_due: bool,
    /// Whether the log is in the list of those that the pace timer visits.
    pub(crate) pace_due: bool,
    notice: Notice,
    /// The last refill took as much as one may: there is probably more.
    more: bool,
    last_growth: Option<Instant>,
    /// Growths in a row that came within one pace of the one before.
    streak: u8,
}

impl<F> Log<F> {
    /// A log of `size` bytes, none of them read.
    pub(crate) fn new(file: F, size: u64, window_bytes: usize) -> Self {
        Self {
            file,
            window: Window::new(size, window_bytes),
            truncations: 0,
            job_end: None,
            end_due: false,
            waiting: Vec::new(),
            tails: 0,
            fault: None,
            visit_due: false,
            pace_due: false,
            notice: Notice::None,
            more: false,
            last_growth: None,
            streak: 0,
        }
    }

    /// What a tail that waits from now on relies on.
    pub(crate) fn need(&self) -> Need {
        match self.notice {
            _ if self.more => Need::Visit,
            Notice::None => Need::Visit,
            Notice::Watch => Need::Nothing,
            Notice::Timer => Need::Pace,
        }
    }

    /// Brings window, watch and pace into line with the file; the only place where growth is found.
    ///
    /// Says whether there is news for the waiting tails.
    pub(crate) fn reconcile<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        key: Key,
        now: Instant,
        pace: Duration,
    ) -> io::Result<bool> {
        if self.waiting.is_empty() {
            // Disarmed only now, by the event that nobody waited for: a reader that keeps up never
            // pays for a change.
            if self.notice == Notice::Watch {
                kernel.set_armed(&mut self.file, key, false)?;
            }
            self.notice = Notice::None;
            return Ok(false);
        }
        // Arm, then look, then sleep: the other order loses a write in between.
        if self.notice == Notice::None {
            self.arm(kernel, key)?;
        }
        loop {
            match self.refill(kernel)? {
                Refill::Grown(_) => {
                    self.heat(now, pace);
                    if self.streak >= HOT_AFTER && self.notice == Notice::Watch {
                        kernel.set_armed(&mut self.file, key, false)?;
                        self.notice = Notice::Timer;
                    }
                    return Ok(true);
                }
                Refill::Truncated => return Ok(true),
                Refill::Unchanged if self.notice == Notice::Timer => self.arm(kernel, key)?,
                Refill::Unchanged => return Ok(false),
            }
        }
    }

    /// Looks at the file whatever the tails do, and says how much it has now. What it finds is news
    /// for who waits.
    pub(crate) fn size_now<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<u64> {
        loop {
            if self.refill(kernel)? == Refill::Truncated {
                // What the file is now was not looked at yet.
                continue;
            }
            if !self.more {
                return Ok(self.window.end());
            }
            let size = kernel.size(&self.file)?;
            // Otherwise the size is that of another content than the window's.
            if self.is_intact(kernel)? {
                return Ok(size);
            }
            self.truncated();
        }
    }

    /// Reads up to the end that the file has now, whatever the tails do, and says where that is.
    /// After a failure the next visit has to try again.
    pub(crate) fn fix_end<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<u64> {
        self.end_due = true;
        loop {
            let size = self.size_now(kernel)?;
            if self.more {
                // A tail that is so far behind reads from the file itself.
                // The old window stays until the new one is known to be of the same content.
                let mut window = self.window.moved_to(size);
                let refill =
                    window.refill(|buffer, offset| kernel.read_at(&self.file, buffer, offset))?;
                if refill == Refill::Truncated || !self.is_intact(kernel)? {
                    continue;
                }
                self.window = window;
                self.more = false;
            } else if !self.is_intact(kernel)? {
                // That size was of another content already, which nobody might ever look at again.
                self.truncated();
                continue;
            }
            self.end_due = false;
            self.job_end = Some(self.window.end());
            return Ok(self.window.end());
        }
    }

    /// Whether the file still holds what the window does, so that what was just read elsewhere
    /// belongs with it.
    pub(crate) fn is_intact<K: Kernel<File = F>>(&self, kernel: &mut K) -> io::Result<bool> {
        self.window.mark().holds(|buffer, offset| kernel.read_at(&self.file, buffer, offset))
    }

    /// The file does not hold any more what it held: everything starts anew at its first byte.
    pub(crate) fn truncated(&mut self) {
        self.truncations = self.truncations.wrapping_add(1);
        self.window.restart(0);
        // What the file holds now was not looked at, and no event need come for it.
        self.more = true;
        if let Some(end) = &mut self.job_end {
            *end = 0;
        }
    }

    /// The kernel has removed the watch.
    pub(crate) fn watch_lost<K: Kernel<File = F>>(&mut self, kernel: &mut K) {
        kernel.watch_lost(&mut self.file);
        if self.notice == Notice::Watch {
            self.notice = Notice::None;
        }
    }

    fn arm<K: Kernel<File = F>>(&mut self, kernel: &mut K, key: Key) -> io::Result<()> {
        kernel.set_armed(&mut self.file, key, true)?;
        self.notice = Notice::Watch;
        self.streak = 0;
        Ok(())
    }

    fn refill<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<Refill> {
        let (file, window) = (&self.file, &mut self.window);
        let refill = window.refill(|buffer, offset| kernel.read_at(file, buffer, offset))?;
        match refill {
            Refill::Grown(added) => self.more = self.window.is_full_refill(added),
            Refill::Truncated => self.truncated(),
            Refill::Unchanged => self.more = false,
        }
        Ok(refill)
    }

    fn heat(&mut self, now: Instant, pace: Duration) {
        let quick =
            self.last_growth.is_some_and(|before| now.saturating_duration_since(before) < pace);
        self.streak = if quick { self.streak.saturating_add(1) } else { 0 };
        self.last_growth = Some(now);
    }
}
