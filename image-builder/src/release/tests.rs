//! Whole repositories, with images that take a moment to make.

pub mod power;

use super::*;
use crate::image::disk::tests::small_sizes;
use crate::image::disk::{self, Inputs};
use crate::image::uki::tests::sample_pe;
use crate::image::{fat, verity};
use crate::release::lifetime::Lifetimes;
use crate::release::repository::Repository;
use crate::tree::{Node, Tree};
use jiff::SignedDuration;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;
use tough::ExpirationEnforcement;

/// A folder with keys, images and a repository.
struct Workshop {
    folder: TempDir,
    keys: KeyFolder,
    now: Timestamp,
}

const KEYS: NewKeys = NewKeys { root_keys: 2, root_threshold: 2, expires: Lifetime::days(400) };

impl Workshop {
    fn new() -> Workshop {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::now();
        let keys = KeyFolder::init(&folder.path().join("keys"), &KEYS, now).expect("keys");
        Workshop { folder, keys, now }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn repository(&self) -> PathBuf {
        self.path("repository")
    }

    fn signing(&self) -> Signing<'_> {
        Signing { keys: &self.keys, lifetimes: Lifetimes::default(), now: self.now }
    }

    /// An image that differs a little from one version to the next.
    fn image(&self, name: &str, version: &str) -> PathBuf {
        let path = self.path(&format!("{name}-{version}.raw"));
        let mut tree = Tree::new(1);
        let noise: Vec<u8> = (0..40_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        tree.insert("usr/bin/x", Node::file(noise, 2));
        tree.insert("etc/version", Node::file(version.as_bytes().repeat(3000), 2));
        let mut pe = sample_pe(&[(".text", b"code")], 0x3000);
        pe[0x44..0x46].copy_from_slice(&0x8664_u16.to_le_bytes());
        let inputs = Inputs {
            name,
            version,
            root: &tree,
            stub: &pe,
            kernel: &pe,
            kernel_release: "6.12",
            initramfs: &[5; 5000],
            os_release: &format!("ID=berth\nIMAGE_ID=\"{name}\"\n"),
            cmdline: "quiet",
            picker: &pe,
            esp_files: &fat::Files::new(),
            sizes: small_sizes(),
            sector_size: 512,
            source_date_epoch: 1_700_000_000,
        };
        disk::write(&inputs, &path).expect("an image");
        path
    }

    fn add(&self, version: &str, channel: Option<&str>) -> Result<Added> {
        let new = NewRelease { channel: channel.map(str::to_owned), ..NewRelease::default() };
        add(&self.repository(), &self.image("sample", version), &new, &self.signing())
    }

    /// With releases in channel `stable`.
    fn with(versions: &[&str]) -> Workshop {
        let workshop = Workshop::new();
        for version in versions {
            workshop.add(version, Some("stable")).expect("published");
        }
        workshop
    }

    /// What a host sees that has the first root metadata in its image.
    fn seen(&self) -> Result<Repository> {
        let root = &self.keys.chain()[0].bytes;
        Repository::read(&self.repository(), root, ExpirationEnforcement::Safe)
    }

    fn current(&self) -> Option<String> {
        let seen = self.seen().expect("a valid repository");
        seen.catalog.channels.get("stable").and_then(|line| line.channel.version.clone())
    }

    fn verify(&self) -> Result<Checked> {
        let root = self.path("keys/1.root.json");
        verify(&self.repository(), Some(&root), Timestamp::now())
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("its type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        match entry.file_type().expect("its type").is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

#[test]
fn a_release_is_published_whole_and_as_a_patch() {
    let workshop = Workshop::with(&["1.0", "1.1"]);
    assert_eq!(workshop.current().as_deref(), Some("1.1"));
    let seen = workshop.seen().expect("valid");
    let [first, second] = &seen.catalog.releases[..] else { panic!("two releases") };
    assert_eq!((first.name.as_str(), first.architecture.as_str()), ("sample", "amd64"));
    assert_eq!(second.patches.len(), 1);
    assert_eq!(second.patches[0].from, "1.0");
    assert_eq!(second.patches[0].from_root_hash, first.root.root_hash);
    assert!(second.patches[0].content.pack.size < second.content.pack.size);
    let checks = workshop.verify().expect("whole").checks;
    assert!(checks.contains(&"release 1.1, patch from 1.0".to_owned()), "{checks:?}");
    let left: Vec<_> = files(&workshop.repository());
    assert!(left.iter().all(|file| !file.to_string_lossy().contains("part")), "{left:?}");
}

#[test]
fn what_cannot_be_published_changes_nothing() {
    let workshop = Workshop::with(&["1.0"]);
    let before = files(&workshop.repository());
    let try_add = |image: &Path, new: NewRelease| {
        add(&workshop.repository(), image, &new, &workshop.signing())
            .expect_err("refused")
            .to_string()
    };
    let image = workshop.image("sample", "1.1");
    let new = NewRelease::default;
    let some = |text: &str| Some(text.to_owned());
    let folder = workshop.folder.path().display().to_string() + "/";
    let cases = [
        (workshop.image("sample", "1.0"), new(), "there is a release 1.0 already"),
        (
            workshop.image("other", "2"),
            new(),
            "the repository holds releases of sample, and the image is of other",
        ),
        (
            image.clone(),
            NewRelease { from: Some(vec!["7".into()]), ..new() },
            "there is no release 7",
        ),
        (
            image.clone(),
            NewRelease { channel: some("Stable"), ..new() },
            "`Stable` is not a channel name",
        ),
        (
            image.clone(),
            NewRelease { min_version: some("1.2"), ..new() },
            "--min-version 1.2 is above the version itself, 1.1",
        ),
        (
            image.clone(),
            NewRelease { min_from: some("1.1"), ..new() },
            "--min-from 1.1 is not below the version, 1.1",
        ),
        (image.clone(), NewRelease { min_from: some("/"), ..new() }, "--min-from /: not a version"),
        (
            workshop.image("sample", "0.9"),
            NewRelease { channel: some("stable"), ..new() },
            "channel stable is at 1.0 already, which is newer",
        ),
        (
            workshop.path("absent.raw"),
            new(),
            "absent.raw is not a Berth image: there is no such file",
        ),
    ];
    for (image, new, expected) in cases {
        assert_eq!(try_add(&image, new).replace(&folder, ""), expected);
        assert_eq!(files(&workshop.repository()), before);
    }
    // A bit that turned in the root.
    let mut bytes = fs::read(&image).expect("the image");
    let at = bytes.windows(8).position(|w| w == b"1.11.11.").expect("a file's content");
    bytes[at] ^= 1;
    fs::write(&image, bytes).expect("written");
    let error = try_add(&image, NewRelease::default());
    assert!(error.contains("root-a: block"), "{error}");
    assert_eq!(files(&workshop.repository()), before);
}

#[test]
fn what_hosts_would_not_read_is_not_published() {
    let workshop = Workshop::with(&["1.0"]);
    let before = files(&workshop.repository());
    let signing = workshop.signing();
    let mut publisher =
        publish::Publisher::open(&workshop.repository(), signing.keys, signing.now).expect("open");
    let one = publisher.catalog.releases[0].clone();
    let long = contract::release::Release { hardware: vec!["x".repeat(1 << 20)], ..one.clone() };
    for number in 0..9000 {
        let version = format!("1.0.{number}");
        publisher.catalog.add(contract::release::Release { version, ..one.clone() });
    }
    let error = publisher.publish(&signing.lifetimes, signing.now).expect_err("too many");
    let text = error.to_string();
    assert!(text.starts_with("the targets metadata would have "), "{text}");
    assert_eq!(files(&workshop.repository()), before);

    publisher.catalog.releases.truncate(1);
    publisher.catalog.add(contract::release::Release { version: "2".to_owned(), ..long });
    let error = publisher.publish(&signing.lifetimes, signing.now).expect_err("too long");
    assert!(error.to_string().starts_with("release-2.json would have "), "{error}");
    drop(publisher);
    assert_eq!(files(&workshop.repository()), before);
}

#[test]
fn every_turned_bit_is_found() {
    let workshop = Workshop::with(&["1.0", "1.1"]);
    promote(&workshop.repository(), "1.1", "beta", &workshop.signing()).expect("promoted");
    // What the current metadata does not refer to is nobody's concern.
    collect(&workshop.repository(), 9, &workshop.signing()).expect("collected");
    let old = ["1.targets.json", "2.targets.json", "1.snapshot.json", "2.snapshot.json"];
    for file in files(&workshop.repository()) {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        let mut bytes = fs::read(&file).expect("readable");
        if old.contains(&name) || bytes.is_empty() {
            continue;
        }
        for at in [0, bytes.len() / 2, bytes.len() - 2] {
            bytes[at] ^= 1;
            fs::write(&file, &bytes).expect("written");
            // The root metadata that is trusted lies elsewhere; hosts do not fetch it.
            let found = workshop.verify().is_err() || name == "1.root.json";
            assert!(found, "byte {at} of {name}");
            bytes[at] ^= 1;
        }
        fs::write(&file, &bytes).expect("written");
    }
    workshop.verify().expect("whole again");
}

#[test]
fn keys_of_another_repository_are_refused() {
    let workshop = Workshop::with(&["1.0"]);
    let other = KeyFolder::init(&workshop.path("other"), &KEYS, workshop.now).expect("keys");
    let signing = Signing { keys: &other, ..workshop.signing() };
    let error = promote(&workshop.repository(), "1.0", "beta", &signing).expect_err("refused");
    assert!(error.to_string().contains("is of other keys than those in"), "{error}");
    let foreign = workshop.path("other/1.root.json");
    assert!(verify(&workshop.repository(), Some(&foreign), workshop.now).is_err());
}

#[test]
fn expired_metadata_is_told_and_signed_anew() {
    let mut workshop = Workshop::new();
    let now = workshop.now;
    workshop.now = now - SignedDuration::from_hours(24 * 31);
    workshop.add("1.0", Some("stable")).expect("published");
    let error = workshop.verify().expect_err("expired");
    assert!(error.to_string().ends_with("timestamp metadata is expired"), "{error}");
    workshop.now = now;
    let signed = refresh(&workshop.repository(), &workshop.signing()).expect("refreshed");
    assert_eq!(signed, [Role::Timestamp], "the rest is good for long enough");
    workshop.verify().expect("valid again");

    // A year later even the root metadata has expired, and needs its own keys.
    workshop.now = now + SignedDuration::from_hours(24 * 401);
    let error = refresh(&workshop.repository(), &workshop.signing()).expect_err("expired");
    assert!(error.hint().is_some_and(|hint| hint.contains("berth keys rotate")), "{error}");
    workshop.keys.rotate(&[], Lifetime::ROOT, workshop.now).expect("a new date");
    let signed = refresh(&workshop.repository(), &workshop.signing()).expect("refreshed");
    assert_eq!(signed, [Role::Snapshot, Role::Timestamp]);
}

#[test]
fn people_are_warned_before_signatures_expire() {
    let workshop = Workshop::with(&["1.0"]);
    let warned = |days: i64| {
        let now = workshop.now + SignedDuration::from_hours(24 * days);
        let listing = list(&workshop.repository(), None, now).expect("readable");
        let warned = listing.metadata.iter().filter(|role| role.warning.is_some());
        warned.map(|role| role.role).collect::<Vec<_>>()
    };
    assert_eq!(warned(0), [""; 0]);
    assert_eq!(warned(24), ["timestamp"]);
    assert_eq!(warned(80), ["snapshot", "timestamp"]);
    assert_eq!(warned(339), ["snapshot", "timestamp"]);
    assert_eq!(warned(341), ["root", "snapshot", "timestamp"]);
    let now = workshop.now + SignedDuration::from_hours(24 * 24);
    let checked = verify(&workshop.repository(), None, now).expect("still good");
    let expected = "the timestamp metadata of the repository expires in 6 days: \
                    `berth release refresh` signs it again";
    assert_eq!(checked.warnings, [expected]);
}

#[test]
fn keys_that_are_offline_are_missed_only_when_needed() {
    let mut workshop = Workshop::with(&["1.0"]);
    workshop.keys.keys.retain(|key| {
        let name = key.path.file_name().and_then(|name| name.to_str()).expect("a name");
        !name.starts_with("root") && !name.starts_with("targets")
    });
    refresh(&workshop.repository(), &workshop.signing()).expect("timestamp and snapshot suffice");
    let error = workshop.add("1.1", None).expect_err("no key");
    assert!(error.to_string().ends_with("0 of the 1 private keys that have to sign as targets"));
    let now = workshop.now;
    let error = workshop.keys.rotate(&[Role::Timestamp], Lifetime::ROOT, now).expect_err("no key");
    assert!(error.to_string().ends_with("0 of the 2 private keys that have to sign as root"));
}

#[test]
fn rotated_keys_reach_hosts_that_know_only_the_first() {
    let mut workshop = Workshop::with(&["1.0"]);
    for roles in
        [&[Role::Timestamp][..], &[Role::Root], &[Role::Targets, Role::Snapshot], &Role::ALL]
    {
        let now = workshop.now;
        workshop.keys.rotate(roles, Lifetime::ROOT, now).expect("rotated");
        // Read from the disk as the next command does.
        workshop.keys = KeyFolder::open(&workshop.path("keys")).expect("keys");
        refresh(&workshop.repository(), &workshop.signing()).expect("published");
        let seen = workshop.seen().expect("valid");
        assert_eq!(seen.metadata.root().signed.version.get(), workshop.keys.chain().len() as u64);
    }
    // Without the retired keys it works as well.
    fs::remove_dir_all(workshop.path("keys/retired")).expect("removed");
    workshop.keys = KeyFolder::open(&workshop.path("keys")).expect("keys");
    workshop.add("1.1", Some("stable")).expect("published");
    workshop.verify().expect("whole");
}

#[test]
fn collecting_leaves_what_is_needed() {
    let workshop = Workshop::with(&["1", "2", "3"]);
    workshop.add("4", None).expect("published");
    withdraw(&workshop.repository(), "3", &workshop.signing()).expect("withdrawn");
    assert_eq!(workshop.current().as_deref(), Some("2"));
    let gone = collect(&workshop.repository(), 1, &workshop.signing()).expect("collected");
    assert_eq!(gone.releases, ["1", "3"]);
    workshop.verify().expect("whole");
    let seen = workshop.seen().expect("valid");
    let left: Vec<_> = seen.catalog.releases.iter().map(|r| r.version.as_str()).collect();
    assert_eq!(left, ["2", "4"]);
    let content = fs::read_dir(workshop.path("repository/content")).expect("a folder").count();
    assert_eq!(content, seen.catalog.content().len());
    let again = collect(&workshop.repository(), 1, &workshop.signing()).expect("collected");
    assert_eq!(again, Collected::default());
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let workshop = Workshop::new();
    fs::create_dir(workshop.repository()).expect("a folder");
    fs::write(workshop.path("repository/letter.txt"), "Dear").expect("written");
    let error = workshop.add("1.0", None).expect_err("refused");
    assert!(error.to_string().ends_with("not a repository: there is letter.txt in it"), "{error}");
    assert_eq!(files(&workshop.repository()).len(), 1);
    let error = promote(&workshop.path("absent"), "1", "stable", &workshop.signing());
    assert!(error.is_err() && !workshop.path("absent").exists());
}

/// Cuts the power after each step of `act`. Hosts see a whole repository then, and also when what
/// was not durable is lost, all of it or some. Doing it again succeeds.
fn survives(start: &Workshop, act: impl Fn(&Workshop, &Signing<'_>) -> Result<()>) {
    let repository = start.repository();
    let good = start.path("good");
    copy(&repository, &good);
    let is_new = !good.join("metadata").exists();
    let whole = |when: &str, steps: u32| {
        if !is_new || repository.join("metadata/timestamp.json").exists() {
            let seen = start.seen().unwrap_or_else(|e| panic!("{when} {steps} steps: {e}"));
            for (sha256, size) in seen.catalog.content() {
                let checked = content::check_file(&repository, &sha256, size);
                assert!(checked.is_ok(), "{when} {steps} steps: {checked:?}");
            }
        }
    };
    let mut seed = 1_u32;
    for steps in 0.. {
        fs::remove_dir_all(&repository).expect("removed");
        if !is_new {
            copy(&good, &repository);
        }
        let cut = power::cut_after(steps, || {
            let done = act(start, &start.signing());
            assert!(done.is_ok() || power::step().is_err(), "{done:?}");
        });
        whole("killed after", steps);
        power::lose(&cut, || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            steps % 2 == 0 || seed >> 31 == 1
        });
        whole("power cut after", steps);
        // What was finished before the cut may be done already.
        match act(start, &start.signing()) {
            Ok(()) => {}
            Err(e) => assert!(e.to_string().contains("already"), "{steps} steps: {e}"),
        }
        whole("done again after", steps);
        if cut.is_none() {
            start.verify().expect("whole");
            assert!(steps > 12, "only {steps} steps");
            break;
        }
    }
}

#[test]
fn no_cut_of_power_breaks_the_first_release() {
    let workshop = Workshop::new();
    fs::create_dir(workshop.repository()).expect("a folder");
    let image = workshop.image("sample", "1.0");
    let new = NewRelease { channel: Some("stable".to_owned()), ..NewRelease::default() };
    survives(&workshop, |workshop, signing| {
        add(&workshop.repository(), &image, &new, signing).map(drop)
    });
}

#[test]
fn no_cut_of_power_breaks_another_release() {
    let workshop = Workshop::with(&["1.0"]);
    let image = workshop.image("sample", "1.1");
    let new = NewRelease { channel: Some("stable".to_owned()), ..NewRelease::default() };
    survives(&workshop, |workshop, signing| {
        add(&workshop.repository(), &image, &new, signing).map(drop)
    });
    assert_eq!(workshop.current().as_deref(), Some("1.1"));
}

#[test]
fn no_cut_of_power_breaks_withdrawing_and_collecting() {
    let workshop = Workshop::with(&["1", "2", "3"]);
    survives(&workshop, |workshop, signing| {
        withdraw(&workshop.repository(), "3", signing)?;
        collect(&workshop.repository(), 1, signing).map(drop)
    });
}

#[test]
fn no_cut_of_power_breaks_new_keys() {
    let mut workshop = Workshop::with(&["1"]);
    let now = workshop.now;
    workshop.keys.rotate(&[Role::Timestamp, Role::Root], Lifetime::ROOT, now).expect("rotated");
    workshop.keys.rotate(&[Role::Targets, Role::Snapshot], Lifetime::ROOT, now).expect("rotated");
    survives(&workshop, |workshop, signing| refresh(&workshop.repository(), signing).map(drop));
    assert_eq!(workshop.current().as_deref(), Some("1"));
}

#[test]
fn the_tree_of_an_image_is_what_the_release_says() {
    let workshop = Workshop::with(&["1.0"]);
    let release = workshop.seen().expect("valid").catalog.releases.remove(0);
    let (params, hash) = system::tree(&release.root).expect("a tree of ours");
    let restored = content::restore(&workshop.repository(), &release).expect("restored");
    let mut root = vec![0; release.root.size as usize];
    delta::ReadAt::read_at(&restored.root, &mut root, 0).expect("read");
    let mut leaves = verity::Leaves::of_zeros(release.root.size / 4096, &params.salt);
    let hashes = leaves.hasher().hash_all(&root);
    leaves.put(0, &hashes);
    assert_eq!(verity::build(&params, leaves).root_hash, hash);
}
