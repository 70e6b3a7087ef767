//! Owns [`Source`]: where a reader of a log gets its bytes: from the file, from the feed of the
//! log, or from nowhere any more.
//!
//! Invariants: what is found lies at the reader's position, and a poll that is given up has lost
//! nothing. The loop is asked where to read on and how the log has changed, never for what it reads
//! anyway. Knows nothing of how bytes are handed out.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::fs::sendfile;
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, Result};
use crate::id::Key;
use crate::log::{Excerpt, Mark, into_error};
use crate::worker::client::Client;
use crate::worker::closer::Reader;
use crate::worker::feed::{Feed, Found, Front, Place};
use crate::worker::layer0::LogFile;
use crate::worker::outputs::Own;
use crate::worker::piece::{PIECE, Piece};
use crate::worker::reply::{Receiver, reply};
use crate::worker::wait::{Ticket, Waiter};

/// Where a reader gets its bytes.
#[derive(Debug)]
pub(super) struct Source {
    key: Key,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The loop is to be asked. It has to hear how far the reader has read by itself, and whether
    /// the log was not what it was then.
    Due { read: Option<(u64, Mark)>, doubt: bool },
    /// The loop was asked.
    Asked(Receiver<Result<Own>>),
    /// The loop had nothing, and will say when it does.
    Nothing,
    /// There is so much to read from the file.
    Excerpt(Excerpt<LogFile>),
    /// The feed of the log.
    Feed(Follow),
    /// A tail of its own is being opened, at the place that the feed does not have any more.
    FallBack(Follow, Receiver<Result<bool>>),
    /// Everything was read.
    Ended,
}

/// A feed, and what this reader knows of it.
#[derive(Debug)]
struct Follow {
    feed: Arc<Feed>,
    epoch: u64,
    /// The last failure that was reported.
    failure: u64,
    ticket: Option<Ticket>,
    /// It has found nothing, and waits, or was woken meanwhile.
    waits: bool,
    /// The loop was asked for what it has, by a read that does not wait for more.
    asked: Option<Receiver<()>>,
}

/// What a reader finds.
#[derive(Debug)]
pub(super) enum Next {
    /// A piece in which its position lies.
    Piece(Piece),
    /// Bytes in the file, for [`Source::read`] or [`Source::send`].
    File,
    Truncated,
    /// So many bytes were not kept; the position is behind them.
    Skipped(u64),
    UpToDate,
    Ended,
}

/// A reader that asks where to go on.
pub(super) struct Asking<'a> {
    pub(super) client: &'a Client,
    pub(super) reader: &'a Reader,
    /// The offset of the next byte. It moves only when the loop says where the log is read from.
    pub(super) position: &'a mut u64,
    /// The last bytes before the position, for the proof that the log is still the same.
    pub(super) last: Mark,
}

impl Source {
    /// A tail of its own, which the loop knows by this key.
    pub(super) fn new(key: Key) -> Self {
        Self { key, state: State::ASK }
    }

    /// What the loop knows it by.
    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// What a reader at this position was waiting for, if it has come: the next bytes in the feed.
    pub(super) fn awaited(&mut self, position: u64) -> Option<Piece> {
        let State::Feed(Follow { feed, epoch, waits, .. }) = &mut self.state else { return None };
        if !std::mem::take(waits) {
            return None;
        }
        feed.piece(Place { epoch: *epoch, offset: position })
    }

    /// Finds out what there is to do next. With `wait` it is never [`Next::UpToDate`]; without, it
    /// is pending only until the loop has answered.
    pub(super) fn poll(
        &mut self,
        asking: &mut Asking<'_>,
        cx: &mut Context<'_>,
        wait: bool,
    ) -> Poll<Result<Next>> {
        let (key, client, reader) = (self.key, asking.client, asking.reader);
        loop {
            match &mut self.state {
                State::Ended => return Poll::Ready(Ok(Next::Ended)),
                State::Due { read, doubt } => {
                    // Whatever comes from here on is in the answer, or is reported after it.
                    reader.take_news();
                    let (read, doubt) = (read.take(), *doubt);
                    let (sender, receiver) = reply();
                    let posted = client.post(move |engine| {
                        let (outputs, reactor) = (&mut engine.outputs, &mut engine.reactor);
                        sender.send(outputs.next(reactor, key, read, doubt));
                    });
                    match posted {
                        Ok(()) => self.state = State::Asked(receiver),
                        Err(error) if doubt => return Poll::Ready(Err(error)),
                        Err(error) => {
                            if let Some(next) = self.go_on(asking, None, error)? {
                                return Poll::Ready(Ok(next));
                            }
                        }
                    }
                }
                State::Asked(receiver) => {
                    let answer = ready!(receiver.poll(cx));
                    self.state = State::ASK;
                    // Without an answer the loop has ended, as the next request finds out.
                    let Some(answer) = answer else { continue };
                    match answer? {
                        Own::Excerpt(excerpt) => {
                            *asking.position = excerpt.offset();
                            self.state = State::Excerpt(excerpt);
                        }
                        Own::Piece(piece) => {
                            *asking.position = piece.offset;
                            return Poll::Ready(Ok(Next::Piece(piece)));
                        }
                        Own::Truncated => return Poll::Ready(Ok(Next::Truncated)),
                        Own::Skipped(to, bytes) => {
                            *asking.position = to;
                            return Poll::Ready(Ok(Next::Skipped(bytes)));
                        }
                        Own::Nothing => self.state = State::Nothing,
                        Own::Joined(feed, place) => {
                            *asking.position = place.offset;
                            self.state = State::Feed(Follow::new(feed, place.epoch));
                        }
                        Own::Ended => self.state = State::Ended,
                    }
                }
                State::Nothing if reader.take_news() => self.state = State::ASK,
                State::Nothing if wait => return Poll::Pending,
                State::Nothing => return Poll::Ready(Ok(Next::UpToDate)),
                State::Excerpt(excerpt) if excerpt.left() > 0 => {
                    return Poll::Ready(Ok(Next::File));
                }
                State::Excerpt(excerpt) => self.state = State::after(excerpt, false),
                State::Feed(follow) => {
                    if let Some(asked) = &mut follow.asked {
                        let _ = ready!(asked.poll(cx));
                        follow.asked = None;
                    }
                    let place = Place { epoch: follow.epoch, offset: *asking.position };
                    let lost = match follow.look(place, wait.then_some(reader.waiter())) {
                        Found::Piece(piece) => return Poll::Ready(Ok(Next::Piece(piece))),
                        Found::Truncated(place) => {
                            follow.epoch = place.epoch;
                            return Poll::Ready(Ok(Next::Truncated));
                        }
                        Found::Nothing(front) if wait => {
                            if front != Front::Stalled {
                                return Poll::Pending;
                            }
                            let posted = client.post(move |engine| {
                                engine.outputs.wanted(&mut engine.reactor, key);
                            });
                            match posted {
                                Ok(()) => return Poll::Pending,
                                Err(error) => error,
                            }
                        }
                        Found::Nothing(Front::Armed) => return Poll::Ready(Ok(Next::UpToDate)),
                        Found::Nothing(Front::Stalled | Front::Asked) => {
                            let (sender, receiver) = reply();
                            let posted = client.post(move |engine| {
                                engine.outputs.wanted(&mut engine.reactor, key);
                                sender.send(());
                            });
                            match posted {
                                Ok(()) => {
                                    follow.asked = Some(receiver);
                                    continue;
                                }
                                Err(error) => error,
                            }
                        }
                        Found::Behind => {
                            follow.feed.leave(follow.ticket.take());
                            let (sender, receiver) = reply();
                            let last = asking.last;
                            let posted = client.post(move |engine| {
                                let (outputs, reactor) = (&mut engine.outputs, &mut engine.reactor);
                                sender.send(outputs.fall_back(reactor, key, place, last));
                            });
                            match posted {
                                Ok(()) => {
                                    let feed = Arc::clone(&follow.feed);
                                    let follow = Follow::new(feed, follow.epoch);
                                    self.state = State::FallBack(follow, receiver);
                                    continue;
                                }
                                Err(error) => error,
                            }
                        }
                        Found::Failed(number, error) => {
                            follow.failure = number;
                            return Poll::Ready(Err(error));
                        }
                        Found::Ended => {
                            // Nothing has to be kept for it any more, unless the loop has ended.
                            let _ = client.post(move |engine| {
                                engine.outputs.close(&mut engine.reactor, key);
                            });
                            self.state = State::Ended;
                            continue;
                        }
                        Found::Lost => client.why(),
                    };
                    if let Some(next) = self.go_on(asking, Some(place.epoch), lost)? {
                        return Poll::Ready(Ok(next));
                    }
                }
                State::FallBack(_, receiver) => {
                    // Without an answer the loop has ended, which the feed tells.
                    let answer = ready!(receiver.poll(cx)).unwrap_or(Ok(false));
                    let before = std::mem::replace(&mut self.state, State::ASK);
                    if let (State::FallBack(follow, _), Ok(false) | Err(_)) = (before, &answer) {
                        // The log was truncated meanwhile, which the feed tells.
                        self.state = State::Feed(follow);
                    }
                    answer?;
                }
            }
        }
    }

    /// Goes on with what the loop has left when it ended, or fails with this error if that is
    /// nothing. `epoch` is the one in the feed, for a reader that has that.
    fn go_on(
        &mut self,
        asking: &mut Asking<'_>,
        epoch: Option<u64>,
        error: Error,
    ) -> Result<Option<Next>> {
        let Asking { reader, position, last, .. } = asking;
        let rest = reader.rest(self.key, epoch, **position, *last).ok_or(error)?;
        let skipped = rest.start().saturating_sub(**position);
        if skipped > 0 {
            **position += skipped;
            return Ok(Some(Next::Skipped(skipped)));
        }
        self.state = if rest.left() > 0 { State::Excerpt(rest) } else { State::Ended };
        Ok(None)
    }

    /// Reads the next piece from the file, after [`Next::File`]. The answer is `false` when the log
    /// is not what it was: the next poll finds out what has happened. After a failure, it can be
    /// read again.
    pub(super) fn read(&mut self, piece: &mut Piece) -> Result<bool> {
        let excerpt = self.excerpt();
        let length = usize::try_from(excerpt.left()).unwrap_or(usize::MAX).min(PIECE);
        let (offset, file) = (excerpt.offset(), Arc::clone(excerpt.file()));
        let read = piece.read(offset, length, |buffer| {
            excerpt.read(buffer, |buffer, offset| file.read_at(buffer, offset))
        });
        match read {
            Ok(true) => {}
            Ok(false) => self.state = State::after(excerpt, true),
            Err(cause) => return Err(into_error("read log", file.path().to_owned(), cause)),
        }
        Ok(matches!(read, Ok(true)))
    }

    /// Sends bytes of the file to a descriptor, after [`Next::File`], and says how many.
    pub(super) fn send(&mut self, to: BorrowedFd<'_>, most: usize) -> io::Result<Sent> {
        let excerpt = self.excerpt();
        if excerpt.may_be_given_back() {
            // What was read can be checked before it is handed out, but not what was sent.
            return Ok(Sent::Refused);
        }
        let file = Arc::clone(excerpt.file());
        let send = |mut offset, left| {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(most);
            Ok(retry_on_intr(|| sendfile(to, &*file, Some(&mut offset), most))?)
        };
        match excerpt.send(send, |buffer, offset| file.read_at(buffer, offset)) {
            // Of a file that ends before its known end, nothing can be sent.
            Ok(None | Some(0)) => {
                self.state = State::after(excerpt, true);
                Ok(Sent::Doubt)
            }
            Ok(Some(sent)) => Ok(Sent::Bytes(sent)),
            Err(error) => match Errno::from_io_error(&error) {
                // Of descriptors, it is one in append mode, or of a sort that can only be written.
                Some(Errno::INVAL | Errno::NOSYS) => Ok(Sent::Refused),
                _ => Err(error),
            },
        }
    }

    /// Whether what comes next comes in memory of its own.
    pub(super) fn is_at_end(&self) -> bool {
        matches!(self.state, State::Nothing | State::Feed(_) | State::Ended)
    }

    /// What was read last of the file, if it reads that.
    pub(super) fn last(&self) -> Option<&Mark> {
        match &self.state {
            State::Excerpt(excerpt) => excerpt.last(),
            State::Due { read: Some((_, last)), .. } => Some(last),
            _ => None,
        }
    }

    fn excerpt(&mut self) -> &mut Excerpt<LogFile> {
        let State::Excerpt(excerpt) = &mut self.state else {
            unreachable!("the reader was told that there are bytes in the file")
        };
        excerpt
    }

    /// Does not wait any more.
    pub(super) fn leave(&self) {
        if let State::Feed(follow) = &self.state {
            follow.feed.leave(follow.ticket);
        }
    }
}

/// What has become of bytes that were to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// So many were sent.
    Bytes(usize),
    /// Such a descriptor cannot be sent to, or such a log cannot be sent: the bytes have to be read
    /// and written.
    Refused,
    /// The log is not what it was: the next poll finds out what has happened.
    Doubt,
}

impl State {
    /// To ask the loop, which knows how far the reader has come.
    const ASK: Self = Self::Due { read: None, doubt: false };

    /// An excerpt was read, or cannot be read any further.
    fn after(excerpt: &Excerpt<LogFile>, doubt: bool) -> Self {
        let read = excerpt.last().map(|last| (excerpt.offset(), *last));
        Self::Due { read, doubt }
    }
}

impl Follow {
    fn new(feed: Arc<Feed>, epoch: u64) -> Self {
        Self { feed, epoch, failure: 0, ticket: None, waits: false, asked: None }
    }

    fn look(&mut self, place: Place, waiter: Option<&Arc<Waiter>>) -> Found {
        let found = match waiter {
            Some(waiter) => self.feed.look_or_wait(place, self.failure, &mut self.ticket, waiter),
            None => self.feed.look(place, self.failure),
        };
        self.waits = waiter.is_some() && matches!(found, Found::Nothing(_));
        found
    }
}
