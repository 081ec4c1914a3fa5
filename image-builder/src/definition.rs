//! Image definitions: the TOML file that a person writes, read, merged with `--set`, validated.
//!
//! `configs/docker.toml` explains every key by example.

mod update;

use crate::Result;
use crate::written::Written;
use contract::gpt::SECTOR_SIZES;
use contract::host_config;
use contract::layout::Partition;
use contract::layout::Slot;
use contract::toml_input::InputError;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use update::RawUpdate;

/// A definition as it was written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    name: String,
    version: String,
    suite: String,
    runtime: Runtime,
    #[serde(default)]
    kernel: Kernel,
    #[serde(default)]
    packages: Vec<String>,
    #[serde(default)]
    recommends: bool,
    #[serde(default)]
    keep: Vec<String>,
    #[serde(default)]
    drop: Vec<String>,
    #[serde(default)]
    images: Vec<PathBuf>,
    #[serde(default)]
    kernel_arguments: Vec<String>,
    host_config: Option<PathBuf>,
    #[serde(default)]
    file: Vec<RawFile>,
    #[serde(default)]
    partitions: RawPartitions,
    #[serde(default)]
    update: RawUpdate,
    #[serde(default)]
    debug: RawDebug,
}

/// `[[file]]` as it was written; container definitions have it too.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFile {
    path: String,
    source: Option<PathBuf>,
    content: Option<String>,
    link: Option<String>,
    mode: Option<String>,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct RawPartitions {
    sector_size: Option<u64>,
    esp: Option<String>,
    boot: Option<String>,
    root: Option<String>,
    verity: Option<String>,
    data: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawDebug {
    shell: bool,
}

/// What runs the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// Docker Engine with its command line and Compose, over containerd.
    Docker,
    /// containerd alone.
    Containerd,
}

impl Runtime {
    /// As in definitions and on the console.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Docker => "docker",
            Runtime::Containerd => "containerd",
        }
    }
}

/// Debian's kernel flavours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// For virtual machines: virtio, NVMe, the clouds' devices. No USB, no physical network cards.
    #[default]
    Cloud,
    /// For real servers.
    Generic,
}

impl Kernel {
    /// The Debian package that depends on the current kernel of this flavour.
    pub fn package(self) -> &'static str {
        match self {
            Kernel::Cloud => "linux-image-cloud-amd64",
            Kernel::Generic => "linux-image-amd64",
        }
    }
}

/// A validated definition.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Name of the image: the first part of file names.
    pub name: String,
    /// Release version.
    pub version: String,
    /// Debian suite.
    pub suite: String,
    /// What runs the containers.
    pub runtime: Runtime,
    /// Kernel flavour.
    pub kernel: Kernel,
    /// Debian packages beyond what the runtime needs. Everything that they hold in `usr/bin` and
    /// `usr/sbin` is kept.
    pub packages: Vec<String>,
    /// Whether Recommends are followed.
    pub recommends: bool,
    /// Paths that are kept although the builder would leave them out. `*` stands for any text.
    pub keep: Vec<String>,
    /// Paths that are left out.
    pub drop: Vec<String>,
    /// Container images to preload: OCI archives, or container definitions (`.toml`) to build.
    pub images: Vec<PathBuf>,
    /// Added to the kernel command line.
    pub kernel_arguments: Vec<String>,
    /// The image's own layer of the host configuration.
    pub host_config: Option<String>,
    /// The TUF root metadata that hosts trust for updates.
    pub update_root: Option<Vec<u8>>,
    /// Files put into the root.
    pub files: Vec<ExtraFile>,
    /// Logical sector size in bytes of the disks that the image is for, one of [`SECTOR_SIZES`].
    pub sector_size: u64,
    /// Partition sizes.
    pub sizes: Sizes,
    /// Whether a shell for development is built in.
    pub debug_shell: bool,
}

/// `[[file]]`: a file, link or directory put into a tree.
#[derive(Clone, Debug)]
pub struct ExtraFile {
    /// Absolute path in the tree, without the leading slash.
    pub path: String,
    /// What it is.
    pub content: ExtraContent,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a `[[file]]` is.
#[derive(Clone, Debug)]
pub enum ExtraContent {
    /// A copy of this file.
    Source(PathBuf),
    /// This text.
    Text(String),
    /// A symbolic link.
    Link(String),
    /// A directory: neither source, content nor link, and a path that ends with a slash.
    Directory,
}

/// Partition sizes in bytes, multiples of 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The ESP.
    pub esp: u64,
    /// Each boot partition.
    pub boot: u64,
    /// Each root partition.
    pub root: u64,
    /// Each verity partition.
    pub verity: u64,
    /// The data partition of the image file, before it grows at first boot.
    pub data: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            esp: Partition::Esp.default_size(),
            boot: Partition::Boot(Slot::A).default_size(),
            root: Partition::Root(Slot::A).default_size(),
            verity: Partition::Verity(Slot::A).default_size(),
            data: Partition::Data.default_size(),
        }
    }
}

impl Sizes {
    /// Size in bytes of `partition`.
    pub fn of(&self, partition: Partition) -> u64 {
        match partition {
            Partition::Esp => self.esp,
            Partition::State => Partition::State.default_size(),
            Partition::Boot(_) => self.boot,
            Partition::Root(_) => self.root,
            Partition::Verity(_) => self.verity,
            Partition::Data => self.data,
        }
    }
}

impl Definition {
    /// Reads the definition in `path`. `sets` are `KEY=VALUE` from the command line: the value is
    /// TOML where the key does not hold text, or else text; keys may be dotted.
    pub fn read(path: &Path, sets: &[String]) -> Result<Definition> {
        Definition::of(&Written::read(path, sets)?, path.parent().unwrap_or(Path::new(".")))
    }

    /// Reads `text`, the content of `file`; paths in it start from `base`.
    pub fn from_text(file: &str, text: &str, sets: &[String], base: &Path) -> Result<Definition> {
        let (file, text, sets) = (file.to_owned(), text.to_owned(), sets.to_vec());
        Definition::of(&Written { file, text, sets }, base)
    }

    fn of(written: &Written, base: &Path) -> Result<Definition> {
        let raw: Raw = written.parse()?;
        Ok(raw.validate(&written.file, base).map_err(|e| written.place(e))?)
    }
}

impl Raw {
    fn validate(self, file: &str, base: &Path) -> Result<Definition, InputError> {
        let wrong = |key: &str, why: String| InputError::of_key(file, key, why);
        for (key, value) in [("name", &self.name), ("version", &self.version)] {
            if !is_name(value) {
                return Err(wrong(key, format!("`{value}` cannot be part of a file name"))
                    .with_hint("letters, digits and . _ + ~ -, starting with a letter or digit"));
            }
        }
        if self.version.len() > 64 {
            return Err(wrong("version", format!("`{}` is longer than 64 bytes", self.version)));
        }
        for (i, argument) in self.kernel_arguments.iter().enumerate() {
            if argument.contains(char::is_whitespace) || argument.starts_with("berth.") {
                let why = format!("`{argument}` is not allowed");
                return Err(wrong(&format!("kernel-arguments.{i}"), why)
                    .with_hint("one argument a string; those that start with berth. are ours"));
            }
        }
        let mut sizes = Sizes::default();
        for (key, text, size) in [
            ("partitions.esp", &self.partitions.esp, &mut sizes.esp),
            ("partitions.boot", &self.partitions.boot, &mut sizes.boot),
            ("partitions.root", &self.partitions.root, &mut sizes.root),
            ("partitions.verity", &self.partitions.verity, &mut sizes.verity),
            ("partitions.data", &self.partitions.data, &mut sizes.data),
        ] {
            if let Some(text) = text {
                *size = parse_size(text).map_err(|why| wrong(key, format!("`{text}` is {why}")))?;
            }
        }
        let sector_size = self.partitions.sector_size.unwrap_or(SECTOR_SIZES[0]);
        if !SECTOR_SIZES.contains(&sector_size) {
            let why = format!("{sector_size} is neither 512 nor 4096");
            return Err(wrong("partitions.sector-size", why));
        }
        let host_config = match self.host_config {
            None => None,
            Some(path) => {
                let path = base.join(path);
                let shown = path.display().to_string();
                let text = std::fs::read_to_string(&path)
                    .map_err(|e| wrong("host-config", format!("{shown}: {e}")))?;
                host_config::check(&shown, &text)?;
                Some(text)
            }
        };
        let host_config = self.update.in_host_config(file, host_config)?;
        let update_root = self.update.root(file, base)?;
        let images: Vec<PathBuf> = self.images.iter().map(|path| base.join(path)).collect();
        if let Some(i) = images.iter().position(|path| !path.is_file()) {
            let why = format!("there is no file {}", images[i].display());
            return Err(wrong(&format!("images.{i}"), why));
        }
        let files = RawFile::validate_all(self.file, base);
        Ok(Definition {
            files: files.map_err(|(key, why)| wrong(&key, why))?,
            images,
            name: self.name,
            version: self.version,
            suite: self.suite,
            runtime: self.runtime,
            kernel: self.kernel,
            packages: self.packages,
            recommends: self.recommends,
            keep: self.keep,
            drop: self.drop,
            kernel_arguments: self.kernel_arguments,
            host_config,
            update_root,
            sector_size,
            sizes,
            debug_shell: self.debug.shell,
        })
    }
}

impl RawFile {
    /// Checks all `[[file]]`. `base` is the folder that relative sources start from. An error is the
    /// key that is wrong, and why.
    pub(crate) fn validate_all(
        files: Vec<RawFile>,
        base: &Path,
    ) -> Result<Vec<ExtraFile>, (String, String)> {
        let mut valid = Vec::new();
        for (i, file) in files.into_iter().enumerate() {
            for path in with_names(&file.path) {
                let one = RawFile { path, ..file.clone() };
                valid.push(
                    one.validate(base).map_err(|(key, why)| (format!("file.{i}.{key}"), why))?,
                );
            }
        }
        Ok(valid)
    }

    fn validate(self, base: &Path) -> Result<ExtraFile, (&'static str, String)> {
        let wrong = |key: &'static str, why: String| Err((key, why));
        let shown = &self.path;
        let Some(path) = shown.strip_prefix('/') else {
            return wrong("path", format!("`{shown}` is not an absolute path"));
        };
        let (path, is_directory) = match path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (path, false),
        };
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return wrong("path", format!("`{shown}` is not a plain path"));
        }
        let said = self.source.is_some() || self.content.is_some() || self.link.is_some();
        if is_directory && said {
            let why = "ends with a slash, which means a directory: it has no content";
            return wrong("path", format!("`{shown}` {why}"));
        }
        let content = match (self.source, self.content, self.link) {
            (Some(source), None, None) => match base.join(source) {
                source if source.is_file() => ExtraContent::Source(source),
                source => return wrong("source", format!("there is no file {}", source.display())),
            },
            (None, Some(text), None) => ExtraContent::Text(text),
            (None, None, Some(target)) => ExtraContent::Link(target),
            (None, None, None) if is_directory => ExtraContent::Directory,
            _ => {
                return wrong(
                    "path",
                    format!(
                        "`{shown}` needs one of `source`, `content` and `link`, \
                         or a slash at its end for a directory"
                    ),
                );
            }
        };
        let mode = match &self.mode {
            None if is_directory => 0o755,
            None => 0o644,
            Some(text) => match u16::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => mode,
                _ => return wrong("mode", format!("`{text}` is not octal")),
            },
        };
        Ok(ExtraFile { path: path.to_owned(), content, mode, uid: self.uid, gid: self.gid })
    }
}

/// The paths that one with a list of names stands for: `/bin/{cp,mv}` is `/bin/cp` and `/bin/mv`.
fn with_names(path: &str) -> Vec<String> {
    let parts = path.split_once('{').and_then(|(before, rest)| {
        let (names, after) = rest.split_once('}')?;
        Some((before, names, after))
    });
    match parts {
        Some((before, names, after)) => {
            names.split(',').map(|name| format!("{before}{}{after}", name.trim())).collect()
        }
        None => vec![path.to_owned()],
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._+~-".contains(c))
}

/// `300MiB` or `2GiB`.
fn parse_size(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = match text.split_once(|c: char| !c.is_ascii_digit()) {
        Some((number, _)) => (number, text[number.len()..].trim()),
        None => (text, ""),
    };
    let unit = match unit {
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("no size like 300MiB or 2GiB"),
    };
    let size = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    match size {
        Some(size) if (1 << 20..=1 << 50).contains(&size) => Ok(size),
        _ => Err("not between 1MiB and 1048576GiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "name = \"x\"\nversion = \"1\"\nsuite = \"trixie\"\nruntime = \"docker\"\n";

    fn read(text: &str, sets: &[&str]) -> Result<Definition, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.toml");
        std::fs::write(&path, text).expect("written");
        let sets: Vec<String> = sets.iter().map(|s| s.to_string()).collect();
        Definition::read(&path, &sets)
            .map_err(|e| e.to_string().replace(&folder.path().display().to_string(), ""))
    }

    #[test]
    fn defaults() {
        let d = read(SMALL, &[]).expect("valid");
        assert_eq!((d.kernel, d.sizes, d.debug_shell), (Kernel::Cloud, Sizes::default(), false));
        assert_eq!(d.sector_size, 512);
    }

    #[test]
    fn settings_win_and_may_be_tables_lists_and_strings() {
        let sets = ["version=2.0", "debug.shell=true", "packages=[\"nano\"]", "kernel=generic"];
        let d =
            read(SMALL, &[&sets[..], &["partitions.sector-size=4096"]].concat()).expect("valid");
        assert_eq!(d.sector_size, 4096);
        assert_eq!((d.version.as_str(), d.debug_shell), ("2.0", true));
        assert_eq!(
            (d.packages.as_slice(), d.kernel),
            (["nano".to_owned()].as_slice(), Kernel::Generic)
        );
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let cases = [
            ("runtim = 1", "/x.toml:5:1: unknown field `runtim`"),
            ("name = 1", "/x.toml:5:1: duplicate key"),
            (
                "[partitions]\nroot = \"2\"",
                "/x.toml:6:1: partitions.root: `2` is no size like 300MiB or 2GiB",
            ),
            (
                "[partitions]\nsector-size = 1024",
                "/x.toml:6:1: partitions.sector-size: 1024 is neither 512 nor 4096",
            ),
            (
                "[[file]]\npath = \"etc/x\"",
                "/x.toml:6:1: file.path: `etc/x` is not an absolute path",
            ),
            ("[[file]]\npath = \"/etc/x\"", "/x.toml:6:1: file.path: `/etc/x` needs one of"),
            (
                "kernel-arguments = [\"berth.x\"]",
                "/x.toml:5:21: kernel-arguments: `berth.x` is not allowed",
            ),
            ("images = [\"y.tar\"]", "/x.toml:5:11: images: there is no file /y.tar"),
            ("drop = 3", "/x.toml:5:8: drop: invalid type: integer `3`, expected a sequence"),
        ];
        for (text, expected) in cases {
            let error = read(&format!("{SMALL}{text}"), &[]).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }

    #[test]
    fn mistakes_in_settings_are_named_with_the_setting() {
        let text = format!("{SMALL}drop = [3]\n");
        let cases = [
            (&["packages=3"][..], SMALL, "--set packages=3: packages: invalid type: integer `3`"),
            (&["pakages=[]"], SMALL, "--set pakages=[]: unknown field `pakages`"),
            (&["partitions.rot=1GiB"], SMALL, "--set partitions.rot=1GiB: unknown field `rot`"),
            (&["name=x", "name=/"], SMALL, "--set name=/: name: `/` cannot be part"),
            // The file's own stay in the file.
            (&["version=2"], &text, "/x.toml:5:9: drop: invalid type: integer `3`"),
        ];
        for (sets, text, expected) in cases {
            let error = read(text, sets).unwrap_err();
            assert!(error.starts_with(expected), "{sets:?}: {error}");
        }
    }

    #[test]
    fn a_path_may_hold_a_list_of_names() {
        let file = "[[file]]\npath = \"/usr/bin/{ls, [,cp}\"\nlink = \"busybox\"";
        let files = read(&format!("{SMALL}{file}"), &[]).expect("valid").files;
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["usr/bin/ls", "usr/bin/[", "usr/bin/cp"]);
        let error = read(&format!("{SMALL}{}", file.replace("cp", "")), &[]).unwrap_err();
        assert!(error.contains("file.path"), "{error}");
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("300MiB"), Ok(300 << 20));
        assert_eq!(parse_size("2 GiB"), Ok(2 << 30));
        assert!(parse_size("2GB").is_err());
        assert!(parse_size("99999999999GiB").is_err());
    }
}
