//! Reading the host configuration: the image's defaults, `berth/host.toml` on the ESP, and the
//! firmware configuration.
//!
//! The ESP is mounted read-only while its folder `berth` is read into memory, and stays unmounted
//! afterwards. Nothing here stops a boot.

use crate::disk::Disk;
use crate::error::{Error, On, chain};
use crate::handover::RUN_DIR;
use crate::layers::{Decision, Layer, Origin, Told, decide};
use crate::{log, mounts};
use contract::handover::ESP_FILES;
use contract::host_config::{Data, HostConfig, MAX_LEN};
use contract::layout::{HOST_CONFIG_FW_CFG, HOST_CONFIG_PATH, Partition};
use contract::toml_input::InputError;
use contract::update;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use sys::mount::{Limits, mount};

/// Modules that [`hear`] needs, where they are not built in. FAT wants its character sets by name.
pub const MODULES: [&str; 6] =
    ["vfat", "nls_cp437", "nls_ascii", "nls_iso8859-1", "nls_utf8", "qemu_fw_cfg"];

const IMAGE_LAYER: &str = "/usr/lib/berth/host.toml";
const LAST_GOOD: &str = "/var/lib/berth/host-config.good";

/// The folder on the ESP.
const FOLDER: &str = "berth";
/// Most files that are read from it, and most bytes of all together. The rest of it is ignored.
const MOST_FILES: usize = 256;
const MOST_BYTES: usize = 8 << 20;
/// Deepest folder below it that is read.
const DEEPEST: usize = 4;

/// What this machine is told, before it is known whether that can be used.
#[derive(Debug)]
pub struct Heard {
    image: Result<Option<Layer>, InputError>,
    now: Result<Told, InputError>,
}

/// Reads the image's layer, the ESP and the firmware's configuration. What cannot be read counts
/// when it is decided.
pub fn hear(disk: &Disk) -> Heard {
    let image = read_bounded(Path::new(IMAGE_LAYER)).and_then(|bytes| layer(IMAGE_LAYER, bytes));
    Heard { image, now: told(disk) }
}

impl Heard {
    fn decide(&self, last_good: Option<&Told>) -> Decision {
        let image = self.image.as_ref().ok().and_then(Option::as_ref);
        decide(image, self.now.as_ref().map_err(InputError::clone), last_good)
    }

    /// Where `/var` lies, which is needed to read the last good configuration; `None` when that is
    /// what counts.
    pub fn data(&self) -> Option<Data> {
        let Decision { config, origin, .. } = self.decide(None);
        (origin == Origin::Current).then_some(config.data)
    }

    /// Decides, says on the console what was wrong, and keeps what is good for the next time when
    /// `/var` keeps anything.
    pub fn settle(self, var_keeps: bool) -> HostConfig {
        let last_good = var_keeps.then(|| fs::read(LAST_GOOD).ok()).flatten();
        let last_good = last_good.as_deref().and_then(Told::decode);
        let Decision { config, origin, problems } = self.decide(last_good.as_ref());
        self.image.as_ref().err().into_iter().chain(&problems).for_each(say);
        match origin {
            Origin::Current => {}
            Origin::LastGood => log::warning("running on the last good host configuration"),
            Origin::Image => log::warning("running on the image's default host configuration"),
            Origin::BuiltIn => log::warning("running without a host configuration"),
        }
        let used = match origin {
            Origin::Current => self.now.ok(),
            Origin::LastGood => last_good.clone(),
            Origin::Image | Origin::BuiltIn => None,
        };
        if let Some(used) = used {
            keep(&used, var_keeps && last_good.as_ref() != Some(&used));
        }
        config
    }
}

/// Lays out the files of the configuration that is used; `store`: it is new, and can be kept.
fn keep(used: &Told, store: bool) {
    if let Err(e) = lay_out(&used.files) {
        log::warning(&chain(&e));
    }
    if store {
        let kept = sys::file::replace(Path::new(LAST_GOOD), &used.encode(), 0o600);
        if let Err(e) = kept.on("keep", LAST_GOOD) {
            log::warning(&chain(&e));
        }
    }
}

/// Tells the updater what it is told: it does not read the layers itself.
pub fn hand_to_updater(config: &HostConfig) -> Result<(), Error> {
    let text = serde_json::to_string(&config.update).map_err(io::Error::other);
    text.and_then(|text| fs::write(update::CONFIG, text)).on("write", update::CONFIG)
}

fn say(problem: &InputError) {
    log::warning(&format!("host configuration not used: {problem}"));
    if let Some(hint) = &problem.hint {
        log::hint(hint);
    }
}

/// What this machine is told now.
fn told(disk: &Disk) -> Result<Told, InputError> {
    let files = esp_files(disk).map_err(|e| InputError::new("ESP", chain(&e)))?;
    let name = HOST_CONFIG_PATH.strip_prefix("berth/").unwrap_or(HOST_CONFIG_PATH);
    let mut layers = Vec::new();
    layers.extend(layer(HOST_CONFIG_PATH, files.get(name).cloned())?);
    let firmware = format!("/sys/firmware/qemu_fw_cfg/by_name/{HOST_CONFIG_FW_CFG}/raw");
    let firmware_name = format!("fw_cfg {HOST_CONFIG_FW_CFG}");
    layers.extend(layer(&firmware_name, read_bounded(Path::new(&firmware))?)?);
    let files = files.into_iter().filter(|(path, _)| path != name).collect();
    Ok(Told { layers, files })
}

fn layer(name: &str, bytes: Option<Vec<u8>>) -> Result<Option<Layer>, InputError> {
    let text = bytes.map(String::from_utf8).transpose();
    let text = text.map_err(|_| InputError::new(name, "is not UTF-8 text"))?;
    Ok(text.map(|text| Layer { name: name.to_owned(), text }))
}

/// A file that may be absent. One byte more than allowed is read, so that who parses it sees that
/// it is too long.
fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, InputError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(InputError::new(&path.display().to_string(), e.to_string())),
    }
}

/// The files of the ESP's folder `berth`.
fn esp_files(disk: &Disk) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let device = disk.device(Partition::Esp)?;
    let target = format!("{RUN_DIR}/esp-mount");
    fs::create_dir_all(&target).on("make", &target)?;
    let limits = Limits { read_only: true, ..Limits::KERNEL };
    mount(device, &target, "vfat", limits, "").on("mount", device)?;
    let mut collected = Collected::default();
    let result = collected.folder(&Path::new(&target).join(FOLDER), "", 0);
    mounts::unmount(&target)?;
    // Only an empty folder stays otherwise.
    let _ = fs::remove_dir(&target);
    result.map(|()| collected.files)
}

#[derive(Default)]
struct Collected {
    files: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Collected {
    /// Adds the files of `folder`, named from `prefix` on. An absent folder is an empty one.
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<(), Error> {
        let entries = match fs::read_dir(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.on("read", folder.display())?,
        };
        let mut entries = entries.collect::<Result<Vec<_>, _>>().on("read", folder.display())?;
        // host.toml first, whatever the limits; then by name, whatever FAT's order.
        entries.sort_by_key(|entry| (entry.file_name() != "host.toml", entry.file_name()));
        for entry in entries {
            let name = entry.file_name();
            // A name with a line break could not be kept, and one that is not text not be asked for.
            let Some(name) = name.to_str().filter(|name| !name.contains(char::is_control)) else {
                continue;
            };
            let path = format!("{prefix}{name}");
            if entry.file_type().on("look at", entry.path().display())?.is_dir() {
                if depth < DEEPEST {
                    self.folder(&entry.path(), &format!("{path}/"), depth + 1)?;
                }
                continue;
            }
            let len = entry.metadata().on("look at", entry.path().display())?.len();
            let fits = usize::try_from(len).is_ok_and(|len| self.bytes + len <= MOST_BYTES);
            if !fits || self.files.len() == MOST_FILES {
                log::warning(&format!("{FOLDER}/{path} on the ESP is too much and not read"));
                continue;
            }
            let mut content = Vec::new();
            File::open(entry.path())
                .and_then(|file| file.take(len).read_to_end(&mut content))
                .on("read", entry.path().display())?;
            self.bytes += content.len();
            self.files.insert(path, content);
        }
        Ok(())
    }
}

/// Writes the files below [`ESP_FILES`].
fn lay_out(files: &BTreeMap<String, Vec<u8>>) -> Result<(), Error> {
    fs::create_dir_all(ESP_FILES).on("make", ESP_FILES)?;
    for (name, content) in files {
        let path = Path::new(ESP_FILES).join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).on("make", folder.display())?;
        }
        fs::write(&path, content).on("write", path.display())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_collected_within_limits() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::write(path.join("host.toml"), "x").expect("written");
        fs::create_dir_all(path.join("app/a/b/c/d")).expect("made");
        fs::write(path.join("app/compose.yaml"), "y").expect("written");
        fs::write(path.join("app/a/b/c/d/deep"), "z").expect("written");
        File::create(path.join("a-huge")).and_then(|f| f.set_len(9 << 20)).expect("written");
        let mut collected = Collected::default();
        collected.folder(path, "", 0).expect("readable");
        let names: Vec<&str> = collected.files.keys().map(String::as_str).collect();
        assert_eq!(names, ["app/compose.yaml", "host.toml"]);
        Collected::default().folder(&path.join("absent"), "", 0).expect("an empty folder");
    }

    #[test]
    fn too_long_a_layer_is_seen_as_such() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(MAX_LEN as u64 * 2).expect("a size");
        let bytes = read_bounded(file.path()).expect("readable").expect("there");
        assert_eq!(bytes.len(), MAX_LEN + 1);
        assert_eq!(read_bounded(Path::new("/absent")), Ok(None));
        assert!(layer("x", Some(vec![0xff])).is_err());
    }
}
