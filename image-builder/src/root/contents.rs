//! What a host holds: the packages of each variant, and which of their files stay.

use crate::definition::{Definition, Runtime};
use crate::prune::Rules;
use std::collections::BTreeSet;

/// Where systemd's EFI stub lies in its package.
pub(super) const STUB: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// The packages that `definition` means: the kernel, what mounts and repairs `/var`, the runtime,
/// and what the definition adds.
pub fn packages(definition: &Definition) -> Vec<String> {
    let mut names = vec![definition.kernel.package(), "systemd-boot-efi", "e2fsprogs"];
    names.extend(["ca-certificates", "netbase", "containerd", "crun", "runc"]);
    if definition.runtime == Runtime::Docker {
        names.extend(["docker.io", "docker-cli", "docker-buildx", "docker-compose", "iptables"]);
        // dockerd starts `ps` for `docker top`, and `xz` for images that are packed so.
        names.extend(["procps", "xz-utils"]);
    }
    if definition.debug_shell {
        names.push("busybox-static");
    }
    names.into_iter().map(str::to_owned).chain(definition.packages.iter().cloned()).collect()
}

/// Packages that others depend on and a host does without: package management, scripts and their
/// interpreters, another init, initramfs tools. Berth does their work itself.
pub const ASSUMED: [&str; 30] = [
    "adduser",
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "debconf",
    "debconf-2.0",
    "debianutils",
    "dpkg",
    "findutils",
    "grep",
    "init-system-helpers",
    "initramfs-tools",
    "kmod",
    "libc-bin",
    "linux-base",
    "linux-initramfs-tool",
    "logsave",
    "lsb-base",
    "mawk",
    "openssl",
    "passwd",
    "perl",
    "perl-base",
    "perl:any",
    "sed",
    "systemd",
    "sysvinit-utils",
    "tar",
    "udev",
];

/// The only programs that stay of packages that the definition does not name itself.
const PROGRAMS: [&str; 19] = [
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/bin/crun",
    "usr/bin/ctr",
    "usr/bin/docker",
    "usr/bin/docker-init",
    "usr/bin/ps",
    "usr/bin/runc",
    "usr/bin/tini-static",
    "usr/bin/xz",
    "usr/sbin/docker-proxy",
    "usr/sbin/dockerd",
    "usr/sbin/e2fsck",
    "usr/sbin/mke2fs",
    "usr/sbin/resize2fs",
    "usr/sbin/runc",
    "usr/sbin/tini",
    "usr/sbin/xtables-nft-multi",
    "usr/libexec/docker",
];

/// Left out of every host.
const DROPPED: [&str; 48] = [
    // For people and package managers.
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/debconf",
    "usr/share/doc",
    "usr/share/doc-base",
    "usr/share/docker.io",
    "usr/share/fish",
    "usr/share/info",
    "usr/share/initramfs-tools",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/menu",
    "usr/share/pam*",
    "usr/share/pixmaps",
    "usr/share/perl*",
    "usr/share/zsh",
    "usr/lib/dpkg",
    "etc/apt",
    "etc/ca-certificates",
    "etc/dpkg",
    "etc/e2scrub.conf",
    "etc/ethertypes",
    "etc/rpc",
    "usr/libexec/e2fsprogs",
    // Another init, its services and hooks.
    "etc/cron*",
    "etc/default",
    "etc/init",
    "etc/init.d",
    "etc/kernel",
    "etc/logrotate.d",
    "etc/network",
    "etc/rc*.d",
    "etc/systemd",
    "usr/lib/systemd",
    "usr/lib/udev",
    "usr/lib/tmpfiles.d",
    "usr/lib/sysusers.d",
    // Shells, perl, legacy iptables, programs that nothing starts.
    "usr/bin/*",
    "usr/sbin/*",
    "usr/lib/*/perl*",
    "usr/lib/*/e2fsprogs",
    "usr/lib/*/e2scrub*",
    // The kernel goes into the UKI; /var is another partition; character sets are for desktops.
    "boot",
    "var/*",
    "usr/lib/*/gconv",
    "usr/lib/linux-image-*",
    "usr/include",
];

/// Libraries that programs open by name while they run.
pub(super) const OPENED_AT_RUN_TIME: [&str; 2] = ["/libgcc_s.", "/ld-linux"];

/// Which paths stay. `asked_for` are the files of packages that the definition names itself.
pub(super) fn rules(definition: &Definition, asked_for: &BTreeSet<String>) -> Rules {
    let programs = asked_for
        .iter()
        .filter(|path| path.starts_with("usr/bin/") || path.starts_with("usr/sbin/"));
    let busybox = definition.debug_shell.then(|| "usr/bin/busybox".to_owned());
    let keep = PROGRAMS
        .iter()
        .map(|s| s.to_string())
        .chain(programs.cloned())
        .chain(busybox)
        .chain(definition.keep.iter().cloned());
    let drop = DROPPED.iter().map(|s| s.to_string()).chain(definition.drop.iter().cloned());
    Rules::new(drop, keep)
}

/// What the host starts, or other programs start by name.
pub(super) fn required(runtime: Runtime, debug_shell: bool) -> Vec<&'static str> {
    let mut programs = vec![
        "usr/lib/berth/init",
        "usr/bin/berth-updater",
        "usr/sbin/mke2fs",
        "usr/sbin/e2fsck",
        "usr/sbin/resize2fs",
        "usr/bin/containerd",
        "usr/bin/containerd-shim-runc-v2",
        "usr/bin/crun",
        "usr/bin/ctr",
        "usr/sbin/runc",
    ];
    if runtime == Runtime::Docker {
        programs.extend(["usr/sbin/dockerd", "usr/sbin/docker-proxy", "usr/bin/docker"]);
        programs.extend(["usr/sbin/iptables", "usr/sbin/ip6tables"]);
        programs.push("usr/libexec/docker/cli-plugins/docker-buildx");
        programs.push("usr/libexec/docker/cli-plugins/docker-compose");
        programs.extend(["usr/bin/ps", "usr/bin/xz"]);
    }
    if debug_shell {
        programs.push("usr/bin/busybox");
    }
    programs
}

/// Kernel modules are ELF files too, but nothing links them here.
pub(super) fn is_kernel_module(path: &str) -> bool {
    path.starts_with("usr/lib/modules/")
}

/// Modules that the host loads at every boot, in the real root, before Docker starts: it cannot load
/// modules by itself when it probes for them.
pub(super) const MODULES: [&str; 26] = [
    "overlay",
    "llc",
    "stp",
    "bridge",
    "br_netfilter",
    "veth",
    "nf_tables",
    "nft_compat",
    "nft_chain_nat",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_nat",
    "xt_addrtype",
    "xt_conntrack",
    "xt_MASQUERADE",
    "xt_nat",
    "xt_tcpudp",
    "xfrm_user",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859-1",
    "nls_utf8",
    "qemu_fw_cfg",
    "button",
    "evdev",
];

/// Modules that the host loads once it is ready, before it closes the kernel to modules: what Docker's
/// networks, Swarm, the usual network plugins of Kubernetes and tools in containers may ask for later.
/// Others are named in the host configuration.
pub(super) const LAST_MODULES: [&str; 66] = [
    // Kinds of links: Docker's drivers, VLANs, tunnels.
    "macvlan",
    "ipvlan",
    "dummy",
    "8021q",
    "tun",
    "vxlan",
    "ipip",
    "wireguard",
    // Swarm: balancing, and networks that are encrypted.
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_sh",
    "xt_ipvs",
    "xt_bpf",
    "xt_policy",
    "xt_REDIRECT",
    "esp4",
    "esp6",
    "gcm",
    "seqiv",
    // Rules of packet filters.
    "ipt_REJECT",
    "ip6t_REJECT",
    "xt_comment",
    "xt_connmark",
    "xt_CT",
    "xt_hashlimit",
    "xt_limit",
    "xt_LOG",
    "xt_mark",
    "xt_multiport",
    "xt_NFLOG",
    "xt_owner",
    "xt_physdev",
    "xt_recent",
    "xt_set",
    "xt_socket",
    "xt_statistic",
    "xt_string",
    "xt_TCPMSS",
    "xt_TPROXY",
    "xt_u32",
    "nf_log_syslog",
    "ip_set_bitmap_port",
    "ip_set_hash_ip",
    "ip_set_hash_ipport",
    "ip_set_hash_ipportip",
    "ip_set_hash_ipportnet",
    "ip_set_hash_net",
    "nft_ct",
    "nft_fib_inet",
    "nft_hash",
    "nft_limit",
    "nft_log",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_redir",
    "nft_reject_inet",
    // Bandwidth.
    "cls_bpf",
    "ifb",
    "sch_fq",
    "sch_htb",
    "sch_ingress",
    "sch_tbf",
    // For tools: what `ss` asks, programs of other machines.
    "tcp_diag",
    "binfmt_misc",
];
