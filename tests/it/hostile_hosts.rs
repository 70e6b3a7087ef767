//! Hosts that misbehave or live in unusual surroundings: forks, reaped children, containers, closed
//! standard streams. Each case is defined, and shown here.
