//! Holds descriptors for a host that may die: with the pidfds of its jobs, the next host finds out
//! how a job has ended while there was none (Linux 6.15). Where systemd runs the host, its file
//! descriptor store does the same.
//!
//! ```sh
//! cargo run --release --example keeper -- /run/user/$UID/keeper.sock &
//! cargo run --release --example agent -- ~/agent --keeper /run/user/$UID/keeper.sock
//! ```
//!
//! # What to look at
//! * **It does next to nothing**, so that it has no reason to die: no job, no log, no state but the
//!   descriptors. It must not be in the cgroup or the service of the host.
//! * **It needs no program of its own.** A host can call [`Keeper::run`] as well when it is started
//!   with a certain word.
//! * **A bounded number.** A host that never lets go of what it has given finds no room at some
//!   point. The limit of open files is raised to what this takes, as far as it may be.

use std::path::PathBuf;

use clap::Parser;
use jobworker::Keeper;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors of its own.
const OWN: u64 = 16;

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
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = (options.most as u64).saturating_add(OWN);
    if current.is_some_and(|current| current < wanted) {
        let current = Some(maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    }
    let mut keeper = Keeper::bind(&options.socket)?;
    keeper.most(options.most);
    println!("keeping descriptors on {}", options.socket.display());
    let Err(error) = keeper.run();
    Err(error.into())
}
