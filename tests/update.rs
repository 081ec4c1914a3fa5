//! Updates, whole: published by `berth release`, found, installed, tried, and kept or undone by a
//! host.

#[path = "../updater/tests/server/mod.rs"]
mod server;

use contract::Slot;
use e2e::*;
use server::Server;
use std::fs;
use std::path::{Path, PathBuf};

/// A repository, and a web server that serves it.
struct Published {
    folder: tempfile::TempDir,
    server: Server,
}

impl Published {
    fn new() -> Published {
        let folder = tempfile::tempdir().expect("a folder");
        let published = Published { folder, server: Server::start() };
        berth_ok(["keys", "init", &published.path("keys")]);
        published
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a plain path").to_owned()
    }

    /// Publishes an image in channel `stable`, quickly rather than small.
    fn add(&self, image: &Path) {
        let (repository, keys) = (self.path("repository"), self.path("keys"));
        let image = image.to_str().expect("a plain path");
        berth_ok([
            "release",
            "add",
            &repository,
            "--keys",
            &keys,
            "--image",
            image,
            "--channel",
            "stable",
            "--level",
            "1",
        ]);
        self.serve(Path::new(""));
    }

    fn serve(&self, below: &Path) {
        let root = PathBuf::from(self.path("repository"));
        for entry in fs::read_dir(root.join(below)).expect("a folder") {
            let name = below.join(entry.expect("an entry").file_name());
            match root.join(&name).is_dir() {
                true => self.serve(&name),
                false => {
                    let path = name.display().to_string();
                    self.server.put(&path, fs::read(root.join(&name)).expect("readable"));
                }
            }
        }
    }

    /// A disk with `image` on which the host follows this repository.
    fn disk(&self, image: &Path) -> Disk {
        let disk = Disk::copy_of(image);
        let port = self.server.url().rsplit(':').next().expect("a port").to_owned();
        let root = fs::read_to_string(self.path("keys/root.json")).expect("the root metadata");
        disk.put_on_esp("root.json", &root);
        // 10.0.2.2 is this machine, seen from the guest.
        disk.put_on_esp(
            "host.toml",
            &format!(
                "[time]\nservers = []\n[update]\nrepository = \"http://10.0.2.2:{port}\"\n\
                 root = \"root.json\"\ninterval = 5\nsoak = 2\ntries = 2\ndeadline = 60\n"
            ),
        );
        disk
    }
}

fn release(version: &str, more: &[&str]) -> PathBuf {
    let version = format!("version={version}");
    let mut sets = vec!["name=e2e-update", "debug.shell=true", &version];
    sets.extend(more);
    build("configs/containerd.toml", &sets)
}

/// A release whose runtime never answers.
fn broken_release(version: &str) -> PathBuf {
    let containerd = "file=[{path=\"/usr/bin/containerd\",mode=\"0755\",content=\"\"\"\
                      #!/usr/bin/busybox sh\nbusybox sleep 100000\n\"\"\"}]";
    release(version, &[containerd])
}

#[test]
fn a_good_release_is_kept_and_a_bad_one_is_undone_and_remembered() {
    let published = Published::new();
    let first = release("1.0.0", &[]);
    published.add(&first);
    published.add(&release("2.0.0", &[]));
    let disk = published.disk(&first);

    let mut host = start(&disk.config());
    host.wait_for_line("berth: updater: 2.0.0 is installed", BOOT).expect("installed");
    host.wait_for_line("berth-picker: slot b, version 2.0.0, on trial", BOOT).expect("slot b");
    let ready = host.wait_ready(BOOT).expect("the host gets ready");
    assert_eq!((ready.slot, ready.version.as_str()), (Some(Slot::B), "2.0.0"));
    host.wait_for_line("berth: slot b is healthy", SOON).expect("the end of the trial");
    sh(&mut host, "echo kept > /var/lib/file");
    sh_until(&mut host, "berth-updater status", |text| text.contains("healthy 2.0.0"));

    published.add(&broken_release("3.0.0"));
    host.wait_for_line("berth-picker: slot a, version 3.0.0, on trial", BOOT).expect("slot a");
    host.wait_for_line("berth: slot a is given up", BOOT).expect("the end of the trial");
    host.wait_for_line("berth-picker: slot b, version 2.0.0, healthy", BOOT).expect("slot b");
    host.wait_ready(BOOT).expect("the host gets ready");
    assert_eq!(sh(&mut host, "cat /var/lib/file"), "kept\n");

    let why = "rolled-back: not everything that was asked for runs: containerd did not get ready";
    sh_until(&mut host, "berth-updater history --why", |text| text.contains(why));
    let again = host.shell("berth-updater apply", SOON).expect("an answer");
    assert_eq!((again.status, again.stdout.contains("3.0.0 failed here before")), (3, true));
    let verified = sh(&mut host, "berth-updater verify");
    assert!(verified.contains("slot b: 2.0.0 is whole"), "{verified}");
}
