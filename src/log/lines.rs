//! Owns [`Search`]: where the last lines of a log begin, found by reading backwards, in steps.
//!
//! Invariant: a step does a bounded amount of work, however large the log is and whatever it holds;
//! holes are not read. Pure: it reads through a [`SparseFile`].

use std::io;

/// What a search reads.
pub(crate) trait SparseFile {
    /// Reads at an offset. Gives fewer bytes than the buffer holds only at the end of the file.
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The first offset from this one on that is not in a hole; beyond the end if there is none.
    fn data_from(&mut self, offset: u64) -> io::Result<u64>;
}

/// The first piece, which usually has the last lines.
const FIRST_PIECE: u64 = 8 * 1024;
/// Every further piece.
const PIECE: u64 = 64 * 1024;
/// How many bytes one step reads, more or less.
const BUDGET: u64 = 512 * 1024;
/// Looking for a hole counts as reading so many bytes.
const PROBE: u64 = 16 * 1024;

/// A search for the offset at which the last lines before `end` begin.
#[derive(Debug)]
pub(crate) struct Search {
    end: u64,
    lines: u64,
    /// How many newlines that begin a line were found from `upper` on.
    newlines: u64,
    /// What lies behind this offset has been searched.
    upper: u64,
    /// The next piece.
    span: u64,
    /// The last piece had nothing but NULs: the next one may be a hole.
    in_hole: bool,
    buffer: Vec<u8>,
}

impl Search {
    /// A search for the last `lines` lines of the first `end` bytes.
    pub(crate) fn new(end: u64, lines: u64) -> Self {
        Self {
            end,
            lines,
            newlines: 0,
            upper: end,
            span: FIRST_PIECE,
            in_hole: false,
            buffer: Vec::new(),
        }
    }

    /// Searches on, for one step, in a log that begins at `start`. The offset, if that has found
    /// it.
    pub(crate) fn go_on(
        &mut self,
        start: u64,
        file: &mut impl SparseFile,
    ) -> io::Result<Option<u64>> {
        if self.lines == 0 {
            return Ok(Some(self.end));
        }
        let mut spent = 0;
        while self.upper > start {
            if spent >= BUDGET {
                return Ok(None);
            }
            let mut lower = self.upper.saturating_sub(self.span).max(start);
            if self.in_hole {
                spent += PROBE;
                let data = file.data_from(lower)?;
                if data >= self.upper {
                    // All of it is a hole. The next one may be larger.
                    self.upper = lower;
                    self.span = self.span.saturating_mul(2);
                    continue;
                }
                if self.span > PIECE {
                    // Its last data is in the second half, or that is a hole.
                    self.span = (self.span / 2).max(PIECE);
                    continue;
                }
                lower = data.max(lower);
            }
            spent += self.upper - lower;
            if let Some(found) = self.search_piece(lower, file)? {
                return Ok(Some(found));
            }
            self.upper = lower;
            self.span = PIECE;
        }
        Ok(Some(start.min(self.end)))
    }

    /// Searches from `lower` to what has been searched.
    fn search_piece(&mut self, lower: u64, file: &mut impl SparseFile) -> io::Result<Option<u64>> {
        let wanted = usize::try_from(self.upper - lower).unwrap_or(usize::MAX);
        self.buffer.resize(wanted, 0);
        let length = file.read_at(&mut self.buffer, lower)?;
        let piece = &self.buffer[..length.min(wanted)];
        self.in_hole = piece.iter().all(|byte| *byte == 0);
        // The newline that ends the last line begins none.
        let begins = |piece: &[u8]| {
            let piece = match piece.split_last() {
                Some((_, rest)) if lower + piece.len() as u64 == self.end => rest,
                _ => piece,
            };
            piece.iter().filter(|byte| **byte == b'\n').count() as u64
        };
        let count = begins(piece);
        let missing = self.lines - self.newlines;
        if count < missing {
            self.newlines += count;
            return Ok(None);
        }
        let last = piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
        let after = last.map(|(index, _)| lower + index as u64 + 1);
        let mut begins = after.filter(|after| *after != self.end);
        Ok(begins.nth(usize::try_from(missing - 1).unwrap_or(usize::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with these pieces of text, and holes between them.
    struct Text<'a> {
        pieces: &'a [(u64, &'a str)],
        calls: usize,
    }

    impl SparseFile for Text<'_> {
        fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            self.calls += 1;
            buffer.fill(0);
            for (start, text) in self.pieces {
                let (from, to) = (offset.max(*start), offset + buffer.len() as u64);
                let to = to.min(start + text.len() as u64);
                if from < to {
                    let at = |from: u64| usize::try_from(from).unwrap();
                    buffer[at(from - offset)..at(to - offset)]
                        .copy_from_slice(&text.as_bytes()[at(from - start)..at(to - start)]);
                }
            }
            Ok(buffer.len())
        }

        fn data_from(&mut self, offset: u64) -> io::Result<u64> {
            self.calls += 1;
            let ends = self.pieces.iter().map(|(start, text)| (*start, start + text.len() as u64));
            Ok(ends
                .filter(|(_, end)| *end > offset)
                .map(|(start, _)| start.max(offset))
                .min()
                .unwrap_or(u64::MAX))
        }
    }

    /// Where the last lines begin, and how many calls and steps that took.
    fn search(pieces: &[(u64, &str)], end: u64, lines: u64) -> (u64, usize, usize) {
        let (mut text, mut search) = (Text { pieces, calls: 0 }, Search::new(end, lines));
        for steps in 1.. {
            if let Some(offset) = search.go_on(0, &mut text).unwrap() {
                return (offset, text.calls, steps);
            }
        }
        unreachable!("there are not so many steps")
    }

    #[test]
    fn a_search_ends_where_the_log_begins_even_if_that_has_passed_it() {
        let mut text = Text { pieces: &[(0, "a\nb\nc\n")], calls: 0 };
        let mut find = |lines, start| Search::new(6, lines).go_on(start, &mut text).unwrap();
        assert_eq!(find(1, 3), Some(4));
        assert_eq!(find(2, 3), Some(3));
        assert_eq!(find(9, 6), Some(6));
        assert_eq!(find(9, 8), Some(6));
    }

    fn last_lines(text: &str, lines: u64) -> &str {
        let (start, ..) = search(&[(0, text)], text.len() as u64, lines);
        &text[usize::try_from(start).unwrap()..]
    }

    #[test]
    fn last_lines_are_counted_as_tail_counts_them() {
        for (text, lines, expected) in [
            ("", 1, ""),
            ("a\nb\nc\n", 0, ""),
            ("a\nb\nc\n", 1, "c\n"),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc\n", 3, "a\nb\nc\n"),
            ("a\nb\nc\n", 9, "a\nb\nc\n"),
            ("a\nb\nc", 1, "c"),
            ("a\n\n\n", 2, "\n\n"),
            ("no newline", 1, "no newline"),
        ] {
            assert_eq!(last_lines(text, lines), expected, "{lines} of {text:?}");
        }
    }

    #[test]
    fn last_lines_reach_back_over_many_pieces_and_steps() {
        let text: String = (0..150_000).map(|n| format!("line {n:06}\n")).collect();
        for lines in [1, 5000, 149_999] {
            let first = format!("line {:06}\n", 150_000 - lines);
            assert!(last_lines(&text, lines).starts_with(&first), "{lines} lines");
        }
        let (_, _, steps) = search(&[(0, &text)], text.len() as u64, 149_999);
        assert!(steps > 3, "{steps} steps for {} bytes", text.len());
    }

    #[test]
    fn m4_holes_are_skipped_whatever_their_size() {
        let end = 15 << 40;
        let pieces =
            [(0, "first\n"), (1 << 20, "second\n"), (1 << 40, "third\n"), (end - 6, "last\n\n")];
        let begins = [end - 1, (1 << 40) + 6, (1 << 20) + 7, 6, 0, 0];
        for (lines, expected) in (1..).zip(begins) {
            // The newline before the last one is within the last piece.
            let (start, calls, _) = search(&pieces, end, lines);
            assert_eq!(start, expected, "{lines} lines");
            assert!(calls < 300, "{calls} calls for {lines} lines");
        }
        assert_eq!(search(&[], end, 10).0, 0);
    }
}
