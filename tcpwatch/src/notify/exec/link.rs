//! Messages between tcpwatch and the process that runs commands for it: lines of JSON over a socket.

use std::{io, os::unix::net::UnixStream as Blocking};

use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

/// More of a message at once is not read.
const CHUNK: usize = 4 << 10;

/// One end.
pub(super) struct Link {
    socket: UnixStream,
    /// What was read of the next message.
    begun: Vec<u8>,
}

impl Link {
    /// Takes over a socket on which no message is under way.
    pub(super) fn new(socket: Blocking) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixStream::from_std(socket)?, begun: Vec::new() })
    }

    /// Sends a message.
    pub(super) async fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let line = line(message)?;
        let mut left = &line[..];
        while !left.is_empty() {
            self.socket.writable().await?;
            match self.socket.try_write(left) {
                Ok(sent) => left = &left[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next message; `None` if there is nobody any more. It may be dropped and called again.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut chunk = [0; CHUNK];
        loop {
            if let Some(end) = self.begun.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.begun.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            self.socket.readable().await?;
            match self.socket.try_read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(read) => self.begun.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

/// A message as it is sent.
pub(super) fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn messages_arrive_whole_and_in_order_and_then_the_end() {
        let (one, other) = Blocking::pair().unwrap();
        let (one, mut other) = (Link::new(one).unwrap(), Link::new(other).unwrap());
        // More than a socket holds, with lines in it.
        let long = "line\n".repeat(1 << 18);
        let sent = async {
            one.send(&"short").await.unwrap();
            one.send(&long).await.unwrap();
            drop(one);
        };
        let received = async {
            let mut all: Vec<String> = Vec::new();
            while let Some(message) = other.next().await.unwrap() {
                all.push(message);
            }
            all
        };
        let ((), received) = tokio::join!(sent, received);
        assert!(received == ["short", &long]);
    }
}
