//! SPDX licence expressions out of Debian's machine-readable copyright files (DEP-5,
//! <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>).

use std::collections::BTreeSet;

/// What SPDX writes where nothing is claimed.
pub const NOASSERTION: &str = "NOASSERTION";

/// Short names of Debian, in lower case and without version suffixes, and the SPDX licence.
/// Licences that SPDX names `-only` and `-or-later` are in [`GNU`].
const KNOWN: [(&str, &str); 33] = [
    ("0bsd", "0BSD"),
    ("apache-2", "Apache-2.0"),
    ("apache-2.0", "Apache-2.0"),
    ("artistic-2.0", "Artistic-2.0"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsd-4-clause", "BSD-4-Clause"),
    ("bsd-4-clause-uc", "BSD-4-Clause-UC"),
    ("bsl-1.0", "BSL-1.0"),
    ("bzip2-1.0.6", "bzip2-1.0.6"),
    ("cc-by-3.0", "CC-BY-3.0"),
    ("cc-by-4.0", "CC-BY-4.0"),
    ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
    ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
    ("cc0", "CC0-1.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("curl", "curl"),
    ("epl-1.0", "EPL-1.0"),
    ("expat", "MIT"),
    ("ftl", "FTL"),
    ("isc", "ISC"),
    ("mit", "MIT"),
    ("mit-0", "MIT-0"),
    ("mpl-1.1", "MPL-1.1"),
    ("mpl-2.0", "MPL-2.0"),
    ("ofl-1.1", "OFL-1.1"),
    ("openssl", "OpenSSL"),
    ("psf-2", "PSF-2.0"),
    ("unicode-dfs-2016", "Unicode-DFS-2016"),
    ("unlicense", "Unlicense"),
    ("vim", "Vim"),
    ("x11", "X11"),
    ("zlib", "Zlib"),
];

/// GNU licences by Debian's short name without `+`, and SPDX's without its suffix.
const GNU: [(&str, &str); 16] = [
    ("agpl-3", "AGPL-3.0"),
    ("agpl-3.0", "AGPL-3.0"),
    ("gfdl-1.2", "GFDL-1.2"),
    ("gfdl-1.3", "GFDL-1.3"),
    ("gpl-1", "GPL-1.0"),
    ("gpl-1.0", "GPL-1.0"),
    ("gpl-2", "GPL-2.0"),
    ("gpl-2.0", "GPL-2.0"),
    ("gpl-3", "GPL-3.0"),
    ("gpl-3.0", "GPL-3.0"),
    ("lgpl-2", "LGPL-2.0"),
    ("lgpl-2.0", "LGPL-2.0"),
    ("lgpl-2.1", "LGPL-2.1"),
    ("lgpl-2.1.0", "LGPL-2.1"),
    ("lgpl-3", "LGPL-3.0"),
    ("lgpl-3.0", "LGPL-3.0"),
];

/// The licence that a copyright file declares for all of a package's files together, or
/// [`NOASSERTION`] when the file is free text or names a licence that SPDX has no id for.
pub fn declared(copyright: &str) -> String {
    expression(copyright).unwrap_or_else(|| NOASSERTION.to_owned())
}

fn expression(copyright: &str) -> Option<String> {
    let file: deb822_fast::Deb822 = copyright.parse().ok()?;
    let mut stanzas = file.iter();
    stanzas.next()?.get("Format")?;
    let mut all = BTreeSet::new();
    for stanza in stanzas.filter(|stanza| stanza.get("Files").is_some()) {
        let names = stanza.get("License")?.lines().next()?;
        all.insert(convert(names)?);
    }
    let several = all.len() > 1;
    let wrap = |e: String| if several && e.contains(" OR ") { format!("({e})") } else { e };
    let parts: Vec<String> = all.into_iter().map(wrap).collect();
    (!parts.is_empty()).then(|| parts.join(" AND "))
}

/// `GPL-2+ or Expat` to SPDX. A comma changes what binds first, and `with` needs SPDX's name of
/// the exception: both are left alone.
fn convert(names: &str) -> Option<String> {
    let mut out = Vec::new();
    for (i, word) in names.split_whitespace().enumerate() {
        let word = word.to_ascii_lowercase();
        out.push(match (i % 2, word.as_str()) {
            (1, "and") => "AND".to_owned(),
            (1, "or") => "OR".to_owned(),
            (0, name) => id(name)?,
            _ => return None,
        });
    }
    (out.len() % 2 == 1).then(|| out.join(" "))
}

fn id(name: &str) -> Option<String> {
    if let Some((_, id)) = KNOWN.iter().find(|(known, _)| *known == name) {
        return Some((*id).to_owned());
    }
    let (base, suffix) = match name.strip_suffix('+') {
        Some(base) => (base, "or-later"),
        None => (name, "only"),
    };
    let (_, id) = GNU.iter().find(|(known, _)| *known == base)?;
    Some(format!("{id}-{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let head = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n";
        let cases = [
            ("Files: *\nLicense: Expat\n Text.\n", "MIT"),
            ("Files: *\nLicense: GPL-2+\n\nFiles: x\nLicense: Expat\n", "GPL-2.0-or-later AND MIT"),
            (
                "Files: *\nLicense: GPL-2 or Apache-2.0\n\nFiles: x\nLicense: ISC\n",
                "(GPL-2.0-only OR Apache-2.0) AND ISC",
            ),
            ("Files: *\nLicense: GPL-3+ with Bison exception\n", NOASSERTION),
            ("Files: *\nLicense: GPL-2, and Expat\n", NOASSERTION),
            ("Files: *\nLicense: public-domain\n", NOASSERTION),
            ("Files: *\nLicense: Expat and\n", NOASSERTION),
            ("License: Expat\n Only a licence's text.\n", NOASSERTION),
            ("", NOASSERTION),
        ];
        for (stanzas, expected) in cases {
            assert_eq!(declared(&format!("{head}\n{stanzas}")), expected, "{stanzas}");
        }
        assert_eq!(declared("This package was debianized by hand.\n"), NOASSERTION);
    }

    #[test]
    fn known_names_are_found_whatever_their_case() {
        assert_eq!(convert("EXPAT").as_deref(), Some("MIT"));
        assert_eq!(convert("LGPL-2.1+ AND zlib").as_deref(), Some("LGPL-2.1-or-later AND Zlib"));
    }
}
