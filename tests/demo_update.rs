//! `make demo-update`: a host with nginx and PostgreSQL updates itself, and undoes a release whose
//! workload never gets healthy. Says what happens as it happens.

use contract::Slot;
use e2e::published::Published;
use e2e::*;
use qemu::{Config, Machine};
use std::fs;
use std::path::{Path, PathBuf};

const PSQL: &str = "docker exec demo-db-1 psql -U postgres -Atc";

/// The demonstration image as a release, with an nginx of its own.
fn demo_release(version: &str, nginx: &Path) -> PathBuf {
    let version = format!("version={version}");
    let images = format!("images=[\"{}\",\"containers/postgres.toml\"]", nginx.display());
    build("configs/docker.toml", &["name=demo-update", "debug.shell=true", &version, &images])
}

/// The page as it says where it runs.
fn page(host: &Machine) -> String {
    let page = host.http_get(8080, "/", SOON).expect("the page").text();
    let fact = |name: &str| {
        let rest = page.split_once(&format!("<dt>{name}</dt><dd>")).expect("the fact").1;
        rest.split_once('<').expect("its end").0.to_owned()
    };
    format!("version {} in slot {}", fact("Version"), fact("Slot"))
}

fn rows(host: &mut Machine) -> String {
    sh(host, &format!("{PSQL} 'select count(*) from t'")).trim().to_owned()
}

fn say(text: &str) {
    for line in text.trim_end().lines() {
        println!("demo: {line}");
    }
}

fn main() {
    let published = Published::new();
    let nginx = project().join("configs/containers/nginx.toml");
    let mistaken = PathBuf::from(published.path("nginx.toml"));
    let text = fs::read_to_string(&nginx).expect("the definition");
    assert!(text.contains("listen 8080;"), "{text}");
    fs::write(&mistaken, text.replace("listen 8080;", "listen 8081;")).expect("written");

    let first = demo_release("1.0.0", &nginx);
    published.add(&first);
    let host_config = fs::read_to_string(project().join("configs/demo/host.toml")).expect("it");
    // One try, with the time that a slow machine needs for a boot.
    let disk = published.disk_with(
        &first,
        &host_config,
        "interval = 5\nsoak = 5\ntries = 1\ndeadline = 180",
    );
    let mut host = start(&Config { cpus: 2, ports: vec![forward(8080)], ..disk.config() });
    say(&format!("page: http://127.0.0.1:{}/", host.port(8080).expect("a port")));
    host.wait_ready(BOOT).expect("the host gets ready");
    say(&format!("ready; the page says: {}", page(&host)));
    assert_eq!(page(&host), "version 1.0.0 in slot a");
    sh(&mut host, &format!("{PSQL} 'create table t as select generate_series(1, 1000) n'"));
    say(&format!("PostgreSQL holds {} rows", rows(&mut host)));

    published.add(&demo_release("2.0.0", &nginx));
    say("2.0.0 is published");
    host.wait_for_line("berth: updater: 2.0.0 is installed", BOOT).expect("installed");
    say("the host has installed 2.0.0 and restarts into it, on trial");
    host.wait_for_line("berth-picker: slot b, version 2.0.0, on trial", BOOT).expect("slot b");
    let ready = host.wait_ready(BOOT).expect("the host gets ready");
    assert_eq!((ready.slot, ready.workloads_up), (Some(Slot::B), 1));
    host.wait_for_line("berth: slot b is healthy", BOOT).expect("the end of the trial");
    say(&format!("healthy; the page says: {}; {} rows", page(&host), rows(&mut host)));
    assert_eq!(
        (page(&host).as_str(), rows(&mut host).as_str()),
        ("version 2.0.0 in slot b", "1000")
    );
    sh_until(&mut host, "berth-updater status", |text| text.contains("healthy 2.0.0"));

    published.add(&demo_release("3.0.0", &mistaken));
    say("3.0.0 is published; its nginx listens on the wrong port");
    host.wait_for_line("berth-picker: slot a, version 3.0.0, on trial", BOOT).expect("slot a");
    say("the host tries it");
    host.wait_for_line("berth: slot a is given up", BOOT * 2).expect("the end of the trial");
    host.wait_for_line("berth-picker: slot b, version 2.0.0, healthy", BOOT).expect("slot b");
    assert_eq!(host.wait_ready(BOOT).expect("the host gets ready").workloads_up, 1);
    say(&format!("back; the page says: {}; {} rows", page(&host), rows(&mut host)));
    assert_eq!(
        (page(&host).as_str(), rows(&mut host).as_str()),
        ("version 2.0.0 in slot b", "1000")
    );
    let why = "rolled-back: not everything that was asked for runs";
    let history = sh_until(&mut host, "berth-updater history --why", |text| text.contains(why));
    assert!(history.contains("3.0.0  rolled-back"), "{history}");
    say("berth-updater history --why:");
    say(&history);
}
