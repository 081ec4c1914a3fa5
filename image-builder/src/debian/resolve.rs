//! Which packages a request means: a pure function of indexes and request.
//!
//! Relations are worked off in the order in which they were met, those of the request first. One
//! that something chosen already fulfils costs nothing; else the first real package that does is
//! chosen, in its highest version, and only then one that provides the name. Where a choice turns
//! out impossible later, the latest choice that had another way out is taken back.

use super::index::{Index, Record, Universe};
use super::relation::{self, Operator, Relation};
use super::{Package, Request};
use crate::{Error, Result};
use contract::toml_input::nearest_of;
use std::collections::{BTreeMap, HashMap, HashSet};

/// How many choices may be taken back before giving up.
const MAX_RETRIES: usize = 10_000;

/// The packages that fulfil `request`, sorted by name.
pub fn resolve(indexes: &[Index], request: &Request) -> Result<Vec<Package>> {
    let universe = Universe::new(indexes);
    let mut solver = Solver::new(&universe, request)?;
    solver.run()?;
    let mut packages =
        solver.chosen.iter().map(|c| c.record.package()).collect::<Result<Vec<_>>>()?;
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}

/// One group of alternatives that has to be fulfilled.
struct Task<'a> {
    group: Vec<Relation<'a>>,
    /// The chosen package that wants it; none for the request itself.
    parent: Option<usize>,
    /// Whether it may stay unfulfilled.
    optional: bool,
}

struct Chosen<'a> {
    record: Record<'a>,
    parent: Option<usize>,
    conflicts: Vec<Relation<'a>>,
}

/// A choice that could have been made otherwise.
struct Decision<'a> {
    cursor: usize,
    tasks: usize,
    chosen: usize,
    others: std::vec::IntoIter<Record<'a>>,
}

struct Solver<'a> {
    universe: &'a Universe<'a>,
    request: &'a Request,
    assumed: HashSet<&'a str>,
    pinned: BTreeMap<&'a str, &'a str>,
    tasks: Vec<Task<'a>>,
    chosen: Vec<Chosen<'a>>,
    by_name: HashMap<&'a str, usize>,
}

/// Whether Debian's policy would let a package have this name.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(plain) && text.chars().all(|c| plain(c) || "+-.".contains(c))
}

impl<'a> Solver<'a> {
    fn new(universe: &'a Universe<'a>, request: &'a Request) -> Result<Solver<'a>> {
        let mut solver = Solver {
            universe,
            request,
            assumed: request.assume.iter().map(String::as_str).collect(),
            pinned: BTreeMap::new(),
            tasks: Vec::new(),
            chosen: Vec::new(),
            by_name: HashMap::new(),
        };
        for asked in &request.packages {
            let relation = match asked.split_once('=') {
                Some((name, version)) => {
                    solver.pinned.insert(name, version);
                    Relation { name, version: Some((Operator::Equal, version)) }
                }
                None => Relation::any(asked),
            };
            if !is_name(relation.name) {
                return Err(Error::refused(format!("`{asked}` is not the name of a package"))
                    .with_hint("write `name`, or `name=version` to pin one"));
            }
            if solver.assumed.contains(relation.name) {
                return Err(Error::refused(format!(
                    "package {} cannot be asked for: the builder does its work itself",
                    relation.name
                )));
            }
            solver.tasks.push(Task { group: vec![relation], parent: None, optional: false });
        }
        Ok(solver)
    }

    fn run(&mut self) -> Result<()> {
        let mut decisions: Vec<Decision<'a>> = Vec::new();
        let mut cursor = 0;
        let mut first_error = None;
        let mut retries = 0;
        'tasks: while cursor < self.tasks.len() {
            if self.is_fulfilled(&self.tasks[cursor].group) {
                cursor += 1;
                continue;
            }
            let mut candidates = self.candidates(&self.tasks[cursor].group).into_iter();
            loop {
                if let Some(record) = candidates.by_ref().find(|c| self.obstacle(*c).is_none()) {
                    if candidates.len() > 0 {
                        let (tasks, chosen) = (self.tasks.len(), self.chosen.len());
                        decisions.push(Decision { cursor, tasks, chosen, others: candidates });
                    }
                    self.choose(record, self.tasks[cursor].parent)?;
                    cursor += 1;
                    continue 'tasks;
                }
                if self.tasks[cursor].optional {
                    cursor += 1;
                    continue 'tasks;
                }
                // The first failure is the one on the preferred way: it explains most.
                let error = first_error.get_or_insert_with(|| self.explain(cursor));
                let (Some(decision), true) = (decisions.pop(), retries < MAX_RETRIES) else {
                    return Err(std::mem::replace(error, Error::refused("")));
                };
                retries += 1;
                self.tasks.truncate(decision.tasks);
                for undone in self.chosen.drain(decision.chosen..) {
                    self.by_name.remove(undone.record.name());
                }
                cursor = decision.cursor;
                candidates = decision.others;
            }
        }
        Ok(())
    }

    /// The version of a package that counts: the pinned or else the highest.
    fn candidate(&self, name: &str) -> Option<Record<'a>> {
        let mut versions = self.universe.versions(name);
        match self.pinned.get(name) {
            Some(version) => versions.find(|r| r.version() == *version),
            None => versions.next(),
        }
    }

    fn is_fulfilled(&self, group: &[Relation]) -> bool {
        group.iter().any(|relation| {
            self.assumed.contains(relation.name)
                || self
                    .universe
                    .providers(relation.name)
                    .any(|r| self.assumed.contains(r.name()) && relation.matches(r))
                || self.chosen.iter().any(|chosen| relation.matches(chosen.record))
        })
    }

    /// What could fulfil the group, the best first.
    fn candidates(&self, group: &[Relation]) -> Vec<Record<'a>> {
        let real = group.iter().filter_map(|r| self.candidate(r.name).filter(|c| r.matches(*c)));
        let provided = group.iter().flat_map(|relation| {
            self.universe.providers(relation.name).filter(|record| {
                let counts = self.candidate(record.name()).map(Record::version);
                counts == Some(record.version()) && relation.matches(*record)
            })
        });
        let mut names = HashSet::new();
        real.chain(provided)
            .filter(|r| !self.assumed.contains(r.name()) && names.insert(r.name()))
            .collect()
    }

    /// The chosen package that stands in the way of `record`.
    fn obstacle(&self, record: Record<'a>) -> Option<usize> {
        if let Some(at) = self.by_name.get(record.name()) {
            return Some(*at);
        }
        let own = self.conflicts(record).unwrap_or_default();
        self.chosen.iter().position(|other| {
            other.conflicts.iter().any(|relation| relation.matches(record))
                || own.iter().any(|relation| relation.matches(other.record))
        })
    }

    fn conflicts(&self, record: Record<'a>) -> Result<Vec<Relation<'a>>> {
        let groups =
            relation::parse(record.conflicts(), &self.request.architecture, record.name())?;
        Ok(groups.into_iter().flatten().collect())
    }

    fn choose(&mut self, record: Record<'a>, parent: Option<usize>) -> Result<()> {
        let at = self.chosen.len();
        let conflicts = self.conflicts(record)?;
        self.chosen.push(Chosen { record, parent, conflicts });
        self.by_name.insert(record.name(), at);
        let [before, depends] = record.depends();
        let recommends = if self.request.recommends { record.recommends() } else { "" };
        for (list, optional) in [(before, false), (depends, false), (recommends, true)] {
            for group in relation::parse(list, &self.request.architecture, record.name())? {
                self.tasks.push(Task { group, parent: Some(at), optional });
            }
        }
        Ok(())
    }

    /// `docker.io → containerd → runc (>= 2)`.
    fn chain(&self, parent: Option<usize>, end: &str) -> String {
        let mut names = vec![end];
        let mut above = parent;
        while let Some(at) = above {
            names.push(self.chosen[at].record.name());
            above = self.chosen[at].parent;
        }
        names.reverse();
        names.join(" → ")
    }

    /// Why the group of a task cannot be fulfilled.
    fn explain(&self, task: usize) -> Error {
        let Task { group, parent, .. } = &self.tasks[task];
        let asked = group.iter().map(Relation::to_string).collect::<Vec<_>>().join(" | ");
        let chain = self.chain(*parent, &asked);
        let suite = &self.request.suite;

        let obstacle =
            self.candidates(group).into_iter().find_map(|c| Some((c, self.obstacle(c)?)));
        if let Some((candidate, at)) = obstacle {
            let other = &self.chosen[at];
            let (name, other_name) = (candidate.name(), other.record.name());
            let other_chain = self.chain(other.parent, other_name);
            let what = match name == other_name {
                true => format!(
                    "{chain}: {name} is already taken in version {}",
                    other.record.version()
                ),
                false => {
                    // Who asked matters where it was not the person.
                    let by = |chain: &str, own: &str| match chain == own {
                        true => String::new(),
                        false => format!(" (asked for by {chain})"),
                    };
                    let (asked, other) = (by(&chain, name), by(&other_chain, other_name));
                    format!("package {name}{asked} conflicts with {other_name}{other}")
                }
            };
            let first = |chain: &str| chain.split(" → ").next().unwrap_or_default().to_owned();
            let (one, two) = (first(&chain), first(&other_chain));
            return match one == two {
                true => Error::refused(what),
                false => Error::refused(what).with_hint(format!("leave out {one} or {two}")),
            };
        }
        let known: Vec<String> = group
            .iter()
            .flat_map(|r| self.universe.versions(r.name))
            .map(|r| format!("{} {}", r.name(), r.version()))
            .collect();
        if !known.is_empty() {
            let what = format!("{chain}: cannot be satisfied, {suite} has {}", known.join(", "));
            let pinned = group.iter().find_map(|r| self.pinned.get_key_value(r.name));
            return match pinned {
                Some((name, version)) => Error::refused(what)
                    .with_hint(format!("{name} is pinned to {version} in the definition")),
                None => Error::refused(what),
            };
        }
        let error = Error::refused(format!("{chain}: {suite} has no such package"));
        match nearest_of(group.first().map_or("", |r| r.name), self.universe.names()) {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::Archive;
    use crate::debian::index::condense;
    use proptest::prelude::*;

    /// One suite: paragraphs separated by `;`, fields by `/`, the first being name and version.
    fn index(archive: Archive, suite: &str) -> Index {
        let paragraph = |text: &str| {
            let mut fields = text.trim().split(" / ");
            let (name, version) = fields.next().unwrap().split_once(' ').unwrap();
            let rest: Vec<&str> = fields.collect();
            format!(
                "Package: {name}\nVersion: {version}\nArchitecture: all\nSize: 1\n\
                 Filename: pool/{name}_{version}.deb\nSHA256: {}\n{}\n\n",
                "00".repeat(32),
                rest.join("\n")
            )
        };
        let text: String = suite.split(';').map(paragraph).collect();
        Index { archive, text: condense(text.as_bytes(), "test").unwrap() }
    }

    fn request(packages: &str, assume: &str) -> Request {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        Request {
            suite: "trixie".into(),
            architecture: "amd64".into(),
            packages: words(packages),
            recommends: false,
            assume: words(assume),
        }
    }

    fn names(packages: &[Package]) -> String {
        packages.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn closures() {
        for (what, suite, wanted, assume, expected) in [
            (
                "depends",
                "a 1 / Depends: b, c; b 1 / Pre-Depends: d; c 1; d 1; e 1",
                "a",
                "",
                "a b c d",
            ),
            ("cycle", "a 1 / Depends: b; b 1 / Depends: a", "a", "", "a b"),
            ("first real", "a 1 / Depends: v | c | b; b 1 / Provides: v; c 1", "a", "", "a c"),
            ("already chosen", "a 1 / Depends: x | b; x 1; b 1", "a b", "", "a b"),
            (
                "provided",
                "a 1 / Depends: v; c 1 / Provides: v; b 1 / Provides: w, v",
                "a",
                "",
                "a b",
            ),
            (
                "provided and chosen",
                "a 1 / Depends: v; b 1 / Provides: v; c 1 / Provides: v",
                "a c",
                "",
                "a c",
            ),
            (
                "versioned provides",
                "a 1 / Depends: v (>= 2); b 1 / Provides: v; c 1 / Provides: v (= 2)",
                "a",
                "",
                "a c",
            ),
            ("any", "a 1 / Depends: b:any (>= 1), c:native; b 1; c 1", "a", "", "a b c"),
            ("other architecture", "a 1 / Depends: b:i386 | c; b 1; c 1", "a", "", "a c"),
            ("assumed", "a 1 / Depends: b, c (>= 9) | d; b 1 / Depends: d; c 1", "a", "b c", "a"),
            ("assumed provider", "a 1 / Depends: v (= 1); b 1 / Provides: v (= 1)", "a", "b", "a"),
            ("no recommends", "a 1 / Recommends: b; b 1", "a", "", "a"),
            ("asked twice", "a 1", "a a", "", "a"),
            (
                "way out of a conflict",
                "a 1 / Depends: b | c, d; b 1; c 1; d 1 / Conflicts: b",
                "a",
                "",
                "a c d",
            ),
            (
                "way out of a dead end",
                "a 1 / Depends: b | c; b 1 / Depends: gone; c 1",
                "a",
                "",
                "a c",
            ),
            ("breaks older only", "a 1 / Depends: b / Breaks: b (<< 2); b 2", "a", "", "a b"),
            ("conflict with itself by name", "a 1 / Provides: v / Conflicts: v", "a", "", "a"),
            ("virtual", "b 1 / Provides: v", "v", "", "b"),
            ("nothing", "a 1", "", "", ""),
        ] {
            let found = resolve(&[index(Archive::Main, suite)], &request(wanted, assume));
            assert_eq!(names(&found.unwrap_or_else(|e| panic!("{what}: {e}"))), expected, "{what}");
        }
    }

    #[test]
    fn errors_name_the_chain() {
        let suite = "docker.io 1 / Depends: containerd; \
            containerd 1 / Depends: runc (>= 2) | crun (>= 9); \
            runc 1.1; crun 1; b 1 / Depends: gone; exim 1 / Provides: mta / Conflicts: mta; \
            postfix 1 / Provides: mta; m 1 / Depends: postfix; broken 1 / Depends: x (1)";
        for (wanted, expected, hint) in [
            (
                "docker.io",
                "docker.io → containerd → runc (>= 2) | crun (>= 9): cannot be satisfied, \
                 trixie has runc 1.1, crun 1",
                None,
            ),
            (
                "dcoker.io",
                "dcoker.io: trixie has no such package",
                Some("did you mean `docker.io`?"),
            ),
            ("b", "b → gone: trixie has no such package", None),
            (
                "exim m",
                "package postfix (asked for by m → postfix) conflicts with exim",
                Some("leave out m or exim"),
            ),
            (
                "m exim",
                "package postfix (asked for by m → postfix) conflicts with exim",
                Some("leave out m or exim"),
            ),
            (
                "runc>=2",
                "`runc>=2` is not the name of a package",
                Some("write `name`, or `name=version` to pin one"),
            ),
            (
                "runc=2",
                "runc (= 2): cannot be satisfied, trixie has runc 1.1",
                Some("runc is pinned to 2 in the definition"),
            ),
            ("broken", "index: package broken: cannot read relation `x (1)`", None),
            ("perl", "package perl cannot be asked for: the builder does its work itself", None),
        ] {
            let error =
                resolve(&[index(Archive::Main, suite)], &request(wanted, "perl")).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.hint().as_deref(), hint, "{wanted}");
        }
    }

    #[test]
    fn the_newest_of_all_suites_wins_unless_pinned() {
        let suites = [
            index(Archive::Main, "a 1.0-1; b 1 / Depends: a"),
            index(Archive::Security, "a 1.0-1+deb13u1"),
            index(Archive::Main, "a 1.0-1~old"),
        ];
        for (wanted, version, archive) in [
            ("b", "1.0-1+deb13u1", Archive::Security),
            ("b a=1.0-1", "1.0-1", Archive::Main),
            ("a=1.0-1~old", "1.0-1~old", Archive::Main),
        ] {
            let found = resolve(&suites, &request(wanted, "")).unwrap();
            assert_eq!((found[0].version.as_str(), found[0].archive), (version, archive));
        }
    }

    #[test]
    fn recommended_packages_come_where_they_can() {
        let suite = "a 1 / Recommends: b, gone, c; b 1 / Recommends: d; c 1 / Conflicts: a; d 1";
        let asked = Request { recommends: true, ..request("a", "") };
        let found = resolve(&[index(Archive::Main, suite)], &asked).unwrap();
        assert_eq!(names(&found), "a b d");
    }

    proptest! {
        /// Whatever depends on and conflicts with whatever: an answer is closed and free of
        /// conflicts, it is the same again, and a refusal is no panic.
        #[test]
        fn an_answer_is_closed(
            edges in prop::collection::vec((0u8..8, 0u8..8, 0u8..8, any::<bool>()), 0..20),
        ) {
            let fields = |i: u8| {
                let of = |conflict: bool| {
                    let is_conflict = |e: &(u8, u8, u8, bool)| e.3 && e.1.is_multiple_of(3);
                    edges.iter().filter(move |e| e.0 == i && is_conflict(e) == conflict)
                };
                let depends: Vec<_> = of(false).map(|e| format!("p{} | p{}", e.1, e.2)).collect();
                let conflicts: Vec<_> = of(true).map(|e| format!("p{}", e.2)).collect();
                let (depends, conflicts) = (depends.join(", "), conflicts.join(", "));
                format!("p{i} 1 / Depends: {depends} / Conflicts: {conflicts}")
            };
            let suite = (0..8).map(fields).collect::<Vec<_>>().join(";");
            let indexes = [index(Archive::Main, &suite)];
            let asked = request("p0 p1", "");
            let Ok(found) = resolve(&indexes, &asked) else { return Ok(()) };
            prop_assert_eq!(&found, &resolve(&indexes, &asked).unwrap());
            let has = |n: u8| found.iter().any(|p| p.name == format!("p{n}"));
            prop_assert!(has(0) && has(1));
            for (from, one, two, conflict) in edges.iter().filter(|e| has(e.0)) {
                match *conflict && one.is_multiple_of(3) {
                    true => prop_assert!(two == from || !has(*two)),
                    false => prop_assert!(has(*one) || has(*two)),
                }
            }
        }
    }
}
