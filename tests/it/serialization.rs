//! What is serialized with the feature `serde` is the same when it is deserialized, in a form that
//! does not change.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use jobworker::{
    ByteSize, Capability, Command, Device, EndPolicy, Error, Exit, IoPriority, IoRates, JobId,
    LimitValue, Limits, Output, ProcessGroup, Report, Resource, Scheduler, Signal, Stats, Status,
    Stdin, Terminal,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::{World, rounds, sh};

/// What comes back from JSON and from a format that is not for people.
#[track_caller]
fn returned<T: Serialize + DeserializeOwned>(value: &T) -> [T; 2] {
    let text = serde_json::to_string(value).unwrap();
    let bytes = postcard::to_stdvec(value).unwrap();
    [
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")),
        postcard::from_bytes(&bytes).unwrap_or_else(|error| panic!("{error}: {text}")),
    ]
}

#[track_caller]
fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    for same in returned(value) {
        assert_eq!(&same, value);
    }
}

type Variables = Vec<(OsString, Option<OsString>)>;

/// Everything that a command has; `Debug` leaves out what may be secret.
fn everything(command: &Command) -> (String, Variables, Option<Vec<u8>>) {
    let owned = |text: &std::ffi::OsStr| text.to_owned();
    let envs = command.view().envs().map(|(key, value)| (owned(key), value.map(owned))).collect();
    let bytes = match command.view().stdin() {
        Stdin::Bytes(bytes) => Some(bytes.to_vec()),
        _ => None,
    };
    (format!("{command:?}"), envs, bytes)
}

fn text() -> impl Strategy<Value = OsString> {
    prop_oneof![
        ".{0,8}".prop_map(OsString::from),
        vec(any::<u8>(), 0..8).prop_map(OsString::from_vec)
    ]
}

fn time() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos))
}

fn rates() -> impl Strategy<Value = IoRates> {
    let number = || option::of(any::<u64>());
    (number(), number(), number(), number()).prop_map(|(read, write, reads, writes)| IoRates {
        read_bytes: read.map(ByteSize::from_bytes),
        write_bytes: write.map(ByteSize::from_bytes),
        reads,
        writes,
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let values = (0..7u8, any::<(u32, u64, bool)>(), (time(), time()), ".{0,8}", rates());
    vec(values, 0..5).prop_map(|values| {
        let mut limits = Limits::new();
        for (which, (number, bytes, on), (quota, period), text, rates) in values {
            let device = Device::new(number, 0);
            match which {
                0 => limits.cpu_weight(number).pids_max(number),
                1 => limits.cpu_weight_nice(number.cast_signed()),
                2 => limits.cpu_max(quota, period).cpu_max_burst(period),
                3 => limits.cpu_idle(on).set("cgroup.max.depth", "max").unwrap(),
                4 => limits.memory_max(bytes.into()).hugetlb_max("2MB", bytes.into()),
                5 => limits.cpuset_cpus(&text).raw(&text, &text).raw("memory.high", &text),
                _ => limits
                    .io_weight(number)
                    .io_weight_of(device, number)
                    .io_max(device, rates)
                    .io_latency(device, quota),
            };
        }
        limits
    })
}

fn stdin() -> impl Strategy<Value = Stdin> {
    prop_oneof![
        Just(Stdin::Null),
        Just(Stdin::Piped),
        Just(Stdin::Terminal),
        text().prop_map(|path| Stdin::File(path.into())),
        vec(any::<u8>(), 0..20).prop_map(Stdin::bytes),
    ]
}

fn signal() -> impl Strategy<Value = Signal> {
    (1..=64).prop_map(|number| Signal::from_raw(number).unwrap())
}

fn command() -> impl Strategy<Value = Command> {
    let words =
        (text(), option::of(text()), vec(text(), 0..4), vec((text(), option::of(text())), 0..4));
    let places = (option::of(text()), option::of(text()), stdin(), 0..5usize);
    let ids =
        (option::of(any::<u32>()), option::of(vec(any::<u32>(), 0..3)), option::of(-1000..1000));
    let kinds = (option::of(any::<u8>()), option::of(vec(0..64u32, 0..4)), vec(0..4096u32, 0..4));
    let ends =
        (option::of(signal()), signal(), time(), option::of(time()), option::of(any::<bool>()));
    let flags = any::<[bool; 5]>();
    (words, places, ids, kinds, ends, (flags, limits())).prop_map(
        |(words, places, ids, kinds, ends, (flags, limits))| {
            let (program, arg0, args, envs) = words;
            let mut command = Command::new(program);
            command.args(args).limits(&limits).stdin(places.2);
            arg0.iter().for_each(|name| _ = command.arg0(name));
            for (key, value) in envs {
                match value {
                    Some(value) => command.env(key, value),
                    None => command.env_remove(key),
                };
            }
            places.0.iter().for_each(|dir| _ = command.chroot(dir));
            places.1.iter().for_each(|dir| _ = command.current_dir(dir));
            let outputs = [
                Output::Combined,
                Output::Split,
                Output::Null,
                Output::Inherit,
                Output::Terminal(Terminal::new(24, 80).raw_output()),
            ];
            command.output(outputs[places.3].clone());
            let policies = [EndPolicy::KillRest, EndPolicy::WaitAll, EndPolicy::LeaveRest];
            command.end_policy(policies[places.3 % 3]);
            let groups = [ProcessGroup::Session, ProcessGroup::Own, ProcessGroup::Host];
            command.process_group(groups[places.3 % 3]);
            if let Some(id) = ids.0 {
                command.uid(id).gid(id).umask(id).securebits(id);
                command.rlimit(Resource::OpenFiles, Some(id.into()), None);
                command.rlimit(Resource::RealtimeTime, None, Some(u64::MAX - u64::from(id)));
            }
            ids.1.into_iter().for_each(|groups| _ = command.groups(groups));
            ids.2.iter().for_each(|number| _ = command.nice(*number).oom_score_adj(*number));
            if let Some(number) = kinds.0 {
                command.scheduler(
                    [
                        Scheduler::Normal,
                        Scheduler::Batch,
                        Scheduler::Idle,
                        Scheduler::Fifo(number),
                        Scheduler::RoundRobin(number),
                    ][usize::from(number % 5)],
                );
                command.io_priority(
                    [
                        IoPriority::RealTime(number),
                        IoPriority::BestEffort(number),
                        IoPriority::Idle,
                    ][usize::from(number % 3)],
                );
            }
            if let Some(numbers) = kinds.1 {
                command
                    .capability_bounding_set(numbers.into_iter().filter_map(Capability::from_raw));
            }
            if !kinds.2.is_empty() {
                command.cpu_affinity(kinds.2);
            }
            let [inherit, keep, detached, no_new_privs, keyring] = flags;
            if inherit {
                command.inherit_env();
            }
            command.keep_log(keep).detached(detached).no_new_privs(no_new_privs);
            command.survives(keyring != keep).label(vec![b'a'; usize::from(inherit)]);
            command.new_session_keyring(keyring);
            let (death, stop, grace, limit, accounting) = ends;
            death.into_iter().for_each(|signal| _ = command.parent_death_signal(signal));
            command.stop_signal(stop).grace(grace);
            limit.into_iter().for_each(|limit| _ = command.time_limit(limit));
            accounting.into_iter().for_each(|on| _ = command.accounting(on));
            command
        },
    )
}

#[test]
fn any_command_is_the_same_when_it_comes_back() {
    let cases = u32::try_from(rounds(500)).unwrap();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    proptest!(config, |(command in command())| {
        for same in returned(&command) {
            prop_assert_eq!(everything(&same), everything(&command));
        }
        let limits = command.view().limits();
        for same in returned(limits) {
            prop_assert_eq!(&same, limits);
        }
    });
}

#[test]
fn the_form_of_a_command_does_not_change() {
    let mut limits = Limits::new();
    limits.pids_max(5).cpu_max(Duration::from_millis(150), Duration::from_millis(100));
    limits.io_weight_of(Device::new(8, 0), 7);
    let mut command = Command::new("sh");
    command
        .arg(OsString::from_vec(vec![b'a', 0xff]))
        .env("A", "1")
        .env_remove("B")
        .current_dir("/tmp")
        .stdin_bytes("input")
        .output(Output::Split)
        .uid(1)
        .gid(2)
        .groups([3])
        .rlimit(Resource::OpenFiles, Some(64), None)
        .scheduler(Scheduler::Fifo(3))
        .cpu_affinity([0, 2])
        .io_priority(IoPriority::BestEffort(6))
        .capability_bounding_set([Capability::KILL])
        .end_policy(EndPolicy::WaitAll)
        .time_limit(Duration::from_millis(1500))
        .limits(&limits);
    let mut form = json!({
        "program": "sh",
        "arg0": null,
        "args": [[97, 255]],
        "inherit_env": false,
        "env": [["A", "1"], ["B", null]],
        "chroot": null,
        "current_dir": "/tmp",
        "stdin": { "bytes": "input" },
        "output": "split",
        "descriptors": [],
        "keep_log": false,
        "log_keep": null,
        "log_limit": null,
        "uid": 1,
        "gid": 2,
        "groups": [3],
        "umask": null,
        "rlimits": [["open_files", 64, null]],
        "oom_score_adj": null,
        "nice": null,
        "scheduler": { "fifo": 3 },
        "cpu_affinity": [0, 2],
        "io_priority": { "best_effort": 6 },
        "new_session_keyring": false,
        "capability_bounding_set": 32,
        "securebits": null,
        "no_new_privs": false,
        "process_group": "session",
        "parent_death_signal": null,
        "detached": false,
        "end_policy": "wait_all",
        "stop_signal": 15,
        "grace": { "secs": 10, "nanos": 0 },
        "time_limit": { "secs": 1, "nanos": 500_000_000 },
        "limits": {
            "pids.max": { "count": 5 },
            "cpu.max": { "quota": {
                "quota": { "secs": 0, "nanos": 150_000_000 },
                "period": { "secs": 0, "nanos": 100_000_000 },
            } },
            "io.weight": { "weights": { "default": null, "devices": { "8:0": 7 } } },
        },
        "accounting": null,
    });
    // Apart, because a macro can only be nested so deep.
    form["survives"] = json!(false);
    form["label"] = json!("");
    assert_eq!(serde_json::to_value(&command).unwrap(), form);
    command.stdin(Stdin::Terminal).output(Output::Terminal(Terminal::new(24, 80)));
    let form = serde_json::to_value(&command).unwrap();
    assert_eq!(form["stdin"], "terminal");
    let terminal = json!({ "rows": 24, "columns": 80, "raw_output": false });
    assert_eq!(form["output"], json!({ "terminal": terminal }));
    // What is not there has its default.
    let output = json!({ "terminal": { "rows": 24, "columns": 80 } });
    let sparse = json!({ "program": "true", "output": output });
    let sparse: Command = serde_json::from_value(sparse).unwrap();
    assert!(matches!(sparse.view().output(), Output::Terminal(found) if !found.raw_output));
    let sparse: Command = serde_json::from_value(json!({ "program": "true" })).unwrap();
    assert_eq!(everything(&sparse), everything(&Command::new("true")));
}

#[test]
fn what_is_no_command_is_refused_with_the_reason() {
    let refused = |form: Value| serde_json::from_value::<Command>(form).unwrap_err().to_string();
    let with = |name: &str, value: Value| json!({ "program": "true", name: value });
    for (form, reason) in [
        (with("uidd", json!(1)), "unknown field `uidd`"),
        (with("stop_signal", json!(65)), "the number of a signal, 1 to 64"),
        (with("stdin", json!({ "fd": null })), "descriptor"),
        (with("descriptors", json!([3])), "invalid length 1"),
        (with("end_policy", json!("none")), "unknown variant `none`"),
        (with("limits", json!({ "pids.max": { "bytes": 1 } })), "pids.max does not have a value"),
        (with("limits", json!({ "no.such": { "count": 1 } })), "no.such does not have a value"),
        (with("limits", json!({ "memory.max": { "bytes": "12Q" } })), "\"12Q\" is not a size"),
        (with("current_dir", json!([256])), "u8"),
    ] {
        let text = refused(form);
        assert!(text.contains(reason), "{text}");
    }
    // Sizes may be written as people do, and whatever is raw has no kind.
    let form = json!({ "memory.max": { "bytes": "64M" }, "no.such": { "text": "1" } });
    let limits: Limits = serde_json::from_value(form).unwrap();
    assert_eq!(limits.get("memory.max"), Some(&LimitValue::Bytes(ByteSize::from_mib(64))));
}

#[test]
fn a_command_with_descriptors_cannot_be_serialized() {
    let null = || File::open("/dev/null").unwrap();
    for command in [
        Command::new("true").stdin_fd(null()),
        Command::new("true").output(Output::fd(null())),
        Command::new("true").pass_fd(3, null()),
    ] {
        let error = serde_json::to_string(command).unwrap_err();
        assert!(error.to_string().contains("an open file descriptor has no meaning"), "{error}");
    }
}

#[test]
fn what_a_job_has_come_to_is_the_same_when_it_comes_back() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(sh("echo text; kill -9 $$").accounting(true));
    comes_back(&job);
    comes_back::<Stats>(&world.reactor.stats(job).unwrap_or_default());
    let running = world.reactor.status(job).unwrap();
    let report = world.finish(job);
    let finished = world.reactor.status(job).unwrap();
    for status in [running, finished] {
        for same in returned::<Status>(&status) {
            assert_eq!(format!("{same:?}"), format!("{status:?}"));
            assert_eq!(same.to_string(), status.to_string());
        }
    }
    for same in returned::<Report>(&report) {
        assert_eq!(format!("{same:?}"), format!("{report:?}"));
    }
    let form = serde_json::to_value(&*report).unwrap();
    assert_eq!(form["exit"], json!({ "signal": { "signal": 9, "core_dumped": false } }));
    assert_eq!((&form["output_bytes"], &form["stopped_by"]), (&json!(5), &Value::Null));
    let text = serde_json::to_value(job).unwrap();
    assert_eq!(text, json!(job.to_string()));
    assert!(serde_json::from_value::<JobId>(json!("job 1")).is_err());
    for exit in [Exit::Code(3), Exit::Unknown, report.exit] {
        comes_back(&exit);
    }
    assert_eq!(serde_json::to_value(Exit::Code(3)).unwrap(), json!({ "code": 3 }));
}

#[test]
fn an_error_keeps_its_message_its_kind_and_its_errno() {
    let Some(mut world) = World::new() else { return };
    let errors = [
        world.try_spawn(&Command::new("/no/such/program")).unwrap_err(),
        world.try_spawn(&Command::new("")).unwrap_err(),
    ];
    for error in errors {
        for same in returned(&error) {
            assert!(matches!(same, Error::Recorded(_)), "{same:?}");
            assert_eq!(same.to_string(), error.to_string());
            assert_eq!((same.kind(), same.raw_os_error()), (error.kind(), error.raw_os_error()));
            // It can be handed on any number of times.
            assert_eq!(serde_json::to_value(&same).unwrap(), serde_json::to_value(&error).unwrap());
        }
    }
    // A kind that this version does not know.
    let form = json!({ "message": "m", "kind": "of_the_future", "raw_os_error": null });
    let error: Error = serde_json::from_value(form).unwrap();
    assert_eq!(error.kind(), jobworker::ErrorKind::Other);
}
