//! Owns [`Name`]: what the name of a group says to whoever comes after its host.
//!
//! Invariant: only what `Display` writes is a name, because it decides which processes are killed.
//! A group has its name from the moment it exists, and cgroup2 renames none. Knows nothing of
//! whether the owner lives.

use std::fmt;

use uuid::Uuid;

/// What follows the name of the owner where the job is to outlive it.
const DETACHED: &str = "detached";

/// The job that a group was made for, whose it is, and whether the job outlives that host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) job: Uuid,
    /// The name of the owner, which its marker carries.
    pub(crate) owner: Uuid,
    pub(crate) detached: bool,
}

impl Name {
    /// What this name says, if it is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let [job, owner] = [parts.next()?, parts.next()?].map(Uuid::try_parse);
        let name = Self { job: job.ok()?, owner: owner.ok()?, detached: parts.next().is_some() };
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.owner)?;
        if self.detached { write!(f, ".{DETACHED}") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "0d8f7a3c-51b6-4e02-8a57-c4f1de90ab12";
    const OWNER: &str = "6f1b7e52-2a0c-4c5e-9d0a-3f1f0c9c2b11";

    #[test]
    fn a_name_reads_back_as_it_was_written() {
        for (text, detached) in
            [(format!("{JOB}.{OWNER}.detached"), true), (format!("{JOB}.{OWNER}"), false)]
        {
            let name = Name::parse(&text).unwrap();
            assert_eq!((name.job.to_string().as_str(), name.detached), (JOB, detached));
            assert_eq!((name.owner.to_string().as_str(), name.to_string()), (OWNER, text));
        }
    }

    #[test]
    fn what_is_not_exactly_a_name_names_no_owner() {
        for text in [
            "",
            ".",
            JOB,
            &format!("{JOB}."),
            &format!("{JOB}.{OWNER}."),
            &format!("{JOB}.{OWNER}.detach"),
            &format!("{JOB}.{OWNER}.detached."),
            &format!("{JOB}.{OWNER}.detached.detached"),
            &format!("{JOB}..{OWNER}"),
            &format!("{JOB} {OWNER}"),
            &format!("{JOB}.{}", OWNER.to_uppercase()),
            &format!("{JOB}.{}", OWNER.replace('-', "")),
            &format!("{JOB}.{{{OWNER}}}"),
            &format!("jobworker-{JOB}.{OWNER}"),
        ] {
            assert_eq!(Name::parse(text), None, "{text:?}");
        }
    }
}
