//! What tells one archive of container images from another without reading all of it.

use crate::cache::{self, Digest};
use crate::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use tar::Archive;

/// Files that name the content of an archive by digest: of an OCI image layout, and of `docker save`.
const NAMING: [&str; 2] = ["index.json", "manifest.json"];
/// Longer ones are not what they claim to be.
const MAX_NAMING: u64 = 4 << 20;

/// How files begin that a runtime decompresses: gzip (RFC 1952, 2.3.1), zstd (RFC 8878, 3.1.1), and, Docker
/// alone, xz (its file format, 2.1.1.1) and bzip2.
const COMPRESSED: [&[u8]; 4] = [&[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd], b"\xfd7zXZ\0", b"BZh"];

/// The library's own words would quote what stands in the file.
const DAMAGED: &str = "it is no tar archive, or a damaged one";

/// The digest of what names all content of an archive; none for one that is compressed. What cannot be
/// loaded by any runtime is refused.
pub fn identity(path: &Path) -> Result<Option<Digest>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut begin = Vec::new();
    (&file).take(6).read_to_end(&mut begin).map_err(Error::io("read", path))?;
    if COMPRESSED.iter().any(|magic| begin.starts_with(magic)) {
        return Ok(None);
    }
    let no = |why: &str| {
        Error::refused(format!("{} is no archive of container images: {why}", path.display()))
            .with_hint("take what `docker save` or `berth container` writes")
    };
    let len = file.metadata().map_err(Error::io("look at", path))?.len();
    (&file).rewind().map_err(Error::io("read", path))?;
    let mut archive = Archive::new(&file);
    let mut named: [Option<Vec<u8>>; NAMING.len()] = Default::default();
    let entries = archive.entries_with_seek().map_err(|_| no(DAMAGED))?;
    for entry in entries {
        let entry = entry.map_err(|_| no(DAMAGED))?;
        if entry.raw_file_position().saturating_add(entry.size()) > len {
            return Err(no("it was cut off"));
        }
        let name = entry.path_bytes();
        let name = name.strip_prefix(b"./").unwrap_or(&name);
        let at = NAMING.iter().position(|naming| name == naming.as_bytes());
        if let Some(at) = at.filter(|_| entry.size() <= MAX_NAMING) {
            let mut bytes = Vec::new();
            entry.take(MAX_NAMING).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
            named[at] = Some(bytes);
        }
    }
    let found: Vec<&[u8]> = named.iter().flatten().map(Vec::as_slice).collect();
    match found.is_empty() {
        true => Err(no("it has neither index.json nor manifest.json")),
        false => Ok(Some(cache::key(&found))),
    }
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

    fn of(bytes: &[u8]) -> Result<Option<Digest>> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        identity(file.path())
    }

    fn some(bytes: &[u8]) -> Digest {
        of(bytes).expect("an archive").expect("that is not compressed")
    }

    #[test]
    fn what_names_the_content_tells_archives_apart() {
        let blob = ("blobs/sha256/aa", "layer");
        let one = some(&archive(&[blob, ("index.json", "{1}"), ("manifest.json", "[1]")]));
        let cases = [
            (archive(&[("index.json", "{1}"), blob, ("manifest.json", "[1]")]), true),
            (archive(&[("./index.json", "{1}"), blob, ("./manifest.json", "[1]")]), true),
            (archive(&[blob, ("index.json", "{2}"), ("manifest.json", "[1]")]), false),
            (archive(&[blob, ("index.json", "{1}"), ("manifest.json", "[2]")]), false),
            (archive(&[blob, ("index.json", "{1}")]), false),
        ];
        for (bytes, same) in cases {
            assert_eq!(some(&bytes) == one, same);
        }
    }

    #[test]
    fn compressed_archives_have_none() {
        for magic in COMPRESSED {
            assert_eq!(of(&[magic, &[0; 9]].concat()).expect("accepted"), None);
        }
    }

    #[test]
    fn what_no_runtime_loads_is_refused() {
        let bytes = archive(&[("index.json", "{1}"), ("blobs/sha256/aa", &"x".repeat(2000))]);
        let huge = archive(&[("index.json", &"x".repeat(MAX_NAMING as usize + 1))]);
        let cases = [
            (b"text".as_slice(), DAMAGED),
            (&[], "neither"),
            (&[b'x'; 2000], DAMAGED),
            (&bytes[..300], DAMAGED),
            (&bytes[..2000], "it was cut off"),
            (&huge, "neither index.json nor manifest.json"),
        ];
        for (bytes, why) in cases {
            let error = of(bytes).expect_err(why).to_string();
            assert!(error.contains(" is no archive of container images: "), "{error}");
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
