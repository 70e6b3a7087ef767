//! Owns [`Nurseries`]: the memory on which children run before exec, handed out to any number of
//! threads that start processes at the same time.
//!
//! Invariant: a [`Nursery`] belongs to one thread from the moment it is checked out until it is
//! given back, and no lock is held in between. Knows nothing of what is started.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::Stage;
use crate::sys::launcher_program::LauncherProgram;
use crate::sys::nursery::{Nursery, Placement};
use crate::sys::plan::{Failure, Plan, Unstarted};
use crate::sys::process::Process;

/// How many nurseries are kept for later. Each holds about 70 KiB of address space and three
/// resident pages; more than this are mapped when more threads start processes at once, and
/// unmapped again afterwards.
const MOST_IDLE: usize = 8;

/// Starts processes, from any thread.
#[derive(Debug)]
pub(crate) struct Nurseries {
    /// Those that no thread uses now; at most [`MOST_IDLE`].
    idle: Mutex<Vec<Nursery>>,
}

impl Nurseries {
    /// Maps the first nursery, so that a host with one thread maps none later.
    pub(crate) fn new() -> io::Result<Self> {
        let mut idle = Vec::with_capacity(MOST_IDLE);
        idle.push(Nursery::new()?);
        Ok(Self { idle: Mutex::new(idle) })
    }

    /// Starts the program that a plan describes. Blocks until the child has executed it or has
    /// failed to; other threads start processes meanwhile.
    ///
    /// A failure to map memory for the child is one of [`Stage::Clone`].
    pub(crate) fn spawn(&self, plan: &Plan<'_>) -> Result<Process, Failure> {
        self.with_one(|nursery| nursery.spawn(plan))
    }

    /// As [`spawn`](Self::spawn), but returns when `timeout` has passed. The child runs on a copy
    /// of the host's memory until then.
    pub(crate) fn spawn_within(
        &self,
        timeout: Duration,
        plan: &Plan<'_>,
    ) -> Result<Process, Unstarted> {
        self.with_one(|nursery| nursery.spawn_within(timeout, plan))
    }

    /// As [`spawn`](Self::spawn), but returns when `timeout` has passed after a launcher was
    /// executed, which becomes the program.
    pub(crate) fn spawn_through(
        &self,
        launcher: &LauncherProgram,
        timeout: Duration,
        plan: &Plan<'_>,
    ) -> Result<Process, Unstarted> {
        self.with_one(|nursery| nursery.spawn_through(launcher, timeout, plan))
    }

    /// Starts a launcher and asks for the version of its protocol; `None` for a program that is
    /// none, or that has not answered within `timeout`.
    pub(crate) fn launcher_version(
        &self,
        launcher: &LauncherProgram,
        timeout: Duration,
        null: BorrowedFd<'_>,
    ) -> Result<Option<u32>, Failure> {
        self.with_one(|nursery| nursery.launcher_version(launcher, timeout, null))
    }

    /// Clones a child into a cgroup and lets it check whether it was placed there.
    pub(crate) fn probe(&self, cgroup: BorrowedFd<'_>) -> Result<Placement, Failure> {
        self.with_one(|nursery| nursery.probe(cgroup))
    }

    /// Checks a nursery out, or maps one when all are in use, and gives it back afterwards.
    fn with_one<T, E: From<Failure>>(
        &self,
        run: impl FnOnce(&mut Nursery) -> Result<T, E>,
    ) -> Result<T, E> {
        // A statement of its own: the lock is released before anything else is done.
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut nursery = match idle {
            Some(nursery) => nursery,
            None => Nursery::new().map_err(|error| Failure {
                stage: Stage::Clone,
                errno: error.raw_os_error().unwrap_or(0),
            })?,
        };
        let result = run(&mut nursery);
        if nursery.is_spent() {
            return result;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(nursery);
        } else {
            drop(idle);
            drop(nursery);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::event::Exit;
    use crate::sys::calls::Reap;
    use crate::sys::plan::{Birth, CStringArray, Program};

    fn strings(words: &[&str]) -> Vec<CString> {
        words.iter().map(|word| CString::new(*word).unwrap()).collect()
    }

    /// Runs `sh -c "exit {code}"`, with `program` as the path of the shell; on a copy of the memory
    /// for half of the codes.
    fn run(nurseries: &Nurseries, program: &str, code: i32) -> Result<Exit, Failure> {
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let argv = CStringArray::new(strings(&["sh", "-c", &format!("exit {code}")]));
        let program = Program::new(strings(&[program]), argv, CStringArray::new(Vec::new()));
        let birth = Birth {
            streams: [null.as_fd(); 3],
            descriptors: &[],
            cgroup: None,
            signs: false,
            new_session: false,
            new_process_group: false,
            terminal: None,
        };
        let plan = Plan { birth, program: &program };
        let process = if code % 4 < 2 {
            nurseries.spawn_within(Duration::from_secs(60), &plan).map_err(|error| match error {
                Unstarted::Failed(failure) => failure,
                late @ Unstarted::TimedOut { .. } => panic!("{late:?}"),
            })?
        } else {
            nurseries.spawn(&plan)?
        };
        let (exit, _) = process.wait(Reap::Block).unwrap().expect("a child that was waited for");
        Ok(exit)
    }

    #[test]
    fn threads_that_start_processes_at_once_are_each_told_of_their_own() {
        const THREADS: i32 = 12;
        let nurseries = Nurseries::new().unwrap();
        let together = Barrier::new(THREADS as usize);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (nurseries, together) = (&nurseries, &together);
                scope.spawn(move || {
                    together.wait();
                    for round in 0..20 {
                        // A message that reached the wrong thread would exchange the two results.
                        if (thread + round) % 2 == 0 {
                            let code = thread * 20 + round;
                            let exit = run(nurseries, "/bin/sh", code % 256).unwrap();
                            assert_eq!(exit, Exit::Code(code % 256));
                        } else {
                            let failure = run(nurseries, "/no/such/shell", thread).unwrap_err();
                            assert_eq!((failure.stage, failure.errno), (Stage::Exec, 2));
                        }
                    }
                });
            }
        });
        let idle = nurseries.idle.into_inner().unwrap();
        assert!((1..=MOST_IDLE).contains(&idle.len()), "{} nurseries are kept", idle.len());
    }

    #[test]
    fn more_nurseries_than_are_kept_can_be_in_use() {
        fn nest(nurseries: &Nurseries, depth: usize) -> Result<usize, Failure> {
            if depth == 0 {
                return Ok(0);
            }
            nurseries.with_one(|_| nest(nurseries, depth - 1).map(|below| below + 1))
        }
        let nurseries = Nurseries::new().unwrap();
        assert_eq!(nest(&nurseries, 2 * MOST_IDLE).unwrap(), 2 * MOST_IDLE);
        assert_eq!(nurseries.idle.into_inner().unwrap().len(), MOST_IDLE);
    }

    #[test]
    fn any_thread_may_start_processes() {
        fn shared<T: Send + Sync>() {}
        shared::<Nurseries>();
    }
}
