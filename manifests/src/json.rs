//! JSON read strictly and written canonically.
//!
//! Reading refuses what parsers disagree about: duplicate members, numbers with a fraction or exponent, nesting deeper
//! than `serde_json`'s 128, names that `serde_json` keeps for itself. Writing is OLPC canonical JSON, the form TUF signatures cover (TUF 1.0.34, 4.2.1): members
//! sorted by code point, no white space, and in strings only `"` and `\` escaped. It is *not* RFC 8785.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// `serde_json` reads a member of such a name as something else: `RawValue`'s as the JSON in its string, where there may
/// be fractions and duplicates, and where no signature says what the reader sees.
const RESERVED_PREFIX: &str = "$serde_json::private::";

/// A JSON value without floating point and without duplicate members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object; its members in canonical order.
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// Parses one JSON text, strictly.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Reads one JSON text through as strictly as [`Json::parse`], and keeps nothing of it: for whoever reads it into types
    /// of their own afterwards.
    pub fn check(bytes: &[u8]) -> Result<(), serde_json::Error> {
        serde_json::from_slice(bytes).map(|Strict| ())
    }

    /// The value of anything that serialises.
    pub fn of<T: Serialize>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(&serde_json::to_vec(value)?)
    }

    /// The value as OLPC canonical JSON: the bytes a TUF signature covers.
    ///
    /// Control characters stay raw in strings, so this is not always valid JSON: it is for signing, not for files.
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_canonical(&mut out);
        out
    }

    /// The value as a file: compact JSON, members in canonical order.
    ///
    /// # Panics
    /// Never for a value that was parsed: only a number beyond 64 bits cannot be written.
    pub fn to_file(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a Json value always serialises")
    }

    fn write_canonical(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::String(text) => write_canonical_string(text, out),
            Self::Array(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write_canonical(out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_canonical_string(name, out);
                    out.push(b':');
                    value.write_canonical(out);
                }
                out.push(b'}');
            }
        }
    }
}

fn write_canonical_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' || byte == b'\\' {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(number) => match (i64::try_from(*number), u64::try_from(*number)) {
                (Ok(number), _) => serializer.serialize_i64(number),
                (_, Ok(number)) => serializer.serialize_u64(number),
                _ => Err(serde::ser::Error::custom("a number beyond 64 bits")),
            },
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(members) => serializer.collect_map(members),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value without fractions")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = access.next_entry::<String, Json>()? {
            if members.contains_key(&name) {
                return Err(serde::de::Error::custom(format_args!("duplicate member `{name}`")));
            }
            if name.starts_with(RESERVED_PREFIX) {
                return Err(serde::de::Error::custom(format_args!("reserved member `{name}`")));
            }
            members.insert(name, value);
        }
        Ok(Json::Object(members))
    }
}

/// A JSON value that [`JsonVisitor`] would accept.
struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        JsonVisitor.expecting(f)
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_str<E>(self, _: &str) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Strict, A::Error> {
        while let Some(Strict) = access.next_element()? {}
        Ok(Strict)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Strict, A::Error> {
        let mut names: Vec<Cow<'de, str>> = Vec::new();
        while let Some((Name(name), Strict)) = access.next_entry()? {
            if name.starts_with(RESERVED_PREFIX) {
                return Err(serde::de::Error::custom(format_args!("reserved member `{name}`")));
            }
            names.push(name);
        }
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(serde::de::Error::custom(format_args!("duplicate member `{}`", pair[0]))),
            None => Ok(Strict),
        }
    }
}

/// A member's name, from the text itself where no escape stands in it.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        String::from_utf8(Json::parse(text.as_bytes()).unwrap().canonical()).unwrap()
    }

    #[test]
    fn writes_canonical_json() {
        let cases = [
            (r#"{ "b" : 1, "a" : [ true, null, -7 ] }"#, r#"{"a":[true,null,-7],"b":1}"#),
            (r#"{"é":1,"z":2,"Z":3}"#, r#"{"Z":3,"z":2,"é":1}"#),
            (r#""a\"b\\c\nd\u00e9""#, "\"a\\\"b\\\\c\ndé\""),
            (r#"{"a":{},"b":[]}"#, r#"{"a":{},"b":[]}"#),
            ("18446744073709551615", "18446744073709551615"),
        ];
        for (input, expected) in cases {
            assert_eq!(canonical(input), expected);
            Json::check(input.as_bytes()).unwrap();
        }
    }

    #[test]
    fn refuses_what_parsers_disagree_about() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let cases = [
            r#"{"a":1,"a":1}"#,
            r#"{"b":{"a":1,"c":[],"\u0061":{}}}"#,
            r#"{"$serde_json::private::RawValue":"{\"a\":1.5}"}"#,
            r#"[{"\u0024serde_json::private::Number":"1"}]"#,
            "1.0",
            "1e3",
            "18446744073709551616",
            r#"{"a":1} x"#,
            "nope",
            "",
            deep.as_str(),
        ];
        for input in cases {
            assert!(Json::parse(input.as_bytes()).is_err(), "{input}");
            assert!(Json::check(input.as_bytes()).is_err(), "{input}");
        }
    }

    #[test]
    fn a_file_is_canonical_unless_strings_hold_control_characters() {
        let value = Json::parse(br#"{"b":"\u00e9/\\\"","a":1}"#).unwrap();
        assert_eq!(value.to_file(), value.canonical());
    }
}
