//! Owns the ways of running a program that are compared, each as its documentation shows it, on one
//! thread of the host.
//!
//! Invariant: every peer starts the same program with the same arguments, an empty environment and
//! nothing to read, and says with which code it has exited. What it prints goes to a log with a
//! reactor, and is discarded with the others. Knows nothing of what is measured.
// Each benchmark is a program of its own and uses its part of this.
#![allow(dead_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use async_process::unix::CommandExt as _;
use jobworker::{Command, Config, Event, Events, Reactor, Token};
use processkit::{Outcome, StdioMode};
use rustix::event::epoll;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use tokio::runtime::{Builder, Runtime};

use crate::common::{monotonic, wait};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A job of a reactor.
    Job,
    /// A job of a reactor, through a launcher.
    LaunchedJob,
    /// `std::process::Command`, and by hand epoll_wait on a pidfd and waitid.
    Bare,
    Std,
    Tokio,
    AsyncProcess,
    Processkit,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Job => "jobworker",
            Self::LaunchedJob => "jobworker, launcher",
            Self::Bare => "bare loop",
            Self::Std => "std::process",
            Self::Tokio => "tokio::process",
            Self::AsyncProcess => "async-process",
            Self::Processkit => "processkit",
        }
    }
}

/// What is run.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    /// The user and the group it runs as, if not those of the host.
    pub(crate) user: Option<u32>,
}

/// When a host knew of an end, on the clock of [`monotonic`], and the exit code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// That the main process has exited.
    pub(crate) exited: u64,
    /// That no process of it is left; the same for those who do not look.
    pub(crate) finished: u64,
    pub(crate) code: Option<i32>,
}

/// A host that has all of them.
pub(crate) struct Host {
    reactor: Reactor,
    launching: Option<Reactor>,
    events: Events,
    epoll: OwnedFd,
    runtime: Runtime,
}

impl Host {
    /// With a launcher, if its path is given.
    pub(crate) fn new(launcher: Option<&Path>) -> Self {
        let with = |path| Reactor::with_config(Config::new().launcher(path)).unwrap();
        Self {
            reactor: Reactor::new().unwrap(),
            launching: launcher.map(with),
            events: Events::with_capacity(64),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
        }
    }

    /// Runs a program to its end. Calls `started` once it runs, before anybody waits for it.
    pub(crate) fn run(
        &mut self,
        peer: Peer,
        program: &Program,
        started: impl FnOnce(),
    ) -> Result<End, String> {
        match peer {
            Peer::Job => as_job(&mut self.reactor, &mut self.events, program, started),
            Peer::LaunchedJob => {
                let reactor = self.launching.as_mut().expect("a launcher");
                as_job(reactor, &mut self.events, program, started)
            }
            Peer::Bare => self.with_bare_loop(program, started),
            Peer::Std => {
                let mut child = std_command(program).spawn().map_err(text)?;
                started();
                let status = child.wait().map_err(text)?;
                Ok(ended(status.code()))
            }
            Peer::Tokio => self.runtime.block_on(with_tokio(program, started)),
            Peer::AsyncProcess => async_io::block_on(with_async_process(program, started)),
            Peer::Processkit => self.runtime.block_on(with_processkit(program, started)),
        }
    }

    fn with_bare_loop(&mut self, program: &Program, started: impl FnOnce()) -> Result<End, String> {
        let child = std_command(program).spawn().map_err(text)?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(text)?;
        let flags = epoll::EventFlags::IN;
        epoll::add(&self.epoll, &pidfd, epoll::EventData::new_u64(0), flags).map_err(text)?;
        started();
        wait(&self.epoll, &mut Vec::with_capacity(1));
        let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).map_err(text)?;
        Ok(ended(status.and_then(|status| status.exit_status())))
    }
}

fn text(error: impl std::error::Error) -> String {
    error.to_string()
}

fn ended(code: Option<i32>) -> End {
    let now = monotonic();
    End { exited: now, finished: now, code }
}

fn as_job(
    reactor: &mut Reactor,
    events: &mut Events,
    program: &Program,
    started: impl FnOnce(),
) -> Result<End, String> {
    let mut command = Command::new(&program.path);
    command.args(&program.args);
    if let Some(user) = program.user {
        command.uid(user).gid(user);
    }
    let job = reactor.spawn(&command, Token(0)).map_err(text)?;
    started();
    let mut exited = None;
    loop {
        reactor.poll(events, None).map_err(text)?;
        let now = monotonic();
        for event in &*events {
            match event {
                Event::Exited { .. } => exited = Some(now),
                Event::Finished { report, .. } => {
                    let code = report.exit.code();
                    reactor.remove(job).map_err(text)?;
                    let exited = exited.expect("`Exited` comes before `Finished`");
                    return Ok(End { exited, finished: now, code });
                }
                _ => {}
            }
        }
    }
}

fn std_command(program: &Program) -> std::process::Command {
    let mut command = std::process::Command::new(&program.path);
    command.args(&program.args).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(user) = program.user {
        command.uid(user).gid(user);
    }
    command
}

async fn with_tokio(program: &Program, started: impl FnOnce()) -> Result<End, String> {
    let mut child = tokio::process::Command::from(std_command(program)).spawn().map_err(text)?;
    started();
    Ok(ended(child.wait().await.map_err(text)?.code()))
}

async fn with_async_process(program: &Program, started: impl FnOnce()) -> Result<End, String> {
    let mut command = async_process::Command::new(&program.path);
    command.args(&program.args).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(user) = program.user {
        command.uid(user).gid(user);
    }
    let mut child = command.spawn().map_err(text)?;
    started();
    Ok(ended(child.status().await.map_err(text)?.code()))
}

async fn with_processkit(program: &Program, started: impl FnOnce()) -> Result<End, String> {
    let mut command = processkit::Command::new(&program.path)
        .args(&program.args)
        .env_clear()
        .stdout(StdioMode::Null)
        .stderr(StdioMode::Null);
    if let Some(user) = program.user {
        command = command.uid(user).gid(user);
    }
    let running = command.start().await.map_err(text)?;
    started();
    match running.wait().await.map_err(text)? {
        Outcome::Exited(code) => Ok(ended(Some(code))),
        other => Err(format!("{other:?}")),
    }
}
