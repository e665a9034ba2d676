//! Templates of settings: text with names in it, filled on each workstation.
//!
//! ```text
//! proxy={{ value.proxy or "" }}        college, machine, platform, room; value.NAME as the deployment gives it
//! room={{ room }}
//! ```
//!
//! A name is replaced once: what it stands for is never read as a template again. There is nothing else to it — no
//! conditions, no loops, no files — so that a setting never does more than its approver saw.

use std::collections::BTreeMap;

/// The largest file that is made: a setting is read by people.
const MAX_FILLED_BYTES: usize = 1 << 20;
/// So much of a name is repeated in an error.
const MAX_SHOWN: usize = 80;

/// Why a template cannot be filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A name that nobody gave a meaning.
    #[error("line {line} of the template names `{name}`, which is not known here")]
    Unknown {
        /// The name.
        name: String,
        /// Its line, counted from 1.
        line: usize,
    },
    /// What is between the braces is neither a name nor a name with its default.
    #[error(r#"line {line} of the template has `{{{{{text}}}}}`, which is neither `{{{{ name }}}}` nor `{{{{ name or "default" }}}}`"#)]
    Malformed {
        /// What is there.
        text: String,
        /// Its line, counted from 1.
        line: usize,
    },
    /// Braces that nothing closes.
    #[error("line {line} of the template has `{{{{` without `}}}}`")]
    Unclosed {
        /// The line, counted from 1.
        line: usize,
    },
    /// More than a setting may have.
    #[error("the template makes more than 1 MiB")]
    TooLarge,
}

/// `template` with each name replaced by what `facts` say it is.
pub fn fill(template: &str, facts: &BTreeMap<&str, &str>) -> Result<String, TemplateError> {
    let mut filled = String::new();
    let mut push = |text: &str| {
        if filled.len() + text.len() > MAX_FILLED_BYTES {
            return Err(TemplateError::TooLarge);
        }
        filled.push_str(text);
        Ok(())
    };
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        push(before)?;
        let line = || template[..template.len() - after.len()].matches('\n').count() + 1;
        let (inside, after_it) =
            after.split_once("}}").ok_or_else(|| TemplateError::Unclosed { line: line() })?;
        let (name, default) = reference(inside)
            .ok_or_else(|| TemplateError::Malformed { text: shown(inside), line: line() })?;
        let value = facts.get(name).copied().or(default);
        push(value.ok_or_else(|| TemplateError::Unknown { name: shown(name), line: line() })?)?;
        rest = after_it;
    }
    push(rest)?;
    Ok(filled)
}

/// The name between braces, and its default.
fn reference(inside: &str) -> Option<(&str, Option<&str>)> {
    let inside = inside.trim_matches(' ');
    let (name, rest) = inside.split_once(' ').unwrap_or((inside, ""));
    let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let default = match rest.trim_start_matches(' ').strip_prefix("or ") {
        Some(quoted) => {
            let text = quoted.trim_start_matches(' ').strip_prefix('"')?.strip_suffix('"')?;
            Some(text).filter(|text| !text.contains(['"', '\n']))
        }
        None => None,
    };
    (named && (rest.is_empty() || default.is_some())).then_some((name, default))
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([
            ("college", "57001"),
            ("room", ""),
            ("value.proxy", "http://proxy:3128"),
            ("value.odd", "{{ room }}"),
        ])
    }

    #[test]
    fn names_are_replaced() {
        for (template, expected) in [
            ("", ""),
            ("no names, { one brace }", "no names, { one brace }"),
            ("proxy={{ value.proxy }}\n", "proxy=http://proxy:3128\n"),
            ("{{college}}-{{  room  }}", "57001-"),
            (r#"{{ value.none or "direct, or not" }}"#, "direct, or not"),
            (r#"{{ value.none or "" }}"#, ""),
            (r#"{{ room or "nowhere" }}"#, ""),
            ("what it stands for is text: {{ value.odd }}", "what it stands for is text: {{ room }}"),
            ("}} alone is text", "}} alone is text"),
        ] {
            assert_eq!(fill(template, &facts()).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_cannot_be_filled_is_named() {
        for (template, expected) in [
            ("a\nb={{ value.pr0xy }}", "line 2 of the template names `value.pr0xy`, which is not known here"),
            ("{{ college", "line 1 of the template has `{{` without `}}`"),
            (
                "{{ a b }}",
                r#"line 1 of the template has `{{ a b }}`, which is neither `{{ name }}` nor `{{ name or "default" }}`"#,
            ),
        ] {
            assert_eq!(fill(template, &facts()).unwrap_err().to_string(), expected);
        }
        for malformed in
            ["{{}}", "{{ }}", "{{ é }}", "{{ a or }}", "{{ a or b }}", r#"{{ a or "}} }}"#, "{{ {{ a }}"]
        {
            let refused = fill(malformed, &facts());
            assert!(matches!(refused, Err(TemplateError::Malformed { .. })), "{malformed}: {refused:?}");
        }
    }

    #[test]
    fn what_is_made_has_a_limit() {
        let long = "x".repeat(1000);
        let facts = BTreeMap::from([("a", long.as_str())]);
        assert!(fill(&"{{a}}".repeat(1048), &facts).is_ok());
        assert_eq!(fill(&"{{a}}".repeat(1049), &facts), Err(TemplateError::TooLarge));
    }
}
