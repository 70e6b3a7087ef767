//! Owns [`Setting`], one limit on its way into a file.
//!
//! Invariant: pure; a `Setting` names a file inside of the job's group that is for limits, and its
//! value is one that some kernel takes. Knows nothing of where the files are.

use std::borrow::Cow;

use crate::command::files::LimitFile;
use crate::command::units::ByteSize;
use crate::command::value::LimitValue;
use crate::error::InvalidLimit;

/// One limit as the kernel takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    file: Cow<'static, str>,
    /// The row of the table by which the value is read back and compared; `None` for what was given
    /// raw.
    row: Option<&'static LimitFile>,
    value: LimitValue,
    needs: &'static str,
    optional: bool,
}

impl Setting {
    /// Checks the name of the file and, by the table, the value.
    pub(crate) fn check(file: Cow<'static, str>, value: &LimitValue) -> Result<Self, InvalidLimit> {
        check_name(&file)?;
        let known = LimitFile::find(&file);
        let row = known.filter(|_| !matches!(value, LimitValue::Text(_)));
        if let Some(row) = row {
            value.check(row)?;
        }
        let needs = LimitFile::needs(&file);
        Ok(Self { file, row, value: value.clone(), needs, optional: false })
    }

    /// No swap: what comes along with a limit for memory.
    pub(crate) fn no_swap() -> Self {
        let file = "memory.swap.max";
        let (row, needs) = (LimitFile::find(file), LimitFile::needs(file));
        let value = LimitValue::Bytes(ByteSize::from_bytes(0));
        Self { file: file.into(), row, value, needs, optional: true }
    }

    /// A limit that a job has unless its command says otherwise.
    pub(crate) fn by_default(file: &'static str, most: u32) -> Self {
        let value = LimitValue::Count(Some(most));
        Self { file: file.into(), row: None, value, needs: LimitFile::needs(file), optional: true }
    }

    /// The interface file inside of the group.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// The controller that has to be enabled for the job's group, or `cgroup`, which always is.
    pub(crate) fn controller(&self) -> &str {
        self.file.split_once('.').map_or(&*self.file, |(controller, _)| controller)
    }

    /// What it takes to have the file.
    pub(crate) fn needs(&self) -> &'static str {
        self.needs
    }

    /// Whether nobody has asked for the limit itself: where the kernel does not have the file,
    /// there is nothing to set.
    pub(crate) fn is_optional(&self) -> bool {
        self.optional
    }

    /// What to write, each line by a write of its own.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.value.lines()
    }

    /// Whether the file has to be read back.
    pub(crate) fn is_compared(&self) -> bool {
        self.row.is_some()
    }

    /// Whether the content of the file shows that the kernel has taken the value.
    pub(crate) fn is_shown_by(&self, content: &str) -> bool {
        let Some(row) = self.row else { return true };
        let page = match row.part(&self.file) {
            None => rustix::param::page_size() as u64,
            Some(size) => match page_size(size) {
                Some(page) => page,
                // Not a name that any kernel has given to a page size.
                None => return true,
            },
        };
        LimitValue::from_kernel(row.shape(), content)
            .is_some_and(|found| self.value.is_kept_as(&found, page))
    }

    /// Sets the same value by another file.
    pub(crate) fn redirect(&mut self, file: &'static str, needs: &'static str) {
        self.file = file.into();
        self.needs = needs;
    }
}

/// The kernel names a page of 2 MiB 2MB.
fn page_size(name: &str) -> Option<u64> {
    let size: ByteSize = name.strip_suffix('B')?.parse().ok()?;
    Some(size.as_bytes()).filter(|page| *page > 0)
}

/// Refuses what is not the name of a limit's file.
fn check_name(file: &str) -> Result<(), InvalidLimit> {
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::command::{Device, IoRates, Limits};

    fn setting(set: impl FnOnce(&mut Limits) -> &mut Limits) -> Setting {
        set(&mut Limits::new()).check().unwrap().remove(0)
    }

    #[test]
    fn a_list_reads_back_however_the_kernel_writes_it() {
        let setting = setting(|limits| limits.cpuset_cpus("8,0-2,3,1"));
        assert!(setting.is_shown_by("0-3,8\n") && setting.is_shown_by("0-3,8"));
        for other in ["", "0-3", "0-3,8-9", "0-2,8", "x", "+0-3,8", "3-0,8", "0-3,8,9-8"] {
            assert!(!setting.is_shown_by(other), "{other:?}");
        }
    }

    #[test]
    fn a_line_for_a_device_is_found_among_others() {
        let rates = IoRates { read_bytes: Some(ByteSize::from_bytes(1)), ..IoRates::default() };
        let limited = setting(|limits| limits.io_max(Device::new(8, 16), rates));
        let other = "8:0 rbps=2 wbps=max riops=max wiops=max\n";
        let own = "8:16 rbps=1 wbps=max riops=max wiops=max\n";
        assert!(limited.is_shown_by(&format!("{other}{own}")));
        assert!(!limited.is_shown_by(&own.replace("rbps=1", "rbps=2")));
        assert!(!limited.is_shown_by(other) && !limited.is_shown_by(""));
        let unlimited = setting(|limits| limits.io_max(Device::new(8, 16), IoRates::default()));
        assert!(unlimited.is_shown_by(other) && !unlimited.is_shown_by(own));
    }

    #[test]
    fn memory_reads_back_in_whole_pages() {
        let setting = setting(|limits| limits.memory_high(ByteSize::from_bytes(5000)));
        assert_eq!(setting.lines(), ["5000"]);
        assert!(setting.is_shown_by("4096\n"));
        assert!(!setting.is_shown_by("5000\n") && !setting.is_shown_by("max\n"));
    }

    #[test]
    fn huge_pages_read_back_as_whole_ones() {
        for (page, size, kept) in
            [("2MB", 5 << 20, "4194304"), ("1GB", 1 << 20, "0"), ("64KB", 65_537, "65536")]
        {
            let setting = setting(|limits| limits.hugetlb_max(page, ByteSize::from_bytes(size)));
            assert!(setting.is_shown_by(kept), "{page}");
            assert!(!setting.is_shown_by(&size.to_string()), "{page}");
        }
    }

    #[test]
    fn only_names_of_limits_are_names() {
        for file in ["memory.max", "hugetlb.2MB.max", "cgroup.max.depth", "io.bfq-weight", "a_b.c"]
        {
            assert_eq!(check_name(file), Ok(()), "{file}");
        }
        for file in [
            "",
            "memory",
            ".max",
            "memory.",
            "memory..max",
            "memory/max",
            "memory.max/",
            "../x.max",
            "cgroup.kill",
            "cgroup.maximum",
            "memory.m x",
            "memory.\n",
        ] {
            let file = file.to_owned();
            assert_eq!(check_name(&file), Err(InvalidLimit::File { file }));
        }
    }

    #[test]
    fn a_quota_and_weights_read_back_as_a_whole() {
        let millis = Duration::from_millis;
        let quota = setting(|limits| limits.cpu_max(millis(50), millis(100)));
        assert!(quota.is_shown_by("50000 100000\n"));
        for other in ["50000 50000\n", "40000 100000\n", "max 100000\n"] {
            assert!(!quota.is_shown_by(other), "{other}");
        }
        let weights = setting(|limits| limits.io_weight(50).io_weight_of(Device::new(8, 0), 70));
        assert!(weights.is_shown_by("default 50\n8:0 70\n"));
        for other in ["default 60\n8:0 70\n", "default 50\n8:0 60\n", "default 50\n"] {
            assert!(!weights.is_shown_by(other), "{other}");
        }
    }

    #[test]
    fn what_is_shown_where_nothing_is_set_is_no_limit() {
        let device = Device::new(8, 0);
        for (value, unset) in [
            (LimitValue::List(String::new()), true),
            (LimitValue::List("0-3".to_owned()), false),
            (LimitValue::Rates(BTreeMap::new()), true),
            (LimitValue::Rates([(device, IoRates::default())].into()), false),
            (LimitValue::Latencies(BTreeMap::new()), true),
            (LimitValue::Weights { default: None, devices: BTreeMap::new() }, true),
            (LimitValue::Weights { default: Some(100), devices: BTreeMap::new() }, false),
            (LimitValue::Weights { default: None, devices: [(device, 100)].into() }, false),
            (LimitValue::Count(None), false),
        ] {
            assert_eq!(value.is_unset(), unset, "{value:?}");
        }
    }
}
