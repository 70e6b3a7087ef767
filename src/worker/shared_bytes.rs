//! Owns how a piece of a log becomes a [`Bytes`], with the feature `bytes`.
//!
//! Invariant: nothing is copied. Knows nothing of where pieces come from.

use bytes::Bytes;

use crate::worker::piece::Piece;

/// A piece, as the owner of its bytes.
struct Shared(Piece);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// The last `length` bytes of a piece.
pub(super) fn last_of(piece: &Piece, length: usize) -> Bytes {
    let all = Bytes::from_owner(Shared(piece.clone()));
    let skip = all.len() - length;
    all.slice(skip..)
}
