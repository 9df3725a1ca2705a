//! The client: as little work a request as there can be, so that the server is what is measured.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::case::Renew;

/// How many requests are under way at a time, each on a connection of its own.
const CONNECTIONS: usize = 64;

/// More than any answer has.
const BUFFER: usize = 16 * 1024;

/// A server may be slow, but not for ever.
const TIME_OUT: Duration = Duration::from_secs(30);

/// Connections that stay open, each with one request under way: no pipelining.
///
/// One thread serves them, one half after the other. It sleeps until the last request of a half is
/// answered, and handles that half while the server has the other one to do: to wake a thread of
/// another core costs the server more than a request, and would count as the server's own work.
pub(crate) struct Load {
    halves: [Vec<Connection>; 2],
    requests: Vec<Vec<u8>>,
    /// The request to send next.
    next: usize,
    /// Makes the request that takes the place of the answered one, if it is not sent again.
    renew: Option<Renew>,
}

impl Load {
    pub(crate) fn connect(
        server: SocketAddr,
        requests: Vec<Vec<u8>>,
        renew: Option<Renew>,
    ) -> io::Result<Self> {
        let half =
            || (0..CONNECTIONS / 2).map(|_| Connection::open(server)).collect::<io::Result<_>>();
        Ok(Self { halves: [half()?, half()?], requests, next: 0, renew })
    }

    /// The body that one request brings.
    pub(crate) fn ask(&mut self) -> io::Result<String> {
        let body = self.exchange(0)?;
        String::from_utf8(body.to_vec()).map_err(|error| invalid(&error.to_string()))
    }

    /// Makes `count` requests, one after the other; how long each took.
    pub(crate) fn one_by_one(&mut self, count: usize) -> io::Result<Vec<Duration>> {
        let one = |_| {
            let (number, start) = (self.next, Instant::now());
            self.exchange(number)?;
            self.next = (number + 1) % self.requests.len();
            Ok(start.elapsed())
        };
        (0..count).map(one).collect()
    }

    fn exchange(&mut self, number: usize) -> io::Result<&[u8]> {
        let connection = &mut self.halves[0][0];
        connection.send(&self.requests[number])?;
        connection.request = number;
        let body = connection.receive()?;
        follow(&mut self.requests[number], self.renew, body)?;
        Ok(body)
    }

    /// Makes at least `count` requests, whole halves of them; how many, and how long they took.
    pub(crate) fn run(&mut self, count: usize) -> io::Result<(usize, Duration)> {
        let start = Instant::now();
        let (mut sent, mut received) = (0, 0);
        for half in (0..2).cycle() {
            if sent >= CONNECTIONS {
                // The server answers in about the order of the requests.
                for connection in self.halves[half].iter_mut().rev() {
                    let number = connection.request;
                    let body = connection.receive()?;
                    follow(&mut self.requests[number], self.renew, body)?;
                    received += 1;
                }
            }
            if sent < count || sent < CONNECTIONS {
                for connection in &mut self.halves[half] {
                    connection.send(&self.requests[self.next])?;
                    connection.request = self.next;
                    self.next = (self.next + 1) % self.requests.len();
                    sent += 1;
                }
            }
            if received == sent {
                break;
            }
        }
        Ok((sent, start.elapsed()))
    }
}

/// Puts the request that follows this answer in the place of the answered one.
fn follow(request: &mut Vec<u8>, renew: Option<Renew>, body: &[u8]) -> io::Result<()> {
    if let Some(renew) = renew {
        *request = renew(body).ok_or_else(|| invalid("the answer has no next request"))?;
    }
    Ok(())
}

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
    /// The number of the request that was sent last.
    request: usize,
}

impl Connection {
    pub(crate) fn open(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIME_OUT))?;
        Ok(Self { stream, buffer: vec![0; BUFFER].into(), request: 0 })
    }

    pub(crate) fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request)
    }

    /// The body of the answer, which must be a 200.
    pub(crate) fn receive(&mut self) -> io::Result<&[u8]> {
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..])?;
            if read == 0 {
                return Err(invalid("the server closed the connection, or sent too much"));
            }
            filled += read;
            if let Some((head, length)) = head(&self.buffer[..filled])?
                && filled == head + length
            {
                return Ok(&self.buffer[head..filled]);
            }
        }
    }
}

/// How many bytes the head of an answer has, and how many its body; `None` while it is incomplete.
pub(crate) fn head(answer: &[u8]) -> io::Result<Option<(usize, usize)>> {
    const OK: &[u8] = b"HTTP/1.1 200 ";
    const LENGTH: &[u8] = b"content-length: ";
    let (mut at, mut length) = (0, None);
    while let Some(end) = answer[at..].iter().position(|byte| *byte == b'\n') {
        let line = &answer[at..at + end];
        if at == 0 && !line.starts_with(OK) {
            return Err(invalid(&String::from_utf8_lossy(answer)));
        }
        at += end + 1;
        if line == b"\r" {
            return length
                .map(|length| Some((at, length)))
                .ok_or_else(|| invalid("an answer has no content-length"));
        }
        if line.get(..LENGTH.len()).is_some_and(|name| name.eq_ignore_ascii_case(LENGTH)) {
            length = std::str::from_utf8(&line[LENGTH.len()..])
                .ok()
                .and_then(|digits| digits.trim_end().parse().ok());
        }
    }
    Ok(None)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_the_empty_line() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ndate: x\r\n\r\n{}";
        assert_eq!(head(answer).unwrap(), Some((answer.len() - 2, 2)));
        for cut in 0..answer.len() - 2 {
            assert_eq!(head(&answer[..cut]).unwrap(), None, "{cut}");
        }
    }

    #[test]
    fn only_a_200_of_known_length_counts() {
        head(b"HTTP/1.1 401 Unauthorized\r\n").unwrap_err();
        head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap_err();
        head(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n").unwrap_err();
    }
}
