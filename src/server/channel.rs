//! The line between two generations of the process: messages, and descriptors that ride along.
//!
//! A pair of `SOCK_SEQPACKET` sockets, so that a message is whole or not there, and the end of a process is the end of the line.
//! Messages are JSON: a generation may be of another version. What each side says, in order:
//!
//! | successor | predecessor |
//! |---|---|
//! | `hello`: it knows how to take over | |
//! | | `take`: sockets, several times where there are many |
//! | `prepared`: configuration compiled, sockets adopted, health checks begun | |
//! | | `serve` |
//! | `serving`: it accepts | |
//! | | `main`: the service manager knows; from here on the predecessor stops accepting |

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use serde::{Deserialize, Serialize};

/// One end of the line.
pub struct Channel(OwnedFd);

/// What is said on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "camelCase")]
pub enum Word {
    /// The successor is there.
    Hello {
        /// Its process.
        pid: u32,
        /// Its version, for the log.
        version: String,
    },
    /// Descriptors, in this order; more follow in further messages.
    Take {
        /// What each is.
        things: Vec<Thing>,
        /// Whether this was not all.
        more: bool,
    },
    /// The successor could serve.
    Prepared,
    /// It may.
    Serve,
    /// It does.
    Serving,
    /// It is the main process now.
    Main,
}

/// What a descriptor is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase")]
pub enum Thing {
    /// A socket that an entry point listens on.
    Listener {
        /// Name of the entry point.
        name: String,
        /// Its address as the configuration says it.
        address: String,
        /// Whether the service manager keeps it too, and listens on when we do not.
        #[serde(default)]
        shared: bool,
    },
    /// A line to a generation that may be draining still; it ends with it.
    Elder,
    /// A pipe that holds the secrets of session tickets: they are read once and are nowhere else.
    Tickets,
    /// Standard error as it was before the predecessor listened in.
    Stderr,
}

/// How long saying something may take.
const SAYING: Duration = Duration::from_secs(10);
/// Descriptors in one message; the kernel takes 253.
const BATCH: usize = 64;
/// The longest message. A label is far below 500 bytes.
const LONGEST: usize = 64 * 1024;

impl Channel {
    /// Both ends; closed in programs that are started later, unless handed to them.
    pub fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // A program that does not listen must not hold the process up.
        sockopt::set_socket_timeout(&ours, sockopt::Timeout::Send, Some(SAYING))?;
        Ok((Channel(ours), theirs))
    }

    /// An end that was handed over.
    ///
    /// # Errors
    /// When it is no such socket.
    pub fn from(fd: OwnedFd) -> io::Result<Channel> {
        match sockopt::socket_type(&fd)? {
            SocketType::SEQPACKET => Ok(Channel(fd)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not the line of an upgrade")),
        }
    }

    /// Says a word.
    pub fn say(&self, word: &Word) -> io::Result<()> {
        self.send(word, &[])
    }

    /// Hands descriptors over, however many.
    pub fn hand_over(&self, things: &[(Thing, BorrowedFd<'_>)]) -> io::Result<()> {
        let mut batches = things.chunks(BATCH).peekable();
        while let Some(batch) = batches.next() {
            let labels = batch.iter().map(|(thing, _)| thing.clone()).collect();
            let fds: Vec<BorrowedFd<'_>> = batch.iter().map(|(_, fd)| *fd).collect();
            self.send(&Word::Take { things: labels, more: batches.peek().is_some() }, &fds)?;
        }
        if things.is_empty() {
            self.say(&Word::Take { things: Vec::new(), more: false })?;
        }
        Ok(())
    }

    /// Takes what the other side hands over.
    pub fn take(&self, limit: Duration) -> io::Result<Vec<(Thing, OwnedFd)>> {
        let mut all = Vec::new();
        loop {
            match self.receive(limit)? {
                Some((Word::Take { things, more }, fds)) if things.len() == fds.len() => {
                    all.extend(things.into_iter().zip(fds));
                    if !more {
                        return Ok(all);
                    }
                }
                Some((word, _)) => return Err(unexpected(&word)),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// The next word; `None` when the other side is gone.
    ///
    /// # Errors
    /// `TimedOut` after the limit; `InvalidData` for what is no word.
    pub fn hear(&self, limit: Duration) -> io::Result<Option<Word>> {
        Ok(self.receive(limit)?.map(|(word, _)| word))
    }

    /// Whether the process at the other end is gone.
    pub fn is_over(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let polled = poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }));
        polled.is_err() || fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    fn send(&self, word: &Word, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(word)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("too many descriptors in one message"));
        }
        sendmsg(&self.0, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn receive(&self, limit: Duration) -> io::Result<Option<(Word, Vec<OwnedFd>)>> {
        sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, Some(limit.max(Duration::from_millis(1))))?;
        let mut text = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut into = [IoSliceMut::new(&mut text)];
            match recvmsg(&self.0, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => break received,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                // The other process ended with words of ours unread.
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                fds.extend(more);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        let word = serde_json::from_slice(&text[..received.bytes])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some((word, fds)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The other side said something else than it should have.
pub fn unexpected(word: &Word) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected: {word:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn any_number_of_sockets_arrives_in_order() {
        for count in [0, 1, BATCH, 2 * BATCH + 3] {
            let (ours, theirs) = Channel::pair().expect("a pair");
            let theirs = Channel::from(theirs).expect("the line");
            let sockets: Vec<_> =
                (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("bound")).collect();
            let address = |socket: &std::net::TcpListener| socket.local_addr().expect("bound").to_string();
            let label = |at: &std::net::TcpListener| Thing::Listener {
                name: "web".into(),
                address: address(at),
                shared: false,
            };
            let things: Vec<_> = sockets.iter().map(|socket| (label(socket), socket.as_fd())).collect();
            ours.hand_over(&things).expect("handed over");
            let taken = theirs.take(LIMIT).expect("taken");
            assert_eq!(taken.len(), count);
            for (socket, (thing, fd)) in sockets.iter().zip(taken) {
                let adopted = std::net::TcpListener::from(fd);
                assert_eq!((&thing, address(&adopted)), (&label(socket), address(socket)));
            }
        }
    }

    #[test]
    fn the_end_of_the_other_side_is_noticed() {
        let (ours, theirs) = Channel::pair().expect("a pair");
        assert!(!ours.is_over());
        assert_eq!(ours.hear(Duration::from_millis(5)).expect_err("nothing").kind(), io::ErrorKind::TimedOut);
        drop(theirs);
        assert!(ours.is_over());
        assert_eq!(ours.hear(LIMIT).expect("an end"), None);
        assert!(ours.say(&Word::Serve).is_err());
    }

    #[test]
    fn another_program_on_the_line_is_told_apart() {
        let (ours, theirs) = Channel::pair().expect("a pair");
        rustix::net::send(&theirs, b"hi there", SendFlags::empty()).expect("sent");
        assert_eq!(ours.hear(LIMIT).expect_err("no word").kind(), io::ErrorKind::InvalidData);
        let (stream, _) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert!(Channel::from(stream.into()).is_err());
    }
}
