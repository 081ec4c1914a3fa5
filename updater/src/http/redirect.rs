//! Where a redirect leads.

/// Most redirects of one request.
pub(super) const MOST: usize = 5;

/// The address that `location` stands for in the answer to a request for `url` (RFC 3986, section
/// 5.2, without `.` and `..`, which servers resolve).
pub(super) fn target(url: &str, location: &str) -> Option<String> {
    let location = location.split('#').next().unwrap_or_default();
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    let (scheme, rest) = url.split_once("://")?;
    if let Some(other) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{other}"));
    }
    let rest = rest.split('?').next().unwrap_or_default();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    // The same server: a name and a password stay.
    if location.starts_with('/') {
        return Some(format!("{scheme}://{host}{location}"));
    }
    if location.is_empty() || location.split(['/', '?']).next()?.contains(':') {
        return None;
    }
    let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    Some(format!("{scheme}://{host}/{folder}{location}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_leads() {
        let cases = [
            ("https://b/x", Some("https://b/x")),
            ("//b/x#y", Some("http://b/x")),
            ("/x?y", Some("http://me:pw@a:1/x?y")),
            ("x", Some("http://me:pw@a:1/p/x")),
            ("ftp://b/x", None),
            ("file:///x", None),
            ("", None),
        ];
        for (location, expected) in cases {
            let found = target("http://me:pw@a:1/p/q?r", location);
            assert_eq!(found.as_deref(), expected, "{location}");
        }
        assert_eq!(target("http://a", "x").as_deref(), Some("http://a/x"));
    }
}
