//! How a time is given on the command line.

use std::time::Duration;

/// A number of seconds, perhaps with a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds, such as 1.5")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
