//! PID 1 of a Berth host.

mod cgroup;
mod clock;
mod debug_shell;
mod error;
mod log;
mod network;
mod power;
mod random;
mod runtime;
mod serve;
mod shutdown;
mod supervisor;
mod workload;

use contract::host_config::Raw;
use contract::layout;
use serve::{Care, Host};

struct Nobody;
impl Care for Nobody {
    fn alive(&mut self) {}
    fn ready(&mut self) {}
    fn overdue(&mut self, _: &str) {}
}

fn main() {
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let word = |key: &str| {
        let words = cmdline.split_whitespace();
        words.filter_map(|w| w.strip_prefix(key)?.strip_prefix('=')).next_back().map(str::to_owned)
    };
    let text = std::fs::read_to_string("/run/berth/host.toml").unwrap_or_default();
    let config = Raw::parse("host.toml", &text).and_then(|raw| raw.validate("host.toml"));
    let config = config.unwrap_or_else(|e| {
        log::line(&e.to_string());
        Raw::default().validate("").expect("valid")
    });
    let version = word(layout::CMDLINE_VERSION).unwrap_or_else(|| "0".into());
    let host = Host {
        slot: None,
        image: version.clone(),
        version,
        config,
        debug_shell: cmdline.split_whitespace().any(|w| w == layout::CMDLINE_DEBUG_SHELL),
    };
    let result = supervisor::Supervisor::new().and_then(|supervisor| {
        cgroup::set_up()?;
        clock::apply_floor()?;
        serve::run(&host, supervisor, &mut Nobody)
    });
    let Err(e) = result;
    log::line(&error::chain(&e));
    std::thread::sleep(std::time::Duration::from_secs(5));
}
