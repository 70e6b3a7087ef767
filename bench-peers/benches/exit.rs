//! How soon a host knows that a program has ended.
//!
//! The program is this one in a role. It waits for a byte, pauses so that the host waits as well,
//! writes the time into a file that both have, and exits with a code of its own. Its hosts are a
//! reactor, until `Exited` and until `Finished`; its peers; and a bare loop of epoll_wait on a
//! pidfd and waitid. They run alternately, one by one.
//!
//! Invariant: each host has to know the code; another one ends the program with status 1.
#![allow(unsafe_code)]

#[path = "../../benches/common/mod.rs"]
mod common;
mod peers;
mod plot;

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Table, median, median_ratio, monotonic, quantile, quick};
use peers::{Host, Peer, Program};
use plot::{Axis, Plot};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mm::{MapFlags, ProtFlags, mmap};

const PEERS: [Peer; 6] =
    [Peer::Bare, Peer::Job, Peer::Std, Peer::Tokio, Peer::AsyncProcess, Peer::Processkit];

/// Between the byte and the exit, so that the host sleeps by then.
const PAUSE: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    if let Some(role) = common::role() {
        exit_when_asked(Path::new(&role[0]), Path::new(&role[1]), role[2].parse().unwrap());
    }
    common::finish(measure(if quick() { 20 } else { 1000 }))
}

/// The program whose end is measured.
fn exit_when_asked(gate: &Path, stamp: &Path, code: c_int) -> ! {
    unsafe extern "C" {
        // Without the handlers of std::process::exit. std links libc anyway.
        fn _exit(code: c_int) -> !;
    }
    let file = OpenOptions::new().read(true).write(true).open(stamp).unwrap();
    // SAFETY: a new mapping touches no memory in use, and the file is as long as it.
    let mapped = unsafe {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        mmap(std::ptr::null_mut(), size_of::<u64>(), protection, MapFlags::SHARED, &file, 0)
    };
    // SAFETY: mapped above and never unmapped; nobody in this process has another reference to it.
    let stamp = unsafe { AtomicU64::from_ptr(mapped.unwrap().cast()) };
    // The page is there before the time is taken.
    stamp.store(0, Ordering::Relaxed);
    File::open(gate).unwrap().read_exact(&mut [0]).unwrap();
    std::thread::sleep(PAUSE);
    stamp.store(monotonic(), Ordering::Relaxed);
    // SAFETY: it has no requirements.
    unsafe { _exit(code) }
}

fn measure(turns: usize) -> Result<(), String> {
    let scratch = tempfile::Builder::new().prefix("jobworker-bench-").tempdir().unwrap();
    let [gate, stamp] = ["gate", "stamp"].map(|name| scratch.path().join(name));
    mknodat(CWD, &gate, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // With a reader of its own, so that neither opening nor writing waits for the program.
    let mut open_gate = OpenOptions::new().read(true).write(true).open(&gate).unwrap();
    std::fs::write(&stamp, [0; size_of::<u64>()]).unwrap();
    let stamps = File::open(&stamp).unwrap();
    let mut program = Program {
        path: std::env::current_exe().unwrap(),
        args: ["--role", gate.to_str().unwrap(), stamp.to_str().unwrap(), ""]
            .map(Into::into)
            .into(),
        user: None,
    };
    let mut host = Host::new(None);
    // In microseconds; in the last one until `Finished`.
    let mut times = vec![Vec::new(); PEERS.len() + 1];
    let mut order: [usize; PEERS.len()] = std::array::from_fn(|place| place);
    for turn in common::turns(turns) {
        // In any order: one that has copied the memory of the host leaves page faults to the next.
        fastrand::shuffle(&mut order);
        for place in order {
            let (peer, code) = (PEERS[place], i32::try_from(1 + turn % 250).unwrap());
            program.args[3] = code.to_string();
            let end = host.run(peer, &program, || open_gate.write_all(b"x").unwrap());
            let end = end.map_err(|error| format!("{}: {error}", peer.name()))?;
            if end.code != Some(code) {
                return Err(format!("{}: {:?} instead of {code}", peer.name(), end.code));
            }
            let mut stamp = [0; size_of::<u64>()];
            stamps.read_exact_at(&mut stamp, 0).unwrap();
            let since = |at: u64| (at - u64::from_ne_bytes(stamp)) as f64 / 1e3;
            times[place].push(since(end.exited));
            if peer == Peer::Job {
                times[PEERS.len()].push(since(end.finished));
            }
        }
    }

    let name = |place: usize| match PEERS.get(place) {
        Some(Peer::Job) => "jobworker, Exited",
        Some(peer) => peer.name(),
        None => "jobworker, Finished",
    };
    let mut table = Table::new(&["host", "p50 us", "p99 us", "of the bare loop"]);
    for (place, own) in times.iter().enumerate() {
        table.row(vec![
            name(place).to_owned(),
            format!("{:.1}", median(own)),
            format!("{:.1}", quantile(own, 0.99)),
            format!("{:.2}", median_ratio(own, &times[0])),
        ]);
    }
    table.print(&format!(
        "From exit_group in a program to the end in the host's hands; {} turns",
        times[0].len()
    ));
    println!(
        "bare loop: epoll_wait on a pidfd, waitid; Finished: no process of the job is left, its \
         log is final and its group removed; processkit: its group is removed as well"
    );
    // Without the slowest, which would take most of the width.
    let line = |place: usize| {
        let point = |percent: i32| {
            (quantile(&times[place], f64::from(percent) / 100.0), f64::from(percent))
        };
        (name(place).to_owned(), (0..=90).map(point).collect())
    };
    Plot {
        title: "From exit_group in a program to the end in the host's hands",
        x: Axis { name: "microseconds", logarithmic: false },
        y: Axis { name: "% of ends known by then", logarithmic: false },
        lines: [1, 6, 0, 2, 3, 4, 5].map(line).into(),
        marked: false,
    }
    .write("exit");
    Ok(())
}
