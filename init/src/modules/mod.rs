//! Kernel modules: loading by name or alias with what they need, and for every device there is.
//!
//! The builder puts them below `usr/lib/modules/RELEASE` with kmod's own text files, in the
//! initramfs those that lead to the disk and in the root all that the image has.

pub mod index;

use crate::error::{Error, On, chain};
use crate::supervisor::Program;
use crate::{log, tool};
use index::{Index, name_of};
use std::collections::HashSet;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use sys::uevent::{Uevent, Uevents};

/// Names to load always, one a line, written by the builder.
const LOAD_ALWAYS: &str = "/usr/lib/berth/modules.load";

/// Names to load before the kernel is closed to modules, in the same form: what containers and
/// their networks may ask for later.
const LOAD_LAST: &str = "/usr/lib/berth/modules.last";

/// Parameters of modules that by themselves do what nobody asked for: bonding makes a `bond0`.
const PARAMETERS: [(&str, &CStr); 1] = [("bonding", c"max_bonds=0")];

/// The modules of the running kernel.
#[derive(Debug)]
pub struct Modules {
    folder: PathBuf,
    index: Index,
    /// Files that were tried, with or without success.
    tried: HashSet<String>,
    /// Devices that were looked at.
    seen: HashSet<String>,
}

impl Modules {
    /// Reads the index. A kernel that has everything built in may come without one.
    pub fn open() -> Result<Modules, Error> {
        let folder = Path::new("/usr/lib/modules").join(sys::module::kernel_release());
        let read = |name: &str| {
            let path = folder.join(name);
            match fs::read_to_string(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
                other => other.on("read", path.display()),
            }
        };
        let index =
            Index::new(read("modules.dep")?, read("modules.alias")?, read("modules.softdep")?);
        Ok(Modules { folder, index, tried: HashSet::new(), seen: HashSet::new() })
    }

    /// Loads what answers to `wanted`, the name of a module or an alias, with all that it needs.
    /// Returns whether anything answers to it. A module that does not load is no error here: the
    /// next is tried, and what needs it says so.
    pub fn load(&mut self, wanted: &str) -> bool {
        let order = self.index.order(wanted);
        for file in &order {
            if !self.tried.insert((*file).to_owned()) || is_loaded(&name_of(file)) {
                continue;
            }
            let name = name_of(file);
            let known = PARAMETERS.iter().find(|(module, _)| *module == name);
            let parameters = known.map_or(c"", |(_, parameters)| parameters);
            match sys::module::load(&self.folder.join(file), parameters) {
                Ok(()) => {}
                // For hardware that this machine does not have.
                Err(e) if e.raw_os_error() == Some(ENODEV) => {}
                Err(e) => log::detail(&format!("module {file}: {e}")),
            }
        }
        !order.is_empty()
    }

    /// Loads the modules that the builder lists, and `needed` by this program itself.
    pub fn load_always(&mut self, needed: &[impl AsRef<str>]) -> Result<(), Error> {
        self.load_listed(LOAD_ALWAYS)?;
        for name in needed {
            // Those that are not there are built in, or missed by who needs them.
            self.load(name.as_ref());
        }
        Ok(())
    }

    /// Loads the modules in `list`, one name a line.
    fn load_listed(&mut self, list: &str) -> Result<(), Error> {
        let text = match fs::read_to_string(list) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.on("read", list)?,
        };
        for name in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if !name.starts_with('#') && !self.load(name) && !is_loaded(&name.replace('-', "_")) {
                log::detail(&format!("module {name} of {list} is not in this image"));
            }
        }
        Ok(())
    }

    /// Loads the modules for every device that the kernel has found, until no new device
    /// appears. Returns how many devices were new.
    pub fn coldplug(&mut self) -> usize {
        let before = self.seen.len();
        loop {
            let new: Vec<String> =
                aliases().into_iter().filter(|alias| !self.seen.contains(alias)).collect();
            if new.is_empty() {
                return self.seen.len() - before;
            }
            for alias in new {
                self.load(&alias);
                self.seen.insert(alias);
            }
        }
    }
}

const ENODEV: i32 = 19;

/// Whether module `name` is in the kernel and has finished loading, or is built in.
fn is_loaded(name: &str) -> bool {
    let folder = Path::new("/sys/module").join(name);
    match fs::read_to_string(folder.join("initstate")) {
        Ok(state) => state.trim_end() == "live",
        Err(_) => folder.exists(),
    }
}

/// The `modalias` of every device on a bus, and of the input devices, which have none.
fn aliases() -> HashSet<String> {
    let children = |folder: &Path| {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
    };
    children(Path::new("/sys/bus"))
        .map(|bus| bus.join("devices"))
        .chain([PathBuf::from("/sys/class/input")])
        .flat_map(|folder| children(&folder).collect::<Vec<_>>())
        .filter_map(|device| fs::read_to_string(device.join("modalias")).ok())
        .map(|alias| alias.trim_end().to_owned())
        .filter(|alias| !alias.is_empty())
        .collect()
}

/// This program in its role `modprobe`, in the real root.
const MODPROBE: &str = "/usr/sbin/modprobe";
/// Not one of kmod's options: everything that this machine needs.
const ALL: &str = "--berth-all";
/// Nor this: what may be asked for later.
const LAST: &str = "--berth-last";
/// A driver that hangs must not keep the host from booting without it.
pub const BOUND: Duration = Duration::from_secs(60);

/// The role `modprobe`: the kernel asks for a module that something wants to use, with
/// `modprobe -q -- NAME`. Returns the exit status.
pub fn modprobe(arguments: &[String]) -> u8 {
    let result = Modules::open().and_then(|mut modules| {
        if arguments.first().map(String::as_str) == Some(ALL) {
            // The network waits for its devices, and nobody so soon for the rest.
            modules.coldplug();
            modules.load_always(&arguments[1..])?;
            return Ok(true);
        }
        if arguments.first().map(String::as_str) == Some(LAST) {
            modules.coldplug();
            modules.load_listed(LOAD_LAST)?;
            return Ok(true);
        }
        let names = arguments.iter().filter(|argument| !argument.starts_with('-'));
        let missing = |name: &&String| !modules.load(name) && !is_loaded(&name.replace('-', "_"));
        // Counted, so that one that is missing does not keep the others from being loaded.
        Ok(names.filter(missing).count() == 0)
    });
    match result {
        Ok(all) => u8::from(!all),
        Err(e) => {
            log::detail(&format!("modprobe: {}", chain(&e)));
            1
        }
    }
}

/// The program that loads the modules of all devices and what the builder lists, and makes the kernel
/// call it for others. Not PID 1 itself: the index would stay in its memory, and a driver may hang.
pub fn all() -> Result<Program, Error> {
    let path = "/proc/sys/kernel/modprobe";
    fs::write(path, MODPROBE).on("write", path)?;
    Ok(Program { path: MODPROBE.into(), args: vec![ALL.to_owned()], env: vec![] })
}

/// The program that loads what may be asked for after [`close`].
pub fn last() -> Program {
    Program { path: MODPROBE.into(), args: vec![LAST.to_owned()], env: vec![] }
}

/// From here on the kernel takes no module, whoever asks. Only a restart changes that.
pub fn close() -> Result<(), Error> {
    for (path, value) in [
        ("/proc/sys/kernel/modules_disabled", "1"),
        // Nobody has to be started to be refused.
        ("/proc/sys/kernel/modprobe", "\n"),
    ] {
        fs::write(path, value).on("write", path)?;
    }
    Ok(())
}

/// Loads some modules, or waits until they are loaded by whoever began to.
pub fn load_now(names: &[&str]) -> Result<(), Error> {
    if let Err(e) = tool::run(MODPROBE, names, BOUND) {
        log::warning(&chain(&e));
    }
    Ok(())
}

/// Loads modules by name, with what they need. Those that are not there are missed by who needs them.
pub fn load_named(names: &[&str]) {
    match tool::run(MODPROBE, &[&["-q", "--"], names].concat(), BOUND) {
        Ok(finished) if finished.code == Some(0) => {}
        Ok(finished) => log::warning(&format!("not loaded: {}: {finished:?}", names.join(", "))),
        Err(e) => log::warning(&chain(&e)),
    }
}

/// Loads the modules of devices that are plugged in, or found, after the boot looked for them,
/// and lets `on_event` see each event. Runs in a thread of its own until the machine ends.
pub fn follow(uevents: Uevents, mut on_event: impl FnMut(&Uevent) + Send + 'static) {
    let work = move || loop {
        match uevents.next(None) {
            Ok(Some(event)) => {
                plug(&event);
                on_event(&event);
            }
            Ok(None) => {}
            Err(e) => return log::warning(&format!("devices are no longer followed: {e}")),
        }
    };
    if let Err(e) = std::thread::Builder::new().stack_size(128 << 10).spawn(work) {
        log::warning(&format!("devices are not followed: {e}"));
    }
}

fn plug(event: &Uevent) {
    let alias = event.get("MODALIAS").filter(|_| event.get("ACTION") == Some("add"));
    let mut modprobe = Command::new(MODPROBE);
    match (event, alias) {
        // Most appeared while the boot loaded modules, and have their driver.
        (_, Some(_)) if has_driver(event) => return,
        (_, Some(alias)) => modprobe.args(["-q", "--", alias]),
        (Uevent::Lost, None) => modprobe.arg(ALL),
        (Uevent::Words(_), None) => return,
    };
    match modprobe.env_clear().stdin(Stdio::null()).spawn() {
        // It may be reaped by whoever reaps for all of PID 1; then waiting ends with an error.
        Ok(mut child) => drop(child.wait()),
        Err(e) => log::warning(&format!("start {MODPROBE}: {e}")),
    }
}

fn has_driver(event: &Uevent) -> bool {
    event.get("DEVPATH").is_some_and(|path| Path::new(&format!("/sys{path}/driver")).exists())
}
