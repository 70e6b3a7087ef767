//! What the benchmarks share: clocks, medians, the lines that the writers write, a bare loop that
//! follows a file, and the table at the end.
//!
//! Invariant: what is compared is measured alternately within one run, because the machine is never
//! quiet, so the ratios in a table mean more than the times. A benchmark fails only for wrong
//! bytes, never for being slow.
// Each benchmark is a program of its own and uses its part of this.
#![allow(dead_code)]

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jobworker::Command;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fs::inotify;
use rustix::io::retry_on_intr;
use rustix::time::{ClockId, clock_gettime};

/// How many bytes a line has, including its newline.
pub(crate) const LINE: usize = 100;

/// The time in the last line that is written, which ends a bare loop.
pub(crate) const LAST: u64 = 0;

/// A line with this time in it.
pub(crate) fn line(stamp: u64) -> [u8; LINE] {
    let mut line = [b'.'; LINE];
    line[..20].copy_from_slice(format!("{stamp:020}").as_bytes());
    line[LINE - 1] = b'\n';
    line
}

/// The time in a line.
pub(crate) fn stamp(line: &[u8]) -> u64 {
    line[..20].iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// Whether the benchmark is to take only a few seconds, to check that it runs.
pub(crate) fn quick() -> bool {
    std::env::args().any(|arg| arg == "--quick")
}

/// Counts turns: as many as are wanted, or fewer once 45 seconds have passed, but at least three.
pub(crate) fn turns(wanted: usize) -> impl Iterator<Item = usize> {
    let start = Instant::now();
    (0..wanted).take_while(move |turn| *turn < 3 || start.elapsed() < Duration::from_secs(45))
}

/// The end of a benchmark: a difference from what had to come is printed, and is status 1.
pub(crate) fn finish(measured: Result<(), String>) -> ExitCode {
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(difference) => {
            eprintln!("{difference}");
            ExitCode::FAILURE
        }
    }
}

/// The role of this process, if it was started as a part of a benchmark.
pub(crate) fn role() -> Option<Vec<String>> {
    let mut args = std::env::args().skip(1);
    (args.next()? == "--role").then(|| args.collect())
}

/// A command that starts this program in a role.
pub(crate) fn in_role<'a>(words: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.arg("--role").args(words);
    command
}

/// Nanoseconds on the clock that all processes share.
pub(crate) fn monotonic() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// The CPU time that this thread has used.
pub(crate) fn thread_cpu() -> Duration {
    Duration::from_nanos(nanoseconds(ClockId::ThreadCPUTime))
}

/// The CPU time that this process has used.
pub(crate) fn process_cpu() -> Duration {
    Duration::from_nanos(nanoseconds(ClockId::ProcessCPUTime))
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}

/// How often this thread has gone to sleep so far, which is how often it was woken.
pub(crate) fn sleeps() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|number| number.trim().parse().ok())
        .expect("the count of voluntary context switches")
}

/// epoll_wait, for the bare loops: fills `ready`, and starts again when a signal such as SIGCHLD
/// interrupts it.
pub(crate) fn wait(epoll: &OwnedFd, ready: &mut Vec<epoll::Event>) {
    ready.clear();
    retry_on_intr(|| epoll::wait(epoll, spare_capacity(ready), None)).expect("epoll_wait");
}

/// Follows a file by hand, with the fewest system calls that can do it: epoll_wait, read of an
/// inotify, pread.
pub(crate) struct BareLoop {
    file: File,
    watch: OwnedFd,
    epoll: OwnedFd,
    buffer: Vec<u8>,
    offset: u64,
}

impl BareLoop {
    /// Follows a file from its beginning.
    pub(crate) fn new(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let watch =
            inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&watch, path, inotify::WatchFlags::MODIFY).unwrap();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(&epoll, &watch, epoll::EventData::new_u64(0), epoll::EventFlags::IN).unwrap();
        Self { file, watch, epoll, buffer: vec![0; 64 * 1024], offset: 0 }
    }

    /// Waits until the file has grown, and returns its new lines. A write that crosses a page
    /// boundary may be seen in two pieces; the rest of such a line comes with the next event.
    pub(crate) fn next(&mut self) -> &[u8] {
        let mut ready = [MaybeUninit::uninit(); 1];
        let waited = retry_on_intr(|| epoll::wait(&self.epoll, &mut ready, None).map(|_| ()));
        waited.expect("epoll_wait");
        let _ = rustix::io::read(&self.watch, &mut [0u8; 4096]).unwrap();
        let length = self.file.read_at(&mut self.buffer, self.offset).unwrap();
        let length = length - length % LINE;
        self.offset += length as u64;
        &self.buffer[..length]
    }
}

/// Where cgroup2 is mounted.
pub(crate) fn cgroup_mount() -> PathBuf {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc");
    let line =
        table.lines().find(|line| line.contains(" - cgroup2 ")).expect("a cgroup2 file system");
    PathBuf::from(line.split(' ').nth(4).expect("a mount point"))
}

/// The value that this fraction of all values does not exceed.
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (part * (sorted.len().saturating_sub(1)) as f64).round() as usize;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The median of the ratios of what was measured in the same turn.
pub(crate) fn median_ratio(ours: &[f64], floor: &[f64]) -> f64 {
    let ratios: Vec<f64> = ours.iter().zip(floor).map(|(ours, floor)| ours / floor).collect();
    median(&ratios)
}

/// Whether a value meets its target, as text. Being slow is a finding, not a failure.
pub(crate) fn verdict(value: f64, most: f64) -> String {
    format!("{} (target {most})", if value <= most { "PASS" } else { "MISS" })
}

/// A table that is printed when it is complete.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(ToString::to_string).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Aligns the first column to the left and the others to the right.
    pub(crate) fn print(&self, title: &str) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        println!("\n{title}");
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                line += &if column == 0 {
                    format!("{cell:<width$}")
                } else {
                    format!("  {cell:>width$}")
                };
            }
            println!("{}", line.trim_end());
            if number == 0 {
                println!("{}", "-".repeat(widths.iter().sum::<usize>() + 2 * (columns - 1)));
            }
        }
    }
}
