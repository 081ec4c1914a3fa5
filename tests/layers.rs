//! Which crate may import which: the direction that ARCHITECTURE.md states.

use e2e::project;

/// Each crate with the Berth crates that it may import.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("contract", &[]),
    ("sys", &[]),
    ("delta", &["contract"]),
    ("boot", &["contract"]),
    ("boot-state", &["contract", "sys"]),
    ("init", &["contract", "sys", "boot-state"]),
    ("updater", &["contract", "delta", "sys", "boot-state"]),
    ("qemu", &["contract"]),
    ("image-builder", &["contract", "delta", "sys", "qemu"]),
];

#[test]
fn imports_point_one_way() {
    for (name, allowed) in ALLOWED {
        let path = project().join(name).join("Cargo.toml");
        let text = std::fs::read_to_string(&path).expect("a manifest");
        let manifest = text.split("[dev-dependencies]").next().unwrap_or_default();
        for (other, _) in ALLOWED {
            let imports = manifest.lines().any(|line| line.starts_with(&format!("{other} = ")));
            let may = allowed.contains(&other);
            assert!(!imports || may, "{name} imports {other}");
        }
    }
}
