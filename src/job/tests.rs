//! Tests of jobs over the [simulated system](crate::job::simulator): every order of what can happen
//! to a job, every failure of every call, and the death of a host at every call.
//!
//! The simulator itself checks what holds for every job; these tests check what is expected of a
//! particular one. Knows nothing of a real system.

use std::fmt::Write;
use std::time::Duration;

use crate::command::EndPolicy;
use crate::error::Error;
use crate::event::{Event, OomCause, Phase, Report, Stallable, StopCause};
use crate::job::simulated::Meddling;
use crate::job::simulated_kernel::{Held, Plan};
use crate::job::simulator::JobEngine;

const POLICIES: [EndPolicy; 3] = [EndPolicy::KillRest, EndPolicy::WaitAll, EndPolicy::LeaveRest];
const GRACE: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(1);

/// What can happen to a job. The kernel's notices arrive only by `Deliver`, `Spurious` and
/// `Settle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The main process starts another one.
    Fork,
    /// The main process exits with code 3.
    Exit,
    /// All its other processes exit.
    RestExit,
    Stop,
    StopWithin(Duration),
    Kill,
    /// Time passes until the next deadline: the time limit, or the end of the grace period.
    Deadline,
    Oom(OomCause),
    Freeze,
    Thaw,
    Stall,
    /// The main process, or another one once that is gone, prints 9 bytes on its terminal.
    Print,
    /// A turn goes on with what the jobs have left to do, and copies what was printed.
    GoOn,
    /// The kernel does what was asked of it: killed processes die, and frozen ones stop.
    Kernel,
    /// One notice arrives.
    Deliver,
    /// A descriptor is reported as ready without a reason.
    Spurious,
    /// Notices of files are lost.
    Overflow,
    /// The kernel does all that was asked of it, and every notice arrives.
    Settle,
    Remove,
}

/// An engine with what it has reported.
struct World {
    engine: JobEngine,
    /// The events of each job, in order.
    events: Vec<String>,
    reports: Vec<Option<String>>,
    problems: Vec<Vec<String>>,
    /// The errors that were returned, with the job they were about.
    errors: Vec<(usize, Error)>,
}

impl World {
    fn new(plans: &[Plan]) -> Self {
        let mut world = Self {
            engine: JobEngine::new(),
            events: Vec::new(),
            reports: Vec::new(),
            problems: Vec::new(),
            errors: Vec::new(),
        };
        for plan in plans {
            world.spawn(*plan, false);
        }
        world
    }

    fn spawn(&mut self, plan: Plan, exited: bool) {
        let job = self.events.len();
        self.events.push(String::new());
        self.reports.push(None);
        self.problems.push(Vec::new());
        let spawned = self.engine.spawn(plan, job, exited);
        self.errors.extend(spawned.err().map(|error| (job, error)));
        self.collect();
    }

    fn is_known(&self, job: usize) -> bool {
        self.engine.phase(job).is_some()
    }

    fn collect(&mut self) {
        while let Some(event) = self.engine.take_event() {
            let (token, text) = match event {
                Event::Exited { token, exit, .. } => (token, format!("{exit}")),
                Event::Finished { token, report, .. } => {
                    self.reports[token.0] = Some(summary(&report));
                    self.problems[token.0] =
                        report.problems.iter().map(ToString::to_string).collect();
                    (token, "finished".to_owned())
                }
                Event::Oom { token, kills, cause, .. } => (token, format!("{kills} oom {cause:?}")),
                Event::Frozen { token, .. } => (token, "frozen".to_owned()),
                Event::Thawed { token, .. } => (token, "thawed".to_owned()),
                Event::Pressure { token, .. } => (token, "pressure".to_owned()),
                other => panic!("no event of a job: {other:?}"),
            };
            let events = &mut self.events[token.0];
            assert!(self.engine.phase(token.0).is_some(), "an event of a job that was removed");
            let comma = if events.is_empty() { "" } else { ", " };
            write!(events, "{comma}{text}").unwrap();
        }
    }

    fn step(&mut self, job: usize, step: Step) {
        let engine = &mut self.engine;
        let main = engine.kernel().main(job);
        let rest = |engine: &mut JobEngine| -> Vec<usize> {
            let processes = 0..engine.kernel().processes();
            processes
                .filter(|process| engine.kernel().is_of(*process, job) && *process != main)
                .collect()
        };
        let done = match step {
            Step::Fork => {
                engine.kernel().fork(main, false);
                Ok(())
            }
            Step::Exit => {
                engine.kernel().exit(main, 3, false);
                Ok(())
            }
            Step::RestExit => {
                for process in rest(engine) {
                    engine.kernel().exit(process, 0, false);
                }
                Ok(())
            }
            Step::Stop => engine.stop(job, None),
            Step::StopWithin(grace) => engine.stop(job, Some(grace)),
            Step::Kill => engine.kill(job),
            Step::Deadline => {
                engine.look_again();
                engine.advance_to_deadline();
                Ok(())
            }
            Step::Oom(cause) => {
                let victim =
                    rest(engine).into_iter().find(|process| engine.kernel().is_alive(*process));
                engine.kernel().out_of_memory(victim.unwrap_or(main), cause);
                Ok(())
            }
            Step::Freeze => engine.freeze(job, true),
            Step::Thaw => engine.freeze(job, false),
            Step::Stall => {
                let watched = engine.watch_pressure(job, Stallable::Memory);
                engine.kernel().stall(job);
                watched
            }
            Step::Print => {
                let printed = engine.kernel().print(main, 9);
                let others = rest(engine);
                if !printed {
                    let mut others = others.into_iter();
                    others.find(|process| engine.kernel().print(*process, 9));
                }
                Ok(())
            }
            Step::GoOn => {
                engine.go_on();
                Ok(())
            }
            Step::Kernel => {
                engine.run_kernel();
                Ok(())
            }
            Step::Deliver => {
                engine.deliver(0);
                Ok(())
            }
            Step::Spurious => {
                engine.kernel().report_ready(0);
                engine.deliver(0);
                Ok(())
            }
            Step::Overflow => {
                engine.overflow();
                Ok(())
            }
            Step::Settle => {
                engine.settle();
                Ok(())
            }
            Step::Remove => engine.remove(job),
        };
        self.errors.extend(done.err().map(|error| (job, error)));
        self.collect();
    }

    fn steps(&mut self, job: usize, steps: &[Step]) {
        for step in steps {
            self.step(job, *step);
        }
    }

    /// Checks that a job that is not finished has something left to wait for, once all notices have
    /// arrived.
    fn check_nothing_lost(&mut self) {
        self.step(0, Step::Settle);
        for job in 0..self.events.len() {
            let kernel = self.engine.kernel();
            let runs = kernel.is_alive(kernel.main(job)) || kernel.is_populated(job);
            let phase = self.engine.phase(job);
            let ended = phase.is_none_or(|phase| phase == Phase::Finished);
            let copied = self.engine.kernel().unread(job) == 0 || self.engine.copies_again();
            assert!(ended || copied, "output of job {job} was forgotten");
            assert!(ended || runs, "job {job} was lost in {phase:?} after {}", self.events[job]);
        }
    }

    /// Ends what still runs, removes everything, and checks that nothing is held.
    fn end(&mut self) {
        self.check_nothing_lost();
        for job in 0..self.events.len() {
            if self.is_known(job) && self.engine.phase(job) != Some(Phase::Finished) {
                self.step(job, Step::Kill);
                self.step(job, Step::Settle);
            }
            if self.is_known(job) {
                assert_eq!(self.engine.phase(job), Some(Phase::Finished), "{}", self.events[job]);
                self.step(job, Step::Remove);
                assert_eq!(self.engine.phase(job), None);
            }
        }
        assert_eq!(self.engine.pending(), 0, "a notice is left");
        assert_eq!(self.engine.kernel().held(), Held::default());
        assert_eq!(self.engine.attached(), 0);
    }
}

/// What a report says, except for times and problems.
fn summary(report: &Report) -> String {
    let mut text = report.exit.to_string();
    if let Some(cause) = report.stopped_by {
        write!(text, ", stopped by {cause:?}").unwrap();
    }
    if report.killed {
        text += ", killed";
    }
    if let Some(cause) = report.oom {
        write!(text, ", oom {cause:?}").unwrap();
    }
    if report.cgroup_left.is_some() {
        text += ", cgroup left";
    }
    if report.stats.is_some() {
        text += ", stats";
    }
    write!(text, ", {} bytes", report.output_bytes + report.error_bytes).unwrap();
    text
}

#[test]
fn what_is_reported_follows_from_the_order_of_what_happens() {
    use EndPolicy::{KillRest, LeaveRest, WaitAll};
    use Step::{
        Deadline, Exit, Fork, Freeze, Kernel, Kill, Oom, Overflow, RestExit, Settle, Stall, Stop,
        StopWithin, Thaw,
    };
    let zero = StopWithin(Duration::ZERO);
    let cases: &[(EndPolicy, &[Step], &str, &str)] = &[
        // The main process ends, alone or not.
        (KillRest, &[Exit, Settle], "exit code 3, finished", "exit code 3"),
        (KillRest, &[Fork, Exit, Settle], "exit code 3, finished", "exit code 3, killed"),
        (KillRest, &[Fork, RestExit, Exit, Settle], "exit code 3, finished", "exit code 3"),
        (WaitAll, &[Fork, Exit, Settle], "exit code 3", ""),
        (WaitAll, &[Fork, Exit, Settle, RestExit, Settle], "exit code 3, finished", "exit code 3"),
        (
            WaitAll,
            &[Fork, Exit, Settle, RestExit, Overflow],
            "exit code 3, finished",
            "exit code 3",
        ),
        (LeaveRest, &[Exit, Settle], "exit code 3, finished", "exit code 3"),
        (LeaveRest, &[Fork, Exit, Settle], "exit code 3, finished", "exit code 3, cgroup left"),
        // It is stopped.
        (KillRest, &[Stop, Settle], "SIGTERM, finished", "SIGTERM, stopped by Stop"),
        (WaitAll, &[Fork, Stop, Settle], "SIGTERM, finished", "SIGTERM, stopped by Stop"),
        (LeaveRest, &[Fork, Stop, Settle], "SIGTERM, finished", "SIGTERM, stopped by Stop"),
        (KillRest, &[zero, Settle], "SIGKILL, finished", "SIGKILL, stopped by Stop, killed"),
        (KillRest, &[Stop, Kill, Settle], "SIGTERM, finished", "SIGTERM, stopped by Stop, killed"),
        (KillRest, &[Exit, Stop, Settle], "exit code 3, finished", "exit code 3, stopped by Stop"),
        (
            WaitAll,
            &[Fork, Exit, Settle, Stop, Settle],
            "exit code 3, finished",
            "exit code 3, stopped by Stop",
        ),
        (
            WaitAll,
            &[Fork, Exit, Settle, Kill, Settle],
            "exit code 3, finished",
            "exit code 3, stopped by Kill, killed",
        ),
        // It is killed, which is not done at once.
        (LeaveRest, &[Fork, Kill, Settle], "SIGKILL, finished", "SIGKILL, stopped by Kill, killed"),
        (KillRest, &[Kill, Stop, Kernel], "", ""),
        // Its time limit has passed.
        (KillRest, &[Deadline, Settle], "SIGTERM, finished", "SIGTERM, stopped by TimeLimit"),
        (
            WaitAll,
            &[Fork, Exit, Settle, Deadline, Settle],
            "exit code 3, finished",
            "exit code 3, stopped by TimeLimit",
        ),
        // It runs out of memory.
        (
            WaitAll,
            &[Fork, Oom(OomCause::Job), Settle, Exit, Settle],
            "1 oom Job, exit code 3, finished",
            "exit code 3, oom Job",
        ),
        (
            KillRest,
            &[Oom(OomCause::Ancestor), Settle],
            "SIGKILL, 1 oom Ancestor, finished",
            "SIGKILL, oom Ancestor",
        ),
        (
            KillRest,
            &[Fork, Oom(OomCause::System), Kernel, Overflow, Exit, Settle],
            "1 oom System, exit code 3, finished",
            "exit code 3, oom System",
        ),
        // It is frozen.
        (KillRest, &[Freeze, Settle, Exit, Settle], "frozen", ""),
        (
            KillRest,
            &[Freeze, Settle, Thaw, Settle, Exit, Settle],
            "frozen, thawed, exit code 3, finished",
            "exit code 3",
        ),
        (
            KillRest,
            &[Freeze, Settle, Stop, Settle],
            "frozen, SIGTERM, finished",
            "SIGTERM, stopped by Stop",
        ),
        (
            KillRest,
            &[Freeze, Settle, Kill, Settle],
            "frozen, SIGKILL, finished",
            "SIGKILL, stopped by Kill, killed",
        ),
        (KillRest, &[Freeze, Kernel, Overflow], "frozen", ""),
        // It stalls.
        (
            KillRest,
            &[Stall, Stall, Settle, Exit, Settle],
            "pressure, exit code 3, finished",
            "exit code 3",
        ),
    ];
    for (end, steps, events, report) in cases {
        let limited = steps.contains(&Deadline).then_some(LIMIT);
        let mut world = World::new(&[Plan { end: *end, time_limit: limited, ..Plan::default() }]);
        world.steps(0, steps);
        assert!(world.errors.is_empty(), "{:?}", world.errors);
        assert_eq!(world.events[0], *events, "{end:?} {steps:?}");
        let expected =
            if report.is_empty() { None } else { Some(format!("{report}, stats, 7 bytes")) };
        assert_eq!(world.reports[0], expected, "{end:?} {steps:?}");
        world.end();
    }
}

#[test]
fn a_grace_period_ends_in_a_kill_and_can_only_be_shortened() {
    for end in POLICIES {
        let stubborn = Plan { end, stubborn: true, grace: GRACE, ..Plan::default() };
        let mut world = World::new(&[stubborn]);
        world.steps(0, &[Step::Stop, Step::StopWithin(GRACE * 2), Step::Settle]);
        assert_eq!(world.engine.next_deadline(), Some(GRACE));
        world.step(0, Step::StopWithin(SOON));
        assert_eq!(world.engine.next_deadline(), Some(SOON));
        world.engine.advance(SOON / 2);
        world.step(0, Step::Settle);
        assert_eq!(world.engine.kernel().kills(0), 0);
        world.steps(0, &[Step::Deadline, Step::Settle]);
        assert_eq!(world.events[0], "SIGKILL, finished");
        world.end();
    }
}

#[test]
fn a_job_whose_process_has_exited_before_it_is_adopted_ends() {
    for end in POLICIES {
        for cgroup in [true, false] {
            let mut world = World::new(&[]);
            world.spawn(Plan { end, cgroup, ..Plan::default() }, true);
            assert_eq!(world.events[0], "");
            world.step(0, Step::Settle);
            assert_eq!(world.events[0], "exit code 0, finished");
            world.end();
        }
    }
}

#[test]
fn a_group_that_empties_after_the_exit_is_reported_is_waited_for() {
    // As happens since Linux 6.19.
    for end in POLICIES {
        let mut world = World::new(&[Plan { end, ..Plan::default() }]);
        let main = world.engine.kernel().main(0);
        world.engine.kernel().exit(main, 3, true);
        world.step(0, Step::Deliver);
        assert_eq!(world.events[0], "exit code 3");
        world.step(0, Step::Settle);
        assert_eq!(world.events[0], "exit code 3, finished");
        world.end();
    }
}

/// The steps that are tried in every order.
const ALPHABET: [Step; 15] = [
    Step::Fork,
    Step::Exit,
    Step::RestExit,
    Step::Stop,
    Step::StopWithin(SOON),
    Step::Kill,
    Step::Deadline,
    Step::Oom(OomCause::Job),
    Step::Freeze,
    Step::Thaw,
    Step::GoOn,
    Step::Kernel,
    Step::Deliver,
    Step::Overflow,
    Step::Remove,
];

/// Those that are tried with a job that has a terminal.
const PRINTING: [Step; 10] = [
    Step::Fork,
    Step::Exit,
    Step::RestExit,
    Step::Stop,
    Step::Kill,
    Step::Deadline,
    Step::Print,
    Step::GoOn,
    Step::Kernel,
    Step::Deliver,
];

#[test]
fn every_order_of_what_can_happen_ends_as_promised() {
    for end in POLICIES {
        // Fewer steps concern a process group.
        for (cgroup, terminal, depth) in [(true, false, 4), (false, false, 3), (true, true, 4)] {
            let plan = Plan {
                end,
                cgroup,
                grace: GRACE,
                time_limit: Some(LIMIT),
                accounting: false,
                terminal,
                ..Plan::default()
            };
            let alphabet: &[Step] = if terminal { &PRINTING } else { &ALPHABET };
            for order in 0..alphabet.len().pow(depth) {
                let steps = (0..depth)
                    .map(|place| alphabet[order / alphabet.len().pow(place) % alphabet.len()]);
                try_order(plan, &steps.collect::<Vec<Step>>());
            }
        }
    }
}

fn try_order(plan: Plan, steps: &[Step]) {
    let mut world = World::new(&[plan]);
    world.step(0, Step::Fork);
    let mut stopped_by = None;
    for step in steps {
        let live = world.engine.phase(0).is_some_and(|phase| phase < Phase::Finished);
        let limited = world.engine.next_deadline() == Some(LIMIT);
        let cause = match step {
            Step::Stop | Step::StopWithin(_) => Some(StopCause::Stop),
            Step::Kill => Some(StopCause::Kill),
            Step::Deadline if limited => Some(StopCause::TimeLimit),
            _ => None,
        };
        if live {
            stopped_by = stopped_by.or(cause);
        }
        world.step(0, *step);
    }
    world.check_nothing_lost();
    if world.engine.phase(0).is_some_and(|phase| phase < Phase::Finished) {
        stopped_by = stopped_by.or(Some(StopCause::Kill));
    }
    world.end();
    let report = world.engine.kernel().report(0).expect("it has ended");
    assert_eq!(report.stopped_by, stopped_by, "{plan:?} {steps:?}");
    assert!(report.problems.is_empty(), "{:?} after {steps:?}", report.problems);
    let events = &world.events[0];
    assert_eq!(events.contains("oom"), report.oom.is_some(), "{events} after {steps:?}");
    assert!(events.ends_with("finished"), "{events} after {steps:?}");
}

/// A job, and what happens to it while another one runs beside it.
type Scenario = (Plan, &'static [Step]);

fn scenarios() -> Vec<Scenario> {
    use Step::{
        Deadline, Deliver, Exit, Fork, Freeze, GoOn, Kernel, Kill, Oom, Overflow, Print, RestExit,
        Settle, Spurious, Stall, Stop, StopWithin, Thaw,
    };
    const STEPS: &[&[Step]] = &[
        &[Exit, Settle],
        &[Fork, Exit, Settle],
        &[Fork, Fork, Exit, Deliver, Deliver, RestExit, Settle],
        &[Fork, Stop, Settle],
        &[Fork, StopWithin(SOON), Kernel, Deadline, Settle],
        &[Fork, Exit, Deliver, Stop, Deliver, Deadline, Settle],
        &[Fork, Kill, Settle],
        &[Fork, Exit, Settle, Kill, Settle],
        &[Fork, Deadline, Deadline, Settle],
        &[Fork, Oom(OomCause::Job), Settle, Oom(OomCause::Ancestor), Settle],
        &[Fork, Freeze, Settle, Thaw, Settle, Exit, Settle],
        &[Fork, Freeze, Kernel, Overflow, Stop, Settle],
        &[Fork, Freeze, Settle, Kill, Settle],
        &[Stall, Settle, Stall, Deliver, Exit, Settle],
        &[Fork, Spurious, Settle, Exit, Settle],
    ];
    const PRINTING: &[&[Step]] = &[
        &[Print, Exit, Settle],
        &[Print, Deliver, GoOn, Print, Print, Exit, Deliver, Deliver, Settle],
        &[Print, Fork, Deliver, Exit, Settle, Print, Settle, RestExit, Settle],
        &[Fork, Print, Settle, Print, Stop, Settle],
        &[Print, Settle, Print, Deadline, Settle],
        &[Fork, Print, Kill, GoOn, Settle],
    ];
    let mut scenarios = Vec::new();
    for end in POLICIES {
        for (cgroup, stubborn) in [(true, false), (true, true), (false, false), (false, true)] {
            let time_limit = Some(LIMIT);
            let plan = Plan { end, cgroup, stubborn, time_limit, logs: 2, ..Plan::default() };
            scenarios.extend(STEPS.iter().map(|steps| (plan, *steps)));
            let plan = Plan { terminal: true, ..plan };
            scenarios.extend(PRINTING.iter().map(|steps| (plan, *steps)));
        }
    }
    scenarios
}

/// Runs a scenario until everything is removed. `meddling` happens within the call with its index.
fn run((plan, steps): Scenario, meddling: Option<(usize, Meddling)>) -> World {
    let mut world = World::new(&[]);
    if let Some((call, meddling)) = meddling {
        let script = &mut world.engine.system().script;
        script.extend(std::iter::repeat_n(Meddling::Nothing, call));
        script.push_back(meddling);
    }
    world.spawn(plan, false);
    world.spawn(Plan { end: EndPolicy::WaitAll, ..Plan::default() }, false);
    if world.is_known(0) {
        world.steps(0, &steps[..steps.len() / 2]);
    }
    if world.is_known(1) {
        world.steps(1, &[Step::Fork, Step::Exit, Step::Deliver]);
    }
    if world.is_known(0) {
        world.steps(0, &steps[steps.len() / 2..]);
    }
    if world.is_known(1) {
        world.steps(1, &[Step::Stop, Step::Settle]);
    }
    world.end();
    world
}

#[test]
fn processes_may_end_within_every_call() {
    for scenario in scenarios() {
        let calls = run(scenario, None).engine.system().calls.len();
        for call in 0..calls {
            for meddling in [Meddling::Deaths, Meddling::Exits] {
                let world = run(scenario, Some((call, meddling)));
                assert!(world.problems.iter().all(Vec::is_empty), "{call} of {scenario:?}");
            }
        }
    }
}

#[test]
fn every_call_may_fail_once_with_every_errno() {
    let mut failed_calls = Vec::new();
    for scenario in scenarios() {
        let mut clean = run(scenario, None);
        assert!(clean.problems.iter().all(Vec::is_empty));
        let calls = clean.engine.system().calls.clone();
        for (index, (call, job)) in calls.into_iter().enumerate() {
            if !failed_calls.contains(&call) {
                failed_calls.push(call);
            }
            for (errno, name) in call.errors().iter().enumerate() {
                let errno = u8::try_from(errno).unwrap();
                let failure = format!("{call:?} of job {job} fails with {name} in {scenario:?}");
                // A panic during the run must name the failure that caused it.
                let failed = std::panic::catch_unwind(|| {
                    run(scenario, Some((index, Meddling::Fail(errno))))
                });
                let mut failed = failed.unwrap_or_else(|_| panic!("{failure}"));
                assert_eq!(failed.engine.system().failures, 1, "{failure}");
                let cause = std::io::Error::from(*name).to_string();
                let says = |error: &String| error.contains(&cause) || error.contains("inotify");
                let returned = failed.errors.iter().filter(|(other, _)| *other == job);
                let returned: Vec<String> = returned.map(|(_, error)| error.to_string()).collect();
                let reported = failed.problems[job].iter().any(says) || returned.iter().any(says);
                for other in 0..2 {
                    let same = failed.events[other] == clean.events[other]
                        && failed.reports[other] == clean.reports[other];
                    assert!(
                        same || (other == job && reported),
                        "{failure}: job {other} had {:?} and {:?} instead of {:?} and {:?}",
                        failed.events[other],
                        failed.reports[other],
                        clean.events[other],
                        clean.reports[other],
                    );
                    assert!(other == job || failed.problems[other].is_empty(), "{failure}");
                }
            }
        }
    }
    assert_eq!(failed_calls.len(), 17, "some call is made by no scenario: {failed_calls:?}");
}

#[test]
fn an_exit_is_told_before_anything_else_is_done_about_it() {
    for end in [EndPolicy::KillRest, EndPolicy::WaitAll] {
        let mut world = World::new(&[Plan { end, ..Plan::default() }]);
        world.steps(0, &[Step::Exit, Step::Deliver]);
        assert_eq!(world.events[0], "exit code 3", "{end:?}");
        assert_eq!(world.engine.phase(0), Some(Phase::Exited));
        world.step(0, Step::GoOn);
        assert_eq!(world.events[0], "exit code 3, finished", "{end:?}");
        world.end();
    }
}

#[test]
fn h2_a_job_is_not_finished_while_it_cannot_be_seen_that_it_has_ended() {
    for (end, last) in [(EndPolicy::KillRest, Step::Settle), (EndPolicy::WaitAll, Step::Kill)] {
        for errno in 0..2 {
            let mut world = World::new(&[Plan { end, ..Plan::default() }]);
            world.steps(0, &[Step::Fork, Step::Exit]);
            // There is no descriptor for anything: the job can neither be seen nor killed.
            let script = &mut world.engine.system().script;
            script.push_back(Meddling::Nothing);
            script.extend(std::iter::repeat_n(Meddling::Fail(errno), 20));
            world.step(0, Step::Deliver);
            assert_eq!(world.events[0], "exit code 3");
            world.step(0, Step::GoOn);
            assert!(world.engine.looks_again());
            assert_eq!(world.engine.next_deadline(), Some(Duration::from_millis(250)));
            // The next attempt fails as well.
            world.engine.advance_to_deadline();
            assert!(world.engine.looks_again());
            world.collect();
            assert_eq!(world.events[0], "exit code 3");
            world.engine.system().script.clear();
            world.steps(0, &[last, Step::Settle]);
            assert_eq!(world.events[0], "exit code 3, finished", "{end:?}");
            let report = world.engine.kernel().report(0).unwrap();
            assert!(report.killed, "{report:?}");
            world.end();
        }
    }
}

#[test]
fn m9_a_process_that_enters_while_the_job_is_cleared_is_killed() {
    let mut world = World::new(&[Plan::default()]);
    world.steps(0, &[Step::Fork, Step::Exit, Step::Deliver, Step::GoOn]);
    assert_eq!(world.engine.kernel().kills(0), 1);
    // It is moved into the group after the kill.
    assert!(world.engine.kernel().enter(0));
    world.step(0, Step::Settle);
    assert_eq!(world.events[0], "exit code 3, finished");
    assert!(world.engine.kernel().kills(0) > 1);
    world.end();
}

#[test]
fn m10_a_main_process_that_leaves_its_group_late_does_not_count_as_killed() {
    // As happens since Linux 6.19.
    for end in POLICIES {
        let mut world = World::new(&[Plan { end, ..Plan::default() }]);
        let main = world.engine.kernel().main(0);
        world.engine.kernel().exit(main, 3, true);
        world.steps(0, &[Step::Deliver, Step::Settle]);
        assert_eq!(world.reports[0].as_deref(), Some("exit code 3, stats, 7 bytes"), "{end:?}");
        world.end();
    }
}

#[test]
fn m15_what_the_main_process_leaves_behind_is_awaited_by_pidfd() {
    for end in [EndPolicy::WaitAll, EndPolicy::KillRest] {
        let mut world = World::new(&[Plan { end, ..Plan::default() }]);
        for _ in 0..20 {
            world.step(0, Step::Fork);
        }
        world.steps(0, &[Step::Exit, Step::Deliver, Step::GoOn]);
        assert_eq!(world.events[0], "exit code 3");
        let held = world.engine.kernel().held();
        assert!((2..10).contains(&held.registrations), "a few of them: {held:?}");
        world.step(0, Step::RestExit);
        // The notification of the group is delayed by the kernel, for as long as it likes.
        world.engine.kernel().lose_changes();
        loop {
            let busy = world.engine.run_kernel();
            world.engine.kernel().lose_changes();
            if !(world.engine.deliver(0) | busy) {
                break;
            }
        }
        world.collect();
        assert_eq!(world.events[0], "exit code 3, finished", "{end:?}");
        world.end();
    }
}

#[test]
fn low_how_a_process_ended_is_asked_again_once_somebody_else_has_reaped_it() {
    for early_answers in 0..3 {
        let mut world = World::new(&[Plan::default()]);
        world.step(0, Step::Exit);
        let system = world.engine.system();
        // ECHILD.
        system.script.push_back(Meddling::Fail(0));
        system.early_answers = early_answers;
        world.step(0, Step::Deliver);
        for _ in 0..early_answers {
            assert_eq!(world.events[0], "");
            world.engine.kernel().report_ready(0);
            world.step(0, Step::Deliver);
        }
        assert_eq!(world.events[0], "exit code 3", "{early_answers}");
        world.step(0, Step::GoOn);
        assert_eq!(world.events[0], "exit code 3, finished", "{early_answers}");
        world.end();
    }
}

#[test]
fn low_a_freeze_that_cannot_be_watched_leaves_the_job_as_it_was() {
    let mut world = World::new(&[Plan::default()]);
    world.engine.system().script.push_back(Meddling::Fail(0));
    world.step(0, Step::Freeze);
    assert!(matches!(&world.errors[..], [(0, _)]), "{:?}", world.errors);
    world.steps(0, &[Step::Settle, Step::Exit, Step::Settle]);
    assert_eq!(world.events[0], "exit code 3, finished", "it was not frozen");
    world.end();
}

#[test]
fn what_is_left_in_the_terminal_is_in_the_log_before_its_end_is_fixed() {
    for end in POLICIES {
        let mut world = World::new(&[Plan { end, terminal: true, ..Plan::default() }]);
        // Nothing was delivered before the exit.
        world.steps(0, &[Step::Print, Step::Exit, Step::Settle]);
        assert_eq!(world.reports[0].as_deref(), Some("exit code 3, stats, 16 bytes"), "{end:?}");
        world.end();
    }
    let plan = Plan { end: EndPolicy::WaitAll, terminal: true, ..Plan::default() };
    let mut world = World::new(&[plan]);
    world.steps(0, &[Step::Fork, Step::Exit, Step::Settle, Step::Print, Step::Settle]);
    assert_eq!(world.events[0], "exit code 3");
    world.steps(0, &[Step::Print, Step::RestExit, Step::Settle]);
    assert_eq!(world.reports[0].as_deref(), Some("exit code 3, stats, 25 bytes"));
    world.end();
}

#[test]
fn output_that_cannot_be_written_is_tried_again_and_reported_as_lost_at_the_end() {
    let mut world = World::new(&[Plan { terminal: true, ..Plan::default() }]);
    world.steps(0, &[Step::Print, Step::Deliver]);
    world.engine.system().script.push_back(Meddling::Fail(0));
    world.step(0, Step::GoOn);
    assert_eq!(world.engine.kernel().unread(0), 9);
    // More output is no reason to try again; time is.
    world.steps(0, &[Step::Print, Step::Settle]);
    assert_eq!(world.engine.kernel().unread(0), 12);
    assert_eq!(world.engine.next_deadline(), Some(SOON));
    world.steps(0, &[Step::Deadline, Step::Settle]);
    assert_eq!((world.engine.kernel().unread(0), world.engine.next_deadline()), (0, None));
    world.steps(0, &[Step::Print, Step::Exit]);
    let script = &mut world.engine.system().script;
    // The process is reaped, and nothing is left, but a full disk.
    script.extend([Meddling::Nothing, Meddling::Nothing]);
    script.extend([Meddling::Nothing, Meddling::Fail(0)]);
    world.step(0, Step::Settle);
    assert_eq!(world.reports[0].as_deref(), Some("exit code 3, stats, 19 bytes"));
    let [held_up, lost] = &world.problems[0][..] else { panic!("{:?}", world.problems) };
    assert!(held_up.contains("write log") && lost.contains("the last 9 bytes"), "{held_up} {lost}");
    world.end();
}

/// Another host takes over after the death of one, if that has died.
fn succeed(engine: &mut JobEngine, exec: bool) -> bool {
    let died = engine.system().is_dead();
    if died {
        engine.die(exec);
        let finished = engine.kernel().report(0).is_some();
        assert!(engine.recover() == [0] || finished, "the job is found");
    }
    died
}

/// The job of a host that dies at the `n`th call, and of the next one, from its start to its
/// removal. Returns whether there was such a call.
fn dies_at_call(n: usize, end: EndPolicy, steps: &[Step], exec: bool) -> bool {
    let mut engine = JobEngine::new();
    let script = &mut engine.system().script;
    script.extend(std::iter::repeat_n(Meddling::Nothing, n));
    script.push_back(Meddling::HostDies);
    let plan = Plan { end, survives: true, ..Plan::default() };
    let _ = engine.spawn(plan, 0, false);
    let mut died = succeed(&mut engine, exec);
    for step in steps {
        match step {
            Step::Fork => _ = engine.kernel().fork(0, false),
            Step::Exit => _ = engine.kernel().exit(0, 3, false),
            Step::RestExit => _ = engine.kernel().exit(1, 0, false),
            Step::Stop => engine.stop(0, None).unwrap(),
            Step::Settle => engine.settle(),
            other => panic!("{other:?}"),
        }
        if succeed(&mut engine, exec) {
            died = true;
            if *step == Step::Stop {
                // It was perhaps not recorded: whoever asks is told nothing by a host that dies.
                engine.stop(0, None).unwrap();
            }
        }
    }
    engine.settle();
    while succeed(&mut engine, exec) {
        died = true;
        engine.settle();
    }
    let mut finished = None;
    while let Some(event) = engine.take_event() {
        if let Event::Finished { report, .. } = event {
            assert!(finished.replace(report).is_none(), "it is told once by a host");
        }
    }
    let stops = steps.contains(&Step::Stop);
    let report = finished.unwrap_or_else(|| panic!("it is finished, {n}"));
    let exit = if steps.contains(&Step::Exit) { "exit code 3" } else { "SIGTERM" };
    assert_eq!(report.exit.to_string(), exit, "{n}");
    assert_eq!(report.stopped_by.is_some(), stops, "{n}");
    let removed = engine.remove(0);
    if engine.system().is_dead() {
        died = true;
        engine.die(exec);
        // It has happened as a whole, or not at all.
        if engine.recover() == [0] {
            engine.remove(0).unwrap();
        }
    } else {
        removed.unwrap();
    }
    assert_eq!(engine.recover(), [], "{n}");
    assert_eq!(engine.kernel().held(), Held::default(), "{n}");
    assert!(!engine.kernel().has_logs(0), "{n}");
    died
}

#[test]
fn a_host_that_dies_at_any_call_leaves_a_job_to_the_next_that_is_ended_right() {
    let lives: [(EndPolicy, &[Step]); 4] = [
        (EndPolicy::KillRest, &[Step::Exit, Step::Settle]),
        (EndPolicy::KillRest, &[Step::Fork, Step::Exit, Step::Settle, Step::Settle]),
        (EndPolicy::WaitAll, &[Step::Fork, Step::Exit, Step::Settle, Step::RestExit, Step::Settle]),
        (EndPolicy::KillRest, &[Step::Fork, Step::Stop, Step::Settle, Step::Settle]),
    ];
    for (end, steps) in lives {
        for exec in [false, true] {
            let calls = (0..).find(|n| !dies_at_call(*n, end, steps, exec)).unwrap();
            assert!(calls > 10, "{calls}");
        }
    }
}
