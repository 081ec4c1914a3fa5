//! What `[[network.interface]]` say of each other: which link is part of which.

use super::Wrong;
use super::network::{Device, Interface, Link, RawInterface};
use std::collections::{BTreeMap, BTreeSet};

/// Names of interfaces that VLANs lie on.
pub(super) fn carriers(interfaces: &[RawInterface]) -> BTreeSet<String> {
    interfaces.iter().filter_map(|i| Some(i.vlan.as_ref()?.link.clone())).collect()
}

/// Refuses what cannot be: a link in two places, settings that would be ignored, circles.
pub(super) fn check(interfaces: &[Interface]) -> Result<(), Wrong> {
    let made: BTreeMap<&Link, usize> = interfaces
        .iter()
        .enumerate()
        .filter(|(_, interface)| interface.device.is_some())
        .map(|(i, interface)| (&interface.link, i))
        .collect();
    let mut owners: BTreeMap<&Link, usize> = BTreeMap::new();
    for (i, interface) in interfaces.iter().enumerate() {
        let Some(device) = &interface.device else { continue };
        let key = |at: usize| format!("interface.{i}.{}.members.{at}", device.kind());
        for (at, member) in device.members().iter().enumerate() {
            if let Some(other) = owners.insert(member, i) {
                let other = text(&interfaces[other].link);
                let why = format!("`{}` is a member of `{other}` already", text(member));
                return Err(Wrong(key(at), why));
            }
            let kind = made.get(member).and_then(|at| interfaces[*at].device.as_ref());
            if let (Device::Bond(_), Some(kind)) = (device, kind) {
                let why = format!("`{}` is a {}; a bond has links", text(member), kind.kind());
                return Err(Wrong(key(at), why));
            }
        }
    }
    for (i, interface) in interfaces.iter().enumerate() {
        if let Some(owner) = owners.get(&interface.link)
            && let Some(setting) = setting(interface)
        {
            let (name, owner) = (text(&interface.link), text(&interfaces[*owner].link));
            let why = format!("`{name}` is a member of `{owner}`, which has the addresses");
            return Err(Wrong(format!("interface.{i}.{setting}"), why));
        }
    }
    for start in 0..interfaces.len() {
        if let Some(device) = leads_to_itself(interfaces, &made, start) {
            let name = text(&interfaces[start].link);
            let why = format!("`{name}` would be a part of itself");
            return Err(Wrong(format!("interface.{start}.{device}"), why));
        }
    }
    Ok(())
}

/// A key that makes no sense for a member of something else.
fn setting(interface: &Interface) -> Option<&'static str> {
    match interface {
        i if !i.addresses.is_empty() => Some("address"),
        i if !i.gateways.is_empty() => Some("gateway"),
        i if !i.routes.is_empty() => Some("route"),
        _ => None,
    }
}

/// The kind of the interface, when it is found again among what it is made of.
fn leads_to_itself(
    interfaces: &[Interface],
    made: &BTreeMap<&Link, usize>,
    start: usize,
) -> Option<&'static str> {
    let parts = |i: usize| -> Vec<usize> {
        let below: &[Link] = match &interfaces[i].device {
            Some(Device::Vlan(vlan)) => std::slice::from_ref(&vlan.link),
            Some(device) => device.members(),
            None => &[],
        };
        below.iter().filter_map(|link| made.get(link).copied()).collect()
    };
    let mut seen = BTreeSet::new();
    let mut todo = parts(start);
    while let Some(next) = todo.pop() {
        if next == start {
            return interfaces[start].device.as_ref().map(Device::kind);
        }
        if seen.insert(next) {
            todo.extend(parts(next));
        }
    }
    None
}

fn text(link: &Link) -> String {
    match link {
        Link::Name(text) | Link::NamePattern(text) | Link::MacPattern(text) => text.clone(),
        Link::Mac(mac) => super::network::mac_text(*mac),
    }
}
