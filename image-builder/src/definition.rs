//! Image definitions: the TOML file that a person writes, read, merged with `--set`, validated.
//!
//! `configs/docker.toml` explains every key by example.

mod file;
mod sizes;
mod update;

pub use file::{ExtraContent, ExtraFile};
pub use sizes::Sizes;

use crate::Result;
use crate::written::Written;
use contract::host_config;
use contract::toml_input::InputError;
pub(crate) use file::RawFile;
use serde::{Deserialize, Serialize};
use sizes::RawPartitions;
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
    writable: Vec<String>,
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
    /// Folders of the root, by absolute path, that can be written; what is written is kept in `/var`.
    /// Those below `/var/lib` are ones whose programs can be run.
    pub writable: Vec<String>,
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
        for (i, folder) in self.writable.iter().enumerate() {
            let key = format!("writable.{i}");
            check_writable(folder).map_err(|why| wrong(&key, format!("`{folder}` {why}")))?;
            if self.writable[..i].iter().any(|other| nested(other, folder)) {
                return Err(wrong(&key, format!("`{folder}` lies in another one, or holds it")));
            }
        }
        let (sizes, sector_size) =
            self.partitions.validate().map_err(|(key, why)| wrong(&key, why))?;
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
            writable: self.writable,
            kernel_arguments: self.kernel_arguments,
            host_config,
            update_root,
            sector_size,
            sizes,
            debug_shell: self.debug.shell,
        })
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._+~-".contains(c))
}

/// A folder that may become an overlay: nothing of what verifies and runs the host lies there.
fn check_writable(folder: &str) -> Result<(), &'static str> {
    let plain = |part: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        !["", ".", ".."].contains(&part) && part.bytes().all(known)
    };
    let parts: Vec<&str> = folder.split('/').skip(1).collect();
    match parts[..] {
        _ if !folder.starts_with('/') || !parts.iter().all(|part| plain(part)) => {
            Err("is no absolute path of letters, digits and . _ -")
        }
        ["etc" | "opt" | "srv", _, ..] | ["usr", "libexec" | "local" | "share", _, ..] => Ok(()),
        // Those can be written anyway.
        ["var", "lib", name, ..] if name != "berth" => Ok(()),
        _ => {
            Err("must lie below /etc, /opt, /srv, /usr/libexec, /usr/local, /usr/share or /var/lib")
        }
    }
}

/// Whether one folder is the other, or lies in it.
fn nested(one: &str, other: &str) -> bool {
    let within =
        |a: &str, b: &str| a.strip_prefix(b).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    within(one, other) || within(other, one)
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
            (
                "writable = [\"/usr/bin\"]",
                "/x.toml:5:13: writable: `/usr/bin` must lie below /etc, /opt,",
            ),
            (
                "writable = [\"/opt/../etc\"]",
                "/x.toml:5:13: writable: `/opt/../etc` is no absolute path",
            ),
            (
                "writable = [\"/etc/a/b\", \"/etc/a\"]",
                "/x.toml:5:25: writable: `/etc/a` lies in another one",
            ),
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
}
