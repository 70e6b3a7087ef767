//! Owns [`Eventfd`]: what makes the epoll readable, from any thread.
//!
//! Invariant: each use is an edge for the epoll. For the model checker it is a model of that. Knows
//! nothing of why the epoll is made readable.

#[cfg(not(all(test, jobworker_loom)))]
pub(crate) use mio::Waker as Eventfd;
#[cfg(all(test, jobworker_loom))]
pub(crate) use model::Eventfd;

#[cfg(all(test, jobworker_loom))]
mod model {
    use std::io;
    use std::sync::Arc;

    use loom::sync::{Condvar, Mutex};
    use mio::{Registry, Token};

    /// An edge, and who waits for it.
    #[derive(Clone, Debug)]
    pub(crate) struct Eventfd {
        shared: Arc<(Mutex<bool>, Condvar)>,
    }

    impl Eventfd {
        pub(crate) fn new(_: &Registry, _: Token) -> io::Result<Self> {
            Ok(Self::alone())
        }

        /// Without an epoll.
        pub(crate) fn alone() -> Self {
            Self { shared: Arc::new((Mutex::new(false), Condvar::new())) }
        }

        pub(crate) fn wake(&self) -> io::Result<()> {
            let (edge, changed) = &*self.shared;
            *edge.lock().unwrap() = true;
            changed.notify_one();
            Ok(())
        }

        /// Takes the edge, once there is one.
        pub(crate) fn wait(&self) {
            let (edge, changed) = &*self.shared;
            let mut edge = edge.lock().unwrap();
            while !std::mem::take(&mut *edge) {
                edge = changed.wait(edge).unwrap();
            }
        }

        /// Takes the edge, if there is one.
        pub(crate) fn take(&self) -> bool {
            std::mem::take(&mut *self.shared.0.lock().unwrap())
        }
    }
}
