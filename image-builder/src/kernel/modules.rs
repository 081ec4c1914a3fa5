//! The index of a kernel's modules: what depmod makes out of them, since Debian's kernel packages
//! leave that to a maintainer script.
//!
//! Dependencies come from `depends=` in modinfo, so no symbol table is read.

use super::modinfo;
use crate::tree::{Kind, Tree};
use crate::{Error, Result};
use contract::module_alias;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

/// A module that can be loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name, with `_` for `-`.
    pub name: String,
    /// Its path below `usr/lib/modules/RELEASE`.
    pub path: String,
    /// Modules that it needs, by name, as the module itself lists them.
    pub depends: Vec<String>,
    /// Soft dependencies as it states them: `pre: a b post: c` are names or aliases to load
    /// before and after it, where they exist.
    pub softdeps: Vec<String>,
    /// Patterns by which the kernel asks for it.
    pub aliases: Vec<String>,
}

/// All modules of one kernel. Serialisable, so that it can be cached by the kernel package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleIndex {
    /// Kernel release, as `uname -r` prints it.
    pub release: String,
    /// Modules in the kernel's own order, which decides between two that want the same device.
    pub modules: Vec<Module>,
    /// Names of what is built into the kernel.
    pub builtin: BTreeSet<String>,
    /// Aliases of what is built in.
    pub builtin_aliases: Vec<String>,
}

/// Modules to load for some names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closure {
    /// Names in an order in which they can be loaded.
    pub load: Vec<String>,
    /// What was asked for, or needed without choice, and is neither a module nor built in.
    pub unknown: Vec<String>,
}

/// Folder of the modules of kernel `release`.
pub fn directory(release: &str) -> String {
    format!("usr/lib/modules/{release}")
}

/// Reads the modules of kernel `release` in `tree`, compressed or not.
pub fn index(tree: &Tree, release: &str) -> Result<ModuleIndex> {
    let prefix = directory(release) + "/";
    let mut modules = Vec::new();
    for (path, node) in tree.iter() {
        let Some(below) = path.strip_prefix(&prefix) else { continue };
        let Kind::File(content) = &node.kind else { continue };
        let Some(name) = module_name(below) else { continue };
        let info = modinfo::read(path, content)?;
        let mut module = Module { name, path: below.to_owned(), ..Module::default() };
        let depends = info.values("depends").flat_map(|list| list.split(','));
        module.depends = depends.filter(|name| !name.is_empty()).map(normal).collect();
        module.softdeps = info.values("softdep").map(str::to_owned).collect();
        module.aliases = info.values("alias").map(str::to_owned).collect();
        modules.push(module);
    }
    if modules.is_empty() {
        return Err(Error::corrupt(format!("no kernel modules in {prefix}")));
    }
    let order = text(tree, &format!("{prefix}modules.order"))?;
    let place: HashMap<&str, usize> = order.lines().enumerate().map(|(i, l)| (l, i)).collect();
    modules.sort_by_cached_key(|module| {
        let place = place.get(module.path.trim_end_matches(".xz")).copied();
        (place.unwrap_or(usize::MAX), module.path.clone())
    });
    let builtin = text(tree, &format!("{prefix}modules.builtin"))?;
    let builtin_info = text(tree, &format!("{prefix}modules.builtin.modinfo"))?;
    let builtin_aliases = builtin_info
        .split('\0')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| key.ends_with(".alias"))
        .map(|(_, alias)| alias.to_owned());
    Ok(ModuleIndex {
        release: release.to_owned(),
        modules,
        builtin: builtin.lines().filter_map(module_name).collect(),
        builtin_aliases: builtin_aliases.collect(),
    })
}

fn text(tree: &Tree, path: &str) -> Result<String> {
    match tree.get(path).map(|node| &node.kind) {
        Some(Kind::File(content)) => Ok(String::from_utf8_lossy(&content.read_all()?).into_owned()),
        _ => Ok(String::new()),
    }
}

/// The module's name, when `path` is one of a module.
fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    Some(normal(file.trim_end_matches(".xz").strip_suffix(".ko")?))
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

impl Module {
    /// Soft dependencies to load before it, or after it.
    fn soft(&self, when: &'static str) -> impl Iterator<Item = &str> {
        self.softdeps.iter().flat_map(move |text| {
            let mut wanted = false;
            text.split_whitespace().filter(move |word| {
                let heading = matches!(*word, "pre:" | "post:");
                if heading {
                    wanted = *word == when;
                }
                wanted && !heading
            })
        })
    }
}

impl ModuleIndex {
    fn by_name(&self) -> HashMap<&str, &Module> {
        self.modules.iter().map(|module| (module.name.as_str(), module)).collect()
    }

    /// The module called `name`.
    pub fn find(&self, name: &str) -> Option<&Module> {
        let name = normal(name);
        self.modules.iter().find(|module| module.name == name)
    }

    /// Whether `name` is built into the kernel, by name or alias.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&normal(name))
            || self.builtin_aliases.iter().any(|pattern| module_alias::matches(pattern, name))
    }

    /// Everything to load for `names` (modules or aliases), following dependencies, soft
    /// dependencies and aliases. Soft dependencies that do not exist are left out, as modprobe
    /// does.
    pub fn closure<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Closure {
        let by_name = self.by_name();
        let mut walk =
            Walk { index: self, by_name, seen: BTreeSet::new(), out: Closure::default() };
        for name in names {
            if !walk.want(name) {
                walk.out.unknown.push(name.to_owned());
            }
        }
        walk.out
    }

    /// The same index with nothing but the modules in `names`.
    pub fn restrict(&self, names: &[String]) -> ModuleIndex {
        let keep: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let kept = self.modules.iter().filter(|module| keep.contains(module.name.as_str()));
        ModuleIndex { modules: kept.cloned().collect(), ..self.clone() }
    }

    /// `modules.dep`: each module and all that it needs, to be loaded from the last to the first.
    pub fn dep_text(&self) -> String {
        let by_name = self.by_name();
        let rank = self.users_first();
        let mut out = String::new();
        for module in &self.modules {
            let mut needed: BTreeMap<usize, &str> = BTreeMap::new();
            let mut todo = vec![module];
            while let Some(next) = todo.pop() {
                for found in next.depends.iter().filter_map(|name| by_name.get(name.as_str())) {
                    let fresh = needed.insert(rank[found.name.as_str()], &found.path).is_none();
                    if fresh && found.name != module.name {
                        todo.push(found);
                    }
                }
            }
            let _ = write!(out, "{}:", module.path);
            for path in needed.values() {
                let _ = write!(out, " {path}");
            }
            out.push('\n');
        }
        out
    }

    /// `modules.alias`.
    pub fn alias_text(&self) -> String {
        let mut out = String::from("# Aliases extracted from modules themselves.\n");
        for module in &self.modules {
            for alias in &module.aliases {
                let _ = writeln!(out, "alias {alias} {}", module.name);
            }
        }
        out
    }

    /// `modules.softdep`.
    pub fn softdep_text(&self) -> String {
        let mut out = String::from("# Soft dependencies extracted from modules themselves.\n");
        for module in &self.modules {
            for text in &module.softdeps {
                let _ = writeln!(out, "softdep {} {text}", module.name);
            }
        }
        out
    }

    /// The three files that programs look modules up in: name and text.
    pub fn files(&self) -> [(&'static str, String); 3] {
        [
            ("modules.dep", self.dep_text()),
            ("modules.alias", self.alias_text()),
            ("modules.softdep", self.softdep_text()),
        ]
    }

    /// A number for each module that is lower than those of all modules it needs.
    fn users_first(&self) -> HashMap<&str, usize> {
        let by_name = self.by_name();
        let mut done: Vec<&str> = Vec::with_capacity(self.modules.len());
        let mut seen = BTreeSet::new();
        for module in &self.modules {
            // Depth first with a stack of our own: (module, next dependency).
            let mut stack = vec![(module, 0)];
            if !seen.insert(module.name.as_str()) {
                continue;
            }
            while let Some((module, next)) = stack.pop() {
                match module.depends.get(next) {
                    None => done.push(&module.name),
                    Some(name) => {
                        stack.push((module, next + 1));
                        if let Some(found) = by_name.get(name.as_str())
                            && seen.insert(found.name.as_str())
                        {
                            stack.push((found, 0));
                        }
                    }
                }
            }
        }
        done.into_iter().rev().enumerate().map(|(i, name)| (name, i)).collect()
    }
}

struct Walk<'a> {
    index: &'a ModuleIndex,
    by_name: HashMap<&'a str, &'a Module>,
    seen: BTreeSet<&'a str>,
    out: Closure,
}

impl Walk<'_> {
    /// Adds what `name` stands for. Whether there is such a thing.
    fn want(&mut self, name: &str) -> bool {
        let normal = normal(name);
        if let Some(module) = self.by_name.get(normal.as_str()).copied() {
            self.add(module);
            return true;
        }
        let index = self.index;
        let matches =
            |module: &&Module| module.aliases.iter().any(|a| module_alias::matches(a, name));
        let mut found = index.is_builtin(name);
        for module in index.modules.iter().filter(matches) {
            self.add(module);
            found = true;
        }
        found
    }

    fn add(&mut self, module: &Module) {
        // Borrow the name from the index, which outlives the walk.
        let Some((&name, _)) = self.by_name.get_key_value(module.name.as_str()) else { return };
        if !self.seen.insert(name) {
            return;
        }
        for soft in module.soft("pre:") {
            self.want(soft);
        }
        for needed in &module.depends {
            if !self.want(needed) && !self.out.unknown.contains(needed) {
                self.out.unknown.push(needed.clone());
            }
        }
        self.out.load.push(name.to_owned());
        for soft in module.soft("post:") {
            self.want(soft);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::modinfo::sample_module;
    use super::*;
    use crate::tree::Node;

    fn sample() -> ModuleIndex {
        let mut tree = Tree::new(0);
        let mut put = |path: &str, bytes: Vec<u8>| {
            tree.insert(&format!("usr/lib/modules/6.1/{path}"), Node::file(bytes, 0));
        };
        let ext4 = ["depends=jbd2,mbcache", "softdep=pre: crc32c", "alias=fs-ext4"];
        put("kernel/fs/ext4/ext4.ko", sample_module(&ext4));
        put("kernel/fs/jbd2/jbd2.ko", sample_module(&["depends=crc16"]));
        put("kernel/fs/mbcache.ko", sample_module(&["depends="]));
        put("kernel/lib/crc16.ko", sample_module(&[]));
        put(
            "kernel/crypto/crc32c-intel.ko",
            sample_module(&["alias=crc32c", "alias=crypto-crc32c"]),
        );
        put("kernel/crypto/crc32c_generic.ko", sample_module(&["alias=crc32c"]));
        put("kernel/x/broken.ko", sample_module(&["depends=nowhere"]));
        put("modules.order", b"kernel/lib/crc16.ko\nkernel/fs/mbcache.ko\n".to_vec());
        put("modules.builtin", b"kernel/crypto/sha256-generic.ko\n".to_vec());
        put("modules.builtin.modinfo", b"sha256_generic.alias=crypto-sha256\0".to_vec());
        index(&tree, "6.1").expect("an index")
    }

    #[test]
    fn closure_follows_dependencies_soft_dependencies_and_aliases() {
        let cases: [(&[&str], &[&str], &[&str]); 5] = [
            (
                &["ext4"],
                &["crc32c_intel", "crc32c_generic", "crc16", "jbd2", "mbcache", "ext4"],
                &[],
            ),
            (
                &["fs-ext4", "jbd2"],
                &["crc32c_intel", "crc32c_generic", "crc16", "jbd2", "mbcache", "ext4"],
                &[],
            ),
            (&["sha256_generic", "crypto-sha256"], &[], &[]),
            (&["crypto-crc32c", "nothing"], &["crc32c_intel"], &["nothing"]),
            (&["broken"], &["broken"], &["nowhere"]),
        ];
        for (names, load, unknown) in cases {
            let closure = sample().closure(names.iter().copied());
            assert_eq!(closure.load, load, "{names:?}");
            assert_eq!(closure.unknown, unknown, "{names:?}");
        }
    }

    #[test]
    fn texts_have_the_format_of_depmod() {
        let index = sample();
        let dep = index.dep_text();
        assert!(dep.starts_with("kernel/lib/crc16.ko:\nkernel/fs/mbcache.ko:\n"), "{dep}");
        let ext4 = dep.lines().find(|line| line.starts_with("kernel/fs/ext4")).expect("ext4");
        let place = |part: &str| ext4.find(part).expect(part);
        assert!(place(" kernel/fs/jbd2/jbd2.ko") < place(" kernel/lib/crc16.ko"));
        assert!(index.alias_text().contains("\nalias crypto-crc32c crc32c_intel\n"));
        assert!(index.softdep_text().ends_with("\nsoftdep ext4 pre: crc32c\n"));
    }

    #[test]
    fn a_restricted_index_says_nothing_of_the_rest() {
        let index = sample().restrict(&["crc16".into()]);
        assert_eq!(index.dep_text(), "kernel/lib/crc16.ko:\n");
    }

    #[test]
    fn modules_that_need_each_other_end() {
        let module = |name: &str, needs: &str| Module {
            name: name.into(),
            path: format!("{name}.ko"),
            depends: vec![needs.into()],
            ..Module::default()
        };
        let modules = vec![module("a", "b"), module("b", "a")];
        let index = ModuleIndex { modules, ..ModuleIndex::default() };
        assert_eq!(index.closure(["a"]).load, ["b", "a"]);
        assert_eq!(index.dep_text().lines().count(), 2);
    }
}
