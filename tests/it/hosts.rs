//! The examples that are hosts serve real clients as they say: every byte, whoever else is slow,
//! in bounded memory, and nothing is left of them when they are told to end.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::examples::{Ended, Example, patiently, program};
use crate::support::{PATIENCE, Place, await_exit, pidfd, rounds};

/// What [`endless`] prints, often enough for any comparison.
pub(crate) const LINE: &[u8] = b"0123456789abcdef\n";

/// A script that prints so many bytes of the same line.
pub(crate) fn endless(bytes: usize) -> String {
    format!("yes 0123456789abcdef | head -c {bytes}")
}

/// Whether these bytes are what [`endless`] prints from this offset on.
pub(crate) fn is_endless(offset: usize, bytes: &[u8], lines: &[u8]) -> bool {
    bytes
        .chunks(lines.len() - LINE.len())
        .scan(offset, |at, piece| {
            let expected = &lines[*at % LINE.len()..][..piece.len()];
            *at += piece.len();
            Some(piece == expected)
        })
        .all(|same| same)
}

/// More than the buffers of two sockets hold.
pub(crate) const MUCH: usize = 30_000_000;

pub(crate) fn numbers(last: usize) -> Vec<u8> {
    (1..=last).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

/// A place in which jobs can be made.
fn place() -> Option<Place> {
    let place = Place::new();
    place.cgroup_or_skip()?;
    Some(place)
}

/// Starts an example that makes its jobs in a place of the test's own.
pub(crate) fn start(name: &str, words: &[&str], piped: bool) -> Option<Example> {
    start_in(place()?, name, words, piped)
}

fn start_in(place: Place, name: &str, words: &[&str], piped: bool) -> Option<Example> {
    let mut command = Command::new(program(name)?);
    command.arg("--cgroup-parent").arg(place.cgroup_or_skip()?).args(words);
    Some(Example::start(command, place, piped))
}

/// What lets a job go on, or tells of its end.
pub(crate) struct Fifo {
    path: PathBuf,
    file: File,
}

impl Fifo {
    pub(crate) fn new(host: &Example, name: &str) -> Self {
        let path = host.place.dir.path().join(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        // Opened for both, so that it neither blocks nor ends.
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        Self { path, file }
    }

    /// A script that waits until it may go on.
    pub(crate) fn wait(&self) -> String {
        format!("read _ <{}", self.path.display())
    }

    pub(crate) fn open(&mut self) {
        self.file.write_all(b"\n").unwrap();
    }
}

/// A figure in KiB from /proc/PID/status.
pub(crate) fn status_of(host: &Example, name: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", host.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

pub(crate) fn open_descriptors(host: &Example) -> usize {
    fs::read_dir(format!("/proc/{}/fd", host.child.id())).unwrap().count()
}

/// Waits until a host has so many descriptors open. There is no event for the moment in which it
/// closes the last one, so this polls.
#[track_caller]
pub(crate) fn await_descriptors(host: &Example, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while open_descriptors(host) != count {
        let open = open_descriptors(host);
        assert!(Instant::now() < deadline, "{open} descriptors are open, not {count}");
        thread::yield_now();
    }
}

/// Ends a host, which must leave nothing.
#[track_caller]
pub(crate) fn end(host: Example) -> Ended {
    host.signal(Signal::TERM);
    let ended = host.end().expect(0, b"");
    assert_eq!(ended.stderr, "");
    ended
}

/// `host_mio`, and where it listens.
struct Mio {
    host: Example,
    address: SocketAddr,
}

impl Mio {
    fn start(words: &[&str]) -> Option<Self> {
        let mut host = start("host_mio", words, true)?;
        let line = host.line();
        let address = line.trim_end().strip_prefix("listening on ").unwrap().parse().unwrap();
        Some(Self { host, address })
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Asks for something, and reads nothing yet.
    fn ask(&self, request: impl AsRef<str>) -> Follower {
        let mut stream = self.connect();
        stream.write_all(format!("{}\n", request.as_ref()).as_bytes()).unwrap();
        Follower { reader: BufReader::new(stream), position: 0, truncations: 0 }
    }

    /// Starts a job, and returns its id as well.
    fn run(&self, script: impl AsRef<str>) -> (Follower, String) {
        let mut follower = self.ask(format!("run {}", script.as_ref()));
        let id = follower.job();
        (follower, id)
    }

    fn follow(&self, job: &str, offset: usize) -> Follower {
        Follower { position: offset, ..self.ask(format!("follow {job} {offset}")) }
    }

    /// The last line of a reply without output.
    fn reply(&self, request: &str) -> String {
        self.ask(request).line()
    }
}

/// A client of `host_mio`.
struct Follower {
    reader: BufReader<TcpStream>,
    /// The offset of the next byte.
    position: usize,
    truncations: usize,
}

impl Follower {
    /// The next line, or nothing at the end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads the first line of a reply, which names the job.
    fn job(&mut self) -> String {
        let line = self.line();
        line.strip_prefix("job ").unwrap_or_else(|| panic!("{line:?} names no job")).to_owned()
    }

    /// The next piece of output, or the last line.
    fn piece(&mut self) -> Result<Vec<u8>, String> {
        let mut line = self.line();
        if line == "truncated" {
            self.truncations += 1;
            self.position = 0;
            line = self.line();
        }
        let Some(header) = line.strip_prefix("data ") else {
            assert_eq!(self.line(), "", "the connection goes on after {line:?}");
            return Err(line);
        };
        let (offset, length) = header.split_once(' ').unwrap();
        assert_eq!(offset.parse(), Ok(self.position), "bytes are missing, or come twice");
        let mut piece = vec![0; length.parse().unwrap()];
        self.reader.read_exact(&mut piece).unwrap();
        self.position += piece.len();
        Ok(piece)
    }

    /// Everything up to the last line, and that.
    fn rest(&mut self) -> (Vec<u8>, String) {
        let mut output = Vec::new();
        loop {
            match self.piece() {
                Ok(piece) => output.extend(piece),
                Err(last) => return (output, last),
            }
        }
    }

    /// Reads to the end what [`endless`] has printed from the position on.
    #[track_caller]
    fn read_endless(&mut self, end: usize) {
        let lines = LINE.repeat(2000);
        let last = loop {
            let offset = self.position;
            match self.piece() {
                Ok(piece) => assert!(is_endless(offset, &piece, &lines), "wrong after {offset}"),
                Err(last) => break last,
            }
        };
        assert_eq!((self.position, last.as_str()), (end, "exit 0"));
    }

    /// Waits until the server has answered, and reads nothing.
    fn answered(self) -> Self {
        assert_eq!(self.reader.get_ref().peek(&mut [0]).unwrap(), 1);
        self
    }
}

#[test]
fn a_client_has_the_output_as_it_appears_and_the_exit() {
    let Some(server) = Mio::start(&[]) else { return };
    let mut gate = Fifo::new(&server.host, "gate");
    let script = format!(r"printf 'a\000\377\n'; {}; printf end >&2; exit 7", gate.wait());
    let (mut client, _) = server.run(script);
    assert_eq!(client.piece().unwrap(), b"a\0\xff\n");
    gate.open();
    assert_eq!(client.rest(), (b"end".to_vec(), "exit 7".to_owned()));
    assert_eq!(server.run("kill -KILL $$").0.rest(), (Vec::new(), "exit 137".to_owned()));
    assert_eq!(server.run("exec 2>&-; no-such-program").0.rest().1, "exit 127");
    end(server.host);
}

#[test]
fn a_client_is_told_that_the_log_was_truncated() {
    let Some(server) = Mio::start(&[]) else { return };
    let mut gate = Fifo::new(&server.host, "gate");
    let (mut client, job) =
        server.run(format!("echo before; {}; : >/dev/stdout; echo after", gate.wait()));
    assert_eq!(client.piece().unwrap(), b"before\n");
    let mut stalled = server.follow(&job, 3).answered();
    gate.open();
    assert_eq!(client.rest(), (b"after\n".to_vec(), "exit 0".to_owned()));
    assert_eq!(client.truncations, 1);
    // What it was sent before is in its socket.
    assert_eq!(stalled.job(), job);
    assert_eq!(stalled.rest().0, b"ore\nafter\n");
    end(server.host);
}

#[test]
fn what_cannot_be_done_is_answered_with_the_reason() {
    let Some(server) = Mio::start(&[]) else { return };
    let (_client, job) = server.run("sleep 1000");
    for (request, reason) in [
        ("", "error say run COMMAND"),
        ("nonsense", "error say run COMMAND"),
        ("follow", "error say follow ID OFFSET"),
        (&format!("follow {job} x"), "error the offset is not a number"),
        ("stop x", r#"error "x" is not the id of a job"#),
        ("follow 67e55044-10b1-426f-9247-bb680e5fe0c8 0", "error no such job"),
    ] {
        let reply = server.reply(request);
        assert!(reply.starts_with(reason), "{request:?}: {reply}");
    }
    // More than a line, and a line that is too long.
    for request in ["run true\nrun true".to_owned(), format!("run {}", "x".repeat(5000))] {
        let mut reply = String::new();
        // The server may have closed the connection before it has read everything.
        let _ = server.ask(&request).reader.read_to_string(&mut reply);
        assert_eq!(reply, "");
    }
    end(server.host);
}

#[test]
fn clients_that_read_nothing_for_long_have_every_byte_in_the_end() {
    let Some(server) = Mio::start(&[]) else { return };
    let mut gate = Fifo::new(&server.host, "gate");
    let (mut first, job) = server.run(format!("{}; {}", gate.wait(), endless(MUCH)));
    let mut slow = server.follow(&job, 0).answered();
    let mut middle = server.follow(&job, MUCH / 2 + 1).answered();
    let mut fast: Vec<Follower> = (0..3).map(|_| server.follow(&job, 0)).collect();
    gate.open();
    for client in &mut fast {
        assert_eq!(client.job(), job);
        client.read_endless(MUCH);
    }
    first.read_endless(MUCH);
    for client in [&mut slow, &mut middle] {
        assert_eq!(client.job(), job);
        client.read_endless(MUCH);
    }
    end(server.host);
}

#[test]
fn fifty_clients_follow_one_job() {
    let Some(server) = Mio::start(&[]) else { return };
    let mut gate = Fifo::new(&server.host, "gate");
    let (_, job) = server.run(format!("{}; seq 100000", gate.wait()));
    let mut clients: Vec<Follower> = (0..50).map(|_| server.follow(&job, 0)).collect();
    gate.open();
    let expected = (numbers(100_000), "exit 0".to_owned());
    // Each waits until those before it have everything.
    for client in &mut clients {
        assert_eq!(client.job(), job);
        assert!(client.rest() == expected);
    }
    end(server.host);
}

#[test]
fn a_client_comes_back_and_goes_on_where_it_was() {
    let Some(server) = Mio::start(&[]) else { return };
    let mut gate = Fifo::new(&server.host, "gate");
    let (mut client, job) = server.run(format!("{}; {}; exit 0", endless(MUCH), gate.wait()));
    let lines = LINE.repeat(2000);
    // It leaves in the middle, with unread bytes in its socket.
    while client.position < MUCH / 3 {
        let offset = client.position;
        assert!(is_endless(offset, &client.piece().unwrap(), &lines));
    }
    let position = client.position;
    drop(client);
    let mut again = server.follow(&job, position);
    assert_eq!(again.job(), job);
    // The job runs on, and ends when it is told to.
    gate.open();
    again.read_endless(MUCH);
    // It is kept for those who come later.
    let mut late = server.follow(&job, MUCH - 5);
    assert_eq!(late.job(), job);
    late.read_endless(MUCH);
    let mut behind = server.follow(&job, MUCH + 5);
    assert_eq!((behind.job(), behind.rest().0.len()), (job, 0));
    end(server.host);
}

#[test]
fn the_memory_of_the_server_is_bounded_while_a_client_does_not_read() {
    let Some(server) = Mio::start(&[]) else { return };
    let bytes = rounds(200) * 1_000_000;
    // What is needed for any job is there after a first one.
    server.run(endless(1_000_000)).0.read_endless(1_000_000);
    let before = status_of(&server.host, "VmHWM:");
    let (mut fast, job) = server.run(endless(bytes));
    let mut slow = server.follow(&job, 0).answered();
    fast.read_endless(bytes);
    let grown = status_of(&server.host, "VmHWM:") - before;
    assert!(grown < 8 * 1024, "{grown} KiB while a client did not read");
    assert_eq!(slow.job(), job);
    slow.read_endless(bytes);
    let grown = status_of(&server.host, "VmHWM:") - before;
    eprintln!("{bytes} bytes: {before} KiB before, {grown} KiB more");
    assert!(grown < 8 * 1024, "{grown} KiB when it had read everything");
    end(server.host);
}

#[test]
fn nothing_is_left_of_clients_that_are_gone() {
    let Some(server) = Mio::start(&["--keep", "0"]) else { return };
    let before = open_descriptors(&server.host);
    let (client, job) = server.run(format!("{}; sleep 1000", endless(MUCH)));
    drop(client);
    for _ in 0..20 {
        let silent = server.connect();
        let stalled = server.follow(&job, 0).answered();
        let mut reading = server.follow(&job, 0);
        assert_eq!(reading.job(), job);
        reading.piece().unwrap();
        drop((silent, stalled, reading));
    }
    // A running job that nobody follows holds one descriptor.
    await_descriptors(&server.host, before + 1);
    // It has not noticed.
    let mut client = server.follow(&job, MUCH);
    assert_eq!(client.job(), job);
    assert_eq!(server.reply(&format!("stop {job}")), "stopping");
    assert_eq!(client.rest(), (Vec::new(), "exit 143".to_owned()));
    await_descriptors(&server.host, before);
    end(server.host);
}

#[test]
fn a_client_for_whom_there_is_no_room_waits() {
    let Some(server) = Mio::start(&["--clients", "2"]) else { return };
    let mut gate = Fifo::new(&server.host, "gate");
    let (mut first, _) = server.run(format!("echo 1; {}", gate.wait()));
    let (_second, _) = server.run("sleep 1000");
    let mut others: Vec<Follower> = (0..3).map(|_| server.ask("run echo 2; exit 3")).collect();
    assert_eq!(first.piece().unwrap(), b"1\n");
    others[0].reader.get_ref().set_nonblocking(true).unwrap();
    assert!(others[0].reader.fill_buf().is_err(), "there was no room for it");
    others[0].reader.get_ref().set_nonblocking(false).unwrap();
    gate.open();
    assert_eq!(first.rest().1, "exit 0");
    for other in &mut others {
        other.job();
        assert_eq!(other.rest(), (b"2\n".to_vec(), "exit 3".to_owned()));
    }
    end(server.host);
}

#[test]
fn as_many_finished_jobs_are_kept_as_are_wanted() {
    let Some(server) = Mio::start(&["--keep", "1"]) else { return };
    let (mut client, first) = server.run("exit 1");
    assert_eq!(client.rest().1, "exit 1");
    let (mut client, second) = server.run("exit 2");
    assert_eq!(client.rest().1, "exit 2");
    // The server hears of the end of the second one a moment after its log has ended.
    while !server.reply(&format!("follow {first} 0")).starts_with("error no such job") {}
    let mut client = server.follow(&second, 0);
    assert_eq!((client.job(), client.rest().1), (second, "exit 2".to_owned()));
    end(server.host);
}

#[test]
fn a_signal_stops_the_jobs_of_host_mio_whoever_does_not_read() {
    let Some(server) = Mio::start(&[]) else { return };
    let stalled = server.ask(format!("run {}; sleep 1000", endless(MUCH))).answered();
    let _silent = server.connect();
    let (mut client, _) = server.run("echo $$; sleep 1000");
    let pid = String::from_utf8(client.piece().unwrap()).unwrap().trim().parse().unwrap();
    let process = pidfd(pid);
    let ended = end(server.host);
    assert!(await_exit(&process, PATIENCE));
    assert_eq!(client.rest(), (Vec::new(), "exit 143".to_owned()));
    drop((stalled, ended));
}

#[test]
fn a_second_signal_kills_the_jobs_of_host_mio() {
    // A wait for the end of this grace period would time out the test.
    let Some(server) = Mio::start(&["--grace", "100000"]) else { return };
    let script = "trap '' TERM; sleep 1000 & trap 'echo told' TERM; echo ready; wait; wait";
    let (mut client, _) = server.run(script);
    assert_eq!(client.piece().unwrap(), b"ready\n");
    server.host.signal(Signal::TERM);
    assert_eq!(client.piece().unwrap(), b"told\n");
    let ended = end(server.host);
    assert_eq!(client.rest(), (Vec::new(), "exit 137".to_owned()));
    drop(ended);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let Some(server) = Mio::start(&[]) else { return };
    let address = server.address.to_string();
    let Some(second) = start("host_mio", &["--listen", &address], false) else { return };
    let ended = second.end().expect(1, b"");
    assert!(ended.stderr.contains(&format!("cannot listen on {address}")), "{}", ended.stderr);
    end(server.host);
}

/// `host_epoll`, and its socket.
struct Epoll {
    host: Example,
    socket: PathBuf,
}

impl Epoll {
    fn start(words: &[&str]) -> Option<Self> {
        let place = place()?;
        let socket = place.dir.path().join("socket");
        let words = [words, &[socket.to_str()?]].concat();
        let mut host = start_in(place, "host_epoll", &words, true)?;
        assert_eq!(host.line(), format!("listening on {}\n", socket.display()));
        Some(Self { host, socket })
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Asks for a job, and reads nothing yet.
    fn ask(&self, script: impl AsRef<str>) -> UnixStream {
        let mut stream = self.connect();
        stream.write_all(format!("{}\n", script.as_ref()).as_bytes()).unwrap();
        stream
    }

    /// Ends the server, of which nothing must be left.
    #[track_caller]
    fn end(self) {
        end(self.host);
        assert!(!self.socket.exists(), "the socket was left");
    }
}

/// The output in the rest of a reply, and how the job has ended.
fn rest(mut stream: &UnixStream) -> (Vec<u8>, String) {
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    assert_eq!(reply.pop(), Some(b'\n'), "the reply has no last line");
    let end = reply.iter().rposition(|byte| *byte == b'\n').unwrap();
    let last = String::from_utf8(reply.split_off(end + 1)).unwrap();
    reply.pop();
    (reply, last)
}

/// Reads as many bytes of a reply.
fn some<const N: usize>(mut stream: &UnixStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn each_client_of_host_epoll_has_its_job_byte_for_byte() {
    let Some(server) = Epoll::start(&[]) else { return };
    let mut gate = Fifo::new(&server.host, "gate");
    let stalled = server.ask(endless(MUCH));
    let live = server.ask(format!("echo one; {}; printf two >&2; exit 3", gate.wait()));
    assert_eq!(&some(&live), b"one\n");
    for (script, output, how) in [
        (r"printf 'a\000\377'", b"a\0\xff".to_vec(), "exit code 0"),
        ("exit 7", Vec::new(), "exit code 7"),
        ("kill -KILL $$", Vec::new(), "SIGKILL"),
        ("seq 200000", numbers(200_000), "exit code 0"),
        // What comes after a truncation follows.
        ("echo lost; : >/dev/stdout; seq 3", numbers(3), "exit code 0"),
    ] {
        let (printed, last) = rest(&server.ask(script));
        let lost = printed.strip_prefix(b"lost\n").unwrap_or(&printed);
        assert!(lost == output, "{script}: {:?}", String::from_utf8_lossy(&printed));
        assert_eq!(last, how, "{script}");
    }
    gate.open();
    assert_eq!(rest(&live), (b"two".to_vec(), "exit code 3".to_owned()));
    let (printed, last) = rest(&stalled);
    assert!(printed.len() == MUCH && is_endless(0, &printed, &LINE.repeat(2000)));
    assert_eq!(last, "exit code 0");
    server.end();
}

#[test]
fn a_client_of_host_epoll_for_whom_there_is_no_room_waits() {
    let Some(server) = Epoll::start(&["--clients", "1"]) else { return };
    let mut gate = Fifo::new(&server.host, "gate");
    let first = server.ask(format!("echo 1; {}", gate.wait()));
    assert_eq!(&some(&first), b"1\n");
    let others: Vec<UnixStream> = (0..3).map(|_| server.ask("echo 2; exit 3")).collect();
    others[0].set_nonblocking(true).unwrap();
    assert!((&others[0]).read(&mut [0]).is_err(), "there was no room for it");
    others[0].set_nonblocking(false).unwrap();
    gate.open();
    assert_eq!(rest(&first).1, "exit code 0");
    for other in &others {
        assert_eq!(rest(other), (b"2\n".to_vec(), "exit code 3".to_owned()));
    }
    server.end();
}

#[test]
fn a_job_of_host_epoll_is_stopped_when_its_client_leaves() {
    let Some(server) = Epoll::start(&[]) else { return };
    let before = open_descriptors(&server.host);
    for script in ["sleep 1000".to_owned(), format!("{}; sleep 1000", endless(MUCH))] {
        let client = server.ask(format!("echo $$; {script}"));
        let mut pid = String::new();
        BufReader::new(&client).read_line(&mut pid).unwrap();
        let process = pidfd(pid.trim().parse().unwrap());
        drop(client);
        assert!(await_exit(&process, PATIENCE), "the job was not stopped: {script}");
    }
    drop(server.connect());
    assert_eq!(rest(&server.ask("echo still here")).0, b"still here\n");
    await_descriptors(&server.host, before);
    server.end();
}

#[test]
fn the_memory_of_host_epoll_is_bounded_while_a_client_does_not_read() {
    let Some(server) = Epoll::start(&[]) else { return };
    let bytes = rounds(200) * 1_000_000;
    rest(&server.ask(endless(1_000_000)));
    let before = status_of(&server.host, "VmHWM:");
    let mut told = Fifo::new(&server.host, "told");
    let client = server.ask(format!("{}; echo >{}", endless(bytes), told.path.display()));
    assert_eq!(patiently(&mut [PollFd::new(&told.file, PollFlags::IN)]), 1, "it did not end");
    assert_eq!(told.file.read(&mut [0; 8]).unwrap(), 1);
    let (printed, last) = rest(&client);
    assert!(printed.len() == bytes && is_endless(0, &printed, &LINE.repeat(2000)));
    assert_eq!(last, "exit code 0");
    let grown = status_of(&server.host, "VmHWM:") - before;
    eprintln!("{bytes} bytes: {before} KiB before, {grown} KiB more");
    assert!(grown < 8 * 1024, "{grown} KiB for a client that did not read");
    server.end();
}

#[test]
fn a_silent_job_is_stopped_but_not_one_whose_client_is_slow() {
    let Some(server) = Epoll::start(&["--silence", "3"]) else { return };
    let slow = server.ask(format!("echo $$; {}; sleep 1000", endless(MUCH)));
    let mut reader = BufReader::with_capacity(1, &slow);
    let mut pid = String::new();
    reader.read_line(&mut pid).unwrap();
    let process = pidfd(pid.trim().parse().unwrap());
    // Another one tells when the time has passed.
    let (printed, last) = rest(&server.ask("echo one; sleep 1000"));
    assert_eq!(printed, b"one\n");
    assert_eq!(last, "SIGTERM, stopped because it was silent");
    assert!(!await_exit(&process, Duration::ZERO), "the slow client was punished");
    let (printed, last) = rest(&slow);
    assert!(printed.len() == MUCH && is_endless(0, &printed, &LINE.repeat(2000)));
    assert_eq!(last, "SIGTERM, stopped because it was silent");
    server.end();
}

#[test]
fn a_client_that_sends_no_line_is_dropped() {
    let Some(server) = Epoll::start(&["--patience", "0.1"]) else { return };
    let mut silent = server.connect();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    let mut half = server.connect();
    // The server may have closed the connection before all was written.
    let _ = half.write_all(b"echo no end");
    assert!(!matches!(half.read(&mut [0]), Ok(1)));
    let mut long = server.connect();
    let _ = long.write_all(&[b'x'; 5000]);
    assert!(!matches!(long.read(&mut [0]), Ok(1)));
    server.end();
}

#[test]
fn a_signal_stops_the_jobs_of_host_epoll_whoever_does_not_read_and_a_second_kills() {
    // A wait for the end of this grace period would time out the test.
    let Some(server) = Epoll::start(&["--grace", "100000"]) else { return };
    let _stalled = server.ask(format!("{}; sleep 1000", endless(MUCH)));
    let _silent = server.connect();
    let script = "trap '' TERM; sleep 1000 & trap 'echo told' TERM; echo ready; wait; wait";
    let client = server.ask(script);
    assert_eq!(&some(&client), b"ready\n");
    server.host.signal(Signal::TERM);
    assert_eq!(&some(&client), b"told\n");
    server.end();
    assert_eq!(rest(&client), (Vec::new(), "SIGKILL".to_owned()));
}

#[test]
fn a_path_that_is_taken_is_left_alone() {
    let Some(server) = Epoll::start(&[]) else { return };
    let path = server.socket.to_str().unwrap().to_owned();
    let Some(second) = start("host_epoll", &[&path], false) else { return };
    let ended = second.end().expect(1, b"");
    assert!(ended.stderr.contains(&format!("cannot make the socket {path}")), "{}", ended.stderr);
    assert_eq!(rest(&server.ask("exit 0")).1, "exit code 0");
    server.end();
}

#[test]
fn the_blocking_host_copies_and_has_the_exit_status_of_its_job() {
    let script = r"printf 'a\000\377\r\n'; seq 20000; printf end; exit 3";
    let Some(host) = start("blocking", &["sh", "-c", script], false) else { return };
    host.end().expect(3, &[b"a\0\xff\r\n".as_slice(), &numbers(20_000), b"end"].concat());
    let Some(host) = start("blocking", &["no-such-program"], false) else { return };
    let ended = host.end().expect(1, b"");
    assert!(ended.stderr.contains("cannot start \"no-such-program\""), "{}", ended.stderr);
}

#[test]
fn the_blocking_host_stops_its_job_at_a_signal_and_when_nobody_reads() {
    let script = "echo $$; sleep 1000";
    let Some(mut host) = start("blocking", &["sh", "-c", script], true) else { return };
    let process = pidfd(host.line().trim().parse().unwrap());
    host.signal(Signal::INT);
    host.end().expect(143, b"");
    assert!(await_exit(&process, PATIENCE));
    let script = "while :; do echo y; done";
    let Some(mut host) = start("blocking", &["sh", "-c", script], true) else { return };
    assert_eq!(host.line(), "y\n");
    host.close_stdout();
    host.end().expect(1, b"");
}
