//! Owns how a piece of a log becomes a [`Bytes`], with the feature `bytes`.
//!
//! Invariant: nothing is copied. Knows nothing of where pieces come from.

use std::sync::Arc;

use bytes::Bytes;

/// A piece, as the owner of its bytes.
struct Shared(Arc<[u8]>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The last `length` bytes of a piece.
pub(super) fn last_of(piece: &Arc<[u8]>, length: usize) -> Bytes {
    let all = Bytes::from_owner(Shared(Arc::clone(piece)));
    all.slice(piece.len() - length..)
}
