//! Owns [`Retention`]: which bytes of a log are to be given back to the file system, how far that
//! has come, and whether the log has become too long.
//!
//! Invariant: what is given back lies before the start that was published, and at least the bytes
//! that are to be kept lie behind that; or it lies behind the limit, up to which the log is read.
//! Pure, but for the file that it holds; knows nothing of how
//! a log is read.

use std::io;
use std::sync::Arc;

use crate::log::kernel::Measured;
use crate::log::window::OVERLAP;

/// The least that can be kept, so that the bytes by which a log is known again are among them.
const LEAST: u64 = 64 * 1024;

/// How much is given back at a time, at least and at most: few calls for a fast writer, and little
/// overshoot for a large log.
const STEPS: (u64, u64) = (64 * 1024, 4 << 20);

/// The blocks at both ends of a log, and what the file system takes to find its blocks.
const SLACK: u64 = 64 * 1024;

/// How many bytes one call gives back. Some file systems first write out what was not written yet.
const PIECE: u64 = 16 << 20;

/// What file systems give back at once is a number of these: the size of a page.
const BLOCK: u64 = 4096;

/// How many NULs there are before the first byte behind a hole, which ends at a block: the rest of
/// what was given back, or of what the log was made shorter to. Those that the job has written
/// there count as given back, too.
pub(crate) fn zeros(read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<u64> {
    let mut block = [0; 4096];
    let length = read(&mut block)?;
    let found = block.get(..length).unwrap_or(&block);
    Ok(found.iter().take_while(|byte| **byte == 0).count() as u64)
}

/// How much of a log is kept, and how long it may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// So many of the newest bytes.
    keep: u64,
    /// More than that is reported.
    limit: u64,
    /// It is read no further than this.
    cap: u64,
    /// What comes beyond that is given back.
    discard: bool,
    /// The log is looked at even if there is nothing to be done about it.
    counted: bool,
    /// So many of the bytes that are given back stay all the same.
    hidden: u64,
    step: u64,
    /// How much more than its length a log may take of the file system.
    slack: u64,
    block: u64,
}

impl Rules {
    /// Keeps the newest `keep` bytes of a log that may have `limit` bytes, and if it has more,
    /// perhaps discards them; `None` when there is nothing to look after.
    /// With `counted` there always is: how long the log is.
    pub(crate) fn new(
        keep: Option<u64>,
        limit: Option<u64>,
        discard: bool,
        counted: bool,
    ) -> Option<Self> {
        let least = keep.into_iter().chain(limit).chain(counted.then_some(u64::MAX)).min()?;
        let keep = keep.map_or(u64::MAX, |keep| keep.max(LEAST));
        let (limit, step) = (limit.unwrap_or(u64::MAX), (least / 8).clamp(STEPS.0, STEPS.1));
        let cap = if discard { limit } else { u64::MAX };
        let (slack, block) = (SLACK, BLOCK);
        Some(Self { keep, limit, cap, discard, counted, hidden: 0, step, slack, block })
    }

    /// As [`new`](Self::new), for short logs.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn simulated(keep: u64, limit: Option<u64>, discard: bool, step: u64) -> Self {
        let limit = limit.unwrap_or(u64::MAX);
        let cap = if discard { limit } else { u64::MAX };
        let (slack, block) = (0, 1);
        Self { keep, limit, cap, discard, counted: false, hidden: 0, step, slack, block }
    }

    /// Gives nothing back, and lets nobody read more than this.
    pub(crate) fn read_up_to(cap: u64) -> Self {
        Self { keep: u64::MAX, hidden: 0, cap, step: STEPS.0, ..Self::nothing() }
    }

    /// Keeps nothing but the bytes by which a log is known again, of which nobody hears.
    pub(crate) fn nothing() -> Self {
        Self {
            keep: 0,
            limit: u64::MAX,
            cap: u64::MAX,
            discard: false,
            counted: false,
            hidden: OVERLAP as u64,
            step: 1,
            slack: u64::MAX,
            block: BLOCK,
        }
    }

    /// Whether so little is left of a log that was given back up to `start`: what is kept, and a
    /// part of a block.
    pub(crate) fn is_met(&self, start: u64, end: u64) -> bool {
        let most = self.keep.saturating_add(self.hidden).saturating_add(self.block);
        start > 0 && end.saturating_sub(start) < most
    }

    /// Whether the file system has to give back parts of the log.
    pub(crate) fn gives_back(&self) -> bool {
        self.discard || self.keep < u64::MAX
    }

    /// Whether the file system may have to at some time.
    pub(crate) fn may_give_back(&self) -> bool {
        self.gives_back() || self.counted
    }

    /// How far the log is read at most.
    pub(crate) fn cap(&self) -> u64 {
        self.cap
    }
}

/// What is to be given back of a log.
#[derive(Debug)]
pub(crate) struct Retention<F> {
    /// The log, open for writing.
    file: Arc<F>,
    rules: Rules,
    /// Everything before this offset was given back.
    given_back: u64,
    /// Everything from the limit to this offset was discarded.
    discarded: u64,
    /// The log was longer than its limit.
    exceeded: bool,
    /// That was reported.
    told: bool,
    /// What the last look has found.
    seen: Measured,
    /// The last attempt has failed: the next one has time.
    failed: bool,
    /// Why an attempt has failed, for the report.
    problem: Option<io::Error>,
    /// Nothing is written any more.
    ended: bool,
}

impl<F> Retention<F> {
    /// For a log that is open for writing as `file`.
    pub(crate) fn new(file: Arc<F>, rules: Rules) -> Self {
        Self {
            file,
            rules,
            given_back: 0,
            discarded: 0,
            exceeded: false,
            told: false,
            seen: Measured::default(),
            failed: false,
            problem: None,
            ended: false,
        }
    }

    /// For a log that has its end, and of which nothing is kept.
    pub(crate) fn of_nothing(file: Arc<F>) -> Self {
        Self { ended: true, ..Self::new(file, Rules::nothing()) }
    }

    /// The log, open for writing.
    pub(crate) fn file(&self) -> &Arc<F> {
        &self.file
    }

    /// The log was measured. Says whether anything has changed since the last time.
    pub(crate) fn see(&mut self, found: Measured, start: u64) -> bool {
        let changed = self.seen != found;
        self.seen = found;
        self.exceeded |= found.size > self.rules.limit;
        // The job may write again where everything was given back, without making the log longer.
        let length = found.size.min(self.rules.cap()).saturating_sub(start);
        let most = length.saturating_add(2 * self.rules.step).saturating_add(self.rules.slack);
        if changed && self.rules.gives_back() && found.allocated > most {
            (self.given_back, self.discarded) = (0, 0);
        }
        changed
    }

    /// How far the log is read at most.
    pub(crate) fn cap(&self) -> u64 {
        self.rules.cap()
    }

    /// Whether the log has more than is read of it.
    pub(crate) fn is_beyond_cap(&self) -> bool {
        self.seen.size > self.rules.cap()
    }

    /// Whether a log that is read up to here is longer than its limit, which is not known yet, or
    /// may be, by an unknown number of bytes.
    pub(crate) fn is_news(&self, end: u64) -> bool {
        !self.exceeded && end > self.rules.limit || end >= self.rules.cap()
    }

    /// Whether the log has become longer than its limit, once.
    pub(crate) fn take_exceeded(&mut self) -> bool {
        self.exceeded && !std::mem::replace(&mut self.told, true)
    }

    /// How many bytes behind the limit there were when the log was looked at last, if those are
    /// discarded.
    pub(crate) fn beyond(&self) -> u64 {
        self.seen.size.saturating_sub(self.rules.cap())
    }

    /// What is to be discarded.
    pub(crate) fn to_discard(&self) -> Option<(u64, u64)> {
        if !self.rules.discard {
            return None;
        }
        let from = self.rules.cap().checked_next_multiple_of(self.rules.block)?;
        let (from, to) = (from.max(self.discarded), self.seen.size);
        let least = if self.ended { self.rules.block } else { self.rules.step };
        (to.checked_sub(from)? >= least).then_some((from, to))
    }

    /// There is nothing from the limit to this offset, or not any more: `punched`.
    pub(crate) fn has_discarded(&mut self, to: u64, punched: bool) {
        self.discarded = to;
        if punched {
            self.seen.allocated = u64::MAX;
        }
    }

    /// Whether nothing is left to look after: what had to be reported was.
    pub(crate) fn is_done(&self) -> bool {
        self.told && !self.rules.may_give_back()
    }

    /// How long the log was at the last look.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.size
    }

    /// Whether a log that begins at `start` and ends at `end` is longer than it is to be.
    pub(crate) fn is_exceeded(&self, start: u64, end: u64) -> bool {
        let slack = if self.ended { 1 } else { self.rules.step };
        end.saturating_sub(start) >= self.rules.keep.saturating_add(slack)
    }

    /// Where a log that begins at `start` and has `size` bytes is to begin instead.
    pub(crate) fn next_start(&self, start: u64, size: u64) -> Option<u64> {
        self.is_exceeded(start, size).then(|| size - self.rules.keep)
    }

    /// From where on something may be left to be given back, of a log that begins at `start`.
    pub(crate) fn left(&self, start: u64) -> Option<u64> {
        (self.given_back < self.end_of_hole(start)).then_some(self.given_back)
    }

    /// Where the hole of a log that begins at `start` ends.
    pub(crate) fn end_of_hole(&self, start: u64) -> u64 {
        start.saturating_sub(self.rules.hidden)
    }

    /// What to give back at once, from the first byte that the file has there.
    pub(crate) fn piece(data: u64, start: u64) -> (u64, u64) {
        (data, start.min(data.saturating_add(PIECE)))
    }

    /// There is nothing before this offset, or not any more: `punched`. Then the log has to be
    /// measured anew.
    pub(crate) fn has_given_back(&mut self, to: u64, punched: bool) {
        self.given_back = to;
        if punched {
            self.seen.allocated = u64::MAX;
        }
    }

    /// The log is another one, of which nothing was given back.
    pub(crate) fn restart(&mut self) {
        (self.given_back, self.discarded) = (0, 0);
    }

    /// An attempt has failed or not. A failure is kept for the report.
    pub(crate) fn tried(&mut self, tried: io::Result<()>) {
        self.failed = tried.is_err();
        if let Err(problem) = tried {
            self.problem.get_or_insert(problem);
        }
    }

    /// Whether the last attempt has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// What has failed, if it was not taken before.
    pub(crate) fn take_problem(&mut self) -> Option<io::Error> {
        self.problem.take()
    }

    /// Nothing is written any more: what is too much is given back to the last byte.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Whether nothing is written any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retention(keep: u64) -> Retention<()> {
        Retention::new(Arc::new(()), Rules::new(Some(keep), None, false, false).unwrap())
    }

    #[test]
    fn a_log_begins_later_in_steps_and_never_by_too_much() {
        for (keep, step) in [(64 << 20, 4 << 20), (1 << 20, 128 << 10), (0, 64 << 10)] {
            let mut retention = retention(keep);
            let keep = keep.max(64 << 10);
            for size in [0, keep, keep + step - 1] {
                assert_eq!(retention.next_start(0, size), None);
            }
            assert_eq!(retention.next_start(0, keep + step), Some(step));
            assert_eq!(retention.next_start(step, keep + 2 * step - 1), None);
            assert_eq!(retention.next_start(0, 15 << 40), Some((15 << 40) - keep));
            retention.end();
            assert_eq!(retention.next_start(step, keep + step), None);
            assert_eq!(retention.next_start(step, keep + step + 1), Some(step + 1));
        }
        assert_eq!(retention(u64::MAX).next_start(0, 1 << 62), None);
    }

    #[test]
    fn a_limit_is_exceeded_once_and_what_is_beyond_it_is_discarded_in_steps() {
        assert_eq!(Rules::new(None, None, false, false), None);
        assert!(!Rules::new(None, None, false, true).unwrap().gives_back());
        for discard in [false, true] {
            let rules = Rules::new(None, Some((1 << 20) + 1), discard, false).unwrap();
            assert_eq!(rules.gives_back(), discard);
            let mut retention = Retention::new(Arc::new(()), rules);
            let mut grow = |size| {
                retention.see(Measured { size, allocated: 0 }, 0);
                let exceeded = retention.take_exceeded();
                (exceeded, retention.to_discard().map(|(from, to)| (from - (1 << 20), to - from)))
            };
            assert_eq!(grow((1 << 20) + 1), (false, None));
            assert_eq!(grow((1 << 20) + 2), (true, None));
            assert_eq!(grow(2 << 20), (false, discard.then_some((4096, (1 << 20) - 4096))));
            assert_eq!(retention.is_done(), !discard);
            retention.has_discarded((2 << 20) - 7, true);
            assert_eq!(retention.to_discard(), None);
            assert_eq!(retention.beyond(), if discard { (1 << 20) - 1 } else { 0 });
        }
    }

    #[test]
    fn what_is_written_where_everything_was_given_back_is_given_back_again() {
        let mut retention = retention(1 << 20);
        let start = 9 << 20;
        retention.has_given_back(start, true);
        assert_eq!(retention.left(start), None);
        let mut found = Measured { size: 10 << 20, allocated: 1 << 20 };
        assert!(retention.see(found, start) && !retention.see(found, start));
        assert_eq!(retention.left(start), None);
        found.allocated = 3 << 20;
        assert!(retention.see(found, start));
        assert_eq!(retention.left(start), Some(0));
    }
}
