//! `docs/contract.md` says what the code does.

use contract::gpt::Guid;
use contract::layout::{self, Partition};

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/contract.md");
    std::fs::read_to_string(path).expect("docs/contract.md")
}

/// The cells of the table rows whose first cell is `first`.
fn row<'a>(document: &'a str, first: &str) -> Vec<&'a str> {
    let start = format!("| {first} |");
    let line = document.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("no row for {first}"));
    line.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn partitions_are_as_documented() {
    let document = document();
    let mut last_type: Option<Guid> = None;
    for partition in Partition::ALL {
        let cells = row(&document, &format!("`{}`", partition.label()));
        let guid = partition.type_guid();
        match cells[1] {
            "the same" => assert_eq!(Some(guid), last_type, "{}", partition.label()),
            text => assert_eq!(text, format!("`{guid}`"), "{}", partition.label()),
        }
        last_type = Some(guid);
        let size = format!("{} MiB", partition.default_size() >> 20);
        assert!(cells[2].starts_with(&size), "{}: {size}", partition.label());
    }
}

#[test]
fn offsets_are_as_documented() {
    let document = document();
    assert_eq!(row(&document, &layout::RECORD_OFFSETS[1].to_string())[2], "boot record, copy 1");
    let journal = row(&document, &layout::JOURNAL_OFFSET.to_string());
    let size = layout::JOURNAL_ENTRIES * layout::BLOCK as u64;
    assert_eq!(journal[1], size.to_string());
    assert_eq!(row(&document, &layout::DATA_MARK_OFFSET.to_string())[2], "data mark");
    assert_eq!(row(&document, &layout::DATA_PLACE_OFFSET.to_string())[2], "data place");
    for key in [layout::CMDLINE_ROOT_HASH, layout::CMDLINE_VERSION, layout::CMDLINE_DEBUG_SHELL] {
        row(&document, &format!("`{key}`"));
    }
}

#[test]
fn limits_of_releases_are_as_documented() {
    use contract::release::{MAX_LEN, limits};
    let document = document();
    for (what, most) in [
        ("root metadata", limits::ROOT),
        ("timestamp metadata", limits::TIMESTAMP),
        ("snapshot metadata", limits::SNAPSHOT),
        ("targets metadata", limits::TARGETS),
        ("a release or a channel", MAX_LEN),
    ] {
        assert_eq!(row(&document, what)[1], most.to_string(), "{what}");
    }
}
