//! The basics, end to end: a program runs in its own cgroup, and its tails get every byte.

use std::os::fd::AsRawFd;
use std::time::Duration;

use jobworker::{Command, Error, Exit, JobError, Phase, Position};

use crate::support::{World, alone, sh};

#[test]
fn a_job_runs_in_its_own_cgroup_and_its_output_is_followed_to_the_end() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&sh("echo out; echo err >&2; tail -1 /proc/self/cgroup; printf end"));
    let tail = world.tail(job, Position::Start);
    let report = world.finish(job);
    assert_eq!(report.exit, Exit::Code(0));
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let output = world.text(tail);
    assert!(output.starts_with("out\nerr\n0::/"), "{output}");
    assert!(output.contains(&format!("/{job}.")) && output.ends_with("\nend"), "{output}");
    assert_eq!(report.output_bytes, output.len() as u64);
    world.reactor.remove(job).unwrap();
}

#[test]
fn a_program_that_is_not_there_is_an_error_and_leaves_nothing() {
    if !alone!() {
        return;
    }
    let Some(mut world) = World::new() else { return };
    let before = world.footprint();
    let error = world.try_spawn(&Command::new("/no/such/program")).unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    assert_eq!(world.footprint(), before);
}

#[test]
fn a_reactor_may_be_moved_to_and_asked_from_any_thread() {
    fn assert_send_and_sync<T: Send + Sync>(_: &T) {}
    let Some(mut world) = World::new() else { return };
    assert_send_and_sync(&world.reactor);
    let job = world.spawn(&sh("exec sleep 1000"));
    let reactor = &world.reactor;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert_eq!(reactor.status(job).unwrap().phase, Phase::Running);
                assert_eq!(reactor.census().jobs, 1);
                assert_eq!(reactor.jobs().collect::<Vec<_>>(), [job]);
                reactor.stats(job).unwrap();
            });
        }
    });
    let mut world = std::thread::spawn(move || {
        world.reactor.kill(job).unwrap();
        world.finish(job);
        world
    })
    .join()
    .unwrap();
    world.reactor.remove(job).unwrap();
}

#[test]
fn the_descriptor_of_a_reactor_stays_the_same_for_its_life() {
    let Some(mut world) = World::new() else { return };
    let number = world.reactor.as_raw_fd();
    for _ in 0..3 {
        world.run(&sh("echo one"));
        assert_eq!(world.reactor.as_raw_fd(), number);
    }
}

#[test]
fn a_job_is_found_by_its_uuid_and_by_its_text() {
    let Some(mut world) = World::new() else { return };
    let job = world.spawn(&sh("true"));
    assert_eq!(world.reactor.find(job.uuid()), Some(job));
    assert_eq!(job.to_string().parse(), Ok(job));
    world.finish(job);
    assert_eq!(world.reactor.jobs().collect::<Vec<_>>(), [job], "finished, but not removed");
    world.reactor.remove(job).unwrap();
    assert_eq!(world.reactor.find(job.uuid()), None);
    assert_eq!(world.reactor.jobs().count(), 0);
}

#[test]
fn one_job_can_be_waited_for_without_losing_an_event_of_another() {
    let Some(mut world) = World::new() else { return };
    let other = world.spawn(&sh("echo other"));
    let tail = world.tail(other, Position::Start);
    let job = world.spawn(&sh("sleep 0.2; exit 7"));
    let early = world.reactor.wait_timeout(job, Duration::ZERO).unwrap();
    assert!(early.is_none(), "{early:?}");
    let report = world.reactor.wait(job).unwrap();
    assert_eq!(report.exit, Exit::Code(7));
    // Once it is finished, there is nothing to wait for.
    assert_eq!(world.reactor.wait(job).unwrap().exit, Exit::Code(7));
    // The events that occurred meanwhile, its own included, are returned by the next poll.
    world.finish(other);
    world.finish(job);
    assert_eq!(world.text(tail), "other\n");
    world.reactor.remove(job).unwrap();
    assert!(matches!(world.reactor.wait(job), Err(Error::Job(JobError::Unknown(id))) if id == job));
}
