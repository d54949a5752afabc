//! A TCP connection between two ranks, on which messages go: a kind, a length, and bytes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// To rank 0: who is there ([`Hello`](super::hello::Hello)).
    Hello = 1,
    /// To all: everybody's hello.
    Roster,
    /// To one that may not take part, or to all where one does not fit or did not come: why.
    Refused,
    /// The sender is alive, and how far it is.
    Beat,
    /// To rank 0: the sender cannot go on, and why.
    Failed,
    /// To all: the run is over; the number of a rank that is stuck, if it is for that.
    Over,
    /// The sender has come to the end of its work.
    End,
    /// A part of an exchange.
    Message,
}

const KINDS: [Kind; 8] =
    [Kind::Hello, Kind::Roster, Kind::Refused, Kind::Beat, Kind::Failed, Kind::Over, Kind::End, Kind::Message];

/// What begins every message: somebody else may call at our port, or answer at theirs.
const MARK: [u8; 3] = *b"hbt";

/// Longest time for which a message waits to be taken by the system.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The end of a connection. Any thread may send; one receives.
pub struct Link {
    stream: TcpStream,
    sending: Mutex<()>,
}

impl Link {
    /// A link over a stream.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Link { stream, sending: Mutex::new(()) })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the other end is gone, or takes nothing.
    ///
    /// # Panics
    /// If it has 4 GiB or more.
    pub fn send(&self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).expect("dist: messages of less than 4 GiB");
        let mut message = Vec::with_capacity(8 + bytes.len());
        message.extend(MARK);
        message.push(kind as u8);
        message.extend(len.to_le_bytes());
        message.extend(bytes);
        let _guard = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.stream).write_all(&message)
    }

    /// Waits for the next message, of at most `most` bytes.
    ///
    /// # Errors
    /// If the other end is gone, or is none of ours.
    pub fn receive(&self, most: usize) -> io::Result<(Kind, Vec<u8>)> {
        let mut head = [0; 8];
        (&self.stream).read_exact(&mut head)?;
        let [m0, m1, m2, kind, len @ ..] = head;
        let len = u32::from_le_bytes(len) as usize;
        let kind = KINDS.into_iter().find(|known| *known as u8 == kind).filter(|_| [m0, m1, m2] == MARK && len <= most);
        let kind = kind.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no process of hbt's"))?;
        // As much memory as comes, not as much as is said.
        let mut bytes = Vec::new();
        (&self.stream).take(len as u64).read_to_end(&mut bytes)?;
        if bytes.len() == len { Ok((kind, bytes)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Makes [`Link::receive`] fail if nothing comes for that long; `None`: never.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (Link, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Link::new(listener.accept().unwrap().0).unwrap(), stream)
    }

    #[test]
    fn messages_arrive_whole_and_in_order() {
        let (link, stream) = pair();
        let other = Link::new(stream).unwrap();
        let long: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        let sent = [(Kind::Beat, vec![]), (Kind::Message, long), (Kind::End, vec![7])];
        let received: Vec<_> = std::thread::scope(|scope| {
            scope.spawn(|| sent.iter().for_each(|(kind, bytes)| other.send(*kind, bytes).unwrap()));
            (0..3).map(|_| link.receive(usize::MAX).unwrap()).collect()
        });
        assert_eq!(received, sent);
    }

    #[test]
    fn what_others_send_is_no_message() {
        let error = |bytes: &[u8]| {
            let (link, mut stream) = pair();
            stream.write_all(bytes).unwrap();
            drop(stream);
            link.receive(100).unwrap_err().kind()
        };
        let (invalid, ended) = (io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof);
        assert_eq!(error(b"GET / HTTP/1.1\r\n\r\n"), invalid);
        assert_eq!(error(b"hbt\x08\xff\xff\xff\xff"), invalid, "too long");
        assert_eq!(error(b"hbt\x09\0\0\0\0"), invalid, "no such kind");
        assert_eq!(error(b"hbt\x08\x05\0\0\0four"), ended);
        assert_eq!(error(b"hbt"), ended);
        assert_eq!(error(b""), ended);
    }

    #[test]
    fn patience_ends() {
        let (link, _stream) = pair();
        link.set_patience(Some(Duration::from_millis(10))).unwrap();
        let kind = link.receive(100).unwrap_err().kind();
        assert!(matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{kind:?}");
    }
}
