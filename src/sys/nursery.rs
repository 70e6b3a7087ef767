//! Owns the birth of a process: clone3 on a stack of its own, and the code that runs in the child
//! until exec.
//!
//! Invariant: between clone3 and exec the child allocates nothing, takes no lock and cannot panic;
//! everything it needs lies ready in a [`Plan`].
#![allow(unsafe_code)]

use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{io, mem, ptr};

use linux_raw_sys::general as raw;
use linux_raw_sys::prctl::{
    PR_GET_DUMPABLE, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG,
};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use crate::command::Signal;
use crate::error::Stage;
use crate::event::Exit;
use crate::sys::calls::{Reap, call, exit_after_reap, wait};

/// A list of strings in the form that execve takes.
#[derive(Debug)]
pub(crate) struct CStringArray {
    /// Owns what `pointers` point to: heap blocks, which do not move when the vector does.
    _strings: Vec<CString>,
    /// One pointer for each of the strings, then a null pointer.
    pointers: Vec<*const c_char>,
}

impl CStringArray {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { _strings: strings, pointers }
    }
}

/// A resource limit in the kernel's terms.
#[derive(Debug)]
pub(crate) struct ResourceLimit {
    pub(crate) resource: u32,
    pub(crate) limit: raw::rlimit64,
}

/// Everything the child does between clone3 and exec, made ready beforehand.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Paths to execute: the first that can be wins.
    pub(crate) programs: &'a [CString],
    pub(crate) argv: &'a CStringArray,
    pub(crate) envp: &'a CStringArray,
    /// What becomes 0, 1 and 2.
    pub(crate) streams: [BorrowedFd<'a>; 3],
    /// The directory of the cgroup to be born in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    pub(crate) current_dir: Option<&'a CStr>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) groups: Option<&'a [u32]>,
    pub(crate) umask: Option<u32>,
    pub(crate) limits: &'a [ResourceLimit],
    pub(crate) no_new_privs: bool,
    pub(crate) new_session: bool,
    pub(crate) new_process_group: bool,
    pub(crate) parent_death_signal: Option<Signal>,
}

/// Where and why a start failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    pub(crate) errno: i32,
}

/// What the placement probe has shown.
#[derive(Debug)]
pub(crate) struct Placement {
    /// What the child found where it should have found itself, if it did not.
    pub(crate) misplaced: Option<String>,
    /// Whether the kernel tells how a process ended after it was reaped.
    pub(crate) tells_exit: bool,
}

/// What the child tells the parent, on memory that both see whether or not they share an address
/// space.
#[repr(C)]
struct Message {
    /// Zero, or the stage that failed.
    stage: AtomicU32,
    errno: AtomicI32,
    /// For the placement probe: how much of `members` was read, or a negative errno.
    length: AtomicI32,
    members: [u8; 64],
}

/// The memory a child runs on before exec: a stack with a guard page below, and a page for its
/// message.
///
/// One is enough for each thread that starts processes, because the parent waits in clone3 until the
/// child has left it (`CLONE_VFORK`).
#[derive(Debug)]
pub(super) struct Nursery {
    base: *mut c_void,
    message: *mut Message,
    page: usize,
}

// SAFETY: the pointers name mappings that this value owns alone.
unsafe impl Send for Nursery {}

/// Held while the dumpable flag, of which a process has only one, is not what the host made it.
static CHANGES_IDS: Mutex<()> = Mutex::new(());

/// The child's code needs about one KiB in release and four in debug builds.
const STACK_SIZE: usize = 64 * 1024;

impl Nursery {
    pub(super) fn new() -> io::Result<Self> {
        let page = rustix::param::page_size();
        let length = page + STACK_SIZE;
        // SAFETY: new anonymous mappings touch no memory that is in use.
        let base = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                length,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::STACK,
            )
        }?;
        // SAFETY: a new anonymous mapping again.
        let message = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                page,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
        };
        let message = match message {
            // A zeroed page is a valid message, and larger than one.
            Ok(message) => message.cast::<Message>(),
            Err(error) => {
                // SAFETY: `base` was mapped above with this length, and nothing uses it.
                let _ = unsafe { munmap(base, length) };
                return Err(error.into());
            }
        };
        let nursery = Self { base, message, page };
        // SAFETY: the range is the part of our own mapping above the guard page.
        unsafe {
            mprotect(
                base.wrapping_byte_add(page),
                STACK_SIZE,
                MprotectFlags::READ | MprotectFlags::WRITE,
            )
        }?;
        Ok(nursery)
    }

    fn message(&self) -> &Message {
        // SAFETY: the page lives as long as `self`; its shared fields are atomic, and `members` is
        // written only while the parent waits in clone3.
        unsafe { &*self.message }
    }

    /// Starts the program that `plan` describes.
    pub(super) fn spawn(&mut self, plan: &Plan<'_>) -> Result<(u32, OwnedFd), Failure> {
        // Only asked for where the child has to notice the host's death.
        let host = plan
            .parent_death_signal
            .map_or(0, |_| rustix::process::getpid().as_raw_nonzero().get());
        self.message().stage.store(0, Ordering::Relaxed);
        // Changing ids clears this flag of the *address space*, which the child shares with the
        // host until exec. One such child at a time, whatever the thread: another spawn
        // would save the flag as this one's child has left it.
        let changes_ids = plan.uid.is_some() || plan.gid.is_some();
        let one_at_a_time =
            changes_ids.then(|| CHANGES_IDS.lock().unwrap_or_else(PoisonError::into_inner));
        // SAFETY: PR_GET_DUMPABLE takes no further argument.
        let dumpable = changes_ids
            .then(|| unsafe { call(raw::__NR_prctl, [PR_GET_DUMPABLE as usize, 0, 0, 0, 0, 0]) });
        let child = Child { plan, host, message: self.message };
        // SAFETY: `child_main` leaves by exec or exit, and everything it reads lives until clone3
        // has returned here.
        let born = unsafe { self.clone(plan.cgroup, child_main, (&raw const child).cast()) };
        if let Some(Ok(1)) = dumpable {
            // SAFETY: PR_SET_DUMPABLE takes one integer. It cannot fail with 1.
            let _ = unsafe { call(raw::__NR_prctl, [PR_SET_DUMPABLE as usize, 1, 0, 0, 0, 0]) };
        }
        drop(one_at_a_time);
        let (pid, pidfd) = born.map_err(|errno| Failure { stage: Stage::Clone, errno })?;
        let stage = self.message().stage.load(Ordering::Relaxed);
        match Stage::ALL.into_iter().find(|known| *known as u32 == stage) {
            None => Ok((pid, pidfd)),
            Some(stage) => {
                let errno = self.message().errno.load(Ordering::Relaxed);
                // It has left through exit: this reaps it at once.
                let _ = wait(&pidfd, Reap::Block);
                Err(Failure { stage, errno })
            }
        }
    }

    /// Clones a child into the cgroup and lets it look whether it is there: does the kernel do what
    /// it was asked?
    ///
    /// `misplaced` says what it found if it was not there.
    pub(super) fn probe(&mut self, cgroup: BorrowedFd<'_>) -> Result<Placement, Failure> {
        let failure = |errno| Failure { stage: Stage::Clone, errno };
        self.message().length.store(0, Ordering::Relaxed);
        let probe = Probe { cgroup: cgroup.as_raw_fd(), message: self.message };
        // SAFETY: `probe_main` leaves by exit, and what it reads lives until clone3 has returned
        // here.
        let (pid, pidfd) =
            unsafe { self.clone(Some(cgroup), probe_main, (&raw const probe).cast()) }
                .map_err(failure)?;
        let ended = wait(&pidfd, Reap::Block)
            .map_err(|error| failure(error.raw_os_error().unwrap_or(0)))?;
        let tells_exit = exit_after_reap(&pidfd) != Exit::Unknown;
        let misplaced = match ended {
            Some((exit @ Exit::Signal { .. }, _)) => {
                Some(format!("a child cloned into a new cgroup was ended at birth by {exit}"))
            }
            _ => self.misplaced(pid),
        };
        Ok(Placement { misplaced, tells_exit })
    }

    /// What the probe's child has found, if it was not itself.
    fn misplaced(&self, pid: u32) -> Option<String> {
        let message = self.message();
        let Ok(length) = usize::try_from(message.length.load(Ordering::Relaxed)) else {
            return Some(
                "a child cloned into a new cgroup could not read cgroup.procs there".to_owned(),
            );
        };
        let members =
            String::from_utf8_lossy(message.members.get(..length).unwrap_or(&[])).into_owned();
        let landed = members.lines().any(|line| line.parse() == Ok(pid));
        (!landed).then(|| {
            format!("a child cloned into a new cgroup is not in it (members: {members:?})")
        })
    }

    /// clone3 into `cgroup`, running `entry(data)` in the child and returning in the parent when
    /// that has left.
    ///
    /// # Safety
    /// `entry` must never return, allocate or lock; `data` must be what it expects.
    unsafe fn clone(
        &mut self,
        cgroup: Option<BorrowedFd<'_>>,
        entry: extern "C" fn(*const c_void) -> !,
        data: *const c_void,
    ) -> Result<(u32, OwnedFd), i32> {
        let mut pidfd: RawFd = -1;
        let mut flags = u64::from(raw::CLONE_PIDFD | raw::CLONE_VFORK) | raw::CLONE_CLEAR_SIGHAND;
        if cgroup.is_some() {
            flags |= raw::CLONE_INTO_CGROUP;
        }
        let mut arguments = raw::clone_args {
            flags,
            pidfd: (&raw mut pidfd).addr() as u64,
            child_tid: 0,
            parent_tid: 0,
            // None: exec makes it SIGCHLD, and the host need not hear of a child that never gets so
            // far, because it is reaped here.
            exit_signal: 0,
            stack: 0,
            stack_size: 0,
            tls: 0,
            set_tid: 0,
            set_tid_size: 0,
            // A descriptor is never negative.
            cgroup: cgroup.map_or(0, |dir| u64::from(dir.as_raw_fd().unsigned_abs())),
        };
        if SHARES_MEMORY {
            arguments.flags |= u64::from(raw::CLONE_VM);
            arguments.stack = self.base.addr() as u64 + self.page as u64;
            arguments.stack_size = STACK_SIZE as u64;
        }
        let mut before = [0u64; 2];
        let masked = change_signal_mask(raw::SIG_BLOCK, &BLOCKED_AT_BIRTH, Some(&mut before));
        // SAFETY: the argument block is complete and lives on; stack, entry and data are as the
        // caller promises.
        let result = unsafe { clone3(&arguments, mem::size_of_val(&arguments), entry, data) };
        if masked.is_ok() {
            let _ = change_signal_mask(raw::SIG_SETMASK, &before, None);
        }
        match u32::try_from(result) {
            // SAFETY: the kernel has just opened this descriptor for us, close-on-exec.
            Ok(pid) => Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) })),
            Err(_) => Err(i32::try_from(-result).unwrap_or(0)),
        }
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        // SAFETY: both mappings were made in `new` with these lengths, and no child runs on them:
        // clone3 has returned.
        unsafe {
            let _ = munmap(self.base, self.page + STACK_SIZE);
            let _ = munmap(self.message.cast(), self.page);
        }
    }
}

/// Whether the child borrows the host's memory until exec, which makes a spawn independent of the
/// host's size.
const SHARES_MEMORY: bool =
    cfg!(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(jobworker_without_vm)));

/// clone3 for a child with a stack of its own. The parent gets the pid or a negative errno; the
/// child never returns, so it never sees the parent's stack frame, which Rust could not make sound
/// ("returns twice").
///
/// # Safety
/// As for [`Nursery::clone`].
#[cfg(all(target_arch = "x86_64", not(jobworker_without_vm)))]
#[unsafe(naked)]
unsafe extern "C" fn clone3(
    arguments: *const raw::clone_args,
    size: usize,
    entry: extern "C" fn(*const c_void) -> !,
    data: *const c_void,
) -> isize {
    // The kernel keeps all registers but rax, rcx and r11; the fourth argument arrives in rcx.
    std::arch::naked_asm!(
        "mov r8, rcx",
        "mov eax, {number}",
        "syscall",
        "test rax, rax",
        "jnz 2f",
        "xor ebp, ebp",
        "mov rdi, r8",
        "call rdx",
        "ud2",
        "2: ret",
        number = const raw::__NR_clone3,
    )
}

/// As on x86-64.
///
/// # Safety
/// As for [`Nursery::clone`].
#[cfg(all(target_arch = "aarch64", not(jobworker_without_vm)))]
#[unsafe(naked)]
unsafe extern "C" fn clone3(
    arguments: *const raw::clone_args,
    size: usize,
    entry: extern "C" fn(*const c_void) -> !,
    data: *const c_void,
) -> isize {
    // The kernel keeps all registers but x0; x2 and x3 hold entry and data.
    std::arch::naked_asm!(
        "mov x8, {number}",
        "svc #0",
        "cbnz x0, 2f",
        "mov x29, xzr",
        "mov x30, xzr",
        "mov x0, x3",
        "blr x2",
        "brk #1",
        "2: ret",
        number = const raw::__NR_clone3,
    )
}

/// clone3 without shared memory: the child is a copy and goes on from here.
///
/// # Safety
/// As for [`Nursery::clone`].
#[cfg(any(not(any(target_arch = "x86_64", target_arch = "aarch64")), jobworker_without_vm))]
unsafe fn clone3(
    arguments: *const raw::clone_args,
    size: usize,
    entry: extern "C" fn(*const c_void) -> !,
    data: *const c_void,
) -> isize {
    // SAFETY: the argument block is the caller's; the child leaves through `entry`.
    match unsafe { call(raw::__NR_clone3, [arguments.addr(), size, 0, 0, 0, 0]) } {
        Ok(0) => entry(data),
        Ok(pid) => isize::try_from(pid).unwrap_or(isize::MAX),
        Err(errno) => -isize::try_from(errno).unwrap_or(0),
    }
}

/// The signals that are blocked in the parent and the child around clone3: all but those whose
/// default action is to do nothing.
///
/// No handler of the host ever runs in the child, on memory that is the host's, whatever is
/// blocked: `CLONE_CLEAR_SIGHAND` has reset all of them before the child's first instruction. What
/// is left are the default actions. One that stops the child would leave the parent waiting in
/// clone3, and one that dumps core ends every process that shares the memory before Linux 5.16.
///
/// SIGCHLD, SIGCONT, SIGURG and SIGWINCH cannot do either. They have to stay out of the mask
/// because of SIGCHLD, which the kernel sends when any other job of this thread exits. A signal that
/// this thread blocks is not discarded, not even when its default action is to do nothing, but
/// handed to another thread of the host, where it ends an epoll_wait or a sleep with EINTR. In the
/// parent, a handler for one of them runs as it does at any other time: before clone3, which the
/// kernel then starts again, or after it.
const BLOCKED_AT_BIRTH: [u64; 2] = {
    const fn bit(signal: u32) -> u64 {
        1 << (signal - 1)
    }
    let harmless = bit(raw::SIGCHLD) | bit(raw::SIGCONT) | bit(raw::SIGURG) | bit(raw::SIGWINCH);
    [!harmless, u64::MAX]
};

/// Changes the calling thread's signal mask as `how` says, and stores the old one in `before`. The
/// sets are at least as large as the kernel's on every architecture.
fn change_signal_mask(how: u32, mask: &[u64; 2], before: Option<&mut [u64; 2]>) -> Result<(), i32> {
    let before = before.map_or(0, |set| set.as_mut_ptr().expose_provenance());
    let size = mem::size_of::<raw::kernel_sigset_t>();
    const { assert!(mem::size_of::<raw::kernel_sigset_t>() <= mem::size_of::<[u64; 2]>()) };
    let arguments = [how as usize, mask.as_ptr().expose_provenance(), before, size, 0, 0];
    // SAFETY: the kernel reads and writes `size` bytes, no more than either set has; the pointer to
    // the old one may be null.
    unsafe { call(raw::__NR_rt_sigprocmask, arguments) }.map(drop)
}

/// What `child_main` is given.
struct Child<'a> {
    plan: &'a Plan<'a>,
    /// The host's process id, to notice its death.
    host: i32,
    message: *mut Message,
}

/// The child, on its own stack, until it becomes another program.
extern "C" fn child_main(data: *const c_void) -> ! {
    // SAFETY: `Nursery::spawn` passes a `Child` that lives until the parent runs on.
    let child = unsafe { &*data.cast::<Child<'_>>() };
    let Err((stage, errno)) = become_program(child);
    // SAFETY: the page is mapped in the child as well, and its fields are atomic.
    let message = unsafe { &*child.message };
    message.errno.store(errno, Ordering::Relaxed);
    message.stage.store(stage as u32, Ordering::Relaxed);
    leave()
}

/// Ends the child without running anything of the host's.
fn leave() -> ! {
    loop {
        // SAFETY: exit_group takes one integer.
        let _ = unsafe { call(raw::__NR_exit_group, [127, 0, 0, 0, 0, 0]) };
    }
}

/// Every step from clone3 to exec, in order; returns only when one has failed.
fn become_program(child: &Child<'_>) -> Result<Infallible, (Stage, i32)> {
    let plan = child.plan;
    let step = |stage: Stage, number: u32, arguments: [usize; 6]| {
        // SAFETY: all pointers below come from live references of `plan` or of this frame.
        unsafe { call(number, arguments) }.map_err(|errno| (stage, errno))
    };

    if plan.new_session {
        step(Stage::ProcessGroup, raw::__NR_setsid, [0; 6])?;
    } else if plan.new_process_group {
        step(Stage::ProcessGroup, raw::__NR_setpgid, [0; 6])?;
    }

    // CLONE_CLEAR_SIGHAND has reset the handlers, but it leaves alone what the host ignores, and a
    // Rust host ignores SIGPIPE. All zero is SIG_DFL with no flags.
    let default_action = [0u64; 8];
    let set_size = mem::size_of::<raw::kernel_sigset_t>();
    for signal in 1..=64u32 {
        if signal != raw::SIGKILL && signal != raw::SIGSTOP {
            let arguments =
                [signal as usize, default_action.as_ptr().expose_provenance(), 0, set_size, 0, 0];
            step(Stage::Signals, raw::__NR_rt_sigaction, arguments)?;
        }
    }
    change_signal_mask(raw::SIG_SETMASK, &[0; 2], None).map_err(|errno| (Stage::Signals, errno))?;

    // First lift every source above 2, then put each in its place: no step can overwrite the source
    // of a later one.
    let mut sources = [0usize; 3];
    for (source, stream) in sources.iter_mut().zip(plan.streams) {
        *source = stream.as_raw_fd().unsigned_abs() as usize;
        if *source < 3 {
            *source = step(
                Stage::StandardStreams,
                raw::__NR_fcntl,
                [*source, raw::F_DUPFD as usize, 3, 0, 0, 0],
            )?;
        }
    }
    for (target, source) in sources.into_iter().enumerate() {
        step(Stage::StandardStreams, raw::__NR_dup3, [source, target, 0, 0, 0, 0])?;
    }

    if let Some(mask) = plan.umask {
        step(Stage::ResourceLimits, raw::__NR_umask, [mask as usize, 0, 0, 0, 0, 0])?;
    }
    for ResourceLimit { resource, limit } in plan.limits {
        let arguments = [0, *resource as usize, ptr::from_ref(limit).expose_provenance(), 0, 0, 0];
        step(Stage::ResourceLimits, raw::__NR_prlimit64, arguments)?;
    }

    if let Some(groups) = plan.groups {
        let arguments = [groups.len(), groups.as_ptr().expose_provenance(), 0, 0, 0, 0];
        step(Stage::Groups, raw::__NR_setgroups, arguments)?;
    }
    if let Some(gid) = plan.gid {
        step(
            Stage::GroupId,
            raw::__NR_setresgid,
            [gid as usize, gid as usize, gid as usize, 0, 0, 0],
        )?;
    }
    if let Some(uid) = plan.uid {
        step(
            Stage::UserId,
            raw::__NR_setresuid,
            [uid as usize, uid as usize, uid as usize, 0, 0, 0],
        )?;
    }
    if plan.no_new_privs {
        step(
            Stage::NoNewPrivileges,
            raw::__NR_prctl,
            [PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0, 0],
        )?;
    }
    if let Some(dir) = plan.current_dir {
        step(
            Stage::CurrentDirectory,
            raw::__NR_chdir,
            [dir.as_ptr().expose_provenance(), 0, 0, 0, 0, 0],
        )?;
    }
    if let Some(signal) = plan.parent_death_signal {
        // After the change of ids, which would clear it. A host that died before this line never
        // sends it.
        let number = signal.as_raw().unsigned_abs() as usize;
        step(
            Stage::ParentDeathSignal,
            raw::__NR_prctl,
            [PR_SET_PDEATHSIG as usize, number, 0, 0, 0, 0],
        )?;
        if step(Stage::ParentDeathSignal, raw::__NR_getppid, [0; 6])?
            != child.host.unsigned_abs() as usize
        {
            leave();
        }
    }
    step(Stage::CloseDescriptors, raw::__NR_close_range, [3, u32::MAX as usize, 0, 0, 0, 0])?;

    Err((Stage::Exec, execute(plan)))
}

/// Executes the first of the programs that can be; returns the errno that tells most about why none
/// could.
fn execute(plan: &Plan<'_>) -> i32 {
    let mut verdict = raw_errno::ENOENT;
    for program in plan.programs {
        let arguments = [
            program.as_ptr().expose_provenance(),
            plan.argv.pointers.as_ptr().expose_provenance(),
            plan.envp.pointers.as_ptr().expose_provenance(),
            0,
            0,
            0,
        ];
        // Another thread of the host that forks while the program file is being written holds it
        // open for writing until that child executes: yield to it, a bounded number of
        // times.
        let mut errno = raw_errno::ETXTBSY;
        for _ in 0..16 {
            // SAFETY: the strings and the null-terminated arrays belong to `plan`.
            errno = match unsafe { call(raw::__NR_execve, arguments) } {
                Ok(_) => 0,
                Err(errno) => errno,
            };
            if errno != raw_errno::ETXTBSY {
                break;
            }
            // SAFETY: sched_yield takes no argument.
            let _ = unsafe { call(raw::__NR_sched_yield, [0; 6]) };
        }
        match errno {
            raw_errno::ENOENT => {}
            // A wrong entry of PATH is passed over; of a path that was given it is the cause.
            raw_errno::ENOTDIR if plan.programs.len() > 1 => {}
            raw_errno::EACCES => verdict = errno,
            _ => return errno,
        }
    }
    verdict
}

/// The errnos that are told apart here; the same on every architecture of Linux.
mod raw_errno {
    pub(super) const ENOENT: i32 = 2;
    pub(super) const EACCES: i32 = 13;
    pub(super) const ENOTDIR: i32 = 20;
    pub(super) const ETXTBSY: i32 = 26;
}

/// What `probe_main` is given.
struct Probe {
    cgroup: RawFd,
    message: *mut Message,
}

/// The placement probe's child: reads the members of the group it should be in, and exits.
extern "C" fn probe_main(data: *const c_void) -> ! {
    // SAFETY: `Nursery::probe` passes a `Probe` that lives until the parent runs on.
    let probe = unsafe { &*data.cast::<Probe>() };
    let message = probe.message;
    // SAFETY: the path is a literal with a NUL; the buffer is in the message page, which only this
    // child uses now.
    let read = unsafe {
        let dir = probe.cgroup.unsigned_abs() as usize;
        let path = c"cgroup.procs".as_ptr().expose_provenance();
        call(raw::__NR_openat, [dir, path, (raw::O_RDONLY | raw::O_CLOEXEC) as usize, 0, 0, 0])
            .and_then(|fd| {
                let buffer = (&raw mut (*message).members).expose_provenance();
                call(raw::__NR_read, [fd, buffer, 64, 0, 0, 0])
            })
    };
    // SAFETY: the field is atomic, and the page is mapped here as well.
    let length = unsafe { &(*message).length };
    length.store(
        read.map_or_else(|errno| -errno, |bytes| i32::try_from(bytes).unwrap_or(0)),
        Ordering::Relaxed,
    );
    leave()
}
