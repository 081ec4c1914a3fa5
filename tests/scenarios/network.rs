//! Networks: none at all, one that comes late with all that a router can say, links made out of
//! links, cards that are plugged in.

use e2e::*;
use qemu::{Config, Machine, Nic};
use serde_json::json;

/// The shell has an `ip` of its own, which knows less.
fn ip_first(command: &str) -> String {
    format!("ip() {{ /usr/bin/ip -color=never \"$@\"; }}; {command}")
}

fn sh(host: &mut Machine, command: &str) -> String {
    e2e::sh(host, &ip_first(command))
}

fn sh_until(host: &mut Machine, command: &str, done: impl Fn(&str) -> bool) -> String {
    e2e::sh_until(host, &ip_first(command), done)
}

/// A card with this number, and a speed as bonds want one, on a cable that all cards with the same
/// `hub` hang on.
fn card(number: u8, hub: u8, mac: &str) -> Vec<std::ffi::OsString> {
    let netdev = format!("hubport,id=cable{number},hubid={hub}");
    let device = format!(
        "virtio-net-pci,id=card{number},netdev=cable{number},mac={mac},speed=1000,duplex=full,romfile="
    );
    ["-netdev", &netdev, "-device", &device].map(Into::into).to_vec()
}

/// Takes the cable out of a card, or puts it in.
fn plug(host: &mut Machine, card: &str, up: bool) {
    host.control("set_link", json!({ "name": card, "up": up })).expect("a cable");
}

/// The kernel's name of the card with this address.
fn name_of(host: &mut Machine, mac: &str) -> String {
    sh(host, &format!("grep -l {mac} /sys/class/net/eth*/address | cut -d/ -f5")).trim().to_owned()
}

/// Moves a card to a network namespace of its own.
fn set_apart(host: &mut Machine, card: &str, namespace: &str) {
    sh(host, "mkdir -p /var/run/netns");
    sh(host, &format!("ip netns add {namespace} && ip link set {card} netns {namespace}"));
    sh(host, &format!("ip -n {namespace} link set {card} up"));
}

const ROUTER_CARD: &str = "52:54:00:00:00:fe";
/// The host does not touch the card that a scenario uses for itself.
const WITHOUT_ROUTER_CARD: &str =
    "[[network.interface]]\nname = \"52:54:00:00:00:fe\"\ndhcp = false\nipv6 = \"off\"\n";

/// Starts a time server beside it.
fn start_time_server(host: &mut Machine) {
    let told =
        "allow\\nlocal stratum 8\\npidfile /run/chrony.pid\\ncmdport 0\\nbindcmdaddress /\\n";
    sh(host, &format!("printf '{told}' > /run/chrony.conf"));
    sh(host, "ip netns exec router chronyd -x -u root -f /run/chrony.conf");
}

/// Starts dnsmasq with all that the host asks a router for. T1 and T2 are 10 and 20 s.
fn start_router(host: &mut Machine, card: &str, address: &str) {
    let router = "ip netns exec router";
    sh(host, &format!("ip -n router addr add {address}/24 dev {card}"));
    sh(
        host,
        &format!(
            "rm -f /run/router.log; {router} dnsmasq --conf-file=/dev/null --user=root --port=0 \
         --interface={card} --pid-file=/run/router.pid --dhcp-leasefile=/run/router.leases \
         --log-facility=/run/router.log --log-dhcp --dhcp-authoritative --no-ping \
         --dhcp-range=10.9.0.100,10.9.0.150,255.255.255.0,2m \
         --dhcp-option=option:T1,10s --dhcp-option=option:T2,20s \
         --dhcp-option=option:classless-static-route,0.0.0.0/0,10.9.0.1,10.77.0.0/16,10.9.0.7 \
         --dhcp-option=option:domain-search,eng.example.org,example.org \
         --dhcp-option=option:ntp-server,{address} --dhcp-option=option:mtu,1400 --dhcp-option=option:dns-server,10.9.0.53 \
         --enable-ra --dhcp-range=2001:db8:9::100,2001:db8:9::1ff,slaac,64,2m \
         --dhcp-option=option6:dns-server,[2001:db8:9::53] \
         --dhcp-option=option6:domain-search,six.example.org"
        ),
    );
}

#[test]
fn a_host_without_a_server_comes_up_and_takes_what_a_late_one_says() {
    let disk = Disk::copy_of(network_image());
    let mut extra = card(0, 0, "52:54:00:00:00:01");
    extra.extend(card(1, 0, ROUTER_CARD));
    let host_config = Some(disk.host_config(WITHOUT_ROUTER_CARD));
    let config = Config { nic: Nic::None, extra, host_config, ..disk.config() };
    let mut host = start(&config);

    // Nobody answers: it says so, and comes up all the same.
    host.wait_for_line("network: eth0: no DHCP server answers", BOOT).expect("it is said");
    let late = "no address after 20 s, going on without (eth0: no DHCP server answers)";
    host.wait_for_line(late, SOON).expect("it is said");
    if !host.console().iter().any(|line| line.text.starts_with("berth: ready ")) {
        host.wait_ready(BOOT).expect("the host gets ready");
    }
    assert_eq!(name_of(&mut host, ROUTER_CARD), "eth1");

    // A router comes; putting the cable in again spares the wait for the next question.
    set_apart(&mut host, "eth1", "router");
    sh(&mut host, "ip -n router addr add 2001:db8:9::1/64 dev eth1 nodad");
    plug(&mut host, "card0", false);
    host.wait_for_line("network: eth0: no carrier", SOON).expect("it is noticed");
    start_time_server(&mut host);
    start_router(&mut host, "eth1", "10.9.0.1");
    plug(&mut host, "card0", true);
    host.wait_for_line("network: eth0: connected", SOON).expect("it is noticed");
    let line = host.wait_for_line("/24 from 10.9.0.1 for 120 s", SOON).expect("a lease");
    let address = line.text.split([' ', '/']).find(|word| word.starts_with("10.9.0.1"));
    let address = address.expect("an address").to_owned();

    // It is asked for the time, because its lease says so.
    host.wait_for_line("by 10.9.0.1, slewed", SOON).expect("an answer");

    // DHCPv4: classless routes, domain search, MTU, name server.
    let routes = sh(&mut host, "ip -4 route");
    assert!(routes.contains("default via 10.9.0.1 dev eth0 proto dhcp"), "{routes}");
    assert!(routes.contains("10.77.0.0/16 via 10.9.0.7 dev eth0 proto dhcp"), "{routes}");
    sh_until(&mut host, "ip link show eth0", |text| text.contains(" mtu 1400 "));
    // IPv6: an address of each kind, a router, name servers and domains after IPv4's.
    let v6 = "ip -6 addr show dev eth0 scope global";
    let v6 = sh_until(&mut host, v6, |text| text.contains("/128") && text.contains("/64"));
    assert!(v6.contains("inet6 2001:db8:9:0:5054:ff:fe00:1/64"), "{v6}");
    assert!(v6.contains("inet6 2001:db8:9::1"), "{v6}");
    let route = sh(&mut host, "ip -6 route show default");
    assert!(route.contains("default via fe80::") && route.contains("proto ra"), "{route}");
    let names = "nameserver 10.9.0.53\nnameserver 2001:db8:9::53\n\
                 search eng.example.org example.org six.example.org\n";
    sh_until(&mut host, "cat /etc/resolv.conf", |text| text.ends_with(names));
    sh(&mut host, "ping -c 1 -W 10 10.9.0.1 && ping -6 -c 1 -W 10 2001:db8:9::1");

    // The lease is prolonged by its server, and by another one when that has gone.
    let granted = |number: usize| {
        let acks = "grep -c 'DHCPACK' /run/router.log; true";
        move |host: &mut Machine| {
            sh_until(host, acks, |text| text.trim().parse().is_ok_and(|n: usize| n >= number))
        }
    };
    granted(2)(&mut host);
    sh(&mut host, "kill $(cat /run/router.pid); ip -n router addr del 10.9.0.1/24 dev eth1");
    start_router(&mut host, "eth1", "10.9.0.2");
    granted(1)(&mut host);
    assert!(sh(&mut host, "ip -4 addr show eth0").contains(&format!("inet {address}/24")));
    sh_until(&mut host, "cat /run/router.log", |log| log.contains("DHCPRENEW"));

    // A cable that was out for a moment costs nothing.
    plug(&mut host, "card0", false);
    host.wait_for_line("network: eth0: no carrier", SOON).expect("it is noticed");
    plug(&mut host, "card0", true);
    host.wait_for_line("network: eth0: connected", SOON).expect("it is noticed");
    granted(2)(&mut host);
    sh_until(&mut host, "cat /run/router.log", |log| log.contains("DHCPREBIND"));
    assert!(!host.console().iter().any(|line| line.text.contains("eth0: lost")));
}

const COMBINED: &str = r#"
[time]
servers = []
[network]
nameservers = ["192.0.2.53", "2001:db8::53"]
search = ["lan.example.org"]

[[network.interface]]
name = "uplink"
bond = { members = ["eth0"], mode = "balance-rr" }

[[network.interface]]
name = "bond0"
mtu = 1450
bond = { members = ["52:54:00:bb:*"], mode = "active-backup" }

[[network.interface]]
name = "bond0.10"
vlan = { link = "bond0", id = 10 }
address = ["10.10.10.2/24", "2001:db8:10::2/64"]
gateway = ["10.10.10.1", "2001:db8:10::1"]
metric = 50
ipv6 = "static"

[[network.interface.route]]
to = "10.99.0.0/16"
via = "10.10.10.9"

[[network.interface.route]]
to = "2001:db8:99::/48"
via = "2001:db8:10::9"
metric = 7

[[network.interface]]
name = "br0"
bridge = { members = ["52:54:00:cc:00:01"] }
address = ["10.20.0.1/24"]

[[network.interface]]
name = "bond1"
bond = { members = ["52:54:00:ee:*"], mode = "802.3ad", lacp-rate = "fast", transmit-hash = "layer3+4" }
dhcp = false

[[network.interface]]
name = "52:54:00:dd:*"
address = ["10.30.0.1/24"]

[[network.interface]]
name = "52:54:00:00:00:fe"
dhcp = false
ipv6 = "off"
"#;

#[test]
fn links_are_combined_as_the_host_configuration_says_and_late_ones_join() {
    let disk = Disk::copy_of(network_image());
    let mut extra = card(1, 1, "52:54:00:bb:00:01");
    extra.extend(card(2, 1, "52:54:00:bb:00:02"));
    extra.extend(card(3, 1, ROUTER_CARD));
    extra.extend(card(4, 2, "52:54:00:cc:00:01"));
    extra.extend(card(7, 2, "52:54:00:ff:00:01"));
    extra.extend(["-netdev", "hubport,id=cable5,hubid=2"].map(Into::into));
    extra.extend(["-netdev", "hubport,id=cable6,hubid=2"].map(Into::into));
    for port in ["port5", "port6"] {
        let port = format!("pcie-root-port,id={port},chassis={}", &port[4..]);
        extra.extend(["-device".into(), port.into()]);
    }
    let config = Config { extra, host_config: Some(disk.host_config(COMBINED)), ..disk.config() };
    let (mut host, _) = boot(&config);

    // A bond that asks by DHCP with the address of its member.
    sh_until(&mut host, "ip -4 addr show uplink", |text| text.contains("10.0.2.15/24"));
    let uplink = sh(&mut host, "cat /proc/net/bonding/uplink");
    assert!(uplink.contains("load balancing (round-robin)"), "{uplink}");

    // A bond, a VLAN on it, and what is told of both.
    let bond = sh_until(&mut host, "cat /proc/net/bonding/bond0", |text| {
        text.matches("Slave Interface").count() == 2
    });
    assert!(bond.contains("Bonding Mode: fault-tolerance (active-backup)"), "{bond}");
    assert!(sh(&mut host, "ip link show bond0").contains(" mtu 1450 "));
    let vlan = sh_until(&mut host, "ip -d addr show bond0.10", |text| {
        text.contains("10.10.10.2/24") && !text.contains("tentative")
    });
    assert!(vlan.contains("vlan protocol 802.1Q id 10 "), "{vlan}");
    assert!(vlan.contains("inet6 2001:db8:10::2/64"), "{vlan}");
    let routes = sh_until(&mut host, "ip route; ip -6 route", |text| {
        text.contains("10.99.0.0/16 via 10.10.10.9 dev bond0.10 proto static metric 50")
    });
    for route in [
        "default via 10.10.10.1 dev bond0.10 proto static metric 50",
        "default via 10.0.2.2 dev uplink proto dhcp",
        "default via 2001:db8:10::1 dev bond0.10 proto static metric 50",
        "2001:db8:99::/48 via 2001:db8:10::9 dev bond0.10 proto static metric 7",
    ] {
        assert!(routes.contains(route), "{route} in {routes}");
    }
    let names = "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch lan.example.org\n";
    assert!(sh(&mut host, "cat /etc/resolv.conf").ends_with(names));
    // The bond itself has no addresses but those that every link has.
    assert_eq!(
        sh(&mut host, "ip -4 addr show bond0; ip -6 addr show dev bond0 scope global")
            .matches("inet")
            .count(),
        0
    );

    // A bridge with its member, and the member's hardware address.
    let bridge = sh(&mut host, "ip addr show br0");
    assert!(bridge.contains("10.20.0.1/24") && bridge.contains("52:54:00:cc:00:01"), "{bridge}");
    let member = name_of(&mut host, "52:54:00:cc:00:01");
    assert!(sh(&mut host, &format!("ip link show {member}")).contains(" master br0 "));

    // Packets go through, tagged, whichever member has a cable.
    let peer = name_of(&mut host, ROUTER_CARD);
    set_apart(&mut host, &peer, "peer");
    sh(&mut host, &format!("ip -n peer link add link {peer} name tagged type vlan id 10"));
    sh(&mut host, "ip -n peer addr add 10.10.10.1/24 dev tagged && ip -n peer link set tagged up");
    sh_until(&mut host, "ping -c 1 -W 5 10.10.10.1; true", |text| text.contains(" 0% packet loss"));
    let active = "cat /sys/class/net/bond0/bonding/active_slave";
    let before = sh(&mut host, active);
    plug(&mut host, if before.trim() == "eth1" { "card1" } else { "card2" }, false);
    sh_until(&mut host, active, |now| !now.trim().is_empty() && now != before);
    sh_until(&mut host, "ping -c 1 -W 5 10.10.10.1; true", |text| text.contains(" 0% packet loss"));

    // Cards that appear late: one becomes part of a bond, one gets the address of its pattern.
    let late = |host: &mut Machine, n: u8, mac: &str| {
        let device = json!({ "driver": "virtio-net-pci", "id": format!("card{n}"), "romfile": "",
            "speed": 1000, "duplex": "full", "netdev": format!("cable{n}"), "mac": mac, "bus": format!("port{n}") });
        host.control("device_add", device).expect("a card");
    };
    late(&mut host, 5, "52:54:00:ee:00:01");
    let bond =
        sh_until(&mut host, "cat /proc/net/bonding/bond1", |text| text.contains("Slave Interface"));
    assert!(bond.contains("IEEE 802.3ad Dynamic link aggregation"), "{bond}");
    assert!(bond.contains("LACP rate: fast") && bond.contains("layer3+4"), "{bond}");
    // It comes to an agreement with a switch that speaks LACP, in both directions.
    let port = name_of(&mut host, "52:54:00:ff:00:01");
    set_apart(&mut host, &port, "switch");
    sh(&mut host, "ip -n switch link add agg type bond mode 802.3ad lacp_rate fast");
    sh(
        &mut host,
        &format!("ip -n switch link set {port} down; ip -n switch link set {port} master agg"),
    );
    sh(&mut host, "ip -n switch link set agg up");
    let agreed = sh_until(&mut host, "cat /proc/net/bonding/bond1", |text| {
        text.matches("port state: 63").count() == 2
    });
    assert!(agreed.contains("Partner Mac Address: 52:54:00:ff:00:01"), "{agreed}");
    late(&mut host, 6, "52:54:00:dd:00:07");
    sh_until(&mut host, "ip -4 addr", |text| text.contains("inet 10.30.0.1/24"));
    // A router that leaves addresses to the host, and tells the rest by DHCPv6.
    sh(&mut host, "ip -n switch addr add 2001:db8:7::1/64 dev agg nodad");
    sh(
        &mut host,
        "ip netns exec switch dnsmasq --conf-file=/dev/null --user=root --port=0 --interface=agg \
         --pid-file=/run/switch.pid --dhcp-leasefile=/run/switch.leases \
         --log-facility=/run/switch.log --log-dhcp --enable-ra \
         --dhcp-range=2001:db8:7::,ra-stateless,64,2m \
         --dhcp-option=option6:dns-server,[2001:db8:7::53]",
    );
    sh_until(&mut host, "ip -6 addr", |text| text.contains("2001:db8:7:0:5054:ff:fedd:7/64"));
    sh_until(&mut host, "cat /run/switch.log", |log| log.contains("DHCPINFORMATION-REQUEST"));
    // One that is pulled out is missed by nobody.
    host.control("device_del", json!({ "id": "card6" })).expect("unplugged");
    host.wait_for_line(": gone", SOON).expect("it is noticed");
    sh(&mut host, "ctr version");
}
