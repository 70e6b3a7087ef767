//! How long a program takes from spawn to its end in hosts of different sizes, beside the peers.
//!
//! /bin/true is run as a job and by each peer, alternately, as the host's own user and as another,
//! with more and more memory of the host touched. Each runs twice, and the second run is timed.
//! What a job may take at most is in the benchmark `spawn` of jobworker itself, which has a floor.
//!
//! Invariant: each has to know that the code is 0; another one is a panic. Where a peer cannot run
//! a program as another user, what it said is printed below the tables.

#[path = "../../benches/common/mod.rs"]
mod common;
mod peers;
mod plot;
#[path = "../../benches/common/touched.rs"]
mod touched;

use std::path::PathBuf;
use std::process::ExitCode;

use common::{Table, median, median_ratio, monotonic, quantile, quick};
use peers::{Host, Peer, Program};
use plot::{Axis, Plot};
use touched::Touched;

const GIB: usize = 1 << 30;

/// The user and the group that are meant to have no rights.
const NOBODY: u32 = 65534;

/// One line of the table: a peer, and the user it runs the program as.
struct Case {
    peer: Peer,
    user: Option<u32>,
    /// In microseconds, for each size of the host.
    times: Vec<Vec<f64>>,
    /// Why it cannot do that.
    failed: Option<String>,
}

impl Case {
    fn name(&self) -> String {
        let name = self.peer.name();
        self.user.map_or(name.to_owned(), |_| format!("{name}, uid"))
    }
}

fn main() -> ExitCode {
    common::finish(measure())
}

fn measure() -> Result<(), String> {
    let (sizes, rounds, turns): (&[usize], _, _) =
        if quick() { (&[0, GIB / 4], 1, 10) } else { (&[0, GIB, 4 * GIB], 5, 20) };
    let launcher = std::env::var_os("JOBWORKER_LAUNCHER").map(PathBuf::from);
    let mut host = Host::new(launcher.as_deref());
    let peers = [Peer::Job, Peer::Std, Peer::Tokio, Peer::AsyncProcess, Peer::Processkit];
    let mut combinations: Vec<(Peer, Option<u32>)> = Vec::new();
    for user in [None, Some(NOBODY)] {
        combinations.extend(peers.map(|peer| (peer, user)));
    }
    if launcher.is_some() {
        combinations.push((Peer::LaunchedJob, Some(NOBODY)));
    }
    let mut cases: Vec<Case> = combinations
        .into_iter()
        .map(|(peer, user)| Case { peer, user, times: vec![Vec::new(); sizes.len()], failed: None })
        .collect();
    for _ in common::turns(rounds) {
        for (size, bytes) in sizes.iter().enumerate() {
            let _touched = Touched::new(*bytes);
            for _ in 0..turns {
                run_each(&mut host, &mut cases, size)?;
            }
        }
    }
    report(sizes, &cases);
    if launcher.is_none() {
        println!("no job through a launcher: JOBWORKER_LAUNCHER names none");
    }
    Ok(())
}

fn run_each(host: &mut Host, cases: &mut [Case], size: usize) -> Result<(), String> {
    let mut order: Vec<usize> = (0..cases.len()).collect();
    fastrand::shuffle(&mut order);
    for place in order {
        let case = &mut cases[place];
        if case.failed.is_some() {
            continue;
        }
        // One that copies the memory of the host leaves page faults to the next: to itself here,
        // and not to another.
        match run(host, case).and_then(|_| run(host, case)) {
            Ok(time) => case.times[size].push(time),
            // Whoever can run the program at all may still not be able to as another user.
            Err(error) if case.user.is_some() => case.failed = Some(error),
            Err(error) => return Err(format!("{}: {error}", case.name())),
        }
    }
    Ok(())
}

/// Runs the program once; in microseconds.
fn run(host: &mut Host, case: &Case) -> Result<f64, String> {
    let program = Program { path: "/bin/true".into(), args: Vec::new(), user: case.user };
    let start = monotonic();
    let end = host.run(case.peer, &program, || ())?;
    assert_eq!(end.code, Some(0), "{}", case.name());
    Ok((end.finished - start) as f64 / 1e3)
}

fn report(sizes: &[usize], cases: &[Case]) {
    let gib = |bytes: usize| bytes as f64 / GIB as f64;
    for (size, bytes) in sizes.iter().enumerate() {
        let mut table = Table::new(&["host", "p50 us", "p99 us", "of a job", "of empty host"]);
        for case in cases.iter().filter(|case| case.failed.is_none()) {
            let job = cases.iter().find(|job| job.peer == Peer::Job && job.user == case.user);
            let own = &case.times[size];
            table.row(vec![
                case.name(),
                format!("{:.0}", median(own)),
                format!("{:.0}", quantile(own, 0.99)),
                format!("{:.2}", median_ratio(own, &job.unwrap().times[size])),
                format!("{:.2}", median(own) / median(&case.times[0])),
            ]);
        }
        table.print(&format!(
            "/bin/true from spawn to its end in a host of {:.2} GiB; {} turns",
            gib(*bytes),
            cases[0].times[size].len()
        ));
    }
    println!(
        "jobworker: until Finished, with a log and a group; processkit: with a group; the others \
         without; uid: as another user; of a job: as the same user"
    );
    for case in cases {
        if let Some(reason) = &case.failed {
            println!("{} is not possible here: {reason}", case.name());
        }
    }
    let lines = cases.iter().filter(|case| case.failed.is_none()).map(|case| {
        let points = sizes.iter().zip(&case.times);
        (case.name(), points.map(|(bytes, own)| (gib(*bytes), median(own))).collect())
    });
    Plot {
        title: "/bin/true from spawn to its end, by the size of the host",
        x: Axis { name: "GiB of touched memory", logarithmic: false },
        y: Axis { name: "microseconds, median", logarithmic: true },
        lines: lines.collect(),
        marked: true,
    }
    .write("spawn");
}
