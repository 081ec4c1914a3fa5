//! Canonical JSON: the bytes that TUF signatures are made over.

use serde_json::Value;

/// The canonical form of `value`: members sorted by name, no white space, in strings only `"` and
/// `\` escaped. `None` when it holds a number that is not an integer, for which there is no
/// canonical form.
pub fn canonical(value: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    write(value, &mut out).then_some(out)
}

fn write(value: &Value, out: &mut Vec<u8>) -> bool {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) if number.is_f64() => return false,
        Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                if !write(item, out) {
                    return false;
                }
            }
            out.push(b']');
        }
        Value::Object(members) => {
            // Sorted here, because another crate may have made the map keep its order.
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            out.push(b'{');
            for (i, (name, member)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_text(name, out);
                out.push(b':');
                if !write(member, out) {
                    return false;
                }
            }
            out.push(b'}');
        }
    }
    true
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_for_each_meaning() {
        let cases = [
            (r#" { "b" : 1, "a" : [ true, null, -2 ] } "#, Some(r#"{"a":[true,null,-2],"b":1}"#)),
            (r#"{"é":"ü\u00fc","z":"\"\\\/"}"#, Some(r#"{"z":"\"\\/","é":"üü"}"#)),
            (r#"["line\nbreak"]"#, Some("[\"line\nbreak\"]")),
            (r#"{"a":{"c":{},"b":[]}}"#, Some(r#"{"a":{"b":[],"c":{}}}"#)),
            ("[1.5]", None),
            (r#"{"a":1e3}"#, None),
        ];
        for (input, expected) in cases {
            let value: Value = serde_json::from_str(input).expect(input);
            assert_eq!(canonical(&value).as_deref(), expected.map(str::as_bytes), "{input}");
        }
    }
}
