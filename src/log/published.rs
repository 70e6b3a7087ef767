//! Owns [`Published`]: what is known of one log, in one place that every thread can read.
//!
//! Invariant: only the thread of the loop stores. It reads its own stores back without ordering;
//! other threads take a consistent view with `known`. The file is behind a lock that is taken when
//! the log is opened or closed, never per event. Knows nothing of tails.

use std::sync::{Arc, PoisonError};

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Stands for an end that is not known.
const NONE: u64 = u64::MAX;

/// What is known of a log.
#[derive(Debug)]
pub(crate) struct Published<F> {
    /// The offset of the first byte that was not given back to the file system, nor is about to be.
    start: AtomicU64,
    /// The offset behind the last byte that is known to be in the file.
    end: AtomicU64,
    /// How often the file was found truncated or written anew.
    truncations: AtomicU32,
    /// Where the job's output ends, once the job is finished and that could be found out. It never
    /// changes again.
    final_end: AtomicU64,
    /// The truncations that were known when the end was found: it lies in the content of that time.
    final_truncations: AtomicU32,
    /// Whether any of it may be given back to the file system.
    gives_back: AtomicBool,
    /// The open file, while somebody reads the log.
    file: Mutex<Option<Arc<F>>>,
}

/// A consistent view of a log.
#[cfg(any(fuzzing, test))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) truncations: u32,
    pub(crate) final_end: Option<u64>,
    pub(crate) final_truncations: u32,
}

impl<F> Published<F> {
    /// The state of a log that was never checked.
    pub(crate) fn new() -> Self {
        Self {
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
            truncations: AtomicU32::new(0),
            final_end: AtomicU64::new(NONE),
            final_truncations: AtomicU32::new(0),
            gives_back: AtomicBool::new(false),
            file: Mutex::new(None),
        }
    }

    pub(crate) fn start(&self) -> u64 {
        self.start.load(Ordering::Relaxed)
    }

    /// The start, for a reader on any thread that has just read the file: what it has read before
    /// this offset may be a hole. A start that goes back is that of another content, which whoever
    /// compares the file after this call can tell.
    pub(crate) fn start_after_read(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    /// What lies before this offset is given back to the file system, after this call.
    pub(crate) fn set_start(&self, start: u64) {
        self.start.store(start, Ordering::Release);
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    pub(crate) fn truncations(&self) -> u32 {
        self.truncations.load(Ordering::Relaxed)
    }

    /// Where the job's output ends, whatever the file holds now.
    pub(crate) fn final_end(&self) -> Option<u64> {
        Some(self.final_end.load(Ordering::Relaxed)).filter(|end| *end != NONE)
    }

    /// Where the job's output ends in what the file holds now. Nothing is left of the output in a
    /// file that was truncated after the end was found.
    pub(crate) fn final_end_now(&self) -> Option<u64> {
        let end = self.final_end()?;
        let same = self.final_truncations.load(Ordering::Relaxed) == self.truncations();
        Some(if same { end } else { 0 })
    }

    /// The file is known to have these many bytes.
    pub(crate) fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// The job's output ends here.
    pub(crate) fn set_final_end(&self, end: u64) {
        self.set_end(end);
        self.final_truncations.store(self.truncations(), Ordering::Release);
        self.final_end.store(end, Ordering::Release);
    }

    /// The file was truncated or rewritten.
    pub(crate) fn add_truncation(&self) {
        // In this order: who sees the new count sees no end of the old content, and who sees an end
        // of the new content sees the new count. Nothing of that was given back.
        self.end.store(0, Ordering::Release);
        self.start.store(0, Ordering::Release);
        self.truncations.store(self.truncations().wrapping_add(1), Ordering::Release);
    }

    /// Some of it may be given back, from now on.
    pub(crate) fn set_gives_back(&self) {
        self.gives_back.store(true, Ordering::Release);
    }

    /// Whether any of it may be given back to the file system.
    pub(crate) fn gives_back(&self) -> bool {
        self.gives_back.load(Ordering::Acquire)
    }

    /// The log was opened, or closed.
    pub(crate) fn set_file(&self, file: Option<Arc<F>>) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
    }

    /// The open file, for any thread.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn file(&self) -> Option<Arc<F>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known now, for any thread. The ends belong to the content of that many truncations;
    /// they may be those of a moment ago.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn known(&self) -> Known {
        loop {
            let truncations = self.truncations.load(Ordering::Acquire);
            let known = Known {
                start: self.start.load(Ordering::Acquire),
                final_end: Some(self.final_end.load(Ordering::Acquire)).filter(|end| *end != NONE),
                final_truncations: self.final_truncations.load(Ordering::Acquire),
                end: self.end.load(Ordering::Acquire),
                truncations,
            };
            if self.truncations.load(Ordering::Acquire) == truncations {
                return known;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_thread_sees_no_end_of_one_content_with_the_count_of_another() {
        const CONTENTS: u64 = 20_000;
        let published = Arc::new(Published::new());
        published.set_file(Some(Arc::new("the file")));
        let seen = Arc::clone(&published);
        let reader = std::thread::spawn(move || {
            assert_eq!(seen.file().as_deref(), Some(&"the file"));
            loop {
                let known = seen.known();
                let content = u64::from(known.truncations);
                // Each content grows to ends that only it has.
                let own = (content * 10..content * 10 + 10).contains(&known.end);
                assert!(known.end == 0 || own, "{known:?}");
                if let Some(end) = known.final_end {
                    return (known.end, end);
                }
            }
        });
        for content in 0..CONTENTS {
            for end in 1..10 {
                published.set_end(content * 10 + end);
            }
            if content + 1 < CONTENTS {
                published.add_truncation();
            }
        }
        published.set_final_end(CONTENTS * 10 - 1);
        assert_eq!(reader.join().unwrap(), (CONTENTS * 10 - 1, CONTENTS * 10 - 1));
        published.set_file(None);
        assert_eq!(published.file(), None);
        assert_eq!(published.final_end_now(), published.final_end());
        published.add_truncation();
        assert_eq!(published.final_end_now(), Some(0));
        let known = published.known();
        assert_eq!(u64::from(known.final_truncations), CONTENTS - 1);
        assert_eq!((known.end, known.final_end, known.start), (0, Some(CONTENTS * 10 - 1), 0));
    }
}

#[cfg(all(test, jobworker_loom))]
mod models {
    use super::*;
    use crate::sync::{check, thread};

    /// Whoever asks `known`, in every order of the stores of `publish`.
    fn ask(publish: fn(&Published<()>), judge: fn(Known)) {
        check(None, move || {
            let published: Arc<Published<()>> = Arc::new(Published::new());
            let of_loop = Arc::clone(&published);
            let thread = thread::spawn(move || publish(&of_loop));
            judge(published.known());
            thread.join().unwrap();
        });
    }

    #[test]
    fn an_end_is_that_of_the_content_it_is_seen_with() {
        let publish = |published: &Published<()>| {
            published.set_end(10);
            published.add_truncation();
            published.set_end(20);
        };
        ask(publish, |known| {
            let ends: &[u64] = if known.truncations == 0 { &[0, 10] } else { &[0, 20] };
            assert!(ends.contains(&known.end), "{known:?}");
        });
    }

    #[test]
    fn a_final_end_is_seen_with_its_content_and_as_the_end() {
        let publish = |published: &Published<()>| {
            published.add_truncation();
            published.set_final_end(20);
        };
        ask(publish, |known| match known.final_end {
            Some(end) => assert_eq!((end, known.final_truncations, known.end), (20, 1, 20)),
            None => assert!([0, 20].contains(&known.end)),
        });
    }

    #[test]
    fn a_file_that_is_truncated_after_its_end_keeps_the_end_it_had() {
        let publish = |published: &Published<()>| {
            published.set_final_end(20);
            published.add_truncation();
        };
        ask(publish, |known| {
            if known.truncations == 1 {
                assert_eq!((known.final_end, known.final_truncations), (Some(20), 0));
            }
        });
    }
}
