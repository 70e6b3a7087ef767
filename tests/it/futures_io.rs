//! The traits of futures: what the extensions of that crate read of a job is what it has written.

use std::io;
use std::pin::pin;
use std::time::Duration;

use futures::io::{AllowStdIo, BufReader};
use futures::{AsyncBufReadExt, AsyncReadExt, FutureExt, StreamExt, TryStreamExt, select, stream};
use jobworker::worker::{JobEvent, Output, Shutdown, WorkerEvent};
use jobworker::{Error, Position, Stall, Stallable, TailError, WorkerError};

use crate::support::{PATIENCE, sh};
use crate::worker::{Threads, block_on, countdown, numbers};

/// The smallest runtime.
fn run<T>(task: impl Future<Output = T>) -> T {
    let mut task = pin!(task);
    block_on(|cx| task.as_mut().poll(cx))
}

#[test]
fn every_byte_is_read_across_a_truncation_that_is_an_error_once() {
    let Some(threads) = Threads::new() else { return };
    // The second content has nothing in common with the first, so that it is told apart.
    let script = "seq 20000; go; truncate -s 0 /proc/$$/fd/1; seq 30000 -1 1";
    let (first, second) = (numbers(20_000), countdown(30_000));
    for way in ["read_to_end", "copy_buf", "copy"] {
        let (job, mut gate) = threads.gated(script);
        let mut output = job.output(Position::Start).unwrap();
        let (mut contents, mut part) = (Vec::new(), Vec::new());
        let found = run(async {
            // The first content is read before the gate opens: what was not would be gone.
            let mut length = vec![0; first.len()];
            output.read_exact(&mut length).await.unwrap();
            contents.push(length);
            gate.open();
            loop {
                let copied = match way {
                    "read_to_end" => output.read_to_end(&mut part).await.map(|_| ()),
                    "copy_buf" => {
                        let mut to = AllowStdIo::new(&mut part);
                        futures::io::copy_buf(&mut output, &mut to).await.map(|_| ())
                    }
                    _ => {
                        let mut to = AllowStdIo::new(&mut part);
                        futures::io::copy(&mut output, &mut to).await.map(|_| ())
                    }
                };
                match copied {
                    Ok(()) => break contents.split_off(0),
                    Err(error) => assert!(Output::is_truncation(&error), "{way}: {error}"),
                }
                contents.push(std::mem::take(&mut part));
            }
        });
        // Nothing came between the first content and the truncation.
        assert!(found == [first.clone(), Vec::new()], "{way}");
        assert!(part == second, "{way}: {} bytes", part.len());
        assert_eq!(run(output.read(&mut [0; 8])).unwrap(), 0, "the end stays the end");
    }
}

#[test]
fn lines_are_read_by_the_extensions_and_as_a_stream_of_bounded_lines() {
    let Some(threads) = Threads::new() else { return };
    let job = threads.spawn(&sh("seq 5000; printf last"));
    let expected: Vec<String> =
        (1..=5000).map(|number| number.to_string()).chain(["last".to_owned()]).collect();
    let output = job.output(Position::Start).unwrap();
    let lines: Vec<String> = run(AsyncBufReadExt::lines(output).try_collect()).unwrap();
    assert_eq!(lines, expected);
    let output = job.output(Position::Start).unwrap();
    let text = |line: jobworker::worker::Line| line.text().into_owned();
    let mut lines = output.lines(100);
    let lines = stream::poll_fn(move |cx| lines.poll_next(cx)).map_ok(text);
    let lines: Vec<String> = run(lines.try_collect()).unwrap();
    assert_eq!(lines, expected);
    // A reader around it, and a part of it.
    let output = job.output(Position::Start).unwrap();
    let mut part = String::new();
    run(BufReader::new(output).take(3).read_to_string(&mut part)).unwrap();
    assert_eq!(part, "1\n2");
}

#[test]
fn errors_are_those_of_std_io() {
    let Some(threads) = Threads::new() else { return };
    let (job, _gate) = threads.gated("go");
    let inner = |error: io::Error| *error.into_inner().unwrap().downcast::<Error>().unwrap();
    let mut output = job.output(Position::Start).unwrap();
    assert_eq!(run(output.read(&mut [])).unwrap(), 0, "without room there is nothing to wait for");
    output.closer().close();
    let error = inner(run(output.read(&mut [0; 8])).unwrap_err());
    assert!(matches!(error, Error::Tail(TailError::Closed)), "{error}");
    let error = inner(run(output.fill_buf()).unwrap_err());
    assert!(matches!(error, Error::Tail(TailError::Closed)), "{error}");
    let mut output = job.output(Position::Start).unwrap();
    threads.worker.shutdown(Shutdown::Kill, Duration::ZERO).unwrap();
    // It may have ended before that.
    if let Err(error) = run(output.read(&mut [0; 8])) {
        let error = inner(error);
        assert!(matches!(error, Error::Worker(WorkerError::ShutDown)), "{error}");
    }
}

#[test]
fn events_are_streams_that_end() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("go; exit 3");
    let (mut events, mut system) = (job.events().fuse(), threads.worker.events().fuse());
    job.freeze().unwrap();
    let first = run(events.next()).unwrap().unwrap();
    assert!(matches!(first, JobEvent::Frozen), "{first:?}");
    job.thaw().unwrap();
    gate.open();
    // Two of them and a future at once, as long as there is any.
    let (mut all, mut finished) = (Vec::new(), job.finished().fuse());
    let mut ended = false;
    run(async {
        loop {
            select! {
                event = events.next() => match event {
                    Some(event) => all.push(event.unwrap()),
                    None => break,
                },
                event = system.select_next_some() => panic!("{event:?}"),
                report = finished => {
                    ended = true;
                    assert_eq!(report.unwrap().exit.code(), Some(3));
                }
            }
        }
    });
    assert!(run(events.next()).is_none());
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(matches!(&all[2], JobEvent::Finished(_)), "{all:?}");
    assert!(ended || run(job.finished()).is_ok());
    let stall = Stall::some(Duration::from_secs(2), Duration::from_secs(2));
    threads.worker.watch_system_pressure(Stallable::Io, stall).unwrap();
    threads.worker.shutdown(Shutdown::Kill, PATIENCE).unwrap();
    let last: Vec<Result<WorkerEvent, Error>> = run(system.collect());
    assert!(matches!(last.last(), Some(Err(Error::Worker(WorkerError::ShutDown)))), "{last:?}");
}

/// Whoever passes over a truncation has the bytes behind it.
#[cfg(feature = "bytes")]
#[test]
fn chunks_are_what_a_reader_gets_with_an_error_at_each_gap() {
    let Some(threads) = Threads::new() else { return };
    let (job, mut gate) = threads.gated("seq 10000; go; truncate -s 0 /proc/$$/fd/1; go; seq 100");
    let mut chunks = job.output(Position::Start).unwrap().chunks();
    let before = numbers(10_000);
    let (mut found, mut gaps) = (Vec::new(), 0);
    let mut opened = 0;
    while let Some(chunk) = run(chunks.next()) {
        match chunk {
            Ok(bytes) => found.extend_from_slice(&bytes),
            Err(error) => {
                assert!(Output::is_truncation(&error), "{error}");
                assert!(found == before);
                found.clear();
                gaps += 1;
            }
        }
        if (opened == 0 && found == before) || (opened == 1 && gaps == 1) {
            gate.open();
            opened += 1;
        }
    }
    assert_eq!((gaps, found), (1, numbers(100)));
    assert_eq!(chunks.output().position(), numbers(100).len() as u64);
    assert!(run(chunks.next()).is_none());
}
