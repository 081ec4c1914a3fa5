//! Kernel modules.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::path::Path;

/// `MODULE_INIT_COMPRESSED_FILE` of linux/module.h.
const COMPRESSED: i32 = 4;

/// Loads the module file `path`; the kernel unpacks names that end in `.xz`, `.zst` or `.gz`
/// itself. `parameters` are as in `name=value name=value`. A module that is loaded already is not an
/// error.
pub fn load(path: &Path, parameters: &CStr) -> io::Result<()> {
    let compressed = path.extension().is_some_and(|end| end != "ko");
    let flags = if compressed { COMPRESSED } else { 0 };
    match rustix::system::finit_module(File::open(path)?, parameters, flags) {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}

/// The running kernel's release, which names the folder of its modules.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
