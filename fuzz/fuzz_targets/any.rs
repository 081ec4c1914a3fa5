//! cargo-fuzz's entry: the target is named by `BERTH_FUZZ_TARGET`.
#![no_main]
#![allow(unsafe_code)] // The macro's own: the symbols that libFuzzer looks for.

use std::sync::OnceLock;

static RUN: OnceLock<fn(&[u8]) -> bool> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let run = RUN.get_or_init(|| {
        let name = std::env::var("BERTH_FUZZ_TARGET").unwrap_or_default();
        let target = fuzz::targets().into_iter().find(|target| target.name == name);
        target.unwrap_or_else(|| panic!("BERTH_FUZZ_TARGET={name} is no target")).run
    });
    let _ = run(data);
});
