//! Owns random UUIDs, from the kernel.

use std::io;

use uuid::Uuid;

use crate::error::{Error, Result};

/// A random UUID (version 4) from the kernel.
pub(crate) fn random_uuid() -> Result<Uuid> {
    let mut bytes = [0u8; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(Error::event_loop("get random bytes"))?;
    // Reads of up to 256 bytes are never short once the pool is initialised; see getrandom(2).
    if filled < bytes.len() {
        return Err(Error::event_loop("get random bytes")(io::Error::from(
            io::ErrorKind::UnexpectedEof,
        )));
    }
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}
