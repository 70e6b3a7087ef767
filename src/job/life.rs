//! Owns the life of a job as a table: [`next`] maps a state and an input to the next state and what
//! to do.
//!
//! Invariant: every path ends in [`State::Finished`], and no input leads out of it. Pure: it does
//! no I/O and knows no clock; who carries the actions out is told what happened by inputs alone.

use crate::command::EndPolicy;
use crate::event::Phase;

/// How far a job has come, in the detail that decides what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The main process runs.
    Running,
    /// The main process runs; the stop signal was sent and the grace period runs.
    Stopping,
    /// The main process runs, but everything was killed.
    Killing,
    /// The main process is gone; the others may take their time.
    Lingering,
    /// The main process is gone; the others were sent the stop signal and the grace period runs.
    Leaving,
    /// The main process is gone; what is left of the others is killed.
    Clearing,
    /// Nothing is left.
    Finished,
}

/// What can happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The host or the time limit wants it stopped.
    Stop,
    /// The host wants it killed.
    Kill,
    /// The grace period is over.
    GraceOver,
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
    /// Send the stop signal to all and start the grace period.
    Signal,
    /// Kill all, and look whether anything is left.
    Kill,
    /// Look whether anything is left; if so, kill it.
    KillRest,
    /// Look whether anything is left; if so, wait for it.
    AwaitRest,
    /// Clean up and report.
    Finish,
}

impl State {
    /// The state as the host sees it.
    pub(crate) fn phase(self) -> Phase {
        match self {
            Self::Running => Phase::Running,
            Self::Stopping | Self::Killing => Phase::Stopping,
            Self::Lingering | Self::Leaving | Self::Clearing => Phase::Exited,
            Self::Finished => Phase::Finished,
        }
    }
}

/// The table. What is not in it changes nothing: a second stop, a stop during exit, a late timer.
pub(crate) fn next(state: State, input: Input, policy: EndPolicy) -> (State, Action) {
    use EndPolicy::{KillRest, LeaveRest, WaitAll};
    match (state, input, policy) {
        (State::Running, Input::Stop, _) => (State::Stopping, Action::Signal),
        (State::Running | State::Stopping, Input::Kill, _) => (State::Killing, Action::Kill),
        (State::Stopping, Input::GraceOver, _) => (State::Killing, Action::Kill),

        (State::Running | State::Stopping, Input::Exit, KillRest) => {
            (State::Clearing, Action::KillRest)
        }
        (State::Running, Input::Exit, WaitAll) => (State::Lingering, Action::AwaitRest),
        (State::Running, Input::Exit, LeaveRest) => (State::Finished, Action::Finish),
        // Whoever stops a job means all of it, whatever it would have left behind by itself.
        (State::Stopping, Input::Exit, WaitAll | LeaveRest) => (State::Leaving, Action::AwaitRest),
        (State::Killing, Input::Exit, _) => (State::Clearing, Action::KillRest),

        (State::Lingering, Input::Stop, _) => (State::Leaving, Action::Signal),
        (State::Lingering | State::Leaving, Input::Kill, _) => (State::Clearing, Action::Kill),
        (State::Leaving, Input::GraceOver, _) => (State::Clearing, Action::Kill),
        (State::Lingering | State::Leaving | State::Clearing, Input::Empty, _) => {
            (State::Finished, Action::Finish)
        }

        (unchanged, _, _) => (unchanged, Action::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 7] = [
        State::Running,
        State::Stopping,
        State::Killing,
        State::Lingering,
        State::Leaving,
        State::Clearing,
        State::Finished,
    ];
    const INPUTS: [Input; 5] =
        [Input::Stop, Input::Kill, Input::GraceOver, Input::Exit, Input::Empty];
    const POLICIES: [EndPolicy; 3] =
        [EndPolicy::KillRest, EndPolicy::WaitAll, EndPolicy::LeaveRest];

    #[test]
    fn finished_is_final_and_every_other_state_leads_there() {
        for policy in POLICIES {
            for state in STATES {
                for input in INPUTS {
                    let (after, action) = next(state, input, policy);
                    assert_eq!(
                        action == Action::Finish,
                        after == State::Finished && state != State::Finished
                    );
                    assert!(
                        after == state || action != Action::None,
                        "{state:?} {input:?} changes without an action"
                    );
                    assert!(
                        after.phase() >= state.phase(),
                        "{state:?} {input:?} goes back to {after:?}"
                    );
                }
                let killed = next(state, Input::Kill, policy).0;
                let exited = next(killed, Input::Exit, policy).0;
                assert_eq!(next(exited, Input::Empty, policy).0, State::Finished, "from {state:?}");
            }
        }
    }

    #[test]
    fn a_second_stop_changes_nothing() {
        for policy in POLICIES {
            for state in STATES {
                let (stopped, _) = next(state, Input::Stop, policy);
                assert_eq!(next(stopped, Input::Stop, policy), (stopped, Action::None));
            }
        }
    }

    #[test]
    fn only_a_job_that_nobody_stopped_leaves_anything_running() {
        let (after, action) = next(State::Running, Input::Exit, EndPolicy::LeaveRest);
        assert_eq!((after, action), (State::Finished, Action::Finish));
        for state in [State::Stopping, State::Killing] {
            assert_ne!(next(state, Input::Exit, EndPolicy::LeaveRest).0, State::Finished);
        }
    }
}
