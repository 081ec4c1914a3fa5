//! Debian packages from a signed archive of our own, over a web server of our own: the way they
//! come, and everything that can be wrong on it.

mod archive;
mod site;
mod trust;
mod unpacking;

use archive::{Archive, NOW, UNTIL, data_tar, deb_of, in_release, keyring};
use image_builder::cache::Cache;
use image_builder::debian::{
    Mirrors, Network, Package, Request, Resolved, Trust, Unpacked, add_to_tree, obtain,
    resolve_trusting,
};
use image_builder::tree::{Kind, Tree};
use image_builder::{Error, Result};
use site::Site;
use std::fs;
use std::path::{Path, PathBuf};
use tar::EntryType::Regular;

/// A published archive with a server, and a machine that wants packages of it.
struct Scene {
    archive: Archive,
    site: Site,
    mirrors: Mirrors,
    cache: Cache,
    now: u64,
    folder: tempfile::TempDir,
}

/// Large enough to be cut in the middle, and different everywhere.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(next).collect()
}

impl Scene {
    /// `app` needs `lib`, of which the security archive has a newer version.
    fn new() -> Scene {
        let mut archive = Archive::new();
        let app = "Package: app\nVersion: 1-1\nDepends: lib (>= 1)\n";
        archive.add("trixie", app, &[(Regular, "./usr/bin/app", &noise(300_000))]);
        let lib = |version: &str| format!("Package: lib\nVersion: {version}\nSection: libs\n");
        archive.add("trixie", &lib("1-1"), &[(Regular, "./usr/lib/lib.so", b"old")]);
        archive.add(
            "trixie-security",
            &lib("1-1+deb13u1"),
            &[(Regular, "./usr/lib/lib.so", b"new")],
        );
        archive.publish("trixie");
        let site = Site::start(archive.files.clone());
        let mirrors = Mirrors::from_url(&format!("{}/debian", site.url)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(&folder.path().join("cache"))).unwrap();
        Scene { archive, site, mirrors, cache, now: NOW, folder }
    }

    fn resolve(&self, network: Network) -> Result<Resolved> {
        let request = Request {
            suite: "trixie".into(),
            architecture: "amd64".into(),
            packages: vec!["app".into()],
            recommends: false,
            assume: vec![],
        };
        let keyring = keyring(&self.archive.main, &self.archive.security);
        let trust = Trust { keyring, now: self.now };
        resolve_trusting(&self.cache, &self.mirrors, &request, network, &trust)
    }

    fn obtain(&self, packages: &[Package], network: Network) -> Result<Vec<Unpacked>> {
        obtain(&self.cache, &self.mirrors, packages, network)
    }

    /// All the way, to the content of the two files.
    fn build(&self, network: Network) -> Result<(Vec<u8>, Vec<u8>)> {
        let packages = self.resolve(network)?.packages;
        let mut tree = Tree::new(0);
        for unpacked in self.obtain(&packages, network)? {
            add_to_tree(&unpacked, &mut tree)?;
        }
        let read = |path: &str| match &tree.get(path).unwrap().kind {
            Kind::File(content) => content.read_all(),
            other => panic!("{path} is {other:?}"),
        };
        Ok((read("usr/bin/app")?, read("usr/lib/lib.so")?))
    }

    fn expect_build(&self, network: Network) {
        assert_eq!(self.build(network).unwrap(), (noise(300_000), b"new".to_vec()));
    }

    /// Changes one byte of a file that the server has.
    fn tamper(&self, path: &str) {
        self.site.change(|content| {
            let file = content.files.get_mut(path).unwrap();
            let middle = file.len() / 2;
            file[middle] ^= 1;
        });
    }

    fn cached_files(&self, kind: &str) -> Vec<PathBuf> {
        files_below(&self.cache.root().join(kind))
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().path());
    entries.flat_map(|p| if p.is_dir() { files_below(&p) } else { vec![p] }).collect()
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[track_caller]
fn expect(error: Error, text: &str, hint: &str) {
    let chain = format!(
        "{error}: {}",
        std::error::Error::source(&error).map_or(String::new(), |s| s.to_string())
    );
    assert!(chain.contains(text), "{chain}");
    let given = error.hint().unwrap_or_default();
    assert!(given.contains(hint), "{chain}, hint: {given}");
}

const APP: &str = "/debian/pool/app_1-1_amd64.deb";

#[test]
fn packages_arrive_and_the_second_time_only_the_releases_are_asked_for() {
    let scene = Scene::new();
    let resolved = scene.resolve(Network::Online).unwrap();
    let versions: Vec<_> = resolved.packages.iter().map(|p| p.version.as_str()).collect();
    assert_eq!(versions, ["1-1", "1-1+deb13u1"]);
    assert_eq!(resolved.release_date, NOW);
    let unpacked = scene.obtain(&resolved.packages, Network::Online).unwrap();
    assert_eq!(unpacked[1].section(), "libs");
    assert_eq!(unpacked[1].scripts(), ["postinst"]);
    scene.expect_build(Network::Online);

    scene.site.requests();
    scene.expect_build(Network::Online);
    let mut requests = scene.site.requests();
    requests.sort();
    assert_eq!(requests.len(), 3, "{requests:?}");
    for (request, suite) in requests.iter().zip(["trixie-security", "trixie-updates", "trixie"]) {
        let (path, tag) = request.split_once(' ').expect("conditional");
        assert!(path.contains(&format!("dists/{suite}")) || suite == "trixie", "{path}");
        assert!(tag.starts_with('"'), "{tag}");
    }
    assert!(scene.cached_files("tmp").is_empty());
}

#[test]
fn a_tampered_release_is_refused_and_not_kept() {
    let scene = Scene::new();
    let path = in_release("trixie");
    scene.site.change(|content| {
        let text = String::from_utf8(content.files[&path].clone()).unwrap();
        content.files.insert(path.clone(), text.replace("amd64/P", "amd64/Q").into_bytes());
    });
    let error = scene.build(Network::Online).unwrap_err();
    expect(error, "InRelease of trixie: no valid signature", "--mirror");
    assert!(scene.build(Network::Offline).is_err());
}

#[test]
fn a_tampered_index_is_refused() {
    let scene = Scene::new();
    let path = scene.site.change(|content| {
        content.files.keys().find(|p| p.contains("trixie/main")).unwrap().clone()
    });
    scene.tamper(&path);
    let error = scene.build(Network::Online).unwrap_err();
    expect(error, "main/binary-amd64/Packages.xz of trixie", "run again");
    scene.tamper(&path);
    scene.expect_build(Network::Online);
}

#[test]
fn a_tampered_package_is_refused() {
    let scene = Scene::new();
    scene.tamper(APP);
    let error = scene.build(Network::Online).unwrap_err();
    expect(error, "package app 1-1:", "run again");
    assert!(scene.cached_files("tar").len() <= 1, "only lib may have been unpacked");
    scene.tamper(APP);
    scene.expect_build(Network::Online);
}

#[test]
fn a_package_that_is_gone_or_longer_than_listed_is_an_error() {
    let scene = Scene::new();
    let deb = scene.site.change(|content| content.files.remove(APP).unwrap());
    let error = scene.build(Network::Online).unwrap_err();
    expect(error, "app_1-1_amd64.deb is not there", "run again");
    let longer = [&deb[..], b"x"].concat();
    scene.site.change(|content| content.files.insert(APP.into(), longer));
    expect(scene.build(Network::Online).unwrap_err(), "longer than", "");
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_stopped() {
    let scene = Scene::new();
    scene.site.change(|content| content.cuts.insert(APP.into(), vec![100_000, 50_000]));
    scene.expect_build(Network::Online);
    let requests: Vec<_> =
        scene.site.requests().into_iter().filter(|r| r.starts_with(APP)).collect();
    let resumed = [APP.to_owned(), format!("{APP} bytes=100000-"), format!("{APP} bytes=150000-")];
    assert_eq!(requests, resumed);
}

#[test]
fn the_next_run_takes_up_what_the_last_one_left() {
    for ranges in [true, false] {
        let scene = Scene::new();
        scene.site.change(|content| content.cuts.insert(APP.into(), vec![70_000, 0, 0, 0]));
        let error = scene.build(Network::Online).unwrap_err();
        expect(error, "fetch http://127.0.0.1", "--offline");
        scene.site.requests();
        scene.site.change(|content| content.ranges = ranges);
        scene.expect_build(Network::Online);
        assert!(scene.site.requests().contains(&format!("{APP} bytes=70000-")));
        assert!(scene.cached_files("blobs").iter().all(|p| p.extension().is_none()));
    }
}

#[test]
fn a_damaged_beginning_is_thrown_away() {
    let scene = Scene::new();
    let packages = scene.resolve(Network::Online).unwrap().packages;
    let part = scene.cache.partial(&packages[0].sha256);
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    for beginning in [vec![0; 1000], vec![0; 10_000_000]] {
        fs::write(&part, beginning).unwrap();
        scene.obtain(&packages, Network::Online).unwrap();
        scene.expect_build(Network::Offline);
        fs::remove_dir_all(scene.cache.root().join("tar")).unwrap();
        fs::remove_file(scene.cache.blob(&packages[0].sha256)).unwrap();
    }
}

#[test]
fn a_mirror_that_does_not_answer_is_named() {
    let scene = Scene::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = Mirrors::from_url(&format!("http://me:secret@{closed}/debian")).unwrap();
    let error = Scene { mirrors: gone, ..scene }.build(Network::Online).unwrap_err();
    assert!(!error.to_string().contains("secret"));
    expect(error, &format!("fetch http://{closed}/debian/dists/trixie/InRelease"), "--mirror");
}

#[test]
fn another_mirror_steps_in() {
    let mut scene = Scene::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    scene.mirrors.main.insert(0, format!("http://{closed}/debian"));
    scene.mirrors.security.insert(0, format!("{}/debian", scene.site.url));
    scene.expect_build(Network::Online);
}

#[test]
fn a_suite_that_the_mirror_lacks_is_named() {
    let scene = Scene::new();
    scene.site.change(|content| content.files.remove(&in_release("trixie-security")));
    let error = scene.build(Network::Online).unwrap_err();
    expect(error, "trixie-security/InRelease is not there", "`trixie`");
}

#[test]
fn what_is_damaged_in_the_cache_is_made_again() {
    let scene = Scene::new();
    scene.expect_build(Network::Online);
    // The unpacked tar: made again from the package, without the network.
    scene.cached_files("tar").iter().for_each(|p| damage(p));
    scene.expect_build(Network::Offline);
    // Facts, index and resolution likewise.
    for kind in ["unpacked", "index", "resolution"] {
        scene.cached_files(kind).iter().for_each(|p| damage(p));
        scene.expect_build(Network::Offline);
    }
    // Packages and indexes themselves: fetched again.
    fs::remove_dir_all(scene.cache.root().join("tar")).unwrap();
    fs::remove_dir_all(scene.cache.root().join("index")).unwrap();
    fs::remove_dir_all(scene.cache.root().join("resolution")).unwrap();
    scene.cached_files("blobs").iter().for_each(|p| damage(p));
    scene.expect_build(Network::Online);
    scene.expect_build(Network::Offline);
}

#[test]
fn offline_a_damaged_package_is_an_error_that_says_what_to_do() {
    let scene = Scene::new();
    scene.expect_build(Network::Online);
    let packages = scene.resolve(Network::Offline).unwrap().packages;
    scene.cached_files("tar").iter().for_each(|p| damage(p));
    damage(&scene.cache.blob(&packages[0].sha256));
    let error = scene.build(Network::Offline).unwrap_err();
    expect(error, "package app 1-1: damaged in the cache", "without --offline");
    scene.expect_build(Network::Online);
}

#[test]
fn offline_the_cache_serves_alone() {
    let scene = Scene::new();
    let error = scene.build(Network::Offline).unwrap_err();
    expect(error, "metadata of trixie: not in the cache", "without --offline");
    let packages = scene.resolve(Network::Online).unwrap().packages;
    let error = scene.obtain(&packages, Network::Offline).unwrap_err();
    expect(error, "package app 1-1: not in the cache", "without --offline");
    scene.expect_build(Network::Online);
    scene.site.requests();
    scene.expect_build(Network::Offline);
    assert!(scene.site.requests().is_empty());
}

#[test]
fn metadata_that_expired_is_used_only_offline_and_when_a_person_says_so() {
    let mut scene = Scene::new();
    scene.expect_build(Network::Online);
    scene.now = UNTIL - 1;
    scene.expect_build(Network::Offline);
    scene.now = UNTIL + 1;
    expect(scene.build(Network::Online).unwrap_err(), "expired Thu, 08 Jan 2026", "--mirror");
    let error = scene.build(Network::Offline).unwrap_err();
    expect(error, "expired Thu, 08 Jan 2026", "--allow-expired");
    scene.site.requests();
    scene.expect_build(Network::OfflineExpired);
    assert!(scene.site.requests().is_empty());
}

#[test]
fn a_mirror_that_lags_takes_no_fix_back() {
    let mut scene = Scene::new();
    scene.expect_build(Network::Online);
    let text = scene.archive.release("trixie-security").replace("01 Jan 2026 00", "01 Jan 2026 01");
    let sign = |text: &str| {
        let hash = pgp::crypto::hash::HashAlgorithm::Sha512;
        scene.archive.security.sign(text, NOW, false, hash)
    };
    let (newer, path) = (sign(&text), in_release("trixie-security"));
    let older = scene.site.change(|content| content.files.insert(path.clone(), newer).unwrap());
    assert_eq!(scene.resolve(Network::Online).unwrap().release_date, NOW + 3600);
    scene.site.change(|content| content.files.insert(path, older));
    assert_eq!(scene.resolve(Network::Online).unwrap().release_date, NOW + 3600);
}

#[test]
fn two_at_once_do_not_disturb_each_other() {
    let scene = Scene::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| scene.expect_build(Network::Online));
        }
    });
    scene.expect_build(Network::Offline);
    assert!(scene.cached_files("tmp").is_empty());
}

#[test]
fn a_folder_can_be_the_mirror() {
    let mut scene = Scene::new();
    for (path, bytes) in &scene.archive.files {
        let path = scene.folder.path().join(&path[1..]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let url = format!("file://{}/debian", scene.folder.path().display());
    scene.mirrors = Mirrors::from_url(&url).unwrap();
    scene.expect_build(Network::Online);
    assert!(scene.site.requests().is_empty());
}

#[test]
fn a_package_that_is_another_than_listed_is_refused() {
    let mut scene = Scene::new();
    let control = "Package: app\nVersion: 2\nArchitecture: amd64\n";
    let other = deb_of(&control.replace('2', "3"), &data_tar(&[]));
    scene.archive.add_deb("trixie", control, other);
    scene.archive.publish("trixie");
    scene.site.change(|content| content.files = scene.archive.files.clone());
    expect(scene.build(Network::Online).unwrap_err(), "package app 2: its Version is `3`", "");
}
