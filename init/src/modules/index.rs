//! What the modules of a kernel need and answer to: kmod's `modules.dep`, `modules.alias` and
//! `modules.softdep`, as texts.

use contract::module_alias;
use std::collections::{HashMap, HashSet};

/// The three texts, with module names looked up fast.
#[derive(Debug, Default)]
pub struct Index {
    dep: String,
    alias: String,
    softdep: String,
    /// Normalised name to the byte offset of its line in `dep`.
    lines: HashMap<String, usize>,
}

/// A line of `modules.softdep`.
#[derive(Default)]
struct Soft<'a> {
    before: Vec<&'a str>,
    after: Vec<&'a str>,
}

impl Index {
    /// From the content of the three files.
    pub fn new(dep: String, alias: String, softdep: String) -> Index {
        let mut lines = HashMap::new();
        let mut offset = 0;
        for line in dep.split_inclusive('\n') {
            if let Some((path, _)) = line.split_once(':') {
                lines.insert(name_of(path), offset);
            }
            offset += line.len();
        }
        Index { dep, alias, softdep, lines }
    }

    /// The files to load for `wanted`, the name of a module or an alias, in the order in which
    /// they are loaded. Empty when nothing answers to it.
    pub fn order(&self, wanted: &str) -> Vec<&str> {
        let mut order = Vec::new();
        let mut seen = HashSet::new();
        for line in self.resolve(wanted) {
            self.visit(line, &mut seen, &mut order);
        }
        order
    }

    /// Offsets of the lines of all modules that answer to `wanted`.
    fn resolve(&self, wanted: &str) -> Vec<usize> {
        let name = normalise(wanted);
        if let Some(&line) = self.lines.get(&name) {
            return vec![line];
        }
        self.alias
            .lines()
            .filter_map(|line| line.strip_prefix("alias ")?.rsplit_once(' '))
            .filter(|(pattern, _)| module_alias::matches(pattern, wanted))
            .filter_map(|(_, module)| self.lines.get(&normalise(module)).copied())
            .collect()
    }

    /// Appends the module at `line` after all that it needs. What was seen is not visited again,
    /// so that a circle ends.
    fn visit<'a>(&'a self, line: usize, seen: &mut HashSet<usize>, order: &mut Vec<&'a str>) {
        if !seen.insert(line) {
            return;
        }
        let Some((path, needs)) =
            self.dep[line..].lines().next().and_then(|text| text.split_once(':'))
        else {
            return;
        };
        let soft = self.soft(&name_of(path));
        for line in soft.before.iter().flat_map(|wanted| self.resolve(wanted)) {
            self.visit(line, seen, order);
        }
        // kmod lists what has to come first last.
        for need in needs.split_whitespace().rev() {
            if let Some(&line) = self.lines.get(&name_of(need)) {
                self.visit(line, seen, order);
            }
        }
        order.push(path);
        for line in soft.after.iter().flat_map(|wanted| self.resolve(wanted)) {
            self.visit(line, seen, order);
        }
    }

    fn soft(&self, name: &str) -> Soft<'_> {
        let mut soft = Soft::default();
        for line in self.softdep.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep")
                || words.next().map(normalise).as_deref() != Some(name)
            {
                continue;
            }
            let mut after = false;
            for word in words {
                match word {
                    "pre:" => after = false,
                    "post:" => after = true,
                    module if after => soft.after.push(module),
                    module => soft.before.push(module),
                }
            }
        }
        soft
    }
}

/// The name of the module in a file: `kernel/drivers/md/dm-verity.ko.xz` is `dm_verity`.
pub fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normalise(file.split(".ko").next().unwrap_or(file))
}

fn normalise(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        Index::new(
            "kernel/a.ko: kernel/c.ko kernel/b-b.ko\n\
             kernel/b-b.ko: kernel/c.ko\n\
             kernel/c.ko:\n\
             kernel/fs/ext4.ko.xz: kernel/jbd2.ko.xz\n\
             kernel/jbd2.ko.xz:\n\
             kernel/crc32c_generic.ko:\n\
             kernel/crc32c-intel.ko:\n\
             kernel/late.ko:\n\
             kernel/x.ko: kernel/y.ko\n\
             kernel/y.ko: kernel/x.ko\n\
             kernel/lost.ko: kernel/absent.ko\n"
                .to_owned(),
            "# Aliases extracted from modules themselves.\n\
             alias crypto-crc32c crc32c_generic\n\
             alias crypto-crc32c crc32c_intel\n\
             alias fs-ext4 ext4\n\
             alias pci:v00001AF4d*sv* a\n\
             alias gone absent\n"
                .to_owned(),
            "# Soft dependencies extracted from modules themselves.\n\
             softdep ext4 pre: crypto-crc32c post: late\n"
                .to_owned(),
        )
    }

    #[test]
    fn order_table() {
        let index = index();
        let cases: [(&str, &[&str]); 9] = [
            ("c", &["kernel/c.ko"]),
            ("a", &["kernel/c.ko", "kernel/b-b.ko", "kernel/a.ko"]),
            ("b_b", &["kernel/c.ko", "kernel/b-b.ko"]),
            ("b-b", &["kernel/c.ko", "kernel/b-b.ko"]),
            ("pci:v00001AF4d00001000sv0", &["kernel/c.ko", "kernel/b-b.ko", "kernel/a.ko"]),
            (
                "fs-ext4",
                &[
                    "kernel/crc32c_generic.ko",
                    "kernel/crc32c-intel.ko",
                    "kernel/jbd2.ko.xz",
                    "kernel/fs/ext4.ko.xz",
                    "kernel/late.ko",
                ],
            ),
            ("x", &["kernel/y.ko", "kernel/x.ko"]),
            ("lost", &["kernel/lost.ko"]),
            ("gone", &[]),
        ];
        for (wanted, expected) in cases {
            assert_eq!(index.order(wanted), expected, "{wanted}");
        }
    }

    #[test]
    fn names_come_from_files() {
        assert_eq!(name_of("kernel/drivers/md/dm-verity.ko.xz"), "dm_verity");
        assert_eq!(name_of("ext4.ko"), "ext4");
    }

    proptest::proptest! {
        #[test]
        fn each_file_is_loaded_once_and_after_what_it_needs(
            edges in proptest::collection::vec((0..8_usize, 0..8_usize), 0..24),
        ) {
            let mut dep = String::new();
            for i in 0..8 {
                // Only downwards: no circles.
                let needs = edges.iter().filter(|(from, to)| *from == i && to < from);
                let needs: String = needs.map(|(_, to)| format!(" m{to}.ko")).collect();
                dep.push_str(&format!("m{i}.ko:{needs}\n"));
            }
            let index = Index::new(dep, String::new(), String::new());
            let order = index.order("m7");
            let place = |i: usize| order.iter().position(|path| *path == format!("m{i}.ko"));
            proptest::prop_assert_eq!(order.iter().collect::<HashSet<_>>().len(), order.len());
            for (from, to) in edges.into_iter().filter(|(from, to)| to < from) {
                if let Some(at) = place(from) {
                    proptest::prop_assert!(place(to).is_some_and(|before| before < at));
                }
            }
        }
    }
}
