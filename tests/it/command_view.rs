//! What a host can read of a command: its settings, its command line, and no secrets.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use jobworker::{
    ByteSize, Capability, Command, EndPolicy, IoPriority, Limits, Output, OverLimit, ProcessGroup,
    Resource, Scheduler, Signal, Stdin,
};

use crate::support::{World, rounds};

#[test]
fn what_is_written_of_an_input_is_never_its_bytes() {
    for (stdin, text) in [
        (Stdin::Null, "Null"),
        (Stdin::File("/a".into()), "File(\"/a\")"),
        (Stdin::bytes(b"secret".to_vec()), "Bytes(6 bytes)"),
        (Stdin::Piped, "Piped"),
        (Stdin::Terminal, "Terminal"),
    ] {
        assert_eq!(format!("{stdin:?}"), text);
    }
}

#[test]
fn a_view_gives_back_what_was_set_and_nothing_for_the_rest() {
    let view_of_nothing = Command::new("true");
    let view = view_of_nothing.view();
    assert_eq!((view.program(), view.args().len(), view.envs().len()), (OsStr::new("true"), 0, 0));
    assert!(matches!(view.stdin(), Stdin::Null) && matches!(view.output(), Output::Combined));
    assert_eq!((view.uid(), view.gid(), view.groups(), view.umask()), (None, None, None, None));
    assert_eq!((view.nice(), view.scheduler(), view.oom_score_adj()), (None, None, None));
    assert!(view.capability_bounding_set().is_none() && view.securebits().is_none());
    assert_eq!((view.current_dir(), view.time_limit(), view.accounting()), (None, None, None));
    assert_eq!((view.stop_signal(), view.grace()), (Signal::TERM, Duration::from_secs(10)));
    assert!(
        !view.inherit_env()
            && !view.keep_log()
            && view.log_keep().is_none()
            && view.log_limit().is_none()
            && !view.detached()
            && !view.no_new_privs()
    );
    assert!(!view.survives() && view.label().is_empty());

    let mut limits = Limits::new();
    limits.pids_max(5);
    let mut command = Command::new("sh");
    command
        .arg0("-sh")
        .args(["-c", "exit"])
        .env("A", "1")
        .env_remove("B")
        .inherit_env()
        .chroot("/srv")
        .current_dir("/tmp")
        .stdin_file("/etc/passwd")
        .output(Output::Split)
        .pass_fd(7, std::fs::File::open("/dev/null").unwrap())
        .keep_log(true)
        .log_keep(ByteSize::from_mib(1))
        .log_limit(ByteSize::from_mib(2), OverLimit::Discard)
        .uid(1)
        .gid(2)
        .groups([3, 4])
        .umask(0o27)
        .rlimit(Resource::Core, Some(0), None)
        .oom_score_adj(7)
        .nice(3)
        .scheduler(Scheduler::Batch)
        .cpu_affinity([3, 1])
        .io_priority(IoPriority::Idle)
        .new_session_keyring(true)
        .capability_bounding_set([Capability::KILL, Capability::CHOWN])
        .securebits(3)
        .no_new_privs(true)
        .process_group(ProcessGroup::Own)
        .parent_death_signal(Signal::KILL)
        .detached(true)
        .survives(true)
        .label("mine")
        .end_policy(EndPolicy::WaitAll)
        .stop_signal(Signal::INT)
        .grace(Duration::ZERO)
        .time_limit(Duration::from_secs(9))
        .accounting(false)
        .limits(&limits);
    let view = command.view();
    assert!(view.args().eq(["-c", "exit"]) && view.arg0() == Some(OsStr::new("-sh")));
    let envs: Vec<_> = view.envs().collect();
    assert_eq!(envs, [("A".as_ref(), Some("1".as_ref())), ("B".as_ref(), None)]);
    assert!(view.inherit_env() && view.keep_log() && view.detached() && view.no_new_privs());
    assert!(view.survives() && view.label() == b"mine");
    assert_eq!(view.current_dir(), Some(Path::new("/tmp")));
    assert_eq!(view.log_keep(), Some(ByteSize::from_mib(1)));
    assert_eq!(view.log_limit(), Some((ByteSize::from_mib(2), OverLimit::Discard)));
    assert!(matches!(view.stdin(), Stdin::File(path) if path == Path::new("/etc/passwd")));
    assert!(matches!(view.output(), Output::Split) && view.new_session_keyring());
    assert_eq!((view.uid(), view.gid(), view.groups()), (Some(1), Some(2), Some(&[3, 4][..])));
    assert_eq!((view.umask(), view.oom_score_adj(), view.nice()), (Some(0o27), Some(7), Some(3)));
    assert!(view.rlimits().eq([(Resource::Core, Some(0), None)]));
    assert_eq!(view.scheduler(), Some(Scheduler::Batch));
    assert!(view.cpu_affinity().unwrap().eq([1, 3]));
    assert_eq!(view.io_priority(), Some(IoPriority::Idle));
    assert_eq!(view.chroot(), Some(Path::new("/srv")));
    assert!(view.descriptors().map(|(number, _)| number).eq([7]));
    let kept: Vec<_> = view.capability_bounding_set().unwrap().collect();
    assert_eq!(kept, [Capability::CHOWN, Capability::KILL]);
    assert_eq!((view.securebits(), view.process_group()), (Some(3), ProcessGroup::Own));
    assert_eq!(view.parent_death_signal(), Some(Signal::KILL));
    assert_eq!((view.end_policy(), view.stop_signal()), (EndPolicy::WaitAll, Signal::INT));
    assert_eq!((view.grace(), view.accounting()), (Duration::ZERO, Some(false)));
    assert_eq!(view.time_limit(), Some(Duration::from_secs(9)));
    assert_eq!(view.limits(), &limits);
}

/// What a shell runs when the command line is pasted into it.
fn pasted(shell: &str, command: &Command) -> Vec<u8> {
    let line = command.to_string();
    let run = std::process::Command::new(shell).args(["-c", &line]).output().unwrap();
    assert!(run.stderr.is_empty(), "{shell}: {line}: {}", String::from_utf8_lossy(&run.stderr));
    run.stdout
}

#[test]
fn a_printed_command_line_runs_the_same_in_every_shell() {
    let shells = ["/bin/sh", "/bin/dash", "/bin/bash", "/bin/ksh", "/bin/zsh"];
    let shells: Vec<&str> = shells.into_iter().filter(|shell| Path::new(shell).exists()).collect();
    // Some of everything that a shell, a terminal or UTF-8 treats specially.
    let pieces: [&[u8]; 22] = [
        b"a",
        b"-",
        b" ",
        b"'",
        b"\"",
        b"\\",
        b"$",
        b"`",
        b"!",
        b"*",
        b"~",
        b"#",
        b"=",
        b"\n",
        b"\t",
        b"\x1b",
        b"\x7f",
        b"\xff",
        b"\xc3",
        "\u{fc}".as_bytes(),
        "\u{202e}".as_bytes(),
        b"%",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..rounds(300) {
        let words: Vec<OsString> = (0..random.usize(0..4))
            .map(|_| {
                let count = random.usize(0..8);
                OsString::from_vec(
                    (0..count).flat_map(|_| random.choice(pieces).unwrap().to_vec()).collect(),
                )
            })
            .collect();
        let mut command = Command::new("/usr/bin/printf");
        command.arg("<%s>").args(&words);
        let expected: Vec<u8> = match words.len() {
            // printf uses its format once at least.
            0 => b"<>".to_vec(),
            _ => words.iter().flat_map(|word| [b"<", word.as_bytes(), b">"].concat()).collect(),
        };
        let line = command.to_string();
        assert!(!line.contains(|c: char| c.is_control() && c != '\n'), "{line:?}");
        for shell in &shells {
            assert_eq!(pasted(shell, &command), expected, "{shell}: {line}");
        }
    }
}

#[test]
fn values_of_the_environment_are_in_no_debug_output_and_in_no_error() {
    let Some(mut world) = World::new() else { return };
    let mut command = Command::new("/no/such/program");
    command.env("SECRET", "hunter2").env("GONE", "hunter2").env_remove("GONE");
    let text = format!("{command:?} {command:#?} {:?} {command}", command.view());
    assert!(text.contains("SECRET") && text.contains("removed"), "{text}");
    let mut errors = vec![world.try_spawn(&command).unwrap_err()];
    for (name, value) in [("A=", "hunter2"), ("", "hunter2"), ("B", "hunter2\0")] {
        errors.push(world.try_spawn(command.clone().env(name, value)).unwrap_err());
    }
    errors.push(world.try_spawn(command.clone().current_dir("/no/such/dir")).unwrap_err());
    let text = errors.iter().fold(text, |text, error| format!("{text} {error} {error:?}"));
    assert!(!text.contains("hunter2"), "{text}");
}
