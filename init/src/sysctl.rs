//! Settings of the kernel, each with its reason or its line in the host configuration.

use crate::log;
use contract::host_config::sysctl_path;
use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

/// Path below `/proc/sys`, value, reason. Order matters: forwarding resets settings of its family.
const SETTINGS: [(&str, &str, &str); 37] = [
    ("kernel/panic", "10", "reboot ten seconds after a panic: nobody sits at the console"),
    ("kernel/panic_on_oops", "1", "a kernel that has lost its footing must not go on writing"),
    ("kernel/printk", "4 4 1 7", "the console is for what a person must see"),
    ("kernel/pid_max", "4194304", "many containers, many threads"),
    ("kernel/kptr_restrict", "1", "kernel addresses are not for containers"),
    ("kernel/dmesg_restrict", "1", "nor is the kernel's log"),
    // After the Kernel Self Protection Project's recommended settings, less what containers need:
    // user namespaces, ptrace of one's own children, io_uring.
    ("kernel/unprivileged_bpf_disabled", "1", "attack surface that no container needs"),
    ("net/core/bpf_jit_harden", "2", "constants of others do not become instructions"),
    ("kernel/perf_event_paranoid", "3", "counters of the machine are not for containers"),
    ("kernel/yama/ptrace_scope", "1", "a process looks into its children only"),
    ("kernel/kexec_load_disabled", "1", "no other kernel than the one that was verified"),
    ("kernel/randomize_va_space", "2", "kernel default; said so that it stays"),
    ("kernel/sysrq", "0", "who is at the keyboard is not thereby trusted"),
    ("vm/unprivileged_userfaultfd", "0", "kernel default; makes races in the kernel easy to win"),
    ("vm/mmap_min_addr", "65536", "a null pointer of the kernel leads nowhere"),
    ("dev/tty/ldisc_autoload", "0", "line disciplines that nobody asked for"),
    ("dev/tty/legacy_tiocsti", "0", "nobody types into the terminal of another"),
    ("fs/suid_dumpable", "0", "no core of what had more rights than its user"),
    ("fs/protected_hardlinks", "1", "kernel default is off"),
    ("fs/protected_symlinks", "1", "kernel default is off"),
    ("fs/protected_fifos", "2", "files in /tmp that others left there"),
    ("fs/protected_regular", "2", "the same"),
    ("net/ipv4/tcp_rfc1337", "1", "a stray reset ends no connection that was closed before"),
    ("fs/inotify/max_user_instances", "8192", "counted per user, and containers share root's"),
    ("vm/max_map_count", "1048576", "databases and search engines in containers ask for it"),
    ("net/core/fb_tunnels_only_for_init_net", "1", "no tunl0 in every container"),
    ("net/ipv4/ip_forward", "1", "containers reach the network through the host"),
    ("net/ipv4/conf/all/rp_filter", "2", "drop forged sources, allow several links (RFC 3704)"),
    ("net/ipv4/conf/default/rp_filter", "2", "the same for links to come"),
    ("net/ipv4/conf/all/accept_redirects", "0", "routes come from DHCP or the configuration"),
    ("net/ipv4/conf/default/accept_redirects", "0", "the same for links to come"),
    ("net/ipv4/conf/all/send_redirects", "0", "a host is not its neighbours' router"),
    ("net/ipv6/conf/all/accept_redirects", "0", "as for IPv4"),
    ("net/ipv6/conf/default/accept_redirects", "0", "as for IPv4"),
    // Wired links get 2 when they are taken: bridges would believe what containers advertise.
    ("net/ipv6/conf/default/accept_ra", "0", "containers must not tell the host its routes"),
    ("net/bridge/bridge-nf-call-iptables", "1", "Docker's rules see traffic between containers"),
    ("net/bridge/bridge-nf-call-ip6tables", "1", "the same for IPv6"),
];

/// Memory that the kernel keeps free for itself, in KiB.
const MIN_FREE: &str = "vm/min_free_kbytes";

/// Applies the table. Returns the settings that this kernel does not have, or that failed.
pub fn apply_defaults() -> Vec<&'static str> {
    let mut failed: Vec<_> = SETTINGS
        .iter()
        .filter(|(name, value, _)| set(name, value).is_err())
        .map(|(name, ..)| *name)
        .collect();
    let memory = fs::read_to_string("/proc/meminfo").ok();
    let kept = memory.as_deref().and_then(total_kib).map(min_free_kib);
    if kept.is_none_or(|kib| set(MIN_FREE, &kib.to_string()).is_err()) {
        failed.push(MIN_FREE);
    }
    failed
}

/// `MemTotal` of `/proc/meminfo`.
fn total_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What the kernel keeps free without transparent huge pages (`calculate_min_free_kbytes` in
/// `mm/page_alloc.c`). With them it keeps more, on a machine of 2 GiB eight times as much, to have
/// huge pages at hand; containers make more of that memory.
fn min_free_kib(total_kib: u64) -> u64 {
    total_kib.saturating_mul(16).isqrt().clamp(128, 256 << 10)
}

/// Makes the settings of the host configuration. One that the kernel does not know or not take is
/// told, and no more.
pub fn apply_configured(settings: &BTreeMap<String, String>) {
    for (name, value) in settings {
        let Some(path) = sysctl_path(name) else { continue };
        if let Err(e) = set(&path, value) {
            log::warning(&format!("sysctl {name} = {value}: {e}"));
        }
    }
}

/// Sets one, by its path below `/proc/sys`.
pub fn set(path: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys").join(path), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_kept_free_as_the_kernel_would_without_huge_pages() {
        let meminfo = "MemTotal:        2015432 kB\nMemFree:  1 kB\n";
        assert_eq!(total_kib(meminfo), Some(2_015_432));
        assert_eq!(total_kib("MemFree: 1 kB\n"), None);
        for (total, kept) in [(0, 128), (2 << 20, 5792), (64 << 20, 32768), (u64::MAX, 262_144)] {
            assert_eq!(min_free_kib(total), kept, "{total}");
        }
    }
}
