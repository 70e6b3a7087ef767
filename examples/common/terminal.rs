//! Owns [`Session`]: what the user types on its way to the terminal of a job.
//!
//! Invariant: every byte reaches the job once, in order, but for the keys that follow the escape
//! character; no more is taken while the job's terminal has no room. Knows nothing of what is
//! asked of the host by those keys.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use jobworker::TerminalInput;

/// Ctrl-], as in telnet(1): it makes the next key one for this program.
const ESCAPE: u8 = 0x1d;

/// What the keys mean that follow the escape character, in one line.
pub(crate) const HINT: &str =
    "all keys go to the job; after Ctrl-]: z suspends it, s stops it, k kills it, Ctrl-] is itself";

/// What a key asks the host for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Suspend,
    Stop,
    Kill,
}

pub(crate) struct Session {
    pub(crate) input: TerminalInput,
    keys: Keys,
}

impl Session {
    pub(crate) fn new(input: TerminalInput) -> Self {
        Self { input, keys: Keys::default() }
    }

    /// Types what was typed, as far as there is room, and returns what the keys ask for. Takes
    /// nothing while some of what it took before is left.
    pub(crate) fn pass_on(&mut self, typed: &mut Vec<u8>) -> io::Result<Vec<Asked>> {
        let asked = if self.keys.unsent.is_empty() {
            self.keys.take(&std::mem::take(typed))
        } else {
            Vec::new()
        };
        while !self.keys.unsent.is_empty() {
            match self.input.try_write(self.keys.unsent.make_contiguous()) {
                Ok(length) => drop(self.keys.unsent.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The job is over: nobody reads it any more.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => self.keys.unsent.clear(),
                Err(error) => return Err(error),
            }
        }
        Ok(asked)
    }
}

/// What is between the keyboard and the job.
#[derive(Default)]
struct Keys {
    unsent: VecDeque<u8>,
    /// Whether the last key was the escape character.
    escaped: bool,
}

impl Keys {
    fn take(&mut self, typed: &[u8]) -> Vec<Asked> {
        let mut asked = Vec::new();
        for key in typed {
            if !std::mem::take(&mut self.escaped) {
                match *key {
                    ESCAPE => self.escaped = true,
                    key => self.unsent.push_back(key),
                }
                continue;
            }
            match *key {
                b'z' => asked.push(Asked::Suspend),
                b's' => asked.push(Asked::Stop),
                b'k' => asked.push(Asked::Kill),
                ESCAPE => self.unsent.push_back(ESCAPE),
                key => self.unsent.extend([ESCAPE, key]),
            }
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_go_to_the_job_but_those_after_the_escape_character() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"a\x03\x1dsb\x1d"), [Asked::Stop]);
        assert_eq!(keys.take(b"z\x1d\x1d\x1dx\x1dk"), [Asked::Suspend, Asked::Kill]);
        assert_eq!(keys.unsent, b"a\x03b\x1d\x1dx");
    }
}
