//! Which signatures are believed.

use super::archive::{Archive, Key, NOW, keyring};
use image_builder::debian::Archive as Which;
use image_builder::debian::keyring::{Keyring, PINS};
use image_builder::debian::release::{Freshness, Release, Suite, read};
use pgp::crypto::hash::HashAlgorithm::{Sha3_256, Sha256};
use std::path::Path;

fn suite(name: &str, archive: Which) -> Suite {
    Suite { name: name.into(), archive }
}

fn open(signed: &[u8], keyring: &Keyring, now: u64) -> Result<Release, String> {
    let suite = suite("trixie", Which::Main);
    read(signed, &suite, "amd64", keyring, Freshness::Required, now).map_err(|e| e.to_string())
}

#[track_caller]
fn refuses(result: Result<Release, String>, why: &str) {
    let error = result.expect_err(why);
    assert!(error.contains(why), "{error}");
}

#[test]
fn key_and_subkey_may_sign() {
    let mut archive = Archive::new();
    let text = archive.release("trixie");
    let trusted = keyring(&archive.main, &archive.security);
    for by_subkey in [true, false] {
        let signed = archive.main.sign(&text, NOW, by_subkey, Sha256);
        let release = open(&signed, &trusted, NOW).unwrap();
        assert_eq!(release.date, NOW);
        assert_eq!(release.indexes.len(), 1);
    }
}

#[test]
fn other_signers_are_refused() {
    let mut archive = Archive::new();
    let text = archive.release("trixie");
    let trusted = keyring(&archive.main, &archive.security);
    let (main, stranger) = (&archive.main, Key::new());
    for (signer, time, hash, why) in [
        (&stranger, NOW, Sha256, "unknown key"),
        (&archive.security, NOW, Sha256, "unknown key"),
        (main, NOW + 7200, Sha256, "made in the future"),
        (main, NOW, Sha3_256, "a hash that is not accepted"),
    ] {
        refuses(open(&signer.sign(&text, time, true, hash), &trusted, NOW), why);
    }
    let lonely = keyring(&stranger, &archive.security);
    refuses(open(&main.sign(&text, NOW, true, Sha256), &lonely, NOW), "unknown key");
}

#[test]
fn a_changed_text_is_refused() {
    let mut archive = Archive::new();
    let text = archive.release("trixie");
    let trusted = keyring(&archive.main, &archive.security);
    let signed = String::from_utf8(archive.main.sign(&text, NOW, true, Sha256)).unwrap();
    for (from, to, why) in [
        ("amd64", "arm64", "does not match the text"),
        ("Valid-Until", "Valid-Untie", "does not match the text"),
        ("-----BEGIN PGP SIGNED", "Date: x\n-----BEGIN PGP SIGNED", "not a signed text"),
        ("Hash: SHA256\n", "Hash: SHA256\nSuite: trixie\n", "not a signed text"),
        (
            "-----END PGP SIGNATURE-----",
            "-----END PGP SIGNATURE-----\nDate: x",
            "not a signed text",
        ),
    ] {
        let changed = signed.replacen(from, to, 1);
        assert_ne!(changed, signed);
        refuses(open(changed.as_bytes(), &trusted, NOW), why);
    }
    // What a line ends with is not part of the text, and does not become one.
    let padded = signed.replacen("Origin: Test\n", "Origin: Test \t\r\n", 1);
    assert!(open(padded.as_bytes(), &trusted, NOW).is_ok());
}

#[test]
fn keys_that_have_ended_are_refused() {
    let mut archive = Archive::new();
    let text = archive.release("trixie");
    // Keys are a day old at `NOW`.
    for (key, why) in [
        (Key::new().living(86_400), Some("the key has expired")),
        (Key::new().living(86_401), None),
        (Key::new().revoked(), Some("the key is revoked")),
    ] {
        let trusted = keyring(&key, &archive.security);
        for by_subkey in [true, false] {
            let result = open(&key.sign(&text, NOW, by_subkey, Sha256), &trusted, NOW);
            match why {
                Some(why) => refuses(result, why),
                None => drop(result.unwrap()),
            }
        }
    }
}

#[test]
fn a_release_has_to_be_the_one_asked_for() {
    let mut archive = Archive::new();
    let text = archive.release("trixie");
    let trusted = keyring(&archive.main, &archive.security);
    let sign = |text: &str| archive.main.sign(text, NOW, true, Sha256);
    for (from, to, why) in [
        ("Codename: trixie", "Codename: bookworm", "it is the one of bookworm"),
        ("Date: Thu, 01 Jan", "Date: Fri, 02 Jan", "made in the future"),
        ("Date: Thu", "Daze: Thu", "it has no Date"),
        ("Date: Thu, 01 Jan", "Date: Thu, 41 Jan", "Date is no date"),
        ("Valid-Until: Thu, 08 Jan 2026", "Valid-Until: soon", "Valid-Until is no date"),
        ("Valid-Until: Thu, 08 Jan 2026", "Valid-Until: Wed, 31 Dec 2025", "expired"),
        ("all amd64", "all arm64", "no architecture amd64"),
        ("amd64/Packages.xz", "amd64/Packages.gz", "does not list main/binary-amd64/Packages.xz"),
        ("No-Support-for-Architecture-all: Packages\n", "", "does not list main/binary-all"),
        ("SHA256:\n", "\nSHA256:\n", "2 paragraphs"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        refuses(open(&sign(&changed), &trusted, NOW), why);
    }
    let stable = suite("stable", Which::Main);
    assert!(read(&sign(&text), &stable, "amd64", &trusted, Freshness::Required, NOW).is_ok());
}

#[test]
fn pinned_keys_are_found_in_keyrings_and_others_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let error = Keyring::load(folder.path(), &PINS).unwrap_err();
    assert!(error.hint().unwrap().contains("debian-archive-keyring"));
    assert!(Keyring::load(Path::new("/nonexistent"), &PINS).is_err());
    // A key that is not pinned is as good as none.
    let key = Key::new();
    std::fs::write(folder.path().join("debian-archive-own.gpg"), key.public()).unwrap();
    std::fs::write(folder.path().join("debian-archive-bad.asc"), "no key").unwrap();
    assert!(Keyring::load(folder.path(), &PINS).is_err());
    let fingerprint = key.fingerprint();
    let pin =
        image_builder::debian::keyring::Pin { archive: Which::Main, fingerprint: &fingerprint };
    assert!(Keyring::load(folder.path(), &[pin]).is_ok());
}
