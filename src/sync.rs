//! Owns the names of what threads synchronise by: locks, atomics, and threads themselves.
//!
//! Invariant: they are those of std. The model checker loom has its own, with the same interface:
//! built with `--cfg jobworker_loom`, the unit tests use these, so that loom can run what threads
//! share in every order that the threads, and the memory, allow; see `.ci/race`. Knows nothing of
//! what is shared.

#[cfg(all(test, jobworker_loom))]
pub(crate) use model::{Mutex, MutexGuard, atomic, check, thread, thread_local};
#[cfg(not(all(test, jobworker_loom)))]
pub(crate) use std::{
    sync::{Mutex, MutexGuard, atomic},
    thread, thread_local,
};

#[cfg(all(test, jobworker_loom))]
mod model {
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

    /// As [`std::thread`]. Parking is done by a lock: loom's own loses a token when the thread
    /// waits for something else first.
    pub(crate) mod thread {
        use std::sync::Arc;
        use std::time::Duration;

        use loom::sync::{Condvar, Mutex};
        pub(crate) use loom::thread::{Builder, JoinHandle, ThreadId, spawn};

        /// A thread, and whether it was unparked.
        #[derive(Clone, Debug)]
        pub(crate) struct Thread {
            id: ThreadId,
            token: Arc<(Mutex<bool>, Condvar)>,
        }

        loom::thread_local! {
            static CURRENT: Thread = Thread {
                id: loom::thread::current().id(),
                token: Arc::new((Mutex::new(false), Condvar::new())),
            };
        }

        impl Thread {
            pub(crate) fn id(&self) -> ThreadId {
                self.id
            }

            pub(crate) fn unpark(&self) {
                let (token, changed) = &*self.token;
                *token.lock().unwrap() = true;
                changed.notify_one();
            }
        }

        pub(crate) fn current() -> Thread {
            CURRENT.with(Clone::clone)
        }

        pub(crate) fn park() {
            let Thread { token, .. } = current();
            let (token, changed) = &*token;
            let mut token = token.lock().unwrap();
            while !std::mem::take(&mut *token) {
                token = changed.wait(token).unwrap();
            }
        }

        /// Time does not pass in a model.
        pub(crate) fn park_timeout(_: Duration) {
            unreachable!("no model waits with a timeout")
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
