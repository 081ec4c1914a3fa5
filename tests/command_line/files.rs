//! Mistakes in the files that a person writes: definitions, host configurations.

use crate::{DEFINITION, Steps, session};
use e2e::project;

#[test]
fn mistakes_in_a_definition() {
    let mut session = session();
    for (file, text) in [
        ("unknown-key.toml", format!("{DEFINITION}pakages = [\"nano\"]\n")),
        ("unknown-table.toml", format!("{DEFINITION}[debg]\nshell = true\n")),
        ("wrong-type.toml", format!("{DEFINITION}packages = 3\n")),
        ("syntax.toml", format!("{DEFINITION}packages = [\nkeep = []\n")),
        ("no-name.toml", DEFINITION.replace("name = \"host\"\n", "")),
        ("bad-version.toml", DEFINITION.replace("\"1\"", "\"1 2\"")),
        ("bad-runtime.toml", DEFINITION.replace("containerd", "contanerd")),
        ("size.toml", format!("{DEFINITION}[partitions]\nroot = \"2GB\"\n")),
        ("writable.toml", format!("{DEFINITION}writable = [\"/opt/../etc\"]\n")),
        (
            "writable-twice.toml",
            format!("{DEFINITION}writable = [\"/opt/cni\", \"/opt/cni/bin\"]\n"),
        ),
        ("writable-own.toml", format!("{DEFINITION}writable = [\"/usr/bin\"]\n")),
    ] {
        session.write(file, &text);
        session.refused(&format!("build {file} -o out --offline"));
    }
    session.refused("build absent.toml -o out --offline");
    for set in ["nothing", "packages=3", "pakages=[]", "partitions.rot=1GiB", "name=/etc"] {
        session.refused(&format!("build host.toml -o out --offline --set {set}"));
    }
    // The same way for all commands that read a definition.
    session.refused("run host.toml --offline --set packages=[\"ngnix\"]");
    session.refused("run host.toml --offline --locked");
    session.refused("lock host.toml --offline --set suite=3");
    session.write(
        "box.toml",
        "name = \"box\"\ntag = \"1\"\nsuite = \"trixie\"\npackages = []\n[[file]]\npath = \"x\"\n",
    );
    session.refused("container box.toml -o out/x.oci.tar --offline");
    session.refused("container box.toml -o out/x.oci.tar --offline --set tag=/");
    session.shows("definition", &[]);
}

#[test]
fn host_configurations() {
    let mut session = session();
    let demo = project().join("configs/demo/host.toml");
    let demo = demo.to_str().expect("a plain path");
    assert_eq!(session.berth(&format!("check {demo}")), Some(0));
    assert_eq!(session.berth("check --definition host.toml"), Some(0));
    for (file, text) in [
        ("unknown-key.toml", "# A comment.\nhostnme = \"x\"\n"),
        ("wrong-type.toml", "hostname = 3\n"),
        ("bad-name.toml", "hostname = \"-x\"\n"),
        (
            "bad-address.toml",
            "[[network.interface]]\nname = \"eth0\"\naddress = [\"192.0.2/24\"]\n",
        ),
        (
            "bad-prefix.toml",
            "[[network.interface]]\nname = \"eth0\"\naddress = [\"192.0.2.1/33\"]\n",
        ),
        ("bad-server.toml", "[network]\nnameservers = [\"name.example\"]\n"),
        ("no-compose.toml", "[[workload]]\nname = \"x\"\n"),
    ] {
        session.write(file, text);
        session.refused(&format!("check {file}"));
    }
    session.shows("host", &[demo]);
}

#[test]
fn host_configurations_of_containers_disks_and_the_kernel() {
    const SERVICE: &str = "[[service]]\nname = \"kubelet\"\nprogram = \"/usr/bin/kubelet\"\n";
    const REGISTRY: &str = "[[registry]]\nname = \"registry.example:5000\"\n";
    let mut session = session();
    let twice = |entry: &str| entry.repeat(2);
    for (file, text) in [
        ("data-kind.toml", "[data]\nunrepairable = \"format\"\n".to_owned()),
        ("data-trim.toml", "[data]\ntrim = \"weekly\"\n".to_owned()),
        ("data-disk.toml", "[data]\ndisk = \"/dev/disk/by-id/nvme-1\"\n".to_owned()),
        ("kernel-loading.toml", "[kernel]\nmodule-loading = \"never\"\n".to_owned()),
        ("kernel-module.toml", "[kernel]\nmodules = [\"../nbd.ko\"]\n".to_owned()),
        ("sysctl-name.toml", "[sysctl]\n\"net/../../x\" = 1\n".to_owned()),
        ("sysctl-value.toml", "[sysctl]\n\"vm.swappiness\" = [1]\n".to_owned()),
        ("docker-key.toml", "[docker]\nlive-restor = false\n".to_owned()),
        ("docker-value.toml", "[docker]\nlive-restore = \"no\"\n".to_owned()),
        ("containerd-key.toml", "[containerd]\nsandbox = \"x\"\n".to_owned()),
        (
            "containerd-image.toml",
            "[containerd]\ncri = true\nsandbox-image = \"two words\"\n".to_owned(),
        ),
        ("registry-name.toml", "[[registry]]\nname = \"https://registry.example\"\n".to_owned()),
        ("registry-twice.toml", twice(REGISTRY)),
        ("registry-ca.toml", format!("{REGISTRY}ca = \"no certificate\"\n")),
        ("registry-file.toml", format!("{REGISTRY}ca-file = \"../ca.pem\"\n")),
        ("registry-mirror.toml", format!("{REGISTRY}mirrors = [\"mirror.example\"]\n")),
        ("service-program.toml", SERVICE.replace("/usr/bin", "/var/lib")),
        ("service-name.toml", SERVICE.replace("\"kubelet\"", "\"The Kubelet\"")),
        ("service-twice.toml", twice(SERVICE)),
        ("service-arguments.toml", format!("{SERVICE}arguments = \"--v 2\"\n")),
    ] {
        session.write(file, &text);
        session.refused(&format!("check {file}"));
    }
    session.shows("host-containers", &[]);
}
