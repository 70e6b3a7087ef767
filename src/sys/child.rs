//! Owns what a child does on the memory of the host, from its first instruction until it becomes
//! another program or exits.
//!
//! Invariant: it allocates nothing, takes no lock and cannot panic; everything that it needs is in
//! a [`Plan`], and everything that it reports goes into a [`Message`]. Knows nothing of how it was
//! cloned.
#![allow(unsafe_code)]

use std::convert::Infallible;
use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use linux_raw_sys::general as raw;
use rustix::io::Errno;

use crate::error::Stage;
use crate::sys::calls;
use crate::sys::plan::{Descriptor, Plan, ResourceLimit};

/// What the child reports to the parent, on memory that both see whether or not they share an
/// address space.
#[repr(C)]
pub(super) struct Message {
    /// Zero, or the stage that failed.
    pub(super) stage: AtomicU32,
    pub(super) errno: AtomicI32,
    /// Zero, or the last stage that was begun.
    pub(super) begun: AtomicU32,
    /// For the placement probe: how much of `members` was read, or a negative errno.
    pub(super) length: AtomicI32,
    pub(super) members: [u8; 64],
}

/// What [`child_main`] is given.
pub(super) struct Child<'a> {
    pub(super) plan: &'a Plan<'a>,
    /// The host's process id, to notice its death.
    pub(super) host: i32,
    pub(super) message: *mut Message,
    /// What the parent reads of, if it does not wait in clone3: closed by exec, and by exit.
    pub(super) verdict: Option<BorrowedFd<'a>>,
}

/// The child, on its own stack, until it becomes another program. `data` must point to a [`Child`].
pub(super) extern "C" fn child_main(data: *const c_void) -> ! {
    // SAFETY: `Nursery::spawn` passes a `Child` that lives until the parent runs on.
    let child = unsafe { &*data.cast::<Child<'_>>() };
    let Err((stage, errno)) = become_program(child);
    // SAFETY: the page is mapped in the child as well, and its fields are atomic.
    let message = unsafe { &*child.message };
    message.errno.store(errno, Ordering::Relaxed);
    message.stage.store(stage as u32, Ordering::Relaxed);
    calls::exit(127)
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
    child: &Child<'_>,
    stage: Stage,
    run: impl FnOnce() -> Result<T, i32>,
) -> Result<T, (Stage, i32)> {
    // SAFETY: the page is mapped in the child as well, and its fields are atomic.
    let message = unsafe { &*child.message };
    message.begun.store(stage as u32, Ordering::Relaxed);
    run().map_err(|errno| (stage, errno))
}

/// Runs one step with a value, if there is one.
fn step_if<T>(
    child: &Child<'_>,
    stage: Stage,
    value: Option<T>,
    run: impl FnOnce(T) -> Result<(), i32>,
) -> Result<(), (Stage, i32)> {
    value.map_or(Ok(()), |value| step(child, stage, || run(value)))
}

/// Every step from clone3 to exec, in order; returns only when one has failed.
fn become_program(child: &Child<'_>) -> Result<Infallible, (Stage, i32)> {
    let plan = child.plan;

    step(child, Stage::ProcessGroup, || {
        if plan.new_session {
            calls::set_session()
        } else if plan.new_process_group {
            calls::set_process_group()
        } else {
            Ok(())
        }
    })?;
    step(child, Stage::Signals, reset_signals)?;
    let verdict = step(child, Stage::StandardStreams, || {
        // Out of the way of what the program has, and of where it will be.
        let verdict = match child.verdict {
            Some(fd) if fd.as_raw_fd() <= plan.last_descriptor() => {
                Some(calls::duplicate_above(fd, plan.last_descriptor() + 2)?)
            }
            other => other.map(|fd| fd.as_raw_fd()),
        };
        connect_streams(plan)?;
        Ok(verdict)
    })?;
    if !plan.descriptors.is_empty() {
        step(child, Stage::Descriptors, || pass_descriptors(plan))?;
    }
    // Before the ids change: from then on, the job's user may stop this process, and must not make
    // it keep open what belongs to others, such as the verdict of another start.
    step(child, Stage::CloseDescriptors, || close_descriptors(plan, verdict))?;
    step(child, Stage::ResourceLimits, || {
        if let Some(mask) = plan.umask {
            calls::set_umask(mask)?;
        }
        for ResourceLimit { resource, limit } in plan.limits {
            calls::set_resource_limit(*resource, limit)?;
        }
        Ok(())
    })?;
    // What takes privileges comes before the ids change, which may take them away.
    if let Some(adjustment) = plan.oom_score_adj {
        // The kernel gives it to every process that shares the memory, but not by way of a vfork
        // child, so not to the host.
        step(child, Stage::OomScore, || {
            calls::write_file(c"/proc/self/oom_score_adj", adjustment)
        })?;
    }
    step_if(child, Stage::Scheduling, plan.scheduler, |(policy, priority)| {
        calls::set_scheduler(policy, priority)
    })?;
    step_if(child, Stage::Scheduling, plan.nice, calls::set_nice)?;
    step_if(child, Stage::Affinity, plan.affinity, calls::set_affinity)?;
    step_if(child, Stage::IoPriority, plan.io_priority, calls::set_io_priority)?;
    if plan.new_session_keyring {
        step(child, Stage::SessionKeyring, calls::join_new_session_keyring)?;
    }
    step_if(child, Stage::BoundingSet, plan.capability_bounding_set, calls::limit_capabilities)?;
    step_if(child, Stage::SecureBits, plan.securebits, calls::set_securebits)?;
    // After the last step that needs the host's /proc.
    step_if(child, Stage::RootDirectory, plan.root, calls::change_root)?;
    if let Some(groups) = plan.groups {
        step(child, Stage::Groups, || calls::set_groups(groups))?;
    }
    if let Some(gid) = plan.gid {
        step(child, Stage::GroupId, || calls::set_group_id(gid))?;
    }
    if let Some(uid) = plan.uid {
        step(child, Stage::UserId, || calls::set_user_id(uid))?;
    }
    if plan.changes_ids() || plan.capability_bounding_set.is_some() {
        // The bounding set does not bound the ambient and inheritable ones, and the kernel leaves
        // all to the job unless the user changes from root to another. A user other than root needs
        // none from here on, so the directory is entered without.
        let all = plan.uid.is_some_and(|uid| uid != 0);
        step(child, Stage::Capabilities, || calls::clear_capabilities(all))?;
    }
    if plan.no_new_privs {
        step(child, Stage::NoNewPrivileges, calls::set_no_new_privs)?;
    }
    if let Some(dir) = plan.current_dir {
        step(child, Stage::CurrentDirectory, || calls::change_directory(dir))?;
    }
    if let Some(signal) = plan.parent_death_signal {
        // After the change of ids, which would clear it. A host that died before this line never
        // sends it.
        let parent = step(child, Stage::ParentDeathSignal, || {
            calls::set_parent_death_signal(signal)?;
            calls::parent()
        })?;
        if parent != child.host.unsigned_abs() as usize {
            calls::exit(127);
        }
    }
    step(child, Stage::Exec, || Err(execute(plan)))
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

/// Puts the plan's descriptors in their places.
fn pass_descriptors(plan: &Plan<'_>) -> Result<(), i32> {
    for Descriptor { number, source } in plan.descriptors {
        // SAFETY: the plan borrows the source. The number is none of the standard streams', nor
        // that of another source or of the verdict, which are all above; nothing else is used.
        unsafe { calls::duplicate_onto(source.as_raw_fd(), *number) }?;
    }
    Ok(())
}

/// Closes all descriptors but those of the program and the verdict, which becomes the next after
/// them and is closed by exec.
fn close_descriptors(plan: &Plan<'_>, verdict: Option<RawFd>) -> Result<(), i32> {
    let mut first = 3;
    for Descriptor { number, .. } in plan.descriptors {
        if first < *number {
            // SAFETY: the child has a descriptor table of its own (no CLONE_FILES), and what it
            // uses from here on are the program's descriptors and the verdict, which is above.
            unsafe { calls::close_range(first.unsigned_abs(), number.unsigned_abs() - 1) }?;
        }
        first = number + 1;
    }
    if let Some(fd) = verdict {
        // SAFETY: the descriptor is open, and nothing is used of what is above the program's.
        unsafe { calls::duplicate_until_exec(fd, first) }?;
        first += 1;
    }
    // SAFETY: as above: what the child uses is below.
    unsafe { calls::close_range(first.unsigned_abs(), u32::MAX) }
}

/// Makes the plan's streams 0, 1 and 2.
fn connect_streams(plan: &Plan<'_>) -> Result<(), i32> {
    // First lift every source above 2, then put each in its place: no step can overwrite the source
    // of a later one.
    let mut sources: [RawFd; 3] = [0; 3];
    for (source, stream) in sources.iter_mut().zip(plan.streams) {
        *source = match stream.as_raw_fd() {
            0..=2 => calls::duplicate_above(stream, 3)?,
            above => above,
        };
    }
    for (target, source) in (0..).zip(sources) {
        // SAFETY: the source is open, as the plan borrows it or it was made above. The child has a
        // descriptor table of its own, in which nothing else uses the standard streams.
        unsafe { calls::duplicate_onto(source, target) }?;
    }
    Ok(())
}

/// Executes the first of the programs that can be; returns the errno that best explains why none
/// could.
fn execute(plan: &Plan<'_>) -> i32 {
    // As integers: the conversion into an `Errno` checks its range, and could panic.
    const ENOENT: i32 = Errno::NOENT.raw_os_error();
    const EACCES: i32 = Errno::ACCESS.raw_os_error();
    const ENOTDIR: i32 = Errno::NOTDIR.raw_os_error();
    const ETXTBSY: i32 = Errno::TXTBSY.raw_os_error();
    const ENAMETOOLONG: i32 = Errno::NAMETOOLONG.raw_os_error();
    const ELOOP: i32 = Errno::LOOP.raw_os_error();

    let mut verdict = ENOENT;
    for program in plan.programs {
        // Another thread of the host that forks while the program file is being written holds it
        // open for writing until that child executes: yield to it, a bounded number of times.
        let mut errno = ETXTBSY;
        for _ in 0..16 {
            errno = calls::execute(program, plan.argv, plan.envp);
            if errno != ETXTBSY {
                break;
            }
            calls::yield_processor();
        }
        match errno {
            ENOENT => {}
            // A wrong entry of PATH is passed over; of a path that was given it is the cause.
            ENOTDIR | ENAMETOOLONG | ELOOP if plan.programs.len() > 1 => {}
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
