//! Container images that came with the host: each is loaded into the runtime once.

use crate::log;
use crate::runtime::{Runtime, ctr_command, docker_command};
use crate::supervisor::{Outcome, Program, Supervisor, TaskId};
use contract::layout::IMAGE_IDENTITY;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

/// OCI archives that the image brings.
const IMAGES: &str = "/usr/lib/berth/images";
/// For each archive that the runtime has, a file of its name that holds its identity.
const LOADED: &str = "/var/lib/berth/images";
/// Longest time to load one archive.
const LOAD_WITHIN: Duration = Duration::from_secs(600);
/// Archives loaded at the same time.
const LOADS: usize = 2;

/// An archive to load.
#[derive(Debug)]
struct Load {
    name: String,
    path: PathBuf,
    identity: String,
    task: Option<TaskId>,
}

/// The archives that the runtime does not have yet.
#[derive(Debug)]
pub struct Preload {
    runtime: Runtime,
    /// Where they are loaded to in containerd.
    namespace: &'static str,
    /// What tells this host's image from every other: the identity of archives that have none.
    image: String,
    loads: Vec<Load>,
    /// Whether loaded archives were distrusted in this boot already.
    distrusted: bool,
}

impl Preload {
    /// Nothing to load yet: see [`Preload::begin`].
    pub fn new(runtime: Runtime, namespace: &'static str, image: String) -> Preload {
        Preload { runtime, namespace, image, loads: Vec::new(), distrusted: false }
    }

    /// Whether nothing is left to load.
    pub fn is_done(&self) -> bool {
        self.loads.is_empty()
    }

    /// Looks for archives that the runtime does not have.
    pub fn begin(&mut self) {
        let entries = match fs::read_dir(IMAGES) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(e) => return log::warning(&format!("read {IMAGES}: {e}")),
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension() == Some(OsStr::new("tar")));
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let own = fs::read_to_string(path.with_added_extension(IMAGE_IDENTITY)).ok();
            let identity = own.unwrap_or_else(|| self.image.clone());
            let known = fs::read_to_string(Path::new(LOADED).join(&name)).ok();
            if known.as_ref() != Some(&identity) {
                self.loads.push(Load { name, path, identity, task: None });
            }
        }
    }

    /// A workload did not start: someone may have removed an image that is known to be loaded. All
    /// are loaded again, once a boot.
    pub fn distrust(&mut self) {
        if !self.distrusted {
            self.distrusted = true;
            let _ = fs::remove_dir_all(LOADED);
            self.begin();
        }
    }

    /// Starts to load as many as may be loaded at a time.
    pub fn advance(&mut self, supervisor: &mut Supervisor) {
        let mut running = self.loads.iter().filter(|load| load.task.is_some()).count();
        let (runtime, namespace) = (self.runtime, self.namespace);
        self.loads.retain_mut(|load| {
            if load.task.is_some() || running >= LOADS {
                return true;
            }
            let command = load_command(runtime, namespace, &load.path);
            match supervisor.run("images", &command, LOAD_WITHIN) {
                Ok(id) => {
                    running += 1;
                    load.task = Some(id);
                    true
                }
                Err(e) => {
                    log::warning(&crate::error::chain(&e));
                    false
                }
            }
        });
    }

    /// A task has ended. Whether it was one of these.
    pub fn done(&mut self, id: TaskId, outcome: &Outcome) -> bool {
        let Some(at) = self.loads.iter().position(|load| load.task == Some(id)) else {
            return false;
        };
        let Load { name, identity, .. } = self.loads.remove(at);
        if !outcome.is_success() {
            log::warning(&format!("load image {name}: {}", outcome.reason()));
            return true;
        }
        log::line(&format!("image {name}: loaded"));
        let noted = fs::create_dir_all(LOADED)
            .and_then(|()| fs::write(Path::new(LOADED).join(&name), &identity));
        if let Err(e) = noted {
            log::warning(&format!("note in {LOADED} that {name} is loaded: {e}"));
        }
        true
    }
}

fn load_command(runtime: Runtime, namespace: &str, archive: &Path) -> Program {
    let archive = archive.display().to_string();
    match runtime {
        Runtime::Docker => docker_command(&["load", "--quiet", "--input", &archive]),
        Runtime::Containerd => {
            ctr_command(&["--namespace", namespace, "images", "import", &archive])
        }
    }
}
