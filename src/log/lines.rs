//! Owns where the last lines of a log begin. Pure: it reads through a closure.

use std::io;

/// The offset at which the last `lines` lines before `end` begin, by reading backwards.
pub(crate) fn start_of_last_lines(
    end: u64,
    lines: u64,
    mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<u64> {
    if lines == 0 {
        return Ok(end);
    }
    let mut chunk = [0u8; 8192];
    let mut newlines = 0;
    let mut upper = end;
    while upper > 0 {
        let lower = upper.saturating_sub(chunk.len() as u64);
        let wanted = usize::try_from(upper - lower).unwrap_or(chunk.len());
        let length = read_at(&mut chunk[..wanted], lower)?;
        for (index, _) in
            chunk[..length].iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n')
        {
            let after = lower + index as u64 + 1;
            // The newline that ends the last line begins none.
            if after == end {
                continue;
            }
            newlines += 1;
            if newlines == lines {
                return Ok(after);
            }
        }
        upper = lower;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_lines(text: &str, lines: u64) -> &str {
        let bytes = text.as_bytes();
        let start = start_of_last_lines(bytes.len() as u64, lines, |buffer, offset| {
            let from = usize::try_from(offset).unwrap();
            buffer.copy_from_slice(&bytes[from..from + buffer.len()]);
            Ok(buffer.len())
        });
        &text[usize::try_from(start.unwrap()).unwrap()..]
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
    fn last_lines_reach_back_over_many_chunks() {
        let text: String = (0..5000).map(|n| format!("line {n}\n")).collect();
        assert!(last_lines(&text, 4000).starts_with("line 1000\n"));
    }
}
