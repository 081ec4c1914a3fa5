//! A repository made by `berth release`, served to hosts by a web server that misbehaves on demand.

use crate::server::Server;
use crate::{Disk, berth_ok, build_containerd};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A repository, its keys, and the server, unless that is down.
pub struct Published {
    folder: tempfile::TempDir,
    address: SocketAddr,
    server: Option<Server>,
}

impl Published {
    /// New keys, nothing published.
    #[expect(clippy::new_without_default, reason = "it makes a folder and opens a port")]
    pub fn new() -> Published {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::start();
        let published = Published { folder, address: server.address(), server: Some(server) };
        berth_ok(["keys", "init", &published.path("keys")]);
        published
    }

    /// Below the folder that holds `keys` and `repository`.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a plain path").to_owned()
    }

    /// The web server, which has to be up.
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("the server is up")
    }

    /// From here on connections are refused.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Serves again, at the same address, whatever is published.
    pub fn restart(&mut self) {
        self.server = Some(Server::start_at(self.address));
        self.serve(Path::new(""));
    }

    /// Publishes an image in channel `stable`, quickly rather than small: without patches.
    pub fn add(&self, image: &Path) {
        self.add_with(image, &["--channel", "stable", "--no-patches"]);
    }

    /// The same with these options.
    pub fn add_with(&self, image: &Path, options: &[&str]) {
        let image = image.to_str().expect("a plain path");
        let repository = self.path("repository");
        let mut args = vec!["add", &repository, "--image", image, "--level", "1"];
        args.extend(options);
        self.release(&args);
    }

    /// Runs `berth release` with these arguments and our keys, and serves what came of it.
    pub fn release(&self, args: &[&str]) {
        let keys = self.path("keys");
        berth_ok([&["release"], args, &["--keys", &keys]].concat());
        self.serve(Path::new(""));
    }

    fn serve(&self, below: &Path) {
        let root = PathBuf::from(self.path("repository"));
        for entry in fs::read_dir(root.join(below)).into_iter().flatten() {
            let name = below.join(entry.expect("an entry").file_name());
            match root.join(&name).is_dir() {
                true => self.serve(&name),
                false => {
                    let path = name.display().to_string();
                    self.server().put(&path, fs::read(root.join(&name)).expect("readable"));
                }
            }
        }
    }

    /// A disk with `image` on which the host follows this repository; `update` are more lines of
    /// `[update]`.
    pub fn disk(&self, image: &Path, update: &str) -> Disk {
        self.disk_with(image, "[time]\nservers = []\n", update)
    }

    /// The same, with a host configuration that has no `[update]` yet.
    pub fn disk_with(&self, image: &Path, host_config: &str, update: &str) -> Disk {
        self.disk_of_mirrors(image, &[], host_config, update)
    }

    /// The same; the servers at these ports are asked first.
    pub fn disk_of_mirrors(
        &self,
        image: &Path,
        mirrors: &[u16],
        host_config: &str,
        update: &str,
    ) -> Disk {
        let disk = Disk::copy_of(image);
        let root = fs::read_to_string(self.path("keys/root.json")).expect("the root metadata");
        disk.put_on_esp("root.json", &root);
        let ports = mirrors.iter().copied().chain([self.address.port()]);
        // 10.0.2.2 is this machine, seen from the guest.
        let urls: Vec<_> = ports.map(|port| format!("http://10.0.2.2:{port}")).collect();
        let source = format!("[update]\nrepository = {urls:?}\nroot = \"root.json\"");
        disk.put_on_esp("host.toml", &format!("{host_config}\n{source}\n{update}\n"));
        disk
    }
}

/// The containerd image with a debug shell as a release.
pub fn release(version: &str, more: &[&str]) -> PathBuf {
    let version = format!("version={version}");
    build_containerd("e2e-update", &[&[version.as_str()], more].concat())
}
