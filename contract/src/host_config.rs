//! The host configuration: what one machine is told, as opposed to its image.
//!
//! Three layers are read, later ones over earlier ones: the image's defaults, `berth/host.toml`
//! on the ESP, and the firmware configuration. Each layer is a [`Raw`]; [`Raw::over`] merges two;
//! [`Raw::validate`] turns the result into a [`HostConfig`] or says what is wrong. Nothing uses a
//! layer that was not validated.

mod data;
mod interface;
mod kernel;
mod network;
mod proxy;
mod registry;
mod service;
mod sysctl;
mod time;
mod topology;

pub use data::{Data, RawData, Unrepairable};
pub use kernel::{Kernel, ModuleLoading, RawKernel};
pub use network::{
    Bond, BondMode, Bridge, Device, Interface, Ipv6, Link, RawBond, RawBridge, RawInterface,
    RawNetwork, RawRoute, RawVlan, Route, TransmitHash, Vlan, mac_text,
};
pub use proxy::{Proxy, RawProxy};
pub use registry::{Authority, RawRegistry, Registry, is_pem};
pub use service::{RawService, Service};
pub use sysctl::{RawSysctl, path as sysctl_path};
pub use time::{RawTime, TimeServer};

use crate::toml_input::{self, InputError};
use crate::update::{RawUpdate, Update};
use network::bounded;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Most bytes that a layer may have.
pub const MAX_LEN: usize = 1 << 20;

/// A layer as it was written. Everything is optional.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    /// Host name.
    pub hostname: Option<String>,
    /// `[network]`
    pub network: RawNetwork,
    /// `[proxy]`
    pub proxy: RawProxy,
    /// `[time]`
    pub time: RawTime,
    /// `[data]`
    pub data: RawData,
    /// `[kernel]`
    pub kernel: RawKernel,
    /// `[update]`
    pub update: RawUpdate,
    /// `[docker]`
    pub docker: RawDocker,
    /// `[containerd]`
    pub containerd: RawContainerd,
    /// `[[registry]]`
    pub registry: Vec<RawRegistry>,
    /// `[sysctl]`
    pub sysctl: RawSysctl,
    /// `[[service]]`
    pub service: Vec<RawService>,
    /// `[[workload]]`
    pub workload: Vec<RawWorkload>,
}

/// `[docker]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RawDocker {
    /// Whether containers go on running while dockerd does not.
    pub live_restore: Option<bool>,
}

/// `[containerd]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RawContainerd {
    /// Whether it speaks to a kubelet.
    pub cri: Option<bool>,
    /// The image that holds the namespaces of a pod.
    pub sandbox_image: Option<String>,
}

/// `[[workload]]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawWorkload {
    /// Compose project name.
    pub name: String,
    /// The Compose file itself.
    pub compose: Option<String>,
    /// Or its path on the ESP, relative to the folder `berth`.
    pub file: Option<String>,
    /// Seconds within which it must be up and healthy.
    pub timeout: Option<u64>,
}

/// A validated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// `None`: the name that DHCP gives, else `berth`.
    pub hostname: Option<String>,
    /// Used instead of DHCP's when not empty.
    pub nameservers: Vec<IpAddr>,
    /// DNS search domains.
    pub search: Vec<String>,
    /// Links with settings of their own. Other wired links use DHCPv4 and IPv6 autoconfiguration.
    pub interfaces: Vec<Interface>,
    /// The way to HTTP servers.
    pub proxy: Proxy,
    /// SNTP servers. Empty: nobody is asked. `None`: those that DHCP tells, and then
    /// [`TimeServer::public`].
    pub time_servers: Option<Vec<TimeServer>>,
    /// Where `/var` lies.
    pub data: Data,
    /// What is asked of the kernel.
    pub kernel: Kernel,
    /// Where updates come from and what they have to show.
    pub update: Update,
    /// Whether containers go on running while dockerd does not. Docker refuses it in a swarm.
    pub live_restore: bool,
    /// Whether containerd speaks to a kubelet, by the Container Runtime Interface.
    pub cri: bool,
    /// The image that holds the namespaces of a pod; `None`: containerd's own choice.
    pub sandbox_image: Option<String>,
    /// Registries that are trusted or found otherwise than by themselves.
    pub registries: Vec<Registry>,
    /// Settings of the kernel, by name.
    pub sysctl: BTreeMap<String, String>,
    /// Programs that are kept running beside the runtime.
    pub services: Vec<Service>,
    /// Compose projects, in the order in which they start.
    pub workloads: Vec<Workload>,
}

/// A Compose project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Compose project name.
    pub name: String,
    /// Where the Compose file is.
    pub source: WorkloadSource,
    /// Time within which it must be up and healthy.
    pub timeout: Duration,
}

/// Where a Compose file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadSource {
    /// In the host configuration.
    Inline(String),
    /// On the ESP, relative to the folder `berth`.
    EspFile(String),
}

/// Time that a workload has, when it names none.
const DEFAULT_WORKLOAD_TIMEOUT: Duration = Duration::from_secs(300);

impl Raw {
    /// Reads one layer; `file` is its name for errors.
    pub fn parse(file: &str, text: &str) -> Result<Raw, InputError> {
        if text.len() > MAX_LEN {
            let message = format!("{} bytes; at most {MAX_LEN} are read", text.len());
            return Err(InputError::new(file, message));
        }
        toml_input::parse(file, text)
    }

    /// This layer over `below`: its keys win, interfaces and workloads are told apart by name.
    pub fn over(self, below: Raw) -> Raw {
        Raw {
            hostname: self.hostname.or(below.hostname),
            network: self.network.over(below.network),
            proxy: self.proxy.over(below.proxy),
            time: self.time.over(below.time),
            data: self.data.over(below.data),
            kernel: self.kernel.over(below.kernel),
            update: self.update.over(below.update),
            docker: RawDocker {
                live_restore: self.docker.live_restore.or(below.docker.live_restore),
            },
            containerd: RawContainerd {
                cri: self.containerd.cri.or(below.containerd.cri),
                sandbox_image: self.containerd.sandbox_image.or(below.containerd.sandbox_image),
            },
            registry: merge(below.registry, self.registry, |r| &r.name),
            sysctl: below.sysctl.into_iter().chain(self.sysctl).collect(),
            service: merge(below.service, self.service, |s| &s.name),
            workload: merge(below.workload, self.workload, |w| &w.name),
        }
    }

    /// Checks everything; `file` names the layers for errors.
    pub fn validate(self, file: &str) -> Result<HostConfig, InputError> {
        let wrong = |Wrong(key, message): Wrong| InputError::of_key(file, key, message);
        if let Some(name) = &self.hostname
            && !is_hostname(name)
        {
            return Err(wrong(Wrong::new("hostname", format!("`{name}` is not a host name")))
                .with_hint("letters, digits, hyphens and dots, at most 63 bytes"));
        }
        unique("registry", self.registry.iter().map(|r| &r.name)).map_err(wrong)?;
        unique("service", self.service.iter().map(|s| &s.name)).map_err(wrong)?;
        unique("workload", self.workload.iter().map(|w| &w.name)).map_err(wrong)?;
        let network = self.network.validate().map_err(|w| wrong(w.below("network")))?;
        let proxy = self.proxy.validate().map_err(|w| wrong(w.below("proxy")))?;
        let time_servers = self.time.validate().map_err(|w| wrong(w.below("time")))?;
        let data = self.data.validate().map_err(|w| wrong(w.below("data")))?;
        let kernel = self.kernel.validate().map_err(|w| wrong(w.below("kernel")))?;
        let mut update = self.update.validate().map_err(|(key, why)| wrong(Wrong(key, why)))?;
        // `[update]` may name one of its own.
        if update.proxy.is_none() {
            update.proxy.clone_from(&proxy.https);
            update.no_proxy.clone_from(&proxy.exclude);
        }
        if let Some(image) = &self.containerd.sandbox_image
            && !is_image(image)
        {
            let why = format!("`{image}` is no image as in registry.example.org/pause:3");
            return Err(wrong(Wrong::new("containerd.sandbox-image", why)));
        }
        let registries =
            self.registry.into_iter().enumerate().map(|(i, raw)| {
                raw.validate().map_err(|wrong| wrong.below(&format!("registry.{i}")))
            });
        let services =
            self.service.into_iter().enumerate().map(|(i, raw)| {
                raw.validate().map_err(|wrong| wrong.below(&format!("service.{i}")))
            });
        let workloads =
            self.workload.into_iter().enumerate().map(|(i, raw)| {
                workload(raw).map_err(|wrong| wrong.below(&format!("workload.{i}")))
            });
        Ok(HostConfig {
            hostname: self.hostname,
            nameservers: network.nameservers,
            search: network.search,
            interfaces: network.interfaces,
            proxy,
            time_servers,
            data,
            kernel,
            update,
            live_restore: self.docker.live_restore.unwrap_or(true),
            cri: self.containerd.cri.unwrap_or(false),
            sandbox_image: self.containerd.sandbox_image,
            registries: registries.collect::<Result<_, _>>().map_err(wrong)?,
            sysctl: sysctl::validate(self.sysctl).map_err(wrong)?,
            services: services.collect::<Result<_, _>>().map_err(wrong)?,
            workloads: workloads.collect::<Result<_, _>>().map_err(wrong)?,
        })
    }
}

/// Reads and checks one layer by itself; errors tell the place in it.
pub fn check(file: &str, text: &str) -> Result<HostConfig, InputError> {
    Raw::parse(file, text)?.validate(file).map_err(|e| e.placed(text))
}

/// The key that is wrong, and why.
struct Wrong(String, String);

impl Wrong {
    fn new(key: &str, why: impl Into<String>) -> Wrong {
        Wrong(key.to_owned(), why.into())
    }

    fn below(self, key: &str) -> Wrong {
        Wrong(format!("{key}.{}", self.0), self.1)
    }
}

fn merge<T>(below: Vec<T>, above: Vec<T>, name: impl Fn(&T) -> &String) -> Vec<T> {
    let replaced: BTreeSet<String> = above.iter().map(|item| name(item).clone()).collect();
    let kept = below.into_iter().filter(|item| !replaced.contains(name(item)));
    kept.collect::<Vec<_>>().into_iter().chain(above).collect()
}

fn unique<'a>(key: &str, names: impl Iterator<Item = &'a String>) -> Result<(), Wrong> {
    let mut seen = BTreeSet::new();
    for (i, name) in names.enumerate() {
        if !seen.insert(name) {
            return Err(Wrong(format!("{key}.{i}.name"), format!("`{name}` is declared twice")));
        }
    }
    Ok(())
}

/// RFC 1123, section 2.1, with the kernel's limit of 64 bytes including the end.
fn is_hostname(name: &str) -> bool {
    name.len() <= 63 && is_domain(name)
}

/// RFC 1123, section 2.1: labels of letters, digits and hyphens.
fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an IP address"))
}

/// Whether a text can be the name of an image, with its tag or digest.
fn is_image(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
    (1..=512).contains(&name.len()) && name.bytes().all(known)
}

/// Whether a relative path leads to a file below the ESP's folder.
fn stays_on_esp(file: &str) -> bool {
    !file.split('/').any(|part| part.is_empty() || part == "..")
}

fn workload(raw: RawWorkload) -> Result<Workload, Wrong> {
    // Compose's own rule for project names.
    let mut bytes = raw.name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest =
        bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if !first || !rest || raw.name.len() > 63 {
        let why = "must be lower-case letters, digits, - and _, at most 63";
        return Err(Wrong::new("name", format!("`{}` {why}", raw.name)));
    }
    let source = match (raw.compose, raw.file) {
        (Some(text), None) => WorkloadSource::Inline(text),
        (None, Some(file)) if stays_on_esp(&file) => WorkloadSource::EspFile(file),
        (None, Some(file)) => {
            return Err(Wrong::new("file", format!("`{file}` leaves the ESP")));
        }
        _ => {
            return Err(Wrong::new(
                "name",
                format!("`{}` needs either `compose` or `file`", raw.name),
            ));
        }
    };
    let timeout = raw.timeout.map_or(DEFAULT_WORKLOAD_TIMEOUT, Duration::from_secs);
    Ok(Workload { name: raw.name, source, timeout })
}

/// The network mask of an IPv4 prefix length.
pub fn netmask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0))
}

#[cfg(test)]
mod tests;
