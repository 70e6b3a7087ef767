//! Descriptors that outlive the process that opened them, in another process: messages over a Unix
//! socket, each a word, a name and, where it says so, a descriptor.
//!
//! | message | who sends it | what it says |
//! |---|---|---|
//! | `keep NAME` with a descriptor | the host | hold this, instead of what has the name |
//! | `drop NAME` | the host | close what has the name |
//! | `give` | the host | hand out a copy of everything |
//! | `held NAME` with a descriptor | the keeper | this is one of them |
//! | `done` | the keeper | that was all |

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg,
    sendmsg, socket_with,
};

/// How long a message may be.
const LONGEST: usize = 128;

/// A socket that keeps messages apart.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
    Ok(socket_with(family, SocketType::SEQPACKET, flags, None)?)
}

pub(crate) fn send(to: impl AsFd, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.as_slice();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(to, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message; `None` when the other end is closed.
pub(crate) fn receive(from: impl AsFd) -> io::Result<Option<(String, Option<OwnedFd>)>> {
    let (mut space, mut text) = ([MaybeUninit::uninit(); cmsg_space!(ScmRights(1))], [0; LONGEST]);
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut text)];
    let received = recvmsg(from, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fd = fds.last().or(fd);
        }
    }
    let text = String::from_utf8_lossy(&text[..received.bytes]).into_owned();
    Ok((!text.is_empty()).then_some((text, fd)))
}

/// The host's end of a connection to a keeper.
pub(crate) struct Keeping(OwnedFd);

impl Keeping {
    /// Waits while another host is connected.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    pub(crate) fn keep(&self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        send(&self.0, &format!("keep {name}"), Some(fd))
    }

    pub(crate) fn forget(&self, name: &str) -> io::Result<()> {
        send(&self.0, &format!("drop {name}"), None)
    }

    /// A copy of everything that is held, by name.
    pub(crate) fn held(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        send(&self.0, "give", None)?;
        let mut held = Vec::new();
        loop {
            match receive(&self.0)?.ok_or(ErrorKind::UnexpectedEof)? {
                (text, _) if text == "done" => return Ok(held),
                (text, Some(fd)) => {
                    held.push((text.strip_prefix("held ").unwrap_or(&text).to_owned(), fd));
                }
                (text, None) => return Err(io::Error::other(format!("the keeper says {text:?}"))),
            }
        }
    }
}

/// Serves a host until it closes its end.
pub(crate) fn serve(
    host: &OwnedFd,
    held: &mut BTreeMap<String, OwnedFd>,
    most: usize,
) -> io::Result<()> {
    while let Some((text, fd)) = receive(host)? {
        let (word, name) = text.split_once(' ').unwrap_or((&text, ""));
        match (word, fd) {
            ("keep", Some(_)) if held.len() >= most && !held.contains_key(name) => {
                return Err(io::Error::other(format!("{most} descriptors are held already")));
            }
            ("keep", Some(fd)) => drop(held.insert(name.to_owned(), fd)),
            ("drop", _) => drop(held.remove(name)),
            ("give", _) => {
                for (name, fd) in held.iter() {
                    send(host, &format!("held {name}"), Some(fd.as_fd()))?;
                }
                send(host, "done", None)?;
            }
            _ => return Err(io::Error::other(format!("the host says {text:?}"))),
        }
    }
    Ok(())
}
