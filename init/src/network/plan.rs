//! Which link is what, and what is to be made: pure functions of the host configuration and of the
//! links that there are. They are asked again whenever a link comes, goes or changes.

use super::link::Settings;
use contract::host_config::{Bond, BondMode, Device, HostConfig, Interface, Link as Name, Vlan};
use std::fmt;
use sys::netlink::{Link, NewDevice};

/// A link as it was seen last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What the kernel says.
    pub link: Link,
    /// Whether there is hardware behind it that speaks Ethernet over a wire.
    pub wired: bool,
}

/// What a link is to this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Somebody else's: a container's, Docker's, a wireless card.
    Ignored,
    /// A part of the bond or bridge of this name; it has no addresses.
    Member {
        /// The whole.
        of: String,
        /// The member's own largest packet.
        mtu: Option<u32>,
    },
    /// It has addresses.
    Used(Settings),
}

/// Something to do with links, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a link.
    Create {
        /// Its name.
        name: String,
        /// What it is.
        device: NewDevice,
    },
    /// Make a link part of another.
    Join {
        /// The member's number.
        member: i32,
        /// Its name.
        name: String,
        /// Its largest packet, where it was given.
        mtu: Option<u32>,
        /// The whole's number.
        whole: i32,
        /// Its name.
        whole_name: String,
        /// Bonds take only what is switched off.
        bond: bool,
        /// The hardware address that the whole takes over: a bridge would change its own with its
        /// members.
        mac: Option<[u8; 6]>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Create { name, device } => {
                let kind = match device {
                    NewDevice::Bond { .. } => "bond",
                    NewDevice::Bridge { .. } => "bridge",
                    NewDevice::Vlan { .. } => "VLAN",
                };
                write!(f, "make {kind} {name}")
            }
            Step::Join { name, whole_name, .. } => write!(f, "add {name} to {whole_name}"),
        }
    }
}

/// What `seen` is to a host that is told `config`.
pub fn role(config: &HostConfig, seen: &Seen) -> Role {
    let Seen { link, wired } = seen;
    let made = made(config, link);
    if !wired && made.is_none() {
        return Role::Ignored;
    }
    let known_by = link.permanent_mac.or(link.mac);
    let own = match made {
        Some(interface) => Some(interface),
        None => settings(config, &link.name, known_by),
    };
    if let Some(whole) = owner(config, link, made.is_some()) {
        return Role::Member { of: whole, mtu: own.and_then(|own| own.mtu) };
    }
    let hostname = config.hostname.as_deref();
    let carrier = config.interfaces.iter().any(|interface| match &interface.device {
        Some(Device::Vlan(vlan)) => vlan.link.matches(&link.name, known_by),
        _ => false,
    });
    Role::Used(Settings::of(own, carrier, hostname))
}

/// What is still to be made and joined. `seen` is every link that there is.
pub fn steps<'a>(config: &HostConfig, seen: impl Iterator<Item = &'a Seen> + Clone) -> Vec<Step> {
    let mut steps = Vec::new();
    for interface in &config.interfaces {
        let (Some(device), Name::Name(name)) = (&interface.device, &interface.link) else {
            continue;
        };
        let Some(whole) = seen.clone().find(|seen| seen.link.name == *name) else {
            let device = new_device(config, device, seen.clone());
            steps.extend(device.map(|device| Step::Create { name: name.clone(), device }));
            continue;
        };
        // A network card of that name is nobody's bridge.
        if whole.link.kind.as_deref() != Some(device.kind()) {
            continue;
        }
        let mut has_members = seen.clone().any(|seen| seen.link.master == Some(whole.link.index));
        for member in seen.clone().filter(|seen| seen.link.master.is_none()) {
            let Role::Member { of, mtu } = role(config, member) else { continue };
            if of != *name {
                continue;
            }
            let adopts = matches!(device, Device::Bridge(_)) && !has_members;
            has_members = true;
            steps.push(Step::Join {
                member: member.link.index,
                name: member.link.name.clone(),
                mtu,
                whole: whole.link.index,
                whole_name: name.clone(),
                bond: matches!(device, Device::Bond(_)),
                mac: member.link.mac.filter(|_| adopts),
            });
        }
    }
    steps
}

/// Modules that the kernel would have to look for by itself in the middle of a request.
pub fn modules(config: &HostConfig) -> Vec<&'static str> {
    let mut modules: Vec<&str> = config
        .interfaces
        .iter()
        .filter_map(|interface| match interface.device.as_ref()? {
            Device::Bond(_) => Some("bonding"),
            Device::Bridge(_) => Some("bridge"),
            Device::Vlan(_) => Some("8021q"),
        })
        .collect();
    modules.sort_unstable();
    modules.dedup();
    modules
}

/// The interface of the configuration that `link` was made for.
fn made<'a>(config: &'a HostConfig, link: &Link) -> Option<&'a Interface> {
    config.interfaces.iter().find(|interface| {
        let kind = interface.device.as_ref().map(Device::kind);
        kind.is_some() && kind == link.kind.as_deref() && interface.link.matches(&link.name, None)
    })
}

/// The settings of a link that exists by itself: those that mean it alone go before patterns.
fn settings<'a>(config: &'a HostConfig, name: &str, mac: Option<[u8; 6]>) -> Option<&'a Interface> {
    let matching = config
        .interfaces
        .iter()
        .filter(|interface| interface.device.is_none() && interface.link.matches(name, mac));
    matching.clone().find(|i| i.link.is_exact()).or_else(|| matching.clone().next())
}

/// The name of the bond or bridge that `link` is to be part of. What was made is meant by its name
/// alone: a pattern of cards does not mean the bond above them.
fn owner(config: &HostConfig, link: &Link, made: bool) -> Option<String> {
    let known_by = link.permanent_mac.or(link.mac);
    let owners = |exact: bool| {
        config.interfaces.iter().find_map(|interface| {
            let Name::Name(name) = &interface.link else { return None };
            let member = |member: &&Name| match made {
                true => **member == Name::Name(link.name.clone()),
                false => member.is_exact() == exact && member.matches(&link.name, known_by),
            };
            interface.device.as_ref()?.members().iter().find(member)?;
            Some(name.clone())
        })
    };
    owners(true).or_else(|| owners(false))
}

/// `None`: what it lies on is not there yet, or is not switched on.
fn new_device<'a>(
    config: &HostConfig,
    device: &Device,
    mut seen: impl Iterator<Item = &'a Seen>,
) -> Option<NewDevice> {
    match device {
        Device::Bond(Bond { mode, monitor, lacp_fast, transmit_hash, .. }) => {
            Some(NewDevice::Bond {
                mode: *mode as u8,
                monitor: *monitor,
                lacp_rate: (*mode == BondMode::Ieee8023ad).then_some(u8::from(*lacp_fast)),
                transmit_hash: transmit_hash.map(|hash| hash as u8),
            })
        }
        Device::Bridge(bridge) => Some(NewDevice::Bridge { stp: bridge.stp }),
        Device::Vlan(Vlan { link: wanted, id }) => {
            let carrier = seen.find(|seen| {
                let link = &seen.link;
                let ours = seen.wired || made(config, link).is_some();
                ours && wanted.matches(&link.name, link.permanent_mac.or(link.mac))
            })?;
            carrier.link.up.then_some(NewDevice::Vlan { link: carrier.link.index, id: *id })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LAN: &str = r#"
        [[network.interface]]
        name = "bond0"
        bond = { members = ["52:54:00:aa:*"], mode = "802.3ad", lacp-rate = "fast" }
        [[network.interface]]
        name = "lan"
        vlan = { link = "bond0", id = 10 }
        [[network.interface]]
        name = "br0"
        bridge = { members = ["lan", "eth9"] }
        address = ["192.0.2.1/24"]
        [[network.interface]]
        name = "eth*"
        mtu = 9000
        [[network.interface]]
        name = "52:54:00:bb:00:01"
        address = ["198.51.100.1/24"]
    "#;

    fn config(text: &str) -> HostConfig {
        contract::host_config::check("host.toml", text).expect("valid")
    }

    fn seen(index: i32, name: &str, kind: Option<&str>, mac: u8) -> Seen {
        let link = Link {
            index,
            name: name.into(),
            ethernet: true,
            mac: Some([0x52, 0x54, 0, mac, 0, 1]),
            permanent_mac: None,
            up: true,
            carrier: true,
            master: None,
            kind: kind.map(str::to_owned),
        };
        Seen { link, wired: kind.is_none() }
    }

    fn shown(config: &HostConfig, links: &[Seen]) -> Vec<String> {
        steps(config, links.iter()).iter().map(Step::to_string).collect()
    }

    #[test]
    fn a_network_is_built_from_below_as_its_parts_appear() {
        let config = config(LAN);
        let mut links = vec![seen(2, "eth0", None, 0xaa), seen(3, "eth1", None, 0xaa)];
        assert_eq!(shown(&config, &links), ["make bond bond0", "make bridge br0"]);
        links.push(Seen {
            link: Link { up: false, ..seen(4, "bond0", Some("bond"), 0).link },
            wired: false,
        });
        links.push(seen(5, "br0", Some("bridge"), 0));
        assert_eq!(shown(&config, &links), ["add eth0 to bond0", "add eth1 to bond0"]);
        links[0].link.master = Some(4);
        links[2].link.up = true;
        assert_eq!(shown(&config, &links), ["add eth1 to bond0", "make VLAN lan"]);
        links[1].link.master = Some(4);
        links.push(seen(6, "lan", Some("vlan"), 1));
        let steps_now = steps(&config, links.iter());
        let [Step::Join { name, whole_name, bond: false, mac: Some(_), .. }] = &steps_now[..]
        else {
            panic!("{steps_now:?}")
        };
        assert_eq!((name.as_str(), whole_name.as_str()), ("lan", "br0"));
        // A second member of a bridge does not change its address.
        links[4].link.master = Some(5);
        links.push(seen(7, "eth9", None, 9));
        let steps_now = steps(&config, links.iter());
        assert!(matches!(&steps_now[..], [Step::Join { mac: None, mtu: Some(9000), .. }]));
        links[5].link.master = Some(5);
        assert_eq!(shown(&config, &links), [""; 0]);
    }

    #[test]
    fn a_member_is_known_by_the_address_that_it_came_with() {
        let config = config(LAN);
        let mut card = seen(2, "eth0", None, 0xaa);
        card.link.permanent_mac = card.link.mac;
        card.link.mac = Some([2, 0, 0, 0, 0, 1]);
        let member = Role::Member { of: "bond0".into(), mtu: Some(9000) };
        assert_eq!(role(&config, &card), member);
        // The bond has its member's address, and is not its own member.
        let bond = seen(4, "bond0", Some("bond"), 0xaa);
        assert!(matches!(role(&config, &bond), Role::Used(_)));
    }

    #[test]
    fn what_means_one_link_goes_before_patterns_and_the_rest_is_left_alone() {
        let config = config(LAN);
        let shown = |seen: &Seen| match role(&config, seen) {
            Role::Used(settings) => settings.to_string(),
            Role::Member { of, .. } => format!("part of {of}"),
            Role::Ignored => "ignored".into(),
        };
        let cases = [
            (seen(2, "eth5", None, 0xbb), "static 198.51.100.1/24"),
            (seen(2, "eth5", None, 0xcc), "DHCP"),
            (seen(2, "enp1s0", None, 0xcc), "DHCP"),
            (seen(2, "eth9", None, 0xcc), "part of br0"),
            (seen(2, "docker0", Some("bridge"), 1), "ignored"),
            (seen(2, "eth5", Some("veth"), 0xbb), "ignored"),
            // Of another kind than was asked for.
            (seen(2, "br0", Some("bond"), 1), "ignored"),
            (seen(2, "lan", Some("vlan"), 1), "part of br0"),
            // It carries a VLAN, and nothing else was said of it.
            (seen(2, "bond0", Some("bond"), 1), "no addresses"),
        ];
        for (link, expected) in cases {
            assert_eq!(shown(&link), expected, "{link:?}");
        }
    }

    #[test]
    fn a_card_with_the_name_of_a_bond_is_not_one() {
        let config = config(LAN);
        let links = [seen(2, "bond0", None, 1), seen(3, "br0", Some("bridge"), 1)];
        // The VLAN lies on it all the same: it is called so.
        assert_eq!(shown(&config, &links), ["make VLAN lan"]);
        assert_eq!(modules(&config), ["8021q", "bonding", "bridge"]);
        assert_eq!(modules(&super::tests::config("")), [""; 0]);
    }

    /// What the kernel makes of a step. `next` is the number of the next new link.
    fn take(links: &mut Vec<Seen>, step: &Step, next: &mut i32) {
        match step {
            Step::Create { name, device } => {
                let kind = match device {
                    NewDevice::Bond { .. } => "bond",
                    NewDevice::Bridge { .. } => "bridge",
                    NewDevice::Vlan { .. } => "vlan",
                };
                links.push(seen(*next, name, Some(kind), 0xaa));
                *next += 1;
            }
            Step::Join { member, whole, bond, .. } => {
                let mac = links.iter().find(|l| l.link.index == *member).expect("there").link.mac;
                for seen in links.iter_mut() {
                    if seen.link.index == *member {
                        seen.link.permanent_mac = seen.link.permanent_mac.or(seen.link.mac);
                        seen.link.master = Some(*whole);
                    } else if seen.link.index == *whole && *bond {
                        seen.link.mac = mac;
                    }
                }
            }
        }
    }

    proptest! {
        /// In whatever order links appear, building ends, and ends in the same network.
        #[test]
        fn building_comes_to_an_end_and_to_the_same_one(
            order in Just(vec![("eth0", 0xaa), ("eth1", 0xaa), ("eth9", 9), ("eth5", 0xbb)]).prop_shuffle(),
            eager in any::<u8>(),
        ) {
            let config = config(LAN);
            let (mut links, mut next) = (Vec::new(), 10);
            for (number, (name, mac)) in order.iter().enumerate() {
                links.push(seen(number as i32 + 2, name, None, *mac));
                // Links appear between steps, too.
                if eager >> number & 1 == 1 && let Some(step) = steps(&config, links.iter()).first() {
                    take(&mut links, step, &mut next);
                }
            }
            for _ in 0..20 {
                for step in steps(&config, links.iter()) {
                    take(&mut links, &step, &mut next);
                }
            }
            prop_assert_eq!(steps(&config, links.iter()), []);
            let index = |name: &str| links.iter().find(|l| l.link.name == name).map(|l| l.link.index);
            let master = |name: &str| links.iter().find(|l| l.link.name == name).and_then(|l| l.link.master);
            prop_assert_eq!(links.len(), 7);
            for (member, whole) in [("eth0", "bond0"), ("eth1", "bond0"), ("lan", "br0"), ("eth9", "br0")] {
                prop_assert_eq!(master(member), index(whole), "{}", member);
            }
            prop_assert_eq!((master("eth5"), master("bond0"), master("br0")), (None, None, None));
        }
    }
}
