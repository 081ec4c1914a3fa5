//! Links that are made out of others (linux/if_link.h).

use super::message::Body;

const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewDevice {
    /// Several links as one.
    Bond {
        /// `BOND_MODE_*`.
        mode: u8,
        /// Milliseconds between two looks at the carrier of its members.
        monitor: u32,
        /// Of LACP: 0 is every 30 s, 1 every second. Other modes refuse it.
        lacp_rate: Option<u8>,
        /// `BOND_XMIT_POLICY_*`.
        transmit_hash: Option<u8>,
    },
    /// A switch.
    Bridge {
        /// Whether it speaks the spanning tree protocol.
        stp: bool,
    },
    /// One of several networks on a link.
    Vlan {
        /// The link's number.
        link: i32,
        /// The VLAN's.
        id: u16,
    },
}

impl NewDevice {
    pub(super) fn body(&self, name: &str) -> Body {
        let mut body = Body::default();
        body.link(0, 0, 0);
        body.attribute(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
        if let NewDevice::Vlan { link, .. } = self {
            body.attribute(IFLA_LINK, &link.to_ne_bytes());
        }
        let (kind, data) = self.data();
        let mut info = Body::default();
        info.attribute(IFLA_INFO_KIND, kind.as_bytes());
        info.nested(IFLA_INFO_DATA, data);
        body.nested(IFLA_LINKINFO, info);
        body
    }

    fn data(&self) -> (&'static str, Body) {
        let mut data = Body::default();
        match self {
            NewDevice::Bond { mode, monitor, lacp_rate, transmit_hash } => {
                const IFLA_BOND_MODE: u16 = 1;
                const IFLA_BOND_MIIMON: u16 = 3;
                const IFLA_BOND_XMIT_HASH_POLICY: u16 = 14;
                const IFLA_BOND_AD_LACP_RATE: u16 = 21;
                data.attribute(IFLA_BOND_MODE, &[*mode]);
                data.attribute(IFLA_BOND_MIIMON, &monitor.to_ne_bytes());
                if let Some(hash) = transmit_hash {
                    data.attribute(IFLA_BOND_XMIT_HASH_POLICY, &[*hash]);
                }
                if let Some(rate) = lacp_rate {
                    data.attribute(IFLA_BOND_AD_LACP_RATE, &[*rate]);
                }
                ("bond", data)
            }
            NewDevice::Bridge { stp } => {
                const IFLA_BR_STP_STATE: u16 = 5;
                data.attribute(IFLA_BR_STP_STATE, &u32::from(*stp).to_ne_bytes());
                ("bridge", data)
            }
            NewDevice::Vlan { id, .. } => {
                const IFLA_VLAN_ID: u16 = 1;
                data.attribute(IFLA_VLAN_ID, &id.to_ne_bytes());
                ("vlan", data)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{attributes, messages};
    use super::*;

    fn value<'a>(mut bytes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
        for kind in path {
            bytes = attributes(bytes).find(|(found, _)| found == kind)?.1;
        }
        Some(bytes)
    }

    #[test]
    fn a_vlan_names_its_link_and_its_number() {
        let bytes = NewDevice::Vlan { link: 7, id: 100 }.body("eth0.100").message(16, 0, 1);
        let message = messages(&bytes).next().expect("a message");
        let attributes = &message.body[16..];
        assert_eq!(value(attributes, &[IFLA_IFNAME]), Some(&b"eth0.100\0"[..]));
        assert_eq!(value(attributes, &[IFLA_LINK]), Some(&7i32.to_ne_bytes()[..]));
        assert_eq!(value(attributes, &[IFLA_LINKINFO, IFLA_INFO_KIND]), Some(&b"vlan"[..]));
        let id = value(attributes, &[IFLA_LINKINFO, IFLA_INFO_DATA, 1]);
        assert_eq!(id, Some(&100u16.to_ne_bytes()[..]));
    }

    #[test]
    fn a_bond_says_only_what_its_mode_knows() {
        let bond =
            |lacp_rate| NewDevice::Bond { mode: 4, monitor: 100, lacp_rate, transmit_hash: None };
        for (rate, expected) in [(None, None), (Some(1), Some(&[1u8][..]))] {
            let bytes = bond(rate).body("bond0").message(16, 0, 1);
            let message = messages(&bytes).next().expect("a message");
            let data = &[IFLA_LINKINFO, IFLA_INFO_DATA];
            assert_eq!(value(&message.body[16..], &[data, &[1u16][..]].concat()), Some(&[4u8][..]));
            assert_eq!(value(&message.body[16..], &[data, &[21u16][..]].concat()), expected);
        }
    }
}
