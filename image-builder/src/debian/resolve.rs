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
                false => format!("{chain}: {name} conflicts with {other_name} ({other_chain})"),
            };
            return Error::refused(what);
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
