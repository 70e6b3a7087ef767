//! Owns [`Feed`]: the newest pieces of one log, which the loop publishes once for all readers.
//!
//! Invariants: the pieces of one epoch follow each other, and an epoch ends where the loop's tail
//! has reported a truncation. Where bytes were not kept there is a gap between them, and whoever is
//! at its beginning is behind. Never more than [`RING`] bytes are held, whoever reads them and
//! however slowly, and nothing that all have read, once the loop goes on. The loop takes no more
//! from the log than somebody wants. Knows nothing of the loop, and of how a reader that is behind
//! gets on.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::error::{Error, SystemError, TailError};
use crate::sync::Mutex;
use crate::worker::piece::{Memory, Piece};
use crate::worker::wait::{Ticket, WaitList, Waiter, Woken, lock};

/// How many bytes a feed holds at most.
pub(super) const RING: usize = 256 * 1024;

/// Where a reader is: in what the log was after this many truncations, at this offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) epoch: u64,
    pub(super) offset: u64,
}

/// How the tail of the loop is doing, from which the pieces come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    /// It waits: the loop hears of it when there is more.
    Armed,
    /// There is more, and nobody has wanted it.
    Stalled,
    /// There may be more, and the loop is going to read it.
    Asked,
}

/// What a reader finds at its place.
#[derive(Debug)]
pub(super) enum Found {
    /// A piece that contains the place.
    Piece(Piece),
    /// The log was truncated: it goes on at this place.
    Truncated(Place),
    /// The place is behind the pieces that are held.
    Behind,
    /// Nothing yet.
    Nothing(Front),
    /// The log could not be read; the number tells this failure from an earlier one.
    Failed(u64, Error),
    /// The log has ended.
    Ended,
    /// The loop has ended.
    Lost,
}

/// How the loop's tail came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Log,
    Loop,
}

/// The newest pieces of one log.
#[derive(Debug)]
pub(super) struct Feed {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// In the order of their places.
    pieces: VecDeque<(u64, Piece)>,
    held: usize,
    /// How many of them, the oldest, were read by every reader.
    read: usize,
    /// Where the tail of the loop is.
    place: Place,
    front: Front,
    end: Option<End>,
    /// How often reading has failed, and the last failure unless it was made good.
    failures: u64,
    failure: Option<Error>,
    /// Whether anybody has found nothing since something was published.
    wanted: bool,
    waiting: WaitList,
}

/// Why the loop has taken no more.
#[derive(Debug)]
pub(super) enum Stopped {
    /// There is no more yet: the tail waits.
    UpToDate,
    /// It was enough.
    Enough,
    /// The log has ended.
    Ended,
    /// Reading has failed.
    Failed(Error),
}

impl Feed {
    /// A feed that begins at this offset, with a tail that waits there.
    pub(super) fn new(offset: u64) -> Self {
        Self {
            state: Mutex::new(State {
                pieces: VecDeque::new(),
                held: 0,
                read: 0,
                place: Place { epoch: 0, offset },
                front: Front::Armed,
                end: None,
                failures: 0,
                failure: None,
                wanted: false,
                waiting: WaitList::default(),
            }),
        }
    }

    /// Where the tail of the loop is.
    pub(super) fn place(&self) -> Place {
        lock(&self.state).place
    }

    /// What lies at a place. `failure` is the number of the last failure that the reader has
    /// reported.
    pub(super) fn look(&self, place: Place, failure: u64) -> Found {
        lock(&self.state).look(place, failure)
    }

    /// The piece that contains a place, if there is one.
    pub(super) fn piece(&self, place: Place) -> Option<Piece> {
        lock(&self.state).piece(place).cloned()
    }

    /// As [`look`](Self::look); a reader that finds nothing is woken when there is something. When
    /// it finds that the loop has to be asked, no other reader finds that.
    pub(super) fn look_or_wait(
        &self,
        place: Place,
        failure: u64,
        ticket: &mut Option<Ticket>,
        waiter: &Arc<Waiter>,
    ) -> Found {
        let mut state = lock(&self.state);
        let found = state.look(place, failure);
        if let Found::Nothing(front) = found {
            state.wanted = true;
            state.waiting.add(ticket, waiter);
            if front == Front::Stalled {
                state.front = Front::Asked;
            }
        }
        found
    }

    /// A reader does not wait any more.
    pub(super) fn leave(&self, ticket: Option<Ticket>) {
        lock(&self.state).waiting.remove(ticket);
    }

    /// The loop hears that there is more. Returns whether anybody wants it; if not, the loop is
    /// asked once somebody does.
    pub(super) fn has_more(&self) -> bool {
        let mut state = lock(&self.state);
        if !state.wanted {
            state.front = Front::Stalled;
        }
        state.wanted
    }

    /// Publishes the bytes of a piece as the next ones, whatever its offset, and returns those who
    /// have to be woken. The loop goes on to read, until it [stops](Self::stop). When all of so
    /// many `readers` wait, they have read the rest.
    pub(super) fn push(&self, piece: Piece, readers: usize) -> Woken {
        let mut state = lock(&self.state);
        if state.waiting.len() == readers {
            state.read = state.pieces.len();
        }
        state.push(piece);
        state.has_news()
    }

    /// The tail of the loop has found the log truncated. Returns those who have to be woken; the
    /// loop goes on to read, until it [stops](Self::stop).
    pub(super) fn truncate(&self) -> Woken {
        let mut state = lock(&self.state);
        state.place = Place { epoch: state.place.epoch + 1, offset: 0 };
        state.has_news()
    }

    /// So many bytes are not kept any more: whoever has read up to here is behind, and hears of the
    /// gap from a tail of its own. Returns those who have to be woken; the loop goes on to read,
    /// until it [stops](Self::stop).
    pub(super) fn skip(&self, bytes: u64) -> Woken {
        let mut state = lock(&self.state);
        state.place.offset += bytes;
        state.has_news()
    }

    /// The loop reads no more for now. Returns those who have to be woken: all, unless there is
    /// nothing that they could do but wait. What every reader has read is dropped, and its memory
    /// kept for the next piece.
    pub(super) fn stop(&self, stopped: Stopped, memory: &mut Memory) -> Woken {
        let mut state = lock(&self.state);
        state.front = Front::Stalled;
        state.drop_read(memory);
        match stopped {
            Stopped::UpToDate => {
                state.front = Front::Armed;
                state.failure = None;
                return Woken::default();
            }
            Stopped::Enough => {}
            Stopped::Ended => state.end = Some(End::Log),
            Stopped::Failed(error) => {
                state.failures += 1;
                state.failure = Some(error);
            }
        }
        state.take_waiting()
    }

    /// The tail of the loop goes on further ahead, in the same epoch, and waits there: whoever
    /// wants what lies between is behind.
    pub(super) fn skip_to(&self, offset: u64) -> Woken {
        let mut state = lock(&self.state);
        state.pieces.clear();
        state.held = 0;
        state.read = 0;
        state.place.offset = offset;
        state.front = Front::Armed;
        state.take_waiting()
    }

    /// The loop has ended.
    pub(super) fn lose(&self) -> Woken {
        let mut state = lock(&self.state);
        state.end.get_or_insert(End::Loop);
        state.waiting.take()
    }
}

impl State {
    fn piece(&self, place: Place) -> Option<&Piece> {
        // Most readers want the newest one.
        let newest = self.pieces.back()?;
        if begin(newest) == place {
            return Some(&newest.1);
        }
        let next = self.pieces.partition_point(|piece| begin(piece) <= place);
        let (epoch, piece) = self.pieces.get(next.checked_sub(1)?)?;
        (*epoch == place.epoch && place.offset < piece.end()).then_some(piece)
    }

    fn look(&self, place: Place, reported: u64) -> Found {
        if let Some(piece) = self.piece(place) {
            return Found::Piece(piece.clone());
        }
        if place.epoch < self.place.epoch {
            // What is left of the next epoch, if that is all of it; otherwise of the current one.
            let kept = self.pieces.iter().map(begin).find(|piece| piece.epoch > place.epoch);
            let epoch = match kept {
                Some(Place { epoch, offset: 0 }) => epoch,
                _ => self.place.epoch,
            };
            return Found::Truncated(Place { epoch, offset: 0 });
        }
        if place.offset < self.place.offset {
            return match self.end {
                Some(End::Loop) => Found::Lost,
                _ => Found::Behind,
            };
        }
        debug_assert_eq!(place, self.place, "nobody is further than the tail of the loop");
        match (&self.failure, self.end) {
            (_, Some(End::Log)) => Found::Ended,
            (_, Some(End::Loop)) => Found::Lost,
            (Some(error), None) if self.failures > reported => {
                Found::Failed(self.failures, same(error))
            }
            (_, None) => Found::Nothing(self.front),
        }
    }

    fn push(&mut self, mut piece: Piece) {
        let Place { epoch, offset } = self.place;
        piece.offset = offset;
        self.place.offset = piece.end();
        self.held += piece.size();
        self.pieces.push_back((epoch, piece));
        while self.held > RING {
            self.pop();
        }
    }

    /// Takes the oldest piece.
    fn pop(&mut self) -> Option<Piece> {
        let (_, oldest) = self.pieces.pop_front()?;
        self.held -= oldest.size();
        self.read = self.read.saturating_sub(1);
        Some(oldest)
    }

    /// Drops what every reader has read.
    fn drop_read(&mut self, memory: &mut Memory) {
        while self.read > 0
            && let Some(oldest) = self.pop()
        {
            *memory = oldest.into_memory();
        }
    }

    /// There is something for those who wait, and reading has not failed.
    fn has_news(&mut self) -> Woken {
        self.front = Front::Asked;
        self.failure = None;
        self.take_waiting()
    }

    fn take_waiting(&mut self) -> Woken {
        self.wanted = false;
        self.waiting.take()
    }
}

/// Where a piece begins.
fn begin((epoch, piece): &(u64, Piece)) -> Place {
    Place { epoch: *epoch, offset: piece.offset }
}

/// The same error once more: each reader gets one, and an [`io::Error`] cannot be cloned.
fn same(error: &Error) -> Error {
    let again = |cause: &io::Error| match cause.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::new(cause.kind(), cause.to_string()),
    };
    match error {
        Error::Tail(TailError::Io { operation, path, cause }) => {
            TailError::Io { operation, path: path.clone(), cause: again(cause) }.into()
        }
        Error::Tail(TailError::WatchLimit { path }) => {
            TailError::WatchLimit { path: path.clone() }.into()
        }
        other => {
            let cause = io::Error::other(other.to_string());
            SystemError::Loop { operation: "read a log", cause }.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::worker::piece::PIECE;

    fn piece(length: usize) -> Piece {
        Piece::copy(0, &vec![b'x'; length], Memory::default())
    }

    /// Publishes pieces of these lengths, for more readers than ever wait.
    fn publish(feed: &Feed, lengths: &[usize], stopped: Stopped) {
        for length in lengths {
            feed.push(piece(*length), 3).wake();
        }
        feed.stop(stopped, &mut Memory::default()).wake();
    }

    fn look(feed: &Feed, epoch: u64, offset: u64) -> String {
        match feed.look(Place { epoch, offset }, 0) {
            Found::Piece(piece) => format!("{}..{}", piece.offset, piece.end()),
            Found::Truncated(place) => format!("truncated to {}:{}", place.epoch, place.offset),
            Found::Nothing(front) => format!("{front:?}"),
            Found::Failed(number, _) => format!("failure {number}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_reader_finds_its_place_or_that_it_is_behind() {
        let feed = Feed::new(10);
        assert_eq!(look(&feed, 0, 10), "Armed");
        assert_eq!(look(&feed, 0, 9), "Behind");
        publish(&feed, &[5, 1, 4], Stopped::Enough);
        for (offset, found) in
            [(9, "Behind"), (10, "10..15"), (14, "10..15"), (15, "15..16"), (19, "16..20")]
        {
            assert_eq!(look(&feed, 0, offset), found);
        }
        assert_eq!(look(&feed, 0, 20), "Stalled");
        publish(&feed, &[], Stopped::Ended);
        assert_eq!(look(&feed, 0, 20), "Ended");
        assert_eq!(look(&feed, 0, 10), "10..15");
    }

    #[test]
    fn a_truncation_is_found_once_what_was_held_before_it_is_read() {
        let feed = Feed::new(0);
        publish(&feed, &[5], Stopped::UpToDate);
        feed.truncate().wake();
        publish(&feed, &[3], Stopped::UpToDate);
        feed.truncate().wake();
        feed.truncate().wake();
        publish(&feed, &[2], Stopped::UpToDate);
        assert_eq!(look(&feed, 0, 4), "0..5");
        assert_eq!(look(&feed, 0, 5), "truncated to 1:0");
        assert_eq!(look(&feed, 1, 2), "0..3");
        // Of the content between there was nothing to read.
        assert_eq!(look(&feed, 1, 3), "truncated to 3:0");
        assert_eq!(look(&feed, 3, 2), "Armed");
        // Without anything of it in the ring.
        feed.truncate().wake();
        publish(&feed, &[], Stopped::UpToDate);
        assert_eq!(look(&feed, 3, 2), "truncated to 4:0");
        // A piece of a later content that is not its first leads to the current one.
        feed.skip_to(7).wake();
        assert_eq!(look(&feed, 1, 3), "truncated to 4:0");
        assert_eq!(look(&feed, 4, 0), "Behind");
        assert_eq!(look(&feed, 4, 7), "Armed");
    }

    #[test]
    fn no_more_than_the_ring_is_held() {
        let feed = Feed::new(0);
        let mut end = 0;
        for _ in 0..100 {
            publish(&feed, &[PIECE], Stopped::UpToDate);
            end += PIECE as u64;
            let state = lock(&feed.state);
            assert!(state.held <= RING);
            assert_eq!(state.held, state.pieces.iter().map(|(_, p)| p.size()).sum::<usize>());
        }
        let held = RING as u64;
        assert_eq!(look(&feed, 0, end - held - 1), "Behind");
        assert_eq!(look(&feed, 0, end - held), format!("{}..{}", end - held, end - held + 65536));
    }

    #[test]
    fn the_loop_takes_no_more_than_somebody_wants() {
        let feed = Feed::new(0);
        assert!(!feed.has_more());
        let (waiter, mut ticket) = (Arc::new(Waiter::default()), None);
        let place = Place { epoch: 0, offset: 0 };
        let mut wait = || match feed.look_or_wait(place, 0, &mut ticket, &waiter) {
            Found::Nothing(front) => front,
            other => panic!("{other:?}"),
        };
        // The first who finds that asks the loop, and the others wait with it.
        assert_eq!(wait(), Front::Stalled);
        assert_eq!(wait(), Front::Asked);
        assert!(feed.has_more());
        // Nothing new: they still wait.
        publish(&feed, &[], Stopped::UpToDate);
        assert!(feed.has_more());
        publish(&feed, &[1], Stopped::UpToDate);
        assert!(!feed.has_more());
    }

    #[test]
    fn what_all_readers_have_read_is_not_held() {
        let feed = Feed::new(0);
        let waiters: [Arc<Waiter>; 2] = Default::default();
        let mut tickets = [None; 2];
        let mut wait = |reader: usize, offset: u64| {
            let place = Place { epoch: 0, offset };
            let found = feed.look_or_wait(place, 0, &mut tickets[reader], &waiters[reader]);
            assert!(matches!(found, Found::Nothing(Front::Armed)));
        };
        let mut memory = Memory::default();
        let mut publish = || {
            let piece = Piece::copy(0, &[b'x'; 10], std::mem::take(&mut memory));
            feed.push(piece, 2).wake();
            feed.stop(Stopped::UpToDate, &mut memory).wake();
            lock(&feed.state).pieces.len()
        };
        for end in (0..100).step_by(10) {
            wait(0, end);
            wait(1, end);
            assert_eq!(publish(), 1);
        }
        // The second one has not read the last piece yet.
        for end in (100..140).step_by(10) {
            wait(0, end);
            assert_eq!(publish() as u64, end / 10 - 8);
        }
        assert_eq!(look(&feed, 0, 90), "90..100");
    }

    #[test]
    fn each_reader_is_given_a_failure_once() {
        let feed = Feed::new(0);
        let fail = || Error::log("read log", "/a/log")(io::Error::from_raw_os_error(5));
        publish(&feed, &[], Stopped::Failed(fail()));
        let place = Place { epoch: 0, offset: 0 };
        for _ in 0..2 {
            let Found::Failed(1, error) = feed.look(place, 0) else { panic!() };
            assert_eq!((error.to_string(), error.kind()), (fail().to_string(), ErrorKind::Other));
        }
        assert!(matches!(feed.look(place, 1), Found::Nothing(Front::Stalled)));
        publish(&feed, &[], Stopped::Failed(fail()));
        assert!(matches!(feed.look(place, 1), Found::Failed(2, _)));
        publish(&feed, &[], Stopped::UpToDate);
        assert!(matches!(feed.look(place, 1), Found::Nothing(Front::Armed)));
        feed.lose().wake();
        assert!(matches!(feed.look(place, 1), Found::Lost));
    }
}

#[cfg(all(test, jobworker_loom))]
mod models {
    use std::task::Poll;

    use super::*;
    use crate::driver::Eventfd;
    use crate::sync::{check, thread};
    use crate::worker::wait::block_on;

    const START: Place = Place { epoch: 0, offset: 0 };

    /// Publishes a piece for so many readers.
    fn publish(feed: &Feed, length: usize, readers: usize) {
        feed.push(Piece::copy(0, &vec![b'x'; length], Memory::default()), readers).wake();
        feed.stop(Stopped::UpToDate, &mut Memory::default()).wake();
    }

    fn end(feed: &Feed) {
        feed.stop(Stopped::Ended, &mut Memory::default()).wake();
    }

    /// Waits until there is something else than nothing, and asks the loop when it has to be.
    fn wait(feed: &Feed, place: Place, ask: impl Fn()) -> Found {
        let (waiter, mut ticket) = (Arc::new(Waiter::default()), None);
        let found = block_on(None, |cx| {
            waiter.set(cx.waker());
            match feed.look_or_wait(place, 0, &mut ticket, &waiter) {
                Found::Nothing(front) => {
                    if front == Front::Stalled {
                        ask();
                    }
                    Poll::Pending
                }
                found => Poll::Ready(found),
            }
        });
        feed.leave(ticket);
        found.unwrap()
    }

    /// Reads to the end, and says where each piece, or each next content, begins.
    fn read(feed: &Feed, mut place: Place, ask: impl Fn()) -> (Vec<Place>, Found) {
        let mut found = Vec::new();
        loop {
            match wait(feed, place, &ask) {
                Found::Piece(piece) => {
                    found.push(place);
                    place.offset = piece.end();
                }
                Found::Truncated(next) => place = next,
                other => return (found, other),
            }
        }
    }

    #[test]
    fn each_reader_finds_all_that_is_published() {
        check(Some(2), || {
            let feed = Arc::new(Feed::new(0));
            let threads = [(); 2].map(|()| {
                let feed = Arc::clone(&feed);
                thread::spawn(move || read(&feed, START, || ()))
            });
            publish(&feed, 1, 2);
            feed.truncate().wake();
            publish(&feed, 2, 2);
            end(&feed);
            for thread in threads {
                let (found, end) = thread.join().unwrap();
                assert_eq!(found, [START, Place { epoch: 1, offset: 0 }]);
                assert!(matches!(end, Found::Ended));
            }
        });
    }

    #[test]
    fn one_reader_asks_the_loop_when_there_is_more_that_nobody_has_wanted() {
        check(Some(2), || {
            let feed = Arc::new(Feed::new(0));
            let asked = Eventfd::alone();
            let threads = [(); 2].map(|()| {
                let (feed, asked) = (Arc::clone(&feed), asked.clone());
                thread::spawn(move || {
                    let asks = std::cell::Cell::new(0);
                    let found = wait(&feed, START, || {
                        asks.set(asks.get() + 1);
                        asked.wake().unwrap();
                    });
                    assert!(matches!(found, Found::Piece(_)));
                    asks.get()
                })
            });
            let wanted = feed.has_more();
            if !wanted {
                asked.wait();
            }
            publish(&feed, 1, 2);
            let asks: i32 = threads.map(|thread| thread.join().unwrap()).iter().sum();
            assert_eq!(asks, i32::from(!wanted));
        });
    }

    #[test]
    fn one_that_gives_up_takes_nobody_elses_place() {
        check(Some(4), || {
            let feed = Arc::new(Feed::new(0));
            let reading = Arc::clone(&feed);
            let reading = thread::spawn(move || read(&reading, START, || ()));
            let giving_up = Arc::clone(&feed);
            let giving_up = thread::spawn(move || {
                let (waiter, mut ticket) = (Arc::new(Waiter::default()), None);
                giving_up.look_or_wait(START, 0, &mut ticket, &waiter);
                giving_up.leave(ticket);
            });
            publish(&feed, 1, 2);
            end(&feed);
            assert!(matches!(reading.join().unwrap(), (found, Found::Ended) if found == [START]));
            giving_up.join().unwrap();
        });
    }

    #[test]
    fn a_reader_finds_what_another_one_has_read_already() {
        check(Some(2), || {
            let feed = Arc::new(Feed::new(0));
            let threads = [(); 2].map(|()| {
                let feed = Arc::clone(&feed);
                thread::spawn(move || read(&feed, START, || ()))
            });
            for _ in 0..3 {
                publish(&feed, 1, 2);
            }
            end(&feed);
            for thread in threads {
                let (found, end) = thread.join().unwrap();
                assert_eq!(found.len(), 3);
                assert!(matches!(end, Found::Ended));
            }
        });
    }

    #[test]
    fn a_reader_that_is_slow_is_behind_and_misses_nothing_else() {
        const HALF: u64 = RING as u64 / 2;
        check(Some(3), || {
            let feed = Arc::new(Feed::new(0));
            let reading = Arc::clone(&feed);
            let reading = thread::spawn(move || read(&reading, START, || ()));
            for _ in 0..3 {
                publish(&feed, RING / 2, 1);
                assert!(lock(&feed.state).held <= RING);
            }
            end(&feed);
            let (found, end) = reading.join().unwrap();
            let offsets: Vec<u64> = found.iter().map(|place| place.offset).collect();
            match end {
                Found::Ended => assert_eq!(offsets, [0, HALF, 2 * HALF]),
                Found::Behind => assert!(offsets.is_empty()),
                other => panic!("{other:?}"),
            }
        });
    }

    #[test]
    fn whoever_waits_hears_that_the_loop_has_ended() {
        check(Some(3), || {
            let feed = Arc::new(Feed::new(0));
            let reading = Arc::clone(&feed);
            let reading = thread::spawn(move || read(&reading, START, || ()));
            publish(&feed, 1, 1);
            feed.lose().wake_last();
            assert!(matches!(reading.join().unwrap(), (found, Found::Lost) if found == [START]));
        });
    }
}
