//! The container runtime: containerd, and dockerd above it where the image has Docker.

use crate::error::{Error, On};
use crate::log;
use crate::registry;
use crate::supervisor::lifecycle::Limits;
use crate::supervisor::{Program, Service, Target};
use contract::host_config::{self, HostConfig};
use serde_json::{Map, Value, json};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// Name of containerd as a service.
pub const CONTAINERD: &str = "containerd";
/// Name of dockerd as a service.
pub const DOCKERD: &str = "dockerd";

/// Name of the updater as a service.
pub const UPDATER: &str = "updater";

const CONTAINERD_PATH: &str = "/usr/bin/containerd";
const CONTAINERD_ROOT: &str = "/var/lib/containerd";
/// Below its root, the layers that containerd has unpacked, and what it knows of them and of images.
const CONTAINERD_JOURNALED: [&str; 3] = [
    "io.containerd.snapshotter.v1.overlayfs/snapshots",
    "io.containerd.snapshotter.v1.overlayfs/metadata.db",
    "io.containerd.metadata.v1.bolt/meta.db",
];
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// What starts containers, unless a person says `runc`: docs/decisions/009-crun.md.
const CRUN_PATH: &str = "/usr/bin/crun";
const RUNC_PATH: &str = "/usr/sbin/runc";
const DOCKERD_PATH: &str = "/usr/sbin/dockerd";
const DOCKER_HOST: &str = "unix:///run/docker.sock";
/// An image may bring a configuration of its own.
const IMAGE_DOCKER_CONFIG: &str = "/etc/docker/daemon.json";
const DOCKER_CONFIG: &str = "/run/berth/docker.json";
const CONTAINERD_CONFIG: &str = "/run/berth/containerd.toml";

/// A service that tells when it serves has so long to do so.
const SERVICE_READY_WITHIN: Duration = Duration::from_secs(300);

/// Which runtime an image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// containerd alone.
    Containerd,
    /// Docker Engine above containerd.
    Docker,
}

impl Runtime {
    /// What this image has.
    pub fn detect() -> Result<Runtime, Error> {
        if Path::new(DOCKERD_PATH).exists() {
            return Ok(Runtime::Docker);
        }
        fs::metadata(CONTAINERD_PATH).on("find", CONTAINERD_PATH)?;
        Ok(Runtime::Containerd)
    }

    /// Its name on the console.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Containerd => "containerd",
            Runtime::Docker => "docker",
        }
    }

    /// Folders below `/var` that hold what containers bring, programs and device nodes included.
    pub fn folders(self) -> Result<Vec<String>, Error> {
        let mut folders = vec![CONTAINERD_ROOT.to_owned()];
        if self == Runtime::Docker {
            let config = docker_config(image_docker_config()?.as_deref(), true, vec![])?;
            folders.extend(config.get("data-root").and_then(Value::as_str).map(str::to_owned));
        }
        Ok(folders)
    }

    /// The daemon that is ready last.
    pub fn daemon(self) -> &'static str {
        match self {
            Runtime::Containerd => CONTAINERD,
            Runtime::Docker => DOCKERD,
        }
    }
}

/// containerd, with its configuration written.
pub fn containerd(config: &HostConfig) -> Result<Service, Error> {
    fs::write(CONTAINERD_CONFIG, containerd_config(config.cri, config.sandbox_image.as_deref()))
        .on("write", CONTAINERD_CONFIG)?;
    journal(CONTAINERD_ROOT, &CONTAINERD_JOURNALED);
    let args = ["--config", CONTAINERD_CONFIG].map(str::to_owned).into();
    Ok(Service {
        name: CONTAINERD,
        program: Program { path: CONTAINERD_PATH.into(), args, env: config.proxy.environment() },
        oom_score_adj: -999,
        limits: Limits { ready: Duration::from_secs(120), stop: Duration::from_secs(20) },
        target: Target::Log,
    })
}

/// Has the filesystem's journal hold the content of files, too, of all that come into a folder. Layers of
/// images are unpacked without waiting for the disk, and then noted as unpacked; in the journal nothing
/// comes before what was written earlier: docs/decisions/008-files-of-images.md.
fn journal(root: &str, paths: &[&str]) {
    for path in paths.iter().map(|path| Path::new(root).join(path)) {
        if let Err(e) = journal_one(&path) {
            log::warning(&format!("keep {} in the journal of /var: {e}", path.display()));
            return;
        }
    }
}

/// `path` is made when it is not there: empty is what both daemons start with.
fn journal_one(path: &Path) -> io::Result<()> {
    let is_database = path.extension().is_some();
    let folder = if is_database { path.parent().unwrap_or(path) } else { path };
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut options = File::options();
    match is_database {
        true => options.create(true).append(true).mode(0o600),
        false => options.read(true),
    };
    sys::ext4::journal_content(&options.open(path)?)
}

/// The Kubernetes interface takes longest to start, so it is left out unless somebody speaks to it.
/// /opt cannot be written, so its plugin gets a folder below /var.
fn containerd_config(cri: bool, sandbox_image: Option<&str>) -> String {
    let mut text = "version = 2\n\
                    root = \"/var/lib/containerd\"\n\
                    state = \"/run/containerd\"\n"
        .to_owned();
    if !cri {
        text += "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
    }
    text += "[plugins.\"io.containerd.internal.v1.opt\"]\n\
             path = \"/var/lib/containerd/opt\"\n";
    if cri {
        text += "[plugins.\"io.containerd.grpc.v1.cri\"]\n";
        if let Some(image) = sandbox_image {
            text += &format!("sandbox_image = \"{image}\"\n");
        }
        text += "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n\
                 default_runtime_name = \"crun\"\n";
        for (name, path) in [("crun", CRUN_PATH), ("runc", RUNC_PATH)] {
            let runtime = "plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes";
            // There is no systemd that could own control groups.
            text += &format!(
                "[{runtime}.{name}]\n\
                 runtime_type = \"io.containerd.runc.v2\"\n\
                 [{runtime}.{name}.options]\n\
                 BinaryName = \"{path}\"\n\
                 SystemdCgroup = false\n"
            );
        }
        text += "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n\
                 config_path = \"/etc/containerd/certs.d\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
                 bin_dir = \"/opt/cni/bin\"\n\
                 conf_dir = \"/etc/cni/net.d\"\n";
    }
    text
}

/// dockerd, with its configuration written. It waits a minute for containerd.
pub fn dockerd(config: &HostConfig) -> Result<Service, Error> {
    let docker = write_docker_config(config)?;
    let key = |name| docker.get(name).and_then(Value::as_str);
    // What was built is known to a database, too.
    let layers = [key("storage-driver").unwrap_or("overlay2"), "buildkit"];
    journal(key("data-root").unwrap_or_default(), &layers);
    let args = ["--config-file", DOCKER_CONFIG].map(str::to_owned).into();
    Ok(Service {
        name: DOCKERD,
        program: Program { path: DOCKERD_PATH.into(), args, env: config.proxy.environment() },
        oom_score_adj: -500,
        // A host with hundreds of containers takes minutes to look at them all.
        limits: Limits { ready: Duration::from_secs(300), stop: Duration::from_secs(90) },
        target: Target::Log,
    })
}

/// Writes dockerd's configuration, and returns it.
fn write_docker_config(host: &HostConfig) -> Result<Map<String, Value>, Error> {
    let image = image_docker_config()?;
    let mirrors = registry::docker_mirrors(&host.registries);
    let config = docker_config(image.as_deref(), host.live_restore, mirrors)?;
    let text = Value::from(config.clone()).to_string();
    fs::write(DOCKER_CONFIG, text).on("write", DOCKER_CONFIG)?;
    Ok(config)
}

fn image_docker_config() -> Result<Option<String>, Error> {
    match fs::read_to_string(IMAGE_DOCKER_CONFIG) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).on("read", IMAGE_DOCKER_CONFIG),
    }
}

/// Takes from dockerd's configuration that containers outlive it. Done at shutdown, so that dockerd
/// stops them, and knows that it was not a person who did.
pub fn end_live_restore() -> Result<(), Error> {
    let text = fs::read_to_string(DOCKER_CONFIG).on("read", DOCKER_CONFIG)?;
    let config: Result<Map<String, Value>, _> = serde_json::from_str(&text);
    let mut config = config.map_err(io::Error::from).on("read", DOCKER_CONFIG)?;
    config.insert("live-restore".into(), false.into());
    fs::write(DOCKER_CONFIG, Value::Object(config).to_string()).on("write", DOCKER_CONFIG)
}

/// The image's own keys win, but for those that init depends on. With `live_restore` containers outlive
/// dockerd. `mirrors` of Docker Hub are asked before those of the image.
fn docker_config(
    image: Option<&str>,
    live_restore: bool,
    mirrors: Vec<String>,
) -> Result<Map<String, Value>, Error> {
    let mut config: Map<String, Value> = Map::new();
    config.insert("log-driver".into(), "local".into());
    config.insert("log-opts".into(), json!({"max-size": "10m", "max-file": "3"}));
    config.insert("data-root".into(), "/var/lib/docker".into());
    if let Some(text) = image {
        let invalid =
            |problem: String| Error::Invalid { object: IMAGE_DOCKER_CONFIG.to_owned(), problem };
        match serde_json::from_str(text) {
            Ok(Value::Object(keys)) => {
                // The options of one log driver are wrong for another.
                if keys.contains_key("log-driver") {
                    config.remove("log-opts");
                }
                config.extend(keys);
            }
            Ok(_) => return Err(invalid("not a JSON object".into())),
            Err(e) => return Err(invalid(e.to_string())),
        }
    }
    // Others may be added, and one of them be the default.
    let runtimes = config.entry("runtimes").or_insert_with(|| json!({}));
    if let Value::Object(runtimes) = runtimes {
        runtimes.entry("crun").or_insert_with(|| json!({"path": CRUN_PATH}));
    }
    config.entry("default-runtime").or_insert_with(|| "crun".into());
    // Those of the image besides; our own commands use this one.
    let hosts = config.entry("hosts").or_insert_with(|| json!([]));
    if let Value::Array(hosts) = hosts
        && !hosts.iter().any(|host| host == DOCKER_HOST)
    {
        hosts.push(DOCKER_HOST.into());
    }
    if !mirrors.is_empty() {
        let mut mirrors: Vec<Value> = mirrors.into_iter().map(Value::from).collect();
        if let Some(Value::Array(more)) = config.remove("registry-mirrors") {
            mirrors.extend(more);
        }
        config.insert("registry-mirrors".into(), mirrors.into());
    }
    config.insert("exec-root".into(), "/run/docker".into());
    config.insert("containerd".into(), CONTAINERD_SOCKET.into());
    config.insert("exec-opts".into(), json!(["native.cgroupdriver=cgroupfs"]));
    config.insert("live-restore".into(), live_restore.into());
    config.insert("pidfile".into(), "/run/docker.pid".into());
    Ok(config)
}

/// The updater's agent.
pub fn updater() -> Service {
    Service {
        name: UPDATER,
        program: Program {
            path: "/usr/bin/berth-updater".into(),
            args: vec!["agent".to_owned()],
            env: vec![],
        },
        oom_score_adj: -900,
        limits: Limits { ready: Duration::from_secs(60), stop: Duration::from_secs(10) },
        target: Target::Console,
    }
}

/// A program that the host configuration wants to be kept running.
pub fn service(told: &host_config::Service) -> Service {
    let args = told.arguments.clone();
    let env = told.environment.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    // Who does not tell is never late.
    let ready =
        if told.notify { SERVICE_READY_WITHIN } else { Duration::from_secs(u32::MAX.into()) };
    Service {
        // As long as PID 1 lives, and there are few.
        name: told.name.clone().leak(),
        program: Program { path: told.program.clone().into(), args, env },
        oom_score_adj: -800,
        limits: Limits { ready, stop: Duration::from_secs(20) },
        target: Target::Log,
    }
}

/// The Docker command line with `args`.
pub fn docker_command(args: &[&str]) -> Program {
    docker_client("/usr/bin/docker", args, &[])
}

/// Compose with `args`, and `env` for its files to use. Behind the Docker command line three large
/// programs would be started instead of one: that, and Compose twice.
pub fn compose_command(args: &[&str], env: &[(String, String)]) -> Program {
    docker_client("/usr/libexec/docker/cli-plugins/docker-compose", args, env)
}

fn docker_client(path: &str, args: &[&str], env: &[(String, String)]) -> Program {
    let mut env = env.to_vec();
    // Credentials for registries may be put there.
    env.push(("DOCKER_HOST".into(), DOCKER_HOST.into()));
    env.push(("DOCKER_CONFIG".into(), "/var/lib/berth/docker".into()));
    Program { path: path.into(), args: args.iter().map(|arg| (*arg).to_owned()).collect(), env }
}

/// The containerd command line with `args`.
pub fn ctr_command(args: &[&str]) -> Program {
    Program {
        path: "/usr/bin/ctr".into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(image: Option<&str>) -> Value {
        let mirrors = vec!["https://one".to_owned()];
        Value::Object(docker_config(image, true, mirrors).expect("a configuration"))
    }

    #[test]
    fn logs_are_bounded_by_default() {
        let config = config(None);
        assert_eq!(config["log-driver"], "local");
        assert_eq!(config["log-opts"]["max-size"], "10m");
        assert_eq!(config["live-restore"], true);
        assert_eq!(config["registry-mirrors"], json!(["https://one"]));
    }

    #[test]
    fn the_image_wins_but_for_what_init_depends_on() {
        let image = r#"{"log-driver": "json-file", "live-restore": false, "bip": "10.9.0.1/24",
            "runtimes": {"kata": {"runtimeType": "io.containerd.kata.v2"}}, "default-runtime": "runc",
            "hosts": ["tcp://127.0.0.1:2375"], "registry-mirrors": ["https://two"]}"#;
        let config = config(Some(image));
        assert_eq!(config["log-driver"], "json-file");
        assert_eq!(config["log-opts"], Value::Null);
        assert_eq!(config["bip"], "10.9.0.1/24");
        assert_eq!(config["registry-mirrors"], json!(["https://one", "https://two"]));
        assert_eq!(config["live-restore"], true);
        assert_eq!(config["default-runtime"], "runc");
        assert_eq!(config["runtimes"]["kata"]["runtimeType"], "io.containerd.kata.v2");
        assert_eq!(config["runtimes"]["crun"]["path"], "/usr/bin/crun");
        assert_eq!(config["hosts"], json!(["tcp://127.0.0.1:2375", DOCKER_HOST]));
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for bad in ["[]", "{", ""] {
            assert!(docker_config(Some(bad), true, vec![]).is_err(), "{bad}");
        }
    }

    #[test]
    fn containerd_reads_its_configuration() {
        let read =
            |cri, image| -> toml::Table { containerd_config(cri, image).parse().expect("TOML") };
        let plain = read(false, None);
        assert_eq!(plain["version"].as_integer(), Some(2));
        assert_eq!(plain["disabled_plugins"][0].as_str(), Some("io.containerd.grpc.v1.cri"));
        let speaking = read(true, Some("pause:3"));
        assert!(!speaking.contains_key("disabled_plugins"));
        let cri = &speaking["plugins"]["io.containerd.grpc.v1.cri"];
        assert_eq!(cri["sandbox_image"].as_str(), Some("pause:3"));
        assert_eq!(cri["cni"]["bin_dir"].as_str(), Some("/opt/cni/bin"));
        assert_eq!(cri["containerd"]["default_runtime_name"].as_str(), Some("crun"));
        for (name, path) in [("crun", "/usr/bin/crun"), ("runc", "/usr/sbin/runc")] {
            let options = &cri["containerd"]["runtimes"][name]["options"];
            assert_eq!(options["BinaryName"].as_str(), Some(path));
            assert_eq!(options["SystemdCgroup"].as_bool(), Some(false));
        }
    }
}
