//! Owns [`JobSpan`], the span of a job, and the events in it, for the subscriber of the host.
//!
//! Invariants: all events have the target `jobworker`. Those of a job are reported within its span,
//! which a registry enters for all that happens to the job. `untraced` has the same names.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use tracing::field::{debug, display};
use tracing::{Level, Span, event, span};

use crate::error::{Error, Result};
use crate::event::{Event, StopCause, Swept};
use crate::id::JobId;

const TARGET: &str = "jobworker";

/// The span of a job, from its spawn to its removal.
#[derive(Clone, Debug)]
pub(crate) struct JobSpan(Span);

impl JobSpan {
    /// The job was spawned. Its span outlives what the caller is doing, so that it has no parent,
    /// but follows from the caller's.
    pub(crate) fn spawned(id: JobId, pid: u32, program: &OsStr) -> Self {
        let program = display(program.display());
        let span = span!(target: TARGET, parent: None, Level::INFO, "job", id = %id, pid, program);
        span.follows_from(Span::current());
        span.in_scope(|| event!(target: TARGET, Level::INFO, "spawned"));
        Self(span)
    }

    /// The job was taken over from an earlier host. Of what it runs, there is the command line.
    pub(crate) fn recovered(id: JobId, pid: u32, command: &str) -> Self {
        let program = command;
        let span = span!(target: TARGET, parent: None, Level::INFO, "job", id = %id, pid, program);
        span.follows_from(Span::current());
        span.in_scope(|| event!(target: TARGET, Level::INFO, "recovered"));
        Self(span)
    }

    /// Lets something happen to the job.
    pub(crate) fn within<R>(&self, act: impl FnOnce() -> R) -> R {
        self.0.in_scope(act)
    }
}

/// A program could not be started. There is no job, and no span.
pub(crate) fn spawn_failed(program: &OsStr, error: &Error) {
    let program = display(program.display());
    event!(target: TARGET, Level::WARN, program, error = %error, "spawn failed");
}

/// The job was spawned but not adopted, and is rolled back.
pub(crate) fn rolled_back() {
    event!(target: TARGET, Level::WARN, "rolled back");
}

/// Somebody or something wants the job to end, with this grace period unless it is killed.
pub(crate) fn stop_requested(cause: StopCause, grace: Option<Duration>) {
    let grace = grace.map(debug);
    event!(target: TARGET, Level::INFO, cause = ?cause, grace, "stop requested");
}

/// Every process of the job is killed.
pub(crate) fn killing() {
    event!(target: TARGET, Level::INFO, "killing");
}

/// The job was removed.
pub(crate) fn removed(result: &Result<()>) {
    match result {
        Ok(()) => event!(target: TARGET, Level::DEBUG, "removed"),
        Err(error) => event!(target: TARGET, Level::WARN, error = %error, "removed"),
    }
}

/// An event is queued for the host.
pub(crate) fn queued(event: &Event) {
    match event {
        Event::Exited { exit, .. } => {
            event!(target: TARGET, Level::INFO, exit = %exit, "exited");
        }
        Event::Finished { report, .. } => {
            let stopped_by = report.stopped_by.map(debug);
            for problem in &report.problems {
                event!(target: TARGET, Level::WARN, error = %problem, "problem");
            }
            event!(
                target: TARGET,
                Level::INFO,
                exit = %report.exit,
                wall = ?report.wall,
                output_bytes = report.output_bytes,
                error_bytes = report.error_bytes,
                stopped_by,
                killed = report.killed,
                problems = report.problems.len(),
                "finished"
            );
        }
        Event::Oom { kills, cause, .. } => {
            event!(target: TARGET, Level::WARN, kills, cause = ?cause, "out of memory");
        }
        Event::Pressure { resource, .. } => {
            event!(target: TARGET, Level::INFO, resource = ?resource, "pressure");
        }
        Event::SystemPressure { resource, .. } => {
            event!(target: TARGET, Level::INFO, resource = ?resource, "system pressure");
        }
        Event::LogSpace { full: true } => {
            event!(target: TARGET, Level::WARN, "the file system of the logs is full");
        }
        Event::LogSpace { full: false } => {
            event!(target: TARGET, Level::INFO, "the file system of the logs has room");
        }
        Event::LogLimit { stream, .. } => {
            event!(target: TARGET, Level::WARN, stream = ?stream, "log limit exceeded");
        }
        Event::Frozen { .. } => event!(target: TARGET, Level::INFO, "frozen"),
        Event::Thawed { .. } => event!(target: TARGET, Level::INFO, "thawed"),
        Event::Swept { swept, .. } => sweep_ended(swept),
        Event::Readable { .. } | Event::Woken => {}
    }
}

fn sweep_ended(swept: &Swept) {
    for error in &swept.errors {
        event!(target: TARGET, Level::WARN, error = %error, "not swept");
    }
    let (cgroups, log_dirs) = (swept.cgroups.len(), swept.log_dirs.len());
    event!(target: TARGET, Level::INFO, cgroups, log_dirs, errors = swept.errors.len(), "swept");
}

/// There is a reactor.
pub(crate) fn reactor_created() {
    event!(target: TARGET, Level::DEBUG, "reactor created");
}

/// A reactor is being dropped, and kills so many jobs.
pub(crate) fn reactor_dropped(killed: usize) {
    event!(target: TARGET, Level::DEBUG, killed, "reactor dropped");
}

/// There is no keeper any more, or one that does not take everything.
pub(crate) fn keeper_lost(error: &Error) {
    event!(target: TARGET, Level::WARN, error = %error, "keeper lost");
}

/// There is one again, at this socket.
pub(crate) fn keeper_found(socket: &Path) {
    let socket = display(socket.display());
    event!(target: TARGET, Level::INFO, socket, "keeper found");
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
    use tracing_subscriber::registry;

    use super::*;
    use crate::error::SystemError;
    use crate::event::{OomCause, Stallable};
    use crate::id::{Slots, TailId, Token};

    /// The events, each as the list of its fields.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0 += &format!(" {field}={value:?}");
        }
    }

    impl<S: tracing::Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            let metadata = event.metadata();
            assert_eq!(metadata.target(), "jobworker");
            let mut line = Line(metadata.level().to_string());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
    }

    #[test]
    fn what_is_rare_is_reported_and_what_is_frequent_is_not() {
        let (job, token, resource) = (JobId::new(uuid::Uuid::nil()), Token(1), Stallable::Memory);
        let tail = TailId(Slots::new().insert(()));
        let mut swept = Swept::default();
        swept.cgroups.push("/one".into());
        swept.errors.push(SystemError::NoCgroup { reason: "why".to_owned() }.into());
        let error = swept.errors[0].to_string();
        let lines = Lines::default();
        with_default(registry().with(lines.clone()), || {
            queued(&Event::Oom { job, token, kills: 2, cause: OomCause::Job });
            queued(&Event::Pressure { job, token, resource });
            queued(&Event::SystemPressure { token, resource });
            queued(&Event::Swept { token, swept: Arc::new(swept) });
            queued(&Event::Readable { tail, token });
            queued(&Event::Woken);
            keeper_lost(&SystemError::NoCgroup { reason: "why".to_owned() }.into());
            keeper_found(Path::new("/run/keeper"));
        });
        let expected = [
            "WARN message=out of memory kills=2 cause=Job",
            "INFO message=pressure resource=Memory",
            "INFO message=system pressure resource=Memory",
            &format!("WARN message=not swept error={error}"),
            "INFO message=swept cgroups=1 log_dirs=0 errors=1",
            &format!("WARN message=keeper lost error={error}"),
            "INFO message=keeper found socket=/run/keeper",
        ];
        assert_eq!(*lines.0.lock().unwrap(), expected);
    }
}
