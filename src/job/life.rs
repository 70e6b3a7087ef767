//! Owns the life of a job as a table: [`next`] maps a state and an input to the next state and what
//! to do about it.
//!
//! Invariant: every path ends in [`State::Finished`], and no input leaves it. A deadline is part of
//! the state that it belongs to. Pure: it does no I/O and reads no clock; whoever carries out the
//! actions reports what happened by inputs alone.

use std::time::Instant;

use crate::command::EndPolicy;
use crate::event::Phase;

/// The state of a job, as detailed as needed to decide what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The main process runs, for no longer than its time limit.
    Running { limit: Option<Instant> },
    /// The main process runs; the stop signal was sent, and the grace period runs.
    Stopping { grace: Grace },
    /// The main process runs, but everything was killed.
    Killing,
    /// The main process has exited; the processes that it left behind may continue, within the time
    /// limit.
    Lingering { limit: Option<Instant> },
    /// The main process has exited; the others were sent the stop signal, and the grace period
    /// runs.
    Leaving { grace: Grace },
    /// The main process has exited; what is left of the others is killed.
    Clearing,
    /// No process is left.
    Finished,
}

/// How long a job may take to stop, ordered from the shortest to the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grace {
    /// Not at all: it is killed at once.
    Over,
    /// Until this moment.
    Until(Instant),
    /// Longer than the clock can represent.
    Unlimited,
}

/// What can happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The host wants it stopped, with the grace period that its command has.
    Stop(Grace),
    /// The host wants it stopped within this time, even if it is being stopped already.
    StopWithin(Grace),
    /// Its time limit is reached.
    TimeLimit(Grace),
    /// The grace period is over.
    GraceOver,
    /// The host wants it killed.
    Kill,
    /// The main process has exited.
    Exit,
    /// No process is left.
    Empty,
}

/// What to do on the way from one state to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing.
    None,
    /// Send the stop signal to all.
    Signal,
    /// Kill all.
    Kill,
    /// Find out whether anything is left, in the next turn: whoever wants to know of the exit does
    /// not have to wait for that.
    AwaitRest,
    /// Send the stop signal to those that were forked too late to have it, then the same.
    SignalRest,
    /// Release everything and report.
    Finish,
}

/// A deadline of a job, and what its passing means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    TimeLimit(Instant),
    Grace(Instant),
}

impl Deadline {
    pub(crate) fn at(self) -> Instant {
        match self {
            Self::TimeLimit(at) | Self::Grace(at) => at,
        }
    }
}

impl State {
    /// The phase that the host sees.
    pub(crate) fn phase(self) -> Phase {
        match self {
            Self::Running { .. } => Phase::Running,
            Self::Stopping { .. } | Self::Killing => Phase::Stopping,
            Self::Lingering { .. } | Self::Leaving { .. } | Self::Clearing => Phase::Exited,
            Self::Finished => Phase::Finished,
        }
    }

    /// The next deadline, and the input that it causes.
    pub(crate) fn deadline(self) -> Option<Deadline> {
        match self {
            Self::Running { limit } | Self::Lingering { limit } => limit.map(Deadline::TimeLimit),
            Self::Stopping { grace: Grace::Until(at) }
            | Self::Leaving { grace: Grace::Until(at) } => Some(Deadline::Grace(at)),
            Self::Stopping { .. }
            | Self::Leaving { .. }
            | Self::Killing
            | Self::Clearing
            | Self::Finished => None,
        }
    }

    /// Whether the main process is gone, and the end of the others is awaited.
    pub(crate) fn awaits_rest(self) -> bool {
        matches!(self, Self::Lingering { .. } | Self::Leaving { .. } | Self::Clearing)
    }
}

/// The table. What is not in it changes nothing: a second stop, a stop during exit, a late timer.
pub(crate) fn next(state: State, input: Input, policy: EndPolicy) -> (State, Action) {
    use EndPolicy::{KillRest, LeaveRest, WaitAll};
    use Input::{Empty, Exit, GraceOver, Kill, Stop, StopWithin, TimeLimit};
    use State::{Clearing, Finished, Killing, Leaving, Lingering, Running, Stopping};
    match (state, input) {
        (Running { .. }, Stop(Grace::Over) | StopWithin(Grace::Over) | TimeLimit(Grace::Over)) => {
            (Killing, Action::Kill)
        }
        (Running { .. }, Stop(grace) | StopWithin(grace) | TimeLimit(grace)) => {
            (Stopping { grace }, Action::Signal)
        }
        (Stopping { .. }, StopWithin(Grace::Over)) => (Killing, Action::Kill),
        // The grace period can be shortened, never lengthened.
        (Stopping { grace }, StopWithin(other)) => {
            (Stopping { grace: grace.min(other) }, Action::None)
        }
        // Kill again even if everything was killed already: the first kill may have failed.
        (Running { .. } | Stopping { .. } | Killing, Kill) => (Killing, Action::Kill),
        (Stopping { .. }, GraceOver) => (Killing, Action::Kill),

        (Running { limit }, Exit) => match policy {
            KillRest => (Clearing, Action::AwaitRest),
            // The time limit also applies to processes that outlive the main one.
            WaitAll => (Lingering { limit }, Action::AwaitRest),
            LeaveRest => (Finished, Action::Finish),
        },
        // A stop is for every process: each has its signal and the same time to act on it, whatever
        // the end policy does with those that a main process leaves behind unasked.
        (Stopping { grace }, Exit) => (Leaving { grace }, Action::SignalRest),
        (Killing, Exit) => (Clearing, Action::AwaitRest),

        (
            Lingering { .. },
            Stop(Grace::Over) | StopWithin(Grace::Over) | TimeLimit(Grace::Over),
        ) => (Clearing, Action::Kill),
        (Lingering { .. }, Stop(grace) | StopWithin(grace) | TimeLimit(grace)) => {
            (Leaving { grace }, Action::Signal)
        }
        (Leaving { .. }, StopWithin(Grace::Over)) => (Clearing, Action::Kill),
        (Leaving { grace }, StopWithin(other)) => {
            (Leaving { grace: grace.min(other) }, Action::None)
        }
        (Lingering { .. } | Leaving { .. } | Clearing, Kill) => (Clearing, Action::Kill),
        (Leaving { .. }, GraceOver) => (Clearing, Action::Kill),
        // The processes were waited for only until they could be left.
        (Lingering { .. }, Exit) if policy == LeaveRest => (Finished, Action::Finish),
        (Lingering { .. } | Leaving { .. } | Clearing, Empty) => (Finished, Action::Finish),

        (unchanged, _) => (unchanged, Action::None),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const POLICIES: [EndPolicy; 3] =
        [EndPolicy::KillRest, EndPolicy::WaitAll, EndPolicy::LeaveRest];

    fn graces(now: Instant) -> [Grace; 4] {
        let soon = now + Duration::from_secs(1);
        let later = now + Duration::from_secs(2);
        [Grace::Over, Grace::Until(soon), Grace::Until(later), Grace::Unlimited]
    }

    fn states(now: Instant) -> Vec<State> {
        let limit = Some(now + Duration::from_secs(3));
        let mut states = vec![
            State::Running { limit: None },
            State::Running { limit },
            State::Killing,
            State::Lingering { limit: None },
            State::Lingering { limit },
            State::Clearing,
            State::Finished,
        ];
        for grace in graces(now).into_iter().skip(1) {
            states.extend([State::Stopping { grace }, State::Leaving { grace }]);
        }
        states
    }

    fn inputs(now: Instant) -> Vec<Input> {
        let mut inputs = vec![Input::Kill, Input::GraceOver, Input::Exit, Input::Empty];
        for grace in graces(now) {
            inputs.extend([Input::Stop(grace), Input::StopWithin(grace), Input::TimeLimit(grace)]);
        }
        inputs
    }

    /// Calls `check` for every state, input and policy.
    fn all(mut check: impl FnMut(State, Input, EndPolicy, State, Action)) {
        let now = Instant::now();
        for policy in POLICIES {
            for state in states(now) {
                for input in inputs(now) {
                    let (after, action) = next(state, input, policy);
                    check(state, input, policy, after, action);
                }
            }
        }
    }

    #[test]
    fn finished_is_final_and_every_other_state_leads_there() {
        all(|state, input, policy, after, action| {
            let finishes = after == State::Finished && state != State::Finished;
            assert_eq!(action == Action::Finish, finishes);
            assert!(after.phase() >= state.phase(), "{state:?} {input:?} goes back to {after:?}");
            let killed = next(after, Input::Kill, policy).0;
            let exited = next(killed, Input::Exit, policy).0;
            assert_eq!(next(exited, Input::Empty, policy).0, State::Finished, "from {state:?}");
        });
    }

    #[test]
    fn nothing_changes_without_an_action_but_the_length_of_a_grace_period() {
        all(|state, input, _, after, action| {
            let shortened = matches!(
                (state, after),
                (State::Stopping { .. }, State::Stopping { .. })
                    | (State::Leaving { .. }, State::Leaving { .. })
            );
            assert!(
                after == state || action != Action::None || shortened,
                "{state:?} {input:?} changes without an action"
            );
        });
    }

    #[test]
    fn what_was_killed_can_be_killed_again_because_a_kill_can_fail() {
        all(|state, _, policy, _, _| {
            let (killed, _) = next(state, Input::Kill, policy);
            let again = if killed == State::Finished { Action::None } else { Action::Kill };
            assert_eq!(next(killed, Input::Kill, policy), (killed, again), "from {state:?}");
        });
    }

    #[test]
    fn a_second_stop_changes_nothing_and_a_sooner_one_shortens_the_grace_period() {
        let now = Instant::now();
        for policy in POLICIES {
            for state in states(now) {
                for grace in graces(now) {
                    let (stopped, _) = next(state, Input::Stop(grace), policy);
                    assert_eq!(next(stopped, Input::Stop(grace), policy), (stopped, Action::None));
                    let deadline = |state: State| match state {
                        State::Stopping { grace } | State::Leaving { grace } => Some(grace),
                        _ => None,
                    };
                    for other in graces(now) {
                        let (after, action) = next(stopped, Input::StopWithin(other), policy);
                        match (deadline(stopped), deadline(after)) {
                            (Some(before), Some(after)) => assert_eq!(after, before.min(other)),
                            (Some(_), None) => {
                                assert_eq!((other, action), (Grace::Over, Action::Kill));
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn only_a_job_that_nobody_stopped_leaves_anything_running() {
        all(|state, input, policy, after, _| {
            if after == State::Finished && state != State::Finished && input != Input::Empty {
                let not_stopped = matches!(state, State::Running { .. } | State::Lingering { .. });
                assert!(not_stopped, "{state:?}");
                assert_eq!((input, policy), (Input::Exit, EndPolicy::LeaveRest));
            }
        });
    }

    #[test]
    fn a_job_that_leaves_its_rest_may_have_waited_for_it_to_be_signalled() {
        let lingering = State::Lingering { limit: None };
        for policy in POLICIES {
            let expected = match policy {
                EndPolicy::LeaveRest => (State::Finished, Action::Finish),
                _ => (lingering, Action::None),
            };
            assert_eq!(next(lingering, Input::Exit, policy), expected);
        }
    }

    /// Not only the main process, whose end may be that of a shell.
    #[test]
    fn whoever_is_left_in_a_stop_has_the_rest_of_the_grace_period() {
        for policy in POLICIES {
            for grace in graces(Instant::now()).into_iter().skip(1) {
                let leaving = (State::Leaving { grace }, Action::SignalRest);
                assert_eq!(next(State::Stopping { grace }, Input::Exit, policy), leaving);
            }
        }
    }

    #[test]
    fn a_deadline_belongs_to_the_state_that_it_ends() {
        let now = Instant::now();
        let limit = now + Duration::from_secs(3);
        let running = State::Running { limit: Some(limit) };
        assert_eq!(running.deadline(), Some(Deadline::TimeLimit(limit)));
        // A time limit goes on while processes linger, but not once the job is stopped or killed.
        let (lingering, _) = next(running, Input::Exit, EndPolicy::WaitAll);
        assert_eq!(lingering.deadline(), Some(Deadline::TimeLimit(limit)));
        let grace = Grace::Until(now);
        let (stopping, _) = next(running, Input::Stop(grace), EndPolicy::WaitAll);
        assert_eq!(stopping.deadline(), Some(Deadline::Grace(now)));
        let (leaving, _) = next(stopping, Input::Exit, EndPolicy::WaitAll);
        assert_eq!(leaving.deadline(), Some(Deadline::Grace(now)));
        for state in states(now) {
            let (killed, _) = next(state, Input::Kill, EndPolicy::WaitAll);
            assert_eq!(killed.deadline(), None, "{state:?}");
        }
    }
}
