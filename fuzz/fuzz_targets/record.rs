//! Owns the fuzz target `record`: what is decoded of a record that somebody else may have written.
//!
//! Invariant: whatever the bytes are, nothing panics; what is accepted has one meaning, which
//! survives being written again; what was cut off, lengthened or changed is refused, unless its
//! frame was made anew.

#![no_main]

use arbitrary::Arbitrary;
use jobworker::simulator::record;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    content: Vec<u8>,
    /// Whether the content gets a frame of its own: magic, version, length and checksum.
    framed: bool,
    /// What is done to the frame.
    damage: Damage,
}

#[derive(Arbitrary, Debug)]
enum Damage {
    None,
    CutOff(u16),
    Longer(u8),
    Changed(u16, u8),
    Version(u8),
}

fuzz_target!(|input: Input| {
    let whole = if input.framed { record::framed(&input.content) } else { input.content.clone() };
    let Some(written) = record::rewritten(&whole) else { return };
    // What is written again means the same for good.
    assert_eq!(record::rewritten(&written), Some(written));

    let mut bytes = whole.clone();
    match input.damage {
        Damage::None => return,
        Damage::CutOff(length) => bytes.truncate(usize::from(length) % bytes.len()),
        Damage::Longer(byte) => bytes.push(byte),
        Damage::Changed(place, bits) => {
            let place = usize::from(place) % bytes.len();
            bytes[place] ^= bits.max(1);
        }
        Damage::Version(version) => bytes[9] = bytes[9].wrapping_add(version.max(1)),
    }
    assert_eq!(record::rewritten(&bytes), None, "{bytes:?}");
});
