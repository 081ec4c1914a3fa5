//! Docker Engine on a host, and what happens when its parts die.

use e2e::*;
use std::time::Duration;

const RUN: &str = "docker run -d --restart=always --name";
const SLEEP: &str = "berth.local/busybox:1 busybox sleep 100000";

#[test]
fn what_dies_comes_back_and_running_containers_stay() {
    let disk = Disk::copy_of(demo_image());
    let (mut host, _) = boot(&disk.config());

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

#[test]
fn builds_images_and_enforces_limits() {
    let disk = Disk::copy_of(demo_image());
    let (mut host, _) = boot(&disk.config());

    let dockerfile = "FROM berth.local/busybox:1\nUSER 0:0\nRUN echo built > /built\nCMD [\"busybox\", \"cat\", \"/built\"]\n";
    sh(&mut host, "mkdir -p /tmp/build");
    for line in dockerfile.lines() {
        sh(&mut host, &format!("echo '{line}' >> /tmp/build/Dockerfile"));
    }
    let built = host
        .shell("DOCKER_BUILDKIT=0 docker build -t built /tmp/build", Duration::from_secs(300))
        .expect("the shell answers");
    assert_eq!(built.status, 0, "{}", built.stdout);
    assert_eq!(sh(&mut host, "docker run --rm built").trim(), "built");

    // A container that takes more memory than it may is killed, and only it.
    let hungry = "docker run --name hungry -m 16m --memory-swap 16m berth.local/busybox:1 \
                  busybox sh -c 'x=a; while :; do x=$x$x; done'";
    let output = host.shell(hungry, SOON).expect("the shell answers");
    assert_eq!(output.status, 137, "{}", output.stdout);
    let killed = sh(&mut host, "docker inspect -f '{{.State.OOMKilled}}' hungry");
    assert_eq!(killed.trim(), "true");
}
