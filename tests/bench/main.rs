//! `make bench`: the figures of `docs/performance.md`. `make bench ONLY="update peer"` takes some of
//! them. Others may load the machine meanwhile: what is compared is taken in turns in one run.

mod build;
mod cost;
mod host;
mod peer;
mod update;

/// A part of the figures: its name, and what takes it.
const PARTS: [(&str, fn()); 4] = [
    ("build", build::figures),
    ("host", host::figures),
    ("update", update::figures),
    ("peer", peer::figures),
];

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let unknown = asked.iter().find(|name| PARTS.iter().all(|(part, _)| part != name));
    assert!(unknown.is_none(), "no such part: {unknown:?}");
    for (name, figures) in PARTS {
        if asked.is_empty() || asked.iter().any(|part| part == name) {
            println!("{name}");
            figures();
        }
    }
}
