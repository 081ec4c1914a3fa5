//! The manifest beside an image, and the package list inside of it.

use super::disk::{Written, hex};
use crate::new_file::NewFile;
use crate::{Error, Result};
use contract::layout::LIB_DIR;
use contract::manifest::{FORMAT, Manifest, Package};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest manifest that is read.
const LIMIT: u64 = 16 << 20;

/// What the manifest says that the disk writer does not know.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Name of the image definition.
    pub name: &'a str,
    /// Release version.
    pub version: &'a str,
    /// Debian architecture.
    pub architecture: &'a str,
    /// Debian suite.
    pub suite: &'a str,
    /// `docker` or `containerd`.
    pub runtime: &'a str,
    /// Whether the image carries a debug shell.
    pub debug_shell: bool,
    /// Kernel release.
    pub kernel: &'a str,
    /// Seconds since 1970 UTC that every timestamp is clamped to.
    pub source_date_epoch: u64,
}

/// Puts the manifest together. Packages are sorted.
pub fn fill(about: &About<'_>, written: &Written, mut packages: Vec<Package>) -> Manifest {
    packages.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
    Manifest {
        format: FORMAT,
        name: about.name.to_owned(),
        version: about.version.to_owned(),
        architecture: about.architecture.to_owned(),
        suite: about.suite.to_owned(),
        runtime: about.runtime.to_owned(),
        debug_shell: about.debug_shell,
        kernel: about.kernel.to_owned(),
        source_date_epoch: about.source_date_epoch,
        image_size: written.image_size,
        picker: written.picker.clone(),
        uki: written.uki.clone(),
        root_size: written.root_size,
        verity: written.verity.clone(),
        root_hash: hex(&written.root_hash),
        partitions: written.partitions.clone(),
        packages,
    }
}

/// Where the manifest of `image` lies: `x.manifest.json` beside `x.raw`.
pub fn path_beside(image: &Path) -> PathBuf {
    image.with_extension("manifest.json")
}

/// Where the SBOM of `image` lies: `x.spdx.json` beside `x.raw`.
pub fn sbom_path_beside(image: &Path) -> PathBuf {
    image.with_extension("spdx.json")
}

/// Writes `value` to `path` as indented JSON, whole or not at all.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::io("write", path)(std::io::Error::other(e)))?;
    text.push(b'\n');
    NewFile::write(path, &text)
}

/// Reads a manifest; `None` when there is no such file.
pub fn read(path: &Path) -> Result<Option<Manifest>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(Error::io("read", path))?,
    };
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text).map_err(Error::io("read", path))?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|e| Error::corrupt(format!("{} is not a manifest: {e}", path.display())))?;
    if manifest.format > FORMAT {
        let what = format!("{} has format {}", path.display(), manifest.format);
        return Err(Error::refused(what).with_hint("use the Berth that wrote it, or a later one"));
    }
    Ok(Some(manifest))
}

/// Path in the root filesystem of the package list.
pub fn package_list_path() -> String {
    format!("{LIB_DIR}/packages.json")
}

/// Content of the package list: what `berth inspect` shows without a manifest.
pub fn package_list(packages: &[Package]) -> Vec<u8> {
    // Strings in structs: nothing in it can fail.
    serde_json::to_vec(packages).unwrap_or_default()
}

/// Reads a package list; `None` when it is none.
pub fn read_package_list(bytes: &[u8]) -> Option<Vec<Package>> {
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::disk::tests::{build, sample_tree, small_sizes};

    fn package(name: &str) -> Package {
        Package {
            name: name.into(),
            version: "1".into(),
            architecture: "amd64".into(),
            sha256: "00".into(),
        }
    }

    #[test]
    fn a_manifest_round_trips_beside_its_image() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let image = directory.path().join("sample-1.2.3.raw");
        let written = build(&sample_tree(), small_sizes(), &image).expect("an image");
        let about = About {
            name: "sample",
            version: "1.2.3",
            architecture: "amd64",
            suite: "trixie",
            runtime: "docker",
            debug_shell: false,
            kernel: "6.1",
            source_date_epoch: 7,
        };
        let manifest = fill(&about, &written, vec![package("b"), package("a")]);
        assert_eq!(manifest.packages[0].name, "a");
        let path = path_beside(&image);
        assert!(path.ends_with("sample-1.2.3.manifest.json"));
        assert_eq!(read(&path).expect("nothing there"), None);
        write_json(&path, &manifest).expect("written");
        assert_eq!(read(&path).expect("readable"), Some(manifest.clone()));
        write_json(&path, &Manifest { format: FORMAT + 1, ..manifest }).expect("written");
        assert!(read(&path).is_err());
    }

    #[test]
    fn the_package_list_round_trips() {
        let packages = vec![package("a")];
        assert_eq!(read_package_list(&package_list(&packages)), Some(packages));
        assert_eq!(read_package_list(b"{}"), None);
    }
}
