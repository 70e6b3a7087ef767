//! Owns how tails that follow a name go from one file to the next: when a name is looked up, when
//! the file that it leads to supersedes the one before, and where each of them ends.
//!
//! Invariant: a tail leaves a log for the next one only when it has read it to an end that was
//! fixed after the next one had bytes. Knows nothing of how a name is looked up.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use crate::id::{Key, TailId, Token};
use crate::log::end::End;
use crate::log::file_id::FileId;
use crate::log::follower::{Follower, Stretch};
use crate::log::kernel::{Kernel, Seen};
use crate::log::log::Log;
use crate::log::logs::Logs;
use crate::log::options::{Position, TailOptions};
use crate::log::queue::Queue;
use crate::log::tail::{Kind, Until};

/// How many names one turn looks up, at 10 to 20 us each: a queue of events that overflowed makes
/// all of them due.
const LOOKS_PER_TURN: usize = 32;

/// What a tail that has come to the end of a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Onward {
    /// It has ended: it follows no name.
    Ended,
    /// It reports that it is in the next file, with `missed`.
    Replaced(bool),
    /// It goes on without a report.
    Silent,
}

impl<K: Kernel> Logs<K> {
    /// Opens a tail that follows a name, from the file on that it leads to now. If there is none,
    /// it reads the first one that comes, from its first byte.
    pub(crate) fn open_name(
        &mut self,
        kernel: &mut K,
        name: K::Name,
        options: TailOptions,
        token: Token,
        queue: &mut Queue,
    ) -> io::Result<TailId> {
        let key = self.tails.vacant_key();
        let opened = self.open_name_as(key, kernel, name, options, token, queue);
        if opened.is_err() {
            kernel.forget_name(key);
        }
        opened
    }

    /// As [`open_name`](Self::open_name), for the key that the tail will have.
    fn open_name_as(
        &mut self,
        key: Key,
        kernel: &mut K,
        name: K::Name,
        mut options: TailOptions,
        token: Token,
        queue: &mut Queue,
    ) -> io::Result<TailId> {
        let seen = kernel.look_up(&name, key)?;
        let resumed = options.resume.zip(options.position.offset());
        let (file, nowhere) = match seen {
            Some(Seen { file, .. }) if resumed.is_none() => (Arc::new(file), false),
            // Whether the file is the one to go on in is decided by another look, as if the name
            // had just been given to it.
            Some(_) | None => (self.nowhere(kernel)?, true),
        };
        if nowhere {
            options.position = Position::Start;
        }
        let log = self.open_log_of(kernel, file)?;
        let (file, identity) =
            (Arc::clone(self.logs[log].opened().file()), self.logs[log].identity());
        let tail = self.subscribe(kernel, log, options, Kind::OfName, token, queue)?;
        debug_assert_eq!(tail.0, key, "the name is followed for another tail");
        let current = Stretch { nowhere, ..Stretch::new(file, identity) };
        let mut follower = Follower::new(name, current);
        if let Some((FileId(file), offset)) = resumed {
            follower.resume(file, offset);
        }
        self.following.insert(key, follower);
        if resumed.is_some()
            && let Err(error) = self.look_up_name(kernel, key, queue)
        {
            self.close(kernel, tail);
            return Err(error);
        }
        Ok(tail)
    }

    /// The empty file of all the tails whose name leads nowhere.
    fn nowhere(&mut self, kernel: &mut K) -> io::Result<Arc<K::File>> {
        if let Some(file) = self.nowhere.upgrade() {
            return Ok(file);
        }
        let file = Arc::new(kernel.nowhere()?);
        self.nowhere = Arc::downgrade(&file);
        Ok(file)
    }

    /// Looks up the names that are due, a bounded number of them.
    #[cold]
    pub(super) fn look_up_names(&mut self, kernel: &mut K, queue: &mut Queue) {
        for _ in 0..self.following.due().min(LOOKS_PER_TURN) {
            if let Some(key) = self.following.take_due() {
                let failure = self.look_up_name(kernel, key, queue).err();
                self.set_failure(key, failure, queue);
            }
        }
    }

    /// Finds out where the name of a tail leads, and how far the tail reads the file that it is in.
    pub(super) fn look_up_name(
        &mut self,
        kernel: &mut K,
        key: Key,
        queue: &mut Queue,
    ) -> io::Result<()> {
        // First with the newest file known: what is in it decides whether it can be dropped.
        self.supersede(kernel, key, queue)?;
        let Some(follower) = self.following.get_mut(key) else { unreachable!("it is due") };
        let Some(Seen { file, missed }) = kernel.look_up(&follower.name, key)? else {
            return Ok(());
        };
        let identity = kernel.identity_of_file(&file);
        // All tails share the file that is open, if one is.
        let open = self.by_identity.get(&identity).and_then(|log| self.logs[*log].open());
        let file = open.map_or_else(|| Arc::new(file), |open| Arc::clone(open.file()));
        if follower.sight(file, identity, missed) {
            self.dismiss_scout(kernel, key);
            self.supersede(kernel, key, queue)?;
        }
        Ok(())
    }

    /// When the newest file of a tail has bytes, fixes where those before it end; when it has none,
    /// lets a scout wait for them.
    ///
    /// In this order: a writer that goes on from one file to the next has written everything to the
    /// first one when the next one has a byte.
    fn supersede(&mut self, kernel: &mut K, key: Key, queue: &mut Queue) -> io::Result<()> {
        let Some(follower) = self.following.get_mut(key) else { unreachable!("it is followed") };
        let Some(newest) = follower.newest() else { return Ok(()) };
        let log = self.by_identity.get(&newest.identity).map(|log| &self.logs[*log]);
        let begin = log.map_or(0, Log::start);
        if let Some(left) = &newest.left
            && !left.is_in(kernel, &newest.file, begin)?
        {
            newest.left = None;
        }
        let (size, start) = (kernel.size(&newest.file)?, newest.start());
        let (has_bytes, file) = (size > start, Arc::clone(&newest.file));
        let pending: Vec<(usize, Arc<K::File>)> = follower
            .unfinished()
            .enumerate()
            .filter(|(_, stretch)| has_bytes || stretch.nowhere)
            .map(|(index, stretch)| (index, Arc::clone(&stretch.file)))
            .collect();
        let mut ends = Vec::with_capacity(pending.len());
        for (index, file) in pending {
            ends.push((index, self.end_of(kernel, &file, queue)?));
        }
        let Some(follower) = self.following.get_mut(key) else { unreachable!("it is followed") };
        for (index, stretch) in follower.unfinished().enumerate() {
            if let Some(place) = ends.iter().position(|(other, _)| *other == index) {
                stretch.end = Some(ends.swap_remove(place).1);
            }
        }
        if let Some(end) = &follower.current.end {
            self.tails[key].set_end(Some(end.offset));
            self.wake(key, queue);
        }
        if has_bytes {
            self.dismiss_scout(kernel, key);
        } else {
            self.send_scout(kernel, key, file, start, queue)?;
        }
        Ok(())
    }

    /// Where a file ends now.
    fn end_of(
        &mut self,
        kernel: &mut K,
        file: &Arc<K::File>,
        queue: &mut Queue,
    ) -> io::Result<End> {
        let log = self.by_identity.get(&kernel.identity_of_file(file)).copied();
        let Some(log) = log.filter(|log| self.logs[*log].is_open()) else {
            return End::of_file(kernel, file);
        };
        let end = End::of_log(kernel, self.logs[log].opened(), file);
        self.notify_waiting(log, queue);
        end
    }

    /// Lets a scout wait until the newest file of a tail has a byte, unless one does already.
    fn send_scout(
        &mut self,
        kernel: &mut K,
        key: Key,
        file: Arc<K::File>,
        start: u64,
        queue: &mut Queue,
    ) -> io::Result<()> {
        let old = self.following.get_mut(key).and_then(|follower| follower.scout);
        if let Some(scout) = old {
            let (log, waiting) = (self.tails[scout].log(), self.tails[scout].waiting());
            let open = self.logs[log].opened();
            if open.is_waiting(waiting) {
                return Ok(());
            }
            // It has reported something else than bytes.
            let fault = open.fault();
            self.dismiss_scout(kernel, key);
            self.check_fault(log, fault)?;
        }
        let log = self.open_log_of(kernel, file)?;
        let options = TailOptions::new(Position::Offset(start));
        let token = Token::default();
        let scout = self.subscribe(kernel, log, options, Kind::Scout, token, queue)?.0;
        self.following.add_scout(scout, key);
        if let Some(follower) = self.following.get_mut(key) {
            follower.scout = Some(scout);
        }
        let open = self.logs[log].opened();
        let fault = open.fault();
        if !open.is_waiting(self.tails[scout].waiting()) {
            if fault.is_some() {
                self.dismiss_scout(kernel, key);
            }
            // There is something already.
            self.following.add_due(key);
        }
        self.check_fault(log, fault)
    }

    /// Fails with the fault of a log, which a tail will report instead of a scout. The next visit
    /// clears it, and another look is due when the tail has reported it.
    fn check_fault(&mut self, log: Key, fault: Option<i32>) -> io::Result<()> {
        let Some(errno) = fault else { return Ok(()) };
        self.changed(log);
        Err(io::Error::from_raw_os_error(errno))
    }

    /// Closes the scout of a tail, if it has one.
    pub(super) fn dismiss_scout(&mut self, kernel: &mut K, key: Key) {
        let scout = self.following.get_mut(key).and_then(|follower| follower.scout.take());
        if let Some(scout) = scout {
            self.following.remove_scout(scout);
            self.close_any(kernel, scout);
        }
    }

    /// The name of a tail cannot be followed, which the tail reports when it has read what is known
    /// of its file; or it can be again.
    fn set_failure(&mut self, key: Key, failure: Option<io::Error>, queue: &mut Queue) {
        let Some(follower) = self.following.get_mut(key) else { return };
        let (failed, before) = (failure.is_some(), follower.failure.is_some());
        follower.failure = failure;
        if follower.current.end.is_some() || !failed && !before {
            return;
        }
        let tail = &mut self.tails[key];
        let end = self.logs[tail.log()].opened().published().end();
        tail.set_end(failed.then_some(end));
        if failed {
            self.wake(key, queue);
        }
    }

    /// A tail has come to the end of its file. If it follows a name, it goes on in the next file,
    /// or reports why that cannot be found.
    #[cold]
    pub(super) fn go_on(
        &mut self,
        kernel: &mut K,
        key: Key,
        queue: &mut Queue,
    ) -> io::Result<Onward> {
        let Some(follower) = self.following.get_mut(key) else { return Ok(Onward::Ended) };
        // It has not ended, whatever happens now.
        self.tails[key].set_reading();
        if follower.current.end.is_none() {
            self.tails[key].set_end(None);
            let Some(failure) = follower.failure.take() else { return Ok(Onward::Silent) };
            if is_worth_another_look(&failure) {
                self.following.add_due(key);
            }
            return Err(failure);
        }
        let Some(next) = follower.next() else { unreachable!("only a superseded file has an end") };
        let (file, left, end) = (Arc::clone(&next.file), next.left.clone(), next.end.clone());
        let log = self.open_log_of(kernel, Arc::clone(&file))?;
        let (offset, end) = match self.enter(kernel, log, &file, left, end, queue) {
            Ok(entered) => entered,
            Err(error) => {
                self.close_unused(kernel, log);
                return Err(error);
            }
        };
        let until = end.as_ref().map_or(Until::Never, |end| Until::Offset(end.offset));
        let tail = &mut self.tails[key];
        let (old, waiting) = (tail.log(), tail.waiting());
        let open = self.logs[log].opened();
        open.count_tail();
        tail.move_to(log, open, offset, until);
        self.leave(kernel, old, waiting);
        // Another offset of the same key may be in there.
        self.scratch.forget();
        let Some(follower) = self.following.get_mut(key) else { unreachable!("it goes on") };
        let report = follower.go_on();
        let lost = follower
            .current
            .end
            .as_ref()
            .is_some_and(|before| end.as_ref().is_some_and(|now| now.offset < before.offset));
        follower.current.end = end;
        if follower.current.end.is_none() && follower.failure.is_some() {
            // It is reported here, where the tail would wait.
            let end = self.logs[log].opened().published().end();
            self.tails[key].set_end(Some(end));
        }
        if follower.next().is_none() {
            self.dismiss_scout(kernel, key);
        }
        Ok(match report {
            None if !lost => Onward::Silent,
            report => Onward::Replaced(lost || report == Some(true)),
        })
    }

    /// Finds out where a tail begins and ends in a file to which it goes on, and which is open: at
    /// its first byte, unless it was left elsewhere, and where it was found to end when it was
    /// superseded. Of one that was written anew since then nothing is read.
    fn enter(
        &mut self,
        kernel: &mut K,
        log: Key,
        file: &K::File,
        left: Option<End>,
        mut end: Option<End>,
        queue: &mut Queue,
    ) -> io::Result<(u64, Option<End>)> {
        let mut options = TailOptions::new(Position::Start);
        if end.is_some() {
            options.snapshot();
        }
        self.prepare(kernel, log, options, Until::Never, queue)?;
        // The log counts from when it was opened, which may be later than the end was found.
        let published = self.logs[log].opened().published();
        let (truncations, start) = (published.truncations(), published.start());
        if let Some(end) = &mut end {
            if !end.is_in(kernel, file, start)? {
                end.offset = 0;
            }
            end.truncations = truncations;
        }
        let offset = match left {
            Some(left) if left.is_in(kernel, file, start)? => left.offset,
            _ => 0,
        };
        Ok((offset, end))
    }

    /// A tail begins anew, because its log was truncated. If its file was superseded after that, it
    /// reads what was in there then; if before, nothing, and all of it if the name returns to it.
    #[cold]
    pub(super) fn restarted(&mut self, key: Key) {
        let Some(follower) = self.following.get_mut(key) else { return };
        let Some(end) = &mut follower.current.end else { return };
        let tail = &mut self.tails[key];
        if end.truncations != self.logs[tail.log()].opened().published().truncations() {
            end.offset = 0;
        }
        tail.set_end(Some(end.offset));
    }
}

/// Whether a failure to look up a name may be over although nothing about the name has changed.
fn is_worth_another_look(failure: &io::Error) -> bool {
    !matches!(
        Errno::from_io_error(failure),
        None | Some(Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::NAMETOOLONG)
    )
}
