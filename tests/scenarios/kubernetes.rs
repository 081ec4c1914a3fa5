//! A host that is prepared for a kubelet: what a kubelet looks for before it starts, and what it asks of
//! containerd.

use e2e::cri::{Answer, Cri, Message};
use e2e::registry::{Authority, Registry};
use e2e::rows::Rows;
use e2e::*;
use qemu::{Config, Machine};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Leads to containerd's socket.
const PORT: u16 = 7001;
/// Services of the host, as a kubelet is one: what takes a port to the socket, and what says when it is
/// ready. Modules of one's own, as network plugins and storage want them.
const HOST: &str = r#"
[time]
servers = []

[kernel]
modules = ["nbd"]
module-loading = "always"

[[service]]
name = "door"
program = "/usr/bin/socat"
arguments = ["TCP-LISTEN:7001,fork,reuseaddr", "UNIX-CONNECT:/run/containerd/containerd.sock"]

[[service]]
name = "second"
program = "/usr/bin/containerd"
arguments = ["--root=/var/lib/second", "--state=/run/second", "--address=/run/second.sock"]
environment = { GOGC = "50" }
notify = true
"#;

const POD: &str = "10.88.0";
const NETWORK: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;

fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let preload = "images=[\"containers/pause.toml\",\"containers/busybox.toml\"]";
        build("configs/kubernetes.toml", &["name=e2e-kubernetes", "debug.shell=true", preload])
    })
}

#[test]
fn a_kubelet_finds_what_it_asks_for() {
    let authority = Authority::new();
    let registry = Registry::start(&authority);
    let (disk, pem) = (Disk::copy_of(image()), authority.pem());
    let name = registry.name();
    let host_config = disk
        .host_config(&format!("{HOST}[[registry]]\nname = \"{name}\"\nca = \"\"\"\n{pem}\"\"\"\n"));
    let config =
        Config { ports: vec![forward(PORT)], host_config: Some(host_config), ..disk.config() };
    let (mut host, ready) = boot(&config);
    assert_eq!(ready.runtime, "containerd");
    let cri = door(&host);

    let mut rows = Rows::new(&mut host);
    preflight(&mut rows);
    rows.check("the runtime is ready, and says that the network is not", |_| {
        let version = cri.runtime("Version", Message::default())?;
        let found = (version.text(2), conditions(cri)?);
        let expected = [("RuntimeReady".to_owned(), 1), ("NetworkReady".to_owned(), 0)];
        (found.0 == "containerd" && found.1 == expected).then_some(()).ok_or(format!("{found:?}"))
    });
    rows.row(
        "a network is put in place, as a plugin does it",
        &format!(
            "mkdir -p /etc/cni/net.d
             cat > /etc/cni/net.d/10-pods.conflist <<'END'\n{NETWORK}\nEND
             cp /usr/bin/busybox /opt/cni/bin/from-a-plugin
             test -x /opt/cni/bin/bridge"
        ),
    );
    rows.check("the network is ready", |host| {
        sh_until(host, "sleep 1; echo", |_| {
            conditions(cri).is_ok_and(|found| found.iter().all(|(_, status)| *status == 1))
        });
        Ok(())
    });
    rows.row(
        "an image is pushed to a registry that the host trusts",
        &format!(
            "ctr -n k8s.io images tag $B {name}/team/web:1
             ctr -n k8s.io images push --hosts-dir /etc/containerd/certs.d {name}/team/web:1
             ctr -n k8s.io images rm {name}/team/web:1"
        ),
    );
    images(&mut rows, cri, &format!("{name}/team/web:1"));
    pod(&mut rows, cri, &format!("{name}/team/web:1"));
    rows.all_held();

    host.power_button().expect("pressed");
    host.wait_exit(SOON).expect("an orderly end");
    let unclean = host.console().into_iter().find(|line| line.text.contains("still in use"));
    assert!(unclean.is_none(), "{unclean:?}");
    let (mut host, _) = boot(&config);
    let mut rows = Rows::new(&mut host);
    rows.row(
        "what was written to the root's folders is kept",
        "test -s /etc/cni/net.d/10-pods.conflist
         test -x /opt/cni/bin/from-a-plugin
         test -x /opt/cni/bin/bridge
         test -e /etc/kubernetes/file",
    );
    rows.all_held();
}

/// The way to containerd through the host's service.
fn door(host: &Machine) -> Cri {
    let cri = Cri { port: host.port(PORT).expect("a port") };
    let end = Instant::now() + SOON;
    while let Err(why) = cri.runtime("Version", Message::default()) {
        assert!(Instant::now() < end, "{why}");
        std::thread::sleep(Duration::from_secs(1));
    }
    cri
}

/// What a kubelet, and kubeadm before it, look for on a machine.
fn preflight(rows: &mut Rows) {
    rows.row(
        "programs that a kubelet and its like start",
        "for name in conntrack ip tc iptables ip6tables iptables-save mount umount ethtool socat; do
           test -x /usr/bin/$name || test -x /usr/sbin/$name || { echo no $name; exit 1; }
         done",
    );
    rows.row(
        "settings of the kernel, also those that protectKernelDefaults wants",
        "cd /proc/sys
         for setting in net/ipv4/ip_forward=1 net/bridge/bridge-nf-call-iptables=1 \
           net/bridge/bridge-nf-call-ip6tables=1 vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 \
           kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
           same \"${setting%=*}=$(cat ${setting%=*})\" $setting
         done",
    );
    rows.row(
        "control groups of version 2 with all controllers",
        "for name in cpuset cpu io memory hugetlb pids; do
           has \" $(cat /sys/fs/cgroup/cgroup.subtree_control) \" \" $name \"
         done",
    );
    rows.row(
        "modules, no swap, the kernel's log, shared mounts",
        "test -d /sys/module/overlay
         test -d /sys/module/br_netfilter
         same \"$(wc -l < /proc/swaps | tr -d ' ')\" 1
         test -c /dev/kmsg
         grep -q ' / / .* shared:' /proc/self/mountinfo
         test -s /etc/resolv.conf
         test -s /etc/machine-id",
    );
    rows.row(
        "folders that are written to",
        "mkdir -p /var/lib/kubelet/tmp /var/log/pods/web
         chmod 1777 /var/lib/kubelet/tmp
         for folder in /etc/kubernetes /etc/cni /opt/cni/bin /usr/libexec/kubernetes /var/lib/kubelet /var/log/pods; do
           touch $folder/file
         done
         rm /opt/cni/bin/file
         not touch /etc/file",
    );
    rows.row(
        "programs in volumes of pods can be run",
        "cp /usr/bin/busybox /var/lib/kubelet/tmp/busybox
         /var/lib/kubelet/tmp/busybox true
         rm /var/lib/kubelet/tmp/busybox",
    );
    rows.row(
        "a service that says when it is ready serves then",
        "ctr --address /run/second.sock version > /dev/null
         has \"$(cat /proc/*/environ 2> /dev/null | tr '\\0' '\\n')\" GOGC=50",
    );
    rows.check("it is known to be ready", |host| {
        let told = |host: &Machine| {
            host.console().iter().any(|line| line.text.contains("berth: second is ready"))
        };
        let end = Instant::now() + SOON;
        while !told(host) && Instant::now() < end {
            std::thread::sleep(Duration::from_secs(1));
        }
        told(host).then_some(()).ok_or_else(|| "nobody said so".to_owned())
    });
    rows.row(
        "modules are there as told, and go on being loaded",
        "test -d /sys/module/nbd
         same \"$(cat /proc/sys/kernel/modules_disabled)\" 0
         insmod /usr/lib/modules/*/kernel/drivers/net/dummy.ko
         ip link add d0 type dummy",
    );
    rows.row(
        "no program gives a right to who starts it",
        "same \"$(find / -xdev -perm /6000 -type f)\" ''",
    );
}

/// The conditions of the runtime and of the network, and whether they hold.
fn conditions(cri: Cri) -> Result<Vec<(String, u64)>, String> {
    let status = cri.runtime("Status", Message::default())?.of(1);
    let all = status.all(1).into_iter().map(|c: Answer| (c.text(1), c.number(2)));
    Ok(all.filter(|(name, _)| name == "RuntimeReady" || name == "NetworkReady").collect())
}

fn images(rows: &mut Rows, cri: Cri, pulled: &str) {
    let names = move || -> Result<Vec<String>, String> {
        let images = cri.images("ListImages", Message::default())?;
        Ok(images.all(1).iter().flat_map(|image| image.texts(2)).collect())
    };
    rows.check("images that the host brings are a kubelet's", |_| {
        let names = names()?;
        let all = ["berth.local/pause:1", "berth.local/busybox:1"]
            .iter()
            .all(|n| names.contains(&(*n).to_owned()));
        all.then_some(()).ok_or(format!("{names:?}"))
    });
    rows.check("an image is pulled by its name", |_| {
        cri.images("PullImage", Message::default().with(1, Message::default().text(1, pulled)))?;
        names()?.contains(&pulled.to_owned()).then_some(()).ok_or("it is not there".to_owned())
    });
    rows.check("the room that images take is told", |host| {
        // containerd looks every ten seconds.
        sh_until(host, "sleep 1", |_| {
            let info = cri.images("ImageFsInfo", Message::default());
            info.is_ok_and(|info| info.of(1).of(3).number(1) > 0)
        });
        Ok(())
    });
}

/// A pod from its start to its end.
fn pod(rows: &mut Rows, cri: Cri, image: &str) {
    let metadata = Message::default().text(1, "web").text(2, "uid-1").text(3, "default");
    let linux = Message::default().text(1, "/kubepods/poduid-1");
    let sandbox = Message::default()
        .with(1, metadata)
        .text(2, "web")
        .text(3, "/var/log/pods/web")
        .with(8, linux);
    let (mut id, mut address, mut container) = (String::new(), String::new(), String::new());
    rows.check("a pod gets an address", |_| {
        id = cri.runtime("RunPodSandbox", Message::default().with(1, sandbox.clone()))?.text(1);
        let status = cri.runtime("PodSandboxStatus", Message::default().text(1, &id))?.of(1);
        address = status.of(5).text(1);
        let ready = status.number(3) == 0 && address.starts_with(POD);
        ready.then_some(()).ok_or(format!("{status:?}"))
    });
    rows.check("a container starts in it", |_| {
        let command = [
            "sh",
            "-c",
            "echo from a pod > /tmp/index.html; echo up; exec httpd -f -p 8080 -h /tmp",
        ];
        let mount = Message::default().text(1, "/tmp").text(2, "/var/lib/kubelet/tmp");
        let config = Message::default()
            .with(1, Message::default().text(1, "web"))
            .with(2, Message::default().text(1, image))
            .texts(3, &command)
            .with(7, mount)
            .text(11, "web.log");
        let question = Message::default().text(1, &id).with(2, config).with(3, sandbox.clone());
        container = cri.runtime("CreateContainer", question)?.text(1);
        cri.runtime("StartContainer", Message::default().text(1, &container))?;
        let status = cri.runtime("ContainerStatus", Message::default().text(1, &container))?.of(1);
        (status.number(3) == 1).then_some(()).ok_or(format!("{status:?}"))
    });
    rows.row(
        "the pod answers, logs, and has its control group",
        &format!(
            "soon '[ \"$(wget -qO- http://{address}:8080/)\" = \"from a pod\" ]'
             grep -q 'stdout F up' /var/log/pods/web/web.log
             test -d /sys/fs/cgroup/kubepods/poduid-1"
        ),
    );
    rows.check("a command runs in the container", |_| {
        let question = Message::default().text(1, &container).texts(2, &["id", "-u"]).number(3, 60);
        let answer = cri.runtime("ExecSync", question)?;
        let found = (answer.text(1), answer.number(3));
        (found == ("65534\n".to_owned(), 0)).then_some(()).ok_or(format!("{found:?}"))
    });
    rows.check("the pod goes and leaves nothing", |_| {
        cri.runtime("StopPodSandbox", Message::default().text(1, &id))?;
        cri.runtime("RemovePodSandbox", Message::default().text(1, &id))?;
        let left = cri.runtime("ListContainers", Message::default())?.all(1).len();
        (left == 0).then_some(()).ok_or(format!("{left} containers"))
    });
}
