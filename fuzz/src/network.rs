//! What arrives from a network.

use crate::Target;

pub const TARGETS: &[Target] = &[
    Target { name: "dhcp", run: init::untrusted::dhcp, samples: init::untrusted::dhcp_samples },
    Target { name: "dhcp6", run: init::untrusted::dhcp6, samples: init::untrusted::dhcp6_samples },
    Target {
        name: "router",
        run: init::untrusted::router,
        samples: init::untrusted::router_samples,
    },
    Target { name: "sntp", run: init::untrusted::sntp, samples: sntp_samples },
    Target { name: "dns", run: init::untrusted::dns, samples: init::untrusted::dns_samples },
];

fn sntp_samples() -> Vec<Vec<u8>> {
    let mut packet = vec![0; 48];
    (packet[0], packet[1]) = (0b00_100_100, 2);
    packet[32..36].copy_from_slice(&0xf000_0000_u32.to_be_bytes());
    packet[40..44].copy_from_slice(&0xf000_0000_u32.to_be_bytes());
    vec![packet]
}
