//! Defects of the second review about starting programs: users, privileges, signals and the wait
//! for exec, each under its name.

use std::fs;

use jobworker::{Command, Containment, Error, Exit, ProcessGroup, Reactor, SpawnError};

use crate::support::{Place, World, alone, sh, skip_outside_vm};

/// A user who owns nothing on this machine, so that no process of anybody else is hit.
const SPARE_UID: u32 = 61_234;

/// A world whose jobs are contained by process group, for hosts that may not make cgroups.
fn grouped() -> World {
    let place = Place::new();
    let mut config = place.config();
    config.containment(Containment::ProcessGroup);
    World::around(Reactor::with_config(&config).unwrap(), place)
}

/// `cat /proc/self/status`, which is what a job says of itself.
fn status_of_itself() -> Command {
    let mut command = Command::new("/bin/cat");
    command.arg("/proc/self/status");
    command
}

/// The value of a field of /proc/PID/status.
#[track_caller]
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().replace('\t', " ")
}

#[test]
fn h6_a_job_of_another_user_has_neither_the_groups_nor_the_capabilities_of_its_host() {
    let user = rustix::process::geteuid();
    if !user.is_root() && user.as_raw() != SPARE_UID - 1 {
        eprintln!("skipped: only root can give capabilities to another user");
        return;
    }
    if !fs::exists("/usr/bin/setpriv").unwrap() {
        return skip_outside_vm("setpriv is needed");
    }
    // A host with ambient capabilities that is not root.
    if !alone!(
        "setpriv",
        "--reuid=61233",
        "--regid=61233",
        "--groups=4,61233",
        "--inh-caps=+setuid,+setgid",
        "--ambient-caps=+setuid,+setgid"
    ) {
        return;
    }
    let mut world = grouped();
    let (own, _) = world.run(&status_of_itself());
    assert_eq!(field(&own, "CapAmb"), "00000000000000c0", "the host has its capabilities");
    let (text, _) = world.run(status_of_itself().uid(SPARE_UID).gid(SPARE_UID));
    assert_eq!(field(&text, "Uid"), "61234 61234 61234 61234");
    assert_eq!(field(&text, "Gid"), "61234 61234 61234 61234");
    assert_eq!(field(&text, "Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(&text, set), "0000000000000000", "{set}");
    }
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--reuid=0", "id", "-u"]).env("PATH", "/usr/bin:/bin");
    let (text, report) = world.run(command.uid(SPARE_UID).gid(SPARE_UID));
    assert_ne!(report.exit, Exit::Code(0), "the job has become {text}");
    let (text, _) = world.run(status_of_itself().uid(SPARE_UID).gid(SPARE_UID).groups([7]));
    assert_eq!(field(&text, "Groups"), "7");
    let (text, _) = world.run(status_of_itself().gid(SPARE_UID));
    assert_eq!(field(&text, "Groups"), "");
    assert_eq!(field(&text, "CapEff"), "0000000000000000");
}

#[test]
fn h6_a_user_without_a_group_is_refused() {
    let mut world = grouped();
    let before = world.footprint();
    let error = world.try_spawn(Command::new("/bin/true").uid(SPARE_UID)).unwrap_err();
    assert!(matches!(error, Error::Spawn(SpawnError::InvalidCommand { .. })), "{error:?}");
    assert!(error.to_string().contains("set the group id as well"), "{error}");
    assert_eq!(world.footprint().log_files, before.log_files);
}

#[test]
fn h5_a_job_has_a_session_of_its_own_and_no_terminal() {
    let Some(mut world) = World::new() else { return };
    let session = |stat: &str| {
        let fields = stat.rsplit_once(')').unwrap().1;
        fields.split_whitespace().nth(3).unwrap().parse::<u32>().unwrap()
    };
    let host = session(&fs::read_to_string("/proc/self/stat").unwrap());
    let mut command = Command::new("/bin/cat");
    command.arg("/proc/self/stat");
    let (text, _) = world.run(&command);
    let pid: u32 = text.split_once(' ').unwrap().0.parse().unwrap();
    assert_eq!(session(&text), pid);
    let (text, _) = world.run(command.process_group(ProcessGroup::Own));
    assert_eq!(session(&text), host);
    // ENXIO, whatever the terminal of the host.
    let (text, report) = world.run(&sh("LC_ALL=C; export LC_ALL; : </dev/tty"));
    assert_ne!(report.exit, Exit::Code(0));
    assert!(text.contains("No such device or address"), "{text}");
}
