//! Holds descriptors for a host that may die: with the pidfds of its jobs, the next host finds out
//! how a job has ended while there was none (Linux 6.15). Where systemd runs the host, its file
//! descriptor store does the same.
//!
//! ```sh
//! cargo run --release --example keeper -- /run/user/$UID/keeper.sock &
//! cargo run --release --example agent -- ~/agent --keeper /run/user/$UID/keeper.sock
//! ```
//!
//! The protocol is in `common/keeping.rs`: `agent` speaks it.
//!
//! # What to look at
//! * **It does next to nothing**, so that it has no reason to die: no job, no log, no state but the
//!   descriptors. It must not be in the cgroup or the service of the host.
//! * **One host at a time.** It serves a connection until that is closed, which the kernel does
//!   when the host dies. The next one waits until then.
//! * **A bounded number.** A host that never lets go of what it has given is refused at some point.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use rustix::fs::Mode;
use rustix::io::retry_on_intr;
use rustix::net::{SocketAddrUnix, accept_with, bind, listen};
use rustix::process::umask;

// What the host's end needs is used by the host alone.
#[allow(dead_code)]
#[path = "common/keeping.rs"]
mod keeping;

/// Holds descriptors for a host that may die, and hands them to the next one.
#[derive(Parser)]
#[command(name = "keeper")]
struct Options {
    /// Where to make the socket. Only you can connect to it.
    socket: PathBuf,
    /// How many descriptors are held at most.
    #[arg(long, value_name = "N", default_value = "1000")]
    most: usize,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    // What is left of an earlier keeper that has died.
    let _ = fs::remove_file(&options.socket);
    umask(Mode::from_raw_mode(0o077));
    let listener = keeping::socket()?;
    let name = || options.socket.display().to_string();
    bind(&listener, &SocketAddrUnix::new(&options.socket)?).with_context(name)?;
    listen(&listener, 16).with_context(name)?;
    println!("keeping descriptors on {}", options.socket.display());
    let mut held = BTreeMap::new();
    loop {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let host = retry_on_intr(|| accept_with(&listener, flags))?;
        // A host that dies in the middle of a message is as good as one that has closed its end.
        if let Err(error) = keeping::serve(&host, &mut held, options.most) {
            eprintln!("keeper: {error}");
        }
        eprintln!("keeper: the host has left, {} descriptors are held", held.len());
    }
}
