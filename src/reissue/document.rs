//! A JSON document out of an answer, and whether it has one meaning only.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::Value;

use crate::error::BoxError;
use crate::json::Pointer;

/// A JSON document, and the names that some object in it has twice.
pub(super) struct Document {
    pub(super) value: Value,
    repeated: BTreeSet<String>,
}

impl Document {
    pub(super) fn parse(text: &[u8]) -> Result<Self, BoxError> {
        if text.trim_ascii().is_empty() {
            return Err("its answer is empty".into());
        }
        // Neither error of the parser goes further: they are about the body.
        let broken = |error: serde_json::Error| {
            if error.is_eof() {
                "the JSON of its answer breaks off"
            } else {
                "its answer is no JSON, or nests too deep"
            }
        };
        let value = serde_json::from_slice(text).map_err(broken)?;
        let mut repeated = BTreeSet::new();
        let names = Repeated(&mut repeated);
        let mut reader = serde_json::Deserializer::from_slice(text);
        names.deserialize(&mut reader).map_err(broken)?;
        Ok(Self { value, repeated })
    }

    pub(super) fn is_unique(&self) -> bool {
        self.repeated.is_empty()
    }

    /// A value whose name occurs twice is none: nobody can say which was meant.
    pub(super) fn take(&mut self, pointer: &Pointer) -> Option<Value> {
        let certain = !pointer.names().any(|name| self.repeated.contains(&name));
        certain.then(|| pointer.take(&mut self.value)).flatten()
    }
}

/// Collects the names that an object has twice, at every depth. Parsers disagree on what such a
/// document says, `serde_json` takes the last; so two programs could read two tokens in it.
struct Repeated<'a>(&'a mut BTreeSet<String>);

impl<'de> DeserializeSeed<'de> for Repeated<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Repeated<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value_seed(Repeated(&mut *self.0))?;
            if let Some(name) = names.replace(name) {
                self.0.insert(name);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Repeated(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeated(text: &str) -> Vec<String> {
        let document = Document::parse(text.as_bytes());
        document.unwrap().repeated.into_iter().collect()
    }

    // shows S8
    #[test]
    fn a_repeated_member_is_found_at_every_depth() {
        assert_eq!(
            repeated(r#"{"a":1,"b":[1,-1,1.5,"a",true,null],"c":{"a":1}}"#),
            [""; 0]
        );
        assert_eq!(repeated(r#"{"a":1,"a":1}"#), ["a"]);
        assert_eq!(
            repeated(r#"{"a":1,"\u0061":1}"#),
            ["a"],
            "however it is written"
        );
        assert_eq!(repeated(r#"[{"x":[{"b":{},"b":{}}]}]"#), ["b"]);
        assert_eq!(repeated(r#"{"a":{"b":1,"b":1},"a":{}}"#), ["a", "b"]);
    }

    // shows S8
    #[test]
    fn deep_nesting_is_refused() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(Document::parse(deep(100).as_bytes()).is_ok());
        assert!(Document::parse(deep(10_000).as_bytes()).is_err());
        assert!(Document::parse("{\"a\":".repeat(10_000).as_bytes()).is_err());
    }
}
