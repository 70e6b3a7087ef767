//! Owns [`Terminal`]: the terminal that a job's output goes to.
//!
//! Invariant: plain data; every value is one that the kernel takes. Knows nothing of how a terminal
//! is made.

/// The terminal of a job with [`Output::Terminal`](crate::Output::Terminal): its size, and whether
/// it changes what the job prints.
///
/// ```
/// use jobworker::{Command, Output, Terminal};
///
/// let mut command = Command::new("make");
/// command.output(Output::Terminal(Terminal::new(24, 80)));
/// // Line feeds stay line feeds.
/// command.output(Output::Terminal(Terminal::new(24, 80).raw_output()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Terminal {
    /// How many lines it shows; to most programs, zero means that this is not known.
    pub rows: u16,
    /// How many characters fit in a line; zero as for the rows.
    pub columns: u16,
    /// Whether the log has exactly the bytes that the job writes. Otherwise the kernel writes a
    /// carriage return before each line feed, unless the job turns that off (`ONLCR` in
    /// termios(3)).
    #[cfg_attr(feature = "serde", serde(default))]
    pub raw_output: bool,
}

impl Terminal {
    /// A terminal of this size, which translates line feeds as every terminal does.
    #[must_use]
    pub fn new(rows: u16, columns: u16) -> Self {
        Self { rows, columns, raw_output: false }
    }

    /// The same, but the bytes that the job writes are those of its log, unless the job itself
    /// changes the settings of its terminal.
    #[doc(alias = "OPOST")]
    #[must_use]
    pub fn raw_output(mut self) -> Self {
        self.raw_output = true;
        self
    }
}
