//! Packet sockets (packet(7)): IPv4 packets of one link, usable before the link has an address.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BROADCAST: [u8; 6] = [0xff; 6];

/// A socket that sends and receives whole IPv4 packets on one link.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    link: i32,
}

/// Accepts unfragmented UDP to one port. The program sees the packet from its IP header on.
fn udp_to(port: u16) -> [libc::sock_filter; 9] {
    let op = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let jump = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    [
        op(0x30, 9),                   // A = protocol
        jump(0x15, 17, 0, 6),          // UDP, or drop
        op(0x28, 6),                   // A = flags and fragment offset
        jump(0x45, 0x3fff, 4, 0),      // a fragment: drop
        op(0xb1, 0),                   // X = length of the IP header
        op(0x48, 2),                   // A = destination port
        jump(0x15, port.into(), 0, 1), // this port, or drop
        op(0x06, 0x0004_0000),         // accept
        op(0x06, 0),                   // drop
    ]
}

impl PacketSocket {
    /// Opens a socket on the link with this index that receives UDP packets to `port` only.
    pub fn open(link: i32, port: u16) -> io::Result<PacketSocket> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Protocol 0 receives nothing until the filter is in place and `bind` names the link.
        // SAFETY: socket returns a new descriptor that nothing else owns.
        let fd = unsafe {
            match libc::socket(libc::AF_PACKET, kind, 0) {
                -1 => return Err(io::Error::last_os_error()),
                fd => OwnedFd::from_raw_fd(fd),
            }
        };
        let mut filter = udp_to(port);
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: `program` points at `filter`, which outlives the call; the kernel copies both.
        let set = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as u32,
            )
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        let address = link_address(link);
        // SAFETY: `address` is a sockaddr_ll and the length is its own.
        let bound = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        match bound {
            0 => Ok(PacketSocket { fd, link }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sends one IPv4 packet to every station of the link.
    pub fn broadcast(&self, packet: &[u8]) -> io::Result<()> {
        let address = link_address(self.link);
        // SAFETY: `packet` is readable for its length, `address` is a sockaddr_ll.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        match sent {
            n if n == packet.len() as isize => Ok(()),
            -1 => Err(io::Error::last_os_error()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Receives one packet into `buffer`; `None` when there is none. What does not fit is cut.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match rustix::net::recv(&self.fd, &mut *buffer, rustix::net::RecvFlags::DONTWAIT) {
            Ok((n, _)) => Ok(Some(&buffer[..n])),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn link_address(link: i32) -> libc::sockaddr_ll {
    let mut addr = [0; 8];
    addr[..6].copy_from_slice(&BROADCAST);
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_IP as u16).to_be(),
        sll_ifindex: link,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: addr,
    }
}

/// Binds a UDP socket to one link, so that what it sends leaves there.
pub fn bind_to_link(socket: &std::net::UdpSocket, link: &str) -> io::Result<()> {
    // SAFETY: `link` is readable for its length; the kernel copies it.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            link.as_ptr().cast(),
            link.len() as u32,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
