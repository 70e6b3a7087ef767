//! Owns what a child does on the memory of the host, from its first instruction until it becomes
//! another program or exits, and the steps that make a process the program of a job, which the
//! launcher takes as well.
//!
//! Invariant: it allocates nothing, takes no lock and cannot panic; everything that it needs was
//! made ready, and everything that it reports goes into a [`Report`]. Knows nothing of how it was
//! cloned.
#![allow(unsafe_code)]

use std::convert::Infallible;
use std::ffi::{CStr, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::Ordering;

use linux_raw_sys::general as raw;
use rustix::io::Errno;

use crate::error::Stage;
use crate::sys::calls;
use crate::sys::capabilities::Capabilities;
use crate::sys::plan::{Birth, Descriptor, Program, ResourceLimit};
use crate::sys::report::{Message, Report};
use crate::sys::signature;

/// What [`child_main`] is given.
pub(super) struct Child<'a> {
    pub(super) birth: &'a Birth<'a>,
    pub(super) next: Next<'a>,
    pub(super) message: *mut Message,
}

/// What a child does after it has left its host.
pub(super) enum Next<'a> {
    /// It becomes its program.
    Program {
        program: &'a Program,
        /// The host's process id, to notice its death.
        host: i32,
        /// What the parent reads of, if it does not wait in clone3: closed by exec, and by exit.
        verdict: Option<BorrowedFd<'a>>,
    },
    /// It becomes the launcher, which becomes the program.
    Launcher {
        /// The program file of the launcher.
        file: BorrowedFd<'a>,
        letter: BorrowedFd<'a>,
        /// What the launcher reports to.
        verdict: BorrowedFd<'a>,
        /// The capabilities that it would lose by exec.
        capabilities: u64,
        /// The number of its first descriptor, in decimal.
        first: &'a CStr,
    },
}

/// A descriptor that a child keeps besides its standard streams.
struct Kept<'a> {
    fd: BorrowedFd<'a>,
    /// Whether exec closes it.
    until_exec: bool,
}

/// How many descriptors a child keeps at most.
const MOST_KEPT: RawFd = 3;

/// The number that the first descriptor that is kept gets: the next after the program's. The
/// launcher finds there what it reports to, then its letter, and the child the launcher's file.
pub(super) fn first_kept(birth: &Birth<'_>) -> RawFd {
    birth.last_descriptor() + 1
}

/// The first arguments of the launcher, which nobody would give to a program by hand. The number of
/// its first descriptor follows.
pub(super) const LAUNCHER_ARGUMENTS: [&CStr; 2] = [c"jobworker-launcher", c"jobworker:launch"];

/// The child, on its own stack, until it becomes another program. `data` must point to a [`Child`].
pub(super) extern "C" fn child_main(data: *const c_void) -> ! {
    // SAFETY: `Nursery` passes a `Child` that lives until the parent runs on.
    let child = unsafe { &*data.cast::<Child<'_>>() };
    // SAFETY: the page is mapped in the child as well, and its shared fields are atomic.
    let report = Report::Memory(unsafe { &*child.message });
    let Err((stage, errno)) = become_next(child, report);
    report.failed(stage, errno);
    calls::exit(127)
}

fn become_next(child: &Child<'_>, report: Report<'_>) -> Result<Infallible, (Stage, i32)> {
    match child.next {
        Next::Program { program, host, verdict } => {
            match verdict {
                None => leave_host(child.birth, &[], report),
                Some(fd) => leave_host(child.birth, &[Kept { fd, until_exec: true }], report),
            }?;
            become_program(program, host, report)
        }
        Next::Launcher { file, letter, verdict, capabilities, first } => {
            let kept = [
                Kept { fd: verdict, until_exec: false },
                Kept { fd: letter, until_exec: false },
                Kept { fd: file, until_exec: true },
            ];
            leave_host(child.birth, &kept, report)?;
            step(report, Stage::Launcher, || {
                Capabilities::raise(capabilities)?;
                let [name, word] = LAUNCHER_ARGUMENTS;
                let file = first_kept(child.birth) + 2;
                Err(unless_busy(|| calls::execute_descriptor(file, [name, word, first])))
            })
        }
    }
}

/// The signals that are discarded if they reached the child before it left the host's process
/// group: those that stop it, while the parent waits for it in clone3, and those that dump core,
/// which ends every process that shares the memory before Linux 5.16.
const DISCARDED: [u32; 13] = [
    raw::SIGTSTP,
    raw::SIGTTIN,
    raw::SIGTTOU,
    raw::SIGQUIT,
    raw::SIGILL,
    raw::SIGTRAP,
    raw::SIGABRT,
    raw::SIGBUS,
    raw::SIGFPE,
    raw::SIGSEGV,
    raw::SIGSYS,
    raw::SIGXCPU,
    raw::SIGXFSZ,
];

/// Runs one step, after leaving word that it was begun.
fn step<T>(
    report: Report<'_>,
    stage: Stage,
    run: impl FnOnce() -> Result<T, i32>,
) -> Result<T, (Stage, i32)> {
    report.begun(stage);
    run().map_err(|errno| (stage, errno))
}

/// Runs one step with a value, if there is one.
fn step_if<T>(
    report: Report<'_>,
    stage: Stage,
    value: Option<T>,
    run: impl FnOnce(T) -> Result<(), i32>,
) -> Result<(), (Stage, i32)> {
    value.map_or(Ok(()), |value| step(report, stage, || run(value)))
}

/// The first steps, which part the child from its host; the descriptors that it keeps are then
/// those from [`FIRST_KEPT`] on.
fn leave_host(
    birth: &Birth<'_>,
    kept: &[Kept<'_>],
    report: Report<'_>,
) -> Result<(), (Stage, i32)> {
    if let Some(group) = birth.cgroup.filter(|_| birth.signs) {
        // Whoever cannot write this can write no record either, as the host finds out.
        let _ = signature::sign(group);
    }
    step(report, Stage::ProcessGroup, || {
        if birth.new_session {
            calls::set_session()
        } else if birth.new_process_group {
            calls::set_process_group()
        } else {
            Ok(())
        }
    })?;
    // While every descriptor still has the number that it has in the host.
    step_if(report, Stage::Terminal, birth.terminal, calls::set_controlling_terminal)?;
    step(report, Stage::Signals, reset_signals)?;
    let sources = step(report, Stage::StandardStreams, || {
        let sources = lift(birth, kept)?;
        connect_streams(birth)?;
        Ok(sources)
    })?;
    if !birth.descriptors.is_empty() {
        step(report, Stage::Descriptors, || pass_descriptors(birth))?;
    }
    // Before the ids change: from then on, the job's user may stop this process, and must not make
    // it keep open what belongs to others, such as the verdict of another start.
    step(report, Stage::CloseDescriptors, || close_descriptors(birth, kept, sources))
}

/// The steps that make a process the program, in order, up to exec; returns only when one has
/// failed. The process may be a child of the host or the launcher.
pub(super) fn become_program(
    program: &Program,
    host: i32,
    report: Report<'_>,
) -> Result<Infallible, (Stage, i32)> {
    step(report, Stage::ResourceLimits, || {
        if let Some(mask) = program.umask {
            calls::set_umask(mask)?;
        }
        for ResourceLimit { resource, limit } in &program.limits {
            calls::set_resource_limit(*resource, limit)?;
        }
        Ok(())
    })?;
    // What takes privileges comes before the ids change, which may take them away.
    if let Some(adjustment) = &program.oom_score_adj {
        // The kernel gives it to every process that shares the memory, but not by way of a vfork
        // child, so not to the host.
        step(report, Stage::OomScore, || {
            calls::write_file(c"/proc/self/oom_score_adj", adjustment.as_bytes())
        })?;
    }
    step_if(report, Stage::Scheduling, program.scheduler, |(policy, priority)| {
        calls::set_scheduler(policy, priority)
    })?;
    step_if(report, Stage::Scheduling, program.nice, calls::set_nice)?;
    step_if(report, Stage::Affinity, program.affinity.as_deref(), calls::set_affinity)?;
    step_if(report, Stage::IoPriority, program.io_priority, calls::set_io_priority)?;
    if program.new_session_keyring {
        step(report, Stage::SessionKeyring, calls::join_new_session_keyring)?;
    }
    step_if(
        report,
        Stage::BoundingSet,
        program.capability_bounding_set,
        calls::limit_capabilities,
    )?;
    step_if(report, Stage::SecureBits, program.securebits, calls::set_securebits)?;
    // After the last step that needs the host's /proc.
    step_if(report, Stage::RootDirectory, program.root.as_deref(), calls::change_root)?;
    if let Some(groups) = &program.groups {
        step(report, Stage::Groups, || calls::set_groups(groups))?;
    }
    if let Some(gid) = program.gid {
        step(report, Stage::GroupId, || calls::set_group_id(gid))?;
    }
    if let Some(uid) = program.uid {
        step(report, Stage::UserId, || calls::set_user_id(uid))?;
    }
    if program.changes_ids() || program.capability_bounding_set.is_some() {
        // The bounding set does not bound the ambient and inheritable ones, and the kernel leaves
        // all to the job unless the user changes from root to another. A user other than root needs
        // none from here on, so the directory is entered without.
        let all = program.uid.is_some_and(|uid| uid != 0);
        step(report, Stage::Capabilities, || calls::clear_capabilities(all))?;
    }
    if program.no_new_privs {
        step(report, Stage::NoNewPrivileges, calls::set_no_new_privs)?;
    }
    if let Some(dir) = &program.current_dir {
        step(report, Stage::CurrentDirectory, || calls::change_directory(dir))?;
    }
    if let Some(signal) = program.parent_death_signal {
        // After the change of ids, which would clear it. A host that died before this line never
        // sends it.
        let parent = step(report, Stage::ParentDeathSignal, || {
            calls::set_parent_death_signal(signal)?;
            calls::parent()
        })?;
        if parent != host.unsigned_abs() as usize {
            calls::exit(127);
        }
    }
    step(report, Stage::Exec, || Err(execute(program)))
}

/// Gives every signal its default action and unblocks all.
fn reset_signals() -> Result<(), i32> {
    // CLONE_CLEAR_SIGHAND, where it was to be had, has reset the handlers, but it leaves alone what
    // the host ignores, and a Rust host ignores SIGPIPE.
    for signal in 1..=64u32 {
        if signal != raw::SIGKILL && signal != raw::SIGSTOP {
            if DISCARDED.contains(&signal) {
                calls::set_signal_action(signal, true)?;
            }
            calls::set_signal_action(signal, false)?;
        }
    }
    calls::change_signal_mask(raw::SIG_SETMASK, &[0; 2], None)
}

/// Moves the descriptors that are kept out of the way of those of the program, and of where any of
/// them will be; returns where they are then.
fn lift(birth: &Birth<'_>, kept: &[Kept<'_>]) -> Result<[RawFd; MOST_KEPT as usize], i32> {
    let above = first_kept(birth) + MOST_KEPT;
    let mut sources = [0; MOST_KEPT as usize];
    for (source, Kept { fd, .. }) in sources.iter_mut().zip(kept) {
        *source = match fd.as_raw_fd() {
            low if low < above => calls::duplicate_above(*fd, above)?,
            high => high,
        };
    }
    Ok(sources)
}

/// Puts the program's descriptors in their places.
fn pass_descriptors(birth: &Birth<'_>) -> Result<(), i32> {
    for Descriptor { number, source } in birth.descriptors {
        // SAFETY: the plan borrows the source. The number is none of the standard streams', nor
        // that of another source or of one that is kept, which are all above; nothing else is used.
        unsafe { calls::duplicate_onto(source.as_raw_fd(), *number) }?;
    }
    Ok(())
}

/// Puts the descriptors that are kept behind those of the program, and closes all others.
fn close_descriptors(
    birth: &Birth<'_>,
    kept: &[Kept<'_>],
    sources: [RawFd; MOST_KEPT as usize],
) -> Result<(), i32> {
    let mut free = 3;
    for Descriptor { number, .. } in birth.descriptors {
        if free < *number {
            // SAFETY: the child has a descriptor table of its own (no CLONE_FILES), and what it
            // uses from here on are the program's descriptors and those that are kept, which are
            // above them.
            unsafe { calls::close_range(free.unsigned_abs(), number.unsigned_abs() - 1) }?;
        }
        free = number + 1;
    }
    for (Kept { until_exec, .. }, source) in kept.iter().zip(sources) {
        // SAFETY: the source is open and above every target; what the child uses of the others are
        // the program's descriptors and these alone.
        unsafe {
            if *until_exec {
                calls::duplicate_until_exec(source, free)
            } else {
                calls::duplicate_onto(source, free)
            }
        }?;
        free += 1;
    }
    // SAFETY: as above: what the child uses is below.
    unsafe { calls::close_range(free.unsigned_abs(), u32::MAX) }
}

/// Makes the streams 0, 1 and 2.
fn connect_streams(birth: &Birth<'_>) -> Result<(), i32> {
    // First lift every source above 2, then put each in its place: no step can overwrite the source
    // of a later one.
    let mut sources: [RawFd; 3] = [0; 3];
    for (source, stream) in sources.iter_mut().zip(birth.streams) {
        *source = match stream.as_raw_fd() {
            0..=2 => calls::duplicate_above(stream, 3)?,
            above => above,
        };
    }
    for (target, source) in (0..).zip(sources) {
        // SAFETY: the source is open, as the birth borrows it or it was made above. The child has a
        // descriptor table of its own, in which nothing else uses the standard streams.
        unsafe { calls::duplicate_onto(source, target) }?;
    }
    Ok(())
}

/// Executes a program by a call that returns the errno of its failure.
fn unless_busy(execute: impl Fn() -> i32) -> i32 {
    const ETXTBSY: i32 = Errno::TXTBSY.raw_os_error();
    // Another thread of the host that forks while the program file is being written holds it open
    // for writing until that child executes: yield to it, a bounded number of times.
    for _ in 0..16 {
        let errno = execute();
        if errno != ETXTBSY {
            return errno;
        }
        calls::yield_processor();
    }
    ETXTBSY
}

/// Executes the first of the programs that can be; returns the errno that best explains why none
/// could.
fn execute(program: &Program) -> i32 {
    // As integers: the conversion into an `Errno` checks its range, and could panic.
    const ENOENT: i32 = Errno::NOENT.raw_os_error();
    const EACCES: i32 = Errno::ACCESS.raw_os_error();
    const ENOTDIR: i32 = Errno::NOTDIR.raw_os_error();
    const ENAMETOOLONG: i32 = Errno::NAMETOOLONG.raw_os_error();
    const ELOOP: i32 = Errno::LOOP.raw_os_error();

    let mut verdict = ENOENT;
    for path in &program.paths {
        let errno = unless_busy(|| calls::execute(path, &program.argv, &program.envp));
        match errno {
            ENOENT => {}
            // A wrong entry of PATH is passed over; of a path that was given it is the cause.
            ENOTDIR | ENAMETOOLONG | ELOOP if program.paths.len() > 1 => {}
            EACCES => verdict = errno,
            _ => return errno,
        }
    }
    verdict
}

/// What [`probe_main`] is given.
pub(super) struct Probe {
    pub(super) cgroup: RawFd,
    pub(super) message: *mut Message,
}

/// The placement probe's child: reads the members of the group it should be in, and exits.
/// `data` must point to a [`Probe`].
pub(super) extern "C" fn probe_main(data: *const c_void) -> ! {
    // SAFETY: `Nursery::probe` passes a `Probe` that lives until the parent runs on.
    let probe = unsafe { &*data.cast::<Probe>() };
    let message = probe.message;
    // SAFETY: the path is a literal with a NUL; the buffer is in the message page, which only this
    // child uses now.
    let read = unsafe {
        let dir = probe.cgroup.unsigned_abs() as usize;
        let path = c"cgroup.procs".as_ptr().expose_provenance();
        calls::call(
            raw::__NR_openat,
            [dir, path, (raw::O_RDONLY | raw::O_CLOEXEC) as usize, 0, 0, 0],
        )
        .and_then(|fd| {
            let buffer = (&raw mut (*message).members).expose_provenance();
            calls::call(raw::__NR_read, [fd, buffer, 64, 0, 0, 0])
        })
    };
    // SAFETY: the field is atomic, and the page is mapped here as well.
    let length = unsafe { &(*message).length };
    length.store(
        read.map_or_else(|errno| -errno, |bytes| i32::try_from(bytes).unwrap_or(0)),
        Ordering::Relaxed,
    );
    calls::exit(127)
}
