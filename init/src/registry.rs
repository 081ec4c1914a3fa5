//! Registries of the host configuration, as dockerd and containerd read them: a folder for each, with
//! `ca.crt` for dockerd and `hosts.toml` for containerd. The image's `/etc/docker/certs.d` and
//! `/etc/containerd/certs.d` are links to where the folders lie.

use crate::error::{Error, On, chain};
use crate::log;
use contract::handover::ESP_FILES;
use contract::host_config::{Authority, Registry, is_pem};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Where the image's links lead.
const FOLDER: &str = "/run/berth/registries";
/// The links, one for each runtime. An image may have a folder of its own instead.
const LINKS: [&str; 2] = ["/etc/docker/certs.d", "/etc/containerd/certs.d"];
/// What people write for Docker Hub, and where it answers.
const HUB: &str = "docker.io";
const HUB_SERVER: &str = "registry-1.docker.io";

/// Writes the folders. A registry that cannot be told about keeps nobody from the others.
pub fn write(registries: &[Registry]) {
    if registries.is_empty() {
        return;
    }
    for link in LINKS.iter().map(Path::new).filter(|link| link.exists() && !link.is_symlink()) {
        log::warning(&format!(
            "{} is the image's own: [[registry]] is not used there",
            link.display()
        ));
    }
    for registry in registries {
        if let Err(e) = write_one(registry, registries) {
            log::warning(&format!("registry {}: {}", registry.name, chain(&e)));
        }
    }
}

/// The mirrors of Docker Hub, the only ones that dockerd knows.
pub fn docker_mirrors(registries: &[Registry]) -> Vec<String> {
    let hub = registries.iter().filter(|registry| registry.name == HUB);
    hub.flat_map(|registry| registry.mirrors.iter().cloned()).collect()
}

fn write_one(registry: &Registry, all: &[Registry]) -> Result<(), Error> {
    let folder = Path::new(FOLDER).join(&registry.name);
    fs::create_dir_all(&folder).on("make", folder.display())?;
    if let Some(authority) = &registry.ca {
        let path = ca_path(&registry.name);
        fs::write(&path, certificates(authority)?).on("write", path)?;
    }
    let path = folder.join("hosts.toml");
    fs::write(&path, hosts(registry, all)).on("write", path.display())
}

fn certificates(authority: &Authority) -> Result<String, Error> {
    let file = match authority {
        Authority::Inline(text) => return Ok(text.clone()),
        Authority::EspFile(file) => file,
    };
    let path = Path::new(ESP_FILES).join(file);
    let text = fs::read_to_string(&path).on("read", path.display())?;
    match is_pem(&text) {
        true => Ok(text),
        false => Err(Error::Invalid {
            object: file.clone(),
            problem: "no certificate in PEM".to_owned(),
        }),
    }
}

fn ca_path(name: &str) -> String {
    format!("{FOLDER}/{name}/ca.crt")
}

/// containerd's `hosts.toml`. Nothing in it needs to be escaped: names and addresses were checked.
fn hosts(registry: &Registry, all: &[Registry]) -> String {
    let place = if registry.name == HUB { HUB_SERVER } else { &registry.name };
    let mut text = format!("server = \"https://{place}\"\n");
    if registry.ca.is_some() {
        let _ = writeln!(text, "ca = \"{}\"", ca_path(&registry.name));
    }
    for mirror in &registry.mirrors {
        let _ = writeln!(text, "[host.\"{mirror}\"]\ncapabilities = [\"pull\", \"resolve\"]");
        let place = mirror.split_once("://").map_or("", |(_, rest)| rest);
        let place = place.split('/').next().unwrap_or_default();
        if all.iter().any(|other| other.name == place && other.ca.is_some()) {
            let _ = writeln!(text, "ca = \"{}\"", ca_path(place));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(name: &str, ca: bool, mirrors: &[&str]) -> Registry {
        let ca = ca.then(|| Authority::Inline("x".into()));
        let mirrors = mirrors.iter().map(|text| (*text).to_owned()).collect();
        Registry { name: name.into(), ca, mirrors }
    }

    #[test]
    fn containerd_is_told_of_servers_authorities_and_mirrors() {
        let hub = registry("docker.io", false, &["https://mirror:5000/hub", "http://plain"]);
        let all = [hub, registry("mirror:5000", true, &[])];
        assert_eq!(
            hosts(&all[0], &all),
            "server = \"https://registry-1.docker.io\"\n\
             [host.\"https://mirror:5000/hub\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
             ca = \"/run/berth/registries/mirror:5000/ca.crt\"\n\
             [host.\"http://plain\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
        );
        assert_eq!(
            hosts(&all[1], &all),
            "server = \"https://mirror:5000\"\nca = \"/run/berth/registries/mirror:5000/ca.crt\"\n"
        );
        all.iter().for_each(|one| drop(hosts(one, &all).parse::<toml::Table>().expect("TOML")));
        assert_eq!(docker_mirrors(&all), ["https://mirror:5000/hub", "http://plain"]);
    }
}
