//! What a person writes.

use crate::Target;
use contract::{host_config, module_alias, toml_input};
use image_builder::definition::Definition;
use std::path::Path;

pub const TARGETS: &[Target] = &[
    Target { name: "host-config", run: host, samples: host_samples },
    Target { name: "definition", run: definition, samples: definition_samples },
    Target { name: "told", run: init::untrusted::told, samples: init::untrusted::told_samples },
    Target { name: "module-alias", run: alias, samples: alias_samples },
    Target { name: "module-index", run: init::untrusted::modules, samples: index_samples },
];

fn host_samples() -> Vec<Vec<u8>> {
    let demo = include_bytes!("../../configs/demo/host.toml").to_vec();
    let network =
        b"hostname = \"h\"\n[network]\nnameservers = [\"192.0.2.1\"]\nsearch = [\"a.b\"]\n\
        [[network.interface]]\nname = \"52:54:00:12:34:56\"\naddress = [\"192.0.2.9/24\", \
        \"2001:db8::1/64\"]\ngateway = [\"192.0.2.1\", \"fe80::1\"]\nmtu = 1500\nipv6 = \"dhcp\"\n\
        [[network.interface.route]]\nto = \"10.0.0.0/8\"\nvia = \"192.0.2.2\"\nmetric = 5\n\
        [[network.interface]]\nname = \"b0\"\nbond = { members = [\"eth*\"], mode = \"802.3ad\" }\n\
        [[network.interface]]\nname = \"v\"\nvlan = { link = \"b0\", id = 7 }\n\
        [[network.interface]]\nname = \"r\"\nbridge = { members = [\"v\"], stp = true }\n\
        [proxy]\nhttp = \"http://u:p@proxy:3128\"\nexclude = [\".lan\"]\n\
        [time]\nservers = [\"[2001:db8::1]:1123\"]\n\
        [[workload]]\nname = \"w\"\nfile = \"w.yaml\"\ntimeout = 5\n";
    vec![demo, network.to_vec()]
}

/// An error about a key is about one line of the text.
fn host(data: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(data) else { return false };
    let checked = host_config::check("host.toml", text);
    let taken = checked.is_ok();
    if let Err(error) = checked {
        let lines = text.matches('\n').count() + 1;
        assert!(error.position.is_none_or(|(line, column)| line <= lines && column >= 1));
        assert!(error.key.is_none_or(|key| toml_input::place(text, &key).is_some()));
    }
    taken
}

fn definition_samples() -> Vec<Vec<u8>> {
    let all = [
        &include_bytes!("../../configs/docker.toml")[..],
        include_bytes!("../../configs/containerd.toml"),
        b"name = \"x\"\nversion = \"1\"\nsuite = \"trixie\"\nruntime = \"docker\"\n\
          [partitions]\nroot = \"2GiB\"\n[[file]]\npath = \"/etc/{a,b}\"\ncontent = \"x\"\n\
          mode = \"0644\"\n",
    ];
    all.map(<[u8]>::to_vec).to_vec()
}

/// A file of the root is never named outside of it.
fn definition(data: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(data) else { return false };
    let read = Definition::from_text("x.toml", text, &[], Path::new("/nowhere"));
    let taken = read.is_ok();
    for file in read.into_iter().flat_map(|definition| definition.files) {
        assert!(!file.path.split('/').any(|part| ["", ".", ".."].contains(&part)));
    }
    taken
}

fn alias_samples() -> Vec<Vec<u8>> {
    vec![b"pci:v00001AF4d*sv*sd*bc*sc*i*\npci:v00001AF4d00001041sv00sd01bc02sc00i00".to_vec()]
}

/// A pattern matches itself where nothing in it stands for something else, and no pattern panics.
fn alias(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let (pattern, name) = text.split_once('\n').unwrap_or((&text, ""));
    if !pattern.contains(['*', '?', '[', ']', '\\']) {
        assert!(module_alias::matches(pattern, pattern));
    }
    module_alias::matches(pattern, name)
}

fn index_samples() -> Vec<Vec<u8>> {
    let text = "k/a.ko.xz: k/b.ko.xz k/c.ko.xz\nk/b.ko.xz: k/c.ko.xz\nk/c.ko.xz:\n\0\
        alias pci:v*d1* a\nalias fs-ext4 b\n\0softdep b pre: a post: c\n";
    vec![text.as_bytes().to_vec()]
}
