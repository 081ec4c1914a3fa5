//! Scenarios in virtual machines, one module a subject. They share one program, so that one waits while
//! another works: `cargo test --release -p e2e --test scenarios trial::` runs those of a module.

mod clock;
mod containerd;
mod demo;
mod docker;
mod explains;
mod hardening;
mod hardware;
mod judges;
mod kubernetes;
mod network;
mod plugs;
mod registry;
mod repository_faults;
mod rot;
mod runtime;
mod same_bytes;
mod slot_picker;
mod storage;
mod swarm;
mod trial;
mod update;
