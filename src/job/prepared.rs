//! Owns [`Prepared`]: a [`Command`] that was checked and converted into the form that the kernel
//! takes.
//!
//! Invariant: checks only what can be checked without starting anything, and creates nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use linux_raw_sys::general as raw;

use crate::command::{
    Command, DEFAULT_PATH, IoPriority, Output, ProcessGroup, Resource, Scheduler, Stdin,
};
use crate::error::SpawnError;
use crate::sys::{Birth, CStringArray, Descriptor, Plan, Program, ResourceLimit};

/// A command that was checked and put into the form in which the kernel takes it.
#[derive(Debug)]
pub(crate) struct Prepared {
    program: Program,
    new_session: bool,
    new_process_group: bool,
    survives: bool,
}

impl Prepared {
    /// Checks what can be checked without trying.
    pub(crate) fn new(command: &Command) -> Result<Self, SpawnError> {
        let refuse =
            |reason| SpawnError::InvalidCommand { program: command.program.clone(), reason };
        let string =
            |text: &OsStr, reason| CString::new(text.as_bytes()).map_err(|_| refuse(reason));
        if command.program.is_empty() {
            return Err(refuse("the program is an empty string"));
        }
        if [command.uid, command.gid].contains(&Some(u32::MAX)) {
            // To the kernel it means "leave as it is".
            return Err(refuse("the user or group id 4294967295 is not one"));
        }
        if command.uid.is_some() && command.gid.is_none() {
            return Err(refuse(
                "it has a user id but no group id, so the job would stay in the host's group: set \
                 the group id as well",
            ));
        }
        let has_terminal = matches!(command.output, Output::Terminal(_));
        if has_terminal && command.process_group != ProcessGroup::Session {
            return Err(refuse(
                "its output is a terminal, which only a session of its own can have: leave its \
                 process group at ProcessGroup::Session",
            ));
        }
        if has_terminal && command.detached {
            return Err(refuse(
                "it is detached and its output is a terminal, which it would lose with the host",
            ));
        }
        if !has_terminal && matches!(command.stdin, Stdin::Terminal) {
            return Err(refuse(
                "its standard input is the terminal that is its output, but its output is none: \
                 set Output::Terminal",
            ));
        }
        let program = string(&command.program, "the program contains a NUL byte")?;
        let name = command.arg0.as_deref().map(|name| string(name, "arg0 contains a NUL byte"));
        let mut argv = vec![name.transpose()?.unwrap_or(program)];
        for arg in &command.args {
            argv.push(string(arg, "an argument contains a NUL byte")?);
        }
        let variables = environment(command);
        let mut envp = Vec::with_capacity(variables.len());
        for (key, value) in &variables {
            if key.is_empty() || key.as_bytes().contains(&b'=') {
                return Err(refuse("the name of an environment variable is empty or contains '='"));
            }
            let mut pair = key.clone();
            pair.push("=");
            pair.push(value);
            envp.push(string(&pair, "an environment variable contains a NUL byte")?);
        }
        let directory = |dir: &Option<PathBuf>, reason| {
            dir.as_ref().map(|dir| string(dir.as_os_str(), reason)).transpose()
        };
        let root = directory(&command.chroot, "the root directory contains a NUL byte")?;
        let current_dir =
            directory(&command.current_dir, "the working directory contains a NUL byte")?;
        let mut limits = Vec::with_capacity(command.rlimits.len());
        for (resource, soft, hard) in &command.rlimits {
            let (soft, hard) = (soft.unwrap_or(u64::MAX), hard.unwrap_or(u64::MAX));
            if soft > hard {
                return Err(refuse("a soft resource limit is above its hard limit"));
            }
            let limit = raw::rlimit64 { rlim_cur: soft, rlim_max: hard };
            limits.push(ResourceLimit { resource: number(*resource), limit });
        }
        if command.oom_score_adj.is_some_and(|value| !(-1000..=1000).contains(&value)) {
            return Err(refuse("oom_score_adj is not in -1000..=1000"));
        }
        let oom_score_adj = command.oom_score_adj.map(|value| value.to_string());
        if command.nice.is_some_and(|value| !(-20..=19).contains(&value)) {
            return Err(refuse("the nice value is not in -20..=19"));
        }
        // No kernel has more, and there is room for those that the launcher has in addition.
        if !command.descriptors.keys().all(|number| (3..RawFd::MAX - 64).contains(number)) {
            return Err(refuse(
                "the number of a descriptor that it is given is below 3 or too large",
            ));
        }
        let scheduler = command.scheduler.map(policy);
        if scheduler.is_some_and(|(policy, priority)| {
            matches!(policy, raw::SCHED_FIFO | raw::SCHED_RR) && !(1..=99).contains(&priority)
        }) {
            return Err(refuse("the real-time priority is not in 1..=99"));
        }
        if let Some(IoPriority::RealTime(level) | IoPriority::BestEffort(level)) =
            command.io_priority
            && level > 7
        {
            return Err(refuse("the level of the I/O priority is not in 0..=7"));
        }
        let affinity = match &command.cpu_affinity {
            Some(processors) => Some(mask(processors).map_err(refuse)?),
            None => None,
        };
        // A host that changes the ids must not leave its own groups to the job.
        let drops_groups = command.uid.is_some() || command.gid.is_some();
        let groups = command.groups.clone().or_else(|| drops_groups.then(Vec::new));
        let paths = candidates(&command.program, variables.get(OsStr::new("PATH")))
            .into_iter()
            .map(|path| string(&path, "PATH contains a NUL byte"))
            .collect::<Result<_, _>>()?;
        let (argv, envp) = (CStringArray::new(argv), CStringArray::new(envp));
        let program = Program {
            root,
            current_dir,
            uid: command.uid,
            gid: command.gid,
            groups,
            umask: command.umask,
            limits,
            oom_score_adj,
            nice: command.nice,
            scheduler,
            affinity,
            io_priority: command.io_priority.map(io_priority),
            new_session_keyring: command.new_session_keyring,
            capability_bounding_set: command.capability_bounding_set,
            securebits: command.securebits,
            no_new_privs: command.no_new_privs,
            parent_death_signal: command.parent_death_signal,
            ..Program::new(paths, argv, envp)
        };
        Ok(Self {
            program,
            new_session: command.process_group == ProcessGroup::Session,
            new_process_group: command.process_group == ProcessGroup::Own,
            survives: command.survives,
        })
    }

    /// What the child is to do with these three streams and other descriptors, in this cgroup and
    /// on this terminal.
    pub(crate) fn plan<'a>(
        &'a self,
        streams: [BorrowedFd<'a>; 3],
        descriptors: &'a [Descriptor<'a>],
        cgroup: Option<BorrowedFd<'a>>,
        terminal: Option<BorrowedFd<'a>>,
    ) -> Plan<'a> {
        let Self { new_session, new_process_group, survives: signs, .. } = *self;
        let birth =
            Birth { streams, descriptors, cgroup, signs, new_session, new_process_group, terminal };
        Plan { birth, program: &self.program }
    }
}

/// The job's variables: those of the host if they were asked for, overlaid with the command's.
fn environment(command: &Command) -> BTreeMap<OsString, OsString> {
    // The host's own table may hold entries that could not be set, such as an empty name: they are
    // left out.
    let proper =
        |(key, _): &(OsString, OsString)| !key.is_empty() && !key.as_bytes().contains(&b'=');
    let mut variables: BTreeMap<_, _> =
        if command.inherit_env { env::vars_os().filter(proper).collect() } else { BTreeMap::new() };
    for (key, value) in &command.env {
        match value {
            Some(value) => variables.insert(key.clone(), value.clone()),
            None => variables.remove(key),
        };
    }
    variables
}

/// The paths to try, by the rules that [`Command`] documents.
fn candidates(program: &OsStr, path: Option<&OsString>) -> Vec<OsString> {
    if program.as_bytes().contains(&b'/') {
        return vec![program.to_owned()];
    }
    let path = path.map_or(DEFAULT_PATH.as_bytes(), |path| path.as_bytes());
    path.split(|byte| *byte == b':')
        .map(|dir| {
            // An empty entry stands for the working directory, as in every shell.
            let dir = if dir.is_empty() { b"." } else { dir };
            OsString::from_vec([dir, b"/", program.as_bytes()].concat())
        })
        .collect()
}

/// A policy's number and priority in the kernel's terms.
fn policy(scheduler: Scheduler) -> (u32, u8) {
    match scheduler {
        Scheduler::Normal => (raw::SCHED_NORMAL, 0),
        Scheduler::Batch => (raw::SCHED_BATCH, 0),
        Scheduler::Idle => (raw::SCHED_IDLE, 0),
        Scheduler::Fifo(priority) => (raw::SCHED_FIFO, priority),
        Scheduler::RoundRobin(priority) => (raw::SCHED_RR, priority),
    }
}

/// A class and a level in the kernel's terms, as linux/ioprio.h has them.
fn io_priority(priority: IoPriority) -> u16 {
    let (class, level) = match priority {
        IoPriority::RealTime(level) => (1, level),
        IoPriority::BestEffort(level) => (2, level),
        IoPriority::Idle => (3, 0),
    };
    class << 13 | u16::from(level)
}

/// A bit for each processor, in the words that the kernel takes.
fn mask(processors: &BTreeSet<u32>) -> Result<Vec<usize>, &'static str> {
    /// More than any kernel has; it bounds the size of the mask.
    const MOST: usize = 1 << 16;
    let last = processors.last().ok_or("its set of processors is empty")?;
    let last = usize::try_from(*last).ok().filter(|last| *last < MOST);
    let bits = usize::BITS as usize;
    let mut words = vec![0; last.ok_or("the number of a processor is not below 65536")? / bits + 1];
    for processor in processors.iter().map(|processor| *processor as usize) {
        if let Some(word) = words.get_mut(processor / bits) {
            *word |= 1 << (processor % bits);
        }
    }
    Ok(words)
}

fn number(resource: Resource) -> u32 {
    match resource {
        Resource::Cpu => raw::RLIMIT_CPU,
        Resource::FileSize => raw::RLIMIT_FSIZE,
        Resource::Data => raw::RLIMIT_DATA,
        Resource::Stack => raw::RLIMIT_STACK,
        Resource::Core => raw::RLIMIT_CORE,
        Resource::Processes => raw::RLIMIT_NPROC,
        Resource::OpenFiles => raw::RLIMIT_NOFILE,
        Resource::LockedMemory => raw::RLIMIT_MEMLOCK,
        Resource::AddressSpace => raw::RLIMIT_AS,
        Resource::PendingSignals => raw::RLIMIT_SIGPENDING,
        Resource::MessageQueues => raw::RLIMIT_MSGQUEUE,
        Resource::Nice => raw::RLIMIT_NICE,
        Resource::RealtimePriority => raw::RLIMIT_RTPRIO,
        Resource::RealtimeTime => raw::RLIMIT_RTTIME,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::command::Terminal;

    #[test]
    fn a_name_is_looked_for_in_the_jobs_path() {
        let path = |text: &str| OsString::from(text);
        assert_eq!(candidates(OsStr::new("a/b"), None), ["a/b"]);
        assert_eq!(candidates(OsStr::new("sh"), Some(&path("/x::/y"))), ["/x/sh", "./sh", "/y/sh"]);
        assert_eq!(candidates(OsStr::new("sh"), None).len(), DEFAULT_PATH.split(':').count());
    }

    #[test]
    fn a_set_of_processors_has_a_bit_for_each() {
        let mask = |list: &[u32]| mask(&list.iter().copied().collect());
        assert_eq!(mask(&[0, 2]).unwrap(), [0b101]);
        let bits = usize::BITS;
        assert_eq!(mask(&[bits, 2 * bits + 1, 0]).unwrap(), [1, 1, 2]);
        assert!(mask(&[]).is_err() && mask(&[1 << 16]).is_err() && mask(&[u32::MAX]).is_err());
        assert_eq!(mask(&[(1 << 16) - 1]).unwrap().len() * bits as usize, 1 << 16);
    }

    #[test]
    fn what_no_kernel_could_run_is_refused() {
        let reason = |command: &Command| match Prepared::new(command) {
            Err(SpawnError::InvalidCommand { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        assert!(reason(&Command::new("")).contains("empty"));
        assert!(reason(&Command::new("a\0b")).contains("program contains a NUL"));
        assert!(reason(Command::new("a").arg0("b\0")).contains("arg0"));
        assert!(reason(Command::new("a").arg("b\0")).contains("argument"));
        assert!(reason(Command::new("a").env("b", "\0")).contains("environment"));
        assert!(reason(Command::new("a").env("b=c", "")).contains("'='"));
        assert!(reason(Command::new("a").uid(1)).contains("group id"));
        assert!(reason(Command::new("a").oom_score_adj(1001)).contains("oom_score_adj"));
        assert!(reason(Command::new("a").nice(20)).contains("nice value"));
        assert!(reason(Command::new("a").scheduler(Scheduler::Fifo(0))).contains("real-time"));
        assert!(reason(Command::new("a").cpu_affinity([])).contains("processors"));
        for priority in [IoPriority::RealTime(8), IoPriority::BestEffort(255)] {
            assert!(reason(Command::new("a").io_priority(priority)).contains("I/O priority"));
        }
        for number in [-1, 0, 2, RawFd::MAX] {
            let null = File::open("/dev/null").unwrap();
            assert!(reason(Command::new("a").pass_fd(number, null)).contains("descriptor"));
        }
        assert!(reason(Command::new("a").chroot("b\0")).contains("root directory"));
        assert!(reason(Command::new("a").uid(u32::MAX)).contains("4294967295"));
        assert!(reason(Command::new("a").rlimit(Resource::Cpu, None, Some(1))).contains("soft"));
        assert!(reason(Command::new("a").stdin(Stdin::Terminal)).contains("Output::Terminal"));
        let terminal = Output::Terminal(Terminal::new(24, 80));
        for group in [ProcessGroup::Own, ProcessGroup::Host] {
            let mut command = Command::new("a");
            command.output(terminal.clone()).process_group(group);
            assert!(reason(&command).contains("ProcessGroup::Session"));
        }
        assert!(reason(Command::new("a").output(terminal).detached(true)).contains("detached"));
    }
}
