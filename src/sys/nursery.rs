//! Owns [`Nursery`]: the memory that a child runs on until exec, and the clone3 that starts it
//! there.
//!
//! Invariant: the memory is used by one child at a time, and by none once clone3 has returned.
//! Knows nothing of what the child does.
#![allow(unsafe_code)]

use std::ffi::{CString, c_void};
use std::io::PipeReader;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, mem, ptr};

use linux_raw_sys::general as raw;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use crate::error::Stage;
use crate::event::Exit;
use crate::sys::calls::{
    Reap, change_signal_mask, exit_after_reap, is_dumpable, set_dumpable, wait,
};
use crate::sys::capabilities::Capabilities;
use crate::sys::child::{Child, Next, Probe, child_main, first_kept, probe_main};
use crate::sys::launcher_program::{Delivery, LauncherProgram};
use crate::sys::letter;
use crate::sys::plan::{Birth, Failure, Plan, Unstarted};
use crate::sys::process::{Process, await_any};
use crate::sys::report::{Message, Words};

/// What the placement probe has shown.
#[derive(Debug)]
pub(crate) struct Placement {
    /// What the child found where it should have found itself, if it did not.
    pub(crate) misplaced: Option<String>,
    /// Whether the kernel still reports how a process ended after it was reaped.
    pub(crate) tells_exit: bool,
}

/// The memory a child runs on before exec: a stack with a guard page below, and a page for its
/// message.
///
/// One is enough for each thread that starts processes, because the parent waits until the child
/// has left it, in clone3 (`CLONE_VFORK`) or, if the child is a copy, for its verdict.
#[derive(Debug)]
pub(super) struct Nursery {
    base: *mut c_void,
    message: *mut Message,
    page: usize,
    /// Whether a child that was not awaited may still write its message.
    spent: bool,
}

// SAFETY: the pointers name mappings that this value owns alone.
unsafe impl Send for Nursery {}

/// Held while the dumpable flag, of which a process has only one, is not what the host made it.
static CHANGES_IDS: Mutex<()> = Mutex::new(());

/// How long a child that has failed may take to exit.
const DEATH_TIMEOUT: Duration = Duration::from_secs(1);

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
        let nursery = Self { base, message, page, spent: false };
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

    /// Whether it must not be used again.
    pub(super) fn is_spent(&self) -> bool {
        self.spent
    }

    fn message(&self) -> &Message {
        // SAFETY: the page lives as long as `self`; its shared fields are atomic, and `members` is
        // written only while the parent waits in clone3.
        unsafe { &*self.message }
    }

    /// Starts the program that `plan` describes, on the host's memory, and waits in clone3 until it
    /// is executed or cannot be.
    pub(super) fn spawn(&mut self, plan: &Plan<'_>) -> Result<Process, Failure> {
        let next = Next::Program { program: plan.program, host: host(plan), verdict: None };
        // Changing ids clears this flag of the *address space*, which the child shares with the
        // host until exec. One such child at a time, whatever the thread: another spawn would save
        // the flag as this one's child has left it.
        let changes_ids = plan.program.changes_ids();
        let one_at_a_time =
            changes_ids.then(|| CHANGES_IDS.lock().unwrap_or_else(PoisonError::into_inner));
        let was_dumpable = changes_ids && is_dumpable();
        let born = self.bear(Memory::Shared, &plan.birth, next);
        if was_dumpable {
            set_dumpable();
        }
        drop(one_at_a_time);
        self.unless_failed(born?)
    }

    /// Starts the program that `plan` describes, on a copy of the host's memory, and waits for no
    /// longer than `timeout` until it is executed or cannot be. Once that has passed, this nursery
    /// [is spent](Self::is_spent).
    pub(super) fn spawn_within(
        &mut self,
        timeout: Duration,
        plan: &Plan<'_>,
    ) -> Result<Process, Unstarted> {
        let until = Instant::now().checked_add(timeout);
        // The child's end is closed by exec and by exit, which ends the wait for the other.
        let (verdict, childs) = io::pipe().map_err(failure)?;
        let next = Next::Program {
            program: plan.program,
            host: host(plan),
            verdict: Some(childs.as_fd()),
        };
        let process = self.bear(Memory::Copied, &plan.birth, next)?;
        drop(childs);
        // The pidfd as well: a process that another thread has forked meanwhile may keep the pipe.
        let ready = &mut [
            PollFd::new(&verdict, PollFlags::IN),
            PollFd::new(process.pidfd(), PollFlags::IN),
        ];
        let in_time = await_any(ready, until);
        match self.message().failure() {
            None if in_time => Ok(process),
            // On its way out, unless it was stopped there.
            Some(failure) if process.end(DEATH_TIMEOUT) => Err(failure.into()),
            _ => {
                self.spent = true;
                Err(Unstarted::TimedOut { stage: self.message().begun(), child: process })
            }
        }
    }

    /// Starts the program that `plan` describes through a launcher. Waits in clone3 until that is
    /// executed, and then for no longer than `timeout` until the program is, or cannot be.
    pub(super) fn spawn_through(
        &mut self,
        launcher: &LauncherProgram,
        timeout: Duration,
        plan: &Plan<'_>,
    ) -> Result<Process, Unstarted> {
        let until = Instant::now().checked_add(timeout);
        let capabilities = Capabilities::own().map_err(at_birth)?;
        let letter = letter::start(plan.program, host(plan), capabilities);
        let (process, verdict) =
            self.deliver(launcher, &letter, capabilities.to_raise(), &plan.birth)?;
        let in_time = await_verdict(&verdict, &process, until);
        let words = Words::read(&verdict);
        match words.failure {
            None if in_time && words.begun == Some(Stage::Exec) => Ok(process),
            // It has ended without a word.
            None if in_time => match process.await_end(DEATH_TIMEOUT) {
                // Somebody has killed it, as the program could have been a moment later.
                Some(Exit::Signal { .. } | Exit::Unknown) => Ok(process),
                Some(_) if process.end(DEATH_TIMEOUT) => {
                    Err(Failure { stage: Stage::Launcher, errno: NO_LAUNCHER }.into())
                }
                _ => Err(self.late(&words, process)),
            },
            Some(failure) if process.end(DEATH_TIMEOUT) => Err(failure.into()),
            _ => Err(self.late(&words, process)),
        }
    }

    /// The launcher and what it has executed need nothing of this nursery, so it is not spent.
    fn late(&self, words: &Words, child: Process) -> Unstarted {
        Unstarted::TimedOut { stage: words.begun.or_else(|| self.message().begun()), child }
    }

    /// Starts a launcher and asks for the version of its protocol; `None` for a program that is
    /// none, or that has not answered within `timeout`.
    pub(super) fn launcher_version(
        &mut self,
        launcher: &LauncherProgram,
        timeout: Duration,
        null: BorrowedFd<'_>,
    ) -> Result<Option<u32>, Failure> {
        let until = Instant::now().checked_add(timeout);
        let raised = Capabilities::own().map_err(at_birth)?.to_raise();
        let birth = Birth {
            streams: [null; 3],
            descriptors: &[],
            cgroup: None,
            signs: false,
            new_session: true,
            new_process_group: false,
            terminal: None,
        };
        let (process, verdict) = self.deliver(launcher, &letter::probe(), raised, &birth)?;
        await_verdict(&verdict, &process, until);
        process.end(DEATH_TIMEOUT);
        Ok(Words::read(&verdict).version)
    }

    /// Starts a launcher with a letter; returns what it reports to.
    fn deliver(
        &mut self,
        launcher: &LauncherProgram,
        letter: &[u8],
        capabilities: u64,
        birth: &Birth<'_>,
    ) -> Result<(Process, PipeReader), Failure> {
        let Delivery { letter, reader, writer } = Delivery::new(letter)?;
        let first = CString::new(first_kept(birth).to_string())
            .map_err(|_| at_birth(Errno::INVAL.raw_os_error()))?;
        let next = Next::Launcher {
            first: &first,
            file: launcher.as_fd(),
            letter: letter.as_fd(),
            verdict: writer.as_fd(),
            capabilities,
        };
        let born = self.bear(Memory::Shared, birth, next)?;
        Ok((self.unless_failed(born)?, reader))
    }

    /// Clones a child that does what `next` says.
    fn bear(
        &mut self,
        memory: Memory,
        birth: &Birth<'_>,
        next: Next<'_>,
    ) -> Result<Process, Failure> {
        self.message().clear();
        let child = Child { birth, next, message: self.message };
        // SAFETY: `child_main` leaves by exec or exit. Everything it reads lives until clone3 has
        // returned here, unless it is a copy, which has its own.
        let born =
            unsafe { self.clone(memory, birth.cgroup, child_main, (&raw const child).cast()) };
        let (pid, pidfd) = born.map_err(at_birth)?;
        Ok(Process::new(pid, pidfd))
    }

    /// A child on the host's memory, which clone3 has waited for, unless it has failed.
    fn unless_failed(&self, process: Process) -> Result<Process, Failure> {
        match self.message().failure() {
            None => Ok(process),
            Some(failure) => {
                // It has left through exit: this reaps it at once.
                let _ = process.wait(Reap::Block);
                Err(failure)
            }
        }
    }

    /// Clones a child into the cgroup and lets it check whether it was placed there.
    ///
    /// `misplaced` says what it found if it was not there.
    pub(super) fn probe(&mut self, cgroup: BorrowedFd<'_>) -> Result<Placement, Failure> {
        self.message().length.store(0, Ordering::Relaxed);
        let probe = Probe { cgroup: cgroup.as_raw_fd(), message: self.message };
        // SAFETY: `probe_main` leaves by exit, and what it reads lives until clone3 has returned
        // here.
        let (pid, pidfd) = unsafe {
            self.clone(Memory::Shared, Some(cgroup), probe_main, (&raw const probe).cast())
        }
        .map_err(at_birth)?;
        let ended = match wait(&pidfd, Reap::Block) {
            Ok(ended) => ended.map(|(exit, _)| exit),
            // Another thread of the host waits for any child, and has got this one.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::CHILD) => None,
            Err(error) => return Err(failure(error)),
        };
        let after_reap = exit_after_reap(&pidfd).unwrap_or(Exit::Unknown);
        let tells_exit = after_reap != Exit::Unknown;
        let misplaced = match ended.unwrap_or(after_reap) {
            exit @ Exit::Signal { .. } => {
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

    /// clone3 into `cgroup`, running `entry(data)` in the child. With shared memory it returns in
    /// the parent when that has left, otherwise at once. Without a cgroup, clone(2) does as well
    /// where clone3 is refused.
    ///
    /// # Safety
    /// `entry` must never return, allocate or lock; `data` must be what it expects.
    unsafe fn clone(
        &mut self,
        memory: Memory,
        cgroup: Option<BorrowedFd<'_>>,
        entry: extern "C" fn(*const c_void) -> !,
        data: *const c_void,
    ) -> Result<(u32, OwnedFd), i32> {
        let mut pidfd: RawFd = -1;
        let mut flags = raw::CLONE_PIDFD;
        if memory == Memory::Shared {
            flags |= raw::CLONE_VFORK;
            if CAN_SHARE_MEMORY {
                flags |= raw::CLONE_VM;
            }
        }
        let into_cgroup = if cgroup.is_some() { raw::CLONE_INTO_CGROUP } else { 0 };
        let mut arguments = raw::clone_args {
            flags: u64::from(flags) | raw::CLONE_CLEAR_SIGHAND | into_cgroup,
            pidfd: (&raw mut pidfd).expose_provenance() as u64,
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
        if CAN_SHARE_MEMORY {
            // A copied child has a copy of this stack.
            arguments.stack = self.base.expose_provenance() as u64 + self.page as u64;
            arguments.stack_size = STACK_SIZE as u64;
        }
        let mut before = [0u64; 2];
        let masked = change_signal_mask(raw::SIG_BLOCK, &BLOCKED_AT_BIRTH, Some(&mut before));
        // SAFETY: the argument block is complete and lives on; stack, entry and data are as the
        // caller promises.
        let mut result = unsafe { clone3(&arguments, mem::size_of_val(&arguments), entry, data) };
        if cgroup.is_none() && REFUSALS.contains(&result) {
            // clone(2) does not reset the host's handlers, and none may run in the child before
            // that has done it.
            let _ = change_signal_mask(raw::SIG_BLOCK, &[u64::MAX; 2], None);
            let top = if CAN_SHARE_MEMORY {
                self.base.wrapping_byte_add(self.page + STACK_SIZE)
            } else {
                ptr::null_mut()
            };
            // SAFETY: as above.
            result = unsafe { clone(flags as usize, top, &raw mut pidfd, entry, data) };
        }
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

/// What memory a child runs on until exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// The host's, while the thread that starts it waits in clone3, for however long that takes.
    /// The cost does not depend on the host's size.
    Shared,
    /// A copy of the host's, so that nobody has to wait. The kernel copies the page tables, which
    /// takes longer the larger the host is.
    Copied,
}

/// The errno of a launcher that has ended without a word: the kernel could execute it, but it is
/// none.
const NO_LAUNCHER: i32 = Errno::NOEXEC.raw_os_error();

/// A failure before there is a child.
fn at_birth(errno: i32) -> Failure {
    Failure { stage: Stage::Clone, errno }
}

/// As [`at_birth`].
#[allow(clippy::needless_pass_by_value)] // For `map_err`.
fn failure(error: io::Error) -> Failure {
    at_birth(error.raw_os_error().unwrap_or(0))
}

/// The host's process id, where the child has to notice its death.
fn host(plan: &Plan<'_>) -> i32 {
    plan.program.parent_death_signal.map_or(0, |_| rustix::process::getpid().as_raw_nonzero().get())
}

/// Waits until a launcher has executed its program or has ended, or until `until`.
fn await_verdict(verdict: &PipeReader, process: &Process, until: Option<Instant>) -> bool {
    let ready = &mut [
        // That the other end is closed is always reported. Words are not waited for: each would
        // wake the host.
        PollFd::new(verdict, PollFlags::empty()),
        PollFd::new(process.pidfd(), PollFlags::IN),
    ];
    await_any(ready, until)
}

/// Whether a child can run on the host's memory, which takes a clone3 with a stack of its own.
const CAN_SHARE_MEMORY: bool =
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
    match unsafe {
        crate::sys::calls::call(raw::__NR_clone3, [arguments.expose_provenance(), size, 0, 0, 0, 0])
    } {
        Ok(0) => entry(data),
        Ok(pid) => isize::try_from(pid).unwrap_or(isize::MAX),
        Err(errno) => -isize::try_from(errno).unwrap_or(0),
    }
}

/// What clone3 gives where it is refused as such: ENOSYS by an old kernel or the usual seccomp
/// filter of a container, which cannot look at its arguments; EPERM by other filters.
const REFUSALS: [isize; 2] =
    [-(Errno::NOSYS.raw_os_error() as isize), -(Errno::PERM.raw_os_error() as isize)];

/// clone(2) for a child with a stack of its own, as [`clone3`]; `top` is the end of the stack.
///
/// # Safety
/// As for [`Nursery::clone`].
#[cfg(all(target_arch = "x86_64", not(jobworker_without_vm)))]
#[unsafe(naked)]
unsafe extern "C" fn clone(
    flags: usize,
    top: *mut c_void,
    pidfd: *mut RawFd,
    entry: extern "C" fn(*const c_void) -> !,
    data: *const c_void,
) -> isize {
    // Flags, stack and pidfd are where the kernel wants them. The two arguments that follow, in r10
    // and r8, count only with flags that are not set.
    std::arch::naked_asm!(
        "mov r9, rcx",
        "mov eax, {number}",
        "syscall",
        "test rax, rax",
        "jnz 2f",
        "xor ebp, ebp",
        "mov rdi, r8",
        "call r9",
        "ud2",
        "2: ret",
        number = const raw::__NR_clone,
    )
}

/// As on x86-64.
///
/// # Safety
/// As for [`Nursery::clone`].
#[cfg(all(target_arch = "aarch64", not(jobworker_without_vm)))]
#[unsafe(naked)]
unsafe extern "C" fn clone(
    flags: usize,
    top: *mut c_void,
    pidfd: *mut RawFd,
    entry: extern "C" fn(*const c_void) -> !,
    data: *const c_void,
) -> isize {
    // Here x3 and x4 are those that do not count, and hold entry and data.
    std::arch::naked_asm!(
        "mov x8, {number}",
        "svc #0",
        "cbnz x0, 2f",
        "mov x29, xzr",
        "mov x30, xzr",
        "mov x0, x4",
        "blr x3",
        "brk #1",
        "2: ret",
        number = const raw::__NR_clone,
    )
}

/// clone(2) without shared memory: the child is a copy and goes on from here.
///
/// # Safety
/// As for [`Nursery::clone`].
#[cfg(any(not(any(target_arch = "x86_64", target_arch = "aarch64")), jobworker_without_vm))]
unsafe fn clone(
    flags: usize,
    top: *mut c_void,
    pidfd: *mut RawFd,
    entry: extern "C" fn(*const c_void) -> !,
    data: *const c_void,
) -> isize {
    let (top, pidfd) = (top.expose_provenance(), pidfd.expose_provenance());
    let arguments = if cfg!(target_arch = "s390x") {
        [top, flags, pidfd, 0, 0, 0]
    } else {
        [flags, top, pidfd, 0, 0, 0]
    };
    // SAFETY: the kernel writes one descriptor to where `pidfd` points; the child leaves through
    // `entry`.
    match unsafe { crate::sys::calls::call(raw::__NR_clone, arguments) } {
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
/// SIGCHLD, SIGCONT, SIGURG and SIGWINCH do neither, and SIGCHLD must not be blocked: the kernel
/// sends it when any other job of this thread exits. A signal that this thread blocks is not
/// discarded, not even when its default action is to do nothing, but handed to another thread of
/// the host, where it ends an epoll_wait or a sleep with EINTR. In the parent, a handler for one of
/// the four runs as it does at any other time: before clone3, which the kernel then starts again,
/// or after it.
const BLOCKED_AT_BIRTH: [u64; 2] = {
    const fn bit(signal: u32) -> u64 {
        1 << (signal - 1)
    }
    let harmless = bit(raw::SIGCHLD) | bit(raw::SIGCONT) | bit(raw::SIGURG) | bit(raw::SIGWINCH);
    [!harmless, u64::MAX]
};
