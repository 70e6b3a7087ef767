//! Owns [`Handles`]: what a job holds of the system until it is finished.
//!
//! Invariant: everything that was registered, watched or armed for a job is here, and
//! [`Handles::release`] gives all of it back.

use std::io::{self, PipeWriter};

use crate::driver::{JobSource, Registration, Source};
use crate::error::Result;
use crate::event::Stallable;
use crate::id::Key;
use crate::job::system::System;
use crate::job::terminal::Copied;

/// What a job holds of the system.
#[derive(Debug)]
pub(crate) struct Handles<S: System> {
    /// The key that routes notices to the job.
    key: Key,
    process: S::Process,
    group: S::Group,
    /// What the host writes the job's standard input to, if it is a pipe that was not taken yet.
    stdin: Option<PipeWriter>,
    /// The host's end of the job's terminal, if it has one, which is watched.
    terminal: Option<(Registration, S::Terminal)>,
    /// The pidfd in the epoll, until the exit is known.
    exit: Option<Registration>,
    /// Processes that are waited for besides the main one.
    survivors: Vec<(Registration, S::Process)>,
    /// Whether cgroup.events is watched: only once there are processes to wait for.
    events: bool,
    /// Whether memory.events is watched, where available.
    memory: bool,
    triggers: Vec<(Stallable, Registration, S::Trigger)>,
}

impl<S: System> Handles<S> {
    pub(super) fn new(
        key: Key,
        (process, group, stdin): (S::Process, S::Group, Option<PipeWriter>),
        exit: Option<Registration>,
        terminal: Option<(Registration, S::Terminal)>,
    ) -> Self {
        Self {
            key,
            process,
            group,
            stdin,
            terminal,
            exit,
            survivors: Vec::new(),
            events: false,
            memory: false,
            triggers: Vec::new(),
        }
    }

    pub(super) fn process(&self) -> &S::Process {
        &self.process
    }

    pub(super) fn group(&self) -> &S::Group {
        &self.group
    }

    /// Keeps the group alone.
    pub(super) fn into_group(self) -> S::Group {
        self.group
    }

    /// Hands out what the host writes the job's standard input to.
    pub(super) fn take_stdin(&mut self) -> Option<PipeWriter> {
        self.stdin.take()
    }

    /// The host's end of the job's terminal, if it has one.
    pub(super) fn terminal(&self) -> Option<&S::Terminal> {
        self.terminal.as_ref().map(|(_, terminal)| terminal)
    }

    /// Copies a part of what the job has printed on its terminal.
    pub(super) fn copy_output(&mut self, system: &mut S) -> Result<Copied> {
        match &mut self.terminal {
            Some((_, terminal)) => system.copy_output(terminal),
            None => Ok(Copied::All),
        }
    }

    /// Copies the rest of it.
    pub(super) fn copy_last_output(&mut self, system: &mut S) -> Result<()> {
        self.terminal.as_mut().map_or(Ok(()), |(_, terminal)| system.copy_last_output(terminal))
    }

    fn source(&self, source: JobSource) -> Source {
        Source::Job(self.key, source)
    }

    /// Watches for the exit of the main process again.
    pub(super) fn watch_exit(&mut self, system: &mut S) -> io::Result<()> {
        let source = self.source(JobSource::MainProcess);
        self.exit = Some(system.watch_exit(&self.process, source)?);
        Ok(())
    }

    /// Stops watching for the exit of the main process. Must be called before the process is
    /// reaped: the kernel would report a registered pidfd once more then.
    pub(super) fn unwatch_exit(&mut self, system: &mut S) {
        if let Some(registration) = self.exit.take() {
            system.unwatch_exit(&self.process, registration);
        }
    }

    /// Watches cgroup.events. If no watch is available, pidfds serve the same purpose at a greater
    /// cost.
    pub(super) fn watch_events(&mut self, system: &mut S) -> io::Result<()> {
        if !self.events {
            let source = self.source(JobSource::GroupEvents);
            system.watch_file(&self.group, "cgroup.events", source)?;
            self.events = true;
        }
        Ok(())
    }

    /// Watches memory.events. Without the file or a watch, out-of-memory kills are not reported.
    pub(super) fn watch_memory(&mut self, system: &mut S) -> io::Result<()> {
        let source = self.source(JobSource::MemoryEvents);
        let watched = system.watch_file(&self.group, "memory.events", source);
        self.memory = watched.is_ok();
        watched
    }

    pub(super) fn watches_memory(&self) -> bool {
        self.memory
    }

    pub(super) fn awaits_survivors(&self) -> bool {
        !self.survivors.is_empty()
    }

    /// Watches for the exit of a process other than the main one.
    pub(super) fn await_survivor(&mut self, process: S::Process, system: &mut S) -> io::Result<()> {
        let source = self.source(JobSource::Survivor);
        let registration = system.watch_exit(&process, source)?;
        self.survivors.push((registration, process));
        Ok(())
    }

    /// Handles the exit of a process that was watched.
    pub(super) fn survivor_exited(&mut self, registration: Registration, system: &mut S) {
        if let Some(place) = self.survivors.iter().position(|(other, _)| *other == registration) {
            let (registration, process) = self.survivors.swap_remove(place);
            system.unwatch_exit(&process, registration);
        }
    }

    /// Stops watching for the exit of all processes but the main one.
    pub(super) fn forget_survivors(&mut self, system: &mut S) {
        for (registration, process) in self.survivors.drain(..) {
            system.unwatch_exit(&process, registration);
        }
    }

    /// Replaces the trigger for this resource.
    pub(super) fn replace_trigger(
        &mut self,
        resource: Stallable,
        armed: Option<(Registration, S::Trigger)>,
        system: &mut S,
    ) {
        if let Some(place) = self.triggers.iter().position(|(other, ..)| *other == resource) {
            let (_, registration, trigger) = self.triggers.swap_remove(place);
            system.unwatch_pressure(trigger, registration);
        }
        self.triggers
            .extend(armed.map(|(registration, trigger)| (resource, registration, trigger)));
    }

    /// The trigger with this registration.
    pub(super) fn trigger(&mut self, registration: Registration) -> Option<&mut S::Trigger> {
        let found = self.triggers.iter_mut().find(|(_, other, _)| *other == registration);
        found.map(|(.., trigger)| trigger)
    }

    /// The source of a trigger for this resource.
    pub(super) fn trigger_source(&self, resource: Stallable) -> Source {
        self.source(JobSource::Pressure(resource))
    }

    /// Releases everything except the process and the group themselves.
    pub(super) fn release(&mut self, system: &mut S) {
        self.stdin = None;
        if let Some((registration, terminal)) = self.terminal.take() {
            system.unwatch_terminal(&terminal, registration);
        }
        self.unwatch_exit(system);
        self.forget_survivors(system);
        if std::mem::take(&mut self.events) {
            system.unwatch_file(self.source(JobSource::GroupEvents));
        }
        if std::mem::take(&mut self.memory) {
            system.unwatch_file(self.source(JobSource::MemoryEvents));
        }
        for (_, registration, trigger) in self.triggers.drain(..) {
            system.unwatch_pressure(trigger, registration);
        }
    }
}
