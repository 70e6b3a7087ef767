//! A keeper holds the pidfds of surviving jobs: with it the exit of what ends while there is no
//! host is known, and whatever becomes of it, no host fails, waits or leaks because of it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use jobworker::{
    Command, Config, Error, ErrorKind, Exit, Found, JobId, Keeper, Reactor, Recovered, SystemError,
    Token, Worker,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};
use rustix::process::{
    Gid, Pid, Resource, Rlimit, Signal, Uid, WaitId, WaitIdOptions, getrlimit, kill_process,
    prlimit, umask, waitid,
};

use crate::calls::become_subreaper;
use crate::skips::skip;
use crate::support::{
    PATIENCE, Place, World, alone, end_group, is_dead, kernel_keeps_exits, members, pidfd, rounds,
    sh,
};
use crate::worker::until;

/// Another process of this program that is a keeper, until it is dropped.
pub(crate) struct Keeping {
    child: Child,
    pub(crate) socket: PathBuf,
}

impl Keeping {
    pub(crate) fn start(socket: &Path) -> Self {
        Self::of(socket, 10_000)
    }

    /// One of so many descriptors.
    fn of(socket: &Path, most: usize) -> Self {
        let mut command = this_program("keeper::a_keeper");
        command.env("JOBWORKER_TEST_KEEPER", socket);
        command.env("JOBWORKER_TEST_MOST", most.to_string());
        let (child, _) = started(command);
        Self { child, socket: socket.to_owned() }
    }

    #[track_caller]
    pub(crate) fn await_held(&self, number: usize) {
        await_held(&self.child, number);
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a keeper holds so many pidfds.
#[track_caller]
pub(crate) fn await_held(keeper: &Child, number: usize) {
    let what = format!("the keeper holds {number}");
    until(&what, || held(keeper) == number);
}

fn held(keeper: &Child) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", keeper.id())).unwrap().flatten();
    let targets = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().contains("[pidfd]")).count()
}

/// Another process of this program that does what this test does.
fn this_program(test: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Starts it, and waits until it says that it is here.
fn started(mut command: std::process::Command) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(answer(&mut lines), "here");
    (child, lines)
}

/// Waits for the next line that is meant for us.
fn answer(lines: &mut impl BufRead) -> String {
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        // The harness may have begun the line.
        if let Some((_, answer)) = line.trim_end().split_once("says: ") {
            return answer.to_owned();
        }
        line.clear();
    }
    panic!("it has ended");
}

/// Not a test, but the keeper of others.
#[test]
fn a_keeper() {
    let Some(socket) = std::env::var_os("JOBWORKER_TEST_KEEPER") else { return };
    let mut keeper = match std::env::var_os("JOBWORKER_TEST_LISTENS") {
        Some(_) => Keeper::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap()),
        None => Keeper::bind(socket).unwrap(),
    };
    keeper.most(std::env::var("JOBWORKER_TEST_MOST").unwrap().parse().unwrap());
    println!("says: here");
    let Err(error) = keeper.run();
    panic!("{error}");
}

/// Not a test, but a host of others, which spawns what it reads.
#[test]
fn a_host_with_a_keeper() {
    let Some(socket) = std::env::var_os("JOBWORKER_TEST_SOCKET") else { return };
    let mut config = Config::new();
    config.cgroup_parent(std::env::var_os("JOBWORKER_TEST_CGROUP").unwrap()).name("host");
    config.log_dir(std::env::var_os("JOBWORKER_TEST_LOGS").unwrap()).keeper(socket);
    let mut reactor = Reactor::with_config(&config).unwrap();
    println!("says: here");
    for line in std::io::stdin().lines() {
        println!("says: {}", reactor.spawn(&lasting(&line.unwrap()), Token(0)).unwrap());
    }
}

/// Such a host.
struct Host {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Host {
    fn start(place: &Place) -> Self {
        let mut command = this_program("keeper::a_host_with_a_keeper");
        command.env("JOBWORKER_TEST_SOCKET", socket(place));
        command.env("JOBWORKER_TEST_LOGS", place.logs());
        command.env("JOBWORKER_TEST_CGROUP", place.cgroup.as_ref().unwrap());
        let (child, lines) = started(command);
        Self { child, lines }
    }

    fn spawn(&mut self, script: &str) -> JobId {
        writeln!(self.child.stdin.as_mut().unwrap(), "{script}").unwrap();
        answer(&mut self.lines).parse().unwrap()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn socket(place: &Place) -> PathBuf {
    place.dir.path().join("keeper")
}

/// Of the name `host`, with the keeper of the place.
fn config(place: &Place) -> Config {
    let mut config = place.config();
    config.name("host").keeper(socket(place));
    config
}

/// A world that has a keeper's socket, and none that listens there.
fn world() -> Option<World> {
    let place = Place::new();
    place.cgroup_or_skip()?;
    let reactor = Reactor::with_config(&config(&place)).unwrap();
    Some(World::around(reactor, place))
}

/// A world with a keeper.
fn world_of(most: usize) -> Option<(World, Keeping)> {
    let world = world()?;
    let keeper = Keeping::of(&socket(&world.place), most);
    Some((world, keeper))
}

/// A command that survives.
fn lasting(script: &str) -> Command {
    let mut command = sh(script);
    command.survives(true);
    command
}

fn endless(world: &mut World) -> JobId {
    world.spawn(&lasting("exec sleep 1000"))
}

#[track_caller]
fn end(world: &mut World, job: JobId) {
    world.reactor.kill(job).unwrap();
    world.finish(job);
    world.reactor.remove(job).unwrap();
}

#[track_caller]
fn recover(world: &mut World) -> Vec<Recovered> {
    let mut recovery = world.reactor.recovery().unwrap();
    let mut found = Vec::new();
    while let Some(recovered) = world.reactor.recover(&mut recovery, Token(0)).unwrap() {
        found.push(recovered);
    }
    found
}

/// Runs turns until nothing is wrong with the keeper, which no event tells.
#[track_caller]
fn until_well(world: &mut World) {
    until("nothing is wrong with the keeper", || {
        world.turn(Some(Duration::from_millis(2)));
        world.reactor.keeper_problem().is_none()
    });
}

/// The errno of what is wrong with the keeper, whose error names the socket.
#[track_caller]
fn problem(world: &World) -> Option<Errno> {
    let error = world.reactor.keeper_problem()?;
    assert!(matches!(error, Error::System(SystemError::Keeper { .. })), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(socket(&world.place).to_str().unwrap()), "{text}");
    Some(Errno::from_raw_os_error(error.raw_os_error().unwrap()))
}

#[test]
fn the_exit_of_what_ends_while_there_is_no_host_is_known() {
    // The jobs of a host that has died are to be reaped.
    if !alone!() {
        return;
    }
    become_subreaper();
    let place = Place::new();
    let Some(cgroup) = place.cgroup_or_skip() else { return };
    let keeper = Keeping::start(&socket(&place));
    let mut host = Host::start(&place);
    let gate = place.dir.path().join("gate");
    mknodat(CWD, &gate, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let jobs: Vec<JobId> = (0..3)
        .map(|code| host.spawn(&format!("read line < {}; exit {}", gate.display(), 40 + code)))
        .collect();
    let gone = host.spawn("exec sleep 1000");
    host.kill();
    keeper.await_held(4);
    let mains: Vec<OwnedFd> =
        jobs.iter().flat_map(|job| members(&place.group(*job))).map(pidfd).collect();
    // Opened for both, so that none of the readers misses it.
    let mut writer = fs::OpenOptions::new().read(true).write(true).open(&gate).unwrap();
    writer.write_all(b"go\ngo\ngo\n").unwrap();
    assert_eq!(mains.len(), 3);
    for main in &mains {
        assert!(is_dead(main));
        waitid(WaitId::PidFd(main.as_fd()), WaitIdOptions::EXITED).unwrap();
    }
    drop(mains);
    end_group(&place.group(gone));

    let reactor = Reactor::with_config(&config(&place)).unwrap();
    let mut world = World::around(reactor, place);
    // What nobody takes over is left, and so is what is held for it.
    drop(world.reactor.recovery().unwrap());
    keeper.await_held(4);
    let found = recover(&mut world);
    if kernel_keeps_exits() {
        // Nobody needs that of the job of which nothing is left; where the kernel does not tell
        // exits, perhaps none of them.
        keeper.await_held(3);
    }
    let ended = |found: &Recovered| found.found == Found::Exited;
    assert!(found.len() == 3 && found.iter().all(ended), "{found:?}");
    for (job, code) in jobs.iter().zip(40..) {
        let report = world.finish(*job);
        if kernel_keeps_exits() {
            assert_eq!((report.exit, report.problems.len()), (Exit::Code(code), 0), "{report:?}");
        } else {
            assert_eq!((report.exit, report.problems.len()), (Exit::Unknown, 1), "{report:?}");
        }
    }
    for job in jobs {
        world.reactor.remove(job).unwrap();
    }
    keeper.await_held(0);
    until_well(&mut world);
    assert_eq!(crate::support::directories(&cgroup), Vec::<PathBuf>::new());
}

#[test]
fn a_recovery_that_does_not_come_to_its_end_lets_go_of_nothing() {
    let place = Place::new();
    if place.cgroup_or_skip().is_none() {
        return;
    }
    let keeper = Keeping::start(&socket(&place));
    let mut host = Host::start(&place);
    let jobs = [host.spawn("exec sleep 1000"), host.spawn("exec sleep 1000")];
    let later = host.spawn("exec sleep 1000");
    host.kill();
    keeper.await_held(3);
    // As if a later version of the crate had written it.
    let mut record = vec![0; 1 << 16];
    let group = place.group(later);
    let length = rustix::fs::getxattr(&group, "user.jobworker", &mut record).unwrap();
    // After the nine letters.
    record[9] = 0xff;
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&group, "user.jobworker", &record[..length], flags).unwrap();

    let reactor = Reactor::with_config(&config(&place)).unwrap();
    let mut world = World::around(reactor, place);
    let mut recovery = world.reactor.recovery().unwrap();
    let (mut found, mut failed) = (0, 0);
    loop {
        match world.reactor.recover(&mut recovery, Token(0)) {
            Ok(Some(_)) => found += 1,
            Ok(None) => break,
            Err(error) => {
                assert!(matches!(error, Error::System(SystemError::Record { .. })), "{error}");
                failed += 1;
            }
        }
    }
    assert_eq!((found, failed), (2, 1));
    end(&mut world, jobs[0]);
    keeper.await_held(2);
    end(&mut world, jobs[1]);
    keeper.await_held(1);
    end_group(&group);
    // Now there is no such job any more.
    assert_eq!(recover(&mut world), []);
    keeper.await_held(0);
}

#[test]
fn a_keeper_that_dies_and_is_replaced_gets_all_jobs_at_the_next_spawn() {
    let Some((mut world, keeper)) = world_of(10) else { return };
    let mut jobs = vec![endless(&mut world), endless(&mut world)];
    keeper.await_held(2);
    assert_eq!(problem(&world), None);
    keeper.kill();
    let keeper = Keeping::of(&socket(&world.place), 10);
    // Without a turn of the loop, in which it would be noticed.
    jobs.push(endless(&mut world));
    keeper.await_held(3);
    until_well(&mut world);

    // It is noticed by the loop as well, and a job that is removed connects to the next one.
    keeper.kill();
    until("its death is noticed", || {
        world.turn(Some(Duration::from_millis(2)));
        problem(&world).is_some()
    });
    assert_eq!(problem(&world), Some(Errno::CONNRESET));
    let keeper = Keeping::of(&socket(&world.place), 10);
    end(&mut world, jobs.remove(0));
    keeper.await_held(2);
    until_well(&mut world);
    // What does not survive the host is not handed over.
    let other = world.spawn(&sh("exec sleep 1000"));
    jobs.into_iter().for_each(|job| end(&mut world, job));
    end(&mut world, other);
    keeper.await_held(0);
}

#[test]
fn a_keeper_that_is_given_its_socket_has_what_was_handed_over_before_it_ran() {
    let Some(mut world) = world() else { return };
    let listener = Keeper::bind(socket(&world.place)).unwrap();
    let jobs = [endless(&mut world), endless(&mut world)];
    assert_eq!(problem(&world), None, "somebody listens");
    let mut command = this_program("keeper::a_keeper");
    command.env("JOBWORKER_TEST_KEEPER", socket(&world.place));
    command.env("JOBWORKER_TEST_LISTENS", "").env("JOBWORKER_TEST_MOST", "10");
    command.stdin(OwnedFd::from(listener));
    let child = started(command).0;
    let keeper = Keeping { child, socket: socket(&world.place) };
    keeper.await_held(2);
    jobs.into_iter().for_each(|job| end(&mut world, job));
    keeper.await_held(0);
    let error = Keeper::from(OwnedFd::from(fs::File::open("/dev/null").unwrap())).run();
    let text = error.unwrap_err().to_string();
    assert!(text.starts_with("cannot accept a host of a keeper: "), "{text}");
}

#[test]
fn a_missing_keeper_costs_nothing_and_is_no_secret() {
    // Descriptors are counted.
    if !alone!() {
        return;
    }
    let Some(mut world) = world() else { return };
    assert_eq!(problem(&world), None, "it was not needed so far");
    let before = world.footprint();
    let job = endless(&mut world);
    assert_eq!(problem(&world), Some(Errno::NOENT));
    let text = world.reactor.keeper_problem().unwrap().to_string();
    assert!(text.contains("start one there, by jobworker::Keeper"), "{text}");
    end(&mut world, job);
    assert_eq!(recover(&mut world), []);
    assert_eq!(world.footprint(), before);

    let job = endless(&mut world);
    let keeper = Keeping::start(&socket(&world.place));
    assert_eq!(problem(&world), Some(Errno::NOENT));
    let second = endless(&mut world);
    keeper.await_held(2);
    until_well(&mut world);
    [job, second].into_iter().for_each(|job| end(&mut world, job));
    keeper.await_held(0);
}

#[test]
fn a_worker_tells_what_is_wrong_with_the_keeper() {
    let place = Place::new();
    if place.cgroup_or_skip().is_none() {
        return;
    }
    let worker = Worker::with_config(&config(&place)).unwrap();
    assert_eq!(worker.keeper_problem().unwrap(), None);
    let job = worker.spawn(&lasting("exit 3")).unwrap();
    let problem = worker.keeper_problem().unwrap().unwrap();
    let start = format!("cannot connect to the keeper at {}: ", socket(&place).display());
    assert!(problem.starts_with(&start), "{problem}");
    let _keeper = Keeping::start(&socket(&place));
    job.wait().unwrap();
    job.acknowledge().unwrap();
    // It is removed with its last handle.
    drop(job);
    until("the keeper is found", || worker.keeper_problem().unwrap().is_none());
}

#[test]
fn a_host_that_can_have_no_surviving_jobs_has_no_keeper() {
    let Some(mut world) = World::with(|config| _ = config.keeper("/no/such/socket")) else {
        return;
    };
    world.run(&sh("true"));
    assert!(world.reactor.keeper_problem().is_none());
    let long = format!("/{}", "x".repeat(200));
    let error = Reactor::with_config(world.place.config().keeper(long)).unwrap_err();
    assert!(matches!(error, Error::System(SystemError::Keeper { .. })), "{error}");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_socket_of_the_living_is_refused_and_one_of_the_dead_is_replaced() {
    // The umask belongs to the process.
    if !alone!() {
        return;
    }
    let place = Place::new();
    let path = socket(&place);
    let keeper = Keeping::start(&path);
    let taken = || {
        let error = Keeper::bind(&path).unwrap_err();
        assert!(matches!(error, Error::System(SystemError::KeeperTaken { .. })), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(error.kind(), ErrorKind::State);
    };
    taken();
    // However many hosts wait, and whatever it does.
    keeper.signal(Signal::STOP);
    (0..40).for_each(|_| taken());
    keeper.kill();
    umask(Mode::empty());
    drop(Keeper::bind(&path).unwrap());
    let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600, "whatever the umask");
    // In the same way as after a keeper that was killed.
    drop(Keeper::bind(&path).unwrap());
    fs::remove_file(&path).unwrap();

    // Another program.
    let other = UnixListener::bind(&path).unwrap();
    taken();
    drop(other);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    let error = Keeper::bind(&path).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EXIST.raw_os_error()), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let error = Keeper::bind(place.dir.path().join("x".repeat(200))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

/// A connection to a keeper, of this thread's user.
fn connected(path: &Path) -> Result<OwnedFd, Errno> {
    let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
    let socket = socket_with(family, SocketType::SEQPACKET, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Whether the keeper has closed the connection, once it has said what it had to.
fn is_closed(client: &OwnedFd) -> bool {
    let mut buffer = [0; 100];
    loop {
        match recv(client, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) | Err(Errno::CONNRESET) => return true,
            Ok((length, _)) if buffer.starts_with(b"keeper 1") => assert_eq!(length, 8),
            _ => return false,
        }
    }
}

#[test]
fn garbage_ends_the_connection_and_not_the_keeper() {
    let Some((mut world, keeper)) = world_of(10) else { return };
    let path = socket(&world.place);
    let long = vec![b'x'; 5000];
    let pieces: [&[u8]; 7] =
        [b"keep", b"keep x", b"\xff\0\n", b"full", b"done", b"DROP-OTHERS", &long];
    for piece in pieces {
        let client = connected(&path).unwrap();
        send(&client, piece, SendFlags::NOSIGNAL).unwrap();
        assert!(is_closed(&client), "{piece:?}");
    }
    // Without a word; and what is asked for is not taken.
    drop(connected(&path).unwrap());
    let client = connected(&path).unwrap();
    send(&client, b"give", SendFlags::NOSIGNAL).unwrap();
    drop(client);
    // Descriptors where none are expected.
    let client = connected(&path).unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let descriptors = [client.as_fd(); 3];
    control.push(rustix::net::SendAncillaryMessage::ScmRights(&descriptors));
    let parts = [std::io::IoSlice::new(b"give")];
    rustix::net::sendmsg(&client, &parts, &mut control, SendFlags::NOSIGNAL).unwrap();
    assert!(is_closed(&client));
    let open = || fs::read_dir(format!("/proc/{}/fd", keeper.child.id())).unwrap().count();
    let before = open();
    let job = endless(&mut world);
    keeper.await_held(1);
    end(&mut world, job);
    keeper.await_held(0);
    // With the connection of the host, and without any of the garbage.
    until("nothing else is left", || open() == before + 1);
}

#[test]
fn another_user_is_not_served() {
    if !rustix::process::geteuid().is_root() {
        skip("only root can become another user");
        return;
    }
    let Some((mut world, keeper)) = world_of(10) else { return };
    let path = socket(&world.place);
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(world.place.dir.path(), open).unwrap();
    // To the kernel, ids belong to a thread.
    let other = |check: &(dyn Fn() + Sync)| {
        std::thread::scope(|scope| {
            let as_other = || {
                let (user, group) = (Uid::from_raw(65534), Gid::from_raw(65534));
                rustix::thread::set_thread_res_gid(group, group, group).unwrap();
                rustix::thread::set_thread_res_uid(user, user, user).unwrap();
                check();
            };
            scope.spawn(as_other).join().unwrap();
        });
    };
    other(&|| assert_eq!(connected(&path).unwrap_err(), Errno::ACCESS));
    // Even if it can connect.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    other(&|| {
        let client = connected(&path).unwrap();
        let mut buffer = [0; 10];
        let heard = recv(&client, &mut buffer, RecvFlags::empty());
        assert_eq!(heard.map(|(length, _)| length), Ok(0));
    });
    let job = endless(&mut world);
    keeper.await_held(1);
    end(&mut world, job);
}

#[test]
fn a_keeper_that_is_stopped_holds_up_neither_spawns_nor_a_recovery() {
    // More than fit into the buffer of a socket.
    const JOBS: usize = 400;
    let Some((mut world, keeper)) = world_of(1000) else { return };
    let mut jobs = vec![endless(&mut world)];
    keeper.await_held(1);
    keeper.signal(Signal::STOP);
    jobs.extend((0..JOBS).map(|_| endless(&mut world)));
    assert_eq!(problem(&world), Some(Errno::AGAIN));
    // Of some it has the pidfd, of others it never gets one.
    let last = jobs.split_off(JOBS - 10);
    jobs.drain(..10).chain(last).for_each(|job| end(&mut world, job));
    keeper.signal(Signal::CONT);
    until_well(&mut world);
    keeper.await_held(jobs.len());

    keeper.signal(Signal::STOP);
    let World { reactor, place, .. } = world;
    drop(reactor);
    let reactor = Reactor::with_config(&config(&place)).unwrap();
    let mut world = World::around(reactor, place);
    let begun = Instant::now();
    let mut recovery = world.reactor.recovery().unwrap();
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(2) && took < PATIENCE / 4, "{took:?}");
    assert_eq!(problem(&world), Some(Errno::TIMEDOUT));
    let mut found = 0;
    while let Some(recovered) = world.reactor.recover(&mut recovery, Token(0)).unwrap() {
        assert_eq!(recovered.found, Found::Running);
        found += 1;
    }
    assert_eq!(found, jobs.len());
    keeper.signal(Signal::CONT);
    jobs.push(endless(&mut world));
    until_well(&mut world);
    keeper.await_held(jobs.len());
    jobs.into_iter().for_each(|job| end(&mut world, job));
    keeper.await_held(0);
}

#[test]
fn a_full_keeper_says_so_and_takes_more_when_there_is_room() {
    let Some((mut world, keeper)) = world_of(2) else { return };
    let mut jobs: Vec<JobId> = (0..4).map(|_| endless(&mut world)).collect();
    let full = |world: &mut World| {
        until("the keeper is full", || {
            world.turn(Some(Duration::from_millis(2)));
            problem(world) == Some(Errno::NOSPC)
        });
    };
    full(&mut world);
    let text = world.reactor.keeper_problem().unwrap().to_string();
    assert!(text.contains("Keeper::most"), "{text}");
    keeper.await_held(2);
    // One that it has, and one that it has not.
    end(&mut world, jobs.remove(0));
    full(&mut world);
    keeper.await_held(2);
    end(&mut world, jobs.pop().unwrap());
    until_well(&mut world);
    keeper.await_held(2);
    // A lack of descriptors is the same.
    let open = fs::read_dir(format!("/proc/{}/fd", keeper.child.id())).unwrap().flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
    let (before, current) = (getrlimit(Resource::Nofile), numbers.max().map(|last| last + 1));
    prlimit(Some(keeper.pid()), Resource::Nofile, Rlimit { current, ..before }).unwrap();
    end(&mut world, jobs.remove(0));
    keeper.await_held(1);
    jobs.extend([endless(&mut world), endless(&mut world)]);
    full(&mut world);
    keeper.await_held(2);
    prlimit(Some(keeper.pid()), Resource::Nofile, before).unwrap();
    jobs.into_iter().for_each(|job| end(&mut world, job));
    keeper.await_held(0);
    until_well(&mut world);
}

#[test]
fn after_any_number_of_jobs_neither_host_nor_keeper_has_more_descriptors() {
    // Descriptors are counted.
    if !alone!() {
        return;
    }
    let Some((mut world, keeper)) = world_of(100) else { return };
    let first = endless(&mut world);
    end(&mut world, first);
    keeper.await_held(0);
    until_well(&mut world);
    let open = || fs::read_dir(format!("/proc/{}/fd", keeper.child.id())).unwrap().count();
    let before = (world.footprint(), open());
    for round in 0..rounds(100) {
        let jobs = [
            world.spawn(&lasting("exit 3")),
            world.spawn(&lasting("sleep 1000 & exit 0")),
            endless(&mut world),
        ];
        for job in jobs {
            if round % 2 == 0 {
                world.reactor.kill(job).unwrap();
            } else {
                world.reactor.stop(job).unwrap();
            }
            world.finish(job);
            world.reactor.remove(job).unwrap();
        }
    }
    keeper.await_held(0);
    assert_eq!(problem(&world), None);
    assert_eq!((world.footprint(), open()), before);
}
