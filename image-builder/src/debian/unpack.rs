//! From a `.deb` to an uncompressed tar in the cache: once for each package, ever.

use super::Package;
use crate::cache::{Cache, Digest, Hashing, key};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

/// Increase when the tar or [`Facts`] change, so that cached ones are made again.
const FORMAT: &[u8] = b"unpacked 1";

/// No package may unpack to more than this.
const MAX_UNPACKED: u64 = 16 << 30;

/// No control file may be longer than this.
const MAX_CONTROL: u64 = 8 << 20;

/// What is known of an unpacked package beside its tar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// SHA-256 of the tar, to notice a damaged cache.
    #[serde(with = "super::hex_digest")]
    pub tar_sha256: Digest,
    /// Bytes of the tar.
    pub tar_size: u64,
    /// The file `control`.
    pub control: String,
    /// Names of the maintainer scripts: `postinst`...
    pub scripts: Vec<String>,
}

fn cache_key(sha256: &Digest) -> Digest {
    key(&[FORMAT, sha256])
}

/// The cached tar of the `.deb` with this digest, if it is there and undamaged.
pub fn cached(cache: &Cache, sha256: &Digest) -> Result<Option<(Facts, File)>> {
    let key = cache_key(sha256);
    let facts = cache.read_derived("unpacked", &key)?;
    let Some(facts) = facts.and_then(|f| serde_json::from_slice::<Facts>(&f).ok()) else {
        return Ok(None);
    };
    let path = cache.derived("tar", &key);
    let file = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(Error::io("open", &path))?,
    };
    let size = file.metadata().map_err(Error::io("read", &path))?.len();
    if size != facts.tar_size {
        return Ok(None);
    }
    let mut hashing = Hashing::new(&file);
    drain(&mut hashing).map_err(Error::io("read", &path))?;
    let (_, digest, _) = hashing.finish();
    Ok((digest == facts.tar_sha256).then_some((facts, file)))
}

/// Whether [`cached`] would probably find something.
pub fn is_cached(cache: &Cache, sha256: &Digest) -> bool {
    let key = cache_key(sha256);
    ["unpacked", "tar"].iter().all(|kind| cache.derived(kind, &key).exists())
}

/// Where the tar lies.
pub fn tar_path(cache: &Cache, sha256: &Digest) -> std::path::PathBuf {
    cache.derived("tar", &cache_key(sha256))
}

/// Unpacks the `.deb` at `path`. Unless `checked`, it is hashed on the way, and nothing comes of it
/// when it is another one than `package` says: that is `None`.
pub fn unpack(
    cache: &Cache,
    package: &Package,
    path: &Path,
    checked: bool,
) -> Result<Option<(Facts, File)>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let reader = BufReader::with_capacity(256 << 10, file);
    let tar = cache.create(tar_path(cache, &package.sha256))?;
    let facts = if checked {
        extract(reader, &tar.file, tar.target(), package)?
    } else {
        let mut hashing = Hashing::new(reader);
        let facts = extract(&mut hashing, &tar.file, tar.target(), package);
        drain(&mut hashing).map_err(Error::io("read", path))?;
        if hashing.finish().1 != package.sha256 {
            return Ok(None);
        }
        facts?
    };
    let file = tar.file.try_clone().map_err(Error::io("open", tar.target()))?;
    tar.commit()?;
    let json = serde_json::to_vec(&facts)
        .map_err(|e| Error::corrupt(format!("package {}: {e}", package.name)))?;
    cache.write_derived("unpacked", &cache_key(&package.sha256), &json)?;
    Ok(Some((facts, file)))
}

/// Forgets an unpacked package and the `.deb` that it was made of.
pub fn forget(cache: &Cache, sha256: &Digest) {
    let key = cache_key(sha256);
    for path in [cache.derived("unpacked", &key), cache.derived("tar", &key), cache.blob(sha256)] {
        // What cannot be removed will be replaced.
        let _ = fs::remove_file(path);
    }
}

fn drain(reader: &mut impl Read) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    while reader.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Reads the archive members in their order: `debian-binary`, `control.tar`, `data.tar`.
pub fn extract(deb: impl Read, out: &File, out_path: &Path, package: &Package) -> Result<Facts> {
    let wrong = |why: &dyn std::fmt::Display| {
        Error::corrupt(format!("package {} {}: {why}", package.name, package.version))
    };
    let mut archive = ar::Archive::new(deb);
    let mut control = None;
    while let Some(member) = archive.next_entry() {
        let member = member.map_err(|e| wrong(&e))?;
        let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
        if name.starts_with("control.tar") {
            let tar = decompressor(&name, member).map_err(|e| wrong(&e))?;
            let (text, scripts) = read_control(tar).map_err(|e| wrong(&e))?;
            for (field, expected) in [
                ("Package", &package.name),
                ("Version", &package.version),
                ("Architecture", &package.architecture),
            ] {
                let found = control_field(&text, field).unwrap_or_default();
                if found != *expected {
                    return Err(wrong(&format!("its {field} is `{found}`")));
                }
            }
            control = Some((text, scripts));
        } else if name.starts_with("data.tar") {
            let Some((control, scripts)) = control else {
                return Err(wrong(&"data.tar comes before control.tar"));
            };
            let tar = decompressor(&name, member).map_err(|e| wrong(&e))?.take(MAX_UNPACKED);
            let mut out = Output {
                to: Hashing::new(BufWriter::with_capacity(256 << 10, out)),
                path: out_path,
            };
            match control_field(&control, "Section").is_some_and(|s| s.ends_with("kernel")) {
                true => copy_with_plain_modules(tar, &mut out, &wrong)?,
                false => copy(tar, &mut out, &wrong)?,
            }
            out.to.flush().map_err(Error::io("write", out_path))?;
            let (_, tar_sha256, tar_size) = out.to.finish();
            return Ok(Facts { tar_sha256, tar_size, control, scripts });
        }
    }
    Err(wrong(&"it has no data.tar"))
}

fn decompressor<'a>(name: &str, member: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match name.rsplit_once(".tar").map(|(_, end)| end) {
        Some(".xz") => Box::new(liblzma::read::XzDecoder::new_multi_decoder(member)),
        Some(".zst") => Box::new(zstd::Decoder::new(member)?),
        Some(".gz") => Box::new(flate2::read::MultiGzDecoder::new(member)),
        Some("") => Box::new(member),
        _ => return Err(io::Error::other(format!("the compression of {name} is not supported"))),
    })
}

/// The text of `control` and the names of the maintainer scripts.
fn read_control(tar: impl Read) -> io::Result<(String, Vec<String>)> {
    const SCRIPTS: [&str; 5] = ["config", "postinst", "postrm", "preinst", "prerm"];
    let mut text = None;
    let mut scripts = Vec::new();
    for entry in tar::Archive::new(tar.take(MAX_CONTROL)).entries()? {
        let mut entry = entry?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = path.strip_prefix("./").unwrap_or(&path);
        if name == "control" {
            text = Some(io::read_to_string(&mut entry)?);
        } else if SCRIPTS.contains(&name) {
            scripts.push(name.to_owned());
        }
    }
    scripts.sort();
    Ok((text.ok_or_else(|| io::Error::other("it has no control file"))?, scripts))
}

/// The first line of a field of a control file.
pub fn control_field<'a>(control: &'a str, name: &str) -> Option<&'a str> {
    control.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

struct Output<'a> {
    to: Hashing<BufWriter<&'a File>>,
    path: &'a Path,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(Error::io("write", self.path))
    }

    /// A tar member, padded to whole blocks.
    fn write_member(&mut self, header: &tar::Header, content: &[u8]) -> Result<()> {
        self.write(header.as_bytes())?;
        self.write(content)?;
        self.pad(content.len() as u64)
    }

    fn pad(&mut self, len: u64) -> Result<()> {
        self.write(&[0; 512][..(len.next_multiple_of(512) - len) as usize])
    }
}

type Wrong<'a> = dyn Fn(&dyn std::fmt::Display) -> Error + 'a;

fn copy(mut from: impl Read, out: &mut Output, wrong: &Wrong) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer).map_err(|e| wrong(&e))? {
            0 => return Ok(()),
            n => out.write(&buffer[..n])?,
        }
    }
}

/// Copies a tar whose `.ko.xz` members become `.ko`: modules load faster so, and updates find what
/// two releases have in common.
fn copy_with_plain_modules(from: impl Read, out: &mut Output, wrong: &Wrong) -> Result<()> {
    let mut archive = tar::Archive::new(from);
    let mut long_name: Option<(tar::Header, Vec<u8>)> = None;
    for entry in archive.entries().map_err(|e| wrong(&e))?.raw(true) {
        let mut entry = entry.map_err(|e| wrong(&e))?;
        let mut header = entry.header().clone();
        if header.entry_type().is_gnu_longname() {
            let mut name = Vec::new();
            entry.take(64 << 10).read_to_end(&mut name).map_err(|e| wrong(&e))?;
            long_name = Some((header, name));
            continue;
        }
        let name = match &long_name {
            Some((_, name)) => name.strip_suffix(b"\0").unwrap_or(name).to_vec(),
            None => header.path_bytes().into_owned(),
        };
        let plain = name.strip_suffix(b".xz").filter(|n| n.ends_with(b".ko"));
        let Some(plain) = plain.filter(|_| header.entry_type().is_file()) else {
            if let Some((header, name)) = long_name.take() {
                out.write_member(&header, &name)?;
            }
            out.write(header.as_bytes())?;
            let len = entry.size();
            copy(entry, out, wrong)?;
            out.pad(len)?;
            continue;
        };
        let mut module = Vec::new();
        liblzma::read::XzDecoder::new(&mut entry)
            .take(MAX_UNPACKED)
            .read_to_end(&mut module)
            .map_err(|e| wrong(&format!("{}: {e}", String::from_utf8_lossy(&name))))?;
        if let Some((mut header, _)) = long_name.take() {
            let name = [plain, b"\0"].concat();
            header.set_size(name.len() as u64);
            header.set_cksum();
            out.write_member(&header, &name)?;
        }
        let field = &mut header.as_old_mut().name;
        let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
        if field[..end].ends_with(b".ko.xz") {
            field[end - 3..end].fill(0);
        }
        header.set_size(module.len() as u64);
        header.set_cksum();
        out.write_member(&header, &module)?;
    }
    out.write(&[0; 1024])
}
