//! The whole disk image: a sparse raw file with slot A in it.

use super::ext4::{self, Identity};
use super::verity::{self, Hash, Params};
use super::{fat, root, uki};
use crate::definition::Sizes;
use crate::new_file::NewFile;
use crate::tree::Tree;
use crate::{Error, Result};
use contract::Slot;
use contract::gpt::{Entry, Guid, Table};
use contract::journal::{self, Writer};
use contract::layout::{
    ALIGNMENT, BLOCK, CMDLINE_ROOT_HASH, CMDLINE_VERSION, PICKER_PATH, Partition, RECORD_OFFSETS,
};
use contract::manifest;
use contract::record::{Record, SlotEntry};
use contract::text::Text;
use contract::trailer::Trailer;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What an image is made of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Name of the image definition.
    pub name: &'a str,
    /// Release version.
    pub version: &'a str,
    /// The root filesystem.
    pub root: &'a Tree,
    /// `linuxx64.efi.stub` of systemd.
    pub stub: &'a [u8],
    /// The kernel, an EFI program.
    pub kernel: &'a [u8],
    /// Kernel release.
    pub kernel_release: &'a str,
    /// The initramfs.
    pub initramfs: &'a [u8],
    /// Content of os-release.
    pub os_release: &'a str,
    /// Kernel arguments. Root hash and version are added here.
    pub cmdline: &'a str,
    /// The slot picker as a PE file.
    pub picker: &'a [u8],
    /// Further files on the ESP.
    pub esp_files: &'a fat::Files,
    /// Logical sector size in bytes of the disk that the image is for: 512 or 4096.
    pub sector_size: u64,
    /// Partition sizes.
    pub sizes: Sizes,
    /// Seconds since 1970 UTC. No timestamp in the image is later.
    pub source_date_epoch: u64,
}

/// What was written, for the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Size in bytes of the image file.
    pub image_size: u64,
    /// The slot picker.
    pub picker: manifest::File,
    /// The kernel image.
    pub uki: manifest::File,
    /// Size in bytes of the root filesystem.
    pub root_size: u64,
    /// The dm-verity tree.
    pub verity: manifest::File,
    /// Root hash of the tree.
    pub root_hash: Hash,
    /// Partitions in the order of the disk.
    pub partitions: Vec<manifest::Partition>,
}

/// A partition and its place in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which partition.
    pub partition: Partition,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub size: u64,
}

/// Where each partition lies, and the size of the disk.
pub fn places(sizes: &Sizes) -> (Vec<Place>, u64) {
    let mut at = ALIGNMENT;
    let places = Partition::ALL
        .iter()
        .map(|&partition| {
            let size = sizes.of(partition).next_multiple_of(ALIGNMENT);
            let place = Place { partition, offset: at, size };
            at += size;
            place
        })
        .collect();
    // The backup of the partition table gets an aligned piece of its own.
    (places, at + ALIGNMENT)
}

/// Writes the image to `path`, which appears when it is whole.
pub fn write(inputs: &Inputs<'_>, path: &Path) -> Result<Written> {
    let (places, image_size) = places(&inputs.sizes);
    let place = |wanted: Partition| {
        // `places` has every partition.
        places.iter().copied().find(|place| place.partition == wanted).unwrap_or(places[0])
    };
    let filesystem = ext4::plan(inputs.root, &identity(inputs))?;
    let root_place = place(Partition::Root(Slot::A));
    fits("the root filesystem", filesystem.size(), root_place.size, "root")?;
    let verity_place = place(Partition::Verity(Slot::A));
    let verity_size = verity::size(filesystem.size() / ext4::BLOCK);
    fits("the dm-verity tree", verity_size, verity_place.size, "verity")?;

    let new = NewFile::create(path)?;
    let image = new.file();
    image.set_len(image_size).map_err(Error::io("create", path))?;
    let put = |offset: u64, bytes: &[u8]| {
        image.write_all_at(bytes, offset).map_err(Error::io("write", path))
    };

    // The root comes first: everything else names it by its hash.
    let salt = digest(&[b"berth verity salt", inputs.name.as_bytes()]);
    let params = Params { salt, uuid: short(&digest(&[b"berth verity uuid", &salt])) };
    let built = root::write(&filesystem, image, path, root_place.offset, &params)?;
    put(verity_place.offset, &built.bytes)?;

    let boot_place = place(Partition::Boot(Slot::A));
    let (uki, entry) = kernel_image(inputs, &built.root_hash)?;
    fits("the kernel image", uki.len() as u64 + BLOCK as u64, boot_place.size, "boot")?;
    put(boot_place.offset, &uki)?;
    let record = Record::of_new_image(entry);
    let trailer = Trailer::of(&record[Slot::A], record.sequence);
    put(boot_place.offset + boot_place.size - BLOCK as u64, &trailer.encode())?;

    // The other copy stays empty: the first write goes there, and this one is whole until then.
    let state = place(Partition::State).offset;
    put(state + RECORD_OFFSETS[0], &record.encode())?;
    let first = first_entry(inputs);
    put(state + first.offset(), &first.encode())?;

    let seed =
        digest(&[b"berth disk", inputs.name.as_bytes(), &built.root_hash, &entry.uki_sha256]);
    write_esp(inputs, image, path, place(Partition::Esp), &seed)?;
    let table = table(inputs.sector_size, &places, image_size, &seed, &built.root_hash);
    let encoded = table.encode();
    put(0, &encoded.primary)?;
    put(encoded.backup_offset, &encoded.backup)?;
    new.finish()?;

    Ok(Written {
        image_size,
        picker: described(inputs.picker),
        uki: manifest::File { size: entry.uki_len, sha256: hex(&entry.uki_sha256) },
        root_size: filesystem.size(),
        verity: described(&built.bytes),
        root_hash: built.root_hash,
        partitions: table.entries.iter().zip(&places).map(|(e, p)| listed(e, p)).collect(),
    })
}

/// The same for every version of an image, so that an update carries only what changed.
fn identity(inputs: &Inputs<'_>) -> Identity {
    let uuid = digest(&[b"berth root uuid", inputs.name.as_bytes()]);
    Identity { uuid: Guid::from_digest(&uuid).to_bytes(), epoch: inputs.source_date_epoch }
}

fn kernel_image(inputs: &Inputs<'_>, root_hash: &Hash) -> Result<(Vec<u8>, SlotEntry)> {
    let (key, root) = (CMDLINE_ROOT_HASH, hex(root_hash));
    let cmdline = format!("{key}={root} {CMDLINE_VERSION}={} {}", inputs.version, inputs.cmdline);
    let uki = uki::assemble(&uki::Parts {
        stub: inputs.stub,
        os_release: inputs.os_release,
        cmdline: cmdline.trim_end(),
        uname: inputs.kernel_release,
        linux: inputs.kernel,
        initrd: inputs.initramfs,
    })?;
    let entry = SlotEntry {
        uki_len: uki.len() as u64,
        uki_sha256: Sha256::digest(&uki).into(),
        root_hash: *root_hash,
        version: Text::new(inputs.version),
        ..SlotEntry::EMPTY
    };
    Ok((uki, entry))
}

fn first_entry(inputs: &Inputs<'_>) -> journal::Entry {
    journal::Entry {
        number: 1,
        time: inputs.source_date_epoch,
        writer: Writer::Builder,
        slot: Some(Slot::A),
        text: Text::new(&format!("{} {} was built", inputs.name, inputs.version)),
    }
}

fn write_esp(
    inputs: &Inputs<'_>,
    image: &File,
    path: &Path,
    place: Place,
    seed: &Hash,
) -> Result<()> {
    let mut files = inputs.esp_files.clone();
    files.insert(PICKER_PATH.to_owned(), inputs.picker.to_vec());
    let id = u32::from_le_bytes([seed[0], seed[1], seed[2], seed[3]]);
    let volume =
        fat::Volume { offset: place.offset, len: place.size, sector_size: inputs.sector_size, id };
    fat::write(image, path, &volume, &files)
}

/// The partition table. Root and verity of slot A have the GUIDs that follow from the root hash;
/// the others follow from `seed`.
fn table(
    sector_size: u64,
    places: &[Place],
    image_size: u64,
    seed: &Hash,
    root_hash: &Hash,
) -> Table {
    let (root_guid, verity_guid) = verity::partition_guids(root_hash);
    let entry = |place: &Place| Entry {
        type_guid: place.partition.type_guid(),
        guid: match place.partition {
            Partition::Root(Slot::A) => root_guid,
            Partition::Verity(Slot::A) => verity_guid,
            other => Guid::from_digest(&digest(&[seed, other.label().as_bytes()])),
        },
        first_lba: place.offset / sector_size,
        last_lba: (place.offset + place.size) / sector_size - 1,
        attributes: 0,
        label: Text::new(place.partition.label()),
    };
    Table {
        disk_guid: Guid::from_digest(seed),
        sector_size,
        disk_sectors: image_size / sector_size,
        entries: places.iter().map(entry).collect(),
    }
}

fn fits(what: &str, needed: u64, size: u64, key: &str) -> Result<()> {
    if needed <= size {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let what = format!(
        "{what} needs {} MiB and its partition has {}: {} MiB too large",
        mib(needed),
        mib(size),
        mib(needed - size)
    );
    let hint = format!("raise `[partitions] {key}` to at least \"{} MiB\"", mib(needed));
    Err(Error::refused(what).with_hint(hint))
}

fn listed(entry: &Entry, place: &Place) -> manifest::Partition {
    manifest::Partition {
        label: place.partition.label().to_owned(),
        type_guid: entry.type_guid.to_string(),
        guid: entry.guid.to_string(),
        offset: place.offset,
        size: place.size,
    }
}

fn described(bytes: &[u8]) -> manifest::File {
    manifest::File { size: bytes.len() as u64, sha256: hex(&Sha256::digest(bytes)) }
}

/// SHA-256 over the parts, each with its length so that no two lists of parts look the same.
fn digest(parts: &[&[u8]]) -> Hash {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn short(hash: &Hash) -> [u8; 16] {
    Guid::from_digest(hash).to_bytes()
}

pub use contract::hex::encode as hex;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::image::uki::tests::sample_pe;
    use crate::tree::Node;

    const MIB: u64 = 1 << 20;

    pub(crate) fn small_sizes() -> Sizes {
        Sizes { esp: 34 * MIB, boot: 2 * MIB, root: 20 * MIB, verity: MIB, data: MIB }
    }

    pub(crate) fn sample_tree() -> Tree {
        let mut tree = Tree::new(1);
        tree.insert("usr/bin/x", Node::file(vec![3; 1_000_000], 2));
        tree
    }

    pub(crate) fn build(root: &Tree, sizes: Sizes, path: &Path) -> Result<Written> {
        build_for(512, root, sizes, path)
    }

    pub(crate) fn build_for(
        sector_size: u64,
        root: &Tree,
        sizes: Sizes,
        path: &Path,
    ) -> Result<Written> {
        let pe = sample_pe(&[(".text", b"code")], 0x3000);
        let inputs = Inputs {
            name: "sample",
            version: "1.2.3",
            root,
            stub: &pe,
            kernel: &pe,
            kernel_release: "6.1",
            initramfs: &[5; 5000],
            os_release: "ID=berth\n",
            cmdline: "quiet",
            picker: &pe,
            esp_files: &fat::Files::new(),
            sector_size,
            sizes,
            source_date_epoch: 1_700_000_000,
        };
        write(&inputs, path)
    }

    #[test]
    fn same_inputs_same_bytes_and_holes_stay_holes() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [a, b] = ["a", "b"].map(|name| {
            let path = directory.path().join(name);
            build(&sample_tree(), small_sizes(), &path).expect("an image");
            path
        });
        let meta = std::fs::metadata(&a).expect("metadata");
        assert_eq!(meta.len(), places(&small_sizes()).1);
        assert!(meta.blocks() * 512 < 8 * MIB, "{} bytes in use", meta.blocks() * 512);
        assert!(std::fs::read(a).expect("a") == std::fs::read(b).expect("b"));
    }

    #[test]
    fn what_does_not_fit_names_the_key_and_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("x");
        let mut large = Tree::new(0);
        large.insert("x", Node::file(vec![1; 30 << 20], 0));
        let small = sample_tree();
        let cases = [
            (&large, small_sizes(), "the root filesystem needs 35 MiB", "[partitions] root"),
            (&large, Sizes { root: 200 * MIB, ..small_sizes() }, "", ""),
            (&small, Sizes { esp: MIB, ..small_sizes() }, "an ESP", "[partitions] esp"),
            (&small, Sizes { boot: 0, ..small_sizes() }, "the kernel image", "[partitions] boot"),
            (&small, Sizes { verity: 0, ..small_sizes() }, "the dm-verity", "[partitions] verity"),
        ];
        for (tree, sizes, what, hint) in cases {
            let built = build(tree, sizes, &path);
            if what.is_empty() {
                assert!(built.is_ok());
                std::fs::remove_file(&path).expect("removed");
                continue;
            }
            let error = built.unwrap_err();
            assert!(error.to_string().starts_with(what), "{error}");
            assert!(error.hint().is_some_and(|h| h.contains(hint)), "{:?}", error.hint());
            assert_eq!(std::fs::read_dir(&directory).expect("readable").count(), 0);
        }
    }
}
