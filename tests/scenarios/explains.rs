//! A host explains itself: on its screen, and in a log of each boot.

use e2e::*;
use qemu::Machine;

/// What the first virtual terminal shows, line by line.
fn screen(host: &mut Machine) -> Vec<String> {
    let text = sh(host, "fold -w $(stty -F /dev/tty1 size | cut -d ' ' -f 2) /dev/vcs1");
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn the_screen_and_the_logs_of_two_boots() {
    let disk = Disk::copy_of(docker_image());
    disk.put_on_esp(
        "host.toml",
        "hostname = \"seven\"\n[[workload]]\nname = \"app\"\nfile = \"app.yaml\"\n",
    );
    disk.put_on_esp(
        "app.yaml",
        "services: {app: {image: 'berth.local/busybox:1', command: [busybox, sleep, '100000']}}",
    );
    let (mut host, _) = boot(&disk.config());

    // It is drawn at most once a second.
    sh_until(&mut host, "busybox cat /dev/vcs1", |text| text.contains("ready slot=a"));
    let shown = screen(&mut host);
    assert!(shown[0].starts_with(" Berth  seven"), "{shown:#?}");
    assert!(shown[0].ends_with("1.0.0  slot a"), "{shown:#?}");
    for line in [
        " runtime    docker, ready",
        " workloads  app: up",
        " update     no repository is configured",
    ] {
        assert!(shown.iter().any(|shown| shown == line), "{line}: {shown:#?}");
    }
    assert!(shown.iter().any(|line| line.starts_with(" network    eth0  10.0.2.15/24")));

    // What changes is drawn again.
    sh(&mut host, "busybox ip link set eth0 down");
    sh_until(&mut host, "busybox cat /dev/vcs1", |text| text.contains("eth0: no carrier"));

    // The log is read through Docker's socket, as nobody can log in.
    let log = "docker run --rm -v /var/log/berth:/log:ro berth.local/busybox:1 busybox cat";
    let text = sh(&mut host, &format!("{log} /log/current.log"));
    let first = text.lines().next().expect("a line");
    assert!(first.contains(" berth: version 1.0.0 in slot a; seconds since 1970"), "{first}");
    for part in
        [" kernel: Linux version ", " berth: network: up", " dockerd: time=", " containerd: "]
    {
        assert!(text.contains(part), "{part}: {text}");
    }

    // The end of a boot stands in the log that the next one leads to.
    host.power_button().expect("pressed");
    host.wait_exit(SOON).expect("an orderly end");
    let (mut host, _) = boot(&disk.config());
    let previous = sh(&mut host, "cat /var/log/berth/previous.log");
    assert!(previous.starts_with(&text[..200]), "{previous}");
    assert!(previous.ends_with(" berth: the log of this boot ends\n"), "{previous}");
    assert!(previous.contains(" berth: shutdown: ending processes"), "{previous}");
    assert_eq!(sh(&mut host, "readlink /var/log/berth/current.log").trim(), "boot-2.log");
}
