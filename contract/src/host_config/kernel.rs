//! `[kernel]`: which modules a host takes, and how long.

use super::{Wrong, bounded};
use serde::Deserialize;

/// `[kernel]` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RawKernel {
    /// Modules to load at boot, beside those that the machine's devices and the runtime need.
    pub modules: Option<Vec<String>>,
    /// How long modules may be loaded.
    pub module_loading: Option<ModuleLoading>,
}

/// How long the kernel takes modules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleLoading {
    /// Until everything that was asked for runs.
    #[default]
    UntilReady,
    /// For as long as the host runs.
    Always,
}

/// What is asked of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Modules to load at boot.
    pub modules: Vec<String>,
    /// How long modules may be loaded.
    pub module_loading: ModuleLoading,
}

impl RawKernel {
    /// This layer over `below`: its keys win.
    pub(super) fn over(self, below: RawKernel) -> RawKernel {
        RawKernel {
            modules: self.modules.or(below.modules),
            module_loading: self.module_loading.or(below.module_loading),
        }
    }

    pub(super) fn validate(self) -> Result<Kernel, Wrong> {
        let modules = self.modules.unwrap_or_default();
        bounded("modules", modules.len())?;
        for (i, name) in modules.iter().enumerate() {
            let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            if name.is_empty() || name.len() > 63 || !name.bytes().all(known) {
                let why = format!("`{name}` is not the name of a module");
                return Err(Wrong(format!("modules.{i}"), why));
            }
        }
        Ok(Kernel { modules, module_loading: self.module_loading.unwrap_or_default() })
    }
}
