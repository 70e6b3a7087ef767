//! Owns pressure stall information (PSI) as the kernel reports it, parsed, and [`Stall`], which
//! selects the stalls that become events.
//!
//! Plain data; knows nothing of where the files are.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A resource that processes can stall for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Stallable {
    /// Time on a processor.
    Cpu,
    /// Memory: reclaim, swap and refaults.
    Memory,
    /// Input and output.
    Io,
}

impl Stallable {
    /// The file of this resource in a cgroup; without the ending it is the one in /proc/pressure.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Cpu => "cpu.pressure",
            Self::Memory => "memory.pressure",
            Self::Io => "io.pressure",
        }
    }
}

/// Writes `cpu`, `memory` or `io`.
impl fmt::Display for Stallable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file().trim_end_matches(".pressure"))
    }
}

/// How long processes were stalled for a resource.
///
/// ```
/// use jobworker::Pressure;
///
/// let pressure: Pressure = "some avg10=50.08 avg60=17.03 avg300=4.03 total=12994035\n".parse()?;
/// assert_eq!(pressure.some.avg10, 50.08);
/// assert_eq!(pressure.some.total.as_micros(), 12_994_035);
/// assert_eq!(pressure.full, None);
/// # Ok::<(), jobworker::InvalidPressure>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[doc(alias = "PSI")]
#[non_exhaustive]
pub struct Pressure {
    /// Time in which at least one process was stalled.
    pub some: Stalled,
    /// Time in which all processes that had work to do were stalled. Not reported for the processor
    /// before Linux 5.13.
    pub full: Option<Stalled>,
}

/// Stalled time, as shares of the last seconds and as a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Stalled {
    /// Percent of the last 10 seconds.
    pub avg10: f32,
    /// Percent of the last 60 seconds.
    pub avg60: f32,
    /// Percent of the last 300 seconds.
    pub avg300: f32,
    /// Total stalled time, with a resolution of one microsecond.
    pub total: Duration,
}

/// A text that is not pressure stall information.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not pressure stall information")]
pub struct InvalidPressure {
    /// The text.
    pub text: String,
}

/// Parses the content of a pressure file.
impl FromStr for Pressure {
    type Err = InvalidPressure;

    fn from_str(text: &str) -> Result<Self, InvalidPressure> {
        let line =
            |kind: &str| text.lines().find_map(|line| line.strip_prefix(kind)).map(parse_line);
        match (line("some "), line("full ")) {
            (Some(Some(some)), None) => Ok(Self { some, full: None }),
            (Some(Some(some)), Some(Some(full))) => Ok(Self { some, full: Some(full) }),
            _ => Err(InvalidPressure { text: text.to_owned() }),
        }
    }
}

fn parse_line(line: &str) -> Option<Stalled> {
    let field =
        |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    // `f32::from_str` would also accept a sign, `inf` and `nan`.
    let share = |name: &str| {
        let text =
            field(name).filter(|text| text.starts_with(|first: char| first.is_ascii_digit()))?;
        text.parse().ok().filter(|share: &f32| share.is_finite())
    };
    Some(Stalled {
        avg10: share("avg10")?,
        avg60: share("avg60")?,
        avg300: share("avg300")?,
        total: Duration::from_micros(field("total")?.trim_end().parse().ok()?),
    })
}

/// How much stalled time within a window becomes an event.
///
/// ```
/// use jobworker::Stall;
/// use std::time::Duration;
///
/// let stall = Stall::some(Duration::from_millis(150), Duration::from_secs(1));
/// # let _ = stall;
/// ```
///
/// # Kernel trap
/// The window is at most 10 s; before Linux 6.5 it is at least 500 ms. Without `CAP_SYS_RESOURCE`
/// the window has to be a multiple of two seconds, and before Linux 6.5 stalls cannot be watched
/// at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stall {
    full: bool,
    stalled: Duration,
    window: Duration,
}

impl Stall {
    /// At least one process was stalled for `stalled` out of `window`.
    #[must_use]
    pub const fn some(stalled: Duration, window: Duration) -> Self {
        Self { full: false, stalled, window }
    }

    /// All processes with work to do were stalled for `stalled` out of `window`.
    #[must_use]
    pub const fn full(stalled: Duration, window: Duration) -> Self {
        Self { full: true, stalled, window }
    }
}

/// Writes it like `some 150ms in 1s`.
impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:?} in {:?}",
            if self.full { "full" } else { "some" },
            self.stalled,
            self.window
        )
    }
}

/// The longest window, WINDOW_MAX_US in kernel/sched/psi.c.
const LONGEST_WINDOW: Duration = Duration::from_secs(10);

impl Stall {
    /// Whether all processes have to be stalled, not only some.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// For how long they have to be stalled within a window.
    pub(crate) fn stalled(&self) -> Duration {
        self.stalled
    }

    /// What to write to a pressure file. The newline belongs to it: the kernel cuts off the last
    /// byte that is written.
    pub(crate) fn request(&self) -> String {
        let kind = if self.full { "full" } else { "some" };
        format!("{kind} {} {}\n", self.stalled.as_micros(), self.window.as_micros())
    }

    /// Why no kernel would accept it, if that is so.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let sound =
            !self.stalled.is_zero() && self.stalled <= self.window && self.window <= LONGEST_WINDOW;
        (!sound).then_some(
            "the stalled time has to be above zero and within the window, the window at most 10 s",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_parsed() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=15\n\
                    full avg10=1.00 avg60=0.00 avg300=0.00 total=7\n";
        let pressure: Pressure = text.parse().unwrap();
        assert_eq!((pressure.some.avg60, pressure.some.total), (0.25, Duration::from_micros(15)));
        assert_eq!(pressure.full.unwrap().total, Duration::from_micros(7));
    }

    #[test]
    fn what_is_no_pressure_is_refused() {
        for text in [
            "",
            "some",
            "some avg10=1 avg60=2 avg300=3",
            "full avg10=1 avg60=2 avg300=3 total=4",
            "some avg10=x total=1",
            "some avg10=inf avg60=2 avg300=3 total=4",
            "some avg10=1 avg60=nan avg300=3 total=4",
            "some avg10=1 avg60=2 avg300=-3 total=4",
        ] {
            assert!(text.parse::<Pressure>().is_err(), "{text:?}");
        }
    }
}
