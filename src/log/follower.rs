//! Owns [`Follower`]: which files a tail that follows a name reads, in which order, and how far.
//!
//! Invariants: the files are those that the name has led to, oldest first. Only a file that another
//! one has superseded has an end: it was fixed after a later file was seen to have bytes. A file
//! that is the name's again continues where it was left. Pure: it neither reads nor watches.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::id::Key;
use crate::log::end::End;
use crate::log::file::Identity;

/// How many files a tail holds open besides the one that it reads. Whoever may write to the
/// directory could use up the descriptors of the host otherwise.
pub(crate) const MOST_AHEAD: usize = 16;

/// How many files that were read to their end are recognised when they come back.
const MOST_PAST: usize = 16;

/// A file that the name has led to, from one offset to another.
#[derive(Debug)]
pub(crate) struct Stretch<F> {
    pub(crate) file: Arc<F>,
    pub(crate) identity: Identity,
    /// Where it was left before. That has to be looked at again, because the file may have been
    /// written anew.
    pub(crate) left: Option<End>,
    pub(crate) end: Option<End>,
    /// There may have been a file before it of which nothing is read.
    pub(crate) missed: bool,
    /// It stands for no file: the name led nowhere when the tail was opened.
    pub(crate) nowhere: bool,
}

impl<F> Stretch<F> {
    /// A file without a past.
    pub(crate) fn new(file: Arc<F>, identity: Identity) -> Self {
        Self { file, identity, left: None, end: None, missed: false, nowhere: false }
    }

    /// Where it begins, if the file was not written anew since it was left.
    pub(crate) fn start(&self) -> u64 {
        self.left.as_ref().map_or(0, |left| left.offset)
    }
}

/// The files of one tail.
#[derive(Debug)]
pub(crate) struct Follower<N, F> {
    pub(crate) name: N,
    pub(crate) current: Stretch<F>,
    /// Those that follow it.
    ahead: VecDeque<Stretch<F>>,
    /// Those that were read to their end.
    past: VecDeque<(Identity, End)>,
    /// Why the name cannot be followed, until the tail was given the error.
    pub(crate) failure: Option<io::Error>,
    /// Waits for the first byte of the newest file.
    pub(crate) scout: Option<Key>,
    /// The file in which the tail is to go on, if it is to resume an earlier one.
    resumed: Option<Identity>,
}

impl<N, F> Follower<N, F> {
    pub(crate) fn new(name: N, current: Stretch<F>) -> Self {
        Self {
            name,
            current,
            ahead: VecDeque::new(),
            past: VecDeque::new(),
            failure: None,
            scout: None,
            resumed: None,
        }
    }

    /// Lets the tail, which reads nothing yet, go on in this file at this offset.
    pub(crate) fn resume(&mut self, file: Identity, offset: u64) {
        self.past.push_back((file, End::at(offset)));
        self.resumed = Some(file);
    }

    fn latest(&self) -> &Stretch<F> {
        self.ahead.back().unwrap_or(&self.current)
    }

    /// The newest file, if it is not the one that the tail reads.
    pub(crate) fn newest(&mut self) -> Option<&mut Stretch<F>> {
        self.ahead.back_mut()
    }

    /// The files that the newest one supersedes and that have no end yet, oldest first.
    pub(crate) fn unfinished(&mut self) -> impl Iterator<Item = &mut Stretch<F>> {
        let superseded = self.ahead.len();
        let files = std::iter::once(&mut self.current).chain(&mut self.ahead);
        files.take(superseded).filter(|stretch| stretch.end.is_none())
    }

    /// The name leads to this file now. Says whether that is news; then [`newest`](Self::newest)
    /// may be another one.
    ///
    /// The newest file must have been checked for bytes just before: one that has none is dropped
    /// when the name leads to an earlier file again.
    pub(crate) fn sight(&mut self, file: Arc<F>, identity: Identity, missed: bool) -> bool {
        if self.latest().identity == identity {
            return false;
        }
        let files = || std::iter::once(&self.current).chain(&self.ahead);
        let unfinished =
            |stretch: &Stretch<F>| stretch.identity == identity && stretch.end.is_none();
        if let Some(place) = files().position(unfinished) {
            // Nothing was in those that came after it.
            self.ahead.truncate(place);
            return true;
        }
        let ends = files().filter_map(|file| Some((file.identity, file.end.as_ref()?)));
        let mut ends = self.past.iter().map(|(identity, end)| (*identity, end)).chain(ends);
        let left = ends.rfind(|(other, _)| *other == identity).map(|(_, end)| end.clone());
        self.ahead.push_back(Stretch { left, missed, ..Stretch::new(file, identity) });
        if self.ahead.len() > MOST_AHEAD {
            self.ahead.remove(MOST_AHEAD - 1);
            self.ahead[MOST_AHEAD - 1].missed = true;
        }
        true
    }

    /// The file after the current one.
    pub(crate) fn next(&self) -> Option<&Stretch<F>> {
        self.ahead.front()
    }

    /// Goes on to the file after the current one, which was read to its end. Returns what is to be
    /// reported: nothing if the tail has read no file so far, and otherwise whether a file may have
    /// been missed.
    ///
    /// # Panics
    /// When there is no such file.
    pub(crate) fn go_on(&mut self) -> Option<bool> {
        let Some(next) = self.ahead.pop_front() else { unreachable!("there is no other file") };
        let resumed = self.resumed.take();
        let report = match resumed {
            Some(file) if file == next.identity => None,
            Some(_) => Some(true),
            None => (!self.current.nowhere).then_some(next.missed),
        };
        let left = std::mem::replace(&mut self.current, next);
        if let Some(end) = left.end.filter(|_| !left.nowhere) {
            self.past.push_back((left.identity, end));
            if self.past.len() > MOST_PAST {
                self.past.pop_front();
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(file: usize) -> Stretch<usize> {
        Stretch::new(Arc::new(file), Identity::simulated(file))
    }

    fn sight(follower: &mut Follower<(), usize>, file: usize) -> bool {
        let identity = Identity::simulated(file);
        follower.sight(Arc::new(file), identity, false)
    }

    fn finish(follower: &mut Follower<(), usize>, offset: u64) {
        for stretch in follower.unfinished() {
            stretch.end = Some(End::at(offset));
        }
    }

    fn ahead(follower: &Follower<(), usize>) -> Vec<(usize, u64)> {
        follower.ahead.iter().map(|stretch| (*stretch.file, stretch.start())).collect()
    }

    #[test]
    fn a_file_without_bytes_is_dropped_when_the_one_before_it_returns() {
        let mut follower = Follower::new((), stretch(0));
        assert!(!sight(&mut follower, 0));
        assert!(sight(&mut follower, 1));
        assert!(!sight(&mut follower, 1));
        assert!(sight(&mut follower, 2));
        assert!(sight(&mut follower, 1));
        assert_eq!(ahead(&follower), [(1, 0)]);
        assert!(sight(&mut follower, 0));
        assert_eq!(ahead(&follower), []);
    }

    #[test]
    fn a_file_that_returns_continues_where_it_was_left() {
        let mut follower = Follower::new((), stretch(0));
        sight(&mut follower, 1);
        finish(&mut follower, 7);
        sight(&mut follower, 0);
        assert_eq!(ahead(&follower), [(1, 0), (0, 7)]);
        finish(&mut follower, 9);
        assert_eq!(follower.go_on(), Some(false));
        assert_eq!(follower.go_on(), Some(false));
        assert_eq!((*follower.current.file, follower.current.start()), (0, 7));
        // Read to its end, and gone from the list.
        sight(&mut follower, 1);
        assert_eq!(ahead(&follower), [(1, 9)]);
    }

    #[test]
    fn no_more_files_are_held_than_the_bound_and_the_gap_is_reported() {
        let mut follower = Follower::new((), stretch(0));
        for file in 1..=MOST_AHEAD + 3 {
            sight(&mut follower, file);
            finish(&mut follower, 1);
        }
        let files: Vec<usize> = ahead(&follower).into_iter().map(|(file, _)| file).collect();
        let oldest = 1..MOST_AHEAD;
        assert_eq!(files, oldest.chain([MOST_AHEAD + 3]).collect::<Vec<_>>());
        let missed = follower.ahead.iter().filter(|stretch| stretch.missed).count();
        assert!(missed == 1 && follower.latest().missed);
    }
}
