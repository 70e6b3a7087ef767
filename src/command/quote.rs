//! Owns [`Quoted`]: a word of a command line, written so that a POSIX shell reads it as it is.
//!
//! Invariant: what is printed is one word to every `sh`, and stands for exactly the bytes of the
//! word; whatever a terminal would not show as itself is written by its octal number. Knows nothing
//! of commands.

use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::os::unix::ffi::OsStrExt;

/// A word to print; see the invariant above.
pub(crate) struct Quoted<'a> {
    word: &'a OsStr,
    /// Whether it comes first, where a shell looks for keywords and assignments.
    first: bool,
}

/// The words that begin or continue a compound command when they come first.
const KEYWORDS: [&str; 17] = [
    "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for", "function", "if", "in",
    "select", "then", "time", "until", "while",
];

impl<'a> Quoted<'a> {
    /// The program.
    pub(crate) fn program(word: &'a OsStr) -> Self {
        Self { word, first: true }
    }

    /// An argument.
    pub(crate) fn argument(word: &'a OsStr) -> Self {
        Self { word, first: false }
    }

    /// Whether the word stands for itself without quotes.
    fn is_plain(&self) -> bool {
        let plain = |byte: &u8| {
            byte.is_ascii_alphanumeric()
                || b"_@%+:,./-".contains(byte)
                || (*byte == b'=' && !self.first)
        };
        let bytes = self.word.as_bytes();
        let keyword = self.first && KEYWORDS.iter().any(|keyword| keyword.as_bytes() == bytes);
        !bytes.is_empty() && bytes.iter().all(plain) && !keyword
    }
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_plain() {
            // Plain bytes are ASCII.
            return self
                .word
                .as_bytes()
                .iter()
                .try_for_each(|byte| f.write_char(char::from(*byte)));
        }
        if self.word.is_empty() {
            return f.write_str("''");
        }
        let mut pen = Pen { f, style: Style::Bare };
        for chunk in self.word.as_bytes().utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    // The one character that cannot be in single quotes.
                    '\'' => pen.escaped(character)?,
                    // A substitution would lose it at its end.
                    '\n' => pen.quoted(character)?,
                    visible if is_visible(visible) => pen.quoted(visible)?,
                    other => pen.octal(other.encode_utf8(&mut [0; 4]).as_bytes())?,
                }
            }
            pen.octal(chunk.invalid())?;
        }
        pen.turn(Style::Bare)
    }
}

/// Whether a terminal shows the character as itself: neither a control character nor one that is
/// invisible or changes the direction of what follows.
fn is_visible(character: char) -> bool {
    matches!(character, '"' | '\\') || character.escape_debug().nth(1).is_none()
}

/// How what is printed now is quoted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Not at all.
    Bare,
    /// By single quotes.
    Single,
    /// As what printf(1) prints. `$'..'` would be shorter, but not every `sh` has it.
    Octal,
}

/// Prints a word in parts that are quoted differently.
struct Pen<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    style: Style,
}

impl Pen<'_, '_> {
    fn turn(&mut self, style: Style) -> fmt::Result {
        if self.style != style {
            self.f.write_str(match self.style {
                Style::Bare => "",
                Style::Single => "'",
                Style::Octal => "')\"",
            })?;
            self.f.write_str(match style {
                Style::Bare => "",
                Style::Single => "'",
                Style::Octal => "\"$(printf '",
            })?;
            self.style = style;
        }
        Ok(())
    }

    fn escaped(&mut self, character: char) -> fmt::Result {
        self.turn(Style::Bare)?;
        write!(self.f, "\\{character}")
    }

    fn quoted(&mut self, character: char) -> fmt::Result {
        self.turn(Style::Single)?;
        self.f.write_char(character)
    }

    fn octal(&mut self, bytes: &[u8]) -> fmt::Result {
        for byte in bytes {
            self.turn(Style::Octal)?;
            write!(self.f, "\\{byte:03o}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(bytes: &[u8]) -> String {
        Quoted::argument(OsStr::from_bytes(bytes)).to_string()
    }

    #[test]
    fn a_word_is_quoted_only_where_it_has_to_be() {
        for (word, printed) in [
            (&b"plain-1.2/x"[..], "plain-1.2/x"),
            (b"--key=value", "--key=value"),
            (b"", "''"),
            (b"two words", "'two words'"),
            (b"it's", "'it'\\''s'"),
            (b"$HOME `id` \\ \"x\"", "'$HOME `id` \\ \"x\"'"),
            ("gr\u{fc}n".as_bytes(), "'gr\u{fc}n'"),
            (b"a\nb", "'a\nb'"),
            (b"a\xff\x1bb", "'a'\"$(printf '\\377\\033')\"'b'"),
            ("\u{202e}".as_bytes(), "\"$(printf '\\342\\200\\256')\""),
            (b"if", "if"),
        ] {
            assert_eq!(argument(word), printed);
        }
        for (word, printed) in [("if", "'if'"), ("A=b", "'A=b'"), ("sh", "sh")] {
            assert_eq!(Quoted::program(OsStr::new(word)).to_string(), printed);
        }
    }
}
