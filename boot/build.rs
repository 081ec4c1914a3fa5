//! How the UEFI program is linked: an ELF file that needs nothing and nobody, position-independent,
//! with read-only, executable and writable parts on pages of their own. `elf_to_pe` in
//! `image-builder` makes the PE file that firmware loads, and refuses anything else.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_EFI").is_none() {
        return;
    }
    for argument in [
        "-nostdlib",
        "-nostartfiles",
        "-Wl,--entry=efi_main",
        // No program interpreter: nobody relocates it but the firmware.
        "-Wl,--no-dynamic-linker",
        "-Wl,--build-id=none",
        "-Wl,--hash-style=gnu",
        "-Wl,-z,separate-code",
        "-Wl,-z,norelro",
        "-Wl,-z,noexecstack",
        // What is not in this program does not exist.
        "-Wl,-z,defs",
        "-Wl,-Bsymbolic",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
