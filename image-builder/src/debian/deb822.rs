//! The paragraph format of Debian's control files: deb822(5).

/// Paragraphs of `text`, each as its fields in order. A continuation line is joined to its field
/// with a newline and without its first space; comment lines are skipped.
pub fn paragraphs(text: &str) -> Vec<Vec<(&str, String)>> {
    let mut all = Vec::new();
    let mut fields: Vec<(&str, String)> = Vec::new();
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            if !fields.is_empty() {
                all.push(std::mem::take(&mut fields));
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line[1..].trim_end());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim(), value.trim().to_owned()));
        }
    }
    if !fields.is_empty() {
        all.push(fields);
    }
    all
}

/// The value of a field; names do not differ by case.
pub fn field<'a>(paragraph: &'a [(&str, String)], name: &str) -> Option<&'a str> {
    paragraph.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_continue_and_paragraphs_end() {
        let text = "# comment\nTypes: deb\nURIs: http://a\n http://b\n\n \nName : x\n# y\n rest\n";
        let all = paragraphs(text);
        assert_eq!(all.len(), 2);
        assert_eq!(field(&all[0], "uris"), Some("http://a\nhttp://b"));
        assert_eq!(field(&all[1], "Name"), Some("x\nrest"));
        assert_eq!(field(&all[1], "Other"), None);
    }
}
