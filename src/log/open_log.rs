//! Owns [`OpenLog`]: one log while somebody reads it, or while it is kept short: the open file, its
//! window, and how its growth is noticed for the tails that wait.
//!
//! Invariants: bytes before the window's end are known to have been in the file, and those by which
//! it is known again are still there. A watch is armed only while a tail waits or a log is kept
//! short, or until the next event shows that neither is so. A tail waits only if a visit, a watch
//! or the pace timer will serve it. Knows nothing of what a tail is but its key.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::id::Key;
use crate::log::heat::Heat;
use crate::log::kernel::Kernel;
use crate::log::published::Published;
use crate::log::retention::{Retention, zeros};
use crate::log::waiting::{Waiting, WaitingTails};
use crate::log::window::{Mark, OVERLAP, Refill, Window};

/// How often it is tried to find where a content begins. A job that changes its log all the time
/// may be in the way; then what is there is taken for its beginning, and the next look finds out.
const BEGINNINGS: u32 = 16;

/// How the growth of a log is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    /// Not at all: nobody waits, or a visit is due.
    None,
    /// By the armed watch.
    Watch,
    /// By the pace timer, while the log is hot.
    Timer,
    /// By a slower timer, while the log grows, is to be kept short, and nobody waits.
    Slow,
    /// By the armed watch, while it does not grow. What the log was when that was armed was only
    /// measured, which will not do for a tail.
    Idle,
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
    /// A visit at the end of the slow pace.
    Slow,
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

/// A log that has tails, or is kept short.
#[derive(Debug)]
pub(crate) struct OpenLog<F> {
    file: Arc<F>,
    published: Arc<Published<F>>,
    window: Window,
    waiting: WaitingTails,
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
    heat: Heat,
    /// The log is read no further than this, whatever the file has.
    cap: u64,
    /// What is given back of the log, if it is kept short.
    retention: Option<Box<Retention<F>>>,
    /// Nothing behind this offset was given back of the file, whatever content it has had since.
    hole: u64,
    /// What was given back before this offset may have been a part of another content than the
    /// window's, of which then nothing before it counts as kept.
    unproven: u64,
    /// Where the content begins has to be found before any of it is read, and what lies before this
    /// offset is not kept in any case.
    begins_from: Option<u64>,
}

impl<F> OpenLog<F> {
    /// A log of `size` bytes, none of them read, without tails. It is read no further than `cap`.
    pub(crate) fn new(
        file: Arc<F>,
        published: Arc<Published<F>>,
        size: u64,
        cap: u64,
        window_bytes: usize,
    ) -> Self {
        Self {
            hole: published.start(),
            unproven: 0,
            begins_from: None,
            file,
            published,
            window: Window::new(size, window_bytes),
            waiting: WaitingTails::new(),
            tails: 0,
            subscribed: Vec::new(),
            fault: None,
            news: News::None,
            watched: false,
            notice: Notice::None,
            more: false,
            heat: Heat::default(),
            cap,
            retention: None,
        }
    }

    /// Keeps the log short from now on. A visit has to follow.
    pub(crate) fn set_retention(&mut self, retention: Retention<F>) {
        self.published.set_gives_back();
        self.retention = Some(Box::new(retention));
    }

    /// It is read no further than this.
    pub(crate) fn set_cap(&mut self, cap: u64) {
        self.cap = cap;
    }

    /// Gives back a piece of what is too much at once.
    pub(crate) fn shorten<K: Kernel<File = F>>(&mut self, kernel: &mut K) {
        self.keep_short(kernel);
        // Whoever waits has to hear of it.
        self.add_news(News::Some);
    }

    /// Does not keep it short any more.
    pub(crate) fn drop_retention(&mut self) {
        self.retention = None;
    }

    /// What could not be given back, and why, if that was not asked before.
    pub(crate) fn take_problem(&mut self) -> Option<io::Error> {
        self.retention.as_mut()?.take_problem()
    }

    /// Whether the log has become longer than its limit, once.
    pub(crate) fn take_exceeded(&mut self) -> bool {
        self.retention.as_mut().is_some_and(|retention| retention.take_exceeded())
    }

    /// How many bytes beyond its limit were discarded.
    pub(crate) fn beyond(&self) -> u64 {
        self.retention.as_ref().map_or(0, |retention| retention.beyond())
    }

    /// How long the log was when it was looked at last.
    pub(crate) fn last_size(&self) -> u64 {
        let seen = self.retention.as_ref().map_or(0, |retention| retention.seen());
        seen.min(self.cap).max(self.window.end())
    }

    pub(crate) fn file(&self) -> &Arc<F> {
        &self.file
    }

    pub(crate) fn published(&self) -> &Published<F> {
        &self.published
    }

    /// What is known of it, to be shared.
    pub(crate) fn shared(&self) -> &Arc<Published<F>> {
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

    /// Whether it has to stay open: it has tails, or is kept short.
    pub(crate) fn is_used(&self) -> bool {
        self.has_tails() || self.retention.is_some()
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

    /// The tails that wait.
    #[inline]
    pub(crate) fn waiting(&mut self) -> &mut WaitingTails {
        &mut self.waiting
    }

    /// Whether a tail that waits there still does, or was notified meanwhile.
    pub(crate) fn is_waiting(&self, waiting: Waiting) -> bool {
        self.waiting.has(waiting)
    }

    /// Lets a tail wait, which has read up to `offset`.
    pub(crate) fn add_waiting(&mut self, tail: Key, offset: u64, apart: bool) -> Waiting {
        let end = self.published.end();
        if apart || offset != end {
            self.waiting.add_apart(tail, offset > end)
        } else {
            self.waiting.add_caught_up(tail)
        }
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
        if let Some(retention) = &self.retention
            && let Some(need) = self.need_to_keep_short(retention)
        {
            return need;
        }
        match self.notice {
            // The next read returns the fault, and a visit clears it.
            _ if self.fault.is_some() || self.waiting.is_empty() => Need::Nothing,
            _ if self.more => Need::Visit,
            Notice::None | Notice::Slow | Notice::Idle => Need::Visit,
            Notice::Watch => Need::Nothing,
            Notice::Timer => Need::Pace,
        }
    }

    /// What the log needs besides, to be kept short; `None` when what the tails rely on will do.
    fn need_to_keep_short(&self, retention: &Retention<F>) -> Option<Need> {
        let left = retention.left(self.published.start()).is_some();
        if (left || retention.to_discard().is_some()) && !retention.has_failed() {
            return Some(Need::Visit);
        }
        if self.fault.is_none() && !self.waiting.is_empty() {
            let full = self.notice == Notice::Slow
                && retention.is_beyond_cap()
                && self.window.end() >= self.cap;
            // What has failed is tried again, even if no tail needs a visit.
            let again = retention.has_failed() && self.notice == Notice::Watch && !self.more;
            return (full || again).then_some(Need::Slow);
        }
        match self.notice {
            _ if retention.has_failed() => Some(Need::Slow),
            _ if self.fault.is_some() => Some(Need::Slow),
            Notice::Watch | Notice::Idle => Some(Need::Nothing),
            Notice::Timer => Some(Need::Pace),
            Notice::Slow => Some(Need::Slow),
            Notice::None => Some(Need::Visit),
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
        if self.retention.is_some() {
            return self.visit_to_keep_short(kernel, key, now, pace);
        }
        if let Err(error) = self.reconcile(kernel, key, now, pace) {
            self.fail(&error);
        }
    }

    /// As [`visit`](Self::visit), of a log that is kept short.
    #[cold]
    fn visit_to_keep_short<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        key: Key,
        now: Instant,
        pace: Duration,
    ) {
        if self.waiting.is_empty() {
            return self.survey(kernel, key);
        }
        let before = self.window.end();
        if let Err(error) = self.reconcile(kernel, key, now, pace) {
            self.fail(&error);
        }
        let (start, end) = (self.published.start(), self.window.end());
        let due = |retention: &Retention<F>| {
            retention.left(start).is_some()
                || retention.is_exceeded(start, end)
                || retention.is_news(end)
                || retention.to_discard().is_some()
        };
        // Without growth it may have been written anew, or where nothing was left of it.
        if !self.more && end != before && !self.retention.as_deref().is_some_and(due) {
            return;
        }
        let changed = self.keep_short(kernel);
        let beyond = self.retention.as_ref().is_some_and(|retention| retention.is_beyond_cap());
        if changed && beyond && self.window.end() >= self.cap {
            // The tails get nothing of this, and the watch makes each write slower. It stays armed
            // if this fails, which does no harm.
            let _ = kernel.set_armed(&self.file, key, false);
            self.notice = Notice::Slow;
        }
    }

    /// Keeps a log short that nobody waits for: while it grows, by looking at it now and then,
    /// which costs its writer nothing.
    fn survey<K: Kernel<File = F>>(&mut self, kernel: &mut K, key: Key) {
        let event = matches!(self.notice, Notice::Watch | Notice::Idle);
        let changed = self.keep_short(kernel);
        self.notice = Notice::Slow;
        if event {
            // The watch makes each write slower. It stays armed if this fails, which does no harm.
            let _ = kernel.set_armed(&self.file, key, false);
            return;
        }
        if changed {
            return;
        }
        // Arm the watch, check the size, then sleep. Without a watch, the timer goes on.
        match kernel.set_armed(&self.file, key, true) {
            Ok(()) if !self.keep_short(kernel) => {
                self.watched = true;
                self.notice = Notice::Idle;
            }
            Ok(()) => {
                self.watched = true;
                let _ = kernel.set_armed(&self.file, key, false);
            }
            Err(error) => self.tried(Err(error)),
        }
    }

    /// Gives back what is too much, a bounded piece of it, and says whether the log has changed
    /// since it was looked at last.
    fn keep_short<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> bool {
        let (mut changed, truncations) = (false, self.published.truncations());
        let tried = self.try_to_keep_short(kernel, &mut changed);
        self.tried(tried);
        // One that was written anew may be as long as before.
        changed || self.published.truncations() != truncations
    }

    fn tried(&mut self, tried: io::Result<()>) {
        if let Some(retention) = &mut self.retention {
            retention.tried(tried);
        }
    }

    fn try_to_keep_short<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        changed: &mut bool,
    ) -> io::Result<()> {
        self.begin(kernel)?;
        let found = kernel.measure(&self.file)?;
        let Some(retention) = &mut self.retention else { return Ok(()) };
        *changed = retention.see(found, self.published.start());
        // What the job has written since it has finished is not its output.
        let size = found.size.min(self.cap);
        if size < self.window.end() {
            self.truncated();
            return Ok(());
        }
        let size = self.published.final_end_now().unwrap_or(size);
        if let Some(start) = retention.next_start(self.published.start(), size) {
            // Whatever becomes a hole, what proves that the log is the same does not.
            let hole =
                self.retention.as_ref().map_or(start, |retention| retention.end_of_hole(start));
            let same = match hole > self.window.mark().offset() {
                true => self.skip_to(kernel, size)?,
                false => self.is_intact(kernel)?,
            };
            if !same {
                self.truncated();
                return Ok(());
            }
            self.published.set_start(start);
        }
        self.give_back(kernel)?;
        self.discard(kernel)
    }

    /// Gives back a piece of what lies behind the limit, whatever content that is of.
    fn discard<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<()> {
        let Some(retention) = &mut self.retention else { return Ok(()) };
        let Some((from, to)) = retention.to_discard() else { return Ok(()) };
        let file = Arc::clone(retention.file());
        let data = kernel.data_from(&file, from)?;
        if data >= to {
            retention.has_discarded(to, false);
            return Ok(());
        }
        let (from, to) = Retention::<F>::piece(data, to);
        kernel.punch(&file, from, to)?;
        retention.has_discarded(to, true);
        Ok(())
    }

    /// Gives back a piece of what lies before the start.
    fn give_back<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<()> {
        let start = self.published.start();
        let Some(retention) = &self.retention else { return Ok(()) };
        let Some(from) = retention.left(start) else { return Ok(()) };
        let start = retention.end_of_hole(start);
        let file = Arc::clone(retention.file());
        let data = kernel.data_from(&file, from)?;
        // What was found is that of the log that it knows.
        if !self.is_intact(kernel)? {
            self.truncated();
            return Ok(());
        }
        let mut to = start;
        if data < start {
            let piece = Retention::<F>::piece(data, start);
            to = piece.1;
            (self.hole, self.unproven) = (self.hole.max(to), to);
            kernel.punch(&file, piece.0, to)?;
            if !self.is_intact(kernel)? {
                self.truncated();
                return Ok(());
            }
            self.unproven = 0;
        }
        if let Some(retention) = &mut self.retention {
            retention.has_given_back(to, data < start);
        }
        Ok(())
    }

    /// Goes to the end that the file has now, if it has no tails: the first one reads what comes
    /// before from the file itself. Without effect on a log that is not kept short, which begins
    /// there when it is opened.
    pub(crate) fn catch_up<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<()> {
        if self.has_tails() || self.retention.is_none() {
            return Ok(());
        }
        let size = self.size_of(kernel)?;
        if size < self.window.end() || !self.skip_to(kernel, size)? {
            self.truncated();
        }
        Ok(())
    }

    /// Goes to the end that the file has now without reading what comes before. The answer is
    /// `false`, and nothing has changed, if the log is not the one that it knows.
    fn skip_to<K: Kernel<File = F>>(&mut self, kernel: &mut K, size: u64) -> io::Result<bool> {
        let from = size.saturating_sub(OVERLAP as u64);
        let mut last = [0; OVERLAP];
        let last = &mut last[..usize::try_from(size - from).unwrap_or(OVERLAP)];
        let read = read_to(kernel, &self.file, self.cap, last, from)?;
        // The old bytes are compared last: what was read before is of the same content.
        if read < last.len() || !self.is_intact(kernel)? {
            return Ok(false);
        }
        self.window.skip_to(&Mark::of_last(last, from));
        self.more = false;
        self.publish_end();
        self.add_news(News::Some);
        Ok(true)
    }

    /// Fixes where the job's output ends: at the end that the file has now. A failure becomes the
    /// fault of the log, success ends it.
    pub(crate) fn finish<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<u64> {
        self.fault = None;
        let end = self.fix_end(kernel);
        if let Err(error) = &end {
            self.fail(error);
        }
        self.end_retention(kernel);
        end
    }

    /// Nothing is written any more that is to be kept short.
    pub(crate) fn end_retention<K: Kernel<File = F>>(&mut self, kernel: &mut K) {
        if let Some(retention) = &mut self.retention {
            retention.end();
            self.keep_short(kernel);
        }
    }

    /// Whether it need not be looked after any more although its job has not finished.
    pub(crate) fn is_done(&self) -> bool {
        self.retention.as_ref().is_some_and(|retention| retention.is_done())
    }

    /// Whether it is still kept short although its job has finished.
    pub(crate) fn has_ended_retention(&self) -> bool {
        self.retention.as_ref().is_some_and(|retention| retention.has_ended())
    }

    /// Whether everything is given back that is not to be kept, of a log that has its end.
    pub(crate) fn is_kept_short(&self) -> bool {
        let start = self.published.start();
        self.retention.as_ref().is_none_or(|retention| {
            let left = retention.left(start).is_some() || retention.to_discard().is_some();
            retention.has_ended() && (!left || retention.has_failed())
        })
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
        if self.waiting.is_empty() {
            // Disarmed only now, by the event that nobody waited for: a reader that keeps up never
            // pays for a change.
            if self.notice == Notice::Watch {
                kernel.set_armed(&self.file, key, false)?;
            }
            self.notice = Notice::None;
            return Ok(());
        }
        // Arm the watch, check the size, then sleep: the other order loses a write in between.
        if matches!(self.notice, Notice::None | Notice::Slow | Notice::Idle) {
            self.arm(kernel, key)?;
        }
        if self.more && self.waiting.are_ahead() {
            return self.skip(kernel);
        }
        loop {
            match self.refill(kernel)? {
                Refill::Grown(added) => {
                    self.heat.note(added, self.window.is_full_refill(added), now, pace);
                    if self.heat.is_hot() && self.notice == Notice::Watch {
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
            let size = self.size_of(kernel)?;
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
        while !self.has_tails() {
            // Nobody has read it: its end is enough.
            let size = self.size_of(kernel)?;
            if size >= self.window.end() && self.skip_to(kernel, size)? {
                self.published.set_final_end(size);
                return Ok(size);
            }
            self.truncated();
        }
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
        let size = self.size_of(kernel)?;
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
        let refill = window
            .refill(|buffer, offset| read_to(kernel, &self.file, self.cap, buffer, offset))?;
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
        let length = read_to(kernel, &self.file, self.cap, buffer, offset)?;
        let mut good = length == buffer.len() && self.is_intact(kernel)?;
        // A mark that may be in a hole proves nothing.
        let start = self.published.start();
        if good && let Some(mark) = mark.filter(|mark| mark.offset() >= start) {
            good =
                mark.holds(|buffer, offset| read_to(kernel, &self.file, self.cap, buffer, offset))?;
        }
        if !good {
            self.truncated();
        }
        Ok(good)
    }

    /// Whether the window's bytes from an offset on are of the content of which somebody has read
    /// these bytes last: the file still has both. If it does not have the window's, that is a
    /// truncation.
    pub(crate) fn joins<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        last: &Mark,
        offset: u64,
    ) -> io::Result<bool> {
        let last = last.from(self.published.start());
        let next = Mark::of_first(self.window.from(offset).unwrap_or_default(), offset);
        let mut holds = |mark: &Mark| {
            mark.holds(|buffer, offset| read_to(kernel, &self.file, self.cap, buffer, offset))
        };
        let (read, agrees) = (holds(&last)?, self.window.agrees(&last));
        // What the file has is not what the window has.
        let outdated = !holds(&next)? || read && !agrees;
        if outdated {
            self.truncated();
        }
        Ok(read && !outdated)
    }

    /// Whether the log has these bytes, as far as they were kept: then it goes on behind them for
    /// whoever has read them last.
    pub(crate) fn has_read<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        last: &Mark,
    ) -> io::Result<bool> {
        let kept = last.from(self.published.start());
        let size = self.size_of(kernel)?;
        let holds =
            kept.holds(|buffer, offset| read_to(kernel, &self.file, self.cap, buffer, offset))?;
        let truncations = self.published.truncations();
        self.check(kernel)?;
        Ok(holds && last.end() <= size && self.published.truncations() == truncations)
    }

    /// The last bytes before an offset, up to which somebody has read the log; `None` if it was
    /// truncated, which is noted.
    pub(crate) fn last_before<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        offset: u64,
    ) -> io::Result<Option<Mark>> {
        let from = offset.saturating_sub(OVERLAP as u64).max(self.published.start()).min(offset);
        let mut last = [0; OVERLAP];
        let last = &mut last[..usize::try_from(offset - from).unwrap_or(OVERLAP)];
        let read = read_to(kernel, &self.file, self.cap, last, from)?;
        let truncations = self.published.truncations();
        self.check(kernel)?;
        let same = read == last.len() && self.published.truncations() == truncations;
        Ok(same.then(|| Mark::of_last(last, from)))
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
        self.window
            .mark()
            .holds(|buffer, offset| read_to(kernel, &self.file, self.cap, buffer, offset))
    }

    /// The file does not hold any more what it held: everything starts anew at its first byte, or
    /// behind what is left of a hole, if the job has only made it shorter.
    fn truncated(&mut self) {
        self.published.add_truncation();
        self.window.restart(0);
        self.begins_from = (self.hole > 0).then_some(self.unproven);
        self.unproven = 0;
        if let Some(retention) = &mut self.retention {
            retention.restart();
        }
        // The current content has not been read, and there may be no event for it.
        self.more = true;
        self.add_news(News::CaughtUp);
    }

    /// Finds out where the content begins, if that is to be done, and lets the window begin there:
    /// until then nothing of it is published.
    fn begin<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<()> {
        let mut tries = 0;
        while let Some(least) = self.begins_from {
            tries += 1;
            self.begin_behind(kernel, least, tries == BEGINNINGS)?;
        }
        Ok(())
    }

    /// As [`begin`](Self::begin), unless the file changes meanwhile; but in any case, if this is to
    /// be the `last` try.
    #[cold]
    fn begin_behind<K: Kernel<File = F>>(
        &mut self,
        kernel: &mut K,
        least: u64,
        last_try: bool,
    ) -> io::Result<()> {
        let size = kernel.size(&self.file)?.min(self.cap);
        let mut start = kernel.data_from(&self.file, 0)?;
        if (1..self.hole).contains(&start) {
            start += zeros(|buffer| kernel.read_at(&self.file, buffer, start))?;
        }
        let start = start.min(self.hole).max(least).min(size);
        let from = start.saturating_sub(OVERLAP as u64);
        let mut last = [0; OVERLAP];
        let last = &mut last[..usize::try_from(start - from).unwrap_or(OVERLAP)];
        let read = read_to(kernel, &self.file, self.cap, last, from)?;
        // Before the first byte there is a hole, and if not, the file is another one already.
        let last = &last[..read];
        let same = from + read as u64 == start && (least > 0 || last.iter().all(|byte| *byte == 0));
        if same || last_try {
            self.published.set_start(start);
            self.window.skip_to(&Mark::of_last(last, from));
            (self.hole, self.begins_from) = (start, None);
            self.publish_end();
            self.add_news(News::CaughtUp);
        }
        Ok(())
    }

    /// Whether tails wait for nothing but more of it, and no visit has failed.
    pub(crate) fn awaits_growth(&self) -> bool {
        self.notice == Notice::Watch && !self.waiting.is_empty() && self.fault.is_none()
    }

    /// The kernel has removed the watch.
    pub(crate) fn watch_lost(&mut self) {
        self.watched = false;
        if matches!(self.notice, Notice::Watch | Notice::Idle) {
            self.notice = Notice::None;
        }
    }

    fn arm<K: Kernel<File = F>>(&mut self, kernel: &mut K, key: Key) -> io::Result<()> {
        kernel.set_armed(&self.file, key, true)?;
        self.watched = true;
        self.notice = Notice::Watch;
        self.heat.cool();
        Ok(())
    }

    fn refill<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<Refill> {
        self.begin(kernel)?;
        let (file, cap, window) = (&self.file, self.cap, &mut self.window);
        let mut refill =
            window.refill(|buffer, offset| read_to(kernel, file, cap, buffer, offset))?;
        // An armed watch that has nothing to report says, for half the price, that the log was not
        // truncated during the read.
        if let Refill::Grown(added) = refill
            && (self.notice != Notice::Watch || kernel.has_reports())
            && !window
                .confirm(added, |buffer, offset| read_to(kernel, file, cap, buffer, offset))?
        {
            refill = Refill::Truncated;
        }
        // It was made shorter while it was closed: what is left of its hole has to be found.
        if self.hole > 0 && self.window.end() < self.published.end() {
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

    /// How much of the file is read.
    fn size_of<K: Kernel<File = F>>(&mut self, kernel: &mut K) -> io::Result<u64> {
        self.begin(kernel)?;
        Ok(kernel.size(&self.file)?.min(self.cap))
    }

    fn publish_end(&self) {
        let end = self.window.end();
        if end < self.published.end() {
            // It was truncated while nobody read it, so that the window could not notice.
            self.published.add_truncation();
        }
        self.published.set_end(end);
    }
}

/// Reads at an offset, as if the file ended at `cap` at the latest.
#[inline]
fn read_to<K: Kernel>(
    kernel: &mut K,
    file: &K::File,
    cap: u64,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let left = usize::try_from(cap.saturating_sub(offset)).unwrap_or(usize::MAX);
    if left >= buffer.len() {
        return kernel.read_at(file, buffer, offset);
    }
    if left == 0 { Ok(0) } else { kernel.read_at(file, &mut buffer[..left], offset) }
}
