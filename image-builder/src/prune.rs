//! Leaving out what a container host does not need.

use crate::tree::{Kind, Tree};

/// Which paths stay. `*` in a pattern stands for any text, slashes included; a pattern that names
/// a directory stands for everything below it too.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    drop: Vec<String>,
    keep: Vec<String>,
}

impl Rules {
    /// Paths that match `keep` stay, of the others those that match `drop` go. Leading slashes do
    /// not count.
    pub fn new<D, K>(drop: D, keep: K) -> Rules
    where
        D: IntoIterator<Item: Into<String>>,
        K: IntoIterator<Item: Into<String>>,
    {
        let bare = |pattern: String| pattern.trim_matches('/').to_owned();
        Rules {
            drop: drop.into_iter().map(Into::into).map(bare).collect(),
            keep: keep.into_iter().map(Into::into).map(bare).collect(),
        }
    }

    /// Whether `path` goes.
    pub fn drops(&self, path: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|p| matches_path(p, path));
        any(&self.drop) && !any(&self.keep)
    }

    /// Takes what the rules drop out of `tree`, and directories that became empty by it. Returns
    /// the paths that went, in order.
    pub fn apply(&self, tree: &mut Tree) -> Vec<String> {
        let gone: Vec<String> = tree
            .iter()
            .filter(|(path, node)| {
                !path.is_empty() && !matches!(node.kind, Kind::Directory) && self.drops(path)
            })
            .map(|(path, _)| path.to_owned())
            .collect();
        self.remove(tree, gone)
    }

    /// Takes `gone` out of `tree`, and directories that the rules drop once they are empty.
    pub fn remove(&self, tree: &mut Tree, mut gone: Vec<String>) -> Vec<String> {
        for path in &gone {
            tree.remove(path);
        }
        let directories: Vec<String> = tree
            .iter()
            .filter(|(path, node)| matches!(node.kind, Kind::Directory) && self.drops(path))
            .map(|(path, _)| path.to_owned())
            .collect();
        // Deepest first, so that parents are empty by the time they are looked at.
        for path in directories.into_iter().rev() {
            if tree.is_empty_directory(&path) {
                gone.extend(tree.remove(&path));
            }
        }
        gone.sort();
        gone
    }
}

fn matches_path(pattern: &str, path: &str) -> bool {
    glob(pattern.as_bytes(), path.as_bytes())
        || path.match_indices('/').any(|(at, _)| glob(pattern.as_bytes(), &path.as_bytes()[..at]))
}

/// Whether `text` is of the form `pattern`, in which `*` stands for any text.
pub(crate) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            p = star_p + 1;
            t = star_t + 1;
            star = Some((star_p, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    #[test]
    fn globs() {
        let cases = [
            ("usr/share/doc", "usr/share/doc", true),
            ("usr/share/doc", "usr/share/docx", false),
            ("*.so", "usr/lib/a.so", true),
            ("usr/*/perl*", "usr/share/perl5/x.pm", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxcxxb", false),
            ("", "", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn keep_wins_and_empty_directories_go() {
        let mut tree = Tree::new(0);
        for path in ["usr/share/doc/a/copyright", "usr/share/doc/b/README", "usr/bin/x"] {
            tree.insert(path, Node::file(*b"", 0));
        }
        let rules = Rules::new(["/usr/share/doc/"], ["usr/share/doc/a/*"]);
        assert_eq!(rules.apply(&mut tree), ["usr/share/doc/b", "usr/share/doc/b/README"]);
        assert!(tree.get("usr/share/doc/a/copyright").is_some());
        assert!(tree.get("usr/bin/x").is_some());
    }
}
