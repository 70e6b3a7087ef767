//! Owns [`HostName`], the name of a host that is to be found again, and [`Lasting`], what the group
//! of a job is named that outlives such a host.
//!
//! Invariant: only what `Display` writes is the name of such a group, and none of them is a
//! [`Name`](crate::cgroup::name::Name): no host that sweeps takes it for that of a dead host. Knows
//! nothing of whether the host lives.

use std::fmt;

use uuid::Uuid;

/// How long a name may be, in bytes.
const MOST: usize = 64;

/// The name of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostName(String);

impl HostName {
    /// Checks a name.
    pub(crate) fn new(name: &str) -> Result<Self, &'static str> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        match name {
            "" => Err("it is empty"),
            _ if name.len() > MOST => Err("it is longer than 64 bytes"),
            _ if !name.bytes().all(fits) => {
                Err("it may have letters and digits of ASCII, '-', '_' and '.' alone")
            }
            _ => Ok(Self(name.to_owned())),
        }
    }

    /// The name of the marker that a host of this name locks.
    pub(super) fn marker(&self) -> String {
        format!("jobworker@{}", self.0)
    }

    /// The job of a group, if it is one of this name.
    pub(super) fn job_of(&self, group: &str) -> Option<Uuid> {
        let (job, host) = group.split_once('@')?;
        let lasting = Lasting { job: Uuid::try_parse(job).ok()?, host: self };
        (host == self.0 && lasting.to_string() == group).then_some(lasting.job)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The group of a job that outlives its host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lasting<'a> {
    pub(super) job: Uuid,
    pub(super) host: &'a HostName,
}

impl fmt::Display for Lasting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.job, self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::name::Name;

    const JOB: &str = "0d8f7a3c-51b6-4e02-8a57-c4f1de90ab12";

    #[test]
    fn a_group_is_found_by_its_name_alone() {
        let host = HostName::new("agent-1.x_y").unwrap();
        let group = Lasting { job: JOB.parse().unwrap(), host: &host }.to_string();
        assert_eq!(host.job_of(&group), Some(JOB.parse().unwrap()));
        assert_eq!(Name::parse(&group), None, "nobody sweeps it");
        for other in [
            format!("{JOB}@agent-1.x_y@"),
            format!("{JOB}@agent-1.x_"),
            format!("{JOB}@"),
            format!("@{host}"),
            format!("{}@{host}", JOB.to_uppercase()),
            format!("{}@{host}", JOB.replace('-', "")),
            format!("{JOB}.{host}"),
            host.marker(),
        ] {
            assert_eq!(host.job_of(&other), None, "{other}");
        }
    }

    #[test]
    fn what_cannot_be_part_of_a_path_is_no_name() {
        for name in ["", "a/b", "a b", "a@b", "\u{e4}", "a\n", &"a".repeat(MOST + 1)] {
            assert!(HostName::new(name).is_err(), "{name:?}");
        }
        assert!(HostName::new(&"a".repeat(MOST)).is_ok());
        // A path leads nowhere else by it, for it is only a part of a name.
        assert_eq!(HostName::new("..").unwrap().marker(), "jobworker@..");
    }
}
