//! What the kernel says of devices that come and go.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Longest message that the kernel sends (`UEVENT_BUFFER_SIZE` and a path before it).
const LONGEST: usize = 8192;

/// A socket that the kernel's messages arrive at. Open it *before* looking at what is there, so
/// that nothing is missed.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uevent {
    /// Its `KEY=value` words, the first being `ACTION@path`.
    Words(Vec<String>),
    /// Messages were lost: look at everything again.
    Lost,
}

impl Uevent {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        match self {
            Uevent::Words(words) => {
                words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            }
            Uevent::Lost => None,
        }
    }
}

impl Uevents {
    /// Opens the socket.
    pub fn open() -> io::Result<Uevents> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(KOBJECT_UEVENT),
        )?;
        // Group 1: the kernel's own messages. Nobody but root may send to it.
        bind(&socket, &SocketAddrNetlink::new(0, 1))?;
        Ok(Uevents { socket })
    }

    /// The next message, or `None` when none came within `bound`; without a bound, waits.
    pub fn next(&self, bound: Option<Duration>) -> io::Result<Option<Uevent>> {
        let bound = bound.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut ready, bound.as_ref()) {
            Ok(0) => return Ok(None),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let mut buffer = [0; LONGEST];
        match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((_, len)) => Ok(Some(parse(&buffer[..len.min(LONGEST)]))),
            Err(rustix::io::Errno::NOBUFS) => Ok(Some(Uevent::Lost)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

fn parse(message: &[u8]) -> Uevent {
    let words = message.split(|&b| b == 0).filter(|word| !word.is_empty());
    Uevent::Words(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_by_key() {
        let event = parse(b"add@/devices/x\0ACTION=add\0MODALIAS=pci:v1\0\0");
        assert_eq!(event.get("ACTION"), Some("add"));
        assert_eq!(event.get("MODALIAS"), Some("pci:v1"));
        assert_eq!(event.get("MOD"), None);
        assert_eq!(parse(b""), Uevent::Words(vec![]));
    }
}
