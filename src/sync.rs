//! Owns the names of what threads synchronise by: locks, atomics, threads themselves, and
//! [`Futex`], a word to wait at.
//!
//! Invariant: they are those of std and of the kernel. The model checker loom has its own, with the
//! same interface: built with `--cfg jobworker_loom`, the unit tests use these, so that loom can
//! run what threads share in every order that the threads, and the memory, allow; see `.ci/race`.
//! Knows nothing of what is shared.

#[cfg(all(test, jobworker_loom))]
pub(crate) use model::{Futex, Mutex, MutexGuard, atomic, check, thread, thread_local};
#[cfg(not(all(test, jobworker_loom)))]
pub(crate) use real::Futex;
#[cfg(not(all(test, jobworker_loom)))]
pub(crate) use std::{
    sync::{Mutex, MutexGuard, atomic},
    thread, thread_local,
};

#[cfg(not(all(test, jobworker_loom)))]
mod real {
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    use rustix::thread::futex::{self, Flags, Timespec};

    /// A word that threads of this process wait at; see futex(2).
    #[derive(Debug, Default)]
    pub(crate) struct Futex(AtomicU32);

    impl Futex {
        pub(crate) fn word(&self) -> &AtomicU32 {
            &self.0
        }

        /// Waits until it is woken, unless the word is something else. May return at any time.
        pub(crate) fn wait(&self, expected: u32, timeout: Option<Duration>) {
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            // Whoever waits looks again, whatever has ended this: there is no failure but those
            // that say that it is not to be waited for.
            let _ = futex::wait(&self.0, Flags::PRIVATE, expected, timeout.as_ref());
        }

        /// Wakes one who waits.
        pub(crate) fn wake(&self) {
            // It cannot fail for a word of this process.
            let _ = futex::wake(&self.0, Flags::PRIVATE, 1);
        }
    }
}

#[cfg(all(test, jobworker_loom))]
mod model {
    use std::time::Duration;

    use loom::sync::Condvar;
    use loom::sync::atomic::AtomicU32;
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use loom::thread_local;

    /// As [`std::sync::atomic`].
    pub(crate) mod atomic {
        pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

        /// A flag. loom lets a swap return what a store of another thread had replaced before, so
        /// here a store is a swap as well.
        #[derive(Debug, Default)]
        pub(crate) struct AtomicBool(loom::sync::atomic::AtomicBool);

        impl AtomicBool {
            pub(crate) fn new(value: bool) -> Self {
                Self(loom::sync::atomic::AtomicBool::new(value))
            }

            pub(crate) fn load(&self, ordering: Ordering) -> bool {
                self.0.load(ordering)
            }

            pub(crate) fn store(&self, value: bool, ordering: Ordering) {
                self.0.swap(value, ordering);
            }

            pub(crate) fn swap(&self, value: bool, ordering: Ordering) -> bool {
                self.0.swap(value, ordering)
            }
        }
    }

    /// As [`std::thread`].
    pub(crate) mod thread {
        pub(crate) use loom::thread::{Builder, JoinHandle, ThreadId, current, spawn};
    }

    /// A word to wait at: as in the kernel, the look at it and the beginning of the wait are one
    /// step for whoever wakes.
    #[derive(Debug, Default)]
    pub(crate) struct Futex {
        word: AtomicU32,
        waiting: Mutex<()>,
        woken: Condvar,
    }

    impl Futex {
        pub(crate) fn word(&self) -> &AtomicU32 {
            &self.word
        }

        pub(crate) fn wait(&self, expected: u32, timeout: Option<Duration>) {
            assert!(timeout.is_none(), "time does not pass in a model");
            let waiting = self.waiting.lock().unwrap();
            if self.word.load(atomic::Ordering::SeqCst) == expected {
                drop(self.woken.wait(waiting).unwrap());
            }
        }

        pub(crate) fn wake(&self) {
            let waiting = self.waiting.lock().unwrap();
            self.woken.notify_one();
            drop(waiting);
        }
    }

    /// Runs a model in every order in which its threads are preempted at most so often; without a
    /// number, in every order there is. A thread that waits for ever fails it.
    pub(crate) fn check(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
        let runs = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = std::sync::Arc::clone(&runs);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = preemptions;
        builder.max_branches = 10_000;
        builder.check(move || {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            model();
        });
        let runs = runs.load(std::sync::atomic::Ordering::Relaxed);
        println!("{runs} orders");
        assert!(runs > 1, "there is nothing to check");
    }
}
