//! The body of a token request: `application/x-www-form-urlencoded` (RFC 6749 appendix B).

use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
};

use axum::http::{HeaderMap, header::CONTENT_TYPE};

use super::refusal::Refusal;

/// The parameters that were given, each once (section 3.2).
#[derive(Debug)]
pub struct Form<'a>(BTreeMap<Cow<'a, str>, Cow<'a, str>>);

impl<'a> Form<'a> {
    pub fn parse(headers: &HeaderMap, body: &'a [u8]) -> Result<Self, Refusal> {
        if !is_form(headers) {
            return Err(Refusal::NoForm);
        }
        let mut parameters = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(body) {
            // One without a value counts as left out.
            if value.is_empty() {
                continue;
            }
            match parameters.entry(name) {
                Entry::Vacant(place) => place.insert(value),
                Entry::Occupied(_) => return Err(Refusal::Repeated),
            };
        }
        Ok(Self(parameters))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| &**value)
    }

    pub fn required(&self, name: &'static str) -> Result<&str, Refusal> {
        self.get(name).ok_or(Refusal::Missing(name))
    }
}

/// Its parameters, such as a charset, do not matter.
fn is_form(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE);
    let text = value.and_then(|value| value.to_str().ok());
    let essence = text.and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| {
        let essence = essence.trim();
        essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

/// A single text, written as a form writes it.
pub fn decode(text: &str) -> String {
    // Without these two it has no structure, and is one name.
    let whole = text.replace('&', "%26").replace('=', "%3D");
    let first = form_urlencoded::parse(whole.as_bytes()).next();
    first.map_or_else(String::new, |(name, _)| name.into_owned())
}
