//! Owns [`Message`]: what a host and a keeper say to each other, over a Unix socket that keeps
//! messages apart.
//!
//! | message | who sends it | what it says |
//! |---|---|---|
//! | `keeper 1` | the keeper | it serves this host, in this version of the protocol |
//! | `keep JOB` with a descriptor | the host | hold this, instead of what there is of the job |
//! | `drop JOB` | the host | close what there is of the job |
//! | `drop-others` | the host | close all that this connection was not given |
//! | `give` | the host | hand out a copy of everything |
//! | `held JOB` with a descriptor | the keeper | this is one of them |
//! | `done` | the keeper | that was all |
//! | `full JOB` | the keeper | there is no room for what was to be held |
//!
//! Invariant: what is no message is an error, and its descriptors are closed. A keeper outlives the
//! version of the crate that has started it, so that another meaning takes another number.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socket_with,
};

use crate::id::JobId;

/// How long a message may be, in bytes.
const LONGEST: usize = 64;

/// What is said. The descriptor comes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Keeper,
    Keep(JobId),
    Drop(JobId),
    DropOthers,
    Give,
    Held(JobId),
    Done,
    Full(JobId),
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keeper => f.write_str("keeper 1"),
            Self::Keep(job) => write!(f, "keep {job}"),
            Self::Drop(job) => write!(f, "drop {job}"),
            Self::DropOthers => f.write_str("drop-others"),
            Self::Give => f.write_str("give"),
            Self::Held(job) => write!(f, "held {job}"),
            Self::Done => f.write_str("done"),
            Self::Full(job) => write!(f, "full {job}"),
        }
    }
}

impl Message {
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let message = match text.split_once(' ') {
            None => match text {
                "drop-others" => Self::DropOthers,
                "give" => Self::Give,
                "done" => Self::Done,
                _ => return None,
            },
            Some(("keeper", "1")) => Self::Keeper,
            Some((word, job)) => {
                let job = job.parse().ok()?;
                match word {
                    "keep" => Self::Keep(job),
                    "drop" => Self::Drop(job),
                    "held" => Self::Held(job),
                    "full" => Self::Full(job),
                    _ => return None,
                }
            }
        };
        Some(message)
    }

    /// Sends it, with a copy of this descriptor.
    pub(super) fn send(
        self,
        to: impl AsFd,
        descriptor: Option<BorrowedFd<'_>>,
        flags: SendFlags,
    ) -> Result<(), Errno> {
        let text = self.to_string();
        retry_on_intr(|| {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors = descriptor.as_slice();
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            let parts = [IoSlice::new(text.as_bytes())];
            sendmsg(&to, &parts, &mut control, flags | SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }

    /// The next message; `None` when the other end is closed. A descriptor for which this process
    /// has no room is missing.
    pub(super) fn receive(
        from: impl AsFd,
        flags: RecvFlags,
    ) -> Result<Option<(Self, Option<OwnedFd>)>, Errno> {
        // A longer one has a byte more, and is none that there is.
        let mut text = [0; LONGEST + 1];
        let mut descriptor = None;
        let received = retry_on_intr(|| {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let parts = &mut [IoSliceMut::new(&mut text)];
            let received = recvmsg(&from, parts, &mut control, flags | RecvFlags::CMSG_CLOEXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    descriptor = descriptors.last().or(descriptor.take());
                }
            }
            Ok(received)
        })?;
        if received.bytes == 0 {
            return Ok(None);
        }
        let text = text.get(..received.bytes).unwrap_or_default();
        let message = Self::parse(text).ok_or(Errno::PROTO)?;
        Ok(Some((message, descriptor)))
    }
}

/// A socket that keeps messages apart.
pub(super) fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let (family, flags) = (AddressFamily::UNIX, flags | SocketFlags::CLOEXEC);
    Ok(socket_with(family, SocketType::SEQPACKET, flags, None)?)
}

#[cfg(test)]
mod tests {
    use rustix::net::{send, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    #[test]
    fn every_message_arrives_as_it_was_sent() {
        let (host, keeper) = pair();
        let job = JobId::new(uuid::Uuid::from_u128(7));
        for message in [
            Message::Keeper,
            Message::Keep(job),
            Message::Drop(job),
            Message::DropOthers,
            Message::Give,
            Message::Held(job),
            Message::Done,
            Message::Full(job),
        ] {
            assert!(message.to_string().len() <= LONGEST);
            for descriptor in [None, Some(host.as_fd())] {
                message.send(&host, descriptor, SendFlags::empty()).unwrap();
                let received = Message::receive(&keeper, RecvFlags::empty()).unwrap();
                let (received, with) = received.unwrap();
                assert_eq!((received, with.is_some()), (message, descriptor.is_some()));
            }
        }
        let nothing = Message::receive(&keeper, RecvFlags::empty());
        assert_eq!(nothing.unwrap_err(), Errno::WOULDBLOCK);
        drop(host);
        assert!(Message::receive(&keeper, RecvFlags::empty()).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let (host, keeper) = pair();
        let id = JobId::new(uuid::Uuid::nil());
        for text in [
            "x".to_owned(),
            "keep".to_owned(),
            "keep ".to_owned(),
            "keep x".to_owned(),
            "give me".to_owned(),
            "keeper 2".to_owned(),
            format!("keep {id} "),
            format!("keep {id}{}", " ".repeat(1000)),
            format!("steal {id}"),
        ] {
            send(&host, text.as_bytes(), SendFlags::empty()).unwrap();
            let received = Message::receive(&keeper, RecvFlags::empty());
            assert_eq!(received.unwrap_err(), Errno::PROTO, "{text}");
        }
        send(&host, b"keep \xff", SendFlags::empty()).unwrap();
        assert_eq!(Message::receive(&keeper, RecvFlags::empty()).unwrap_err(), Errno::PROTO);
    }
}
