//! Owns [`Window`]: the last bytes of a log, at absolute offsets, in one contiguous piece.
//!
//! Invariant: `buffer[..high]` holds the bytes `start()..end()` of the log. Pure: it reads through
//! a closure and knows neither files nor tails.

/// How many bytes before the end are read again with each refill and compared, to notice that a log
/// was truncated and has grown past its old end since the last refill.
pub(crate) const OVERLAP: usize = 16;

/// The newest bytes of a log.
#[derive(Debug)]
pub(crate) struct Window {
    /// No more than a mark until the first refill; three times `keep` from then on.
    buffer: Vec<u8>,
    high: usize,
    /// The offset in the log of the byte after `buffer[high - 1]`.
    end: u64,
    /// How many bytes one refill adds at most, and how many are kept at least.
    keep: usize,
}

/// What a refill found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refill {
    /// The log has grown by this many bytes, which the window now holds. When it is as much as one
    /// refill takes, there may be more.
    Grown(usize),
    /// The log ends where the window ends.
    Unchanged,
    /// The log is not what it was: it is shorter, or other bytes stand where the window's were.
    Truncated,
}

impl Window {
    /// A window on a log of `size` bytes, for [`restart`](Self::restart).
    pub(crate) fn new(size: u64, keep: usize) -> Self {
        let mut window = Self { buffer: Vec::new(), high: 0, end: 0, keep: keep.max(OVERLAP) };
        window.restart(size);
        window
    }

    /// A window like this one on a log of `size` bytes.
    pub(crate) fn moved_to(&self, size: u64) -> Self {
        Self::new(size, self.keep)
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    fn start(&self) -> u64 {
        self.end - self.high as u64
    }

    /// Whether a refill that added this much may have left something behind.
    pub(crate) fn is_full_refill(&self, added: usize) -> bool {
        added >= self.keep
    }

    /// The bytes from `offset` to the end, or `None` when the window does not hold them.
    pub(crate) fn from(&self, offset: u64) -> Option<&[u8]> {
        if offset < self.start() || offset >= self.end {
            return None;
        }
        let skip = usize::try_from(offset - self.start()).ok()?;
        self.buffer.get(skip..self.high)
    }

    /// Whether these bytes are among those of the window, as far as it has them.
    pub(crate) fn agrees(&self, mark: &Mark) -> bool {
        let mark = mark.from(self.start());
        self.from(mark.offset).is_none_or(|bytes| mark.begins(bytes))
    }

    /// Forgets every byte. The log has `size` bytes, of which the next refill reads the last few:
    /// without any, a log that was rewritten could not be told apart from one that has grown.
    pub(crate) fn restart(&mut self, size: u64) {
        self.high = 0;
        self.end = size.saturating_sub(OVERLAP as u64);
    }

    /// Goes to where these bytes of the log end, and forgets every other byte.
    pub(crate) fn skip_to(&mut self, last: &Mark) {
        if self.buffer.len() < last.length {
            self.buffer.resize(OVERLAP, 0);
        }
        self.buffer[..last.length].copy_from_slice(&last.bytes[..last.length]);
        self.high = last.length;
        self.end = last.offset + last.length as u64;
    }

    /// The last bytes, to be compared with the file later.
    pub(crate) fn mark(&self) -> Mark {
        let held = &self.buffer[..self.high];
        // Copied at once as soon as there are so many: once for every line.
        let (bytes, length) = match held.last_chunk() {
            Some(last) => (*last, OVERLAP),
            None => {
                let mut bytes = [0; OVERLAP];
                bytes[..held.len()].copy_from_slice(held);
                (bytes, held.len())
            }
        };
        Mark { bytes, length, offset: self.end - length as u64 }
    }

    /// Reads what the log has behind the window's end, up to `keep` bytes, by `read(buffer,
    /// offset)`, which is to give fewer bytes than it is asked for only at the end of the log.
    ///
    /// What it adds may be a mixture, if the log was truncated meanwhile: unless that is known not
    /// to have happened, [`confirm`](Self::confirm) has to follow.
    pub(crate) fn refill<E>(
        &mut self,
        mut read: impl FnMut(&mut [u8], u64) -> Result<usize, E>,
    ) -> Result<Refill, E> {
        if self.buffer.len() < 3 * self.keep {
            // Zeroed by the kernel as its pages are first touched.
            let held = std::mem::replace(&mut self.buffer, vec![0; 3 * self.keep]);
            self.buffer[..self.high].copy_from_slice(&held[..self.high]);
        }
        if self.buffer.len() - self.high < self.keep {
            // More than twice `keep` bytes are held here, and `keep` of them stay: the next move
            // comes after as many bytes were read as this one moves, however few come
            // at a time.
            self.buffer.copy_within(self.high - self.keep..self.high, 0);
            self.high = self.keep;
        }
        let mark = self.mark();
        let overlap = mark.length;
        let from = self.high - overlap;

        let target = &mut self.buffer[from..self.high + self.keep];
        let length = match read(target, mark.offset) {
            Ok(length) => length.min(target.len()),
            Err(error) => {
                target[..overlap].copy_from_slice(&mark.bytes[..overlap]);
                return Err(error);
            }
        };
        let found = &target[..length];
        // What the window held is not in the log any more; or, after a restart, not the last bytes
        // that it had.
        if !mark.begins(found) || length == 0 && self.end > 0 {
            return Ok(Refill::Truncated);
        }
        let grown = length - overlap;
        self.high += grown;
        self.end += grown as u64;
        debug_assert!(self.high <= self.buffer.len() && self.high as u64 <= self.end);
        Ok(if grown == 0 { Refill::Unchanged } else { Refill::Grown(grown) })
    }

    /// Reads again what the last refill has read to add so many bytes, and drops these if the log
    /// does not have all of it any more, or if reading fails. Says whether they are good.
    ///
    /// # Kernel trap
    /// A read does not keep a truncation out. It takes pages from the page cache one by one, checks
    /// the size of the file only then, and copies; tmpfs goes on to where the size has moved
    /// meanwhile. Of a file that was truncated and has grown again during the read, it gives bytes
    /// of before, with NULs behind them or without, and then bytes of now: even within one page,
    /// once in some thousand truncations on tmpfs and some ten thousand on ext4, if they come one
    /// after the other. What was there twice, in the same place, is not such a mixture: whatever
    /// was truncated before the end of the first read is gone for the second one.
    pub(crate) fn confirm<E>(
        &mut self,
        added: usize,
        read: impl FnMut(&mut [u8], u64) -> Result<usize, E>,
    ) -> Result<bool, E> {
        // The bytes before them that were read as well are part of the mixture.
        let overlap = OVERLAP.min(self.high - added);
        let found = &self.buffer[self.high - added - overlap..self.high];
        let good = reads_again(found, self.end - found.len() as u64, read);
        if !matches!(good, Ok(true)) {
            self.high -= added;
            self.end -= added as u64;
        }
        good
    }
}

/// What a few lines have, and how much is read again at a time otherwise. The memory is zeroed
/// before each use, and on the stack of the host's thread.
const SOME: usize = 1024;
const MANY: usize = 16 * 1024;

/// Whether the log still has these bytes at this offset.
fn reads_again<E>(
    bytes: &[u8],
    offset: u64,
    read: impl FnMut(&mut [u8], u64) -> Result<usize, E>,
) -> Result<bool, E> {
    match bytes.len() {
        0 => Ok(true),
        length if length <= OVERLAP => reads_again_by(&mut [0; OVERLAP], bytes, offset, read),
        length if length <= SOME => reads_some_again(bytes, offset, read),
        _ => reads_many_again(bytes, offset, read),
    }
}

/// In a function of its own, so that the callers need no stack for it.
#[inline(never)]
fn reads_some_again<E>(
    bytes: &[u8],
    offset: u64,
    read: impl FnMut(&mut [u8], u64) -> Result<usize, E>,
) -> Result<bool, E> {
    reads_again_by(&mut [0; SOME], bytes, offset, read)
}

/// As [`reads_some_again`].
#[inline(never)]
fn reads_many_again<E>(
    bytes: &[u8],
    offset: u64,
    read: impl FnMut(&mut [u8], u64) -> Result<usize, E>,
) -> Result<bool, E> {
    reads_again_by(&mut [0; MANY], bytes, offset, read)
}

/// As [`reads_again`], with the memory to read into.
fn reads_again_by<E>(
    again: &mut [u8],
    bytes: &[u8],
    mut offset: u64,
    mut read: impl FnMut(&mut [u8], u64) -> Result<usize, E>,
) -> Result<bool, E> {
    for part in bytes.chunks(again.len()) {
        let again = &mut again[..part.len()];
        if read(again, offset)? < part.len() || again != part {
            return Ok(false);
        }
        offset += part.len() as u64;
    }
    Ok(true)
}

/// Some bytes of a log and where they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    bytes: [u8; OVERLAP],
    length: usize,
    offset: u64,
}

impl Mark {
    /// How many bytes a mark has at most.
    pub(crate) const MOST: usize = OVERLAP;

    /// The last of these bytes, which are at this offset of the log.
    pub(crate) fn of_last(bytes: &[u8], offset: u64) -> Self {
        let length = bytes.len().min(OVERLAP);
        let skip = bytes.len() - length;
        let mut last = [0; OVERLAP];
        last[..length].copy_from_slice(&bytes[skip..]);
        Self { bytes: last, length, offset: offset + skip as u64 }
    }

    /// The first of these bytes, which are at this offset of the log.
    pub(crate) fn of_first(bytes: &[u8], offset: u64) -> Self {
        Self::of_last(&bytes[..bytes.len().min(OVERLAP)], offset)
    }

    /// What is left of it where nothing before `start` was kept.
    pub(crate) fn from(&self, start: u64) -> Self {
        let skip = usize::try_from(start.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let bytes = self.bytes[..self.length].get(skip..).unwrap_or_default();
        Self::of_last(bytes, self.offset + (self.length - bytes.len()) as u64)
    }

    /// The last of its bytes and these, which are at this offset: those of the mark come before
    /// them, if it ends there.
    pub(crate) fn and(&self, bytes: &[u8], offset: u64) -> Self {
        if bytes.len() >= OVERLAP || self.end() != offset {
            return Self::of_last(bytes, offset);
        }
        Self::of_last(&[self.bytes(), bytes].concat(), self.offset)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Where its bytes are.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The offset behind its bytes.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.length as u64
    }

    /// Whether these bytes, which were just read from where it was made, begin with it.
    fn begins(&self, found: &[u8]) -> bool {
        match found.first_chunk() {
            Some(first) if self.length == OVERLAP => *first == self.bytes,
            _ => found.starts_with(&self.bytes[..self.length]),
        }
    }

    /// Whether the log still has these bytes there: then whatever was read since the mark was made
    /// is of the same log.
    pub(crate) fn holds<E>(
        &self,
        read: impl FnMut(&mut [u8], u64) -> Result<usize, E>,
    ) -> Result<bool, E> {
        reads_again(&self.bytes[..self.length], self.offset, read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn refill(window: &mut Window, log: &[u8]) -> Refill {
        let read = |buffer: &mut [u8], offset: u64| {
            let rest = log.get(usize::try_from(offset).unwrap()..).unwrap_or(&[]);
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok::<_, Infallible>(length)
        };
        match window.refill(read) {
            Ok(refill) => refill,
        }
    }

    #[test]
    fn bytes_keep_their_offsets_while_the_window_slides() {
        let log: Vec<u8> = (0..1000u32).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect();
        let mut window = Window::new(0, 32);
        for end in (0..=1000).step_by(25) {
            while window.end() < end as u64 {
                assert!(matches!(refill(&mut window, &log[..end]), Refill::Grown(_)));
            }
            for offset in end.saturating_sub(32)..end {
                assert_eq!(window.from(offset as u64).unwrap(), &log[offset..end]);
            }
            assert_eq!(window.from(end as u64), None);
        }
        assert_eq!(window.from(0), None);
    }

    /// Where a tail that was behind it goes on.
    #[test]
    fn a_window_agrees_with_its_own_bytes_and_with_those_before_it() {
        let log: Vec<u8> = (0..100).collect();
        let mut window = Window::new(0, 32);
        while window.end() < 100 {
            refill(&mut window, &log);
        }
        let start = usize::try_from(window.start()).unwrap();
        assert!((OVERLAP..100 - OVERLAP).contains(&start));
        for end in OVERLAP..=100 {
            let from = end - OVERLAP;
            let mut bytes = log[from..end].to_vec();
            assert!(window.agrees(&Mark::of_last(&bytes, from as u64)), "{end}");
            bytes[OVERLAP - 1] += 100;
            assert_eq!(window.agrees(&Mark::of_last(&bytes, from as u64)), end <= start, "{end}");
        }
    }

    /// A window of twice `keep` bytes used to be moved at every refill once it was full: 64 KiB for
    /// each line of a log.
    #[test]
    fn a_window_moves_no_more_bytes_than_it_reads() {
        let (log, mut window, mut moves) = ([7; 1000], Window::new(0, 32), 0);
        for end in 1..=log.len() {
            let start = window.start();
            refill(&mut window, &log[..end]);
            moves += usize::from(window.start() != start);
        }
        assert!(moves > 0 && moves * 32 <= log.len(), "{moves} moves of 32 bytes");
    }

    #[test]
    fn a_refill_takes_a_bounded_amount() {
        let mut window = Window::new(0, 32);
        assert_eq!(refill(&mut window, &[7; 100]), Refill::Grown(32));
        assert!(window.is_full_refill(32));
        assert_eq!(refill(&mut window, &[7; 40]), Refill::Grown(8));
        assert_eq!(refill(&mut window, &[7; 40]), Refill::Unchanged);
    }

    #[test]
    fn a_log_that_shrank_or_was_written_anew_is_noticed() {
        for after in [&b""[..], b"first li", b"other line", b"other and longer line"] {
            let mut window = Window::new(0, 32);
            assert_eq!(refill(&mut window, b"first line"), Refill::Grown(10));
            assert_eq!(refill(&mut window, after), Refill::Truncated, "{after:?}");
        }
        assert_eq!(refill(&mut Window::new(30, 32), b""), Refill::Truncated);
        assert_eq!(refill(&mut Window::new(0, 32), b""), Refill::Unchanged);
    }

    #[test]
    fn a_log_that_is_only_watched_from_its_end_on_is_still_known_again() {
        let mut window = Window::new(30, 32);
        assert_eq!(refill(&mut window, b"a line of which no byte is new"), Refill::Grown(16));
        assert_eq!(
            refill(&mut window, b"another log, longer than the last one"),
            Refill::Truncated
        );
    }

    const PAGE: usize = 4096;

    /// What a read gets that a truncation overtakes: of the pages that `before` had, or of all that
    /// it held, what was in them; the rest of `after`, and the size of that.
    fn racing(before: &[u8], pages: bool, after: &[u8], buffer: &mut [u8], offset: u64) -> usize {
        let offset = usize::try_from(offset).unwrap();
        let length = after.len().saturating_sub(offset).min(buffer.len());
        let cached = if pages { before.len().next_multiple_of(PAGE) } else { before.len() };
        for (index, byte) in buffer[..length].iter_mut().enumerate() {
            let at = offset + index;
            *byte = if at < cached { before.get(at).copied().unwrap_or(0) } else { after[at] };
        }
        length
    }

    #[test]
    fn a_read_that_a_truncation_has_overtaken_gives_nothing() {
        let (old, new) = (vec![b'o'; 3 * PAGE], vec![b'n'; 3 * PAGE]);
        let sizes = [1, 2, 100, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE];
        for (known, held, after) in sizes.into_iter().flat_map(|held| {
            let known = [0, 1, held / 2, held].into_iter().filter(move |known| *known <= held);
            known.flat_map(move |known| sizes.map(|after| (known, held, after)))
        }) {
            for pages in [false, true] {
                let case = format!("{known} known of {held}, then {after}, {pages}");
                let mut window = Window::new(0, 3 * PAGE);
                refill(&mut window, &old[..known]);
                let (old, new) = (&old[..held], &new[..after]);
                let found = window.refill(|buffer, offset| {
                    Ok::<_, Infallible>(racing(old, pages, new, buffer, offset))
                });
                let Ok(Refill::Grown(added)) = found else { continue };
                let again = window.confirm(added, |buffer, offset| {
                    Ok::<_, Infallible>(racing(new, false, new, buffer, offset))
                });
                if again == Ok(true) {
                    // Nothing was known, and nothing was there.
                    assert_eq!(known, 0, "{case}");
                    assert_eq!(window.from(0).unwrap(), new, "{case}");
                } else {
                    assert_eq!(window.end(), known as u64, "{case}");
                    assert_eq!(window.from(0).unwrap_or(&[]), &old[..known], "{case}");
                }
            }
        }
    }

    #[test]
    fn nuls_that_are_in_the_log_are_given() {
        let log = vec![0; 2 * PAGE + 1];
        let mut window = Window::new(0, 3 * PAGE);
        for end in [1, PAGE, PAGE + 1, 2 * PAGE, 2 * PAGE + 1] {
            assert!(matches!(refill(&mut window, &log[..end]), Refill::Grown(_)));
        }
        assert_eq!(window.from(0).unwrap(), log);
    }

    #[test]
    fn a_mark_proves_what_is_left_of_it() {
        let log: Vec<u8> = (1..100).collect();
        let mark = Mark::of_last(&log[..50], 0);
        let mut holed = log.clone();
        holed[..40].fill(0);
        let holds = |mark: &Mark, log: &[u8]| {
            let read = |buffer: &mut [u8], offset: u64| {
                let from = usize::try_from(offset).unwrap();
                buffer.copy_from_slice(&log[from..from + buffer.len()]);
                Ok::<_, Infallible>(buffer.len())
            };
            mark.holds(read) == Ok(true)
        };
        assert!(holds(&mark, &log) && !holds(&mark, &holed));
        assert!(holds(&mark.from(40), &holed) && holds(&mark.from(3), &log));
        holed[49] = 0;
        assert!(!holds(&mark.from(40), &holed));
        assert!(holds(&mark.from(50), &holed) && holds(&mark.from(99), &holed));
    }

    #[test]
    fn a_window_that_has_skipped_knows_the_log_again() {
        let log: Vec<u8> = (0..200).collect();
        let mut other = log.clone();
        other[159] += 1;
        for before in [0, 10, 150] {
            for same in [false, true] {
                let mut window = Window::new(0, 32);
                while window.end() < before {
                    refill(&mut window, &log[..usize::try_from(before).unwrap()]);
                }
                window.skip_to(&Mark::of_last(&log[..160], 0));
                assert_eq!((window.end(), window.from(160)), (160, None));
                if same {
                    assert_eq!(refill(&mut window, &log), Refill::Grown(32));
                    assert_eq!(window.from(160).unwrap(), &log[160..192]);
                } else {
                    assert_eq!(refill(&mut window, &other), Refill::Truncated, "{before}");
                }
            }
        }
    }

    #[test]
    fn a_failed_read_changes_nothing() {
        let mut window = Window::new(0, 32);
        refill(&mut window, b"first line");
        let failed = window.refill(|buffer, _| {
            buffer.fill(0);
            Err("no")
        });
        assert_eq!(failed, Err("no"));
        assert_eq!(window.from(0), Some(&b"first line"[..]));
        assert_eq!(refill(&mut window, b"first line."), Refill::Grown(1));
        assert_eq!(window.confirm(1, |_, _| Err("no")), Err("no"));
        assert_eq!(window.from(0), Some(&b"first line"[..]));
        assert_eq!(refill(&mut window, b"first line."), Refill::Grown(1));
    }
}
