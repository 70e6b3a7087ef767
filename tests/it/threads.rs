//! Other threads of the host: what a reactor does on one thread does not disturb another.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use std::{fs, thread};

use jobworker::Exit;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_current_process_group, kill_process, setpgid};

use crate::support::{World, alone, rounds, sh};

/// How many jobs are run while the other thread blocks.
const JOBS: usize = 400;

/// How many of them are started in a row.
const BATCH: usize = 20;

/// How long a start may take before its child is suspected to be stopped.
const STUCK: Duration = Duration::from_secs(2);

/// Blocks in epoll_wait until `stop` is readable, and counts how often a signal interrupts that.
fn count_interruptions(stop: &OwnedFd, ready: &mpsc::Sender<()>, interruptions: &AtomicUsize) {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    epoll::add(&epoll, stop, epoll::EventData::new_u64(0), epoll::EventFlags::IN).unwrap();
    ready.send(()).unwrap();
    let mut events = Vec::with_capacity(1);
    loop {
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) => return,
            Err(Errno::INTR) => {
                interruptions.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Runs jobs while another thread blocks in epoll_wait, and returns how often that was interrupted.
fn interruptions_while_jobs_run(world: &mut World) -> usize {
    let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let interruptions = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (stop, interruptions) = (&stop, &interruptions);
        let (sender, ready) = mpsc::channel();
        scope.spawn(move || count_interruptions(stop, &sender, interruptions));
        ready.recv().unwrap();
        // Many at a time, so that some exit while the next ones are being started.
        for _ in 0..rounds(JOBS) / BATCH {
            let jobs: Vec<_> = (0..BATCH).map(|_| world.spawn(&sh("exit 0"))).collect();
            for job in jobs {
                world.finish(job);
                world.reactor.remove(job).unwrap();
            }
        }
        rustix::io::write(stop.as_fd(), &1u64.to_ne_bytes()).unwrap();
    });
    interruptions.load(Ordering::Relaxed)
}

/// Where SIGCHLD has its default action, the kernel discards it, unless the thread that is the
/// child's parent blocks it at that moment: then it is queued and interrupts another thread.
#[test]
fn the_end_of_a_job_does_not_interrupt_a_system_call_of_another_thread() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    assert_eq!(interruptions_while_jobs_run(&mut world), 0);
}

/// Where the host has a handler for SIGCHLD, it is run by the thread that started the job.
#[test]
fn the_host_s_own_handler_for_children_runs_on_the_thread_that_started_them() {
    if !alone!() {
        return;
    }
    let ran = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGCHLD, Arc::clone(&ran)).unwrap();
    let Some(mut world) = World::new() else { return };
    // The kernel passes over a thread that has a signal pending already, so on a busy machine it
    // may choose another one now and then.
    let interruptions = interruptions_while_jobs_run(&mut world);
    assert!(interruptions < JOBS / 10, "{interruptions} of {JOBS} jobs");
    assert!(ran.load(Ordering::Relaxed), "the handler was never run");
}

/// A host that takes SIGCHLD from a signalfd blocks it in every thread. A start must not unblock
/// it, not even for a moment.
#[test]
fn a_signal_that_the_host_blocks_stays_blocked_while_jobs_are_started() {
    if !alone!("env", "--block-signal=CHLD") {
        return;
    }
    let ran = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGCHLD, Arc::clone(&ran)).unwrap();
    let Some(mut world) = World::new() else { return };
    assert_eq!(interruptions_while_jobs_run(&mut world), 0);
    assert!(!ran.load(Ordering::Relaxed), "the handler was run");
}

/// A terminal's stop key reaches the whole process group of the host, including a child that has
/// not left it yet. While the child has not executed its program, its parent waits for it.
#[test]
fn m5_a_stop_signal_to_the_host_s_group_does_not_stop_a_job_that_is_being_started() {
    if alone!() {
        start_jobs_under(Signal::TSTP, signal_hook::consts::SIGTSTP);
    }
}

/// A signal that dumps core ended every process that shared the memory of the child, its host
/// included, before Linux 5.16; on any kernel it ended the job before its program was executed.
#[test]
fn m11_a_signal_that_dumps_core_does_not_end_a_job_that_is_being_started() {
    if alone!() {
        start_jobs_under(Signal::QUIT, signal_hook::consts::SIGQUIT);
    }
}

/// Starts jobs while another thread sends a signal to the host's process group all the time.
fn start_jobs_under(signal: Signal, number: i32) {
    // A process group of its own, so that the signals reach nothing else.
    setpgid(None, None).unwrap();
    let caught = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(number, Arc::clone(&caught)).unwrap();
    let Some(mut world) = World::new() else { return };
    let (done, started) = (AtomicBool::new(false), AtomicUsize::new(0));
    let stopped = thread::scope(|scope| {
        let (done, started) = (&done, &started);
        let flood = scope.spawn(move || {
            let (mut stopped, mut seen, mut since) = (0, 0, Instant::now());
            while !done.load(Ordering::Relaxed) {
                kill_current_process_group(signal).unwrap();
                let now = started.load(Ordering::Relaxed);
                if now != seen {
                    (seen, since) = (now, Instant::now());
                } else if since.elapsed() > STUCK {
                    // The thread that starts the child waits for it, so only this one can continue
                    // it.
                    stopped += continue_children();
                    since = Instant::now();
                }
            }
            stopped
        });
        for _ in 0..rounds(JOBS) {
            let job = world.spawn(&sh("exit 0"));
            started.fetch_add(1, Ordering::Relaxed);
            assert_eq!(world.finish(job).exit, Exit::Code(0));
            world.reactor.remove(job).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        flood.join().unwrap()
    });
    assert!(caught.load(Ordering::Relaxed), "no signal arrived");
    assert_eq!(stopped, 0, "children were stopped before they executed their program");
}

/// Continues every stopped child of this process, and returns how many there were.
fn continue_children() -> usize {
    let mut stopped = 0;
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for pid in list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")) {
                stopped += 1;
                kill_process(pid, Signal::CONT).unwrap();
            }
        }
    }
    stopped
}
