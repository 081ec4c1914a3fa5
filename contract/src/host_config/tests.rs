use super::*;

fn config(text: &str) -> Result<HostConfig, String> {
    check("host.toml", text).map_err(|e| e.to_string())
}

#[test]
fn an_empty_file_is_a_configuration() {
    let config = config("").expect("valid");
    assert_eq!(config.hostname, None);
    assert!(config.workloads.is_empty() && config.interfaces.is_empty());
    let servers: Vec<_> = config.time_servers.iter().map(|s| (s.host.as_str(), s.port)).collect();
    assert_eq!(servers, [("pool.ntp.org", 123)]);
}

#[test]
fn later_layers_win_by_key_and_by_name() {
    let below = "hostname = \"a\"\n[[workload]]\nname = \"x\"\ncompose = \"1\"\n\
                 [[workload]]\nname = \"y\"\ncompose = \"2\"";
    let above = "[time]\nservers = []\n[[workload]]\nname = \"x\"\nfile = \"x.yaml\"";
    let (below, above) = (Raw::parse("1", below), Raw::parse("2", above));
    let merged = above.expect("above").over(below.expect("below")).validate("both");
    let merged = merged.expect("valid");
    assert_eq!(merged.hostname.as_deref(), Some("a"));
    assert!(merged.time_servers.is_empty());
    let names: Vec<_> = merged.workloads.iter().map(|w| w.name.as_str()).collect();
    assert_eq!(names, ["y", "x"]);
    assert_eq!(merged.workloads[1].source, WorkloadSource::EspFile("x.yaml".into()));
}

#[test]
fn bad_values_are_named() {
    let cases = [
        ("hostname = \"-a\"", "1:1: hostname: `-a` is not a host name"),
        (
            "[network]\nnameservers = [\"1.1.1.1\",\n  \"dns\"]",
            "3:3: network.nameservers: `dns` is not an IP address",
        ),
        (
            "[[network.interface]]\nname = \"a:b\"",
            "2:1: network.interface.name: `a:b` is not a MAC address",
        ),
        (
            "[[network.interface]]\nname = \"eth0\"\naddress = [\"1.2.3.4\"]",
            "3:12: network.interface.address: `1.2.3.4` is not an address with a prefix \
             length, as in 192.0.2.10/24",
        ),
        (
            "[[network.interface]]\nname = \"eth0\"\naddress = [\"192.0.2.1/24\"]\n\
             gateway = \"198.51.100.1\"",
            "4:1: network.interface.gateway: 198.51.100.1 is in no network of interface `eth0`",
        ),
        (
            "[[network.interface]]\nname = \"eth0\"\nmtu = 1",
            "3:1: network.interface.mtu: 1 is not in 576..65535",
        ),
        ("[[workload]]\nname = \"a\"", "2:1: workload.name: `a` needs either `compose` or `file`"),
        (
            "[[workload]]\nname = \"a\"\nfile = \"../x\"",
            "3:1: workload.file: `../x` leaves the ESP",
        ),
        (
            "[[workload]]\nname = \"a\"\nfile = \"x\"\n[[workload]]\nname = \"a\"\nfile = \"y\"",
            "5:1: workload.name: `a` is declared twice",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(config(text), Err(format!("host.toml:{expected}")), "{text}");
    }
}

#[test]
fn static_addresses_switch_dhcp_off() {
    let config = config(
        "[[network.interface]]\nname = \"52:54:00:12:34:56\"\n\
         address = [\"192.0.2.10/24\", \"2001:db8::1/64\"]\ngateway = \"192.0.2.1\"",
    )
    .expect("valid");
    let interface = &config.interfaces[0];
    assert_eq!(interface.link, Link::Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
    assert!(!interface.dhcp);
    assert_eq!(interface.addresses.len(), 2);
}
