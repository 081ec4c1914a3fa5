//! What nobody can do on a host, and that containers can do what they could before. One row each.

use e2e::*;
use qemu::Machine;

/// What holds, a command, and whether what it printed shows it.
type Row = (&'static str, &'static str, fn(&str) -> bool);

/// Folders that are for what containers bring.
const FOR_CONTAINERS: [&str; 2] = ["/var/lib/docker", "/var/lib/containerd"];

fn is_for_containers(target: &str) -> bool {
    FOR_CONTAINERS.iter().any(|folder| target.starts_with(folder))
}

/// Of a line of `/proc/mounts`: writable, but without `limit`.
fn lacks(line: &str, limit: &str) -> bool {
    let options: Vec<&str> = line.split(' ').nth(3).expect("options").split(',').collect();
    options.contains(&"rw") && !options.contains(&limit)
}

/// The targets of writable mounts that lack `limit`, but for those of containers.
fn open(mounts: &str, limit: &str) -> Vec<String> {
    let lines = mounts.lines().filter(|line| lacks(line, limit));
    let targets = lines.map(|line| line.split(' ').nth(1).expect("a target").to_owned());
    targets.filter(|target| !is_for_containers(target)).collect()
}

const COPY: &str = "for d in /run /tmp /dev/shm /var /var/tmp /var/lib /var/lib/berth /var/log; do \
                    busybox cp /usr/bin/busybox $d/program && $d/program true 2>&1; \
                    busybox rm -f $d/program; done";

const ROWS: [Row; 26] = [
    ("nothing writable is executable", "cat /proc/mounts", |out| {
        out.contains(" /var/lib/docker ext4 ") && open(out, "noexec").is_empty()
    }),
    ("nothing writable gives privileges", "cat /proc/mounts", |out| open(out, "nosuid").is_empty()),
    ("nothing writable is a device but /dev", "cat /proc/mounts", |out| {
        open(out, "nodev") == ["/dev", "/dev/pts"]
    }),
    ("a program that was written is not started", COPY, |out| {
        out.lines().count() == 8 && out.lines().all(|line| line.contains("Permission denied"))
    }),
    ("the root is opened through dm-verity", "cat /sys/block/dm-0/dm/uuid /proc/mounts", |out| {
        out.lines().any(|line| line.starts_with("/dev/dm-0 / ext4 ro,"))
    }),
    ("the root is a verified device", "cat /sys/block/dm-0/dm/name /sys/block/dm-0/ro", |out| {
        out.split_whitespace().eq(["root", "1"])
    }),
    (
        "/etc and /usr are read-only",
        "for d in /etc /usr /usr/bin; do echo > $d/x; done 2>&1",
        |out| {
            out.lines().count() == 3
                && out.lines().all(|line| line.contains("Read-only file system"))
        },
    ),
    ("no root can be made writable", "busybox mount -o remount,rw / 2>&1", |out| !out.is_empty()),
    ("the kernel is locked down", "cat /sys/kernel/security/lockdown", |out| {
        out.contains("[integrity]")
    }),
    ("nobody reads memory", "busybox dd if=/dev/mem of=/dev/null bs=1 count=1 2>&1", |out| {
        out.contains("Operation not permitted")
    }),
    ("modules need a signature", "cat /sys/module/module/parameters/sig_enforce", |out| {
        out.trim() == "Y"
    }),
    ("the kernel is closed to modules", "cat /proc/sys/kernel/modules_disabled", |out| {
        out.trim() == "1"
    }),
    (
        "not even a module of ours is loaded",
        "busybox insmod /usr/lib/modules/*/kernel/drivers/block/nbd.ko 2>&1",
        |out| out.contains("Operation not permitted"),
    ),
    ("nor does the kernel ask for one", "cat /proc/sys/kernel/modprobe", |out| {
        out.trim().is_empty()
    }),
    ("there is no other kernel to start", "cat /proc/sys/kernel/kexec_load_disabled", |out| {
        out.trim() == "1"
    }),
    (
        "no file gives privileges",
        "busybox find / /var -xdev -path /var/lib/docker -prune -o -path /var/lib/containerd -prune \
         -o -type f -perm /6000 -print",
        str::is_empty,
    ),
    (
        "no device lies outside of /dev",
        "busybox find / /var /run /tmp -xdev -path /var/lib/docker -prune -o -path \
         /var/lib/containerd -prune -o '(' -type b -o -type c ')' -print",
        str::is_empty,
    ),
    ("nobody listens to TCP", "cat /proc/net/tcp /proc/net/tcp6", |out| {
        out.lines().count() >= 2 && !out.lines().any(|line| field(line, 3) == "0A")
    }),
    ("nobody waits for UDP", "cat /proc/net/udp /proc/net/udp6", |out| {
        let headings = out.lines().filter(|line| line.contains("local_address")).count();
        headings == 2 && out.lines().count() == headings
    }),
    ("root alone may reach the daemons", "ls -l /run/docker.sock /run/containerd/*.sock", |out| {
        out.lines().count() == 2
            && out.lines().all(|l| l.starts_with("srw-rw----") && l.contains("root"))
    }),
    ("nobody but root has an account", "busybox awk -F: '$3 == 0' /etc/passwd", |out| {
        out.lines().count() == 1
    }),
    (
        "lockdown keeps nothing of ours from working",
        "busybox dmesg | busybox grep Lockdown:",
        |out| {
            // The kernel says by itself that it does not hibernate; the row above was refused.
            ["hibernation", "/dev/mem"]
                .iter()
                .map(|known| out.lines().filter(|l| l.contains(known)).count())
                .sum::<usize>()
                == out.lines().count()
        },
    ),
    (
        "containers run",
        "docker run --rm berth.local/busybox:1 busybox sh -c 'busybox echo fine'",
        |out| out.trim() == "fine",
    ),
    (
        "programs in volumes run",
        "docker run --rm -u 0 -v tools:/tools berth.local/busybox:1 busybox sh -c \
         'busybox cp /bin/busybox /tools/ && /tools/busybox echo fine'",
        |out| out.trim() == "fine",
    ),
    (
        "not even a privileged container loads a module",
        "docker run --rm -u 0 --privileged -v /usr/lib/modules:/m:ro berth.local/busybox:1 busybox sh -c \
         'busybox insmod /m/*/kernel/drivers/block/nbd.ko' 2>&1",
        |out| out.contains("Operation not permitted"),
    ),
    (
        "a network of a kind that was not used before works",
        "docker network create -d macvlan -o parent=eth0 lan > /dev/null && docker run --rm \
         --network lan berth.local/busybox:1 busybox ip link show eth0",
        |out| out.contains("eth0") && out.contains("UP"),
    ),
];

/// Who is asked for the time answers to a port for a moment.
const CONFIG: &str = r#"
[time]
servers = []

[sysctl]
"vm.max_map_count" = 262144
"net.ipv4.conf.eth0.log_martians" = "1"
"vm.no_such_setting" = 1
"#;

fn field(line: &str, index: usize) -> &str {
    line.split_whitespace().nth(index).unwrap_or_default()
}

/// After the Kernel Self Protection Project, and what the host configuration asks for.
const SYSCTLS: [(&str, &str); 20] = [
    ("dev/tty/ldisc_autoload", "0"),
    ("dev/tty/legacy_tiocsti", "0"),
    ("fs/protected_fifos", "2"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_regular", "2"),
    ("fs/protected_symlinks", "1"),
    ("fs/suid_dumpable", "0"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kexec_load_disabled", "1"),
    ("kernel/kptr_restrict", "1"),
    ("kernel/perf_event_paranoid", "3"),
    ("kernel/randomize_va_space", "2"),
    ("kernel/sysrq", "0"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/yama/ptrace_scope", "1"),
    ("net/core/bpf_jit_harden", "2"),
    ("net/ipv4/conf/eth0/log_martians", "1"),
    ("vm/max_map_count", "262144"),
    ("vm/mmap_min_addr", "65536"),
    ("vm/unprivileged_userfaultfd", "0"),
];

/// The sockets that the host's own programs listen on are those that the audit of its image names.
fn listening(host: &mut Machine) -> Vec<String> {
    let audit =
        berth_ok(["inspect", "--audit", "--json", docker_image().to_str().expect("a path")]);
    let audit: serde_json::Value = serde_json::from_str(&audit).expect("JSON");
    let named = audit["slots"][0]["listening"].as_array().expect("a list");
    let named: Vec<&str> = named.iter().filter_map(|l| l["address"].as_str()).collect();
    let is_named = |path: &str| {
        named.iter().any(|name| match name.strip_suffix('*') {
            Some(folder) => path.starts_with(folder),
            None => *name == path,
        })
    };
    // __SO_ACCEPTCON of linux/net.h: somebody listens.
    let sockets = sh(host, "cat /proc/net/unix");
    let listening = sockets.lines().filter(|line| field(line, 3) == "00010000");
    listening.map(|line| field(line, 7)).filter(|path| !is_named(path)).map(str::to_owned).collect()
}

#[test]
fn what_nobody_can_do_and_what_containers_still_can() {
    let disk = Disk::copy_of(docker_image());
    let config = disk.host_config(CONFIG);
    let (mut host, _) = boot(&qemu::Config { host_config: Some(config), ..disk.config() });
    host.wait_for_line("berth: the kernel takes no more modules", SOON).expect("closed");
    let mut broken = Vec::new();
    for (name, command, shown) in ROWS {
        let output = host.shell(command, SOON).expect("the shell answers");
        if !shown(&output.stdout) {
            broken.push(format!("{name}: {command}\n{}", output.stdout));
        }
    }
    let others = listening(&mut host);
    if !others.is_empty() {
        broken.push(format!("sockets that the audit does not name: {others:?}"));
    }
    for (name, expected) in SYSCTLS {
        let value = sh(&mut host, &format!("cat /proc/sys/{name}"));
        if value.trim() != expected {
            broken.push(format!("{name} is {}, not {expected}", value.trim()));
        }
    }
    let told = "warning: sysctl vm.no_such_setting = 1: No such file";
    if !host.console().iter().any(|line| line.text.contains(told)) {
        broken.push(format!("nobody says: {told}"));
    }
    assert!(broken.is_empty(), "{} rows are broken:\n{}", broken.len(), broken.join("\n\n"));
}
