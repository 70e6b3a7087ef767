//! Owns [`Plan`]: everything that a child does between clone3 and exec, in the form in which the
//! kernel takes it.
//!
//! Invariant: plain data that the child only reads, so that it has nothing to allocate. Knows
//! nothing of how the child is made.

use std::ffi::{CString, c_char};
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;

use linux_raw_sys::general as raw;

use crate::command::Signal;
use crate::error::Stage;
use crate::sys::process::Process;

/// A list of strings in the form that execve takes.
#[derive(Debug)]
pub(crate) struct CStringArray {
    /// Owns what `pointers` point to: heap blocks, which do not move when the vector does.
    strings: Vec<CString>,
    /// One pointer for each of the strings, then a null pointer.
    pointers: Vec<*const c_char>,
}

impl CStringArray {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { strings, pointers }
    }

    pub(super) fn strings(&self) -> &[CString] {
        &self.strings
    }

    /// The array, null-terminated; valid for as long as `self`.
    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// A resource limit in the kernel's terms.
#[derive(Debug)]
pub(crate) struct ResourceLimit {
    pub(crate) resource: u32,
    pub(crate) limit: raw::rlimit64,
}

/// A descriptor that a child has besides its standard streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor<'a> {
    /// What it is in the child; above those of the standard streams.
    pub(crate) number: RawFd,
    /// What it is in the host: a number above all of those, so that putting one in its place cannot
    /// overwrite another.
    pub(crate) source: BorrowedFd<'a>,
}

/// Everything the child does between clone3 and exec, made ready beforehand.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) birth: Birth<'a>,
    pub(crate) program: &'a Program,
}

/// How a child leaves its host, whatever it becomes then.
#[derive(Debug)]
pub(crate) struct Birth<'a> {
    /// What becomes 0, 1 and 2.
    pub(crate) streams: [BorrowedFd<'a>; 3],
    /// What else the child has, in the order of the numbers that it has there.
    pub(crate) descriptors: &'a [Descriptor<'a>],
    /// The directory of the cgroup to be born in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// Whether it [signs](super::Signature) that.
    pub(crate) signs: bool,
    pub(crate) new_session: bool,
    pub(crate) new_process_group: bool,
    /// What becomes the controlling terminal of the new session.
    pub(crate) terminal: Option<BorrowedFd<'a>>,
}

impl Birth<'_> {
    /// The highest descriptor that the program has.
    pub(super) fn last_descriptor(&self) -> RawFd {
        self.descriptors.last().map_or(2, |last| last.number)
    }
}

/// What a child becomes, and what it changes about itself before. It names no descriptor, so that
/// another process can be told to do it.
#[derive(Debug)]
pub(crate) struct Program {
    /// Paths to execute: the first that can be wins.
    pub(crate) paths: Vec<CString>,
    pub(crate) argv: CStringArray,
    pub(crate) envp: CStringArray,
    pub(crate) root: Option<CString>,
    pub(crate) current_dir: Option<CString>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) groups: Option<Vec<u32>>,
    pub(crate) umask: Option<u32>,
    pub(crate) limits: Vec<ResourceLimit>,
    /// In decimal.
    pub(crate) oom_score_adj: Option<String>,
    pub(crate) nice: Option<i32>,
    /// The policy's number and its priority.
    pub(crate) scheduler: Option<(u32, u8)>,
    /// A bit for each processor, in the kernel's words.
    pub(crate) affinity: Option<Vec<usize>>,
    /// The class and the level, as ioprio_set takes them.
    pub(crate) io_priority: Option<u16>,
    pub(crate) new_session_keyring: bool,
    pub(crate) capability_bounding_set: Option<u64>,
    pub(crate) securebits: Option<u32>,
    pub(crate) no_new_privs: bool,
    pub(crate) parent_death_signal: Option<Signal>,
}

impl Program {
    /// The first of these that can be executed, with nothing to change before.
    pub(crate) fn new(paths: Vec<CString>, argv: CStringArray, envp: CStringArray) -> Self {
        Self {
            paths,
            argv,
            envp,
            root: None,
            current_dir: None,
            uid: None,
            gid: None,
            groups: None,
            umask: None,
            limits: Vec::new(),
            oom_score_adj: None,
            nice: None,
            scheduler: None,
            affinity: None,
            io_priority: None,
            new_session_keyring: false,
            capability_bounding_set: None,
            securebits: None,
            no_new_privs: false,
            parent_death_signal: None,
        }
    }

    /// Whether the child takes other ids, so that somebody else may signal it before exec.
    pub(super) fn changes_ids(&self) -> bool {
        self.uid.is_some() || self.gid.is_some()
    }
}

/// Why a process was not started within its time.
#[derive(Debug)]
pub(crate) enum Unstarted {
    /// A step failed; nothing is left.
    Failed(Failure),
    /// The time has passed, or the child failed and did not exit. The child is left to the caller,
    /// who has to end it.
    TimedOut {
        /// The last step that the child began; `None` when it has begun none.
        stage: Option<Stage>,
        child: Process,
    },
}

impl From<Failure> for Unstarted {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Where and why a start failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    pub(crate) errno: i32,
}
