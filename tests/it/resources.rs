//! Resource control: limits take effect, and what a job uses and what it stalls for is reported.
//!
//! Tests that need controllers, pressure or a disk run in the virtual machine of `tests/vm`;
//! elsewhere they print that they are skipped. Ratios are measured over seconds on one processor,
//! and hold on a slow machine as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jobworker::{
    ByteSize, Capabilities, Command, Config, Device, Error, Event, Exit, IoRates, JobError, JobId,
    LimitValue, Limits, LimitsError, OomCause, Position, Reactor, Signal, SpawnError, Stall,
    Stallable, Token,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{XattrFlags, setxattr};

use crate::nested::{KINDS, Nested, in_every_loop};
use crate::skips::skip;
use crate::support::{
    PATIENCE, Place, World, alone, cgroup_mount, directories, sh, skip_outside_vm, sweep,
};

/// The disk of the virtual machine, which tests may read at will.
fn disk() -> Option<Device> {
    let number = fs::read_to_string("/sys/block/nvme0n1/dev")
        .ok()
        .filter(|_| std::env::var_os("JOBWORKER_VM").is_some());
    if number.is_none() {
        skip("only the virtual machine has a disk to read");
    }
    number.map(|number| number.trim().parse().unwrap())
}

/// Sets one limit.
type Set = fn(&mut Limits) -> &mut Limits;

fn hog() -> Command {
    sh("while :; do :; done")
}

/// CPU time that a job has used.
fn cpu_time(world: &World, job: JobId) -> Duration {
    let cpu = world.reactor.stats(job).unwrap().cpu.unwrap();
    cpu.user + cpu.system
}

/// How much a figure of each job has grown after an interval, and after each longer one, until that
/// is `right`, which gets the seconds as well: what else the machine does averages out.
fn until_grown(
    world: &mut World,
    jobs: &[JobId],
    figure: impl Fn(&World, JobId) -> f64,
    right: impl Fn(&[f64], f64) -> bool,
) {
    // The first second is not measured, so that the jobs can settle.
    world.turn_for(Duration::from_secs(1));
    let before: Vec<f64> = jobs.iter().map(|job| figure(world, *job)).collect();
    let start = Instant::now();
    loop {
        world.turn_for(Duration::from_secs(4));
        let now = jobs.iter().zip(&before).map(|(job, before)| figure(world, *job) - before);
        let (grown, seconds) = (now.collect::<Vec<f64>>(), start.elapsed().as_secs_f64());
        if right(&grown, seconds) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "grown by {grown:?} in {seconds:.1} s");
    }
}

fn kill_all(world: &mut World, jobs: &[JobId]) {
    for job in jobs {
        world.reactor.kill(*job).unwrap();
        world.finish(*job);
    }
}

#[test]
fn two_hogs_on_one_processor_stall_each_other_for_half_of_the_time() {
    let Some(mut world) = World::new() else { return };
    if !world.has_controllers(&["cpu", "cpuset"]) {
        return;
    }
    let mut limits = Limits::new();
    limits.cpuset_cpus("0");
    let jobs = [world.spawn(hog().limits(&limits)), world.spawn(hog().limits(&limits))];
    let stalled = |world: &World, job| {
        world.reactor.pressure(job, Stallable::Cpu).unwrap().some.total.as_secs_f64()
    };
    until_grown(&mut world, &jobs, stalled, |stalled, seconds| {
        stalled.iter().all(|stalled| (0.35..=0.65).contains(&(stalled / seconds)))
    });
    kill_all(&mut world, &jobs);
}

#[test]
fn cpu_weights_share_one_processor_by_their_ratio() {
    let Some(mut world) = World::new() else { return };
    if !world.has_controllers(&["cpu", "cpuset"]) {
        return;
    }
    let jobs = [100, 300].map(|weight| {
        let mut limits = Limits::new();
        limits.cpuset_cpus("0").cpu_weight(weight);
        world.spawn(hog().limits(&limits))
    });
    let used = |world: &World, job| cpu_time(world, job).as_secs_f64();
    until_grown(&mut world, &jobs, used, |used, _| (2.7..=3.3).contains(&(used[1] / used[0])));
    kill_all(&mut world, &jobs);
}

#[test]
fn a_cpu_quota_of_a_fifth_gives_a_fifth_and_can_be_changed_while_the_job_runs() {
    let Some(mut world) = World::new() else { return };
    if !world.has_controllers(&["cpu"]) {
        return;
    }
    let quota = |percent: u64| {
        let mut limits = Limits::new();
        limits.cpu_max(Duration::from_millis(percent), Duration::from_millis(100));
        limits
    };
    let job = world.spawn(hog().limits(&quota(20)));
    let used = |world: &World, job| cpu_time(world, job).as_secs_f64();
    until_grown(&mut world, &[job], used, |used, seconds| {
        (0.18..=0.22).contains(&(used[0] / seconds))
    });
    world.reactor.set_limits(job, &quota(50)).unwrap();
    let limits = world.reactor.limits(job).unwrap();
    let ms = Duration::from_millis;
    let half = LimitValue::Quota { quota: Some(ms(50)), period: ms(100) };
    assert_eq!(limits.get("cpu.max"), Some(&half));
    kill_all(&mut world, &[job]);
    let cpu = world.finished[&job].stats.as_ref().unwrap().cpu.unwrap();
    assert!(cpu.throttled > Some(Duration::ZERO) && cpu.throttled_periods > Some(0), "{cpu:?}");
}

#[test]
fn a_job_above_its_memory_limit_is_killed_and_the_verdict_says_so() {
    let Some(mut world) = World::new() else { return };
    if !world.has_controllers(&["memory"]) {
        return;
    }
    let mut limits = Limits::new();
    limits.memory_max(ByteSize::from_bytes(32 << 20));
    let job = world.spawn(sh("exec dd if=/dev/zero of=/dev/null bs=64M count=1").limits(&limits));
    let limits = world.reactor.limits(job).unwrap();
    let none = LimitValue::Bytes(ByteSize::from_bytes(0));
    assert!(limits.get("memory.swap.max").is_none_or(|swap| *swap == none), "{limits:?}");
    let report = world.finish(job);
    assert_eq!(report.exit.signal(), Some(Signal::KILL));
    assert_eq!(report.oom, Some(OomCause::Job));
    let memory = report.stats.as_ref().unwrap().memory.unwrap();
    assert!(memory.oom_kills >= 1, "{memory:?}");
    assert!(memory.peak.is_none_or(|peak| peak <= 33 << 20), "{memory:?}");
    let reported = world.resource_events.iter().any(|event| {
        matches!(event, Event::Oom { job: of, cause: OomCause::Job, kills, .. }
            if *of == job && *kills >= 1)
    });
    assert!(reported, "{:?}", world.resource_events);
}

#[test]
fn a_kill_for_a_limit_above_the_job_is_told_apart() {
    let Some(mut world) = World::new() else { return };
    if !world.has_controllers(&["memory"]) {
        return;
    }
    // The limit is on the group above the job's; the job's own limit is not reached.
    let mut limits = Limits::new();
    limits.memory_high(ByteSize::from_bytes(1 << 30));
    world.run(sh("true").limits(&limits));
    let above = world.place.cgroup.clone().unwrap();
    fs::write(above.join("memory.max"), "33554432").unwrap();
    // Two that are killed at the same time, and one later.
    let hungry = sh("exec dd if=/dev/zero of=/dev/null bs=64M count=1").limits(&limits).clone();
    let pair = [world.spawn(&hungry), world.spawn(&hungry)];
    for job in pair {
        let report = world.finish(job);
        assert_eq!(
            (report.exit.signal(), report.oom),
            (Some(Signal::KILL), Some(OomCause::Ancestor))
        );
    }
    let job = world.spawn(&hungry);
    assert_eq!(world.finish(job).oom, Some(OomCause::Ancestor));
}

#[test]
fn a_kill_because_the_system_is_out_of_memory_is_told_apart() {
    let Some(mut world) = World::new() else { return };
    if std::env::var_os("JOBWORKER_VM").is_none() {
        skip_outside_vm("only a virtual machine may run out of memory");
        return;
    }
    // Makes the kernel choose a process of this job first, not one of another test.
    let mut script = "echo 1000 > /proc/self/oom_score_adj; ".to_owned();
    for _ in 0..3 {
        script += "dd if=/dev/zero of=/dev/null bs=1000M count=1 & ";
    }
    let mut limits = Limits::new();
    limits.memory_high(ByteSize::from_bytes(1 << 40));
    let job = world.spawn(sh(&(script + "wait")).limits(&limits));
    let report = world.finish(job);
    assert_eq!(report.oom, Some(OomCause::System), "{report:?}");
    assert!(report.stats.as_ref().unwrap().memory.unwrap().oom_kills >= 1, "{report:?}");
}

#[test]
fn accounting_that_is_asked_for_enables_the_controllers_that_are_there() {
    let Some(mut world) = World::new() else { return };
    let cgroup = world.place.cgroup.clone().unwrap();
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).unwrap();
    assert_eq!(
        read("cgroup.subtree_control").trim(),
        "",
        "a controller is enabled that nobody asked for"
    );
    let (_, report) = world.run(sh("true").accounting(true));
    let stats = report.stats.as_ref().unwrap();
    let available = read("cgroup.controllers");
    let has = |name: &str| available.split_whitespace().any(|other| other == name);
    assert!(
        stats.cpu.is_some() && stats.cpu.unwrap().throttled.is_some() == has("cpu"),
        "{stats:?}"
    );
    assert_eq!(
        (stats.memory.is_some(), stats.io.is_some(), stats.pids.is_some()),
        (has("memory"), has("io"), has("pids"))
    );
    let (_, report) = world.run(sh("true").accounting(false));
    assert!(report.stats.is_none());
}

#[test]
fn a_controller_that_the_hosts_own_processes_block_is_explained_and_left_as_it_was() {
    let Some(mut world) = World::new() else { return };
    if !world.has_controllers(&["cpu", "memory"]) {
        return;
    }
    // The job's group would be below one that has a process. The kernel forbids that for some
    // controllers, and others would make that group one that can hold no further jobs.
    let above = world.place.cgroup.clone().unwrap();
    let inside = world.spawn(&sh("exec sleep 1000"));
    let pid = world.reactor.status(inside).unwrap().pid;
    fs::write(above.join("cgroup.procs"), pid.to_string()).unwrap();
    let files: [(&str, Set); 2] = [
        ("cpu.weight", |limits| limits.cpu_weight(1)),
        ("memory.high", |limits| limits.memory_high(ByteSize::from_bytes(1 << 30))),
    ];
    for (file, set) in files {
        let mut limits = Limits::new();
        set(&mut limits);
        let error = world.try_spawn(sh("true").limits(&limits)).unwrap_err();
        assert!(
            matches!(&error, Error::Limits(LimitsError::ControllerBlocked { path, .. })
                if *path == above),
            "{error}"
        );
        let text = error.to_string();
        assert!(text.contains(file) && text.contains("host_leaf"), "{text}");
        let read = |file: &str| fs::read_to_string(above.join(file)).unwrap();
        assert_eq!(
            (read("cgroup.subtree_control").trim(), read("cgroup.type").trim()),
            ("", "domain")
        );
    }
    // Jobs that need no controller still run.
    world.run(&sh("true"));
    world.run(sh("true").accounting(true));
    kill_all(&mut world, &[inside]);
}

#[test]
fn a_job_above_its_memory_mark_is_slowed_down_and_lives() {
    let Some(mut world) = World::new() else { return };
    if !world.has_controllers(&["memory"]) {
        return;
    }
    let mut limits = Limits::new();
    limits.memory_high(ByteSize::from_bytes(24 << 20));
    // Page cache can be reclaimed, so the kernel has something to do besides waiting.
    let place = world.place.dir.path().display().to_string();
    let script = format!(
        "dd if=/dev/zero of=/dev/null bs=48M count=1 & while :; do dd if=/dev/zero of={place}/f \
         bs=1M count=48; done"
    );
    let job = world.spawn(sh(&script).limits(&limits));
    world.reactor.watch_pressure(job, Stallable::Memory, stall()).unwrap();
    world.until("memory pressure rises", |world| {
        world.resource_events.iter().any(|event| is_pressure(event, job, Stallable::Memory))
    });
    let stats = world.reactor.stats(job).unwrap();
    assert!(stats.memory.unwrap().high_events > 0, "{stats:?}");
    // The kernel accounts for triggers apart from what the files show, so less is expected here.
    assert!(stats.memory_pressure.unwrap().some.total >= Duration::from_millis(50), "{stats:?}");
    assert!(world.exited.is_empty(), "the job has exited");
    kill_all(&mut world, &[job]);
    assert_eq!(world.finished[&job].oom, None);
}

#[test]
fn a_fork_bomb_meets_its_limit_and_can_be_stopped() {
    let Some(mut world) = World::new() else { return };
    if !world.has_controllers(&["pids"]) {
        return;
    }
    let mut limits = Limits::new();
    limits.pids_max(24);
    let bomb = sh("trap '' TERM; bomb() { bomb & bomb & wait; }; while :; do bomb; done")
        .limits(&limits)
        .clone();
    let job = world.spawn(&bomb);
    world.until("the limit was met", |world| {
        world.reactor.stats(job).unwrap().pids.unwrap().refused > 0
    });
    assert!(world.reactor.stats(job).unwrap().pids.unwrap().current <= 24);
    world.reactor.stop_within(job, Duration::from_millis(200)).unwrap();
    let report = world.finish(job);
    assert!(report.killed && report.cgroup_left.is_none(), "{report:?}");
    let pids = report.stats.as_ref().unwrap().pids.unwrap();
    assert!(pids.peak.is_none_or(|peak| peak <= 24), "{pids:?}");
}

#[test]
fn limits_are_in_force_before_the_first_instruction() {
    let Some(mut world) = World::new() else { return };
    if !world.has_controllers(&["pids"]) {
        return;
    }
    let mut limits = Limits::new();
    limits.pids_max(1);
    let (output, report) = world.run(sh("(echo forked); echo not reached || true").limits(&limits));
    assert!(!output.contains("forked"), "{output}");
    assert!(report.stats.as_ref().unwrap().pids.unwrap().refused >= 1);
}

fn reader(direct_block: &str) -> Command {
    sh(&format!(
        "while :; do dd if=/dev/nvme0n1 of=/dev/null bs={direct_block} iflag=direct 2>/dev/null; \
         done"
    ))
}

fn read_bytes(world: &World, job: JobId, disk: Device) -> f64 {
    let io = world.reactor.stats(job).unwrap().io.unwrap();
    io.iter().find(|stats| stats.device == disk).map_or(0.0, |stats| stats.read_bytes as f64)
}

#[test]
fn an_io_limit_holds_and_the_job_stalls_for_it() {
    let Some(mut world) = World::new() else { return };
    let Some(disk) = disk() else { return };
    if !world.has_controllers(&["io"]) {
        return;
    }
    let mut limits = Limits::new();
    limits.io_max(
        disk,
        IoRates { read_bytes: Some(ByteSize::from_bytes(2 << 20)), ..IoRates::default() },
    );
    let job = world.spawn(reader("64k").limits(&limits));
    let read = |world: &World, job| read_bytes(world, job, disk);
    until_grown(&mut world, &[job], read, |read, seconds| {
        // A slow machine reads less.
        (0.1..=1.1).contains(&(read[0] / seconds / f64::from(2 << 20)))
    });
    let stalled = world.reactor.pressure(job, Stallable::Io).unwrap().some.total;
    assert!(stalled > Duration::from_millis(500), "stalled for {stalled:?} only");
    kill_all(&mut world, &[job]);
}

/// Held by tests for which the cost model must be on, or must not change.
static COST_MODEL: Mutex<()> = Mutex::new(());
type Held = MutexGuard<'static, ()>;

fn hold_cost_model() -> Held {
    COST_MODEL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cost model of the disk, switched on until this is dropped.
struct CostModel(Device, #[expect(dead_code, reason = "held until the model is off")] Held);

impl CostModel {
    fn on(disk: Device) -> Self {
        let held = hold_cost_model();
        let root = Path::new("/sys/fs/cgroup");
        fs::write(
            root.join("io.cost.qos"),
            format!("{disk} enable=1 ctrl=user min=100.00 max=100.00"),
        )
        .unwrap();
        let model = format!(
            "{disk} ctrl=user model=linear rbps=20971520 rseqiops=320 rrandiops=320 \
             wbps=20971520 wseqiops=320 wrandiops=320"
        );
        fs::write(root.join("io.cost.model"), model).unwrap();
        Self(disk, held)
    }
}

impl Drop for CostModel {
    fn drop(&mut self) {
        let _ = fs::write("/sys/fs/cgroup/io.cost.qos", format!("{} enable=0", self.0));
    }
}

#[test]
fn io_weights_need_a_cost_model_and_then_share_the_disk_by_their_ratio() {
    let Some(mut world) = World::new() else { return };
    let Some(disk) = disk() else { return };
    if !world.has_controllers(&["io"]) {
        return;
    }
    let weighted = |weight| {
        let mut limits = Limits::new();
        limits.io_weight(weight);
        limits
    };
    let error = world.try_spawn(reader("64k").limits(&weighted(100))).unwrap_err();
    assert!(
        matches!(&error, Error::Limits(LimitsError::Ineffective { file, .. })
            if file == "io.weight"),
        "{error}"
    );
    let _model = CostModel::on(disk);
    let jobs = [100, 300].map(|weight| world.spawn(reader("64k").limits(&weighted(weight))));
    let read = |world: &World, job| read_bytes(world, job, disk);
    until_grown(&mut world, &jobs, read, |read, _| (2.4..=3.6).contains(&(read[1] / read[0])));
    kill_all(&mut world, &jobs);
}

/// Spawns jobs that stall for a resource. Where that is not possible, prints why and returns
/// `None`.
fn stalling(world: &mut World, resource: Stallable) -> Option<Vec<JobId>> {
    let mut limits = Limits::new();
    Some(match resource {
        // This needs no controller: each of the two processes waits while the other one runs.
        Stallable::Cpu => {
            vec![world.spawn(&sh(
                "taskset -p 1 $$ > /dev/null; while :; do :; done & while :; do :; done",
            ))]
        }
        Stallable::Memory => {
            if !world.has_controllers(&["memory"]) {
                return None;
            }
            limits.memory_high(ByteSize::from_bytes(16 << 20));
            vec![world.spawn(
                sh("dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 1000").limits(&limits),
            )]
        }
        _ => {
            let disk = disk()?;
            if !world.has_controllers(&["io"]) {
                return None;
            }
            limits.io_max(
                disk,
                IoRates { read_bytes: Some(ByteSize::from_bytes(1 << 20)), ..IoRates::default() },
            );
            vec![world.spawn(reader("256k").limits(&limits))]
        }
    })
}

/// Without CAP_SYS_RESOURCE in the initial user namespace, which not every root user has, only
/// multiples of two seconds are allowed.
fn window() -> Duration {
    let privileged =
        std::env::var_os("JOBWORKER_VM").is_some() && rustix::process::geteuid().is_root();
    Duration::from_secs(if privileged { 1 } else { 2 })
}

fn stall() -> Stall {
    Stall::some(Duration::from_millis(150), window())
}

fn is_pressure(event: &Event, job: JobId, resource: Stallable) -> bool {
    matches!(event, Event::Pressure { job: of, resource: for_, .. }
        if *of == job && *for_ == resource)
}

#[test]
fn stalls_for_each_resource_come_as_events() {
    for resource in [Stallable::Cpu, Stallable::Memory, Stallable::Io] {
        let Some(mut world) = World::new() else { return };
        let Some(jobs) = stalling(&mut world, resource) else { continue };
        world.reactor.watch_pressure(jobs[0], resource, stall()).unwrap();
        world.until("the stall is reported", |world| {
            world.resource_events.iter().any(|event| is_pressure(event, jobs[0], resource))
        });
        // A job may end at any time, and its trigger is released with it.
        kill_all(&mut world, &jobs);
    }
}

#[test]
fn stalls_are_reported_inside_of_a_raw_epoll_of_mio_and_of_poll() {
    for resource in [Stallable::Cpu, Stallable::Memory, Stallable::Io] {
        in_every_loop(
            |_| {},
            |nested| {
                let Some(jobs) = stalling(&mut nested.world, resource) else { return };
                nested.world.reactor.watch_pressure(jobs[0], resource, stall()).unwrap();
                nested.until("the stall is reported", |world| {
                    world.resource_events.iter().any(|event| is_pressure(event, jobs[0], resource))
                });
                for job in jobs {
                    nested.world.reactor.kill(job).unwrap();
                    nested.finish(job);
                }
            },
        );
    }
}

#[test]
fn a_stall_is_reported_once_per_window_however_often_a_nested_reactor_is_polled() {
    let Some(mut nested) = Nested::inside(KINDS[0], |_| {}) else { return };
    let job = stalling(&mut nested.world, Stallable::Cpu).unwrap()[0];
    let noise = nested.world.spawn(&sh("while :; do echo tick; sleep 0.02; done"));
    let tail = nested.world.tail(noise, Position::Start);
    let armed = Instant::now();
    nested.world.reactor.watch_pressure(job, Stallable::Cpu, stall()).unwrap();
    nested.until("the stall was reported three times", |world| {
        let told = world
            .resource_events
            .iter()
            .filter(|event| is_pressure(event, job, Stallable::Cpu))
            .count();
        let windows = armed.elapsed().as_secs_f64() / window().as_secs_f64();
        assert!(told as f64 <= windows + 1.0, "reported {told} times in {windows:.1} windows");
        told >= 3
    });
    assert!(!nested.world.transcripts[&tail].bytes.is_empty(), "nothing else has woken the loop");
    for job in [job, noise] {
        nested.world.reactor.kill(job).unwrap();
        nested.finish(job);
    }
}

#[test]
fn stalls_of_the_whole_system_come_as_events() {
    let Some(mut world) = World::new() else { return };
    let Some(jobs) = stalling(&mut world, Stallable::Cpu) else { return };
    world.reactor.watch_system_pressure(Stallable::Cpu, stall(), Token(7)).unwrap();
    world.until("the stall is reported", |world| {
        world
            .resource_events
            .iter()
            .any(|event| matches!(event, Event::SystemPressure { token: Token(7), .. }))
    });
    world.reactor.unwatch_system_pressure(Stallable::Cpu).unwrap();
    kill_all(&mut world, &jobs);
}

#[test]
fn a_trigger_that_the_kernel_refuses_is_a_clear_error() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&sh("sleep 1000"));
    let before = world.footprint();
    let second = Duration::from_secs(1);
    let bad = [
        Stall::some(Duration::ZERO, second),
        Stall::full(second * 2, second),
        Stall::some(second, second * 11),
        // Since 6.5, Linux accepts windows of less than 500 ms from root.
        Stall::some(Duration::from_nanos(1), Duration::from_nanos(1)),
    ];
    for stall in bad {
        let error = world.reactor.watch_pressure(job, Stallable::Cpu, stall).unwrap_err();
        assert!(matches!(error, Error::Job(JobError::StallRefused { .. })), "{stall}: {error}");
        let text = error.to_string();
        assert!(text.contains("cpu.pressure") && text.contains("stalls"), "{text}");
        let error =
            world.reactor.watch_system_pressure(Stallable::Cpu, stall, Token(7)).unwrap_err();
        assert!(
            matches!(&error, Error::Job(JobError::StallRefused { path, .. })
                if path == Path::new("/proc/pressure/cpu")),
            "{error}"
        );
    }
    assert_eq!(world.footprint(), before);
    kill_all(&mut world, &[job]);
    assert!(matches!(
        world.reactor.watch_pressure(job, Stallable::Cpu, stall()),
        Err(Error::Job(JobError::Finished(_)))
    ));
}

#[test]
fn freezing_and_thawing_are_reported_when_they_are_done() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&sh("while :; do echo tick; sleep 0.01; done"));
    let tail = world.tail(job, Position::Start);
    world.until("it ticks", |world| world.transcripts[&tail].bytes.len() > 20);
    world.reactor.freeze(job).unwrap();
    world.until("it is frozen", |world| {
        world.resource_events.iter().any(|event| matches!(event, Event::Frozen { .. }))
    });
    assert!(world.reactor.status(job).unwrap().frozen);
    world.turn(Some(Duration::ZERO));
    let frozen_at = world.transcripts[&tail].bytes.len();
    world.turn_for(Duration::from_millis(200));
    assert_eq!(world.transcripts[&tail].bytes.len(), frozen_at, "a frozen job has written");
    world.reactor.thaw(job).unwrap();
    world.until("it is thawed", |world| {
        world.resource_events.iter().any(|event| matches!(event, Event::Thawed { .. }))
    });
    world.until("it ticks again", |world| world.transcripts[&tail].bytes.len() > frozen_at);
    // A stop thaws a frozen job, so that it can act on the signal.
    world.reactor.freeze(job).unwrap();
    world.reactor.stop(job).unwrap();
    assert_eq!(world.finish(job).exit, Exit::Signal { signal: Signal::TERM, core_dumped: false });
}

#[test]
fn a_frozen_job_can_be_killed() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&sh("sleep 1000"));
    world.reactor.freeze(job).unwrap();
    world.until("it is frozen", |world| !world.resource_events.is_empty());
    kill_all(&mut world, &[job]);
    assert!(matches!(world.reactor.freeze(job), Err(Error::Job(JobError::Finished(_)))));
}

#[test]
fn a_spawn_into_a_frozen_group_is_refused_instead_of_hanging() {
    let Some(mut world) = World::new() else { return };
    let above = world.place.cgroup.clone().unwrap();
    fs::write(above.join("cgroup.freeze"), "1").unwrap();
    let error = world.try_spawn(&sh("true")).unwrap_err();
    fs::write(above.join("cgroup.freeze"), "0").unwrap();
    assert!(matches!(error, Error::Spawn(SpawnError::Frozen { .. })), "{error}");
    assert_eq!(directories(&above), Vec::<PathBuf>::new());
    world.run(&sh("true"));
}

#[test]
fn a_limit_that_the_host_cannot_enforce_is_its_typed_error_and_leaves_nothing() {
    let Some(mut world) = World::new() else { return };
    let above = world.place.cgroup.clone().unwrap();
    // The reactor enables for the jobs what is available in any group above them.
    let of = |path: &Path| fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
    let available: String = above.ancestors().map(|path| of(path) + " ").collect();
    const DISK: Device = Device::new(259, 0);
    const SIZE: ByteSize = ByteSize::from_bytes(1 << 20);
    const SECOND: Duration = Duration::from_secs(1);
    let all: [(&str, Set); 21] = [
        ("cpu.weight", |limits| limits.cpu_weight(1)),
        ("cpu.weight.nice", |limits| limits.cpu_weight_nice(1)),
        ("cpu.max", |limits| limits.cpu_max(SECOND, SECOND)),
        ("cpu.max.burst", |limits| limits.cpu_max_burst(SECOND)),
        ("cpu.idle", |limits| limits.cpu_idle(true)),
        ("cpuset.cpus", |limits| limits.cpuset_cpus("0")),
        ("cpuset.mems", |limits| limits.cpuset_mems("0")),
        ("memory.min", |limits| limits.memory_min(SIZE)),
        ("memory.low", |limits| limits.memory_low(SIZE)),
        ("memory.high", |limits| limits.memory_high(SIZE)),
        ("memory.max", |limits| limits.memory_max(SIZE)),
        ("memory.swap.max", |limits| limits.memory_swap_max(SIZE)),
        ("memory.zswap.max", |limits| limits.memory_zswap_max(SIZE)),
        ("memory.oom.group", |limits| limits.memory_oom_group(true)),
        ("io.weight", |limits| limits.io_weight(1)),
        ("io.weight", |limits| limits.io_weight_of(DISK, 1)),
        ("io.max", |limits| limits.io_max(DISK, IoRates { reads: Some(1), ..IoRates::default() })),
        ("io.latency", |limits| limits.io_latency(DISK, SECOND)),
        ("pids.max", |limits| limits.pids_max(1)),
        ("hugetlb.2MB.max", |limits| limits.hugetlb_max("2MB", SIZE)),
        ("misc.max", |limits| limits.raw("misc.max", "none 1")),
    ];
    for (file, set) in all {
        let controller = file.split('.').next().unwrap();
        if available.split_whitespace().any(|name| name == controller) {
            continue;
        }
        let mut limits = Limits::new();
        set(&mut limits);
        let error = world.try_spawn(sh("true").limits(&limits)).unwrap_err();
        let named = matches!(&error,
            Error::Limits(LimitsError::ControllerUnavailable { file: of, controller: missing, .. })
                if of == file && missing == controller);
        assert!(named, "{file}: {error}");
        assert_eq!(directories(&above), Vec::<PathBuf>::new());
    }
}

#[test]
fn every_limit_is_taken_and_reads_back_and_a_file_that_is_not_there_is_its_typed_error() {
    let Some(mut world) = World::new() else { return };
    let Some(disk) = disk() else { return };
    if !world.has_controllers(&["cpu", "cpuset", "memory", "io", "pids", "hugetlb"]) {
        return;
    }
    // Whether there is an io.weight depends on the cost model.
    let _held = hold_cost_model();
    const SIZE: ByteSize = ByteSize::from_bytes(1 << 30);
    let ms = Duration::from_millis;
    let mut limits = Limits::new();
    limits
        .cpu_weight(7)
        .cpu_max(ms(50), ms(200))
        .cpu_max_burst(ms(20))
        .cpuset_cpus("0")
        .cpuset_mems("0")
        .memory_min(ByteSize::from_bytes(4096))
        .memory_low(ByteSize::from_bytes(8192))
        .memory_high(SIZE)
        .memory_max(SIZE)
        .memory_oom_group(true)
        .io_max(disk, IoRates { reads: Some(1000), write_bytes: Some(SIZE), ..IoRates::default() })
        .pids_max(50)
        .hugetlb_max("2MB", ByteSize::from_bytes(4 << 20))
        .cgroup_max_depth(2)
        .cgroup_max_descendants(3);
    let job = world.spawn(sh("sleep 1000").limits(&limits));
    let found = world.reactor.limits(job).unwrap();
    for (file, value) in limits.iter() {
        assert_eq!(found.get(file), Some(value), "{file}");
    }
    // There is one file for each size of huge pages that the machine has.
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages").unwrap().count();
    assert_eq!(found.iter().filter(|(file, _)| file.starts_with("hugetlb.")).count(), sizes);
    // They can be set again on the same job, and on another one.
    world.reactor.set_limits(job, &found).unwrap();
    assert_eq!(world.reactor.limits(job).unwrap(), found);
    let same = world.spawn(sh("sleep 1000").limits(&found));
    assert_eq!(world.reactor.limits(same).unwrap(), found);
    // Limits that exclude others, or that a kernel may lack.
    let changes: [(&str, Set); 5] = [
        ("io.latency", |limits| {
            limits.io_latency(self::disk().unwrap(), Duration::from_millis(20))
        }),
        ("memory.swap.max", |limits| limits.memory_swap_max(SIZE)),
        ("memory.zswap.max", |limits| limits.memory_zswap_max(SIZE)),
        ("cpu.weight.nice", |limits| limits.cpu_weight_nice(5)),
        ("cpu.idle", |limits| limits.cpu_idle(true)),
    ];
    for (file, set) in changes {
        let mut limits = Limits::new();
        match world.reactor.set_limits(job, set(&mut limits)) {
            Ok(()) => {
                let found = world.reactor.limits(job).unwrap();
                if file == "cpu.weight.nice" {
                    // The kernel's weight of nice 5 is 335 of 1024.
                    assert_eq!(found.get("cpu.weight"), Some(&LimitValue::Weight(33)));
                } else {
                    assert_eq!(found.get(file), limits.get(file), "{file}");
                }
                world.reactor.set_limits(job, &found).unwrap();
            }
            Err(error) => assert!(
                matches!(&error, Error::Limits(LimitsError::Unavailable { file: of, .. })
                    if of == file),
                "{error}"
            ),
        }
    }
    // An idle job has no weight, and gets one again when it is no longer idle.
    world.reactor.set_limits(job, &found).unwrap();
    let idle = |found: &Limits| found.get("cpu.idle").cloned();
    let now = world.reactor.limits(job).unwrap();
    assert_eq!(idle(&now), idle(&found));
    assert_eq!(now.get("cpu.weight"), found.get("cpu.weight"));
    for file in ["memory.no_such_file", "hugetlb.3MB.max"] {
        let error = world.reactor.set_limits(job, Limits::new().raw(file, "1")).unwrap_err();
        assert!(
            matches!(&error, Error::Limits(LimitsError::Unavailable { file: of, .. })
                if of == file),
            "{error}"
        );
        assert!(error.to_string().contains(file), "{error}");
    }
    kill_all(&mut world, &[job, same]);
}

#[test]
fn prepared_groups_are_given_out_and_the_rest_removed() {
    let Some(mut world) = World::new() else { return };
    let above = world.place.cgroup.clone().unwrap();
    let limits = Limits::new();
    world.reactor.prepare(&limits, 3).unwrap();
    let ready = directories(&above);
    assert_eq!(ready.len(), 3);
    let job = world.spawn(&sh("sleep 1000"));
    assert!(
        ready.contains(&world.reactor.status(job).unwrap().cgroup.unwrap()),
        "the job is not in a prepared group"
    );
    assert_eq!(directories(&above).len(), 3);
    world.reactor.prepare(&limits, 3).unwrap();
    assert_eq!(directories(&above).len(), 4);
    kill_all(&mut world, &[job]);
    let World { reactor, place, .. } = world;
    drop(reactor);
    assert_eq!(directories(&above), Vec::<PathBuf>::new());
    drop(place);
}

#[test]
fn groups_of_a_dead_host_are_swept_and_those_of_a_living_one_are_not() {
    const HOST: &str = "JOBWORKER_TEST_DEAD_HOST";
    if let Some(cgroup) = std::env::var_os(HOST) {
        // The host that dies. It leaves its jobs behind, because its destructors never run.
        let place = Place::new();
        let mut reactor = Reactor::with_config(place.config().cgroup_parent(cgroup)).unwrap();
        reactor.spawn(&sh("sleep 1000"), Token(0)).unwrap();
        reactor.spawn(sh("sleep 1000").detached(true), Token(0)).unwrap();
        let (dir, group) = (place.dir.path().to_owned(), place.cgroup.clone());
        let _ = fs::remove_dir_all(dir);
        let _ = fs::remove_dir(group.unwrap());
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
            .unwrap();
        return;
    }
    let Some(mut world) = World::new() else { return };
    let above = world.place.cgroup.clone().unwrap();
    let own = world.spawn(&sh("sleep 1000"));
    let status = Process::new(std::env::current_exe().unwrap())
        .args([
            "resources::groups_of_a_dead_host_are_swept_and_those_of_a_living_one_are_not",
            "--exact",
            "--nocapture",
        ])
        .env(HOST, &above)
        .status()
        .unwrap();
    assert!(!status.success(), "the host has not died");
    // The group of its placement test is gone already.
    assert_eq!(directories(&above).len(), 3);
    let swept = sweep(&mut world.reactor);
    assert!(swept.cgroups.len() == 1 && swept.errors.is_empty(), "{swept:?}");
    let left = directories(&above);
    assert_eq!(left.len(), 2, "those of the running job and of the detached one");
    let running = world.reactor.status(own).unwrap().cgroup.unwrap();
    assert!(left.contains(&running));
    // Once its processes are gone, the group of the detached job is swept as well.
    let detached = left.iter().find(|path| **path != running).unwrap();
    fs::write(detached.join("cgroup.kill"), "1").unwrap();
    let events = fs::File::open(detached.join("cgroup.events")).unwrap();
    while fs::read_to_string(detached.join("cgroup.events")).unwrap().contains("populated 1") {
        poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&PATIENCE.try_into().unwrap()))
            .unwrap();
    }
    assert_eq!(sweep(&mut world.reactor).cgroups, std::slice::from_ref(detached));
    kill_all(&mut world, &[own]);
}

#[test]
fn the_host_moves_into_a_leaf_so_that_its_own_group_can_pass_controllers_on() {
    if !alone!() {
        return;
    }
    let place = Place::new();
    let Some(own) = place.cgroup_or_skip() else { return };
    let before = move_to(&own);
    let mut config = place.config();
    let mut world = World::around(
        Reactor::with_config(config.cgroup_parent(&own).host_leaf("host")).unwrap(),
        place,
    );
    let members = fs::read_to_string(own.join("host/cgroup.procs")).unwrap();
    assert!(members.lines().any(|line| line == std::process::id().to_string()), "{members}");
    let mut limits = Limits::new();
    if world.has_controllers(&["memory"]) {
        limits.memory_high(ByteSize::from_bytes(1 << 30));
    }
    world.run(sh("true").limits(&limits));
    move_to(&before);
    fs::remove_dir(own.join("host")).unwrap();
}

#[test]
fn jobs_are_made_in_the_hosts_own_group_where_the_service_manager_has_delegated_it() {
    if !alone!() {
        return;
    }
    let place = Place::new();
    let Some(own) = place.cgroup_or_skip() else { return };
    let before = move_to(&own);
    let mut config = Config::new();
    config.log_dir(place.logs());
    let parent_of_a_job = || {
        let mut reactor = Reactor::with_config(&config).unwrap();
        let job = reactor.spawn(&sh("true"), Token(0)).unwrap();
        let cgroup = reactor.status(job).unwrap().cgroup.unwrap();
        cgroup.parent().unwrap().to_owned()
    };
    // Root may make groups at the root of the tree, and does so unless a group was delegated to it.
    let is_root = rustix::process::geteuid().is_root();
    assert_eq!(parent_of_a_job(), if is_root { cgroup_mount().unwrap() } else { own.clone() });
    // As systemd does for Delegate=yes.
    setxattr(&own, "user.delegate", b"1", XattrFlags::empty()).unwrap();
    assert_eq!(parent_of_a_job(), own);
    assert!(Capabilities::probe().to_string().contains("delegated by the service manager"));
    move_to(&before);
}

/// Moves this process to another cgroup, and returns the one that it was in.
fn move_to(cgroup: &Path) -> PathBuf {
    let table = fs::read_to_string("/proc/self/cgroup").unwrap();
    let before = table.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    cgroup_mount().unwrap().join(before)
}

#[test]
fn the_capabilities_of_this_system_let_jobs_run() {
    let place = Place::new();
    if place.cgroup_or_skip().is_none() {
        return;
    }
    // Where a user may make groups is not always where a host makes them by default.
    let root = rustix::process::geteuid().is_root();
    let config = if root { Config::new() } else { place.config() };
    let capabilities = Capabilities::probe_with(&config);
    assert!(capabilities.can_run_jobs(), "{capabilities}");
    let names: Vec<_> = capabilities.checks.iter().map(|check| check.name).collect();
    for name in [
        "kernel",
        "cgroup tree",
        "placement",
        "cgroup.kill",
        "cpu",
        "memory",
        "io",
        "pids",
        "inotify",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[test]
fn a_job_contained_by_process_group_has_no_resource_side() {
    let place = Place::new();
    let mut config = place.config();
    let reactor =
        Reactor::with_config(config.containment(jobworker::Containment::ProcessGroup)).unwrap();
    let mut world = World::around(reactor, place);
    let job = world.spawn(&sh("sleep 1000"));
    assert!(matches!(world.reactor.freeze(job), Err(Error::Job(JobError::NotInCgroup(_)))));
    assert!(matches!(world.reactor.stats(job), Err(Error::Job(JobError::NotInCgroup(_)))));
    assert!(matches!(
        world.reactor.set_limits(job, Limits::new().pids_max(1)),
        Err(Error::Job(JobError::NotInCgroup(_)))
    ));
    kill_all(&mut world, &[job]);
    assert!(world.finished[&job].stats.is_none());
}
