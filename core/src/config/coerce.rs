//! Reads text as the type that a field has: in a ConfigMap every value is text.

use std::fmt;

use serde::{
    de::{self, DeserializeSeed, IntoDeserializer, Visitor, value::StrDeserializer},
    forward_to_deserialize_any,
};
use serde_json::{Map, Value};

use super::keys::{did_you_mean, parse_bool, squeeze, words};

/// Reads a table as `T`.
pub(super) fn from_table<T: de::DeserializeOwned>(table: &Map<String, Value>) -> Result<T, CoerceError> {
    T::deserialize(Coerce(&Value::Object(table.clone())))
}

/// What does not fit, and where.
#[derive(Debug)]
pub(super) struct CoerceError {
    /// From the inside out.
    path: Vec<String>,
    reason: String,
}

impl CoerceError {
    fn new(reason: impl Into<String>) -> Self {
        Self { path: Vec::new(), reason: reason.into() }
    }

    fn within(mut self, key: &str) -> Self {
        self.path.push(key.to_owned());
        self
    }

    /// The key, dots between its levels; empty for the table itself.
    pub(super) fn key(&self) -> String {
        self.path.iter().rev().map(String::as_str).collect::<Vec<_>>().join(".")
    }

    /// What is wrong and what is allowed.
    pub(super) fn reason(self) -> String {
        self.reason
    }
}

impl fmt::Display for CoerceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key(), self.reason)
    }
}

impl std::error::Error for CoerceError {}

impl de::Error for CoerceError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }
}

struct Coerce<'a>(&'a Value);

impl Coerce<'_> {
    fn shown(&self) -> String {
        let text = self.0.to_string();
        if text.chars().count() > 80 { text.chars().take(77).chain("...".chars()).collect() } else { text }
    }

    /// Text that a list or table may be written as: JSON.
    fn json(&self) -> Option<Value> {
        let text = self.0.as_str()?.trim();
        if text.starts_with(['[', '{']) { serde_json::from_str(text).ok() } else { None }
    }
}

/// Reads an integer from a number or from text, with the type's range in the error.
macro_rules! integers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
            let number = match self.0 {
                Value::Number(number) => number.to_string().parse::<$type>().ok(),
                Value::String(text) => text.trim().parse::<$type>().ok(),
                _ => None,
            };
            match number {
                Some(number) => visitor.$visit(number),
                None => Err(CoerceError::new(format!(
                    "{} is no number from {} to {}", self.shown(), <$type>::MIN, <$type>::MAX
                ))),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Coerce<'_> {
    type Error = CoerceError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        self.0.clone().into_deserializer().deserialize_any(visitor).map_err(|error| CoerceError::new(error.to_string()))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        let value = match self.0 {
            Value::Bool(value) => Some(*value),
            Value::String(text) => parse_bool(text.trim()),
            _ => None,
        };
        match value {
            Some(value) => visitor.visit_bool(value),
            None => Err(CoerceError::new(format!("{} is no boolean; write \"true\" or \"false\"", self.shown()))),
        }
    }

    integers!(
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    );

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        let number = match self.0 {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) => visitor.visit_f64(number),
            None => Err(CoerceError::new(format!("{} is no number", self.shown()))),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        match self.0 {
            Value::String(text) => visitor.visit_str(text),
            Value::Number(number) => visitor.visit_string(number.to_string()),
            Value::Bool(value) => visitor.visit_string(value.to_string()),
            _ => Err(CoerceError::new(format!("{} is no text", self.shown()))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CoerceError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        let parsed = self.json();
        let items = match (parsed.as_ref().unwrap_or(self.0), self.0) {
            (Value::Array(items), _) => items.clone(),
            (_, Value::String(text)) => words(text).map(|word| Value::String(word.to_owned())).collect(),
            _ => return Err(CoerceError::new(format!("{} is no list", self.shown()))),
        };
        visitor.visit_seq(Items { items: items.iter().enumerate() })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, CoerceError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        let parsed = self.json();
        let Value::Object(table) = parsed.as_ref().unwrap_or(self.0) else {
            return Err(CoerceError::new(format!("{} is no table", self.shown())));
        };
        visitor.visit_map(Entries {
            entries: table.iter().map(|(key, value)| (key.as_str(), key.as_str(), value)).collect(),
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CoerceError> {
        let parsed = self.json();
        let Value::Object(table) = parsed.as_ref().unwrap_or(self.0) else {
            return Err(CoerceError::new(format!("{} is no table", self.shown())));
        };
        let mut entries: Vec<(&str, &str, &Value)> = Vec::new();
        for (key, value) in table {
            let field = fields
                .iter()
                .find(|field| *field == key)
                .or_else(|| fields.iter().find(|field| squeeze(field) == squeeze(key)))
                .ok_or_else(|| CoerceError::new(no_such_key(key, fields)).within(key))?;
            if let Some((_, other, _)) = entries.iter().find(|(taken, ..)| taken == field) {
                return Err(CoerceError::new(format!("is another spelling of {other}; remove one")).within(key));
            }
            entries.push((field, key, value));
        }
        visitor.visit_map(Entries { entries })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CoerceError> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(StrDeserializer::<CoerceError>::new(text)),
            other => other
                .clone()
                .into_deserializer()
                .deserialize_enum(name, variants, visitor)
                .map_err(|error| CoerceError::new(error.to_string())),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CoerceError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { i128 u128 char bytes byte_buf unit unit_struct tuple_struct identifier }
}

fn no_such_key(key: &str, fields: &[&str]) -> String {
    let hint = did_you_mean(key, fields.iter().map(|field| (*field).to_owned()));
    match (hint, fields) {
        (Some(hint), _) => format!("there is no such key; {hint}"),
        (None, []) => "there is no such key; this backend has no options".to_owned(),
        (None, fields) => format!("there is no such key; there is: {}", fields.join(", ")),
    }
}

struct Items<I> {
    items: I,
}

impl<'de, 'a, I: Iterator<Item = (usize, &'a Value)>> de::SeqAccess<'de> for Items<I> {
    type Error = CoerceError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CoerceError> {
        self.items
            .next()
            .map(|(index, item)| seed.deserialize(Coerce(item)).map_err(|error| error.within(&index.to_string())))
            .transpose()
    }
}

/// Field, key as it was written, value; taken from the end.
struct Entries<'a> {
    entries: Vec<(&'a str, &'a str, &'a Value)>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = CoerceError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, CoerceError> {
        self.entries
            .last()
            .map(|(field, key, _)| {
                seed.deserialize(StrDeserializer::<CoerceError>::new(field)).map_err(|error| error.within(key))
            })
            .transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, CoerceError> {
        let (_, key, value) = self.entries.pop().ok_or_else(|| CoerceError::new("has no value"))?;
        seed.deserialize(Coerce(value)).map_err(|error| error.within(key))
    }
}
