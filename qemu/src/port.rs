//! Ports of this machine.

use crate::{Error, PortForward, Result};
use std::net::{Ipv4Addr, TcpListener};

/// Checks that each port can be listened on, and chooses free ones for those that are 0.
///
/// QEMU listens a moment later; a port that is lost in between makes it refuse to start.
pub fn settle(ports: &[PortForward]) -> Result<Vec<PortForward>> {
    let mut settled = Vec::new();
    // All are held until all are known, so that none is given twice.
    let mut held = Vec::new();
    for &PortForward { host, guest } in ports {
        let failed = |source| Error::Port { port: host, guest, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, host)).map_err(failed)?;
        let host = listener.local_addr().map_err(failed)?.port();
        settled.push(PortForward { host, guest });
        held.push(listener);
    }
    Ok(settled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_taken_ones_are_named() {
        let any = PortForward { host: 0, guest: 80 };
        let settled = settle(&[any, any]).expect("free ports");
        assert!(settled.iter().all(|p| p.host != 0 && p.guest == 80));
        assert_ne!(settled[0].host, settled[1].host);

        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let error = settle(&[PortForward { host: port, guest: 80 }]).expect_err("taken");
        assert_eq!(error.to_string(), format!("listen on 127.0.0.1:{port}"));
    }
}
