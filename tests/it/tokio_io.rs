//! The traits of tokio: what its extensions read of a job is what it has written, in a runtime of
//! one thread and of many.

use std::sync::Arc;

use jobworker::Position;
use jobworker::worker::Output;
use tokio::io::{AsyncBufReadExt, AsyncReadExt};
use tokio::runtime::{Builder, Runtime};

use crate::support::{rounds, sh};
use crate::worker::{Threads, countdown, numbers};

/// A runtime of one thread, and one of two.
pub(crate) fn runtimes() -> [Runtime; 2] {
    [
        Builder::new_current_thread().enable_all().build().unwrap(),
        Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
    ]
}

#[test]
fn every_byte_is_read_across_a_truncation_that_is_an_error_once() {
    let Some(threads) = Threads::new() else { return };
    // The second content has nothing in common with the first, so that it is told apart.
    let script = "seq 20000; go; truncate -s 0 /proc/$$/fd/1; seq 30000 -1 1";
    let (first, second) = (numbers(20_000), countdown(30_000));
    for runtime in runtimes() {
        for way in ["read_to_end", "copy_buf", "copy"] {
            let (job, mut gate) = threads.gated(script);
            let mut output = job.output(Position::Start).unwrap();
            let (contents, last) = runtime.block_on(async {
                let (mut contents, mut part) = (vec![vec![0; first.len()]], Vec::new());
                output.read_exact(&mut contents[0]).await.unwrap();
                gate.open();
                loop {
                    let copied = match way {
                        "read_to_end" => output.read_to_end(&mut part).await.map(|_| ()),
                        "copy_buf" => tokio::io::copy_buf(&mut output, &mut part).await.map(|_| ()),
                        _ => tokio::io::copy(&mut output, &mut part).await.map(|_| ()),
                    };
                    match copied {
                        Ok(()) => break (contents, part),
                        Err(error) => assert!(Output::is_truncation(&error), "{way}: {error}"),
                    }
                    contents.push(std::mem::take(&mut part));
                }
            });
            // Nothing came between the first content and the truncation.
            assert!(contents == [first.clone(), Vec::new()], "{way}");
            assert!(last == second, "{way}: {} bytes", last.len());
        }
    }
}

#[test]
fn many_tasks_have_every_byte_once() {
    let Some(threads) = Threads::new() else { return };
    let expected = Arc::new(numbers(60_000));
    for runtime in runtimes() {
        let (job, mut gate) = threads.gated("for i in 1 2 3; do go; done; seq 60000");
        let tasks: Vec<_> = (0..rounds(300))
            .map(|number| {
                let (mut output, expected) =
                    (job.output(Position::Start).unwrap(), Arc::clone(&expected));
                runtime.spawn(async move {
                    let mut bytes = Vec::new();
                    if number % 2 == 0 {
                        output.read_to_end(&mut bytes).await.unwrap();
                    } else {
                        tokio::io::copy_buf(&mut output, &mut bytes).await.unwrap();
                    }
                    assert!(bytes == *expected, "{} bytes", bytes.len());
                })
            })
            .collect();
        for _ in 0..3 {
            gate.open();
        }
        runtime.block_on(async {
            assert!(job.finished().await.unwrap().exit.success());
            for task in tasks {
                task.await.unwrap();
            }
        });
    }
}

#[test]
fn lines_and_parts_are_read_by_the_extensions() {
    let Some(threads) = Threads::new() else { return };
    let job = threads.spawn(&sh("seq 5000; printf last"));
    for runtime in runtimes() {
        runtime.block_on(async {
            let output = job.output(Position::Start).unwrap();
            let mut lines = AsyncBufReadExt::lines(output);
            for number in 1..=5000 {
                assert_eq!(lines.next_line().await.unwrap(), Some(number.to_string()));
            }
            assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("last"));
            assert_eq!(lines.next_line().await.unwrap(), None);
            let mut output = job.output(Position::Start).unwrap();
            assert_eq!(output.read(&mut []).await.unwrap(), 0);
            let mut part = String::new();
            (&mut output).take(3).read_to_string(&mut part).await.unwrap();
            assert_eq!((part.as_str(), output.position()), ("1\n2", 3));
        });
    }
}
