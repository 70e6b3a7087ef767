//! The ways to read a log in layer 1: by the reader itself, line by line, to a descriptor, from
//! elsewhere, and all at once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use jobworker::worker::{Line, Output};
use jobworker::{
    Bookmark, Command, Error, ErrorKind, Exit, Position, Read, Stdin, Stream, TailError,
    TailOptions,
};

use crate::support::{PATIENCE, alone, sh};
use crate::worker::{Threads, log_of, numbers, sleeps_of_the_thread, until};

/// Waits until a log has so many bytes.
fn written(job: &jobworker::worker::Job, length: usize) {
    let log = log_of(job);
    until("it is written", || fs::metadata(&log).unwrap().len() == length as u64);
}

/// A truncation of the log by its own job.
const TRUNCATE: &str = "truncate -s 0 /proc/$$/fd/1";

#[test]
fn what_a_reader_is_behind_by_does_not_pass_through_the_loop() {
    if !alone!() {
        return;
    }
    let Some(threads) = Threads::new() else { return };
    let (job, _gate) = threads.gated("seq 2000000; go");
    let expected = numbers(2_000_000);
    written(&job, expected.len());
    let mut output = job.output(TailOptions::new(Position::Start).snapshot()).unwrap();
    threads.worker.census().unwrap();
    let before = sleeps_of_the_thread();
    let mut found = Vec::new();
    output.read_to_end(&mut found).unwrap();
    assert!(found == expected);
    // A request for where it may read, one for the end, and one by which it learns of the close.
    let sleeps = sleeps_of_the_thread() - before;
    assert!(sleeps <= 4, "{sleeps} wake-ups of the loop for {} bytes", expected.len());
}

/// While it waits it holds none of the bytes, but what proves where it is; and one that is behind
/// by some pieces has that as well.
#[test]
fn a_reader_knows_where_it_is_whether_it_waits_or_not() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("while :; do echo line; go; done");
    let [mut output, mut slow] = [(); 2].map(|()| job.output(Position::Start).unwrap());
    let (mut all, mut buffer) = (Vec::new(), [0; 5]);
    let read = |output: &mut Output, all: &[u8], buffer: &mut [u8]| {
        assert_eq!(output.read_timeout(buffer, PATIENCE).unwrap(), Read::Data(5));
        assert_eq!(output.bookmark(), Bookmark::new(all.len() as u64, all));
    };
    for round in 0..8 {
        all.extend_from_slice(b"line\n");
        read(&mut output, &all, &mut buffer);
        let nothing = output.read_timeout(&mut buffer, Duration::from_millis(1)).unwrap();
        let place = Bookmark::new(all.len() as u64, &all);
        assert_eq!((nothing, output.bookmark()), (Read::UpToDate, place));
        if round == 0 {
            read(&mut slow, &all, &mut buffer);
            slow.read_timeout(&mut buffer, Duration::from_millis(1)).unwrap();
        }
        gate.open();
    }
    for end in (10..=all.len()).step_by(5) {
        read(&mut slow, &all[..end], &mut buffer);
    }
}

#[test]
fn a_reader_goes_on_at_a_place_that_the_host_knows_by_its_copy() {
    let Some(threads) = Threads::new() else { return };
    let job = threads.spawn(&sh("seq 1000"));
    job.wait().unwrap();
    let all = numbers(1000);
    for length in [0, 1, 15, 16, 17, all.len()] {
        let place = Bookmark::new(length as u64, &all[..length]);
        let mut rest = Vec::new();
        job.output(Position::After(place)).unwrap().read_to_end(&mut rest).unwrap();
        assert!(rest == all[length..], "{length}");
        let mut copy = tempfile::tempfile().unwrap();
        copy.write_all(&all[..length]).unwrap();
        assert_eq!(Bookmark::of_copy(&copy).unwrap(), place);
        // Behind the output of another job.
        let mut both = tempfile::tempfile().unwrap();
        both.write_all(&[b"another", &all[..length]].concat()).unwrap();
        assert_eq!(Bookmark::of_copy_from(&both, 7).unwrap(), place);
        let error = Bookmark::of_copy_from(&both, length as u64 + 8).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    // A copy of something else.
    let mut output = job.output(Position::After(Bookmark::new(4, b"1\n3\n"))).unwrap();
    assert_eq!(output.read_timeout(&mut [0; 4], PATIENCE).unwrap(), Read::Truncated);
    assert_eq!(Bookmark::new(1, b"ab").to_string(), "1:62");
}

#[test]
fn a_reader_goes_on_at_the_bookmark_of_another_however_that_has_read() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("seq 20000; go; seq 20000");
    let first = numbers(20_000);
    written(&job, first.len());
    let mut output = job.output(Position::Start).unwrap();
    let whole = |bytes: &[u8]| format!("{}:", bytes.len());
    let mut found = Vec::new();
    // From the file in pieces, sent, and as it comes.
    for amount in [1, 2, 20, 70_000, 30] {
        let mut buffer = vec![0; amount];
        output.read_exact(&mut buffer).unwrap();
        found.extend(buffer);
        let text = output.bookmark().to_string();
        let last = found.iter().rev().take(16).rev().map(|byte| format!("{byte:02x}"));
        assert_eq!(text, whole(&found) + &last.collect::<String>());
    }
    let mut sink = tempfile::tempfile().unwrap();
    let Read::Data(sent) = output.send_to(&sink, 1000).unwrap() else { panic!("nothing is sent") };
    let mut buffer = vec![0; sent];
    sink.rewind().unwrap();
    sink.read_exact(&mut buffer).unwrap();
    found.extend(buffer);
    let bookmark = output.bookmark();
    assert_eq!(bookmark.offset(), found.len() as u64);
    assert_eq!(bookmark.to_string().len(), whole(&found).len() + 32, "{bookmark}");
    let mut later = job.output(Position::After(bookmark)).unwrap();
    assert_eq!(later.bookmark(), bookmark);
    gate.open();
    let mut rest = Vec::new();
    later.read_to_end(&mut rest).unwrap();
    found.extend(rest);
    assert!(found == [&first[..], &first].concat());
}

#[test]
fn a_bookmark_in_what_a_log_was_before_a_truncation_is_told() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated(&format!("seq 20000; go; {TRUNCATE}; seq 30000 -1 1"));
    let first = numbers(20_000);
    let mut output = job.output(Position::Start).unwrap();
    output.read_exact(&mut vec![0; first.len()]).unwrap();
    let bookmark = output.bookmark();
    gate.open();
    job.wait().unwrap();
    for mut output in [output, job.output(Position::After(bookmark)).unwrap()] {
        let error = output.read(&mut [0; 10]).unwrap_err();
        assert!(Output::is_truncation(&error), "{error}");
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).unwrap();
        assert!(bytes.starts_with(b"30000\n29999\n") && bytes.ends_with(b"\n1\n"));
    }
}

/// The reader finds out by itself, when it has read a part of what the loop knew.
#[test]
fn a_log_that_is_written_anew_while_it_is_read_is_told() {
    let Some(threads) = Threads::new() else { return };
    for last in [30_000, 100_000, 300_000] {
        let script = format!("seq 100000; go; {TRUNCATE}; seq {last} -1 1");
        let (job, mut gate) = threads.gated(&script);
        let first = numbers(100_000);
        written(&job, first.len());
        let mut output = job.output(Position::Start).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let Read::Data(length) = output.read_timeout(&mut buffer, PATIENCE).unwrap() else {
            panic!("there is more than one piece");
        };
        assert!(length < first.len() && buffer[..length] == first[..length]);
        gate.open();
        let report = job.wait().unwrap();
        assert_eq!(output.read_timeout(&mut buffer, PATIENCE).unwrap(), Read::Truncated);
        assert_eq!(output.position(), 0);
        let mut found = Vec::new();
        output.read_to_end(&mut found).unwrap();
        let second: Vec<u8> =
            (1..=last).rev().flat_map(|number| format!("{number}\n").into_bytes()).collect();
        assert!(found == second, "{last}");
        assert_eq!(report.output_bytes, second.len() as u64);
    }
}

#[test]
fn a_line_is_returned_when_it_is_complete() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("printf 'one\n\ntw'; go; printf 'o\nlast'");
    let mut lines = job.output(Position::Start).unwrap().lines(100);
    let mut cx = Context::from_waker(Waker::noop());
    let text = |line: &Line| (line.offset(), line.text().into_owned(), line.is_complete());
    let next = |lines: &mut jobworker::worker::Lines| text(&lines.next().unwrap().unwrap());
    assert_eq!(next(&mut lines), (0, "one".to_owned(), true));
    assert_eq!(next(&mut lines), (4, String::new(), true));
    // Given up again and again: what was read of the line is not lost.
    for _ in 0..1000 {
        assert!(lines.poll_next(&mut cx).is_pending());
    }
    assert_eq!(lines.offset(), 5);
    gate.open();
    assert_eq!(next(&mut lines), (5, "two".to_owned(), true));
    assert_eq!(next(&mut lines), (9, "last".to_owned(), true));
    assert_eq!(lines.offset(), 13);
    for _ in 0..2 {
        assert!(lines.next().is_none());
    }
}

#[test]
fn a_line_without_end_is_returned_in_parts() {
    let Some(threads) = Threads::new() else { return };
    // Exactly the bound, one more, and many times as much.
    let script =
        "printf '%010d\n%011d\n' 1 2; head -c 1000000 /dev/zero | tr '\\0' x; echo; echo z";
    let job = threads.spawn(&sh(script));
    let lines = job.output(Position::Start).unwrap().lines(10);
    let lines: Vec<Line> = lines.map(|line| line.unwrap()).collect();
    let show = |line: &Line| (line.text().into_owned(), line.is_complete());
    assert_eq!(show(&lines[0]), ("0000000001".to_owned(), true));
    assert_eq!(show(&lines[1]), ("0000000000".to_owned(), false));
    assert_eq!(show(&lines[2]), ("2".to_owned(), true));
    let (long, last) = lines[3..].split_at(100_000);
    assert!(long.iter().all(|line| line.bytes() == b"xxxxxxxxxx"));
    assert_eq!(long.iter().filter(|line| line.is_complete()).count(), 1);
    assert!(long.last().unwrap().is_complete());
    assert_eq!(last.iter().map(show).collect::<Vec<_>>(), [("z".to_owned(), true)]);
    let offsets = lines.iter().map(Line::offset);
    assert!(offsets.clone().zip(offsets.skip(1)).all(|(one, next)| one < next));
}

#[test]
fn a_truncation_stands_between_lines() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated(&format!("printf 'one\ntw'; go; {TRUNCATE}; echo three"));
    let mut lines = job.output(Position::Start).unwrap().lines(100);
    assert_eq!(lines.next().unwrap().unwrap().bytes(), b"one");
    let mut cx = Context::from_waker(Waker::noop());
    until("the part is read", || {
        assert!(lines.poll_next(&mut cx).is_pending());
        lines.output().position() == 6
    });
    gate.open();
    job.wait().unwrap();
    assert_eq!(lines.next().unwrap().unwrap().into_bytes(), b"tw");
    let truncated = lines.next().unwrap().unwrap_err();
    assert!(matches!(truncated, Error::Tail(TailError::Truncated)), "{truncated}");
    let line = lines.next().unwrap().unwrap();
    assert_eq!((line.bytes(), line.offset()), (&b"three"[..], 0));
    assert!(lines.next().is_none());
}

/// Sends all of a log.
fn send_all(output: &mut Output, to: impl std::os::fd::AsFd, most: usize) -> usize {
    let mut total = 0;
    loop {
        match output.send_to(&to, most).unwrap() {
            Read::Data(sent) => {
                assert!((1..=most).contains(&sent));
                total += sent;
                assert_eq!(output.position(), total as u64);
            }
            Read::Ended => return total,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_log_is_sent_to_descriptors_of_any_sort() {
    let Some(threads) = Threads::new() else { return };
    let expected = numbers(200_000);
    let (job, mut gate) = threads.gated("seq 100000; go; seq 100001 200000");
    // Some of it is in the file when it begins, and some comes while it follows.
    written(&job, numbers(100_000).len());
    let output = || job.output(Position::Start).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut receiver, sender) = io::pipe().unwrap();
    let path = threads.place.dir.path().join("copy");
    let copy = File::create(&path).unwrap();
    let appended = threads.place.dir.path().join("appended");
    let append = OpenOptions::new().append(true).create(true).open(&appended).unwrap();
    thread::scope(|scope| {
        let (mut to_socket, mut to_pipe) = (output(), output());
        let (mut to_file, mut to_append) = (output(), output());
        let sent = [
            scope.spawn(move || send_all(&mut to_socket, listener.accept().unwrap().0, 100_000)),
            scope.spawn(move || send_all(&mut to_pipe, sender, usize::MAX)),
            scope.spawn(move || send_all(&mut to_file, copy, 7_777)),
            // sendfile refuses a file in append mode.
            scope.spawn(move || send_all(&mut to_append, append, 1 << 20)),
        ];
        let received = [
            scope.spawn(move || {
                let mut bytes = Vec::new();
                client.read_to_end(&mut bytes).map(|_| bytes)
            }),
            scope.spawn(move || {
                let mut bytes = Vec::new();
                receiver.read_to_end(&mut bytes).map(|_| bytes)
            }),
        ];
        gate.open();
        for sent in sent {
            assert_eq!(sent.join().unwrap(), expected.len());
        }
        for received in received {
            assert!(received.join().unwrap().unwrap() == expected);
        }
    });
    assert!(fs::read(path).unwrap() == expected);
    assert!(fs::read(appended).unwrap() == expected);
}

#[test]
fn a_receiver_that_takes_nothing_loses_nothing() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("seq 100000; go; echo more");
    let expected = numbers(100_000);
    written(&job, expected.len());
    let mut output = job.output(Position::Start).unwrap();
    let (sender, mut receiver) = UnixStream::pair().unwrap();
    sender.set_nonblocking(true).unwrap();
    let mut found = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    while found.len() < expected.len() {
        match output.send_to(&sender, usize::MAX) {
            Ok(Read::Data(_)) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let length = receiver.read(&mut buffer).unwrap();
                found.extend_from_slice(&buffer[..length]);
            }
            other => panic!("{other:?}"),
        }
        if output.position() == expected.len() as u64 {
            let left = expected.len() - found.len();
            receiver.read_exact(&mut buffer[..left]).unwrap();
            found.extend_from_slice(&buffer[..left]);
        }
    }
    assert!(found == expected);
    // Nothing to send is not a reason to wait for a task.
    let mut cx = Context::from_waker(Waker::noop());
    assert!(output.poll_send_to(&mut cx, &sender, 100).is_pending());
    assert_eq!(output.send_to(&sender, 0).unwrap(), Read::Data(0));
    // Not only closed: a child that another test has just cloned may have it until its exec.
    receiver.shutdown(Shutdown::Both).unwrap();
    gate.open();
    job.wait().unwrap();
    let closed = output.send_to(&sender, 100).unwrap_err();
    assert_eq!(closed.kind(), io::ErrorKind::BrokenPipe);
    // The bytes are still there for somebody else.
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "more\n");
    let ended = output.poll_send_to(&mut cx, &sender, 100);
    assert!(matches!(ended, Poll::Ready(Ok(Read::Ended))));
}

#[test]
fn a_log_that_is_written_anew_is_not_sent_for_what_it_was() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated(&format!("seq 100000; go; {TRUNCATE}; seq 90000 -1 1"));
    written(&job, numbers(100_000).len());
    let mut output = job.output(Position::Start).unwrap();
    let mut copy = tempfile::tempfile().unwrap();
    assert_eq!(output.send_to(&copy, 1000).unwrap(), Read::Data(1000));
    gate.open();
    job.wait().unwrap();
    assert_eq!(output.send_to(&copy, 1000).unwrap(), Read::Truncated);
    while output.send_to(&copy, 50_000).unwrap() != Read::Ended {}
    copy.rewind().unwrap();
    let mut found = Vec::new();
    copy.read_to_end(&mut found).unwrap();
    let second = (1..=90_000).rev().flat_map(|number| format!("{number}\n").into_bytes());
    assert!(found == [&numbers(1_000)[..1000], &second.collect::<Vec<_>>()].concat());
}

#[test]
fn an_output_can_be_read_from_elsewhere() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("printf 0123456789; go; printf abc");
    written(&job, 10);
    let mut output = job.output(Position::Start).unwrap();
    let closer = output.closer();
    let mut buffer = [0; 3];
    let mut at = |output: &mut Output, to: SeekFrom| {
        let offset = output.seek(to).unwrap();
        assert_eq!((output.stream_position().unwrap(), output.position()), (offset, offset));
        output.read_exact(&mut buffer).unwrap();
        (offset, String::from_utf8(buffer.to_vec()).unwrap())
    };
    assert_eq!(at(&mut output, SeekFrom::Start(4)), (4, "456".to_owned()));
    assert_eq!(at(&mut output, SeekFrom::Current(-5)), (2, "234".to_owned()));
    assert_eq!(at(&mut output, SeekFrom::Current(0)), (5, "567".to_owned()));
    assert_eq!(at(&mut output, SeekFrom::End(-4)), (6, "678".to_owned()));
    for before in [SeekFrom::Current(-10), SeekFrom::End(-11)] {
        let error = output.seek(before).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert_eq!(output.position(), 9);
    }
    // Ahead of what there is.
    assert_eq!(output.seek(SeekFrom::End(1)).unwrap(), 11);
    gate.open();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bc");
    // From its end back to the start.
    output.rewind().unwrap();
    rest.clear();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "0123456789abc");
    closer.close();
    output.rewind().unwrap();
    assert!(output.read(&mut [0; 8]).is_err());
    drop(output);
    until("only the job is left", || threads.worker.census().unwrap().tails == 0);
}

#[test]
fn a_job_is_run_for_its_output() {
    let Some(threads) = Threads::new() else { return };
    let worker = &threads.worker;
    let (report, output) = worker.run(&sh("echo out; echo err >&2; exit 3"), 1 << 20).unwrap();
    assert_eq!((report.exit, &output[..]), (Exit::Code(3), &b"out\nerr\n"[..]));
    for bound in [0, 1, 100_000, 500_000] {
        let (report, output) = worker.run(&sh("seq 100000"), bound).unwrap();
        let expected = numbers(100_000);
        assert!(output == expected[..bound], "{bound}");
        assert_eq!(report.output_bytes, expected.len() as u64);
    }
    // Its input ends although nobody has taken the pipe.
    let (report, output) = worker.run(sh("cat; echo done").stdin(Stdin::Piped), 100).unwrap();
    assert_eq!((report.exit, &output[..]), (Exit::Code(0), &b"done\n"[..]));
    let mut split = sh("echo out; echo err >&2");
    let (_, output) = worker.run(split.output(jobworker::Output::Split), 100).unwrap();
    assert_eq!(output, b"out\n");
    let (report, output) = worker.run(sh("echo").output(jobworker::Output::Null), 100).unwrap();
    assert!(report.exit.success() && output.is_empty());
    let mut endless = sh("while :; do sleep 1000; done");
    let (report, _) = worker.run(endless.time_limit(Duration::from_millis(20)), 100).unwrap();
    assert!(!report.exit.success());
    let error = worker.run(&Command::new("/no/such/program"), 100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    until("all are removed", || worker.census().unwrap().jobs == 0);
    assert_eq!(fs::read_dir(threads.place.logs()).unwrap().count(), 0);
}

#[test]
fn a_stream_of_its_own_is_read_by_itself() {
    let Some(threads) = Threads::new() else { return };
    let mut split = sh("seq 1000; seq 2000 >&2");
    let job = threads.spawn(split.output(jobworker::Output::Split));
    for (stream, last) in [(Stream::Output, 1000), (Stream::Error, 2000)] {
        let mut options = TailOptions::new(Position::Start);
        let mut found = Vec::new();
        job.output(options.stream(stream)).unwrap().read_to_end(&mut found).unwrap();
        assert!(found == numbers(last), "{stream}");
    }
}

/// What is written to the log of a finished job is not output of the job.
#[test]
fn a_reader_ends_where_the_job_has_ended() {
    let Some(threads) = Threads::new() else { return };
    let job = threads.spawn(&sh("seq 100000"));
    job.wait().unwrap();
    let mut output = job.output(Position::Start).unwrap();
    let mut log = OpenOptions::new().append(true).open(log_of(&job)).unwrap();
    log.write_all(b"not of the job").unwrap();
    let mut found = Vec::new();
    output.read_to_end(&mut found).unwrap();
    assert!(found == numbers(100_000));
}

#[cfg(feature = "bytes")]
#[test]
fn bytes_are_shared_and_stay_when_the_log_is_gone() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("echo first; go; echo second; go");
    let mut outputs: Vec<Output> = (0..3).map(|_| job.output(Position::Start).unwrap()).collect();
    for output in &mut outputs {
        assert_eq!(output.read_bytes().unwrap(), "first\n");
        assert_eq!(output.try_read(&mut [0; 8]).unwrap(), Read::UpToDate);
    }
    gate.open();
    let second: Vec<bytes::Bytes> =
        outputs.iter_mut().map(|output| output.read_bytes().unwrap()).collect();
    assert!(second.iter().all(|bytes| bytes == "second\n"));
    // All of them are the same bytes in memory.
    assert!(second.iter().all(|bytes| bytes.as_ptr() == second[0].as_ptr()));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(outputs[0].poll_bytes(&mut cx).is_pending());
    gate.open();
    let end = outputs[1].read_bytes().unwrap();
    assert!(end.is_empty());
    let part = outputs[2].read(&mut [0; 1]);
    assert_eq!(part.unwrap(), 0);
    drop((outputs, job));
    until("the job is removed", || threads.worker.census().unwrap().jobs == 0);
    assert_eq!(second[2], "second\n");
}
