//! Which host configuration counts, when what a person wrote may be wrong.

use contract::host_config::{self, Authority, HostConfig, Raw, WorkloadSource};
use contract::toml_input::InputError;
use std::collections::BTreeMap;

/// One layer of the host configuration, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its name for messages.
    pub name: String,
    /// TOML.
    pub text: String,
}

/// What one machine is told: its layers, lowest first, and the files that lie beside them on the
/// ESP, by their path relative to the folder `berth`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The layers over that of the image.
    pub layers: Vec<Layer>,
    /// The files.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Which configuration a host runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// What it is told now.
    Current,
    /// What it was told last that could be used.
    LastGood,
    /// The image's own defaults.
    Image,
    /// Nothing at all.
    BuiltIn,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The configuration to run on.
    pub config: HostConfig,
    /// Where it is from.
    pub origin: Origin,
    /// Why better ones were not used.
    pub problems: Vec<InputError>,
}

/// Decides what to run on: what the machine is told now, else what it was told last that could be
/// used, else the image's defaults, else nothing. Each is used as a whole or not at all.
pub fn decide(
    image: Option<&Layer>,
    now: Result<&Told, InputError>,
    last_good: Option<&Told>,
) -> Decision {
    let nothing = Told::default();
    let mut problems = Vec::new();
    let current = now.and_then(|told| merge(image, told));
    let attempts = [
        (Origin::Current, Some(current)),
        (Origin::LastGood, last_good.map(|told| merge(image, told))),
        (Origin::Image, Some(merge(image, &nothing))),
        (Origin::BuiltIn, Some(merge(None, &nothing))),
    ];
    for (origin, attempt) in attempts {
        match attempt {
            Some(Ok(config)) => return Decision { config, origin, problems },
            Some(Err(problem)) if !problems.contains(&problem) => problems.push(problem),
            _ => {}
        }
    }
    unreachable!("an empty configuration is valid: a test of contract::host_config")
}

fn merge(image: Option<&Layer>, told: &Told) -> Result<HostConfig, InputError> {
    let mut merged = Raw::default();
    let layers: Vec<&Layer> = image.into_iter().chain(&told.layers).collect();
    for layer in &layers {
        merged = Raw::parse(&layer.name, &layer.text)?.over(merged);
    }
    let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    let name = if names.is_empty() { "host configuration".to_owned() } else { names.join(" + ") };
    let config = merged.validate(&name).map_err(|error| {
        // Where one layer by itself is wrong, its name and the place in it say more.
        let alone = |layer: &&Layer| host_config::check(&layer.name, &layer.text).err();
        layers.iter().rev().find_map(alone).unwrap_or(error)
    })?;
    let workloads = config.workloads.iter().filter_map(|workload| match &workload.source {
        WorkloadSource::EspFile(path) => Some(("workload", &workload.name, path)),
        WorkloadSource::Inline(_) => None,
    });
    let registries = config.registries.iter().filter_map(|registry| match &registry.ca {
        Some(Authority::EspFile(path)) => Some(("registry", &registry.name, path)),
        _ => None,
    });
    let missing =
        workloads.chain(registries).find(|(_, _, path)| !told.files.contains_key(path.as_str()));
    if let Some((what, name_of, path)) = missing {
        let message = format!("{what} `{name_of}`: file `{path}` is not there");
        return Err(InputError::new(&name, message)
            .with_hint("put it on the ESP, in the folder berth beside host.toml"));
    }
    Ok(config)
}

const HEADING: &str = "berth host configuration 1\n";

impl Told {
    /// All in one file: a heading, then for each part a line `KIND LENGTH NAME` and its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = HEADING.as_bytes().to_vec();
        let layers = self.layers.iter().map(|l| ("layer", &l.name, l.text.as_bytes()));
        let files = self.files.iter().map(|(name, bytes)| ("file", name, bytes.as_slice()));
        for (kind, name, bytes) in layers.chain(files) {
            out.extend_from_slice(format!("{kind} {} {name}\n", bytes.len()).as_bytes());
            out.extend_from_slice(bytes);
            out.push(b'\n');
        }
        out
    }

    /// Reads what [`Told::encode`] wrote; `None` when it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Told> {
        let mut rest = bytes.strip_prefix(HEADING.as_bytes())?;
        let mut told = Told::default();
        while !rest.is_empty() {
            let end = rest.iter().position(|&b| b == b'\n')?;
            let mut words = str::from_utf8(&rest[..end]).ok()?.splitn(3, ' ');
            let (kind, len, name) = (words.next()?, words.next()?, words.next()?.to_owned());
            rest = &rest[end + 1..];
            let content = rest.get(..len.parse().ok()?)?;
            rest = rest[content.len()..].strip_prefix(b"\n")?;
            match kind {
                "layer" => {
                    let text = str::from_utf8(content).ok()?.to_owned();
                    told.layers.push(Layer { name, text });
                }
                "file" => {
                    told.files.insert(name, content.to_vec());
                }
                _ => return None,
            }
        }
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layer(text: &str) -> Layer {
        Layer { name: "berth/host.toml".to_owned(), text: text.to_owned() }
    }

    fn told(text: &str) -> Told {
        Told { layers: vec![layer(text)], files: BTreeMap::new() }
    }

    #[test]
    fn decision_table() {
        use Origin::*;
        let (good, bad) = ("hostname = \"now\"", "hostnam = \"x\"");
        let unreadable = || Err(InputError::new("ESP", "cannot be mounted"));
        let cases = [
            // image, now, last good, expected origin, host name, number of problems
            (None, Ok(told("")), None, Current, None, 0),
            (Some("hostname = \"image\""), Ok(told("")), None, Current, Some("image"), 0),
            (Some("hostname = \"image\""), Ok(told(good)), None, Current, Some("now"), 0),
            (None, Ok(told(bad)), Some("hostname = \"last\""), LastGood, Some("last"), 1),
            (None, unreadable(), Some("hostname = \"last\""), LastGood, Some("last"), 1),
            (Some("hostname = \"image\""), Ok(told(bad)), None, Image, Some("image"), 1),
            (Some("hostname = \"image\""), Ok(told(bad)), Some("x"), Image, Some("image"), 2),
            (Some("hostname = 1"), Ok(told(good)), None, BuiltIn, None, 1),
        ];
        for (image, now, last, origin, hostname, problems) in cases {
            let (image, last) = (image.map(layer), last.map(told));
            let context = format!("{image:?} {now:?} {last:?}");
            let now = now.as_ref().map_err(InputError::clone);
            let decision = decide(image.as_ref(), now, last.as_ref());
            assert_eq!(decision.origin, origin, "{context}");
            assert_eq!(decision.config.hostname.as_deref(), hostname, "{context}");
            assert_eq!(decision.problems.len(), problems, "{context}");
        }
    }

    #[test]
    fn a_problem_names_its_line() {
        let decision = decide(None, Ok(&told("\nhostnam = \"x\"")), None);
        let problem = &decision.problems[0];
        assert!(problem.to_string().starts_with("berth/host.toml:2:1: unknown field `hostnam`"));
        assert_eq!(problem.hint.as_deref(), Some("did you mean `hostname`?"));
    }

    #[test]
    fn what_names_a_file_needs_it() {
        let mut now = told("[[workload]]\nname = \"web\"\nfile = \"web.yaml\"");
        let decision = decide(None, Ok(&now), None);
        assert_eq!(decision.origin, Origin::Image);
        let message = decision.problems[0].to_string();
        assert_eq!(message, "berth/host.toml: workload `web`: file `web.yaml` is not there");
        now.files.insert("web.yaml".to_owned(), b"services: {}".to_vec());
        assert_eq!(decide(None, Ok(&now), None).origin, Origin::Current);
        let now = told("[[registry]]\nname = \"r:5000\"\nca-file = \"r.pem\"");
        let message = decide(None, Ok(&now), None).problems[0].to_string();
        assert_eq!(message, "berth/host.toml: registry `r:5000`: file `r.pem` is not there");
    }

    proptest! {
        #[test]
        fn what_was_told_round_trips(
            layers in proptest::collection::vec(("[a-z +/.]{1,20}", ".{0,60}"), 0..3),
            files in proptest::collection::btree_map(
                "[a-z /.]{1,20}", proptest::collection::vec(any::<u8>(), 0..60), 0..4,
            ),
            cut in 1..40_usize,
        ) {
            let layers: Vec<Layer> =
                layers.into_iter().map(|(name, text)| Layer { name, text }).collect();
            let told = Told { layers, files };
            let bytes = told.encode();
            prop_assert_eq!(Told::decode(&bytes), Some(told.clone()));
            // Cut off, it is damaged or at least not taken for the whole.
            let cut = &bytes[..bytes.len().saturating_sub(cut)];
            prop_assert_ne!(Told::decode(cut), Some(told));
        }

        #[test]
        fn no_input_panics(text in ".{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decide(None, Ok(&told(&text)), None);
            let _ = Told::decode(&[HEADING.as_bytes(), &bytes].concat());
        }
    }
}
