//! The feature `tracing`: the life of each job is reported in its span, its output and its secrets
//! are not.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobworker::{Command, Position, Reactor, Worker};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::subscriber::{set_global_default, with_default};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::keeper::Keeping;
use crate::support::{Place, World, alone, sh};
use crate::worker::until;

/// The fields of a span or an event, as text.
#[derive(Clone, Debug, Default)]
struct Fields(HashMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Fields {
    #[track_caller]
    fn expect(&self, fields: &[(&str, &str)]) {
        for (name, value) in fields {
            assert_eq!(self.0.get(name).map(String::as_str), Some(*value), "{name} in {self:?}");
        }
    }
}

/// What the library has reported.
#[derive(Debug, Default)]
struct Seen {
    /// The spans by their number.
    spans: HashMap<u64, Fields>,
    /// The events, each with the number of its span.
    events: Vec<(Option<u64>, Fields)>,
    /// Which span follows from which.
    follows: Vec<(u64, u64)>,
    /// How many spans were closed.
    closed: usize,
}

/// Collects what the library reports.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Seen>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collector {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        if attributes.metadata().target() != "jobworker" {
            return;
        }
        assert_eq!(attributes.metadata().name(), "job");
        assert!(cx.span(id).unwrap().parent().is_none());
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        self.0.lock().unwrap().spans.insert(id.into_u64(), fields);
    }

    fn on_follows_from(&self, span: &Id, follows: &Id, _: Context<'_, S>) {
        self.0.lock().unwrap().follows.push((span.into_u64(), follows.into_u64()));
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let span = cx.event_span(event).map(|span| span.id().into_u64());
        self.0.lock().unwrap().events.push((span, fields));
    }

    fn on_close(&self, _: Id, _: Context<'_, S>) {
        self.0.lock().unwrap().closed += 1;
    }
}

impl Collector {
    /// Runs a test on this thread.
    fn collect(&self, test: impl FnOnce()) {
        with_default(self.subscriber(), test);
    }

    fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        tracing_subscriber::registry().with(self.clone())
    }

    /// The number of the only span.
    #[track_caller]
    fn only_span(&self) -> (u64, Fields) {
        let seen = self.0.lock().unwrap();
        assert_eq!(seen.spans.len(), 1, "{seen:?}");
        seen.spans.iter().map(|(number, fields)| (*number, fields.clone())).next().unwrap()
    }

    /// What was reported within a span, or outside of any.
    fn messages(&self, span: Option<u64>) -> Vec<String> {
        let seen = self.0.lock().unwrap();
        let within = seen.events.iter().filter(|(of, _)| *of == span);
        within.map(|(_, fields)| fields.0["message"].clone()).collect()
    }

    /// The fields of the only event with this message.
    #[track_caller]
    fn event(&self, message: &str) -> Fields {
        let seen = self.0.lock().unwrap();
        let mut found = seen.events.iter().filter(|(_, fields)| fields.0["message"] == message);
        let (_, fields) = found.next().unwrap_or_else(|| panic!("no {message} in {seen:?}"));
        assert!(found.next().is_none(), "several {message}");
        fields.clone()
    }
}

#[test]
fn the_life_of_a_job_is_reported_in_its_span_without_its_output_and_secrets() {
    let collector = Collector::default();
    let mut ran = None;
    collector.collect(|| {
        let Some(mut world) = World::new() else { return };
        let mut command = sh("seq 10000; exit 3 # hunter2");
        command.arg("hunter3").env("SECRET", "hunter4");
        let host = tracing::info_span!("host");
        let job = host.in_scope(|| world.spawn(&command));
        let pid = world.reactor.status(job).unwrap().pid;
        let tail = world.tail(job, Position::Start);
        world.finish(job);
        assert_eq!(world.text(tail).len(), 48894);
        world.reactor.remove(job).unwrap();
        ran = Some((job, pid, host.id().unwrap().into_u64()));
    });
    let Some((job, pid, host)) = ran else { return };
    let (span, fields) = collector.only_span();
    let (job, pid) = (job.to_string(), pid.to_string());
    fields.expect(&[("id", &job), ("pid", &pid), ("program", "/bin/sh")]);
    assert_eq!(collector.messages(Some(span)), ["spawned", "exited", "finished", "removed"]);
    assert_eq!(collector.messages(None), ["reactor created", "reactor dropped"]);
    collector.event("exited").expect(&[("exit", "exit code 3")]);
    collector.event("finished").expect(&[
        ("exit", "exit code 3"),
        ("output_bytes", "48894"),
        ("killed", "false"),
        ("problems", "0"),
    ]);
    let seen = collector.0.lock().unwrap();
    assert_eq!(seen.follows, [(span, host)]);
    // That of the host, and that of the job with its removal.
    assert_eq!(seen.closed, 2);
    assert!(!format!("{seen:?}").contains("hunter"), "{seen:?}");
}

#[test]
fn a_stop_a_kill_and_a_freeze_are_reported_with_their_cause() {
    let collector = Collector::default();
    let mut ran = false;
    collector.collect(|| {
        let Some(mut world) = World::new() else { return };
        let job = world.spawn(&sh("trap '' TERM; echo ready; while :; do sleep 1000; done"));
        let tail = world.tail(job, Position::Start);
        world.until("it is ready", |world| world.text(tail) == "ready\n");
        world.reactor.freeze(job).unwrap();
        world.until("it is frozen", |world| world.resource_events.len() == 1);
        world.reactor.thaw(job).unwrap();
        world.until("it is thawed", |world| world.resource_events.len() == 2);
        world.reactor.stop_within(job, Duration::from_millis(20)).unwrap();
        world.finish(job);
        world.reactor.remove(job).unwrap();
        ran = true;
    });
    if !ran {
        return;
    }
    let expected = [
        "spawned",
        "frozen",
        "thawed",
        "stop requested",
        "killing",
        "exited",
        "finished",
        "removed",
    ];
    let (span, _) = collector.only_span();
    assert_eq!(collector.messages(Some(span)), expected);
    collector.event("stop requested").expect(&[("cause", "Stop"), ("grace", "20ms")]);
    collector.event("finished").expect(&[("stopped_by", "Stop"), ("killed", "true")]);
}

#[test]
fn a_drop_is_a_cause_and_a_time_limit_has_the_grace_period_of_the_command() {
    let collector = Collector::default();
    let mut ran = false;
    collector.collect(|| {
        let Some(mut world) = World::new() else { return };
        let mut limited = sh("sleep 1000");
        limited.time_limit(Duration::from_millis(20)).grace(Duration::from_secs(40));
        let limited = world.spawn(&limited);
        world.finish(limited);
        world.spawn(&sh("sleep 1000"));
        ran = true;
    });
    if !ran {
        return;
    }
    collector.event("reactor dropped").expect(&[("killed", "1")]);
    let seen = collector.0.lock().unwrap();
    let requests = seen.events.iter().filter(|(_, fields)| fields.0["message"] == "stop requested");
    let requests: Vec<_> = requests.map(|(_, fields)| fields).collect();
    requests[0].expect(&[("cause", "TimeLimit"), ("grace", "40s")]);
    requests[1].expect(&[("cause", "Drop")]);
    assert!(requests.len() == 2 && !requests[1].0.contains_key("grace"), "{requests:?}");
    assert_eq!(seen.closed, 2, "every span ends with its job");
}

#[test]
fn a_failed_spawn_is_reported_without_a_span() {
    let collector = Collector::default();
    let mut ran = false;
    collector.collect(|| {
        let Some(mut world) = World::new() else { return };
        let mut command = Command::new("/no/such/program");
        command.arg("hunter2").env("SECRET", "hunter3");
        world.try_spawn(&command).unwrap_err();
        ran = true;
    });
    if !ran {
        return;
    }
    let failed = collector.event("spawn failed");
    failed.expect(&[("program", "/no/such/program")]);
    assert!(failed.0["error"].contains("No such file"), "{failed:?}");
    let seen = collector.0.lock().unwrap();
    assert!(seen.spans.is_empty() && !format!("{seen:?}").contains("hunter"), "{seen:?}");
}

#[test]
fn a_lost_keeper_is_reported_once_and_so_is_the_next_one() {
    let collector = Collector::default();
    let mut ran = false;
    collector.collect(|| {
        let place = Place::new();
        if place.cgroup_or_skip().is_none() {
            return;
        }
        let socket = place.dir.path().join("keeper");
        let mut config = place.config();
        let reactor = Reactor::with_config(config.name("host").keeper(&socket)).unwrap();
        let mut world = World::around(reactor, place);
        world.run(sh("true").survives(true));
        let keeper = Keeping::start(&socket);
        world.run(sh("true").survives(true));
        until("there is a keeper", || {
            world.turn(Some(Duration::from_millis(2)));
            world.reactor.keeper_problem().is_none()
        });
        world.run(sh("true").survives(true));
        keeper.await_held(0);
        ran = true;
    });
    if !ran {
        return;
    }
    let lost = collector.event("keeper lost");
    assert!(lost.0["error"].starts_with("cannot connect to the keeper at "), "{lost:?}");
    assert!(collector.event("keeper found").0["socket"].ends_with("/keeper"));
}

/// The subscriber of the process gets what the thread of a worker does.
#[test]
fn a_worker_reports_its_jobs_from_both_threads_and_nothing_of_its_readers() {
    if !alone!() {
        return;
    }
    let place = Place::new();
    if place.cgroup_or_skip().is_none() {
        return;
    }
    let collector = Collector::default();
    set_global_default(collector.subscriber()).unwrap();
    let worker = Worker::with_config(&place.config()).unwrap();
    let job = worker.spawn(&sh("seq 10000")).unwrap();
    let mut outputs: Vec<_> = (0..20).map(|_| job.output(Position::Start).unwrap()).collect();
    for output in &mut outputs {
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 48894);
    }
    job.wait().unwrap();
    drop((outputs, job, worker));
    let (span, fields) = collector.only_span();
    fields.expect(&[("program", "/bin/sh")]);
    let life = ["spawned", "exited", "finished", "removed"];
    assert_eq!(collector.messages(Some(span)), life);
    assert_eq!(collector.messages(None), ["reactor created", "reactor dropped"]);
}
