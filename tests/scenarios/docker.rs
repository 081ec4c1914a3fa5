//! Docker Engine on a host, and what happens when its parts die.

use e2e::*;

const RUN: &str = "docker run -d --restart=always --name";
const SLEEP: &str = "berth.local/busybox:1 busybox sleep 100000";

#[test]
fn what_dies_comes_back_and_running_containers_stay() {
    let disk = Disk::copy_of(docker_image());
    let (mut host, _) = boot(&qemu::Config { cpus: 2, ..disk.config() });

    sh(&mut host, &format!("{RUN} one {SLEEP}"));
    let pid = |host: &mut qemu::Machine| sh(host, "docker inspect -f '{{.State.Pid}}' one");
    let before = pid(&mut host);

    // A killed dockerd: the container keeps running, and the new dockerd knows it.
    sh(&mut host, "kill -9 $(pidof dockerd)");
    sh_until(&mut host, "docker version -f '{{.Server.Os}}' 2>&1", |out| out.trim() == "linux");
    assert_eq!(pid(&mut host), before);

    // A killed containerd: the same.
    sh(&mut host, "kill -9 $(pidof containerd)");
    sh_until(&mut host, "docker exec one busybox echo up 2>&1", |out| out.trim() == "up");
    assert_eq!(pid(&mut host), before);

    // A killed container is started again.
    sh(&mut host, &format!("kill -9 {before}"));
    let state = "docker inspect -f '{{.State.Running}} {{.State.Pid}}' one";
    let old = format!("true {}", before.trim());
    sh_until(&mut host, state, |out| out.starts_with("true ") && out.trim() != old);
}
