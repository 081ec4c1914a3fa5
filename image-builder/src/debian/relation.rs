//! Relations between packages: deb-control(5), Policy chapter 7.

use super::index::Record;
use super::version;
use crate::{Error, Result};
use std::cmp::Ordering;
use std::fmt;

/// One alternative: a name and perhaps which versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Name of a real or virtual package.
    pub name: &'a str,
    /// Operator and version.
    pub version: Option<(Operator, &'a str)>,
}

/// How a version has to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Less,
    /// `<=`
    LessEqual,
    /// `=`
    Equal,
    /// `>=`
    GreaterEqual,
    /// `>>`
    Greater,
}

impl Operator {
    fn accepts(self, order: Ordering) -> bool {
        match self {
            Operator::Less => order.is_lt(),
            Operator::LessEqual => order.is_le(),
            Operator::Equal => order.is_eq(),
            Operator::GreaterEqual => order.is_ge(),
            Operator::Greater => order.is_gt(),
        }
    }
}

impl<'a> Relation<'a> {
    /// Any version of `name`.
    pub fn any(name: &'a str) -> Relation<'a> {
        Relation { name, version: None }
    }

    /// Whether this version of the named package will do.
    pub fn accepts(&self, candidate: &str) -> bool {
        self.version
            .is_none_or(|(operator, wanted)| operator.accepts(version::compare(candidate, wanted)))
    }

    /// Whether `record` is what is meant, by its own name or by one that it provides.
    pub fn matches(&self, record: Record) -> bool {
        if record.name() == self.name {
            return self.accepts(record.version());
        }
        // A provided name without a version does for any version only where none is asked for.
        provided(record).any(|p| {
            p.name == self.name
                && match (self.version, p.version) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(_), Some((_, version))) => self.accepts(version),
                }
        })
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        let Some((operator, version)) = self.version else { return Ok(()) };
        let operator = match operator {
            Operator::Less => "<<",
            Operator::LessEqual => "<=",
            Operator::Equal => "=",
            Operator::GreaterEqual => ">=",
            Operator::Greater => ">>",
        };
        write!(f, " ({operator} {version})")
    }
}

/// What a record provides beside its own name. Unreadable ones are left out.
fn provided(record: Record<'_>) -> impl Iterator<Item = Relation<'_>> {
    record.provides().split(',').filter_map(|text| parse_one(text.trim(), "").ok().flatten())
}

/// Reads a list like `a | b (>= 1), c`: one group of alternatives for each comma. Alternatives of
/// another architecture than `architecture` are left out. `owner` is for errors.
pub fn parse<'a>(list: &'a str, architecture: &str, owner: &str) -> Result<Vec<Vec<Relation<'a>>>> {
    list.split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(|group| {
            group
                .split('|')
                .filter_map(|one| parse_one(one.trim(), architecture).transpose())
                .collect::<std::result::Result<Vec<_>, ()>>()
                .map_err(|()| {
                    Error::corrupt(format!(
                        "index: package {owner}: cannot read relation `{group}`"
                    ))
                })
        })
        .collect()
}

fn parse_one<'a>(
    text: &'a str,
    architecture: &str,
) -> std::result::Result<Option<Relation<'a>>, ()> {
    let end = text.find([' ', '(', '[', '<']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let (name, qualifier) = name.split_once(':').unwrap_or((name, "any"));
    if name.is_empty() {
        return Err(());
    }
    let version = match rest.trim_start().strip_prefix('(') {
        None => None,
        Some(rest) => {
            let inner = rest.split_once(')').ok_or(())?.0.trim();
            let at = inner.find(|c| !"<>=".contains(c)).unwrap_or(inner.len());
            let operator = match &inner[..at] {
                "<<" => Operator::Less,
                "<=" | "<" => Operator::LessEqual,
                "=" => Operator::Equal,
                ">=" | ">" => Operator::GreaterEqual,
                ">>" => Operator::Greater,
                _ => return Err(()),
            };
            let version = inner[at..].trim();
            (!version.is_empty()).then_some(()).ok_or(())?;
            Some((operator, version))
        }
    };
    let here = ["any", "native", "all"].contains(&qualifier) || qualifier == architecture;
    Ok(here.then_some(Relation { name, version }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(list: &str) -> String {
        let groups = parse(list, "amd64", "test").unwrap();
        let groups: Vec<String> = groups
            .iter()
            .map(|group| group.iter().map(Relation::to_string).collect::<Vec<_>>().join(" | "))
            .collect();
        groups.join(", ")
    }

    #[test]
    fn lists() {
        for (list, expected) in [
            ("", ""),
            ("a", "a"),
            ("a, b (>= 1:2.0-1) | c(<<3) , d (= 1)", "a, b (>= 1:2.0-1) | c (<< 3), d (= 1)"),
            ("a:any (>> 1), b:native, c:amd64, d:i386 | e", "a (>> 1), b, c, e"),
            ("a (> 1), b (< 2)", "a (>= 1), b (<= 2)"),
            ("a (>= 1) [amd64] <!nocheck>", "a (>= 1)"),
        ] {
            assert_eq!(shown(list), expected, "{list}");
        }
        for bad in ["a |", "(>= 1)", "a (1)", "a (>= )", "a (>= 1", "a (=> 1)"] {
            assert!(parse(bad, "amd64", "test").is_err(), "{bad}");
        }
    }

    #[test]
    fn operators() {
        for (operator, below, same, above) in [
            ("<<", true, false, false),
            ("<=", true, true, false),
            ("=", false, true, false),
            (">=", false, true, true),
            (">>", false, false, true),
        ] {
            let list = format!("a ({operator} 2)");
            let relation = parse(&list, "amd64", "test").unwrap()[0][0];
            let accepted = ["1", "2", "3"].map(|v| relation.accepts(v));
            assert_eq!(accepted, [below, same, above], "{operator}");
        }
    }
}
