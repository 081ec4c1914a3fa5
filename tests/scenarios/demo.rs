//! The demonstration: a host's everyday life.

use contract::Slot;
use e2e::*;

fn demo(disk: &Disk) -> qemu::Config {
    qemu::Config {
        ports: vec![forward(8080)],
        host_config: Some(project().join("configs/demo/host.toml")),
        ..disk.config()
    }
}

const PSQL: &str = "docker exec demo-db-1 psql -U postgres -Atc";

#[test]
fn the_page_answers_and_data_survives_a_reboot_and_a_pulled_plug() {
    let disk = Disk::copy_of(demo_image());
    let (mut host, ready) = boot(&demo(&disk));
    assert_eq!((ready.slot, ready.workloads_up, ready.workloads), (Some(Slot::A), 1, 1));
    let page = host.http_get(8080, "/", SOON).expect("the page");
    assert!(page.text().contains("<dt>Slot</dt><dd>a</dd>"), "{}", page.text());
    assert!(page.text().contains("<dt>Version</dt><dd>1.0.0</dd>"), "{}", page.text());
    sh(&mut host, &format!("{PSQL} 'create table t (n int); insert into t values (42)'"));

    host.power_button().expect("pressed");
    host.wait_exit(SOON).expect("an orderly end");
    let (mut host, _) = boot(&demo(&disk));
    assert_eq!(sh(&mut host, &format!("{PSQL} 'select n from t'")).trim(), "42");

    sh(&mut host, &format!("{PSQL} 'insert into t values (43)'"));
    // Somebody's `fsync` makes the names of all files durable; the content of layers has to be, too.
    let import = "docker export demo-web-1 | docker import - late";
    let fsync = "busybox dd if=/dev/zero of=/var/lib/mark bs=1 count=1 conv=fsync";
    sh(&mut host, &format!("{import} && {fsync}"));
    host.pull_plug();
    let (mut host, _) = boot(&demo(&disk));
    assert_eq!(sh(&mut host, &format!("{PSQL} 'select sum(n) from t'")).trim(), "85");
    host.http_get(8080, "/", SOON).expect("the page");
    // It compares every file with the sum of when it was unpacked.
    sh(&mut host, "docker save late > /dev/null");
}
