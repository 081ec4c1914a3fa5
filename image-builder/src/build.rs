//! One image build, from a definition to files that appear by rename.
//!
//! Reads top to bottom: packages, root, kernel, disk, manifest. Each step caches its result under
//! the digest of what it was made of.

use crate::cache::{self, Cache, Digest, hex};
use crate::container::{self, ContainerDefinition};
use crate::debian::lock::Lock;
use crate::debian::{self, Mirrors, Network, Package, Request, Resolved};
use crate::definition::{Definition, ExtraContent};
use crate::guest::Programs;
use crate::image::{self, disk, fat, manifest, sbom};
use crate::kernel::{initramfs, modules};
use crate::root::{self, Preload, Root};
use crate::tree::Node;
use crate::{Error, Result};
use contract::layout::{CMDLINE_DEBUG_SHELL, HOST_CONFIG_PATH};
use contract::manifest::{Manifest, Package as Listed};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Raised when the same inputs give other bytes than before.
const BUILDER: &[u8] = b"berth image 1";

/// Arguments of every kernel. A kernel that panics reboots after ten seconds; a disk whose primary
/// partition table is torn is read by its backup. Not even root changes the running kernel: no
/// access to its memory, no module without the signature of who built it. Ciphers are not tested at each
/// start, which Debian's kernel does and the kernel by its own defaults does not.
const KERNEL_ARGUMENTS: &str = "gpt panic=10 oops=panic quiet loglevel=4 lockdown=integrity \
    module.sig_enforce=1 cryptomgr.notests=1";

/// What the ESP's host configuration says before a person edits it.
const HOST_TOML: &str = "# The configuration of this host. `berth check` on any machine says what is wrong with it.\n\
     # The keys are explained in configs/demo/host.toml of the Berth sources.\n";

/// The only architecture so far.
const ARCHITECTURE: &str = "amd64";

/// How to build.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the results.
    pub output: PathBuf,
    /// Whether the mirrors may be asked.
    pub network: Network,
    /// Whether a lock file counts.
    pub locking: Locking,
}

/// Whether a lock file counts.
#[derive(Clone, Debug)]
pub enum Locking {
    /// Packages are what the mirror has now.
    Ignore,
    /// Exactly the packages in this file.
    Require(PathBuf),
}

/// What was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The disk image.
    pub image: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// Whether anything had to be done.
    pub changed: bool,
    /// Paths that were left out of the root; empty when nothing had to be done.
    pub dropped: Vec<String>,
    /// How long each stage took, in order.
    pub timings: Vec<(&'static str, Duration)>,
}

/// Takes the time of stages.
struct Clock {
    last: Instant,
    timings: Vec<(&'static str, Duration)>,
}

impl Clock {
    fn lap(&mut self, stage: &'static str) {
        self.timings.push((stage, self.last.elapsed()));
        self.last = Instant::now();
    }
}

/// Builds `definition`.
pub fn build(
    definition: &Definition,
    programs: &Programs,
    cache: &Cache,
    mirrors: &Mirrors,
    options: &Options,
) -> Result<Built> {
    let mut clock = Clock { last: Instant::now(), timings: Vec::new() };
    make_folder(&options.output)?;
    let request = request(definition);
    let resolved = match &options.locking {
        Locking::Ignore => debian::resolve(cache, mirrors, &request, options.network)?,
        Locking::Require(path) => Lock::read(path)?.resolved(&request)?,
    };
    clock.lap("resolve");
    let preloads = preloads(definition, cache, mirrors, options.network)?;
    clock.lap("containers");

    let name = format!("{}-{}", definition.name, definition.version);
    let image = options.output.join(format!("{name}.raw"));
    let inputs = inputs_key(definition, programs, &resolved.packages, &preloads)?;
    if let Some(manifest) = unchanged(cache, &inputs, &image)? {
        clock.lap("compare");
        let timings = clock.timings;
        return Ok(Built { image, manifest, changed: false, dropped: Vec::new(), timings });
    }

    let _claim = cache.claim(&image)?;
    let packages = debian::obtain(cache, mirrors, &resolved.packages, options.network)?;
    clock.lap("packages");
    let mut root = root::compose(definition, &packages, programs, &preloads)?;
    clock.lap("root");
    let index = module_index(cache, &root, &packages)?;
    let folder = modules::directory(&root.kernel_release);
    for (file, text) in index.files() {
        root.tree.insert(&format!("{folder}/{file}"), Node::file(text.into_bytes(), root.epoch));
    }
    let listed = listed(&resolved.packages);
    root.tree.insert(
        &manifest::package_list_path(),
        Node::file(manifest::package_list(&listed), root.epoch),
    );
    let plan = initramfs::plan(&index)?;
    let epoch = u32::try_from(root.epoch).unwrap_or(u32::MAX);
    let initramfs = initramfs::write(&plan, &root.tree, &programs.init, epoch)?;
    clock.lap("kernel");

    let esp_files = fat::Files::from([(HOST_CONFIG_PATH.to_owned(), HOST_TOML.into())]);
    let kernel = root.kernel.read_all()?;
    let written = disk::write(
        &disk::Inputs {
            name: &definition.name,
            version: &definition.version,
            root: &root.tree,
            stub: &root.stub,
            kernel: &kernel,
            kernel_release: &root.kernel_release,
            initramfs: &initramfs,
            os_release: &root.os_release,
            cmdline: &cmdline(definition),
            picker: &image::pe::elf_to_pe(&programs.picker)?,
            esp_files: &esp_files,
            sector_size: definition.sector_size,
            sizes: definition.sizes,
            source_date_epoch: root.epoch.max(0) as u64,
        },
        &image,
    )?;
    clock.lap("image");
    let about = manifest::About {
        name: &definition.name,
        version: &definition.version,
        architecture: ARCHITECTURE,
        suite: &definition.suite,
        runtime: definition.runtime.name(),
        debug_shell: definition.debug_shell,
        kernel: &root.kernel_release,
        source_date_epoch: root.epoch.max(0) as u64,
    };
    let manifest = manifest::fill(&about, &written, listed);
    manifest::write_json(&manifest::path_beside(&image), &manifest)?;
    let copyright = |package: &Listed| root.copyright.get(&package.name).cloned();
    manifest::write_json(
        &manifest::sbom_path_beside(&image),
        &sbom::document(&manifest, copyright),
    )?;
    remember(cache, &inputs, &image)?;
    clock.lap("manifest");
    Ok(Built { image, manifest, changed: true, dropped: root.dropped, timings: clock.timings })
}

fn make_folder(folder: &Path) -> Result<()> {
    use std::io::ErrorKind::{AlreadyExists, NotADirectory};
    match std::fs::create_dir_all(folder) {
        Err(e) if matches!(e.kind(), AlreadyExists | NotADirectory) => {
            Err(Error::refused(format!("{} is not a folder", folder.display()))
                .with_hint("-o names the folder that the image and the files beside it go to"))
        }
        other => other.map_err(Error::io("create", folder)),
    }
}

/// Writes the lock file of `definition`; returns the number of packages in it.
pub fn lock(
    definition: &Definition,
    cache: &Cache,
    mirrors: &Mirrors,
    network: Network,
    path: &Path,
) -> Result<usize> {
    let request = request(definition);
    let resolved: Resolved = debian::resolve(cache, mirrors, &request, network)?;
    let lock = Lock::new(&request, &resolved);
    if path.exists()
        && let Ok(old) = Lock::read(path)
    {
        for line in old.differences(&lock) {
            eprintln!("{line}");
        }
    }
    lock.write(path)?;
    Ok(resolved.packages.len())
}

/// `NAME.lock` beside `NAME.toml`.
pub fn lock_path(definition: &Path) -> PathBuf {
    definition.with_extension("lock")
}

fn request(definition: &Definition) -> Request {
    Request {
        suite: definition.suite.clone(),
        architecture: ARCHITECTURE.into(),
        packages: root::packages(definition),
        recommends: definition.recommends,
        assume: root::ASSUMED.map(str::to_owned).to_vec(),
    }
}

fn preloads(
    definition: &Definition,
    cache: &Cache,
    mirrors: &Mirrors,
    network: Network,
) -> Result<Vec<Preload>> {
    let mut preloads = Vec::new();
    for path in &definition.images {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = stem.trim_end_matches(".oci").to_owned();
        if preloads.iter().any(|p: &Preload| p.name == name) {
            return Err(Error::refused(format!("two images are called {name}"))
                .with_hint("rename one of the files"));
        }
        let path = match path.extension().is_some_and(|e| e == "toml") {
            true => {
                let container = ContainerDefinition::read(path, &[])?;
                container::build_into_cache(&container, cache, mirrors, network)?
            }
            false => path.clone(),
        };
        let identity = container::identity(&path)?;
        preloads.push(Preload { name, path, identity });
    }
    Ok(preloads)
}

fn listed(packages: &[Package]) -> Vec<Listed> {
    let list = |package: &Package| Listed {
        name: package.name.clone(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
        sha256: hex(&package.sha256),
    };
    packages.iter().map(list).collect()
}

fn module_index(
    cache: &Cache,
    root: &Root,
    packages: &[debian::Unpacked],
) -> Result<modules::ModuleIndex> {
    // Everything that may hold modules: they depend on nothing else.
    let mut parts: Vec<&[u8]> = vec![BUILDER, root.kernel_release.as_bytes()];
    let kernels = packages.iter().filter(|p| p.package.name.starts_with("linux-image-"));
    parts.extend(kernels.map(|p| p.tar_sha256().as_slice()));
    let key = cache::key(&parts);
    if let Some(bytes) = cache.read_derived("modules", &key)?
        && let Ok(index) = serde_json::from_slice(&bytes)
    {
        return Ok(index);
    }
    let index = modules::index(&root.tree, &root.kernel_release)?;
    let bytes = serde_json::to_vec(&index)
        .map_err(|e| Error::corrupt(format!("module index as JSON: {e}")))?;
    cache.write_derived("modules", &key, &bytes)?;
    Ok(index)
}

/// The definition's own arguments come after, and instead of, those of every kernel: there is no
/// way back from `lockdown=integrity` on the same line.
fn cmdline(definition: &Definition) -> String {
    let key = |word: &str| word.split('=').next().map(str::to_owned);
    let own: Vec<_> = definition.kernel_arguments.iter().map(|word| key(word)).collect();
    let common = KERNEL_ARGUMENTS.split(' ').filter(|word| !own.contains(&key(word)));
    let mut words: Vec<String> = common.map(str::to_owned).collect();
    words.extend(definition.kernel_arguments.iter().cloned());
    if definition.debug_shell {
        words.push(CMDLINE_DEBUG_SHELL.to_owned());
    }
    words.join(" ")
}

/// Everything that the image's bytes depend on.
fn inputs_key(
    definition: &Definition,
    programs: &Programs,
    packages: &[Package],
    preloads: &[Preload],
) -> Result<Digest> {
    let described = format!("{definition:?}");
    let mut parts: Vec<Vec<u8>> = vec![BUILDER.to_vec(), described.into_bytes()];
    parts.extend([programs.init.clone(), programs.picker.clone(), programs.updater.clone()]);
    // Another builder may give other bytes.
    let builder = std::env::current_exe().map_err(Error::io("find", "the running program"))?;
    parts.push(stamp(&builder)?.into_bytes());
    for Package { name, version, sha256, .. } in packages {
        parts.push(format!("{name} {version} {}", hex(sha256)).into_bytes());
    }
    for preload in preloads {
        parts.push(preload.name.clone().into_bytes());
        parts.push(stamp(&preload.path)?.into_bytes());
    }
    for file in &definition.files {
        if let ExtraContent::Source(source) = &file.content {
            parts.push(std::fs::read(source).map_err(Error::io("read", source))?);
        }
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Ok(cache::key(&parts))
}

/// Tells a file that nobody touched since from any other.
fn stamp(path: &Path) -> Result<String> {
    let m = std::fs::metadata(path).map_err(Error::io("read", path))?;
    Ok(format!("{} {} {} {} {}", m.dev(), m.ino(), m.size(), m.ctime(), m.ctime_nsec()))
}

/// The manifest of an image that is still as it was built from these inputs.
fn unchanged(cache: &Cache, inputs: &Digest, image: &Path) -> Result<Option<Manifest>> {
    let (Ok(stamp), true) = (stamp(image), manifest::sbom_path_beside(image).exists()) else {
        return Ok(None);
    };
    let was = cache.read_derived("built", inputs)?;
    if was.is_none_or(|was| was != stamp.as_bytes()) {
        return Ok(None);
    }
    // A manifest that cannot be read is written anew with everything else.
    Ok(manifest::read(&manifest::path_beside(image)).ok().flatten())
}

fn remember(cache: &Cache, inputs: &Digest, image: &Path) -> Result<()> {
    cache.write_derived("built", inputs, stamp(image)?.as_bytes())
}
