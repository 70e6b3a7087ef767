//! Owns [`Keyboard`]: the terminal in which an example runs, as what the user types comes from it.
//!
//! Invariant: its settings are as they were found when the keyboard is dropped and while this
//! process is suspended. It is read only while this process is in the foreground, and never blocks.
//! Knows nothing of what keys mean.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::getpgrp;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcgetwinsize,
    tcsetattr,
};

/// What becomes of the keys that mean something to a terminal, such as Ctrl-C.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "each example is a crate, and none needs both")]
pub(crate) enum Keys {
    /// They are typed as all others are: the job's own terminal knows what they mean.
    Raw,
    /// They stay signals, and nothing that is typed is shown.
    Single,
}

pub(crate) struct Keyboard {
    device: File,
    keys: Keys,
    before: Termios,
}

impl Keyboard {
    /// Takes the terminal that is standard input, if it is one. A process in the background is
    /// suspended by the kernel until it is in the foreground.
    pub(crate) fn open(keys: Keys) -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let device = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let before = tcgetattr(&device)?;
        let keyboard = Self { device, keys, before };
        keyboard.take()?;
        Ok(Some(keyboard))
    }

    /// The number of its descriptor, for an event loop.
    pub(crate) fn number(&self) -> RawFd {
        self.device.as_raw_fd()
    }

    /// Changes the settings of the terminal to those that the keys need.
    pub(crate) fn take(&self) -> io::Result<()> {
        let mut settings = self.before.clone();
        match self.keys {
            Keys::Raw => settings.make_raw(),
            Keys::Single => {
                settings.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
                settings.special_codes[SpecialCodeIndex::VMIN] = 1;
                settings.special_codes[SpecialCodeIndex::VTIME] = 0;
            }
        }
        self.set(&settings)
    }

    /// Changes the settings back to those that were found.
    pub(crate) fn give_back(&self) -> io::Result<()> {
        self.set(&self.before)
    }

    fn set(&self, settings: &Termios) -> io::Result<()> {
        match retry_on_intr(|| tcsetattr(&self.device, OptionalActions::Now, settings)) {
            // It was hung up: there are no settings any more.
            Err(Errno::IO) => Ok(()),
            result => Ok(result?),
        }
    }

    /// What was typed since the last call, as far as it fits. Does not block.
    pub(crate) fn typed(&mut self) -> io::Result<Vec<u8>> {
        let mut ready = [PollFd::new(&self.device, PollFlags::IN)];
        let in_foreground = tcgetpgrp(&self.device).is_ok_and(|group| group == getpgrp());
        if !in_foreground {
            return Ok(Vec::new());
        }
        match rustix::event::poll(&mut ready, Some(&Timespec::default())) {
            // A signal interrupts even a call that does not wait, if there is nothing to tell.
            Ok(0) | Err(Errno::INTR) => return Ok(Vec::new()),
            ready => ready?,
        };
        let mut bytes = [0; 1024];
        match rustix::io::read(&self.device, &mut bytes) {
            Ok(length) => Ok(bytes[..length].to_vec()),
            // It was hung up, which is a signal too, or somebody else has read that.
            Err(Errno::IO | Errno::AGAIN | Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        // There is nobody left to report that to.
        let _ = self.give_back();
    }
}

/// The rows and columns of a terminal, by default as those of the first ones were.
#[allow(dead_code, reason = "as above")]
pub(crate) fn size(terminal: impl AsFd) -> (u16, u16) {
    let (rows, columns) = tcgetwinsize(terminal).map_or((0, 0), |size| (size.ws_row, size.ws_col));
    // A serial line does not know the size of the terminal at its other end.
    (if rows == 0 { 24 } else { rows }, if columns == 0 { 80 } else { columns })
}
