//! The software bill of materials: SPDX 2.3 as JSON, one entry a Debian package.

use super::disk::hex;
use super::license::{self, NOASSERTION};
use contract::gpt::Guid;
use contract::manifest::{Manifest, Package};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// An SPDX document (<https://spdx.github.io/spdx-spec/v2.3/>).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    document_namespace: String,
    creation_info: CreationInfo,
    packages: Vec<Entry>,
    relationships: Vec<Relationship>,
}

#[derive(Clone, Debug, Serialize)]
struct CreationInfo {
    created: String,
    creators: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    version_info: String,
    download_location: &'static str,
    files_analyzed: bool,
    license_concluded: &'static str,
    license_declared: String,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_package_purpose: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

const DOCUMENT_ID: &str = "SPDXRef-DOCUMENT";
const IMAGE_ID: &str = "SPDXRef-image";

/// Describes the image of `manifest`. `copyright` gives the text of a package's copyright file,
/// where it has one.
pub fn document(manifest: &Manifest, copyright: impl Fn(&Package) -> Option<String>) -> Document {
    let name = format!("{}-{}", manifest.name, manifest.version);
    let identity = Sha256::digest(format!("{name} {} {:?}", manifest.root_hash, manifest.packages));
    let guid = Guid::from_digest(&identity.into());
    let image = Entry {
        id: IMAGE_ID.to_owned(),
        name: manifest.name.clone(),
        version_info: manifest.version.clone(),
        download_location: NOASSERTION,
        files_analyzed: false,
        license_concluded: NOASSERTION,
        license_declared: NOASSERTION.to_owned(),
        copyright_text: NOASSERTION,
        primary_package_purpose: Some("OPERATING-SYSTEM"),
        checksums: Vec::new(),
        external_refs: Vec::new(),
    };
    let debs = manifest.packages.iter().map(|package| {
        let license = copyright(package).map(|text| license::declared(&text));
        entry(package, &manifest.suite, license)
    });
    let relation = |from: &str, kind, to: &str| Relationship {
        spdx_element_id: from.to_owned(),
        relationship_type: kind,
        related_spdx_element: to.to_owned(),
    };
    let contains =
        manifest.packages.iter().map(|package| relation(IMAGE_ID, "CONTAINS", &id(package)));
    Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: DOCUMENT_ID.to_owned(),
        document_namespace: format!("https://spdx.org/spdxdocs/{name}-{guid}"),
        name,
        creation_info: CreationInfo {
            created: timestamp(manifest.source_date_epoch),
            creators: vec![format!("Tool: berth-{}", env!("CARGO_PKG_VERSION"))],
        },
        packages: std::iter::once(image).chain(debs).collect(),
        relationships: std::iter::once(relation(DOCUMENT_ID, "DESCRIBES", IMAGE_ID))
            .chain(contains)
            .collect(),
    }
}

fn entry(package: &Package, suite: &str, license: Option<String>) -> Entry {
    let (name, version) = (escape(&package.name), escape(&package.version));
    let arch = escape(&package.architecture);
    Entry {
        id: id(package),
        name: package.name.clone(),
        version_info: package.version.clone(),
        download_location: NOASSERTION,
        files_analyzed: false,
        license_concluded: NOASSERTION,
        license_declared: license.unwrap_or_else(|| NOASSERTION.to_owned()),
        copyright_text: NOASSERTION,
        primary_package_purpose: None,
        checksums: vec![Checksum { algorithm: "SHA256", checksum_value: package.sha256.clone() }],
        external_refs: vec![ExternalRef {
            reference_category: "PACKAGE-MANAGER",
            reference_type: "purl",
            reference_locator: format!(
                "pkg:deb/debian/{name}@{version}?arch={arch}&distro={}",
                escape(suite)
            ),
        }],
    }
}

/// Letters, digits, `.` and `-` are all that an SPDX id may hold; others are told apart by a
/// digest.
fn id(package: &Package) -> String {
    let full = format!("{}-{}", package.name, package.architecture);
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    if full.chars().all(fits) {
        return format!("SPDXRef-deb-{full}");
    }
    let plain: String = full.chars().map(|c| if fits(c) { c } else { '-' }).collect();
    format!("SPDXRef-deb-{plain}-{}", hex(&Sha256::digest(&full)[..4]))
}

/// Percent-encoding as package URLs want it.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn timestamp(epoch: u64) -> String {
    let second = i64::try_from(epoch).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::manifest::File;

    fn manifest() -> Manifest {
        let file = File { size: 1, sha256: "00".into() };
        let package = |name: &str, version: &str| Package {
            name: name.into(),
            version: version.into(),
            architecture: "amd64".into(),
            sha256: "ab".repeat(32),
        };
        Manifest {
            format: 1,
            name: "docker".into(),
            version: "1.2.3".into(),
            architecture: "amd64".into(),
            suite: "trixie".into(),
            runtime: "docker".into(),
            debug_shell: false,
            kernel: "6.12".into(),
            source_date_epoch: 1_700_000_000,
            image_size: 1,
            picker: file.clone(),
            uki: file.clone(),
            root_size: 1,
            verity: file,
            root_hash: "11".repeat(32),
            partitions: Vec::new(),
            packages: vec![package("libc6", "2.41-12"), package("libstdc++6", "1:14.2~rc1+b1")],
        }
    }

    #[test]
    fn each_package_has_an_entry_that_tools_can_look_up() {
        let text = |package: &Package| {
            (package.name == "libc6").then(|| "Format: x\n\nFiles: *\nLicense: LGPL-2.1+\n".into())
        };
        let json = serde_json::to_value(document(&manifest(), text)).expect("JSON");
        assert_eq!(json["spdxVersion"], "SPDX-2.3");
        assert_eq!(json["creationInfo"]["created"], "2023-11-14T22:13:20Z");
        let packages = json["packages"].as_array().expect("packages");
        assert_eq!(packages.len(), 3);
        assert_eq!(packages[1]["licenseDeclared"], "LGPL-2.1-or-later");
        assert_eq!(packages[2]["licenseDeclared"], NOASSERTION);
        assert_eq!(
            packages[2]["externalRefs"][0]["referenceLocator"],
            "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2~rc1%2Bb1?arch=amd64&distro=trixie"
        );
        let id = |i: usize| packages[i]["SPDXID"].as_str().expect("an id").to_owned();
        assert_eq!(id(1), "SPDXRef-deb-libc6-amd64");
        assert!(id(2).starts_with("SPDXRef-deb-libstdc--6-amd64-"));
        assert_eq!(json["relationships"][2]["relatedSpdxElement"], id(2));
    }

    #[test]
    fn the_namespace_follows_from_the_content() {
        let [a, b] = [manifest(), Manifest { root_hash: "22".repeat(32), ..manifest() }]
            .map(|manifest| document(&manifest, |_| None).document_namespace);
        assert_eq!(a, document(&manifest(), |_| None).document_namespace);
        assert_ne!(a, b);
    }
}
