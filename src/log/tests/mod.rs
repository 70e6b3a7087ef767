//! The logs and tails over a kernel in memory. Many of these tests are for failures that the fuzzer
//! has found.

mod failures;
mod host;
mod names;
mod reading;
mod retention;

use std::collections::VecDeque;
use std::io;

use rustix::io::Errno;

use crate::id::TailId;
use crate::log::machine::{Call, Interference, byte};
use crate::log::options::{Position, TailOptions};
use crate::log::read::Read;
use crate::log::simulator::Engine;

fn engine(size: u64) -> Engine {
    let mut engine = Engine::new(1, 32);
    engine.create(0);
    engine.machine().files[0].append(size);
    engine
}

fn follow(engine: &mut Engine, position: Position) -> TailId {
    engine.open(0, TailOptions::new(position), 0).unwrap()
}

fn data(generation: u64, offsets: std::ops::Range<u64>) -> Vec<u8> {
    offsets.map(|offset| byte(generation, offset)).collect()
}

/// Reads all that is there, and returns the bytes and the result that came instead of more.
fn drain(engine: &mut Engine, tail: TailId) -> (Vec<u8>, io::Result<Read>) {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 7]);
    loop {
        match engine.read(tail, &mut buffer) {
            Ok(Read::Data(length)) => bytes.extend_from_slice(&buffer[..length]),
            other => return (bytes, other),
        }
    }
}

fn up_to_date(engine: &mut Engine, tail: TailId) -> Vec<u8> {
    let (bytes, answer) = drain(engine, tail);
    assert_eq!(answer.unwrap(), Read::UpToDate);
    bytes
}

fn fail_next(engine: &mut Engine) {
    engine.machine().script = VecDeque::from([Interference::Fail(5)]);
}

/// The errors with which a call can fail.
fn errnos(call: Call) -> &'static [Errno] {
    match call {
        Call::Open => {
            &[Errno::IO, Errno::MFILE, Errno::NFILE, Errno::ACCESS, Errno::STALE, Errno::NOENT]
        }
        Call::Len | Call::Unlink => &[Errno::IO, Errno::ACCESS, Errno::STALE, Errno::NOENT],
        Call::ReadAt | Call::Size | Call::Measure | Call::DataFrom => &[Errno::IO, Errno::STALE],
        Call::Punch => &[Errno::IO, Errno::NOSPC, Errno::PERM],
        Call::SetArmed => &[Errno::NOSPC, Errno::NOMEM, Errno::ACCESS, Errno::NOENT],
        Call::LookUp => &[Errno::IO, Errno::MFILE, Errno::NOSPC, Errno::NOMEM, Errno::STALE],
        Call::Nowhere => &[Errno::MFILE, Errno::NFILE, Errno::NOMEM],
    }
}
