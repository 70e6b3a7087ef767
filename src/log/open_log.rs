//! Owns [`OpenLog`]: one log while somebody reads it: the open file, its window, its pace, and the
//! list of the tails that wait.
//!
//! Invariants: bytes before the window's end are known to be in the file. A watch is armed only
//! while a tail waits, or until the next event shows that none does. A tail waits only if a visit,
//! a watch or the pace timer will serve it. Knows nothing of what a tail is but its key.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::id::Key;
use crate::log::kernel::Kernel;
use crate::log::published::Published;
use crate::log::window::{Mark, Refill, Window};

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

/// Where a tail waits for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Nowhere.
    No,
    /// At this place among those that have read everything, in this round.
    CaughtUp { place: u32, round: u32 },
    /// At this place among those that are checked one by one.
    Apart { place: u32 },
}

impl Waiting {
    /// Whether it is among those that have read everything in this round.
    pub(crate) fn is_in_round(self, round: u32) -> bool {
        matches!(self, Self::CaughtUp { round: own, .. } if own == round)
    }
}

/// For whom something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum News {
    /// For nobody.
    None,
    /// For every tail that has read everything: growth, a truncation, a failure.
    CaughtUp,
    /// For some: each has to be checked.
    Some,
}

/// So many quick growths in a row make a log hot.
///
/// A few lines in quick succession are thus delivered one by one, at once; a stream of them is
/// paced.
const HOT_AFTER: usize = 3;

/// A log that grows by so many bytes per pace, or faster, grows quickly, however late it is looked
/// at: by a host that works between its polls.
///
/// With the default pace, a log that is slower than this (320 KB/s) loses less than a hundredth of
/// its writer's time to an armed watch, as long as the writer writes whole lines.
const QUICK_BYTES: usize = 64;

/// A quick growth by so many bytes counts for one growth more: reading them costs more than it
/// costs to disarm a watch in vain.
const MANY_BYTES: usize = 4096;

/// A log that has tails.
#[derive(Debug)]
pub(crate) struct OpenLog<F> {
    file: Arc<F>,
    published: Arc<Published<F>>,
    window: Window,
    /// The waiting tails that have read everything known. Growth concerns all of them, so they are
    /// notified as one batch.
    caught_up: Vec<Key>,
    /// How often the list above was notified: the current round.
    round: u32,
    /// The other tails that wait: behind the end, or with an event in the queue already.
    apart: Vec<Key>,
    /// Whether all of these wait behind the end that is known: what lies in between is of no use.
    ahead: bool,
    /// How many tails the log has.
    tails: usize,
    /// These tails, but for those that follow a name, and less than about as many that were closed.
    subscribed: Vec<Key>,
    /// Why growth cannot be noticed any more; the error of every tail that asks for more.
    fault: Option<i32>,
    /// What was found that the waiting tails were not notified of.
    news: News,
    /// Whether the kernel has a watch of the file for this log.
    watched: bool,
    notice: Notice,
    /// The last refill took as much as one may: there is probably more.
    more: bool,
    /// One pace after the last growth: another one before then is quick.
    quick_until: Option<Instant>,
    /// How many quick growths there were in a row.
    streak: usize,
}

impl<F> OpenLog<F> {
    /// A log of `size` bytes, none of them read, without tails.
    pub(crate) fn new(
        file: Arc<F>,
        published: Arc<Published<F>>,
        size: u64,
        window_bytes: usize,
    ) -> Self {
        Self {
            file,
            published,
            window: Window::new(size, window_bytes),
            caught_up: Vec::new(),
            round: 0,
            apart: Vec::new(),
            ahead: true,
            tails: 0,
            subscribed: Vec::new(),
            fault: None,
            news: News::None,
            watched: false,
            notice: Notice::None,
            more: false,
            quick_until: None,
            streak: 0,
        }
    }

    pub(crate) fn file(&self) -> &Arc<F> {
        &self.file
    }

    pub(crate) fn published(&self) -> &Published<F> {
        &self.published
    }

    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    /// Why growth cannot be noticed any more, as an errno.
    pub(crate) fn fault(&self) -> Option<i32> {
        self.fault
    }

    pub(crate) fn has_tails(&self) -> bool {
        self.tails > 0
    }

    /// Counts a new tail that is not in the list of [`subscribed`](Self::subscribed): one that may
    /// leave the log, and is not closed with a job.
    pub(crate) fn count_tail(&mut self) {
        self.tails += 1;
    }

    /// Counts a new tail; `is_open` says of an earlier one whether it was closed.
    pub(crate) fn add_tail(&mut self, tail: Key, is_open: impl Fn(Key) -> bool) {
        // Closing a tail leaves the list alone. What that costs is paid here, once for as many new
        // tails as there are in the list.
        if self.subscribed.len() > 2 * self.tails + 8 {
            self.subscribed.retain(|tail| is_open(*tail));
        }
        self.subscribed.push(tail);
        self.tails += 1;
    }

    /// The tails of the log that do not follow a name, and some that were closed.
    pub(crate) fn subscribed(&self) -> &[Key] {
        &self.subscribed
    }

    pub(crate) fn remove_tail(&mut self) {
        self.tails -= 1;
    }

    /// Whether a tail that waits there still does, or was notified meanwhile.
    pub(crate) fn is_waiting(&self, waiting: Waiting) -> bool {
        match waiting {
            Waiting::No => false,
            Waiting::CaughtUp { round, .. } => round == self.round,
            Waiting::Apart { .. } => true,
        }
    }

    /// Lets a tail wait, which has read up to `offset`.
    pub(crate) fn add_waiting(&mut self, tail: Key, offset: u64, apart: bool) -> Waiting {
        // A list of 2^32 keys would not fit into memory.
        let place = |list: &Vec<Key>| u32::try_from(list.len()).unwrap_or(u32::MAX);
        let end = self.published.end();
        if apart || offset != end {
            let place = place(&self.apart);
            self.ahead &= offset > end;
            self.apart.push(tail);
            Waiting::Apart { place }
        } else {
            let place = place(&self.caught_up);
            self.caught_up.push(tail);
            Waiting::CaughtUp { place, round: self.round }
        }
    }

    /// Takes a tail out of the list in which it waits, and says which one has its place now.
    pub(crate) fn remove_waiting(&mut self, waiting: Waiting) -> Option<Key> {
        let (list, place) = match waiting {
            Waiting::CaughtUp { place, round } if round == self.round => {
                (&mut self.caught_up, place)
            }
            Waiting::Apart { place } => (&mut self.apart, place),
            Waiting::CaughtUp { .. } | Waiting::No => return None,
        };
        list.swap_remove(place as usize);
        list.get(place as usize).copied()
    }

    /// The waiting tails that have read everything, to be notified as one batch. Begins a new
    /// round.
    pub(crate) fn end_round(&mut self) -> (&mut Vec<Key>, u32) {
        let round = self.round;
        self.round = round.wrapping_add(1);
        (&mut self.caught_up, round)
    }

    /// Whether tails wait that have to be checked one by one.
    pub(crate) fn has_apart(&self) -> bool {
        !self.apart.is_empty()
    }

    /// The waiting tails to check one by one. Those without anything to read wait again.
    pub(crate) fn take_apart(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.apart)
    }

    /// Gives the list of [`take_apart`](Self::take_apart) back, with those that wait again, and
    /// says whether all of them wait behind the end.
    pub(crate) fn set_apart(&mut self, tails: Vec<Key>, ahead: bool) {
        self.apart = tails;
        self.ahead = ahead;
    }

    /// Makes every waiting tail be checked individually.
    pub(crate) fn split_caught_up(&mut self) {
        let (caught_up, _) = self.end_round();
        let mut caught_up = std::mem::take(caught_up);
        self.apart.append(&mut caught_up);
        self.caught_up = caught_up;
    }

    fn nobody_waits(&self) -> bool {
        self.caught_up.is_empty() && self.apart.is_empty()
    }

    fn add_news(&mut self, news: News) {
        self.news = self.news.max(news);
    }

    /// What was found since the waiting tails were last notified; the caller notifies them now.
    pub(crate) fn take_news(&mut self) -> News {
        std::mem::replace(&mut self.news, News::None)
    }

    /// What a tail that waits relies on.
    pub(crate) fn need(&self) -> Need {
        match self.notice {
            // The next read returns the fault, and a visit clears it.
            _ if self.fault.is_some() || self.nobody_waits() => Need::Nothing,
            _ if self.more => Need::Visit,
            Notice::None => Need::Visit,
            Notice::Watch => Need::Nothing,
            Notice::Timer => Need::Pace,
        }
    }

    /// Brings window, watch and pace into line with the file; the only place where growth is found
    /// without a read. A failure becomes the fault of the log, success ends it.
    pub(crate) fn visit<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        key: Key,
        now: Instant,
        pace: Duration,
    ) {
        self.fault = None;
        if let Err(error) = self.reconcile(kernel, key, now, pace) {
            self.fail(&error);
        }
    }

    /// Fixes where the job's output ends: at the end that the file has now. A failure becomes the
    /// fault of the log, success ends it.
    pub(crate) fn finish<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<u64> {
        self.fault = None;
        let end = self.fix_end(kernel);
        if let Err(error) = &end {
            self.fail(error);
        }
        end
    }

    /// Records the failure, for the tails.
    fn fail(&mut self, error: &io::Error) {
        self.fault = Some(error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()));
        self.add_news(News::CaughtUp);
    }

    fn reconcile<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        key: Key,
        now: Instant,
        pace: Duration,
    ) -> io::Result<()> {
        if self.nobody_waits() {
            // Disarmed only now, by the event that nobody waited for: a reader that keeps up never
            // pays for a change.
            if self.notice == Notice::Watch {
                kernel.set_armed(&self.file, key, false)?;
            }
            self.notice = Notice::None;
            return Ok(());
        }
        // Arm the watch, check the size, then sleep: the other order loses a write in between.
        if self.notice == Notice::None {
            self.arm(kernel, key)?;
        }
        if self.more && self.ahead && self.caught_up.is_empty() {
            return self.skip(kernel);
        }
        loop {
            match self.refill(kernel)? {
                Refill::Grown(added) => {
                    self.heat(added, now, pace);
                    if self.streak >= HOT_AFTER && self.notice == Notice::Watch {
                        kernel.set_armed(&self.file, key, false)?;
                        self.notice = Notice::Timer;
                    }
                    return Ok(());
                }
                Refill::Truncated => return Ok(()),
                Refill::Unchanged if self.notice == Notice::Timer => self.arm(kernel, key)?,
                Refill::Unchanged => return Ok(()),
            }
        }
    }

    /// Checks the file, whatever the tails do, and returns its size. Waiting tails are notified of
    /// what it finds.
    pub(crate) fn size_now<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<u64> {
        loop {
            if self.refill(kernel)? == Refill::Truncated {
                // The current content of the file has not been read yet.
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

    /// Makes the watch, disarmed, so that a reached limit on watches is an error of the caller.
    pub(crate) fn watch<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        key: Key,
    ) -> io::Result<()> {
        if !self.watched {
            kernel.set_armed(&self.file, key, false)?;
            self.watched = true;
        }
        Ok(())
    }

    /// Reads up to the end that the file has now, whatever the tails do, and says where that is.
    fn fix_end<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<u64> {
        loop {
            let size = self.size_now(kernel)?;
            if self.more {
                // A tail that is so far behind reads from the file itself.
                if !self.move_to(kernel, size)? {
                    continue;
                }
                self.more = false;
            } else if !self.is_intact(kernel)? {
                // That size was of another content already, which might never be checked again.
                self.truncated();
                continue;
            }
            self.published.set_final_end(self.window.end());
            self.add_news(News::Some);
            return Ok(self.window.end());
        }
    }

    /// Goes on to the end that the file has now, because nobody waits for what is in between: it
    /// may be a hole of any size. A tail that is there reads from the file itself.
    #[cold]
    fn skip<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<()> {
        let size = kernel.size(&self.file)?;
        if self.move_to(kernel, size)? {
            self.publish_end();
            self.add_news(News::Some);
        } else {
            self.truncated();
        }
        Ok(())
    }

    /// Moves the window to the end of the log, which has this size. It stays where it is, and the
    /// answer is `false`, if the log is not the one that it knows.
    fn move_to<K: Kernel<File = F>>(&mut self, kernel: &mut K, size: u64) -> io::Result<bool> {
        let mut window = self.window.moved_to(size);
        let refill = window.refill(|buffer, offset| kernel.read_at(&self.file, buffer, offset))?;
        // The old window's bytes are compared last: what was read before is of the same content.
        if refill == Refill::Truncated || !self.is_intact(kernel)? {
            return Ok(false);
        }
        // What comes after the size was looked up is noticed as any growth is.
        self.more = window.end() != size
            && matches!(refill, Refill::Grown(added) if window.is_full_refill(added));
        self.window = window;
        Ok(true)
    }

    /// Fills the buffer from the file itself, for a tail that is behind the window and whose last
    /// bytes have this mark. Says whether the bytes are those of the content that the tail and the
    /// window know; if not, they were there once, and the truncation is noted.
    ///
    /// Both are compared, because what the log is now may be the same in either place.
    pub(crate) fn read_behind<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        mark: Option<&Mark>,
        buffer: &mut [u8],
        offset: u64,
    ) -> io::Result<bool> {
        let length = kernel.read_at(&self.file, buffer, offset)?;
        let mut good = length == buffer.len() && self.is_intact(kernel)?;
        if good && let Some(mark) = mark {
            good = mark.holds(|buffer, offset| kernel.read_at(&self.file, buffer, offset))?;
        }
        if !good {
            self.truncated();
        }
        Ok(good)
    }

    /// Notes a truncation, if the file does not hold any more what the window does. For what was
    /// just read elsewhere.
    pub(crate) fn check<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<()> {
        if !self.is_intact(kernel)? {
            self.truncated();
        }
        Ok(())
    }

    /// Whether the file still holds what the window does, so that what was just read elsewhere
    /// belongs with it.
    fn is_intact<K: Kernel<File = F>>(&self, kernel: &mut K) -> io::Result<bool> {
        self.window.mark().holds(|buffer, offset| kernel.read_at(&self.file, buffer, offset))
    }

    /// The file does not hold any more what it held: everything starts anew at its first byte.
    fn truncated(&mut self) {
        self.published.add_truncation();
        self.window.restart(0);
        // The current content has not been read, and there may be no event for it.
        self.more = true;
        self.add_news(News::CaughtUp);
    }

    /// The kernel has removed the watch.
    pub(crate) fn watch_lost(&mut self) {
        self.watched = false;
        if self.notice == Notice::Watch {
            self.notice = Notice::None;
        }
    }

    fn arm<K: Kernel<File = F>>(&mut self, kernel: &mut K, key: Key) -> io::Result<()> {
        kernel.set_armed(&self.file, key, true)?;
        self.watched = true;
        self.notice = Notice::Watch;
        self.streak = 0;
        Ok(())
    }

    fn refill<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<Refill> {
        let (file, window) = (&self.file, &mut self.window);
        let mut refill = window.refill(|buffer, offset| kernel.read_at(file, buffer, offset))?;
        // An armed watch that has nothing to report says, for half the price, that the log was not
        // truncated during the read.
        if let Refill::Grown(added) = refill
            && (self.notice != Notice::Watch || kernel.has_reports())
            && !window.confirm(added, |buffer, offset| kernel.read_at(file, buffer, offset))?
        {
            refill = Refill::Truncated;
        }
        match refill {
            Refill::Grown(added) => {
                self.publish_end();
                self.more = self.window.is_full_refill(added);
                self.add_news(News::CaughtUp);
            }
            Refill::Truncated => self.truncated(),
            Refill::Unchanged => {
                self.publish_end();
                self.more = false;
            }
        }
        Ok(refill)
    }

    fn publish_end(&self) {
        let end = self.window.end();
        if end < self.published.end() {
            // It was truncated while nobody read it, so that the window could not notice.
            self.published.add_truncation();
        }
        self.published.set_end(end);
    }

    /// Notes a growth: whether it was quick decides whether the log is hot.
    fn heat(&mut self, added: usize, now: Instant, pace: Duration) {
        let soon = self.quick_until.is_some_and(|until| now < until);
        if added >= 2 * QUICK_BYTES && (added >= MANY_BYTES || !soon) {
            self.heat_by_amount(added, soon, now, pace);
        } else {
            self.streak = if soon { self.streak.saturating_add(1) } else { 0 };
        }
        self.quick_until = now.checked_add(pace);
    }

    /// As [`heat`](Self::heat), for a growth that may be many writes, which a host that was busy
    /// finds all at once: late or not, it is quick if the log grew fast enough.
    #[inline(never)]
    fn heat_by_amount(&mut self, added: usize, soon: bool, now: Instant, pace: Duration) {
        let paces = u32::try_from(added / QUICK_BYTES).unwrap_or(u32::MAX);
        let quick = soon
            || self.quick_until.is_some_and(|until| {
                now.saturating_duration_since(until) < pace.saturating_mul(paces - 1)
            });
        // There is more than one turn reads, so that the rate is not known.
        let quick = quick || self.window.is_full_refill(added) && !pace.is_zero();
        self.streak = if quick { self.streak.saturating_add(1 + added / MANY_BYTES) } else { 0 };
    }
}
