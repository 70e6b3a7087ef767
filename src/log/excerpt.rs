//! Owns [`Excerpt`]: bytes of a log that are known to be in its file, for a reader on any thread.
//!
//! Invariants: what is given out is of the content that the loop knew when it made the excerpt, and
//! was not given back to the file system. Two marks prove the former after each read: the last
//! bytes that the loop had seen, and the last bytes that the reader has read; the latter is proved
//! by the start that the loop publishes before it gives anything back. Pure: it reads through a
//! closure, and knows nothing of tails.

use std::io;
use std::sync::Arc;

use crate::log::published::Published;
use crate::log::window::Mark;

/// Bytes of a log from an offset on, to an end that is known.
#[derive(Debug)]
pub(crate) struct Excerpt<F> {
    file: Arc<F>,
    published: Arc<Published<F>>,
    offset: u64,
    end: u64,
    /// Of the last bytes that the loop has seen.
    newest: Mark,
    /// Of the last bytes that the reader has read, unless it has read none.
    last: Option<Mark>,
}

impl<F> Excerpt<F> {
    pub(crate) fn new(
        (file, published): (Arc<F>, Arc<Published<F>>),
        (offset, end): (u64, u64),
        newest: Mark,
        last: Option<Mark>,
    ) -> Self {
        Self { file, published, offset, end, newest, last }
    }

    /// The same, for a reader that has read up to this offset, where the bytes of the mark end.
    pub(crate) fn from(&self, offset: u64, last: Mark) -> Self {
        let files = (Arc::clone(&self.file), Arc::clone(&self.published));
        Self::new(files, (offset, self.end.max(offset)), self.newest, Some(last))
    }

    /// Where the log begins now, if bytes before that were given back.
    pub(crate) fn start(&self) -> u64 {
        self.published.start_after_read().min(self.end)
    }

    /// The open log.
    pub(crate) fn file(&self) -> &Arc<F> {
        &self.file
    }

    /// The offset of the next byte.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> u64 {
        self.end - self.offset
    }

    /// What was read last, for whoever reads on.
    pub(crate) fn last(&self) -> Option<&Mark> {
        self.last.as_ref()
    }

    /// Fills the buffer, which is not larger than what is left, and moves on. `read(buffer,
    /// offset)` gives fewer bytes than it is asked for only at the end of the file.
    ///
    /// The answer is `false`, and nothing was read, if the log is not what it was. Then only the
    /// loop can say what has happened.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<bool> {
        let length = read(buffer, self.offset)?;
        // The start first: the marks then prove that it is that of the content.
        let good = length == buffer.len()
            && self.published.start_after_read() <= self.offset
            && self.holds(read)?;
        if good {
            self.last = Some(Mark::of_last(buffer, self.offset));
            self.offset += length as u64;
        }
        Ok(good)
    }

    /// Whether bytes may be given back at any moment: then they cannot be sent without a look.
    pub(crate) fn may_be_given_back(&self) -> bool {
        self.published.gives_back()
    }

    /// Moves on over bytes that `send` takes from the file without showing them: it says how many,
    /// and gets no more than are left. Returns that, or `None` if the log was not what it was
    /// before the call.
    ///
    /// If the log is truncated during the call, some of the bytes may have been of another content.
    /// Then the next read is refused.
    pub(crate) fn send(
        &mut self,
        send: impl FnOnce(u64, u64) -> io::Result<usize>,
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        if !self.holds(&mut read)? {
            return Ok(None);
        }
        let sent = send(self.offset, self.left())?;
        // Whatever fails from here on, these bytes are gone.
        self.offset += sent as u64;
        let mut last = [0; Mark::MOST];
        let seen = &mut last[..sent.min(Mark::MOST)];
        let from = self.offset - seen.len() as u64;
        if !seen.is_empty() && matches!(read(seen, from), Ok(length) if length == seen.len()) {
            self.last = Some(Mark::of_last(seen, from));
        }
        Ok(Some(sent))
    }

    /// Whether the file still holds what was seen of it. What the reader has read last may have
    /// been given back since.
    fn holds(&self, mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>) -> io::Result<bool> {
        let start = self.published.start_after_read();
        let last = self.last.as_ref().filter(|last| last.offset() >= start);
        Ok(self.newest.holds(&mut read)? && last.map_or(Ok(true), |last| last.holds(&mut read))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::window::Window;

    fn reader(log: &[u8]) -> impl FnMut(&mut [u8], u64) -> io::Result<usize> {
        move |buffer, offset| {
            let rest = log.get(usize::try_from(offset).unwrap()..).unwrap_or(&[]);
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        }
    }

    /// Of a whole log.
    fn excerpt(log: &[u8]) -> Excerpt<()> {
        let mut window = Window::new(0, 1024);
        window.refill(reader(log)).unwrap();
        let files = (Arc::new(()), Arc::new(Published::new()));
        Excerpt::new(files, (0, log.len() as u64), window.mark(), None)
    }

    #[test]
    fn what_is_given_back_during_a_read_is_refused() {
        let log: Vec<u8> = (1..101).collect();
        let mut excerpt = excerpt(&log);
        let mut buffer = [0; 10];
        assert!(excerpt.read(&mut buffer, reader(&log)).unwrap());
        let published = Arc::clone(&excerpt.published);
        let mut holed = log.clone();
        holed[..15].fill(0);
        let good = excerpt.read(&mut buffer, |buffer, offset| {
            published.set_start(15);
            reader(&holed)(buffer, offset)
        });
        assert!(!good.unwrap());
        // From there on it can be read, although what was read last is gone.
        published.set_start(10);
        holed[10..15].copy_from_slice(&log[10..15]);
        assert!(excerpt.read(&mut buffer, reader(&holed)).unwrap());
        assert_eq!(buffer, log[10..20]);
    }

    #[test]
    fn an_excerpt_is_read_to_its_end_and_not_beyond() {
        let log: Vec<u8> = (0..200).collect();
        let mut excerpt = excerpt(&log[..100]);
        let (mut found, mut buffer) = (Vec::new(), [0; 33]);
        while excerpt.left() > 0 {
            let length = excerpt.left().min(33) as usize;
            assert!(excerpt.read(&mut buffer[..length], reader(&log)).unwrap());
            found.extend_from_slice(&buffer[..length]);
        }
        assert_eq!(found, log[..100]);
        assert_eq!(excerpt.offset(), 100);
    }

    #[test]
    fn a_log_that_has_changed_behind_the_reader_or_before_it_is_refused() {
        let log: Vec<u8> = (0..100).collect();
        let mut buffer = [0; 10];
        for changed in [5, 95] {
            let mut excerpt = excerpt(&log);
            assert!(excerpt.read(&mut buffer, reader(&log)).unwrap());
            let mut other = log.clone();
            other[changed] += 100;
            assert!(!excerpt.read(&mut buffer, reader(&other)).unwrap(), "{changed}");
            assert!(!excerpt.read(&mut buffer, reader(&log[..50])).unwrap());
            let sent = excerpt.send(|_, _| panic!("it is not to be sent"), reader(&other));
            assert_eq!(sent.unwrap(), None);
            // Nothing was read by that.
            assert!(excerpt.read(&mut buffer, reader(&log)).unwrap());
            assert_eq!(buffer, log[10..20]);
        }
    }

    #[test]
    fn what_was_sent_is_known_again() {
        let log: Vec<u8> = (0..100).collect();
        let mut excerpt = excerpt(&log);
        let sent = excerpt.send(
            |offset, left| {
                assert_eq!((offset, left), (0, 100));
                Ok(40)
            },
            reader(&log),
        );
        assert_eq!((sent.unwrap(), excerpt.offset()), (Some(40), 40));
        let mut other = log.clone();
        other[39] += 100;
        let mut buffer = [0; 60];
        assert!(!excerpt.read(&mut buffer, reader(&other)).unwrap());
        assert!(excerpt.read(&mut buffer, reader(&log)).unwrap());
        assert_eq!(excerpt.left(), 0);
        // A failure to send changes nothing.
        let mut excerpt = self::excerpt(&log);
        let full = excerpt.send(|_, _| Err(io::ErrorKind::WouldBlock.into()), reader(&log));
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(excerpt.offset(), 0);
    }
}
