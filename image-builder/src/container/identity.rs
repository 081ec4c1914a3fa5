//! What tells one archive of container images from another without reading all of it.

use crate::cache::{self, Digest};
use crate::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use tar::Archive;

/// Files that name the content of an archive by digest: of an OCI image layout, and of `docker save`.
const NAMING: [&str; 2] = ["index.json", "manifest.json"];
/// Longer ones are not what they claim to be.
const MAX_NAMING: u64 = 4 << 20;

/// The digest of what names all content of an archive; none if nothing in it does.
pub fn identity(path: &Path) -> Result<Option<Digest>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut archive = Archive::new(file);
    let mut named: [Option<Vec<u8>>; NAMING.len()] = Default::default();
    // Compressed, or no archive at all: the runtime will know, or say so.
    let Ok(entries) = archive.entries_with_seek() else { return Ok(None) };
    for entry in entries {
        let Ok(entry) = entry else { return Ok(None) };
        let at = NAMING.iter().position(|name| entry.path_bytes() == name.as_bytes());
        if let Some(at) = at.filter(|_| entry.size() <= MAX_NAMING) {
            let mut bytes = Vec::new();
            entry.take(MAX_NAMING).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
            named[at] = Some(bytes);
        }
    }
    let found: Vec<&[u8]> = named.iter().flatten().map(Vec::as_slice).collect();
    Ok((!found.is_empty()).then(|| cache::key(&found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, content.as_bytes()).expect("appended");
        }
        builder.into_inner().expect("an archive")
    }

    fn of(bytes: &[u8]) -> Option<Digest> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        identity(file.path()).expect("readable")
    }

    #[test]
    fn what_names_the_content_tells_archives_apart() {
        let blob = ("blobs/sha256/aa", "layer");
        let one = of(&archive(&[blob, ("index.json", "{1}"), ("manifest.json", "[1]")]));
        assert!(one.is_some());
        let cases = [
            (archive(&[("index.json", "{1}"), blob, ("manifest.json", "[1]")]), true),
            (archive(&[blob, ("index.json", "{2}"), ("manifest.json", "[1]")]), false),
            (archive(&[blob, ("index.json", "{1}"), ("manifest.json", "[2]")]), false),
            (archive(&[blob, ("index.json", "{1}")]), false),
        ];
        for (bytes, same) in cases {
            assert_eq!(of(&bytes) == one, same);
        }
    }

    #[test]
    fn what_names_nothing_has_no_identity() {
        let bytes = archive(&[("index.json", "{1}"), ("blobs/sha256/aa", "layer")]);
        let cut = &bytes[..300];
        let huge = "x".repeat(MAX_NAMING as usize + 1);
        for none in [b"no archive".as_slice(), &[], cut, &archive(&[("index.json", &huge)])] {
            assert_eq!(of(none), None);
        }
    }
}
