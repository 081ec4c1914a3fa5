use super::*;

fn config(text: &str) -> Result<HostConfig, String> {
    check("host.toml", text).map_err(|e| e.to_string())
}

#[test]
fn an_empty_file_is_a_configuration() {
    let config = config("").expect("valid");
    assert_eq!(config.hostname, None);
    assert!(config.workloads.is_empty() && config.interfaces.is_empty());
    assert_eq!(config.time_servers, None);
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
    assert_eq!(merged.time_servers, Some(vec![]));
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
        ("[data]\ndisk = \" \"", "2:1: data.disk: ` ` is no name, serial number or WWID of a disk"),
        (
            "[data]\ndisk = \"/dev/sdb\"",
            "2:1: data.disk: `/dev/sdb` is a path, and there is no udev that would make it: say the serial number, the WWID or the kernel's name",
        ),
        (
            "[kernel]\nmodules = [\"nfs\", \"a b\"]",
            "2:19: kernel.modules: `a b` is not the name of a module",
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

#[test]
fn links_are_told_apart_by_name_address_and_pattern() {
    let mac = Some([0x52, 0x54, 0, 0xaa, 0, 1]);
    let cases = [
        ("eth0", "eth0", true),
        ("eth0", "eth1", false),
        ("eth*", "eth17", true),
        ("eth?", "eth17", false),
        ("52:54:00:AA:00:01", "any", true),
        ("52:54:00:aa:00:02", "any", false),
        ("52:54:00:AA:*", "any", true),
        ("52:54:00:ab:*", "any", false),
        ("*", "any", true),
    ];
    for (written, name, expected) in cases {
        let config =
            config(&format!("[[network.interface]]\nname = \"{written}\"")).expect("valid");
        assert_eq!(config.interfaces[0].link.matches(name, mac), expected, "{written} {name}");
    }
    for bad in ["", "a/b", "a b", "aaaaaaaaaaaaaaaa", ".", "5:54:0:aa:0:1", "52:54:gg:*", "eth[0]"]
    {
        assert!(config(&format!("[[network.interface]]\nname = \"{bad}\"")).is_err(), "{bad}");
    }
}

#[test]
fn whoever_carries_a_vlan_has_no_addresses_unless_told() {
    let text = "[[network.interface]]\nname = \"eth0\"\nmtu = 9000\n\
                [[network.interface]]\nname = \"v\"\nvlan = { link = \"eth0\", id = 7 }";
    let config = config(text).expect("valid");
    let shown: Vec<_> = config.interfaces.iter().map(|i| (i.dhcp, i.ipv6)).collect();
    assert_eq!(shown, [(false, Ipv6::Static), (true, Ipv6::Auto)]);
}

#[test]
fn networks_that_cannot_be_are_named() {
    let bond = |name: &str, members: &str| {
        format!("[[network.interface]]\nname = \"{name}\"\nbond = {{ members = [{members}] }}\n")
    };
    let eth0 = |rest: &str| format!("[[network.interface]]\nname = \"eth0\"\n{rest}");
    let route = |to: &str, via: &str| {
        eth0(&format!("[[network.interface.route]]\nto = \"{to}\"\nvia = \"{via}\""))
    };
    let cases = [
        (
            bond("eth*", "\"a\""),
            "2:1: network.interface.name: `eth*` is not a name for a new interface",
        ),
        (bond("b", ""), "3:10: network.interface.bond.members: a bond needs at least one"),
        (
            bond("b", "\"a\"") + &bond("c", "\"a\""),
            "6:21: network.interface.bond.members: `a` is a member of `b` already",
        ),
        (
            bond("b", "\"a\"") + &bond("c", "\"b\""),
            "6:21: network.interface.bond.members: `b` is a bond; a bond has links",
        ),
        (
            bond("b", "\"eth0\"") + &eth0("address = [\"192.0.2.1/24\"]"),
            "6:1: network.interface.address: `eth0` is a member of `b`, which has the addresses",
        ),
        (
            "[[network.interface]]\nname = \"r\"\nbridge = { members = [\"v\"] }\n\
             [[network.interface]]\nname = \"v\"\nvlan = { link = \"r\", id = 2 }"
                .to_owned(),
            "3:1: network.interface.bridge: `r` would be a part of itself",
        ),
        (
            eth0("vlan = { link = \"b\", id = 4095 }"),
            "3:22: network.interface.vlan.id: 4095 is not in 1..4094",
        ),
        (
            eth0("vlan = { link = \"b*\", id = 2 }"),
            "3:10: network.interface.vlan.link: `b*` may mean several links; a VLAN lies on one",
        ),
        (
            eth0("vlan = { link = \"b\", id = 2 }\nbridge = {}"),
            "3:1: network.interface.vlan: only one of bond, bridge and vlan can be given",
        ),
        (
            eth0("bond = { members = [\"a\"], mode = \"lacp\" }"),
            "3:27: network.interface.bond.mode: `lacp` is none of `active-backup`, `802.3ad`, \
             `balance-rr`, `balance-xor`, `balance-tlb`, `balance-alb`, `broadcast`",
        ),
        (
            eth0("bond = { members = [\"a\"], lacp-rate = \"fast\" }"),
            "3:27: network.interface.bond.lacp-rate: only a bond of mode `802.3ad` has one",
        ),
        (
            eth0("ipv6 = \"no\""),
            "3:1: network.interface.ipv6: `no` is none of `auto`, `dhcp`, `static`, `off`",
        ),
        (
            eth0("ipv6 = \"off\"\naddress = [\"2001:db8::1/64\"]"),
            "4:12: network.interface.address: `2001:db8::1/64` is given, but ipv6 is `off`",
        ),
        (
            eth0("gateway = [\"192.0.2.1\", \"192.0.2.2\"]"),
            "3:25: network.interface.gateway: 192.0.2.2 is a second gateway of its family",
        ),
        (
            route("10.0.0.1/8", "192.0.2.1"),
            "4:1: network.interface.route.to: `10.0.0.1/8` is an address in 10.0.0.0/8, not a network",
        ),
        (
            route("10/8", "192.0.2.1"),
            "4:1: network.interface.route.to: `10/8` is not a network as in",
        ),
        (
            route("2001:db8::/32", "192.0.2.1"),
            "5:1: network.interface.route.via: 192.0.2.1 is not of the family of 2001:db8::/32",
        ),
        (
            "[network]\nsearch = [\"a\", \"b\\nnameserver 192.0.2.6\"]".to_owned(),
            "2:16: network.search: `b\nnameserver 192.0.2.6` is not a domain name",
        ),
        (
            "[proxy]\nhttp = \"http://user:secret@proxy\"".to_owned(),
            "2:1: proxy.http: `http://proxy` is not a proxy as in http://proxy.example.org:3128",
        ),
        (
            "[proxy]\nexclude = [\"a b\"]".to_owned(),
            "2:12: proxy.exclude: `a b` is not a name, a domain, an address or a network",
        ),
        (
            "[time]\nservers = [\"a:b\"]".to_owned(),
            "2:12: time.servers: `a:b` is not a name or an address, with a port or without",
        ),
    ];
    for (text, expected) in cases {
        let error = config(&text).expect_err(&text);
        assert!(error.starts_with(&format!("host.toml:{expected}")), "{text}\n{error}");
    }
}

#[test]
fn lists_without_end_are_refused() {
    let interfaces: String =
        (0..65).map(|n| format!("[[network.interface]]\nname = \"eth{n}\"\n")).collect();
    let error = config(&interfaces).expect_err("too many");
    assert_eq!(error, "host.toml:1:11: network.interface: 65 entries; at most 64 are taken");
    let members = vec!["\"a\""; 65].join(",");
    let text = format!("[[network.interface]]\nname = \"b\"\nbridge = {{ members = [{members}] }}");
    assert!(config(&text).expect_err("too many").contains("65 entries; at most 64"));
}

#[test]
fn one_proxy_is_for_everything_unless_told() {
    let config = config(
        "[proxy]\nhttp = \"http://user:pw@proxy:3128\"\nexclude = [\".lan\", \"10.0.0.0/8\"]",
    );
    let config = config.expect("valid");
    let shown = config.proxy.environment();
    let shown: Vec<_> = shown.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("HTTP_PROXY", "http://user:pw@proxy:3128"),
        ("HTTPS_PROXY", "http://user:pw@proxy:3128"),
        ("NO_PROXY", "localhost,127.0.0.0/8,::1,.lan,10.0.0.0/8"),
    ];
    assert_eq!(shown, expected);
    assert_eq!(config.update.proxy.as_deref(), Some("http://user:pw@proxy:3128"));
    assert_eq!(config.update.no_proxy, [".lan", "10.0.0.0/8"]);
    assert_eq!(Proxy::default().environment(), []);

    let own = "[proxy]\nhttp = \"http://a:1\"\nhttps = \"http://b:2\"\n\
               [update]\nproxy = \"http://c:3\"";
    let own = self::config(own).expect("valid");
    assert_eq!(own.proxy.https.as_deref(), Some("http://b:2"));
    assert_eq!(own.update.proxy.as_deref(), Some("http://c:3"));
}

const CA: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";

#[test]
fn registries_services_and_settings_are_merged_by_name() {
    let below = "[docker]\nlive-restore = false\n[sysctl]\n\"vm.max_map_count\" = 1\n\"vm.swappiness\" = 2\n\
                 [[registry]]\nname = \"a:5000\"\nca-file = \"a.pem\"\n\
                 [[service]]\nname = \"agent\"\nprogram = \"/usr/bin/agent\"";
    let above = format!(
        "[sysctl]\n\"vm.max_map_count\" = \"3\"\n[[registry]]\nname = \"a:5000\"\nca = \"\"\"{CA}\"\"\"\n\
         mirrors = [\"http://b\"]\n[[service]]\nname = \"agent\"\nprogram = \"/usr/bin/agent\"\n\
         arguments = [\"-v\"]\nenvironment = {{ A = \"b\" }}\nnotify = true"
    );
    let (below, above) = (Raw::parse("1", below), Raw::parse("2", &above));
    let merged = above.expect("above").over(below.expect("below")).validate("both").expect("valid");
    assert!(!merged.live_restore && config("").expect("valid").live_restore);
    let sysctl: Vec<_> = merged.sysctl.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(sysctl, [("vm.max_map_count", "3"), ("vm.swappiness", "2")]);
    let registry = &merged.registries[..];
    let expected = Registry {
        name: "a:5000".into(),
        ca: Some(Authority::Inline(CA.into())),
        mirrors: vec!["http://b".into()],
    };
    assert_eq!(registry, [expected]);
    let services: Vec<_> = merged.services.iter().map(|s| (s.arguments.len(), s.notify)).collect();
    assert_eq!(services, [(1, true)]);
}

#[test]
fn mistakes_in_registries_services_and_settings_are_named() {
    let cases = [
        ("[[registry]]\nname = \"a/b\"", "2:1: registry.name: `a/b` is no registry"),
        ("[[registry]]\nname = \"a\"", "2:1: registry.name: `a` needs one of `ca`"),
        ("[[registry]]\nname = \"a\"\nca = \"x\"", "3:1: registry.ca: is no certificate in PEM"),
        (
            "[[registry]]\nname = \"a\"\nca-file = \"../x\"",
            "3:1: registry.ca-file: `../x` leaves the ESP",
        ),
        (
            "[[registry]]\nname = \"a\"\nmirrors = [\"b\"]",
            "3:12: registry.mirrors: `b` is no address as in https://",
        ),
        (
            "[[registry]]\nname = \"a\"\nca-file = \"x\"\n[[registry]]\nname = \"a\"\nca-file = \"x\"",
            "5:1: registry.name: `a` is declared twice",
        ),
        ("[[service]]\nname = \"a\"", "1:1: service.program: `` is no program"),
        ("[sysctl]\n\"etc.x\" = 1", "2:1: sysctl: `etc.x` is no setting as in vm.max_map_count"),
        ("[sysctl]\n\"vm.x\" = true", "a number or a text"),
        (
            "[containerd]\nsandbox-image = \"a b\"",
            "2:1: containerd.sandbox-image: `a b` is no image",
        ),
        ("[docker]\nlive-restor = 1", "2:1: unknown field `live-restor`"),
    ];
    for (text, expected) in cases {
        let error = config(text).expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn var_and_the_kernel_are_as_careful_as_can_be_unless_told() {
    let config = config("").expect("valid");
    assert_eq!((config.data.disk, config.data.trim), (None, 7));
    assert_eq!(config.data.unrepairable, Unrepairable::Keep);
    assert_eq!(config.kernel.module_loading, ModuleLoading::UntilReady);
    let told = self::config(
        "[data]\ndisk = \"sd*\"\nunrepairable = \"replace\"\ntrim = 0\n\
         [kernel]\nmodules = [\"nfsv4\"]\nmodule-loading = \"always\"",
    );
    let told = told.expect("valid");
    assert_eq!((told.data.disk.as_deref(), told.data.trim), (Some("sd*"), 0));
    assert_eq!(told.data.unrepairable, Unrepairable::Replace);
    assert_eq!(told.kernel.module_loading, ModuleLoading::Always);
    assert_eq!(told.kernel.modules, ["nfsv4"]);
}
