//! Owns [`Outputs`]: all readers of a worker, as the loop sees them, and the tails that serve them.
//!
//! Invariants: each log that is followed at its end has one tail, the front of its feed, whatever
//! the number of readers there; a reader that is elsewhere has a tail of its own. Exactness is that
//! of these tails: a reader moves from one to the other only where both have read the same bytes.
//! Work is done only when a reader asks for it, and no call takes more than a feed holds. Knows
//! nothing of jobs and threads.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::id::{JobId, Key, Slots, Stream, TailId, Token};
use crate::log::{Fill, TailOptions};
use crate::reactor::Reactor;
use crate::worker::feed::{Feed, PIECE, Piece, Place, RING, Stopped, Taken};
use crate::worker::output::Reader;
use crate::worker::wait::Woken;

/// One of the logs of a job.
type LogId = (JobId, Stream);

/// All readers, as the loop sees them.
#[derive(Debug)]
pub(super) struct Outputs {
    readers: Slots<Entry>,
    feeds: HashMap<LogId, Front>,
    tails: HashMap<TailId, Use>,
}

/// One reader.
#[derive(Debug)]
struct Entry {
    log: LogId,
    follow: bool,
    source: Source,
    reader: Arc<Reader>,
}

/// Where it gets its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// From a tail of its own, piece by piece.
    Own(TailId),
    /// From the feed of its log, without the loop.
    Feed,
    /// It has read everything.
    Ended,
}

/// The tail of the loop at the end of a log, and the feed that it serves.
#[derive(Debug)]
struct Front {
    tail: TailId,
    feed: Arc<Feed>,
    readers: usize,
}

/// What a tail is for.
#[derive(Clone, Copy, Debug)]
enum Use {
    Reader(Key),
    Feed(LogId),
}

/// What a reader gets that has a tail of its own.
#[derive(Debug)]
pub(super) enum Own {
    Piece(Piece),
    Truncated,
    /// Nothing yet: it is told when there is something.
    Nothing,
    /// It has caught up: from here on the feed has everything.
    Joined(Arc<Feed>, Place),
    Ended,
}

impl Outputs {
    pub(super) fn new() -> Self {
        Self { readers: Slots::new(), feeds: HashMap::new(), tails: HashMap::new() }
    }

    /// Opens a log for a reader, and returns the offset at which it begins.
    pub(super) fn open(
        &mut self,
        reactor: &mut Reactor,
        job: JobId,
        options: TailOptions,
        reader: Arc<Reader>,
    ) -> Result<(Key, u64)> {
        let tail = reactor.tail(job, options, Token::default())?;
        let position = reactor.position(tail)?;
        let (log, follow) = ((job, options.stream), options.follow);
        let key = self.readers.insert(Entry { log, follow, source: Source::Own(tail), reader });
        self.tails.insert(tail, Use::Reader(key));
        Ok((key, position))
    }

    /// A reader is gone.
    pub(super) fn close(&mut self, reactor: &mut Reactor, key: Key) {
        let Some(entry) = self.readers.remove(key) else { return };
        match entry.source {
            Source::Own(tail) => self.close_tail(reactor, tail),
            Source::Feed => self.leave_feed(reactor, entry.log),
            Source::Ended => {}
        }
    }

    /// The next piece for a reader with a tail of its own.
    ///
    /// # Panics
    /// When it has none: a reader asks only for what it was told it has.
    pub(super) fn next(&mut self, reactor: &mut Reactor, key: Key) -> Result<Own> {
        let Source::Own(tail) = self.readers[key].source else {
            unreachable!("the reader was told that it has no tail any more")
        };
        let offset = reactor.position(tail)?;
        Ok(match reactor.fill_buf(tail)? {
            Fill::Data(bytes) => {
                let bytes: Arc<[u8]> = bytes[..bytes.len().min(PIECE)].into();
                reactor.consume(tail, bytes.len())?;
                Own::Piece(Piece { offset, bytes })
            }
            Fill::Truncated => Own::Truncated,
            Fill::Replaced { .. } => unreachable!("the log of a job is not followed by name"),
            Fill::UpToDate => match self.join(reactor, key, tail) {
                Some((feed, place)) => Own::Joined(feed, place),
                None => Own::Nothing,
            },
            Fill::Ended => {
                self.readers[key].source = Source::Ended;
                self.close_tail(reactor, tail);
                Own::Ended
            }
        })
    }

    /// Lets a reader whose own tail has nothing more to read go over to the feed of its log, unless
    /// it does not follow, or waits for something else than growth.
    fn join(
        &mut self,
        reactor: &mut Reactor,
        key: Key,
        tail: TailId,
    ) -> Option<(Arc<Feed>, Place)> {
        let Entry { log, follow, .. } = self.readers[key];
        if !follow || !reactor.is_at_end(tail) {
            return None;
        }
        let offset = reactor.position(tail).ok()?;
        if let Some(front) = self.feeds.get(&log) {
            if !reactor.is_at_end(front.tail) {
                // Nobody has wanted more of late. It may be far behind, but not for long.
                self.pump(reactor, log);
            }
            let front = self.feeds.get_mut(&log)?;
            front.readers += 1;
            if reactor.is_at_end(front.tail) {
                self.close_tail(reactor, tail);
            } else {
                // Still far behind: it goes on here, and those who have not read as far are behind.
                let before = std::mem::replace(&mut front.tail, tail);
                front.feed.skip_to(offset).wake();
                self.tails.insert(tail, Use::Feed(log));
                self.close_tail(reactor, before);
            }
        } else {
            let feed = Arc::new(Feed::new(offset));
            self.feeds.insert(log, Front { tail, feed, readers: 1 });
            self.tails.insert(tail, Use::Feed(log));
        }
        self.readers[key].source = Source::Feed;
        let feed = Arc::clone(&self.feeds.get(&log)?.feed);
        let place = feed.place();
        debug_assert_eq!(place.offset, offset);
        Some((feed, place))
    }

    /// Gives a reader that the feed has left behind a tail of its own again, which has read the
    /// same bytes, `last` the last of them. Returns whether there was no truncation meanwhile.
    pub(super) fn fall_back(
        &mut self,
        reactor: &mut Reactor,
        key: Key,
        place: Place,
        last: &[u8],
    ) -> Result<bool> {
        let log = self.readers[key].log;
        let Some(front) = self.feeds.get(&log) else {
            unreachable!("a feed stays as long as it has readers")
        };
        if front.feed.place().epoch != place.epoch {
            return Ok(false);
        }
        let tail = reactor.branch(front.tail, place.offset, last)?;
        self.readers[key].source = Source::Own(tail);
        self.tails.insert(tail, Use::Reader(key));
        self.leave_feed(reactor, log);
        Ok(true)
    }

    /// A tail has something to read.
    pub(super) fn readable(&mut self, reactor: &mut Reactor, tail: TailId) {
        match self.tails.get(&tail) {
            Some(Use::Reader(key)) => self.readers[*key].reader.has_news(),
            Some(Use::Feed(log)) => {
                let log = *log;
                if self.feeds.get(&log).is_some_and(|front| front.feed.has_more()) {
                    self.pump(reactor, log);
                }
            }
            // It was closed by an earlier event of this turn, or is not ours.
            None => {}
        }
    }

    /// A reader wants more than its feed has.
    pub(super) fn wanted(&mut self, reactor: &mut Reactor, key: Key) {
        if let Some(entry) = self.readers.get(key)
            && entry.source == Source::Feed
        {
            self.pump(reactor, entry.log);
        }
    }

    /// Every reader hears that the loop has ended.
    pub(super) fn lose(&mut self) {
        for front in self.feeds.values() {
            front.feed.lose().wake_last();
        }
        Woken::of(self.readers.iter().map(|(_, entry)| entry.reader.lose())).wake_last();
    }

    /// Takes what the front of a log has, at most what its feed holds, and publishes it.
    fn pump(&mut self, reactor: &mut Reactor, log: LogId) {
        let Some(front) = self.feeds.get(&log) else { return };
        let taken = take(reactor, front.tail, front.feed.place());
        front.feed.publish(taken).wake();
    }

    fn leave_feed(&mut self, reactor: &mut Reactor, log: LogId) {
        let Some(front) = self.feeds.get_mut(&log) else { return };
        front.readers -= 1;
        if front.readers == 0 {
            let tail = front.tail;
            self.feeds.remove(&log);
            self.close_tail(reactor, tail);
        }
    }

    fn close_tail(&mut self, reactor: &mut Reactor, tail: TailId) {
        self.tails.remove(&tail);
        // It can only be unknown, because its job was removed.
        let _ = reactor.close(tail);
    }
}

/// Reads on from a place, at most as many bytes as a feed holds.
fn take(reactor: &mut Reactor, tail: TailId, mut place: Place) -> Taken {
    let (mut pieces, mut length) = (Vec::new(), 0);
    let stopped = loop {
        if length >= RING {
            break Stopped::Enough;
        }
        match reactor.fill_buf(tail) {
            Ok(Fill::Data(bytes)) => {
                let bytes: Arc<[u8]> = bytes[..bytes.len().min(PIECE)].into();
                let piece = Piece { offset: place.offset, bytes };
                length += piece.bytes.len();
                if let Err(error) = reactor.consume(tail, piece.bytes.len()) {
                    break Stopped::Failed(error);
                }
                place.offset = piece.end();
                pieces.push((place.epoch, piece));
            }
            Ok(Fill::Truncated) => {
                place = Place { epoch: place.epoch + 1, offset: 0 };
                // Counts as a piece: a job that does nothing else must not hold up the loop.
                length += PIECE;
            }
            Ok(Fill::Replaced { .. }) => {
                unreachable!("the log of a job is not followed by name")
            }
            Ok(Fill::UpToDate) => break Stopped::UpToDate,
            Ok(Fill::Ended) => break Stopped::Ended,
            Err(error) => break Stopped::Failed(error),
        }
    };
    Taken { pieces, place, stopped }
}
