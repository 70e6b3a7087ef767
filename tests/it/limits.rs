//! Limits where the controllers are there: written, read back, and in force before the job's first
//! instruction.

use std::fs;

use jobworker::{ByteSize, Error, Limits, LimitsError};

use crate::support::{World, sh};

#[test]
fn a_job_finds_its_limits_in_its_own_cgroup_from_the_start() {
    let Some(mut world) = World::new() else { return };
    if !world.has_controllers(&["cpu", "memory"]) {
        return;
    }
    let mut limits = Limits::new();
    limits.cpu_weight(321).memory_high(ByteSize::from_bytes((100 << 20) + 5));
    let cgroup = world.place.cgroup.clone().unwrap();
    let script = format!(
        "cd {}/$(basename $(sed -n 's/^0:://p' /proc/self/cgroup)); cat cpu.weight memory.high",
        cgroup.display()
    );
    let (output, report) = world.run(sh(&script).limits(&limits));
    assert_eq!(output, format!("321\n{}\n", 100 << 20));
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn a_limit_out_of_range_or_without_its_controller_creates_nothing() {
    let Some(mut world) = World::new() else { return };
    let cgroup = world.place.cgroup.clone().unwrap();
    let groups =
        || fs::read_dir(&cgroup).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
    for weight in [0, 10_001] {
        let error =
            world.try_spawn(sh("true").limits(Limits::new().cpu_weight(weight))).unwrap_err();
        assert!(matches!(error, Error::Limits(LimitsError::Invalid(_))), "{error}");
        assert_eq!(groups(), 0);
    }
    let available = fs::read_to_string(cgroup.join("cgroup.controllers")).unwrap();
    if !available.contains("memory") {
        let error = world
            .try_spawn(sh("true").limits(Limits::new().memory_high(ByteSize::from_bytes(1 << 20))))
            .unwrap_err();
        let text = error.to_string();
        for part in ["memory.high", "memory controller", "cgroup_no_v1=memory"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(groups(), 0);
    }
}
