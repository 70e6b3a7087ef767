//! The main job, end to end: a program runs in its own cgroup and its tails get every byte.

use jobworker::{Command, Exit, Position};

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
    assert!(output.ends_with(&format!("/{job}\nend")), "{output}");
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
