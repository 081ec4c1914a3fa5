//! `docs/host-config.md` describes every key, with examples that are configurations.

use contract::host_config::{Raw, check};
use std::collections::BTreeSet;

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/host-config.md");
    std::fs::read_to_string(path).expect("docs/host-config.md")
}

/// The examples: fenced blocks of TOML.
fn examples(document: &str) -> Vec<String> {
    let blocks = document.split("```toml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// The keys of a table, as its reader names them when it meets one that it does not know.
fn keys(table: &str) -> BTreeSet<String> {
    let error = Raw::parse("x", &table.replace('@', "no-such-key = 1")).expect_err("unknown key");
    let known = error.message.split("expected").nth(1).unwrap_or_else(|| panic!("{error}"));
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Every table that there is, and how one writes into it.
const TABLES: [(&str, &str); 18] = [
    ("", "@"),
    ("network", "[network]\n@"),
    ("network.interface", "[[network.interface]]\n@"),
    ("network.interface.route", "[[network.interface]]\n[[network.interface.route]]\n@"),
    ("network.interface.bond", "[[network.interface]]\nbond = { @ }"),
    ("network.interface.bridge", "[[network.interface]]\nbridge = { @ }"),
    ("network.interface.vlan", "[[network.interface]]\nvlan = { @ }"),
    ("proxy", "[proxy]\n@"),
    ("time", "[time]\n@"),
    ("data", "[data]\n@"),
    ("kernel", "[kernel]\n@"),
    ("update", "[update]\n@"),
    ("update.window", "[[update.window]]\n@"),
    ("containerd", "[containerd]\n@"),
    ("docker", "[docker]\n@"),
    ("registry", "[[registry]]\n@"),
    ("service", "[[service]]\n@"),
    ("workload", "[[workload]]\n@"),
];

#[test]
fn every_example_is_a_configuration() {
    let document = document();
    let examples = examples(&document);
    assert!(examples.len() >= 10, "{}", examples.len());
    for example in examples {
        check("example", &example).unwrap_or_else(|e| panic!("{e}\n{example}"));
    }
}

#[test]
fn every_key_has_a_row_and_stands_in_an_example() {
    let document = document();
    let examples = examples(&document).join("\n");
    for (name, table) in TABLES {
        for key in keys(table) {
            let path = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            // A table has a heading of its own, and is told apart by it.
            let is_table = TABLES.iter().any(|(name, _)| *name == path);
            let headed = document.contains(&format!("[{path}]"));
            let row = document.lines().any(|line| {
                let first = line.strip_prefix("| ").and_then(|line| line.split(" | ").next());
                first.is_some_and(|cell| cell.split(", ").any(|word| word == format!("`{key}`")))
            });
            assert!(row || is_table && headed, "{path} has no row");
            let written = examples.lines().any(|line| {
                let named = |part: &str| part.trim_start().starts_with(&format!("{key} = "));
                line.split(['{', ',']).any(named) || line.contains(&format!("[{path}]"))
            });
            assert!(written, "{path} stands in no example");
        }
    }
}

#[test]
fn no_table_is_forgotten() {
    let names: BTreeSet<&str> = TABLES.iter().map(|(name, _)| *name).collect();
    for (name, table) in TABLES {
        for key in keys(table) {
            let path = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            // A table refuses a number by saying what it is: a map, a sequence of them, a struct.
            let probe = table.replace('@', &format!("{key} = {{ no-such-key = 1 }}"));
            let inner =
                Raw::parse("x", &probe).expect_err("an error").message.contains("unknown field");
            let listed = table.replace('@', &format!("{key} = [{{ no-such-key = 1 }}]"));
            let listed =
                Raw::parse("x", &listed).expect_err("an error").message.contains("unknown field");
            assert_eq!(inner || listed, names.contains(path.as_str()), "{path}");
        }
    }
}
