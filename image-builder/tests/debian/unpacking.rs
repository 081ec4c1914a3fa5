//! From a `.deb` to a tree.

use super::archive::{data_tar, deb_of, xz};
use image_builder::cache::Cache;
use image_builder::debian::{Archive as Which, Mirrors, Network, Package, add_to_tree, obtain};
use image_builder::tree::{Kind, Node, Tree};
use sha2::{Digest, Sha256};
use tar::EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};

/// Puts `deb` into a cache of its own and from there into `tree`.
fn unpack(deb: &[u8], tree: &mut Tree) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(folder.path())).unwrap();
    let package = Package {
        name: "p".into(),
        version: "1".into(),
        architecture: "amd64".into(),
        archive: Which::Main,
        filename: "pool/p.deb".into(),
        size: deb.len() as u64,
        sha256: Sha256::digest(deb).into(),
    };
    let mut blob = cache.create(cache.blob(&package.sha256)).unwrap();
    blob.write(deb).unwrap();
    blob.commit().unwrap();
    let unpacked = obtain(&cache, &Mirrors::default(), &[package], Network::Offline)
        .map_err(|e| e.to_string())?;
    add_to_tree(&unpacked[0], tree).map_err(|e| e.to_string())
}

const CONTROL: &str = "Package: p\nVersion: 1\nArchitecture: amd64\n";
const KERNEL: &str = "Package: p\nVersion: 1\nArchitecture: amd64\nSection: non-free/kernel\n";

fn content(node: &Node) -> Vec<u8> {
    match &node.kind {
        Kind::File(content) => content.read_all().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_a_package_can_hold_comes_out_as_it_is() {
    let long = format!("./usr/share/{}/{}", "d".repeat(90), "f".repeat(90));
    let deb = deb_of(
        CONTROL,
        &data_tar(&[
            (Directory, "./", b""),
            (Directory, "./usr/", b""),
            (Regular, "./usr/sudo", b"program"),
            (Regular, "./etc/shadow", b""),
            (Symlink, "./usr/link", b"../etc/shadow"),
            (Link, "./usr/hard", b"./usr/sudo"),
            (Link, "./usr/hard2", b"./usr/hard"),
            (Char, "./dev/null", b""),
            (Block, "./dev/loop", b""),
            (Fifo, "./run/pipe", b""),
            (Regular, &long, b"long"),
        ]),
    );
    let mut tree = Tree::new(0);
    unpack(&deb, &mut tree).unwrap();
    let node = |path: &str| tree.get(path).unwrap_or_else(|| panic!("{path}"));
    let program = node("usr/sudo");
    assert_eq!((program.mode, program.uid, program.gid), (0o4755, 0, 0));
    assert_eq!(program.mtime, 1_234_567_890);
    assert_eq!(content(program), b"program");
    assert_eq!(node("etc/shadow").gid, 42);
    assert!(matches!(&node("usr/link").kind, Kind::Symlink(to) if to == "../etc/shadow"));
    for hard in ["usr/hard", "usr/hard2"] {
        assert!(matches!(&node(hard).kind, Kind::HardLink(to) if to == "usr/sudo"), "{hard}");
    }
    assert!(matches!(node("dev/null").kind, Kind::CharDevice(1, 3)));
    assert!(matches!(node("dev/loop").kind, Kind::BlockDevice(1, 3)));
    assert!(matches!(node("run/pipe").kind, Kind::Fifo));
    assert_eq!(content(node(&long[2..])), b"long");
}

#[test]
fn extended_attributes_and_long_numbers_are_read() {
    let mut tar = tar::Builder::new(Vec::new());
    let capability: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    tar.append_pax_extensions([
        ("SCHILY.xattr.security.capability", capability),
        ("mtime", &b"1700000000.5"[..]),
        ("uid", &b"3000000000"[..]),
    ])
    .unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o755);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(4);
    tar.append_data(&mut header, "usr/bin/ping", &b"ping"[..]).unwrap();
    let mut tree = Tree::new(0);
    unpack(&deb_of(CONTROL, &tar.into_inner().unwrap()), &mut tree).unwrap();
    let node = tree.get("usr/bin/ping").unwrap();
    assert_eq!(node.xattrs["security.capability"], capability);
    assert_eq!((node.mtime, node.uid), (1_700_000_000, 3_000_000_000));
}

#[test]
fn directories_and_links_to_them_do_not_replace_each_other() {
    let deb = deb_of(
        CONTROL,
        &data_tar(&[
            (Directory, "./lib/", b""),
            (Regular, "./lib/x", b"x"),
            (Symlink, "./usr/doc", b"share/doc"),
        ]),
    );
    let mut tree = Tree::new(0);
    tree.insert("usr/lib", Node::directory(0));
    tree.insert("usr/doc", Node::directory(0));
    tree.insert("lib", Node::symlink("usr/lib", 0));
    unpack(&deb, &mut tree).unwrap();
    assert!(matches!(tree.get("lib").unwrap().kind, Kind::Symlink(_)));
    assert_eq!(content(tree.get("usr/lib/x").unwrap()), b"x");
    assert!(matches!(tree.get("usr/doc").unwrap().kind, Kind::Directory));
}

#[test]
fn kernel_modules_are_unpacked_whatever_the_length_of_their_names() {
    let module = vec![7; 100_000];
    let packed = xz(&module);
    let long = format!("./usr/lib/modules/6.12/kernel/{}/e1000.ko.xz", "d".repeat(90));
    let members = [
        (Regular, "./usr/lib/modules/6.12/kernel/loop.ko.xz", &packed[..]),
        (Regular, &long, &packed[..]),
        (Regular, "./usr/share/other.xz", &packed[..]),
        (Regular, "./boot/vmlinuz", b"kernel"),
    ];
    let mut tree = Tree::new(0);
    unpack(&deb_of(KERNEL, &data_tar(&members)), &mut tree).unwrap();
    assert_eq!(content(tree.get("usr/lib/modules/6.12/kernel/loop.ko").unwrap()), module);
    let long = long.strip_prefix("./").unwrap().strip_suffix(".xz").unwrap();
    assert_eq!(content(tree.get(long).unwrap()), module);
    assert_eq!(content(tree.get("usr/share/other.xz").unwrap()), packed);
    assert_eq!(content(tree.get("boot/vmlinuz").unwrap()), b"kernel");
    assert!(tree.iter().all(|(path, _)| !path.ends_with(".ko.xz")));

    let mut tree = Tree::new(0);
    unpack(&deb_of(CONTROL, &data_tar(&members)), &mut tree).unwrap();
    let kept = tree.get("usr/lib/modules/6.12/kernel/loop.ko.xz").unwrap();
    assert_eq!(content(kept), packed, "another package's files are its own business");
}

#[test]
fn dangerous_and_broken_packages_are_refused() {
    // `tar::Builder` refuses such names itself.
    let renamed = |name: &[u8]| {
        let mut tar = data_tar(&[(Regular, "xxxxxxxx", b"")]);
        tar[..8].fill(0);
        tar[..name.len()].copy_from_slice(name);
        let mut header = tar::Header::from_byte_slice(&tar[..512]).clone();
        header.set_cksum();
        tar[..512].copy_from_slice(header.as_bytes());
        tar
    };
    let whole = data_tar(&[(Regular, "a", b"a")]);
    for (tar, why) in [
        (renamed(b"../a"), "the path leads out of the package"),
        (renamed(b"a/../b"), "the path leads out of the package"),
        (renamed(b"a\xff"), "the name is not UTF-8"),
        (data_tar(&[(Link, "a", b"b")]), "a: hard link to b, which is no regular file"),
        (whole[..512].to_vec(), "a: it is cut off"),
    ] {
        let error = unpack(&deb_of(CONTROL, &tar), &mut Tree::new(0)).expect_err(why);
        assert!(error.contains(why), "{error}");
    }
    let good = deb_of(CONTROL, &whole);
    for (deb, why) in [
        (good[..good.len() - 40].to_vec(), "package p 1"),
        (b"no package".to_vec(), "package p 1"),
        (good[..68].to_vec(), "it has no data.tar"),
        (deb_of(&CONTROL.replace("amd64", "arm64"), &whole), "its Architecture is `arm64`"),
    ] {
        let error = unpack(&deb, &mut Tree::new(0)).expect_err(why);
        assert!(error.contains(why), "{error}");
    }
    // The helper itself works.
    unpack(&good, &mut Tree::new(0)).unwrap();
}
