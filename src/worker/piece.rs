//! Owns [`Piece`]: bytes of a log, shared by all who read them, and [`Memory`], in which they lie.
//!
//! Invariant: memory serves for other bytes only when nobody has those that were there. Knows
//! nothing of where bytes come from.

use std::iter::repeat_n;
use std::sync::Arc;

/// How many bytes a piece has at most.
pub(super) const PIECE: usize = 64 * 1024;

/// How much memory is allocated at least: most lines have room in it, so that one serves for the
/// next.
const LEAST: usize = 256;

/// How much memory is kept at most for what may come.
const KEPT: usize = 4096;

/// Bytes of a log, which no reader copies to share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Piece {
    /// Where they are in the log.
    pub(super) offset: u64,
    length: usize,
    memory: Memory,
}

/// Memory for a piece.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<[u8]>);

impl Piece {
    /// No bytes, at this offset.
    pub(super) fn none(offset: u64) -> Self {
        Self { offset, ..Self::default() }
    }

    /// A copy of these bytes, which are at this offset; in this memory, if they have room there.
    pub(super) fn copy(offset: u64, bytes: &[u8], mut memory: Memory) -> Self {
        match memory.free(bytes.len()) {
            Some(free) => free.copy_from_slice(bytes),
            None => memory = Memory::of(bytes),
        }
        Self { offset, length: bytes.len(), memory }
    }

    /// Fills it with so many bytes at this offset, in its own memory if they have room there.
    /// `read` reads them, and says whether they are good; otherwise there are none.
    pub(super) fn read<E>(
        &mut self,
        offset: u64,
        length: usize,
        read: impl FnOnce(&mut [u8]) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let mut memory = std::mem::take(&mut self.memory);
        if memory.free(length).is_none() {
            memory = Memory::new(length);
        }
        let Some(free) = memory.free(length) else { unreachable!("nobody else has it") };
        let read = read(free);
        let length = if matches!(read, Ok(true)) { length } else { 0 };
        *self = Self { offset, length, memory };
        read
    }

    /// Goes on at this offset, without bytes.
    pub(super) fn clear(&mut self, offset: u64) {
        (self.offset, self.length) = (offset, 0);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory.0[..self.length]
    }

    /// Where they end.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.length as u64
    }

    /// How much memory it takes.
    pub(super) fn size(&self) -> usize {
        self.memory.0.len()
    }

    /// Its memory, unless it is too large to be kept for what may come.
    pub(super) fn into_memory(self) -> Memory {
        if self.size() > KEPT { Memory::default() } else { self.memory }
    }
}

impl Memory {
    /// For so many bytes.
    fn new(length: usize) -> Self {
        Self(repeat_n(0, length.max(LEAST)).collect())
    }

    /// With these bytes in it.
    fn of(bytes: &[u8]) -> Self {
        if bytes.len() >= LEAST {
            return Self(bytes.into());
        }
        let mut memory = [0; LEAST];
        memory[..bytes.len()].copy_from_slice(bytes);
        Self(memory.into())
    }

    /// Room for so many bytes, if there is, and nobody else has what was there.
    fn free(&mut self, length: usize) -> Option<&mut [u8]> {
        Arc::get_mut(&mut self.0)?.get_mut(..length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_serves_again_once_nobody_has_the_bytes() {
        // By its size, because an allocator gives the same address again.
        let first = Piece::copy(0, &[b'1'; 1000], Memory::default());
        let reader = first.clone();
        let second = Piece::copy(1000, b"second", first.into_memory());
        assert_eq!(second.size(), LEAST, "a reader has the other one");
        assert_eq!((reader.bytes(), reader.end()), (&[b'1'; 1000][..], 1000));
        let third = Piece::copy(1006, b"third", reader.into_memory());
        assert_eq!((third.bytes(), third.size()), (&b"third"[..], 1000));
        // There is no room in it.
        let large = Piece::copy(1011, &[b'x'; 2000], third.into_memory());
        assert_eq!((large.bytes(), large.size()), (&[b'x'; 2000][..], 2000));
    }

    #[test]
    fn the_memory_of_a_burst_is_not_kept() {
        let burst = Piece::copy(0, &[b'x'; PIECE], Memory::default());
        assert_eq!(burst.into_memory().0.len(), 0);
    }

    #[test]
    fn a_read_that_fails_leaves_no_bytes_and_the_next_one_has_the_memory() {
        let mut piece = Piece::none(7);
        let fill = |buffer: &mut [u8]| {
            buffer.fill(b'x');
            Ok::<_, ()>(true)
        };
        assert_eq!(piece.read(7, 1000, fill), Ok(true));
        for refused in [Ok(false), Err(())] {
            assert_eq!(piece.read(1007, 2, |_| refused), refused);
            assert_eq!((piece.bytes(), piece.end()), (&b""[..], 1007));
        }
        assert_eq!(piece.read(1007, 2, fill), Ok(true));
        assert_eq!((piece.bytes(), piece.size()), (&b"xx"[..], 1000));
        // What somebody has kept stays.
        let kept = piece.clone();
        assert_eq!(piece.read(1009, 2, |_| Ok::<_, ()>(false)), Ok(false));
        assert_eq!(kept.bytes(), b"xx");
    }
}
