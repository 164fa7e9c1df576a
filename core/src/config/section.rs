//! One backend's own table, as it was written.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::coerce;
use crate::registry::BuildError;

/// The section `backendConfig.<name>`, not yet checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Section {
    backend: String,
    values: Map<String, Value>,
}

impl Section {
    /// A section of the backend with this registry name.
    #[must_use]
    pub fn new(backend: impl Into<String>, values: Map<String, Value>) -> Self {
        Self { backend: backend.into(), values }
    }

    /// Registry name of the backend.
    #[must_use]
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The section as the backend's own config type.
    ///
    /// Text is read as the type of its field, because every value of a ConfigMap is text: `"true"`, `"5"`, and for a
    /// list JSON or words separated by spaces or commas. A key may be spelt as the field or in another case.
    ///
    /// # Errors
    /// `Config`, with the full key, for a value that does not fit and for a key that the type does not know.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, BuildError> {
        coerce::from_table(&self.values).map_err(|error| BuildError::Config {
            backend: self.backend.clone(),
            key: error.key(),
            reason: error.reason(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf};

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default, rename_all = "camelCase")]
    struct Options {
        low_watermark: u16,
        strict: bool,
        ratio: f64,
        name: Option<String>,
        dirs: Vec<PathBuf>,
        mode: Mode,
        inner: Inner,
        labels: BTreeMap<String, u8>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        #[default]
        Fast,
        Safe,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Inner {
        depth: i8,
    }

    fn parse(values: Value) -> Result<Options, String> {
        let Value::Object(values) = values else { panic!("a table") };
        Section::new("demo", values).parse().map_err(|error| error.to_string())
    }

    #[test]
    fn text_is_read_as_the_type_of_its_field() {
        let options = parse(json!({
            "lowWatermark": "5", "strict": "true", "ratio": "0.5", "name": "x", "dirs": "/a,/b", "mode": "safe",
            "inner": {"depth": "-3"}, "labels": {"a": "1"},
        }));
        let expected = Options {
            low_watermark: 5,
            strict: true,
            ratio: 0.5,
            name: Some("x".to_owned()),
            dirs: vec!["/a".into(), "/b".into()],
            mode: Mode::Safe,
            inner: Inner { depth: -3 },
            labels: BTreeMap::from([("a".to_owned(), 1)]),
        };
        assert_eq!(options, Ok(expected));
    }

    #[test]
    fn typed_values_and_json_text_are_taken_too() {
        let options =
            parse(json!({"lowWatermark": 7, "strict": true, "name": 5, "dirs": "[\"/a b\"]"})).expect("valid");
        assert_eq!((options.low_watermark, options.strict), (7, true));
        assert_eq!(options.name.as_deref(), Some("5"));
        assert_eq!(options.dirs, [PathBuf::from("/a b")]);
    }

    #[test]
    fn other_spellings_of_a_field_are_understood() {
        assert_eq!(parse(json!({"low-watermark": "5"})).map(|options| options.low_watermark), Ok(5));
        assert_eq!(parse(json!({"low_watermark": "5"})).map(|options| options.low_watermark), Ok(5));
    }

    #[test]
    fn errors_carry_the_full_key() {
        let cases = [
            (json!({"lowWatermark": "many"}), "backendConfig.demo.lowWatermark: \"many\" is no number from 0 to 65535"),
            (
                json!({"lowWatermark": "70000"}),
                "backendConfig.demo.lowWatermark: \"70000\" is no number from 0 to 65535",
            ),
            (json!({"strict": "ja"}), "backendConfig.demo.strict: \"ja\" is no boolean; write \"true\" or \"false\""),
            (
                json!({"inner": {"depth": "999"}}),
                "backendConfig.demo.inner.depth: \"999\" is no number from -128 to 127",
            ),
            (json!({"labels": {"a": "x"}}), "backendConfig.demo.labels.a: \"x\" is no number from 0 to 255"),
            (json!({"inner": "5"}), "backendConfig.demo.inner: \"5\" is no table"),
            (json!({"mode": "wild"}), "backendConfig.demo.mode: unknown variant `wild`, expected `fast` or `safe`"),
            (
                json!({"lowWatermarc": "5"}),
                "backendConfig.demo.lowWatermarc: there is no such key; did you mean \"lowWatermark\"?",
            ),
            (json!({"inner": {"deep": 1}}), "backendConfig.demo.inner.deep: there is no such key; there is: depth"),
        ];
        for (values, expected) in cases {
            assert_eq!(parse(values.clone()), Err(expected.to_owned()), "{values}");
        }
    }

    #[test]
    fn one_field_in_two_spellings_is_refused() {
        let error = parse(json!({"lowWatermark": "5", "low_watermark": "6"})).expect_err("twice");
        assert_eq!(error, "backendConfig.demo.low_watermark: is another spelling of lowWatermark; remove one");
    }
}
