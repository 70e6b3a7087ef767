//! The example `host_tokio` serves real clients as it says: every byte and every line once,
//! wherever they go on, whoever else is slow, in bounded memory, and nothing is left of it. The
//! page is tested in a browser, by tests/browser/test.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::examples::Example;
use crate::hosts::{
    Fifo, LINE, MUCH, await_descriptors, end, endless, is_endless, numbers, open_descriptors,
    start, status_of,
};
use crate::skips::skip;
use crate::support::{PATIENCE, await_exit, pidfd, rounds};

/// `host_tokio`, and where it listens.
struct Tokio {
    host: Example,
    address: SocketAddr,
}

impl Tokio {
    fn start(words: &[&str]) -> Option<Self> {
        let mut host = start("host_tokio", words, true)?;
        let line = host.line();
        let address = line.trim_end().strip_prefix("listening on http://").unwrap();
        Some(Self { address: address.parse().unwrap(), host })
    }

    /// Sends a request with these lines in its header, and reads the header of the answer.
    fn send(&self, request: &str, headers: &[&str], body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut lines = vec![format!("{request} HTTP/1.1"), "Connection: close".to_owned()];
        if !headers.iter().any(|line| line.starts_with("Host: ")) {
            lines.push(format!("Host: {}", self.address));
        }
        lines.extend(headers.iter().map(|line| (*line).to_owned()));
        lines.push(format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(lines.join("\r\n").as_bytes()).unwrap();
        Answer::new(stream)
    }

    fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), &[], "")
    }

    fn post(&self, request: &Value) -> Answer {
        let headers = ["Content-Type: application/json"];
        self.send("POST /jobs", &headers, &request.to_string())
    }

    /// Starts a job, and returns its path.
    fn run(&self, script: impl AsRef<str>) -> String {
        let answer = self.post(&json!({ "program": "sh", "args": ["-c", script.as_ref()] }));
        assert_eq!(answer.status, 201);
        format!("/jobs/{}", answer.json()["id"].as_str().unwrap())
    }

    fn log(&self, job: &str, offset: usize) -> Answer {
        let answer = self.get(&format!("{job}/log?offset={offset}"));
        assert_eq!(answer.status, 200);
        answer
    }

    /// Whether the system reports stalls.
    fn has_pressure(&self) -> bool {
        let cgroup = self.host.place.cgroup.as_ref().unwrap();
        fs::read_to_string(cgroup.join("cpu.pressure")).is_ok()
    }

    /// The events of a job from the start, or after the one with this id.
    fn events(&self, job: &str, after: Option<&str>) -> Answer {
        let header = after.map(|id| format!("Last-Event-ID: {id}"));
        let headers: Vec<&str> = header.as_deref().into_iter().collect();
        self.send(&format!("GET {job}/events"), &headers, "")
    }
}

/// An answer, whose body can be read as it comes.
struct Answer {
    status: u16,
    header: String,
    reader: BufReader<TcpStream>,
    chunked: bool,
    /// How much is left of the chunk, or of the body.
    left: usize,
}

impl Answer {
    fn new(stream: TcpStream) -> Self {
        let mut reader = BufReader::new(stream);
        let mut header = String::new();
        while !header.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut header).unwrap(), 0, "no answer: {header}");
        }
        header.make_ascii_lowercase();
        let status = header.split(' ').nth(1).unwrap().parse().unwrap();
        let length = header.lines().find_map(|line| line.strip_prefix("content-length: "));
        let left = length.map_or(0, |length| length.parse().unwrap());
        let chunked = header.contains("transfer-encoding: chunked");
        Self { status, reader, chunked, left, header }
    }

    fn rest(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        self.read_to_end(&mut body).unwrap();
        body
    }

    fn text(mut self) -> String {
        String::from_utf8(self.rest()).unwrap()
    }

    fn json(self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    fn some<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads to the end what [`endless`] has printed from an offset on.
    #[track_caller]
    fn read_endless(&mut self, mut offset: usize, end: usize) {
        let lines = LINE.repeat(5000);
        let mut piece = vec![0; 64 * 1024];
        loop {
            let length = self.read(&mut piece).unwrap();
            if length == 0 {
                break;
            }
            assert!(is_endless(offset, &piece[..length], &lines), "wrong after {offset}");
            offset += length;
        }
        assert_eq!(offset, end);
    }

    /// The next event, if there is one.
    fn event(&mut self) -> Option<Event> {
        let mut event = Event { name: "message".to_owned(), data: Value::Null, id: None };
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            if self.read(&mut byte).unwrap() == 0 {
                return None;
            }
            if byte != *b"\n" {
                line.extend(byte);
                continue;
            }
            let text = String::from_utf8(std::mem::take(&mut line)).unwrap();
            match text.split_once(": ") {
                Some(("event", name)) => event.name = name.to_owned(),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                Some(("id", id)) => event.id = Some(id.to_owned()),
                None if text.is_empty() && event.data.is_null() => {}
                None if text.is_empty() => return Some(event),
                // A comment keeps the connection alive.
                _ => assert!(text.starts_with(':'), "{text:?} is no line of an event"),
            }
        }
    }

    /// All events up to the end.
    fn all(mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.event()).collect()
    }

    /// Skips to an event of this name.
    #[track_caller]
    fn until(&mut self, name: &str) -> Event {
        loop {
            let event = self.event().unwrap_or_else(|| panic!("it ended without {name}"));
            if event.name == name {
                return event;
            }
        }
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.chunked && self.left == 0 {
            let mut size = String::new();
            self.reader.read_line(&mut size)?;
            self.left = usize::from_str_radix(size.trim_end(), 16).expect("the body was cut");
            if self.left == 0 {
                self.chunked = false;
                self.reader.read_line(&mut size)?;
            }
        }
        let most = self.left.min(buffer.len());
        let length = self.reader.read(&mut buffer[..most])?;
        assert!(length > 0 || most == 0, "the body was cut");
        self.left -= length;
        if self.chunked && self.left == 0 {
            self.reader.read_exact(&mut [0; 2])?;
        }
        Ok(length)
    }
}

/// A server-sent event.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    name: String,
    data: Value,
    id: Option<String>,
}

/// The lines among events, with the ids of their events.
fn lines(events: &[Event]) -> Vec<(String, String)> {
    let messages = events.iter().filter(|event| event.name == "message");
    messages
        .map(|event| (event.data["text"].as_str().unwrap().into(), event.id.clone().unwrap()))
        .collect()
}

#[test]
fn a_client_has_the_text_as_it_appears_and_the_job_is_listed() {
    let Some(server) = Tokio::start(&[]) else { return };
    let mut gate = Fifo::new(&server.host, "gate");
    let job = server.run(format!(r"printf 'a\000\377\n'; {}; printf end >&2; exit 7", gate.wait()));
    let mut log = server.log(&job, 0);
    assert!(log.header.contains("text/plain") && log.header.contains("nosniff"));
    assert_eq!(log.some(), *b"a\0\xff\n");
    let shown = server.get(&job).json();
    assert_eq!((&shown["exit"], &shown["status"]["phase"]), (&json!(null), &json!("running")));
    assert!(shown["stats"]["cpu"]["user"]["secs"].is_u64(), "{shown}");
    gate.open();
    assert_eq!(log.rest(), b"end");
    assert_eq!(server.events(&job, None).until("finished").data["code"], 7);
    let second = server.run("kill -KILL $$");
    let mut events = server.events(&second, None);
    assert_eq!(events.until("exited").data, json!({ "exit": "SIGKILL", "code": 137 }));
    events.until("finished");
    let listed = server.get("/jobs").json();
    let exits: Vec<&Value> = listed.as_array().unwrap().iter().map(|job| &job["exit"]).collect();
    assert_eq!(exits, ["exit code 7", "SIGKILL"]);
    assert!(listed[1]["command"].as_str().unwrap().starts_with("sh -c "), "{listed}");
    end(server.host);
}

#[test]
fn a_text_goes_on_at_any_offset_and_with_the_last_lines() {
    let Some(server) = Tokio::start(&[]) else { return };
    let mut gate = Fifo::new(&server.host, "gate");
    let job = server.run(format!("seq 10000; {}; seq 3", gate.wait()));
    let expected = [numbers(10_000), numbers(3)].concat();
    let mut log = server.log(&job, 0);
    // It leaves in the middle, with unread bytes in its socket.
    let read: [u8; 10_001] = log.some();
    assert!(expected.starts_with(&read));
    drop(log);
    let mut again = server.log(&job, read.len());
    let mut before = vec![0; numbers(10_000).len() - read.len()];
    again.read_exact(&mut before).unwrap();
    assert!(expected[read.len()..].starts_with(&before));
    let mut last = server.get(&format!("{job}/log?last=2"));
    assert_eq!(last.some(), *b"9999\n10000\n");
    gate.open();
    assert_eq!(again.rest(), numbers(3));
    assert_eq!(last.rest(), numbers(3));
    assert_eq!(server.log(&job, expected.len()).rest(), b"");
    assert_eq!(server.get(&format!("{job}/log?last=2")).rest(), b"2\n3\n");
    end(server.host);
}

#[test]
fn events_go_on_exactly_after_any_of_them() {
    let Some(server) = Tokio::start(&[]) else { return };
    let mut gate = Fifo::new(&server.host, "gate");
    // Lines with what could break an event, one that comes in parts, and one without an end.
    let long = r#"printf "%040000d" 0"#;
    let script = format!(
        r#"printf 'one\r\n\n: x\ndata: \rä\n\377\n'; {long}; echo; {}; echo two; printf three"#,
        gate.wait()
    );
    let job = server.run(script);
    let mut before = server.events(&job, None);
    let mut early: Vec<Event> = (0..8).map(|_| before.until("message")).collect();
    gate.open();
    early.extend(before.all());
    let all = server.events(&job, None).all();
    assert_eq!(lines(&early), lines(&all));
    let zeros = |count| "0".repeat(count);
    let expected = [
        ("one\r".to_owned(), 5, true),
        (String::new(), 6, true),
        (": x".to_owned(), 10, true),
        ("data: \rä".to_owned(), 20, true),
        ("\u{fffd}".to_owned(), 22, true),
        (zeros(16_384), 16_406, false),
        (zeros(16_384), 32_790, false),
        (zeros(7232), 40_023, true),
        ("two".to_owned(), 40_027, true),
        ("three".to_owned(), 40_032, true),
    ];
    let messages: Vec<&Event> = all.iter().filter(|event| event.name == "message").collect();
    assert_eq!(messages.len(), expected.len());
    for (event, (text, next, complete)) in messages.iter().zip(&expected) {
        assert_eq!(event.data, json!({ "text": text, "complete": complete }));
        assert_eq!(event.id, Some(next.to_string()));
    }
    let last = all.last().unwrap();
    assert_eq!((last.name.as_str(), last.id.as_deref()), ("finished", Some("finished")));
    assert_eq!(last.data, json!({ "exit": "exit code 0", "code": 0, "output_bytes": 40_032 }));
    for (index, event) in messages.iter().enumerate() {
        let rest = server.events(&job, event.id.as_deref()).all();
        assert_eq!(lines(&rest), lines(&all)[index + 1..], "after {event:?}");
        assert_eq!(rest.last(), Some(last));
    }
    // By this answer an `EventSource` stops.
    assert_eq!(server.events(&job, Some("finished")).status, 204);
    let shorter = server.get(&format!("{job}/events?last=1")).all();
    assert_eq!(lines(&shorter), lines(&all)[9..]);
    let offset = server.get(&format!("{job}/events?offset=40023")).all();
    assert_eq!(lines(&offset), lines(&all)[8..]);
    end(server.host);
}

#[test]
fn a_truncation_is_an_event() {
    let Some(server) = Tokio::start(&[]) else { return };
    let mut gate = Fifo::new(&server.host, "gate");
    let job = server.run(format!("echo before; {}; : >/dev/stdout; echo after", gate.wait()));
    let mut events = server.events(&job, None);
    let mut log = server.log(&job, 0);
    assert_eq!(events.until("message").data["text"], "before");
    assert_eq!(log.some(), *b"before\n");
    gate.open();
    assert_eq!(events.until("truncated").id.unwrap(), "0");
    let after = events.until("message");
    assert_eq!((&after.data["text"], after.id.as_deref()), (&json!("after"), Some("6")));
    events.until("finished");
    assert_eq!(log.rest(), b"after\n");
    end(server.host);
}

#[test]
fn a_stall_is_an_event() {
    let Some(server) = Tokio::start(&[]) else { return };
    if !server.has_pressure() {
        skip("there is no pressure stall information");
        end(server.host);
        return;
    }
    // More loops than there are processors.
    let count = std::thread::available_parallelism().unwrap().get() + 2;
    let job = server.run(format!("for i in $(seq {count}); do while :; do :; done & done; wait"));
    let mut events = server.events(&job, None);
    assert_eq!(events.until("pressure").data["resource"], "cpu");
    assert_eq!(server.send(&format!("POST {job}/stop"), &[], "").status, 202);
    assert_eq!(events.until("finished").data["code"], 143);
    end(server.host);
}

#[test]
fn fifty_clients_follow_one_job_beside_ones_that_read_nothing() {
    let Some(server) = Tokio::start(&[]) else { return };
    let mut gate = Fifo::new(&server.host, "gate");
    let job = server.run(format!("{}; seq 5000; {}", gate.wait(), endless(MUCH)));
    let mut stalled: Vec<Answer> = (0..3).map(|_| server.log(&job, 0)).collect();
    let mut texts: Vec<Answer> = (0..25).map(|_| server.log(&job, 0)).collect();
    let mut events: Vec<Answer> = (0..25).map(|_| server.events(&job, None)).collect();
    gate.open();
    let numbers = numbers(5000);
    // Each waits until those before it have theirs.
    for client in &mut events {
        for number in 1..=5000 {
            assert_eq!(client.until("message").data["text"], number.to_string());
        }
    }
    drop(events);
    for client in texts.iter_mut().chain(&mut stalled) {
        let mut read = vec![0; numbers.len()];
        client.read_exact(&mut read).unwrap();
        assert!(read == numbers);
    }
    drop(texts);
    for client in &mut stalled {
        client.read_endless(0, MUCH);
    }
    end(server.host);
}

#[test]
fn the_memory_of_the_service_is_bounded_while_clients_do_not_read() {
    let Some(server) = Tokio::start(&[]) else { return };
    let bytes = rounds(200) * 1_000_000;
    // What is needed for any job is there after a first one.
    let first = server.run(endless(MUCH));
    let _ = (server.log(&first, 0), server.events(&first, None));
    server.log(&first, 0).read_endless(0, MUCH);
    let before = status_of(&server.host, "VmHWM:");
    let job = server.run(endless(bytes));
    let mut slow = server.log(&job, 0);
    let slow_events = server.events(&job, None);
    server.log(&job, 0).read_endless(0, bytes);
    let grown = status_of(&server.host, "VmHWM:") - before;
    assert!(grown < 8 * 1024, "{grown} KiB while clients did not read");
    slow.read_endless(0, bytes);
    let grown = status_of(&server.host, "VmHWM:") - before;
    eprintln!("{bytes} bytes: {before} KiB before, {grown} KiB more");
    assert!(grown < 8 * 1024, "{grown} KiB when one had read everything");
    drop(slow_events);
    end(server.host);
}

#[test]
fn nothing_is_left_of_clients_that_are_gone() {
    let Some(server) = Tokio::start(&["--keep", "0"]) else { return };
    let before = open_descriptors(&server.host);
    let job = server.run(format!("{}; sleep 1000", endless(MUCH)));
    for _ in 0..20 {
        let silent = TcpStream::connect(server.address).unwrap();
        let stalled = (server.log(&job, 0), server.events(&job, None));
        let mut reading = server.log(&job, 0);
        assert_eq!(reading.some::<{ LINE.len() }>(), LINE);
        let mut waiting = server.events(&job, Some(&MUCH.to_string()));
        waiting.reader.get_mut().set_nonblocking(true).unwrap();
        drop((silent, stalled, reading, waiting));
    }
    // A running job that nobody follows holds one descriptor, and one for each resource whose
    // stalls are watched.
    let watched = if server.has_pressure() { 2 } else { 0 };
    await_descriptors(&server.host, before + 1 + watched);
    // It has not noticed.
    let mut log = server.log(&job, MUCH - 1);
    assert_eq!(log.some(), [LINE[(MUCH - 1) % LINE.len()]]);
    assert_eq!(server.send(&format!("POST {job}/stop"), &[], "").status, 202);
    assert_eq!(log.rest(), b"");
    await_descriptors(&server.host, before);
    end(server.host);
}

#[test]
fn what_cannot_be_done_is_answered_with_the_reason() {
    let Some(server) = Tokio::start(&[]) else { return };
    let job = server.run("exit 0");
    let unknown = "/jobs/67e55044-10b1-426f-9247-bb680e5fe0c8";
    for (request, status, reason) in [
        (format!("GET {unknown}"), 404, "no such job"),
        (format!("GET {unknown}/log"), 404, "no such job"),
        (format!("GET {unknown}/events"), 404, "no such job"),
        (format!("POST {unknown}/stop"), 404, "no such job"),
        ("GET /jobs/1/log".to_owned(), 400, ""),
        (format!("GET {job}/log?offset=x"), 400, "offset"),
        ("GET /nothing".to_owned(), 404, ""),
    ] {
        let answer = server.send(&request, &[], "");
        assert_eq!(answer.status, status, "{request}");
        assert!(answer.text().contains(reason), "{request}");
    }
    assert_eq!(server.events(&job, Some("x")).status, 400);
    for (request, status, reason) in [
        (json!({ "program": "no-such-program" }), 422, "cannot start \"no-such-program\""),
        (json!({ "program": "" }), 422, ""),
        (json!({ "args": [] }), 422, "program"),
        (json!({ "program": "true", "uid": 0 }), 422, "uid"),
        (json!({ "program": "true", "memory_max": "much" }), 422, "much"),
        (json!({ "program": "true", "time_limit": -1 }), 400, "negative"),
    ] {
        let answer = server.post(&request);
        assert_eq!(answer.status, status, "{request}");
        assert!(answer.text().contains(reason), "{request}");
    }
    assert_eq!(server.get("/jobs").json().as_array().unwrap().len(), 1);
    end(server.host);
}

#[test]
fn a_page_of_another_site_can_start_nothing() {
    let Some(server) = Tokio::start(&[]) else { return };
    let body = json!({ "program": "true" }).to_string();
    // What a form or a script of another site can send without being asked for leave.
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let answer = server.send("POST /jobs", &[&format!("Content-Type: {kind}")], &body);
        assert_eq!(answer.status, 415, "{kind}");
    }
    for method in ["OPTIONS", "GET"] {
        let headers = ["Origin: http://example.org"];
        let answer = server.send(&format!("{method} /jobs"), &headers, "");
        assert!(!answer.header.contains("access-control-"), "{}", answer.header);
    }
    for (host, status) in [
        ("example.org", 403),
        ("localhost.example.org", 403),
        ("127.0.0.1.example.org", 403),
        ("example.org:80", 403),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:80", 200),
        ("10.0.0.1", 200),
    ] {
        assert_eq!(server.send("GET /", &[&format!("Host: {host}")], "").status, status, "{host}");
    }
    end(server.host);
}

#[test]
fn as_many_finished_jobs_are_kept_as_are_wanted() {
    let Some(server) = Tokio::start(&["--keep", "1"]) else { return };
    let running = server.run("sleep 1000");
    let finished: Vec<String> = (0..3)
        .map(|_| {
            let job = server.run("exit 0");
            server.events(&job, None).until("finished");
            job
        })
        .collect();
    let last = server.run("exit 0");
    let listed = server.get("/jobs").json();
    let ids: Vec<String> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|job| format!("/jobs/{}", job["id"].as_str().unwrap()))
        .collect();
    assert_eq!(ids, [&running, &finished[2], &last].map(Clone::clone));
    assert_eq!(server.get(&finished[0]).status, 404);
    end(server.host);
}

#[test]
fn a_job_ends_at_its_time_limit() {
    let Some(server) = Tokio::start(&[]) else { return };
    let request = json!({ "program": "sleep", "args": ["1000"], "time_limit": 0.05 });
    let job = server.post(&request).json();
    let id = job["id"].as_str().unwrap();
    let mut events = server.events(&format!("/jobs/{id}"), None);
    assert_eq!(events.until("finished").data["exit"], "SIGTERM");
    end(server.host);
}

#[test]
fn a_signal_stops_the_jobs_of_host_tokio_whoever_does_not_read() {
    let Some(server) = Tokio::start(&[]) else { return };
    let stalled_job = server.run(format!("{}; sleep 1000", endless(MUCH)));
    let stalled = (server.log(&stalled_job, 0), server.events(&stalled_job, None));
    let silent = TcpStream::connect(server.address).unwrap();
    let job = server.run("trap 'echo told; exit 3' TERM; echo $$; sleep 1000 & wait");
    let mut events = server.events(&job, None);
    let mut log = server.log(&job, 0);
    let pid = events.until("message").data["text"].as_str().unwrap().to_owned();
    let process = pidfd(pid.parse().unwrap());
    let ended = end(server.host);
    assert!(await_exit(&process, PATIENCE));
    // Who reads has everything to the end.
    assert_eq!(events.until("message").data["text"], "told");
    assert_eq!(events.until("finished").data["code"], 3);
    assert_eq!(log.rest(), format!("{pid}\ntold\n").as_bytes());
    drop((stalled, silent, ended));
}

#[test]
fn a_second_signal_kills_the_jobs_of_host_tokio() {
    // A wait for the end of this grace period would time out the test.
    let Some(server) = Tokio::start(&["--grace", "100000"]) else { return };
    let job =
        server.run("trap '' TERM; sleep 1000 & trap 'echo told' TERM; echo ready; wait; wait");
    let mut events = server.events(&job, None);
    assert_eq!(events.until("message").data["text"], "ready");
    server.host.signal(Signal::TERM);
    assert_eq!(events.until("message").data["text"], "told");
    let ended = end(server.host);
    assert_eq!(events.until("finished").data["code"], 137);
    drop(ended);
}
