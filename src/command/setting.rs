//! Owns [`Setting`], one limit as the kernel takes it, and [`Kept`], how it looks when it is read
//! back.
//!
//! Invariant: pure; a `Setting` names a file inside of the job's group that is for limits. Knows
//! what the kernel does to a value, not what a value may be.

use crate::command::units::{ByteSize, Device, digits};
use crate::error::InvalidLimit;

/// One limit as the kernel takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The controller that has to be enabled for the job's group; the part of the file's name
    /// before the first dot.
    pub(crate) controller: String,
    /// The interface file inside the group.
    pub(crate) file: String,
    /// What to write.
    pub(crate) value: String,
    /// What a read gives once the kernel has taken the value.
    pub(crate) kept: Kept,
    /// Set along with another one: where the kernel does not have the file, there is nothing to
    /// set.
    pub(crate) optional: bool,
}

/// How a value that the kernel has taken looks when it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The first line is this text.
    Line(String),
    /// The first line ends with this word.
    Word(String),
    /// It is a list of the same numbers as this one; the kernel joins neighbours into ranges.
    List(String),
    /// Some line begins with this word and has each of these.
    Device(String, Vec<String>),
    /// In a form of the kernel's own, which is not compared.
    Unknown,
}

impl Kept {
    /// Whether this content shows the value.
    pub(crate) fn shows(&self, content: &str) -> bool {
        match self {
            Self::Line(line) => content.lines().next().unwrap_or("") == line,
            Self::Word(word) => {
                content.lines().next().and_then(|line| line.split_whitespace().last()) == Some(word)
            }
            Self::List(list) => {
                ranges(list).is_some_and(|wanted| ranges(content.trim_end()) == Some(wanted))
            }
            Self::Device(device, parts) => content.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(device)
                    && parts.iter().all(|part| line.split_whitespace().any(|word| word == part))
            }),
            Self::Unknown => true,
        }
    }
}

/// A setting that reads back as it is written.
pub(crate) fn exact(file: &str, value: String) -> Setting {
    let controller = file.split('.').next().unwrap_or(file).to_owned();
    Setting {
        controller,
        file: file.to_owned(),
        kept: Kept::Line(value.clone()),
        value,
        optional: false,
    }
}

/// The kernel counts in pages and gives back the multiple that it kept; past the largest count it
/// says max.
pub(crate) fn in_pages(size: ByteSize, page: u64) -> Kept {
    let most = i64::MAX as u64 / page;
    Kept::Line(if size.as_bytes() / page >= most {
        "max".to_owned()
    } else {
        (size.as_bytes() / page * page).to_string()
    })
}

/// The numbers of a list such as `0-3,8`, as ranges that do not touch; `None` if it is none.
pub(crate) fn ranges(list: &str) -> Option<Vec<(u32, u32)>> {
    let mut found: Vec<(u32, u32)> = Vec::new();
    for item in list.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (digits(first)?, digits(last)?);
        if first > last {
            return None;
        }
        found.push((first, last));
    }
    found.sort_unstable();
    let mut joined: Vec<(u32, u32)> = Vec::new();
    for (first, last) in found {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    Some(joined)
}

/// A setting that has a line of its own for each device.
pub(crate) fn of_device(file: &str, device: Device, parts: Vec<String>) -> Setting {
    let value = format!("{device} {}", parts.join(" "));
    Setting { kept: Kept::Device(device.to_string(), parts), ..exact(file, value) }
}

/// A setting of a file that was named by the host.
pub(crate) fn setting_for_file(file: &str, value: String) -> Result<Setting, InvalidLimit> {
    let proper = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let named = file
        .split_once('.')
        .is_some_and(|(controller, name)| !controller.is_empty() && !name.is_empty());
    // The core's files move, kill and freeze processes, which is the engine's business; its maxima
    // are limits.
    let ours = file.starts_with("cgroup.") && !file.starts_with("cgroup.max.");
    if !named || ours || file.contains("..") || !file.bytes().all(proper) {
        return Err(InvalidLimit::File { file: file.to_owned() });
    }
    Ok(Setting { kept: Kept::Unknown, ..exact(file, value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_back_however_the_kernel_writes_it() {
        let kept = Kept::List("8,0-2,3,1".to_owned());
        assert!(kept.shows("0-3,8\n") && kept.shows("0-3,8"));
        for other in ["", "0-3", "0-3,8-9", "0-2,8", "x", "+0-3,8", "3-0,8", "0-3,8,9-8"] {
            assert!(!kept.shows(other), "{other:?}");
        }
    }

    #[test]
    fn a_line_for_a_device_is_found_among_others() {
        let kept = of_device(
            "io.max",
            Device::new(8, 16),
            vec!["rbps=1".to_owned(), "wbps=max".to_owned()],
        )
        .kept;
        assert!(kept.shows("8:0 rbps=2 wbps=max\n8:16 rbps=1 wbps=max riops=max wiops=max\n"));
        assert!(!kept.shows("8:16 rbps=2 wbps=max\n"));
        assert!(!kept.shows(""));
    }
}
