//! Limits whose controllers are available: written, read back, and in force before the job's first
//! instruction.

use std::fs;

use jobworker::{ByteSize, Error, LimitValue, Limits, LimitsError};

use crate::support::{World, directories, sh};

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
    let groups = || directories(&cgroup).len();
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

#[test]
fn limits_that_are_read_back_are_typed_and_fit_another_job() {
    let Some(mut world) = World::new() else { return };
    let mut limits = Limits::new();
    // These need no controller.
    limits.cgroup_max_depth(2).set("cgroup.max.descendants", "max").unwrap();
    let job = world.spawn(sh("exec sleep 1000").limits(&limits));
    let found = world.reactor.limits(job).unwrap();
    assert_eq!(found.get("cgroup.max.depth"), Some(&LimitValue::Count(Some(2))));
    assert_eq!(found.get("cgroup.max.descendants"), Some(&LimitValue::Count(None)));
    let same = world.spawn(sh("exec sleep 1000").limits(&found));
    assert_eq!(world.reactor.limits(same).unwrap(), found);

    world.reactor.set_limits(same, Limits::new().cgroup_max_descendants(7)).unwrap();
    let changed = world.reactor.limits(same).unwrap();
    assert_eq!(changed.get("cgroup.max.descendants"), Some(&LimitValue::Count(Some(7))));
    world.reactor.set_limits(same, &found).unwrap();
    assert_eq!(world.reactor.limits(same).unwrap(), found);
    for job in [job, same] {
        world.reactor.kill(job).unwrap();
        world.finish(job);
    }
}

#[test]
fn a_limit_on_groups_holds_for_those_that_the_job_makes() {
    let Some(mut world) = World::new() else { return };
    let script = "cd $(sed -n 's,^.* \\(/[^ ]*\\) .* - cgroup2 .*,\\1,p' /proc/self/mountinfo)/\
                  $(sed -n 's/^0:://p' /proc/self/cgroup); \
                  mkdir a 2>/dev/null && echo a; mkdir a/b 2>/dev/null && echo b; exit 0";
    let (output, report) = world.run(sh(script).limits(Limits::new().cgroup_max_depth(1)));
    assert_eq!(output, "a\n");
    assert!(report.problems.is_empty(), "{report:?}");
}
